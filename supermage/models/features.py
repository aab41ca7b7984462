"""The ten features of Chu et al., Table 1, from the particles of one galaxy and the light of its stars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, DomainError
from supermage.models.orbits import circularity_of, orbit_fractions
from supermage.models.particles import Particles
from supermage.models.sersic import fit_sersic
from supermage.models.shape import axes_of
from supermage.models.stellar_light import has_light, magnitude_of

FloatArray = NDArray[np.float64]

SERSIC_APERTURE, SHAPE_APERTURE = 5.0, 3.0
"""In R_hsm: the circle of the Sersic fit, the sphere that the inertia tensor starts from."""
MAP_PIXELS, MAP_HALF_WIDTH = 48, 3.0
"""Pixels a side, and half the width in R_hsm, of the kinematic maps: eight pixels in R_hsm."""
LEAST_STARS = 50
"""Stars within the aperture without which no feature is given."""
SFR_YEARS = 1e9


@dataclass(frozen=True)
class IntrinsicFeatures:
    """What no direction of projection changes: `Axes.c_a`, `OrbitFractions`.

    Attributes
    ----------
    c_a, b_t, f_cold, f_hot
        See `PAPER_FEATURES` of `supermage.models.columns`.
    half_mass_radius
        R_hsm, kpc.
    aperture
        Of the orbit fractions, in R_hsm.
    """

    c_a: float
    b_t: float
    f_cold: float
    f_hot: float
    half_mass_radius: float
    aperture: int


@dataclass(frozen=True)
class GalaxyFeatures:
    """Features of one galaxy in one projection.

    Attributes
    ----------
    values
        Canonical name -> value, in the order of the paper's Table 1; NaN where one cannot be measured.
    notes
        One sentence for each that is missing, or not measured as the paper does.
    """

    values: dict[str, float]
    notes: tuple[str, ...]


def features_of(
    particles: Particles,
    axis: int,
    *,
    luminosity_r: FloatArray,
    luminosity_g: FloatArray,
    aperture: int = 2,
    half_mass_radius: float | None = None,
    intrinsic: IntrinsicFeatures | None = None,
) -> dict[str, float]:
    """Features by canonical name; the values of `measure_features`, which see."""
    return measure_features(particles, axis, luminosity_r=luminosity_r, luminosity_g=luminosity_g, aperture=aperture,
                            half_mass_radius=half_mass_radius, intrinsic=intrinsic).values  # fmt: skip


def measure_features(
    particles: Particles,
    axis: int,
    *,
    luminosity_r: FloatArray,
    luminosity_g: FloatArray,
    aperture: int = 2,
    half_mass_radius: float | None = None,
    intrinsic: IntrinsicFeatures | None = None,
) -> GalaxyFeatures:
    """Features of the paper's Table 1, in one projection.

    ``M_r``, ``g_r`` of all light; ``sfr``, ``sigma_v``, ``lambda_r`` within the projected aperture, ``n_sersic`` within a projected 5 R_hsm
    (`fit_sersic`); ``c_a`` from 3 R_hsm inwards (`axes_of`); ``b_t``, ``f_cold``, ``f_hot`` within the sphere of the aperture
    (`circularity_of`). Velocities are weighted with the r light.

    Parameters
    ----------
    particles
        Centred on the galaxy.
    axis
        Direction of projection: 0, 1 or 2.
    luminosity_r, luminosity_g
        Light of the stars as it leaves the galaxy in this direction, Lsun in the band, shape (star,).
    aperture
        2 as the paper, or 1, in R_hsm.
    half_mass_radius
        R_hsm, kpc; from all stars if None. A cutout that ends within the galaxy needs the catalogue's.
    intrinsic
        From an earlier projection of the same galaxy: saves their measurement.

    Raises
    ------
    DataError
        Fewer than 50 stars within the sphere of the aperture; all stars in one point; a galaxy that is not centred; light that is not one
        finite number a star, negative or nowhere.
    DomainError
        Another axis or aperture.
    """
    check_projection(axis, aperture)
    check_light(particles, r=luminosity_r, g=luminosity_g)
    if intrinsic is None:
        intrinsic = intrinsic_features(particles, aperture=aperture, half_mass_radius=half_mass_radius)
    elif intrinsic.aperture != aperture or (half_mass_radius is not None and half_mass_radius != intrinsic.half_mass_radius):
        raise DomainError(f"features of one galaxy need one aperture and one R_hsm, got {aperture} and {intrinsic.aperture} R_hsm of "
                          f"{half_mass_radius} and {intrinsic.half_mass_radius:g} kpc")  # fmt: skip
    scale = intrinsic.half_mass_radius
    stars = particles.stars
    first, second, _ = in_projection(stars.position, axis)
    radius = np.hypot(first, second)
    inside = radius <= aperture * scale
    if not luminosity_r[inside].sum() > 0:
        raise DataError(f"a galaxy needs r light within a projected {aperture} R_hsm, got none from {np.count_nonzero(inside)} stars")
    sfr, notes = star_formation_rate(particles, axis, aperture * scale)
    velocity = stars.velocity[:, axis]
    sersic = fit_sersic(radius, luminosity_r, SERSIC_APERTURE * scale)
    if not math.isfinite(sersic.index):
        notes.append(f"n_sersic is missing: light in {sersic.n_annuli} annuli is too little for a fit")
    spin = lambda_r(first, second, velocity, luminosity_r, scale, aperture)
    if not math.isfinite(spin):
        notes.append("lambda_r is missing: no star moves along the line of sight")
    if not len(particles.dark_matter):
        notes.append("b_t, f_cold and f_hot are of orbits in the potential of stars and gas: there is no dark matter")
    if not has_light(particles.stars):
        notes.append("M_r and g_r are not to be trained on if their light is ours: stars without magnitudes and ages shine as their mass")
    if not math.isfinite(intrinsic.c_a):
        notes.append("c_a is missing: too few stars are left in the ellipsoid")
    M_r, M_g = (magnitude_of(float(light.sum()), band) for light, band in ((luminosity_r, "r"), (luminosity_g, "g")))
    values = {"M_r": M_r, "g_r": M_g - M_r, "sfr": sfr, "n_sersic": sersic.index, "c_a": intrinsic.c_a,
              "sigma_v": weighted_dispersion(velocity[inside], luminosity_r[inside]), "lambda_r": spin,
              "b_t": intrinsic.b_t, "f_cold": intrinsic.f_cold, "f_hot": intrinsic.f_hot}  # fmt: skip
    return GalaxyFeatures(values, tuple(notes))


def intrinsic_features(particles: Particles, *, aperture: int = 2, half_mass_radius: float | None = None) -> IntrinsicFeatures:
    """Shape and orbits: features that all projections share. Arguments and errors as of `measure_features`."""
    check_projection(0, aperture)
    scale = checked_half_mass_radius(particles, half_mass_radius)
    circularity, inside = circularity_of(particles, aperture * scale)
    if len(circularity) < LEAST_STARS:
        raise DataError(f"features need at least {LEAST_STARS} stars within {aperture} R_hsm, got {len(circularity)}")
    orbits = orbit_fractions(circularity, particles.stars.mass[inside])
    axes = axes_of(particles.stars.position, particles.stars.mass, SHAPE_APERTURE * scale)
    return IntrinsicFeatures(axes.c_a, orbits.b_t, orbits.f_cold, orbits.f_hot, scale, aperture)


def check_projection(axis: int, aperture: int) -> None:
    """Raise a DomainError unless the axis is 0, 1 or 2 and the aperture 1 or 2."""
    if axis not in (0, 1, 2):
        raise DomainError(f"an axis of projection must be 0, 1 or 2, got {axis}")
    if aperture not in (1, 2):
        raise DomainError(f"an aperture must be 1 or 2 R_hsm, got {aperture}")


def check_light(particles: Particles, **light: FloatArray) -> None:
    """Raise a DataError unless each band has one number a star, finite and not negative, and some light."""
    for band, luminosity in light.items():
        if luminosity.shape != (len(particles.stars),):
            raise DataError(f"stars need one {band} luminosity each, got shape {luminosity.shape} for {len(particles.stars)} stars")
        bad = ~(np.isfinite(luminosity) & (luminosity >= 0))
        if bad.any():
            raise DataError(f"{band} luminosities must be finite and not negative (Lsun, no magnitudes), got {luminosity[bad][0]:g}")
        if not luminosity.any():
            raise DataError(f"a galaxy needs {band} light, got none from {len(luminosity)} stars")


def checked_half_mass_radius(particles: Particles, half_mass_radius: float | None) -> float:
    """R_hsm (kpc), measured if None; a DataError where it is not above 0, or the stars' median is half of it off the origin."""
    if float(particles.stars.mass.min()) < 0 or not particles.stars.mass.any():
        raise DataError(f"stars need masses above 0, got {particles.stars.mass.min():g} Msun")
    scale = particles.half_mass_radius() if half_mass_radius is None else half_mass_radius
    if not (scale > 0 and math.isfinite(scale)):
        raise DataError(f"a galaxy needs a half-mass radius above 0 kpc (all stars in one point?), got {scale:g}")
    off = float(np.linalg.norm(np.median(particles.stars.position, axis=0)))
    if off > (0.5 + 3.0 / math.sqrt(len(particles.stars))) * scale:
        raise DataError(f"particles must be centred on the galaxy, got stars {off:.3g} kpc off (their median) for R_hsm {scale:.3g} kpc")
    return scale


def in_projection(position: FloatArray, axis: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Columns of positions (star, 3) in the plane of the sky and along the line of sight ``axis``: the axes in cyclic order."""
    return position[:, (axis + 1) % 3], position[:, (axis + 2) % 3], position[:, axis]


def star_formation_rate(particles: Particles, axis: int, radius: float) -> tuple[float, list[str]]:
    """Rate within a projected radius (kpc) over the past 1 Gyr, Msun/yr, and what is to be said about it.

    Mass at birth of the stars younger than 1 Gyr over 1 Gyr. Without masses at birth their mass now, which stellar winds have
    diminished; without ages the gas's present rate; without either NaN.
    """
    stars, gas = particles.stars, particles.gas
    if len(stars.age):
        first, second, _ = in_projection(stars.position, axis)
        young = (np.hypot(first, second) <= radius) & (stars.age >= 0) & (stars.age < SFR_YEARS / 1e9)
        born = stars.initial_mass if len(stars.initial_mass) else stars.mass
        notes = [] if len(stars.initial_mass) else ["sfr is of the stars' present masses: the file has none at birth"]
        return float(born[young].sum()) / SFR_YEARS, notes
    if len(gas.sfr):
        first, second, _ = in_projection(gas.position, axis)
        near = np.hypot(first, second) <= radius
        return float(gas.sfr[near].sum()), ["sfr is the gas's present rate: the stars have no ages"]
    return math.nan, ["sfr is missing: the stars have no ages and the gas no rates"]


def weighted_dispersion(velocity: FloatArray, weight: FloatArray) -> float:
    """Dispersion of velocities (km/s) about their weighted mean."""
    total = float(weight.sum())
    deviation = velocity - float(weight @ velocity) / total
    return math.sqrt(float(weight @ np.square(deviation)) / total)


def lambda_r(first: FloatArray, second: FloatArray, velocity: FloatArray, light: FloatArray, scale: float, aperture: int) -> float:
    """Dimensionless spin (Emsellem et al. 2007, eq. 6) on the pixels of the kinematic maps.

    ``sum F R |V| / sum F R sqrt(V^2 + sigma^2)`` over pixels of R_hsm / 8, centred as the 48 x 48 maps of +-3 R_hsm are, every star in the
    pixel that it falls on; of pixels whose centre lies within the aperture. F is a pixel's light, R the radius of its centre, V its mean
    velocity less that of all these pixels together, sigma its dispersion (both weighted with light). The scatter of V in pixels with
    few stars counts as rotation: without any, n stars of equal light a pixel have about ``sqrt(2 / pi n)``.

    Parameters
    ----------
    first, second, velocity, light
        On the sky (kpc), along the line of sight (km/s), Lsun, shape (star,).
    scale, aperture
        R_hsm in kpc; radius of the aperture in R_hsm.

    Returns
    -------
    float
        NaN where no star moves.
    """
    n = MAP_PIXELS
    column, row = (np.floor((value / scale / MAP_HALF_WIDTH + 1.0) * 0.5 * n) for value in (first, second))
    centre = (np.arange(n) + 0.5) / n * 2.0 * MAP_HALF_WIDTH - MAP_HALF_WIDTH
    radius = np.hypot(centre[:, None], centre[None, :]).ravel()
    on_map = np.flatnonzero((column >= 0) & (column < n) & (row >= 0) & (row < n))
    pixel = (row[on_map] * n + column[on_map]).astype(np.intp)
    kept = radius[pixel] <= aperture
    pixel, light, velocity = pixel[kept], light[on_map[kept]], velocity[on_map[kept]]
    total = float(light.sum())
    if not total > 0:
        return math.nan
    relative = velocity - float(light @ velocity) / total
    flux, momentum, energy = (np.bincount(pixel, light * relative**power, minlength=n * n) for power in range(3))
    everything = float(radius @ np.sqrt(flux * energy))
    return float(radius @ np.abs(momentum)) / everything if everything > 0 else math.nan
