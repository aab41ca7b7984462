"""Visibilities on their way from a measurement set to the grid: windows, execution blocks, chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SpectralWindow:
    """A spectral window as it stands in the measurement set.

    Attributes
    ----------
    number
        Its row in SPECTRAL_WINDOW.
    frequency
        Channel centres in the stored order, Hz, shape (chan,).
    width
        Channel width, Hz, positive.
    resolution
        Effective resolution, Hz (RESOLUTION); 0 when the set does not say.
    frame
        Frame of the frequencies, such as ``"TOPO"``.
    window_function, bins
        What the correlator says of itself (SDM_WINDOW_FUNCTION, SDM_NUM_BIN); empty and 0 when the set does not say.
    """

    number: int
    frequency: NDArray[np.float64]
    width: float
    resolution: float
    frame: str
    window_function: str = ""
    bins: int = 0

    @property
    def n_channel(self) -> int:
        """Number of channels."""
        return self.frequency.size

    @property
    def descending(self) -> bool:
        """Whether the frequency falls along the stored channels."""
        return bool(self.frequency.size > 1 and self.frequency[0] > self.frequency[-1])

    @property
    def ascending_frequency(self) -> NDArray[np.float64]:
        """Channel centres, ascending, Hz, shape (chan,)."""
        return self.frequency[::-1] if self.descending else self.frequency


@dataclass(frozen=True, eq=False)
class ExecutionBlock:
    """Rows that share an observation, a spectral window and a stretch of time.

    Attributes
    ----------
    name
        Date of the start, observation and spectral window, in words.
    observation, data_description
        OBSERVATION_ID and DATA_DESC_ID of the rows.
    window
        Its spectral window.
    hands
        Names of the parallel hands that are read, such as ``("XX", "YY")``.
    hand_index
        Their positions along the stored polarisation axis.
    fields
        FIELD_ID of the rows.
    start, stop
        First and last time stamp, s (modified Julian date times 86400, UTC).
    rows
        Number of rows, autocorrelations left out.
    autocorrelations
        Number of rows left out for being autocorrelations.
    """

    name: str
    observation: int
    data_description: int
    window: SpectralWindow
    hands: tuple[str, ...]
    hand_index: tuple[int, ...]
    fields: tuple[int, ...]
    start: float
    stop: float
    rows: int
    autocorrelations: int


@dataclass(frozen=True, eq=False)
class VisibilityChunk:
    """Some rows of one execution block, channels ascending in frequency, parallel hands only, in the in-house sign.

    Attributes
    ----------
    uvw
        As stored, m, shape (row, 3).
    data
        ``V = sum I exp(-2 pi i (u l + v m))``, Jy, shape (row, chan, hand); 0 where ``weight`` is 0.
    weight
        Jy^-2 (to a scale), shape (row, chan, hand); 0 for what is flagged or has no usable weight.
    antenna1, antenna2
        Shape (row,).
    time
        s (modified Julian date times 86400, UTC), shape (row,).
    flagged, unweighted
        How many of ``weight.size`` were flagged, and how many more had a zero, negative or non-finite weight.
    """

    uvw: NDArray[np.float64]
    data: NDArray[np.complex64]
    weight: NDArray[np.float32]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    time: NDArray[np.float64]
    flagged: int
    unweighted: int
