"""Rank histogram of one parameter: uniform in every chain when the chains have mixed (Vehtari et al. 2021)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import rankdata

from supermage.plots.style import CHAINS, MUTED


def rank(axes: Axes, draws: NDArray[np.floating], *, label: str, bins: int = 20) -> Axes:
    """Draw each chain's histogram of ranks among all draws, relative to its uniform expectation; ``draws`` is (chain, draw)."""
    ranks = rankdata(draws, method="average").reshape(draws.shape) / draws.size
    edges = np.linspace(0.0, 1.0, bins + 1)
    for chain, values in enumerate(ranks):
        counts, _ = np.histogram(values, bins=edges)
        axes.stairs(counts * bins / draws.shape[1], edges, color=CHAINS[chain % len(CHAINS)], linewidth=0.8)
    axes.axhline(1.0, color=MUTED, linewidth=0.5, linestyle="--")
    axes.set(ylabel=label, xlim=(0, 1), ylim=(0, None))
    axes.locator_params(axis="y", nbins=3)
    return axes
