"""Moderated variances: against draws from a known prior, the F distribution of scipy, and Smyth's moments where all degrees are equal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from supermage.data_reduction.moderation import VariancePrior, fit_variance_prior, log_marginal


def _draw(rng: np.random.Generator, prior_degrees: float, scale: float, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true = scale * prior_degrees / rng.chisquare(prior_degrees, degrees.size)
    return true, true * rng.chisquare(degrees) / degrees


def test_marginal_is_scaled_f() -> None:
    variance, degrees = np.array([0.3, 2.0, 7.0]), np.array([1.0, 4.0, 37.5])
    expected = stats.f.logpdf(variance / 1.7, degrees, 6.2) - math.log(1.7)
    normal = stats.f.logpdf(1.0, degrees, 6.2) - log_marginal(np.ones(3), degrees, 6.2, 1.0)
    assert log_marginal(variance, degrees, 6.2, 1.7) + normal == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("prior_degrees", [4.0, 30.0])
def test_prior_is_found(prior_degrees: float) -> None:
    """Degrees from 1 to 60 in one set; tolerances are 5 standard errors over 20 trial seeds."""
    rng = np.random.default_rng(3)
    degrees = rng.uniform(1.0, 60.0, 4000)
    _, variance = _draw(rng, prior_degrees, 2.5, degrees)
    found = fit_variance_prior(variance, degrees)
    assert found.degrees == pytest.approx(prior_degrees, rel=0.3)
    assert found.scale == pytest.approx(2.5, rel=0.05)


def test_equal_degrees_agree_with_smyths_moments() -> None:
    """Moments of log s^2 (Smyth 2004, sec. 6.2), on 20 000 draws; both estimators err by a few per cent there."""
    rng = np.random.default_rng(4)
    degrees = np.full(20_000, 8.0)
    _, variance = _draw(rng, 12.0, 1.0, degrees)
    e = np.log(variance) - special.digamma(4.0) + math.log(4.0)
    excess = e.var(ddof=1) - special.polygamma(1, 4.0)
    d0 = 2.0 * optimize.brentq(lambda x: float(special.polygamma(1, x)) - excess, 0.1, 1e4)
    scale = math.exp(e.mean() + special.digamma(d0 / 2) - math.log(d0 / 2))
    found = fit_variance_prior(variance, degrees)
    assert found.degrees == pytest.approx(d0, rel=0.15) and found.scale == pytest.approx(scale, rel=0.02)


def test_one_true_variance_is_taken_as_one() -> None:
    """The test that decides keeps a finite prior at 1 seed in 6 or so; what it then costs is small: 20 or more prior degrees."""
    finite = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        degrees = rng.uniform(2.0, 20.0, 300)
        found = fit_variance_prior(1.3 * rng.chisquare(degrees) / degrees, degrees)
        assert found.scale == pytest.approx(1.3, rel=0.1)
        finite.append(math.isfinite(found.degrees))
        assert found.degrees > 20
    assert sum(finite) <= 18  # binomial with p = 1/6: 1 set of seeds in 20 000


@pytest.mark.parametrize("degrees", [1.0, 5.0, 60.0])
def test_z_scores_with_moderated_variances_follow_their_t(degrees: float) -> None:
    """Kolmogorov-Smirnov, 1 seed in 1000; with each variance alone and a Gaussian the spread is far from 1 (the paper's trouble)."""
    rng = np.random.default_rng(int(degrees))
    true, variance = _draw(rng, 10.0, 2.0, np.full(5000, degrees))
    z = rng.standard_normal(5000) * np.sqrt(true)
    moderated, total = fit_variance_prior(variance, np.full(5000, degrees)).shrink(variance, np.full(5000, degrees))
    assert stats.kstest(stats.t.cdf(z / np.sqrt(moderated), total), "uniform").pvalue > 1e-3
    if degrees <= 5:
        assert np.std(z / np.sqrt(variance)) > 1.2


def test_shrinking_without_a_spread_gives_the_scale() -> None:
    values, degrees = VariancePrior(math.inf, 1.5).shrink(np.array([0.1, 9.0]), np.array([3.0, 0.0]))
    assert values.tolist() == [1.5, 1.5] and np.isinf(degrees).all()
    values, degrees = VariancePrior(6.0, 1.5).shrink(np.array([0.5, 1.0]), np.array([6.0, 0.0]))
    assert values.tolist() == [1.0, 1.5] and degrees.tolist() == [12.0, 6.0]


def test_spread_is_that_of_log_sigma() -> None:
    rng = np.random.default_rng(5)
    true = 20.0 / rng.chisquare(20.0, 200_000)
    assert VariancePrior(20.0, 1.0).spread == pytest.approx(np.std(0.5 * np.log(true)), rel=0.01)
