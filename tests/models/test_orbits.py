"""Circularities: orbits of known inclination in a known potential, Plummer's sphere, cold discs, potentials from a file, symmetries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from supermage.errors import DataError
from supermage.models.orbits import circularity_of, monopole_of, orbit_fractions
from supermage.models.particles import Kind, Particles

from .analytic_galaxies import (
    MASS,
    PLUMMER_HALF_MASS,
    G,
    cold_disc,
    plummer,
    plummer_circular,
    plummer_enclosed,
    plummer_potential,
    smooth_plummer,
    turned,
)

Array = NDArray[np.float64]

SCALE = 3.0


def on_circles(radius: Array, tilt: Array, *, halo_mass: float = 1e12) -> Particles:
    """Light stars on circular orbits about the x-axis tilted away from z, in a heavy Plummer sphere."""
    speed = np.sqrt(G * plummer_enclosed(radius, SCALE, halo_mass) / radius)
    zero = np.zeros_like(radius)
    position = np.stack([radius, zero, zero], axis=1)
    velocity = np.stack([zero, speed * np.cos(tilt), speed * np.sin(tilt)], axis=1)
    # A partner on the other side of the centre keeps the mean velocity at zero.
    stars = Kind(np.concatenate([position, -position]), np.concatenate([velocity, -velocity]), np.full(2 * len(radius), 1e-3))
    return Particles(stars, smooth_plummer(20_000, 1, scale=SCALE, mass=halo_mass))


def test_monopole_of_a_plummer_sphere() -> None:
    sphere = Particles(smooth_plummer(20_000, 1, scale=SCALE, mass=MASS))
    monopole = monopole_of(sphere)
    radius = np.geomspace(0.01, 200.0, 50)
    assert monopole.at(radius) == pytest.approx(plummer_potential(radius, SCALE, MASS), rel=2e-3)
    assert monopole.at(np.array([1e4]))[0] == pytest.approx(-G * MASS / 1e4, rel=1e-9)
    energy = -G * MASS / SCALE * np.linspace(0.99, 0.02, 40)
    assert monopole.circular_angular_momentum(energy) == pytest.approx(plummer_circular(energy, SCALE, MASS), rel=5e-3)


def test_circular_orbits_beyond_all_mass_are_keplers() -> None:
    monopole = monopole_of(Particles(smooth_plummer(20_000, 1, scale=1e-3, mass=MASS)))
    energy = np.array([-G * MASS / 20.0, -G * MASS / 2.0])
    assert monopole.circular_angular_momentum(energy) == pytest.approx(G * MASS / np.sqrt(-2.0 * energy), rel=1e-6)


def test_angular_momentum_of_circles_grows_with_energy_and_starts_at_zero() -> None:
    monopole = monopole_of(Particles(plummer(3000, 2)))
    found = monopole.circular_angular_momentum(np.linspace(1.2 * monopole.potential[0], 0.3 * abs(monopole.potential[0]), 2000))
    assert found[0] == 0.0 and (np.diff(found) >= 0.0).all() and np.isfinite(found).all()


def test_circles_have_the_cosine_of_their_tilt() -> None:
    """Tilts by pairs, so that the total angular momentum stays along z."""
    tilt = np.repeat([0.0, 0.4, -0.4, 1.2, -1.2, 0.0], 200)
    radius = np.tile(np.geomspace(0.5, 9.0, 200), 6)
    circularity, inside = circularity_of(on_circles(radius, tilt), 10.0)
    assert inside.all() and inside.shape == (2400,)
    assert circularity == pytest.approx(np.tile(np.cos(tilt), 2), abs=5e-3)


def test_the_other_way_round_is_negative() -> None:
    tilt = np.repeat([0.0, 0.0, 0.0, np.pi], 100)
    circularity, _ = circularity_of(on_circles(np.tile(np.geomspace(0.5, 9.0, 100), 4), tilt), 10.0)
    assert circularity == pytest.approx(np.tile(np.where(tilt > 1.0, -1.0, 1.0), 2), abs=5e-3)
    assert orbit_fractions(circularity, np.ones(800)).b_t == pytest.approx(0.5)


def test_stars_at_rest_and_unbound_stars() -> None:
    """One falls without angular momentum, one leaves the galaxy the wrong way round: 0, and small but negative."""
    galaxy = on_circles(np.full(400, 4.0), np.zeros(400))
    velocity = galaxy.stars.velocity.copy()
    velocity[0], velocity[400] = 0.0, 0.0
    velocity[1] *= -100.0
    velocity[401] *= -100.0
    circularity, _ = circularity_of(replace(galaxy, stars=replace(galaxy.stars, velocity=velocity)), 10.0)
    assert circularity[0] == pytest.approx(0.0, abs=1e-9)
    assert -0.2 < circularity[1] < 0.0


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_isotropic_sphere(radius: float) -> None:
    """Plummer's sphere of 40 000 stars, eps exact by another way: closed potential, circular orbits by root finding.

    On given orbits the direction is random, so the expected fractions follow from j / j_circ alone; the binomial scatter is exceeded by
    a factor 4.5 once in 100 000. The axis, of noise, draws a star's eps up by some 1 / sqrt(N).
    """
    stars = plummer(40_000, 3, scale=SCALE)
    limit = radius * PLUMMER_HALF_MASS * SCALE
    circularity, inside = circularity_of(Particles(stars), limit)
    position, velocity = stars.position[inside], stars.velocity[inside]
    energy = 0.5 * np.sum(velocity**2, axis=1) + plummer_potential(np.linalg.norm(position, axis=1), SCALE, MASS)
    angular = np.cross(position, velocity)
    circular = plummer_circular(energy, SCALE, MASS)
    axis = angular.sum(axis=0) / np.linalg.norm(angular.sum(axis=0))
    exact = angular @ axis / circular
    assert np.median(np.abs(circularity - exact)) < 0.01 and np.abs(circularity - exact).max() < 0.1
    ratio = np.linalg.norm(angular, axis=1) / circular
    assert ratio.max() < 1.001
    fractions = orbit_fractions(circularity, np.ones(len(circularity)))
    error = 4.5 * 0.5 / math.sqrt(len(circularity))
    assert fractions.b_t == pytest.approx(1.0, abs=2.0 * error)
    assert fractions.f_hot == pytest.approx(np.minimum(1.0, 0.25 / ratio).mean(), abs=error)
    assert fractions.f_cold == pytest.approx(0.5 * np.maximum(0.0, 1.0 - 0.8 / ratio).mean(), abs=error)


def test_cold_disc() -> None:
    """All but the few stars inside of the potential's first knots are on circles."""
    galaxy = cold_disc(20_000, 4)
    circularity, inside = circularity_of(galaxy, 12.0)
    fractions = orbit_fractions(circularity, galaxy.stars.mass[inside])
    assert fractions.f_cold > 0.999 and fractions.b_t == 0.0 and fractions.f_hot == 0.0
    assert np.quantile(np.abs(circularity - 1.0), 0.99) < 0.02


@settings(max_examples=10)
@given(st.floats(0.0, 0.45))
def test_counter_rotating_share_is_half_the_bulge(share: float) -> None:
    """A disc part of which turns the other way: B/T is twice this part, whichever way the whole disc turns."""
    galaxy = cold_disc(4000, 5, halo=2000)
    turning = np.where(np.arange(4000) < share * 4000, -1.0, 1.0)
    heads = replace(galaxy, stars=replace(galaxy.stars, velocity=galaxy.stars.velocity * turning[:, None]))
    tails = replace(galaxy, stars=replace(galaxy.stars, velocity=-heads.stars.velocity))
    for one in (heads, tails):
        circularity, inside = circularity_of(one, 1e3)
        assert orbit_fractions(circularity, one.stars.mass[inside]).b_t == pytest.approx(2.0 * np.mean(turning < 0), abs=1e-9)


def test_fractions_by_hand() -> None:
    found = orbit_fractions(np.array([-0.9, -0.1, 0.2, 0.25, 0.5, 0.8, 0.85, 1.1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 12.0]))
    assert (found.b_t, found.f_cold, found.f_hot) == pytest.approx((2 * 3 / 40, 19 / 40, 5 / 40))


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.lists(st.floats(-300, 300), min_size=3, max_size=3))
def test_no_direction_and_no_motion_of_the_whole_matters(seed: int, drift: list[float]) -> None:
    galaxy = Particles(replace(plummer(1500, 6), mass=np.random.default_rng(7).random(1500) * 1e8), plummer(1500, 8))
    here, inside = circularity_of(galaxy, 6.0)
    there = turned(galaxy, Rotation.random(random_state=seed).as_matrix()).moved(np.zeros(3), np.array(drift))
    found, also = circularity_of(there, 6.0)
    assert np.array_equal(inside, also)
    assert found == pytest.approx(here, abs=1e-8)


@settings(max_examples=10)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_no_unit_matters(log_length: float, log_mass: float) -> None:
    """Lengths times a, masses times b, velocities times sqrt(b/a): the same galaxy."""
    a, b = 10.0**log_length, 10.0**log_mass
    stars = plummer(1500, 9)
    other = Kind(stars.position * a, stars.velocity * math.sqrt(b / a), stars.mass * b)
    assert circularity_of(Particles(other), 6.0 * a)[0] == pytest.approx(circularity_of(Particles(stars), 6.0)[0], abs=1e-8)


def with_potential(particles: Particles, extra: float) -> Particles:
    """The particles with a file's potential: of their Plummer sphere, and of a shell far outside."""

    def of(kind: Kind) -> Kind:
        return replace(kind, potential=plummer_potential(np.linalg.norm(kind.position, axis=1), SCALE, MASS) + extra)

    return replace(particles, stars=of(particles.stars))


@pytest.mark.parametrize("extra", [0.0, -6e4, 3e5])
def test_potential_of_a_file_and_what_lies_outside(extra: float) -> None:
    """A constant that matter outside adds to every potential is found, and changes no orbit."""
    galaxy = Particles(plummer(20_000, 10, scale=SCALE))
    alone, _ = circularity_of(galaxy, 6.0)
    given, _ = circularity_of(with_potential(galaxy, extra), 6.0)
    assert np.median(np.abs(given - alone)) < 0.005
    depth = G * MASS / SCALE
    assert monopole_of(with_potential(galaxy, extra), anchor_radius=6.0).offset == pytest.approx(extra, abs=0.02 * depth)


def test_energies_follow_the_files_potential() -> None:
    """Where a file says that the stars' orbits reach farther out, they are hotter: its potential is used, not ours."""
    galaxy = Particles(plummer(20_000, 10, scale=SCALE))
    position = np.linalg.norm(galaxy.stars.position, axis=1)
    deeper = replace(galaxy, stars=replace(galaxy.stars, potential=plummer_potential(position, SCALE, 3.0 * MASS)))
    assert not np.allclose(circularity_of(deeper, 6.0)[0], circularity_of(galaxy, 6.0)[0], atol=0.05)


def test_rules() -> None:
    point = Particles(Kind(np.zeros((100, 3)), np.ones((100, 3)), np.ones(100)))
    with pytest.raises(DataError, match="different radii, got 100 between 0 and 0 kpc"):
        monopole_of(point)
    with pytest.raises(DataError, match=r"stars within 0.01 kpc, got none"):
        circularity_of(on_circles(np.full(100, 4.0), np.zeros(100)), 0.01)
    with pytest.raises(DataError, match="stars with mass, got 0 of 0 Msun"):
        orbit_fractions(np.empty(0), np.empty(0))
    far = with_potential(Particles(plummer(1000, 11)), 0.0)
    with pytest.raises(DataError, match=r"potential needs particles within 1e-06 kpc"):
        monopole_of(far, anchor_radius=1e-6)
