"""Quantiles of many rows at once, for catalogues: distribution functions on a few points of each row, and the inverse by interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from supermage.models.mass_prior import MassPrior, line_of_target
from supermage.models.warped_mixture import WarpedMixture

FloatArray = NDArray[np.float64]

GRID = (-6.0, -3.7, -2.9, -2.3, -1.8, -1.3, -0.8, -0.35, 0.0, 0.35, 0.8, 1.3, 1.8, 2.3, 2.9, 3.7, 6.0)
"""Where a row's distribution function is evaluated, in rough spreads about the rough mean."""

NODES = 25
"""Of the integral over u1 behind log Mtot, between 5 spreads of a row on either side."""

TABLE = 2001
"""Points of the population's own distribution function, which all rows share."""

ROWS = 256
"""Rows of a chunk, for the targets without a compiled way."""

_LN10 = math.log(10.0)


@torch.no_grad()
def fast_quantiles(prior: MassPrior, name: str, probabilities: Sequence[float]) -> FloatArray:
    """Quantiles of a target, shape (row, probability).

    The same as ``prior.marginal(name).quantiles`` to about 1e-3 of a row's spread. Compiled for log M*, log M*/L, and log Mtot; the others
    take several times as long.

    Parameters
    ----------
    prior
        Batch shape (row,), from :meth:`supermage.models.mass_estimator.MassEstimator.prior_of`.
    name
        Target.
    probabilities
        In 0.001 - 0.999.
    """
    goal = torch.special.ndtri(torch.tensor(probabilities, dtype=torch.float64)).numpy()
    if not len(prior):
        return np.empty((0, len(goal)))
    if name not in ("log_mstar", "log_ml", "log_mtot"):
        pieces = [_quantiles_of_lines(prior[first : first + ROWS], name, goal) for first in range(0, len(prior), ROWS)]
        return np.concatenate(pieces)
    grid = _rough_grid(prior.mixture, both=name == "log_mtot")
    below = _conditional_cdf(prior.mixture, grid, both=name == "log_mtot")
    share = _population_share(prior.mixture)[:, None]
    below = (1.0 - share) * below + share * _population_cdf(prior, name, grid)
    quantiles = _interpolated(grid, below, goal)
    return quantiles - prior.log_light.numpy()[:, None] if name == "log_ml" else quantiles


def _population_share(mixture: WarpedMixture) -> FloatArray:
    return np.asarray((torch.exp(mixture.log_weight) * ~mixture.warped).sum(-1).numpy())


def _rough_grid(mixture: WarpedMixture, *, both: bool) -> FloatArray:
    """Points about each row's rough mean, shape (row, point): rough moments of log M*, or of log Mtot by the slope of log(1 + 10^u2)."""
    weight = torch.exp(mixture.log_weight)[..., None]
    mean = (weight * mixture.mean).sum(-2)
    away = (mixture.mean - mean[..., None, :])[..., :2]
    head = mixture.factor[..., :2, :]
    middle, gradient = mean[..., 0], torch.stack([torch.ones_like(mean[..., 0]), torch.zeros_like(mean[..., 0])], dim=-1)
    if both:
        middle = middle + torch.logaddexp(_LN10 * mean[..., 1], torch.zeros(())) / _LN10
        gradient[..., 1] = torch.sigmoid(_LN10 * mean[..., 1])
    within = ((gradient[..., None, :, None] * head).sum(-2) ** 2).sum(-1)
    between = (gradient[..., None, :] * away).sum(-1) ** 2
    spread = torch.sqrt((weight[..., 0] * (within + between)).sum(-1))
    return np.asarray((middle[:, None] + spread[:, None] * torch.tensor(GRID, dtype=torch.float64)).numpy())


def _conditional_cdf(mixture: WarpedMixture, grid: FloatArray, *, both: bool) -> FloatArray:
    """Distribution function of the warped components alone, their weights summing to 1, at points of each row."""
    part = mixture.warped
    log_weight = mixture.log_weight[:, part]
    weight = torch.softmax(log_weight, dim=-1).numpy()
    mean, factor = mixture.mean[:, part, :2].numpy(), mixture.factor[:, part, :2, :2].numpy()
    numbers = mixture.warp.parameters[:2].clone()
    numbers[:, 1] = torch.exp(numbers[:, 1])
    numbers[:, 3] = torch.exp(numbers[:, 3])
    result = np.empty_like(grid)
    kernel = _total_cdf if both else _stellar_cdf
    kernel(grid, weight, mean, factor, mixture.centre[:, :2].numpy(), mixture.scale[:, :2].numpy(), numbers.numpy(), result)
    return result


def _population_cdf(prior: MassPrior, name: str, grid: FloatArray) -> FloatArray:
    """The population's distribution function, the same for every row, from a table."""
    first = prior[:1].mixture
    part = ~first.warped
    alone = WarpedMixture(torch.log_softmax(first.log_weight[:, part], dim=-1), first.mean[:, part], first.factor[:, part], first.centre,
                          first.scale, first.warped[part], first.warp)  # fmt: skip
    line = line_of_target("log_mtot" if name == "log_mtot" else "log_mstar", alone, torch.zeros(1, dtype=torch.float64))
    low, high = (float(item) for item in line.bracket())
    axis = torch.linspace(low, high, TABLE, dtype=torch.float64)
    return np.interp(grid, axis.numpy(), line.cdf(axis[:, None])[:, 0].numpy())


def _quantiles_of_lines(prior: MassPrior, name: str, goal: FloatArray) -> FloatArray:
    line = line_of_target(name, prior.mixture, prior.log_light)
    grid = line.rough_quantile(torch.special.ndtr(torch.tensor(GRID, dtype=torch.float64))[:, None])
    return _interpolated(grid.T.contiguous().numpy(), line.cdf(grid).T.contiguous().numpy(), goal)


def _interpolated(grid: FloatArray, below: FloatArray, goal: FloatArray) -> FloatArray:
    """Quantiles by interpolation of the normal scores of the distribution function, which are nearly straight lines."""
    score = torch.special.ndtri(torch.from_numpy(below).clamp(1e-14, 1.0 - 1e-14)).numpy()
    result = np.empty((len(grid), len(goal)))
    _invert(grid, score, goal, result)
    return result


@numba.njit(nogil=True)
def _below(value: float) -> float:
    """Unit normal's distribution function."""
    return 0.5 * math.erfc(-0.7071067811865476 * value)


@numba.njit(nogil=True)
def _unwarped(value: float, centre: float, scale: float, numbers: FloatArray) -> float:
    """The coordinate before recalibration."""
    inner = numbers[3] * math.asinh(((value - centre) / scale - numbers[0]) / numbers[1]) - numbers[2]
    return centre + scale * math.sinh(inner)


@numba.njit(nogil=True)
def _warped(raw: float, centre: float, scale: float, numbers: FloatArray) -> float:
    """The coordinate after recalibration."""
    inner = (math.asinh((raw - centre) / scale) + numbers[2]) / numbers[3]
    return centre + scale * (numbers[0] + numbers[1] * math.sinh(inner))


@numba.njit(nogil=True)
def _stellar_cdf(grid: FloatArray, weight: FloatArray, mean: FloatArray, factor: FloatArray, centre: FloatArray, scale: FloatArray,
                 numbers: FloatArray, result: FloatArray) -> None:  # fmt: skip
    for row in range(grid.shape[0]):
        for point in range(grid.shape[1]):
            raw = _unwarped(grid[row, point], centre[row, 0], scale[row, 0], numbers[0])
            total = 0.0
            for k in range(weight.shape[1]):
                total += weight[row, k] * _below((raw - mean[row, k, 0]) / factor[row, k, 0, 0])
            result[row, point] = total


@numba.njit(nogil=True)
def _total_cdf(grid: FloatArray, weight: FloatArray, mean: FloatArray, factor: FloatArray, centre: FloatArray, scale: FloatArray,
               numbers: FloatArray, result: FloatArray) -> None:  # fmt: skip
    """Sum over nodes of log M*, shared by a row's components, of the chance that log(Mtot/M* - 1) is below what is left."""
    parts = weight.shape[1]
    share, shift, nodes = np.empty((NODES, parts)), np.empty((NODES, parts)), np.empty(NODES)
    for row in range(grid.shape[0]):
        for n in range(NODES):
            z = 10.0 * n / (NODES - 1) - 5.0
            raw = centre[row, 0] + scale[row, 0] * z
            nodes[n] = _warped(raw, centre[row, 0], scale[row, 0], numbers[0])
            for k in range(parts):
                away = (raw - mean[row, k, 0]) / factor[row, k, 0, 0]
                share[n, k] = math.exp(-0.5 * away * away)
                shift[n, k] = mean[row, k, 1] + factor[row, k, 1, 0] * away
        for k in range(parts):
            whole = share[:, k].sum()
            for n in range(NODES):
                share[n, k] *= weight[row, k] / max(whole, 1e-300)
        for point in range(grid.shape[1]):
            total = 0.0
            for n in range(NODES):
                left = grid[row, point] - nodes[n]
                if left > 0.0:
                    raw = left + math.log10(-math.expm1(-_LN10 * left))
                    raw = _unwarped(raw, centre[row, 1], scale[row, 1], numbers[1])
                    for k in range(parts):
                        if share[n, k] > 1e-7:
                            total += share[n, k] * _below((raw - shift[n, k]) / factor[row, k, 1, 1])
            result[row, point] = min(total, 1.0)


@numba.njit(nogil=True)
def _invert(grid: FloatArray, score: FloatArray, goal: FloatArray, result: FloatArray) -> None:
    """Inverse of scores that rise along the grid: a cubic through the two points on either side, a line where that would leave them."""
    count = grid.shape[1]
    for row in range(grid.shape[0]):
        for number in range(goal.shape[0]):
            place = 1
            while place < count - 1 and score[row, place] < goal[number]:
                place += 1
            low, high = place - 1, place
            rise = score[row, high] - score[row, low]
            line = grid[row, low] + (grid[row, high] - grid[row, low]) * (goal[number] - score[row, low]) / max(rise, 1e-12)
            first = min(max(place - 2, 0), count - 4)
            value, safe = 0.0, True
            for i in range(first, first + 4):
                term = grid[row, i]
                for j in range(first, first + 4):
                    if j != i:
                        gap = score[row, i] - score[row, j]
                        if abs(gap) < 1e-6:
                            safe = False
                            gap = 1.0
                        term *= (goal[number] - score[row, j]) / gap
                value += term
            if not safe or value < grid[row, low] or value > grid[row, high]:
                value = min(max(line, grid[row, 0]), grid[row, count - 1])
            result[row, number] = value
