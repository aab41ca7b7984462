r"""Dust in front of every star particle, from the galaxy's own gas: a semi-analytic law.

The optical depth of the diffuse dust at a wavelength grows with the column of neutral hydrogen between observer and star, each gas
particle weighted by its metallicity (Guiderdoni & Rocca-Volmerange 1987; as in Xu et al. 2017 and in Nelson et al. 2018, their model C),

``tau(lambda) = sqrt(1 - albedo) (lambda / 5500 A)^-0.7 / (2.1e21 cm^-2) * sum over gas in front of N_H (Z / 0.0127)^1.6``,

and stars younger than 10 Myr have their birth cloud before them, ``0.7 (lambda / 5500 A)^-0.7`` (Charlot & Fall 2000). Light comes
through as ``exp(-tau)``: every star has a screen of its own, so a slab in which stars and dust are mixed evenly comes out as
``(1 - exp(-tau)) / tau`` without being told to.

What differs from those papers: the column really in front of a star takes the place of a share of the whole column; the
wavelength law of Charlot & Fall that of the Galaxy's extinction curve; the albedo, 0.615 (Calzetti, Kinney & Storchi-Bergmann 1994 at
5500 A), is the same in all bands; there is no evolution with redshift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from supermage.errors import DomainError
from supermage.models.particle_files import HYDROGEN_FRACTION
from supermage.models.particles import FloatArray, Kind, Particles
from supermage.models.stellar_light import luminosities

WAVELENGTH = {"g": 4770.0, "r": 6231.0}
"""Effective wavelengths of the SDSS bands, angstrom."""

ATOMS_PER_CM2 = 1.989e33 / 1.67353e-24 / 3.085678e21**2
"""Hydrogen atoms per cm^2 in a column of 1 Msun of hydrogen per kpc^2."""

GRID_REACH, GRID_CELL = 8.0, 0.125
"""Half-width of the grid of columns and size of its cells, in half-mass radii of the stars."""


@dataclass(frozen=True)
class DustLaw:
    """Constants of the law in this module's docstring.

    Attributes
    ----------
    reference_column
        Hydrogen atoms per cm^2 that make an extinction of optical depth 1 in V at solar metallicity.
    solar_metallicity, metallicity_exponent
        Mass fraction of metals of the Sun, and how dust goes with it.
    slope
        Exponent of the wavelength.
    albedo
        Share of the extinction that is scattering.
    birth_cloud, birth_cloud_age
        Optical depth in V, and the age in Gyr when a star has left it.
    """

    reference_column: float = 2.1e21
    solar_metallicity: float = 0.0127
    metallicity_exponent: float = 1.6
    slope: float = -0.7
    albedo: float = 0.615
    birth_cloud: float = 0.7
    birth_cloud_age: float = 0.01

    def __post_init__(self) -> None:
        if not (self.reference_column > 0.0 and self.solar_metallicity > 0.0 and 0.0 <= self.albedo <= 1.0 and self.birth_cloud >= 0.0):
            raise DomainError(f"a dust law needs positive columns and metallicities, an albedo in [0, 1] and no negative depth, got {self}")

    def wavelength_factor(self, band: str) -> float:
        """Optical depth in a band over that in V."""
        return (WAVELENGTH[band] / 5500.0) ** self.slope


STANDARD_LAW = DustLaw()


def observed_luminosities(particles: Particles, axis: int, *, law: DustLaw | None = STANDARD_LAW) -> dict[str, FloatArray]:
    """Luminosity of every star particle by band that reaches the observer, Lsun of that band.

    Parameters
    ----------
    particles
        A galaxy about its centre.
    axis
        Axis of the line of sight, 0, 1 or 2; the observer sits at its negative end.
    law
        None for no dust.
    """
    light = luminosities(particles.stars)
    if law is None:
        return light
    depth = optical_depths(particles, axis, law=law)
    return {band: value * np.exp(-depth * law.wavelength_factor(band)) for band, value in light.items()}


def optical_depths(particles: Particles, axis: int, *, law: DustLaw = STANDARD_LAW) -> FloatArray:
    """Optical depth in V before every star particle, shape (star,), the birth cloud included; zeros without gas that hides."""
    stars = particles.stars
    weight = dusty_column_mass(particles.gas, law)
    diffuse = np.zeros(len(stars))
    if weight.any():
        column = columns_in_front(particles.gas.position, weight, stars.position, axis, cell=GRID_CELL * particles.half_mass_radius())
        diffuse = np.sqrt(1.0 - law.albedo) * column * ATOMS_PER_CM2 / law.reference_column
    return diffuse + law.birth_cloud * (stars.age < law.birth_cloud_age) if stars.age.size else diffuse


def dusty_column_mass(gas: Kind, law: DustLaw) -> FloatArray:
    """Neutral hydrogen of every gas particle times its metallicity's power, Msun, shape (gas,).

    Without neutral hydrogen, all hydrogen of star-forming gas; without star formation either, nothing is known to be cold, and nothing
    hides. Gas without metallicity counts as solar.
    """
    if gas.neutral_hydrogen.size:
        neutral = gas.neutral_hydrogen
    elif gas.sfr.size:
        neutral = HYDROGEN_FRACTION * gas.mass * (gas.sfr > 0.0)
    else:
        return np.zeros(len(gas))
    metals = np.maximum(gas.metallicity, 0.0) / law.solar_metallicity if gas.metallicity.size else np.ones(len(gas))
    return neutral * metals**law.metallicity_exponent


def columns_in_front(gas_position: FloatArray, weight: FloatArray, star_position: FloatArray, axis: int, *, cell: float) -> FloatArray:
    """Column of gas between an observer at the negative end of the axis and every star, weight per kpc^2, shape (star,).

    Gas is spread over the four nearest centres of a grid of square cells, and read at the stars by the same bilinear weights: a
    column is an average over about two cells across. The grid ends 8 half-mass radii from the centre, where nothing hides any more.
    """
    half = round(GRID_REACH / GRID_CELL)
    across = [(axis + 1) % 3, (axis + 2) % 3]
    chosen = weight > 0.0
    gas, mass = gas_position[chosen], weight[chosen]
    depth = np.concatenate([gas[:, axis], star_position[:, axis]])
    order = np.argsort(depth, kind="stable")
    place = np.concatenate([gas[:, across], star_position[:, across]]) / cell + half - 0.5
    return _accumulate(place, mass / cell**2, order, 2 * half)


@numba.njit(nogil=True)
def _accumulate(place: FloatArray, density: FloatArray, order: NDArray[np.int64], cells: int) -> FloatArray:
    """Go through gas (first) and stars (after) from the observer on: gas adds to the grid, a star reads it."""
    grid = np.zeros((cells, cells))
    n_gas = len(density)
    column = np.zeros(len(order) - n_gas)
    for index in order:
        x, y = place[index, 0], place[index, 1]
        left, low = int(np.floor(x)), int(np.floor(y))
        if left < 0 or low < 0 or left >= cells - 1 or low >= cells - 1:
            continue
        right, up = x - left, y - low
        if index < n_gas:
            value = density[index]
            grid[left, low] += value * (1.0 - right) * (1.0 - up)
            grid[left + 1, low] += value * right * (1.0 - up)
            grid[left, low + 1] += value * (1.0 - right) * up
            grid[left + 1, low + 1] += value * right * up
        else:
            column[index - n_gas] = (grid[left, low] * (1.0 - up) + grid[left, low + 1] * up) * (1.0 - right) + (
                grid[left + 1, low] * (1.0 - up) + grid[left + 1, low + 1] * up
            ) * right
    return column
