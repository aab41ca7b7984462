"""One coordinate at a time: a bounded parameter as a unit normal, and a coordinate lengthened where the data speak.

What the data know of a parameter may change by orders of magnitude along its prior. A step that suits the one end crawls at the other, so a
coordinate is stretched until information and prior together are even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

Scalar = Float[Tensor, ""]
Values = Float[Tensor, "*point"]
FloatArray = NDArray[np.float64]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def probit(z: Values, lower: float | Values, upper: float | Values) -> tuple[Values, Values]:
    """``lower + (upper - lower) Phi(z)`` and the log of its derivative."""
    width = torch.as_tensor(upper - lower, dtype=z.dtype)
    return lower + width * torch.special.ndtr(z), torch.log(width) - 0.5 * z * z - LOG_SQRT_2PI


def probit_inverse(theta: Scalar, lower: float, upper: float) -> Scalar:
    """Inverse of `probit`; the edges are moved inwards by a part in 1e12."""
    return torch.special.ndtri(((theta - lower) / (upper - lower)).clamp(1e-12, 1 - 1e-12))


class Stretched(Protocol):
    """A monotone map of a coordinate z, unit normal under the prior, to one that is longer where the data speak."""

    def slope(self, z: Values) -> Values:
        """``dt / dz``."""

    def forward(self, z: Values) -> Values:
        """The coordinate t of z."""

    def inverse(self, t: Values) -> Values:
        """The z of t, differentiable."""

    def solve(self, t: FloatArray) -> FloatArray:
        """The same of numbers."""


def _inverse(t: Values, curve: Stretched) -> Values:
    inverse: Values = _Inverse.apply(t, curve)
    return inverse


class _Inverse(torch.autograd.Function):
    """A curve's inverse, whose Newton steps run outside torch: there they would be most of a posterior's small operations."""

    @staticmethod
    def forward(t: Tensor, curve: Stretched) -> Tensor:
        # what is not finite stays so: the density says no to it
        with np.errstate(all="ignore"):
            return torch.as_tensor(curve.solve(t.detach().numpy()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Stretched], output: Tensor) -> None:
        ctx.curve = inputs[1]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return gradients[0] / ctx.curve.slope(z), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (z,) = ctx.saved_tensors
        return torch.as_tensor(tangents[0] / ctx.curve.slope(z))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], t: Tensor, curve: Stretched) -> tuple[Tensor, int | None]:
        return _inverse(t, curve), in_dims[0]


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

    def slope(self, z: Values) -> Values:
        """``dt / dz``."""
        return torch.sqrt(1.0 + torch.exp(2.0 * self.rate * (z - self.knee)))

    def forward(self, z: Values) -> Values:
        """The coordinate t of z."""
        r = self.slope(z)
        return z + (r - 1.0 - torch.log(0.5 * (1.0 + r))) / self.rate

    def inverse(self, t: Values) -> Values:
        """The z of t, differentiable."""
        return _inverse(t, self)

    def solve(self, t: FloatArray) -> FloatArray:
        """`inverse` by Newton's method, of numbers."""
        k = self.rate
        z = np.where(t < self.knee, t, self.knee + np.log1p(k * np.maximum(t - self.knee, 0.0)) / k)
        for _ in range(NEWTON_STEPS):
            r = np.sqrt(1.0 + np.exp(2.0 * k * (z - self.knee)))
            z = z - (z + (r - 1.0 - np.log(0.5 * (1.0 + r))) / k - t) / r
        return np.asarray(z)


NEWTON_STEPS = 7
"""Enough for 1e-13 over 12 widths on both sides of the knee."""


@dataclass(frozen=True)
class Widening:
    """``t = z + (gain / rate) log(1 + e^(rate (z - knee)))``: slope 1 on one side of the knee, 1 + gain on the other.

    Attributes
    ----------
    gain
        By how much the slope rises, at least 0.
    rate
        How fast, in z; a negative rate makes the slope rise towards small z.
    knee
        z where half of the rise is done.
    """

    gain: float
    rate: float
    knee: float

    def slope(self, z: Values) -> Values:
        """``dt / dz``."""
        return 1.0 + self.gain * torch.sigmoid(self.rate * (z - self.knee))

    def forward(self, z: Values) -> Values:
        """The coordinate t of z."""
        return z + self.gain / self.rate * torch.nn.functional.softplus(self.rate * (z - self.knee), threshold=700)

    def inverse(self, t: Values) -> Values:
        """The z of t, differentiable."""
        return _inverse(t, self)

    def solve(self, t: FloatArray) -> FloatArray:
        """`inverse` by Newton's method from the asymptotes' corner, whence it runs one way, of numbers."""
        beyond = (t + self.gain * self.knee) / (1.0 + self.gain)
        z = np.minimum(t, beyond) if self.rate > 0 else np.maximum(t, beyond)
        for _ in range(WIDENING_STEPS):
            place = self.rate * (z - self.knee)
            rise = self.gain * special.expit(place)
            z = z - (z + self.gain / self.rate * np.logaddexp(0.0, place) - t) / (1.0 + rise)
        return np.asarray(z)


WIDENING_STEPS = 9
"""Enough for 1e-13 with gains up to 30 and rates up to 10."""
