"""Predicted against true values, with contours and the histogram of residuals (Chu et al., Figures 6 - 9, 11 and 12)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from supermage.plots.feature_gain import feature_gain
from supermage.plots.style import CHAINS, TRUTH

SHARES = (0.9, 0.6, 0.3)
"""Shares of the points that the contours hold."""
CELLS = 60
FEW = 100
"""With fewer points no contours are drawn."""
PLAIN = 2000
"""More points than these are drawn fainter."""
GAIN_BARS = 5


def prediction(
    axes: Axes,
    true: NDArray[np.floating],
    predicted: NDArray[np.floating],
    *,
    label: str,
    unit: str = "dex",
    gain: Mapping[str, float] | None = None,
    colour: str = CHAINS[0],
) -> Axes:
    """Draw the points of a test set about the line of equality.

    Parameters
    ----------
    true, predicted
        Shape (row,), log10 where ``unit`` is dex; rows that lack either are passed over.
    label
        Symbol and unit of the quantity.
    unit
        Of the residuals.
    gain
        Feature -> share of the total gain: bars in the upper left corner.
    colour
        Of the points.
    """
    both = np.isfinite(true) & np.isfinite(predicted)
    x, y = np.asarray(true, dtype=np.float64)[both], np.asarray(predicted, dtype=np.float64)[both]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * max(high - low, 1e-6)
    limits = (low - margin, high + margin)
    faint = 0.6 * min(1.0, float(np.sqrt(PLAIN / max(len(x), 1))))
    axes.plot(x, y, ".", color=colour, markersize=2.4, markeredgewidth=0, alpha=faint, rasterized=True)
    axes.plot(limits, limits, color=TRUTH, linewidth=0.9)
    if len(x) >= FEW:
        _contours(axes, x, y - x)
    axes.set(xlim=limits, ylim=limits, xlabel=f"true {label}", ylabel=f"predicted {label}", aspect="equal")
    axes.locator_params(nbins=5)
    _residuals(axes.inset_axes((0.66, 0.1, 0.31, 0.27)), y - x, unit=unit, colour=colour)
    if gain is not None:
        inset = feature_gain(axes.inset_axes((0.14, 0.655, 0.27, 0.28)), gain, most=GAIN_BARS, colour="0.6", size=5.5)
        inset.set(xticks=[], xlabel="")
        inset.set_title("share of gain", fontsize=5.5, pad=1.5)
        inset.patch.set_alpha(0.0)
        inset.spines["bottom"].set_visible(False)
    return axes


def _contours(axes: Axes, x: NDArray[np.float64], left: NDArray[np.float64]) -> None:
    """Contours of the smoothed density, found in (true, residual), where the relation is as wide as it is long."""
    reach = np.quantile(np.abs(left), 0.99) * 1.5 + 1e-9
    edges = np.linspace(x.min(), x.max(), CELLS + 1), np.linspace(-reach, reach, CELLS + 1)
    counts, *_ = np.histogram2d(x, left, bins=edges)
    counts = gaussian_filter(np.pad(counts, 6), CELLS / 20.0)
    across, along = (_centres(edge, 6) for edge in (edges[1], edges[0]))
    ordered = np.sort(counts.ravel())[::-1]
    total = np.cumsum(ordered) / ordered.sum()
    levels = [float(ordered[np.searchsorted(total, share)]) for share in SHARES]
    true, residual = np.meshgrid(along, across, indexing="ij")
    if all(second > first for first, second in pairwise(levels)):
        axes.contour(true, true + residual, counts, levels=levels, colors="0.15", linewidths=0.5)


def _centres(edges: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """Centres of the cells and of some more on either side."""
    width = edges[1] - edges[0]
    return edges[0] + (np.arange(-more, len(edges) - 1 + more) + 0.5) * width


def _residuals(axes: Axes, left: NDArray[np.float64], *, unit: str, colour: str) -> None:
    """Histogram of the residuals, with mean and 1 sigma dashed and written above."""
    mean, sigma = float(left.mean()), float(left.std())
    reach = 4.0 * max(sigma, 1e-9)
    axes.hist(np.clip(left, mean - reach, mean + reach), bins=32, range=(mean - reach, mean + reach), color=colour, alpha=0.55, linewidth=0)
    for edge in (mean - sigma, mean + sigma):
        axes.axvline(edge, color=TRUTH, linewidth=0.7, linestyle="--")
    # rounded before it is written, or a small negative mean is "-0.00"
    axes.set_title(f"{round(mean, 2) + 0.0:.2f} ± {sigma:.3f} {unit}".replace("-", "−"), fontsize=6, pad=2)
    axes.set(yticks=[], xlim=(mean - reach, mean + reach))
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(labelsize=5.5, length=2, top=False, right=False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.patch.set_alpha(0.0)
