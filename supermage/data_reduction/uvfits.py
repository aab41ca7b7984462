"""Reading a UVFITS file: the same arrays that a measurement set made from it by importuvfits would give, without CASA.

UVFITS and the measurement set agree in everything that has a sign: the order of the two antennas, u, v and w, and the phase. The data are
conjugated to the in-house sign here, as `measurement_set` does with its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from supermage.data_reduction import uvfits_tables as tables
from supermage.data_reduction.measurement_set_tables import group_rows, time_scale
from supermage.data_reduction.sources import Contents, VisibilitySource, make_chunk, rows_at_once
from supermage.data_reduction.visibilities import ExecutionBlock, VisibilityChunk
from supermage.errors import DataError

_SLICE_BYTES = 32 * 2**20


class UVFITS(VisibilitySource):
    """One field of a UVFITS file (random groups), open for reading. Its attributes are those of `VisibilitySource`.

    Every IF of every FREQSEL is a spectral window, numbered as importuvfits does. A weight that is not positive is a flag. A dish whose
    diameter the file does not know has none. Times are as stored, in the scale that the table AN names (TIMSYS).

    Parameters
    ----------
    path
        The file.
    field
        Name of the source, or its number in the table SU less 1; may be left out when the file holds one.
    spectral_window
        Number of the spectral window; all windows of the field when left out.
    gap
        Two stretches of time further apart than this are two execution blocks, hours.

    Raises
    ------
    DataError
        If the file is missing, no UVFITS, truncated, empty or a mosaic, lacks a table, or has no such field, window or parallel hand.
    """

    def __init__(self, path: str | Path, *, field: str | int | None = None, spectral_window: int | None = None, gap: float = 6.0) -> None:
        super().__init__(path)
        if not self.path.exists():
            raise DataError(f"a UVFITS file must exist, got {self.path}")
        if not self.path.is_file():
            raise DataError(f"a UVFITS file must be a file, got the folder {self.path}")
        with tables.fits_errors(self.path):
            self._file = self.path.open("rb")
        try:
            with tables.fits_errors(self.path):
                if self._file.read(6) != b"SIMPLE":
                    raise DataError(f"a UVFITS file must be FITS, got {self.path}, which does not begin with SIMPLE")
                self._read_headers(field, spectral_window, gap)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_headers(self, field: str | int | None, spectral_window: int | None, gap: float) -> None:
        with fits.open(self.path, mode="readonly", memmap=False, lazy_load_hdus=True) as hdus:
            header = hdus[0].header
            self._groups = groups = tables.read_groups(self.path, hdus[0])
            sources = tables.find_tables(hdus, "SU")
            self._single = not sources
            antennas = tables.find_tables(hdus, "AN")
            positions, diameters = tables.read_antennas(self.path, antennas)
            self.time_scale = time_scale(str(antennas[0].header.get("TIMSYS") or header.get("TIMSYS") or "UTC").strip(), self.path)
            windows = tables.read_windows(self.path, header, groups, tables.find_tables(hdus, "FQ"),
                                          tables.frequency_frame(header, sources))
            fields = tables.read_fields(self.path, header, groups, sources)
        telescope = str(header.get("TELESCOP", "unknown")).strip()
        self.telescope = {"HATCREEK": "BIMA"}.get(telescope, telescope)
        self.data_column = "DATA"
        contents = Contents(fields=fields, groups=group_rows(self._index(), gap_seconds=gap * 3600.0, what="a UVFITS file", path=self.path),
                            windows=windows, hands=tables.read_hands(groups, windows), positions=positions, diameters=diameters,
                            tables=("AIPS SU (less 1)", "AIPS AN (less 1)"))
        self._settle(contents, field, spectral_window)

    def _slices(self) -> Iterator[tuple[int, NDArray[Any]]]:
        groups = self._groups
        step = max(1, _SLICE_BYTES // (groups.width * groups.number.itemsize))
        for start in range(0, groups.count, step):
            yield start, groups.slice(self._file, start, min(step, groups.count - start))

    def _index(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What measurement sets call the index columns, of every IF's rows."""
        groups = self._groups
        for _, raw in self._slices():
            first, second = groups.antennas(raw)
            columns = {"FIELD_ID": self._field_numbers(raw), "OBSERVATION_ID": np.zeros(len(raw), dtype=np.int64), "ANTENNA1": first,
                       "ANTENNA2": second, "TIME": groups.time(raw)}
            window = self._first_window(raw)
            for one in range(groups.n_if):
                yield {**columns, "DATA_DESC_ID": window + one}

    def _field_numbers(self, raw: NDArray[Any]) -> NDArray[np.int64]:
        return np.zeros(len(raw), dtype=np.int64) if self._single else self._groups.integers(raw, "SOURCE", 1) - 1

    def _first_window(self, raw: NDArray[Any]) -> NDArray[np.int64]:
        return (self._groups.integers(raw, "FREQSEL", 1) - 1) * self._groups.n_if

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        """Stream the cross-correlations of a block; see `VisibilitySource.chunks`."""
        waiting, rows = np.zeros(0, dtype=np.int64), rows_at_once(block, channels, rows)
        stream = self._slices()
        while True:
            with tables.fits_errors(self.path):
                start, raw = next(stream, (-1, None))
                if raw is not None:
                    waiting = np.concatenate([waiting, start + np.flatnonzero(self._belongs(block, raw))])
            while waiting.size >= rows or (raw is None and waiting.size):
                with tables.fits_errors(self.path):
                    chunk = self._read(block, channels, waiting[:rows])
                yield chunk
                waiting = waiting[rows:]
            if raw is None:
                return

    def _belongs(self, block: ExecutionBlock, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Which groups are cross-correlations of the block."""
        groups, n_if = self._groups, self._groups.n_if
        time, (first, second) = groups.time(raw), groups.antennas(raw)
        return (np.isin(self._field_numbers(raw), block.fields) & (self._first_window(raw) == block.data_description // n_if * n_if)
                & (time >= block.start) & (time <= block.stop) & (first != second))

    def _read(self, block: ExecutionBlock, channels: slice, numbers: NDArray[np.int64]) -> VisibilityChunk:
        groups, rows, window = self._groups, numbers - numbers[0], block.window
        raw = groups.slice(self._file, int(numbers[0]), int(rows[-1]) + 1)
        head = raw[rows, :len(groups.parameter_names)]
        first, last, _ = channels.indices(window.n_channel)
        stored = slice(window.n_channel - last, window.n_channel - first) if window.descending else slice(first, last)
        arrays = groups.arrays(raw)[:, block.data_description % groups.n_if, stored]
        values = groups.scaled(arrays[rows][:, :, list(block.hand_index)])
        if window.descending:
            values = values[:, ::-1]
        data = np.empty(values.shape[:-1], dtype=np.complex64)
        data.real, data.imag = values[..., 0], -values[..., 1]
        antenna1, antenna2 = groups.antennas(head)
        return make_chunk(block, data=data, weight=np.abs(values[..., 2]), flag=values[..., 2] <= 0, uvw=groups.baselines(head),
                          antenna1=antenna1, antenna2=antenna2, time=groups.time(head), remedy="give them a weight of zero first")
