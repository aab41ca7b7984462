"""Channels: their response and correlation, the velocity frame of an execution block, and the choice of channels for a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT
from supermage.errors import DomainError

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
