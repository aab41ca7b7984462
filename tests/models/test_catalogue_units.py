"""Units as people write them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u

from supermage.errors import DataError
from supermage.models import catalogue_units
from supermage.models.catalogue_units import VEGA_BANDS, to_canonical, unit_text
from supermage.models.columns import COLUMNS


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_every_columns_own_unit_changes_nothing(name: str) -> None:
    column, value = COLUMNS[name], np.array([1.5, np.nan])
    assert np.array_equal(to_canonical(value, column.unit, column, name), value, equal_nan=True)
    if column.unit:
        with pytest.raises(DataError, match="got none"):
            to_canonical(value, "", column, name)


@pytest.mark.parametrize("text", ["dex(Msun)", " dex( Msun ) ", "log10(Msun)", "log(Msun)", "[Msun]", "log10[Msun]", "[solMass]"])
def test_logarithms(text: str) -> None:
    assert to_canonical(np.array([9.0]), text, COLUMNS["m_subhalo"], "m").tolist() == pytest.approx([1e9])


def test_systems_of_magnitudes() -> None:
    for name, column in COLUMNS.items():
        if name.startswith("M_"):
            right, wrong = ("mag(Vega)", "mag(AB)") if name in VEGA_BANDS else ("ABmag", "Vegamag")
            assert to_canonical(np.array([-20.0]), right, column, name)[0] == -20.0
            with pytest.raises(DataError, match="another system"):
                to_canonical(np.array([-20.0]), wrong, column, name)
    assert unit_text(u.ABmag) == "mag(AB)" and unit_text(None) == ""


def test_what_is_too_large_for_a_power_of_ten_is_infinite() -> None:
    assert np.isinf(to_canonical(np.array([5000.0]), "dex(Msun)", COLUMNS["m_subhalo"], "m")[0])


@pytest.mark.parametrize(("name", "text", "written", "factor"), [
    ("m_subhalo", "1e10 Msun / h", "1.4762e10 Msun", 1e10 / 0.6774), ("r_hsm", "kpc / h", "1.4762 kpc", 1.0 / 0.6774),
    ("r_hsm", "ckpc/h", "0.73812 kpc", 0.5 / 0.6774), ("r50_3d", "ckpc", "0.5 kpc", 0.5),
    ("spin", "kpc km / s / h", "1.4762 kpc km / s", 1.0 / 0.6774),
])  # fmt: skip
def test_what_to_write_for_h_and_comoving_lengths_is_of_the_columns_kind(name: str, text: str, written: str, factor: float) -> None:
    """And what the error says to write is a unit that is read, and right at h = 0.6774 and z = 1."""
    with pytest.raises(DataError, match="h and the scale factor out first") as caught:
        to_canonical(np.array([1.0]), text, COLUMNS[name], name)
    assert f"'{written}'" in str(caught.value) and ("Msun" in str(caught.value)) == (name == "m_subhalo")
    assert to_canonical(np.array([1.0]), written, COLUMNS[name], name)[0] == pytest.approx(factor, rel=1e-4)


def test_a_known_unit_touches_no_filter_of_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the process's: a thread that restores them late would silence what another has to say."""
    column = COLUMNS["sigma_3d1"]
    first = catalogue_units._parse("km/s", column, "column sigma_3d1")
    monkeypatch.setattr(catalogue_units.warnings, "catch_warnings", None)
    assert catalogue_units._parse("km/s", column, "column sigma_3d1") == first
