from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erf, gamma

from supermage.constants import ARCSEC, GRAVITATIONAL_CONSTANT, SPEED_OF_LIGHT
from supermage.data_reduction.sky import (
    Nodes,
    NukerProfile,
    channel_flux,
    disc_nodes,
    primary_beam,
    response_taps,
    spheroid_density,
    stellar_velocity_squared,
    transform,
)
from supermage.errors import DomainError
from supermage.forward.deprojection import nuker_circular_velocity
from supermage.forward.nuker import Nuker
from tests.mock_galaxy import TRUTH

REST = 230.538e9


@dataclass(frozen=True)
class PowerLaw(NukerProfile):
    """Sigma = surface_density (R / break_radius)^-gamma."""

    @classmethod
    def of(cls, slope: float) -> PowerLaw:
        return cls(alpha=1.3, beta=slope, gamma=slope, break_radius=100.0, surface_density=1000.0)


@dataclass(frozen=True)
class GaussianProfile(NukerProfile):
    """Sigma = surface_density exp(-R^2 / 2 break_radius^2)."""

    def minus_slope(self, radius: np.ndarray) -> np.ndarray:
        return self.surface_density * radius / self.break_radius**2 * np.exp(-0.5 * (radius / self.break_radius) ** 2)


@pytest.mark.parametrize("slope", [0.3, 1.0, 1.7])
def test_density_of_a_power_law_is_abels(slope: float) -> None:
    m = np.array([0.01, 3.0, 100.0, 1e5])
    expected = 1000.0 / 100.0 * gamma((slope + 1) / 2) / (math.sqrt(math.pi) * gamma(slope / 2)) * (m / 100.0) ** (-slope - 1)
    got = spheroid_density(PowerLaw.of(slope), m, intrinsic_axis_ratio=1.0, observed_axis_ratio=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.5])
def test_velocity_in_a_spherical_power_law(slope: float) -> None:
    radius = np.array([1.0, 30.0, 2000.0])
    central = 10.0 * gamma((slope + 1) / 2) / (math.sqrt(math.pi) * gamma(slope / 2))
    expected = 4 * math.pi * GRAVITATIONAL_CONSTANT * central * 100.0 ** (slope + 1) * radius ** (1 - slope) / (2 - slope)
    got = stellar_velocity_squared(PowerLaw.of(slope), radius, inclination=50.0, intrinsic_axis_ratio=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_velocity_in_a_spherical_gaussian() -> None:
    radius = np.array([1.0, 50.0, 100.0, 400.0])
    profile = GaussianProfile(alpha=1.0, beta=1.0, gamma=0.0, break_radius=100.0, surface_density=1000.0)
    x = radius / (math.sqrt(2) * 100.0)
    mass = 2 * math.pi * 1000.0 * 100.0**2
    expected = GRAVITATIONAL_CONSTANT * mass / radius * (erf(x) - 2 * x * np.exp(-x * x) / math.sqrt(math.pi))
    got = stellar_velocity_squared(profile, radius, inclination=90.0, intrinsic_axis_ratio=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_projection_of_the_spheroid_gives_the_profile_back() -> None:
    profile = NukerProfile(alpha=2.0, beta=2.4, gamma=0.8, break_radius=80.0, surface_density=2e4)
    q, tilt = 0.4, math.radians(65.0)
    observed = math.hypot(q * math.sin(tilt), math.cos(tilt))
    for x, y in ((30.0, 0.0), (0.0, 40.0), (60.0, 25.0)):
        def along_sight(s: float, x: float = x, y: float = y) -> float:
            plane, height = y * math.cos(tilt) + s * math.sin(tilt), y * math.sin(tilt) - s * math.cos(tilt)
            m = math.sqrt(x * x + plane * plane + (height / q) ** 2)
            return float(spheroid_density(profile, m, intrinsic_axis_ratio=q, observed_axis_ratio=observed))

        got = sum(quad(along_sight, a, b, epsrel=1e-7, limit=200)[0] for a, b in ((-1e5, -300), (-300, 0), (0, 300), (300, 1e5)))
        r = math.hypot(x, y / observed) / 80.0
        expected = 2e4 * 2 ** (1.6 / 2) * r**-0.8 * (1 + r**2) ** (-1.6 / 2)
        assert got == pytest.approx(expected, rel=1e-4)


def test_velocity_is_the_spheroid_integral() -> None:
    profile = NukerProfile(alpha=4.0, beta=2.0, gamma=0.9, break_radius=80.0, surface_density=2e4)
    q, tilt = 0.3, math.radians(60.0)
    observed = math.hypot(q * math.sin(tilt), math.cos(tilt))
    for radius in (5.0, 90.0):
        def integrand(angle: float, radius: float = radius) -> float:
            m = radius * math.sin(angle)
            rho = float(spheroid_density(profile, m, intrinsic_axis_ratio=q, observed_axis_ratio=observed))
            return rho * m * m * math.cos(angle) / math.sqrt(1 - (1 - q * q) * math.sin(angle) ** 2)

        expected = 4 * math.pi * GRAVITATIONAL_CONSTANT * q * quad(integrand, 1e-12, math.pi / 2, epsrel=1e-9, limit=200)[0]
        got = stellar_velocity_squared(profile, radius, inclination=60.0, intrinsic_axis_ratio=q)[0]
        assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta", "inner", "q"), [(2.0, 2.0, 0.8, 0.6), (0.5, 1.4, 0.1, 1.0), (10.0, 3.5, 1.2, 0.1)])
def test_velocity_agrees_with_the_forward_models_reference(alpha: float, beta: float, inner: float, q: float) -> None:
    radius = np.array([1.0, 20.0, 83.0, 500.0])
    profile = NukerProfile(alpha=alpha, beta=beta, gamma=inner, break_radius=83.0, surface_density=2.2e4)
    got = np.sqrt(stellar_velocity_squared(profile, radius, inclination=76.0, intrinsic_axis_ratio=q))
    nuker = Nuker(alpha, beta, inner, 83.0, 2.2e4)
    expected = nuker_circular_velocity(radius, nuker, intrinsic_axis_ratio=q, inclination=76.0)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_nodes_turn_the_right_way_and_carry_the_flux() -> None:
    nodes = disc_nodes(TRUTH, 11.4)
    east, north = nodes.east - TRUTH["x"], nodes.north - TRUTH["y"]
    angle = math.radians(TRUTH["PA"])
    major, minor = east * math.sin(angle) + north * math.cos(angle), east * math.cos(angle) - north * math.sin(angle)
    assert nodes.flux.sum() == pytest.approx(2.0, rel=1e-12)
    receding = nodes.velocity > TRUTH["systemic_velocity"]
    assert np.all(major[receding] > -1e-12) and np.all(major[~receding] < 1e-12)
    # An exponential disc has <R^2> = 6 h^2.
    share = nodes.flux / 2.0
    assert np.sum(share * major**2) == pytest.approx(3 * 0.5**2, rel=1e-6)
    assert np.sum(share * minor**2) == pytest.approx(3 * 0.5**2 * math.cos(math.radians(76.0)) ** 2, rel=1e-6)
    assert np.sum(share * nodes.velocity) == pytest.approx(1241.0, abs=1e-6)


def test_black_hole_and_sampling() -> None:
    heavy = disc_nodes(TRUTH | {"intensity_rb": -30.0}, 11.4, radii=80, azimuths=256)
    radius_pc = 11.4 * math.pi / 0.648 * np.hypot(*_disc_plane(heavy))
    fastest = np.abs(heavy.velocity - 1241.0).reshape(-1, 256).max(axis=1) / math.cos(math.pi / 256) / math.sin(math.radians(76.0))
    fastest /= 1.0 - 1241.0 / SPEED_OF_LIGHT  # the galaxy's redshift compresses its rotation on the radio axis
    np.testing.assert_allclose(fastest**2 * radius_pc.reshape(-1, 256)[:, 0], GRAVITATIONAL_CONSTANT * 10 ** TRUTH["log10_mbh"], rtol=1e-9)


def _disc_plane(nodes: Nodes) -> tuple[np.ndarray, np.ndarray]:
    angle, tilt = math.radians(TRUTH["PA"]), math.radians(TRUTH["inclination"])
    east, north = nodes.east - TRUTH["x"], nodes.north - TRUTH["y"]
    return east * math.sin(angle) + north * math.cos(angle), (east * math.cos(angle) - north * math.sin(angle)) / math.cos(tilt)


def test_more_nodes_change_nothing() -> None:
    frequency = REST * (1 - 1241.0 / SPEED_OF_LIGHT) + 15.625e6 * np.arange(-9, -6)
    uvw = np.random.default_rng(1).uniform(-5e5, 5e5, (40, 3))
    seen = []
    for radii, azimuths in ((480, None), (640, 1500)):
        nodes = disc_nodes(TRUTH, 11.4, radii=radii, azimuths=azimuths)
        flux = channel_flux(nodes, frequency, width=15.625e6, to_frame=1.0, rest_frequency=REST, line_broadening=10.0)
        seen.append(np.stack([transform(nodes.east, nodes.north, seen_flux, uvw) for seen_flux in flux]))
    assert np.abs(seen[0] - seen[1]).max() < 1e-5 * np.abs(seen[0]).max()


@pytest.mark.parametrize("averaging", [1, 2, 4])
def test_a_channel_holds_its_part_of_the_line(averaging: int) -> None:
    nodes = Nodes(np.zeros(1), np.zeros(1), np.array([1003.0]), np.array([3.0]))
    frequency = REST * (1 - 1000.0 / SPEED_OF_LIGHT) + 4e6 * np.arange(-40, 41)
    flux = channel_flux(nodes, frequency, width=4e6, to_frame=1.0, rest_frequency=REST, line_broadening=12.0, averaging=averaging)[:, 0]
    velocity = SPEED_OF_LIGHT * (1 - frequency / REST)
    step = SPEED_OF_LIGHT * 4e6 / REST
    taps, native = response_taps(averaging), step / averaging
    offset = (np.arange(taps.size) - (taps.size - 1) / 2) * native
    variance = 12.0**2 + native**2 / 12 + np.sum(taps * offset**2)
    assert flux.sum() * step == pytest.approx(3.0, rel=1e-9)
    assert np.sum(flux * velocity) / flux.sum() == pytest.approx(1003.0, abs=1e-6)
    assert np.sum(flux * (velocity - 1003.0) ** 2) / flux.sum() == pytest.approx(variance, rel=1e-6)


def test_frame_factor_moves_the_line_and_flux_outside_the_band_is_lost() -> None:
    nodes = Nodes(np.zeros(2), np.zeros(2), np.array([1000.0, 9000.0]), np.array([1.0, 1.0]))
    to_frame = 1 - 30.0 / SPEED_OF_LIGHT
    frequency = REST * (1 - 1000.0 / SPEED_OF_LIGHT) / to_frame + 4e6 * np.arange(-40, 41)
    flux = channel_flux(nodes, frequency, width=4e6, to_frame=to_frame, rest_frequency=REST, line_broadening=12.0)
    velocity = SPEED_OF_LIGHT * (1 - frequency * to_frame / REST)
    assert np.sum(flux[:, 0] * velocity) / flux[:, 0].sum() == pytest.approx(1000.0, abs=1e-6)
    assert flux[:, 0].sum() * abs(velocity[1] - velocity[0]) == pytest.approx(1.0, rel=1e-9)
    assert np.all(flux[:, 1] == 0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 20.0))
def test_transform_is_the_direct_sum_in_the_sets_own_sign(seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    east, north, flux = size * random.standard_normal(50), size * random.standard_normal(50), random.random(50)
    uvw = random.uniform(-6e5, 6e5, (30, 3)) * [1, 1, 0.05]
    l_cos, m_cos = east * ARCSEC, north * ARCSEC
    n_cos = np.sqrt(1 - l_cos**2 - m_cos**2)
    phase = uvw[:, :1] * l_cos + uvw[:, 1:2] * m_cos + uvw[:, 2:] * (n_cos - 1)
    expected = np.exp(2j * math.pi * phase) @ flux
    np.testing.assert_allclose(transform(east, north, flux, uvw), expected, atol=1e-6 * flux.sum())


def test_primary_beam_is_half_at_half_its_width() -> None:
    # 1.13 lambda / D at 230 GHz and 12 m is 25.3".
    half = np.array([25.3 / 2])
    assert primary_beam(half, np.zeros(1), 230e9, 12.0)[0] == pytest.approx(0.5, abs=2e-3)
    assert primary_beam(np.zeros(1), 2 * half, 115e9, 12.0)[0] == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(("change", "words"), [({"scale_length": 0.0}, "scale_length"), ({"line_broadening": 0.0}, "line_broadening"),
                                               ({"qintr": 1.2}, "axis ratio"), ({"inclination": 95.0}, "inclination"),
                                               ({"gamma": 2.1}, "gamma"), ({"alpha": 0.0}, "alpha")])
def test_impossible_galaxies_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(DomainError, match=words):
        disc_nodes(TRUTH | change, 11.4)
