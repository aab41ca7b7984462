"""Axes of similar ellipsoids, of spheres, discs and lines, whatever the direction and the profile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from supermage.errors import DataError
from supermage.models.shape import LEAST_PARTICLES, axes_of

from .analytic_galaxies import directions, octahedral, plummer_radii

Array = NDArray[np.float64]
EDGE = 0.775
"""Longest axis of the ellipsoid: no image of a point crosses it once the ratios are right to a tenth."""


def stretched_cube(ratios: tuple[float, float], *, power: float = 1.0, seed: int = 1) -> Array:
    """Points on similar ellipsoids whose stretched second moments are exactly isotropic at every radius; none near `EDGE`."""
    rng = np.random.default_rng(seed)
    radius = rng.random((300, 1)) ** power
    radius = np.where(radius < 0.85, radius * 0.7 / 0.85, radius)
    return octahedral(radius * directions(300, rng)) * np.array([1.0, *ratios])


@pytest.mark.parametrize("ratios", [(1.0, 1.0), (0.9, 0.5), (0.7, 0.4), (1.0, 0.1), (0.3, 0.3), (0.2, 0.05)])
@pytest.mark.parametrize("power", [0.4, 2.0])
def test_similar_ellipsoids_are_exact(ratios: tuple[float, float], power: float) -> None:
    """Without noise. The iteration stops at a relative change of 1e-4 and, with no particles at the edge, closes in by 0.4 a round."""
    axes = axes_of(stretched_cube(ratios, power=power), np.ones(300 * 48), EDGE)
    assert axes.converged and (axes.iterations > 1 or ratios == (1.0, 1.0))
    assert axes.b_a == pytest.approx(ratios[0], rel=3e-4) and axes.c_a == pytest.approx(ratios[1], rel=3e-4)


def test_one_round_within_a_sphere_would_be_rounder() -> None:
    """What the iteration corrects: the tensor within a sphere alone gives another ratio by far."""
    point = stretched_cube((0.7, 0.4))
    inside = np.linalg.norm(point, axis=1) <= EDGE
    weight = 1.0 / np.sum(point[inside] ** 2, axis=1)
    moments = (weight[:, None] * point[inside] ** 2).sum(axis=0)
    assert math.sqrt(moments[2] / moments[0]) > 0.55


def test_triaxial_sample() -> None:
    """100 000 particles on Plummer's profile. A ratio's standard error is sqrt(0.6 / N) a round, 1 / 0.6 more after all: within 5."""
    rng = np.random.default_rng(2)
    radius = plummer_radii(rng.random(100_000))
    turn = Rotation.random(random_state=3).as_matrix()
    point = (radius[:, None] * directions(100_000, rng) * np.array([1.0, 0.75, 0.45])) @ turn.T
    axes = axes_of(point, np.ones(100_000), 3.9)
    error = math.sqrt(0.6) / 0.6 / math.sqrt(axes.n_inside)
    assert axes.b_a == pytest.approx(0.75, rel=5.0 * error) and axes.c_a == pytest.approx(0.45, rel=5.0 * error)
    assert np.abs(np.diag(axes.directions @ turn)) == pytest.approx(np.ones(3), abs=1e-2)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(-2, 2), st.floats(-3, 3))
def test_no_direction_and_no_unit_matters(seed: int, log_length: float, log_mass: float) -> None:
    rng = np.random.default_rng(4)
    point, mass = rng.standard_normal((2000, 3)) * np.array([2.0, 1.2, 0.7]), rng.random(2000)
    here = axes_of(point, mass, 3.0)
    turn = 10.0**log_length * Rotation.random(random_state=seed).as_matrix()
    there = axes_of(point @ turn.T, mass * 10.0**log_mass, 3.0 * 10.0**log_length)
    assert (there.b_a, there.c_a) == pytest.approx((here.b_a, here.c_a), rel=1e-6)
    assert there.iterations == here.iterations and there.n_inside == here.n_inside


def test_directions_are_an_orthonormal_set_from_long_to_short() -> None:
    axes = axes_of(stretched_cube((0.6, 0.3))[:, [2, 0, 1]], np.ones(300 * 48), EDGE)
    assert axes.directions @ axes.directions.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.abs(axes.directions) == pytest.approx(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), abs=1e-9)


@pytest.mark.parametrize("ratios", [(1.0, 0.0), (0.5, 0.0), (0.0, 0.0)])
def test_planes_and_lines_are_flat(ratios: tuple[float, float]) -> None:
    turn = Rotation.random(random_state=5).as_matrix()
    axes = axes_of(stretched_cube(ratios) @ turn.T, np.ones(300 * 48), EDGE)
    assert axes.c_a == 0.0 and axes.converged
    assert axes.b_a == 0.0 if ratios[0] == 0.0 else axes.b_a > 0.3


def test_each_direction_counts_the_same_however_far_out() -> None:
    """A round core in a flat envelope, which are not similar: the ratios are a fixed point of the tensor reduced by r^2, done anew."""
    point = np.concatenate([0.3 * stretched_cube((1.0, 1.0), seed=8), stretched_cube((1.0, 0.3), seed=9)])
    axes = axes_of(point, np.ones(len(point)), EDGE)
    assert axes.converged and 0.35 < axes.c_a < 0.9
    along = point @ axes.directions.T
    squared = along[:, 0] ** 2 + (along[:, 1] / axes.b_a) ** 2 + (along[:, 2] / axes.c_a) ** 2
    inside = squared <= EDGE**2
    reduced = np.sum(along[inside] ** 2 / squared[inside, None], axis=0)
    plain = np.sum(along[inside] ** 2, axis=0)
    assert math.sqrt(reduced[2] / reduced[0]) == pytest.approx(axes.c_a, rel=1e-3)
    assert math.sqrt(plain[2] / plain[0]) < 0.9 * axes.c_a


def test_mass_and_not_number_counts() -> None:
    """Light particles in a disc do not flatten a heavy sphere."""
    sphere, disc = stretched_cube((1.0, 1.0)), stretched_cube((1.0, 0.1), seed=6)
    mass = np.concatenate([np.ones(len(sphere)), np.full(len(disc), 1e-6)])
    assert axes_of(np.concatenate([sphere, disc]), mass, EDGE).c_a == pytest.approx(1.0, abs=1e-4)


def test_too_few_particles_have_no_axes() -> None:
    axes = axes_of(np.random.default_rng(7).standard_normal((LEAST_PARTICLES - 1, 3)), np.ones(LEAST_PARTICLES - 1), 100.0)
    assert math.isnan(axes.b_a) and math.isnan(axes.c_a) and not axes.converged
    assert math.isnan(axes_of(np.zeros((200, 3)), np.ones(200), 1.0).c_a)


def test_rules() -> None:
    with pytest.raises(DataError, match="radius above 0, got -1"):
        axes_of(np.ones((3, 3)), np.ones(3), -1.0)
