"""Recipes: what they accept, and the one line that each mistake gets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermage.errors import RecipeError
from supermage.recipe import PARAMETER_NAMES, Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path for top in ("data_reduction", "inference", "models") for path in (ROOT / top).glob("*/recipe.toml"))

def true(**changes: float) -> str:
    """A mock's truth, some of it changed."""
    values = dict.fromkeys(PARAMETER_NAMES, 1.0) | {"gamma_minus_beta": -1.0} | changes
    return "{" + ", ".join(f"{name} = {value}" for name, value in values.items()) + "}"


WHOLE: dict[str, Any] = {
    "galaxy": {"name": "'a galaxy'", "distance": "11.4"},
    "simulate": {"output": "'mock.ms'", "truth": true()},
    "calibrate": {"input": "'raw.fits'", "output": "'line.ms'", "steps": "[{task = 'split', arguments = {field = '0'}}]"},
    "reduce": {"measurement_set": "'line.ms'", "output": "'visibilities.nc'", "velocity_range": "[1000, 1500]",
               "grid": "{n_pixel = 64, pixel_scale = 0.12}"},
    "fit": {"visibilities": "'visibilities.nc'", "output": "'posterior.nc'", "priors": "{alpha = {lower = 1, upper = 2}}"},
    "train": {"kind": "'nuker-mge'"},
}


def write(folder: Path, changes: dict[str, dict[str, str | None]] | None = None, *, extra: str = "") -> Path:
    """Write the whole recipe with some values changed (None: left out)."""
    tables = copy.deepcopy(WHOLE)
    for section, values in (changes or {}).items():
        tables[section].update(values)
    lines = [extra]
    for section, values in tables.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items() if value is not None)]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def complaint(path: Path, *, needs: tuple[str, ...] = ()) -> str:
    """Message of the error that a recipe gets: always one line."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, needs=needs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_whole_recipe_is_read_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path), needs=("galaxy", "simulate", "calibrate", "reduce", "fit", "train"))
    assert recipe.galaxy is not None and recipe.galaxy.distance == 11.4
    assert recipe.path("products/x.nc") == (tmp_path / "products/x.nc").resolve()
    assert recipe.path("/elsewhere/x.nc") == Path("/elsewhere/x.nc")


def test_recipe_survives_json(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    assert load_recipe(path).folder == path.parent


WRONG = [
    ("galaxy", "nam", "'x'", "unknown key 'galaxy.nam'; did you mean 'name'?"),
    ("galaxy", "zzzzzz", "1", "unknown key 'galaxy.zzzzzz'; known here: name, distance, line, rest_frequency"),
    ("galaxy", "name", None, "missing key 'galaxy.name'"),
    ("galaxy", "name", "3", "galaxy.name: input should be a valid string, got 3"),
    ("galaxy", "distance", "-1", "galaxy.distance: input should be greater than 0, got -1"),
    ("galaxy", "distance", "nan", "galaxy.distance: input should be a finite number, got nan"),
    ("galaxy", "distance", "inf", "galaxy.distance: input should be a finite number, got inf"),
    ("galaxy", "rest_frequency", "230.538",
     "galaxy.rest_frequency: a frequency must be in Hz and at least 1e+06 here, got 230.538: GHz or MHz passed for Hz?"),
    ("simulate", "channel_width", "15.625",
     "simulate.channel_width: a frequency must be in Hz and at least 100 here, got 15.625: GHz or MHz passed for Hz?"),
    ("simulate", "truth", "{alfa = 1}", "simulate.truth: unknown parameter 'alfa'; did you mean 'alpha'?"),
    ("simulate", "truth", "{" + ", ".join(f"{name} = 1" for name in PARAMETER_NAMES[1:]) + "}",
     "simulate.truth: truth must give every parameter, scale_length missing"),
    ("simulate", "truth", true(Flux=-2.0), "simulate.truth: Flux must be at least 0 Jy km / s, got -2"),
    ("simulate", "truth", true(break_r=-1.5), "simulate.truth: break_r must be above 0 arcsec, got -1.5"),
    ("simulate", "truth", true(log10_mbh=1.3e8), "simulate.truth: log10_mbh must lie in [0, 12] dex(Msun), got 1.3e+08: is this log10?"),
    ("simulate", "seed", "99999999999999999999",
     "simulate.seed: input should be less than or equal to 4294967295, got 99999999999999999999"),
    ("simulate", "flagged_edge", "32", "simulate: flagged_edge must leave channels between the edges, got 32 of 64 on each side"),
    ("simulate", "averaging", "3", "simulate.averaging: input should be 1, 2 or 4, got 3"),
    ("simulate", "antennas", "{failing = 3, fails_after = 2}",
     "simulate.antennas.fails_after: input should be less than or equal to 1, got 2"),
    ("simulate", "dates", "[]", "simulate.dates: must have at least 1 item, got []"),
    ("calibrate", "steps", "[{taks = 'split'}]", "unknown key 'calibrate.steps[0].taks'; did you mean 'task'?"),
    ("calibrate", "steps", "[{arguments = {}}]", "missing key 'calibrate.steps[0].task'"),
    ("calibrate", "steps", "[]", "calibrate.steps: must have at least 1 item, got []"),
    ("reduce", "grid", "{n_pixel = 63, pixel_scale = 0.1}", "reduce.grid.n_pixel: must be even and at least 8, got 63"),
    ("reduce", "grid", "{n_pixel = 64, pixel_scal = 0.1}", "unknown key 'reduce.grid.pixel_scal'; did you mean 'pixel_scale'?"),
    ("reduce", "grid", "{n_pixel = 8194, pixel_scale = 0.1}", "reduce.grid.n_pixel: must be at most 8192, got 8194"),
    ("reduce", "grid", "64", "reduce.grid: must be a table, got 64"),
    ("reduce", "primary_beam_factor", "113", "reduce.primary_beam_factor: input should be less than or equal to 2, got 113"),
    ("reduce", "primary_beam_factor", "0.1", "reduce.primary_beam_factor: input should be greater than or equal to 0.5, got 0.1"),
    ("reduce", "dish_diameter", "12000", "reduce.dish_diameter: input should be less than or equal to 100, got 12000"),
    ("reduce", "dish_diameter", "0.5", "reduce.dish_diameter: input should be greater than or equal to 1, got 0.5"),
    ("reduce", "velocity_range", "[1500, 1000]",
     "reduce.velocity_range: the first velocity must be below the second, got 1500.0 >= 1000.0"),
    ("reduce", "velocity_range", "[1500]", "missing key 'reduce.velocity_range[1]'"),
    ("reduce", "frame", "'LSRD'", "reduce.frame: input should be 'LSRK', 'BARY' or 'TOPO', got 'LSRD'; did you mean 'LSRK'?"),
    ("reduce", "convention", "'relativistic'", "reduce.convention: input should be 'radio' or 'optical', got 'relativistic'"),
    ("fit", "priors", "{alpha = {lower = 2, upper = 2}}", "fit.priors.alpha: lower must be below upper, got 2.0 >= 2.0"),
    ("fit", "priors", "{alpha = {lower = 3}}", "fit.priors.alpha: a prior needs lower and upper, or fixed"),
    ("fit", "priors", "{alpha = {lower = 3, upper = 4, fixed = 3}}", "fit.priors.alpha: a prior needs lower and upper, or fixed, got both"),
    ("fit", "priors", "{alpha = {lower = 3, uper = 4}}", "unknown key 'fit.priors.alpha.uper'; did you mean 'upper'?"),
    ("fit", "priors", "{alpha = {lower = nan, upper = 4}}", "fit.priors.alpha.lower: input should be a finite number, got nan"),
    ("fit", "priors", "{alfa = {lower = 3, upper = 4}}",
     "fit: priors must name parameters of the model, got 'alfa'; did you mean 'alpha'?"),
    ("fit", "priors", "{flux_scale_1 = {fixed = 1}}",
     "fit: priors may name 'flux_scale_1' only with model.block_flux above 0, got block_flux = 0"),
    ("fit", "priors", "{halo_log10_c = {lower = 0, upper = 2}}",
     "fit: priors may name parameters of model.halo = 'nfw' only with it, got 'halo_log10_c'"),
    ("fit", "priors", "{ml_gradient = {lower = 0, upper = 0.3}}",
     "fit: priors may name parameters of model.mass_to_light = 'gradient' only with it, got 'ml_gradient'"),
    ("fit", "model", "{gas = 'stretched', self_gravity = 'exponential'}",
     "fit.model: self_gravity = 'exponential' needs gas = 'exponential', got 'stretched'"),
    ("fit", "sampler", "{start = {alpha = 2.5}}", "fit: a start must lie inside the priors, alpha in [1.0, 2.0], got 2.5"),
    ("fit", "sampler", "{start = {alfa = 2.5}}", "fit: sampler.start must name parameters of the model, got 'alfa'; did you mean 'alpha'?"),
    ("fit", "sampler", "{chains = 1}", "fit.sampler.chains: input should be greater than or equal to 2, got 1"),
    ("fit", "sampler", "{draws = 1}", "fit.sampler.draws: input should be greater than or equal to 4, got 1"),
    ("fit", "sampler", "{warmup = []}", "fit.sampler.warmup: must have at least 1 item, got []"),
    ("fit", "sampler", "{seed = 99999999999999999999}",
     "fit.sampler.seed: input should be less than or equal to 4294967295, got 99999999999999999999"),
    ("fit", "sampler", "{drawz = 1}", "unknown key 'fit.sampler.drawz'; did you mean 'draws'?"),
    ("fit", "model", "{halo = 'nwf'}", "fit.model.halo: input should be 'none' or 'nfw', got 'nwf'; did you mean 'nfw'?"),
    ("fit", "model", "{subpixels = 2}",
     "unknown key 'fit.model.subpixels'; known here: emulator, halo, gas, self_gravity, mass_to_light, likelihood, continuum, "
     "continuum_order, block_flux, block_position, precision"),
]


@pytest.mark.parametrize(("section", "key", "value", "message"), WRONG, ids=[f"{w[0]}.{w[1]}={w[2]}"[:60] for w in WRONG])
def test_each_mistake_gets_one_line(tmp_path: Path, section: str, key: str, value: str | None, message: str) -> None:
    path = write(tmp_path, {section: {key: value}})
    assert complaint(path) == f"{path}: {message}"


def test_halo_priors_are_accepted_with_a_halo(tmp_path: Path) -> None:
    path = write(tmp_path, {"fit": {"model": "{halo = 'nfw'}", "priors": "{halo_log10_c = {lower = 0.5, upper = 1.5}}"}})
    assert load_recipe(path).fit is not None


def test_an_output_is_tried_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    recipe = Recipe(folder=tmp_path)
    assert recipe.output("a/b/p.nc") == tmp_path.resolve() / "a" / "b" / "p.nc"
    (tmp_path / "kept").mkdir()
    recipe.output("kept/p.nc")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
    for path, why in (("/proc/x/p.nc", "No such file or directory"), (f"{'x' * 250}.nc", "File name too long")):
        with pytest.raises(RecipeError, match=rf"^an output must lie in a folder that can be written, got .*{path} \({why}\)$"):
            recipe.output(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_unknown_section_names_the_nearest(tmp_path: Path) -> None:
    assert complaint(write(tmp_path, extra="[fits]")).endswith("unknown key 'fits'; did you mean 'fit'?")


def test_folder_is_no_key(tmp_path: Path) -> None:
    assert "unknown key 'folder'" in complaint(write(tmp_path, extra="folder = 'x'"))


def test_section_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("fit = 3\n", encoding="utf-8")
    assert complaint(path) == f"{path}: fit: must be a table, got 3"


def test_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[galaxy]\nname = 'x'\ndistance = 1\n", encoding="utf-8")
    assert complaint(path, needs=("galaxy", "fit")) == f"{path}: this command needs a [fit] section, got none"


@pytest.mark.parametrize(("content", "part"), [
    (b"[galaxy", "must be valid TOML"), (b"\xff\xfe", "must be valid TOML"), (b"a = 1\na = 2", "must be valid TOML"),
    (None, "No such file")])
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    assert part in complaint(path)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "Is a directory" in complaint(tmp_path)


@given(lower=st.floats(-1e6, 1e6), upper=st.floats(-1e6, 1e6))
def test_priors_are_accepted_exactly_when_lower_is_below_upper(lower: float, upper: float) -> None:
    table = {"fit": {"visibilities": "a", "output": "b", "priors": {"alpha": {"lower": lower, "upper": upper}}}}
    try:
        accepted = Recipe.model_validate(table).fit is not None
    except ValueError:
        accepted = False
    assert accepted == (lower < upper)
