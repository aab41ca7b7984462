"""Particles of one mock galaxy, near equilibrium in their own potential, with ages, metals and light."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from supermage.errors import DataError, DomainError
from supermage.models.mock_dynamics import GAS_HEIGHT, Galaxy
from supermage.models.mock_mass import DISC_EDGE, MassModel, hernquist, thin_disc
from supermage.models.particles import Kind, Particles

FloatArray = NDArray[np.float64]

SOURCE = "mock galaxy of supermage's generator: drawn from scaling relations, neither observed nor simulated"
"""What every mock galaxy says of itself."""

HEATING = 1.2
"""sigma_R / sigma_z of the stellar disc."""

GAS_DISPERSION = 10.0
"""Of cold gas, km/s in each direction."""

SOLAR_R = 4.65
"""Absolute r magnitude of the Sun, AB (Willmer 2018)."""

YOUNGEST, RECENT = 0.003, 1.0
"""Ages of the stars of the last Gyr, Gyr: uniform between them."""

NEEDED = ("galaxy_id", "group_id", "sfr", "m_star_total",
          *(f"mock_{name}" for name in ("axis_x", "axis_y", "axis_z", "M_r", "g_r", "metallicity")))  # fmt: skip
"""Columns of a row beside the mass model's."""


def make_galaxy(row: Any, *, n_star: int, n_dm: int = 0, n_gas: int = 0, seed: int = 0) -> Particles:
    """Draw the particles of one galaxy.

    Parameters
    ----------
    row
        One row of `supermage.models.mock_population.draw_population`, or a mapping with its columns.
    n_star, n_dm, n_gas
        Numbers of particles, of equal mass but for cold and hot gas; 0 leaves a kind out, which then is missing from the particles' masses
        but not from the potential that they move in. A galaxy without gas has no gas particles.
    seed
        Of positions and velocities, together with the row's ``galaxy_id``. How the galaxy is turned says the row.

    Returns
    -------
    Particles
        kpc, km/s, Msun about the origin at rest; magnitudes g and r without dust, whose sums are the row's; specific potential energies.

    Raises
    ------
    DataError
        A row without the generator's columns.
    DomainError
        A number of particles below 0, or no stars.

    Notes
    -----
    Stars of the last Gyr are as many as the row's ``sfr`` has made, less what winds have taken, and lie in the disc: their mass at birth
    over 1 Gyr is ``sfr`` in the median, and 0.93 of it within a projected 2 R_hsm, the aperture of the feature.

    Radii are stratified, so masses within spheres have far less noise than independent draws. Spheres have isotropic normal velocities that
    end at the escape speed, with Jeans' dispersion; discs follow `supermage.models.mock_dynamics.Galaxy.disc_motion`. Both are near
    equilibrium, not exact.
    """
    if n_star < 1 or n_dm < 0 or n_gas < 0:
        raise DomainError(f"a mock galaxy needs at least one star and no negative numbers of particles, got {n_star}, {n_dm}, {n_gas}")
    try:
        values = {name: row[name] for name in NEEDED}
        model = MassModel.from_columns(row)
    except (KeyError, ValueError) as error:
        raise DataError(f"a mock galaxy is made of a row of draw_population, this one lacks a column: {error}") from error
    if len(model) != 1:
        raise DataError(f"a mock galaxy is made of one row, got {len(model)}")
    rng = np.random.default_rng([seed, int(values["galaxy_id"])])
    galaxy = Galaxy(model)
    turn = _orientation(np.array([values["mock_axis_x"], values["mock_axis_y"], values["mock_axis_z"]], dtype=np.float64), rng)
    parts = {"stars": _stars(galaxy, values, n_star, rng)}
    if n_dm:
        position, velocity = _sphere(galaxy, lambda r: model.dark_matter(r[None])[0], n_dm, rng)
        whole = float(model.dark_matter(model.halo_edge[:, None])[0, 0])
        parts["dark_matter"] = Kind(position, velocity, np.full(n_dm, whole / n_dm), galaxy.potential(position))
    if n_gas and _hot_mass(model) + model.gas_mass[0] > 0:
        parts["gas"] = _gas(galaxy, values, n_gas, rng)
    if model.black_hole_mass[0] > 0:
        parts["black_holes"] = Kind(np.zeros((1, 3)), np.zeros((1, 3)), model.black_hole_mass.copy())
    turned = {name: _turned(kind, turn) for name, kind in parts.items()}
    return Particles(**turned, galaxy_id=int(values["galaxy_id"]), group_id=int(values["group_id"]), source=SOURCE)


def _hot_mass(model: MassModel) -> float:
    return float(model.hot_gas(model.halo_edge[:, None])[0, 0])


def _turned(kind: Kind, turn: FloatArray) -> Kind:
    extra = {name: getattr(kind, name) for name in ("potential", "age", "metallicity", "initial_mass", "sfr", "magnitude")}
    return Kind(kind.position @ turn.T, kind.velocity @ turn.T, kind.mass, **extra)


def _orientation(axis: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A rotation that takes z to the axis, otherwise random."""
    axis = axis / np.linalg.norm(axis)
    side = np.cross(axis, rng.standard_normal(3))
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(axis, side), axis], axis=1)


def _ranks(number: int, rng: np.random.Generator) -> FloatArray:
    """Numbers in (0, 1), one in each of as many equal intervals, in random order."""
    return rng.permutation((np.arange(number) + rng.uniform(0.001, 0.999, number)) / max(number, 1))


def _directions(number: int, rng: np.random.Generator) -> FloatArray:
    vector = rng.standard_normal((number, 3))
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def _sphere(
    galaxy: Galaxy, mass_within: Callable[[FloatArray], FloatArray], number: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Positions and velocities of an isotropic sphere."""
    radius = galaxy.radius
    within = mass_within(radius)
    edge = np.append(True, np.diff(within) > 0)
    distance = np.exp(np.interp(_ranks(number, rng) * within[-1], within[edge], np.log(radius[edge])))
    position = distance[:, None] * _directions(number, rng)
    sigma = np.sqrt(np.interp(np.log(distance), np.log(radius), galaxy.sphere_dispersion(mass_within)))
    speed = _speeds(sigma, galaxy.escape_speed(position), rng)
    return position, speed[:, None] * _directions(number, rng)


def _speeds(sigma: FloatArray, escape: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Speeds of a normal distribution that ends at the escape speed and whose mean square is ``3 sigma^2`` all the same.

    The wider normal distribution's s is solved from ``s^2 gammainc(5/2, w) / gammainc(3/2, w) = sigma^2``, ``w = escape^2 / 2 s^2``.
    """
    wide = np.geomspace(1e-3, 30.0, 400)
    bound = 0.5 / wide**2
    narrow = wide * np.sqrt(gammainc(2.5, bound) / gammainc(1.5, bound))
    scale = escape * np.interp(sigma / escape, narrow, wide)
    share = gammainc(1.5, 0.5 * (escape / np.maximum(scale, 1e-12)) ** 2)
    return np.asarray(scale * np.sqrt(2.0 * gammaincinv(1.5, share * rng.uniform(size=len(sigma)))))


def _disc(
    galaxy: Galaxy, scale: float, height: float, number: int, rng: np.random.Generator, *, dispersion: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """Positions and velocities of an exponential, sech^2 disc in the plane z = 0; ``dispersion`` (km/s) in place of Jeans' for gas."""
    grid = np.linspace(0.0, DISC_EDGE, 2001)
    within = thin_disc(grid)
    radius = scale * np.interp(_ranks(number, rng) * within[-1], within, grid)
    angle = rng.uniform(0.0, 2.0 * np.pi, number)
    above = height * np.arctanh(2.0 * _ranks(number, rng) - 1.0)
    motion = galaxy.disc_motion(scale, height, heating=HEATING)
    columns = (motion.rotation, motion.outward, motion.around, motion.upward)
    if dispersion is not None:
        fixed = np.minimum(dispersion**2, 0.5 * motion.circular)
        columns = (motion.circular - fixed, fixed, fixed, fixed)
    rotation, outward, around, upward = (np.interp(radius, motion.radius, np.sqrt(column)) for column in columns)
    noise = rng.standard_normal((3, number))
    along, across = rotation + around * noise[0], outward * noise[1]
    cosine, sine = np.cos(angle), np.sin(angle)
    position = np.stack([radius * cosine, radius * sine, above], axis=1)
    velocity = np.stack([across * cosine - along * sine, across * sine + along * cosine, upward * noise[2]], axis=1)
    return position, velocity


def _stars(galaxy: Galaxy, values: dict[str, Any], number: int, rng: np.random.Generator) -> Kind:
    """Disc and bulge, with ages and light."""
    model = galaxy.model
    whole = float(model.disc_mass[0] + model.bulge_mass[0])
    n_disc = round(number * float(model.disc_mass[0]) / whole)
    scale, height = float(model.disc_scale[0]), float(model.disc_height[0])
    bulge_scale, bulge_edge = float(model.bulge_scale[0]), float(model.bulge_edge[0])
    disc = _disc(galaxy, scale, height, n_disc, rng)
    bulge = _sphere(galaxy, lambda r: hernquist(r / bulge_scale, bulge_edge), number - n_disc, rng)
    position, velocity = (np.concatenate(pair) for pair in zip(disc, bulge, strict=True))
    is_disc = np.arange(number) < n_disc
    mass = np.full(number, whole / number)
    age = _ages(is_disc, values, rng)
    distance = np.linalg.norm(position, axis=1) / scale
    metallicity = float(values["mock_metallicity"]) * 10.0 ** (0.05 - 0.05 * distance + 0.1 * rng.standard_normal(number))
    metallicity = np.clip(metallicity, 1e-4, 0.08)
    initial = mass / mass_left(age)
    magnitude = _magnitudes(age, metallicity, float(values["mock_M_r"]), float(values["mock_g_r"]))
    return Kind(position, velocity, mass, galaxy.potential(position), age, metallicity, initial, magnitude=magnitude)


def mass_left(age: FloatArray) -> FloatArray:
    """Share of the mass at birth that stars of an age (Gyr) still have, ``1 - 0.06 ln(1 + age / 0.01)``; 0.59 at 10 Gyr."""
    return np.asarray(1.0 - 0.06 * np.log1p(age / 0.01))


def recent_mass_left() -> float:
    """Mass now over mass at birth of all stars of the last Gyr, of equal mass now and of ages as they are drawn: 0.776."""
    age = np.linspace(YOUNGEST, RECENT, 2001)
    return float(1.0 / np.mean(1.0 / mass_left(0.5 * (age[1:] + age[:-1]))))


def _ages(is_disc: NDArray[np.bool_], values: dict[str, Any], rng: np.random.Generator) -> FloatArray:
    """Ages, Gyr: what the star-formation rate has made in the last Gyr lies in the disc, the rest is older, in the bulge oldest."""
    number = len(is_disc)
    blue = float(np.clip((0.85 - float(values["mock_g_r"])) / 0.5, 0.0, 1.0))
    old = 10.0 - 2.0 * blue - (1.0 + 1.5 * blue) * is_disc
    age = np.clip(old + 1.5 * rng.standard_normal(number), RECENT + 2.0 * rng.uniform(size=number), 13.5)
    recent = recent_mass_left() * float(values["sfr"]) * 1e9 / float(values["m_star_total"])
    share = min(recent * number / max(int(np.count_nonzero(is_disc)), 1), 0.9)
    is_young = is_disc & (rng.uniform(size=number) < share)
    age[is_young] = rng.uniform(YOUNGEST, RECENT, np.count_nonzero(is_young))
    return age


def _magnitudes(age: FloatArray, metallicity: FloatArray, total_r: float, colour: float) -> dict[str, FloatArray]:
    """Absolute g and r magnitudes of stars of equal mass: power laws of the age, whose sums are the galaxy's without dust.

    Light per mass falls as age^-0.7 in r and as age^-0.85 in g, about as in Bruzual & Charlot (2003) from 0.1 to 10 Gyr.
    """
    metals = np.log10(metallicity / 0.02)
    shape = {"r": -0.7 * np.log10(np.maximum(age, 0.01)), "g": -0.85 * np.log10(np.maximum(age, 0.01)) - 0.06 * metals}
    total = {"r": total_r, "g": total_r + colour}
    return {band: total[band] - 2.5 * (light - np.log10(np.sum(10.0**light))) for band, light in shape.items()}


def _gas(galaxy: Galaxy, values: dict[str, Any], number: int, rng: np.random.Generator) -> Kind:
    """A cold disc that forms the stars, and hot gas in the halo."""
    model = galaxy.model
    cold, hot = float(model.gas_mass[0]), _hot_mass(model)
    n_cold = round(number * cold / (cold + hot))
    n_cold = min(max(n_cold, min(number // 2, 1000) if cold > 0 else 0), number - 1 if hot > 0 else number)
    n_hot = number - n_cold if hot > 0 else 0
    parts, masses = [], []
    if n_cold:
        scale = float(model.gas_scale[0])
        parts.append(_disc(galaxy, scale, GAS_HEIGHT * scale, n_cold, rng, dispersion=GAS_DISPERSION))
        masses.append(np.full(n_cold, cold / n_cold))
    if n_hot:
        parts.append(_sphere(galaxy, lambda r: model.hot_gas(r[None])[0], n_hot, rng))
        masses.append(np.full(n_hot, hot / n_hot))
    position, velocity = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    is_cold = np.arange(n_cold + n_hot) < n_cold
    rate = np.where(is_cold, float(values["sfr"]) / max(n_cold, 1), 0.0)
    metallicity = np.where(is_cold, 1.0, 0.3) * float(values["mock_metallicity"]) * np.ones(len(is_cold))
    return Kind(position, velocity, np.concatenate(masses), galaxy.potential(position), metallicity=metallicity, sfr=rate)
