"""Tables written in pieces: what is read back is what was written, whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError
from supermage.models.catalogue_files import raw_chunks, read_raw
from supermage.models.prediction_files import TableWriter


def pieces() -> list[Table]:
    found = []
    for first in (0, 3):
        table = Table({"number": np.arange(first, first + 3), "text": ["a b", 'quo"te', ""]})
        table["value"] = MaskedColumn([1.5, 2.5, np.nan], mask=[False, False, True], unit="km / s", description="speed")
        table.meta["origin"] = "test: of tables"
        found.append(table)
    return found


@pytest.mark.filterwarnings("ignore:No table..len..text found in metadata")  # of astropy's own Parquet files
@pytest.mark.parametrize("ending", ["parquet", "csv", "ecsv", "fits"])
def test_pieces_make_one_table(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"table.{ending}"
    with TableWriter(path) as writer:
        for piece in pieces():
            writer.add(piece)
    got = Table.read(path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(ending))
    assert list(got["number"]) == [0, 1, 2, 3, 4, 5]
    assert [str(item) if item is not np.ma.masked else "" for item in got["text"]] == ["a b", 'quo"te', ""] * 2
    values = np.ma.filled(np.ma.asarray(got["value"], dtype=float), np.nan)
    assert np.array_equal(values, [1.5, 2.5, np.nan] * 2, equal_nan=True)
    if ending == "csv":
        beside = json.loads((path.parent / "table.csv.json").read_text())
        assert beside["columns"]["value"] == {"description": "speed", "unit": "km / s"}
        assert beside["columns"]["number"] == {"description": "", "unit": ""}
        assert beside["provenance"] == {"origin": "test: of tables"}
        again = [*raw_chunks(path, 4), read_raw(path)]
        assert all(str(item["value"].unit) == "km / s" and item.meta == {"origin": "test: of tables"} for item in again)
        path.write_text("number,value\n1,2.5\n")  # another table in its place
        assert read_raw(path)["value"].unit is None and not read_raw(path).meta
    else:
        assert str(got["value"].unit) == "km / s"
        assert "test: of tables" in str(got.meta)


@pytest.mark.filterwarnings("ignore:No table..len..text found in metadata")  # of astropy's own Parquet files
@pytest.mark.parametrize("ending", ["parquet", "ecsv", "fits"])
def test_several_numbers_a_row(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    with TableWriter(path) as writer:
        for first in (0, 4):
            piece = Table({"pair": np.arange(first, first + 4).reshape(2, 2), "word": np.array([b"a", b"bc"])})
            writer.check(piece)
            writer.add(piece)
    got = read_raw(path)
    assert [list(item) for item in got["pair"]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [str(item) for item in got["word"]] == ["a", "bc", "a", "bc"]


@pytest.mark.parametrize(("ending", "column"), [("csv", np.ones((3, 2))), ("fits", np.array([[1], [2, 3], None], dtype=object)),
                                                ("parquet", np.array([1, "x", None], dtype=object))])  # fmt: skip
def test_what_a_format_cannot_keep_is_known_beforehand(tmp_path: Path, ending: str, column: np.ndarray) -> None:
    writer = TableWriter(tmp_path / f"table.{ending}")
    with pytest.raises(DataError, match=f"column 'odd' must be of a kind that a table ending in .{ending} keeps, got: ") as caught:
        writer.check(Table({"good": [1, 2, 3], "odd": column}))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_pieces_of_another_kind(tmp_path: Path) -> None:
    """Whole numbers go into a column of reals, not the other way."""
    with TableWriter(tmp_path / "table.parquet") as writer:
        writer.add(Table({"value": [1.5, 2.5]}))
        writer.add(Table({"value": [3, 4]}))
    assert read_raw(tmp_path / "table.parquet")["value"].tolist() == [1.5, 2.5, 3.0, 4.0]

    def broken() -> None:
        with TableWriter(tmp_path / "other.parquet") as writer:
            writer.add(Table({"good": [1, 2], "value": [1, 2]}))
            writer.add(Table({"good": [3, 4], "value": [3.5, 4.5]}))

    with pytest.raises(DataError, match="column 'value' must be of one kind in the whole catalogue, got int64 first and double later"):
        broken()
    assert [item.name for item in tmp_path.iterdir()] == ["table.parquet"]


def test_an_error_leaves_nothing_new(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_text("earlier")

    def broken() -> None:
        with TableWriter(path) as writer:
            writer.add(pieces()[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_text() == "earlier"
    assert [item.name for item in tmp_path.iterdir()] == ["table.parquet"]


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ending in .parquet, .csv, .ecsv, .fits, got 'table.xyz'"):
        TableWriter(tmp_path / "table.xyz")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="folder must be writable"), TableWriter(tmp_path / "file" / "table.csv"):
        pass


def test_parts_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = platform.node()
    gone = [f".t.csv.{ended.pid}.part", f".t.csv.{here}.{ended.pid}.part", f".t.csv.{here}.{ended.pid}.part.rows"]
    kept = [f".t.csv.{os.getppid()}.part", f".t.csv.elsewhere.{ended.pid}.part", f".other.csv.{ended.pid}.part", f"t.csv.{ended.pid}.part"]
    for name in (*gone, *kept):
        (tmp_path / name).write_text("")
    with TableWriter(tmp_path / "t.csv") as writer:
        writer.add(pieces()[0])
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([*kept, "t.csv", "t.csv.json"])


@pytest.mark.parametrize("ending", ["parquet", "csv", "ecsv", "fits"])
def test_a_killed_writer_leaves_what_the_next_one_removes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    script = ("import os, sys; from pathlib import Path; from astropy.table import Table; "
              "from supermage.models.prediction_files import TableWriter; writer = TableWriter(Path(sys.argv[1])); "
              "writer.__enter__(); writer.add(Table({'a': [1]})); os.kill(os.getpid(), 9)")  # fmt: skip
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert any(".part" in item.name for item in tmp_path.iterdir()) and not path.exists()
    with TableWriter(path) as writer:
        writer.add(pieces()[0])
    assert not any(".part" in item.name for item in tmp_path.iterdir()) and path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("ending", ["parquet", "csv", "ecsv", "fits"])
def test_a_full_disk_names_the_output(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    path.write_text("earlier")
    writer = TableWriter(path)
    (writer._temporary if ending != "fits" else Path(f"{writer._temporary}.rows")).symlink_to("/dev/full")

    def fill() -> None:
        with writer:
            for _ in range(200):
                writer.add(Table({"number": np.random.default_rng(0).random(2000)}))

    with pytest.raises(DataError, match=r"the disk must have room and be writable, got: .*No space left on device") as caught:
        fill()
    assert str(caught.value).startswith(f"{path}: ") and path.read_text() == "earlier"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_the_error_of_a_body_is_not_hidden_by_one_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        with TableWriter(tmp_path / "table.csv") as writer:
            real = writer._writer.discard

            def fails() -> None:
                real()
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(writer._writer, "discard", fails)
            raise DataError("first")

    with pytest.raises(DataError, match=r"^first$"):
        broken()
