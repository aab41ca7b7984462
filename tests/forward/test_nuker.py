"""Nuker profile and its projected mass, against mpmath's hypergeometric function and the plain formula."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from astropy import units
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.errors import DomainError
from supermage.forward.nuker import Nuker, log_nuker, nuker_slope, scale_free_projected_mass

CORNERS = [(0.1, 0.301, 0.001), (0.1, 4.2, 1.2), (10.0, 4.2, 1.2), (10.0, 3.001, 0.001), (2.0, 2.0, 0.8), (10.0, 0.301, 0.001)]
double = {"dtype": torch.float64}


def exact_mass(alpha: float, beta: float, gamma: float, ratio: float) -> float:
    """The closed form, with 30 digits."""
    with mpmath.workdps(30):
        a, b, g, x = (mpmath.mpf(item) for item in (alpha, beta, gamma, ratio))
        first, second = (2 - g) / a, (b - g) / a
        return float(2 * mpmath.pi * 2**second * x ** (2 - g) / (2 - g) * mpmath.hyp2f1(first, second, first + 1, -(x**a)))


@settings(deadline=None, max_examples=100)
@given(st.floats(0.1, 10), st.floats(0.3, 3.0), st.floats(0.001, 1.2), st.floats(-3, 3))
def test_profile_is_the_papers_formula(alpha: float, difference: float, gamma: float, log_ratio: float) -> None:
    ratio = 10.0**log_ratio
    sharpness = difference / alpha
    plain = 2.0**sharpness * ratio**-gamma * (1.0 + ratio**alpha) ** -sharpness
    got = Nuker(alpha, gamma + difference, gamma, 50.0, 7.0).surface_density_at(torch.tensor([50.0 * ratio], **double))
    assert got.item() == pytest.approx(7.0 * plain, rel=1e-10)


def test_value_at_the_break_is_the_stated_density() -> None:
    assert Nuker(3.0, 2.5, 0.4, 120.0, 900.0).surface_density_at(torch.tensor(120.0, **double)).item() == pytest.approx(900.0, rel=1e-13)


def test_sharp_profiles_do_not_overflow_in_single_precision() -> None:
    radius = torch.tensor([1e-3, 1.0, 1e4])
    profile = Nuker(*(torch.tensor(item) for item in (10.0, 4.2, 1.2, 2.0, 1.0)))
    got = profile.surface_density_at(radius)
    assert got.dtype == torch.float32
    expected = Nuker(10.0, 4.2, 1.2, 2.0, 1.0).surface_density_at(radius.double())
    assert torch.allclose(got.double(), expected, rtol=2e-4)


@pytest.mark.parametrize("shape", CORNERS)
def test_slope_is_the_derivative(shape: tuple[float, float, float]) -> None:
    alpha, beta, gamma = (torch.tensor(item, **double) for item in shape)
    position = torch.linspace(-6.0, 6.0, 41, **double).requires_grad_()
    derivative = torch.autograd.grad(log_nuker(position, alpha, beta, gamma).sum(), position)[0]
    assert torch.allclose(-derivative, nuker_slope(position, alpha, beta, gamma), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", CORNERS)
@pytest.mark.parametrize("ratio", [1e-3, 0.7, 1.0, 1.3, 30.0, 5e3])
def test_projected_mass_is_the_hypergeometric_form(shape: tuple[float, float, float], ratio: float) -> None:
    got = Nuker(*shape, 40.0, 3.0).projected_mass(torch.tensor([40.0 * ratio], **double))
    assert got.item() == pytest.approx(3.0 * 40.0**2 * exact_mass(*shape, ratio), rel=1e-8)


def test_projected_mass_is_zero_at_the_centre_and_batches() -> None:
    profile = Nuker(torch.tensor([2.0, 3.0], **double), 2.0, 0.8, 10.0, torch.tensor([1.0, 2.0], **double))
    mass = profile.projected_mass(torch.tensor([0.0, 5.0, 50.0], **double))
    assert mass.shape == (2, 3)
    assert mass[:, 0].tolist() == [0.0, 0.0]
    single = Nuker(3.0, 2.0, 0.8, 10.0, 2.0).projected_mass(torch.tensor([5.0, 50.0], **double))
    assert torch.allclose(mass[1, 1:], single, rtol=1e-12)


def test_projected_mass_grows_by_the_profile_times_the_circle() -> None:
    """dM/dR = 2 pi R Sigma: a lost factor or a swapped slope shows here."""
    arguments = [torch.tensor(item, requires_grad=True, **double) for item in (math.log(1.7), 4.0, 2.6, 0.9)]
    assert torch.autograd.gradcheck(scale_free_projected_mass, arguments)
    mass = scale_free_projected_mass(*arguments)
    growth = torch.autograd.grad(mass, arguments[0])[0].item()
    assert growth == pytest.approx(2 * math.pi * 1.7**2 * torch.exp(log_nuker(*arguments)).item(), rel=1e-10)


def test_transforms_work() -> None:
    shape = [torch.tensor(item, **double) for item in (2.0, 2.0, 0.8)]

    def density(gamma: torch.Tensor) -> torch.Tensor:
        return Nuker(shape[0], shape[1], gamma, 10.0, 1.0).surface_density_at(torch.tensor([5.0], **double))

    forward = torch.func.jacfwd(density)(shape[2])
    reverse = torch.func.jacrev(density)(shape[2])
    assert torch.allclose(forward, reverse)
    batched = torch.func.vmap(density)(torch.tensor([0.2, 0.8], **double))
    assert torch.allclose(batched[1], density(shape[2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"alpha": 0.0}, "alpha must be positive, got 0"), ({"break_radius": -1.0}, "break_radius must be positive, got -1"),
     ({"surface_density": float("nan")}, "surface_density must be finite, got nan")],
)
def test_bad_numbers_are_refused(change: dict[str, float], message: str) -> None:
    good = {"alpha": 2.0, "beta": 2.0, "gamma": 0.8, "break_radius": 10.0, "surface_density": 1.0}
    with pytest.raises(DomainError, match=message):
        Nuker(**{**good, **change})


def test_infinite_mass_is_refused() -> None:
    with pytest.raises(DomainError, match="gamma must be below 2"):
        Nuker(2.0, 3.0, 2.0, 10.0, 1.0).projected_mass(torch.tensor([1.0], **double))


def test_mass_against_plain_quadrature() -> None:
    radius = np.geomspace(1e-9, 80.0, 400_001)
    density = Nuker(1.5, 2.2, 0.3, 20.0, 5.0).surface_density_at(torch.from_numpy(radius)).numpy()
    expected = np.trapezoid(2 * np.pi * radius**2 * density, np.log(radius))
    assert Nuker(1.5, 2.2, 0.3, 20.0, 5.0).projected_mass(torch.tensor([80.0], **double)).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf])
def test_radii_that_are_none_are_refused(radius: float) -> None:
    profile = Nuker(2.0, 2.0, 0.8, 10.0, 1.0)
    for method in (profile.surface_density_at, profile.projected_mass):
        with pytest.raises(DomainError, match=r"radius must be finite and not negative \(pc\), got "):
            method(torch.tensor([1.0, radius], **double))


def test_the_centre_of_a_core_is_its_value() -> None:
    """2^((beta - gamma) / alpha) times the density at the break; a cusp is infinite."""
    assert Nuker(2.0, 3.0, 0.0, 83.0, 10.0).surface_density_at(0.0).item() == pytest.approx(10.0 * 2.0**1.5, rel=1e-14)
    both = Nuker(0.1, torch.tensor([2.0, 2.0], **double), torch.tensor([0.0, 0.5], **double), 83.0, 10.0)
    assert both.surface_density_at(torch.tensor([0.0], **double))[:, 0].tolist() == [pytest.approx(10.0 * 2.0**20.0), math.inf]
    assert Nuker(2.0, 0.8, 0.8, 83.0, 1.0).projected_mass(0.0).item() == 0.0


def test_a_profile_that_steepens_inwards_is_refused() -> None:
    with pytest.raises(DomainError, match=r"beta - gamma must not be negative, got -0.6"):
        Nuker(2.0, 0.2, 0.8, 83.0, 1.0)
    assert Nuker(2.0, 0.8, 0.8, 83.0, 1.0).surface_density_at(166.0).item() == pytest.approx(2.0**-0.8)


def test_quantities_are_converted_or_refused() -> None:
    plain = Nuker(2.0, 2.0, 0.8, 83.0, 2.2e4)
    got = Nuker(2.0 * units.one, 2.0, 0.8, 0.083 * units.kpc, 2.2e10 * units.Msun / units.kpc**2)
    assert got.surface_density_at(0.01 * units.kpc).item() == pytest.approx(plain.surface_density_at(10.0).item(), rel=1e-12)
    assert got.projected_mass([10.0, 20.0] * units.pc).shape == (2,)
    with pytest.raises(DomainError, match=r"^a quantity must convert to pc, got 1.5 arcsec$"):
        Nuker(2.0, 2.0, 0.8, 1.5 * units.arcsec, 2.2e4)
    with pytest.raises(DomainError, match=r"^a quantity must convert to solMass / pc2, got 3.0 solMass$"):
        Nuker(2.0, 2.0, 0.8, 83.0, 3.0 * units.Msun)


def test_shapes_that_clash_are_one_line() -> None:
    with pytest.raises(DomainError, match=r"^shapes must go together, got alpha \(2,\), gamma \(3,\)$"):
        Nuker(torch.ones(2, **double), 2.0, torch.zeros(3, **double), 83.0, 1.0)
