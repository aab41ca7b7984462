"""Dust in front of stars: slabs of known column, and which side the observer is on."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from supermage.errors import DomainError
from supermage.models.dust import (
    ATOMS_PER_CM2,
    STANDARD_LAW,
    DustLaw,
    columns_in_front,
    dusty_column_mass,
    observed_luminosities,
    optical_depths,
)
from supermage.models.particles import Kind, Particles


def sheet(axis: int, depths: np.ndarray, column: float, *, spacing: float = 0.05, metals: float = 0.0127) -> Kind:
    """Gas of a column in Msun/kpc^2 of neutral hydrogen, evenly over a square lattice of 60 x 60 and over the depths."""
    line = (np.arange(60) - 29.5) * spacing
    x, y, z = (item.ravel() for item in np.meshgrid(line, line, depths, indexing="ij"))
    position = np.empty((len(x), 3))
    position[:, axis], position[:, (axis + 1) % 3], position[:, (axis + 2) % 3] = z, x, y
    mass = np.full(len(x), column * spacing**2 / len(depths))
    return Kind(position, np.zeros_like(position), mass / 0.76, neutral_hydrogen=mass, metallicity=np.full(len(x), metals))


def stars_at(axis: int, depths: np.ndarray, **more: np.ndarray) -> Kind:
    """Stars about the line of sight through the centre; half of their mass within 1 kpc or so, whatever their depths."""
    rng = np.random.default_rng(1)
    position = rng.uniform(-0.5, 0.5, (len(depths), 3))
    position[:, axis] = depths
    return Kind(position, np.zeros_like(position), np.ones(len(depths)), **more)  # type: ignore[arg-type]


def test_the_column_of_one_solar_mass_per_square_parsec() -> None:
    """1.25e20 hydrogen atoms per cm^2."""
    exact = (1e-6 * u.Msun / u.pc**2 / (1.00794 * u.u)).to_value(u.cm**-2)
    assert exact == pytest.approx(ATOMS_PER_CM2, rel=2e-3)
    assert pytest.approx(1.25e20, rel=0.01) == 1e6 * ATOMS_PER_CM2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_observer_sits_at_the_negative_end(axis: int) -> None:
    """Stars behind a sheet see all of it, stars in front none."""
    gas = sheet(axis, np.array([0.0]), 3e7)
    stars = stars_at(axis, np.array([-1.0, -0.01, 0.01, 1.0]))
    column = columns_in_front(gas.position, gas.neutral_hydrogen, stars.position, axis, cell=0.1)
    assert column.tolist() == pytest.approx([0.0, 0.0, 3e7, 3e7], rel=1e-9)


def test_stars_and_dust_mixed_evenly_let_through_the_light_of_a_slab() -> None:
    """``(1 - exp(-tau)) / tau`` without being told to, for depths from thin to thick."""
    depths = (np.arange(40) + 0.5) / 20.0 - 1.0
    stars = stars_at(2, (np.arange(4000) + 0.5) / 2000.0 - 1.0)
    for tau in (0.1, 1.0, 5.0):
        column = tau / (np.sqrt(1.0 - 0.615) * ATOMS_PER_CM2 / 2.1e21)
        galaxy = Particles(stars, gas=sheet(2, depths, column, spacing=Particles(stars).half_mass_radius() / 16.0))
        in_v = optical_depths(galaxy, 2)
        assert in_v.max() == pytest.approx(tau, rel=1e-9)
        assert np.exp(-in_v).mean() == pytest.approx(-np.expm1(-tau) / tau, rel=2e-3)
        seen, intrinsic = observed_luminosities(galaxy, 2), observed_luminosities(galaxy, 2, law=None)
        for band, wavelength in (("g", 4770.0), ("r", 6231.0)):
            thick = tau * (wavelength / 5500.0) ** -0.7
            assert seen[band].sum() / intrinsic[band].sum() == pytest.approx(-np.expm1(-thick) / thick, rel=2e-3)


def test_dust_goes_with_metals_and_neutral_hydrogen() -> None:
    gas = sheet(0, np.array([0.0]), 1e7, metals=0.0254)
    np.testing.assert_allclose(dusty_column_mass(gas, STANDARD_LAW), gas.neutral_hydrogen * 2.0**1.6)
    bare = Kind(gas.position, gas.velocity, gas.mass)
    assert not dusty_column_mass(bare, STANDARD_LAW).any()
    sfr = np.where(np.arange(len(gas)) % 2, 1.0, 0.0)
    forming = Kind(gas.position, gas.velocity, gas.mass, sfr=sfr)
    np.testing.assert_allclose(dusty_column_mass(forming, STANDARD_LAW), 0.76 * gas.mass * sfr)


def test_young_stars_have_their_clouds_before_them() -> None:
    stars = stars_at(1, np.zeros(3), age=np.array([0.0099, 0.0101, 8.0]))
    assert optical_depths(Particles(stars), 1).tolist() == [0.7, 0.0, 0.0]
    assert optical_depths(Particles(stars), 1, law=DustLaw(birth_cloud=0.0)).tolist() == [0.0, 0.0, 0.0]


def test_without_gas_nothing_hides() -> None:
    galaxy = Particles(stars_at(2, np.linspace(-1, 1, 5)))
    seen, intrinsic = observed_luminosities(galaxy, 2), observed_luminosities(galaxy, 2, law=None)
    assert seen["g"].tolist() == intrinsic["g"].tolist() and seen["r"].tolist() == intrinsic["r"].tolist()


def test_gas_and_stars_beyond_the_grid_neither_hide_nor_are_hidden() -> None:
    far = np.array([[0.0, 500.0, 0.0], [0.0, 0.0, 0.0]])
    stars = np.array([[1.0, 500.0, 0.0], [1.0, 0.0, 0.0]])
    column = columns_in_front(far, np.array([1e9, 1e9]), stars, 0, cell=0.125)
    assert column[0] == 0.0 and column[1] > 0.0


def test_a_law_with_no_meaning() -> None:
    with pytest.raises(DomainError, match=r"an albedo in \[0, 1\]"):
        DustLaw(albedo=1.5)
