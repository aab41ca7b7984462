"""Noise of a mock observation: system temperatures, weights, channels correlated by the correlator's response."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.sky import response_taps

Array = NDArray[np.float64]

SYSTEM_TEMPERATURE_SCATTER = 0.2
"""Log-normal scatter of the antennas' system temperatures."""


def system_temperature(random: np.random.Generator, antennas: int, *, scatter: float = SYSTEM_TEMPERATURE_SCATTER) -> Array:
    """Relative system temperatures of median 1, shape (antenna, 2): each polarisation has a receiver of its own."""
    return np.exp(scatter * random.standard_normal((antennas, 2)))


def baseline_sigma(temperature: Array, first: NDArray[np.integer], second: NDArray[np.integer]) -> Array:
    """Relative noise of each row's baseline, ``sqrt(T_i T_j)`` (radiometer equation), shape (row, 2)."""
    sigma: Array = np.sqrt(temperature[first] * temperature[second])
    return sigma


def correlated_noise(random: np.random.Generator, rows: int, channels: int, *, averaging: int = 1) -> NDArray[np.complex128]:
    """Complex noise of unit standard deviation in its real and in its imaginary part, shape (row, 2, chan).

    White over native channels, then smoothed with the correlator's response: lag-1 correlation 0.667 / 0.300 / 0.115 for
    ``averaging`` 1 / 2 / 4.
    """
    taps = response_taps(averaging)
    native = channels * averaging + 2
    white = random.standard_normal((rows, 2, native, 2)).view(np.complex128)[..., 0]
    smooth = sum(tap * white[..., k : k + averaging * channels : averaging] for k, tap in enumerate(taps))
    result: NDArray[np.complex128] = smooth / np.sqrt(np.sum(taps**2))
    return result
