"""Out of distribution: distances without the row itself, gaps, weights that rise smoothly, one line of warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial import distance

from supermage.errors import DataError
from supermage.models.out_of_distribution import (
    FLOOR,
    OutOfDistributionWarning,
    fit_region,
    leave_one_out_distances,
    population_weight,
    warn_of,
)


def rows(n: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.2], [0.0, 0.0, 1.0]])


def test_leave_one_out_distances_are_those_without_the_row() -> None:
    """Against scipy's Mahalanobis distance, with mean and covariance of the others computed anew."""
    sample = rows(40)
    got = leave_one_out_distances(sample)
    for number in (0, 7, 39):
        others = np.delete(sample, number, axis=0)
        expected = distance.mahalanobis(sample[number], others.mean(axis=0), np.linalg.inv(np.cov(others.T)))
        assert got[number] == pytest.approx(expected, rel=1e-4)


def test_one_per_cent_of_other_rows_lie_beyond_the_edge() -> None:
    """Of 20 000: binomial and the edge's own error together, five standard deviations, false alarm below 1e-5."""
    region = fit_region(rows(4000))
    beyond = (region.score(rows(20_000, seed=1)) > 1.0).mean()
    assert abs(beyond - 0.01) < 5.0 * np.sqrt(0.01 * 0.99 * (1 / 20_000 + 1 / 4000))


def test_a_broken_correlation_is_seen() -> None:
    region = fit_region(rows(4000))
    assert region.score(np.array([[1.5, 1.5, 0.0]]))[0] < 1.0 < region.score(np.array([[2.5, -2.5, 0.0]]))[0]


def test_gaps_leave_the_rest_to_be_judged() -> None:
    """With one feature seen, the score is its distance over its own 99 % quantile."""
    region = fit_region(rows(4000))
    gap = np.full((1, 3), np.nan)
    assert np.isnan(region.score(gap)[0])
    gap[0, 2] = 8.0 * np.sqrt(region.covariance[2, 2])
    assert region.score(gap)[0] == pytest.approx(8.0 / 2.576, rel=0.05)


def test_weight_rises_smoothly_from_the_floor_to_one() -> None:
    score = np.linspace(0.0, 5.0, 501)
    weight = population_weight(score)
    assert np.all(weight[score <= 1.0] == FLOOR) and np.all(np.diff(weight) >= 0)
    assert weight[-1] == pytest.approx(1.0, abs=1e-9)
    assert np.abs(np.diff(weight, 2)).max() < 1e-3
    assert population_weight(np.array([np.nan]))[0] == 1.0


def test_warning_is_one_line_with_the_number() -> None:
    with pytest.warns(OutOfDistributionWarning, match="2 of 3 rows lie outside") as caught:
        warn_of(np.array([0.5, 1.2, np.nan]))
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of(np.array([0.5, 1.0]))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="needs 30 rows without gaps, got 20"):
        fit_region(rows(20))
