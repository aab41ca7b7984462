"""Numbers that describe the draws of one parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.inference.arviz_access import ess, rhat

FloatArray = NDArray[np.float64]

TOUCHED = 0.2
EDGE = 0.02
"""Fraction of the prior's range next to a bound that counts as its edge."""


@dataclass(frozen=True)
class Interval:
    """A central credible interval."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Upper minus lower end."""
        return self.high - self.low


def interval(draws: FloatArray, level: float) -> Interval:
    """Central credible interval of all draws at a level such as 0.68."""
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(low), float(high))


def width_ratio(draws: FloatArray, lower: float, upper: float, *, normal: tuple[float, float] | None = None) -> float:
    """Width of the posterior's 68 % interval over that of the prior, uniform or normal: 1 where the data taught nothing."""
    prior = 0.68 * (upper - lower) if normal is None else 2.0 * float(norm.isf(0.16)) * normal[1]
    return interval(draws, 0.68).width / prior


def edge_density(draws: FloatArray, lower: float, upper: float, *, fraction: float = EDGE) -> tuple[float, float]:
    """Posterior density over prior density in the lowest and highest ``fraction`` of the prior's range: 1 where the data taught nothing.

    At the lower edge of log M it is the Savage-Dickey ratio of "as small as the prior allows" against the model.
    """
    place = (np.asarray(draws) - lower) / (upper - lower)
    return float(np.mean(place < fraction)) / fraction, float(np.mean(place > 1 - fraction)) / fraction


def touched_edges(draws: FloatArray, lower: float, upper: float) -> tuple[bool, bool]:
    """Whether the posterior runs into the lower and the upper bound of its prior.

    It does where its density in a narrow zone at the bound (2 % of the prior's range, less for a narrow posterior) exceeds a fifth of its
    mean density within the 68 % interval; a Gaussian does so nearer than 2 standard deviations.
    """
    width = interval(draws, 0.68).width
    if width <= 0:
        return False, False
    zone = min(EDGE * (upper - lower), 0.25 * width)
    limit = TOUCHED * zone * 0.68 / width
    return bool(np.mean(draws < lower + zone) > limit), bool(np.mean(draws > upper - zone) > limit)


def circular_mean(angle: FloatArray, period: float = 360.0) -> float:
    """Mean direction of angles, in [0, period)."""
    phase = np.exp(2j * math.pi * np.asarray(angle) / period).mean()
    return float(np.angle(phase) / (2 * math.pi) * period) % period


def unwrap(angle: FloatArray, period: float = 360.0) -> FloatArray:
    """Move angles by whole periods to within half a period of their circular mean, so that ordinary statistics hold."""
    centre = circular_mean(angle, period)
    return centre + (np.asarray(angle) - centre + period / 2) % period - period / 2


@dataclass(frozen=True)
class Mixing:
    """Convergence of one parameter: rank-normalised split R-hat, bulk and tail effective sample sizes (Vehtari et al. 2021).

    ``mcse`` is the Monte-Carlo standard error of the mean, in the parameter's unit.
    """

    r_hat: float
    ess_bulk: float
    ess_tail: float
    mcse: float = math.nan

    @property
    def ess(self) -> float:
        """The smaller of the two effective sample sizes."""
        return min(self.ess_bulk, self.ess_tail)


def mixing(draws: FloatArray) -> Mixing:
    """Convergence numbers of draws of shape (chain, draw). A parameter that never moved counts as not converged."""
    if draws.shape[1] < 4 or not np.all(np.isfinite(draws)) or np.ptp(draws) == 0:
        return Mixing(math.inf, 0.0, 0.0)
    error = float(draws.std()) / math.sqrt(ess(draws, method="mean"))
    return Mixing(rhat(draws), ess(draws, method="bulk"), ess(draws, method="tail"), error)


def upper_limit(log_mass: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """One-sided upper limits of log10 M: under the prior uniform in log10 M, and reweighted to one uniform in M."""
    ordered = np.sort(np.ravel(log_mass))
    weight = np.cumsum(10.0 ** (ordered - ordered[-1]))
    linear = ordered[np.searchsorted(weight, level * weight[-1])]
    return float(np.quantile(ordered, level)), float(linear)
