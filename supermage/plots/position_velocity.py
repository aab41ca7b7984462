"""Position-velocity diagram along the major axis; positive offsets are on the receding side."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from supermage.plots.style import DIVERGING_MAP, INTENSITY_MAP, MODEL, MUTED

Array = NDArray[np.floating]


def major_axis_slice(
    cube: Array, axis: Array, *, position_angle: float, centre: tuple[float, float], width: float, reach: float
) -> tuple[Array, Array]:
    """Cut a cube along a line on the sky.

    Parameters
    ----------
    cube
        Shape (chan, y, x).
    axis
        Pixel centres, arcsec, x growing east.
    position_angle
        Of the receding major axis, degrees east of north.
    centre
        East and north offset of the line's middle, arcsec.
    width
        Width of the slit that is averaged over, arcsec.
    reach
        Half the length of the line, arcsec.

    Returns
    -------
    offset, slice
        Offsets along the line, arcsec, positive towards the receding side, shape (offset,); the cut, shape (chan, offset).
    """
    pixel = float(axis[1] - axis[0])
    offset = np.arange(-math.floor(reach / pixel), math.floor(reach / pixel) + 1) * pixel
    n_across = max(1, round(width / pixel))
    across = (np.arange(n_across) - (n_across - 1) / 2) * pixel
    east, north = math.sin(math.radians(position_angle)), math.cos(math.radians(position_angle))
    x = centre[0] + offset[None] * east - across[:, None] * north
    y = centre[1] + offset[None] * north + across[:, None] * east
    where = np.array([(y - axis[0]) / pixel, (x - axis[0]) / pixel])
    return offset, np.array([map_coordinates(plane, where, order=1, mode="constant").mean(axis=0) for plane in cube])


def position_velocity(
    axes: Axes,
    offset: Array,
    velocity: Array,
    image: Array,
    *,
    limits: tuple[float, float],
    unit: str | None,
    residual: bool = False,
    contours: Array | None = None,
    levels: Array | None = None,
    systemic_velocity: float | None = None,
    curve: tuple[Array, Array] | None = None,
    beam: float | None = None,
    velocity_label: str = "Velocity (km/s)",
    title: str = "",
    named: bool = True,
) -> Axes:
    """Draw a position-velocity diagram.

    Parameters
    ----------
    offset, velocity
        Arcsec and km/s.
    image
        Shape (velocity, offset).
    limits
        Ends of the colour scale in ``unit``.
    residual
        Whether to take a map of colours with white at zero.
    contours, levels
        Another diagram of the same shape and the levels at which it is contoured.
    systemic_velocity
        Drawn as a thin line, with another at the centre.
    curve
        Radius (arcsec) and projected circular velocity (km/s), drawn on both sides.
    beam
        Width of the beam, drawn as a bar, arcsec.
    """
    picture = axes.pcolormesh(
        offset,
        velocity,
        image,
        cmap=DIVERGING_MAP if residual else INTENSITY_MAP,
        rasterized=True,
        shading="nearest",
        vmin=limits[0],
        vmax=limits[1],
    )
    if contours is not None and levels is not None:
        axes.contour(offset, velocity, contours, levels=levels, colors=MODEL, linewidths=0.7)
    frame = axes.get_xlim(), axes.get_ylim()
    if systemic_velocity is not None:
        _draw_guides(axes, systemic_velocity, curve, colour=MUTED if residual else "white")
    axes.set(xlim=frame[0], ylim=frame[1], xlabel="Offset along the major axis (arcsec)", title=title)
    if named:
        axes.set_ylabel(velocity_label)
    else:
        axes.tick_params(labelleft=False)
    if beam is not None:
        _draw_beam_bar(axes, beam, colour="black" if residual else "white")
    if unit is not None:
        axes.figure.colorbar(picture, ax=axes, label=unit, fraction=0.046, pad=0.02)
    return axes


def _draw_guides(axes: Axes, systemic_velocity: float, curve: tuple[Array, Array] | None, *, colour: str) -> None:
    """Thin lines through the centre, and the rotation curve on both sides."""
    axes.axhline(systemic_velocity, color="0.6", linewidth=0.5)
    axes.axvline(0.0, color="0.6", linewidth=0.5)
    if curve is not None:
        radius, speed = curve
        for side in (1, -1):
            axes.plot(side * radius, systemic_velocity + side * speed, color=colour, linewidth=0.9, linestyle=":")


def _draw_beam_bar(axes: Axes, beam: float, *, colour: str) -> None:
    """A bar one beam long in the lower left corner."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = left + 0.07 * (right - left), bottom + 0.07 * (top - bottom)
    axes.plot([x, x + beam], [y, y], color=colour, linewidth=1.5, solid_capstyle="butt")
    axes.annotate("beam", (x + beam, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7, color=colour)
