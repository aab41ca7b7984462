"""Corner plot of any number of parameters (Yantovski-Barth et al., Figure 4), drawn by the package corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from supermage.plots.style import BLACK_HOLE, TRUTH

TICKS = 4
CROWDED = 15
"""More parameters than these need smaller labels."""
BEYOND = 0.05
"""Of the axis, left beyond a truth that it was widened for."""


def corner(
    axes: NDArray[Any],
    draws: NDArray[np.floating],
    *,
    labels: Sequence[str],
    truth: Sequence[float | None] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
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
        True values of a mock, or others to compare with; an axis whose range holds them not is widened, its bins and contours are not.
    ranges
        Lower and upper end of each parameter's axis, which contours do not cross: no more than its prior. Those of the draws if absent.
    small
        Draw for many parameters: fewer bins, no tick labels, symbols only along the edges.
    """
    from corner import corner as draw_corner

    first: Axes = axes.flat[0]
    draw_corner(
        draws,
        fig=first.figure,
        labels=list(labels),
        truths=None if truth is None or len(axes) == 1 else list(truth),
        truth_color=TRUTH,
        color=BLACK_HOLE,
        range=[(float(low), float(high)) for low, high in zip(draws.min(axis=0), draws.max(axis=0), strict=True)]
        if ranges is None
        else list(ranges),
        bins=18 if small else 25,
        smooth=1.0,
        levels=(0.68, 0.95),
        plot_datapoints=False,
        plot_density=not small,
        max_n_ticks=0 if small else TICKS,
        hist_kwargs={"linewidth": 0.8},
        contour_kwargs={"linewidths": 0.6},
        fill_contours=not small,
        quiet=True,
        label_kwargs={"fontsize": 8},
        labelpad=0.0,
    )
    if truth is not None and truth[0] is not None and len(axes) == 1:
        # the package cannot draw it where there is one panel
        first.axvline(truth[0], color=TRUTH)
    for number, value in enumerate(truth or ()):
        if value is not None:
            _widen(axes, number, value)
    _tidy(axes, small=small)
    return axes


def _widen(axes: NDArray[Any], number: int, value: float) -> None:
    """Let every axis of one parameter reach a value."""
    low, high = axes[number, number].get_xlim()
    room = BEYOND * (max(high, value) - min(low, value))
    limits = value - room if value < low else low, value + room if value > high else high
    panel: Axes
    for panel in axes[number:, number]:
        panel.set_xlim(limits)
    for panel in axes[number, :number]:
        panel.set_ylim(limits)


def _tidy(axes: NDArray[Any], *, small: bool) -> None:
    """Thin lines and small tick labels that keep clear of each other and of the panel's corners."""
    size = 7.0 if len(axes) <= CROWDED else 5.5
    # in units of a panel, which is wider the fewer there are
    narrow = min(1.0, len(axes) / 7.0)
    panel: Axes
    for panel in axes.flat:
        panel.tick_params(labelsize=6, length=1.5 if small else 2.5, direction="in")
        for line in panel.lines:
            line.set(linewidth=0.8, markersize=0)
        if small:
            panel.xaxis.label.set_fontsize(size)
            panel.yaxis.label.set_fontsize(size)
            panel.tick_params(labelbottom=False, labelleft=False)
            continue
        for axis in (panel.xaxis, panel.yaxis):
            if len(axis.get_major_locator()()):
                axis.set_major_locator(_Inside(TICKS))
        panel.tick_params(labelrotation=0)
        panel.xaxis.set_label_coords(0.5, -0.26 * narrow)
        panel.yaxis.set_label_coords(-0.4 * narrow, 0.5)


class _Inside(MaxNLocator):
    """Few ticks, none within an eighth of the axis from its ends, where the labels of neighbouring panels would meet."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        ticks = np.asarray(super().tick_values(vmin, vmax))
        margin = (vmax - vmin) / 8.0
        inside = ticks[(ticks >= vmin + margin) & (ticks <= vmax - margin)]
        return [float(tick) for tick in (inside if inside.size else ticks)]
