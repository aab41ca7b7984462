"""Stellar mass of an MGE inside a sphere, and inside a circle on the sky: every Gaussian deprojected as an oblate spheroid.

With z the symmetry axis in units of ``q sigma`` and ``x = r / sigma``, the share of a Gaussian inside the sphere is

``F(x, q) = 2 int_0^(x / q) phi(z) (1 - exp(-(x^2 - q^2 z^2) / 2)) dz``,

phi the unit normal density. It is ``erf(x / (q sqrt 2)) - exp(-x^2 / 2) erf(x e / (q sqrt 2)) / e`` with ``e^2 = 1 - q^2``, a difference
that cancels for wide Gaussians, round or not; the integrand is nowhere negative. The share inside a circle on the sky is, for an observed
axis ratio q',

``F(x, q') = (2 / pi) int_0^(pi / 2) (1 - exp(-x^2 / (2 (cos^2 psi + q'^2 sin^2 psi)))) d psi``,

evenly spaced in chi with ``tan psi = tan chi / sqrt q'``, where the integrand is periodic and its poles lie furthest from the path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supermage.errors import DomainError
from supermage.forward.mass_model import ShapeModel
from supermage.forward.mge import MGE
from supermage.forward.nuker import Amount, as_float_tensor, as_radius, broadcast_shape, require
from supermage.forward.velocity import intrinsic_axis_ratio

_NODES = 32
_CUT = 8.0
"""Beyond so many standard deviations along the symmetry axis there is nothing to add, to a part in 1e15."""

_ROOT_2_PI = math.sqrt(2.0 * math.pi)


@lru_cache(maxsize=1)
def _legendre() -> tuple[tuple[float, ...], tuple[float, ...]]:
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    return tuple((0.5 * (node + 1.0)).tolist()), tuple((0.5 * weight).tolist())


def share_in_sphere(ratio: Float[Tensor, "..."], axis_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Share of an oblate Gaussian's mass inside a sphere, relative error < 1e-12 in float64.

    Parameters
    ----------
    ratio
        ``x = r / sigma`` > 0, sigma along the major axis.
    axis_ratio
        Intrinsic axis ratio q in [0.05, 1]; broadcasts against ``ratio``.
    """
    ratio, axis_ratio = torch.broadcast_tensors(ratio, axis_ratio)
    node, weight = (torch.tensor(item, dtype=ratio.dtype, device=ratio.device) for item in _legendre())
    top = (ratio / axis_ratio).clamp(max=_CUT)
    height = top.unsqueeze(-1) * node
    # never negative but for rounding: heights end at x / q
    half_square = (0.5 * (ratio.unsqueeze(-1) ** 2 - (axis_ratio.unsqueeze(-1) * height) ** 2)).clamp(min=0.0)
    integrand = torch.exp(-0.5 * height**2) * -torch.expm1(-half_square)
    return 2.0 / _ROOT_2_PI * top * (weight * integrand).sum(-1)


def share_in_circle(ratio: Float[Tensor, "..."], observed_axis_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Share of a Gaussian's mass inside a circle on the sky, relative error < 1e-12 in float64.

    Parameters
    ----------
    ratio
        ``x = R / sigma`` > 0, sigma along the major axis.
    observed_axis_ratio
        Observed axis ratio q' in [0.05, 1]; broadcasts against ``ratio``.
    """
    ratio, flattening = (item.unsqueeze(-1) for item in torch.broadcast_tensors(ratio, observed_axis_ratio))
    angle = (torch.arange(_NODES, dtype=ratio.dtype, device=ratio.device) + 0.5) * (0.5 * math.pi / _NODES)
    cosine, sine = torch.cos(angle) ** 2, torch.sin(angle) ** 2
    across = flattening * cosine + sine
    spread = flattening * (cosine + flattening * sine) / across
    return (-torch.expm1(-0.5 * ratio**2 / spread) * torch.sqrt(flattening) / across).mean(-1)


def mass_in_sphere(mge: MGE, radius: Amount, *, inclination: Amount) -> Float[Tensor, "*batch"]:
    """Mass of an MGE inside spheres, Msun.

    Parameters
    ----------
    mge
        Surface densities in Msun/pc^2, widths in pc.
    radius
        pc, > 0; a number, or one per batch item.
    inclination
        Degrees in (0, 90]; a number, or one per batch item.

    Raises
    ------
    DomainError
        If a radius is not positive, the inclination lies outside (0, 90] deg, ``q' <= cos i`` for some Gaussian, or shapes do not go
        together.
    """
    reach, angle = _checked_radius(radius), as_float_tensor(inclination, "deg")
    broadcast_shape(Gaussians=mge.sigma.shape[:-1], radius=reach.shape, inclination=angle.shape)
    require((angle > 0) & (angle <= 90), "inclination must lie in (0, 90] deg", angle)
    radians = torch.deg2rad(angle.to(torch.float64)).unsqueeze(-1)
    require(
        mge.observed_axis_ratio > torch.cos(radians),
        "observed_axis_ratio must exceed cos(inclination), or the spheroid cannot be oblate",
        mge.observed_axis_ratio,
    )
    intrinsic = intrinsic_axis_ratio(mge.observed_axis_ratio.to(torch.float64), radians)
    return _sum(mge, share_in_sphere(reach.unsqueeze(-1) / mge.sigma, intrinsic))


def mass_in_circle(mge: MGE, radius: Amount) -> Float[Tensor, "*batch"]:
    """Mass of an MGE inside circles on the sky, Msun.

    Parameters
    ----------
    mge
        Surface densities in Msun/pc^2, widths in pc.
    radius
        pc, > 0; a number, or one per batch item.

    Raises
    ------
    DomainError
        If a radius is not positive, or shapes do not go together.
    """
    reach = _checked_radius(radius)
    broadcast_shape(Gaussians=mge.sigma.shape[:-1], radius=reach.shape)
    return _sum(mge, share_in_circle(reach.unsqueeze(-1) / mge.sigma, mge.observed_axis_ratio.to(torch.float64)))


def _checked_radius(radius: Amount) -> Tensor:
    reach = as_radius(radius).to(torch.float64)
    require(reach > 0, "radius must be positive (pc)", reach)
    return reach


def _sum(mge: MGE, share: Tensor) -> Tensor:
    whole = 2.0 * math.pi * mge.surface_density * mge.sigma**2 * mge.observed_axis_ratio
    return (whole.to(torch.float64) * share).sum(-1)


class UnitMass:
    """log10 of the stars' mass inside an aperture for ``Sigma_b = 1 Msun/pc^2``, as a function of the galaxy's parameters.

    The mass inside the aperture is this plus ``intensity_rb``. The Gaussians are those that pull the gas: `MassModel`'s, gradient of
    mass-to-light included.

    Parameters
    ----------
    emulator
        Shape to weights.
    scale
        pc / arcsec.
    radius
        Of the aperture, pc.
    projected
        Whether it is a circle on the sky rather than a sphere.

    Raises
    ------
    DomainError
        If the radius is not positive.
    """

    def __init__(self, emulator: ShapeModel, scale: float, radius: float, *, projected: bool = False) -> None:
        if not radius > 0:
            raise DomainError(f"the radius of an aperture must be positive (pc), got {radius}")
        self.emulator, self.scale, self.radius, self.projected = emulator, scale, radius, projected

    def __call__(self, theta: Mapping[str, Tensor]) -> Float[Tensor, "*batch"]:
        """Log10 of the mass, Msun; parameters of one shape, named as in Table 1. Differentiable, forwards and backwards."""
        steeper = theta["gamma"] + theta["ml_gradient"] if "ml_gradient" in theta else theta["gamma"]
        weights = self.emulator.weights(theta["alpha"], steeper - theta["gamma_minus_beta"], steeper).to(torch.float64)
        intrinsic, inclination = theta["qintr"], torch.deg2rad(theta["inclination"])
        observed = torch.sqrt((intrinsic * torch.sin(inclination)) ** 2 + torch.cos(inclination) ** 2)
        break_radius = theta["break_r"] * self.scale
        width = self.emulator.width_ratio.to(torch.float64)
        ratio = self.radius / (break_radius.unsqueeze(-1) * width)
        if self.projected:
            share = share_in_circle(ratio, observed.unsqueeze(-1))
        else:
            share = share_in_sphere(ratio, intrinsic.unsqueeze(-1))
        inside = (weights * width**2 * share).sum(-1)
        return torch.log10(2.0 * math.pi * observed * inside) + 2.0 * torch.log10(break_radius)
