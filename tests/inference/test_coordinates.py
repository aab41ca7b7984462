"""Coordinates against brute-force Jacobians and closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from supermage.inference.coordinates import Coordinates, Pivots, probit, probit_inverse, softbox, softbox_inverse
from supermage.inference.model import Chart
from tests.inference.toy import TRUTH, ToySky, random_theta, tensors, toy_data, toy_fit

CHART = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())))
FIT = toy_fit(toy_data(n_cell=20, n_channel=6))


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@given(st.floats(-3.0, 8.0), st.floats(-2.0, 2.0), st.floats(0.1, 5.0))
def test_softbox_and_its_inverse_agree(u: float, lower: float, width: float) -> None:
    upper = lower + width
    value, log_slope = softbox(scalar(lower + (u / 5.0) * width), lower, upper)
    assert lower <= float(value) <= upper
    step = 1e-6 * width
    u0 = lower + (u / 5.0) * width
    low, high = (float(softbox(scalar(u0 + s), lower, upper)[0]) for s in (-step, step))
    assert math.isclose(math.exp(float(log_slope)), (high - low) / (2 * step), rel_tol=1e-4, abs_tol=1e-8)
    if 1e-9 < (float(value) - lower) / width < 1 - 1e-9:
        assert math.isclose(float(softbox_inverse(value, lower, upper)), u0, abs_tol=1e-5 * width)


def test_softbox_is_the_identity_inside_and_its_density_integrates_to_the_interval() -> None:
    assert math.isclose(float(softbox(scalar(0.5), 0.0, 1.0)[0]), 0.5, abs_tol=1e-6)
    total, _ = integrate.quad(lambda u: math.exp(float(softbox(scalar(u), 2.0, 5.0)[1])), -10, 17, limit=200)
    assert math.isclose(total, 3.0, rel_tol=1e-7)


@given(st.floats(-5.0, 5.0))
def test_probit_makes_a_uniform_prior_a_unit_normal(z: float) -> None:
    value, log_slope = probit(scalar(z), -1.0, 3.0)
    assert math.isclose(float(value), -1.0 + 4.0 * stats.norm.cdf(z), abs_tol=1e-12)
    assert math.isclose(float(log_slope) - math.log(4.0), stats.norm.logpdf(z), abs_tol=1e-10)
    assert math.isclose(float(probit_inverse(value, -1.0, 3.0)), z, abs_tol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_log_jacobian_is_that_of_brute_force(seed: int) -> None:
    coordinates = FIT.coordinates(CHART)
    z = coordinates.from_theta(random_theta(np.random.default_rng(seed), FIT))
    jacobian = torch.func.jacfwd(lambda p: coordinates.vector(coordinates.to_theta(p)[0]))(z)
    assert torch.isclose(torch.linalg.slogdet(jacobian)[1], coordinates.to_theta(z)[1], atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_there_and_back(seed: int) -> None:
    theta = random_theta(np.random.default_rng(seed), FIT)
    for chart in (CHART, Chart(cut=67.0)):
        coordinates = FIT.coordinates(chart)
        back = coordinates.to_theta(coordinates.from_theta(theta))[0]
        for name, value in theta.items():
            assert math.isclose(float(back[name]), value, rel_tol=1e-6, abs_tol=1e-6), name


def test_pivots_are_what_they_say() -> None:
    coordinates = FIT.coordinates(CHART)
    z = coordinates.from_theta(TRUTH)
    i = coordinates.names.index("intensity_rb")
    scale = 4.0 / math.sqrt(12.0)
    for name in ("alpha", "qintr", "break_r", "gamma_minus_beta"):
        moved = z.clone()
        moved[coordinates.names.index(name)] += 0.05
        sky, where = FIT.galaxy_model, torch.tensor([0.8], dtype=torch.float64)
        speeds = [sky.circular_velocity(coordinates.to_theta(p)[0], where, "stars") for p in (z, moved)]
        # the velocity at the pivot stays, whatever else of the stars moves
        assert torch.isclose(speeds[0], speeds[1], rtol=1e-3), name
    moved = z.clone()
    moved[i] += 0.1
    here, there = coordinates.to_theta(z)[0], coordinates.to_theta(moved)[0]
    assert math.isclose(float(there["intensity_rb"] - here["intensity_rb"]), 0.1 * scale, rel_tol=0.03)  # the upper edge is near


def test_position_angle_is_a_circle() -> None:
    coordinates = Coordinates(FIT.priors, cut=5.0)
    i = coordinates.names.index("PA")
    z = coordinates.from_theta({**TRUTH, "PA": 358.0})
    assert math.isclose(float(coordinates.to_theta(z)[0]["PA"]), 358.0, abs_tol=1e-8)
    assert abs(float(z[i])) < 0.05  # 7 deg from the centre of the chart, not at its edge
    # a narrow prior is no circle
    narrow = toy_fit(toy_data(n_cell=20, n_channel=6), priors={"PA": {"lower": 30.0, "upper": 90.0}})
    assert narrow.priors.circular == ()


def test_prior_density_is_uniform() -> None:
    coordinates = FIT.coordinates(CHART)
    target_volume = sum(math.log(p.upper - p.lower) for p in FIT.priors.free)
    z = coordinates.from_theta(TRUTH)
    theta, log_jacobian = coordinates.to_theta(z)
    with torch.no_grad():
        log_prob = FIT.log_prob(theta) - FIT.log_likelihood(theta)
    assert math.isclose(float(log_prob), -target_volume - math.log(360.0 / 359.9), abs_tol=1e-9)
    assert math.isclose(float(coordinates.log_prior(z)), float(log_jacobian) - target_volume, abs_tol=1e-9)


def test_draws_from_the_prior_come_out_uniform_and_a_wrong_jacobian_is_seen() -> None:
    """Importance weights of the density in z against a wide normal must average to one; without the softbox' slope they do not."""
    fit = toy_fit(
        toy_data(n_cell=20, n_channel=6), priors={name: {"fixed": value} for name, value in TRUTH.items() if name not in ("gamma", "alpha")}
    )
    pivots = Pivots(0.8, 0.5, lambda theta: theta["intensity_rb"], TRUTH)
    coordinates = Coordinates(fit.priors, pivots=pivots)
    rng = np.random.default_rng(2)
    proposal = rng.standard_t(5, size=(4000, 2)) * 1.3
    log_q = stats.t.logpdf(proposal / 1.3, 5).sum(axis=1) - 2 * math.log(1.3)
    log_p = np.array([float(coordinates.log_prior(torch.from_numpy(z))) for z in proposal])
    weight = np.exp(log_p - log_q)
    error = weight.std() / math.sqrt(len(weight))
    assert abs(weight.mean() - 1.0) < 4 * error
    gamma = [coordinates.to_theta(torch.from_numpy(z))[0]["gamma"] for z in proposal]
    slopes = np.array([float(softbox(softbox_inverse(value, 0.001, 1.2), 0.001, 1.2)[1]) for value in gamma])
    assert abs((weight * np.exp(-slopes)).mean() - 1.0) > 10 * error


def test_stars_of_the_model_are_linear_in_the_surface_density() -> None:
    sky = ToySky(toy_data(n_cell=20, n_channel=6))
    where = torch.tensor([0.8], dtype=torch.float64)
    low, high = (sky.circular_velocity(tensors({**TRUTH, "intensity_rb": v}), where, "stars") for v in (3.0, 4.0))
    assert torch.isclose(2 * torch.log10(high) - 2 * torch.log10(low), torch.ones(1, dtype=torch.float64))


def test_an_unfree_pivot_stays_out() -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6), priors={"gamma": {"fixed": 0.8}, "intensity_rb": {"fixed": 4.35}})
    coordinates = fit.coordinates(dataclasses.replace(CHART))
    theta = coordinates.to_theta(coordinates.from_theta({n: TRUTH[n] for n in fit.names}))[0]
    assert float(theta["gamma"]) == pytest.approx(0.8)
    assert coordinates.dimension == 13
