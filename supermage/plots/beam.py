"""The synthesised beam: its width, its words, and how it is drawn."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from supermage.data_reduction.images import Beam


def beam_width(beam: Beam) -> float:
    """Geometric mean of the two widths, arcsec."""
    return math.sqrt(beam.major * beam.minor)


def beam_words(beam: Beam) -> str:
    """The beam in a few words."""
    return f"{beam.major:.2f} × {beam.minor:.2f} arcsec, position angle {beam.position_angle:.0f} deg"


def draw_beam(axes: Axes, beam: Beam, *, colour: str = "white", edge: str = "black") -> Axes:
    """Draw the beam in the lower left corner of a sky map whose x axis is the eastward offset (arcsec)."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    margin = 0.06 * abs(right - left) + 0.5 * beam.major
    centre = (left + math.copysign(margin, right - left), bottom + math.copysign(margin, top - bottom))
    # East offsets as data coordinates: a position angle from north through east is 90 deg minus the angle from the x axis.
    axes.add_patch(
        Ellipse(centre, beam.major, beam.minor, angle=90.0 - beam.position_angle, facecolor=colour, edgecolor=edge, linewidth=0.6, zorder=5)
    )
    return axes
