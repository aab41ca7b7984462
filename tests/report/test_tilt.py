"""A known density times a normal likelihood, fitted to draws: Gaussians have a closed answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from supermage.report.tilt import Tilt, distance, trapezoid

NODES = np.linspace(-6.0, 6.0, 1201)


def fitted(mass: np.ndarray) -> Tilt | None:
    inside = mass[np.abs(mass) < 6.0]
    return Tilt.of_draws(inside, NODES, stats.norm.logpdf(NODES), float(len(inside)))


def test_the_likelihood_is_found() -> None:
    """Unit normal times 1.5 +- 0.8."""
    variance = 1.0 / (1.0 + 1.0 / 0.64)
    tilt = fitted(variance * 1.5 / 0.64 + np.sqrt(variance) * np.random.default_rng(1).standard_normal(20000))
    assert tilt is not None and tilt.closed
    assert tilt.data == pytest.approx((1.5, 0.8), rel=0.04)
    means = [mean for mean, _ in tilt.region(1.0)]
    expected = float(np.std([fitted_mean(seed, variance) for seed in range(40)]))
    assert 0.5 * (max(means) - min(means)) == pytest.approx(expected, rel=0.35)


def fitted_mean(seed: int, variance: float) -> float:
    tilt = fitted(variance * 1.5 / 0.64 + np.sqrt(variance) * np.random.default_rng(100 + seed).standard_normal(20000))
    assert tilt is not None
    return tilt.data[0]


def test_draws_of_the_density_itself_leave_it_open() -> None:
    tilt = fitted(np.random.default_rng(2).standard_normal(4000))
    assert tilt is not None and not tilt.closed


def test_draws_of_another_kind_are_refused() -> None:
    rng = np.random.default_rng(3)
    assert fitted(np.concatenate([rng.normal(-2.0, 0.3, 2000), rng.normal(2.0, 0.3, 2000)])) is None


def test_its_tools() -> None:
    assert trapezoid(np.array([0.0, 1.0, 3.0])) == pytest.approx([0.5, 1.5, 1.0])
    share = np.random.default_rng(4).uniform(size=(4, 50))
    assert distance(share) == pytest.approx(stats.kstest(share.ravel(), "uniform").statistic)
