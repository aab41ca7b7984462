"""Sersic fits: the profile against astropy's, indices drawn from known profiles, scale-freedom, companions, profiles without an index."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.modeling.models import Sersic1D
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import gammaincinv

from supermage.errors import DataError, DomainError
from supermage.models.sersic import ANNULI, INDEX_RANGE, LEAST_EFFECTIVE, annuli_of, enclosed_share, fit_sersic

Array = NDArray[np.float64]


def drawn(index: float, count: int, seed: int) -> Array:
    """Projected radii of stars on a Sersic profile, in effective radii."""
    share = np.random.default_rng(seed).random(count)
    return (gammaincinv(2.0 * index, share) / gammaincinv(2.0 * index, 0.5)) ** index


@pytest.mark.parametrize("index", [0.7, 1.0, 2.5, 4.0, 8.0])
def test_profile_is_astropys(index: float) -> None:
    profile = Sersic1D(amplitude=1.0, r_eff=2.0, n=index)
    whole = 2.0 * quad(lambda r: 2.0 * np.pi * r * profile(r), 0.0, 2.0, epsabs=0.0, epsrel=1e-10)[0]
    for radius in (0.1, 1.0, 2.0, 7.0):
        light = quad(lambda r: 2.0 * np.pi * r * profile(r), 0.0, radius, epsabs=0.0, epsrel=1e-10)[0]
        assert enclosed_share(np.array([radius]), index, 2.0)[0] == pytest.approx(light / whole, rel=1e-6)


@pytest.mark.parametrize(("index", "scatter"), [(0.5, 0.0042), (1.0, 0.0055), (2.5, 0.015), (4.0, 0.029), (8.0, 0.107)])
def test_known_indices_come_back(index: float, scatter: float) -> None:
    """Scatter: standard deviation of 20 fits to 100 000 stars. Within 5 of these: falsely red less than once in a million."""
    fit = fit_sersic(drawn(index, 100_000, 3), np.ones(100_000), 6.5)
    assert fit.index == pytest.approx(index, abs=5.0 * scatter)
    assert fit.effective_radius == pytest.approx(1.0, abs=0.02 * index + 0.005)
    assert fit.luminosity == pytest.approx(100_000, rel=0.02 if index <= 4 else 0.06)
    assert fit.chi_square < 2.0 * fit.n_annuli


@settings(max_examples=10)
@given(st.floats(-3, 3), st.floats(-8, 8))
def test_no_unit_matters(log_length: float, log_light: float) -> None:
    radius, light = drawn(2.0, 3000, 5), np.random.default_rng(6).random(3000)
    here = fit_sersic(radius, light, 4.0)
    there = fit_sersic(radius * 10.0**log_length, light * 10.0**log_light, 4.0 * 10.0**log_length)
    assert there.index == pytest.approx(here.index, rel=1e-4)
    assert there.effective_radius == pytest.approx(here.effective_radius * 10.0**log_length, rel=1e-4)
    assert there.luminosity == pytest.approx(here.luminosity * 10.0**log_light, rel=1e-4)


def test_light_and_not_number_counts() -> None:
    """Stars of half the light, twice as many beyond R_e: the same profile."""
    radius = drawn(2.0, 60_000, 7)
    outside = radius > 1.0
    light = np.concatenate([np.where(outside, 0.5, 1.0), np.full(outside.sum(), 0.5)])
    split = fit_sersic(np.concatenate([radius, radius[outside]]), light, 5.0)
    assert split.index == pytest.approx(fit_sersic(radius, np.ones(60_000), 5.0).index, rel=0.01)


def test_a_companion_does_not_draw_the_fit() -> None:
    """A twentieth of the light within a narrow ring moves the index by less than a tenth."""
    radius = np.concatenate([drawn(1.0, 50_000, 8), np.random.default_rng(9).normal(3.5, 0.05, 2500)])
    assert fit_sersic(radius, np.ones(len(radius)), 5.0).index == pytest.approx(1.0, abs=0.1)


def test_no_index_describes_equal_light_in_every_decade() -> None:
    """R^-2 is the limit of infinite index: the paper's cut at 100 finds it, and the range is not left."""
    radius = np.exp(np.random.default_rng(10).uniform(math.log(1e-15), math.log(5.0), 50_000))
    assert 100.0 < fit_sersic(radius, np.ones(50_000), 5.0).index <= INDEX_RANGE[1] * (1 + 1e-9)


def test_a_cutout_that_ends_early_is_fitted_to_its_edge() -> None:
    radius = drawn(1.5, 60_000, 11)
    radius = radius[radius < 2.0]
    assert fit_sersic(radius, np.ones(len(radius)), 5.0).index == pytest.approx(1.5, abs=0.08)


def test_annuli_keep_the_light() -> None:
    rng = np.random.default_rng(12)
    radius, light = rng.uniform(0.0, 2.0, 5000), rng.random(5000)
    edge, sums, variance = annuli_of(radius, light, 1.0)
    inside = radius <= 1.0
    assert sums.sum() == pytest.approx(light[inside].sum(), rel=1e-12)
    assert variance.sum() == pytest.approx((light[inside] ** 2).sum(), rel=1e-12)
    assert edge[0] == 0.0 and edge[-1] == radius[inside].max() and (np.diff(edge) > 0).all() and len(edge) == len(sums) + 1 <= ANNULI + 1
    assert (sums**2 >= LEAST_EFFECTIVE * variance).all()
    for k, total in enumerate(sums):
        assert total == pytest.approx(light[(radius > edge[k]) & (radius <= edge[k + 1])].sum(), rel=1e-12)


@pytest.mark.parametrize("radius", [np.zeros(1000), np.empty(0), np.ones(1000), np.linspace(0.1, 1.0, 60), np.full(100, 9.0)])
def test_too_little_light_gives_no_index(radius: Array) -> None:
    fit = fit_sersic(radius, np.ones(len(radius)), 5.0)
    assert math.isnan(fit.index) and math.isnan(fit.effective_radius) and fit.n_annuli < 6


def test_rules() -> None:
    with pytest.raises(DataError, match="outer radius above 0, got 0"):
        fit_sersic(np.ones(3), np.ones(3), 0.0)
    with pytest.raises(DomainError, match="above 0, got -1 and 2"):
        enclosed_share(np.ones(3), -1.0, 2.0)
