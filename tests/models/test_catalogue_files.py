"""Files of catalogues: masks, units and types as each format has them; damaged ones in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.units import solMass
from pyarrow import parquet

from supermage.errors import DataError
from supermage.models.catalogue import read_catalogue
from supermage.models.catalogue_files import raw_chunks, read_raw
from supermage.models.columns import COLUMNS, MOCK
from supermage.models.mock_population import draw_population


def refused(path: Path, format: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_raw(path, format)
    with pytest.raises(DataError) as other:
        list(raw_chunks(path, 10, format))
    assert "\n" not in str(caught.value) and "\n" not in str(other.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_parquet_without_a_word_of_astropy(tmp_path: Path) -> None:
    fields = [pa.field("a", pa.float64(), metadata={"unit": "kpc"})]
    fields += [pa.field("i", pa.int64()), pa.field("s", pa.string()), pa.field("b", pa.bool_())]
    content = {"a": [1.5, None, float("nan")], "i": [2**60 + 1, None, 3], "s": ["x", None, "zzz"], "b": [True, None, False]}
    table = pa.table(content, schema=pa.schema(fields))
    table = table.append_column("d", pa.array(["u", "v", "u"]).dictionary_encode()).append_column("l", pa.array([[1], [2, 3], None]))
    table = table.append_column("m", pa.array([1, 2, 3]).cast(pa.decimal128(20)))
    parquet.write_table(table, tmp_path / "plain.parquet", row_group_size=2)
    got = read_raw(tmp_path / "plain.parquet")
    assert got["i"][0] == 2**60 + 1 and got["i"].dtype == np.int64
    assert all(got[name].mask.tolist() == [False, True, False] for name in "aisb")
    assert got["a"].unit == "kpc" and np.isnan(got["a"][2])
    assert got["s"].tolist() == ["x", None, "zzz"] and got["b"].tolist() == [True, None, False]
    assert got["d"].tolist() == ["u", "v", "u"] and got["l"].tolist() == [[1], [2, 3], None] and got["m"].dtype == np.float64
    assert [len(piece) for piece in raw_chunks(tmp_path / "plain.parquet", 2)] == [2, 1]


def test_parquet_of_astropy_with_masks_and_units(tmp_path: Path) -> None:
    Table({"a": MaskedColumn([1.0, 2.0], mask=[False, True], unit="Msun"), "b": [1, 2]}).write(tmp_path / "t.parquet")
    got = read_raw(tmp_path / "t.parquet")
    assert got.colnames == ["a", "b"] and got["a"].unit == solMass and got["a"].mask.tolist() == [False, True]
    QTable({"a": [1.0, 2.0] * solMass}).write(tmp_path / "q.parquet")
    assert read_raw(tmp_path / "q.parquet")["a"].unit == solMass


def test_fits_slices_keep_null_values_unsigned_numbers_and_scales(tmp_path: Path) -> None:
    table = Table({"u": np.arange(9, dtype=np.uint32), "i": MaskedColumn(np.arange(9), mask=np.arange(9) % 4 == 1), "f": np.arange(9.0)})
    table["f"].unit = "km / s"
    image = fits.ImageHDU(np.zeros((2, 2)))
    fits.HDUList([fits.PrimaryHDU(), image, fits.table_to_hdu(table)]).writeto(tmp_path / "t.fits")
    pieces = list(raw_chunks(tmp_path / "t.fits", 4))
    whole = read_raw(tmp_path / "t.fits")
    assert [len(piece) for piece in pieces] == [4, 4, 1]
    for name in table.colnames:
        assert [item for piece in pieces for item in piece[name].tolist()] == whole[name].tolist() == table[name].tolist()
    assert pieces[1]["f"].unit == "km / s"


def test_csv_with_a_byte_order_mark_quotes_and_words_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    end = ["\n" if k % 100 == 7 else "" for k in range(4000)]
    rows = [f'{k},"a, ""{k}""{end[k]}",{"NULL" if k % 3 == 0 else "n/a" if k % 3 == 1 else k / 2}' for k in range(4000)]
    path.write_text("\ufeffid,text,value\n" + "\n".join(rows) + "\n", encoding="utf-8")
    whole = read_raw(path)
    pieces = list(raw_chunks(path, 300))
    assert max(len(piece) for piece in pieces) == 300 and len(pieces) == 14
    assert whole.colnames == pieces[-1].colnames == ["id", "text", "value"]
    assert np.concatenate([piece["id"] for piece in pieces]).tolist() == whole["id"].tolist() == list(range(4000))
    assert whole["text"][1] == 'a, "1"' and whole["text"][107] == pieces[0]["text"][107] == 'a, "107"\n'
    assert whole["value"].dtype == np.float64
    assert whole["value"].mask.tolist() == [k % 3 != 2 for k in range(4000)]


def test_types_of_csv_are_those_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('number,real,text,empty\n1,1,007,\n2,2,"0,8",\n3,NULL,,\n4,2.5,x,\n5,nan,9,y\n')
    whole, pieces = read_raw(path), list(raw_chunks(path, 1))
    for name, kind in {"number": "i", "real": "f", "text": "U", "empty": "U"}.items():
        assert {piece[name].dtype.kind for piece in pieces} == {kind} == {whole[name].dtype.kind}
        assert str([item for piece in pieces for item in piece[name].tolist()]) == str(whole[name].tolist())
    assert whole["text"].tolist() == ["007", "0,8", None, "x", "9"]


def test_unknown_kinds_of_files_are_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "eagle.txt").write_text("1 2 3.5\n4 5 6.5\n")
    text = refused(tmp_path / "eagle.txt")
    assert text.endswith("in one of FITS (.fits), VOTable (.vot), ECSV (.ecsv), CSV (.csv), Parquet (.parquet), told by its ending, got "
                         "'eagle.txt', of no known kind")  # fmt: skip


@pytest.mark.parametrize("ending", ["parquet", "fits", "ecsv"])
def test_generated_galaxies_stay_labelled(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    given = Table({"a": MaskedColumn([1.0, 2.0, 3.0], mask=[False, True, False])}, meta={"mock": MOCK, "seed": 3})
    given.write(path)
    assert all(table.meta["mock"] == MOCK for table in (read_raw(path), *raw_chunks(path, 2)))
    assert not any(str(key).startswith("__") for key in read_raw(path).meta)


@pytest.mark.parametrize("ending", ["vot", "csv", "ecsv", "fits", "parquet"])
def test_generated_galaxies_are_known_by_their_columns(tmp_path: Path, ending: str) -> None:
    """VOTable and CSV have no room for the label, and other formats may have lost it on the way."""
    table, path = draw_population(5, 1), tmp_path / f"t.{ending}"
    table.meta.clear()
    table.write(path, format={"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(ending, ending))
    assert all(piece.meta["mock"] == MOCK for piece in (read_raw(path), *raw_chunks(path, 2)))
    units = {name: column.unit for name, column in COLUMNS.items() if name in table.colnames}
    assert read_catalogue(path, units=units).meta["mock"] == MOCK
    plain = table[[name for name in table.colnames if not name.startswith("mock_")]]
    plain.write(path, overwrite=True, format={"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(ending, ending))
    assert not any("mock" in piece.meta for piece in (read_raw(path), *raw_chunks(path, 2)))


def test_ecsv_under_the_name_of_csv(tmp_path: Path) -> None:
    Table({"a": MaskedColumn([1.0, 2.0], unit="kpc")}).write(tmp_path / "t.csv", format="ascii.ecsv")
    assert read_raw(tmp_path / "t.csv")["a"].unit == "kpc"
    assert read_raw(tmp_path / "t.csv", "ecsv")["a"].unit == "kpc"


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.fits")
    assert "a folder" in refused(tmp_path)
    for name in ("t.parquet", "t.fits", "t.vot", "t.ecsv", "t.unknown"):
        (tmp_path / name).write_bytes(b"\x00\x01\x02 nothing of a table\n" * 20)
        refused(tmp_path / name)
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    assert "images only" in refused(tmp_path / "image.fits")
    Table({"a": np.arange(2000.0)}).write(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:900])
    refused(tmp_path / "cut.parquet")
    refused(tmp_path / "whole.parquet", "no such format")
