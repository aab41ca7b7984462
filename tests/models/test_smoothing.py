"""Smoothed images: the kernel against quadrature, every particle's light kept, what falls outside lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from supermage.errors import DomainError
from supermage.models.smoothing import projected_kernel, rebinned, smoothed_images, smoothing_radii

PIXELS = 40


def spline(distance: float) -> float:
    """Monaghan's (1992) cubic spline in his own terms: support 2 h, here 1."""
    q = 2.0 * distance
    value = 1.0 - 1.5 * q**2 + 0.75 * q**3 if q < 1.0 else 0.25 * max(2.0 - q, 0.0) ** 3
    return value / (np.pi * 0.5**3)


def image_of(x: float, y: float, radius: float, pixels: int = PIXELS) -> np.ndarray:
    """One particle of light 1 on an image whose pixels are 1 wide, from -20 to 20."""
    return smoothed_images(np.array([[x, y]]), np.ones((1, 1)), np.array([radius]), half_width=pixels / 2, pixels=pixels)[0]


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3, 0.499, 0.5, 0.7, 0.95])
def test_the_projected_kernel_is_the_line_of_sight_integral(radius: float) -> None:
    edge = np.sqrt(1.0 - radius**2)
    knee = np.sqrt(max(0.25 - radius**2, 0.0))
    exact = 2.0 * integrate.quad(lambda z: spline(float(np.hypot(radius, z))), 0.0, edge, points=[knee] if knee else None, epsabs=1e-13)[0]
    assert projected_kernel(np.array([radius]))[0] == pytest.approx(exact, rel=1e-10, abs=1e-12)


def test_the_projected_kernel_has_unit_integral() -> None:
    whole = integrate.quad(lambda r: 2.0 * np.pi * r * projected_kernel(np.array([r]))[0], 0.0, 1.0, points=[0.5], epsabs=1e-11)[0]
    assert whole == pytest.approx(1.0, abs=1e-8)


def test_the_radius_encloses_thirty_two_neighbours() -> None:
    position = np.random.default_rng(1).normal(size=(150, 3))
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    radius = smoothing_radii(position)
    assert np.count_nonzero(distance <= radius[:, None] * (1.0 + 1e-12), axis=1).tolist() == [33] * 150
    np.testing.assert_allclose(radius, np.sort(distance, axis=1)[:, 32], rtol=1e-12)


def test_few_particles_reach_to_the_farthest() -> None:
    assert smoothing_radii(np.array([[0.0, 0, 0], [0, 3, 4], [0, 0, 1]])).tolist() == pytest.approx([5.0, 5.0, np.sqrt(18.0)])
    assert smoothing_radii(np.zeros((1, 3))).tolist() == [0.0]


@settings(max_examples=40)
@given(x=st.floats(-3, 3), y=st.floats(-3, 3), radius=st.one_of(st.floats(0.0, 3.0), st.floats(3.0, 16.9)))
def test_all_of_a_particles_light_is_kept(x: float, y: float, radius: float) -> None:
    assert image_of(x, y, radius).sum() == pytest.approx(1.0, abs=1e-12)


def test_all_light_is_kept_where_a_kernel_covers_most_of_a_fine_image() -> None:
    assert image_of(10.0, -20.0, 120.0, pixels=300).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("radius", "tolerance"), [(6.0, 1e-12), (60.0, 1e-7)])
@pytest.mark.parametrize("edge", [-20.0, 20.0])
def test_light_beyond_the_edge_is_lost(radius: float, tolerance: float, edge: float) -> None:
    """What is left is a cut-out of a larger image: nothing is moved to the edge."""
    larger = image_of(0.0, 0.0, radius, pixels=300)
    columns = slice(150, 190) if edge < 0.0 else slice(110, 150)
    np.testing.assert_allclose(image_of(edge, 0.0, radius), larger[130:170, columns], rtol=tolerance, atol=tolerance * larger.max())


def test_a_kernel_wholly_outside_leaves_nothing() -> None:
    assert not image_of(-30.0, 0.0, 9.0).any()
    assert not image_of(0.0, 20.01, 0.1).any()


def test_pixels_hold_what_the_kernel_integrates_to() -> None:
    """Against 400 points in every pixel, to 5 % of the brightest."""
    fine = (np.arange(-9 * 20, 9 * 20) + 0.5) / 20.0
    for radius in (0.6, 1.3, 2.5, 7.0):
        distance = np.hypot(fine[None] - 0.3, fine[:, None] + 0.4) / radius
        exact = np.zeros_like(distance)
        exact[distance < 1.0] = projected_kernel(distance[distance < 1.0]) / radius**2 / 400.0
        exact = exact.reshape(18, 20, 18, 20).sum(axis=(1, 3))
        image = image_of(0.3, -0.4, radius)
        assert np.abs(image[11:29, 11:29] - exact).max() < 0.05 * exact.max(), radius
        assert image[11:29, 11:29].sum() == pytest.approx(image.sum())


def test_a_kernel_far_below_a_pixel_is_a_point() -> None:
    image = image_of(2.7, -3.2, 0.01)
    assert image[16, 22] == 1.0 and np.count_nonzero(image) == 1  # x 2..3 is column 22, y -4..-3 is row 16


def test_several_values_go_by_the_same_weights() -> None:
    position = np.random.default_rng(2).uniform(-19, 19, (50, 2))
    values = np.random.default_rng(3).uniform(1, 2, (2, 50))
    radius = np.random.default_rng(4).uniform(0, 8, 50)
    both = smoothed_images(position, values, radius, half_width=20.0, pixels=PIXELS)
    np.testing.assert_allclose(both[1], smoothed_images(position, values[1:], radius, half_width=20.0, pixels=PIXELS)[0], rtol=1e-13)


def test_rebinning_sums() -> None:
    image = np.random.default_rng(5).uniform(size=(2, 300, 300))
    for pixels in (150, 60):
        coarse = rebinned(image, pixels)
        assert coarse.shape == (2, pixels, pixels)
        np.testing.assert_allclose(coarse.sum(axis=(1, 2)), image.sum(axis=(1, 2)), rtol=1e-13)
    assert rebinned(image, 150)[1, 7, 9] == pytest.approx(image[1, 14:16, 18:20].sum())
    with pytest.raises(DomainError, match="divisor of that, got 70"):
        rebinned(image, 70)


def test_an_image_needs_pixels_and_width() -> None:
    with pytest.raises(DomainError, match="got 0 pixels and 1"):
        smoothed_images(np.zeros((1, 2)), np.ones((1, 1)), np.ones(1), half_width=1.0, pixels=0)
