"""GriddedVisibilities: what a measurement set becomes, and the only thing that a fit needs to know of the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.spectral import SpectralResponse, velocity_of_frequency
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

_ARRAYS = ("cell_u", "cell_v", "mean", "standard_error", "degrees_of_freedom", "cell_scale", "cell_degrees", "moderated_scale", "count",
           "offset_mean", "offset_second", "frequency", "channel_width", "topo_to_frame")

NOISES = ("moderated", "own", "pooled")
PILLBOX, KAISER_BESSEL = "pillbox", "kaiser-bessel"


@dataclass(frozen=True, eq=False)
class GriddedVisibilities:
    """Weighted means of the visibilities in the occupied cells of the uv half plane, one set per execution block and native channel.

    The sign is ``V(u, v) = sum I exp(-2 pi i (u l + v m))``, l east and m north, u and v as in the measurement set.

    Attributes
    ----------
    grid
        The geometry, shared with the forward model.
    cell_u, cell_v
        Cell indices, shape (cell,); u >= 0. A cell's centre lies at ``index * grid.cell_size`` metres.
    mean
        Complex mean, Jy, shape (block, chan, cell); 0 where a cell is empty.
    standard_error
        Standard error of the real part, and of the imaginary part, Jy, shape (block, chan, cell); ``inf`` where empty. It rests on the
        cell's moderated noise; :meth:`noise_of` gives others.
    degrees_of_freedom
        Of the noise scale behind ``standard_error``, shape (block, chan, cell); the same in every channel of a cell.
    count
        Number of visibilities (both hands counted), shape (block, chan, cell).
    offset_mean
        Weighted mean offset (u, v) of the visibilities from the cell's centre, m, shape (block, chan, cell, 2).
    offset_second
        Weighted mean of the offsets' products (uu, uv, vv), m^2, shape (block, chan, cell, 3).
    frequency
        Native channel centres, ascending, Hz, shape (block, chan).
    channel_width
        Hz, positive, shape (block,).
    topo_to_frame
        Frequency in ``frame`` over native frequency, shape (block,).
    hanning, averaging
        The channel response: smoothed by a Hanning window, then averaged on line over ``averaging`` channels.
    block_names
        Names of the execution blocks.
    phase_centre
        Right ascension and declination (ICRS), deg.
    dish_diameter
        m.
    primary_beam_factor
        FWHM of the primary beam in units of wavelength / dish diameter.
    rest_frequency
        Hz.
    frame, convention
        Of every velocity: ``"LSRK"``, ``"BARY"`` or ``"TOPO"``; ``"radio"`` or ``"optical"``.
    cell_scale, cell_degrees
        The cell's own noise variance over the execution block's, and its degrees of freedom (0: not measured), shape (block, cell).
    moderated_scale
        The moderated variance behind ``standard_error`` over the block's, shape (block, cell). Where these three are not given, the
        cell's own noise and the block's are that of ``standard_error``.
    response_steps
        What was done to the channels after ``hanning`` and ``averaging``, see `SpectralResponse`.
    provenance
        What was read, dropped and assumed, in words and numbers that JSON can hold.

    Raises
    ------
    DataError
        If shapes disagree or a number that must be finite is not.
    """

    grid: UVGrid
    cell_u: NDArray[np.int32]
    cell_v: NDArray[np.int32]
    mean: NDArray[np.complex128]
    standard_error: FloatArray
    degrees_of_freedom: FloatArray
    count: NDArray[np.int32]
    offset_mean: FloatArray
    offset_second: FloatArray
    frequency: FloatArray
    channel_width: FloatArray
    topo_to_frame: FloatArray
    hanning: bool
    averaging: int
    block_names: tuple[str, ...]
    phase_centre: tuple[float, float]
    dish_diameter: float
    primary_beam_factor: float
    rest_frequency: float
    frame: str = "LSRK"
    convention: str = "radio"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    cell_scale: FloatArray = field(default_factory=lambda: np.zeros(0))
    cell_degrees: FloatArray = field(default_factory=lambda: np.zeros(0))
    moderated_scale: FloatArray = field(default_factory=lambda: np.zeros(0))
    response_steps: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.cell_scale.size and self.degrees_of_freedom.ndim == 3:
            degrees = self.degrees_of_freedom.max(axis=1)
            ones = np.ones(degrees.shape)
            for name, value in (("cell_scale", ones), ("cell_degrees", degrees), ("moderated_scale", ones)):
                object.__setattr__(self, name, value)
        self._check_shapes()
        for name in _ARRAYS:
            if name != "standard_error" and not np.all(np.isfinite(getattr(self, name))):
                raise DataError(f"{name} of gridded visibilities must be finite, got NaN or infinity")
        if np.any(np.isnan(self.standard_error)) or np.any(self.standard_error <= 0):
            raise DataError("standard_error of gridded visibilities must be positive, infinite where empty, got NaN, zero or less")
        if not np.any(np.isfinite(self.standard_error)):
            raise DataError("gridded visibilities must hold unflagged data, got none")
        if np.any(np.diff(self.frequency, axis=1) <= 0):
            raise DataError("frequencies of gridded visibilities must ascend along the channels, got a channel that does not")
        lowest = min(float(self.frequency.min()), self.rest_frequency)
        if not lowest > 1e6:
            raise DataError(f"frequencies must be in Hz and above 1 MHz, got {lowest:g}: GHz passed for Hz?")

    def _check_shapes(self) -> None:
        block, chan = self.frequency.shape if self.frequency.ndim == 2 else (0, 0)
        cell = self.cell_u.size
        wanted = {"cell_u": (cell,), "cell_v": (cell,), "offset_mean": (block, chan, cell, 2), "offset_second": (block, chan, cell, 3),
                  "frequency": (block, chan), "channel_width": (block,), "topo_to_frame": (block,),
                  **dict.fromkeys(("cell_scale", "cell_degrees", "moderated_scale"), (block, cell))}
        for name in _ARRAYS:
            shape, got = wanted.get(name, (block, chan, cell)), getattr(self, name).shape
            if got != shape or 0 in shape:
                raise DataError(f"{name} of gridded visibilities must have shape {shape} without an empty axis, got {got}")
        if len(self.block_names) != block:
            raise DataError(f"gridded visibilities need one name a block, got {len(self.block_names)} names for {block} blocks")

    @property
    def window(self) -> str:
        """`PILLBOX`, or `KAISER_BESSEL` where the paper's gridding was asked for."""
        return str(self.provenance.get("window", PILLBOX))

    @property
    def n_block(self) -> int:
        """Number of execution blocks."""
        return self.frequency.shape[0]

    @property
    def n_channel(self) -> int:
        """Number of channels of each block."""
        return self.frequency.shape[1]

    @property
    def n_cell(self) -> int:
        """Number of occupied cells."""
        return self.cell_u.size

    def noise_of(self, kind: str = "moderated") -> tuple[FloatArray, FloatArray]:
        """Standard errors (block, chan, cell) and degrees of freedom (block, cell) of the cells' noise.

        Parameters
        ----------
        kind
            ``"moderated"`` (empirical Bayes, the default everywhere), ``"own"`` (each cell's alone; the block's where it was not measured)
            or ``"pooled"`` (the block's, for every cell).

        Raises
        ------
        DataError
            If the kind is none of these.
        """
        if kind not in NOISES:
            raise DataError(f"the noise must be one of {', '.join(NOISES)}, got '{kind}'")
        if kind == "moderated":
            return self.standard_error, self.degrees_of_freedom.max(axis=1)
        measured = (self.cell_degrees > 0) & (kind == "own")
        together = np.maximum(self.cell_degrees.sum(axis=1, keepdims=True), 1.0)
        wanted = np.where(measured, self.cell_scale, 1.0)
        error = self.standard_error * np.sqrt(wanted / self.moderated_scale)[:, None, :]
        return error, np.where(measured, self.cell_degrees, together)

    @property
    def weight(self) -> FloatArray:
        """Inverse variance of the real part, Jy^-2, shape (block, chan, cell); 0 where a cell is empty."""
        return 1.0 / self.standard_error**2

    @property
    def response(self) -> SpectralResponse:
        """The channels' spectral response."""
        return SpectralResponse(hanning=self.hanning, averaging=self.averaging, steps=self.response_steps)

    @property
    def frame_frequency(self) -> FloatArray:
        """Channel centres in ``frame``, Hz, shape (block, chan)."""
        return self.frequency * self.topo_to_frame[:, None]

    @property
    def velocity(self) -> FloatArray:
        """Velocity of the channel centres in ``frame`` and ``convention``, km/s, shape (block, chan)."""
        return velocity_of_frequency(self.frame_frequency, self.rest_frequency, self.convention)

    @property
    def velocity_width(self) -> float:
        """Channel width at the line, km/s, in the radio convention."""
        return float(np.mean(self.channel_width * self.topo_to_frame) / self.rest_frequency * SPEED_OF_LIGHT)

    def uv_wavelengths(self) -> tuple[FloatArray, FloatArray]:
        """Mean u and v of the visibilities in each cell, in wavelengths of the native channel, shape (block, chan, cell)."""
        per_metre = self.frequency[:, :, None] / SPEED_OF_LIGHT_M_S
        size = self.grid.cell_size
        return ((self.cell_u * size + self.offset_mean[..., 0]) * per_metre, (self.cell_v * size + self.offset_mean[..., 1]) * per_metre)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all arrays and the geometry; provenance does not enter."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
            digest.update(array.view(np.uint8).data)
        digest.update(json.dumps(self._scalars(), sort_keys=True).encode())
        return digest.hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write a netCDF file, whole or not at all: the previous file survives a failure. See `open_visibilities`."""
        from supermage.data_reduction.gridded_file import write_gridded

        return write_gridded(self, path)

    def replace(self, **changes: Any) -> GriddedVisibilities:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def _scalars(self) -> dict[str, Any]:
        # absent where there are none: the checksum of files that knew no steps
        steps = {"response_steps": json.dumps(self.response_steps)} if self.response_steps else {}
        return {**steps, "n_pixel": int(self.grid.n_pixel), "pixel_scale": float(self.grid.pixel_scale),
                "reference_frequency": float(self.grid.reference_frequency), "hanning": int(self.hanning), "averaging": int(self.averaging),
                "block_names": list(self.block_names), "right_ascension": float(self.phase_centre[0]),
                "declination": float(self.phase_centre[1]), "dish_diameter": float(self.dish_diameter),
                "primary_beam_factor": float(self.primary_beam_factor), "rest_frequency": float(self.rest_frequency),
                "frame": self.frame, "convention": self.convention}


def open_visibilities(path: str | Path) -> GriddedVisibilities:
    """Open gridded visibilities written by `GriddedVisibilities.save`.

    Raises
    ------
    DataError
        If the file is missing, truncated, foreign, of a newer version, or was altered (its checksum is verified).
    """
    from supermage.data_reduction.gridded_file import read_gridded

    return read_gridded(path)
