"""Coordinates in which the sampler walks: z, unbounded, in place of the bounded parameters theta.

A uniform prior becomes a unit normal under ``theta = lo + (hi - lo) Phi(z)``, so that Fisher matrix plus unit matrix is the natural metric.
Two parameters that the data pin only in combination are replaced by what is measured (pivots):

- ``u1 = log10 v_star^2(R1)`` in place of ``intensity_rb``, linear in it: ``u1 = intensity_rb + f(others)``;
- ``u2 = gamma + (beta - gamma) x^alpha / (1 + x^alpha)``, x = R2 / r_b, the local slope, in place of ``gamma``: ``u2 = gamma + g(others)``.

Both are triangular. The bounds are kept by a smooth bijection of the line onto the prior's interval, `softbox`, never by rejection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from supermage.inference.priors import Priors

Scalar = Float[Tensor, ""]
Theta = Mapping[str, Tensor]

EDGE = 0.04
"""Width of a softbox' edges in units of the interval."""

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_UNIFORM_STD = 1.0 / math.sqrt(12.0)


def softbox(u: Scalar, lower: float, upper: float, *, edge: float = EDGE) -> tuple[Scalar, Scalar]:
    """Map the line onto (lower, upper): the identity inside, exponential approach at the edges.

    ``y = lower + d (softplus((u - lower) / d) - softplus((u - upper) / d))`` with ``d = edge (upper - lower)``.

    Returns
    -------
    tuple
        y and ``log(dy / du)``.
    """
    width = edge * (upper - lower)
    below, above = (u - lower) / width, (u - upper) / width
    value = lower + width * (torch.nn.functional.softplus(below, threshold=700) - torch.nn.functional.softplus(above, threshold=700))
    log_slope = torch.nn.functional.logsigmoid(below) + torch.nn.functional.logsigmoid(-above) + math.log1p(-math.exp(-1.0 / edge))
    return value.clamp(lower, upper), log_slope


def softbox_inverse(y: Scalar, lower: float, upper: float, *, edge: float = EDGE) -> Scalar:
    """Inverse of `softbox` (closed form); the edges themselves are moved inwards by a part in 1e12."""
    width = edge * (upper - lower)
    span = upper - lower
    t = (y - lower).clamp(1e-12 * span, span * (1 - 1e-12)) / width
    log_expm1 = t + torch.log(-torch.expm1(-t))
    return lower + width * (log_expm1 - torch.log1p(-torch.exp(t - 1.0 / edge)))


def probit(z: Scalar, lower: float, upper: float) -> tuple[Scalar, Scalar]:
    """``lower + (upper - lower) Phi(z)`` and the log of its derivative."""
    return lower + (upper - lower) * torch.special.ndtr(z), math.log(upper - lower) - 0.5 * z * z - _LOG_SQRT_2PI


def probit_inverse(theta: Scalar, lower: float, upper: float) -> Scalar:
    """Inverse of `probit`; the edges are moved inwards by a part in 1e12."""
    return torch.special.ndtri(((theta - lower) / (upper - lower)).clamp(1e-12, 1 - 1e-12))


@dataclass(frozen=True)
class Pivots:
    """Radii at which the velocity and the slope of the stars replace ``intensity_rb`` and ``gamma``.

    Attributes
    ----------
    velocity_radius, slope_radius
        R1 and R2, arcsec.
    log_velocity_squared
        ``theta -> log10 v_star^2(R1)``; theta holds every parameter. Adding 1 to ``intensity_rb`` must add 1.
    reference
        Values of every parameter near which the new coordinates are centred.
    """

    velocity_radius: float
    slope_radius: float
    log_velocity_squared: Callable[[Theta], Tensor] = field(repr=False)
    reference: Mapping[str, float]


def slope_offset(theta: Theta, radius: float) -> Scalar:
    """``g = (beta - gamma) x^alpha / (1 + x^alpha)``, x = radius / break_r: local slope minus inner slope (cf. eq. 2)."""
    return -theta["gamma_minus_beta"] * torch.sigmoid(theta["alpha"] * (math.log(radius) - torch.log(theta["break_r"])))


class Coordinates:
    """The map between z (a vector over the free parameters) and theta (every parameter by name).

    Parameters
    ----------
    priors
        Free and fixed parameters.
    pivots
        None keeps every parameter in its own probit coordinate.
    cut
        Centre of the circle's chart, deg, for a position angle whose prior is the whole circle; the cut lies opposite.
    """

    def __init__(self, priors: Priors, *, pivots: Pivots | None = None, cut: float = 180.0) -> None:
        self.priors = priors
        self.pivots = pivots
        self.cut = cut
        self.names = priors.names
        self._index = {name: i for i, name in enumerate(self.names)}
        self._bounds = {p.name: (p.lower, p.upper) for p in priors.free}
        for name in priors.circular:
            self._bounds[name] = (cut - 180.0, cut + 180.0)
        self._pivoted = [name for name in ("gamma", "intensity_rb") if pivots is not None and name in self._index]
        self._fixed = {name: torch.tensor(value, dtype=torch.float64) for name, value in priors.fixed.items()}
        self._centre: dict[str, float] = {}
        if pivots is not None:
            reference = {name: torch.tensor(value, dtype=torch.float64) for name, value in pivots.reference.items()}
            for name in self._pivoted:
                lower, upper = self._bounds[name]
                self._centre[name] = 0.5 * (lower + upper) + float(self._offset(name, reference))

    @property
    def dimension(self) -> int:
        """Number of free parameters."""
        return len(self.names)

    def to_theta(self, z: Float[Tensor, "param"]) -> tuple[dict[str, Tensor], Scalar]:
        """Every parameter by name, and ``log |d theta / d z|`` over the free ones. Differentiable."""
        theta: dict[str, Tensor] = dict(self._fixed)
        log_jacobian = z.new_zeros(())
        for name, i in self._index.items():
            if name not in self._pivoted:
                theta[name], slope = probit(z[i], *self._bounds[name])
                log_jacobian = log_jacobian + slope
        for name in self._pivoted:
            lower, upper = self._bounds[name]
            scale = (upper - lower) * _UNIFORM_STD
            u = self._centre[name] + scale * z[self._index[name]]
            theta[name], slope = softbox(u - self._offset(name, theta), lower, upper)
            log_jacobian = log_jacobian + slope + math.log(scale)
        for p in self.priors.free:
            if p.name in self.priors.circular:
                theta[p.name] = p.lower + torch.remainder(theta[p.name] - p.lower, 360.0)
        return theta, log_jacobian

    def from_theta(self, theta: Mapping[str, float | Tensor]) -> Float[Tensor, "param"]:
        """The z of free parameters inside their priors; the inverse of `to_theta`."""
        full = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in theta.items()} | self._fixed
        z = torch.zeros(self.dimension, dtype=torch.float64)
        for name, i in self._index.items():
            lower, upper = self._bounds[name]
            if name in self._pivoted:
                u = softbox_inverse(full[name], lower, upper) + self._offset(name, full)
                z[i] = (u - self._centre[name]) / ((upper - lower) * _UNIFORM_STD)
            else:
                value = lower + torch.remainder(full[name] - lower, 360.0) if name in self.priors.circular else full[name]
                z[i] = probit_inverse(value, lower, upper)
        return z

    def vector(self, theta: Theta) -> Float[Tensor, "param"]:
        """The free parameters of theta as a vector."""
        return torch.stack([theta[name] for name in self.names])

    def log_prior(self, z: Float[Tensor, "param"]) -> Scalar:
        """Log density of z under the uniform priors."""
        return self.to_theta(z)[1] - sum(math.log(p.upper - p.lower) for p in self.priors.free)

    def _offset(self, name: str, theta: Theta) -> Tensor:
        assert self.pivots is not None  # noqa: S101 - an internal invariant
        if name == "gamma":
            return slope_offset(theta, self.pivots.slope_radius)
        neutral = {**theta, "intensity_rb": torch.zeros_like(theta["alpha"])}
        return self.pivots.log_velocity_squared(neutral)
