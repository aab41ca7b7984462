"""The thin gas disc: sky to disc geometry, exponential surface brightness, line-of-sight velocity, quadrature nodes.

The disc is integrated in its own plane, on the product of two one-dimensional rules that are fine at the centre and coarse outside. A pixel
grid on the sky cannot do this: near the major axis of an inclined disc the velocity runs through many channels within one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import DomainError

_TAPER_START = 0.85


@dataclass(frozen=True)
class DiscNodes:
    """Quadrature nodes of a quarter of the disc plane; the other quarters follow by symmetry.

    Parameters
    ----------
    along, across
        Distances from the centre along the major and the minor axis, arcsec in the disc plane, shapes (x,) and (y,), all > 0.
    along_width, across_width
        Their weights: the widths of the cells, arcsec.
    radius_limit
        Radius at which the disc ends, arcsec.
    """

    along: NDArray[np.float64]
    across: NDArray[np.float64]
    along_width: NDArray[np.float64]
    across_width: NDArray[np.float64]
    radius_limit: float

    @property
    def radius(self) -> NDArray[np.float64]:
        """Distance of every node from the centre, arcsec, shape (y, x)."""
        return np.hypot(self.across[:, None], self.along[None, :])

    @property
    def area(self) -> NDArray[np.float64]:
        """Area of every node's cell, arcsec^2 in the disc plane, tapered to zero at the radius limit, shape (y, x)."""
        return self.across_width[:, None] * self.along_width[None, :] * edge_taper(self.radius / self.radius_limit)


def disc_nodes(radius_limit: float, resolution: float, *, density: float = 1.0) -> DiscNodes:
    """Nodes that converge for features down to ``resolution`` on the sky and for the velocity field around a point mass.

    Parameters
    ----------
    radius_limit
        Radius at which the disc ends, arcsec.
    resolution
        Inverse of the longest baseline, arcsec.
    density
        Factor on the number of nodes along each axis; 1 leaves a relative error of about 0.3 %.

    Raises
    ------
    DomainError
        If a number is not positive.
    """
    if not (radius_limit > 0 and resolution > 0 and density > 0):
        raise DomainError(f"radius_limit, resolution and density must be positive, got {radius_limit}, {resolution}, {density}")
    node, width = graded_rule(radius_limit, finest=0.03 * resolution / density, growth=0.2 / density, coarsest=0.6 * resolution / density)
    return DiscNodes(node, node, width, width, radius_limit)


def graded_rule(limit: float, *, finest: float, growth: float, coarsest: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Midpoint rule on (0, limit) in a smooth variable: spacing ``finest`` at 0, ``growth * x`` further out, at most ``coarsest``.

    The variable is ``t(x) = asinh(growth x / finest) / growth + x / coarsest``, so that an even function smooth in t is integrated with an
    error that falls faster than any power of the number of nodes.
    """

    def coordinate(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.arcsinh(growth * x / finest) / growth + x / coarsest)

    end = float(coordinate(np.array(limit)))
    count = math.ceil(end)
    target = (np.arange(count) + 0.5) * (end / count)
    low, high = np.zeros(count), np.full(count, limit)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = coordinate(middle) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    node = 0.5 * (low + high)
    slope = 1.0 / np.hypot(finest, growth * node) + 1.0 / coarsest
    return node, (end / count) / slope


def edge_taper(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 inside 0.85 of the disc's radius limit, 0 outside it, smooth (two derivatives) between."""
    step = np.clip((fraction - _TAPER_START) / (1.0 - _TAPER_START), 0.0, 1.0)
    return (1.0 - step) ** 3 * (1.0 + 3.0 * step + 6.0 * step**2)


def exponential_disc(
    radius: Float[Tensor, "*shape"], scale_length: Float[Tensor, ""], flux: Float[Tensor, ""]
) -> Float[Tensor, "*shape"]:
    """Surface brightness of a thin exponential disc seen face-on, normalised over the whole plane, (unit of flux) / arcsec^2.

    ``flux / (2 pi h^2) exp(-R / h)``; on the sky divide by cos i. Radius and scale length in arcsec, h > 0.
    """
    return torch.exp(-radius / scale_length) * (flux / (2.0 * math.pi * scale_length**2)).to(radius.dtype)


def stretched_disc(
    radius: Float[Tensor, "*shape"], scale_length: Float[Tensor, ""], index: Float[Tensor, ""], flux: Float[Tensor, ""]
) -> Float[Tensor, "*shape"]:
    """Surface brightness ``n flux / (2 pi h^2 Gamma(2/n)) exp(-(R/h)^n)`` of a face-on disc: n = 1 exponential, n >> 1 flat with an edge.

    Not in the paper: HI discs are flat where CO discs are exponential. Units as :func:`exponential_disc`.
    """
    index = index.to(radius.dtype)
    # the exponent is held where the profile is zero to rounding: its own gradient would overflow
    exponent = torch.exp((index * torch.log(radius / scale_length)).clamp(max=4.5))
    peak = flux.to(radius.dtype) * index / (2.0 * math.pi * scale_length**2 * torch.exp(torch.lgamma(2.0 / index)))
    return torch.exp(-exponent) * peak


def gas_disc(radius: Float[Tensor, "*shape"], theta: Mapping[str, Tensor]) -> Float[Tensor, "*shape"]:
    """The disc that the parameters name: :func:`stretched_disc` where there is a ``gas_index``, else :func:`exponential_disc`."""
    scale_length, flux = theta["scale_length"].to(radius.dtype), theta["Flux"].to(radius.dtype)
    if "gas_index" in theta:
        return stretched_disc(radius, scale_length, theta["gas_index"], flux)
    return exponential_disc(radius, scale_length, flux)


def sky_to_disc(
    east: Float[Tensor, "*shape"], north: Float[Tensor, "*shape"], position_angle: Float[Tensor, ""], inclination: Float[Tensor, ""]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Coordinates in the disc plane along the receding major axis and across it, in the unit of ``east`` and ``north`` (angles in rad)."""
    sine, cosine = torch.sin(position_angle), torch.cos(position_angle)
    along = east * sine + north * cosine
    across = (north * sine - east * cosine) / torch.cos(inclination)
    return along, across


def line_of_sight_velocity(
    circular_velocity: Float[Tensor, "*shape"],
    along: Float[Tensor, "*#shape"],
    radius: Float[Tensor, "*shape"],
    inclination: Float[Tensor, ""],
) -> Float[Tensor, "*shape"]:
    """Velocity against the systemic one, positive on the receding side: ``v_c sin i cos(azimuth)``, cos(azimuth) = along / radius."""
    return circular_velocity * torch.sin(inclination).to(circular_velocity.dtype) * (along / radius)


def unresolved_variance(velocity: Float[Tensor, "y x"]) -> Float[Tensor, "y x"]:
    """Variance of the velocity across each node's own cell: ``(dv_x^2 + dv_y^2) / 12``, central differences on the quarter disc.

    Added to the line's variance, it lets nodes further apart than the line is wide join up instead of showing as beads.
    The velocity is odd along the first axis ("x") and even along the second.
    """
    before = torch.cat([-velocity[:, :1], velocity[:, :-1]], dim=1)
    after = torch.cat([velocity[:, 1:], velocity[:, -1:]], dim=1)
    below = torch.cat([velocity[:1], velocity[:-1]], dim=0)
    above = torch.cat([velocity[1:], velocity[-1:]], dim=0)
    return ((after - before) ** 2 + (above - below) ** 2) / 48.0
