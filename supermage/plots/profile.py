"""Radial profiles with credible bands: circular velocity, enclosed mass, surface density (Yantovski-Barth et al., Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from supermage.plots.style import MUTED

Array = NDArray[np.floating]
INNER_ALPHA, OUTER_ALPHA = 0.32, 0.16
TAIL_ESS_FOR_THREE_SIGMA = 4000.0
"""Below this tail effective sample size a 99.7 % band rests on a handful of draws, so 95 % is shown instead."""


@dataclass(frozen=True)
class Curve:
    """One component of a profile: draws of shape (draw, radius), a name, a colour and a line style."""

    name: str
    draws: Array
    colour: str
    style: str = "-"


def outer_level(tail_ess: float) -> tuple[float, str]:
    """Level of the outer band (a fraction) and its label: 3 sigma only where the tail effective sample size exceeds 4000, else 95 %."""
    return (0.9973, r"3$\sigma$") if tail_ess > TAIL_ESS_FOR_THREE_SIGMA else (0.95, "95 %")


def band(draws: Array, level: float) -> tuple[Array, Array]:
    """Central credible band of ``draws`` (draw, radius) at each radius."""
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return low, high


def profile(
    axes: Axes,
    radius: Array,
    curves: tuple[Curve, ...],
    *,
    label: str,
    tail_ess: float,
    truth: Mapping[str, Array] | None = None,
) -> Axes:
    """Draw the median, the 68 % band and the outer band of every curve against radius (arcsec), both axes logarithmic.

    Parameters
    ----------
    radius
        Arcsec, shape (radius,).
    label
        Name and unit of the vertical axis.
    tail_ess
        Smallest tail effective sample size: decides whether the outer band is 3 sigma or 95 %.
    truth
        True curve of a mock, by the name of the component.
    """
    level, name = outer_level(tail_ess)
    for curve in curves:
        for part, alpha in ((level, OUTER_ALPHA), (0.68, INNER_ALPHA)):
            low, high = band(curve.draws, part)
            axes.fill_between(radius, low, high, color=curve.colour, alpha=alpha, linewidth=0)
        axes.plot(radius, np.median(curve.draws, axis=0), color=curve.colour, linestyle=curve.style, label=curve.name)
        if truth is not None and curve.name in truth:
            axes.plot(radius, truth[curve.name], color=curve.colour, linestyle=(0, (1, 1.2)), linewidth=1.4)
    if truth is not None:
        axes.plot([], [], color=MUTED, linestyle=(0, (1, 1.2)), linewidth=1.4, label="truth")
    _name_bands(axes, name)
    axes.set(xscale="log", yscale="log", xlim=(radius[0], radius[-1]), xlabel="Radius (arcsec)", ylabel=label)
    return axes


def _name_bands(axes: Axes, outer: str) -> None:
    """Entries of the legend for the two bands, whose inner one lies upon the outer."""
    for label, alpha in (("68 %", 1 - (1 - INNER_ALPHA) * (1 - OUTER_ALPHA)), (outer, OUTER_ALPHA)):
        axes.fill([], [], color=MUTED, alpha=alpha, linewidth=0, label=label)


def label_few_decades(axes: Axes) -> Axes:
    """Label the vertical axis at 1, 2 and 5 of every decade, in plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return axes


def mark_radii(axes: Axes, *, beam: float, emulator: tuple[float, float], pc_per_arcsec: float) -> Axes:
    """Mark half the beam, shade radii outside the emulator's range (arcsec), and add an upper axis in pc."""
    left, right = axes.get_xlim()
    axes.axvline(beam / 2, color=MUTED, linewidth=0.8, linestyle="--")
    axes.annotate(
        "half beam",
        (beam / 2, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-2, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="bottom",
        fontsize=7,
        color=MUTED,
    )
    for low, high in ((left, min(emulator[0], right)), (max(emulator[1], left), right)):
        if low < high:
            axes.axvspan(low, high, facecolor="none", edgecolor="0.75", hatch="////", linewidth=0, zorder=0)
            if np.log(high / low) > 0.12 * np.log(right / left):
                axes.annotate(
                    "beyond the emulator",
                    ((low * high) ** 0.5, 0.5),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=MUTED,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
                )
    axes.set_xlim(left, right)
    scale: Any = pc_per_arcsec
    upper = axes.secondary_xaxis("top", functions=(lambda x: np.multiply(x, scale), lambda x: np.divide(x, scale)))
    upper.set_xlabel("Radius (pc)")
    axes.tick_params(which="both", top=False)
    return axes
