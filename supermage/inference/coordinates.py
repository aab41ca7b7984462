"""Coordinates in which the sampler walks: z, unbounded, in place of the bounded parameters theta.

A normal prior is a unit normal but for shift and scale, and a uniform one becomes it under ``theta = lo + (hi - lo) Phi(z)``, so that
Fisher matrix plus unit matrix is the natural metric.
Two parameters that the data pin only in combination are replaced by what is measured (pivots):

- ``u1 = log10 v_star^2(R1) + (1 + q1) log10(1 + q1 m)`` in place of ``intensity_rb``, linear in it: ``u1 = intensity_rb + f(others)``;
- ``u2 = gamma + (beta - gamma) x^alpha / (1 + x^alpha) + (2 - s) q2 (1 + q2) m``, x = R2 / r_b, in place of ``gamma``, linear in it too.

The first terms are what the stars do at R1 and R2. What the gas shows is stars and black hole together: q is the black hole's v^2 over that
of the stars at the optimum and m its mass over that there, so that at fixed u1 and u2 the total velocity and the slope of the total stay,
to first order, when the mass changes (a point mass rotates as a surface density of slope 2 would, and s is that of the total at the
optimum).

Both are triangular. The bounds are kept by a smooth bijection of the line onto the prior's interval, `softbox`, never by rejection.

The black hole's mass acts through v^2, so what the data know of log10 M grows as M^2: the posterior has a sharp flank and a flat tail of
masses too small to be seen. `Stretch` lengthens its coordinate where the data speak, so that one step size suits both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

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
class Stretch:
    """``t = z + (r - 1 - log((1 + r) / 2)) / k`` with ``r = sqrt(1 + e^(2 k (z - knee)))``, whose derivative is r: 1 far below the knee.

    Were the Fisher information about z ``e^(2 k (z - knee))``, information and unit normal prior together would be 1 everywhere in t.

    Attributes
    ----------
    rate
        k: half the rate at which the information's logarithm grows.
    knee
        z at which the data know as much as the prior.
    """

    rate: float
    knee: float

    @classmethod
    def of_mass(cls, log_mass: float, lower: float, upper: float, information: float) -> Stretch | None:
        """For information ``~ M^2`` that is ``information`` at ``log_mass``, prior uniform in log10 M; None where the data say little."""
        if not information > 1.0:
            return None
        z = probit_inverse(torch.tensor(log_mass, dtype=torch.float64), lower, upper)
        rate = math.log(10.0) * math.exp(float(probit(z, lower, upper)[1]))
        return cls(rate, float(z) - 0.5 * math.log(information) / rate)

    def slope(self, z: Scalar) -> Scalar:
        """``dt / dz``."""
        return torch.sqrt(1.0 + torch.exp(2.0 * self.rate * (z - self.knee)))

    def forward(self, z: Scalar) -> Scalar:
        """The coordinate t of z."""
        r = self.slope(z)
        return z + (r - 1.0 - torch.log(0.5 * (1.0 + r))) / self.rate

    def inverse(self, t: Scalar) -> Scalar:
        """The z of t by Newton's method; the last step carries the derivative."""
        k, fixed = self.rate, t.detach()
        z = torch.where(fixed < self.knee, fixed, self.knee + torch.log1p(k * (fixed - self.knee).clamp(min=0.0)) / k)
        for _ in range(NEWTON_STEPS):
            z = z - (self.forward(z) - fixed) / self.slope(z)
        return z - (self.forward(z) - t) / self.slope(z)


NEWTON_STEPS = 6
"""Enough for 1e-13 over 12 widths on both sides of the knee."""


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
    black_hole
        q1 and q2 there: v^2 of the black hole over that of the stars at R1 and R2.
    """

    velocity_radius: float
    slope_radius: float
    log_velocity_squared: Callable[[Theta], Tensor] = field(repr=False)
    reference: Mapping[str, float]
    black_hole: tuple[float, float] = (0.0, 0.0)

    def mass_terms(self, theta: Theta) -> tuple[Tensor, Tensor]:
        """What the black hole adds to u1 and to u2."""
        q1, q2 = self.black_hole
        relative = 10.0 ** (theta["log10_mbh"] - self.reference["log10_mbh"])
        return (1.0 + q1) * torch.log10(1.0 + q1 * relative), (2.0 - self.total_slope) * q2 * (1.0 + q2) * relative

    @cached_property
    def total_slope(self) -> float:
        """Slope s at R2 of the surface density that would rotate as stars and black hole of the reference do together."""
        reference = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.reference.items()}
        stars = float(reference["gamma"] + slope_offset(reference, self.slope_radius))
        # beyond slope 2 the stars rotate like a point mass too, and there is no slope to keep
        return min((stars + 2.0 * self.black_hole[1]) / (1.0 + self.black_hole[1]), 2.0)


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
    stretch
        Of the coordinate of ``log10_mbh``, where it is free.
    """

    def __init__(self, priors: Priors, *, pivots: Pivots | None = None, cut: float = 180.0, stretch: Stretch | None = None) -> None:
        self.priors = priors
        self.pivots = pivots
        self.cut = cut
        self.names = priors.names
        self._index = {name: i for i, name in enumerate(self.names)}
        self._stretch = {} if stretch is None else {"log10_mbh": stretch}
        self._bounds = {p.name: (p.lower, p.upper) for p in priors.free}
        self._normal = {p.name: p.normal for p in priors.free if p.normal is not None}
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
            if name in self._normal:
                mean, deviation = self._normal[name]
                theta[name] = mean + deviation * z[i]
                log_jacobian = log_jacobian + math.log(deviation)
            elif name not in self._pivoted:
                here = z[i]
                if name in self._stretch:
                    here = self._stretch[name].inverse(here)
                    log_jacobian = log_jacobian - torch.log(self._stretch[name].slope(here))
                theta[name], slope = probit(here, *self._bounds[name])
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
            if name in self._normal:
                z[i] = (full[name] - self._normal[name][0]) / self._normal[name][1]
            elif name in self._pivoted:
                u = softbox_inverse(full[name], lower, upper) + self._offset(name, full)
                z[i] = (u - self._centre[name]) / ((upper - lower) * _UNIFORM_STD)
            else:
                value = lower + torch.remainder(full[name] - lower, 360.0) if name in self.priors.circular else full[name]
                z[i] = probit_inverse(value, lower, upper)
                if name in self._stretch:
                    z[i] = self._stretch[name].forward(z[i])
        return z

    def prior_precision(self, z: Float[Tensor, "param"]) -> Float[Tensor, "param"]:
        """Inverse variance of the prior in each coordinate: 1 where it is a unit normal (the pivots' to the second moment)."""
        precision = torch.ones_like(z)
        for name, stretch in self._stretch.items():
            if name in self._index:
                i = self._index[name]
                precision[i] = stretch.slope(stretch.inverse(z[i])) ** -2
        return precision

    def vector(self, theta: Theta) -> Float[Tensor, "param"]:
        """The free parameters of theta as a vector."""
        return torch.stack([theta[name] for name in self.names])

    def log_prior(self, z: Float[Tensor, "param"]) -> Scalar:
        """Log density of z under the priors."""
        normal = sum((-0.5 * z[self._index[name]] ** 2 - _LOG_SQRT_2PI for name in self._normal), start=z.new_zeros(()))
        circular = self.priors.circular
        widths = sum(math.log(360.0) if p.name in circular else p.log_prior_width for p in self.priors.free)
        return self.to_theta(z)[1] + normal - widths

    def _offset(self, name: str, theta: Theta) -> Tensor:
        assert self.pivots is not None
        velocity_term, slope_term = self.pivots.mass_terms(theta)
        if name == "gamma":
            return slope_offset(theta, self.pivots.slope_radius) + slope_term
        neutral = {**theta, "intensity_rb": torch.zeros_like(theta["alpha"])}
        return self.pivots.log_velocity_squared(neutral) + velocity_term
