from pathlib import Path

import numpy as np
import pytest

from supermage.errors import DomainError
from supermage.report import figures_fit
from supermage.report.case import Case
from supermage.report.figures import FIGURES
from supermage.report.record import Record, Sampled
from supermage.report.statistics import unwrap
from tests.report.factories import make_recipe

NORTH = (358.5, 0.0, 1.0)
"""Position angles at north, as they are in [0, 360)."""


def sampled(name, draws, *, lower=0.0, upper=2.0, **more):
    return Sampled(name, name, "", name, lower, upper, draws.reshape(4, -1), **more)


def make_case(*, angle=358.5, truth=1.0, **options):
    """A case of an angle around north, a slope and a mass, all but the angle without a truth."""
    normal = np.random.default_rng(1).standard_normal((3, 4000))
    draws = unwrap((angle + 0.8 * normal[0]) % 360.0)
    parameters = (
        sampled("log10_mbh", 8.0 + 0.1 * normal[1], lower=6.0, upper=9.8),
        sampled("PA", draws, upper=360.0, truth=truth, circular=True),
        sampled("gamma", 1.0 + 0.05 * normal[2]),
    )
    record = Record(Path("posterior.nc"), make_recipe(Path()), parameters, None, {}, {} if truth is None else {"PA": truth}, {})
    return Case(record, **options)


def drawn_by(monkeypatch, name, draw, case):
    calls = []
    monkeypatch.setattr(figures_fit, name, lambda axes, draws, **given: calls.append({"axes": axes, "draws": draws, **given}))
    draw(case)
    return calls


def apart(first, second):
    """Smallest difference of two angles."""
    return abs((first - second + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize("angle", NORTH)
@pytest.mark.parametrize("value", [1.0, 358.0, -2.0, 362.0])
@pytest.mark.parametrize("as_reference", [False, True])
def test_an_angle_is_marked_beside_its_draws_across_north(monkeypatch, angle, value, as_reference):
    case = make_case(angle=angle, **({"reference": {"PA": value}} if as_reference else {"truth": value}))
    (call,) = drawn_by(monkeypatch, "corner", figures_fit.draw_corner_full, case)
    draws, truth, (low, high) = call["draws"][:, 1], call["truth"][1], call["ranges"][1]
    assert low < min(draws.min(), truth) and max(draws.max(), truth) < high < low + 20.0
    assert abs(truth - np.median(draws)) == pytest.approx(apart(value, angle), abs=0.1)


@pytest.mark.parametrize("draws", [
    np.array([-1.0, 1.0, -0.5, 0.5]), np.array([359.0, 361.0, 359.5, 360.5]), np.random.default_rng(1).uniform(0.0, 360.0, 400),
    np.concatenate([np.random.default_rng(2).normal(angle, 3.0, 200) for angle in (10.0, 185.0)]),
], ids=["north", "north, turned", "flat", "two modes"])  # fmt: skip
def test_the_turn_of_an_angle_is_that_of_its_draws(draws):
    angle = sampled("PA", unwrap(draws), upper=360.0, circular=True)
    assert [angle.beside_draws(value % 360.0) for value in angle.draws.ravel()] == pytest.approx(angle.draws.ravel())


@pytest.mark.parametrize("angle", NORTH)
def test_a_marginal_across_north_is_one_peak_inside_its_prior(monkeypatch, angle):
    call = drawn_by(monkeypatch, "marginal", figures_fit.draw_marginals, make_case(angle=angle))[1]
    assert np.ptp(call["draws"]) < 10.0
    assert abs(call["truth"] - np.median(call["draws"])) == pytest.approx(apart(1.0, angle), abs=0.1)
    low, high = call["turn"]
    assert high - low == 360.0 and low < min(call["draws"].min(), call["truth"]) and max(call["draws"].max(), call["truth"]) < high
    assert call["prior"] == (0.0, 360.0)


def test_a_redraw_command_has_the_options_that_its_figure_takes():
    case = make_case(chosen=("gamma", "PA"), reference={"gamma": 1.1, "PA": -0.25})
    chosen, compared = " --parameter gamma --parameter PA", " --reference gamma=1.1 --reference PA=-0.25"
    wanted = {"corner": chosen + compared, "corner-full": compared, "traces": chosen, "ranks": chosen, "velocity": "", "marginals": ""}
    for name, options in wanted.items():
        assert FIGURES[name].command(case) == f"supermage report posterior.nc --figure {name}{options}"


def test_captions_name_the_parameters_and_the_lines():
    def captions(**options):
        case = make_case(**options)
        return tuple(FIGURES[name].caption(case) for name in ("corner", "corner-full"))

    main, full = captions()
    assert main == "Posterior of the main parameters; contours hold 68 and 95 %. Lines: truth."
    assert full.endswith("within the prior. Lines: truth.")
    assert not any("Lines" in words for words in captions(truth=None))
    main, full = captions(chosen=("gamma", "log10_mbh"), reference={"gamma": 1.1})
    assert main == "Posterior of gamma, log10_mbh; contours hold 68 and 95 %. Lines: reference values (gamma = 1.1)."
    assert full.endswith("Lines: reference values (gamma = 1.1), else the truth.")
    assert captions(chosen=("PA",), reference={"gamma": 1.1})[0] == "Posterior of PA. Lines: truth."


def test_a_reference_outside_the_prior_is_shown_and_said():
    case = make_case(reference={"gamma": 2.5, "PA": 365.0})
    figure = figures_fit.draw_corner(case)
    panels = np.reshape(figure.axes, (3, 3))
    assert np.ptp(panels[1, 1].get_xlim()) < 20.0  # a circle has no outside
    low, high = panels[2, 2].get_xlim()
    assert low < 1.0 and 2.5 < high < 2.7
    assert panels[2, 0].get_ylim() == panels[2, 1].get_ylim() == (low, high)
    words = FIGURES["corner"].caption(case)
    assert words.endswith("Lines: reference values (PA = 365.0, gamma = 2.5). That of gamma lies outside its prior, 0 to 2.")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reference_that_is_not_finite_is_refused(value):
    with pytest.raises(DomainError, match=f"^a reference must be a finite number, got gamma = {value}$"):
        make_case(reference={"gamma": value})
