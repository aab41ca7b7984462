"""The small tables of a measurement set, and which rows belong together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DataError

PARALLEL_HANDS = {5: "RR", 8: "LL", 9: "XX", 12: "YY"}
_OTHER_HANDS = {1: "I", 2: "Q", 3: "U", 4: "V", 6: "RL", 7: "LR", 10: "XY", 11: "YX"}
_NEEDED_TABLES = ("ANTENNA", "DATA_DESCRIPTION", "FIELD", "OBSERVATION", "POLARIZATION", "SPECTRAL_WINDOW")
INDEX_COLUMNS = ("FIELD_ID", "DATA_DESC_ID", "OBSERVATION_ID", "ANTENNA1", "ANTENNA2", "TIME")
_SCAN_ROWS = 100_000
_CACHE_MEBIBYTES = 16
"""Least size of a column's cache; at least the tiles that a row crosses must have room, twice, or they are read again for every row."""

LOWEST_FREQUENCY = 1e6
_ASTROPY_DIRECTIONS = {"J2000": "fk5", "ICRS": "icrs", "B1950": "fk4", "B1950_VLA": "fk4"}


@contextmanager
def casacore_errors(path: Path) -> Iterator[None]:
    """Turn casacore's exceptions into one line that names the set."""
    try:
        yield
    except DataError:
        raise
    except (RuntimeError, OSError, MemoryError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"a measurement set must be whole and readable, got {path} ({reason})") from None


def open_table(path: Path) -> Any:
    """Open the main table read-only, after a look at what casacore would only say in a riddle."""
    if not path.exists():
        raise DataError(f"a measurement set must exist, got {path}")
    if not path.is_dir():
        raise DataError(f"a measurement set must be a folder, got the file {path}")
    if not (path / "table.dat").is_file():
        raise DataError(f"a measurement set must hold table.dat, got {path} without it: truncated, or not a measurement set")
    missing = [name for name in _NEEDED_TABLES if not (path / name / "table.dat").is_file()]
    if missing:
        raise DataError(f"a measurement set must hold the table {missing[0]}, got {path} without it")
    table = import_casatools().table()
    with casacore_errors(path):
        table.open(str(path), lockoptions={"option": "usernoread"}, nomodify=True)
    try:
        if table.nrows() == 0:
            raise DataError(f"a measurement set must hold rows, got none in {path}")
        needed = ("UVW", "FLAG", "FLAG_ROW", "ANTENNA1", "ANTENNA2", "TIME", "FIELD_ID", "DATA_DESC_ID", "OBSERVATION_ID")
        lacking = [name for name in needed if name not in table.colnames()]
        if lacking:
            raise DataError(f"a measurement set must hold the column {lacking[0]}, got {path} without it")
    except DataError:
        table.close()
        raise
    return table


def bound_caches(table: Any) -> None:
    """Bound what casacore keeps of each tiled column; else it grows with what is read, up to a tenth of the machine's memory."""
    for manager in table.getdminfo().values():
        if not str(manager["TYPE"]).startswith("Tiled"):
            continue
        across = [math.prod(math.ceil(cell / tile) for cell, tile in zip(cube["CellShape"], cube["TileShape"])) * int(cube["BucketSize"])
                  for cube in manager["SPEC"]["HYPERCUBES"].values()]
        mebibytes = math.ceil(2 * max(across, default=0) / 2**20)
        for column in manager["COLUMNS"]:
            table.setmaxcachesize(str(column), max(mebibytes, _CACHE_MEBIBYTES))


@contextmanager
def _subtable(path: Path, name: str) -> Iterator[Any]:
    table = import_casatools().table()
    table.open(str(path / name), lockoptions={"option": "usernoread"}, nomodify=True)
    try:
        if table.nrows() == 0:
            raise DataError(f"the table {name} must hold rows, got none in {path}")
        yield table
    finally:
        table.close()


@dataclass(frozen=True)
class Field:
    """A field: number, name and phase centre (ICRS, deg)."""

    number: int
    name: str
    centre: tuple[float, float]

    def separation(self, other: Field) -> float:
        """Angle between two phase centres, arcsec (small angles)."""
        turn = (self.centre[0] - other.centre[0] + 180.0) % 360.0 - 180.0
        return float(3600.0 * np.hypot(turn * np.cos(np.radians(other.centre[1])), self.centre[1] - other.centre[1]))


def read_fields(path: Path) -> list[Field]:
    """All fields, their phase centres brought to ICRS."""
    with _subtable(path, "FIELD") as table:
        info = table.getcolkeywords("PHASE_DIR")["MEASINFO"]
        names = [str(name) for name in table.getcol("NAME")]
        fields = []
        for row, name in enumerate(names):
            frame = str(info.get("Ref", "J2000"))
            if "VarRefCol" in info:
                code = table.getcell(info["VarRefCol"], row)
                frame = str(info["TabRefTypes"][list(info["TabRefCodes"]).index(code)]) if not isinstance(code, str) else code
            direction = np.atleast_2d(np.asarray(table.getcell("PHASE_DIR", row)))
            fields.append(Field(row, name, to_icrs(float(direction.flat[0]), float(direction[1].flat[0]), frame, path)))
    return fields


def to_icrs(right_ascension: float, declination: float, frame: str, path: Path) -> tuple[float, float]:
    """A direction in one of casacore's frames (rad), in ICRS (deg)."""
    if frame not in _ASTROPY_DIRECTIONS:
        raise DataError(f"phase centres must be in one of {', '.join(_ASTROPY_DIRECTIONS)}, got {frame} in {path}")
    from astropy import units
    from astropy.coordinates import SkyCoord

    here = SkyCoord(right_ascension * units.rad, declination * units.rad, frame=_ASTROPY_DIRECTIONS[frame]).icrs
    return float(here.ra.deg), float(here.dec.deg)


def read_windows(path: Path) -> dict[int, SpectralWindow]:
    """All spectral windows by number."""
    with _subtable(path, "SPECTRAL_WINDOW") as table:
        columns = table.colnames()
        info = table.getcolkeywords("CHAN_FREQ")["MEASINFO"]
        windows = {}
        for row in range(table.nrows()):
            frequency = np.atleast_1d(np.asarray(table.getcell("CHAN_FREQ", row), dtype=float))
            width = np.abs(np.atleast_1d(table.getcell("CHAN_WIDTH", row)))
            check_frequencies(frequency, row, path)
            resolution = np.abs(np.atleast_1d(table.getcell("RESOLUTION", row))) if table.iscelldefined("RESOLUTION", row) else np.zeros(1)
            if "VarRefCol" in info:
                code = int(table.getcell(info["VarRefCol"], row))
                frame = str(info["TabRefTypes"][list(info["TabRefCodes"]).index(code)])
            else:
                frame = str(info.get("Ref", "TOPO"))
            function = str(table.getcell("SDM_WINDOW_FUNCTION", row)) if "SDM_WINDOW_FUNCTION" in columns else ""
            bins = int(table.getcell("SDM_NUM_BIN", row)) if "SDM_NUM_BIN" in columns else 0
            windows[row] = SpectralWindow(number=row, frequency=frequency, width=float(np.median(width)),
                                          resolution=float(np.median(resolution)), frame=frame, window_function=function, bins=bins)
    return windows


def check_frequencies(frequency: NDArray[np.float64], window: int, path: Path) -> None:
    """Refuse channels that are not in Hz."""
    wrong = frequency[~(frequency > LOWEST_FREQUENCY)]
    if wrong.size:
        raise DataError(f"channel frequencies must be in Hz and above 1 MHz, got {wrong[0]:g} in window {window} of {path}: "
                        "GHz passed for Hz?")


@dataclass(frozen=True)
class Hands:
    """A data description: its spectral window, and its parallel hands with their positions along the polarisation axis."""

    window: int
    names: tuple[str, ...]
    index: tuple[int, ...]
    all_names: tuple[str, ...]


def read_hands(path: Path) -> dict[int, Hands]:
    """Spectral window and hands of every data description."""
    with _subtable(path, "POLARIZATION") as table:
        types = [np.atleast_1d(table.getcell("CORR_TYPE", row)).tolist() for row in range(table.nrows())]
    with _subtable(path, "DATA_DESCRIPTION") as table:
        windows, polarizations = table.getcol("SPECTRAL_WINDOW_ID"), table.getcol("POLARIZATION_ID")
    return {row: hands_of(int(window), types[int(polarization)]) for row, (window, polarization) in enumerate(zip(windows, polarizations))}


def hands_of(window: int, codes: list[int]) -> Hands:
    """Hands from casacore's numbers of the polarisations."""
    names = {**PARALLEL_HANDS, **_OTHER_HANDS}
    index = tuple(i for i, code in enumerate(codes) if code in PARALLEL_HANDS)
    return Hands(window, tuple(PARALLEL_HANDS[codes[i]] for i in index), index, tuple(names.get(code, f"code {code}") for code in codes))


def read_antennas(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (antenna, 3) and dish diameters (antenna,), m."""
    with _subtable(path, "ANTENNA") as table:
        return np.asarray(table.getcol("POSITION").T, dtype=float), np.asarray(table.getcol("DISH_DIAMETER"), dtype=float)


def time_scale(reference: str, path: Path) -> str:
    """Astropy's name of a time reference."""
    scales = {"UTC": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt"}
    if reference.upper() not in scales:
        raise DataError(f"times must be in one of {', '.join(scales)}, got {reference} in {path}")
    return scales[reference.upper()]


def telescope_name(path: Path) -> str:
    """Name of the array."""
    with _subtable(path, "OBSERVATION") as table:
        return str(table.getcell("TELESCOPE_NAME", 0))


@dataclass
class RowGroup:
    """Rows of one field, data description and observation within one stretch of time."""

    field: int
    data_description: int
    observation: int
    stretch: int
    start: float
    stop: float
    crosses: int = 0
    autocorrelations: int = 0
    antennas: set[int] = dataclasses.field(default_factory=set)


def scan_rows(table: Any, *, gap_seconds: float) -> list[RowGroup]:
    """Group the rows of the main table, reading only its index columns, in bounded memory."""
    total = table.nrows()
    batches = ({name: np.asarray(table.getcol(name, startrow=begin, nrow=min(_SCAN_ROWS, total - begin))) for name in INDEX_COLUMNS}
               for begin in range(0, total, _SCAN_ROWS))
    return group_rows(batches, gap_seconds=gap_seconds, what="a measurement set", path=table.name())


def group_rows(batches: Iterable[Mapping[str, NDArray[Any]]], *, gap_seconds: float, what: str, path: str | Path) -> list[RowGroup]:
    """Group rows by field, data description, observation and stretch of time.

    A stretch of time ends where no row of the whole set follows for ``gap_seconds``.

    Parameters
    ----------
    batches
        ``INDEX_COLUMNS`` of some rows each.
    gap_seconds
        s.
    what, path
        Kind of file and its place, for the error.

    Raises
    ------
    DataError
        If a time is NaN or infinite.
    """
    bin_width = min(600.0, gap_seconds / 4)
    found: dict[tuple[int, int, int, int], RowGroup] = {}
    for columns in batches:
        if not np.isfinite(columns["TIME"]).all():
            raise DataError(f"times of {what} must be finite, got {np.count_nonzero(~np.isfinite(columns['TIME']))} NaN or infinite "
                            f"in {path}")
        bins = (columns["TIME"] // bin_width).astype(np.int64)
        for key, rows in _alike(columns["FIELD_ID"], columns["DATA_DESC_ID"], columns["OBSERVATION_ID"], bins):
            time, first, second = (columns[name][rows] for name in ("TIME", "ANTENNA1", "ANTENNA2"))
            group = found.setdefault(key, RowGroup(key[0], key[1], key[2], 0, float(time.min()), float(time.max())))
            group.start, group.stop = min(group.start, float(time.min())), max(group.stop, float(time.max()))
            crosses = int(np.count_nonzero(first != second))
            group.crosses, group.autocorrelations = group.crosses + crosses, group.autocorrelations + time.size - crosses
            group.antennas.update(np.unique(first).tolist(), np.unique(second).tolist())
    return _join_stretches(list(found.values()), gap_seconds)


def _alike(*columns: NDArray[Any]) -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.int64]]]:
    """The rows in which all four columns are alike, with their values: sorted as one number, which is much faster than as four."""
    code = np.zeros(columns[0].size, dtype=np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        code = code * values.size + place.ravel()
    order = np.argsort(code, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        first, second, third, fourth = (int(column[rows[0]]) for column in columns)
        yield (first, second, third, fourth), rows


def _join_stretches(groups: list[RowGroup], gap_seconds: float) -> list[RowGroup]:
    groups = sorted(groups, key=lambda group: group.start)
    stretch, latest = 0, groups[0].stop
    joined: dict[tuple[int, int, int, int], RowGroup] = {}
    for group in groups:
        if group.start - latest > gap_seconds:
            stretch += 1
        latest = max(latest, group.stop)
        key = (stretch, group.field, group.data_description, group.observation)
        group.stretch = stretch
        if key not in joined:
            joined[key] = group
            continue
        whole = joined[key]
        whole.start, whole.stop = min(whole.start, group.start), max(whole.stop, group.stop)
        whole.crosses += group.crosses
        whole.autocorrelations += group.autocorrelations
        whole.antennas |= group.antennas
    return list(joined.values())
