import numpy as np
import pytest

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.report.profiles import Profiles, equal_pull_radius


def test_equal_pull_radius_of_power_laws():
    # v_bh^2 = A / R, v_star^2 = B R: equal at sqrt(A / B)
    radius = np.geomspace(0.01, 10, 60)
    a = np.array([1.0, 4.0, 0.09])[:, None]
    found = equal_pull_radius(radius, np.sqrt(a / radius), np.sqrt(radius * np.ones_like(a)))
    assert found == pytest.approx(np.sqrt(a[:, 0]), rel=1e-3)


def test_equal_pull_radius_stays_inside_the_radii():
    radius = np.geomspace(0.1, 10, 30)
    strong, weak = np.full((1, 30), 100.0), np.full((1, 30), 1.0)
    assert equal_pull_radius(radius, strong, weak)[0] == pytest.approx(10.0)
    assert equal_pull_radius(radius, weak, strong)[0] == pytest.approx(0.1)


def test_mass_of_a_point_is_its_mass():
    radius = np.geomspace(0.1, 1, 5)
    scale, mass = 55.0, 1e8
    velocity = np.sqrt(GRAVITATIONAL_CONSTANT * mass / (radius * scale))[None]
    profiles = Profiles(
        radius=radius,
        pc_per_arcsec=scale,
        velocity={"black_hole": velocity, "stars": velocity},
        surface_density=velocity,
        black_hole_mass=np.array([mass]),
        true_velocity={},
    )
    assert profiles.mass(velocity) == pytest.approx(np.full((1, 5), mass))
    assert profiles.black_hole_surface_density()[0] * np.pi * (radius * scale) ** 2 == pytest.approx(np.full(5, mass))
