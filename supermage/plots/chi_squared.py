"""Residual chi^2 per datum against channel or baseline length, with what pure noise would give."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import DATA, MODEL, MUTED

Array = NDArray[np.floating]


def chi_squared(axes: Axes, position: Array, value: Array, count: NDArray[np.integer] | Array, *, label: str,
                draws: Array | None = None) -> Axes:
    """Draw chi^2 per datum with its 95 % range under pure noise.

    Parameters
    ----------
    position
        Velocity (km/s) or baseline length, ascending.
    value
        Chi^2 per datum in each bin.
    count
        Data in each bin: the spread under pure noise is sqrt(2 / count).
    label
        Name and unit of the horizontal axis.
    draws
        Chi^2 per datum of several posterior draws, shape (draw, bin): a band of their central 95 %.
    """
    spread = 2.0 * np.sqrt(2.0 / np.maximum(count, 1))
    order = np.argsort(position)
    axes.fill_between(position[order], 1 - spread[order], 1 + spread[order], color="0.86", linewidth=0, label="95 % under pure noise")
    axes.axhline(1.0, color=MUTED, linewidth=0.6)
    if draws is not None:
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        axes.fill_between(position[order], low[order], high[order], color=MODEL, alpha=0.6, linewidth=0, label="95 % of the draws")
    name = "residual" if draws is None else "best draw"
    axes.plot(position[order], value[order], color=DATA, marker="o", markersize=2.2, linewidth=0.5, label=name)
    axes.set(xlabel=label, ylabel=r"$\chi^2$ per datum")
    reach = 1.15 * max(float(np.max(np.abs(value - 1))), float(np.max(spread)))
    axes.set_ylim(1 - reach, 1 + 1.5 * reach)
    axes.legend(loc="upper left", ncols=2)
    return axes
