"""The paper's LightGBM by a recipe: what it writes, what is refused, and that no group stands on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from supermage.errors import DataError, RecipeError
from supermage.models.gbdt_table import matrix_of, scatter_of
from supermage.models.mock_population import draw_population
from supermage.models.registry import load_model
from supermage.models.splits import groups_of, split_by_group
from supermage.models.training import train
from supermage.plots.training import draw_losses
from supermage.recipe import Recipe, TrainSection


def recipe(folder: Path, **options: object) -> Recipe:
    return Recipe(folder=folder, train=TrainSection(kind="gbdt", seed=3, options={"rows": "mock.ecsv", "rounds": 60, **options}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees")
    draw_population(500, 2, projections=3, dust=True).write(path / "mock.ecsv")
    return path


def test_trees_of_a_recipe(folder: Path) -> None:
    """Loaded again they reach, on groups that they have not seen, the scatter on the card; the light alone does worse."""
    artefact = train(recipe(folder, cuts=["n_sersic <= 100 or missing", "b_t <= 1 or missing"]))
    trees, card = load_model(artefact), (folder / "card.md").read_text()
    table = Table.read(folder / "mock.ecsv")
    table = table[np.asarray(table["b_t"]) <= 1.0]
    split = split_by_group(groups_of(table), (0.67, 0.33), 3)
    features = matrix_of({name: np.asarray(table[name], dtype=float) for name in trees.features}, trees.features)
    true = np.log10(np.asarray(table["m_star_1rhsm"]))
    found = scatter_of(trees.predict(features[split[1]], trees.features), true[split[1]])
    assert f"On {found.rows} test rows: mean {found.mean:+.4f}, scatter {found.scatter:.4f} dex" in card
    law = np.polyfit(features[split[0], 0], true[split[0]], 1)
    assert found.scatter < 0.75 * np.std(np.polyval(law, features[split[1], 0]) - true[split[1]])
    assert "Trained on generated galaxies" in card and "by friends-of-friends group" in card
    assert "not n_sersic <= 100: 0 of 1500 rows left out, 0 without a value stay" in card
    assert draw_losses(artefact, folder / "products" / "loss.png") == folder / "products" / "loss.png"
    curves = json.loads((artefact / "model.json").read_text())["curves"]
    assert {part: len(errors["mse"]) for part, errors in curves.items()} == {"train": 60, "test": 60}


def test_the_papers_split_is_told_to_leak(folder: Path) -> None:
    train(recipe(folder, split="paper", inputs="luminosity and dispersion", target="log_mtot", aperture="2rhsm"))
    card = (folder / "card.md").read_text()
    assert "LEAKING, as the paper: every row on its own" in card and "Flattered: the split leaks." in card
    assert "within the sphere of 2 R_hsm" in card and "`sigma_v` (km / s)" in card and "`lambda_r`" not in card


@pytest.mark.parametrize(("options", "message"), [
    ({"features": "papre"}, "features must be a list or one of paper, group catalogue, got 'papre'; did you mean 'paper'"),
    ({"inputs": "defualt"}, "inputs must be one of default, .*got 'defualt'; did you mean 'default'"),
    ({"target": "log_mass"}, "target must be one of log_mstar, .*got 'log_mass'"),
    ({"features": []}, r"train.options.features must name at least one feature, got \[\]"),
    ({"features": ["M_r", "age"]}, "features must include age, got none of that name"),
    ({"cuts": ["b_t < one"]}, "a cut must read like 'm_star_30kpc > 5e9' or 'b_t <= 1 or missing', got 'b_t < one'"),
    ({"mass_30kpc": ["a.hdf5", "b"]}, "masses within 30 kpc may come beside a group catalogue in HDF5 only"),
    ({"test": 1.5}, "train.options.test: .* got 1.5"),
])  # fmt: skip
def test_wrong_recipes_are_one_line(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises((RecipeError, DataError), match=message) as caught:
        train(recipe(folder, **options))
    assert "\n" not in str(caught.value)
