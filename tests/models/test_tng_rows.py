"""Rows of TNG100-1: names, units, what is missing; and that the published facts of the simulation come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from astropy.units import Unit

from supermage.errors import DataError
from supermage.models.catalogue import check_features
from supermage.models.columns import COLUMNS, MASSES
from supermage.models.group_catalogue import BANDS
from supermage.models.tng_rows import RENAMED, read_tng_rows


def raw_rows(n: int = 5) -> Table:
    """Rows of made-up numbers under the names of the file."""
    rng = np.random.default_rng(1)
    table = Table({name: rng.uniform(1e9, 1e11, n).astype(np.float32) for name in (*MASSES, "m_star_sub", "m_gas_sub", "m_tot_sub")})
    for k, band in enumerate(BANDS):
        table[f"M_{band}"] = np.float32(-20.0) - np.float32(0.25 * k) + np.zeros(n, np.float32)
    for name in ("r_hsm", "sigma_3d1", "spin", "sfr", "dec_bulge_index"):
        table[name] = rng.uniform(2.0, 90.0, n)
    for name in ("dec_f_disk_2d", "dec_f_disk_1d_1comp"):
        table[name] = np.where(np.arange(n) == 2, np.nan, rng.uniform(0.0, 1.0, n))
    table["GrNr"], table["SubfindID"] = np.arange(n, dtype=np.int32) // 2, np.arange(n) + 100
    table["flag"], table["central"] = np.arange(n) != 3, np.arange(n) % 2 == 0
    return table


def test_names_units_and_what_is_missing(tmp_path: Path) -> None:
    raw = raw_rows()
    raw.write(tmp_path / "rows.parquet")
    table = read_tng_rows(tmp_path / "rows.parquet")
    for name, theirs in RENAMED.items():
        assert np.allclose(np.ma.filled(table[name].astype(float), np.nan), raw[theirs], equal_nan=True), name
    for name in set(table.colnames) & set(COLUMNS):
        assert table[name].unit == (Unit(COLUMNS[name].unit) if COLUMNS[name].unit else None), name
    assert np.allclose(table["g_r"], 0.25)
    assert table["f_disk_2d"].mask.tolist() == [False, False, True, False, False]
    assert len(read_tng_rows(tmp_path / "rows.parquet", cosmological=True)) == 4


def test_other_files(tmp_path: Path) -> None:
    raw = raw_rows()
    raw.remove_column("SubfindID")
    raw.write(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="must have the column SubfindID, got none"):
        read_tng_rows(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_tng_rows(tmp_path / "none.parquet")


@pytest.mark.reference
def test_the_reference_rows(reference_data: Path) -> None:
    table = read_tng_rows(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet")
    assert len(table) == 5377 == len(set(table["galaxy_id"])) and len(set(table["group_id"])) == 493
    assert int((~table["flag"]).sum()) == 826
    assert all(int(table[name].mask.sum()) == 454 for name in ("f_disk_2d", "f_disk_1d", "bulge_index"))
    assert int((table["bulge_index"].filled(0.0) == 100.0).sum()) == 61
    features = check_features(table, ["M_r", "g_r", "sfr", "sigma_3d1", "spin", "r_hsm"])
    assert np.isfinite(features).all()
    for aperture in ("1rhsm", "2rhsm"):
        parts = sum(np.asarray(table[f"m_{part}_{aperture}"]) for part in ("star", "dm", "gas", "bh"))
        assert np.allclose(parts, table[f"m_tot_{aperture}"], rtol=1e-5)
    assert np.abs(table["m_star_1rhsm"] / table["m_star_total"] - 0.5).max() < 0.002  # R_hsm holds half of the subhalo's stars
    assert (table["m_star_total"] > 1e9).all()
