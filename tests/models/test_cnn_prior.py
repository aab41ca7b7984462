"""A network's predictions as features of a density: what the catalogue holds, the joint density of maps, files that do not fit."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table

from supermage.errors import DataError, ModelFileError, RecipeError
from supermage.models import cnn_prior
from supermage.models.cnn import CNN, load_cnn
from supermage.models.cnn_data import Inputs
from supermage.models.cnn_prior import catalogue_of, catalogue_of_store, scatter_inside
from supermage.models.cnn_training import build, train_cnn
from supermage.models.map_store import MapStore, write_maps
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.predict import predict_catalogue
from tests.models.toy_maps import toy_galaxies, toy_recipe, toy_store

LIGHT = {"inputs": ["r_light", "g_r"], "targets": ["log_mstar", "log_mtot"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_store(tmp_path_factory.mktemp("maps") / "maps.nc", 600)


@pytest.fixture(scope="module")
def artefact(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prior = {"steps": 60, "rounds": 20, "members": 2, "hidden": 8}
    recipe = toy_recipe(tmp_path_factory.mktemp("toy") / "toy-cnn", store, epochs=4, learning_rate=2e-2, fractions=[0.3, 0.1, 0.3, 0.3],
                        prior=prior, **LIGHT)  # fmt: skip
    return train_cnn(recipe)


@pytest.fixture
def cnn(artefact: Path) -> CNN:
    return load_cnn(artefact)


def test_the_catalogue_holds_predictions_light_and_colour(cnn: CNN) -> None:
    maps, _ = toy_galaxies(12, seed=4)
    maps["r_light"][5] = 0.0
    table = catalogue_of(cnn, maps)
    assert table.colnames == ["predicted_log_mstar", "predicted_log_mtot", "M_r", "g_r"]
    light = maps["r_light"].sum((1, 2), dtype=np.float64)
    there = light > 0
    assert np.asarray(table["M_r"])[there] == pytest.approx(4.65 - 2.5 * np.log10(light[there]), abs=1e-6)
    assert np.asarray(table["g_r"])[there] == pytest.approx(maps["g_r"].mean((1, 2))[there], abs=1e-5)
    for name in table.colnames:
        assert np.isnan(np.asarray(table[name])[5])
    assert np.array_equal(np.asarray(table["predicted_log_mtot"]), cnn.estimate(maps)["log_mtot"], equal_nan=True)


def test_a_stores_catalogue_has_the_truth_beside(cnn: CNN, store: Path) -> None:
    rows = np.array([7, 3, 300])
    with MapStore(store) as maps:
        table = catalogue_of_store(cnn, maps, Inputs(cnn.inputs, 32, "log"), rows)
        assert np.log10(np.asarray(table["m_star_1rhsm"])) == pytest.approx(maps.column("log_mstar")[rows])
        assert np.log10(np.asarray(table["m_dm_1rhsm"])) == pytest.approx(maps.column("log_mdm")[rows])
        assert np.asarray(table["group_id"]).tolist() == maps.column("group_id")[rows].tolist()


def test_maps_give_a_joint_density_that_holds_the_truth(cnn: CNN) -> None:
    """Of 100 new galaxies from three sides, with a recalibration on a dozen groups: 68 % intervals hold 48 - 88 %, medians follow the
    truth, and truths handed to other galaxies are far less likely."""
    maps, columns = toy_galaxies(300, seed=77)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        prior = cnn.predict(maps)
    assert prior.batch_shape == (300,) and prior.event_shape == (2,) and prior.aperture == "1rhsm"
    for name in ("log_mstar", "log_mtot"):
        marginal = prior.marginal(name)
        probability = marginal.cdf(torch.from_numpy(columns[name])).numpy()
        assert ((probability > 0.16) & (probability < 0.84)).mean() == pytest.approx(0.68, abs=0.20)
        middle = marginal.icdf(torch.full((300,), 0.5, dtype=torch.float64)).numpy()
        assert np.corrcoef(middle, columns[name])[0, 1] > 0.8
    truth = torch.from_numpy(np.stack([columns["log_mstar"], columns["log_mtot"]], axis=1))
    assert float(prior.log_prob(truth).mean()) > float(prior.log_prob(truth.roll(30, 0)).mean()) + 1.0
    draws = prior.rsample(torch.Size([20]))
    assert (draws[..., 1] >= draws[..., 0]).all()


def test_galaxies_unlike_the_training_set_widen_and_warn(cnn: CNN) -> None:
    maps, _ = toy_galaxies(3, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        usual = cnn.predict(maps).marginal("log_mstar")
        strange = {**maps, "r_light": (maps["r_light"] * np.float32(0.003)).astype(np.float32)}
        wide = cnn.predict(strange)
    half = torch.tensor([[0.84], [0.16]], dtype=torch.float64).expand(2, 3)
    width = [float((item.icdf(half[0]) - item.icdf(half[1])).mean()) for item in (usual, wide.marginal("log_mstar"))]
    assert width[1] > 1.5 * width[0] and (wide.out_of_distribution > 1.0).all()
    with pytest.warns(OutOfDistributionWarning):
        cnn.predict(strange)


def test_the_density_is_of_groups_that_the_network_has_not_learnt_from(artefact: Path, cnn: CNN) -> None:
    about = json.loads((artefact / "prior" / "model.json").read_text())
    rows = cnn.description["rows"]
    assert sum(about["rows"].values()) == rows["calibration"] + rows["test"]
    assert about["of_network"] == cnn.description["sha256"] and about["seed"] == cnn.description["seed"] + 1
    card = (artefact.parent / "card.md").read_text()
    own = (artefact.parent / "products" / "prior" / "card.md").read_text()
    assert "Generated galaxies, made from scaling relations" in own and "Nelson" not in own and about["mock"] is True
    assert f"# {artefact.parent.name}: masses" in card and f'load_model("path/to/{artefact.parent.name}").predict(maps)' in card
    assert "## Joint density of masses" in card and "### On the test part" in card and "| stellar" not in card.split("##")[0]
    if about["test_rows_widened"]:
        assert f"{about['test_rows_widened']} of the {about['rows']['test']} rows of the test part" in card
    assert set(about["test_scatter_inside"]) == {"log_mstar", "log_mtot"}


def test_the_scatter_without_widened_rows_is_that_of_the_others(cnn: CNN) -> None:
    """Rows made unlike the training set change the scatter of all, and not that of the rows inside."""
    maps, columns = toy_galaxies(120, seed=78)
    truth = {name: columns[name] for name in ("log_mstar", "log_mtot")}
    strange = {name: item.copy() for name, item in maps.items()}
    strange["r_light"][90:] *= np.float32(0.003)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        plain, mixed = cnn.predict({name: item[:90] for name, item in maps.items()}), cnn.predict(strange)
    assert (mixed.out_of_distribution[90:] > 1.5).all() and (mixed.out_of_distribution[:90] < 1.5).all()
    inside = scatter_inside(mixed, truth)
    assert inside == pytest.approx(scatter_inside(plain, {name: value[:90] for name, value in truth.items()}), rel=0.05)
    far = {name: value + np.where(np.arange(120) >= 90, 5.0, 0.0) for name, value in truth.items()}
    assert scatter_inside(mixed, far) == inside
    assert scatter_inside(mixed[90:], {name: value[90:] for name, value in truth.items()}) == {}


def test_a_density_of_another_network_is_refused(artefact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artefact, tmp_path / "copy")
    path = copy / "prior" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_network": "another"}))
    with pytest.raises(ModelFileError, match="the density must be of the network beside it, got another's: train again"):
        load_cnn(copy)
    shutil.rmtree(copy / "prior")
    with pytest.raises(ModelFileError, match=r"must have a density beside its weights, got none"):
        load_cnn(copy).predict(toy_galaxies(3, seed=5)[0])


def test_a_density_needs_both_masses(store: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train.options.prior: a density of masses needs the targets log_mstar and log_mtot"):
        build(toy_recipe(tmp_path, store, targets=["log_mstar"], prior={}))


@pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning")
def test_a_store_of_maps_is_predicted_like_a_catalogue(artefact: Path, cnn: CNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same rows out as of the network by hand; one without light stays, empty, with the reason."""
    monkeypatch.setattr(cnn_prior, "CHUNK", 8)
    maps, columns = toy_galaxies(21, seed=12)
    maps["r_light"][10] = 0.0
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="toy galaxies of the tests", mock=True)
    done = predict_catalogue(path, artefact, tmp_path / "out.ecsv")
    assert (done.rows, done.empty) == (21, 1)
    got = Table.read(tmp_path / "out.ecsv", format="ascii.ecsv")
    assert np.array_equal(got["galaxy_id"], columns["galaxy_id"]) and np.array_equal(got["projection"], columns["projection"])
    assert got["reason"][10] == "r_light: no light" and np.ma.is_masked(got["log_mtot_median"][10])
    there = np.delete(np.arange(21), 10)
    exact = cnn.predict({name: item[there] for name, item in maps.items()}).marginal("log_mtot").quantiles((0.5,))[:, 0].numpy()
    assert np.asarray(got["log_mtot_median"])[there] == pytest.approx(exact, abs=2e-3)
    assert np.asarray(got["predicted_log_mtot"])[there] == pytest.approx(cnn.estimate(maps)["log_mtot"][there], abs=1e-5)


def test_maps_and_catalogues_each_need_their_model(artefact: Path, store: Path, tmp_path: Path) -> None:
    Table({"M_r": [-20.0]}).write(tmp_path / "in.ecsv")
    with pytest.raises(DataError, match=r"maps must be whole files of galaxy maps, got .*in\.ecsv"):
        predict_catalogue(tmp_path / "in.ecsv", artefact, tmp_path / "out.ecsv")
    with pytest.raises(DataError, match=r"maps\.nc: a catalogue must be a table that astropy or Parquet reads"):
        predict_catalogue(store, artefact / "prior", tmp_path / "out.ecsv")
    with pytest.raises(DataError, match=r"maps have their own names and units, got names.* of columns"):
        predict_catalogue(store, artefact, tmp_path / "out.ecsv", units={"M_r": "mag"})
    assert not (tmp_path / "out.ecsv").exists()
