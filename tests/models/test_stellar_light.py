"""Luminosities of star particles: magnitudes taken as they are, the population law against published values and TNG's galaxies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supermage.errors import DataError
from supermage.models.particles import Kind
from supermage.models.stellar_light import colour, formed_mass_to_light, luminosities, magnitude_of, remaining_fraction


def stars(mass: list[float], **more: np.ndarray) -> Kind:
    n = len(mass)
    return Kind(np.zeros((n, 3)), np.zeros((n, 3)), np.array(mass), **more)  # type: ignore[arg-type]


def test_the_sun_has_the_luminosity_of_the_sun() -> None:
    light = luminosities(stars([1.0, 1.0], magnitude={"g": np.array([5.11, 0.11]), "r": np.array([4.65, 7.15])}))  # type: ignore[arg-type]
    assert light["g"].tolist() == pytest.approx([1.0, 100.0]) and light["r"].tolist() == pytest.approx([1.0, 0.1])
    assert magnitude_of(100.0, "r") == pytest.approx(-0.35)


def test_magnitudes_come_before_ages_and_ages_before_a_constant() -> None:
    aged = stars([2.0], age=np.array([5.0]), metallicity=np.array([0.02]), initial_mass=np.array([3.5]))
    seen = replace(aged, magnitude={"g": np.array([5.11]), "r": np.array([4.65])})
    assert luminosities(seen)["r"][0] == pytest.approx(1.0)
    assert luminosities(aged)["r"][0] == pytest.approx(3.5 / float(formed_mass_to_light(5.0, 0.02)))
    assert luminosities(stars([2.0]))["r"][0] == pytest.approx(1.0)
    plain = luminosities(stars([2.0]))
    assert magnitude_of(plain["g"][0], "g") - magnitude_of(plain["r"][0], "r") == pytest.approx(0.7)


def test_one_band_alone_is_no_photometry() -> None:
    assert luminosities(replace(stars([2.0]), magnitude={"r": np.array([4.65])}))["r"][0] == pytest.approx(1.0)


def test_luminosities_carry_the_colour_of_the_population() -> None:
    light = luminosities(stars([1.0], age=np.array([2.0]), metallicity=np.array([0.01]), initial_mass=np.array([1.7])))
    assert magnitude_of(light["g"][0], "g") - magnitude_of(light["r"][0], "r") == pytest.approx(float(colour(2.0, 0.01)))


def test_mass_at_birth_follows_from_mass_and_age() -> None:
    light = luminosities(stars([1.0], age=np.array([10.0]), metallicity=np.array([0.02])))
    born = luminosities(
        stars([1.0], age=np.array([10.0]), metallicity=np.array([0.02]), initial_mass=1.0 / remaining_fraction(np.array([10.0])))
    )
    assert light["r"][0] == pytest.approx(born["r"][0])


@pytest.mark.parametrize(("age", "share"), [(0.1015, 0.714), (1.0152, 0.610), (10.0, 0.508)])
def test_what_is_left_agrees_with_bruzual_and_charlot(age: float, share: float) -> None:
    """Their tables for a Chabrier function: Z = 0.0001, 0.02 and 0.05."""
    assert float(remaining_fraction(age)) == pytest.approx(share, abs=0.02)


def test_the_law_agrees_with_published_values() -> None:
    """Slope of log M/L with log age 0.7 - 0.9; old solar stars have g - r 0.76 (Bruzual & Charlot 2003); metals redden."""
    slope = np.log10(formed_mass_to_light(10.0, 0.02) / formed_mass_to_light(1.0, 0.02))
    assert 0.7 < slope < 0.9
    assert float(colour(10.0, 0.02)) == pytest.approx(0.76, abs=0.03)
    ages = np.geomspace(0.2, 14.0, 60)
    for metallicity in (0.004, 0.02, 0.04):
        assert (np.diff(formed_mass_to_light(ages, metallicity)) > 0).all() and (np.diff(colour(ages, metallicity)) > 0).all()
    assert formed_mass_to_light(8.0, 0.04) > formed_mass_to_light(8.0, 0.02) and colour(8.0, 0.04) > colour(8.0, 0.02)


def test_ages_and_metals_outside_count_as_the_edge() -> None:
    assert formed_mass_to_light(0.0, 0.0) == formed_mass_to_light(0.004, 1e-4)
    assert colour(20.0, 1.0) == colour(14.0, 0.05)


@pytest.mark.parametrize("wrong", [3e9, -30.0])
def test_magnitudes_that_no_star_particle_has(wrong: float) -> None:
    with pytest.raises(DataError, match=r"absolute r magnitude must lie in \[-25, 40\], got"):
        luminosities(stars([1.0], magnitude={"g": np.array([5.0]), "r": np.array([wrong])}))  # type: ignore[arg-type]


def history(kind: str) -> np.ndarray:
    """Star-formation rate at ages of 2 Myr to 13 Gyr, evenly spaced."""
    since = 13.0 - np.linspace(0.002, 13.0, 6000)
    if kind == "rising":
        return np.exp(since / 10.0)
    return since * np.exp(-since / float(kind))


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["0.5", "2", "3", "4", "10", "rising"])
def test_histories_lie_where_tng_galaxies_of_their_colour_do(reference_data: Path, kind: str) -> None:
    """Present M/L in r at the same g - r, within 0.1 dex; TNG's light is Bruzual & Charlot's, with a Chabrier function."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet", columns=["M_g", "M_r", "m_star_sub"])
    green, red, mass = (np.asarray(table[name].to_numpy(), np.float64) for name in ("M_g", "M_r", "m_star_sub"))
    age, born = np.linspace(0.002, 13.0, 6000), history(kind)
    light = luminosities(stars((born * remaining_fraction(age)).tolist(), age=age, metallicity=np.full(6000, 0.022), initial_mass=born))
    mine = magnitude_of(light["g"].sum(), "g") - magnitude_of(light["r"].sum(), "r")
    ratio = np.log10((born * remaining_fraction(age)).sum() / light["r"].sum())
    alike = np.abs(green - red - mine) < 0.02
    assert np.count_nonzero(alike) > 50
    assert ratio == pytest.approx(float(np.median((np.log10(mass) - 0.4 * (4.65 - red))[alike])), abs=0.1)
