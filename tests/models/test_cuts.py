"""Cuts: what stays, what is counted, what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.errors import DataError
from supermage.models.cuts import PAPER_CUTS, PAPER_EXCLUSIONS, Cut, apply_cuts, counts_text
from supermage.models.tng_rows import read_tng_rows

MISSING = ["drop", "keep"]


def table() -> Table:
    return Table(
        {
            "galaxy_id": np.arange(6),
            "m_star_30kpc": MaskedColumn([5e9, 6e9, 1e10, 1e11, 2e10, 1e10], mask=[False] * 5 + [True], unit="Msun"),
            "m_subhalo": MaskedColumn([1e11, 1e14, 9e13, 1e12, 1e12, 1e12], unit="Msun"),
            "n_sersic": MaskedColumn([1.0, 1.0, 100.0, np.nan, 101.0, 2.0]),
            "flag": [True, True, True, True, False, True],
        }
    )


def test_the_papers_cuts() -> None:
    rows = table()
    kept, counts = apply_cuts(rows, [*PAPER_CUTS, PAPER_EXCLUSIONS[0]])
    assert kept["galaxy_id"].tolist() == [2, 3]  # 5e9 and 1e14 themselves are out, an index of 100 and a missing one are in
    assert [(count.before, count.removed, count.missing, count.after) for count in counts] == [(6, 1, 1, 4), (4, 1, 0, 3), (3, 1, 1, 2)]
    assert len(rows) == 6 and kept["m_subhalo"].unit == "Msun"
    lines = counts_text(counts).splitlines()
    assert lines[1].split() == ["m_star_30kpc", ">", "5e+09", "Msun", "6", "1", "1", "dropped", "4"]
    assert lines[3].split()[-3:] == ["1", "kept", "2"]
    assert len({len(line) for line in lines}) == 1


def test_units_are_looked_at() -> None:
    rows = table()["galaxy_id", "m_star_30kpc"]
    rows["m_star_30kpc"] = MaskedColumn(np.asarray(rows["m_star_30kpc"]) / 1e10, unit="1e10 Msun")
    assert apply_cuts(rows, PAPER_CUTS[:1])[0]["galaxy_id"].tolist() == [1, 2, 3, 4, 5]
    rows["m_star_30kpc"].unit = "Msun"
    with pytest.raises(DataError, match="is it another quantity or unit"):
        apply_cuts(rows, PAPER_CUTS[:1])


def test_absent_columns() -> None:
    with pytest.raises(DataError, match="'b_t <= 1' needs its column, got none"):
        apply_cuts(table(), PAPER_EXCLUSIONS)
    kept, counts = apply_cuts(table(), PAPER_EXCLUSIONS, absent="skip")
    assert counts[1].skipped and counts[1].before == counts[1].after == len(kept) == 5
    assert "skipped" in counts_text(counts)


def test_other_columns_and_all_relations() -> None:
    for text, rows in (("flag == 1", [0, 1, 2, 3, 5]), ("n_sersic >= 100", [2, 4]), ("n_sersic < 2", [0, 1]), ("galaxy_id <= 1", [0, 1])):
        assert apply_cuts(table(), [Cut.parse(text)])[0]["galaxy_id"].tolist() == rows


def test_nothing_left_is_an_error_that_names_the_cut() -> None:
    with pytest.raises(DataError, match=r"got none: 'm_subhalo > 1e\+16 Msun' removed the last 4"):
        apply_cuts(table(), [PAPER_CUTS[0], Cut("m_subhalo", ">", 1e16), PAPER_EXCLUSIONS[0]])


@pytest.mark.parametrize("text", ["", "m_subhalo", "m_subhalo > big", "m_subhalo => 3", "> 3", "m_subhalo > 1e", "m_subhalo > 1e999"])
def test_texts_that_are_no_cuts(text: str) -> None:
    with pytest.raises(DataError, match=r"a cut.*got"):
        Cut.parse(text)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.floats(0.0, 10.0)), min_size=1, max_size=30), st.floats(0.0, 10.0), st.sampled_from(MISSING))
def test_counts_add_up(values: list[float | None], bound: float, missing: str) -> None:
    column = MaskedColumn([np.nan if value is None else value for value in values], mask=[value is None for value in values])
    cut = Cut("x", ">", bound, missing)  # type: ignore[arg-type]
    expected = [k for k, value in enumerate(values) if (missing == "keep" if value is None else value > bound)]
    rows = Table({"x": column, "row": np.arange(len(values))})
    if not expected:
        with pytest.raises(DataError):
            apply_cuts(rows, [cut])
        return
    kept, (count,) = apply_cuts(rows, [cut])
    assert kept["row"].tolist() == expected
    assert count.before == count.after + count.removed + (count.missing if missing == "drop" else 0)


@pytest.mark.reference
def test_the_reference_rows(reference_data: Path) -> None:
    rows = read_tng_rows(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet")
    kept, counts = apply_cuts(rows, [*PAPER_CUTS, *PAPER_EXCLUSIONS], absent="skip")
    assert [count.after for count in counts] == [2506, 2502, 2502, 2502] and len(kept) == 2502
