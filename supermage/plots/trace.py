"""Trace of one parameter: every chain's draws in order."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import CHAINS


def trace(axes: Axes, draws: NDArray[np.floating], *, label: str, points: int = 300) -> Axes:
    """Draw ``draws`` of shape (chain, draw), thinned evenly to at most ``points`` a chain."""
    step = max(1, -(-draws.shape[1] // points))
    for chain, values in enumerate(draws):
        axes.plot(np.arange(draws.shape[1])[::step], values[::step], color=CHAINS[chain % len(CHAINS)], linewidth=0.4, alpha=0.8)
    axes.set(ylabel=label, xlim=(0, draws.shape[1]))
    axes.locator_params(axis="y", nbins=3)
    return axes
