"""Corner plot of any number of parameters (Yantovski-Barth et al., Figure 4), drawn by the package corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import BLACK_HOLE, TRUTH

CROWDED = 15
"""More parameters than these need smaller labels."""


def corner(
    axes: NDArray[Any],
    draws: NDArray[np.floating],
    *,
    labels: Sequence[str],
    truth: Sequence[float | None] | None = None,
    small: bool = False,
) -> NDArray[Any]:
    """Draw a corner plot on a square array of Axes, which must be all that their figure holds.

    Parameters
    ----------
    axes
        Axes of shape (param, param).
    draws
        Shape (draw, param); subtract large constants first, or tick labels grow.
    labels
        Symbol and unit of each parameter.
    truth
        True values of a mock.
    small
        Draw for many parameters: fewer bins, no tick labels, symbols only along the edges.
    """
    from corner import corner as draw_corner

    first: Axes = axes.flat[0]
    draw_corner(
        draws,
        fig=first.figure,
        labels=list(labels),
        truths=None if truth is None else list(truth),
        truth_color=TRUTH,
        color=BLACK_HOLE,
        bins=18 if small else 25,
        smooth=1.0,
        levels=(0.68, 0.95),
        plot_datapoints=False,
        plot_density=not small,
        max_n_ticks=0 if small else 3,
        hist_kwargs={"linewidth": 0.8},
        contour_kwargs={"linewidths": 0.6},
        fill_contours=not small,
        quiet=True,
        label_kwargs={"fontsize": 8},
        labelpad=0.0,
    )
    size = 7.0 if len(axes) <= CROWDED else 5.5
    panel: Axes
    for panel in axes.flat:
        panel.tick_params(labelsize=6, length=1.5 if small else 2.5, direction="in")
        for line in panel.lines:
            line.set(linewidth=0.8, markersize=0)
        if small:
            panel.xaxis.label.set_fontsize(size)
            panel.yaxis.label.set_fontsize(size)
            panel.tick_params(labelbottom=False, labelleft=False)
    return axes
