"""Image, colour, mean velocity and dispersion of one galaxy: what a network is given (Chu et al., Figure 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import DIVERGING_MAP, INTENSITY_MAP, WIDTH_MAP

COLOUR_MAP = "inferno"
DECADES = 4.0
"""The image is shown from its peak down to this many powers of ten."""
BLANK = "white"
"""Not the grey of a velocity of zero."""


def galaxy_maps(
    axes: NDArray[Any],
    r_image: NDArray[np.floating],
    g_r: NDArray[np.floating],
    mean_velocity: NDArray[np.floating],
    dispersion: NDArray[np.floating],
    *,
    occupied: NDArray[np.bool_] | None = None,
    half_width: float = 3.0,
    unit: str = r"$R_\mathrm{hsm}$",
) -> NDArray[Any]:
    """Draw the four panels, left to right.

    Parameters
    ----------
    axes
        Four Axes.
    r_image
        Surface brightness in any linear unit, shape (y, x); shown as log10 of its ratio to the peak.
    g_r
        Colour, mag.
    mean_velocity, dispersion
        Along the line of sight, km/s.
    occupied
        Pixels of the maps that hold stars; those with a dispersion above zero if absent.
    half_width
        Half the width of every map.
    unit
        Unit of ``half_width``.

    Notes
    -----
    NaN, and what has neither light nor stars, is left blank; so is a dispersion of zero, that of a single star. The image's colour scale
    ends at the peak; the others span 2 to 98 % of what is left, and that of the velocity is symmetric. A map of one value says so.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        light = np.log10(r_image / np.nanmax(r_image))
    bright = light >= -DECADES
    panels = (
        (np.where(bright, light, np.nan), "log(r light / peak)", INTENSITY_MAP),
        (np.where(bright, g_r, np.nan), "g − r (mag)", COLOUR_MAP),
        (np.where(dispersion > 0 if occupied is None else occupied, mean_velocity, np.nan), "mean velocity (km/s)", DIVERGING_MAP),
        (np.where(dispersion > 0, dispersion, np.nan), "dispersion (km/s)", WIDTH_MAP),
    )
    for number, (panel, (image, label, colours)) in enumerate(zip(axes.flat, panels, strict=True)):
        limits = (-DECADES, 0.0) if colours == INTENSITY_MAP else _limits(image, symmetric=colours == DIVERGING_MAP)
        _panel(panel, image, limits, label=label, colours=colours, half_width=half_width)
        panel.set_xlabel(f"x ({unit})")
        panel.tick_params(labelleft=number == 0)
    axes.flat[0].set_ylabel(f"y ({unit})")
    return axes


def _limits(image: NDArray[np.floating], *, symmetric: bool) -> tuple[float, float]:
    """Ends of a colour scale; equal where the map has one value, or none."""
    inside = image[np.isfinite(image)]
    low, high = (float(edge) for edge in np.quantile(inside, [0.02, 0.98])) if inside.size else (0.0, 0.0)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if symmetric else (low, high)


def _panel(axes: Axes, image: NDArray[np.floating], limits: tuple[float, float], *, label: str, colours: str, half_width: float) -> None:
    """One map with its colour bar above."""
    low, high = limits
    if high - low <= 1e-6 * abs(high):
        words = f"{low:.3g} everywhere" if np.isfinite(image).any() else "none"
        axes.annotate(words, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=7)
        low, high = low - 0.5, high + 0.5
    extent = (-half_width, half_width, -half_width, half_width)
    picture = axes.imshow(image, extent=extent, origin="lower", cmap=colours, vmin=low, vmax=high, rasterized=True)
    axes.set_facecolor(BLANK)
    axes.locator_params(nbins=5)
    axes.tick_params(color="0.3")
    bar = axes.figure.colorbar(picture, ax=axes, location="top", label=label, fraction=0.05, pad=0.02)
    bar.ax.locator_params(nbins=5)
