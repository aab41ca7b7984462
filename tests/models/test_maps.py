"""Images and maps of galaxies whose light and motion are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from supermage.errors import DataError, DomainError
from supermage.models.maps import GalaxyMaps, make_maps, moments, three_projections
from supermage.models.particle_files import read_particles
from supermage.models.particles import Kind, Particles

MASS_TO_LIGHT = 2.0
"""Of stars without ages."""


def galaxy(position: np.ndarray, velocity: np.ndarray | None = None, mass: np.ndarray | None = None, gas: Kind | None = None) -> Particles:
    n = len(position)
    stars = Kind(position, np.zeros((n, 3)) if velocity is None else velocity, np.ones(n) if mass is None else mass)
    return Particles(stars, gas=gas or Kind.none())


def along(axis: int, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Positions whose sky coordinates seen along an axis are x and y, and which lie z away."""
    position = np.empty((len(x), 3))
    position[:, (axis + 1) % 3], position[:, (axis + 2) % 3], position[:, axis] = x, y, z
    return position


def ball(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)) * [1.0, 0.7, 0.5]


def test_all_light_is_in_the_image_when_all_stars_are() -> None:
    """Surface brightness times area is the luminosity; and what lies in a pixel is said to be there."""
    inside = galaxy(ball(2000, 1) * 0.3 / 0.9, mass=np.random.default_rng(2).uniform(1e4, 1e5, 2000))
    maps = make_maps(inside, 2, half_mass_radius=1.0)
    light = maps.r_image.sum(dtype=np.float64) * maps.pixel_area
    assert light == pytest.approx(inside.stars.mass.sum() / MASS_TO_LIGHT, rel=1e-6)  # float32
    assert maps.r_light.sum(dtype=np.float64) == pytest.approx(light, rel=1e-6)
    assert maps.half_width == 3.0 and maps.pixel_area == pytest.approx(20.0**2)
    lit = maps.r_image > 0
    np.testing.assert_allclose(maps.g_r[lit], 0.7, atol=1e-6)
    assert (maps.g_r[~lit] == 0).all() and (~lit).any()


def test_an_exponential_disc_has_its_closed_form() -> None:
    """Light in eight rings against ``exp(-R/h) / (2 pi h^2)``, on the pixels' own centres.

    Bound of 4.5 Poisson errors: false alarm in 6 of 100 000 seeds; the kernel's bias is below 0.2 errors.
    """
    n, h = 20_000, 2.0
    rng = np.random.default_rng(3)
    radius, angle = h * rng.gamma(2.0, size=n), rng.uniform(0.0, 2.0 * np.pi, n)
    disc = galaxy(along(1, radius * np.cos(angle), radius * np.sin(angle), np.zeros(n)))
    maps = make_maps(disc, 1, half_mass_radius=1.678 * h)
    edge = np.arange(300) + 0.5
    centre = np.hypot(edge[None] - 150.0, edge[:, None] - 150.0) * (maps.half_width / 150.0)
    exact = np.exp(-centre / h) / (2.0 * np.pi * (1e3 * h) ** 2) * n / MASS_TO_LIGHT
    for inner in np.arange(0.25, 4.25, 0.5):
        ring = (centre >= inner * h) & (centre < (inner + 0.5) * h)
        number = exact[ring].sum() * maps.pixel_area * MASS_TO_LIGHT
        assert abs(maps.r_image[ring].sum() / exact[ring].sum() - 1.0) < 4.5 / np.sqrt(number), inner


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_moves_away_is_positive(axis: int) -> None:
    """A ring that turns about north: east comes near. One that turns about east: north goes away."""
    angle = np.linspace(0.0, 2.0 * np.pi, 4001)[:-1] + 1e-3
    east, north = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
    nought = 0.0 * angle
    for spin, sign in ((north, -1.0), (east, 1.0)):
        sky = (np.cos(angle), nought) if spin is north else (nought, np.cos(angle))
        position = along(axis, *sky, np.sin(angle))
        maps = make_maps(galaxy(position, 100.0 * np.cross(spin, position)), axis, half_mass_radius=1.0, image_pixels=6)
        mean, occupied = maps.mean_velocity, maps.occupied
        line = mean[24] if spin is north else mean[:, 24]
        assert np.sign(line[17]) == -sign and np.sign(line[30]) == sign
        assert line[31] == pytest.approx(sign * 95.8, abs=0.5)  # from 0.875 to 1 on a ring
        assert np.count_nonzero(occupied) == 16 and not mean[~occupied].any()


def test_a_gaussian_has_its_dispersion() -> None:
    """Sum over pixels of n s^2 / sigma^2 is chi-squared; two-sided p > 1e-4. The weighted mean of the means is Gaussian; 4 errors."""
    n, sigma = 30_000, 140.0
    rng = np.random.default_rng(4)
    position, velocity = rng.uniform(-2.9, 2.9, (n, 3)), rng.normal(30.0, sigma, (n, 3))
    maps = make_maps(galaxy(position, velocity), 0, half_mass_radius=1.0, weighting="mass", image_pixels=6)
    x, y = np.floor((position[:, [1, 2]] + 3.0) * 8.0).astype(int).T
    count = np.zeros((48, 48))
    np.add.at(count, (y, x), 1.0)
    chi2 = (count * maps.dispersion.astype(np.float64) ** 2).sum() / sigma**2
    freedom = n - np.count_nonzero(count)
    assert 5e-5 < stats.chi2.sf(chi2, freedom) < 1.0 - 5e-5
    assert (count * maps.mean_velocity).sum() / n == pytest.approx(30.0, abs=4.0 * sigma / np.sqrt(n))
    np.testing.assert_array_equal(maps.occupied, count > 0)


def test_moments_are_weighted_and_lose_nothing_to_large_velocities() -> None:
    sky = np.array([[0.1, 0.1], [0.2, 0.2], [-0.5, 0.5]])
    mean, dispersion, occupied = moments(sky, np.array([1e9, 1e9 + 4.0, 7.0]), np.array([1.0, 3.0, 2.0]), half_width=1.0, pixels=2)
    assert mean[1, 1] == pytest.approx(1e9 + 3.0) and dispersion[1, 1] == pytest.approx(np.sqrt(3.0))
    assert mean[1, 0] == 7.0 and dispersion[1, 0] == 0.0
    assert occupied.tolist() == [[False, False], [True, True]]


def test_light_that_dust_hides_weighs_less() -> None:
    """Two stars in one pixel, a sheet of gas between them: the far one moves at 100 km/s."""
    line = np.arange(-2.0, 2.0, 0.02) + 0.01
    x, y = (item.ravel() for item in np.meshgrid(line, line))
    mass = np.full(len(x), 0.02**2 * 2e7)
    gas = Kind(along(0, x, y, np.zeros(len(x))), np.zeros((len(x), 3)), mass, neutral_hydrogen=mass, metallicity=np.full(len(x), 0.0127))
    two = along(0, np.array([0.01, 0.02]), np.array([0.01, 0.02]), np.array([-1.0, 1.0]))
    pair = galaxy(two, np.array([[0.0, 0, 0], [100.0, 0, 0]]), gas=gas)
    by_light, bare = (make_maps(pair, 0, half_mass_radius=1.0, dust=dust) for dust in (True, False))
    by_mass = make_maps(pair, 0, half_mass_radius=1.0, weighting="mass")
    assert by_mass.mean_velocity[24, 24] == 50.0 and bare.mean_velocity[24, 24] == pytest.approx(50.0)
    assert 5.0 < by_light.mean_velocity[24, 24] < 40.0
    assert by_light.r_image.sum() < bare.r_image.sum()
    assert by_light.g_r[by_light.r_image > 0].mean() > 0.71


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 2))
def test_turning_the_galaxy_turns_its_maps(seed: int, axis: int) -> None:
    """A quarter turn about the line of sight, from east to north, in every map; and no axis is special."""
    position, velocity = ball(300, seed), ball(300, seed + 1)
    cloud = ball(200, seed + 2)
    mass = np.full(200, 3e5)

    def seen(axis: int, change: np.ndarray) -> GalaxyMaps:
        gas = Kind(cloud @ change.T, cloud, mass, neutral_hydrogen=mass)
        return make_maps(galaxy(position @ change.T, velocity @ change.T, gas=gas), axis, image_pixels=30, half_mass_radius=1.0)

    turn = np.zeros((3, 3))
    east, north = (axis + 1) % 3, (axis + 2) % 3
    turn[axis, axis] = turn[north, east] = 1.0
    turn[east, north] = -1.0
    shift = np.roll(np.eye(3), 1, axis=0)
    before, turned, shifted = seen(axis, np.eye(3)), seen(axis, turn), seen((axis + 1) % 3, shift)
    for name in ("r_image", "g_r", "mean_velocity", "dispersion", "occupied"):
        one, two, three = (getattr(maps, name).astype(np.float64) for maps in (before, turned, shifted))
        scale = np.abs(one).max()
        np.testing.assert_allclose(two, np.rot90(one, -1), rtol=1e-5, atol=1e-5 * scale, err_msg=name)
        np.testing.assert_allclose(three, one, rtol=1e-5, atol=1e-5 * scale, err_msg=name)


def test_rebinning_keeps_the_light_of_both_bands() -> None:
    position = ball(500, 5)
    first = galaxy(position)
    aged = replace(first, stars=replace(first.stars, age=np.random.default_rng(6).uniform(0.1, 13.0, 500)))
    maps = make_maps(aged, 0)
    for pixels in (150, 60):
        coarse = maps.rebinned(pixels)
        assert coarse.r_image.shape == coarse.g_r.shape == (pixels, pixels) and coarse.mean_velocity is maps.mean_velocity
        for band in ("r_image", "g_image"):
            fine, less = getattr(maps, band).sum(dtype=np.float64), getattr(coarse, band).sum(dtype=np.float64)
            assert less * coarse.pixel_area == pytest.approx(fine * maps.pixel_area, rel=1e-5)
    assert np.ptp(maps.g_r[maps.r_image > 0]) > 0.1


def test_three_projections_are_the_three_axes() -> None:
    particles = galaxy(ball(200, 7), ball(200, 8))
    for axis, maps in enumerate(three_projections(particles, image_pixels=30)):
        alone = make_maps(particles, axis, image_pixels=30)
        assert maps.axis == alone.axis == axis
        np.testing.assert_array_equal(maps.r_image, alone.r_image)
        np.testing.assert_array_equal(maps.mean_velocity, alone.mean_velocity)


def test_what_maps_need() -> None:
    particles = galaxy(ball(50, 9))
    with pytest.raises(DomainError, match="axis 0, 1 or 2 and weights 'light' or 'mass', got 3"):
        make_maps(particles, 3)
    with pytest.raises(DomainError, match="got 0 and 48 pixels"):
        make_maps(particles, 0, image_pixels=0)
    with pytest.raises(DomainError, match="a radius for each of 50 stars"):
        make_maps(particles, 0, smoothing=np.ones(3))
    with pytest.raises(DataError, match="stars within 3 kpc of the centre, got none"):
        make_maps(particles.moved(np.full(3, 50.0), np.zeros(3)), 0, half_mass_radius=1.0)


@pytest.mark.reference
def test_a_full_tng_galaxy(reference_data: Path) -> None:
    """A rotating disc: seen along the axis nearest to its spin it is rounder and turns less than along the others."""
    particles = read_particles(reference_data / "galaxies" / "tng100-subhalo-394242.h5")
    maps = three_projections(particles, half_mass_radius=7.587)
    spin = (np.cross(particles.stars.position, particles.stars.velocity) * particles.stars.mass[:, None]).sum(axis=0)
    face_on = int(np.abs(spin).argmax())
    rotation = [float(np.abs(one.mean_velocity[16:32, 16:32]).mean()) for one in maps]
    assert int(np.argmin(rotation)) == face_on
    for one in maps:
        light = one.r_image.sum(dtype=np.float64) * one.pixel_area
        assert 0.9 < light / (particles.stars.mass.sum() / MASS_TO_LIGHT) < 1.0
        assert 30.0 < float(one.dispersion[20:28, 20:28].mean()) < 200.0
