"""What every kind of file with visibilities has in common, and which reader a path needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.measurement_set_tables import PARALLEL_HANDS, Field, Hands, RowGroup
from supermage.data_reduction.visibilities import ExecutionBlock, SpectralWindow, VisibilityChunk
from supermage.errors import DataError, nearest_name

UVFITS_SUFFIXES = (".fits", ".fit", ".uvfits", ".uvf", ".uvfit")
CHUNK_BYTES = 2**24
"""Bytes that the visibilities of a chunk may take; what is made of them on the way takes a few times as much."""

_SAME_CENTRE_ARCSEC = 0.05


def open_source(path: str | Path, *, field: str | int | None = None, spectral_window: int | None = None) -> VisibilitySource:
    """Open a measurement set (a folder) or a UVFITS file; use it in a ``with`` statement.

    Parameters
    ----------
    path
        Where the visibilities are.
    field, spectral_window
        See `MeasurementSet`.

    Raises
    ------
    DataError
        See `MeasurementSet` and `UVFITS`.
    """
    from supermage.data_reduction.measurement_set import MeasurementSet
    from supermage.data_reduction.uvfits import UVFITS

    path = Path(path)
    fits = not path.is_dir() and (path.suffix.lower() in UVFITS_SUFFIXES or _begins_like_fits(path))
    return (UVFITS if fits else MeasurementSet)(path, field=field, spectral_window=spectral_window)


def _begins_like_fits(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6) == b"SIMPLE"
    except OSError:
        return False


@dataclass(frozen=True, eq=False)
class Contents:
    """What the headers of a file say; antennas by number, NaN where a number has no antenna or its dish no known diameter.

    Attributes
    ----------
    fields, groups, windows, hands
        Fields; which rows there are; spectral windows by number; hands by data description.
    positions, diameters
        m, shapes (antenna, 3) and (antenna,).
    tables
        What the file calls its tables of fields and antennas, for the errors.
    """

    fields: list[Field]
    groups: list[RowGroup]
    windows: dict[int, SpectralWindow]
    hands: dict[int, Hands]
    positions: NDArray[np.float64]
    diameters: NDArray[np.float64]
    tables: tuple[str, str] = ("FIELD", "ANTENNA")


class VisibilitySource(ABC):
    """One field of an observation, open for reading. Use it in a ``with`` statement, or call `close`.

    Parameters
    ----------
    path
        Where the visibilities are.

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
        Known diameters of the antennas that observed the field, m, ascending, without repetition.
    data_column
        ``"CORRECTED_DATA"`` where there is one, else ``"DATA"``.
    time_scale
        Of every time: ``"utc"`` or ``"tai"``, as astropy names them.
    """

    blocks: tuple[ExecutionBlock, ...]
    phase_centre: tuple[float, float]
    field_name: str
    telescope: str
    observatory: NDArray[np.float64]
    dish_diameters: tuple[float, ...]
    data_column: str
    time_scale: str = "utc"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> VisibilitySource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def notes(self, window: int) -> dict[str, Any]:
        """What the file notes of its noise and flags: system temperature (K), seconds of an integration, flag commands by reason."""
        return {}

    @abstractmethod
    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        """Stream the cross-correlations of a block.

        Parameters
        ----------
        block
            One of ``blocks``.
        channels
            Neighbouring channels, counted in ascending frequency.
        rows
            Rows a chunk; fewer where their visibilities would take more than `CHUNK_BYTES`.

        Raises
        ------
        DataError
            If an unflagged, weighted visibility is NaN or infinite, or the file cannot be read to its end.
        """

    def _settle(self, contents: Contents, field: str | int | None, spectral_window: int | None) -> None:
        """Choose the field and set every attribute that depends on it."""
        fields, antennas = contents.tables
        self._check_numbers(fields, {group.field for group in contents.groups}, {one.number for one in contents.fields})
        chosen = self._choose_field(contents, field)
        groups = [group for group in contents.groups if group.field in {one.number for one in chosen}]
        self.field_name = chosen[0].name
        self.phase_centre = chosen[0].centre
        used = sorted(set().union(*(group.antennas for group in groups)))
        self._check_numbers(antennas, used, np.flatnonzero(np.isfinite(contents.positions).all(axis=1)).tolist())
        self.observatory = contents.positions[used].mean(axis=0)
        diameters = contents.diameters[used]
        self.dish_diameters = tuple(float(d) for d in np.unique(diameters[np.isfinite(diameters)]))
        self.blocks = self._make_blocks(groups, contents, spectral_window)

    def _choose_field(self, contents: Contents, wanted: str | int | None) -> list[Field]:
        observed = {group.field for group in contents.groups}
        present = [one for one in contents.fields if one.number in observed]
        names = sorted({one.name for one in present})
        if wanted is None:
            chosen = present
        else:
            chosen = [one for one in present if one.name == wanted] or [one for one in present if str(one.number) == str(wanted)]
        if not chosen and any(wanted in (one.name, str(one.number), one.number) for one in contents.fields):
            raise DataError(f"field '{wanted}' must hold rows, got none; fields with rows: {', '.join(names)}")
        if not chosen:
            raise DataError(f"the field must be one of {', '.join(names)}, got '{wanted}'{nearest_name(str(wanted), names)}")
        if max(one.separation(chosen[0]) for one in chosen) <= _SAME_CENTRE_ARCSEC:
            return chosen
        if len({one.name for one in chosen}) > 1:
            raise DataError(f"a set with several fields needs a choice by name, got none for {', '.join(names)} in {self.path}")
        raise DataError(f"a field must have one phase centre: mosaics are not supported, got {len(chosen)} pointings "
                        f"of '{chosen[0].name}' in {self.path}")

    def _check_numbers(self, table: str, numbers: Collection[int], known: Collection[int]) -> None:
        wrong = sorted(set(numbers) - set(known))
        if wrong:
            there = f"numbers {min(known)} to {max(known)}" if known else "none"
            raise DataError(f"rows must point into the table {table}, which has {there}, got {wrong[0]} in {self.path}")

    def _make_blocks(self, groups: list[RowGroup], contents: Contents, spectral_window: int | None) -> tuple[ExecutionBlock, ...]:
        windows, hands = contents.windows, contents.hands
        self._check_numbers("DATA_DESCRIPTION", {group.data_description for group in groups}, hands)
        numbers = sorted({hands[group.data_description].window for group in groups})
        self._check_numbers("SPECTRAL_WINDOW", numbers, windows)
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


def rows_at_once(block: ExecutionBlock, channels: slice, rows: int) -> int:
    """Rows of a chunk: as many as asked for, or as `CHUNK_BYTES` holds, but one at least."""
    one = 8 * len(block.hands) * len(range(*channels.indices(block.window.n_channel)))
    return max(1, min(rows, CHUNK_BYTES // max(one, 1)))


def make_chunk(block: ExecutionBlock, *, data: NDArray[np.complex64], weight: NDArray[np.float32], flag: NDArray[np.bool_],
               uvw: NDArray[np.float64], antenna1: NDArray[np.int64], antenna2: NDArray[np.int64], time: NDArray[np.float64],
               remedy: str) -> VisibilityChunk:
    """Some rows, freshly read; ``data`` and ``weight`` are made zero in place where they cannot be used.

    Parameters
    ----------
    block
        For the errors.
    data, weight, flag
        In the in-house sign, shape (row, chan, hand).
    uvw, antenna1, antenna2, time
        See `VisibilityChunk`.
    remedy
        What to do about NaN, for the error.

    Raises
    ------
    DataError
        If an unflagged, weighted visibility, or its baseline, is NaN or infinite.
    """
    usable = (weight > 0) & (weight < np.inf)
    good = usable & ~flag
    unused = ~good
    np.copyto(data, 0.0, where=unused)
    np.copyto(weight, 0.0, where=unused)
    with np.errstate(over="ignore", invalid="ignore"):
        total = data.sum()
    if not np.isfinite(total) and (bad := np.count_nonzero(~np.isfinite(data))):
        raise DataError(f"unflagged visibilities must be finite, got {bad} NaN or infinite in {len(data)} rows of {block.name}; {remedy}")
    lost = good.any(axis=(1, 2)) & ~np.isfinite(uvw).all(axis=1)
    if lost.any():
        raise DataError(f"baselines (UVW) of unflagged visibilities must be finite, got {np.count_nonzero(lost)} NaN or infinite "
                        f"in {len(data)} rows of {block.name}")
    flagged = int(np.count_nonzero(flag))
    return VisibilityChunk(uvw=uvw, data=data, weight=weight, antenna1=antenna1, antenna2=antenna2, time=time, flagged=flagged,
                           unweighted=good.size - int(np.count_nonzero(usable | flag)))


def _date(seconds: float) -> str:
    return str(np.datetime64("1858-11-17T00:00") + np.timedelta64(int(seconds // 60), "m"))
