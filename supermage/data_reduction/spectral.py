"""Channels: their response and correlation, the velocity frame of an execution block, and the choice of channels for a line."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DataError, DomainError

FloatArray = NDArray[np.float64]
Velocities = TypeVar("Velocities", float, NDArray[np.float64])

CONVENTIONS = ("radio", "optical")
FRAMES = ("LSRK", "BARY", "TOPO")


@dataclass(frozen=True)
class SpectralResponse:
    """How a channel mixes its native neighbours: Hanning smoothing in the correlator, then averaging on line over N native channels.

    Parameters
    ----------
    hanning
        Whether the correlator smoothed with (1/4, 1/2, 1/4).
    averaging
        Native channels averaged into one channel.

    Raises
    ------
    DomainError
        If ``averaging`` is below one.
    """

    hanning: bool
    averaging: int = 1

    def __post_init__(self) -> None:
        if self.averaging < 1:
            raise DomainError(f"averaging must be a positive number of channels, got {self.averaging}")

    @property
    def taps(self) -> FloatArray:
        """Weights of the native channels in one channel, sum 1, symmetric about its centre; native spacing is width / averaging."""
        boxcar = np.full(self.averaging, 1.0 / self.averaging)
        return np.convolve(boxcar, [0.25, 0.5, 0.25]) if self.hanning else boxcar

    @property
    def lags(self) -> FloatArray:
        """Noise correlation of channels 0, 1, 2, ... apart, up to the last that is not zero."""
        taps = self.taps
        autocorrelation = np.correlate(taps, taps, mode="full")[taps.size - 1:]
        return np.asarray(autocorrelation[::self.averaging] / autocorrelation[0], dtype=float)

    def correlation(self, n_channels: int, floor: float = 0.01) -> FloatArray:
        """Noise correlation matrix, shape (chan, chan), unit diagonal, with a white part ``floor`` that keeps it well conditioned."""
        matrix = np.zeros((n_channels, n_channels))
        for lag, value in enumerate(self.lags[:n_channels]):
            matrix += value * (np.eye(n_channels, k=lag) if lag == 0 else np.eye(n_channels, k=lag) + np.eye(n_channels, k=-lag))
        return (1.0 - floor) * matrix + floor * np.eye(n_channels)

    def pooling_factor(self, n_channels: int) -> float:
        """By how much pooling over ``n_channels`` correlated channels falls short of independent ones (1.94 for Hanning, many channels)."""
        lags = np.arange(1, min(self.lags.size, n_channels))
        return float(1.0 + 2.0 * np.sum((1.0 - lags / n_channels) * self.lags[lags] ** 2))


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


def resolution_in_channels(response: SpectralResponse) -> float:
    """Full width at half maximum of a channel's response to a narrow line, in channels: 2.0, 1.16, 0.99 for Hanning and N = 1, 2, 4."""
    taps = response.taps
    native = np.arange(taps.size) - (taps.size - 1) / 2
    offset = np.linspace(0.0, taps.size, 20_001)
    profile = np.sinc(offset[:, None] - native) @ taps
    below = int(np.argmax(profile < profile[0] / 2))
    x = np.interp(profile[0] / 2, [profile[below], profile[below - 1]], [offset[below], offset[below - 1]])
    return float(2.0 * x / response.averaging)


def detect_response(window: SpectralWindow, telescope: str) -> tuple[SpectralResponse, str]:
    """Spectral response of a window, and in words what it was read from.

    The correlator's own words (SDM_WINDOW_FUNCTION, SDM_NUM_BIN) come first, except where RESOLUTION contradicts them; then RESOLUTION over
    channel width: about 2, 1.16 or 0.99 is Hanning with 1, 2 or 4 channels averaged. A ratio of exactly 1 is taken as no smoothing.
    """
    ratio = window.resolution / window.width
    if window.window_function.upper() == "HANNING" and window.bins >= 1 and not np.isclose(ratio, 1.0, atol=1e-6):
        return SpectralResponse(hanning=True, averaging=window.bins), f"SDM_WINDOW_FUNCTION HANNING, SDM_NUM_BIN {window.bins}"
    words = f"RESOLUTION is {ratio:.3f} channel widths"
    if ratio <= 0:
        return SpectralResponse(hanning=False), "RESOLUTION is not given: no smoothing assumed"
    if ratio > 1.6:
        return SpectralResponse(hanning=True, averaging=1), words
    if ratio > 1.08:
        return SpectralResponse(hanning=True, averaging=2), words
    if telescope.upper().startswith("ALMA") and abs(ratio - 1.0) > 1e-6:
        return SpectralResponse(hanning=True, averaging=4), words
    return SpectralResponse(hanning=False), words


def frame_factor(time: float, position: FloatArray, phase_centre: tuple[float, float], *, stored: str, wanted: str) -> float:
    """Frequency in one rest frame over frequency in another, for a source at the phase centre. Needs no network.

    Parameters
    ----------
    time
        s (modified Julian date times 86400, UTC).
    position
        Geocentric position of the observatory (ITRF), m, shape (3,).
    phase_centre
        Right ascension and declination (ICRS), deg.
    stored, wanted
        Frames: ``"TOPO"``, ``"LSRK"``, ``"BARY"`` or ``"GEO"``.

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
    return _from_topocentre(time, position, phase_centre, wanted) / _from_topocentre(time, position, phase_centre, stored)


_ASTROPY_FRAMES = {"TOPO": None, "LSRK": "lsrk", "BARY": "icrs", "GEO": "gcrs"}


def _from_topocentre(time: float, position: FloatArray, phase_centre: tuple[float, float], frame: str) -> float:
    if frame == "TOPO":
        return 1.0
    from astropy import units
    from astropy.coordinates import EarthLocation, SkyCoord, SpectralCoord
    from astropy.time import Time
    from astropy.utils import iers

    with warnings.catch_warnings(), iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        warnings.simplefilter("ignore")
        moment = Time(time / 86400.0, format="mjd", scale="utc")
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
