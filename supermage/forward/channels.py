"""The spectral axis of the model: channel edges in velocity and the correlator's response, as one matrix per block."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from supermage.constants import SPEED_OF_LIGHT
from supermage.errors import DomainError

HANNING = (0.25, 0.5, 0.25)
_UNIFORM = 1e-3

Number = TypeVar("Number", float, Tensor)


def velocity_of(frequency: NDArray[np.float64], rest_frequency: float, convention: str) -> NDArray[np.float64]:
    """Velocity, km/s, of frequencies in the velocity frame: radio ``c (1 - nu / nu0)`` or optical ``c (nu0 / nu - 1)``.

    Raises
    ------
    DomainError
        If the convention is neither.
    """
    if convention == "radio":
        return SPEED_OF_LIGHT * (1.0 - frequency / rest_frequency)
    if convention == "optical":
        return SPEED_OF_LIGHT * (rest_frequency / frequency - 1.0)
    raise DomainError(f"convention must be 'radio' or 'optical', got {convention!r}")


def apparent_over_true(systemic_velocity: Number, convention: str) -> Number:
    """Velocity difference on the axis of a convention over that in the rest frame of a galaxy at this systemic velocity, km/s.

    A source receding at v inside the galaxy has ``1 + z = (1 + z_sys)(1 + v / c)``: to first order in v it is seen at
    ``v_sys + v (1 - v_sys / c)`` in the radio convention and at ``v_sys + v (1 + v_sys / c)`` in the optical one. What is left out,
    ``v^2 / c``, is 0.3 km/s at 300 km/s, like the relativistic terms of that order.
    """
    ratio = systemic_velocity / SPEED_OF_LIGHT
    return 1.0 - ratio if convention == "radio" else 1.0 + ratio


class ChannelResponse:
    """Edges of the native sub-channels of every block, and the matrix from the line's integral at those edges to channel flux densities.

    A channel is the mean of ``averaging`` native sub-channels, each Hanning-smoothed over its neighbours when ``hanning``. The
    edges reach beyond the band far enough that emission just outside it leaks in, as it does in the correlator.

    Parameters
    ----------
    frequency
        Channel centres, TOPO, Hz, shape (block, chan), evenly spaced in each block, either order.
    topo_to_frame
        Factor from TOPO to the velocity frame for each block.
    rest_frequency
        Hz.
    convention
        ``"radio"`` or ``"optical"``.
    hanning, averaging
        Correlator settings; with ``taps``, ``averaging`` is the number of native channels from one channel to the next.
    taps
        Weights of the native channels in one channel, symmetric about its centre, sum 1, in place of what ``hanning`` and ``averaging``
        make them (`SpectralResponse.line_taps`).

    Attributes
    ----------
    frequency, convention
        As given.
    edges
        Velocity of the sub-channel edges, km/s, shape (block, edge).
    matrix
        Shape (block, chan, edge): channel flux density = matrix @ (cumulative line flux, Jy km/s, at the edges).
    first, taps
        The same matrix as a band: channel c reads the edges from ``first[c]`` on, with weights ``taps[block, c]``.
    """

    def __init__(
        self,
        frequency: NDArray[np.float64],
        topo_to_frame: NDArray[np.float64],
        rest_frequency: float,
        convention: str,
        *,
        hanning: bool,
        averaging: int,
        taps: NDArray[np.float64] | None = None,
    ) -> None:
        frequency = np.asarray(frequency, dtype=np.float64)
        factor = np.asarray(topo_to_frame, dtype=np.float64)
        self.frequency, self.convention = frequency, convention
        _check(frequency, factor, rest_frequency, averaging)
        count = frequency.shape[1]
        step = (frequency[:, -1:] - frequency[:, :1]) / (count - 1)
        boxcar = np.full(averaging, 1.0 / averaging)
        weights = np.asarray(taps, dtype=np.float64) if taps is not None else np.convolve(boxcar, HANNING) if hanning else boxcar
        native = (count - 1) * averaging + weights.size
        position = (np.arange(native + 1) - 0.5 * (weights.size - averaging)) / averaging - 0.5
        topocentric = frequency[:, :1] + step * position
        self.edges = velocity_of(topocentric * factor[:, None], rest_frequency, convention)
        smoothing = np.zeros((count, native))
        for channel in range(count):
            smoothing[channel, channel * averaging : channel * averaging + weights.size] = weights
        density = smoothing[None] / np.diff(self.edges, axis=1)[:, None, :]
        self.matrix = np.zeros((frequency.shape[0], count, self.edges.shape[1]))
        self.matrix[:, :, 1:] += density
        self.matrix[:, :, :-1] -= density
        self.first = np.arange(count) * averaging
        reach = self.first[:, None] + np.arange(weights.size + 1)
        self.taps = np.take_along_axis(self.matrix, np.broadcast_to(reach, (frequency.shape[0], *reach.shape)), axis=2)


def _check(frequency: NDArray[np.float64], factor: NDArray[np.float64], rest_frequency: float, averaging: int) -> None:
    if frequency.ndim != 2 or frequency.shape[1] < 2:
        raise DomainError(f"frequency must have shape (block, chan) with at least 2 channels, got {frequency.shape}")
    if not (np.isfinite(frequency).all() and frequency.min() > 1e6):
        raise DomainError(f"frequency must be in Hz and above 1 MHz, got {frequency.min()}: GHz passed for Hz?")
    if not rest_frequency > 1e6:
        raise DomainError(f"rest_frequency must be in Hz and above 1 MHz, got {rest_frequency}: GHz passed for Hz?")
    if factor.shape != frequency.shape[:1]:
        raise DomainError(f"topo_to_frame must have one factor per block, got shape {factor.shape} for {frequency.shape[0]} blocks")
    if averaging < 1:
        raise DomainError(f"averaging must be at least 1, got {averaging}")
    spacing = np.diff(frequency, axis=1)
    mean = spacing.mean(axis=1, keepdims=True)
    if (np.abs(mean) == 0).any() or (np.abs(spacing - mean) > _UNIFORM * np.abs(mean)).any():
        raise DomainError("channels of a block must be evenly spaced, got spacings that differ")
