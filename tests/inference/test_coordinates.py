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

from supermage.inference.coordinates import Coordinates, Pivots, Stretch, probit, probit_inverse, softbox, softbox_inverse
from supermage.inference.model import MOST_BLACK_HOLE, Chart
from tests.inference.toy import TRUTH, ToySky, random_theta, tensors, toy_data, toy_fit

CHART = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())))
FIT = toy_fit(toy_data(n_cell=20, n_channel=6))

# far from every edge, and a black hole that shows but does not rule
MIDDLE = {**TRUTH, "log10_mbh": 7.5, "gamma": 0.6}
WIDE = toy_fit(toy_data(n_cell=20, n_channel=6), priors={"intensity_rb": {"lower": 2.0, "upper": 7.0}})
WITH_HOLE = Chart(67.0, 0.8, 0.5, tuple(sorted(MIDDLE.items())), (1.7, -0.4))
CHARTS = (CHART, WITH_HOLE, Chart(67.0, 0.8, 0.5, CHART.reference, (0.4, 2.5)), Chart(cut=67.0), Chart(200.0, stretch=(3.0, 0.2)))


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


@given(st.floats(-8.0, 8.0), st.floats(0.05, 4.0), st.floats(-5.0, 5.0))
def test_stretch_there_and_back(z: float, rate: float, knee: float) -> None:
    stretch = Stretch(rate, knee)
    t = stretch.forward(scalar(z))
    assert math.isclose(float(stretch.inverse(t)), z, abs_tol=1e-9)
    # as a function of t too: the last Newton step carries the derivative
    (slope,) = torch.autograd.functional.jacobian(stretch.inverse, (t,))
    assert math.isclose(float(slope) * float(stretch.slope(scalar(z))), 1.0, rel_tol=1e-8)
    forward = torch.func.jvp(stretch.inverse, (t,), (torch.ones_like(t),))[1]
    assert math.isclose(float(forward), float(slope), rel_tol=1e-9)


@given(st.floats(-8.0, 8.0), st.floats(0.05, 4.0), st.floats(-5.0, 5.0))
def test_stretch_has_the_slope_it_says(z: float, rate: float, knee: float) -> None:
    stretch, step = Stretch(rate, knee), 1e-5
    numerical = float(stretch.forward(scalar(z + step)) - stretch.forward(scalar(z - step))) / (2 * step)
    assert math.isclose(float(stretch.slope(scalar(z))), numerical, rel_tol=1e-6)
    integral, _ = integrate.quad(lambda x: float(stretch.slope(scalar(x))), z - 1.0, z)
    assert math.isclose(float(stretch.forward(scalar(z)) - stretch.forward(scalar(z - 1.0))), integral, rel_tol=1e-7)
    # information e^(2 k (z - knee)) and unit normal prior together are 1 in t
    information = math.exp(2 * rate * (z - knee))
    assert math.isclose((information + 1.0) / numerical**2, 1.0, rel_tol=1e-5)


def test_stretch_leaves_alone_what_the_data_do_not_see() -> None:
    stretch = Stretch(1.5, 2.0)
    assert all(math.isclose(float(stretch.forward(scalar(z))), z, abs_tol=1e-6) for z in (-8.0, -7.0, -6.0))


@given(st.floats(6.2, 9.6), st.floats(1.01, 1e4))
def test_stretch_of_a_mass_follows_its_square(log_mass: float, information: float) -> None:
    lower, upper = 6.0, 9.8
    stretch = Stretch.of_mass(log_mass, lower, upper, information)
    assert stretch is not None
    z = stats.norm.ppf((log_mass - lower) / (upper - lower))
    step = 1e-6
    low, high = (2.0 * math.log(10.0) * (lower + (upper - lower) * stats.norm.cdf(z + s)) for s in (-step, step))
    assert math.isclose(2.0 * stretch.rate, (high - low) / (2 * step), rel_tol=1e-6)
    assert math.isclose(information * math.exp(2.0 * stretch.rate * (stretch.knee - z)), 1.0, rel_tol=1e-6)


def test_no_stretch_where_the_data_say_little() -> None:
    assert Stretch.of_mass(8.0, 6.0, 9.8, 1.0) is None
    assert Stretch.of_mass(8.0, 6.0, 9.8, float("nan")) is None


@pytest.mark.parametrize("chart", CHARTS)
def test_prior_precision_is_the_inverse_square_of_the_stretch(chart: Chart) -> None:
    coordinates = FIT.coordinates(chart)
    plain = FIT.coordinates(dataclasses.replace(chart, stretch=None))
    theta = random_theta(np.random.default_rng(8), FIT)
    z, unstretched = coordinates.from_theta(theta), plain.from_theta(theta)
    expected = np.ones(coordinates.dimension)
    i = coordinates.names.index("log10_mbh")
    if chart.stretch is not None:
        expected[i] = 1.0 / (1.0 + math.exp(2.0 * chart.stretch[0] * (float(unstretched[i]) - chart.stretch[1])))
    assert np.allclose(coordinates.prior_precision(z).numpy(), expected, rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(CHARTS))
def test_log_jacobian_is_that_of_brute_force(seed: int, chart: Chart) -> None:
    for fit in (FIT, WIDE):
        coordinates = fit.coordinates(chart)
        z = coordinates.from_theta(random_theta(np.random.default_rng(seed), fit))
        jacobian = torch.autograd.functional.jacobian(lambda p, c=coordinates: c.vector(c.to_theta(p)[0]), z)
        assert torch.isclose(torch.linalg.slogdet(jacobian)[1], coordinates.to_theta(z)[1], atol=1e-7)


def test_log_jacobian_in_forward_mode() -> None:
    coordinates = WIDE.coordinates(WITH_HOLE)
    z = coordinates.from_theta(MIDDLE) + 0.2
    jacobian = torch.func.jacfwd(lambda p: coordinates.vector(coordinates.to_theta(p)[0]))(z)
    assert torch.isclose(torch.linalg.slogdet(jacobian)[1], coordinates.to_theta(z)[1], atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_there_and_back(seed: int) -> None:
    theta = random_theta(np.random.default_rng(seed), FIT)
    for chart in CHARTS:
        coordinates = FIT.coordinates(chart)
        back = coordinates.to_theta(coordinates.from_theta(theta))[0]
        for name, value in theta.items():
            assert math.isclose(float(back[name]), value, rel_tol=1e-6, abs_tol=1e-6), name


def square(component: str, theta: dict[str, torch.Tensor], radius: float) -> float:
    where = torch.tensor([radius], dtype=torch.float64)
    return float(WIDE.galaxy_model.circular_velocity(theta, where, component)[0]) ** 2


def local_slope(theta: dict[str, torch.Tensor], radius: float) -> float:
    """Minus d log Sigma / d log r of the Nuker profile, numerically."""
    alpha, gamma, break_r = (float(theta[name]) for name in ("alpha", "gamma", "break_r"))
    beta = gamma - float(theta["gamma_minus_beta"])

    def log_density(log_r: float) -> float:
        x = math.exp(log_r) / break_r
        return -gamma * math.log(x) + (gamma - beta) / alpha * math.log1p(x**alpha)

    step = 1e-5
    return -(log_density(math.log(radius) + step) - log_density(math.log(radius) - step)) / (2 * step)


def test_pivots_are_what_they_say() -> None:
    """At fixed z of the pivots, log10 v*^2 + (1 + q1) log10(1 + q1 m) and slope + (2 - s) q2 (1 + q2) m stay, whatever else moves."""
    coordinates = WIDE.coordinates(WITH_HOLE)
    z = coordinates.from_theta(MIDDLE)
    middle = tensors(MIDDLE)
    q1, q2 = (square("black_hole", middle, r) / square("stars", middle, r) for r in (0.8, 0.5))
    assert 0.1 < q1 < MOST_BLACK_HOLE and 0.1 < q2 < MOST_BLACK_HOLE
    total_slope = (local_slope(middle, 0.5) + 2.0 * q2) / (1.0 + q2)

    def pivots(position: torch.Tensor) -> tuple[float, float]:
        theta = coordinates.to_theta(position)[0]
        relative = 10.0 ** (float(theta["log10_mbh"]) - MIDDLE["log10_mbh"])
        return (
            math.log10(square("stars", theta, 0.8)) + (1.0 + q1) * math.log10(1.0 + q1 * relative),
            local_slope(theta, 0.5) + (2.0 - total_slope) * q2 * (1.0 + q2) * relative,
        )

    here = pivots(z)
    for name in ("alpha", "qintr", "break_r", "gamma_minus_beta", "log10_mbh"):
        moved = z.clone()
        moved[coordinates.names.index(name)] += 0.05
        assert np.allclose(pivots(moved), here, rtol=0, atol=2e-5), name
    for k, name, width in ((0, "intensity_rb", 5.0), (1, "gamma", 1.199)):
        moved = z.clone()
        moved[coordinates.names.index(name)] += 0.05
        change = np.subtract(pivots(moved), here)
        assert math.isclose(change[k], 0.05 * width / math.sqrt(12.0), rel_tol=1e-3), name


def test_a_black_hole_leaves_the_total_velocity_to_first_order() -> None:
    """With u1 held the total is v*^2 (((1 + q) / (1 + q m))^(1 + q) + q m), whose derivative at m = 1 is 0."""
    coordinates = WIDE.coordinates(WITH_HOLE)
    z = coordinates.from_theta(MIDDLE)
    middle = tensors(MIDDLE)
    stars = square("stars", middle, 0.8)
    q = square("black_hole", middle, 0.8) / stars
    for change in (-0.1, -0.01, 0.01, 0.1):
        moved = z.clone()
        moved[coordinates.names.index("log10_mbh")] += change
        theta = coordinates.to_theta(moved)[0]
        m = 10.0 ** (float(theta["log10_mbh"]) - MIDDLE["log10_mbh"])
        assert math.isclose(square("total", theta, 0.8) / stars, ((1 + q) / (1 + q * m)) ** (1 + q) + q * m, rel_tol=1e-4)
        share = (square("total", theta, 0.8) / stars - 1 - q) / (q * (m - 1))
        assert abs(share) < (1 + q) * abs(m - 1)


def test_a_black_hole_that_rules_counts_as_one_that_equals_the_stars() -> None:
    pivots = FIT.coordinates(CHART).pivots
    assert pivots is not None
    assert pivots.black_hole == (MOST_BLACK_HOLE, MOST_BLACK_HOLE)
    terms = pivots.mass_terms(tensors(TRUTH))
    slope = local_slope(tensors(TRUTH), 0.5)
    assert math.isclose(float(terms[0]), 2.0 * math.log10(2.0), rel_tol=1e-9)
    assert math.isclose(float(terms[1]), 2.0 * (2.0 - (slope + 2.0) / 2.0), rel_tol=1e-6)


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
    assert math.isclose(float(coordinates.log_prior(z)), float(log_jacobian) + float(log_prob), abs_tol=1e-9)


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
