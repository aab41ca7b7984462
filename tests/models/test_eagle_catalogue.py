"""EAGLE's centrals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from supermage.errors import DataError
from supermage.models.catalogue import check_features
from supermage.models.columns import SHARED_FEATURES
from supermage.models.eagle_catalogue import read_eagle_centrals

ROWS = """# (0) GalaxyID - (1) GroupNumber
   21109760   1   11.0     9.594     6.805     10.0     14.272     0.176     7.658     0.326
   21379521   2   10.5    12.048     8.519     -1.000     14.573     0.162     7.948     0.423
"""


def test_columns(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text(ROWS)
    table = read_eagle_centrals(tmp_path / "c.txt")
    assert table["galaxy_id"].tolist() == [21109760, 21379521] and table["galaxy_id"].dtype == np.int64
    assert table["m_star_total"].tolist() == table["m_star_30kpc"].tolist() == pytest.approx([1e11, 10.0**10.5])
    assert table["m_gas_total"].tolist() == pytest.approx([1e10, 0.0]) and not table["m_gas_total"].mask.any()
    assert (table["r50_3d"].tolist(), table["r50_2d"].tolist(), table["r_e"].tolist()) == ([9.594, 12.048], [6.805, 8.519], [7.658, 7.948])
    assert table["f_dm_re"].tolist() == [0.326, 0.423] and table["kappa_co"].tolist() == [0.176, 0.162]
    assert table["m_200"][0] == pytest.approx(10.0**14.272) and table["m_200"].unit == table["m_star_total"].unit


@pytest.mark.parametrize("text", ["", "# nothing\n", "1 2 3\n", "a b c\n", None])
def test_other_files(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "c.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_eagle_centrals(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.reference
def test_the_reference_table(reference_data: Path) -> None:
    table = read_eagle_centrals(reference_data / "galaxies" / "eagle-reference-centrals.txt")
    assert len(table) == 2200 == len(set(table["galaxy_id"])) == len(set(table["group_id"]))
    assert np.isfinite(check_features(table, list(SHARED_FEATURES))).all()
    assert (table["m_star_30kpc"] > 1e10).all() and ((table["f_dm_re"] > 0) & (table["f_dm_re"] < 1)).all()
    assert (table["m_gas_total"] == 0).sum() == 58
    assert (table["r50_2d"] < table["r50_3d"]).all()
