"""Multi-Gaussian expansion of a surface density, and the circular velocity of its axisymmetric deprojection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from supermage.errors import DomainError
from supermage.forward.nuker import SURFACE_DENSITY, Amount, HasUnit, as_float_tensor, as_radius, broadcast_shape, require
from supermage.forward.velocity import circular_velocity_squared, point_mass_velocity_squared


@dataclass(frozen=True, init=False)
class MGE:
    """A sum of concentric, aligned Gaussians.

    Parameters
    ----------
    surface_density
        *Peak* of each Gaussian, Msun/pc^2, shape (..., n); of either sign.
    sigma
        Dispersion along the major axis, pc, shape (..., n), > 0.
    observed_axis_ratio
        Observed axis ratio q' in (0, 1], shape (..., n), or without the Gaussian axis if it is the same for all of them. Where a shape
        could be read both ways it is refused: ``q[:, None]`` is one for each item of the batch, ``q[None]`` one for each Gaussian.

    Raises
    ------
    DomainError
        If a number breaks its rule or is not finite, or shapes do not go together.

    Notes
    -----
    Numbers are tensors, or astropy Quantities. Source: Yantovski-Barth et al., eq. 4 (the peak, not the normalisation of their eq. 1).
    """

    surface_density: Float[Tensor, "*batch gauss"]
    sigma: Float[Tensor, "*batch gauss"]
    observed_axis_ratio: Float[Tensor, "*batch gauss"]

    def __init__(self, surface_density: Amount, sigma: Amount, observed_axis_ratio: Amount) -> None:
        items = ((surface_density, SURFACE_DENSITY), (sigma, "pc"), (observed_axis_ratio, ""))
        peak, width, flattening = (torch.atleast_1d(as_float_tensor(item, unit)) for item, unit in items)
        if flattening.ndim == peak.ndim - 1 and flattening.shape == peak.shape[:-1]:
            if flattening.shape[-1] == peak.shape[-1] > 1:
                shapes = f"shape {tuple(flattening.shape)} for Gaussians of shape {tuple(peak.shape)}"
                raise DomainError(f"observed_axis_ratio must say whose it is: q[:, None] the batch's, q[None] the Gaussians', got {shapes}")
            flattening = flattening.unsqueeze(-1)
        require(torch.isfinite(peak), "surface_density must be finite", peak)
        require(torch.isfinite(width) & (width > 0), "sigma must be positive and finite (pc)", width)
        require((flattening > 0) & (flattening <= 1), "observed_axis_ratio must lie in (0, 1]: oblate or round, not prolate", flattening)
        shape = broadcast_shape(surface_density=peak.shape, sigma=width.shape, observed_axis_ratio=flattening.shape)
        for name, item in (("surface_density", peak), ("sigma", width), ("observed_axis_ratio", flattening)):
            object.__setattr__(self, name, item.expand(shape))

    def surface_density_at(self, radius: Float[Tensor, "..."] | float | HasUnit | Sequence[float]) -> Float[Tensor, "..."]:
        """Surface density, Msun/pc^2, along the major axis at radii in pc, >= 0: (..., r) -> (..., r)."""
        ratio = torch.atleast_1d(as_radius(radius)).unsqueeze(-1) / self.sigma.unsqueeze(-2)
        return (self.surface_density.unsqueeze(-2) * torch.exp(-0.5 * ratio**2)).sum(-1)

    def with_mass_to_light(self, ratio: Amount, *, gradient: Amount = 0.0, radius: Amount = 1.0) -> MGE:
        """The MGE of the mass, if this one is of light (Lsun/pc^2), by a ratio for each Gaussian.

        The mass over the light is not ``R^-gradient`` where the local slope is small; a Nuker profile of light times a power of the
        radius is a Nuker profile of steeper slopes instead: give the emulator ``beta + gradient`` and ``gamma + gradient``.

        Parameters
        ----------
        ratio
            Mass-to-light ratio at ``radius``, Msun/Lsun, > 0.
        gradient
            k: the ratio of each Gaussian is ``ratio (sigma / radius)^-k``.
        radius
            pc, > 0.

        Raises
        ------
        DomainError
            If the ratio or the radius is not positive, or the gradient is not finite.
        """
        value, slope, scale = (as_float_tensor(*item) for item in ((ratio, "solMass / solLum"), (gradient, ""), (radius, "pc")))
        require(torch.isfinite(value) & (value > 0), "ratio must be positive and finite (Msun/Lsun)", value)
        require(torch.isfinite(slope), "gradient must be finite", slope)
        require(torch.isfinite(scale) & (scale > 0), "radius must be positive and finite (pc)", scale)
        factor = mass_to_light(self.sigma / _column(scale), slope, _column(value))
        return MGE(self.surface_density * factor, self.sigma, self.observed_axis_ratio)

    def circular_velocity(
        self,
        radius: Float[Tensor, "..."] | float | HasUnit | Sequence[float],
        *,
        inclination: Amount,
        black_hole_mass: Amount = 0.0,
        softening: Amount = 0.0,
    ) -> Float[Tensor, "..."]:
        """Circular velocity in the equatorial plane, km/s.

        Parameters
        ----------
        radius
            Radii, pc, >= 0, shape (..., r).
        inclination
            Degrees in (0, 90]; a number, or one per batch item.
        black_hole_mass
            Msun, a number or one per batch item; may be zero.
        softening
            Length, pc, over which the black hole's force is softened.

        Returns
        -------
        Tensor
            Shape (..., r). NaN where signed Gaussians push outwards, so that no circular orbit exists.

        Raises
        ------
        DomainError
            If the inclination lies outside (0, 90] deg, ``q' <= cos i`` for some Gaussian, a radius or mass is negative or not finite, or
            shapes do not go together.
        """
        radii = torch.atleast_1d(as_radius(radius))
        items = ((inclination, "deg"), (black_hole_mass, "solMass"), (softening, "pc"))
        angle, mass, length = (as_float_tensor(item, unit) for item, unit in items)
        broadcast_shape(Gaussians=self.sigma.shape[:-1], radius=radii.shape[:-1], inclination=angle.shape, black_hole_mass=mass.shape,
                        softening=length.shape)  # fmt: skip
        require((angle > 0) & (angle <= 90), "inclination must lie in (0, 90] deg", angle)
        require((mass >= 0) & torch.isfinite(mass), "black_hole_mass must be finite and not negative (Msun)", mass)
        require((length >= 0) & torch.isfinite(length), "softening must be finite and not negative (pc)", length)
        radians = torch.deg2rad(angle)
        cosine = torch.cos(radians).unsqueeze(-1) if angle.ndim else torch.cos(radians)
        require(
            self.observed_axis_ratio > cosine,
            "observed_axis_ratio must exceed cos(inclination), or the spheroid cannot be oblate",
            self.observed_axis_ratio,
        )
        squared = circular_velocity_squared(
            radii, self.surface_density, self.sigma, self.observed_axis_ratio, inclination_rad=radians
        ) + point_mass_velocity_squared(radii, _column(mass), _column(length))
        return safe_root(squared)


def mass_to_light(
    width_ratio: Float[Tensor, "*#batch gauss"], gradient: Float[Tensor, "..."], ratio: Tensor | float = 1.0
) -> Float[Tensor, "*batch gauss"]:
    """Mass-to-light ratio of each Gaussian under a gradient: ``ratio (sigma / R_0)^-gradient``.

    A power law of slope s in light becomes one of slope ``s + gradient`` in mass, times a number near 1:
    ``2^(k/2) Gamma((s + k)/2) / Gamma(s/2)``.

    Parameters
    ----------
    width_ratio
        ``sigma_j / R_0``, in units of the radius where the ratio is ``ratio``.
    gradient
        k, positive where the ratio falls outwards; a number or one per batch item.
    ratio
        Mass-to-light ratio at R_0, Msun/Lsun.
    """
    return torch.as_tensor(ratio) * torch.exp(-torch.as_tensor(gradient).unsqueeze(-1) * torch.log(width_ratio))


def _column(item: Tensor) -> Tensor:
    return item.unsqueeze(-1) if item.ndim else item


def safe_root(squared: Tensor) -> Tensor:
    """Square root with a zero gradient at zero (the centre), where the true one is infinite; NaN of what is negative."""
    zero = squared == 0
    return torch.where(zero, torch.zeros_like(squared), torch.sqrt(torch.where(zero, torch.ones_like(squared), squared)))


def floored_root(squared: Tensor) -> Tensor:
    """Square root with a floor of 0.01, which keeps its gradient finite at zero and where signed Gaussians push outwards."""
    return torch.sqrt(squared.clamp(min=1e-4))
