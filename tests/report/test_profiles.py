import numpy as np
import pytest
from scipy.special import gammainc

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.report.profiles import Profiles, components, equal_pull_radius, flux_inside


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


@pytest.mark.parametrize(("scale", "index"), [(0.3, 1.0), (0.5, 1.0), (1.5, 1.0), (2.8, 15.0), (0.01, 0.3)])
def test_flux_inside_lies_between_the_closed_forms_at_both_ends_of_the_taper(scale, index):
    limit = 3.5
    theta = {"scale_length": scale, **({} if index == 1.0 else {"gas_index": index})}
    inner, outer = (gammainc(2.0 / index, (fraction * limit / scale) ** index) for fraction in (0.85, 1.0))
    inside = flux_inside(theta, limit)
    assert inner - 1e-4 <= inside <= outer + 1e-4


def test_flux_inside_of_a_broad_disc_is_the_tapered_area():
    # surface brightness is flat over the image: area under the taper over 2 pi h^2
    x = np.linspace(0, 1, 100_001)
    step = np.clip((x - 0.85) / 0.15, 0, 1)
    area = 2 * np.pi * 3.5**2 * np.trapezoid(x * (1 - step) ** 3 * (1 + 3 * step + 6 * step**2), x)
    assert flux_inside({"scale_length": 400.0}, 3.5) == pytest.approx(area / (2 * np.pi * 400.0**2), rel=0.01)


def test_components_are_those_that_have_parameters() -> None:
    assert components({"log10_mbh": 8.0}) == ("total", "black_hole", "stars")
    assert components({"log10_mbh": 8.0, "halo_log10_m200": 12.0, "gas_log10_mass": 9.0}) == ("total", "black_hole", "stars", "halo", "gas")
