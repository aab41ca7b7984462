"""How far a row lies from the training set, and how much of the population its density becomes for that."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.feature_space import patterns_of

FloatArray = NDArray[np.float64]

EDGE = 0.99
"""Share of the training set, each row left out of it in turn, that lies nearer than a score of 1."""

FLOOR = 1e-3
"""Weight of the population in every row: no density is without tails."""

WIDTH = 0.5
"""How fast the population takes over beyond a score of 1: half of the weight at 1.59, 0.86 at 2, 0.9997 at 3."""


class OutOfDistributionWarning(UserWarning):
    """Rows lie outside the training set; their densities are widened towards the population."""


@dataclass(frozen=True)
class TrainingRegion:
    """Mean and covariance of the standardised features, and the distance that the training set's own rows keep.

    Attributes
    ----------
    mean
        Shape (feature,).
    covariance
        Shape (feature, feature), positive definite.
    edge
        Mahalanobis distance of a score of 1, for a row without gaps.
    """

    mean: FloatArray
    covariance: FloatArray
    edge: float

    def score(self, standard: FloatArray) -> FloatArray:
        """Distance from the training set in units of its edge, shape (row,): 1 at the edge.

        With gaps, the distance in the features that are there, the edge in the proportion of the chi-square quantiles. NaN without any.

        Parameters
        ----------
        standard
            Standardised features, NaN where missing, shape (row, feature).
        """
        from scipy import stats

        result = np.full(len(standard), np.nan)
        full = stats.chi2.ppf(EDGE, len(self.mean))
        for pattern, rows in patterns_of(np.isnan(standard)):
            seen = ~pattern
            if seen.any():
                factor = np.linalg.inv(np.linalg.cholesky(self.covariance[np.ix_(seen, seen)]))
                away = (standard[np.ix_(rows, seen)] - self.mean[seen]) @ factor.T
                edge = self.edge * np.sqrt(stats.chi2.ppf(EDGE, seen.sum()) / full)
                result[rows] = np.sqrt((away**2).sum(axis=1)) / edge
        return result


def fit_region(standard: FloatArray) -> TrainingRegion:
    """The region of a training set.

    Distances of its own rows are those to mean and covariance without the row, by the rank-one formula.

    Parameters
    ----------
    standard
        Standardised features, shape (row, feature); NaN where missing: such rows count in mean and covariance pair by pair, and not in the
        edge.

    Raises
    ------
    DataError
        If fewer rows are without gaps than ten for each feature.
    """
    complete = standard[np.isfinite(standard).all(axis=1)]
    n, size = complete.shape
    if n < 10 * size:
        raise DataError(f"a training set of {size} features needs {10 * size} rows without gaps, got {n}")
    mean = complete.mean(axis=0)
    covariance = np.atleast_2d(np.cov(complete.T)) + 1e-6 * np.eye(size)
    return TrainingRegion(mean, covariance, float(np.quantile(leave_one_out_distances(complete), EDGE)))


def leave_one_out_distances(rows: FloatArray) -> FloatArray:
    """Mahalanobis distance of every row from mean and covariance of the others, shape (row,)."""
    n = len(rows)
    away = rows - rows.mean(axis=0)
    scatter = away.T @ away + 1e-6 * (n - 1) * np.eye(rows.shape[1])
    inside = (away * np.linalg.solve(scatter, away.T).T).sum(axis=1)
    share = n / (n - 1)
    left = inside / np.maximum(1.0 - share * inside, 1e-12)
    return share * np.sqrt((n - 2) * left)


def population_weight(score: FloatArray) -> FloatArray:
    """Weight of the population's density, smooth and rising: the floor up to a score of 1, then towards 1; NaN counts as far away."""
    beyond = np.maximum(np.where(np.isnan(score), np.inf, score) - 1.0, 0.0)
    return FLOOR + (1.0 - FLOOR) * -np.expm1(-0.5 * (beyond / WIDTH) ** 2)


def warn_of(score: FloatArray) -> None:
    """Warn, in one line, of rows beyond the edge."""
    beyond = np.count_nonzero(~(score <= 1.0))
    if beyond:
        rows = "row lies" if len(score) == 1 else f"of {len(score)} rows lie"
        text = f"{beyond} {rows} outside the training set (score above 1); the densities are widened towards the population"
        warnings.warn(text, OutOfDistributionWarning, stacklevel=3)
