"""Monotone recalibration of a predicted density, one smooth map for each coordinate, fitted on rows that nothing else has used.

The map is a sinh-arcsinh transformation (Jones & Pewsey 2009, Biometrika 96, 761) of the standardised coordinate: location, spread,
skewness and weight of the tails, four numbers, smooth everywhere, with a closed inverse and a closed Jacobian. It acts on the latent
coordinates of :mod:`supermage.models.mass_coordinates`, so that no mass inside another can outgrow it, and its numbers are chosen by the
probability integral transforms of the targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import DataError

RIDGE = 1e-3
"""Weight of the squared distance from no recalibration, beside the mean square error of the ranks."""

LEAST_ROWS = 40
"""Rows below which four numbers are not fitted."""

_BOUNDS = ((-1.0, 1.0), (-1.0, 1.0), (-0.7, 0.7), (-0.7, 0.7))


@dataclass(frozen=True)
class Warp:
    """The map of every coordinate: ``value = centre + scale (shift + stretch sinh((asinh(raw) + skew) / tail))``, raw standardised.

    Attributes
    ----------
    parameters
        Shape (latent, 4): shift, log stretch, skew, log tail; zero is the identity.
    """

    parameters: Float[Tensor, "latent 4"]

    @classmethod
    def identity(cls, latents: int) -> Warp:
        """No recalibration."""
        return cls(torch.zeros(latents, 4, dtype=torch.float64))

    def coordinate(self, latent: int) -> Warp:
        """The map of one coordinate alone."""
        return Warp(self.parameters[latent : latent + 1])

    def forward(self, raw: Float[Tensor, "..."], centre: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Recalibrated coordinates; last axis the coordinate, shapes broadcast."""
        shift, stretch, skew, tail = self._unpacked()
        inner = (torch.asinh((raw - centre) / scale) + skew) / tail
        return centre + scale * (shift + stretch * torch.sinh(inner))

    def inverse(
        self, value: Float[Tensor, "..."], centre: Float[Tensor, "..."], scale: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Coordinates before recalibration, and the logarithm of their derivative by the recalibrated ones."""
        shift, stretch, skew, tail = self._unpacked()
        outer = ((value - centre) / scale - shift) / stretch
        inner = tail * torch.asinh(outer) - skew
        log_slope = _log_cosh(inner) + torch.log(tail / stretch) - 0.5 * torch.log1p(outer**2)
        return centre + scale * torch.sinh(inner), log_slope

    def _unpacked(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shift, stretch, skew, tail = self.parameters.unbind(-1)
        return shift, torch.exp(stretch), skew, torch.exp(tail)


def fit_map(probability: Callable[[Float[Tensor, "4"]], list[Float[Tensor, "_"]]]) -> Float[Tensor, "4"]:
    """The four numbers that make probability integral transforms most uniform.

    Minimised is the mean square distance of the ordered values from the ranks, each over the variance of a uniform's order statistic, so
    that tails count as much as the middle, plus a small ridge that holds on to no recalibration.

    Parameters
    ----------
    probability
        Function of the four numbers that gives the values, in 0 - 1, of the calibration rows, one tensor for each target that the
        coordinate shall serve; differentiable.

    Raises
    ------
    DataError
        If a target has fewer rows than four numbers need.
    """
    from scipy import optimize

    start = torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        fewest = min(len(values) for values in probability(start))
    if fewest < LEAST_ROWS:
        raise DataError(f"recalibration needs at least {LEAST_ROWS} rows, got {fewest}")

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        numbers = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        terms = [rank_distance(values) for values in probability(numbers)]
        total = torch.stack(terms).mean() + RIDGE * (numbers**2).sum()
        (gradient,) = torch.autograd.grad(total, numbers)
        return float(total.detach()), gradient.numpy()

    found = optimize.minimize(loss, start.numpy(), jac=True, method="L-BFGS-B", bounds=_BOUNDS, options={"maxiter": 60})
    return torch.tensor(found.x, dtype=torch.float64)


def rank_distance(values: Float[Tensor, "row"]) -> Float[Tensor, ""]:
    """Mean square of the ordered values minus their expectations, over the variances that order statistics of a uniform have at one row."""
    ordered, n = torch.sort(values).values, len(values)
    expected = torch.arange(1, n + 1, dtype=values.dtype) / (n + 1)
    return ((ordered - expected) ** 2 / (expected * (1.0 - expected))).mean()


def _log_cosh(value: Tensor) -> Tensor:
    """Logarithm of the hyperbolic cosine, of any size."""
    size = value.abs()
    return size + torch.log1p(torch.exp(-2.0 * size)) - float(np.log(2.0))
