"""One parameter's posterior over its uniform prior."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import BLACK_HOLE, MUTED, TRUTH

NARROW = 0.05
"""Posterior over prior width below which the panel shows the posterior alone."""


def marginal(
    axes: Axes, draws: NDArray[np.floating], *, prior: tuple[float, float], label: str, truth: float | None = None,
    turn: tuple[float, float] | None = None,
) -> Axes:  # fmt: skip
    """Draw the posterior's histogram over the prior (grey), and the truth of a mock.

    The panel spans the whole prior, or, where the 68 % interval is below 5 % of the prior's, the posterior, with the prior in words.
    ``turn`` holds the draws of an angle whose prior is the whole circle: the grey is drawn there, and has no edges.
    """
    lower, upper = prior if turn is None else turn
    axes.fill_between([lower, upper], 0, 1 / (upper - lower), color="0.85", linewidth=0)
    counts, edges = np.histogram(draws, bins=40, density=True)
    axes.stairs(counts, edges, color=BLACK_HOLE, fill=True, alpha=0.5)
    axes.stairs(counts, edges, color=BLACK_HOLE, linewidth=0.7)
    if truth is not None:
        axes.axvline(truth, color=TRUTH, linewidth=1.0, linestyle="--")
    for edge in prior if turn is None else ():
        axes.axvline(edge, color=MUTED, linewidth=0.5)
    axes.set(xlabel=label, yticks=[], ylim=(0, None))
    axes.locator_params(axis="x", nbins=4)
    low, high = np.quantile(draws, [0.16, 0.84])
    if high - low < NARROW * 0.68 * (upper - lower):
        _zoom(axes, draws, prior, truth if truth is not None and lower <= truth <= upper else None)
    return axes


def _zoom(axes: Axes, draws: NDArray[np.floating], prior: tuple[float, float], truth: float | None) -> None:
    """Show the draws and the truth, and say the prior in the panel."""
    shown = [float(draws.min()), float(draws.max()), *([] if truth is None else [truth])]
    margin = 0.15 * (max(shown) - min(shown))
    axes.locator_params(axis="x", nbins=3)
    axes.set(xlim=(min(shown) - margin, max(shown) + margin), ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.annotate(
        f"prior {prior[0]:.4g} to {prior[1]:.4g}".replace("-", "−"),
        (0.05, 0.92),
        xycoords="axes fraction",
        ha="left",
        va="top",
        fontsize=6,
        color=MUTED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )
