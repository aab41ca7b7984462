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

What the data know of log10 M, and of other parameters, changes along the prior: `supermage.inference.stretches` lengthens their coordinates
where the data speak, so that one step size suits both ends.
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
from supermage.inference.stretches import LOG_SQRT_2PI, Stretch, Stretched, Values, Widening, probit, probit_inverse

Scalar = Float[Tensor, ""]
Theta = Mapping[str, Tensor]

EDGE = 0.04
"""Width of a softbox' edges in units of the interval."""

_UNIFORM_STD = 1.0 / math.sqrt(12.0)


def softbox(u: Values, lower: float, upper: float, *, edge: float = EDGE) -> tuple[Values, Values]:
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


def softbox_inverse(y: Values, lower: float, upper: float, *, edge: float = EDGE) -> Values:
    """Inverse of `softbox` (closed form); the edges themselves are moved inwards by a part in 1e12."""
    width = edge * (upper - lower)
    span = upper - lower
    t = (y - lower).clamp(1e-12 * span, span * (1 - 1e-12)) / width
    log_expm1 = t + torch.log(-torch.expm1(-t))
    return lower + width * (log_expm1 - torch.log1p(-torch.exp(t - 1.0 / edge)))


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
    widened
        Other stretched coordinates, by name; those of pivots and of normal priors stay as they are.

    Attributes
    ----------
    plain
        Parameters that have a probit coordinate of their own, stretched or not.
    """

    def __init__(
        self, priors: Priors, *, pivots: Pivots | None = None, cut: float = 180.0, stretch: Stretch | None = None,
        widened: Mapping[str, Widening] | None = None,
    ) -> None:
        self.priors = priors
        self.pivots = pivots
        self.cut = cut
        self.names = priors.names
        self._index = {name: i for i, name in enumerate(self.names)}
        self._stretch: dict[str, Stretched] = {**(widened or {}), **({} if stretch is None else {"log10_mbh": stretch})}
        self._bounds = {p.name: (p.lower, p.upper) for p in priors.free}
        self._normal = {p.name: p.normal for p in priors.free if p.normal is not None}
        for name in priors.circular:
            self._bounds[name] = (cut - 180.0, cut + 180.0)
        self._pivoted = [name for name in ("gamma", "intensity_rb") if pivots is not None and name in self._index]
        self.plain = tuple(name for name in self.names if name not in self._pivoted and name not in self._normal)
        bounds = torch.tensor([self._bounds[name] for name in self.plain], dtype=torch.float64).reshape(-1, 2)
        self._plain_bounds = (bounds[:, 0], bounds[:, 1])
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
        each = dict(zip(self.names, z.unbind(), strict=True))
        log_jacobian = z.new_zeros(())
        for name, (mean, deviation) in self._normal.items():
            theta[name] = mean + deviation * each[name]
            log_jacobian = log_jacobian + math.log(deviation)
        for name in self.plain:
            if name in self._stretch:
                each[name] = self._stretch[name].inverse(each[name])
                log_jacobian = log_jacobian - torch.log(self._stretch[name].slope(each[name]))
        if self.plain:
            # all at once: a dozen small operations each would cost as much as the disc
            values, slopes = probit(torch.stack([each[name] for name in self.plain]), *self._plain_bounds)
            theta |= zip(self.plain, values.unbind(), strict=True)
            log_jacobian = log_jacobian + slopes.sum()
        for name in self._pivoted:
            lower, upper = self._bounds[name]
            scale = (upper - lower) * _UNIFORM_STD
            u = self._centre[name] + scale * each[name]
            theta[name], slope = softbox(u - self._offset(name, theta), lower, upper)
            log_jacobian = log_jacobian + slope + math.log(scale)
        for p in self.priors.free:
            if p.name in self.priors.circular:
                theta[p.name] = p.lower + torch.remainder(theta[p.name] - p.lower, 360.0)
        return theta, log_jacobian

    def from_theta(self, theta: Mapping[str, float | Tensor]) -> Float[Tensor, "param"]:
        """The z of free parameters inside their priors; the inverse of `to_theta`."""
        full = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in theta.items()} | self._fixed
        parts: list[Tensor] = []
        for name in self.names:
            lower, upper = self._bounds[name]
            if name in self._normal:
                part = (full[name] - self._normal[name][0]) / self._normal[name][1]
            elif name in self._pivoted:
                u = softbox_inverse(full[name], lower, upper) + self._offset(name, full)
                part = (u - self._centre[name]) / ((upper - lower) * _UNIFORM_STD)
            else:
                value = lower + torch.remainder(full[name] - lower, 360.0) if name in self.priors.circular else full[name]
                part = probit_inverse(value, lower, upper)
                if name in self._stretch:
                    part = self._stretch[name].forward(part)
            parts.append(torch.as_tensor(part, dtype=torch.float64))
        return torch.stack(parts)

    def jacobian(self, z: Float[Tensor, "param"]) -> Float[Tensor, "param param"]:
        """Derivatives of the free parameters by z: a row for each pivot's parameter, a diagonal for the rest, which know their own z."""
        return self.jacobians(z[None])[0]

    def jacobians(self, z: Float[Tensor, "point param"]) -> Float[Tensor, "point param param"]:
        """`jacobian` at several points."""
        leaf = z.detach().clone().requires_grad_(True)
        theta = torch.func.vmap(lambda point: self.to_theta(point)[0])(leaf)
        # points know nothing of one another, nor do parameters of one variable each: the gradient of their sum has all derivatives
        rest = sum((theta[name].sum() for name in self.names if name not in self._pivoted), start=0.0 * leaf.sum())
        matrix = torch.diag_embed(torch.autograd.grad(rest, leaf, retain_graph=True)[0])
        for name in self._pivoted:
            (matrix[:, self._index[name]],) = torch.autograd.grad(theta[name].sum(), leaf, retain_graph=True)
        return matrix.detach()

    def prior_precision(self, z: Float[Tensor, "param"]) -> Float[Tensor, "param"]:
        """Inverse variance of the prior in each coordinate: 1 where it is a unit normal (the pivots' to the second moment)."""
        precision = torch.ones_like(z)
        for name, stretch in self._stretch.items():
            if name in self.plain:
                i = self._index[name]
                precision[i] = stretch.slope(stretch.inverse(z[i])) ** -2
        return precision

    def vector(self, theta: Theta) -> Float[Tensor, "param"]:
        """The free parameters of theta as a vector."""
        return torch.stack([theta[name] for name in self.names])

    def log_prior(self, z: Float[Tensor, "param"], log_jacobian: Scalar | None = None) -> Scalar:
        """Log density of z under the priors; ``log_jacobian`` is that of `to_theta`, where it is known already."""
        normal = sum((-0.5 * z[self._index[name]] ** 2 - LOG_SQRT_2PI for name in self._normal), start=z.new_zeros(()))
        circular = self.priors.circular
        widths = sum(math.log(360.0) if p.name in circular else p.log_prior_width for p in self.priors.free)
        return (self.to_theta(z)[1] if log_jacobian is None else log_jacobian) + normal - widths

    def _offset(self, name: str, theta: Theta) -> Tensor:
        assert self.pivots is not None
        velocity_term, slope_term = self.pivots.mass_terms(theta)
        if name == "gamma":
            return slope_offset(theta, self.pivots.slope_radius) + slope_term
        neutral = {**theta, "intensity_rb": torch.zeros_like(theta["alpha"])}
        return self.pivots.log_velocity_squared(neutral) + velocity_term
