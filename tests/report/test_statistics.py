import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from supermage.report.statistics import circular_mean, edge_density, interval, mixing, touched_edges, unwrap, upper_limit, width_ratio


def test_interval_of_a_normal():
    draws = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert interval(draws, 0.6827).high == pytest.approx(1.0, abs=1e-3)
    assert interval(draws, 0.95).low == pytest.approx(-1.95996, abs=1e-3)


def test_flat_posterior_has_the_prior_s_width_and_both_edges():
    draws = 3.0 + 4.0 * (np.arange(10_000) + 0.5) / 10_000
    assert width_ratio(draws, 3.0, 7.0) == pytest.approx(1.0, abs=1e-3)
    assert edge_density(draws, 3.0, 7.0) == pytest.approx((1.0, 1.0), abs=1e-2)
    assert touched_edges(draws, 3.0, 7.0) == (True, True)


@pytest.mark.parametrize(("distance", "touched"), [(0.0, True), (1.0, True), (3.0, False), (6.0, False)])
def test_gaussian_touches_the_edge_nearer_than_two_sigma(distance, touched):
    draws = np.random.default_rng(1).normal(distance, 1.0, size=40_000)
    draws = draws[draws > 0]
    assert touched_edges(draws, 0.0, 1000.0) == (touched, False)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 359.9), st.floats(0.01, 40))
def test_unwrapped_angles_do_not_see_the_cut(centre, sigma):
    offset = np.random.default_rng(2).normal(0.0, sigma, size=500)
    angle = (centre + offset) % 360.0
    assert unwrap(angle).std() == pytest.approx(offset.std(), rel=0.1)
    assert abs((circular_mean(angle) - centre + 180) % 360 - 180) < 6 * sigma / math.sqrt(500) + 1e-6
    assert np.allclose((unwrap(angle) - angle) % 360.0 % 359.999999999, 0.0, atol=1e-6)


def test_mixing_sees_chains_apart():
    rng = np.random.default_rng(3)
    together = rng.normal(size=(4, 1000))
    assert mixing(together).r_hat < 1.01
    assert mixing(together).ess > 2000
    apart = together + 2 * np.arange(4)[:, None]
    assert mixing(apart).r_hat > 1.5


def test_chain_that_never_moved_has_not_converged():
    assert mixing(np.ones((4, 100))).r_hat == math.inf


def test_upper_limit_of_a_flat_posterior():
    draws = 6.0 + 2.0 * (np.arange(100_000) + 0.5) / 100_000
    logarithmic, linear = upper_limit(draws)
    assert logarithmic == pytest.approx(7.9, abs=1e-3)
    # uniform in M up to 10^8: 95 % lies at 0.95 (of 10^8 - 10^6) + 10^6
    assert linear == pytest.approx(math.log10(0.95 * (1e8 - 1e6) + 1e6), abs=1e-3)
