"""The reference deprojection against mpmath, closed forms, projection back onto the sky, and Gaussians."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError
from supermage.forward.deprojection import NukerDeprojection, nuker_circular_velocity, scale_free_density
from supermage.forward.nuker import Nuker

SHAPES = [(0.1, 0.5, 0.2), (0.1, 4.2, 1.2), (10.0, 4.2, 1.2), (10.0, 3.001, 0.001), (2.0, 2.0, 0.8)]


def exact_density(ratio: float, alpha: float, beta: float, gamma: float) -> float:
    with mpmath.workdps(20):
        a, b, g, x = (mpmath.mpf(item) for item in (alpha, beta, gamma, ratio))

        def integrand(y: mpmath.mpf) -> mpmath.mpf:
            radius = x * mpmath.cosh(y)
            power = radius**a
            return 2 ** ((b - g) / a) * radius ** (-g - 1) * (1 + power) ** ((g - b) / a) * (g + (b - g) * power / (1 + power))

        return float(mpmath.quad(integrand, [0, 0.5, 1, 2, 4, 8, 16, 40]) / mpmath.pi)


@pytest.mark.parametrize("shape", SHAPES)
def test_abel_inversion_against_mpmath(shape: tuple[float, float, float]) -> None:
    reference = NukerDeprojection(*shape)
    for ratio in (1.1e-3, 0.31, 0.93, 1.21, 40.0, 3e3):
        expected = exact_density(ratio, *shape)
        assert scale_free_density(ratio, *shape)[0] == pytest.approx(expected, rel=1e-9)
        assert float(reference.density(ratio)) == pytest.approx(expected, rel=1e-8)


def test_power_law_has_its_closed_form() -> None:
    """Sigma = R^-s belongs to rho = Gamma((s+1)/2) / (sqrt(pi) Gamma(s/2)) r^-(s+1)."""
    slope = 0.8
    got = scale_free_density(np.array([0.01, 1.0, 100.0]), 1.0, slope, slope)
    expected = math.gamma((slope + 1) / 2) / (math.sqrt(math.pi) * math.gamma(slope / 2)) * np.array([0.01, 1.0, 100.0]) ** -(slope + 1)
    assert got == pytest.approx(expected, rel=1e-10)


def test_projecting_back_gives_the_profile() -> None:
    reference = NukerDeprojection(3.0, 2.4, 0.5)
    for radius in (0.05, 1.0, 20.0):
        projected = 2 * quad(lambda y, at=radius: float(reference.density(at * math.cosh(y))) * at * math.cosh(y), 0, 14, epsrel=1e-8)[0]
        expected = Nuker(3.0, 2.4, 0.5, 1.0, 1.0).surface_density_at(torch.tensor(radius, dtype=torch.float64)).item()
        assert projected == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("axis_ratio", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_spheroid_integral_against_adaptive_quadrature(shape: tuple[float, float, float], axis_ratio: float) -> None:
    reference = NukerDeprojection(*shape)
    top = math.asin(math.sqrt(1 - axis_ratio**2)) if axis_ratio < 1 else 1.0
    for ratio in (1e-3, 0.9, 1.1, 300.0):
        # m = R sin(phi) / e in ln(phi): another substitution than the code's
        def integrand(log_phi: float, at: float = ratio) -> float:
            phi = math.exp(log_phi)
            fraction, measure = (math.sin(phi) / math.sin(top), 1 / math.sin(top)) if axis_ratio < 1 else (phi, 1.0)
            return float(reference.density(at * fraction)) * fraction**2 * measure * phi

        breaks = sorted({math.log(top) - 90, math.log(top), *(math.log(top) - math.log(ratio) + k / 4 for k in range(-8, 9) if ratio > 1)})
        cuts = [item for item in breaks if math.log(top) - 90 <= item <= math.log(top)]
        total = sum(quad(integrand, a, b, epsrel=1e-9, limit=200)[0] for a, b in pairwise(cuts))
        assert float(reference.force(ratio, axis_ratio)) == pytest.approx(4 * math.pi * ratio**2 * total, rel=1e-6)


def test_units_and_inclination_of_the_velocity() -> None:
    """Sphere: G M / R with the mass by shells. Spheroid: only q' of the line of sight enters."""
    profile = Nuker(2.0, 2.0, 0.8, 100.0, 3e3)
    radius = np.array([5.0, 80.0, 900.0])
    velocity = nuker_circular_velocity(radius, profile, intrinsic_axis_ratio=1.0, inclination=30.0)
    reference = NukerDeprojection(2.0, 2.0, 0.8)
    shells = np.array([quad(lambda t: 4 * math.pi * math.exp(3 * t) * float(reference.density(math.exp(t))), -40, math.log(x / 100))[0]
                       for x in radius])
    assert velocity == pytest.approx(np.sqrt(GRAVITATIONAL_CONSTANT * 3e3 * 1e4 * shells / radius), rel=1e-6)
    tilted, edge_on = (nuker_circular_velocity(radius, profile, intrinsic_axis_ratio=0.4, inclination=i) for i in (60.0, 90.0))
    observed = math.hypot(0.4 * math.sin(math.radians(60)), 0.5)
    assert tilted / edge_on == pytest.approx(np.full(3, math.sqrt(observed / 0.4)), rel=1e-12)


def test_bad_numbers_are_refused() -> None:
    profile = Nuker(2.0, 2.0, 0.8, 100.0, 3e3)
    with pytest.raises(DomainError, match=r"intrinsic_axis_ratio must lie in \(0, 1\], got 1.5"):
        nuker_circular_velocity(np.ones(1), profile, intrinsic_axis_ratio=1.5, inclination=60.0)
    with pytest.raises(DomainError, match=r"inclination must lie in \(0, 90\] deg, got 0"):
        nuker_circular_velocity(np.ones(1), profile, intrinsic_axis_ratio=0.5, inclination=0.0)
    with pytest.raises(DomainError, match=r"gamma must lie in \[0, 2\)"):
        NukerDeprojection(2.0, 3.0, 2.5)
    for alpha in (0.0, -1.0, 10.1, math.nan):
        with pytest.raises(DomainError, match=r"alpha must lie in \(0, 10\] for the quadrature to hold, got"):
            NukerDeprojection(alpha, 3.0, 0.5)
    reference = NukerDeprojection(2.0, 3.0, 0.5)
    for radius in (0.0, -1.0, math.nan, math.inf):
        for method in (reference.density, reference.enclosed_mass, lambda x: reference.force(x, 0.5)):
            with pytest.raises(DomainError, match="a radius must be positive and finite, got"):
                method(np.array([1.0, radius]))
    with pytest.raises(DomainError, match="nuker must be one profile, got parameters of shapes"):
        nuker_circular_velocity(np.ones(1), Nuker(torch.ones(2), 2.0, 0.8, 100.0, 3e3), intrinsic_axis_ratio=0.5, inclination=60.0)
    with pytest.raises(DomainError, match="beta must be positive and not below gamma"):
        NukerDeprojection(2.0, 0.2, 0.5)
