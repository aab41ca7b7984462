"""Units as people write them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u

from supermage.errors import DataError
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
