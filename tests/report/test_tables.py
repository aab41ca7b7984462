import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermage.report.figures_fit import axis_offset, axis_range
from supermage.report.record import Sampled
from supermage.report.tables import row
from supermage.report.text import axis_label, bound, decimals_of, fixed_point, html_unit, in_scientific, latex_to_html, math_symbol


def sampled(draws, **changes):
    fields = {"name": "gamma", "symbol": r"\gamma", "unit": "", "description": "slope", "lower": 0.0, "upper": 2.0}
    return Sampled(draws=np.asarray(draws, dtype=float).reshape(4, -1), **{**fields, **changes})


@pytest.mark.parametrize(
    ("error", "decimals"),
    [(0.123, 2), (0.0996, 2), (0.099, 3), (0.95, 2), (0.996, 1), (1.0, 1), (12.3, 0), (99.6, -1), (123.0, -1), (0.0, 3), (float("nan"), 3)],
)
def test_two_digits_of_the_error(error, decimals):
    assert decimals_of(error) == decimals


@given(st.floats(1e-6, 1e6))
def test_error_keeps_two_significant_digits(error):
    text = fixed_point(error, decimals_of(error))
    assert float(text) == pytest.approx(error, rel=0.051)
    assert len(text.replace(".", "").strip("0")) <= 2


def test_no_negative_zero():
    assert fixed_point(-0.001, 1) == "0.0"


def test_value_is_rounded_with_its_error():
    rng = np.random.default_rng(1)
    item = row(sampled(rng.normal(0.80123, 0.0312, 4000)))
    assert item.median == "0.801"
    assert item.plus in {"0.030", "0.031", "0.032"}
    assert item.edges == "none"


def test_angle_across_the_cut_is_averaged_on_the_circle():
    rng = np.random.default_rng(1)
    draws = rng.normal(0.0, 2.0, 4000)
    item = row(sampled(draws, name="PA", unit="deg", lower=0.0, upper=359.9, circular=True, truth=359.5))
    assert float(item.median) == pytest.approx(0.0, abs=0.2) or float(item.median) == pytest.approx(360.0, abs=0.2)
    assert float(item.low95) > 350
    assert float(item.high95) < 10
    assert item.edges == "circle"
    assert item.truth_inside == "in 68 %"


def test_where_the_truth_lies():
    draws = np.random.default_rng(2).normal(1.0, 0.1, 4000)
    assert [row(sampled(draws, truth=t)).truth_inside for t in (1.05, 1.15, 1.25, 1.9)] == [
        "in 68 %",
        "in 95 %, not 68 %",
        "in 99.7 %, not 95 %",
        "not in 99.7 %",
    ]


def test_a_label_may_name_a_constant_that_was_taken_away():
    velocity = sampled(np.linspace(1240, 1242, 400), symbol=r"v_\mathrm{sys}", unit="km / s")
    assert axis_offset(velocity) == 1241.0
    assert axis_label(velocity, offset=1241.0).startswith(r"$v_\mathrm{sys}$ $-$ 1241 ($")
    assert axis_label(velocity, offset=-1241.0).startswith(r"$v_\mathrm{sys}$ $+$ 1241 ($")
    assert axis_offset(sampled(np.linspace(60, 70, 400))) == 0.0


def test_axes_reach_the_truth_but_not_beyond_the_prior():
    draws = np.linspace(0.5, 1.0, 400)
    assert axis_range(sampled(draws, truth=1.2)) == pytest.approx((0.43, 1.27))
    assert axis_range(sampled(draws, truth=2.5)) == pytest.approx((0.45, 1.05))
    assert axis_range(sampled(draws, lower=0.49, upper=1.02)) == (0.49, 1.02)
    assert axis_range(sampled(draws, lower=0.49, upper=1.02, circular=True)) == pytest.approx((0.45, 1.05))


def test_one_formatter_for_the_bounds_of_a_prior():
    assert [bound(value) for value in (9.79934, 1000.0, -0.5, 12345.6)] == ["9.799", "1000", "-0.5", "12346"]


def test_scientific():
    assert in_scientific(1.2967e8, 0.52e8) == ("1.30", "0.52", 8)


def test_symbols():
    mass = sampled([1] * 4, symbol=r"\log_{10} M_\bullet/M_\odot", unit="dex(Msun)")
    assert math_symbol(mass) == r"$\log_{10} M_\mathrm{BH}/M_\odot$"
    assert axis_label(mass) == math_symbol(mass)
    assert latex_to_html(mass.symbol) == "log<sub>10</sub> <i>M</i><sub>BH</sub>/<i>M</i><sub>☉</sub>"
    assert latex_to_html(r"\gamma-\beta") == "γ − β"
    density = sampled([1] * 4, symbol=r"\log_{10} \Sigma_\mathrm{b}", unit="dex(Msun / pc2)")
    assert "pc^{-2}" in axis_label(density)
    assert html_unit(density) == "<i>M</i><sub>☉</sub> pc<sup>−2</sup>"
