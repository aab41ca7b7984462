"""Priors: the paper's table, changes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from supermage.errors import RecipeError
from supermage.inference.parameters import TABLE_1
from supermage.inference.priors import build_priors
from supermage.recipe import PARAMETER_NAMES, FitSection


def section(**options: Any) -> FitSection:
    return FitSection(visibilities="v.nc", output="p.nc", **options)


def test_table_1() -> None:
    priors = build_priors(section())
    assert priors.names == PARAMETER_NAMES
    bounds = {p.name: (p.lower, p.upper) for p in TABLE_1}
    assert bounds["log10_mbh"] == (6.0, 9.79934)
    assert bounds["break_r"] == (0.41, 5.0)
    assert priors.circular == ("PA",)


def test_changed_and_fixed() -> None:
    priors = build_priors(section(priors={"x": {"fixed": 0.1}, "PA": {"lower": 10.0, "upper": 50.0}}))
    assert priors.fixed == {"x": 0.1}
    assert "x" not in priors.names
    assert priors.circular == ()


def test_halo() -> None:
    assert build_priors(section(model={"halo": "nfw"})).names[-2:] == ("halo_log10_m200", "halo_log10_c")


def test_everything_fixed_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one free parameter"):
        build_priors(section(priors={p.name: {"fixed": 0.5 * (p.lower + p.upper)} for p in TABLE_1}))


def test_starts_outside_the_priors_are_refused_and_edges_are_inside() -> None:
    priors = build_priors(section(priors={"y": {"fixed": 0.0}}))
    priors.check_inside({"PA": 359.9, "x": -1.0, "y": 0.0})
    with pytest.raises(RecipeError, match=r"prior of 'PA', \[0, 359.9\], got 400"):
        priors.check_inside({"PA": 400.0})
    with pytest.raises(RecipeError, match="did you mean 'Flux'"):
        priors.check_inside({"flux": 2.0})
    with pytest.raises(RecipeError, match="fixed parameter 'y'"):
        priors.check_inside({"y": 0.5})
