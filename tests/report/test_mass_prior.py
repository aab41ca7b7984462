"""With and without a prior on the stars' mass, and how far it is from the data: Gaussians whose answers are known."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
import torch
from scipy import stats

from supermage.constants import pc_per_arcsec
from supermage.errors import DataError
from supermage.forward.enclosed_mass import UnitMass
from supermage.inference.mass_knowledge import MassKnowledge
from supermage.inference.mass_prior import StellarMassPrior
from supermage.inference.posterior import open_posterior
from supermage.report import case as case_module
from supermage.report.case import Case
from supermage.report.figures import find_figure
from supermage.report.mass_prior import (
    MassPriorFacts,
    Reach,
    held,
    mass_prior_facts,
    without_path,
)
from supermage.report.mass_prior_words import judge_mass_prior, mass_prior_section, prior_sentences, summary_words
from supermage.report.record import Record, read_record
from supermage.report.reweighting import fit_pareto, smooth_weights, weighted_quantiles
from supermage.report.sections import sections
from supermage.report.tables import latex_table
from supermage.report.tension import NOT_TOLD, Tension, tension_of_update
from supermage.report.verdict import Status, judge
from tests.report.factories import make_fit
from tests.report.test_verdict import MASS, MIXED, QUIET, RATIOS

PRIOR = (10.5, 0.05)


def update(data: float, error: float, *, number: int = 8000, seed: int = 1) -> np.ndarray:
    """Draws of log10 M* where the data alone say data +- error, shape (chain, draw)."""
    precision = 1 / PRIOR[1] ** 2 + 1 / error**2
    mean = (PRIOR[0] / PRIOR[1] ** 2 + data / error**2) / precision
    return mean + np.random.default_rng(seed).standard_normal((4, number // 4)) / math.sqrt(precision)


def score(draws: np.ndarray) -> np.ndarray:
    return (draws - PRIOR[0]) / PRIOR[1]


@pytest.mark.parametrize(("data", "error"), [(10.5, 0.05), (10.8, 0.05), (10.2, 0.08), (10.6, 0.03), (10.8, 0.12)])
def test_tension_is_the_difference_over_the_root_of_the_variances(data: float, error: float) -> None:
    """Though no fit without the prior was made; what the data alone say comes out too."""
    found = tension_of_update(score(update(data, error)), *PRIOR)
    assert found.sigma == pytest.approx(abs(data - PRIOR[0]) / math.hypot(error, PRIOR[1]), abs=0.25)
    assert found.data is not None and not found.at_least
    assert found.data[0] == pytest.approx(data, abs=0.05 + 0.2 * error) and found.data[1] == pytest.approx(error, rel=0.25)


def test_a_prior_wrong_by_03_dex_is_flagged() -> None:
    """Whatever the data's error up to 0.08 dex; a right prior is not: 200 times, with the false-alarm rate of 3 standard deviations."""
    for error in (0.01, 0.05, 0.08):
        facts = made(tension=tension_of_update(score(update(PRIOR[0] + 0.3, error)), *PRIOR))
        assert facts.status == "contradict", error
        verdict = judge_mass_prior(judge(MASS, QUIET, MIXED, RATIOS), facts)
        assert verdict.status is Status.DO_NOT_TRUST and not verdict.measured
        assert verdict.headline.startswith("DO NOT TRUST: prior on the stars' mass and data contradict each other (")
    rng = np.random.default_rng(3)
    alarms = 0
    for k in range(200):
        error = float(rng.uniform(0.02, 0.1))
        data = PRIOR[0] + math.hypot(error, PRIOR[1]) * float(rng.standard_normal())
        alarms += tension_of_update(score(update(data, error, number=2000, seed=k)), *PRIOR).sigma >= 3.0
    # 0.27 % of 200 is 0.5; five or more of them have a probability of 3e-4
    assert alarms < 5


def test_data_that_know_nothing_make_no_tension() -> None:
    found = tension_of_update(score(update(11.5, 5.0)), *PRIOR)
    assert found.at_least and found.data is None and found.sigma < 1.0
    words = " ".join(prior_sentences(made(tension=found)))
    assert "is not told by these draws" in words and "can neither confirm nor refute it" in words
    # draws that lie where the prior hardly does, and are as wide as it: a contradiction all the same
    assert tension_of_update(3.0 + np.random.default_rng(1).standard_normal((4, 500)), *PRIOR).sigma > 3.0


def test_pareto_smoothing_is_arviz_own() -> None:
    """ArviZ' psislw, which none of us wrote."""
    rng = np.random.default_rng(4)
    for scale, independent in ((0.3, 1.0), (1.5, 0.4), (3.0, 1.0)):
        ratio = scale * rng.standard_normal(3000) ** 2
        mine = smooth_weights(ratio, independent=independent)
        theirs, k = arviz.psislw(ratio.copy(), reff=independent)
        assert mine.k == pytest.approx(float(k), abs=1e-6)
        assert mine.share == pytest.approx(np.exp(theirs), rel=1e-6, abs=1e-12)
    assert smooth_weights(np.zeros(500)).reliable and smooth_weights(np.zeros(500)).effective == pytest.approx(500.0)
    assert not smooth_weights(30.0 * rng.standard_normal(500)).reliable


def test_pareto_shapes_are_found() -> None:
    for shape in (0.2, 0.7):
        draws = np.sort(stats.genpareto(shape, scale=2.0).rvs(5000, random_state=5))
        k, scale = fit_pareto(draws)
        assert k == pytest.approx(shape, abs=0.08) and scale == pytest.approx(2.0, rel=0.1)
    assert weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([0.25, 0.5, 0.25]), (0.25, 0.5)) == pytest.approx((1.0, 1 + 2 / 3))


def made(**changes: Any) -> MassPriorFacts:
    notes = {"centre": 10.5, "width": 0.05, "aperture": "the sphere of 1 R_hsm, 5.2 kpc", "source": "tng-gbdt version 1", "radius": 5.2,
             "accepted": 1.0}
    rng = np.random.default_rng(6)
    here, without = (held(middle + 0.1 * rng.standard_normal(2000), how) for middle, how in ((8.1, "this fit"), (8.0, "draws weighted")))
    reach = Reach(0.11, 5.2, (0.04, 0.02, 0.08), (1.9, 1.4, 2.6))
    facts = MassPriorFacts(notes, held(update(10.5, 0.05), "this fit"), Tension(0.3, data=(10.5, 0.05)), here, without, "", reach)
    return dataclasses.replace(facts, **changes)


def test_words_tell_both_masses_the_estimator_and_the_slope() -> None:
    words = " ".join(prior_sentences(made()))
    assert "inside the sphere of 1 R_hsm, 5.2 kpc (tng-gbdt version 1)" in words
    assert "Prior and data agree within 0.3 standard deviations" in words
    assert "Black hole with this prior: log10 M = 8.10" in words and "without it: log10 M = 8.0" in words
    assert "moves the mass by more than half its error" in words
    assert "47.3 times the gas' flux-weighted mean radius" in words
    assert "outer slope, 1.90 (1.40 to 2.60), carries the prior inwards" in words
    assert "WARNING" not in words
    refused = made(without_prior=None, refused="not told: fit once more.")
    assert "Without it: not told: fit once more." in " ".join(summary_words(refused))
    section = mass_prior_section(refused)
    assert section.count("<tr>") == 4 and "Data alone" in section


def test_what_is_flagged_and_what_not() -> None:
    clear = judge(MASS, QUIET, MIXED, RATIOS)
    assert judge_mass_prior(clear, made()).headline == clear.headline and judge_mass_prior(clear, made()).measured
    tension = judge_mass_prior(clear, made(tension=Tension(2.4)))
    assert tension.status is Status.DETECTED and tension.headline.endswith("are in tension (2.4 standard deviations).")
    untold = judge_mass_prior(clear, made(tension=NOT_TOLD))
    assert untold.headline == clear.headline and "is not told by these draws" in " ".join(untold.reasons)
    bound = judge_mass_prior(clear, made(tension=Tension(3.2, at_least=True)))
    assert bound.status is Status.DO_NOT_TRUST and "(at least 3.2 standard deviations)" in bound.headline
    apart = judge_mass_prior(judge(dataclasses.replace(MASS, span=1.5, width_ratio=0.6), QUIET, MIXED, RATIOS), made(tension=Tension(4.0)))
    assert apart.status is Status.UNRESOLVED and "contradict each other (4.0 standard deviations)." in apart.headline
    assert judge_mass_prior(clear, made(tension=Tension(math.nan))).status is Status.DO_NOT_TRUST
    notes = {**made().notes, "seen_data": True, "out_of_distribution": True, "accepted": 0.8}
    warned = judge_mass_prior(clear, made(notes=notes))
    assert warned.headline.endswith("has seen the fitted data.")
    told = " ".join(warned.reasons)
    assert told.count("WARNING") == 2 and "20 % of the prior's draws leave the prior of intensity_rb" in told


def test_wings_halo_and_bounds_are_told() -> None:
    wings = " ".join(prior_sentences(made(tension=Tension(3.8, data=(10.9, 0.02), apart=13.5, error=0.1, how="draws weighted"))))
    assert "they are 3.8 ± 0.1 standard deviations apart" in wings
    assert "the data alone say log10 M* = 10.90 ± 0.02 (draws weighted)" in wings
    assert "13.5 times the root of their summed squared widths apart" in wings
    assert "summed squared widths" not in " ".join(prior_sentences(made(tension=Tension(3.8, apart=3.9))))
    assert "dark matter is read as stars" in wings and "more total than stellar mass" in wings
    assert "dark matter" not in " ".join(prior_sentences(made(halo=True)))
    cut = made(notes={**made().notes, "accepted": 0.46}, prior=(10.34, 0.42))
    assert "whose bounds leave 10.340 ± 0.420 of it" in " ".join(prior_sentences(cut))
    assert "<td>10.340 ± 0.420</td>" in mass_prior_section(cut) and "<td>10.500 ± 0.050</td>" in mass_prior_section(made())
    early = made(notes={**made().notes, "accepted": 0.46}, prior_told=False)
    assert "does not tell what they leave of the prior" in " ".join(prior_sentences(early))


KPC = 3.0
QUICK = {"emulator": "nuker-mge"}
NARROW = {"alpha": 0.3, "qintr": 0.05, "gamma_minus_beta": 0.1, "break_r": 0.1, "intensity_rb": 0.05, "gamma": 0.05}


def with_prior(path: Path, *, width: float, shift: float = 0.0) -> Path:
    """Give a posterior a prior on its stars' mass, centred on the mean of its draws but for a shift; its draws stay as they are."""
    posterior = open_posterior(path)
    emulator = Case(read_record(path)).fit.galaxy_model.mass_model.emulator
    unit = UnitMass(emulator, pc_per_arcsec(11.4), 1e3 * KPC)
    draws = {name: posterior.draws(name) for name in posterior.names}
    flat = {name: torch.from_numpy(values.ravel().copy()) for name, values in draws.items()}
    with torch.no_grad():
        mean = float((flat["intensity_rb"] + unit(flat)).mean())
    density = torch.distributions.Normal(torch.tensor(mean + shift, dtype=torch.float64), width, validate_args=False)
    prior = StellarMassPrior(MassKnowledge(density, KPC, "a sphere of 3 kpc", "numbers of the recipe"), unit)
    data = posterior.to_arviz()
    for name, values in prior.statistics(draws, {}).items():
        data["sample_stats"][name] = (("chain", "draw"), values)
    data.attrs["mass_prior"] = json.dumps(prior.notes(0.97))
    return posterior.save(path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_fit(tmp_path_factory.mktemp("mass-prior"), draws=300, width=NARROW, model=QUICK)
    return with_prior(path, width=1.0)


def facts_of(record: Record) -> MassPriorFacts:
    found = mass_prior_facts(record, Case(record).fit.galaxy_model, np.arange(10))
    assert found is not None
    return found


def test_a_posterior_with_a_prior_is_told_of(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide beside the data: the weights serve, and the black hole's mass is the same without it."""
    monkeypatch.setattr(case_module, "BAND_DRAWS", 12)
    monkeypatch.setattr(case_module, "PREDICTIVE_DRAWS", 2)
    record = read_record(fitted)
    assert record.mass_prior is not None and record.mass_prior.log_mass.shape == (4, 300)
    case = Case(record)
    facts = case.mass_prior
    assert facts is not None and facts.without_prior is not None and facts.with_prior is not None
    assert facts.without_prior.median == pytest.approx(facts.with_prior.median, abs=0.02)
    assert "draws weighted, Pareto k" in facts.without_prior.how
    assert facts.status == "agree" and 0.0 < facts.reach.share[1] <= facts.reach.share[0] <= facts.reach.share[2] < 1.0
    content = {identity: text for identity, _, text in sections(case, lambda _: b"", {})}
    assert "mass-prior" in content and "carries the prior inwards" in content["mass-prior"]
    assert "Prior on the stars' mass" in content["verdict"].replace("&#x27;", "'")
    assert "intensity_rb has no uniform prior" in content["parameters"]
    table = latex_table(record, claimed=True)
    assert r"has the prior of the stars' mass, $\log_{10} M_\star/M_\odot = " in table and table.count("{") == table.count("}")
    assert "intensity_rb (" not in " ".join(case.verdict.reasons)
    assert case.record.truth and facts.truth == pytest.approx(facts.posterior.median, abs=0.3)
    spec = find_figure("stellar-mass")
    assert spec.applies(case) and "without it (draws weighted, Pareto k" in spec.caption(case)
    left, right = spec.draw(case).axes
    curves = {line.get_label(): line for line in left.lines}
    x, y = curves["prior"].get_data()
    assert float(np.sum(x * y) / np.sum(y)) == pytest.approx(float(record.mass_prior.notes["centre"]), abs=0.02)
    assert [label.get_text() for label in right.get_yticklabels()] == ["without", "with prior"]
    assert curves["truth"].get_xdata()[0] == facts.truth and right.lines[-1].get_xdata()[0] == record.truth["log10_mbh"]


def test_weights_that_do_not_serve_are_refused(fitted: Path, tmp_path: Path) -> None:
    """Narrow beside the draws: another fit is asked for; found beside the posterior, it is taken, and its tension with it."""
    path = tmp_path / "posterior.nc"
    shutil.copy(fitted, path)
    with_prior(path, width=0.005)
    record = read_record(path)
    facts = facts_of(record)
    assert facts.without_prior is None and "posterior.without-mass-prior.nc, and report again" in facts.refused
    other = make_fit(tmp_path / "other", draws=300, shift={"log10_mbh": -0.2, "intensity_rb": 0.4}, width=NARROW, model=QUICK)
    shutil.copy(other, without_path(path))
    found = facts_of(record)
    assert found.without_prior is not None and found.without_prior.how == "the fit in posterior.without-mass-prior.nc"
    assert found.without_prior.median == pytest.approx(float(np.median(open_posterior(other).draws("log10_mbh"))))
    assert found.tension.data is not None and found.status == "contradict"
    assert found.tension.data[0] - float(record.mass_prior.notes["centre"]) == pytest.approx(0.4, abs=0.03)  # type: ignore[union-attr]
    changed = make_fit(tmp_path / "changed", draws=300, shift={"log10_mbh": -0.2}, width=NARROW, model={**QUICK, "gas": "stretched"})
    shutil.copy(changed, without_path(path))
    aside = facts_of(record)
    assert aside.without_prior is None and aside.tension == facts.tension
    told = "posterior.without-mass-prior.nc is not the same fit without the prior and is left aside: fit.model.gas is stretched there"
    assert told in " ".join(prior_sentences(aside)) and "shift" not in " ".join(prior_sentences(aside))
    shutil.copy(path, without_path(path))
    with pytest.raises(DataError, match=r"must be of the same data and parameters, got .* with the prior$"):
        facts_of(record)


def test_without_such_a_prior_nothing_is_said(tmp_path: Path) -> None:
    record = read_record(make_fit(tmp_path, draws=50))
    assert record.mass_prior is None and mass_prior_facts(record, None, np.arange(3)) is None
