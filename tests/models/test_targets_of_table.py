"""Targets from masses: closed forms, what is missing, both apertures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError
from supermage.models.columns import TARGETS
from supermage.models.cuts import PAPER_CUTS, apply_cuts
from supermage.models.targets_of_table import targets_of_masses
from supermage.models.tng_rows import read_tng_rows


def table() -> Table:
    masses = {"star": [1e10, 2e10, 4e10], "dm": [3e10, 0.0, 5e10], "gas": [0.0, 1e9, 0.0], "bh": [1e7, 0.0, 1e8]}
    rows = Table({f"m_{name}_1rhsm": MaskedColumn(value, unit="Msun") for name, value in masses.items()})
    rows["M_r"] = MaskedColumn([4.65 - 25.0, 4.65 - 26.0, -20.0], mask=[False, False, True], unit="mag")
    return rows


def test_closed_forms() -> None:
    got = targets_of_masses(table())
    assert list(got) == ["log_mstar", "log_mtot", "log_mdm", "log_fstar", "log_fdm", "log_ml"] and set(got) == set(TARGETS)
    total = np.array([4.001e10, 2.1e10, 9.01e10])
    assert np.allclose(got["log_mstar"], np.log10([1e10, 2e10, 4e10]))
    assert np.allclose(got["log_mtot"], np.log10(total))
    assert np.allclose(got["log_mdm"], [np.log10(3e10), np.nan, np.log10(5e10)], equal_nan=True)
    assert np.allclose(10.0 ** got["log_fstar"], [1e10, 2e10, 4e10] / total)
    assert np.allclose(got["log_fdm"], [np.log10(3e10 / 4.001e10), np.nan, np.log10(5e10 / 9.01e10)], equal_nan=True)
    assert np.allclose(got["log_ml"], [np.log10(2e10 / 1e10), np.log10(4e10 / 10.0**10.4), np.nan], equal_nan=True)
    assert all(value.dtype == np.float64 for value in got.values())


def test_the_total_as_it_stands_counts() -> None:
    rows = table()
    rows["m_tot_1rhsm"] = MaskedColumn([5e10, 5e10, 0.0], mask=[False, False, True], unit="Msun")
    assert np.allclose(targets_of_masses(rows)["log_mtot"], [np.log10(5e10), np.log10(5e10), np.nan], equal_nan=True)
    rows["m_tot_1rhsm"][0] = 9e9
    with pytest.raises(DataError, match=r"at least that of its stars, got .* in row 0"):
        targets_of_masses(rows)


def test_what_the_columns_do_not_allow_is_left_out() -> None:
    rows = table()
    assert list(targets_of_masses(rows["m_star_1rhsm",])) == ["log_mstar"]
    assert list(targets_of_masses(rows["m_star_1rhsm", "m_dm_1rhsm", "M_r"])) == ["log_mstar", "log_mdm", "log_ml"]
    with pytest.raises(DataError, match="got none of"):
        targets_of_masses(rows["M_r",])
    with pytest.raises(DataError, match="one of 1rhsm, 2rhsm, got '3rhsm'"):
        targets_of_masses(rows, "3rhsm")


def test_the_wider_aperture_has_its_own_names() -> None:
    rows = table()
    for name in ("star", "dm", "gas", "bh"):
        rows[f"m_{name}_2rhsm"] = MaskedColumn(np.asarray(rows[f"m_{name}_1rhsm"]) * 2.0, unit="Msun")
    one, two = targets_of_masses(rows), targets_of_masses(rows, "2rhsm")
    assert list(two) == [f"{name}_2rhsm" for name in one]
    assert np.allclose(two["log_mtot_2rhsm"] - one["log_mtot"], np.log10(2.0))
    assert np.array_equal(two["log_ml_2rhsm"], one["log_ml"], equal_nan=True)  # the light is the whole galaxy's


@pytest.mark.reference
def test_the_reference_rows(reference_data: Path) -> None:
    rows = apply_cuts(read_tng_rows(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet"), PAPER_CUTS)[0]
    got = targets_of_masses(rows)
    assert np.isfinite(got["log_mstar"]).all() and (got["log_mtot"] >= got["log_mstar"]).all()
    whole = np.log10(rows["m_star_total"]) + 0.4 * (rows["M_r"] - 4.65)
    assert np.abs(got["log_ml"] - whole).max() < 2e-3
    assert 0.0 < np.median(got["log_ml"]) < 0.6  # old and young populations of a Chabrier function without dust: 1 to 4
