import numpy as np
import pytest

from supermage.plots.correlation import correlation
from supermage.plots.style import journal_style, new_figure

MATRIX = np.array([[1.0, -0.8, np.nan], [-0.8, 1.0, 0.25], [np.nan, 0.25, 1.0]])


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(3.35, 3.35).subplots()


def test_coefficients_stand_in_the_lower_triangle_with_the_first_row_on_top(axes):
    assert correlation(axes, MATRIX, ["M_r", "g_r", "log_mstar"]) is axes
    shown = axes.images[0].get_array()
    assert np.array_equal(np.ma.getmaskarray(shown) | np.isnan(shown), ~np.tri(3, dtype=bool) | np.isnan(MATRIX))
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {(0, 1, "−0.80"), (1, 2, "0.25")}
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$M_r$", "$g-r$", r"$\log M_*$"]


def test_colours_span_minus_one_to_one(axes):
    correlation(axes, 0.1 * np.ones((2, 2)), ["a", "b"])
    assert axes.images[0].get_clim() == (-1.0, 1.0)


def test_a_line_divides_features_from_targets(axes):
    correlation(axes, MATRIX, ["M_r", "g_r", "log_mstar"], features=2)
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[-0.5, 1.5], [1.5, 1.5]], [[1.5, 1.5], [1.5, 2.5]]]


def test_what_does_not_vary_is_grey_and_a_crowd_has_no_numbers(axes):
    correlation(axes, MATRIX, ["a", "b", "c"])
    assert len(axes.collections) == 1
    crowd = new_figure(7, 7).subplots()
    correlation(crowd, np.ones((30, 30)), [f"x{number}" for number in range(30)])
    assert not crowd.texts
