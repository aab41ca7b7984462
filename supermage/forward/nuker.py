"""The Nuker profile of surface density: formulas as pure functions of tensors, and a thin object that carries the numbers.

Everything is evaluated in log space: a direct ``(r / r_b) ** alpha`` overflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from supermage.errors import DomainError

_DE_STEP = 0.05
_DE_HALF_COUNT = 76
CORE = 1e4
"""As -ln(R / r_b): as good as the centre for every alpha of use."""


def log_nuker(
    log_radius_ratio: Float[Tensor, "..."], alpha: Float[Tensor, "..."], beta: Float[Tensor, "..."], gamma: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Natural logarithm of the Nuker profile in units of its value at the break.

    Parameters
    ----------
    log_radius_ratio
        Natural logarithm of radius / break radius.
    alpha, beta, gamma
        Sharpness, outer slope, inner slope; broadcast against the radius.

    Notes
    -----
    Source: Yantovski-Barth et al., eq. 2.
    """
    sharpness = (beta - gamma) / alpha
    return sharpness * (math.log(2.0) - softplus(alpha * log_radius_ratio, threshold=60.0)) - gamma * log_radius_ratio


def nuker_slope(
    log_radius_ratio: Float[Tensor, "..."], alpha: Float[Tensor, "..."], beta: Float[Tensor, "..."], gamma: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Local slope ``-d ln Sigma / d ln R``: gamma far inside the break, beta far outside, their mean at it."""
    return gamma + (beta - gamma) * torch.sigmoid(alpha * log_radius_ratio)


def scale_free_projected_mass(
    log_radius_ratio: Float[Tensor, "..."], alpha: Float[Tensor, "..."], beta: Float[Tensor, "..."], gamma: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Mass inside a circle of the projected profile, in units of ``Sigma_b r_b^2`` (``q' = 1``, ``gamma < 2``).

    The integral ``2 pi int Sigma R dR`` in ``ln R`` is split at the break and done by double-exponential quadrature (relative error below
    1e-9); it equals the hypergeometric closed form and, unlike that, is stable and differentiable in every argument.
    """
    tau = torch.arange(-_DE_HALF_COUNT, _DE_HALF_COUNT + 1, dtype=log_radius_ratio.dtype, device=log_radius_ratio.device) * _DE_STEP
    inner, outer, weight_inner, weight_outer = double_exponential_nodes(tau)
    log_x, alpha, beta, gamma = (item.unsqueeze(-1) for item in torch.broadcast_tensors(log_radius_ratio, alpha, beta, gamma))
    beyond = log_x.clamp(min=0.0)
    decay = 1.0 / (2.0 - gamma)
    below_break = log_x - beyond - decay * outer
    above_break = beyond * inner
    total = decay * weight_outer * torch.exp(2.0 * below_break + log_nuker(below_break, alpha, beta, gamma))
    total = total + beyond * weight_inner * torch.exp(2.0 * above_break + log_nuker(above_break, alpha, beta, gamma))
    return 2.0 * math.pi * _DE_STEP * total.sum(-1)


def double_exponential_nodes(tau: Float[Tensor, "node"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nodes on (0, 1) (tanh-sinh) and (0, inf) (exp-sinh), then their weights, for equidistant ``tau`` (times its step)."""
    sinh, cosh = torch.sinh(tau), torch.cosh(tau)
    unit = torch.sigmoid(math.pi * sinh)
    half_line = torch.exp(0.5 * math.pi * sinh)
    return unit, half_line, math.pi * cosh * unit * (1.0 - unit), 0.5 * math.pi * cosh * half_line


def require(condition: Tensor, rule: str, got: Tensor) -> None:
    """Raise DomainError ``rule, got <first offender>`` unless the condition holds everywhere.

    Inside ``torch.func.vmap`` numbers cannot be looked at, and the check is left out.
    """
    try:
        holds = bool(condition.all())
    except RuntimeError:
        return
    if not holds:
        offender = torch.broadcast_to(got, condition.shape)[~condition].flatten()[0]
        raise DomainError(f"{rule}, got {float(offender.detach()):.10g}")


@runtime_checkable
class HasUnit(Protocol):
    """An astropy Quantity, for one."""

    unit: Any

    def to_value(self, unit: str) -> Any:
        """The numbers in another unit."""
        ...


Amount = Tensor | float | HasUnit | Sequence[float]
"""What stands for a physical amount: a number, a list or a tensor in the unit that is stated, or a Quantity in one that converts to it."""

SURFACE_DENSITY = "solMass / pc2"


def as_float_tensor(value: Amount, unit: str = "") -> Tensor:
    """A floating-point tensor as it is; a Quantity in the unit given (none: a pure number); anything else as float64.

    Raises
    ------
    DomainError
        If it is no number, or of another kind of unit.
    """
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    if isinstance(value, HasUnit):
        try:
            value = value.to_value(unit)
        except (TypeError, ValueError):
            raise DomainError(f"a quantity must convert to {unit or 'a pure number'}, got {value!s:.40}") from None
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise DomainError(f"a quantity must be a number or a tensor of numbers, got {value!r:.80}") from None


def as_radius(value: Amount, unit: str = "pc") -> Tensor:
    """Radii as a tensor.

    Raises
    ------
    DomainError
        If one is negative or not finite.
    """
    radius = as_float_tensor(value, unit)
    require((radius >= 0) & torch.isfinite(radius), f"radius must be finite and not negative ({unit})", radius)
    return radius


def broadcast_shape(**shapes: torch.Size) -> torch.Size:
    """The common shape of named arguments.

    Raises
    ------
    DomainError
        If they do not go together.
    """
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        got = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items() if len(shape))
        raise DomainError(f"shapes must go together, got {got}") from None


@dataclass(frozen=True, init=False)
class Nuker:
    """A Nuker profile of surface mass density.

    Parameters
    ----------
    alpha
        Sharpness of the break, > 0.
    beta, gamma
        Outer and inner logarithmic slopes (positive numbers fall outwards); beta is not below gamma.
    break_radius
        Break radius along the major axis, pc, > 0.
    surface_density
        Surface density at the break, Msun/pc^2, > 0.

    Raises
    ------
    DomainError
        If a number breaks its rule or is not finite.

    Notes
    -----
    Source: Yantovski-Barth et al., eq. 2. Numbers, tensors or astropy Quantities; they broadcast.
    """

    alpha: Float[Tensor, "..."]
    beta: Float[Tensor, "..."]
    gamma: Float[Tensor, "..."]
    break_radius: Float[Tensor, "..."]
    surface_density: Float[Tensor, "..."]

    def __init__(
        self,
        alpha: Amount,
        beta: Amount,
        gamma: Amount,
        break_radius: Amount,
        surface_density: Amount,
    ) -> None:
        named = {"alpha": alpha, "beta": beta, "gamma": gamma, "break_radius": break_radius, "surface_density": surface_density}
        units = {"break_radius": "pc", "surface_density": SURFACE_DENSITY}
        for name, value in named.items():
            tensor = as_float_tensor(value, units.get(name, ""))
            require(torch.isfinite(tensor), f"{name} must be finite", tensor)
            if name in ("alpha", "break_radius", "surface_density"):
                require(tensor > 0, f"{name} must be positive", tensor)
            object.__setattr__(self, name, tensor)
        broadcast_shape(**{name: getattr(self, name).shape for name in named})
        require(self.beta >= self.gamma, "beta - gamma must not be negative", self.beta - self.gamma)

    def surface_density_at(self, radius: Float[Tensor, "..."] | float | HasUnit | Sequence[float]) -> Float[Tensor, "..."]:
        """Surface density, Msun/pc^2, at a (semi-major) radius in pc. A batched profile has its batch axes before the radius axis.

        Infinite at the centre where gamma is positive. Raises DomainError for a negative radius.
        """
        radius = as_radius(radius)
        alpha, beta, gamma, break_radius, surface_density = self._against(radius)
        log_ratio = torch.log(radius / break_radius)
        # a core goes on as it is at any small radius: 0 times infinity would be no number
        log_ratio = torch.where((radius == 0) & (gamma == 0), -CORE, log_ratio)
        return surface_density * torch.exp(log_nuker(log_ratio, alpha, beta, gamma))

    def projected_mass(self, radius: Float[Tensor, "..."] | float | HasUnit | Sequence[float]) -> Float[Tensor, "..."]:
        """Mass, Msun, inside a circle of the given radius (pc) for q' = 1.

        The Nuker radius is elliptical: inside the ellipse of semi-major axis R multiply by q'. Raises DomainError for gamma >= 2,
        where the mass diverges, and for a negative radius.
        """
        require(self.gamma < 2, "gamma must be below 2 for a finite mass", self.gamma)
        radius = as_radius(radius)
        alpha, beta, gamma, break_radius, surface_density = self._against(radius)
        log_ratio = torch.log(radius / break_radius)
        inside = torch.where(radius > 0, log_ratio, torch.zeros_like(log_ratio))
        mass = surface_density * break_radius**2 * scale_free_projected_mass(inside, alpha, beta, gamma)
        return torch.where(radius > 0, mass, torch.zeros_like(mass))

    def _against(self, radius: Tensor) -> tuple[Tensor, ...]:
        items = (self.alpha, self.beta, self.gamma, self.break_radius, self.surface_density)
        return tuple(item.unsqueeze(-1) if item.ndim and radius.ndim else item for item in items)
