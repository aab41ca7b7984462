"""Draws of one posterior as weighted draws of another: Pareto-smoothed importance sampling, and whether it may be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST_K = 0.7
"""Shape of the weights' tail above which a weighted mean is not reliable, whatever the number of draws (Vehtari et al. 2024)."""

LEAST_EFFECTIVE = 100.0
"""Effective number of weighted draws below which nothing is said of them."""

_LEAST_TAIL = 5


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of draws.

    Attributes
    ----------
    share
        Of each draw, shape (draw,), summing to 1.
    k
        Shape of the generalised Pareto distribution of the largest weights.
    effective
        Effective number of draws.
    """

    share: FloatArray
    k: float
    effective: float

    @property
    def reliable(self) -> bool:
        """Whether weighted numbers may be told."""
        return self.k < MOST_K and self.effective >= LEAST_EFFECTIVE


def smooth_weights(log_ratio: FloatArray, *, independent: float = 1.0) -> Weights:
    """Weights from log density ratios, their largest replaced by the quantiles of a generalised Pareto distribution fitted to them.

    Parameters
    ----------
    log_ratio
        Log of the wanted density over the sampled one, shape (draw,).
    independent
        Share of the draws that count as independent.

    Notes
    -----
    Source: Vehtari, Simpson, Gelman, Yao & Gabry 2024.
    """
    log_weight = np.asarray(log_ratio, dtype=np.float64) - np.max(log_ratio)
    number = len(log_weight)
    size = math.ceil(min(0.2 * number, 3.0 * math.sqrt(number / independent)))
    order, k = np.argsort(log_weight), math.inf
    if size >= _LEAST_TAIL and size < number:
        tail, edge = order[-size:], math.exp(log_weight[order[-size - 1]])
        excess = np.exp(log_weight[tail]) - edge
        if excess[0] > 0.0:
            k, scale = fit_pareto(excess)
            level = -np.log1p(-(np.arange(size) + 0.5) / size)
            quantile = scale * (np.expm1(k * level) / k if abs(k) > 1e-12 else level)
            log_weight = log_weight.copy()
            log_weight[tail] = np.minimum(np.log(edge + quantile), 0.0)
        elif np.ptp(log_weight) == 0.0:
            k = 0.0
    share = np.exp(log_weight)
    share /= share.sum()
    return Weights(share, float(k), float(independent / np.sum(share**2)))


def fit_pareto(excess: FloatArray) -> tuple[float, float]:
    """Shape k and scale of a generalised Pareto distribution, from ascending positive excesses.

    The posterior mean of ``b = -k / scale`` on a grid, under a weak prior whose scale is the data's lower quartile (Zhang & Stephens 2009);
    k is drawn to 0.5 by the weight of ten observations, as Vehtari et al. 2024 do.
    """
    number = len(excess)
    points = 30 + int(math.sqrt(number))
    grid = 1.0 / excess[-1] + (1.0 - np.sqrt(points / (np.arange(points) + 0.5))) / (3.0 * excess[int(number / 4 + 0.5) - 1])
    shape = np.log1p(-grid[:, None] * excess).mean(axis=1)
    log_likelihood = number * (np.log(-grid / shape) - shape - 1.0)
    weight = np.exp(log_likelihood - log_likelihood.max())
    best = float(grid @ weight / weight.sum())
    k = float(np.log1p(-best * excess).mean())
    return (number * k + 5.0) / (number + 10.0), -k / best


def weighted_quantiles(values: FloatArray, share: FloatArray, levels: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of weighted draws."""
    order = np.argsort(values)
    below = np.cumsum(share[order]) - 0.5 * share[order]
    return tuple(float(value) for value in np.interp(levels, below, values[order]))
