"""Reading a measurement set: checked when opened, streamed in chunks. The one place where data are conjugated to the in-house sign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.measurement_set_tables import (
    bound_caches,
    casacore_errors,
    open_table,
    read_antennas,
    read_fields,
    read_hands,
    read_windows,
    scan_rows,
    telescope_name,
    time_scale,
)
from supermage.data_reduction.set_notes import flag_reasons, integration_time, system_temperature
from supermage.data_reduction.sources import Contents, VisibilitySource, make_chunk, rows_at_once
from supermage.data_reduction.visibilities import ExecutionBlock, VisibilityChunk
from supermage.errors import DataError


class MeasurementSet(VisibilitySource):
    """One field of a measurement set, open for reading. Its attributes are those of `VisibilitySource`.

    Parameters
    ----------
    path
        Folder of the measurement set.
    field
        Name or number of the field; may be left out when the set holds one.
    spectral_window
        Number of the spectral window; all windows of the field when left out.
    gap
        Two stretches of time further apart than this are two execution blocks, hours.

    Raises
    ------
    DataError
        If the set is missing, truncated, empty or a mosaic, lacks a table, or has no such field, window or parallel hand.
    """

    def __init__(self, path: str | Path, *, field: str | int | None = None, spectral_window: int | None = None, gap: float = 6.0) -> None:
        super().__init__(path)
        self._table = open_table(self.path)
        try:
            with casacore_errors(self.path):
                bound_caches(self._table)
                self._read_headers(field, spectral_window, gap)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    def _read_headers(self, field: str | int | None, spectral_window: int | None, gap: float) -> None:
        table = self._table
        columns = table.colnames()
        candidates = [name for name in ("CORRECTED_DATA", "DATA") if name in columns and table.iscelldefined(name, 0)]
        if not candidates:
            raise DataError(f"a measurement set must hold DATA or CORRECTED_DATA, got neither in {self.path}")
        self.data_column = candidates[0]
        groups = scan_rows(table, gap_seconds=gap * 3600.0)
        self.telescope = telescope_name(self.path)
        self.time_scale = time_scale(str(table.getcolkeywords("TIME").get("MEASINFO", {}).get("Ref", "UTC")), self.path)
        positions, diameters = read_antennas(self.path)
        contents = Contents(fields=read_fields(self.path), groups=groups, windows=read_windows(self.path), hands=read_hands(self.path),
                            positions=positions, diameters=diameters)
        self._settle(contents, field, spectral_window)

    def notes(self, window: int) -> dict[str, Any]:
        """What the set notes of its noise and flags; see `VisibilitySource.notes`."""
        with casacore_errors(self.path):
            seconds = integration_time(self._table)
        return {"system_temperature": system_temperature(self.path, window), "seconds": seconds, "flag_reasons": flag_reasons(self.path)}

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        """Stream the cross-correlations of a block; see `VisibilitySource.chunks`."""
        with casacore_errors(self.path):
            selection = self._table.query(
                f"FIELD_ID IN [{','.join(map(str, block.fields))}] && DATA_DESC_ID=={block.data_description} && "
                f"OBSERVATION_ID=={block.observation} && TIME>={block.start!r} && TIME<={block.stop!r} && ANTENNA1!=ANTENNA2")
        try:
            with casacore_errors(self.path):
                reader = _BlockReader(selection, block, self.data_column, channels)
                total, rows = selection.nrows(), rows_at_once(block, channels, rows)
            for start in range(0, total, rows):
                with casacore_errors(self.path):
                    chunk = reader.read(start, min(rows, total - start))
                yield chunk
        finally:
            selection.close()


class _BlockReader:
    """Reads rows of one block: chosen channels in ascending frequency, parallel hands, weights that are zero for what cannot be used."""

    def __init__(self, table: Any, block: ExecutionBlock, data_column: str, channels: slice) -> None:
        self._table, self._block, self._column = table, block, data_column
        total = block.window.n_channel
        first, stop, _ = channels.indices(total)
        self._stored = (total - stop, total - first - 1) if block.window.descending else (first, stop - 1)
        self._weight_columns = [name for name in ("WEIGHT_SPECTRUM", "WEIGHT", "SIGMA") if name in table.colnames()]
        if "WEIGHT_SPECTRUM" in self._weight_columns and not self._has_spectrum():
            self._weight_columns.remove("WEIGHT_SPECTRUM")
        if not any(table.iscelldefined(name, 0) for name in self._weight_columns):
            raise DataError(f"a measurement set must hold weights (WEIGHT_SPECTRUM, WEIGHT or SIGMA), got none for {block.name}")

    def _has_spectrum(self) -> bool:
        table = self._table
        return bool(table.iscelldefined("WEIGHT_SPECTRUM", 0)
                    and table.getcell("WEIGHT_SPECTRUM", 0).shape == table.getcell(self._column, 0).shape)

    def _hands(self, array: NDArray[Any]) -> NDArray[Any]:
        """From casatools' (polarisation, ..., row) to (row, ..., hand)."""
        rows_first = array.T
        if self._block.hand_index == tuple(range(rows_first.shape[-1])):
            return rows_first
        return rows_first[..., list(self._block.hand_index)]

    def _channels(self, column: str, start: int, count: int) -> NDArray[Any]:
        first, last = self._stored
        array = self._table.getcolslice(column, blc=[0, first], trc=[-1, last], incr=[1, 1], startrow=start, nrow=count)
        array = self._hands(array)
        return array[:, ::-1] if self._block.window.descending else array

    def _weights(self, start: int, count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        name = next(name for name in self._weight_columns if self._table.iscelldefined(name, start))
        if name == "WEIGHT_SPECTRUM":
            return np.array(self._channels(name, start, count), dtype=np.float32)
        values = self._hands(self._table.getcol(name, startrow=start, nrow=count))
        if name == "SIGMA":
            with np.errstate(divide="ignore", invalid="ignore"):
                values = 1.0 / np.square(values)
        return np.array(np.broadcast_to(values[:, None, :], shape), dtype=np.float32)

    def read(self, start: int, count: int) -> VisibilityChunk:
        table = self._table
        data = np.conj(self._channels(self._column, start, count)).astype(np.complex64, copy=False)
        flag = self._channels("FLAG", start, count) | table.getcol("FLAG_ROW", startrow=start, nrow=count)[:, None, None]
        weight = self._weights(start, count, data.shape)
        uvw, antenna1, antenna2, time = (np.asarray(table.getcol(name, startrow=start, nrow=count))
                                         for name in ("UVW", "ANTENNA1", "ANTENNA2", "TIME"))
        return make_chunk(self._block, data=data, weight=weight, flag=flag, uvw=np.ascontiguousarray(uvw.T),
                          antenna1=antenna1.astype(np.int64), antenna2=antenna2.astype(np.int64), time=time,
                          remedy="flag them first (flagdata, mode='clip', clipminmax=[])")
