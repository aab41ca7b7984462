import pytest

from supermage.models.columns import PAPER_FEATURES, TARGETS
from supermage.models.gbdt_table import COLOURS
from supermage.plots.feature_gain import SYMBOLS, feature_gain, symbol
from supermage.plots.style import journal_style, new_figure


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(3.35, 2.5).subplots()


def test_bars_are_shares_in_per_cent_with_the_largest_first_and_on_top(axes):
    assert feature_gain(axes, {"sfr": 0.102, "M_r": 0.895, "c_a": 0.003}) is axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([89.5, 10.2, 0.3])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$M_r$", "SFR", "$c/a$"]
    assert [text.get_text() for text in axes.texts] == ["90 %", "10 %", "<1 %"]
    assert axes.yaxis_inverted()


def test_what_is_not_drawn_is_added_up(axes):
    shares = {f"f{number}": 0.25 - 0.05 * number for number in range(5)}
    feature_gain(axes, shares, most=2)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([25.0, 20.0, 30.0])
    assert axes.get_yticklabels()[-1].get_text() == "3 others"


def test_bars_and_their_numbers_stay_inside(axes):
    feature_gain(axes, {"M_r": 0.97, "sfr": 0.03})
    axes.figure.canvas.draw()
    right = axes.get_window_extent().x1
    assert all(text.get_window_extent().x1 <= right + 1 for text in axes.texts)


def test_no_gain_at_all_is_drawn(axes):
    feature_gain(axes, {"M_r": 0.0, "sfr": 0.0})
    assert [text.get_text() for text in axes.texts] == ["<1 %", "<1 %"]


def test_features_and_targets_have_symbols():
    assert all(name in SYMBOLS for name in (*PAPER_FEATURES, *TARGETS) if name != "g_r")
    assert symbol("g_r") == "$g-r$"
    assert symbol("M_K") == "$M_K$"
    assert all(symbol(name) == f"${name[0]}-{name[2]}$" for name in COLOURS)
    assert symbol("m_gas_total") == "m gas total"
