"""Recipes: TOML files that say what a command does. A recipe is checked whole before any work begins.

Paths inside a recipe are relative to the recipe's folder. Numbers carry their unit in the key's description; an unknown key is an
error that names the nearest right one.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from supermage.errors import RecipeError, nearest_name
from supermage.recipe_fit import BLOCK_PARAMETER as BLOCK_PARAMETER
from supermage.recipe_fit import FitSection as FitSection
from supermage.recipe_fit import MassPriorSection as MassPriorSection
from supermage.recipe_fit import ModelSection as ModelSection
from supermage.recipe_fit import Prior as Prior
from supermage.recipe_fit import SamplerSection as SamplerSection
from supermage.recipe_sections import OPTIONAL_NAMES as OPTIONAL_NAMES
from supermage.recipe_sections import PARAMETER_NAMES as PARAMETER_NAMES
from supermage.recipe_sections import Antennas as Antennas
from supermage.recipe_sections import CalibrateSection as CalibrateSection
from supermage.recipe_sections import CalibrateStep as CalibrateStep
from supermage.recipe_sections import GalaxySection as GalaxySection
from supermage.recipe_sections import GridSection as GridSection
from supermage.recipe_sections import ReduceSection as ReduceSection
from supermage.recipe_sections import Section as Section
from supermage.recipe_sections import SimulateSection as SimulateSection
from supermage.recipe_sections import TrainSection as TrainSection


class Recipe(Section):
    """A whole recipe. Which sections must be present depends on the command."""

    folder: Path = Path()
    galaxy: GalaxySection | None = None
    simulate: SimulateSection | None = None
    calibrate: CalibrateSection | None = None
    reduce: ReduceSection | None = None
    fit: FitSection | None = None
    train: TrainSection | None = None

    @model_validator(mode="after")
    def _mass_prior_is_whole(self) -> Recipe:
        prior = None if self.fit is None else self.fit.mass_prior
        if self.fit is None or prior is None:
            return self
        given = {name for name in prior.model_fields_set if getattr(prior, name) not in (None, {})}
        numbers, of_table = {"mean", "width"}, {"catalogue", "columns", "units"}
        if not prior.model:
            needed, foreign = numbers | {"radius"}, of_table | {"maps", "galaxy_id", "projection"}
        elif "maps" in given:
            needed, foreign = {"maps"}, numbers | of_table
        else:
            needed, foreign = {"catalogue"}, numbers | {"projection"}
        kind = f"by the model '{prior.model}'" if prior.model else "without a model"
        if needed - given:
            what = " and ".join(sorted(needed - given)) + (" (a network maps)" if prior.model else "")
            raise ValueError(f"fit.mass_prior {kind} needs {what}, got none")
        if foreign & given:
            raise ValueError(f"fit.mass_prior {kind} must leave out {' and '.join(sorted(foreign & given))}, got both")
        held = self.fit.priors.get("intensity_rb")
        if held is not None and held.fixed is not None:
            raise ValueError(f"fit.mass_prior needs a free intensity_rb, got it fixed at {held.fixed:g}")
        return self

    def path(self, relative: str) -> Path:
        """Resolve a path that stands in the recipe."""
        return (self.folder / relative).resolve()

    def output(self, relative: str) -> Path:
        """Resolve the path of a file to write, and refuse at once what the work could only fail at in the end.

        Raises
        ------
        RecipeError
            If there is a folder in its place, or its folder cannot be made or written.
        """
        path = self.path(relative)
        if path.is_dir():
            raise RecipeError(f"an output must be a file, got the folder {path}")
        above = next(folder for folder in path.parents if folder.exists())
        if not above.is_dir():
            raise RecipeError(f"an output must lie in a folder, got {path} below the file {above}")
        try:
            _try_to_write(path)
        except OSError as error:
            raise RecipeError(f"an output must lie in a folder that can be written, got {path} ({error.strerror})") from None
        return path


def _try_to_write(path: Path) -> None:
    """Make a file's folder and write another file in it, as the work will in the end; remove again what was made."""
    made = [folder for folder in path.parents if not folder.exists()]
    trial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"?")
        finally:
            trial.unlink(missing_ok=True)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def load_recipe(path: str | Path, *, needs: tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    path
        A TOML file.
    needs
        Sections that the command requires, such as ``("galaxy", "fit")``.

    Raises
    ------
    RecipeError
        If the file is missing or not TOML, a key is unknown, or a value breaks its rule.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"a recipe must be a readable TOML file, got {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"a recipe must be valid TOML, got {path}: {error}") from None
    if "folder" in table:
        raise RecipeError(f"{path}: unknown key 'folder'; paths are relative to the recipe's own folder")
    try:
        recipe = Recipe.model_validate({**table, "folder": path.parent})
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_problem(error)}") from None
    for section in needs:
        if getattr(recipe, section) is None:
            raise RecipeError(f"{path}: this command needs a [{section}] section, got none")
    return recipe


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = problem["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest_name(str(location[-1]), known) or f"; known here: {', '.join(known)}"
        return f"unknown key '{where}'{hint}"
    if problem["type"] == "missing":
        return f"missing key '{where}'"
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return f"{where}: must be a table, got {problem['input']!r}"
    if problem["type"] == "too_short":
        return f"{where}: must have at least {problem['ctx']['min_length']} item, got {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    hint = nearest_name(problem["input"], _named(problem)) if isinstance(problem["input"], str) else ""
    if problem["type"] != "value_error":
        message = message[0].lower() + message[1:]
    got = problem.get("input")
    shown = "" if isinstance(got, dict | BaseModel) or ", got " in message else f", got {got!r}"
    return f"{where}: {message}{shown}{hint}" if where else message


def _named(problem: Mapping[str, Any]) -> list[str]:
    """The names to choose from, where a value must be one of some."""
    return re.findall("'([^']*)'", problem["ctx"]["expected"]) if problem["type"] == "literal_error" else []


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the table at a location; lists and tables with free keys (priors) lead to what they hold."""
    model: type[BaseModel] = Recipe
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [name for name in model.model_fields if name != "folder"]
