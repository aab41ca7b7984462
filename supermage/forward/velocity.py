"""Circular velocities in the equatorial plane: Gaussians (exact), a fast scale-free curve, a point mass, an NFW halo.

The kernel of one axisymmetric Gaussian is ``I(x, q) = int_0^1 T^2 exp(-T^2 x^2 / 2) / sqrt(1 - (1 - q^2) T^2) dT``, x = R / sigma.
With ``T = t / sqrt(1 + (1 - q^2) t^2)`` and ``t = sinh y`` the integrand is analytic far from the path for every q, and the upper limit
follows (R, sigma): a limit shared by all Gaussians loses mass.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError

_NODES = 40
_CUT = 7.6
AT_A_TIME = 25_000
"""Pairs of radius and Gaussian whose nodes, a million, are in memory together."""
BREAK_KNOTS, BREAK_WIDTH = 0.6, 0.5
"""Of the tabulated curve: 1 + BREAK_KNOTS / BREAK_WIDTH times as many knots at the break as far from it; the width is in ln R."""


@lru_cache(maxsize=1)
def _unit_legendre() -> tuple[tuple[float, ...], tuple[float, ...]]:
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    return tuple((0.5 * (node + 1.0)).tolist()), tuple((0.5 * weight).tolist())


def gaussian_kernel(ratio: Float[Tensor, "..."], axis_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Kernel ``I(x, q)`` of one Gaussian, relative error < 1e-9 in float64.

    Parameters
    ----------
    ratio
        ``x = R / sigma`` >= 0.
    axis_ratio
        Intrinsic axis ratio q in [0.05, 1] (accuracy degrades slowly below); broadcasts against ``ratio``.
    """
    dtype = torch.promote_types(ratio.dtype, axis_ratio.dtype)
    node, weight = (torch.tensor(item, dtype=dtype, device=ratio.device) for item in _unit_legendre())
    flattening = (1.0 - axis_ratio**2).unsqueeze(-1)
    half_square = (0.5 * ratio**2).unsqueeze(-1)
    cut = (_CUT / ratio.unsqueeze(-1).clamp(min=_CUT)).to(dtype)
    top = torch.asinh(cut / torch.sqrt(1.0 - flattening * cut**2))
    stretched = torch.sinh(top * node)
    square = stretched**2
    denominator = 1.0 + flattening * square
    integrand = square / denominator**2 * torch.exp(-half_square * square / denominator) * torch.cosh(top * node)
    return top.squeeze(-1) * (weight * integrand).sum(-1)


def _kernel_in_parts(ratio: Tensor, axis_ratio: Tensor) -> Tensor:
    """The kernel of many, some at a time: its nodes would fill the memory."""
    if ratio.numel() <= AT_A_TIME:
        return gaussian_kernel(ratio, axis_ratio)
    pairs = (item.flatten().split(AT_A_TIME) for item in torch.broadcast_tensors(ratio, axis_ratio))
    return torch.cat([gaussian_kernel(x, q) for x, q in zip(*pairs, strict=True)]).reshape(ratio.shape)


def intrinsic_axis_ratio(observed_axis_ratio: Float[Tensor, "..."], inclination_rad: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Intrinsic axis ratio of an oblate spheroid seen with ``q'`` at an inclination: ``q^2 = (q'^2 - cos^2 i) / sin^2 i``."""
    sine = torch.sin(inclination_rad)
    return torch.sqrt(observed_axis_ratio**2 - torch.cos(inclination_rad) ** 2) / sine


def circular_velocity_squared(
    radius: Float[Tensor, "*#batch radius"],
    surface_density: Float[Tensor, "*#batch gauss"],
    sigma: Float[Tensor, "*#batch gauss"],
    observed_axis_ratio: Float[Tensor, "*#batch gauss"],
    *,
    inclination_rad: Float[Tensor, "..."],
) -> Float[Tensor, "*batch radius"]:
    """Squared circular velocity of an axisymmetric MGE, (km/s)^2, exact.

    Parameters
    ----------
    radius
        Radii in the equatorial plane, pc.
    surface_density, sigma, observed_axis_ratio
        Peak surface density (Msun/pc^2), dispersion (pc) along the major axis, and observed axis ratio of each Gaussian.
    inclination_rad
        Inclination, rad, without a Gaussian axis (scalar, or the batch's shape).

    Notes
    -----
    Negative where signed Gaussians push outwards. No checks: :class:`supermage.forward.mge.MGE` makes them.
    """
    dtype = torch.promote_types(radius.dtype, surface_density.dtype)
    inclination = torch.as_tensor(inclination_rad, dtype=dtype, device=radius.device)
    intrinsic = intrinsic_axis_ratio(observed_axis_ratio, inclination.unsqueeze(-1) if inclination.ndim else inclination)
    column = radius.unsqueeze(-1)
    kernel = _kernel_in_parts(column / sigma.unsqueeze(-2), intrinsic.unsqueeze(-2))
    strength = surface_density * observed_axis_ratio / (sigma * math.sqrt(2.0 * math.pi))
    force = (strength.unsqueeze(-2) * kernel).sum(-1)
    return 4.0 * math.pi * GRAVITATIONAL_CONSTANT * radius**2 * force


def point_mass_velocity_squared(
    radius: Float[Tensor, "..."], mass: Float[Tensor, "..."], softening: float | Float[Tensor, "..."] = 0.0
) -> Float[Tensor, "..."]:
    """Squared circular velocity (km/s)^2 of a point mass (Msun) softened over a length (pc): ``G M R^2 / (R^2 + s^2)^(3/2)``.

    Infinite on top of an unsoftened mass, zero where the mass is zero.
    """
    square = torch.as_tensor(radius**2 + softening**2)
    on_top = square == 0
    squared = GRAVITATIONAL_CONSTANT * mass * radius**2 / torch.where(on_top, torch.ones_like(square), square) ** 1.5
    return torch.where(on_top & (torch.as_tensor(mass) > 0), torch.full_like(squared, torch.inf), squared)


def nfw_velocity_squared(
    radius_pc: Float[Tensor, "..."],
    m200: Float[Tensor, "..."],
    c200: Float[Tensor, "..."],
    *,
    hubble_constant: float = 70.0,
) -> Float[Tensor, "..."]:
    """Squared circular velocity (km/s)^2 of an NFW halo.

    Parameters
    ----------
    radius_pc
        Radius, pc, > 0.
    m200, c200
        Mass (Msun) inside the radius ``r200`` of mean density 200 times critical, and the concentration ``r200 / r_s``.
    hubble_constant
        km/s/Mpc, for the critical density.

    Notes
    -----
    Source: Navarro, Frenk & White 1997.
    """
    critical = 3.0 * (hubble_constant * 1e-6) ** 2 / (8.0 * math.pi * GRAVITATIONAL_CONSTANT)
    r200 = (3.0 * m200 / (800.0 * math.pi * critical)) ** (1.0 / 3.0)
    ratio = c200 * radius_pc / r200
    return GRAVITATIONAL_CONSTANT * m200 / radius_pc * _nfw_mass(ratio) / _nfw_mass(c200)


def exponential_disc_velocity_squared(
    radius: Float[Tensor, "..."], mass: Float[Tensor, "..."], scale_length: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Squared circular velocity (km/s)^2 in a thin disc of surface density proportional to ``exp(-R / h)``.

    ``v^2 = 2 G M / h  y^2 [I0(y) K0(y) - I1(y) K1(y)]``, ``y = R / (2 h)``, with scaled Bessel functions, so that nothing overflows.

    Parameters
    ----------
    radius, scale_length
        Radius and scale length h, in pc, > 0.
    mass
        Whole mass, Msun.

    Notes
    -----
    Source: Freeman 1970, eq. 10. Differentiable once, in forward and reverse mode (torch has no derivative of K0 and K1).
    """
    y = torch.as_tensor(radius / (2.0 * scale_length))
    here = y.detach().to(torch.float64)
    i0, i1, k0, k1 = (function(here) for function in _SCALED_BESSEL)
    value = here**2 * (i0 * k0 - i1 * k1)
    slope = 2.0 * here * (i0 * k0 + here * (i1 * k0 - i0 * k1))
    # far out the products cancel: their asymptotic series
    far = here > _FAR
    inverse = 1.0 / torch.where(far, here, torch.full_like(here, _FAR)) ** 2
    series, falling = (1.0 + inverse * (a + inverse * (b + inverse * c)) for a, b, c in _FAR_TERMS)
    value = torch.where(far, series * inverse.sqrt() / 4.0, value)
    slope = torch.where(far, -falling * inverse / 4.0, slope)
    shape = value.to(y.dtype) + slope.to(y.dtype) * (y - y.detach())
    return 2.0 * GRAVITATIONAL_CONSTANT * mass / scale_length * shape


_SCALED_BESSEL = (torch.special.i0e, torch.special.i1e, torch.special.scaled_modified_bessel_k0, torch.special.scaled_modified_bessel_k1)
_FAR = 40.0
_FAR_TERMS = ((9 / 8, 675 / 128, 55125 / 1024), (27 / 8, 3375 / 128, 385875 / 1024))


def _nfw_mass(ratio: Tensor) -> Tensor:
    """``ln(1 + x) - x / (1 + x)``, by its series where the difference would cancel."""
    small = ratio < 1e-2
    safe = torch.where(small, torch.ones_like(ratio), ratio)
    closed = torch.log1p(safe) - safe / (1.0 + safe)
    near = torch.where(small, ratio, torch.zeros_like(ratio))
    series = near**2 * sum(((-1.0) ** n * (n - 1) / n * near ** (n - 2) for n in range(3, 10)), start=torch.full_like(near, 0.5))
    return torch.where(small, series, closed)


class ScaleFreeCurve(nn.Module):
    """The circular-velocity curve of Gaussians whose widths are fixed in units of the break radius.

    A table of the kernel in Chebyshev polynomials of ``ln q`` turns weights and axis ratio into the whole curve with one product, and a
    cubic Hermite interpolant gives it at any radius. Knots are evenly spaced in ``s = x + BREAK_KNOTS atan(x / BREAK_WIDTH)``,
    ``x = ln(R / r_b)``: closer at the break, where a sharp profile bends. Relative error against :func:`circular_velocity_squared`
    < 1e-6 for q in [0.05, 1].

    Parameters
    ----------
    width_ratio
        ``sigma_j / r_b``, shape (gauss,).
    lower, upper
        Range of ``R / r_b`` that the table covers; beyond it :meth:`interpolate` returns the value at the edge.
    per_dex
        Radii per factor of ten, far from the break.
    terms
        Chebyshev terms in ``ln q``.
    """

    lowest_axis_ratio = 0.05
    log_radius: Tensor
    table: Tensor

    def __init__(
        self,
        width_ratio: Float[Tensor, "gauss"],
        *,
        lower: float = 1e-6,
        upper: float = 1e5,
        per_dex: int = 50,
        terms: int = 14,
    ) -> None:
        super().__init__()
        if not 0 < lower < upper:
            raise DomainError(f"the table's radii must satisfy 0 < lower < upper, got {lower} and {upper}")
        width = torch.as_tensor(width_ratio, dtype=torch.float64)
        ends = torch.tensor([math.log(lower), math.log(upper)], dtype=torch.float64)
        first, last = _graded(ends).tolist()
        count = math.ceil((last - first) * per_dex / math.log(10.0)) + 1
        self._first, self._step = first, (last - first) / (count - 1)
        log_radius = _ungraded(first + self._step * torch.arange(count, dtype=torch.float64))
        self.register_buffer("log_radius", log_radius, persistent=False)
        self.register_buffer("table", self._build(width, torch.exp(log_radius), terms), persistent=False)

    @classmethod
    def _build(cls, width: Tensor, radius: Tensor, terms: int) -> Tensor:
        """Chebyshev coefficients of ``4 pi rho^2 I(rho / s_j, q) / (s_j sqrt(2 pi))``, shape (terms, gauss, radius)."""
        angle = math.pi * (torch.arange(terms, dtype=torch.float64) + 0.5) / terms
        axis_ratio = cls.lowest_axis_ratio ** (0.5 * (1.0 - torch.cos(angle)))
        scale = 4.0 * math.pi / math.sqrt(2.0 * math.pi) * radius**2 / width[:, None]
        ratio = radius / width[:, None]
        samples = torch.stack([scale * gaussian_kernel(ratio, q) for q in axis_ratio])
        order = torch.arange(terms, dtype=torch.float64)
        transform = torch.cos(order[:, None] * angle) * (2.0 / terms)
        transform[0] *= 0.5
        return torch.einsum("nm,mjk->njk", transform, samples).contiguous()

    def velocity_squared(self, weights: Float[Tensor, "*batch gauss"], axis_ratio: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch knot"]:
        """Curve ``f`` on the table's radii ``exp(log_radius)``: ``v^2(R = rho r_b) = G Sigma_b r_b q' f(rho)``.

        Parameters
        ----------
        weights
            Peak surface density of each Gaussian for ``Sigma_b = 1``.
        axis_ratio
            Intrinsic axis ratio q in [0.05, 1] (not checked).

        Notes
        -----
        Summed in float64, because signed weights cancel; returned in the dtype of ``weights``.
        """
        double = weights.to(torch.float64)
        position = 1.0 - 2.0 * torch.log(axis_ratio.to(torch.float64)) / math.log(self.lowest_axis_ratio)
        basis = _chebyshev(position, self.table.shape[0])
        combined = (basis.unsqueeze(-1) * double.unsqueeze(-2)).flatten(-2)
        return (combined @ self.table.flatten(0, 1)).to(weights.dtype)

    def interpolate(self, curve: Float[Tensor, "*batch knot"], log_rho: Float[Tensor, "*batch point"]) -> Float[Tensor, "*batch point"]:
        """Value of a curve at radii given by ``ln(R / r_b)``: cubic Hermite with fourth-order slopes, continuous in value and slope."""
        first = _slopes(curve)
        left, right, slope, slope_right = curve[..., :-1], curve[..., 1:], first[..., :-1], first[..., 1:]
        rise = right - left
        coefficients = torch.stack([left, slope, 3.0 * rise - 2.0 * slope - slope_right, slope + slope_right - 2.0 * rise], dim=-1)
        position = ((_graded(log_rho) - self._first) / self._step).clamp(0.0, float(curve.shape[-1] - 1))
        index = position.detach().floor().clamp(max=float(curve.shape[-1] - 2)).long()
        if coefficients.ndim == 2:
            chosen = coefficients[index]
        else:
            chosen = torch.gather(coefficients, -2, index.unsqueeze(-1).expand(*index.shape, 4))
        fraction = position - index
        c0, c1, c2, c3 = chosen.unbind(-1)
        return c0 + fraction * (c1 + fraction * (c2 + fraction * c3))


def _graded(log_radius: Tensor) -> Tensor:
    """The coordinate in which the table's knots are evenly spaced."""
    return log_radius + BREAK_KNOTS * torch.atan(log_radius / BREAK_WIDTH)


def _ungraded(coordinate: Tensor) -> Tensor:
    """Inverse of :func:`_graded`, by bisection."""
    reach = 0.5 * math.pi * BREAK_KNOTS
    low, high = coordinate - reach, coordinate + reach
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = _graded(middle) < coordinate
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def _chebyshev(position: Tensor, terms: int) -> Tensor:
    """Chebyshev polynomials from powers: three operations in place of two a term; good to 1e-12 for 14 terms."""
    coefficients = torch.from_numpy(_power_coefficients(terms)).to(position.device)
    return position.unsqueeze(-1) ** torch.arange(terms, dtype=position.dtype, device=position.device) @ coefficients


@lru_cache
def _power_coefficients(terms: int) -> NDArray[np.float64]:
    """Column n holds T_n's coefficients of x^0, x^1, ..."""
    columns = [np.pad(np.polynomial.chebyshev.cheb2poly(np.eye(terms)[n]), (0, terms))[:terms] for n in range(terms)]
    return np.stack(columns, axis=1)


def _slopes(curve: Tensor) -> Tensor:
    """Derivative per knot: fourth-order central differences, second order in the outermost two knots."""
    inner = (8.0 * (curve[..., 3:-1] - curve[..., 1:-3]) - (curve[..., 4:] - curve[..., :-4])) / 12.0
    second = 0.5 * (curve[..., 2:3] - curve[..., 0:1])
    penultimate = 0.5 * (curve[..., -1:] - curve[..., -3:-2])
    first, last = curve[..., 1:2] - curve[..., 0:1], curve[..., -1:] - curve[..., -2:-1]
    return torch.cat([first, second, inner, penultimate, last], dim=-1)
