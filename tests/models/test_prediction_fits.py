"""FITS tables in pieces: the same as astropy writes of the whole, in the memory of a piece."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack

from supermage.errors import DataError
from supermage.models.prediction_files import TableWriter


def piece(number: int, rows: int = 5) -> Table:
    """Columns of every kind that widen on the way."""
    rng = np.random.default_rng(number)
    table = Table({"id": np.arange(rows) + number * rows, "text": ["x" * (number + 1)] * rows, "flag": np.arange(rows) % 2 == 0})
    table["single"], table["unsigned"] = rng.normal(size=rows).astype("f4"), np.arange(rows, dtype="u2")
    table["big"], table["pair"] = np.arange(rows).astype(">i4"), rng.normal(size=(rows, 2))
    mask = np.arange(rows) == number
    table["real"] = MaskedColumn(np.arange(rows) * 1.5, mask=mask, unit="km / s", description="speed: of\nstars", format="%.3f")
    table["whole"] = MaskedColumn(np.arange(rows), mask=mask & (number > 0))  # nothing is missing in the first piece
    table["word"] = MaskedColumn([f"w{row}" for row in range(rows)], mask=mask, description="word")
    table["gaps"] = MaskedColumn(table["pair"], mask=table["pair"] > 0)
    table.meta = {"origin": "a: b" * 40, "number": 3}
    return table


def written(path: Path, *tables: Table) -> Table:
    with TableWriter(path) as writer:
        for table in tables:
            writer.check(table)
            writer.add(table)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    with fits.open(path, checksum=True) as found:
        found.verify("exception")
        assert path.stat().st_size % 2880 == 0 and found[1].header["NAXIS2"] == sum(map(len, tables))
    return Table.read(path)


def test_pieces_are_what_astropy_writes_of_the_whole(tmp_path: Path) -> None:
    parts = [piece(number) for number in range(3)]
    got = written(tmp_path / "table.fits", *parts)
    (tmp_path / "whole").mkdir()
    whole = vstack(parts, metadata_conflicts="silent")
    whole.meta = {}
    whole.write(tmp_path / "whole" / "table.fits")
    expected = Table.read(tmp_path / "whole" / "table.fits")
    assert got.colnames == expected.colnames
    for name in got.colnames:
        one, other = got[name], expected[name]
        assert (one.dtype, one.unit, one.description, one.format) == (other.dtype, other.unit, other.description, other.format), name
        assert one.tolist() == other.tolist() or str(one.tolist()) == str(other.tolist()), name
    words = "".join(str(item) for item in got.meta["comments"])
    assert "origin: " + "a: b" * 40 in words and "number: 3" in words


def test_a_number_that_stands_for_a_missing_one_is_no_other(tmp_path: Path) -> None:
    """astropy takes 999999, which a galaxy's number may be; a missing truth value is not True."""
    table = Table({"id": MaskedColumn([999_999, 7, 2**40], mask=[False, True, False])})
    table["small"] = MaskedColumn(np.array([0, 3, 255], dtype="u1"), mask=[False, True, False])
    table["unsigned"] = MaskedColumn(np.array([0, 3, 65535], dtype="u2"), mask=[False, True, False])
    table["truth"] = MaskedColumn([True, False, False], mask=[False, True, False])
    got = written(tmp_path / "table.fits", table)
    assert got["id"].tolist() == [999_999, None, 2**40]
    assert got["small"].tolist() == [0, None, 255] and got["unsigned"].tolist() == [0, None, 65535]
    assert got["truth"].tolist() == [1, None, 0]


def test_what_was_written_with_gaps_is_written_again(tmp_path: Path) -> None:
    """The number that stands for a missing one is not counted among the numbers, and words keep their letters as ASCII has them."""
    table = Table({"id": MaskedColumn([1, 2, 3], mask=[False, True, False])})
    table.meta = {"input": "Pr\u00fcfung.fits", "mock": "g\u00e9n\u00e9r\u00e9"}
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(written(tmp_path / name / "table.fits", found[0] if found else table))
    assert [item["id"].tolist() for item in found] == [[1, None, 3]] * 2
    assert "input: Pr\\xfcfung.fits" in found[0].meta["comments"] and found[0].meta["MOCK"] == "g\\xe9n\\xe9r\\xe9"


def test_no_number_is_left(tmp_path: Path) -> None:
    full = Table({"id": MaskedColumn([np.iinfo("i8").max, 0], mask=[False, True])})
    with pytest.raises(DataError, match="column 'id' must leave a number of 64 bits for missing ones, got 0 to 9223372036854775807"):
        written(tmp_path / "table.fits", full)
    assert list(tmp_path.iterdir()) == []


def test_numbers_first_and_texts_later(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'a' must be of one kind in the whole catalogue, got int64 first and .S1 later"):
        written(tmp_path / "table.fits", Table({"a": [1]}), Table({"a": ["x"]}))
    assert list(tmp_path.iterdir()) == []
    assert written(tmp_path / "table.fits", Table({"a": [1]}), Table({"a": [2.5]}))["a"].tolist() == [1.0, 2.5]


def test_arrays_of_different_lengths(tmp_path: Path) -> None:
    values = np.empty(2, dtype=object)
    values[:] = [np.array([1.0]), np.array([2.0, 3.0])]
    table = Table({"a": [1, 2], "list": values}, meta={"origin": "test"})
    table["log"] = MaskedColumn([9.5, 10.5], unit="dex(Msun)")
    got = written(tmp_path / "table.fits", table, table)
    assert [item.tolist() for item in got["list"]] == [[1.0], [2.0, 3.0]] * 2 and "unit of log: dex(solMass)" in str(got.meta)


def test_texts_beyond_ascii_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'text' must be of a kind that a table ending in .fits keeps, got: 'ascii' codec"):
        written(tmp_path / "table.fits", Table({"text": ["\u03b1"]}))


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    """20 pieces of 0.8 MB: what is allocated at once stays far below the table's 16 MB."""
    import tracemalloc

    table = Table({f"c{number}": np.random.default_rng(number).random(10_000) for number in range(10)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written(tmp_path / "warm.fits", table)
        (tmp_path / "warm.fits").unlink()
        tracemalloc.start()
        with TableWriter(tmp_path / "table.fits") as writer:
            for _ in range(20):
                writer.add(table)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "table.fits").stat().st_size > 16e6 and most < 8e6
