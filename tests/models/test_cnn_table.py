"""The rows of Table 4: the paper's own text, recipes that train, predictions by closed forms, mistakes that would be noticed."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from supermage.errors import DataError, RecipeError
from supermage.models.cnn_table import check_columns, early_types, error_of, recipe_of, recipe_text, row_of, rows, summary
from supermage.models.cnn_training import read_options
from supermage.models.map_store import MapStore, write_maps
from supermage.recipe import load_recipe
from tests.models.toy_maps import toy_galaxies

IN_TABLE = [row for row in rows() if row.in_table]


def test_the_table_has_24_rows_and_the_text_three_more() -> None:
    assert len(IN_TABLE) == 24 and len(rows()) == 27
    assert Counter(row.section for row in IN_TABLE) == {"4.1": 10, "4.2": 5, "4.3": 4, "4.4": 5}
    assert len({row.network for row in IN_TABLE}) == 21  # the four joint rows share a network
    assert [row.image_pixels for row in rows() if row.image_pixels != 300] == [150, 60]


@pytest.mark.reference
def test_the_numbers_are_the_papers(reference_data: Path) -> None:
    """Section, mean and sigma of each row, read from the paper's text, in its order."""
    paper = (reference_data.parent / "papers" / "tng-mass-estimation.txt").read_text(encoding="utf-8")
    table = paper[paper.index("Section\tInput\tTraining on"):paper.index("Table 4. Results")]
    found = re.findall(r"^(4\.\d)\t([^\t]*)\t.*\t(-?[0-9.]+) ?\$?(?:±|\\pm) ?([0-9.]+)\$?$", table, flags=re.MULTILINE)
    if len(found) != 24:
        lines = [line for line in table.splitlines() if line.startswith("4.")]
        found = [(line.split("\t")[0], line.split("\t")[1], *re.findall(r"-?\d\.\d\d", line.split("\t")[-1])) for line in lines]
    words = {("r_light",): "r image", ("r_light", "g_r"): "g, r image", ("mean_velocity", "dispersion"): "2 V maps",
             ("r_light", "mean_velocity", "dispersion"): "r image + 2 V maps",
             ("r_light", "g_r", "mean_velocity", "dispersion"): "g, r image + 2 V maps"}
    assert [(row.section, words[row.inputs], row.mean, row.sigma) for row in IN_TABLE] == [
        (section, inputs, float(mean), float(sigma)) for section, inputs, mean, sigma in found
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.key)
def test_every_row_is_a_recipe(row: object, tmp_path: Path) -> None:
    """Written as TOML, read back by the command's own reader, checked by the training's own options."""
    recipe = recipe_of(row, tmp_path / "maps.nc", tmp_path, seed=3)  # type: ignore[arg-type]
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(recipe))
    assert tomllib.loads(path.read_text())["train"]["kind"] == "galaxy-cnn"
    options = read_options(load_recipe(path, needs=("train",)))
    assert (options.inputs, options.targets, options.preset) == (row.inputs, row.targets, "paper")  # type: ignore[attr-defined]
    assert (options.image_pixels, options.batch, options.epochs) == (row.image_pixels, 40, 200)  # type: ignore[attr-defined]
    assert row_of(row.key) is row  # type: ignore[attr-defined]


def test_resolutions_keep_their_share_of_smaller_images(tmp_path: Path) -> None:
    small = {"preset": "small", "image_pixels": 90}
    assert read_options(recipe_of(row_of("r-mstar"), tmp_path, tmp_path, options=small)).image_pixels == 90
    assert read_options(recipe_of(row_of("r-150-mstar"), tmp_path, tmp_path, options=small)).image_pixels == 45
    assert read_options(recipe_of(row_of("r-60-mstar"), tmp_path, tmp_path, options=small)).image_pixels == 18
    with pytest.raises(RecipeError, match="got 'r-mstr'; did you mean 'r-mstar'"):
        row_of("r-mstr")


def test_the_truth_has_no_error() -> None:
    """Fed with the truth every row's error is nothing, where there is no gas."""
    _, columns = toy_galaxies(30, seed=4)
    columns = {**columns, "log_mstar_2rhsm": columns["log_mstar"], "log_mstar_2d_2rhsm": columns["log_mstar"],
               "log_mtot_2rhsm": columns["log_mtot"]}
    for row in rows():
        error = error_of(row, {name: columns[name] for name in row.targets}, columns.__getitem__)
        subset = early_types(columns.__getitem__) if row.early_types else np.ones(30, dtype=bool)
        assert np.array_equal(np.isfinite(error), subset)
        assert error[subset] == pytest.approx(0.0, abs=1e-9)


def test_dark_matter_fraction_counts_gas_and_may_be_undefined() -> None:
    """M* = 4, gas = 1, Mtot = 10: 1 - 0.4 = 0.6 against 0.5; M* above Mtot has no fraction."""
    row = row_of("joint-fdm")
    truth = {"log_fdm": np.log10([0.5, 0.5])}
    predicted = {"log_mstar": np.log10([4.0, 11.0]), "log_mtot": np.log10([10.0, 10.0])}
    error = error_of(row, predicted, truth.__getitem__)
    assert error[0] == pytest.approx(np.log10(0.6 / 0.5))
    assert np.isnan(error[1])
    assert summary(error) == {"mean": pytest.approx(np.log10(1.2)), "sigma": 0.0, "rows": 1, "undefined": 1}
    assert summary(error[1:]) == {"mean": None, "sigma": None, "rows": 0, "undefined": 1}


def test_mass_to_light_of_a_mass_carries_the_masss_error_alone() -> None:
    _, columns = toy_galaxies(30, seed=4)
    predicted = {"log_mstar_2d": columns["log_mstar_2d"] + 0.03}
    assert error_of(row_of("r+v-ml-of-mass"), predicted, columns.__getitem__) == pytest.approx(0.03)


def test_early_types_need_both() -> None:
    columns = {"n_sersic": np.array([1.0, 3.0, 3.0]), "b_t": np.array([0.8, 0.8, 0.3])}
    assert early_types(columns.__getitem__).tolist() == [False, True, False]


def test_rows_say_what_they_need_before_anything_is_trained(tmp_path: Path) -> None:
    """What a row's own comparison asks for is what it says, and a store without it is refused, naming row and column."""
    maps, columns = toy_galaxies(30, seed=4)
    everything = {**columns, **{name: columns["log_mstar"] for name in ("log_mstar_2rhsm", "log_mstar_2d_2rhsm", "log_mtot_2rhsm")}}
    for row in rows():
        asked: set[str] = set()

        def column(name: str, asked: set[str] = asked) -> np.ndarray:
            asked.add(name)
            return everything[name]

        error_of(row, {name: everything[name] for name in row.targets}, column)
        assert asked <= set(row.columns) <= set(everything) and set(row.targets) <= set(row.columns)

    def store(folder: str, **others: object) -> MapStore:
        held = {name: value for name, value in {**everything, **others}.items() if value is not None}
        return MapStore(write_maps(tmp_path / folder, maps, held, source="toy", mock=True))

    with store("whole.nc") as whole:
        check_columns(rows(), whole)
    early = [row_of("joint-fdm"), row_of("joint-fdm-early")]
    for name, others, got in (("a.nc", {"b_t": None}, "column b_t, got none"),
                              ("b.nc", {"n_sersic": np.full(30, np.nan)}, "column n_sersic, got one without a number")):  # fmt: skip
        with store(name, **others) as poor:
            check_columns(early[:1], poor)
            with pytest.raises(DataError, match=f"row joint-fdm-early of Table 4 needs the {got}"):
                check_columns(early, poor)
    only = write_maps(tmp_path / "c.nc", {"r_light": maps["r_light"]}, everything, source="toy", mock=True)
    with MapStore(only) as images, pytest.raises(DataError, match=r"row gr-mstar of Table 4 needs the maps r_light, g_r, got no g_r"):
        check_columns([row_of("r-mstar"), row_of("gr-mstar")], images)
