"""Catalogues of galaxies in canonical columns and units: what is missing is masked, what cannot be meant is refused, no row is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.table import Column as TableColumn
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name
from supermage.models.catalogue_files import Kinds, raw_chunks, read_raw
from supermage.models.catalogue_ranges import Ranges, outside, range_text
from supermage.models.catalogue_units import missing_units, to_canonical, unit_text
from supermage.models.columns import COLUMNS, IDENTITY, Column
from supermage.models.group_catalogue import is_group_catalogue, read_group_catalogue

SHOWN = 8
"""Columns of a table that an error names where no name is near what was asked for."""

_CHECKED = "checked"


def read_catalogue(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    format: str | None = None,
    names: Sequence[str] | None = None,
    mass_30kpc: tuple[Path, str] | None = None,
) -> Table:
    """Read a catalogue into canonical columns.

    Parameters
    ----------
    path
        FITS, VOTable, ECSV, CSV, Parquet, whatever else :meth:`astropy.table.Table.read` knows, or a group catalogue of TNG, Illustris or
        EAGLE in its native HDF5 layout (a file or the folder of its pieces; see :mod:`supermage.models.group_catalogue`).
    columns
        Canonical name -> name in the file, for those that differ.
    units
        Canonical name -> unit, where the file has none or a wrong one (this one counts). ``dex(Msun)`` stands for the logarithm of a mass.
    format
        Name of astropy's reader; by default the file says.
    names
        Canonical names that matter; the others, and columns outside the vocabulary, come along as they are. All by default.
    mass_30kpc
        Of a group catalogue: the file and data set of the stars within 30 kpc, see
        :func:`supermage.models.group_catalogue.read_group_catalogue`.

    Returns
    -------
    Table
        The rows of the file in their order, canonical columns as float64 (numbers that identify: int64), masked where missing.

    Raises
    ------
    DataError
        If the file cannot be read or holds no row; if a name is unknown (naming the nearest); if a unit is missing, unknown or of another
        kind; if most numbers of a column lie where they cannot be meant, as with magnitudes given for luminosities.
    """
    path = Path(path)
    if format is None and is_group_catalogue(path):
        return canonical(read_group_catalogue(path, mass_30kpc=mass_30kpc), columns=columns, units=units, names=names)
    if mass_30kpc is not None:
        raise DataError(f"masses within 30 kpc may come beside a group catalogue in HDF5 only, got {path}")
    return canonical(_unmarked(read_raw(path, format)), columns=columns, units=units, names=names)


def read_catalogue_chunks(
    path: str | Path,
    *,
    rows: int = 100_000,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    format: str | None = None,
    names: Sequence[str] | None = None,
    ranges: Ranges | None = None,
) -> Iterator[Table]:
    """Read a catalogue piece by piece: Parquet, FITS and CSV in bounded memory, other formats read whole and handed out in pieces.

    The same checks, over the whole file and before the first piece is handed out, which takes reading it twice: a catalogue sorted so that
    its unusable rows stand together is not refused in the middle.

    Parameters
    ----------
    path, columns, units, format, names
        As in :func:`read_catalogue`.
    rows
        Rows of a piece, at most. Group catalogues are read whole, too.
    ranges
        An empty one, filled with the rows of the whole file, and what is outside the columns' ranges, before the first piece is handed out.

    Yields
    ------
    Table
        As of :func:`read_catalogue`.

    Raises
    ------
    DataError
        As in :func:`read_catalogue`.
    """
    path = Path(path)
    if rows < 1:
        raise DataError(f"a piece of a catalogue needs at least one row, got {rows}")
    if format is None and is_group_catalogue(path):
        table = read_catalogue(path, columns=columns, units=units, names=names)
        _look(table, names, Ranges() if ranges is None else ranges)
        yield from (table[first : first + rows] for first in range(0, len(table), rows))
        return
    ranges, kinds = Ranges() if ranges is None else ranges, Kinds()
    for raw in raw_chunks(path, rows, format, kinds=Kinds()):
        kinds.add(raw)
        _look(_convert(raw, columns, units, names), names, ranges)
    ranges.check()
    for raw in raw_chunks(path, rows, format, kinds=kinds):
        yield _mark(_convert(_unmarked(raw), columns, units, names), ranges.columns)


def canonical(
    table: Table, *, columns: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None, names: Sequence[str] | None = None
) -> Table:
    """The canonical form of a table at hand: a new table, the old one is left alone.

    Where a column map hides a column that bears the canonical name itself, that one comes along as ``original_<name>``. The colour g_r,
    where absent, is the difference of M_g and M_r.

    Parameters
    ----------
    table
        Any astropy table, with units on its columns (a QTable too).
    columns, units, names
        As in :func:`read_catalogue`.

    Returns
    -------
    Table
        As of :func:`read_catalogue`.

    Raises
    ------
    DataError
        As in :func:`read_catalogue`.
    """
    result, before = _convert(table, columns, units, names), _checked(table)
    ranges = Ranges()
    _look(result, [name for name in (COLUMNS if names is None else names) if name not in before], ranges)
    ranges.check()
    return _mark(result, before | ranges.columns.keys())


def check_features(table: Table, names: Sequence[str]) -> NDArray[np.float64]:
    """Features of every row in the order of their names, whatever the table's order.

    Parameters
    ----------
    table
        A catalogue, canonical or with units on its columns.
    names
        Canonical names.

    Returns
    -------
    NDArray
        float64, shape (row, feature); NaN where a value is missing, not finite, or outside its column's range (:func:`reasons` says which).
        A column that the table lacks is NaN throughout (:func:`absent` lists these).

    Raises
    ------
    DataError
        If the table has no row or none of the columns, and as in :func:`read_catalogue`.
    """
    table = _with_features(table, names)
    result = np.full((len(table), len(names)), np.nan)
    for number, name in enumerate(names):
        if name in table.colnames:
            value = column_values(table, name)
            result[:, number] = np.where(outside(value, COLUMNS[name]), np.nan, value)
    return result


def reasons(table: Table, names: Sequence[str]) -> list[str]:
    """Why features of a row are missing: one text a row, empty where all is well.

    Parameters
    ----------
    table, names
        As in :func:`check_features`.

    Returns
    -------
    list
        One line for each row, like ``"sfr missing; sigma_v outside 1 .. 3000 km / s, got -99"``.

    Raises
    ------
    DataError
        As in :func:`check_features`.
    """
    table = _with_features(table, names)
    texts: list[list[str]] = [[] for _ in range(len(table))]
    for name in names:
        if name not in table.colnames:
            for text in texts:
                text.append(f"no column {name}")
            continue
        value, column = column_values(table, name), COLUMNS[name]
        for row in np.flatnonzero(~np.isfinite(value)):
            texts[row].append(f"{name} missing")
        for row in np.flatnonzero(outside(value, column)):
            texts[row].append(f"{name} outside {range_text(column)}, got {value[row]:g}")
    return ["; ".join(text) for text in texts]


def absent(table: Table, names: Iterable[str]) -> list[str]:
    """Names that a canonical table has no column for."""
    return [name for name in names if name not in table.colnames]


def some_of(names: Sequence[str]) -> str:
    """The first names of a table's columns, for an error."""
    return (", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")) or "no column"


def column_values(table: Table, name: str) -> NDArray[np.float64]:
    """Numbers of a column as float64, NaN where masked or not finite; shape (row,).

    Raises
    ------
    DataError
        If there is no such column, or it does not hold one number a row.
    """
    if name not in table.colnames:
        raise DataError(f"a catalogue must have the column {name} here, got none{nearest_name(name, table.colnames)}")
    return _numbers(table[name], f"column '{name}'")


def _with_features(table: Table, names: Sequence[str]) -> Table:
    """The canonical form, with at least one of the columns."""
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise DataError(f"a feature must be a canonical column, got '{unknown[0]}'{nearest_name(unknown[0], COLUMNS)}")
    result = canonical(table, names=names)
    if not any(name in result.colnames for name in names):
        near = nearest_name(names[0], table.colnames)
        raise DataError(f"a catalogue must have at least one of {', '.join(names)}, got {some_of(table.colnames)}{near}")
    return result


def _checked(table: Table) -> set[str]:
    """Columns whose ranges have been looked at."""
    return set(str(table.meta.get(_CHECKED, "")).split())


def _unmarked(table: Table) -> Table:
    """A file's table without what only this program may say of it."""
    for word in (_CHECKED, "reasons"):
        table.meta.pop(word, None)
    return table


def _mark(table: Table, names: Iterable[str]) -> Table:
    table.meta[_CHECKED] = " ".join(sorted(names))
    return table


def _look(table: Table, names: Sequence[str] | None, ranges: Ranges) -> None:
    """Count rows, and numbers outside their columns' ranges."""
    ranges.rows += len(table)
    for name in COLUMNS if names is None else names:
        if name in table.colnames and name not in IDENTITY:
            ranges.add(name, column_values(table, name))


def _convert(table: Table, columns: Mapping[str, str] | None, units: Mapping[str, str] | None, names: Sequence[str] | None) -> Table:
    """Names and units only, nothing of ranges but of the numbers that identify."""
    if len(table) == 0:
        raise DataError("a catalogue must hold at least one galaxy, got an empty table")
    columns, units = dict(columns or {}), dict(units or {})
    for what, given in (("columns", columns), ("units", units), ("names", names or ())):
        for name in given:
            if name not in COLUMNS:
                raise DataError(f"{what} must name canonical columns, got '{name}'{nearest_name(name, COLUMNS)}")
    for name, theirs in columns.items():
        if theirs not in table.colnames:
            near = nearest_name(theirs, table.colnames) or f"; it has {some_of(table.colnames)}"
            raise DataError(f"columns must name columns of the catalogue, got {name} = '{theirs}'{near}")
    source = {name: name for name in COLUMNS if name in table.colnames and name not in columns} | columns
    wanted = set(COLUMNS if names is None else {*names, *IDENTITY})
    colour = "g_r" in wanted and "g_r" not in source and {"M_g", "M_r"} <= source.keys()
    source = {name: theirs for name, theirs in source.items() if name in wanted or (colour and name in ("M_g", "M_r"))}
    result = _renamed(table, source)
    labels = {name: f"'{theirs}'" + (f" ({name})" if theirs != name else "") for name, theirs in source.items()}
    texts = {name: units.get(name) or unit_text(result[name].unit) for name in source}
    if bare := [name for name in source if not texts[name] and COLUMNS[name].unit]:
        raise DataError(missing_units([COLUMNS[name] for name in bare], [labels[name] for name in bare]))
    for name, label in labels.items():
        result[name] = _canonical_column(result[name], COLUMNS[name], texts[name], f"column {label}")
    if colour:
        value = column_values(result, "M_g") - column_values(result, "M_r")
        result["g_r"] = MaskedColumn(value, mask=~np.isfinite(value), unit="mag", description=COLUMNS["g_r"].description)
    return result


def _renamed(table: Table, source: Mapping[str, str]) -> Table:
    """A copy whose columns stand where they stood; one that serves two canonical names comes twice."""
    plain = Table(table, copy=False)
    served: dict[str, list[str]] = {}
    for name, theirs in source.items():
        served.setdefault(theirs, []).append(name)
    result = Table(meta=dict(plain.meta))
    for theirs in plain.colnames:
        for name in served.get(theirs, [f"original_{theirs}" if theirs in source else theirs]):
            result[name] = plain[theirs].copy()
    return result


def _canonical_column(theirs: TableColumn, column: Column, text: str, label: str) -> TableColumn:
    """Masked where missing; numbers that identify as whole numbers, texts that do so as they are."""
    if column.name in IDENTITY:
        return _identity(theirs, column, label)
    value = to_canonical(_numbers(theirs, label), text, column, label)
    missing = ~np.isfinite(value)
    unit, said = column.unit or None, theirs.description or column.description
    return MaskedColumn(np.where(missing, np.nan, value), name=column.name, mask=missing, unit=unit, description=said)


def _identity(theirs: TableColumn, column: Column, label: str) -> TableColumn:
    values, kind = np.ma.asarray(theirs), theirs.dtype.kind
    if kind in "USO":
        return theirs.copy()
    if kind not in "iuf":
        raise DataError(f"{label} needs whole numbers or texts, got {theirs.dtype.name}")
    number = values.filled(0)
    missing = np.ma.getmaskarray(values) | ~np.isfinite(number.astype(np.float64))
    whole = np.where(missing, 0, number)
    if kind == "f" and (broken := np.flatnonzero(whole != np.floor(whole))).size:
        raise DataError(f"{label} needs whole numbers, got {whole[broken[0]]:g} in row {broken[0]}")
    missing |= (whole < column.lower) | (whole > column.upper)
    return MaskedColumn(np.where(missing, 0, whole).astype(np.int64), name=column.name, mask=missing, description=column.description)


def _numbers(column: TableColumn, label: str) -> NDArray[np.float64]:
    """float64 with NaN where masked or not finite."""
    values = np.ma.asarray(column)
    if values.ndim != 1:
        raise DataError(f"{label} needs one number a row, got shape {values.shape}")
    if values.dtype.kind not in "biuf":
        present = [item for item in values.compressed().tolist() if item is not None]
        got = repr(present[0]) if present else "no value at all"
        if present:
            raise DataError(f"{label} needs numbers, got {got}")
        return np.full(len(values), np.nan)
    result: NDArray[np.float64] = np.ma.filled(values.astype(np.float64), np.nan)
    return np.where(np.isfinite(result), result, np.nan)
