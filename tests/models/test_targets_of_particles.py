"""Masses within spheres and circles: by hand, of Plummer's sphere, of a galaxy of TNG100; what is missing is NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supermage.errors import DataError, DomainError
from supermage.models.columns import MASSES, TARGETS
from supermage.models.particles import Kind, Particles
from supermage.models.targets_of_particles import masses_of_particles, targets_of_particles

from .analytic_galaxies import MASS, PLUMMER_HALF_MASS, plummer, plummer_enclosed
from .test_features import tng_galaxy

ENDINGS = ("", "_2rhsm", "_2d", "_2d_2rhsm")


def at(*points: tuple[float, float, float], mass: tuple[float, ...]) -> Kind:
    return Kind(np.array(points), np.zeros((len(points), 3)), np.array(mass))


def by_hand() -> Particles:
    """R_hsm is told to be 1 kpc; the edge belongs to the sphere."""
    stars = at((1.0, 0.0, 0.0), (0.0, 0.0, 1.5), (0.0, 0.0, -0.5), (0.0, 3.0, 0.0), mass=(1.0, 2.0, 4.0, 8.0))
    dark = at((0.0, 0.5, 9.0), (0.1, 0.1, 0.1), (1.2, 1.2, 0.0), mass=(16.0, 32.0, 64.0))
    return Particles(stars, dark, at((0.0, 1.0, 1.0), mass=(128.0,)), at((0.0, 0.0, 0.0), mass=(256.0,)))


def test_masses_by_hand() -> None:
    found = masses_of_particles(by_hand(), 2, half_mass_radius=1.0)
    assert {name: found[name] for name in found if "_2d" not in name} == {
        "m_star_1rhsm": 5.0, "m_star_2rhsm": 7.0, "m_dm_1rhsm": 32.0, "m_dm_2rhsm": 96.0, "m_gas_1rhsm": 0.0, "m_gas_2rhsm": 128.0,
        "m_bh_1rhsm": 256.0, "m_bh_2rhsm": 256.0, "m_tot_1rhsm": 293.0, "m_tot_2rhsm": 487.0}  # fmt: skip
    assert {name: found[name] for name in found if "_2d" in name} == {
        "m_star_2d_1rhsm": 7.0, "m_star_2d_2rhsm": 7.0, "m_dm_2d_1rhsm": 48.0, "m_dm_2d_2rhsm": 112.0, "m_gas_2d_1rhsm": 128.0,
        "m_gas_2d_2rhsm": 128.0, "m_bh_2d_1rhsm": 256.0, "m_bh_2d_2rhsm": 256.0, "m_tot_2d_1rhsm": 439.0,
        "m_tot_2d_2rhsm": 503.0}  # fmt: skip
    assert set(MASSES) <= set(found)
    along_x = masses_of_particles(by_hand(), 0, half_mass_radius=1.0)
    assert along_x["m_star_2d_1rhsm"] == 5.0 and along_x["m_star_1rhsm"] == 5.0


def test_targets_by_hand() -> None:
    light = np.array([1.0, 2.0, 0.5, 100.0])
    found = targets_of_particles(by_hand(), 2, luminosity_r=light, half_mass_radius=1.0)
    assert set(found) == {name + ending for name in TARGETS for ending in ENDINGS}
    expected = {"log_mstar": 5.0, "log_mtot": 293.0, "log_mdm": 32.0, "log_fstar": 5.0 / 293.0, "log_fdm": 32.0 / 293.0,
                "log_ml": 5.0 / 1.5, "log_mstar_2d": 7.0, "log_mtot_2d": 439.0, "log_fdm_2d": 48.0 / 439.0, "log_ml_2d": 7.0 / 3.5,
                "log_mdm_2rhsm": 96.0, "log_ml_2rhsm": 7.0 / 3.5, "log_fstar_2d_2rhsm": 7.0 / 503.0}  # fmt: skip
    assert {name: 10.0 ** found[name] for name in expected} == pytest.approx(expected)


def test_no_dark_matter_and_no_light_are_missing() -> None:
    """NaN, not minus infinity; of a file without any dark matter the total is not known either."""
    far = replace(plummer(500, 2), position=plummer(500, 2).position + 1e4)
    for particles, lost in ((Particles(plummer(500, 1)), ("log_mtot", "log_fstar")), (Particles(plummer(500, 1), far), ())):
        found = targets_of_particles(particles, 0)
        missing = {name for name, value in found.items() if math.isnan(value)}
        assert missing == {name + ending for name in ("log_mdm", "log_fdm", "log_ml", *lost) for ending in ENDINGS}
        assert lost or all(found[f"log_fstar{ending}"] == pytest.approx(0.0, abs=1e-12) for ending in ENDINGS)


def test_plummer_sphere() -> None:
    """Closed forms M(<r) and M(<R) = M R^2 / (R^2 + a^2); 5 binomial standard errors of 40 000 particles."""
    galaxy = Particles(plummer(40_000, 2), plummer(40_000, 3, scale=20.0, mass=10.0 * MASS))
    scale = PLUMMER_HALF_MASS * 3.0
    assert masses_of_particles(galaxy, 0)["m_star_1rhsm"] == pytest.approx(MASS / 2.0, rel=1e-4)
    found = masses_of_particles(galaxy, 0, half_mass_radius=scale)
    for aperture in (1, 2):
        radius = np.array(aperture * scale)
        for kind, size, mass in (("star", 3.0, MASS), ("dm", 20.0, 10.0 * MASS)):
            for ending, expected in (("", float(plummer_enclosed(radius, size, mass))), ("_2d", mass * radius**2 / (radius**2 + size**2))):
                share = expected / mass
                error = math.sqrt(share * (1.0 - share) / 40_000) * mass
                assert found[f"m_{kind}{ending}_{aperture}rhsm"] == pytest.approx(expected, abs=5.0 * error)


def test_projections_differ_and_spheres_do_not() -> None:
    rng = np.random.default_rng(4)
    galaxy = Particles(Kind(rng.standard_normal((4000, 3)) * np.array([3.0, 2.0, 1.0]), np.zeros((4000, 3)), np.ones(4000)))
    views = [targets_of_particles(galaxy, axis) for axis in range(3)]
    assert len({view["log_mstar"] for view in views}) == len({view["log_mtot_2rhsm"] for view in views}) == 1
    assert views[0]["log_mstar_2d"] > views[1]["log_mstar_2d"] > views[2]["log_mstar_2d"] > views[2]["log_mstar"]


def test_rules() -> None:
    with pytest.raises(DomainError, match="axis of projection must be 0, 1 or 2, got -1"):
        masses_of_particles(by_hand(), -1)
    with pytest.raises(DataError, match="got shape"):
        targets_of_particles(by_hand(), 0, luminosity_r=np.ones(3), half_mass_radius=5.0)
    with pytest.raises(DataError, match="half-mass radius above 0"):
        targets_of_particles(by_hand(), 0, half_mass_radius=-1.0)


@pytest.mark.reference
def test_a_galaxy_of_tng100(reference_data: Path) -> None:
    """The catalogue's masses within one and two R_hsm to 0.2 %; the file holds no black hole and ends at three R_hsm."""
    galaxy, row = tng_galaxy(reference_data)
    found = masses_of_particles(galaxy, 0, half_mass_radius=row["r_hsm"])
    for name in (f"m_{kind}_{aperture}" for kind in ("star", "dm", "gas") for aperture in ("1rhsm", "2rhsm")):
        assert found[name] == pytest.approx(row[name], rel=2e-3)
    assert found["m_bh_1rhsm"] == 0.0
