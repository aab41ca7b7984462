"""FITS tables written piece by piece: what a column is, is known at the end only, so rows wait in a file of their own beside the table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.table import Column, Table, vstack

from supermage.errors import DataError

BLOCK = 2880
"""Bytes that every part of a FITS file fills up."""

ROWS_ENDING = ".rows"
"""Of the file in which rows wait."""

_WHOLE = ("u1", "i2", "i4", "i8")
"""Whole numbers that FITS has without an offset, which is not defined together with a number for missing ones."""


class FitsColumn:
    """What all pieces have in common of a column.

    Parameters
    ----------
    name
        Of the column.
    values
        Of the first piece, shape (row, ...).
    """

    def __init__(self, name: str, values: np.ma.MaskedArray[Any, Any]) -> None:
        self.name = name
        self.dtype = values.dtype
        self.null: int | None = None
        self._masked = False
        self._lowest, self._highest = 0, 0

    def add(self, values: np.ma.MaskedArray[Any, Any]) -> None:
        """Widen to what a piece holds.

        Raises
        ------
        DataError
            If it holds numbers where others hold texts.
        """
        if _class(values.dtype) != _class(self.dtype):
            got = f"{self.dtype} first and {values.dtype} later"
            raise DataError(f"column '{self.name}' must be of one kind in the whole catalogue, got {got}")
        self.dtype = np.result_type(self.dtype, values.dtype)
        self._masked |= bool(np.ma.is_masked(values))
        if values.dtype.kind in "iu" and (held := values.compressed()).size:
            self._lowest, self._highest = min(self._lowest, int(held.min())), max(self._highest, int(held.max()))

    def settle(self) -> None:
        """Choose a whole number, which no row has, for missing ones; wider numbers where there is none. Missing truth values become 255.

        Raises
        ------
        DataError
            If 64 bits leave no number.
        """
        if not self._masked or self.dtype.kind not in "iub":
            return
        for kind in [name for name in _WHOLE if np.can_cast(self.dtype, name)] or ["i8"]:
            ends = np.iinfo(kind)
            if self._lowest >= ends.min and self._highest < ends.max:
                self.dtype, self.null = np.dtype(kind), ends.max
                return
        raise DataError(f"column '{self.name}' must leave a number of 64 bits for missing ones, got {self._lowest} to {self._highest}")

    def filled(self, values: np.ma.MaskedArray[Any, Any]) -> np.ndarray[Any, Any]:
        """A piece's values as all rows have them."""
        mask = np.ma.getmaskarray(values)
        data = values.data.astype(self.dtype)
        if mask.any():
            data[mask] = self.null if self.null is not None else b"" if self.dtype.kind == "S" else np.nan
        return data


def _class(dtype: np.dtype[Any]) -> str:
    """Kinds that one column can hold."""
    return "number" if dtype.kind in "iuf" else dtype.kind


class FitsWriter:
    """One table as the first extension of a FITS file, in the memory of a piece.

    A column of arrays of different lengths is kept in memory until the end, and all others with it.

    Parameters
    ----------
    path
        The file. Until it is closed, the rows are in another beside it, with :data:`ROWS_ENDING`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = path.with_name(f"{path.name}{ROWS_ENDING}")
        self._file = self._rows.open("w+b")
        self._columns: dict[str, FitsColumn] = {}
        self._first: Table | None = None
        self._lengths: list[int] = []
        self._held: list[Table] = []

    def add(self, table: Table) -> None:
        """Append rows.

        Raises
        ------
        ValueError, TypeError
            If FITS has no way to keep a column, as texts beyond ASCII.
        DataError
            If a column is of one kind here and of another in an earlier piece.
        """
        if self._first is None:
            self._first = table[:0]
        if odd := [type(column).__name__ for column in table.itercols() if not isinstance(column, Column)]:
            raise TypeError(f"a {odd[0]}")
        if self._held or any(column.dtype.kind == "O" for column in table.itercols()):
            self._held.append(table)
            return
        for name in self._first.colnames:
            values = _plain(table, name)
            self._columns.setdefault(name, FitsColumn(name, values)).add(values)
            mask = np.ma.getmaskarray(values) if np.ma.is_masked(values) else np.zeros(0, dtype=bool)
            for part in (values.data, mask):
                np.save(self._file, part, allow_pickle=False)
        self._lengths.append(len(table))

    def close(self) -> None:
        """Write header and rows.

        Raises
        ------
        ValueError, TypeError
            If FITS has no way to keep a column.
        """
        try:
            if self._held:
                _described(vstack(self._held, metadata_conflicts="silent"), self._held[0]).write(self._path, format="fits", overwrite=True)
            elif self._first is not None:
                self._write(self._first)
        finally:
            self.discard()

    def discard(self) -> None:
        """Give up what is not written."""
        try:
            self._file.close()
        finally:
            self._rows.unlink(missing_ok=True)

    def _write(self, first: Table) -> None:
        for column in self._columns.values():
            column.settle()
        self._file.seek(0)
        with self._path.open("wb") as file:
            file.write(_bytes(fits.PrimaryHDU()))
            for number, piece in enumerate(self._pieces()):
                if number == 0:
                    file.write(self._header(first, piece).tostring().encode("ascii"))
                unit = fits.table_to_hdu(piece, character_as_bytes=True)
                size = len(piece) * unit.header["NAXIS1"]
                content = _bytes(unit)
                start = len(content) - size - (-size % BLOCK)  # the rows are what comes last
                file.write(memoryview(content)[start : start + size])
            file.write(b"\0" * (-file.tell() % BLOCK))

    def _pieces(self) -> Iterator[Table]:
        """The pieces again, all of the same kinds."""
        for _ in self._lengths:
            piece: dict[str, Any] = {}
            for name, column in self._columns.items():
                data, mask = np.load(self._file), np.load(self._file)
                piece[name] = column.filled(np.ma.MaskedArray(data, mask=mask if len(mask) else False))
            yield Table(piece)

    def _header(self, first: Table, piece: Table) -> fits.Header:
        """The whole table's header, from a piece."""
        buffer = io.BytesIO()
        _described(piece, first).write(buffer, format="fits")
        with fits.open(io.BytesIO(buffer.getvalue())) as found:
            header = found[1].header.copy()
        header["NAXIS2"] = sum(self._lengths)
        for number, column in enumerate(self._columns.values(), 1):
            if column.null is not None:
                header.set(f"TNULL{number}", column.null, after=f"TFORM{number}")
        return header


def _plain(table: Table, name: str) -> np.ma.MaskedArray[Any, Any]:
    """A column's values, texts in ASCII."""
    values = np.ma.asarray(table[name])
    if values.dtype.kind != "U":
        return values
    return np.ma.MaskedArray(values.filled("").astype("S"), mask=np.ma.getmask(values))


def _described(table: Table, first: Table) -> Table:
    """A table with the units, descriptions and words of another of the same columns, as FITS has words for them."""
    result = Table(table, copy=False)
    words = [f"{key}: {line}" for key, value in first.meta.items() for line in str(value).split("\n")]
    for column in result.itercols():
        theirs = first[column.name]
        column.description, column.format, column.unit = theirs.description, theirs.format, theirs.unit
        if isinstance(column.unit, units.function.FunctionUnitBase):  # which FITS has no words for
            words.append(f"unit of {column.name}: {column.unit}")
            column.unit = None
    words = [text.encode("ascii", "backslashreplace").decode() for text in words]
    label = str(first.meta.get("mock", "")).encode("ascii", "backslashreplace").decode()
    lines = [text[start : start + 70] for text in words for start in range(0, len(text), 70)]
    result.meta = {**({"MOCK": label} if label else {}), "comments": lines}  # the label whole, to be read back
    return result


def _bytes(unit: Any) -> bytes:
    buffer = io.BytesIO()
    unit.writeto(buffer)
    return buffer.getvalue()
