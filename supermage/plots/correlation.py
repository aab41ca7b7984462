"""Matrix of correlation coefficients between features and targets (Chu et al., Figure 10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.feature_gain import symbol
from supermage.plots.style import DIVERGING_MAP

CROWDED = 20
"""With more rows than these the numbers are left out: they would touch."""


def correlation(axes: Axes, matrix: NDArray[np.floating], names: Sequence[str], *, features: int | None = None) -> Axes:
    """Draw the lower triangle, -1 blue to 1 red, with each coefficient written in its cell.

    Parameters
    ----------
    matrix
        Shape (name, name); NaN is left grey.
    names
        Canonical names in the order of the matrix.
    features
        How many of them are features: a line divides these from the targets.
    """
    rows = len(names)
    shown = np.where(np.tri(rows, dtype=bool), matrix, np.nan)
    picture = axes.imshow(shown, cmap=DIVERGING_MAP, vmin=-1.0, vmax=1.0, origin="upper")
    for row, column in np.argwhere(np.tri(rows, dtype=bool)):
        value = float(matrix[row, column])
        if not np.isfinite(value):
            axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color="0.85", linewidth=0)
        elif rows <= CROWDED and row != column:
            words, ink = f"{round(value, 2) + 0.0:.2f}".replace("-", "−"), "white" if abs(value) > 0.75 else "black"
            axes.text(column, row, words, ha="center", va="center", fontsize=min(7.0, 90.0 / rows), color=ink)
    if features is not None:
        edge = features - 0.5
        axes.plot([-0.5, edge], [edge, edge], color="black", linewidth=0.8)
        axes.plot([edge, edge], [edge, rows - 0.5], color="black", linewidth=0.8)
    labels = [symbol(name) for name in names]
    axes.set_xticks(range(rows), labels, rotation=90)
    axes.set_yticks(range(rows), labels)
    axes.tick_params(length=0, top=False, right=False)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(picture, ax=axes, label="correlation coefficient", fraction=0.04, pad=0.02, shrink=0.8)
    return axes
