"""Empirical-Bayes shrinkage of noise variances: many, each known from few degrees of freedom, share one distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln

FloatArray = NDArray[np.float64]

LEAST_MEMBERS = 4
"""Fewer variances than this say nothing of their own distribution."""

MOST_DEGREES = 1e6
"""From so many prior degrees of freedom on, all true variances are taken as one."""


@dataclass(frozen=True)
class VariancePrior:
    """Distribution of the true variances: scaled inverse chi^2.

    Attributes
    ----------
    degrees
        Its degrees of freedom d0, infinite where all true variances are one.
    scale
        Its scale s0^2.
    """

    degrees: float
    scale: float

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the true *standard deviations*; 0 where they are one, and 0.05 is 5 % apart."""
        return 0.0 if math.isinf(self.degrees) else 0.5 * math.sqrt(_trigamma(self.degrees / 2.0))

    def shrink(self, variance: FloatArray, degrees: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Moderated variances ``(d0 s0^2 + d s^2) / (d0 + d)`` and their degrees of freedom d0 + d; d = 0 gives the prior's.

        Source: Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, 3, eq. 3.
        """
        if math.isinf(self.degrees):
            return np.full_like(variance, self.scale), np.full_like(degrees, np.inf)
        total = self.degrees + degrees
        return (self.degrees * self.scale + degrees * variance) / total, total


def fit_variance_prior(variance: FloatArray, degrees: FloatArray) -> VariancePrior:
    """Maximise the marginal likelihood of independent variances s^2, each ``s0^2 F(d, d0)``, in d0 and s0^2.

    Parameters
    ----------
    variance
        Unbiased estimates, positive, shape (member,).
    degrees
        Their degrees of freedom d, positive, shape (member,).

    Notes
    -----
    Smyth 2004 matches moments of log s^2, which weighs a variance of one degree of freedom like one of a hundred; the likelihood does not.
    """
    if variance.size < LEAST_MEMBERS:
        return VariancePrior(math.inf, float(np.sum(variance * degrees) / np.sum(degrees)) if variance.size else 1.0)

    def negative(point: FloatArray) -> float:
        return -float(np.sum(log_marginal(variance, degrees, math.exp(point[0]), math.exp(point[1]))))

    pooled = math.log(float(np.sum(variance * degrees) / np.sum(degrees)))
    tries = [minimize(negative, [start, pooled], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6}) for start in (1.0, 4.0, 8.0)]
    best = min(tries, key=lambda found: float(found.fun))
    single = -float(np.sum(log_marginal(variance, degrees, MOST_DEGREES, math.exp(pooled))))
    # one parameter more must buy its place: otherwise all are one, and the pooled mean is their best estimate
    if best.x[0] > math.log(MOST_DEGREES) or single - float(best.fun) < 0.5:
        return VariancePrior(math.inf, math.exp(pooled))
    return VariancePrior(math.exp(float(best.x[0])), math.exp(float(best.x[1])))


def log_marginal(variance: FloatArray, degrees: FloatArray, prior_degrees: float, prior_scale: float) -> FloatArray:
    """Log density of s^2 where ``s^2 / s0^2`` follows F(d, d0)."""
    d, d0 = degrees / 2.0, prior_degrees / 2.0
    x = degrees * variance / (prior_degrees * prior_scale)
    return np.asarray(gammaln(d + d0) - gammaln(d) - gammaln(d0) + d * np.log(x) - (d + d0) * np.log1p(x) - np.log(variance))


def _trigamma(x: float) -> float:
    from scipy.special import polygamma

    return float(polygamma(1, x))
