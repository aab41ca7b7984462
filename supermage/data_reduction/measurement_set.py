"""Reading a measurement set: checked when opened, streamed in chunks. The one place where data are conjugated to the in-house sign."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.measurement_set_tables import (
    PARALLEL_HANDS,
    Field,
    RowGroup,
    casacore_errors,
    open_table,
    read_antennas,
    read_fields,
    read_hands,
    read_windows,
    scan_rows,
    telescope_name,
)
from supermage.data_reduction.visibilities import ExecutionBlock, VisibilityChunk
from supermage.errors import DataError, nearest_name

_SAME_CENTRE_ARCSEC = 0.05


class MeasurementSet:
    """One field of a measurement set, open for reading. Use it in a ``with`` statement, or call `close`.

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

    Attributes
    ----------
    blocks
        Execution blocks in the order of time; at least one.
    phase_centre
        Right ascension and declination (ICRS), deg.
    field_name
        Name of the field.
    telescope
        Name of the array.
    observatory
        Mean geocentric position of the antennas, m, shape (3,).
    dish_diameters
        Diameters of the antennas that observed the field, m, ascending, without repetition.
    data_column
        ``"CORRECTED_DATA"`` where there is one, else ``"DATA"``.

    Raises
    ------
    DataError
        If the set is missing, truncated, empty or a mosaic, lacks a table, or has no such field, window or parallel hand.
    """

    def __init__(self, path: str | Path, *, field: str | int | None = None, spectral_window: int | None = None, gap: float = 6.0) -> None:
        self.path = Path(path)
        self._table = open_table(self.path)
        try:
            with casacore_errors(self.path):
                self._read_headers(field, spectral_window, gap)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MeasurementSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

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
        positions, diameters = read_antennas(self.path)
        groups = scan_rows(table, gap_seconds=gap * 3600.0)
        chosen = self._choose_field(read_fields(self.path), groups, field)
        groups = [group for group in groups if group.field in {one.number for one in chosen}]
        self.field_name = chosen[0].name
        self.phase_centre = chosen[0].centre
        self.telescope = telescope_name(self.path)
        used = sorted(set().union(*(group.antennas for group in groups)))
        self._check_numbers("ANTENNA", used, len(positions))
        self.observatory = positions[used].mean(axis=0)
        self.dish_diameters = tuple(float(d) for d in np.unique(diameters[used]))
        self.blocks = self._make_blocks(groups, spectral_window)

    def _choose_field(self, fields: list[Field], groups: list[RowGroup], wanted: str | int | None) -> list[Field]:
        observed = {group.field for group in groups}
        self._check_numbers("FIELD", observed, len(fields))
        present = [one for one in fields if one.number in observed]
        names = sorted({one.name for one in present})
        if wanted is None:
            chosen = present
        else:
            chosen = [one for one in present if one.name == wanted] or [one for one in present if str(one.number) == str(wanted)]
        if not chosen and any(wanted in (one.name, str(one.number), one.number) for one in fields):
            raise DataError(f"field '{wanted}' must hold rows, got none; fields with rows: {', '.join(names)}")
        if not chosen:
            raise DataError(f"the field must be one of {', '.join(names)}, got '{wanted}'{nearest_name(str(wanted), names)}")
        if max(one.separation(chosen[0]) for one in chosen) <= _SAME_CENTRE_ARCSEC:
            return chosen
        if len({one.name for one in chosen}) > 1:
            raise DataError(f"a set with several fields needs a choice by name, got none for {', '.join(names)} in {self.path}")
        raise DataError(f"a field must have one phase centre: mosaics are not supported, got {len(chosen)} pointings "
                        f"of '{chosen[0].name}' in {self.path}")

    def _check_numbers(self, table: str, numbers: Iterable[int], rows: int) -> None:
        wrong = [number for number in numbers if not 0 <= number < rows]
        if wrong:
            raise DataError(f"rows must point into the table {table}, which has numbers 0 to {rows - 1}, got {wrong[0]} in {self.path}")

    def _make_blocks(self, groups: list[RowGroup], spectral_window: int | None) -> tuple[ExecutionBlock, ...]:
        windows = read_windows(self.path)
        hands = read_hands(self.path)
        self._check_numbers("DATA_DESCRIPTION", {group.data_description for group in groups}, len(hands))
        numbers = sorted({hands[group.data_description].window for group in groups})
        self._check_numbers("SPECTRAL_WINDOW", numbers, len(windows))
        if spectral_window is not None and spectral_window not in numbers:
            raise DataError(f"the spectral window must be one of {', '.join(map(str, numbers))} for field '{self.field_name}', "
                            f"got {spectral_window}")
        blocks: dict[tuple[int, int, int], list[RowGroup]] = {}
        for group in groups:
            if spectral_window is None or hands[group.data_description].window == spectral_window:
                blocks.setdefault((group.stretch, group.observation, group.data_description), []).append(group)
        made = []
        for (_, observation, description), members in sorted(blocks.items()):
            found = hands[description]
            if not sum(member.crosses for member in members):
                continue
            if not found.names:
                raise DataError(f"a data description must hold a parallel hand ({', '.join(PARALLEL_HANDS.values())}), "
                                f"got {', '.join(found.all_names)} in {self.path}")
            start, stop = min(member.start for member in members), max(member.stop for member in members)
            made.append(ExecutionBlock(
                name=f"{_date(start)} observation {observation} window {found.window}", observation=observation,
                data_description=description, window=windows[found.window], hands=found.names, hand_index=found.index,
                fields=tuple(member.field for member in members),
                start=start, stop=stop, rows=sum(member.crosses for member in members),
                autocorrelations=sum(member.autocorrelations for member in members)))
        if not made:
            raise DataError(f"field '{self.field_name}' must hold cross-correlations, got none in {self.path}")
        return tuple(made)

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        """Stream the cross-correlations of a block.

        Parameters
        ----------
        block
            One of ``blocks``.
        channels
            Neighbouring channels, counted in ascending frequency.
        rows
            Rows a chunk.

        Raises
        ------
        DataError
            If an unflagged, weighted visibility is NaN or infinite, or the table cannot be read to its end.
        """
        with casacore_errors(self.path):
            selection = self._table.query(
                f"FIELD_ID IN [{','.join(map(str, block.fields))}] && DATA_DESC_ID=={block.data_description} && "
                f"OBSERVATION_ID=={block.observation} && TIME>={block.start!r} && TIME<={block.stop!r} && ANTENNA1!=ANTENNA2")
        try:
            with casacore_errors(self.path):
                reader = _BlockReader(selection, block, self.data_column, channels)
                total = selection.nrows()
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
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(weight) & (weight > 0)
        good = usable & ~flag
        bad = good & ~np.isfinite(data)
        if bad.any():
            raise DataError(f"unflagged visibilities must be finite, got {np.count_nonzero(bad)} NaN or infinite in {count} rows of "
                            f"{self._block.name}; flag them first (flagdata, mode='clip', clipminmax=[])")
        weight[~good] = 0.0
        uvw, antenna1, antenna2, time = (np.asarray(table.getcol(name, startrow=start, nrow=count))
                                         for name in ("UVW", "ANTENNA1", "ANTENNA2", "TIME"))
        lost = good.any(axis=(1, 2)) & ~np.isfinite(uvw).all(axis=0)
        if lost.any():
            raise DataError(f"baselines (UVW) of unflagged visibilities must be finite, got {np.count_nonzero(lost)} NaN or infinite "
                            f"in {count} rows of {self._block.name}")
        return VisibilityChunk(
            uvw=np.ascontiguousarray(uvw.T), data=np.where(good, data, np.complex64(0.0)), weight=weight,
            antenna1=antenna1.astype(np.int64), antenna2=antenna2.astype(np.int64), time=time,
            flagged=int(np.count_nonzero(flag)), unweighted=int(np.count_nonzero(~usable & ~flag)))


def _date(seconds: float) -> str:
    return str(np.datetime64("1858-11-17T00:00") + np.timedelta64(int(seconds // 60), "m"))


