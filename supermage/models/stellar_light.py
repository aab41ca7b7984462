"""Light of star particles in g and r: the file's own magnitudes, else a law of simple stellar populations, else a constant M/L."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.particles import FloatArray, Kind

BANDS = ("g", "r")
SOLAR_MAGNITUDE = {"g": 5.11, "r": 4.65}
"""Absolute AB magnitudes of the Sun in the SDSS bands (Willmer 2018, Table 3)."""

SOLAR_METALLICITY = 0.02
"""Where the law's metallicity term vanishes: solar of the tracks that it was fitted to."""

AGE_RANGE = (0.004, 14.0)
METALLICITY_RANGE = (1e-4, 0.05)
"""Gyr, and mass fraction of metals; outside, the nearest edge counts."""

CONSTANT_RATIO = 2.0
CONSTANT_COLOUR = 0.7
"""Present mass over r luminosity, Msun/Lsun, and g - r of stars without ages: what galaxies of 10^10.5 Msun have on average."""

Numbers = NDArray[np.floating[Any]] | float


def luminosities(stars: Kind) -> dict[str, FloatArray]:
    """Luminosity of every star particle by band, Lsun of that band, without dust.

    Magnitudes of the file (``magnitude``, both g and r) come first; else `formed_mass_to_light` and `colour` of the particle's age and
    metallicity (solar where there is none), times its mass at birth (from its present mass and `remaining_fraction` where there is
    none); stars without ages have one ratio and one colour, `CONSTANT_RATIO` and `CONSTANT_COLOUR`.

    Raises
    ------
    DataError
        Magnitudes which no star particle can have.
    """
    if all(band in stars.magnitude and stars.magnitude[band].size for band in BANDS):
        return {band: _of_magnitudes(stars.magnitude[band], band) for band in BANDS}
    if not stars.age.size:
        red = stars.mass / CONSTANT_RATIO
        return {"g": red * _flux_ratio(np.full(stars.mass.shape, CONSTANT_COLOUR)), "r": red}
    metallicity = stars.metallicity if stars.metallicity.size else np.full(stars.age.shape, SOLAR_METALLICITY)
    formed = stars.initial_mass if stars.initial_mass.size else stars.mass / remaining_fraction(stars.age)
    red = formed / formed_mass_to_light(stars.age, metallicity)
    return {"g": red * _flux_ratio(colour(stars.age, metallicity)), "r": red}


def has_light(stars: Kind) -> bool:
    """Whether magnitudes or ages tell the stars' light; else one ratio stands for all, and their light is their mass."""
    return bool(stars.age.size) or all(stars.magnitude.get(band, np.empty(0)).size for band in BANDS)


def formed_mass_to_light(age: Numbers, metallicity: Numbers) -> FloatArray:
    """Mass at birth over r luminosity of a simple stellar population, Msun/Lsun, for a Chabrier (2003) initial mass function.

    With a = log10(age / Gyr) and z = log10(metallicity / 0.02): ``log10(M/L) = -0.15 + 0.73 a + 0.09 a^2 + 0.04 a^3 + (0.16 + 0.07 a) z``.
    Fitted to the spectra of PopStar (Molla, Garcia-Vargas & Bressan 2009, Chabrier), rms 0.025 dex (worst 0.07) for ages above 0.2 Gyr and
    metallicities above 0.002, 0.11 dex over all ages (worst 0.6, at 7 Myr, where red supergiants come and go). Then 0.06 dex lighter,
    which puts star-formation histories from bursts to rising ones within 0.06 dex of the M/L at the same colour of TNG100's galaxies, whose
    light is that of Bruzual & Charlot (2003). The slope with age is the usual 0.7 - 0.8.
    """
    a, z = _logarithms(age, metallicity)
    return np.asarray(10.0 ** (-0.15 + 0.73 * a + 0.09 * a**2 + 0.04 * a**3 + (0.16 + 0.07 * a) * z))


def colour(age: Numbers, metallicity: Numbers) -> FloatArray:
    """Colour g - r of a simple stellar population, AB.

    ``0.09 + 0.13 a - 0.01 z + (0.55 + 0.21 z) / (1 + exp(-(a + 0.04) / 0.2))``, a and z as in `formed_mass_to_light`. The shape of PopStar,
    rms 0.04 mag above 0.2 Gyr, 0.13 mag below, times 0.9: 0.77 at 10 Gyr and solar metallicity, where Bruzual & Charlot (2003) have 0.76.
    """
    a, z = _logarithms(age, metallicity)
    return np.asarray(0.09 + 0.13 * a - 0.01 * z + (0.55 + 0.21 * z) / (1.0 + np.exp(-(a + 0.04) / 0.2)))


def remaining_fraction(age: Numbers) -> FloatArray:
    """Share of a population's mass that is left in stars and remnants: ``1 - 0.046 ln(1 + age / 0.276 Myr)``.

    Leitner & Kravtsov (2011), for a Chabrier initial mass function; within 0.02 of Bruzual & Charlot (2003) from 0.1 to 10 Gyr.
    """
    return np.asarray(1.0 - 0.046 * np.log1p(np.asarray(age, np.float64) / 2.76e-4))


def magnitude_of(luminosity: float, band: str) -> float:
    """Absolute AB magnitude of a luminosity in Lsun of that band."""
    return SOLAR_MAGNITUDE[band] - 2.5 * float(np.log10(luminosity))


def _logarithms(age: Numbers, metallicity: Numbers) -> tuple[FloatArray, FloatArray]:
    metals = np.clip(np.asarray(metallicity, np.float64), *METALLICITY_RANGE) / SOLAR_METALLICITY
    return np.asarray(np.log10(np.clip(np.asarray(age, np.float64), *AGE_RANGE))), np.asarray(np.log10(metals))


def _flux_ratio(colours: FloatArray) -> FloatArray:
    """Luminosity in g over that in r, each in its own Lsun."""
    return 10.0 ** (-0.4 * (colours - (SOLAR_MAGNITUDE["g"] - SOLAR_MAGNITUDE["r"])))


def _of_magnitudes(magnitude: FloatArray, band: str) -> FloatArray:
    if (magnitude < -25.0).any() or (magnitude > 40.0).any():
        got = f"{magnitude.min():g} to {magnitude.max():g}: apparent, or a luminosity?"
        raise DataError(f"a star particle's absolute {band} magnitude must lie in [-25, 40], got {got}")
    return 10.0 ** (-0.4 * (magnitude - SOLAR_MAGNITUDE[band]))
