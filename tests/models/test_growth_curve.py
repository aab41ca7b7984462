"""Growth curves against profiles whose masses and half-mass radii are known in closed form or by root finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from supermage.models.growth_curve import half_mass_radius, mass_within

Array = NDArray[np.float64]
EAGLE = np.array([1.0, 3.0, 5.0, 10.0, 20.0, 30.0])
WIDE = np.array([1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 70.0, 100.0])


def hernquist(radius: Array, scale: Array) -> Array:
    return (radius / (radius + scale)) ** 2


def plummer(radius: Array, scale: Array) -> Array:
    return radius**3 / (radius**2 + scale**2) ** 1.5


def half_of(profile: Callable[..., Array], scale: float) -> float:
    """kpc that hold half of what 30 kpc hold."""
    return float(brentq(lambda radius: profile(radius, scale) - 0.5 * profile(30.0, scale), 1e-4, 30.0))


@pytest.mark.parametrize(("profile", "near", "far"), [(hernquist, 0.016, 0.011), (plummer, 0.046, 0.015)])
def test_radii_of_half_the_mass_within_30_kpc(profile: Callable[..., Array], near: float, far: float) -> None:
    """From 1 to 2 kpc within ``near``, above within ``far``; straight lines in ln M against ln r miss by 9 and 15 %."""
    scale = np.geomspace(0.3, 60.0, 400)
    expected = np.array([half_of(profile, item) for item in scale])
    curve = profile(EAGLE[None], scale[:, None]) * 10.0 ** np.linspace(8.0, 12.0, 400)[:, None]
    found = half_mass_radius(EAGLE, curve)
    assert np.array_equal(np.isnan(found), expected < 1.0) and 18.0 < expected.max() < 24.0
    error = np.abs(found / expected - 1.0)
    assert np.nanmax(error[expected < 2.0]) < near and error[expected >= 2.0].max() < far
    straight = np.array([np.exp(np.interp(np.log(0.5 * row[-1]), np.log(row), np.log(EAGLE))) for row in curve])
    assert np.abs(straight / expected - 1.0)[expected >= 2.0].max() > 0.08


def test_power_laws_are_met_exactly() -> None:
    slope = np.array([0.3, 1.0, 2.0, 3.0])
    curve = EAGLE[None] ** slope[:, None]
    assert half_mass_radius(EAGLE, curve)[1:] == pytest.approx(30.0 * 0.5 ** (1.0 / slope[1:]))
    assert mass_within(EAGLE, curve, np.full(4, 7.0)) == pytest.approx(7.0**slope)


def test_stars_that_no_sphere_divides_have_no_radius() -> None:
    """None at all; all inside the smallest sphere; all in the outermost shell; empty spheres inside do no harm; rounding neither."""
    nothing, inside, outside = [0.0] * 6, [4.0, 6.0, 6.0, 6.0, 6.0, 6.0], [0.0] * 5 + [6.0]
    hollow, shaken = [0.0, 0.0, 1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 2.0, 4.0, 3.999999]
    found = half_mass_radius(EAGLE, np.array([nothing, inside, outside, hollow, shaken]))
    assert np.isnan(found[:3]).all() and found[3] == pytest.approx(20.0) and found[4] == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize(("profile", "near", "far"), [(hernquist, 0.01, 0.004), (plummer, 0.06, 0.018)])
def test_masses_within_other_radii(profile: Callable[..., Array], near: float, far: float) -> None:
    scale, radius = (item.ravel() for item in np.meshgrid(np.geomspace(0.3, 50.0, 60), np.geomspace(1.0, 100.0, 80)))
    found = mass_within(WIDE, profile(WIDE[None], scale[:, None]), radius)
    error = np.abs(found / profile(radius, scale) - 1.0)
    assert error.max() < near and error[radius > 4.0].max() < far and error.max() > 0.1 * near


def test_masses_at_the_spheres_are_theirs_and_outside_none() -> None:
    curve = np.sort(np.random.default_rng(1).uniform(0.1, 1.0, (10, 10)), axis=1)
    for number, radius in enumerate(WIDE):
        assert mass_within(WIDE, curve, np.full(10, radius)) == pytest.approx(curve[:, number])
    assert np.isnan(mass_within(WIDE, curve, np.full(10, 0.99))).all() and np.isnan(mass_within(WIDE, curve, np.full(10, 101.0))).all()
    empty = np.array([[0.0] * 10, [0.0, 0.0, 8.0, *[9.0] * 7], [0.0] * 9 + [8.0]])
    assert mass_within(WIDE, empty, np.array([9.0, 2.5, 50.0])).tolist() == pytest.approx([0.0, 1.0, 1.0])
    assert mass_within(WIDE, empty, np.full(3, 100.0)).tolist() == pytest.approx([0.0, 9.0, 8.0])
