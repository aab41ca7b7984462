"""Catalogues at the border: names, units, ranges, what is missing, and one line for all that cannot be meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import given
from hypothesis import strategies as st

from supermage.errors import DataError
from supermage.models.catalogue import absent, canonical, check_features, column_values, read_catalogue, read_catalogue_chunks, reasons
from supermage.models.columns import COLUMNS, PAPER_FEATURES


def one_line(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and "got" in text
    return text


def galaxies(n: int = 6) -> Table:
    rng = np.random.default_rng(3)
    return Table(
        {
            "sigma_v": MaskedColumn(rng.uniform(50.0, 300.0, n), unit="km / s"),
            "name": [f"NGC {k}" for k in range(n)],
            "M_r": MaskedColumn(rng.uniform(-23.0, -18.0, n), unit="mag"),
            "m_star_total": MaskedColumn(rng.uniform(9.0, 12.0, n), unit="dex(Msun)"),
            "sfr": MaskedColumn(rng.uniform(0.0, 5.0, n), unit="Msun / yr"),
        }
    )


@pytest.mark.parametrize(
    ("name", "value", "unit", "expected"),
    [
        ("m_star_total", 3.0, "1e10 Msun", 3e10),
        ("m_star_total", 10.5, "dex(Msun)", 10.0**10.5),
        ("m_star_total", 10.5, "log10(Msun)", 10.0**10.5),
        ("m_star_total", 10.5, "[Msun]", 10.0**10.5),
        ("m_star_total", 0.5, "dex(1e10 Msun)", 10.0**10.5),
        ("m_star_total", 2e40, "kg", 2e40 / u.solMass.to(u.kg)),
        ("sigma_v", 2e5, "m / s", 200.0),
        ("r_hsm", 2500.0, "pc", 2.5),
        ("r_hsm", 0.5, "[kpc]", 10.0**0.5),
        ("sfr", 1e-9, "1e9 Msun / yr", 1.0),
        ("sfr", 2.0, "Msun / Myr", 2e-6),
        ("spin", 3.0, "Mpc km / s", 3000.0),
        ("M_r", -20.0, "mag(AB)", -20.0),
        ("M_r", -20.0, "AB", -20.0),
        ("M_r", -20000.0, "mmag", -20.0),
        ("M_K", -24.0, "mag(Vega)", -24.0),
        ("g_r", 0.7, "mag", 0.7),
        ("f_cold", 30.0, "percent", 0.3),
        ("f_cold", -0.5, "dex", 10.0**-0.5),
        ("n_sersic", 4.0, None, 4.0),
    ],
)
def test_units_are_converted(name: str, value: float, unit: str | None, expected: float) -> None:
    by_map = canonical(Table({name: [value, value]}), units={} if unit is None else {name: unit})
    assert by_map[name][1] == pytest.approx(expected, rel=1e-12)
    assert by_map[name].unit == (u.Unit(COLUMNS[name].unit) if COLUMNS[name].unit else None)
    assert np.array_equal(check_features(by_map, [name])[:, 0], np.asarray(by_map[name]))


def test_units_of_quantities_and_function_units() -> None:
    table = QTable({"m_star_total": [10.0, 11.0] * u.dex(u.Msun), "M_r": [-20.0, -21.0] * u.ABmag, "sigma_v": [1e5, 2e5] * u.m / u.s})
    result = canonical(table)
    assert np.allclose(check_features(result, ["m_star_total", "M_r", "sigma_v"]), [[1e10, -20.0, 100.0], [1e11, -21.0, 200.0]], rtol=1e-12)
    assert np.allclose(check_features(table, ["M_r"])[:, 0], [-20.0, -21.0])


@given(st.lists(st.floats(6.0, 13.9), min_size=1, max_size=20))
def test_logarithms_and_numbers_give_the_same(logs: list[float]) -> None:
    value = np.array(logs)
    one = canonical(Table({"m_star_total": MaskedColumn(value, unit="dex(Msun)")}))
    other = canonical(Table({"m_star_total": MaskedColumn(10.0 ** (value - 10.0), unit="1e10 Msun")}))
    assert np.allclose(one["m_star_total"], other["m_star_total"], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "unit", "words"),
    [
        ("m_star_total", "km / s", ["m_star_total", "Msun", "got 'km / s'"]),
        ("m_star_total", "mag", ["Msun", "got 'mag'"]),
        ("m_star_total", "dex", ["dex(Msun)"]),
        ("m_star_total", None, ["needs a unit (Msun), got none"]),
        ("m_star_total", "1e10 Msun / h", ["1.4762e10 Msun", "hour"]),
        ("m_star_total", "1e10 Msun / littleh", ["take h"]),
        ("r_hsm", "ckpc", ["kpc", "scale factor"]),
        ("r_hsm", "furlongs", ["unknown unit 'furlongs'"]),
        ("M_r", "Lsun", ["AB magnitudes", "got 'Lsun'"]),
        ("M_r", None, ["needs a unit (mag), got none", "--unit M_r=mag"]),
        ("M_r", "mag(Vega)", ["AB magnitudes", "another system"]),
        ("M_K", "mag(AB)", ["Vega magnitudes", "another system"]),
        ("n_sersic", "kpc", ["a pure number"]),
    ],
)
def test_wrong_units_are_named(name: str, unit: str | None, words: list[str]) -> None:
    text = one_line(lambda: canonical(Table({name: MaskedColumn([1.0, 2.0], unit=None)}), units={} if unit is None else {name: unit}))
    assert all(word in text for word in [f"column '{name}'", *words])


@pytest.mark.parametrize(
    ("name", "values", "unit", "word"),
    [
        ("M_r", [2e10, 3e10, -20.0], "mag", "another quantity or unit"),
        ("M_r", [15.0, 16.0, 14.0], "mag", "-30 .. -5 mag"),
        ("m_star_total", [0.3, 12.0, 4.0], "Msun", "100000 .. 1e+14 Msun"),
        ("m_star_1rhsm", [0.3, 12.0, 0.0], "Msun", "above 10000 Msun"),
        ("m_star_total", [10.3, 11.1, 9.0], "Msun", "m_star_total"),
        ("sigma_v", [2e5, 1e5, 150.0], "km / s", "1 .. 3000 km / s"),
        ("g_r", [1e10, 2e10, 0.5], "mag", "colour"),
    ],
)
def test_most_values_out_of_range_cannot_be_meant(name: str, values: list[float], unit: str, word: str) -> None:
    table = Table({name: MaskedColumn(values, unit=unit)})
    text = one_line(lambda: canonical(table))
    assert word in text and "of 3 outside" in text
    assert text == one_line(lambda: check_features(table, [name]))
    half = Table({name: MaskedColumn([values[0], {"g_r": 0.5, "M_r": -20.0, "sigma_v": 150.0}.get(name, 1e10)], unit=unit)})
    assert len(canonical(half)) == 2


def test_zero_masses_may_be_meant() -> None:
    gas = Table({"m_gas_1rhsm": MaskedColumn([0.0, 0.0, 1e9], unit="Msun")})
    assert check_features(gas, ["m_gas_1rhsm"])[:, 0].tolist() == [0.0, 0.0, 1e9]


def test_single_values_out_of_range_are_empty_with_a_reason() -> None:
    table = Table(
        {
            "M_r": MaskedColumn([-20.0, 99.0, -21.0, -19.0], unit="mag"),
            "sfr": MaskedColumn([0.0, 1.0, np.nan, -1.0], mask=[True, False, False, False], unit="Msun / yr"),
        }
    )
    features = check_features(table, ["sfr", "M_r"])
    assert np.isnan(features).tolist() == [[True, False], [False, True], [True, False], [True, False]]
    assert reasons(table, ["sfr", "M_r"]) == [
        "sfr missing", "M_r outside -30 .. -5 mag, got 99", "sfr missing", "sfr outside 0 .. 100000 Msun / yr, got -1",
    ]  # fmt: skip
    assert reasons(table[3:], ["M_r"]) == [""]
    assert reasons(table, ["M_r", "b_t"])[1] == "M_r outside -30 .. -5 mag, got 99; no column b_t"


def test_order_is_by_name_never_by_position() -> None:
    table, names = galaxies(), ["M_r", "sigma_v", "sfr"]
    expected = np.stack([np.asarray(table[name]) for name in names], axis=1)
    for order in (table.colnames, table.colnames[::-1]):
        assert np.array_equal(check_features(table[order], names), expected)
    assert np.array_equal(check_features(table, names[::-1]), expected[:, ::-1])


def test_absent_features_are_empty_but_not_all_of_them() -> None:
    table = canonical(galaxies())
    assert absent(table, PAPER_FEATURES) == ["g_r", "n_sersic", "c_a", "lambda_r", "b_t", "f_cold", "f_hot"]
    assert np.isnan(check_features(table, ["b_t", "sfr"])).all(axis=0).tolist() == [True, False]
    assert "at least one of M_K" in one_line(lambda: check_features(table, ["M_K"]))
    assert "did you mean 'sigma_v'" in one_line(lambda: check_features(table, ["sigmav"]))


def test_infinities_are_missing_and_the_users_table_is_left_alone() -> None:
    table = galaxies()
    table["sfr"][0] = np.inf
    before = table.copy()
    result = canonical(table)
    assert result["sfr"].mask.tolist() == [True] + [False] * 5
    result["sfr"][1] = 77.0
    assert all((table[name] == before[name]).all() for name in table.colnames) and table.meta == before.meta
    assert table["m_star_total"].unit == u.dex(u.Msun)


def test_columns_keep_their_place_and_others_come_along() -> None:
    table = galaxies()
    table.rename_columns(["sigma_v", "M_r"], ["vel disp", "rmag"])
    result = canonical(table, columns={"sigma_v": "vel disp", "M_r": "rmag"})
    assert result.colnames == ["sigma_v", "name", "M_r", "m_star_total", "sfr"]
    assert result["name"].tolist() == table["name"].tolist()
    again = canonical(result)
    assert again.colnames == result.colnames and all(np.array_equal(again[name], result[name]) for name in result.colnames)


def test_a_column_may_serve_twice_and_hide_or_swap_others() -> None:
    table = Table({"M_r": [-20.0], "M_g": [-19.0], "logm": [10.0]}, units={"M_r": "mag", "M_g": "mag", "logm": "dex(Msun)"})
    twice = canonical(table, columns={"m_star_total": "logm", "m_star_30kpc": "logm"})
    assert twice["m_star_total"][0] == twice["m_star_30kpc"][0] == pytest.approx(1e10)
    swapped = canonical(table, columns={"M_r": "M_g", "M_g": "M_r"})
    assert (swapped["M_r"][0], swapped["M_g"][0]) == (-19.0, -20.0)
    hidden = canonical(table, columns={"M_r": "M_g"})
    assert (hidden["M_r"][0], hidden["original_M_r"][0]) == (-19.0, -20.0)


def test_the_colour_follows_from_magnitudes() -> None:
    table = Table({"M_g": MaskedColumn([-19.0, -19.5], unit="mag"), "M_r": MaskedColumn([-20.0, np.nan], unit="mag")})
    assert check_features(table, ["g_r"])[:, 0].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    table["g_r"] = MaskedColumn([0.4, 0.5], unit="mag")
    assert check_features(table, ["g_r"])[:, 0].tolist() == [0.4, 0.5]


def test_numbers_that_identify_stay_whole() -> None:
    large = 2**60 + 1
    result = canonical(Table({"galaxy_id": [large, 5], "group_id": MaskedColumn([1.0, np.nan]), "projection": [2, -1]}))
    assert result["galaxy_id"].dtype == np.int64 and result["galaxy_id"][0] == large
    assert result["group_id"].dtype == np.int64 and result["group_id"].mask.tolist() == [False, True]
    assert result["projection"].mask.tolist() == [False, True]
    assert canonical(Table({"galaxy_id": ["a", "b"]}))["galaxy_id"].tolist() == ["a", "b"]
    assert "whole numbers, got 1.5 in row 1" in one_line(lambda: canonical(Table({"galaxy_id": [1.0, 1.5]})))


def test_only_what_matters_is_judged() -> None:
    table = galaxies()
    table["M_K"] = MaskedColumn(np.full(6, 99.0))
    assert "M_K" in one_line(lambda: canonical(table))
    result = canonical(table, names=["M_r"])
    assert result["M_K"].tolist() == [99.0] * 6 and result["m_star_total"].unit == u.dex(u.Msun)
    assert "M_K" in one_line(lambda: check_features(result, ["M_K"]))


def test_wrong_names_name_the_nearest() -> None:
    table = galaxies()
    assert "did you mean 'sigma_v'" in one_line(lambda: canonical(table, columns={"sigma_V": "sigma_v"}))
    assert "did you mean 'sigma_v'" in one_line(lambda: canonical(table, columns={"sigma_v": "sigmav"}))
    assert "did you mean 'lambda_r'" in one_line(lambda: canonical(table, units={"lambda": ""}))
    assert "did you mean 'sfr'" in one_line(lambda: column_values(table, "sfrr"))


def test_all_missing_units_are_named_at_once() -> None:
    table = Table({"rmag": [-20.0], "sfr": [1.0], "n_sersic": [4.0], "r_hsm": [3.0]})
    table["r_hsm"].unit = "kpc"
    text = one_line(lambda: canonical(table, columns={"M_r": "rmag"}))
    assert text == ("columns 'sfr', 'rmag' (M_r) need units, got none; name them in units, e.g. --unit 'sfr=Msun / yr' --unit M_r=mag")
    assert len(canonical(table, columns={"M_r": "rmag"}, units={"sfr": "Msun / yr", "M_r": "mag"})) == 1


def test_columns_of_the_catalogue_are_listed_where_none_is_near() -> None:
    table = Table({f"quantity_{number}": [1.0] for number in range(10)})
    text = one_line(lambda: canonical(table, columns={"M_r": "rmag"}))
    assert text.endswith("got M_r = 'rmag'; it has " + ", ".join(f"quantity_{number}" for number in range(8)) + ", ...")


def test_a_file_is_not_believed_on_its_reasons(tmp_path: Path) -> None:
    table = canonical(galaxies())
    table.meta["reasons"] = ["of another program"]
    table.write(tmp_path / "told.ecsv")
    assert "reasons" not in read_catalogue(tmp_path / "told.ecsv").meta
    assert all("reasons" not in piece.meta for piece in read_catalogue_chunks(tmp_path / "told.ecsv", rows=2))


def test_pieces_of_csv_have_one_type(tmp_path: Path) -> None:
    lines = [f"{-20 if row < 4 else -20.5},{row if row < 5 else row / 2},00{row if row < 6 else 'x'}" for row in range(8)]
    (tmp_path / "t.csv").write_text("M_r,other,name\n" + "\n".join(lines) + "\n")
    pieces = list(read_catalogue_chunks(tmp_path / "t.csv", rows=3, units={"M_r": "mag"}))
    assert [[piece[name].dtype.kind for name in piece.colnames] for piece in pieces] == [["f", "f", "U"]] * 3
    assert [item for piece in pieces for item in piece["name"]] == [f"00{row if row < 6 else 'x'}" for row in range(8)]


def test_texts_and_vectors_are_no_numbers() -> None:
    assert "needs numbers, got 'high'" in one_line(lambda: canonical(Table({"n_sersic": ["high", "low"]})))
    assert "one number a row, got shape (2, 2)" in one_line(lambda: canonical(Table({"n_sersic": [[1.0, 2.0], [1.0, 2.0]]})))


def test_an_empty_catalogue(tmp_path: Path) -> None:
    assert "at least one galaxy" in one_line(lambda: canonical(Table()))
    assert "at least one galaxy" in one_line(lambda: canonical(galaxies()[:0]))
    for name in ("empty.fits", "empty.ecsv", "empty.csv", "empty.parquet"):
        path = tmp_path / name
        galaxies()[:0].write(path) if not name.endswith("fits") else galaxies()["sfr", "M_r"][:0].write(path)
        one_line(lambda path=path: read_catalogue(path))
        one_line(lambda path=path: list(read_catalogue_chunks(path)))


def test_all_formats_give_the_same(tmp_path: Path) -> None:
    table = galaxies(25)
    table["sfr"] = MaskedColumn(table["sfr"], mask=np.arange(25) % 7 == 3)
    table["m_star_total"] = MaskedColumn(10.0 ** table["m_star_total"] / 1e10, unit="1e10 Msun")
    expected = canonical(table)
    names = ["M_r", "m_star_total", "sfr", "sigma_v"]
    for name in ("c.fits", "c.fits.gz", "c.vot", "c.ecsv", "c.parquet", "c.csv"):
        path = tmp_path / name
        table.write(path, **({"format": "votable"} if name == "c.vot" else {}))
        units = {"M_r": "mag", "m_star_total": "1e10 Msun", "sfr": "Msun / yr", "sigma_v": "km / s"} if name == "c.csv" else None
        whole = read_catalogue(path, units=units)
        assert np.allclose(check_features(whole, names), check_features(expected, names), rtol=1e-12, equal_nan=True), name
        assert whole["sfr"].mask.tolist() == expected["sfr"].mask.tolist(), name
        assert [str(item) for item in whole["name"]] == table["name"].tolist(), name
        pieces = list(read_catalogue_chunks(path, rows=7, units=units))
        assert [len(piece) for piece in pieces] == [7, 7, 7, 4]
        got = np.concatenate([check_features(piece, names) for piece in pieces])
        assert np.array_equal(got, check_features(whole, names), equal_nan=True), name
        assert [item for piece in pieces for item in piece["name"]] == whole["name"].tolist(), name


def test_a_sorted_file_is_not_refused_in_the_middle(tmp_path: Path) -> None:
    """A whole piece of placeholders is empty rows; a whole file of them is an error, and before the first piece."""
    table = Table({"M_r": MaskedColumn([-20.0] * 20 + [-99.0] * 8, unit="mag")})
    table.write(tmp_path / "sorted.parquet")
    pieces = list(read_catalogue_chunks(tmp_path / "sorted.parquet", rows=5))
    features = np.concatenate([check_features(piece, ["M_r"]) for piece in pieces])
    assert np.isnan(features[:, 0]).tolist() == [False] * 20 + [True] * 8
    table["M_r"][:] = np.where(np.arange(28) < 10, -20.0, -99.0)
    table.write(tmp_path / "wrong.parquet")
    assert "18 of 28 outside" in one_line(lambda: next(read_catalogue_chunks(tmp_path / "wrong.parquet", rows=5)))
    assert "at least one row" in one_line(lambda: next(read_catalogue_chunks(tmp_path / "wrong.parquet", rows=0)))


def test_a_mark_in_a_file_is_not_believed(tmp_path: Path) -> None:
    table = canonical(galaxies())
    table["M_r"][:] = 99.0
    table.write(tmp_path / "edited.ecsv")
    assert "M_r" in one_line(lambda: read_catalogue(tmp_path / "edited.ecsv"))


def test_distances_of_a_cosmology_are_units_too() -> None:
    """A quantity as astropy's own cosmology gives it."""
    size = FlatLambdaCDM(67.74, 0.3089).kpc_proper_per_arcmin(0.05) * [0.1, 0.2] * u.arcmin
    assert np.allclose(check_features(QTable({"r_hsm": size.to(u.lyr)}), ["r_hsm"])[:, 0], size.to_value(u.kpc))
