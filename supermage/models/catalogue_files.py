"""Files of catalogues as astropy tables, whole or piece by piece; no names, units or ranges are looked at here."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
from astropy.io import ascii as text_tables
from astropy.io import fits
from astropy.io.registry import IORegistryError
from astropy.table import MaskedColumn, Table, meta, vstack

from supermage.errors import DataError
from supermage.models.columns import MOCK, MOCK_COLUMNS

_KINDS = {
    ".parquet": "parquet", ".pq": "parquet", ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".fit.gz": "fits", ".csv": "ascii.csv",
    ".ecsv": "ascii.ecsv", ".vot": "votable", ".votable": "votable", ".xml": "votable",
}  # fmt: skip
READ = "FITS (.fits), VOTable (.vot), ECSV (.ecsv), CSV (.csv), Parquet (.parquet)"
"""What is read, for an error."""

_SHORT = {"csv": "ascii.csv", "ecsv": "ascii.ecsv"}
_NOTHING = [(word, "0") for word in ("", "NULL", "null", "N/A", "n/a", "NA", "--")]
"""What stands in a CSV file for a missing value, beside ``nan``."""


def read_raw(path: Path, format: str | None = None) -> Table:
    """The whole of a catalogue as its file has it.

    Parameters
    ----------
    path
        The file.
    format
        Name of astropy's reader; by default the file's name and first bytes say.

    Returns
    -------
    Table
        With units where the file has them, masked where it has no value. Generated galaxies bear their label, ``meta["mock"]``, whether the
        format has kept it or not: their columns tell.

    Raises
    ------
    DataError
        If the file is missing, or no reader makes sense of it.
    """
    kind = _kind(path, format)
    with _reading(path):
        return _labelled(_whole(path, kind))


def _whole(path: Path, kind: str | None) -> Table:
    if kind == "parquet":
        pieces = list(_parquet_pieces(path, 1_000_000))
        return Table(vstack(pieces, metadata_conflicts="silent"), meta=pieces[0].meta, copy=False)
    if kind == "fits":
        return Table.read(path, format="fits", hdu=_first_table(path))
    if kind == "ascii.csv":
        return next(_csv_pieces(path, sys.maxsize, Kinds()), Table())
    if kind == "votable":
        return Table.read(path, format="votable", table_id=0, use_names_over_ids=True)
    if kind:
        return Table.read(path, format=kind)
    try:
        return Table.read(path)
    except IORegistryError:
        got = f"'{path.name}', of no known kind"
        raise DataError(f"{path}: a catalogue must be a table in one of {READ}, told by its ending, got {got}") from None


class Kinds:
    """Types of a CSV file's columns over all its pieces, each of which shows what its own rows call for: whole, real, or text."""

    def __init__(self) -> None:
        self.wider: dict[str, str] = {}

    def add(self, table: Table) -> None:
        """Take in one piece."""
        for name in table.colnames:
            self.wider[name] = max(self.wider.get(name, _WHOLE), _kind_of(table[name].dtype.kind), key=_ORDER.index)


_WHOLE, _REAL, _TEXT = _ORDER = ("whole", "real", "text")


def _kind_of(letter: str) -> str:
    return {"i": _WHOLE, "u": _WHOLE, "f": _REAL}.get(letter, _TEXT)


def raw_chunks(path: Path, rows: int, format: str | None = None, *, kinds: Kinds | None = None) -> Iterator[Table]:
    """A catalogue in pieces of at most so many rows: Parquet, FITS (not packed) and CSV without ever holding the whole.

    Parameters
    ----------
    path, format
        As in :func:`read_raw`.
    rows
        Rows of a piece, at most.
    kinds
        Of a CSV file's columns, where they are known; by default the file is read through for them first. Without a word on a column its
        type is that of each piece.

    Yields
    ------
    Table
        As of :func:`read_raw`.

    Raises
    ------
    DataError
        As :func:`read_raw`, and if there is no row.
    """
    kind = _kind(path, format)
    if kind == "parquet":
        pieces = _parquet_pieces(path, rows)
    elif kind == "fits" and path.suffix.lower() != ".gz":
        pieces = _fits_pieces(path, rows)
    elif kind == "ascii.csv":
        pieces = _csv_pieces(path, rows, _kinds(path, rows) if kinds is None else kinds)
    else:
        pieces = iter([read_raw(path, format)])
    empty = True
    while True:
        with _reading(path):
            piece = next(pieces, None)
        if piece is None:
            break
        _labelled(piece)
        for first in range(0, len(piece), rows):
            empty = False
            yield piece[first : first + rows]
    if empty:
        raise DataError(f"{path}: a catalogue must hold at least one galaxy, got an empty table")


def _kind(path: Path, format: str | None) -> str | None:
    """Name of a reader; None where astropy is to find out."""
    if not path.is_file():
        raise DataError(f"{path}: a catalogue must be a file, got {'a folder' if path.is_dir() else 'no such file'}")
    if format is not None:
        return _SHORT.get(format, format)
    name = path.name.lower()
    kind = next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)
    if kind == "ascii.csv":
        with path.open("rb") as file:
            kind = "ascii.ecsv" if file.read(7) == b"# %ECSV" else kind
    return kind


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Readers fail in many ways; each becomes one line. Their remarks on units and standards are not shown: what matters fails later."""
    from pyarrow import ArrowException

    broken = (OSError, ValueError, TypeError, LookupError, EOFError, ArrowException, meta.YamlParseError, ExpatError, IORegistryError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except broken as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: a catalogue must be a table that astropy or Parquet reads, got: {said[:160]}") from None


def _first_table(path: Path) -> int:
    """Number of the first extension that is a table."""
    with fits.open(path) as units:
        for number, unit in enumerate(units):
            if isinstance(unit, fits.BinTableHDU | fits.TableHDU):
                return number
    raise DataError(f"{path}: a catalogue must hold a table, got images only")


def _fits_pieces(path: Path, rows: int) -> Iterator[Table]:
    number = _first_table(path)
    with fits.open(path, memmap=True) as units:
        unit = units[number]
        for first in range(0, unit.header["NAXIS2"], rows):
            yield Table.read(type(unit)(unit.data[first : first + rows], header=unit.header))


def _labelled(table: Table) -> Table:
    """A table with the word that tells generated galaxies from others: upper case in FITS, and lost in VOTable and in CSV on its own."""
    if "MOCK" in table.meta:
        table.meta["mock"] = table.meta.pop("MOCK")
    if "mock" not in table.meta and any(name.startswith(MOCK_COLUMNS) for name in table.colnames):
        table.meta["mock"] = MOCK
    return table


def _csv_pieces(path: Path, rows: int, kinds: Kinds) -> Iterator[Table]:
    """A piece's columns have the types that are known of the file, else those that its own rows call for."""
    beside, words = _words_beside(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = _records(file)
        header = next(records, "")
        while piece := list(islice(records, rows)):
            table = text_tables.read("".join([header, *piece]), format="csv", guess=False, fill_values=_NOTHING)
            for place, name in enumerate(table.colnames):
                kind, got = kinds.wider.get(name), _kind_of(table[name].dtype.kind)
                if kind == _REAL and got == _WHOLE:
                    table[name] = table[name].astype(np.float64)
                elif kind == _TEXT and got != _TEXT:
                    table[name] = _as_written(piece, place, table[name])
            if set(beside) == set(table.colnames):  # else they are of another table
                for name in table.colnames:
                    table[name].unit = beside[name] or None
                table.meta.update(words)
            yield table


def _words_beside(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Units by column and provenance from the file beside a CSV file that `supermage.models.prediction_files` writes; else nothing."""
    try:
        found = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        return {name: str(column["unit"]) for name, column in found["columns"].items()}, dict(found["provenance"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}, {}


def _as_written(piece: list[str], place: int, column: Any) -> MaskedColumn:
    """Texts of a column that looks like numbers in one piece: '007' stays '007'."""
    texts = [record[place].strip() if place < len(record) else "" for record in csv.reader(StringIO("".join(piece), newline=""))]
    return MaskedColumn(np.array(texts, dtype=str), name=column.name, mask=np.ma.getmaskarray(np.ma.asarray(column)))


def _kinds(path: Path, rows: int) -> Kinds:
    kinds = Kinds()
    with _reading(path):
        for piece in _csv_pieces(path, rows, Kinds()):
            kinds.add(piece)
    return kinds


def _records(lines: Iterable[str]) -> Iterator[str]:
    """Lines, joined where a quoted text holds a line's end; blank ones left out."""
    record = ""
    for line in lines:
        record += line
        if record.count('"') % 2 == 0:
            if record.strip():
                yield record
            record = ""
    if record.strip():
        yield record


def _parquet_pieces(path: Path, rows: int) -> Iterator[Table]:
    """With the units that astropy keeps in the file's metadata, or that a field's own metadata give as ``unit``."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        stored = (schema.metadata or {}).get(b"table_meta_yaml")
        header = meta.get_header_from_yaml(stored.decode().split("\n")) if stored else {}
        words = {key: value for key, value in (header.get("meta") or {}).items() if not str(key).startswith("__")}
        units = {item["name"]: item["unit"] for item in header.get("datatype", ()) if "unit" in item}
        for field in schema:
            if field.metadata and b"unit" in field.metadata:
                units.setdefault(field.name, field.metadata[b"unit"].decode())
        if not file.metadata.num_rows:
            raise DataError(f"{path}: a catalogue must hold at least one galaxy, got an empty table")
        for batch in file.iter_batches(batch_size=rows):
            yield _from_arrow(batch, units, words)


def _from_arrow(batch: Any, units: dict[str, str], words: dict[str, Any]) -> Table:
    """One batch, with what the file says of itself; a column that astropy stored beside its mask becomes one masked column."""
    names = [name for name in batch.schema.names if not (name.endswith(".mask") and name[: -len(".mask")] in batch.schema.names)]
    result = Table(meta=words)
    for name in names:
        column = batch.column(name)
        mask = np.asarray(column.is_null())
        if f"{name}.mask" in batch.schema.names:
            mask = mask | np.asarray(batch.column(f"{name}.mask").fill_null(True))
        result[name] = MaskedColumn(_values(column), mask=mask, unit=units.get(name))
    return result


def _values(column: Any) -> Any:
    """Numbers and booleans of numpy, fixed-width texts; anything else as Python objects."""
    from pyarrow import float64, types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if types.is_decimal(kind):
        column, kind = column.cast("float64"), float64()
    if types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind):
        column = column.fill_null(False if types.is_boolean(kind) else 0) if column.null_count else column
        return column.to_numpy(zero_copy_only=False)
    if types.is_string(kind) or types.is_large_string(kind):
        return np.array(column.fill_null("").to_pylist(), dtype=str)
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values
