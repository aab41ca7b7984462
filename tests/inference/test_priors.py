"""Priors: the paper's table, changes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from supermage.errors import RecipeError
from supermage.forward.deprojection import scale_free_density
from supermage.forward.velocity import ScaleFreeCurve
from supermage.inference.parameters import PARAMETERS, TABLE_1
from supermage.inference.priors import build_priors, cautions
from supermage.physical import PHYSICAL
from supermage.recipe import PARAMETER_NAMES, FitSection, load_recipe


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


def test_gas_that_pulls_and_a_gradient_of_mass_to_light() -> None:
    priors = build_priors(section(model={"self_gravity": "exponential", "mass_to_light": "gradient"}))
    assert priors.names[-2:] == ("gas_log10_mass", "ml_gradient")


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


def test_a_scale_length_of_0_may_begin_a_prior_but_is_no_disc() -> None:
    priors = build_priors(section(priors={"scale_length": {"lower": 0.0, "upper": 5.0}}))
    priors.check_inside({"scale_length": 1e-6})
    for value in (0.0, -0.0):
        with pytest.raises(RecipeError, match=r"^scale_length of a start must be above 0 \(a scale length of 0 is no disc\), got 0$"):
            priors.check_inside({"scale_length": value})
        with pytest.raises(RecipeError, match=r"^fit.priors.scale_length must be above 0 \(a scale length of 0 is no disc\), got 0$"):
            build_priors(section(priors={"scale_length": {"fixed": value}}))


def test_axis_ratios_are_those_of_the_table() -> None:
    assert PHYSICAL["qintr"][0] == ScaleFreeCurve.lowest_axis_ratio
    assert build_priors(section(priors={"qintr": {"lower": 0.05, "upper": 1.0}})).names == PARAMETER_NAMES
    for prior in ({"fixed": 0.049}, {"lower": 0.04, "upper": 0.5}):
        with pytest.raises(RecipeError, match=r"qintr must lie in \[0.05, 1\], the range of the tabulated circular velocity, got 0.04"):
            build_priors(section(priors={"qintr": prior}))


@pytest.mark.parametrize(("name", "value", "line"), [
    ("log10_mbh", 1.3e8, "log10_mbh must lie in [0, 12] dex(Msun), got 1.3e+08: is this log10?"),
    ("log10_mbh", 13.0, "log10_mbh must lie in [0, 12] dex(Msun), got 13"),
    ("log10_mbh", -1.0, "log10_mbh must lie in [0, 12] dex(Msun), got -1"),
    ("intensity_rb", 2.2e4, "intensity_rb must lie in [-5, 12] dex(Msun / pc2), got 22000: is this log10?"),
    ("halo_log10_m200", 1e12, "halo_log10_m200 must lie in [5, 16] dex(Msun), got 1e+12: is this log10?"),
    ("halo_log10_c", 10.0, "halo_log10_c must lie in [-1, 3], got 10: is this log10?"),
    ("halo_log10_c", -2.0, "halo_log10_c must lie in [-1, 3], got -2"),
    ("Flux", -1.0, "Flux must be at least 0 Jy km / s, got -1"),
])
def test_logarithms_and_flux_have_bounds(name: str, value: float, line: str) -> None:
    with pytest.raises(RecipeError) as error:
        build_priors(section(priors={name: {"fixed": value}}, model={"halo": "nfw"}))
    assert str(error.value) == f"fit.priors.{line}"


def test_every_default_prior_is_physical() -> None:
    for p in PARAMETERS.values():
        assert p.name in {*PHYSICAL, "PA", "systemic_velocity", "x", "y"}
        low, high, unit = PHYSICAL.get(p.name, (p.lower, p.upper, p.unit))
        assert low <= p.lower < p.upper <= high, p.name
        assert unit == p.unit


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "inference").glob("*/*.toml")), ids=lambda path: path.parent.name)
def test_the_recipes_have_physical_priors(path: Path) -> None:
    fit = load_recipe(path).fit
    assert fit is not None
    assert build_priors(fit).free


def test_cusps_as_compact_as_a_black_hole_are_said() -> None:
    """The paper's priors reach alpha = 0.1 with gamma = 1.2; from alpha = 0.3 on, or with the hole held, there is nothing to say."""
    said = cautions(build_priors(section()), 11.4)
    assert len(said) == 1
    share = int(said[0].split(" % of the stars' mass inside 2 pc")[0].split()[-1])
    assert share == pytest.approx(100 * cusp_share(0.1, 1.2, 3.0, 0.41 * 55.27), abs=1.0)
    assert cautions(build_priors(section(priors={"alpha": {"lower": 0.3, "upper": 10.0}})), 11.4) == ()
    assert cautions(build_priors(section(priors={"log10_mbh": {"fixed": 6.0}})), 11.4) == ()


@pytest.mark.parametrize("priors", [
    {"alpha": {"lower": 0.0, "upper": 5.0}}, {"break_r": {"lower": 0.0, "upper": 5.0}}, {"gamma": {"lower": 0.1, "upper": 1.9}},
    {"gamma_minus_beta": {"lower": -20.0, "upper": 0.0}},
])
def test_priors_beyond_the_emulator_are_left_to_the_fit(priors: dict[str, dict[str, float]]) -> None:
    assert cautions(build_priors(section(priors=priors)), 11.4) == ()


def cusp_share(alpha: float, gamma: float, difference: float, break_radius: float) -> float:
    """Share of the mass inside 2 pc that lies inside 0.01 pc, by shells of Abel-inverted density (adaptive quadrature)."""

    def mass(radius: float) -> float:
        def shell(log_r: float) -> float:
            return float(scale_free_density(np.exp(log_r), alpha, gamma + difference, gamma)[0]) * np.exp(3 * log_r)

        return float(integrate.quad(shell, np.log(radius / break_radius) - 60, np.log(radius / break_radius), limit=200, epsrel=1e-6)[0])

    return mass(0.01) / mass(2.0)
