"""Channels: their velocities, the velocity frame of an execution block, and the choice of channels for a line; and their response."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT
from supermage.data_reduction.response import SpectralResponse as SpectralResponse
from supermage.data_reduction.response import detect_response as detect_response
from supermage.data_reduction.response import resolution_in_channels as resolution_in_channels
from supermage.errors import DataError, DomainError

FloatArray = NDArray[np.float64]
Velocities = TypeVar("Velocities", float, NDArray[np.float64])

CONVENTIONS = ("radio", "optical")
FRAMES = ("LSRK", "BARY", "TOPO")


def velocity_of_frequency(frequency: Velocities, rest_frequency: float, convention: str) -> Velocities:
    """Velocity in km/s of a frequency in Hz: radio ``c (1 - nu / nu0)`` or optical ``c (nu0 / nu - 1)``."""
    if convention not in CONVENTIONS:
        raise DomainError(f"a velocity convention must be one of {', '.join(CONVENTIONS)}, got '{convention}'")
    if convention == "radio":
        return SPEED_OF_LIGHT * (1.0 - frequency / rest_frequency)
    return SPEED_OF_LIGHT * (rest_frequency / frequency - 1.0)


def frequency_of_velocity(velocity: Velocities, rest_frequency: float, convention: str) -> Velocities:
    """Frequency in Hz of a velocity in km/s; the inverse of `velocity_of_frequency`."""
    if convention not in CONVENTIONS:
        raise DomainError(f"a velocity convention must be one of {', '.join(CONVENTIONS)}, got '{convention}'")
    if convention == "radio":
        return rest_frequency * (1.0 - velocity / SPEED_OF_LIGHT)
    return rest_frequency / (1.0 + velocity / SPEED_OF_LIGHT)


def frame_factor(time: float, position: FloatArray, phase_centre: tuple[float, float], *, stored: str, wanted: str,
                 scale: str = "utc") -> float:
    """Frequency in one rest frame over frequency in another, for a source at the phase centre. Needs no network.

    Parameters
    ----------
    time
        s (modified Julian date times 86400, in ``scale``).
    position
        Geocentric position of the observatory (ITRF), m, shape (3,).
    phase_centre
        Right ascension and declination (ICRS), deg.
    stored, wanted
        Frames: ``"TOPO"``, ``"LSRK"``, ``"BARY"`` or ``"GEO"``.
    scale
        Of the time, as astropy names it.

    Raises
    ------
    DataError
        If a frame is not known.
    """
    for frame in (stored, wanted):
        if frame not in _ASTROPY_FRAMES:
            raise DataError(f"a frequency frame must be one of {', '.join(_ASTROPY_FRAMES)}, got '{frame}'")
    if stored == wanted:
        return 1.0
    to_wanted, to_stored = (_from_topocentre(time, position, phase_centre, frame, scale) for frame in (wanted, stored))
    return to_wanted / to_stored


_ASTROPY_FRAMES = {"TOPO": None, "LSRK": "lsrk", "BARY": "icrs", "GEO": "gcrs"}


def _from_topocentre(time: float, position: FloatArray, phase_centre: tuple[float, float], frame: str, scale: str) -> float:
    if frame == "TOPO":
        return 1.0
    from astropy import units
    from astropy.coordinates import EarthLocation, SkyCoord, SpectralCoord
    from astropy.time import Time
    from astropy.utils import iers

    # tables of the Earth's rotation that are old are good to a second, some 0.03 m/s, and no reason to stop: nor is a network wanted
    with (warnings.catch_warnings(), iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
          iers.conf.set_temp("auto_max_age", None)):
        warnings.simplefilter("ignore")
        moment = Time(time / 86400.0, format="mjd", scale=scale).utc
        observer = EarthLocation.from_geocentric(*position, unit=units.m).get_itrs(obstime=moment)
        zero = 0.0 * units.mas / units.yr
        target = SkyCoord(phase_centre[0] * units.deg, phase_centre[1] * units.deg, distance=1.0 * units.Gpc, frame="icrs",
                          pm_ra_cosdec=zero, pm_dec=zero, radial_velocity=0.0 * units.km / units.s)
        coordinate = SpectralCoord(1.0 * units.GHz, observer=observer, target=target)
        return float(coordinate.with_observer_stationary_relative_to(_ASTROPY_FRAMES[frame]).to_value(units.GHz))


@dataclass(frozen=True, eq=False)
class Band:
    """The channels of one execution block, ready for a choice: name, ascending frequency (Hz), width (Hz), factor to the frame."""

    name: str
    frequency: FloatArray
    width: float
    factor: float

    def edges(self, rest_frequency: float, convention: str) -> tuple[float, float]:
        """Lowest and highest velocity that the channels cover, km/s."""
        ends = np.array([self.frequency[-1] + self.width / 2, self.frequency[0] - self.width / 2]) * self.factor
        low, high = velocity_of_frequency(ends, rest_frequency, convention)
        return float(low), float(high)

    def covers(self, velocity_range: tuple[float, float], rest_frequency: float, convention: str) -> bool:
        """Whether the whole range lies inside the band."""
        low, high = self.edges(rest_frequency, convention)
        slack = 1e-6 * (high - low)
        return low - slack <= velocity_range[0] and velocity_range[1] <= high + slack


def choose_channels(bands: list[Band], velocity_range: tuple[float, float], *, rest_frequency: float, frame: str,
                    convention: str) -> list[slice]:
    """Choose the same number of neighbouring channels in every block, centred on the velocity range as well as whole channels allow.

    Parameters
    ----------
    bands
        One for each block.
    velocity_range
        Lowest and highest velocity, km/s, in ``frame`` and ``convention``.

    Raises
    ------
    DataError
        If a band does not cover the range, or fewer than two channels lie in it.
    """
    low, high = velocity_range
    wanted = f"{low:g} to {high:g} km/s ({frame}, {convention})"
    inside = []
    for band in bands:
        if not band.covers(velocity_range, rest_frequency, convention):
            start, stop = band.edges(rest_frequency, convention)
            raise DataError(f"the velocity range must lie inside the band, got {wanted} for {band.name}, whose channels cover "
                            f"{start:.1f} to {stop:.1f} km/s ({band.frequency[0] / 1e9:.6f} to {band.frequency[-1] / 1e9:.6f} GHz)")
        velocity = velocity_of_frequency(band.frequency * band.factor, rest_frequency, convention)
        inside.append(int(np.count_nonzero((velocity >= low) & (velocity <= high))))
    count = min(inside)
    if count < 2:
        raise DataError(f"the velocity range must hold the centres of at least 2 channels in every block, got {count} in {wanted}")
    chosen = []
    for band in bands:
        velocity = velocity_of_frequency(band.frequency * band.factor, rest_frequency, convention)
        middles = np.convolve(velocity, np.full(count, 1.0 / count), mode="valid")
        first = int(np.argmin(np.abs(middles - (low + high) / 2)))
        chosen.append(slice(first, first + count))
    return chosen
