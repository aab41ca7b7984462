"""Tables written piece by piece, to Parquet, CSV, ECSV and FITS; the file appears whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from astropy.io import ascii as text_tables
from astropy.table import Table, meta

from supermage.errors import DataError
from supermage.models.prediction_fits import ROWS_ENDING, FitsWriter
from supermage.models.training import to_json, write_atomically

TRIED = 100
"""Rows of a column that are tried before anything is computed."""


class Writer(Protocol):
    """One format."""

    def add(self, table: Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """End the file."""

    def discard(self) -> None:
        """Give up: the file may stay as it is."""


class TableWriter:
    """Writes pieces of one table, atomically: use as a context; on an error nothing is left.

    What a writer of the same table left behind when it was killed goes when the next one begins.

    Parameters
    ----------
    path
        The file; its ending says the format: ``.parquet``, ``.csv`` (units and provenance beside it in ``<name>.json``), ``.ecsv``,
        ``.fits``.

    Raises
    ------
    DataError
        If the ending is none of these, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        ending = path.suffix.lower()
        if ending not in WRITERS:
            raise DataError(f"a table must be written to a file ending in {', '.join(WRITERS)}, got '{path.name}'")
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.part")
        self._make = WRITERS[ending]
        self._writer: Writer | None = None
        self._first: Table | None = None

    def __enter__(self) -> TableWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_parts(self.path)
            self._writer = self._make(self._temporary)
        except OSError as error:
            raise DataError(f"{self.path}: the table's folder must be writable, got {error.strerror}") from None
        return self

    def check(self, table: Table) -> None:
        """Try the columns of a piece, on a few rows in a scratch file, so that nothing is computed that cannot be written.

        Raises
        ------
        DataError
            If the format has no way to keep a column, naming the column.
        """
        with self._room(Path(tempfile.gettempdir())):
            self._try(table)

    def _try(self, table: Table) -> None:
        for name in table.colnames:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), self._keeping(table[[name]]):
                warnings.simplefilter("ignore")
                writer = self._make(Path(folder) / "table")
                try:
                    writer.add(table[[name]][:TRIED])
                    writer.close()
                finally:
                    writer.discard()

    def add(self, table: Table) -> None:
        """Append rows; every piece has the same columns.

        Raises
        ------
        DataError
            If the format has no way to keep a column, or the disk is full.
        """
        if self._first is None:
            self._first = table[:0]
            self._first.meta = dict(table.meta)
        if self._writer is not None:
            with self._room(self.path), self._keeping(table):
                self._writer.add(table)

    @contextmanager
    def _room(self, path: Path) -> Iterator[None]:
        """What a disk does not take is one line with the path."""
        try:
            yield
        except OSError as error:
            raise DataError(f"{path}: the disk must have room and be writable, got: {error.strerror or error}") from None

    @contextmanager
    def _keeping(self, table: Table) -> Iterator[None]:
        """What a format cannot keep is one line."""
        from pyarrow import ArrowException

        try:
            yield
        except (ValueError, TypeError, ArrowException) as error:
            who = f"column '{table.colnames[0]}'" if len(table.colnames) == 1 else "every column"
            said = " ".join(str(error).split())[:120]
            ending = self.path.suffix.lower()
            raise DataError(f"{who} must be of a kind that a table ending in {ending} keeps, got: {said}; choose another ending") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with self._room(self.path):
                    self._finish()
        finally:
            with suppress(OSError):  # of a full disk, which was told
                if self._writer is not None:
                    self._writer.discard()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._writer is not None:
            with self._keeping(Table() if self._first is None else self._first):
                self._writer.close()
        if self.path.suffix.lower() == ".csv" and self._first is not None:
            write_atomically(self.path.with_name(f"{self.path.name}.json"), to_json(_words(self._first)))
        os.replace(self._temporary, self.path)


_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "here"


def remove_parts(path: Path) -> None:
    """Remove what writers of a table, killed on this machine, left beside it; what another machine or a living process writes stays.

    Parameters
    ----------
    path
        The table.
    """
    own = re.compile(rf"\.{re.escape(path.name)}\.(?:{re.escape(_HOST)}\.)?(\d+)\.part(?:{re.escape(ROWS_ENDING)})?")
    for item in path.parent.iterdir():
        if (match := own.fullmatch(item.name)) and not _lives(int(match[1])):
            item.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _words(table: Table) -> dict[str, Any]:
    """Units, descriptions and provenance, as JSON keeps them."""
    columns = {name: {"unit": str(table[name].unit or ""), "description": table[name].description or ""} for name in table.colnames}
    return {"columns": columns, "provenance": json.loads(json.dumps(dict(table.meta), default=str))}


class _Text:
    def __init__(self, path: Path, format: str) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._format = format
        self._began = False

    def add(self, table: Table) -> None:
        if not self._began:
            text_tables.write(table, self._file, format=self._format)
        elif self._format == "csv":
            text_tables.write(table, self._file, format="no_header", delimiter=",")
        else:
            lines: list[str] = []
            text_tables.write(table, _Lines(lines.append), format="ecsv")
            body = "".join(lines).split("\n")
            start = next(number for number, line in enumerate(body) if not line.startswith("#"))
            self._file.write("\n".join(body[start + 1 :]))
        self._began = True

    def close(self) -> None:
        self._file.close()

    discard = close


class _Lines:
    """A file that passes on what is written."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write

    def flush(self) -> None:
        """Nothing to pass on."""


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def add(self, table: Table) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        known = {} if self._writer is None else {field.name: field.type for field in self._writer.schema}
        values = {name: _arrow_column(table, name, known.get(name)) for name in table.colnames}
        if self._writer is None:
            yaml = "\n".join(meta.get_yaml_from_table(table))
            schema = arrow.table(values).schema.with_metadata({"table_meta_yaml": yaml})
            self._writer = parquet.ParquetWriter(self._path, schema, compression="zstd")
        self._writer.write_table(arrow.table(values, schema=self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    discard = close


def _arrow_column(table: Table, name: str, kind: Any) -> Any:
    """A column as Arrow has it, of a kind that earlier pieces settled; several numbers a row become a list of fixed length."""
    import pyarrow as arrow

    values = np.ma.asarray(table[name])
    found = _arrow_values(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        found = arrow.FixedSizeListArray.from_arrays(found, size)
    try:
        return found if kind is None or found.type == kind else found.cast(kind)
    except arrow.ArrowException:
        raise DataError(f"column '{name}' must be of one kind in the whole catalogue, got {kind} first and {found.type} later") from None


def _arrow_values(values: Any) -> Any:
    import pyarrow as arrow

    mask, data = np.ma.getmaskarray(values), values.data
    if data.dtype.kind == "S":
        data = np.char.decode(data, "utf-8", "replace")
    if data.dtype.kind == "U":
        texts = [None if gone else item for item, gone in zip(data.tolist(), mask.tolist(), strict=True)]
        return arrow.array(texts, type=arrow.string())
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return arrow.array(np.ascontiguousarray(data), mask=mask if mask.any() else None)


WRITERS: dict[str, Callable[[Path], Writer]] = {
    ".parquet": _Parquet,
    ".csv": lambda path: _Text(path, "csv"),
    ".ecsv": lambda path: _Text(path, "ecsv"),
    ".fits": FitsWriter,
}
"""Ending of a file -> what writes it."""
