"""A map of the sky: east to the left, offsets in arcsec, colour bar with its unit, beam in the corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.data_reduction.images import Beam
from supermage.plots.beam import draw_beam
from supermage.plots.style import INTENSITY_MAP


def sky_map(
    axes: Axes,
    image: NDArray[np.floating],
    axis: NDArray[np.floating],
    *,
    limits: tuple[float, float],
    unit: str | None = None,
    colour_map: str = INTENSITY_MAP,
    beam: Beam | None = None,
    title: str = "",
    half_width: float | None = None,
    centre: tuple[float, float] = (0.0, 0.0),
    label: Literal["both", "x", "y", "none"] = "both",
    contours: Sequence[float] = (),
    ticks: int = 5,
) -> Axes:
    """Draw one image.

    Parameters
    ----------
    image
        Shape (y, x), y growing north and x growing east; NaN is left blank.
    axis
        Pixel centres, arcsec.
    limits
        Lower and upper end of the colour scale, in ``unit``.
    unit
        Label of the colour bar; none is drawn when absent.
    beam
        Drawn in the lower left corner.
    half_width
        Half the width of the field that is shown, arcsec; the whole image when absent.
    centre
        Middle of the field that is shown, arcsec east and north.
    label
        Which axes are named.
    contours
        Levels drawn as thin lines.
    ticks
        Most intervals between ticks.
    """
    half = 0.5 * (axis[1] - axis[0])
    extent = (axis[0] - half, axis[-1] + half, axis[0] - half, axis[-1] + half)
    picture = axes.imshow(image, extent=extent, origin="lower", cmap=colour_map, vmin=limits[0], vmax=limits[1], rasterized=True)
    axes.set_facecolor("#e8e8e8")
    if contours:
        axes.contour(axis, axis, image, levels=sorted(contours), colors="black", linewidths=0.4)
    reach = float(axis[-1] + half) if half_width is None else half_width
    east, north = centre
    axes.set(xlim=(east + reach, east - reach), ylim=(north - reach, north + reach), title=title)
    _name_axes(axes, label, ticks)
    if beam is not None:
        draw_beam(axes, beam)
    if unit is not None:
        axes.figure.colorbar(picture, ax=axes, label=unit, fraction=0.046, pad=0.02)
    return axes


def _name_axes(axes: Axes, label: Literal["both", "x", "y", "none"], ticks: int) -> None:
    """Name the axes asked for, and take the tick labels from the others."""
    axes.locator_params(nbins=ticks)
    axes.tick_params(color="0.3", labelbottom=label in ("both", "x"), labelleft=label in ("both", "y"))
    if label in ("both", "x"):
        axes.set_xlabel("East offset (arcsec)")
    if label in ("both", "y"):
        axes.set_ylabel("North offset (arcsec)")
