"""One parameter's posterior over its uniform prior."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import BLACK_HOLE, MUTED, TRUTH


def marginal(axes: Axes, draws: NDArray[np.floating], *, prior: tuple[float, float], label: str, truth: float | None = None) -> Axes:
    """Draw the posterior's histogram over the whole prior range, the prior as a grey step, and the truth of a mock."""
    lower, upper = prior
    axes.fill_between([lower, upper], 0, 1 / (upper - lower), color="0.85", linewidth=0)
    counts, edges = np.histogram(draws, bins=40, density=True)
    axes.stairs(counts, edges, color=BLACK_HOLE, fill=True, alpha=0.5)
    axes.stairs(counts, edges, color=BLACK_HOLE, linewidth=0.7)
    if truth is not None:
        axes.axvline(truth, color=TRUTH, linewidth=1.0, linestyle="--")
    for edge in prior:
        axes.axvline(edge, color=MUTED, linewidth=0.5)
    axes.set(xlabel=label, yticks=[], ylim=(0, None))
    axes.locator_params(axis="x", nbins=4)
    return axes
