"""Where parameters have a meaning: rules in one line, with units, and the hint where a logarithm was meant."""

from __future__ import annotations

import math

import pytest

from supermage.physical import LEAST_LOG10, NOT_ZERO, PHYSICAL, broken_rule


@pytest.mark.parametrize(("name", "value", "line"), [
    ("log10_mbh", 1.3e8, "must lie in [0, 12] dex(Msun), got 1.3e+08: is this log10?"),
    ("log10_mbh", 13.0, "must lie in [0, 12] dex(Msun), got 13"),
    ("log10_mbh", 1e300, "must lie in [0, 12] dex(Msun), got 1e+300"),
    ("intensity_rb", 22387.0, "must lie in [-5, 12] dex(Msun / pc2), got 22387: is this log10?"),
    ("Flux", -2.0, "must be at least 0 Jy km / s, got -2"),
    ("break_r", -1.5, "must be above 0 arcsec, got -1.5"),
    ("break_r", 0.0, "must be above 0 arcsec, got 0"),
    ("inclination", 0.0, "must lie in (0, 90] deg, got 0"),
    ("alpha", 0.0, "must lie in (0, 100], got 0"),
    ("gamma_minus_beta", 1.0, "must lie in [-20, 0], got 1"),
    ("gamma", 2.0, "must lie in [0, 1.9], got 2"),
    ("qintr", 2.0, "must lie in [0.05, 1], the range of the tabulated circular velocity, got 2"),
    ("qintr", math.nan, "must lie in [0.05, 1], the range of the tabulated circular velocity, got nan"),
])
def test_a_broken_rule_is_one_line(name: str, value: float, line: str) -> None:
    assert broken_rule(name, value) == line


@pytest.mark.parametrize("name", NOT_ZERO)
def test_a_prior_may_begin_where_no_galaxy_is(name: str) -> None:
    assert broken_rule(name, 0.0, is_bound=True) is None
    assert broken_rule(name, 0.0) is not None


def test_what_has_no_range_and_what_lies_inside_breaks_no_rule() -> None:
    assert broken_rule("PA", 1e6) is None
    assert broken_rule("Flux", 0.0) is None
    for name, (low, high, _) in PHYSICAL.items():
        for edge in (low, high):
            assert math.isinf(edge) or broken_rule(name, edge, is_bound=True) is None
    assert set(LEAST_LOG10) <= set(PHYSICAL)
