"""What a prior on the stars' mass met: prior, data and posterior of that mass, and the black hole's mass with the prior and without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.plots.style import BLACK_HOLE, MUTED, STARS, TOTAL, TRUTH

Normal = tuple[float, float]
"""Mean and standard deviation, dex."""

REACH = 3.5
"""Standard deviations of a curve that are drawn."""

HEADROOM = 1.45
"""Height of the panel over that of what is drawn: room for the legend."""


def stellar_mass(axes: Axes, draws: NDArray[np.floating], *, prior: Normal, data: Normal | None, truth: float | None = None) -> Axes:
    """Draw log10 of the stars' mass: the prior and what the data alone say as normal curves, the posterior's draws as a histogram."""
    counts, edges = np.histogram(draws, bins=25, density=True)
    axes.stairs(counts, edges, color=STARS, fill=True, alpha=0.45, label="data and prior")
    ends = [prior[0] - REACH * prior[1], prior[0] + REACH * prior[1], edges[0], edges[-1]]
    ends += [] if data is None else [data[0] - 2.0 * data[1], data[0] + 2.0 * data[1]]
    grid = np.linspace(min(ends), max(ends), 600)
    axes.plot(grid, norm.pdf(grid, *prior), color=MUTED, linestyle="--", label="prior")
    if data is not None:
        axes.plot(grid, norm.pdf(grid, *data), color=TOTAL, linestyle=":", label="data alone")
    if truth is not None:
        axes.axvline(truth, ymax=1.0 / HEADROOM, color=TRUTH, linewidth=1.2, linestyle="--", label="truth")
    axes.set(xlabel=r"$\log_{10}(M_\star/M_\odot)$ in the aperture", yticks=[], xlim=(grid[0], grid[-1]))
    axes.set_ylim(0.0, HEADROOM * axes.get_ylim()[1])
    axes.legend(loc="upper right", ncols=2, handlelength=1.8)
    return axes


def held_masses(axes: Axes, rows: Sequence[tuple[str, float, float, float]], *, truth: float | None = None) -> Axes:
    """Draw median and 68 % interval of log10 of the black hole's mass, one ``(name, median, low, high)`` a row."""
    for place, (_, median, low, high) in enumerate(reversed(rows)):
        axes.errorbar(median, place, xerr=[[median - low], [high - median]], fmt="o", color=BLACK_HOLE, markersize=4, capsize=3)
    if truth is not None:
        axes.axvline(truth, color=TRUTH, linewidth=1.2, linestyle="--")
    axes.set(xlabel=r"$\log_{10}(M_\mathrm{BH}/M_\odot)$", ylim=(-0.6, len(rows) - 0.4))
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.15)
    return axes
