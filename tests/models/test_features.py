"""The ten features: closed forms of Plummer's sphere and of cold discs, symmetries, missing data, and a galaxy of TNG100."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import gammaln

from supermage.errors import DataError, DomainError
from supermage.models.columns import PAPER_FEATURES
from supermage.models.features import (
    LEAST_STARS,
    features_of,
    intrinsic_features,
    lambda_r,
    measure_features,
    star_formation_rate,
    weighted_dispersion,
)
from supermage.models.particles import Kind, Particles

from .analytic_galaxies import MASS, PLUMMER_HALF_MASS, G, cold_disc, plummer, turned

Array = NDArray[np.float64]

SCALE = 3.0
R_HSM = PLUMMER_HALF_MASS * SCALE
N_STAR = 40_000
SPHERE = Particles(replace(plummer(N_STAR, 1, scale=SCALE), age=np.full(N_STAR, 10.0)))
DISC = cold_disc(N_STAR, 2)
TILT = Rotation.from_euler("x", 60.0, degrees=True).as_matrix()


def even_light(particles: Particles) -> dict[str, Array]:
    """One solar luminosity in r and half of one in g from every star."""
    return {"luminosity_r": np.ones(len(particles.stars)), "luminosity_g": np.full(len(particles.stars), 0.5)}


@pytest.fixture(scope="module")
def sphere() -> dict[str, float]:
    return features_of(SPHERE, 2, **even_light(SPHERE))


def test_names_are_the_papers_in_its_order_and_within_their_ranges(sphere: dict[str, float]) -> None:
    """The magnitude apart: this sphere shines as 40 000 suns."""
    assert list(sphere) == list(PAPER_FEATURES)
    for name, value in sphere.items():
        assert PAPER_FEATURES[name].lower <= value <= PAPER_FEATURES[name].upper


def test_magnitude_and_colour(sphere: dict[str, float]) -> None:
    """Willmer (2018): the Sun has g = 5.11, r = 4.65 (AB)."""
    assert sphere["M_r"] == pytest.approx(4.65 - 2.5 * math.log10(N_STAR))
    assert sphere["g_r"] == pytest.approx(0.46 + 2.5 * math.log10(2.0))


@pytest.mark.parametrize("aperture", [1, 2])
def test_dispersion_of_a_plummer_sphere(aperture: int) -> None:
    """sigma^2(R) = 3 pi G M / 64 a / sqrt(1 + (R/a)^2), averaged with the surface density; five standard errors, of the fourth moment."""
    x = aperture * PLUMMER_HALF_MASS
    squared = 3.0 * np.pi * G * MASS / (64.0 * SCALE) * 2.0 / 3.0 * (1.0 - (1.0 + x**2) ** -1.5) / (1.0 - 1.0 / (1.0 + x**2))
    found = features_of(SPHERE, 0, aperture=aperture, half_mass_radius=R_HSM, **even_light(SPHERE))["sigma_v"]
    error = math.sqrt(2.2 / (0.6 * N_STAR)) / 2.0
    assert found == pytest.approx(math.sqrt(squared), rel=5.0 * error)


def test_shape_and_orbits_of_a_sphere(sphere: dict[str, float]) -> None:
    assert sphere["c_a"] == pytest.approx(1.0, abs=5.0 * 2.0 * 1.29 / math.sqrt(N_STAR))
    assert sphere["b_t"] == pytest.approx(1.0, abs=0.03)
    assert 0.3 < sphere["f_hot"] < 0.5 and sphere["f_cold"] < 0.1


def test_spin_of_a_sphere_is_its_noise(sphere: dict[str, float]) -> None:
    """Pixels of n stars scatter by sigma / sqrt(n): lambda = sum n R sigma sqrt(2/pi n) / sum n R sigma sqrt(chi^2_n / n), given n.

    The standard error is that of the numerator; five of them, and 2 % for speeds that are not quite normal.
    """
    x, y = (np.floor((SPHERE.stars.position[:, k] / R_HSM / 3.0 + 1.0) * 24.0).astype(int) for k in (0, 1))
    inside = (x >= 0) & (x < 48) & (y >= 0) & (y < 48)
    count = np.zeros((48, 48))
    np.add.at(count, (x[inside], y[inside]), 1.0)
    centre = (np.arange(48) - 23.5) / 8.0
    radius = np.hypot(*np.meshgrid(centre, centre, indexing="ij"))
    sigma = (1.0 + (radius * PLUMMER_HALF_MASS) ** 2) ** -0.25
    weight = np.where(radius <= 2.0, radius * sigma, 0.0)
    root = np.where(count > 0, np.sqrt(2.0) * np.exp(gammaln((count + 1.0) / 2.0) - gammaln(np.maximum(count, 0.5) / 2.0)), 0.0)
    bottom = (weight * np.sqrt(count) * root).sum()
    expected = (weight * np.sqrt(2.0 / np.pi * count)).sum() / bottom
    error = math.sqrt((1.0 - 2.0 / np.pi) * (weight**2 * count).sum()) / bottom
    assert 0.05 < expected < 0.2 and error < 0.05 * expected
    assert sphere["lambda_r"] == pytest.approx(expected, abs=5.0 * error + 0.02 * expected)


def test_solid_rotation_by_hand() -> None:
    """A uniform sheet of 4 x 4 stars a pixel, v = Omega x: V = Omega x_c, sigma^2 = Omega^2 d^2 (1 - 1/16) / 12."""
    grid = (np.arange(192) + 0.5) / 192.0 * 6.0 - 3.0
    x, y = (side.ravel() for side in np.meshgrid(grid, grid))
    centre = (np.arange(48) + 0.5) / 8.0 - 3.0
    across, up = np.meshgrid(centre, centre)
    for aperture in (1, 2):
        radius = np.where(np.hypot(across, up) <= aperture, np.hypot(across, up), 0.0)
        expected = (radius * np.abs(across)).sum() / (radius * np.sqrt(across**2 + 0.125**2 * (1.0 - 1.0 / 16.0) / 12.0)).sum()
        for scale, drift in ((1.0, 0.0), (7.0, 500.0)):
            found = lambda_r(x * scale, y * scale, 30.0 * x + drift, np.full(x.size, 2.5), scale, aperture)
            assert found == pytest.approx(expected, rel=1e-9)


def test_spin_weighs_with_light() -> None:
    """Two pixels at radii R1, R2, each with two stars: by hand."""
    first = np.array([0.3125, 0.3125, -0.5625, -0.5625])
    second = np.full(4, 0.0625)
    light = np.array([3.0, 1.0, 5.0, 1.0])
    velocity = np.array([100.0, 60.0, -70.0, -40.0])
    mean = (light @ velocity) / 10.0
    top = bottom = 0.0
    for pair in (slice(0, 2), slice(2, 4)):
        flux, radius = light[pair].sum(), math.hypot(first[pair][0], 0.0625)
        v = light[pair] @ (velocity[pair] - mean) / flux
        variance = light[pair] @ (velocity[pair] - mean) ** 2 / flux - v**2
        top, bottom = top + flux * radius * abs(v), bottom + flux * radius * math.sqrt(v**2 + variance)
    assert lambda_r(first, second, velocity, light, 1.0, 2) == pytest.approx(top / bottom, rel=1e-12)


def test_cold_disc() -> None:
    seen = features_of(turned(DISC, TILT), 2, **even_light(DISC))
    assert seen["lambda_r"] > 0.95 and seen["c_a"] == 0.0
    assert seen["f_cold"] > 0.998 and seen["b_t"] == 0.0 and seen["f_hot"] < 1e-3
    face_on = features_of(DISC, 2, **even_light(DISC))
    assert face_on["n_sersic"] == pytest.approx(1.0, abs=0.05)


def test_a_disc_seen_face_on_has_no_spin_to_measure() -> None:
    found = measure_features(DISC, 2, **even_light(DISC))
    assert math.isnan(found.values["lambda_r"]) and found.values["sigma_v"] == 0.0
    assert "lambda_r is missing: no star moves along the line of sight" in found.notes


def lopsided(seed: int) -> tuple[Particles, dict[str, Array]]:
    """A tilted, rotating, flattened galaxy of 4000 stars with uneven masses and light, gas and dark matter."""
    rng = np.random.default_rng(seed)
    base = plummer(4000, seed)
    turn = Rotation.from_euler("xyz", [20.0, 50.0, 70.0], degrees=True).as_matrix()
    position = (base.position * np.array([1.0, 0.8, 0.4])) @ turn.T
    velocity = (base.velocity + np.cross([0.0, 0.0, 20.0], base.position)) @ turn.T
    stars = Kind(position, velocity, 1e7 * rng.random(4000), age=10.0 * rng.random(4000), initial_mass=2e7 * rng.random(4000))
    light = {"luminosity_r": rng.random(4000) * 1e6, "luminosity_g": rng.random(4000) * 1e6}
    return Particles(stars, plummer(2000, seed + 1, scale=10.0, mass=5e11), plummer(500, seed + 2)), light


@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_rotations_leave_what_is_intrinsic(seed: int) -> None:
    galaxy, _ = lopsided(3)
    here = intrinsic_features(galaxy)
    there = intrinsic_features(turned(galaxy, Rotation.random(random_state=seed).as_matrix()))
    for name in ("c_a", "b_t", "f_cold", "f_hot", "half_mass_radius"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=1e-6)


@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_renaming_the_axes_renames_the_projections(shift: int, sign: float) -> None:
    """Axis k of the galaxy turned by a cyclic permutation (then through the origin) shows what axis k + shift showed."""
    galaxy, light = lopsided(4)
    other = turned(galaxy, sign * np.roll(np.eye(3), shift, axis=1))
    views = [features_of(galaxy, axis, **light) for axis in range(3)]
    assert len({round(view["sigma_v"], 6) for view in views}) == 3
    for axis in range(3):
        found, expected = features_of(other, axis, **light), views[(axis + shift) % 3]
        # The inversion turns the sense of rotation, j, but not j_z about j.
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_depth_along_the_line_of_sight_is_not_seen(axis: int) -> None:
    galaxy, light = lopsided(4)
    deeper = np.where(np.arange(3) == axis, 3.0, 1.0)
    other = replace(galaxy, stars=replace(galaxy.stars, position=galaxy.stars.position * deeper))
    here, there = (features_of(one, axis, half_mass_radius=2.0, **light) for one in (galaxy, other))
    seen = ("M_r", "g_r", "sfr", "n_sersic", "sigma_v", "lambda_r")
    assert {name: there[name] for name in seen} == pytest.approx({name: here[name] for name in seen}, rel=1e-12)
    assert there["c_a"] != pytest.approx(here["c_a"], rel=1e-2)


def test_turning_about_the_line_of_sight_by_right_angles_changes_nothing() -> None:
    galaxy, light = lopsided(5)
    quarter = Rotation.from_euler("z", 90.0, degrees=True).as_matrix().round()
    assert features_of(turned(galaxy, quarter), 2, **light) == pytest.approx(features_of(galaxy, 2, **light), rel=1e-6)


@settings(max_examples=5)
@given(st.lists(st.floats(-500, 500), min_size=3, max_size=3), st.floats(-5, 5))
def test_motion_of_the_whole_and_units_of_light(drift: list[float], log_light: float) -> None:
    galaxy, light = lopsided(6)
    brighter = {band: value * 10.0**log_light for band, value in light.items()}
    here = features_of(galaxy, 0, **light)
    there = features_of(galaxy.moved(np.zeros(3), np.array(drift)), 0, **brighter)
    assert there.pop("M_r") == pytest.approx(here.pop("M_r") - 2.5 * log_light, abs=1e-9)
    assert there == pytest.approx(here, rel=1e-4)


def test_apertures_differ_and_an_earlier_projection_saves_work() -> None:
    galaxy, light = lopsided(7)
    two, one = features_of(galaxy, 1, **light), features_of(galaxy, 1, aperture=1, **light)
    assert {name for name in two if two[name] != one[name]} == {"sfr", "sigma_v", "lambda_r", "b_t", "f_cold", "f_hot"}
    intrinsic = intrinsic_features(galaxy)
    assert features_of(galaxy, 1, intrinsic=intrinsic, **light) == two
    with pytest.raises(DomainError, match="one aperture and one R_hsm, got 1 and 2 R_hsm"):
        features_of(galaxy, 1, aperture=1, intrinsic=intrinsic, **light)


def test_dispersion_by_hand() -> None:
    assert weighted_dispersion(np.array([1.0, 5.0]), np.array([3.0, 1.0])) == pytest.approx(math.sqrt(3.0))


def test_star_formation_rate() -> None:
    """Born within 1 Gyr and 2 kpc on the sky: 3 + 5 Msun; stars of negative age are none."""
    position = np.array([[0.0, 0.0, 9.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    age, born = np.array([0.2, 0.9, 1.1, 0.1, -1.0]), np.array([3.0, 5.0, 7.0, 11.0, 13.0])
    stars = Kind(position, np.zeros((5, 3)), np.ones(5), age=age, initial_mass=born)
    gas = Kind(position, np.zeros((5, 3)), np.ones(5), sfr=np.arange(5.0))
    assert star_formation_rate(Particles(stars), 2, 2.0) == (pytest.approx(8e-9), [])
    assert star_formation_rate(Particles(stars), 0, 2.0)[0] == pytest.approx((5.0 + 11.0) * 1e-9)
    rate, notes = star_formation_rate(Particles(replace(stars, initial_mass=np.empty(0))), 2, 2.0)
    assert rate == pytest.approx(2e-9) and "present masses" in notes[0]
    rate, notes = star_formation_rate(Particles(replace(stars, age=np.empty(0)), gas=gas), 2, 2.0)
    assert rate == pytest.approx(0.0 + 1.0 + 2.0 + 4.0) and "present rate" in notes[0]
    rate, notes = star_formation_rate(Particles(replace(stars, age=np.empty(0))), 2, 2.0)
    assert math.isnan(rate) and "missing" in notes[0]


def wrong(**changes: Any) -> dict[str, Any]:
    return {"particles": SPHERE, "axis": 0, **even_light(SPHERE), **changes}


def few(count: int) -> Particles:
    return Particles(plummer(count, 8, scale=0.1), plummer(1000, 9))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (wrong(axis=3), DomainError, "axis of projection must be 0, 1 or 2, got 3"),
        (wrong(aperture=3), DomainError, "aperture must be 1 or 2 R_hsm, got 3"),
        (wrong(luminosity_r=np.ones(7)), DataError, r"one r luminosity each, got shape \(7,\) for 40000 stars"),
        (wrong(luminosity_g=np.full(N_STAR, -21.0)), DataError, r"g luminosities .*no magnitudes.*got -21"),
        (wrong(luminosity_r=np.full(N_STAR, math.nan)), DataError, "r luminosities must be finite.*got nan"),
        (wrong(luminosity_g=np.zeros(N_STAR)), DataError, "needs g light, got none"),
        (wrong(half_mass_radius=0.0), DataError, "half-mass radius above 0 kpc.*got 0"),
        (wrong(half_mass_radius=math.nan), DataError, "half-mass radius above 0 kpc.*got nan"),
        (wrong(particles=SPHERE.moved(np.full(3, 50.0), np.zeros(3))), DataError, "centred on the galaxy, got stars 86"),
        (wrong(particles=few(20), **even_light(few(20))), DataError, f"at least {LEAST_STARS} stars within 2 R_hsm, got"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        features_of(**arguments)
    assert "\n" not in str(caught.value)


def test_all_stars_in_one_point() -> None:
    point = Particles(Kind(np.zeros((100, 3)), np.ones((100, 3)), np.ones(100)), plummer(1000, 9))
    with pytest.raises(DataError, match=r"all stars in one point\?"):
        features_of(point, 0, **even_light(point))


def test_light_only_outside_the_aperture() -> None:
    outside = (np.hypot(*SPHERE.stars.position[:, :2].T) > 2.5 * R_HSM).astype(float)
    with pytest.raises(DataError, match="needs r light within a projected 2 R_hsm"):
        features_of(SPHERE, 2, luminosity_r=outside, luminosity_g=outside)


def test_what_a_sparse_galaxy_misses_is_said() -> None:
    """60 stars: too few for annuli."""
    galaxy = Particles(plummer(60, 10), plummer(1000, 11))
    found = measure_features(galaxy, 0, half_mass_radius=20.0, **even_light(galaxy))
    assert math.isnan(found.values["n_sersic"]) and math.isnan(found.values["sfr"]) and math.isfinite(found.values["lambda_r"])
    assert [note.split()[0] for note in found.notes] == ["sfr", "n_sersic", "M_r"]
    alone = measure_features(Particles(plummer(400, 10)), 0, half_mass_radius=20.0, **even_light(Particles(plummer(400, 10))))
    assert any(note.startswith("b_t, f_cold and f_hot are of orbits in the potential of stars and gas") for note in alone.notes)


def tng_galaxy(reference_data: Path) -> tuple[Particles, dict[str, float]]:
    """Subhalo 394242 of TNG100-1, to three half-mass radii from its centre, and its row of the catalogue."""
    import h5py
    import pyarrow.parquet as pq

    def kind(table: Any) -> Kind:
        return Kind(np.stack([table[c] for c in "xyz"], axis=1), np.stack([table[f"v{c}"] for c in "xyz"], axis=1),
                    np.array(table["m"]), potential=np.array(table["potential"]))  # fmt: skip

    with h5py.File(reference_data / "galaxies/tng100-subhalo-394242.h5") as file:
        kinds = {name: kind(file[name][:]) for name in ("stars", "dark_matter", "gas")}
    columns = ["SubfindID", "r_hsm", "M_r", "M_g", "dec_f_disk_2d", "dec_f_disk_1d_1comp"]
    columns += [f"m_{name}_{aperture}" for name in ("star", "dm", "gas") for aperture in ("1rhsm", "2rhsm")]
    rows = pq.read_table(reference_data / "galaxies/tng100-1-z0-subhalos.parquet", columns=columns, filters=[("SubfindID", "=", 394242)])
    return Particles(kinds["stars"], kinds["dark_matter"], kinds["gas"]), rows.to_pylist()[0]


@pytest.mark.reference
def test_a_galaxy_of_tng100(reference_data: Path) -> None:
    """A disc galaxy: its kinetic disc, 1 - B/T, lies between the catalogue's two decompositions; the rest are our own numbers, kept."""
    galaxy, row = tng_galaxy(reference_data)
    light = {"luminosity_r": galaxy.stars.mass / 2.0, "luminosity_g": galaxy.stars.mass / 2.0}
    views = [measure_features(galaxy, axis, half_mass_radius=row["r_hsm"], **light) for axis in range(3)]
    for view in views:
        assert row["dec_f_disk_1d_1comp"] < 1.0 - view.values["b_t"] < row["dec_f_disk_2d"]
        assert [note.split()[0] for note in view.notes] == ["sfr", "M_r"]
        kept = {"c_a": 0.2325, "b_t": 0.1756, "f_cold": 0.5389, "f_hot": 0.1126}
        assert {name: view.values[name] for name in kept} == pytest.approx(kept, rel=2e-3)
    kept_by_axis = {"n_sersic": (1.583, 1.880, 1.765), "sigma_v": (105.40, 77.61, 111.86), "lambda_r": (0.7855, 0.6766, 0.8173)}
    for name, expected in kept_by_axis.items():
        assert [view.values[name] for view in views] == pytest.approx(expected, rel=5e-3)
