"""Features of mock galaxies without their particles: virial dispersions, rotation, orbits, shape, dust, colours in other bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from supermage.models.mock_mass import GRAVITY, MassModel

FloatArray = NDArray[np.float64]

BANDS: dict[str, tuple[float, float, float, float]] = {
    "U": (0.557, 1.9858, 1.0955, -0.0727),
    "B": (0.3884, 0.4311, 0.1389, -0.0134),
    "V": (-0.3089, -0.6699, -0.0471, 0.0074),
    "i": (-0.9002, -1.3678, 0.0328, -0.0467),
    "z": (-1.1164, -1.59, 0.015, -0.1417),
    "K": (-3.0251, -1.9392, 0.1087, -0.5663),
}
"""Magnitude less M_g, ``a + b c + d c^2 + e log10(Z / 0.02)``, c = g - r - 0.6; fitted to TNG100's rows, which have no dust."""

BAND_SCATTER = np.array([
    [0.06179, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.00376, 0.00189, 0.0, 0.0, 0.0, 0.0],
    [-0.00178, -0.00106, 0.00048, 0.0, 0.0, 0.0],
    [0.00559, 0.00424, -0.0033, 0.00286, 0.0, 0.0],
    [0.0097, 0.0092, -0.00656, 0.00696, 0.00292, 0.0],
    [0.01539, 0.02008, -0.01514, 0.01733, 0.01789, 0.01],
])  # fmt: skip
"""Cholesky factor of the covariance of the same rows' residuals, mag, in the order of `BANDS`.

Colours are one family: some combinations of them scatter by 0.3 mmag only, so bands that scatter on their own are like no galaxy's.
"""

WAVELENGTH = {"U": 3600.0, "B": 4400.0, "g": 4770.0, "V": 5500.0, "r": 6231.0, "i": 7625.0, "z": 9134.0, "K": 21900.0}
"""Effective wavelengths, angstrom."""

DUST_SLOPE = -0.7
"""Exponent of the wavelength in the dust's optical depth, as `supermage.models.dust.STANDARD_LAW` has it (which imports numba)."""


@dataclass(frozen=True)
class Motions:
    """What a catalogue says of motions and shapes; every attribute has the shape (galaxy,) or (galaxy, projection).

    Attributes
    ----------
    sigma_v, lambda_r
        Along the line of sight, km/s and without unit, (galaxy, projection).
    sigma_3d1
        Of all particles, km/s.
    b_t, f_cold, f_hot, c_a
        As in the paper's Table 1.
    """

    sigma_v: FloatArray
    lambda_r: FloatArray
    sigma_3d1: FloatArray
    b_t: FloatArray
    f_cold: FloatArray
    f_hot: FloatArray
    c_a: FloatArray


def motions(model: MassModel, half_mass_radius: FloatArray, cos_inclination: FloatArray, heating: float = 1.2) -> Motions:
    """Estimate motions by the virial theorem: each component's mean squared speed is its mean of ``G M(<r) / r``.

    Parameters
    ----------
    model
        (galaxy,).
    half_mass_radius
        Of the stars, kpc.
    cos_inclination
        Cosine of the inclination, (galaxy, projection).
    heating
        sigma_R / sigma_z of the stellar disc.

    Notes
    -----
    The factors of lambda, orbits and shapes were set by what `supermage.models.features` measures on the particles of
    `supermage.models.mock_galaxy`, to which they hold within about 5 % (sigma_v), 0.05 (lambda_r, b_t, f_cold, f_hot) and 20 % (c_a).
    """
    outer = np.maximum(model.halo_edge, 4.0 * half_mass_radius)
    inner = 0.02 * half_mass_radius
    radius = inner[:, None] * (outer / inner)[:, None] ** np.linspace(0.0, 1.0, 33)
    middle = np.sqrt(radius[:, 1:] * radius[:, :-1])
    within = model.components(radius)
    total = sum(within.values(), model.black_hole_mass[:, None])
    speed2 = GRAVITY * np.sqrt(total[:, 1:] * total[:, :-1]) / middle
    is_central = middle < 2.5 * half_mass_radius[:, None]
    disc, bulge, all_mass = (np.diff(mass, axis=1) for mass in (within["disc"], within["bulge"], total))
    sigma_3d1 = np.sqrt(np.sum(all_mass * speed2, axis=1) / np.sum(all_mass, axis=1) / 3.0)
    disc, bulge = disc * is_central, bulge * is_central
    m_disc, m_bulge = disc.sum(axis=1), bulge.sum(axis=1)
    share = m_disc / (m_disc + m_bulge)
    hot = np.sum(bulge * speed2, axis=1) / m_bulge / 3.0
    above2 = (np.pi**2 / 12.0) * model.disc_height**2
    own = GRAVITY * model.disc_mass * model.disc_height / (8.0 * model.disc_scale**2)
    upward = own + np.sum(disc * speed2 * above2[:, None] / (middle**2 + above2[:, None]), axis=1) / m_disc
    circular = np.sum(disc * speed2, axis=1) / m_disc
    outward = np.minimum(heating**2 * upward, 0.6 * circular)
    around = 0.6 * outward
    rotation = np.maximum(circular - 1.1 * outward, 0.05 * circular)
    sin2, share_ = 1.0 - cos_inclination**2, share[:, None]
    across = 0.5 * (rotation + outward + around)[:, None] * sin2 + upward[:, None] * cos_inclination**2
    sigma_v = 0.96 * np.sqrt((1.0 - share_) * hot[:, None] + share_ * across)
    ordered = share_ * np.sqrt(rotation[:, None] * sin2)
    lambda_r = 0.79 * ordered / np.sqrt(0.45 * ordered**2 + 1.085 * sigma_v**2 - 0.4 * share_ * rotation[:, None] * sin2)
    backwards = ndtr(-np.sqrt(rotation / around))
    b_t = 1.03 * (1.0 - share) + 2.0 * share * backwards
    wideness = np.sqrt((outward + around + upward) / circular)
    f_cold = share * np.clip(1.09 - 0.75 * wideness, 0.05, 1.0) + 0.07 * (1.0 - share)
    f_hot = 0.33 * (1.0 - share) + 0.15 * share * wideness
    round2 = np.sum(bulge * middle**2, axis=1) / 3.0
    flat2, thick2 = np.sum(disc * middle**2, axis=1) / 2.0, m_disc * above2
    flatness = np.maximum(0.5 * np.log10((round2 + thick2) / (round2 + flat2)), -0.5)
    c_a = np.minimum(10.0 ** (-0.165 + flatness * (2.3 + 2.3 * flatness) + 0.09 * np.log10(model.bulge_edge)), 1.0)
    return Motions(sigma_v, np.clip(lambda_r, 0.0, 0.95), sigma_3d1, np.clip(b_t, 0, 2), np.clip(f_cold, 0, 1), np.clip(f_hot, 0, 1), c_a)


def sersic_index(disc_share: FloatArray, bulge_edge: FloatArray) -> FloatArray:
    """Median Sersic index of the light within 5 R_hsm, as measured on particles: 0.9 of a disc, more for a bulge that reaches far out."""
    bulge = 1.0 - disc_share
    return 10.0 ** (-0.05 + bulge * (0.405 + 0.33 * np.log10(bulge_edge) - 0.395 * bulge))


def dimming(surface_density: FloatArray, metallicity: FloatArray, cos_inclination: FloatArray) -> dict[str, FloatArray]:
    """Dust's dimming by band, mag, (galaxy, projection), of stars of which some are evenly mixed with it.

    Parameters
    ----------
    surface_density
        Of cold gas in the disc's centre, Msun/pc^2, (galaxy, 1).
    metallicity
        Mass fraction of metals, (galaxy, 1).
    cos_inclination
        (galaxy, projection).

    Notes
    -----
    A slab of optical depth ``tau = 0.2 (Sigma / 10)(Z / 0.0127)^1.6 / (cos i + 0.11)`` in r dims by 0.43 of what it would if all light
    came from it: set by what `supermage.models.dust` does to particles in g and r, to which it holds within 0.12 mag (rms). tau goes with
    the wavelength as there, ``lambda^-0.7``.
    """
    depth = 0.2 * surface_density / 10.0 * (metallicity / 0.0127) ** 1.6 / (cos_inclination + 0.11)
    found = {}
    for band, wavelength in WAVELENGTH.items():
        tau = np.clip(depth * (wavelength / WAVELENGTH["r"]) ** DUST_SLOPE, 1e-6, 100.0)
        found[band] = -0.43 * 2.5 * np.log10(-np.expm1(-tau) / tau)
    return found


def other_bands(m_g: FloatArray, colour: FloatArray, metallicity: FloatArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Magnitudes in U, B, V, K (Vega), i and z (AB) from M_g and g - r, by band, without dust; they scatter together."""
    c, metals = colour - 0.6, np.log10(metallicity / 0.02)
    offset = np.stack([np.ones_like(c), c, c**2, metals], axis=1) @ np.array(list(BANDS.values())).T
    scatter = rng.standard_normal((len(m_g), len(BANDS))) @ BAND_SCATTER.T
    return {band: m_g + offset[:, k] + scatter[:, k] for k, band in enumerate(BANDS)}
