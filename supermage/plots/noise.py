"""The noise check: the whitened residuals against a unit normal."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.plots.style import BLACK_HOLE, DATA


def noise_histogram(axes: Axes, residual: NDArray[np.floating]) -> Axes:
    """Histogram of whitened residuals (unit normal if model and noise are right), on a logarithmic scale so that the tails show."""
    edges = np.linspace(-6.0, 6.0, 61)
    width = edges[1] - edges[0]
    middle = 0.5 * (edges[1:] + edges[:-1])
    counts, _ = np.histogram(residual, bins=edges)
    expected = residual.size * width * norm.pdf(middle)
    axes.stairs(np.maximum(counts, 0.3), edges, color=DATA, linewidth=0.9, label="residual")
    axes.plot(middle, expected, color=BLACK_HOLE, linewidth=1.0, linestyle="--", label="unit normal")
    axes.set(
        yscale="log",
        xlabel="Whitened residual (standard deviations)",
        ylabel=f"Data per {width:.1f}",
        xlim=(-6, 6),
        ylim=(0.5, 6.0 * max(float(counts.max()), 1.0)),
    )
    axes.legend(loc="upper left", ncols=2)
    return axes
