"""Mixtures of Gaussians of which some are seen through a monotone map: densities, distribution functions, their inverses, draws.

:class:`WarpedMixture` lives in several latent coordinates, :class:`LineMixture` on a line: float64, differentiable by every tensor in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from supermage.models.mass_coordinates import log_difference, log_slope, log_sum
from supermage.models.recalibration import Warp

REACH = 9.5
"""Standard deviations of every component between which a quantile is looked for: 1e-21 of a Gaussian lies beyond."""

MOST_STEPS = 200
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class LineMixture:
    """Distribution of ``y = offset + v`` or ``y = offset + sign l(inner v)``, v of a mixture of Gaussians, some of them warped.

    ``l(v) = log10(1 + 10^v)``.

    Attributes
    ----------
    log_weight, location, spread, offset
        Of each component, shape (*batch, component); weights sum to 1.
    warped
        Which components the map acts on, shape (component,).
    centre, scale
        Of the map, shape (*batch,).
    warp
        The map of one coordinate.
    link
        (sign, inner), each 1 or -1, or None for ``y = offset + v``.
    """

    log_weight: Float[Tensor, "*batch n"]
    location: Float[Tensor, "*batch n"]
    spread: Float[Tensor, "*batch n"]
    offset: Float[Tensor, "*batch n"]
    warped: Bool[Tensor, "n"]
    centre: Float[Tensor, "*batch"]
    scale: Float[Tensor, "*batch"]
    warp: Warp
    link: tuple[int, int] | None = None

    def cdf(self, value: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
        """Probability below a value, shape (*sample, *batch)."""
        distance, _, inside = self._standardised(value)
        return (torch.exp(self.log_weight) * self._below(distance, inside)).sum(-1).clamp(0.0, 1.0)

    def cdf_and_density(self, value: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """:meth:`cdf` and the density from one evaluation, without gradients that matter."""
        distance, slope, inside = self._standardised(value)
        weight = torch.exp(self.log_weight)
        density = (weight / self.spread * torch.exp(slope - 0.5 * distance**2 - _HALF_LOG_2PI) * inside).sum(-1)
        return (weight * self._below(distance, inside)).sum(-1).clamp(0.0, 1.0), density

    def rows(self, chosen: Tensor) -> LineMixture:
        """Some rows."""
        names = ("log_weight", "location", "spread", "offset", "centre", "scale")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def log_density(self, value: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
        """Natural logarithm of the density, shape (*sample, *batch)."""
        distance, slope, inside = self._standardised(value)
        terms = self.log_weight - 0.5 * distance**2 - _HALF_LOG_2PI - torch.log(self.spread) + slope
        terms = torch.where(inside, terms, torch.full_like(terms, -torch.inf))
        return _logsumexp(terms)

    def quantile(self, probability: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
        """Value below which a probability lies, by Newton steps kept inside a bracket; differentiable by the implicit function theorem."""
        with torch.no_grad():
            low, high = self.bracket()
            shape = torch.broadcast_shapes(probability.shape, low.shape)
            goal = probability.expand(shape)
            value = solve_increasing(self.cdf_and_density, goal, low, high, self.rough_quantile(goal))
            slope = torch.exp(self.log_density(value)).clamp_min(1e-280)
        if torch.is_grad_enabled():
            residual = probability - self.cdf(value)
            value = value + torch.where(residual.detach().abs() < 1e-6, residual - residual.detach(), torch.zeros_like(residual)) / slope
        value = torch.where(probability <= 0.0, torch.full_like(value, -torch.inf), value)
        return torch.where(probability >= 1.0, torch.full_like(value, torch.inf), value)

    def rough_quantile(self, probability: Tensor) -> Tensor:
        """A normal's quantile with about the right mean and variance, to start from; shape of the probability."""
        weight = torch.exp(self.log_weight)
        middle, upper = (self.outward(self.location + sign * self.spread) for sign in (0.0, 1.0))
        centre = (weight * middle).sum(-1)
        variance = (weight * ((middle - centre[..., None]) ** 2 + (upper - middle) ** 2)).sum(-1)
        return centre + torch.sqrt(variance) * torch.special.ndtri(probability)

    def bracket(self) -> tuple[Tensor, Tensor]:
        """Values that hold nearly all of the probability between them, shape (*batch,) each."""
        ends = [self.outward(self.location + sign * REACH * self.spread) for sign in (-1.0, 1.0)]
        return torch.minimum(*ends).amin(-1), torch.maximum(*ends).amax(-1)

    def moments(self, nodes: int = 801) -> tuple[Tensor, Tensor]:
        """Mean and variance by the trapezoid rule, shape (*batch,) each."""
        low, high = self.bracket()
        step = torch.linspace(0.0, 1.0, nodes, dtype=low.dtype)
        grid = low + (high - low) * step.reshape(-1, *[1] * low.dim())
        weight = torch.exp(self.log_density(grid))
        weight = weight / weight.sum(0)
        mean = (weight * grid).sum(0)
        return mean, (weight * (grid - mean) ** 2).sum(0)

    def outward(self, raw: Tensor) -> Tensor:
        """Values of y that Gaussians' own coordinates, shape (*batch, n), stand for."""
        bent = self.warp.forward(raw[..., None], self.centre[..., None, None], self.scale[..., None, None])[..., 0]
        value = torch.where(self.warped, bent, raw)
        return self.offset + (value if self.link is None else self.link[0] * log_sum(self.link[1] * value))

    def _below(self, distance: Tensor, inside: Tensor) -> Tensor:
        """Probability below, of each component."""
        below = torch.special.ndtr(distance)
        if self.link is None:
            return below
        rising = self.link[0] == self.link[1]
        return torch.where(inside, below if rising else 1.0 - below, torch.full_like(below, 0.0 if self.link[0] > 0 else 1.0))

    def _standardised(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances from components in their spreads, log of |d raw / d y|, and where y can be; shape (*sample, *batch, n)."""
        inner = value[..., None] - self.offset
        extra = torch.zeros_like(inner)
        inside = torch.ones_like(inner, dtype=torch.bool)
        if self.link is not None:
            size = self.link[0] * inner
            inside = size > 0
            safe = torch.where(inside, size, torch.ones_like(size))
            inner, extra = self.link[1] * log_difference(safe), log_slope(safe)
        raw, slope = self.warp.inverse(inner[..., None], self.centre[..., None, None], self.scale[..., None, None])
        raw = torch.where(self.warped, raw[..., 0], inner)
        slope = torch.where(self.warped, slope[..., 0], torch.zeros_like(inner))
        return (raw - self.location) / self.spread, slope + extra, inside


@dataclass(frozen=True)
class WarpedMixture:
    """A mixture of Gaussians in latent coordinates, some of whose components are seen through a monotone map of each coordinate.

    Attributes
    ----------
    log_weight
        Natural logarithm of the components' weights, shape (*batch, component); they sum to 1.
    mean
        Shape (*batch, component, latent).
    factor
        Lower Cholesky factors of the covariances, shape (*batch, component, latent, latent).
    centre, scale
        Of the map, shape (*batch, latent).
    warped
        Which components the map acts on, shape (component,).
    warp
        The map.
    """

    log_weight: Float[Tensor, "*batch n"]
    mean: Float[Tensor, "*batch n latent"]
    factor: Float[Tensor, "*batch n latent latent"]
    centre: Float[Tensor, "*batch latent"]
    scale: Float[Tensor, "*batch latent"]
    warped: Bool[Tensor, "n"]
    warp: Warp

    @property
    def latents(self) -> int:
        """Number of coordinates."""
        return self.mean.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch."""
        return self.log_weight.shape[:-1]

    def map(self, function: Callable[[Tensor, int], Tensor]) -> WarpedMixture:
        """A function of each tensor and its number of axes after the batch, on all tensors that have a batch."""
        axes = {"log_weight": 1, "mean": 2, "factor": 3, "centre": 1, "scale": 1}
        changed: dict[str, Any] = {name: function(getattr(self, name), number) for name, number in axes.items()}
        return replace(self, **changed)

    def only(self, latents: tuple[int, ...]) -> WarpedMixture:
        """The distribution of some coordinates, in the order given."""
        if latents == tuple(range(self.latents)):
            return self
        chosen = list(latents)
        rows = self.factor[..., chosen, :]
        head = rows[..., : len(chosen)] if latents == tuple(range(len(chosen))) else _cholesky(rows @ rows.mT)
        return replace(self, mean=self.mean[..., chosen], factor=head, centre=self.centre[..., chosen], scale=self.scale[..., chosen],
                       warp=Warp(self.warp.parameters[chosen]))  # fmt: skip

    def log_density(self, value: Float[Tensor, "*shape latent"]) -> Float[Tensor, "..."]:
        """Natural logarithm of the density, shape (*sample, *batch)."""
        raw, slope = self._raw(value)
        residual = solve_lower(self.factor, raw - self.mean)
        size = torch.log(torch.diagonal(self.factor, dim1=-2, dim2=-1))
        terms = (slope - 0.5 * residual**2 - _HALF_LOG_2PI - size).sum(-1)
        return _logsumexp(self.log_weight + terms)

    def line(self, latent: int) -> LineMixture:
        """The distribution of one coordinate."""
        one = self.only((latent,))
        return LineMixture(one.log_weight, one.mean[..., 0], one.factor[..., 0, 0], torch.zeros_like(one.log_weight), one.warped,
                           one.centre[..., 0], one.scale[..., 0], one.warp)  # fmt: skip

    def draw(self, uniform: Float[Tensor, "*shape latent"]) -> Float[Tensor, "*shape latent"]:
        """Coordinates of uniform numbers, one after the other by the inverse of each conditional distribution function.

        Differentiable by every tensor: draws move smoothly with weights, means and covariances.
        """
        coordinates: list[Tensor] = []
        log_weight, residuals = self.log_weight, torch.zeros_like(self.mean[..., :0])
        for latent in range(self.latents):
            shift = (self.factor[..., latent, :latent] * residuals).sum(-1)
            location = self.mean[..., latent] + shift
            spread = self.factor[..., latent, latent].expand(location.shape)
            shape = location.shape[:-1]
            line = LineMixture(log_weight.expand(location.shape), location, spread, torch.zeros_like(location), self.warped,
                               self.centre[..., latent].expand(shape), self.scale[..., latent].expand(shape),
                               self.warp.coordinate(latent))  # fmt: skip
            coordinates.append(line.quantile(uniform[..., latent]))
            distance, slope, _ = line._standardised(coordinates[-1])
            log_weight = torch.log_softmax(line.log_weight - 0.5 * distance**2 - torch.log(line.spread) + slope, dim=-1)
            residuals = torch.cat([residuals.expand(*distance.shape, latent), distance[..., None]], dim=-1)
        return torch.stack(coordinates, dim=-1)

    @torch.no_grad()
    def draw_quickly(self, sample_shape: tuple[int, ...]) -> Tensor:
        """Coordinates, shape (*sample, *batch, latent): a component by its weight, then its Gaussian; not differentiable."""
        shape = (*sample_shape, *self.batch_shape)
        cumulated = torch.cumsum(torch.exp(self.log_weight), dim=-1)
        chosen = (torch.rand(*shape, 1, dtype=torch.float64) * cumulated[..., -1:] > cumulated).sum(-1)
        number = chosen.clamp_max(len(self.warped) - 1)[..., None, None]
        mean, factor = self.mean.expand(*shape, *self.mean.shape[-2:]), self.factor.expand(*shape, *self.factor.shape[-3:])
        mean = mean.take_along_dim(number, dim=-2)[..., 0, :]
        factor = factor.take_along_dim(number[..., None], dim=-3)[..., 0, :, :]
        raw = mean + (factor @ torch.randn(*shape, self.latents, 1, dtype=torch.float64))[..., 0]
        return torch.where(self.warped[number[..., 0]], self.warp.forward(raw, self.centre, self.scale), raw)

    def _raw(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates before the map and log slopes, for every component: shape (*sample, *batch, component, latent)."""
        raw, slope = self.warp.inverse(value, self.centre, self.scale)
        warped = self.warped[:, None]
        return (torch.where(warped, raw[..., None, :], value[..., None, :]),
                torch.where(warped, slope[..., None, :], torch.zeros_like(slope)[..., None, :]))  # fmt: skip


def solve_lower(factor: Float[Tensor, "..."], value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Forward substitution along the last axes of a few coordinates, shapes broadcast."""
    result: list[Tensor] = []
    for row in range(value.shape[-1]):
        known = sum((factor[..., row, column] * result[column] for column in range(row)), torch.zeros((), dtype=value.dtype))
        result.append((value[..., row] - known) / factor[..., row, row])
    return torch.stack(result, dim=-1)


def solve_increasing(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], goal: Float[Tensor, "*shape"], low: Tensor, high: Tensor, start: Tensor
) -> Float[Tensor, "*shape"]:
    """Where an increasing function takes a value: Newton steps, halving where one leaves the bracket.

    Parameters
    ----------
    function
        Gives values and slopes.
    goal
        What the function shall be.
    low, high
        Bracket; shapes broadcast to the goal's.
    start
        Where to begin; the bracket's middle where that lies outside.
    """
    low, high = low.expand(goal.shape).clone(), high.expand(goal.shape).clone()
    value = torch.where((start > low) & (start < high), start, 0.5 * (low + high))
    for _ in range(MOST_STEPS):
        got, slope = function(value)
        below = got < goal
        low, high = torch.where(below, value, low), torch.where(below, high, value)
        step = (goal - got) / slope
        trial = value + step
        bad = ~(torch.isfinite(trial) & (trial > low) & (trial < high))
        new = torch.where(bad, 0.5 * (low + high), trial)
        moved = (new - value).abs()
        value = new
        if bool((moved <= 1e-13 * (1.0 + value.abs())).all()):
            break
    return value


def _cholesky(matrix: Tensor) -> Tensor:
    return torch.sqrt(matrix) if matrix.shape[-1] == 1 else torch.linalg.cholesky(matrix)


def _logsumexp(terms: Tensor) -> Tensor:
    """Like torch's along the last axis; minus infinity with no gradient where all terms are."""
    top = terms.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    total = torch.exp(terms - top).sum(-1)
    nothing = total == 0
    log_total = torch.log(torch.where(nothing, torch.ones_like(total), total)) + top[..., 0]
    return torch.where(nothing, torch.full_like(total, -torch.inf), log_total)
