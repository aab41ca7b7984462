"""Training of mass priors: seeded, resumable to the same bits, no group on two sides, trees that have not seen their rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from supermage.errors import CheckpointError, RecipeError
from supermage.models import mass_training, training
from supermage.models.feature_space import fit_feature_space
from supermage.models.mass_training import PARTS, MassTraining, Options, fit_anchor, read_sample
from supermage.plots.training import draw_losses
from supermage.progress import SilentProgress
from supermage.recipe import Recipe, TrainSection
from tests.models.mass_mixtures import OPTIONS, sample

FILES = ("weights.safetensors", "model.txt", "calibration.json", "model.json")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.PROBLEMS, "mass-prior", "supermage.models.mass_training:build")
    monkeypatch.setattr(mass_training, "read_sample", lambda path, options, seed: sample(500))


def recipe(folder: Path, **options: object) -> Recipe:
    return Recipe(folder=folder, train=TrainSection(kind="mass-prior", options={**OPTIONS, "steps": 10, **options}))


@pytest.mark.usefixtures("registered")
def test_interrupted_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(recipe(tmp_path / "whole" / "model"))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Interrupts(SilentProgress):
        count = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.count += n
            if self.count == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(tmp_path / "parts" / "model"), progress=Interrupts())
    parts = training.train(recipe(tmp_path / "parts" / "model"))
    for name in FILES[:3]:
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture(scope="module")
def problem() -> MassTraining:
    return MassTraining(sample(), Options(**OPTIONS), 1, "by-rule")


def test_no_group_stands_in_two_parts(problem: MassTraining) -> None:
    groups = [set(problem.sample.group[problem.parts[name]]) for name in PARTS]
    assert sum(len(item) for item in groups) == len(set().union(*groups))
    assert sum(len(rows) for rows in problem.parts.values()) == len(problem.sample)


def test_training_part_alone_makes_the_inputs(problem: MassTraining) -> None:
    """Nothing of the other parts enters: other masses there change neither inputs nor targets."""
    other = sample()
    rest = np.concatenate([problem.parts[name] for name in PARTS[1:]])
    other.stellar[rest] *= 7.0
    other.total[rest] *= 9.0
    for name in other.columns:
        other.columns[name][rest] += 1.0
    again = MassTraining(other, Options(**OPTIONS), 1, "by-rule")
    assert np.array_equal(problem.inputs.numpy(), again.inputs.numpy())
    assert np.array_equal(problem.target.numpy(), again.target.numpy())


def test_trees_have_not_seen_the_rows_that_they_guess() -> None:
    """On pure noise, cross-fitted guesses do not correlate with it (5 standard errors); those of trees that saw it do."""
    generator = np.random.default_rng(0)
    features, noise = generator.standard_normal((600, 3)), generator.standard_normal((600, 1))
    space = fit_feature_space(("M_r", "g_r", "log_sigma"), features)
    group = np.repeat(np.arange(200), 3)
    anchor, guess = fit_anchor(space, space.standardise(features), noise, group, Options(rounds=60), 1)
    assert abs(np.corrcoef(guess[:, 0], noise[:, 0])[0, 1]) < 5.0 / np.sqrt(600)
    assert np.corrcoef(anchor.latents(space.inputs(space.standardise(features)))[:, 0], noise[:, 0])[0, 1] > 0.4


def test_loss_depends_on_the_step_alone_and_falls(problem: MassTraining, tmp_path: Path) -> None:
    first = float(problem.loss(3).detach())
    problem.loss(4)
    assert first == float(problem.loss(3).detach())
    training.run_steps(problem, tmp_path / "checkpoint.safetensors", "", None, progress=SilentProgress())
    assert float(problem.loss(3).detach()) < first - 0.2


def test_options_of_a_users_table(tmp_path: Path) -> None:
    given = Options(**OPTIONS, sample="catalogue", cuts=["M_r < -18"], columns={"M_r": "rmag"}, units={"M_r": "mag"})
    columns = sample(60).columns
    table = Table({"rmag": columns["M_r"], "group_id": np.arange(60), "m_star_1rhsm": np.full(60, 1e10), "m_tot_1rhsm": np.full(60, 3e10),
                   "m_dm_1rhsm": np.full(60, 1e10)}, units={f"m_{kind}_1rhsm": "Msun" for kind in ("star", "tot", "dm")})  # fmt: skip
    table.write(tmp_path / "own.ecsv")
    got = read_sample(tmp_path / "own.ecsv", given, 1)
    assert len(got) == (columns["M_r"] < -18).sum() < 60
    assert got.cuts[0] == f"not M_r < -18 mag: {60 - len(got)} of 60 rows left out, 0 without a value too"
    named = given.model_copy(update={"source": "a survey"})
    assert (got.source, read_sample(tmp_path / "own.ecsv", named, 1).source) == ("own.ecsv", "a survey")
    for sample_, key, taken in (("tng", "columns", "'catalogue'"), ("tng-shared", "cuts", "'catalogue' or 'tng'")):
        with pytest.raises(RecipeError, match=rf"train.options.{key} must come with sample = {taken}, got sample = '{sample_}'"):
            read_sample(tmp_path / "own.ecsv", given.model_copy(update={"sample": sample_}), 1)


@pytest.mark.reference
def test_cuts_of_the_reference_rows_are_counted(reference_data: Path) -> None:
    given = Options(sample="tng", cuts=["m_star_30kpc > 5e9", "m_subhalo < 1e14", "bulge_index <= 99 or missing"])
    got = read_sample(reference_data / "galaxies/tng100-1-z0-subhalos.parquet", given, 1)
    whole = read_sample(reference_data / "galaxies/tng100-1-z0-subhalos.parquet", Options(sample="tng"), 1)
    removed = [int(re.search(r": (\d+) of \d+ rows left out", line)[1]) for line in got.cuts[1:4]]
    assert 0 < len(got) == len(whole) - sum(removed) and all(removed) and "without a value stay" in got.cuts[3]


def test_needs_follow_from_the_features() -> None:
    assert MassTraining(sample(300), Options(**{**OPTIONS, "needs": []}), 1, "by-rule").needs == ["M_r"]
    with pytest.raises(RecipeError, match=r"needs must name a feature that a row must have, got none for g_r, log_sigma"):
        MassTraining(sample(300), Options(**{**OPTIONS, "needs": [], "features": ["g_r", "log_sigma"]}), 1, "by-rule")


@pytest.mark.usefixtures("registered")
def test_a_checkpoint_of_other_galaxies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe, other rows at the same path: weights of the old are not taken for weights of the new."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def stop(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as early:
        early.setattr(MassTraining, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe(tmp_path))
    monkeypatch.setattr(mass_training, "read_sample", lambda path, options, seed: sample(500, seed=8))
    with pytest.raises(CheckpointError, match="must belong to this recipe and its data, got another's"):
        training.train(recipe(tmp_path))


@pytest.mark.usefixtures("registered")
def test_what_learnt_from_generated_galaxies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_training, "read_sample", lambda path, options, seed: replace(sample(500), mock=True))
    artefact = training.train(recipe(tmp_path, sample="catalogue"))
    assert json.loads((artefact / "model.json").read_text())["mock"] is True
    card = (tmp_path / "card.md").read_text()
    assert "Generated galaxies, made from scaling relations" in card and "Nothing was stated of their licence" not in card


@pytest.mark.usefixtures("registered")
def test_losses_are_kept_and_drawn(tmp_path: Path) -> None:
    artefact = training.train(recipe(tmp_path))
    history = json.loads((artefact / "model.json").read_text())["history"]
    steps = recipe(tmp_path).train.options["steps"]
    assert len(history["training"]) == len(history["validation"]) == -(-steps // history["every"])
    assert np.isfinite([*history["training"], *history["validation"]]).all()
    assert draw_losses(artefact, tmp_path / "loss.png") == tmp_path / "loss.png"


def test_a_sphere_of_the_rows_own_must_be_a_feature() -> None:
    with pytest.raises(RecipeError, match=r"train.options.features must have log_aperture where each row has its own sphere, got M_r, "):
        MassTraining(replace(sample(90), aperture="ratio"), Options(**OPTIONS), 1, "by-rule")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("options", "word"), [({"stepps": 3}, "did you mean 'steps'"), ({"needs": ["log_spin"]}, "got 'log_spin'"),
                                               ({"folds": 1}, "train.options.folds")])  # fmt: skip
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        training.train(recipe(tmp_path, **options))
