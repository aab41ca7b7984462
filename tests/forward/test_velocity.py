"""Circular velocities against mpmath, closed forms and the exact sum."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError
from supermage.forward.velocity import (
    ScaleFreeCurve,
    circular_velocity_squared,
    exponential_disc_velocity_squared,
    gaussian_kernel,
    nfw_velocity_squared,
    point_mass_velocity_squared,
)
from supermage.models.nuker_errors import corners
from supermage.models.registry import load_model

double = {"dtype": torch.float64}


def exact_kernel(ratio: float, axis_ratio: float) -> float:
    with mpmath.workdps(25):
        x, eccentricity = mpmath.mpf(ratio), 1 - mpmath.mpf(axis_ratio) ** 2
        cuts = sorted({mpmath.mpf(min(1.0, item)) for item in (1 / ratio, 3 / ratio, 6 / ratio, 10 / ratio, 0.9, 0.99, 0.999, 1.0)})
        return float(
            mpmath.quad(lambda t: t**2 * mpmath.exp(-(t**2) * x**2 / 2) / mpmath.sqrt(1 - eccentricity * t**2), [0, *cuts])
        )


@pytest.mark.parametrize("axis_ratio", [0.05, 0.1, 0.3, 0.7, 0.999, 1.0])
@pytest.mark.parametrize("ratio", [1e-3, 0.3, 2.0, 7.5, 7.7, 20.0, 1e2, 1e4])
def test_kernel_against_mpmath(ratio: float, axis_ratio: float) -> None:
    expected = exact_kernel(ratio, axis_ratio)
    assert gaussian_kernel(torch.tensor(ratio, **double), torch.tensor(axis_ratio, **double)).item() == pytest.approx(expected, rel=1e-9)
    assert gaussian_kernel(torch.tensor(ratio), torch.tensor(axis_ratio)).item() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 4))
def test_spherical_gaussian_has_its_closed_form(log_ratio: float) -> None:
    radius, sigma, peak = 10.0**log_ratio * 30.0, 30.0, 4.0
    x = radius / (math.sqrt(2) * sigma)
    with mpmath.workdps(30):
        mass_part = float(mpmath.erf(x) - 2 * mpmath.mpf(x) * mpmath.exp(-mpmath.mpf(x) ** 2) / mpmath.sqrt(mpmath.pi))
    expected = GRAVITATIONAL_CONSTANT * 2 * math.pi * sigma**2 * peak / radius * mass_part
    arguments = (torch.tensor([item], **double) for item in (radius, peak, sigma, 1.0))
    assert circular_velocity_squared(*arguments, inclination_rad=torch.tensor(1.0, **double)).item() == pytest.approx(expected, rel=1e-9)


def test_widths_ten_million_apart_keep_their_mass() -> None:
    """A quadrature limit shared by all Gaussians would lose the narrow one at large radii."""
    sigma, peak = torch.tensor([1e-2, 1e5], **double), torch.tensor([1e12, 1.0], **double)
    radius = torch.tensor([1e-3, 1.0, 1e3, 1e5], **double)
    together = circular_velocity_squared(radius, peak, sigma, torch.full((2,), 0.6, **double), inclination_rad=torch.tensor(1.4, **double))
    apart = sum(
        circular_velocity_squared(radius, peak[[k]], sigma[[k]], torch.tensor([0.6], **double), inclination_rad=torch.tensor(1.4, **double))
        for k in range(2)
    )
    assert torch.allclose(together, apart, rtol=1e-14)
    point = GRAVITATIONAL_CONSTANT * 2 * math.pi * 1e-4 * 1e12 * 0.6 / 1e3
    narrow = circular_velocity_squared(
        radius[2:3], peak[:1], sigma[:1], torch.tensor([0.6], **double), inclination_rad=torch.tensor(1.4, **double)
    )
    assert narrow.item() == pytest.approx(point, rel=1e-8)


def test_gradients_are_right_at_the_sphere_too() -> None:
    ratio = torch.tensor([0.2, 3.0, 9.0, 40.0], requires_grad=True, **double)
    for axis_ratio in (0.3, 0.9):
        q = torch.full((4,), axis_ratio, requires_grad=True, **double)
        assert torch.autograd.gradcheck(gaussian_kernel, (ratio, q), atol=1e-9, rtol=1e-6)
    q = torch.tensor(1.0, requires_grad=True, **double)
    slope = torch.autograd.grad(gaussian_kernel(torch.tensor(1.5, **double), q), q)[0].item()
    step = 1e-5
    expected = (exact_kernel(1.5, 1.0) - exact_kernel(1.5, 1.0 - step)) / step
    assert slope == pytest.approx(expected, rel=1e-3)


def test_point_mass_and_softening() -> None:
    radius = torch.tensor([0.0, 2.0], **double)
    softened = point_mass_velocity_squared(radius, torch.tensor(1e6, **double), 1.5)
    assert softened[0] == 0
    assert softened[1].item() == pytest.approx(GRAVITATIONAL_CONSTANT * 1e6 * 4.0 / 6.25**1.5, rel=1e-14)
    on_top = point_mass_velocity_squared(radius[:1], torch.tensor([0.0, 1.0], **double))
    assert on_top.tolist() == [0.0, math.inf]
    assert point_mass_velocity_squared(radius[1:], torch.tensor(1e6, **double)).item() == pytest.approx(GRAVITATIONAL_CONSTANT * 5e5)


def test_nfw_halo_has_its_mass_and_mean_density() -> None:
    mass, concentration = torch.tensor(1e12, **double), torch.tensor(10.0, **double)
    critical = 3 * (70e-6) ** 2 / (8 * math.pi * GRAVITATIONAL_CONSTANT)
    r200 = (1e12 / (4 / 3 * math.pi * 200 * critical)) ** (1 / 3)
    radius = torch.tensor([1.0, 1e3, r200], **double)
    got = nfw_velocity_squared(radius, mass, concentration)
    assert got[2].item() == pytest.approx(GRAVITATIONAL_CONSTANT * 1e12 / r200, rel=1e-12)
    with mpmath.workdps(40):
        shape = lambda x: mpmath.log(1 + x) - x / (1 + x)  # noqa: E731
        for k in range(2):
            x = mpmath.mpf(10.0) * mpmath.mpf(radius[k].item()) / mpmath.mpf(r200)
            expected = GRAVITATIONAL_CONSTANT * 1e12 / radius[k].item() * float(shape(x) / shape(mpmath.mpf(10.0)))
            assert got[k].item() == pytest.approx(expected, rel=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.floats(-3, 5))
def test_exponential_disc_against_mpmath(log_ratio: float) -> None:
    mass, scale_length = 3e9, 210.0
    radius = 10.0**log_ratio * scale_length
    with mpmath.workdps(60):
        y = mpmath.mpf(radius) / (2 * scale_length)
        shape = y**2 * (mpmath.besseli(0, y) * mpmath.besselk(0, y) - mpmath.besseli(1, y) * mpmath.besselk(1, y))
        expected = float(2 * GRAVITATIONAL_CONSTANT * mass / scale_length * shape)
    got = exponential_disc_velocity_squared(*(torch.tensor(item, **double) for item in (radius, mass, scale_length)))
    assert got.item() == pytest.approx(expected, rel=1e-9)
    single = exponential_disc_velocity_squared(*(torch.tensor(item) for item in (radius, mass, scale_length)))
    assert single.item() == pytest.approx(expected, rel=1e-6)


def test_exponential_disc_differentiates_both_ways_and_batches() -> None:
    """Its derivative is hand-written; on both sides of where the series takes over."""
    radius = torch.tensor([0.01, 1.0, 50.0, 79.9, 80.1, 1e3], requires_grad=True, **double)
    mass, scale_length = (torch.tensor(item, requires_grad=True, **double) for item in (1e6, 1.0))
    assert torch.autograd.gradcheck(
        exponential_disc_velocity_squared, (radius, mass, scale_length), eps=1e-4, rtol=1e-5, atol=1e-7, check_forward_ad=True
    )
    lengths = torch.tensor([0.5, 2.0], **double)
    batched = torch.func.vmap(lambda h: exponential_disc_velocity_squared(radius.detach(), mass.detach(), h))(lengths)
    assert torch.allclose(batched[1], exponential_disc_velocity_squared(radius.detach(), mass.detach(), lengths[1]), rtol=1e-14)


@pytest.fixture(scope="module")
def curve() -> ScaleFreeCurve:
    return ScaleFreeCurve(torch.logspace(-4, 4, 40, **double))


def exact_curve(curve: ScaleFreeCurve, log_radius: torch.Tensor, weights: torch.Tensor, axis_ratio: float) -> torch.Tensor:
    """v^2 / (G Sigma_b r_b q') by the exact sum, seen edge-on so that q' = q."""
    width = torch.logspace(-4, 4, 40, **double)
    flat = torch.full((40,), axis_ratio, **double)
    squared = circular_velocity_squared(torch.exp(log_radius), weights, width, flat, inclination_rad=torch.tensor(math.pi / 2, **double))
    return squared / (GRAVITATIONAL_CONSTANT * axis_ratio)


@pytest.mark.parametrize("axis_ratio", [0.05, 0.071, 0.3, 0.77, 1.0])
def test_scale_free_curve_is_the_exact_sum(curve: ScaleFreeCurve, axis_ratio: float) -> None:
    weights = torch.logspace(-4, 4, 40, **double) ** -0.9 * torch.linspace(0.5, 1.5, 40, **double)
    values = curve.velocity_squared(weights, torch.tensor(axis_ratio, **double))
    assert torch.allclose(values, exact_curve(curve, curve.log_radius, weights, axis_ratio), rtol=1e-7)
    log_radius = torch.from_numpy(np.random.default_rng(1).uniform(-9, 9, 300))
    exact = exact_curve(curve, log_radius, weights, axis_ratio)
    assert torch.allclose(curve.interpolate(values, log_radius), exact, rtol=1e-5)
    assert torch.allclose(curve.interpolate(values.float(), log_radius.float()).double(), exact, rtol=1e-5)


def test_the_table_follows_the_sharpest_profiles_of_the_box() -> None:
    """Half a part in a million of v at every corner, closest where a sharp break bends the curve."""
    model = load_model("nuker-mge")
    table, width = ScaleFreeCurve(model.width_ratio), model.width_ratio
    radius = torch.exp(torch.cat([torch.linspace(-7.0, 7.0, 141, **double), torch.linspace(-1.2, 1.2, 241, **double)]))
    for axis_ratio in (0.05, 0.33, 1.0):
        q = torch.tensor(axis_ratio, **double)
        kernel = gaussian_kernel(radius[:, None] / width, q)
        for alpha, beta, gamma in {tuple(corner[:3]) for corner in corners().tolist()}:
            weights = model.weights(*(torch.tensor(item, **double) for item in (alpha, beta, gamma)))
            exact = 4.0 * math.pi * radius**2 * (kernel @ (weights / width)) / math.sqrt(2.0 * math.pi)
            got = table.interpolate(table.velocity_squared(weights, q), torch.log(radius))
            assert float((got / exact - 1.0).abs().max()) < 1e-6


def test_scale_free_curve_knows_the_inclination_only_through_the_caller(curve: ScaleFreeCurve) -> None:
    """The factor q' (not q) is the caller's: swapping them is an error of tens of per cent here."""
    inclination, q = math.radians(60.0), 0.4
    observed = math.hypot(q * math.sin(inclination), math.cos(inclination))
    weights = torch.ones(40, **double)
    values = curve.velocity_squared(weights, torch.tensor(q, **double))
    exact = circular_velocity_squared(
        torch.exp(curve.log_radius[200:210]),
        weights,
        torch.logspace(-4, 4, 40, **double),
        torch.full((40,), observed, **double),
        inclination_rad=torch.tensor(inclination, **double),
    )
    assert torch.allclose(GRAVITATIONAL_CONSTANT * observed * values[200:210], exact, rtol=1e-8)
    assert not torch.allclose(GRAVITATIONAL_CONSTANT * q * values[200:210], exact, rtol=0.1)


def test_scale_free_curve_differentiates_and_batches(curve: ScaleFreeCurve) -> None:
    weights = torch.linspace(1.0, 2.0, 40, **double)
    position = torch.tensor([-3.03, 0.41, 2.2], **double)

    def value(w: torch.Tensor, q: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return curve.interpolate(curve.velocity_squared(w, q), at)

    arguments = [item.clone().requires_grad_() for item in (weights, torch.tensor(0.4, **double), position)]
    assert torch.autograd.gradcheck(value, arguments, rtol=1e-5)
    reverse = torch.func.jacrev(value, argnums=(0, 1, 2))(weights, torch.tensor(0.4, **double), position)
    forward = torch.func.jacfwd(value, argnums=(0, 1, 2))(weights, torch.tensor(0.4, **double), position)
    assert all(torch.allclose(a, b) for a, b in zip(reverse, forward, strict=True))
    stacked = torch.stack([weights, 2 * weights])
    axis_ratios = torch.tensor([0.4, 0.9], **double)
    mapped = torch.func.vmap(value)(stacked, axis_ratios, torch.stack([position, position]))
    batched = value(stacked, axis_ratios, torch.stack([position, position]))
    assert torch.allclose(mapped, batched, rtol=1e-12)
    assert torch.allclose(batched[0], value(weights, axis_ratios[0], position), rtol=1e-12)


def test_scale_free_curve_refuses_an_empty_range() -> None:
    with pytest.raises(DomainError, match="0 < lower < upper, got 2"):
        ScaleFreeCurve(torch.ones(3, **double), lower=2.0, upper=1.0)


def test_erf_form_in_numpy_agrees() -> None:
    """The same closed form through scipy, away from cancellation."""
    x = 1.2
    expected = math.sqrt(math.pi / 2) * (erf(x) - 2 * x * math.exp(-x * x) / math.sqrt(math.pi)) / (math.sqrt(2) * x) ** 3
    got = gaussian_kernel(torch.tensor(math.sqrt(2) * x, **double), torch.tensor(1.0, **double)).item()
    assert got == pytest.approx(expected, rel=1e-12)
