"""The synthesised beam: its shape, and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse


@dataclass(frozen=True)
class Beam:
    """Gaussian that fits the main lobe of the dirty beam.

    Parameters
    ----------
    major, minor
        Full widths at half maximum, arcsec.
    position_angle
        Of the major axis, degrees east of north.
    """

    major: float
    minor: float
    position_angle: float

    @property
    def width(self) -> float:
        """Geometric mean of the two widths, arcsec."""
        return math.sqrt(self.major * self.minor)

    def __str__(self) -> str:
        return f'{self.major:.2f}" x {self.minor:.2f}", PA {self.position_angle:.0f} deg'


def draw_beam(axes: Axes, beam: Beam, *, colour: str = "white", edge: str = "black") -> Axes:
    """Draw the beam in the lower left corner of a sky map whose x axis is the eastward offset (arcsec)."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    margin = 0.06 * abs(right - left) + 0.5 * beam.major
    centre = (left + math.copysign(margin, right - left), bottom + math.copysign(margin, top - bottom))
    # East offsets as data coordinates: a position angle from north through east is 90 deg minus the angle from the x axis.
    axes.add_patch(Ellipse(centre, beam.major, beam.minor, angle=90.0 - beam.position_angle, facecolor=colour, edgecolor=edge,
                           linewidth=0.6, zorder=5))
    return axes
