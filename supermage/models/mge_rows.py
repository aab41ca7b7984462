"""The linear system that ties the weights of fixed, scale-free Gaussians to a Nuker profile.

Unknown: ``u_j``, the weight of Gaussian j divided by the profile at its width, ``w_j / Sigma(sigma_j)``. Rows: relative surface density
and relative mass inside a sphere, at fixed radii in units of the break radius, each with the target 1. Serves the exact solve and the
training alike.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from supermage.forward.nuker import log_nuker, nuker_slope
from supermage.forward.velocity import gaussian_kernel

NUMBER_OF_GAUSSIANS = 128
NARROWEST, WIDEST = 1.5e-5, 2e4

_PANEL_NODES = 12
_INWARD, _OUTWARD = 36.0, 22.0


def graded_widths(count: int = NUMBER_OF_GAUSSIANS) -> Float[Tensor, "gauss"]:
    """Widths in units of the break radius, from 0.03 pc for the largest break radius to 40 kpc for the smallest.

    Spacing in ``ln sigma`` is ``h (3 - 2 exp(-(ln sigma)^2 / 4.5))``: three times finer at the break, where a sharp profile needs it.
    """
    fine = np.linspace(math.log(NARROWEST), math.log(WIDEST), 20001)
    density = 1.0 / (3.0 - 2.0 * np.exp(-(fine**2) / 4.5))
    number = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return torch.from_numpy(np.exp(np.interp(np.arange(count) * (number[-1] / (count - 1)), number, fine)))


def density_radii(per_dex: float = 32.0) -> Float[Tensor, "row"]:
    """Radii of the surface-density rows: 5e-5 (well inside 2 pc) to 5e3 (10 kpc for the smallest break radius)."""
    return torch.logspace(math.log10(5e-5), math.log10(5e3), round(8.0 * per_dex), dtype=torch.float64)


def mass_radii(per_dex: float = 8.0) -> Float[Tensor, "row"]:
    """Radii of the enclosed-mass rows: 1e-4 to 5e3."""
    return torch.logspace(-4.0, math.log10(5e3), round(7.7 * per_dex), dtype=torch.float64)


class EnclosedMass(nn.Module):
    """Mass of a Nuker profile's spherical deprojection inside fixed spheres, as one fixed matrix times the profile's derivative.

    ``M(r) = int_0^inf (-dSigma/d ln a) k(a) d ln a`` with ``k = pi a^2`` inside r and ``2 (a^2 asin(r / a) - r sqrt(a^2 - r^2))``
    outside, by Gauss-Legendre panels in ``ln a`` whose edges include every r; the panel just outside r, where k has a root, by product
    integration.

    Parameters
    ----------
    radius
        Radii in units of the break radius, log-uniform, shape (row,).
    """

    log_node: Tensor
    operator: Tensor

    def __init__(self, radius: Float[Tensor, "row"]) -> None:
        super().__init__()
        log_radius = torch.log(radius).numpy()
        step = float(log_radius[1] - log_radius[0])
        first = log_radius[0] - step * math.ceil(_INWARD / step)
        panels = math.ceil(_INWARD / step) + len(log_radius) - 1 + math.ceil(_OUTWARD / step)
        abscissa, weight = np.polynomial.legendre.leggauss(_PANEL_NODES)
        left = first + step * np.arange(panels)
        node = left[:, None] + 0.5 * step * (abscissa + 1.0)
        offset = node[None] - log_radius[:, None, None]
        operator = _sphere_kernel(offset) * (0.5 * step * weight)
        shared = _product_weights(abscissa, step)
        for row, value in enumerate(log_radius):
            operator[row, round((value - first) / step)] = shared
        operator *= np.exp(2.0 * log_radius)[:, None, None]
        self.register_buffer("log_node", torch.from_numpy(node.ravel()), persistent=False)
        self.register_buffer("operator", torch.from_numpy(operator.reshape(len(log_radius), -1)), persistent=False)

    def forward(
        self, alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch row"]:
        """Enclosed masses in units of ``Sigma_b r_b^2``."""
        shape = [item.unsqueeze(-1) for item in (alpha, beta, gamma)]
        derivative = torch.exp(log_nuker(self.log_node, *shape)) * nuker_slope(self.log_node, *shape)
        return derivative @ self.operator.T


def _sphere_kernel(offset: np.ndarray) -> np.ndarray:
    """``k(a) / r^2`` at ``ln(a / r) = offset``."""
    outside = np.maximum(offset, 1e-300)
    root = np.sqrt(-np.expm1(-2.0 * outside))
    squared = np.exp(2.0 * np.minimum(outside, 8.0))
    near = 2.0 * squared * (np.arcsin(np.exp(-outside)) - np.exp(-outside) * root)
    far = 4.0 / 3.0 * np.exp(-outside)  # its limit, to 1e-7; the difference above cancels there
    return np.where(offset <= 0.0, math.pi * np.exp(2.0 * np.minimum(offset, 0.0)), np.where(outside < 8.0, near, far))


def _product_weights(abscissa: np.ndarray, step: float) -> np.ndarray:
    """Weights of the panel just outside r: the kernel against Lagrange's polynomials, with ``ln(a / r) = s^2`` to remove the root."""
    fine, weight = np.polynomial.legendre.leggauss(48)
    s = 0.5 * (fine + 1.0)
    position = 2.0 * s**2 - 1.0
    kernel = _sphere_kernel(step * s**2) * (0.5 * weight) * 2.0 * s * step
    others = [np.delete(abscissa, k) for k in range(len(abscissa))]
    basis = [np.prod((position[:, None] - other) / (abscissa[k] - other), axis=1) for k, other in enumerate(others)]
    return np.stack(basis) @ kernel


def gaussian_designs(
    width_ratio: Float[Tensor, "gauss"], density_radius: Float[Tensor, "row"], mass_radius: Float[Tensor, "mass_row"]
) -> tuple[Tensor, Tensor]:
    """Surface density, and mass inside spheres, of Gaussians of unit peak: shapes (row, gauss)."""
    density = torch.exp(-0.5 * (density_radius[:, None] / width_ratio) ** 2)
    kernel = gaussian_kernel(mass_radius[:, None] / width_ratio, torch.ones((), dtype=torch.float64))
    return density, 4.0 * math.pi * mass_radius[:, None] ** 3 / (width_ratio * math.sqrt(2.0 * math.pi)) * kernel


class MGERows(nn.Module):
    """Design matrices of the fixed Gaussians and the profile's values that scale them.

    Parameters
    ----------
    width_ratio
        ``sigma_j / r_b``, shape (gauss,).
    density_radius, mass_radius
        Radii of the rows in units of the break radius.
    """

    log_width: Tensor
    log_density_radius: Tensor
    density_design: Tensor
    mass_design: Tensor
    mass_radius: Tensor

    def __init__(
        self, width_ratio: Float[Tensor, "gauss"], density_radius: Float[Tensor, "row"], mass_radius: Float[Tensor, "mass_row"]
    ) -> None:
        super().__init__()
        density, mass = gaussian_designs(width_ratio, density_radius, mass_radius)
        self.register_buffer("log_width", torch.log(width_ratio), persistent=False)
        self.register_buffer("log_density_radius", torch.log(density_radius), persistent=False)
        self.register_buffer("mass_radius", mass_radius, persistent=False)
        self.register_buffer("density_design", density, persistent=False)
        self.register_buffer("mass_design", mass, persistent=False)
        self.enclosed_mass = EnclosedMass(mass_radius)

    def profile_at_widths(self, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Float[Tensor, "*batch gauss"]:
        """``Sigma(sigma_j) / Sigma_b``: what the unknowns are multiplied with to give weights."""
        return torch.exp(log_nuker(self.log_width, alpha.unsqueeze(-1), beta.unsqueeze(-1), gamma.unsqueeze(-1)))

    def targets(self, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Float[Tensor, "*batch row"]:
        """Surface density, then enclosed mass, that the rows are divided by."""
        density = torch.exp(log_nuker(self.log_density_radius, alpha.unsqueeze(-1), beta.unsqueeze(-1), gamma.unsqueeze(-1)))
        return torch.cat([density, self.enclosed_mass(alpha, beta, gamma)], dim=-1)

    def relative(
        self, alpha: Tensor, beta: Tensor, gamma: Tensor
    ) -> tuple[Float[Tensor, "*batch row gauss"], Float[Tensor, "*batch gauss"]]:
        """Rows for unknowns ``w_j / Sigma(sigma_j)`` with all targets 1, and what turns the unknowns into weights."""
        scale = self.profile_at_widths(alpha, beta, gamma)
        return self.design * scale.unsqueeze(-2) / self.targets(alpha, beta, gamma).unsqueeze(-1), scale

    @property
    def design(self) -> Float[Tensor, "row gauss"]:
        """Both kinds of rows, not yet divided by their targets."""
        return torch.cat([self.density_design, self.mass_design])
