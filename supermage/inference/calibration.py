"""Are intervals honest: exact posteriors of linear models under every likelihood, and the statistics that judge their ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from supermage.errors import DomainError
from supermage.inference.likelihood import VisibilityNoise

FloatArray = NDArray[np.float64]
LogPosterior = Callable[[FloatArray], FloatArray]
"""From points (point, param) to log densities (point,)."""

PROPOSAL_DEGREES, PROPOSAL_SCALE = 5.0, 1.3
"""The proposal of `linear_ranks` is a multivariate t, wider than the posterior, so that no weight is large."""

NEWTON_STEPS = 30


@dataclass(frozen=True)
class Ranks:
    """Where the truth lies in the posterior of each parameter.

    Attributes
    ----------
    below
        Posterior probability below the truth, shape (param,); uniform over repeated draws of truth and data if the posterior is right.
    effective
        Effective number of the importance sample.
    """

    below: FloatArray
    effective: float


def linear_ranks(
    noise: VisibilityNoise, templates: Complex[Tensor, "param block chan cell"], truth: FloatArray, prior: FloatArray,
    rng: np.random.Generator, *, draws: int = 4000,
) -> Ranks:  # fmt: skip
    """Ranks of the true amplitudes in the posterior of ``V = sum_p theta_p T_p`` under normal priors, by importance sampling.

    Chi^2 of every spectrum is a quadratic in theta, worked out once; the posterior is then exact up to the sampling, with no chain.

    Parameters
    ----------
    noise
        Data and likelihood.
    templates
        T, Jy.
    truth, prior
        True amplitudes, and standard deviations of their priors about 0, shape (param,).
    rng
        For the importance sample.
    draws
        Its size.
    """
    shapes = torch.stack([noise.whiten(template) for template in templates]).flatten(2)
    points, share = _Quadratic(noise, shapes, noise.whitened_data.flatten(1), np.zeros(len(truth)), prior).draw(rng, draws)
    return Ranks(below=share @ (points < truth), effective=float(1.0 / np.sum(share**2)))


def nearly_linear_ranks(
    residual: Callable[[Tensor], Tensor], noise: VisibilityNoise, truth: FloatArray, mean: FloatArray, prior: FloatArray,
    rng: np.random.Generator, *, exact: int = 64, draws: int = 4000,
) -> Ranks:  # fmt: skip
    """Ranks of true parameters in the posterior of a model that is nearly linear where the posterior lies, under normal priors.

    The model is made linear at the truth, ranked as by `linear_ranks`, and put right by the ratio of the exact posterior to the linear
    one on a few draws of the latter: with the same draws as control, what the ratio's scatter leaves is small.

    Parameters
    ----------
    residual
        From the parameters, float64 (param,), to the whitened residual of `VisibilityNoise.residual`.
    noise
        Data and likelihood.
    truth, mean, prior
        True parameters, and means and standard deviations of their priors, shape (param,).
    rng
        For the draws.
    exact
        Draws on which the exact posterior is evaluated.
    draws
        Size of the importance sample of the linear model.
    """
    here = torch.from_numpy(truth)
    with torch.no_grad():
        offset = residual(here).flatten(1)
    shapes = torch.func.jacfwd(residual)(here).flatten(1, 2).permute(2, 0, 1)
    quadratic = _Quadratic(noise, shapes, -offset, mean - truth, prior)
    moves, share = quadratic.draw(rng, draws)
    linear = share @ (moves < 0.0)
    chosen = moves[rng.choice(draws, exact, p=share)]
    with torch.no_grad():
        values = [float(noise.log_likelihood_of(residual(torch.from_numpy(truth + move)))) for move in chosen]
    ratio = np.array(values) - 0.5 * np.sum(((truth + chosen - mean) / prior) ** 2, axis=1) - quadratic.log_posterior(chosen)
    weight = np.exp(ratio - ratio.max())
    weight /= weight.sum()
    below = linear + weight @ (chosen < 0.0) - np.mean(chosen < 0.0, axis=0)
    return Ranks(below=np.clip(below, 0.0, 1.0), effective=float(1.0 / np.sum(weight**2)))


class _Quadratic:
    """Posterior of a linear model: chi^2 of every spectrum is a quadratic in the parameters, worked out once."""

    def __init__(self, noise: VisibilityNoise, shapes: Tensor, data: Tensor, mean: FloatArray, prior: FloatArray) -> None:
        self._noise, self._mean, self._prior = noise, mean, prior
        self._curvature = torch.einsum("pkd,qkd->kpq", shapes, shapes).numpy()
        self._slope = torch.einsum("pkd,kd->kp", shapes, data).numpy()
        self._offset = data.square().sum(-1).numpy()

    def log_posterior(self, theta: FloatArray) -> FloatArray:
        """Log density, not normalised but for the likelihood's own constants, of points (point, param)."""
        noise = self._noise
        chi2 = self._offset - 2.0 * theta @ self._slope.T + np.einsum("np,kpq,nq->nk", theta, self._curvature, theta)
        density = noise.density.log_density(torch.from_numpy(np.maximum(chi2, 0.0)), noise.dimension, noise.degrees_of_freedom)
        return np.asarray(density.sum(-1).numpy() - 0.5 * np.sum(((theta - self._mean) / self._prior) ** 2, axis=-1))

    def draw(self, rng: np.random.Generator, draws: int) -> tuple[FloatArray, FloatArray]:
        """Points (draw, param) and the share of the posterior that each stands for."""
        noise = self._noise
        weight = noise.density.fisher_weight(noise.dimension, noise.degrees_of_freedom).numpy()
        precision = np.einsum("k,kpq->pq", weight, self._curvature) + np.diag(self._prior**-2.0)
        start = np.linalg.solve(precision, weight @ self._slope + self._mean / self._prior**2)
        mode = _mode(self.log_posterior, start, precision)
        size = len(mode)
        factor = np.linalg.cholesky(np.linalg.inv(precision)) * PROPOSAL_SCALE
        white = rng.standard_normal((draws, size)) / np.sqrt(rng.chisquare(PROPOSAL_DEGREES, draws) / PROPOSAL_DEGREES)[:, None]
        points = mode + white @ factor.T
        proposal = -0.5 * (PROPOSAL_DEGREES + size) * np.log1p(np.sum(white**2, axis=1) / PROPOSAL_DEGREES)
        log_weight = self.log_posterior(points) - proposal
        share = np.exp(log_weight - log_weight.max())
        return points, share / share.sum()


def _mode(log_posterior: LogPosterior, start: FloatArray, precision: FloatArray) -> FloatArray:
    """Climb from the Gaussian estimate by steps of the Fisher metric; the proposal needs the mode only roughly."""
    here, covariance = start, np.linalg.inv(precision)
    step = np.sqrt(np.diagonal(covariance))
    for _ in range(NEWTON_STEPS):
        away = 1e-3 * np.diag(step)
        both = log_posterior(np.concatenate([here + away, here - away]))
        gradient = (both[: len(here)] - both[len(here) :]) / (2e-3 * step)
        move = covariance @ gradient
        here = here + move
        if np.max(np.abs(move) / step) < 1e-3:
            break
    return here


def binomial_band(trials: int, level: float, confidence: float = 0.99) -> tuple[float, float]:
    """Shares of ``trials`` between which the share of intervals that hold the truth lies with probability ``confidence`` or more.

    Raises
    ------
    DomainError
        If there is no trial, or a level is not a probability.
    """
    if trials < 1 or not (0 < level < 1 and 0 < confidence < 1):
        raise DomainError(f"a band needs trials and levels between 0 and 1, got {trials}, {level} and {confidence}")
    tail = (1.0 - confidence) / 2.0
    low, high = stats.binom.ppf([tail, 1.0 - tail], trials, level)
    return float(low / trials), float(high / trials)


def coverage(below: FloatArray, level: float) -> float:
    """Share of central intervals of that level which hold the truth."""
    return float(np.mean(np.abs(np.asarray(below) - 0.5) < level / 2.0))


def uniformity(below: FloatArray, bins: int = 20) -> float:
    """p-value of ranks being uniform: chi^2 of their histogram, which sees humps and slopes alike."""
    counts, _ = np.histogram(below, bins=bins, range=(0.0, 1.0))
    return float(stats.chisquare(counts).pvalue)


def z_spread(below: FloatArray) -> float:
    """Rms of the ranks' normal scores: 1 where intervals are right, 2 where they are half as wide as they should be."""
    scores = stats.norm.ppf(np.clip(below, 1e-9, 1.0 - 1e-9))
    return math.sqrt(float(np.mean(scores**2)))
