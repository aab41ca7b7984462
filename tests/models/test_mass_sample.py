"""Samples of galaxies with known masses: the reference rows, and the same as another simulation's tables would list them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError
from supermage.models.mass_sample import Sample, light_of, read_own_sample, read_shared_sample, read_tng_sample, sample_of_table
from supermage.models.mock_population import MOCK

ROWS = "galaxies/tng100-1-z0-subhalos.parquet"


def table() -> Table:
    found = Table({"group_id": [1, 1, 2], "M_r": [-20.0, -21.0, -19.0]})
    found["M_r"].unit = "mag"
    for name, values in {"star": [1e10, 2e10, np.nan], "tot": [3e10, 1.9999e10, 1e10], "dm": [1.5e10, 0.0, 1e9]}.items():
        found[f"m_{name}_1rhsm"] = values
        found[f"m_{name}_1rhsm"].unit = "Msun"
    found["predicted_log_mstar"] = [10.1, 10.2, 9.9]
    found["name"] = ["a", "b", "c"]
    return found


def test_rows_with_known_masses() -> None:
    got = sample_of_table(table(), source="a table")
    assert len(got) == 2 and got.aperture == "1rhsm"
    assert got.total.tolist() == [3e10, 2e10]
    assert "predicted_log_mstar" in got.columns and "name" not in got.columns
    assert got.cuts == ["stellar or total mass unknown: 1 of 3 rows left out"]
    assert light_of(np.array([-20.0]))[0] == pytest.approx(0.4 * 24.65 - np.log10(2.0))


def test_wrong_samples_are_refused() -> None:
    with pytest.raises(DataError, match="must be one of 1rhsm, 2rhsm, got '3rhsm'"):
        sample_of_table(table(), aperture="3rhsm")
    empty = np.empty(0)
    with pytest.raises(DataError, match="at least one galaxy"):
        Sample({}, empty, empty, empty, np.empty(0, dtype=np.int64), empty, "1rhsm", "nowhere")


def own(folder: Path, **columns: object) -> Path:
    """A user's table of six galaxies, with names and units of its own."""
    found = Table({"group_id": [1, 1, 2, 3, 4, 5], "rmag": [-20.0, -21.0, -19.0, -20.5, -20.2, -20.1], **columns})
    for name, value in {"m_star_1rhsm": 1e10, "m_tot_1rhsm": 3e10, "m_dm_1rhsm": 1.5e10}.items():
        found[name] = np.full(6, value)
        found[name].unit = "Msun"
    found["m_star_30kpc"] = np.array([1e10, 2e10, 4e9, np.nan, 3e10, 1e10])
    found["m_star_30kpc"].unit = "Msun"
    found.write(folder / "own.ecsv", overwrite=True)
    return folder / "own.ecsv"


def test_rows_of_a_user_are_cut_and_counted(tmp_path: Path) -> None:
    names = {"columns": {"M_r": "rmag"}, "units": {"M_r": "mag"}}
    path = own(tmp_path, flag=[True, False, True, True, True, True])
    got = read_own_sample(path, cuts=["m_star_30kpc > 5e9", "M_r < -20.05"], **names)
    assert got.columns["M_r"].tolist() == [-20.2, -20.1] and got.group.tolist() == [4, 5] and got.source == "own.ecsv"
    assert got.cuts == ["flag False: 1 of 6 rows left out", "not m_star_30kpc > 5e+09 Msun: 1 of 5 rows left out, 1 without a value too",
                        "not M_r < -20.05 mag: 1 of 3 rows left out, 0 without a value too",
                        "stellar or total mass unknown: 0 of 2 rows left out"]  # fmt: skip
    assert len(read_own_sample(own(tmp_path), **names)) == 6
    assert len(read_own_sample(own(tmp_path, flag=["True", "false", "TRUE", "1", "no", "yes"]), **names)) == 4
    for changes, cuts, message in (({}, ["m_star_30kpc above 5e9"], "a cut must read like"), ({}, ["m_subhalo < 1e14"], "needs its column"),
                                   ({"flag": ["maybe"] * 6}, [], "column 'flag' must say True or False, got 'maybe' in row 0"),
                                   ({"flag": [0] * 6}, [], "at least one galaxy, got flag False: 6 of 6 rows left out")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_own_sample(own(tmp_path, **changes), cuts=cuts, **names)


def test_groups_may_be_texts_or_unknown_but_must_be_there() -> None:
    found = table()
    found["group_id"] = MaskedColumn(["b", "a", "b"], mask=[False, True, False])
    got = sample_of_table(found)
    assert len(got) == 1 and got.cuts[1] == "group unknown: 1 of 2 rows left out"
    del found["group_id"]
    with pytest.raises(DataError, match="a sample must have group_id, for no group may stand on two sides of a split, got M_r, m_star_"):
        sample_of_table(found)


def test_a_sample_of_generated_galaxies_says_so(tmp_path: Path) -> None:
    found = Table.read(own(tmp_path), format="ascii.ecsv")
    found.meta["mock"] = MOCK
    found.write(tmp_path / "own.parquet")
    assert read_own_sample(tmp_path / "own.parquet").source == f"own.parquet: {MOCK}"


@pytest.mark.reference
def test_reference_rows(reference_data: Path) -> None:
    got = read_tng_sample(reference_data / ROWS)
    assert len(got) == 4551 and len(np.unique(got.group)) == 493
    assert (got.total >= got.stellar).all() and (got.dark < got.total).all()
    assert "826 of 5377" in got.cuts[0]


@pytest.mark.reference
def test_profiles_pass_through_what_is_known(reference_data: Path) -> None:
    """Spheres of 1 and 2 R50 hold the rows' own masses within 1 and 2 R_hsm for galaxies that end within 30 kpc, where R50 is R_hsm."""
    for ratio, aperture in ((1.0, "1rhsm"), (2.0, "2rhsm")):
        shared = read_shared_sample(reference_data / ROWS, copies=1, seed=2, discrepancy=0.0, ratios=(ratio, ratio * (1 + 1e-9)))
        rows = read_tng_sample(reference_data / ROWS, aperture=aperture)
        small = rows.columns["r_hsm"] < 3.0
        number = {round(mass): row for row, mass in enumerate(rows.columns["m_star_total"]) if small[row] and rows.dark[row] > 0}
        found = [(row, number[round(mass)]) for row, mass in enumerate(shared.columns["m_star_total"]) if round(mass) in number]
        ours, theirs = np.array(found).T
        assert len(ours) > 200
        for got, expected in ((shared.dark[ours], rows.dark[theirs]), (shared.stellar[ours], rows.stellar[theirs])):
            assert np.quantile(np.abs(np.log10(got / expected)), 0.9) < 0.02


@pytest.mark.reference
def test_copies_are_of_one_group_and_dark_masses_move_as_asked(reference_data: Path) -> None:
    """Standard deviation of 2400 normal numbers: 5 standard errors."""
    still, moved = (read_shared_sample(reference_data / ROWS, copies=2, seed=2, discrepancy=item) for item in (0.0, 0.1))
    half = len(still) // 2
    assert np.array_equal(still.group[:half], still.group[half:])
    assert np.array_equal(still.stellar, moved.stellar)
    there = (still.dark[:half] > 0) & (still.dark[half:] > 0)
    first, second = (np.log10(moved.dark[part][there] / still.dark[part][there]) for part in (slice(None, half), slice(half, None)))
    assert first == pytest.approx(second, abs=1e-9)
    assert first.std() == pytest.approx(0.1, abs=5 * 0.1 / np.sqrt(2 * there.sum()))
    assert (moved.total >= moved.stellar + moved.dark - 1.0).all()
