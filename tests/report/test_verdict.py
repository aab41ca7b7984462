import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermage.report.rules import DEFINITIONS, ORDER, RULES
from supermage.report.verdict import (
    ConvergenceFacts,
    HeldMass,
    MassFacts,
    NoiseFacts,
    ResidualFacts,
    Status,
    _convergence_words,
    black_hole_status,
    has_converged,
    judge,
    prior_dominated,
    structured_residuals,
)

MASS = MassFacts(width_ratio=0.12, span=0.3, lower_edge=0.0, upper_edge=0.0, sphere_of_influence=0.4, beam=0.5)
QUIET = ResidualFacts(chi2_per_datum=1.001, chi2_sigma=0.3, worst_channel_sigma=1.0, worst_baseline_sigma=-1.2, peak=4.2, peak_expected=4.8)
MIXED = ConvergenceFacts(worst_r_hat=1.02, worst_r_hat_name="gamma", smallest_ess=300, smallest_ess_name="alpha")
RATIOS = {"gamma": 0.3, "alpha": 0.98}


def change(facts, **changes):
    return dataclasses.replace(facts, **changes)


def test_a_clear_black_hole_is_detected():
    verdict = judge(MASS, QUIET, MIXED, RATIOS)
    assert verdict.status is Status.DETECTED
    assert verdict.measured
    assert verdict.headline.startswith("DETECTED")
    assert "alpha (0.98)" in " ".join(verdict.reasons)
    assert "gamma (0.30)" not in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"width_ratio": 0.95, "span": 2.4, "lower_edge": 1.0, "upper_edge": 1.0}, Status.UNRESOLVED),
        ({"width_ratio": 0.6, "span": 1.5, "lower_edge": 1.4}, Status.UPPER_LIMIT),
        ({"width_ratio": 0.5, "span": 1.3}, Status.UNRESOLVED),
        ({"sphere_of_influence": 0.1}, Status.UNRESOLVED),
        ({"sphere_of_influence": 0.2}, Status.DETECTED),
        ({"upper_edge": 3.0}, Status.DO_NOT_TRUST),
        ({"width_ratio": math.nan}, Status.UNRESOLVED),
        ({"lower_edge": math.nan}, Status.UPPER_LIMIT),
        ({"beam": math.nan}, Status.UNRESOLVED),
        ({"upper_edge": math.nan}, Status.DO_NOT_TRUST),
        ({"lower_edge": 0.06, "sphere_of_influence": 0.1}, Status.UPPER_LIMIT),
        ({"width_ratio": 0.85, "upper_edge": 3.0}, Status.UNRESOLVED),
        ({"span": 1.3, "upper_edge": 3.0}, Status.UNRESOLVED),
        ({"sphere_of_influence": 0.1, "upper_edge": 3.0}, Status.UNRESOLVED),
        ({"lower_edge": 0.06, "upper_edge": 3.0}, Status.DO_NOT_TRUST),
    ],
)
def test_black_hole_rules(changes, status):
    assert black_hole_status(change(MASS, **changes)) is status


@pytest.mark.parametrize(
    ("radius", "words"),
    [
        (0.31, "It is resolved"),
        (0.29, "marginally resolved"),
        (0.21, "marginally resolved"),
        (0.19, "leans on the model of the stars"),
        (0.12, "It is not resolved"),
    ],
)
def test_words_say_how_well_the_sphere_of_influence_is_seen(radius, words):
    facts = change(MASS, sphere_of_influence=radius, sphere_range=(0.9 * radius, 1.1 * radius))
    reasons = " ".join(judge(facts, QUIET, MIXED, RATIOS).reasons)
    assert words in reasons
    assert f"(68 %: {3.6 * radius:.2f} to {4.4 * radius:.2f})" in reasons


def test_an_interrupted_fit_says_so():
    verdict = judge(MASS, QUIET, change(MIXED, complete=False), RATIOS)
    assert verdict.status is Status.DETECTED
    assert "interrupted before its end" in verdict.headline
    assert "interrupted before its end" in " ".join(verdict.reasons)
    ended = judge(MASS, QUIET, MIXED, RATIOS)
    assert "interrupted" not in " ".join((ended.headline, *ended.reasons))


@pytest.mark.parametrize(("inside", "said"), [(0.9955, True), (0.9965, False), (math.nan, True)])
def test_a_disc_that_leaves_the_image_is_said(inside, said):
    reasons = " ".join(judge(MASS, QUIET, MIXED, RATIOS, disc_inside=inside).reasons)
    assert ("use more pixels" in reasons) is said


RIGHT = NoiseFacts(rms=1.0, rms_error=0.005, lag_one=0.66, lag_one_error=0.003, lag_one_expected=2 / 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"rms": 0.3162, "lag_one_expected": 0.0}, ["correlated by 0.66 where 0.00 is assumed: set hanning or averaging", "noise is 0.32"]),
        ({"rms": 3.16, "lag_one": 0.0}, ["correlated by 0.00 where 0.67 is assumed", "noise is 3.16"]),
        ({"rms": 1.15, "lag_one": 0.56}, ["noise is 1.15 of what is stated"]),
        ({"rms": 1.08, "lag_one": 0.60}, []),
        ({"rms": 1.15, "rms_error": 0.05, "lag_one": 0.56}, []),
        ({"lag_one": 0.5, "lag_one_error": 0.05}, []),
        ({"lag_one": 0.72}, ["correlated by 0.72 where 0.67"]),
        ({"lag_one": -4.0}, ["differ by 3.9 times"]),
        ({"rms": math.nan}, ["noise is nan"]),
    ],
)
def test_noise_that_is_not_what_is_stated_is_not_trusted(changes, words):
    facts = change(QUIET, noise=change(RIGHT, **changes))
    found = structured_residuals(facts)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
    assert judge(MASS, facts, MIXED, RATIOS).status is (Status.DO_NOT_TRUST if words else Status.DETECTED)


def test_chains_in_different_modes_are_told():
    words = _convergence_words(dataclasses.replace(MIXED, worst_r_hat=1.9, modes=((0, 2), (1,), (3,))))
    assert "in 3 modes that they do not cross between: chains 1, 3; 2; 4." in words
    assert "modes" not in _convergence_words(dataclasses.replace(MIXED, worst_r_hat=1.9, modes=((0, 1, 2, 3),)))


def test_starts_that_disagree_are_told():
    words = _convergence_words(dataclasses.replace(MIXED, nested_r_hat=1.061, nested_r_hat_name="gamma"))
    assert words.startswith("The chains do not agree well enough")
    assert "nested R-hat over the starts 1.061 (gamma; required below 1.05)" in words


@pytest.mark.parametrize(
    "changes", [{"worst_r_hat": 1.05}, {"smallest_ess": 100.0}, {"declared": False}, {"worst_r_hat": math.nan}, {"smallest_ess": math.nan},
                {"nested_r_hat": 1.05}, {"nested_r_hat": math.nan}]
)
def test_not_converged_comes_first(changes):
    facts = change(MIXED, **changes)
    assert not has_converged(facts)
    noisy = change(QUIET, worst_channel_sigma=20.0)
    verdict = judge(MASS, noisy, facts, RATIOS)
    assert verdict.status is Status.NOT_CONVERGED
    assert verdict.headline.startswith("NOT CONVERGED")
    assert not verdict.measured


@pytest.mark.parametrize(
    "changes",
    [
        {"worst_channel_sigma": 7.0},
        {"worst_baseline_sigma": -7.0},
        {"peak": 9.0},
        {"peak": math.nan},
        {"chi2_per_datum": 1.2, "chi2_sigma": 40.0},
        {"worst_channel_sigma": math.nan},
    ],
)
def test_structured_residuals_are_not_trusted(changes):
    facts = change(QUIET, **changes)
    assert len(structured_residuals(facts)) == 1
    assert judge(MASS, facts, MIXED, RATIOS).status is Status.DO_NOT_TRUST


@pytest.mark.parametrize("changes", [{"chi2_per_datum": 1.2, "chi2_sigma": 2.0}, {"chi2_per_datum": 1.02, "chi2_sigma": 9.0}])
def test_a_slightly_wrong_noise_scale_is_no_structure(changes):
    assert structured_residuals(change(QUIET, **changes)) == ()


def test_an_unresolved_hole_is_called_so_even_where_residuals_are_structured():
    verdict = judge(change(MASS, width_ratio=0.97), change(QUIET, peak=20.0), MIXED, RATIOS)
    assert verdict.status is Status.UNRESOLVED
    assert "do not trust" in verdict.headline
    assert not verdict.measured


WIDE, LIMIT = {"width_ratio": 0.9}, {"lower_edge": 0.5, "sphere_of_influence": 0.1}
PILED, BLIND = {"upper_edge": 3.0}, {"sphere_of_influence": 0.1}
STRUCTURED, NOISY = {"peak": 20.0}, {"noise": NoiseFacts(2.0, 0.005, 0.66, 0.003, 2 / 3)}
APART = {"worst_r_hat": 1.2}


@pytest.mark.parametrize(
    ("mass", "residuals", "convergence", "status"),
    [
        (WIDE, STRUCTURED, APART, Status.NOT_CONVERGED),
        (PILED, {}, APART, Status.NOT_CONVERGED),
        (None, STRUCTURED, APART, Status.NOT_CONVERGED),
        (None, STRUCTURED, {}, Status.HELD_FIXED),
        (WIDE, STRUCTURED, {}, Status.UNRESOLVED),
        (WIDE | PILED, NOISY, {}, Status.UNRESOLVED),
        (BLIND, STRUCTURED, {}, Status.UNRESOLVED),
        (BLIND | PILED, {}, {}, Status.UNRESOLVED),
        (WIDE | LIMIT, {}, {}, Status.UNRESOLVED),
        (LIMIT, STRUCTURED, {}, Status.DO_NOT_TRUST),
        (LIMIT, NOISY, {}, Status.DO_NOT_TRUST),
        (LIMIT | PILED, {}, {}, Status.DO_NOT_TRUST),
        ({}, NOISY, {}, Status.DO_NOT_TRUST),
        (PILED, STRUCTURED, {}, Status.DO_NOT_TRUST),
        (LIMIT, {}, {}, Status.UPPER_LIMIT),
        ({}, {}, {}, Status.DETECTED),
    ],
)
def test_the_first_rule_that_holds_decides(mass, residuals, convergence, status):
    facts = HeldMass(8.0) if mass is None else change(MASS, **mass)
    verdict = judge(facts, change(QUIET, **residuals), change(MIXED, **convergence), RATIOS)
    assert verdict.status is status


def test_rules_are_told_in_the_order_in_which_they_decide():
    assert list(RULES) == [
        Status.NOT_CONVERGED,
        Status.HELD_FIXED,
        Status.UNRESOLVED,
        Status.DO_NOT_TRUST,
        Status.UPPER_LIMIT,
        Status.DETECTED,
    ]
    assert set(RULES) == set(Status)


def test_the_manual_tells_the_same_rules():
    manual = " ".join((Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8").split())
    told = " ".join([ORDER, *(f"{status.value} : {words}" for status, words in RULES.items()), *DEFINITIONS])
    assert told in manual


def test_a_mass_that_was_held_is_no_measurement():
    verdict = judge(HeldMass(8.0), QUIET, MIXED, RATIOS)
    assert verdict.headline.startswith("HELD FIXED")
    assert "log10 M = 8.000" in " ".join(verdict.reasons)
    assert not verdict.measured


def test_prior_dominated():
    assert prior_dominated({"a": 0.71, "b": 0.69, "c": math.nan}) == ("a", "c")


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.builds(MassFacts, numbers, numbers, numbers, numbers, numbers, st.floats(0.01, 10)),
    st.builds(ResidualFacts, *[numbers] * 6),
    st.tuples(numbers, numbers, st.booleans()),
    st.dictionaries(st.just("a"), numbers),
)
def test_a_measurement_is_claimed_only_when_every_rule_allows_it(mass, residuals, mixing, ratios):
    convergence = ConvergenceFacts(mixing[0], "a", mixing[1], "b", mixing[2])
    verdict = judge(mass, residuals, convergence, ratios)
    assert verdict.measured == (verdict.status is Status.DETECTED)
    if verdict.measured:
        assert convergence.declared
        assert convergence.worst_r_hat < 1.05
        assert convergence.smallest_ess > 100
        assert mass.width_ratio <= 0.8
        assert mass.span <= 1.0
        assert mass.lower_edge <= 0.05
        assert abs(residuals.worst_channel_sigma) <= 5
    assert verdict.headline
    assert all(verdict.reasons)
