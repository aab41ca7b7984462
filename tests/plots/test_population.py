import numpy as np
import pytest

from supermage.models.mock_population import draw_population
from supermage.plots.population import FEWEST, LABELS, binned, distribution, quantities, relation
from supermage.plots.style import journal_style, new_figure

RNG = np.random.default_rng(3)
X = RNG.uniform(9.0, 11.0, 4000)
Y = 0.5 * X + 0.1 * RNG.standard_normal(4000)
EDGES = np.linspace(9.0, 11.0, 5)


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(3.35, 2.6).subplots()


def test_bins_hold_median_and_scatter():
    """A normal scatter: quantiles within 4 errors of about 1.3 sigma / sqrt(n), slope over a bin included."""
    found = binned(X, Y, EDGES)
    assert found.number.sum() == 4000 and found.centre == pytest.approx(0.5 * (EDGES[1:] + EDGES[:-1]))
    assert found.median == pytest.approx(0.5 * found.centre, abs=4 * 1.3 * 0.13 / np.sqrt(1000))
    wide = np.hypot(0.1, 0.25 / np.sqrt(12))
    assert 0.5 * (found.high - found.low) == pytest.approx(np.full(4, wide), rel=0.15)


def test_bins_with_few_galaxies_and_missing_values_are_left_out():
    found = binned(np.append(X, np.nan), np.append(Y, 1.0), np.append(EDGES, 12.0))
    assert np.isnan(found.median[-1]) and found.number[-1] == 0
    few = binned(X[: FEWEST - 1] * 0 + 9.1, Y[: FEWEST - 1], EDGES)
    assert np.isnan(few.median).all() and few.number[0] == FEWEST - 1


def test_a_relation_shows_both_populations_by_name(axes):
    assert relation(axes, (X, Y), (X, Y + 0.3), names=("mock", "reference"), labels=("x", "y"), edges=EDGES) is axes
    points, line = axes.lines[:2]
    assert np.array_equal(points.get_xydata(), np.stack([X, Y], axis=1))
    assert line.get_ydata() == pytest.approx(binned(X, Y, EDGES).median)
    (bars,) = axes.containers
    assert bars.lines[0].get_ydata() == pytest.approx(binned(X, Y, EDGES).median + 0.3)
    assert axes.get_legend_handles_labels()[1] == ["mock", "reference"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y") and axes.get_xlim() == (9.0, 11.0)
    low, high = axes.get_ylim()
    assert low < binned(X, Y, EDGES).low.min() and high > binned(X, Y, EDGES).high.max() + 0.3


def test_distributions_have_unit_area(axes):
    assert distribution(axes, X, np.append(X[:300], np.nan), names=("mock", "reference"), label="x") is axes
    for patch in axes.patches:
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) == pytest.approx(0.99, abs=0.012)
    assert [patch.get_label() for patch in axes.patches] == ["mock", "reference"]


def test_quantities_are_those_of_the_columns_and_missing_where_masked():
    table = draw_population(30, 1)
    found = quantities(table)
    assert set(found) == set(LABELS)
    assert found["log_size"] == pytest.approx(np.log10(table["r_hsm"]))
    assert found["dark_share"] == pytest.approx(table["m_dm_1rhsm"] / table["m_tot_1rhsm"])
    assert found["log_light"] == pytest.approx(np.log10(table["m_star_total"]) + 0.4 * (np.asarray(table["M_r"]) - 4.65))
    table["f_disk_2d"] = np.ma.masked_array(table["f_disk_2d"], mask=np.arange(30) == 4)
    table["m_bh_1rhsm"][2] = 0.0
    again = quantities(table)
    assert np.isnan(again["disc_share"][4]) and np.isfinite(again["disc_share"][5]) and np.isnan(again["log_black_hole"][2])
