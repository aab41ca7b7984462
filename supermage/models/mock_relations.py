"""The relations that mock galaxies follow, every constant in one place, and the numbers drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.special import expit, ndtr

from supermage.errors import DomainError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Relations:
    """Medians and scatters of a population at redshift 0; masses are log10 Msun, scatters dex unless said otherwise.

    Forms are from the sources named; constants were moved by hand until medians and scatters resembled those of TNG100's groups.
    x is log10 M* - 10.5 throughout.

    Attributes
    ----------
    log_mass_range
        Stellar masses that are drawn.
    schechter_knee, schechter_slope
        Stellar mass function ``dn / dlog M ~ (M/M0)^(slope + 1) exp(-M/M0)``.
    satellite_share, satellite_knee
        Share of satellites at low mass, and log10 M* of its half.
    halo_pivot, halo_norm, halo_low, halo_high, halo_scatter
        Stellar mass of haloes, ``M*/M200 = 2 N / ((M200/M1)^-beta + (M200/M1)^gamma)`` (Moster et al. 2013, eq. 2), scatter in log M*.
    concentration_offset, concentration_scatter
        Above ``log c = 0.905 - 0.101 log(M200 h / 10^12 Msun)`` (Dutton & Maccio 2014).
    response, response_slope, response_scatter
        Power of the halo's contraction, see `supermage.models.mock_mass.MassModel`, its slope with log10 M* above 9.8, scatter (plain).
    stripping, stripping_scatter
        log10 of the share of M200 that satellites keep: (star-forming, quenched) medians.
    size, size_low, size_high, size_knee, size_scatter
        log10 R_hsm/kpc = a + b x + (c - b) log10(1 + 100^(x - k)) / 2 of (star-forming, quenched) galaxies (form of Shen et al. 2003).
    quenched_share, quenched_knee, quenched_width
        Of centrals: ``share / (1 + exp(-(x - knee) / width))``.
    environment_share
        Share of satellites above 10^9.6 Msun that their surroundings have quenched; more do below.
    bulge_size, bulge_size_scatter
        log10 of the bulge's half-mass radius over the disc's.
    disc_peak, disc_low, disc_high, disc_scatter
        Logit of the disc's share of the stars: peak of (star-forming, quenched), minus ``low x^2`` below and ``high x`` above x = 0;
        scatter in logit at x = 0, which grows with x above.
    height, height_scatter
        Height z0 of the stellar disc in scale lengths, median and scatter in dex.
    main_sequence, main_sequence_slope, main_sequence_bend, main_sequence_scatter
        log10 SFR/M* (1/yr) of star-forming galaxies at x = 0, its slope, and one more from x = 0.1 on.
    gas, gas_slope, gas_scatter
        log10 of cold gas within R_hsm over M* of star-forming galaxies at x = 0.
    colour_blue, colour_sfr, colour_blue_scatter
        g - r of star-forming galaxies at sSFR 10^-10.2/yr, its slope per dex of sSFR, scatter in mag.
    colour_red, colour_red_slope, colour_red_high, colour_red_scatter
        g - r of quenched galaxies at x = 0, its slope with x below 0 and above 0.4, scatter in mag.
    light, light_colour, light_scatter
        log10 M*/L_r (Msun/Lsun) at g - r = 0.6 and its slope (Bell & de Jong 2001), scatter.
    black_hole_slope, black_hole_scatter
        About ``M_BH = 0.49e9 (M*/1e11)^slope`` (form of Kormendy & Ho 2013, eq. 10, who have 1.17; here for all stars).
    halo_spin, halo_spin_scatter
        ``j / (sqrt2 R V)`` (Bullock et al. 2001) of the haloes of (centrals, satellites).
    """

    log_mass_range: tuple[float, float] = (9.699, 12.3)
    schechter_knee: float = 11.1
    schechter_slope: float = -1.3
    satellite_share: float = 0.45
    satellite_knee: float = 11.1
    halo_pivot: float = 11.65
    halo_norm: float = 0.035
    halo_low: float = 1.376
    halo_high: float = 0.40
    halo_scatter: float = 0.16
    concentration_offset: float = 0.08
    concentration_scatter: float = 0.10
    response: float = 1.3
    response_slope: float = -0.3
    response_scatter: float = 0.08
    stripping: tuple[float, float] = (-0.35, -0.75)
    stripping_scatter: float = 0.36
    size: tuple[float, float] = (0.58, 0.35)
    size_low: tuple[float, float] = (0.10, -0.08)
    size_high: tuple[float, float] = (0.65, 0.95)
    size_knee: float = 0.0
    size_scatter: float = 0.14
    quenched_share: float = 0.75
    quenched_knee: float = 0.05
    quenched_width: float = 0.12
    environment_share: float = 0.38
    bulge_size: float = 0.1
    bulge_size_scatter: float = 0.22
    disc_peak: tuple[float, float] = (1.4, 0.65)
    disc_low: float = 0.9
    disc_high: float = 1.3
    disc_scatter: float = 0.75
    height: float = 0.30
    height_scatter: float = 0.10
    main_sequence: float = -10.2
    main_sequence_slope: float = -0.05
    main_sequence_bend: float = -1.0
    main_sequence_scatter: float = 0.38
    gas: float = -1.27
    gas_slope: float = -0.36
    gas_scatter: float = 0.26
    colour_blue: float = 0.45
    colour_sfr: float = -0.30
    colour_blue_scatter: float = 0.04
    colour_red: float = 0.77
    colour_red_slope: float = 0.04
    colour_red_high: float = -0.07
    colour_red_scatter: float = 0.042
    light: float = 0.239
    light_colour: float = 1.096
    light_scatter: float = 0.06
    black_hole_slope: float = 1.1
    black_hole_scatter: float = 0.17
    halo_spin: tuple[float, float] = (0.05, 0.034)
    halo_spin_scatter: float = 0.28

    def __post_init__(self) -> None:
        low, high = self.log_mass_range
        if not 8.0 <= low < high <= 12.5:
            raise DomainError(f"log_mass_range must lie in 8 .. 12.5, lower bound first, got {low:g} .. {high:g}")
        if not 0.0 <= self.satellite_share <= 1.0:
            raise DomainError(f"satellite_share must lie in [0, 1], got {self.satellite_share:g}")
        for name, value in vars(self).items():
            if name.endswith("scatter") and not value >= 0.0:
                raise DomainError(f"{name} must not be negative, got {value:g}")

    def stellar_of_halo(self, log_halo: FloatArray) -> FloatArray:
        """Median log10 M* of a halo of log10 M200."""
        x = log_halo - self.halo_pivot
        return log_halo + np.log10(2.0 * self.halo_norm) - np.logaddexp(-self.halo_low * x * _E, self.halo_high * x * _E) / _E

    def half_mass_radius(self, log_stars: FloatArray, is_quenched: NDArray[np.bool_]) -> FloatArray:
        """Median log10 R_hsm/kpc."""
        x = log_stars - 10.5
        value, low, high = (np.where(is_quenched, pair[1], pair[0]) for pair in (self.size, self.size_low, self.size_high))
        return value + low * x + 0.5 * (high - low) * np.logaddexp(0.0, 2.0 * (x - self.size_knee) * _E) / _E

    def quenched(self, log_stars: FloatArray, is_satellite: NDArray[np.bool_]) -> FloatArray:
        """Share of galaxies that have stopped to form stars."""
        alone = self.quenched_share * expit((log_stars - 10.5 - self.quenched_knee) / self.quenched_width)
        low = np.clip(9.6 - log_stars, 0.0, None) * 0.55
        by_others = np.where(is_satellite, np.minimum(self.environment_share + low, 0.9), 0.0)
        return 1.0 - (1.0 - alone) * (1.0 - by_others)

    def disc_logit(self, log_stars: FloatArray, is_quenched: NDArray[np.bool_]) -> FloatArray:
        """Median logit of the disc's share of the stars."""
        x = log_stars - 10.5
        return np.where(is_quenched, self.disc_peak[1], self.disc_peak[0]) - np.where(x < 0, self.disc_low * x**2, self.disc_high * x)

    def main_sequence_bent(self, log_stars: FloatArray) -> FloatArray:
        """What is added to log10 of SFR/M* of massive galaxies on the main sequence."""
        return self.main_sequence_bend * np.maximum(log_stars - 10.6, 0.0)

    def red(self, log_stars: FloatArray) -> FloatArray:
        """Median g - r of quenched galaxies."""
        x = log_stars - 10.5
        return self.colour_red + self.colour_red_slope * np.minimum(x, 0.0) + self.colour_red_high * np.maximum(x - 0.4, 0.0)

    def disc_spread(self, log_stars: FloatArray) -> FloatArray:
        """Scatter of the logit of the disc's share."""
        return self.disc_scatter * (1.0 + 0.8 * np.maximum(log_stars - 10.5, 0.0))

    def concentration(self, halo: FloatArray) -> FloatArray:
        """Median concentration of haloes of M200 in Msun."""
        return 10.0 ** (0.905 - 0.101 * np.log10(halo * 0.6774 / 1e12) + self.concentration_offset)

    def black_hole(self, stars: FloatArray) -> FloatArray:
        """Median mass of the black hole, Msun, of a stellar mass in Msun."""
        return 0.49e9 * (stars / 1e11) ** self.black_hole_slope

    def satellites(self, log_stars: FloatArray) -> FloatArray:
        """Share of galaxies that are satellites."""
        return self.satellite_share * expit((self.satellite_knee - log_stars) / 0.15)


_E = float(np.log(10.0))

GROUPS = Relations(log_mass_range=(9.0, 12.2), satellite_share=1.0, satellite_knee=10.8)
"""A population like the TNG100 rows that the constants were moved to: satellites and centrals of massive groups, from 10^9 Msun on."""


def draw_stellar_mass(relations: Relations, uniform: FloatArray) -> FloatArray:
    """log10 M* at ranks (uniform numbers) of the mass function."""
    grid = np.linspace(*relations.log_mass_range, 4001)
    x = grid - relations.schechter_knee
    density = 10.0 ** ((relations.schechter_slope + 1.0) * x) * np.exp(-(10.0**x))
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(uniform * below[-1], below, grid)


_STARS = np.linspace(7.5, 13.0, 221)
_SCORE = np.linspace(-4.0, 4.0, 161)


@lru_cache(maxsize=8)
def _halo_table(relations: Relations) -> FloatArray:
    """log10 M200 by log10 M* and normal score: Bayes' rule with the halo mass function ``M^-0.9 exp(-(M / 10^14.2)^0.7)`` per dex."""
    halo = np.linspace(9.5, 15.5, 1201)
    abundance = -0.9 * halo * _E - 10.0 ** (0.7 * (halo - 14.2))
    deviation = (_STARS[:, None] - relations.stellar_of_halo(halo)) / max(relations.halo_scatter, 0.01)
    log_density = abundance - 0.5 * deviation**2
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    below = np.cumsum(density, axis=1)
    below /= below[:, -1:]
    return np.stack([np.interp(ndtr(_SCORE), line, halo) for line in below])


def draw_halo_mass(relations: Relations, log_stars: FloatArray, score: FloatArray) -> FloatArray:
    """log10 M200 of galaxies given log10 M*, at normal scores; rare massive haloes make it lower than the inverted median relation."""
    line = (log_stars - _STARS[0]) / (_STARS[1] - _STARS[0])
    column = (score - _SCORE[0]) / (_SCORE[1] - _SCORE[0])
    return map_coordinates(_halo_table(relations), [line, column], order=1, mode="nearest")


def draw_groups(log_stars: FloatArray, log_halo: FloatArray, is_satellite: NDArray[np.bool_], uniform: FloatArray) -> NDArray[np.int64]:
    """Which central each galaxy belongs to, as its index; centrals belong to themselves.

    A satellite joins a more massive central (in stars) with a probability in proportion to the central's halo mass; where there is none it
    stays alone.
    """
    host = np.arange(len(log_stars))
    centrals = np.flatnonzero(~is_satellite)
    centrals = centrals[np.argsort(-log_stars[centrals], kind="stable")]
    weight = np.cumsum(10.0 ** (log_halo[centrals] - 12.0))
    satellites = np.flatnonzero(is_satellite)
    heavier = np.searchsorted(-log_stars[centrals], -log_stars[satellites], side="left")
    satellites, heavier, uniform = satellites[heavier > 0], heavier[heavier > 0], uniform[satellites][heavier > 0]
    chosen = np.searchsorted(weight, uniform * weight[heavier - 1], side="right")
    host[satellites] = centrals[np.minimum(chosen, heavier - 1)]
    return host
