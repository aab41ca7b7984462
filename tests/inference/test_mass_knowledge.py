"""What a recipe says of the stars' mass: an estimator's word on a galaxy of a catalogue, by a stand-in and by `tng-gbdt` itself."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.table import Table

from supermage.errors import DataError, ModelFileError, RecipeError
from supermage.inference.mass_knowledge import MassKnowledge, identity, read_mass_knowledge
from supermage.inference.mass_prior import StellarMassPrior, build_mass_prior
from supermage.inference.priors import build_priors
from supermage.models import registry
from supermage.models.cnn import CNN
from supermage.models.map_store import MapStore, write_maps
from supermage.models.mock_maps import MockMaps, make_mock_maps
from supermage.models.registry import load_model
from supermage.recipe import Recipe
from tests.inference.test_mass_prior import recipe_of, toy_unit_mass
from tests.inference.toy import TRUTH


class FakePrior:
    """As `supermage.models.mass_prior.MassPrior` is asked: rows, a marginal, an aperture, a score."""

    source = "tng-gbdt version 1, weights 0123"

    def __init__(self, rows: list[float], aperture: str = "1rhsm", score: float = 0.5) -> None:
        self.rows, self.aperture, self.out_of_distribution = rows, aperture, torch.tensor(score)

    def __getitem__(self, index: int) -> FakePrior:
        return FakePrior([self.rows[index]], self.aperture, float(self.out_of_distribution))

    def marginal(self, name: str) -> torch.distributions.Normal:
        assert name == "log_mstar"
        return torch.distributions.Normal(torch.tensor(self.rows[0], dtype=torch.float64), 0.05, validate_args=False)


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An estimator of log M* = -0.4 M_r + 2, plus log10 of the ratio where the sphere is asked for; aperture and score are settings."""

    def predict(table: Table) -> FakePrior:
        warnings.warn("1 of 1 rows lie outside the training set", UserWarning, stacklevel=2)
        inside = np.log10(table["aperture_ratio"]) if model.aperture == "ratio" else np.zeros(len(table))
        return FakePrior(list(np.asarray(table["M_r"]) * -0.4 + 2.0 + inside), model.aperture, model.score)

    def reasons(table: Table) -> list[str]:
        return ["" if np.isfinite(m) else "needs M_r" for m in np.ma.filled(table["M_r"], np.nan)]

    model = SimpleNamespace(aperture="1rhsm", score=0.5, predict=predict, reasons=reasons)
    monkeypatch.setattr(registry, "load_model", lambda name: model)
    monkeypatch.setattr(registry, "describe", lambda name: f"{name} version 1, weights 0123")
    return model


def catalogue(path: Path, **columns: object) -> Recipe:
    table = Table({"galaxy_id": [7, 9], "M_r": [-21.0, -22.0], "r_hsm": [4.0, 5.5], "r50_3d": [3.0, 5.0], **columns})
    for name, unit in (("M_r", "mag"), ("r_hsm", "kpc"), ("r50_3d", "kpc")):
        table[name].unit = unit
    table.write(path / "galaxies.ecsv", overwrite=True)
    section = {"model": "tng-gbdt", "catalogue": "galaxies.ecsv", "galaxy_id": 9}
    return recipe_of(section).model_copy(update={"folder": path})


def read(recipe: Recipe, **changes: object) -> MassKnowledge:
    assert recipe.fit is not None and recipe.fit.mass_prior is not None
    return read_mass_knowledge(recipe, recipe.fit.mass_prior.model_copy(update=changes))


def test_an_estimators_word_on_a_galaxy(tmp_path: Path, estimator: SimpleNamespace) -> None:
    recipe = catalogue(tmp_path)
    found = read(recipe)
    assert float(found.density.icdf(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(10.8)
    assert found.radius == 5.5 and found.aperture == "the sphere of 1 R_hsm, 5.5 kpc" and not found.out_of_distribution
    assert found.source == "tng-gbdt version 1, weights 0123, galaxy 9 of galaxies.ecsv" and found.estimator == "tng-gbdt"
    estimator.aperture, estimator.score = "2rhsm", 1.4
    found = read(recipe)
    assert found.radius == 11.0 and found.out_of_distribution and found.aperture == "the sphere of 2 R_hsm, 11 kpc"
    assert "unlike what the estimator was trained on" in StellarMassPrior(found, toy_unit_mass).words(1.0)
    assert read(recipe, radius=11.0).radius == 11.0
    with pytest.raises(DataError, match=r"radius must be left out where galaxies.ecsv has r_hsm, got 3 kpc beside 2 R_hsm = 11 kpc"):
        read(recipe, radius=3.0)
    assert read(catalogue(tmp_path, r_hsm=[4.0, np.nan]), radius=3.0).radius == 3.0
    table = Table.read(tmp_path / "galaxies.ecsv")
    table.meta["mock"] = "made by a generator"
    table.write(tmp_path / "galaxies.ecsv", overwrite=True)
    assert read(recipe, radius=3.0).source.endswith("galaxy 9 of galaxies.ecsv; the catalogue: generated galaxies")


def test_a_models_folder_lies_beside_the_recipe(tmp_path: Path, estimator: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, asked = catalogue(tmp_path), []
    monkeypatch.setattr(registry, "load_model", lambda name: (asked.append(name), estimator)[1])
    (tmp_path / "mine").mkdir()
    read(recipe, model="mine")
    read(recipe, model="tng-gbdt")
    assert asked == [str(tmp_path / "mine"), "tng-gbdt"]


def test_mass_and_radius_are_of_one_sphere_where_it_is_the_askers(tmp_path: Path, estimator: SimpleNamespace) -> None:
    """R50 is 5 kpc: a radius of the recipe becomes the ratio that is predicted for, and one beside the table's ratio is refused."""
    estimator.aperture = "ratio"
    recipe = catalogue(tmp_path, aperture_ratio=[1.0, 1.5])
    assert read(recipe).aperture == "the sphere of 1.5 R50, 7.5 kpc"
    with pytest.raises(DataError, match=r"radius must be left out where galaxies.ecsv has .* got 3 kpc beside 1.5 R50 = 7.5 kpc"):
        read(recipe, radius=3.0)
    for columns in ({}, {"aperture_ratio": [1.0, np.nan]}):
        found = read(catalogue(tmp_path, **columns), radius=20.0)
        assert found.radius == 20.0 and found.aperture == "the sphere of 20 kpc that the recipe gives, 4 R50"
        median = float(found.density.icdf(torch.tensor(0.5, dtype=torch.float64)))
        assert median == pytest.approx(10.8 + math.log10(4.0))
    with pytest.raises(DataError, match=r"give radius, or aperture_ratio in galaxies.ecsv, got neither"):
        read(catalogue(tmp_path))
    with pytest.raises(DataError, match=r"by 'tng-gbdt' needs r50_3d in galaxies.ecsv, the unit of its sphere's radius, got none"):
        read(catalogue(tmp_path, r50_3d=[3.0, np.nan]), radius=20.0)


def test_tng_shared_predicts_for_the_recipes_radius(tmp_path: Path) -> None:
    recipe = catalogue(tmp_path, m_star_total=[3e10, 5e10])
    table = Table.read(tmp_path / "galaxies.ecsv")
    table["m_star_total"].unit = "Msun"
    table.write(tmp_path / "galaxies.ecsv", overwrite=True)
    small, large = (read(recipe, model="tng-shared", radius=radius) for radius in (5.0, 15.0))
    half = torch.tensor(0.5, dtype=torch.float64)
    low, high = (float(found.density.icdf(half)) for found in (small, large))
    assert small.radius == 5.0 and low == pytest.approx(math.log10(2.5e10), abs=0.05) and 0.1 < high - low < 0.35


def test_what_an_estimator_cannot_serve_is_refused(tmp_path: Path, estimator: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = catalogue(tmp_path)
    for changes, message in (({"galaxy_id": 8}, "must name one row of the catalogue, got 0 rows of 8"),
                             ({"galaxy_id": None}, "needs galaxy_id where the catalogue has several rows, got 2")):
        with pytest.raises(DataError, match=message):
            read(recipe, **changes)
    with pytest.raises(DataError, match=r"needs the radius of the estimator's aperture: give radius, or r_hsm in galaxies.ecsv"):
        read(catalogue(tmp_path, r_hsm=[4.0, np.nan]))
    with pytest.raises(DataError, match=r"must be able to predict galaxy 9 of galaxies.ecsv, got nothing: needs M_r"):
        read(catalogue(tmp_path, M_r=[-21.0, np.nan]))
    estimator.aperture = "30kpc"
    with pytest.raises(ModelFileError, match="aperture must be one of 1rhsm, 2rhsm and ratio, got '30kpc' of tng-gbdt"):
        read(catalogue(tmp_path))
    before = identity(catalogue(tmp_path))
    assert before["mass_prior"]["model"].startswith("tng-gbdt version 1") and "galaxies" not in json.dumps(before)
    assert identity(catalogue(tmp_path, r_hsm=[4.0, 5.6])) != before
    assert identity(catalogue(tmp_path, r_hsm=[4.1, 5.5], colour=["blue", "red"])) == before  # neither other galaxies nor other columns
    (tmp_path / "galaxies.ecsv").unlink()
    with pytest.raises(DataError, match=r"a catalogue must be a file, got no such file"):
        identity(recipe)
    monkeypatch.setattr(registry, "load_model", lambda name: object())
    with pytest.raises(RecipeError, match="must be an estimator of galaxy masses, got 'tng-gbdt', which predicts none"):
        read(catalogue(tmp_path))
    monkeypatch.setattr(registry, "load_model", lambda name: CNN.__new__(CNN))
    with pytest.raises(RecipeError, match="by the model 'tng-gbdt', one of maps, needs maps, got catalogue"):
        read(catalogue(tmp_path))
    assert identity(Recipe()) == {}


def test_tng_gbdt_serves_as_the_prior(tmp_path: Path) -> None:
    """An early type of M_r = -22: one density by the loop and by all chains together; its gradient is the marginal's."""
    emulator = load_model("nuker-mge")
    recipe = catalogue(tmp_path, M_r=[-21.0, -22.0], g_r=[0.75, 0.78], sigma_3d1=[180.0, 220.0])
    table = Table.read(tmp_path / "galaxies.ecsv")
    for name, unit in (("g_r", "mag"), ("sigma_3d1", "km / s")):
        table[name].unit = unit
    table.write(tmp_path / "galaxies.ecsv", overwrite=True)
    assert recipe.fit is not None
    prior = build_mass_prior(recipe, emulator, build_priors(recipe.fit))
    assert prior is not None and prior.knowledge.source.startswith("tng-gbdt version 1, weights ")
    assert prior.knowledge.source.startswith(identity(recipe)["mass_prior"]["model"])
    assert prior.knowledge.aperture == "the sphere of 1 R_hsm, 5.5 kpc" and not prior.knowledge.out_of_distribution
    assert 10.3 < prior.centre < 11.2 and 0.01 < prior.width < 0.15
    rng = np.random.default_rng(1)
    many = {name: torch.from_numpy(np.full(4, value) * rng.uniform(0.99, 1.01, 4)) for name, value in TRUTH.items()}
    many["intensity_rb"].requires_grad_(True)
    together = prior.log_density(many)
    one = torch.stack([prior.log_density({name: values[k] for name, values in many.items()}) for k in range(4)])
    assert torch.allclose(together, one, rtol=1e-10)
    (slope,) = torch.autograd.grad(together.sum(), many["intensity_rb"])
    with torch.no_grad():
        mass = prior.log_mass(many)
        numerical = (prior.knowledge.density.log_prob(mass + 1e-5) - prior.knowledge.density.log_prob(mass - 1e-5)) / 2e-5
    assert torch.allclose(slope, numerical, rtol=1e-5, atol=1e-5)
    kept = prior.statistics({name: values.detach().numpy().reshape(2, 2) for name, values in many.items()}, {})
    assert math.isfinite(float(kept["mass_prior_score"].sum()))
    accepted = prior.draw(build_priors(recipe.fit), 400, np.random.default_rng(2)).accepted
    assert accepted > 0.2


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated galaxies from three sides."""
    request = MockMaps(galaxies=2, seed=77, n_star=8000, n_dm=16000, n_gas=2000)
    return make_mock_maps(tmp_path_factory.mktemp("maps") / "maps", request)


def of_maps(folder: Path, **section: object) -> Recipe:
    return recipe_of({"model": "mock-cnn", "maps": "maps", **section}).model_copy(update={"folder": folder})


def knowledge(recipe: Recipe) -> MassKnowledge:
    assert recipe.fit is not None and recipe.fit.mass_prior is not None
    return read_mass_knowledge(recipe, recipe.fit.mass_prior)


@pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning")
def test_mock_cnn_serves_as_the_prior(maps: Path) -> None:
    """Through the same `MassPrior`: the density that `predict` gives for the row, inside that galaxy's R_hsm; labelled as generated."""
    with MapStore(maps) as store:
        galaxy, row = int(store.column("galaxy_id")[4]), np.array([4])
        radius, truth = float(store.column("r_hsm")[4]), float(store.column("log_mstar")[4])
        prior = load_model("mock-cnn").predict(store.read(row, ("r_light", "g_r", "mean_velocity", "dispersion")))
    found = knowledge(of_maps(maps.parent, galaxy_id=galaxy, projection=1))
    points = torch.tensor([0.025, 0.16, 0.5, 0.84, 0.975], dtype=torch.float64)
    assert torch.allclose(found.density.icdf(points), prior.marginal("log_mstar").icdf(points[:, None])[:, 0], atol=1e-9)
    assert found.radius == pytest.approx(radius) and found.aperture.startswith("the sphere of 1 R_hsm, ")
    low, high = found.density.icdf(torch.tensor([1e-3, 1.0 - 1e-3], dtype=torch.float64)).tolist()
    assert low < truth < high and high - low < 2.5
    assert found.source.endswith(f", galaxy {galaxy}, projection 1 of maps; the maps and what the network learnt from: generated galaxies")
    wide = of_maps(maps.parent, galaxy_id=galaxy, projection=1)
    assert wide.fit is not None
    built = build_mass_prior(wide, load_model("nuker-mge"), build_priors(wide.fit))
    assert built is not None and built.centre == pytest.approx(float(found.density.icdf(points[2])), abs=1e-9)
    assert built.draw(build_priors(wide.fit), 400, np.random.default_rng(2)).accepted > 0.05


def test_maps_that_cannot_serve_are_refused(maps: Path, tmp_path: Path) -> None:
    with MapStore(maps) as store:
        galaxy, kept = int(store.column("galaxy_id")[0]), np.arange(3)
        arrays = store.read(kept, tuple(store.pixels))
        columns = {name: store.column(name)[kept] for name in store.columns}
    for section, message in (
        ({}, r"needs galaxy_id where the maps have several, got 2 in "),
        ({"galaxy_id": galaxy}, r"needs projection where the maps have several, got 3 in "),
        ({"galaxy_id": galaxy, "projection": 5}, r"galaxy_id and projection must name one row of the maps, got 0 rows in "),
        ({"galaxy_id": 77000, "projection": 0}, r"galaxy_id and projection must name one row of the maps, got 0 rows in "),
        ({"galaxy_id": galaxy, "projection": 1, "radius": 2.0}, r"radius must be left out where maps has r_hsm, got 2 kpc beside 1 R_hsm"),
        ({"maps": "none"}, r"maps must be a netCDF file or a folder of parts, got "),
        ({"model": "tng-gbdt"}, r"by the model 'tng-gbdt', one of catalogues, needs catalogue, got maps"),
    ):
        with pytest.raises((DataError, RecipeError), match=message):
            knowledge(of_maps(maps.parent, **section))
    before = identity(of_maps(maps.parent, galaxy_id=galaxy, projection=1))
    del columns["r_hsm"]
    arrays["dispersion"][2] = np.nan
    write_maps(tmp_path / "three.nc", arrays, columns, source="three rows", mock=True)
    there = {"maps": "three.nc", "projection": 1}
    with pytest.raises(DataError, match=r"needs the radius of the estimator's aperture: give radius, or r_hsm in three.nc, got neither"):
        knowledge(of_maps(tmp_path, **there))
    assert knowledge(of_maps(tmp_path, **there, radius=3.0)).radius == 3.0
    with pytest.raises(DataError, match=r"must be able to predict the only galaxy, projection 2 of three.nc, got nothing: dispersion: "):
        knowledge(of_maps(tmp_path, maps="three.nc", projection=2, radius=3.0))
    columns["r_hsm"] = np.full(3, 4.0)
    write_maps(tmp_path / "three.nc", arrays, columns, source="three rows", mock=True)
    after = identity(of_maps(tmp_path, **there, galaxy_id=galaxy))
    assert after != before and after["mass_prior"]["maps"] == identity(of_maps(tmp_path, **there))["mass_prior"]["maps"]


def test_a_network_without_a_density_is_refused(maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_model("mock-cnn")
    network.density = None
    monkeypatch.setattr(registry, "load_model", lambda name: network)
    with pytest.raises(ModelFileError, match=r"needs a network with a density, got 'mock-cnn' without: \[train.options.prior\] trains one"):
        knowledge(of_maps(maps.parent))
