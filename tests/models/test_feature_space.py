"""Feature space: derived features, standardisation, gaps filled by the conditional mean and flagged."""

from __future__ import annotations

import numpy as np
import pytest

from supermage.errors import DataError
from supermage.models.feature_space import CLIP, PRESETS, columns_of, derive, feature_names, fit_feature_space, patterns_of


def test_features_do_not_depend_on_the_order_of_columns() -> None:
    columns = {"M_r": np.array([-20.0, -21.0]), "M_B": np.array([-19.0, np.nan]), "M_U": np.array([-18.5, -19.5]),
               "sfr": np.array([0.0, 10.0])}  # fmt: skip
    names = ("log_sfr", "U_B", "M_r")
    got = derive(names, columns)
    assert got[0] == pytest.approx([-4.0, 0.5, -20.0])
    assert np.isnan(got[1, 1]) and got[1, 0] == 1.0
    assert np.array_equal(got, derive(names, dict(reversed(columns.items()))), equal_nan=True)


def test_a_missing_column_is_missing_in_all_rows() -> None:
    assert np.isnan(derive(("log_spin",), {"M_r": np.zeros(3)})).all()


def test_gaps_are_filled_by_the_conditional_mean() -> None:
    """Of two standard normals with correlation 0.8, the second given the first is 0.8 of it; flags stand beside."""
    generator = np.random.default_rng(0)
    first = generator.standard_normal(20_000)
    features = np.stack([5.0 + 2.0 * first, 1.0 - 3.0 * (0.8 * first + 0.6 * generator.standard_normal(20_000))], axis=1)
    space = fit_feature_space(("M_r", "g_r"), features)
    standard = space.standardise(np.array([[9.0, np.nan], [np.nan, np.nan], [5.0, 1.0]]))
    got = space.inputs(standard)
    assert got[0] == pytest.approx([2.0, -1.6, 0.0, 1.0], abs=0.05)
    assert got[1].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert got[2] == pytest.approx([0.0, 0.0, 0.0, 0.0], abs=0.03)
    assert np.isnan(standard[0, 1])


def test_far_values_are_clipped() -> None:
    space = fit_feature_space(("M_r",), np.arange(10.0)[:, None])
    assert space.inputs(space.standardise(np.array([[1e6]])))[0, 0] == CLIP


def test_patterns_cover_every_row_once() -> None:
    missing = np.random.default_rng(1).random((50, 4)) < 0.4
    found = patterns_of(missing)
    rows = np.concatenate([part for _, part in found])
    assert sorted(rows) == list(range(50))
    assert all((missing[part] == pattern).all() for pattern, part in found)


def test_names() -> None:
    assert feature_names("paper") == PRESETS["paper"]
    assert columns_of(("U_B", "B_V")) == ("M_U", "M_B", "M_V")
    with pytest.raises(DataError, match="did you mean 'log_spin'"):
        feature_names(["log_spinn"])
    with pytest.raises(DataError, match="must be one of group catalogue"):
        feature_names("everything")
    with pytest.raises(DataError, match="got none"):
        feature_names([])


def test_constant_or_absent_features_are_refused() -> None:
    with pytest.raises(DataError, match="M_r constant"):
        fit_feature_space(("M_r",), np.ones((5, 1)))
    with pytest.raises(DataError, match="got g_r in 0"):
        fit_feature_space(("M_r", "g_r"), np.array([[1.0, np.nan], [2.0, np.nan]]))
