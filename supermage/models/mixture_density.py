"""Conditional densities of latent coordinates: networks that give mixtures of Gaussians with whole covariances (Bishop 1994)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from supermage.errors import DataError
from supermage.models.recalibration import Warp
from supermage.models.warped_mixture import WarpedMixture, solve_lower

_LOG_SPREAD = (-5.0, 3.0)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of the networks.

    Attributes
    ----------
    inputs, latents
        Inputs, and coordinates whose density is given.
    members, components
        Networks of the ensemble, and Gaussians of each.
    hidden, depth
        Units of a hidden layer (SiLU), and hidden layers.
    """

    inputs: int
    latents: int
    members: int
    components: int
    hidden: int
    depth: int

    @property
    def outputs(self) -> int:
        """Numbers that a member gives: weights, means, Cholesky factors."""
        return self.components * (1 + self.latents + self.latents * (self.latents + 1) // 2)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Shapes of a member's matrices, biases in the last row."""
        return [(rows + 1, columns) for rows, columns in pairwise([self.inputs, *[self.hidden] * self.depth, self.outputs])]


class Components:
    """Mixtures of every member: log weights (member, row, component), means (..., latent), Cholesky factors (..., latent, latent)."""

    def __init__(self, log_weight: Tensor, mean: Tensor, factor: Tensor) -> None:
        self.log_weight, self.mean, self.factor = log_weight, mean, factor

    def log_density(self, value: Float[Tensor, "..."]) -> Float[Tensor, "member row"]:
        """Of coordinates, shape (row, latent) or (member, row, latent); NaN in the last ones counts as not seen, and is integrated out."""
        seen = torch.isfinite(value)
        residual = solve_lower(self.factor, torch.where(seen, value, torch.zeros_like(value))[..., None, :] - self.mean)
        size = torch.log(torch.diagonal(self.factor, dim1=-2, dim2=-1))
        terms = (-0.5 * residual**2 - size - _HALF_LOG_2PI) * seen[..., None, :]
        return torch.logsumexp(self.log_weight + terms.sum(-1), dim=-1)


def draw_layers(shape: NetworkShape, seed: int) -> list[Tensor]:
    """Matrices to start from, member by member; the last layer small, the components' means apart."""
    generator = torch.Generator().manual_seed(seed)
    result: list[Tensor] = []
    for _ in range(shape.members):
        for number, (rows, columns) in enumerate(shape.layers):
            value = torch.randn(rows, columns, generator=generator, dtype=torch.float64) / math.sqrt(rows - 1)
            value[-1] = 0.0
            if number == len(shape.layers) - 1:
                value *= 0.1
                means = slice(shape.components, shape.components * (1 + shape.latents))
                value[-1, means] = 0.5 * torch.randn(shape.components * shape.latents, generator=generator, dtype=torch.float64)
            result.append(value)
    return result


def components(layers: list[Tensor], shape: NetworkShape, inputs: Float[Tensor, "..."]) -> Components:
    """Mixtures that the members give for inputs, shape (row, input) for all, or (member, row, input) for each."""
    depth = len(shape.layers)
    stacked = [torch.stack(layers[number::depth]) for number in range(depth)]
    value = inputs if inputs.dim() == 3 else inputs.expand(shape.members, *inputs.shape)
    for layer in stacked[:-1]:
        value = nn.functional.silu(torch.baddbmm(layer[:, -1:], value, layer[:, :-1]))
    value = torch.baddbmm(stacked[-1][:, -1:], value, stacked[-1][:, :-1])
    k, d = shape.components, shape.latents
    flat = value.shape[:2]
    mean = value[..., k : k * (1 + d)].reshape(*flat, k, d)
    rest = value[..., k * (1 + d) :].reshape(*flat, k, d * (d + 1) // 2)
    factor = torch.diag_embed(torch.exp(rest[..., :d].clamp(*_LOG_SPREAD)))
    rows, columns = torch.tril_indices(d, d, -1)
    if len(rows):
        below = torch.zeros_like(factor)
        below[..., rows, columns] = rest[..., d:]
        factor = factor + below
    return Components(torch.log_softmax(value[..., :k], dim=-1), mean, factor)


@dataclass(frozen=True)
class Population:
    """Density of the training population, a mixture of Gaussians: log weights (component,), means, Cholesky factors."""

    log_weight: Tensor
    mean: Tensor
    factor: Tensor


@dataclass(frozen=True)
class ConditionalDensity:
    """A trained ensemble.

    Attributes
    ----------
    shape
        Sizes of the networks.
    layers
        Matrices, member by member.
    spread
        Unit of each coordinate in the networks, about the anchor, shape (latent,).
    population
        Density of the training population.
    warp
        Recalibration.
    """

    shape: NetworkShape
    layers: list[Tensor]
    spread: Tensor
    population: Population
    warp: Warp

    @torch.no_grad()
    def mixture(
        self, inputs: Float[Tensor, "row input"], anchor: Float[Tensor, "row latent"], population_weight: Float[Tensor, "row"]
    ) -> WarpedMixture:
        """The density of every row.

        Parameters
        ----------
        inputs
            Of the networks.
        anchor
            A first guess of the coordinates, about which the networks' mixtures stand.
        population_weight
            Share of the population's density.
        """
        got = components(self.layers, self.shape, inputs)
        rows, latents = anchor.shape
        log_weight = got.log_weight.permute(1, 0, 2).reshape(rows, -1) - math.log(self.shape.members)
        mean = got.mean.permute(1, 0, 2, 3).reshape(rows, -1, latents) * self.spread + anchor[:, None, :]
        factor = got.factor.permute(1, 0, 2, 3, 4).reshape(rows, -1, latents, latents) * self.spread[:, None]
        weight = torch.exp(log_weight)[..., None]
        centre = (weight * mean).sum(1)
        scale = torch.sqrt((weight * ((factor**2).sum(-1) + (mean - centre[:, None]) ** 2)).sum(1))
        share = population_weight[:, None]
        warped = torch.arange(log_weight.shape[1] + len(self.population.log_weight)) < log_weight.shape[1]
        return WarpedMixture(
            torch.cat([log_weight + torch.log1p(-share.clamp_max(1.0 - 1e-12)), self.population.log_weight + torch.log(share)], dim=1),
            torch.cat([mean, self.population.mean.expand(rows, -1, -1)], dim=1),
            torch.cat([factor, self.population.factor.expand(rows, -1, -1, -1)], dim=1),
            centre, scale, warped, self.warp,
        )  # fmt: skip


def fit_population(rows: NDArray[np.float64], count: int, *, steps: int = 200) -> Population:
    """A mixture of Gaussians by expectation maximisation.

    Parameters
    ----------
    rows
        Coordinates, shape (row, latent), finite.
    count
        Components; they start from the slices between quantiles of the first coordinate.
    steps
        Iterations.

    Raises
    ------
    DataError
        If there are fewer rows than ten for each component and coordinate.
    """
    n, size = rows.shape
    if n < 10 * count * size:
        raise DataError(f"a population of {count} components in {size} coordinates needs {10 * count * size} rows, got {n}")
    share = np.zeros((n, count))
    share[np.argsort(rows[:, 0], kind="stable"), (np.arange(n) * count) // n] = 1.0
    ridge = 1e-4 * np.diag(rows.var(axis=0))
    for _ in range(steps):
        weight = share.sum(axis=0) / n
        mean = (share.T @ rows) / share.sum(axis=0)[:, None]
        away = rows[:, None, :] - mean
        covariance = np.einsum("nk,nki,nkj->kij", share, away, away) / share.sum(axis=0)[:, None, None] + ridge
        factor = np.linalg.cholesky(covariance)
        residual = np.linalg.solve(factor[None], away[..., None])[..., 0]
        terms = np.log(weight) - 0.5 * (residual**2).sum(-1) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)
        share = np.exp(terms - terms.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
    return Population(*(torch.tensor(item) for item in (np.log(weight), mean, factor)))
