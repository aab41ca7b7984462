"""Mass estimators, trained on galaxies made by a rule: what they predict, how they fail, what they write."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table

from supermage.errors import DataError, DomainError, ModelFileError
from supermage.models.feature_space import derive
from supermage.models.mass_estimator import MassEstimator, load_mass_estimator
from supermage.models.mass_prior import MassPrior
from supermage.models.mass_sample import read_tng_sample
from supermage.models.mass_scores import score_table
from supermage.models.mass_training import PARTS, MassTraining, Options
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.registry import artefact_folder
from supermage.models.splits import split_by_group
from supermage.models.training import run_steps
from supermage.progress import SilentProgress
from tests.models.mass_mixtures import OPTIONS, sample

UNITS = {"M_r": "mag", "g_r": None, "sigma_3d1": "km / s", "r_hsm": "kpc"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained artefact."""
    base = tmp_path_factory.mktemp("mass-prior")
    problem = MassTraining(sample(), Options(**OPTIONS), 1, "by-rule")
    run_steps(problem, base / "checkpoint.safetensors", "", None, progress=SilentProgress())
    return problem.finish(base / "artefact", progress=SilentProgress())


@pytest.fixture(scope="module")
def estimator(folder: Path) -> MassEstimator:
    return load_mass_estimator(folder)


def table(rows: int = 60, seed: int = 9) -> Table:
    columns = sample(rows, seed=seed).columns
    got = Table(columns)
    for name in columns:
        got[name].unit = UNITS[name]
    got["g_r"].unit = "mag"
    return got


def quiet(estimator: MassEstimator, given: Table, **options: object) -> MassPrior:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        return estimator.predict(given, **options)


def test_predictions_hold_the_masses_of_new_galaxies(estimator: MassEstimator) -> None:
    """Coverage of 68 % intervals of both masses on 400 new galaxies: 5 binomial deviations, the recalibration's on 270 rows included."""
    truth = sample(400, seed=9)
    got = quiet(estimator, table(400))
    assert got.batch_shape == (400,) and got.event_shape == (2,) and got.aperture == "1rhsm"
    for name, mass in (("log_mstar", truth.stellar), ("log_mtot", truth.total)):
        below = got.marginal(name).cdf(torch.tensor(np.log10(mass))).numpy()
        assert abs((np.abs(below - 0.5) < 0.34).mean() - 0.68) < 5.0 * np.sqrt(0.68 * 0.32 * (1 / 400 + 1 / 270))
    scatter = got.marginal("log_mstar").quantiles((0.5,))[:, 0].numpy() - np.log10(truth.stellar)
    assert scatter.std() < 0.2 < np.log10(truth.stellar).std()


def test_order_of_columns_and_units_do_not_matter(estimator: MassEstimator) -> None:
    given = table(5)
    other = given[list(reversed(given.colnames))]
    other["r_hsm"] = other["r_hsm"].to("pc")
    first, second = (quiet(estimator, item).marginal("log_mtot").quantiles((0.1, 0.9)) for item in (given, other))
    assert torch.allclose(first, second, atol=1e-9)


def test_gaps_widen_and_are_no_obstacle(estimator: MassEstimator) -> None:
    given = table(50)
    gaps = given.copy()
    gaps["r_hsm"] = np.nan
    widths = [np.ptp(quiet(estimator, item).marginal("log_mtot").quantiles((0.16, 0.84)).numpy(), axis=1).mean() for item in (given, gaps)]
    assert widths[1] > widths[0]
    del gaps["r_hsm"]
    assert quiet(estimator, gaps).batch_shape == (50,)


def test_far_rows_widen_to_the_population_and_warn(estimator: MassEstimator) -> None:
    given = table(3)
    given["sigma_3d1"][0] = 2900.0
    with pytest.warns(OutOfDistributionWarning, match="1 of 3 rows"):
        got = estimator.predict(given)
    assert got.out_of_distribution[0] > 2.0 > got.out_of_distribution[1]
    widths = np.ptp(got.marginal("log_mstar").quantiles((0.025, 0.975)).numpy(), axis=1)
    assert widths[0] > 1.5 > widths[1]
    lost = table(1)
    lost["M_r"] = np.nan
    assert estimator.reasons(lost)[0].startswith("needs M_r: M_r missing")
    with pytest.warns(OutOfDistributionWarning, match="1 row lies"):
        wide = estimator.predict(lost).marginal("log_mstar")
    assert float(wide.quantiles((0.5,))) == pytest.approx(np.median(np.log10(sample().stellar)), abs=0.15)


def test_other_targets(estimator: MassEstimator) -> None:
    given = table(4)
    got = quiet(estimator, given, targets=("log_mdm", "log_ml"))
    assert got.targets == ("log_mdm", "log_ml") and got.event_shape == (2,)
    light = 0.4 * (4.65 - np.asarray(given["M_r"])) - np.log10(2.0)
    stars, ratio = (got.marginal(name).quantiles((0.5,))[:, 0].numpy() for name in ("log_mstar", "log_ml"))
    assert ratio == pytest.approx(stars - light, abs=1e-9)
    with pytest.raises(DomainError, match="did you mean 'log_mdm'"):
        estimator.predict(given, targets=("log_mdmm",))


def shared_table() -> Table:
    columns = {"m_star_total": [1e10, 2e10, 3e10, 4e10], "m_gas_total": [1e9] * 4, "r50_3d": [3.0] * 4, "aperture_ratio": [1.0] * 4}
    return Table(columns, units={"m_star_total": "Msun", "m_gas_total": "Msun", "r50_3d": "kpc"})


def test_a_sphere_must_be_said_where_the_model_leaves_it_to_the_row() -> None:
    """Of the shipped `tng-shared`: masses within an unknown sphere are none."""
    shared = load_mass_estimator(artefact_folder("tng-shared"))
    given = shared_table()
    given["aperture_ratio"] = [1.0, np.nan, 2.0, 500.0]
    given["m_star_total"][2] = np.nan
    assert shared.reasons(given) == ["", "needs aperture_ratio: missing", "needs m_star_total: m_star_total missing",
                                     "needs aperture_ratio: outside 0.01 .. 100, got 500"]  # fmt: skip
    prior = quiet(shared, given)
    assert np.isfinite(prior.out_of_distribution.numpy()).tolist() == [True, False, False, False]
    middle = prior.marginal("log_mstar").quantiles((0.5,))[:, 0].numpy()
    assert middle[1] == pytest.approx(middle[3], abs=1e-9) and abs(middle[0] - middle[1]) > 0.01
    given["m_star_total"][1] = np.nan
    assert shared.reasons(given)[1] == "needs m_star_total: m_star_total missing; needs aperture_ratio: missing"
    del given["aperture_ratio"]
    for call in (shared.predict, shared.reasons):
        with pytest.raises(DataError, match="a catalogue must have aperture_ratio for tng-shared, got m_star_total, m_gas_total, r50_3d"):
            call(given)


def test_light_is_needed_for_the_mass_to_light_ratio(estimator: MassEstimator) -> None:
    shared = load_mass_estimator(artefact_folder("tng-shared"))
    assert not shared.has_light and estimator.has_light
    with pytest.raises(DomainError, match=r"log_ml needs a model with M_r and the sphere of 1 R_hsm, .*, got tng-shared, without"):
        shared.predict(shared_table(), targets=("log_mtot", "log_ml"))


def test_a_table_without_any_column_that_a_row_needs_is_refused(estimator: MassEstimator) -> None:
    given = table(3)
    del given["M_r"]
    with pytest.raises(DataError, match="a catalogue must have M_r for by-rule, got g_r, sigma_3d1, r_hsm"):
        estimator.predict(given)


def test_few_unlikely_values_are_reasons_among_many_good_ones(estimator: MassEstimator) -> None:
    given = table(6)
    given["M_r"][2] = -99.0
    assert estimator.reasons(given) == ["", "", "needs M_r: M_r outside -30 .. -5 mag, got -99", "", "", ""]


@pytest.mark.parametrize("what", ["no unit", "luminosities", "wrong unit", "empty", "nothing known"])
def test_bad_tables_are_refused_in_one_line(estimator: MassEstimator, what: str) -> None:
    given = table(6)
    if what == "no unit":
        given["r_hsm"].unit = None
    elif what == "luminosities":
        given["M_r"] = 10.0 ** (-0.4 * (np.asarray(given["M_r"]) - 4.65))
        given["M_r"].unit = "mag"
    elif what == "wrong unit":
        given["sigma_3d1"].unit = "kpc"
    elif what == "empty":
        given = given[:0]
    else:
        given = Table({"galaxy": [1, 2]})
    with pytest.raises(DataError) as caught:
        estimator.predict(given)
    assert "\n" not in str(caught.value) and "got" in str(caught.value)


def test_artefact_is_small_and_holds_no_rows(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["calibration.json", "model.json", "model.txt", "weights.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    about = json.loads((folder / "model.json").read_text())
    assert (about["kind"], about["version"], about["features"]) == ("mass-prior", "1", OPTIONS["features"])


@pytest.mark.parametrize("name", ["calibration.json", "model.txt", "weights.safetensors"])
def test_altered_or_missing_files_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelFileError, match=f"{name}: must have the hash"):
        load_mass_estimator(copy)
    (copy / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name}: a model's files must be readable"):
        load_mass_estimator(copy)


def test_another_version_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**about, "version": "7"}))
    with pytest.raises(ModelFileError, match="must be 'mass-prior' version 1, got 'mass-prior' version 7"):
        load_mass_estimator(copy)
    (copy / "model.json").write_text(json.dumps({key: value for key, value in about.items() if key != "trees"}))
    with pytest.raises(ModelFileError, match="got one without trees"):
        load_mass_estimator(copy)
    with pytest.raises(ModelFileError, match="got none"):
        load_mass_estimator(tmp_path)


@pytest.mark.parametrize("change", [{"features": "reversed"}, {"aperture": "3rhsm"}, {"needs": ["nothing"]}, {"needs": []}])
def test_a_description_of_another_model_is_refused(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    """Hashes cover the weights; what the description says of them is held against the trees."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "model.json").read_text())
    change = {"features": about["features"][::-1]} if "features" in change else change
    (copy / "model.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(ModelFileError, match=r"the files must fit the model that model.json describes, got others"):
        load_mass_estimator(copy)


def test_card_says_what_is_asked(folder: Path) -> None:
    card = (folder.parent / "card.md").read_text()
    for word in ("states no licence", "Nelson et al. 2019", "Jagvaral et al. 2021", "the sphere of R_hsm", "## Limits",
                 "| 50 % | 68 % | 95 % |", json.loads((folder / "model.json").read_text())["sha256"]):  # fmt: skip
        assert word in card


@pytest.mark.reference
def test_shipped_model_is_calibrated_on_rows_of_groups_that_it_has_not_seen(reference_data: Path) -> None:
    """What is asked of `tng-gbdt`: coverage, uniformity, scores; the split is rebuilt from the model's own seed."""
    estimator = load_mass_estimator(artefact_folder("tng-gbdt"))
    truth = read_tng_sample(reference_data / "galaxies/tng100-1-z0-subhalos.parquet")
    split = split_by_group(truth.group, estimator.about["training"]["fractions"], estimator.about["seed"])
    assert [len(part) for part in split] == [estimator.about["rows"][name] for name in PARTS]
    test = split[3]
    features = estimator.space.standardise(derive(estimator.space.names, {name: value[test] for name, value in truth.columns.items()}))
    prior = estimator.prior_of(features, torch.from_numpy(truth.log_light[test]))
    targets = {"log_mstar": np.log10(truth.stellar[test]), "log_mtot": np.log10(truth.total[test])}
    scores = score_table(prior, targets, calibration_rows=len(split[2]))
    for name, most in (("log_mstar", 0.022), ("log_mtot", 0.027)):
        entry = scores[name]
        assert entry["crps"] <= most and entry["pit_p_holm"] > 0.01 and min(entry["tercile_coverage"]) >= 0.58
        for level, allowed in ((0.5, 0.04), (0.68, 0.04), (0.95, 0.025)):
            assert abs(entry["coverage"][f"{level:.2f}"] - level) <= allowed
