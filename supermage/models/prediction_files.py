"""Tables written piece by piece: to Parquet, CSV and ECSV as they come, to FITS at the end; the file appears whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from astropy import units
from astropy.io import ascii as text_tables
from astropy.table import Table, meta, vstack

from supermage.errors import DataError
from supermage.models.training import to_json, write_atomically

TRIED = 100
"""Rows of a column that are tried before anything is computed."""


class Writer(Protocol):
    """One format."""

    def add(self, table: Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """End the file."""


class TableWriter:
    """Writes pieces of one table, atomically: use as a context; on an error nothing is left.

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
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._make = WRITERS[ending]
        self._writer: Writer | None = None
        self._first: Table | None = None

    def __enter__(self) -> TableWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
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
        for name in table.colnames:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), self._keeping(table[[name]]):
                warnings.simplefilter("ignore")
                writer = self._make(Path(folder) / "table")
                try:
                    writer.add(table[[name]][:TRIED])
                finally:
                    writer.close()

    def add(self, table: Table) -> None:
        """Append rows; every piece has the same columns.

        Raises
        ------
        DataError
            If the format has no way to keep a column.
        """
        if self._first is None:
            self._first = table[:0]
            self._first.meta = dict(table.meta)
        if self._writer is not None:
            with self._keeping(table):
                self._writer.add(table)

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
            if self._writer is not None:
                with self._keeping(Table() if self._first is None else self._first):
                    self._writer.close()
            if kind is None:
                os.replace(self._temporary, self.path)
                if self.path.suffix.lower() == ".csv" and self._first is not None:
                    write_atomically(self.path.with_name(f"{self.path.name}.json"), to_json(_words(self._first)))
        finally:
            self._temporary.unlink(missing_ok=True)


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


class _Fits:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[Table] = []

    def add(self, table: Table) -> None:
        self._pieces.append(table)

    def close(self) -> None:
        if not self._pieces:
            return
        whole = vstack(self._pieces, metadata_conflicts="silent")
        words = [f"{key}: {line}" for key, value in self._pieces[0].meta.items() for line in str(value).split("\n")]
        for column in whole.itercols():
            if isinstance(column.unit, units.function.FunctionUnitBase):  # which FITS has no words for
                words.append(f"unit of {column.name}: {column.unit}")
                column.unit = None
        label = {"MOCK": str(whole.meta["mock"])} if "mock" in whole.meta else {}  # whole, to be read back
        whole.meta = {**label, "comments": [text[start : start + 70] for text in words for start in range(0, len(text), 70)]}
        whole.write(self._path, format="fits", overwrite=True)


WRITERS: dict[str, Callable[[Path], Writer]] = {
    ".parquet": _Parquet,
    ".csv": lambda path: _Text(path, "csv"),
    ".ecsv": lambda path: _Text(path, "ecsv"),
    ".fits": _Fits,
}
"""Ending of a file -> what writes it."""
