"""Table 4 of Chu et al. as data: each row is a recipe and a prediction, beside what the paper got.

A prediction is a trained target, or made of trained targets: the dark-matter fraction is 1 - M*/Mtot of a joint prediction, which counts
gas as dark matter; M*/L, as everywhere in the paper that of the projected circle, is the predicted projected stellar mass over the known
light. Early types are those of Sersic index above 2 and kinetic bulge fraction above 0.5: ours, for the photometric decomposition of the
paper's reference (Wang et al. 2020b).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, RecipeError, nearest_name
from supermage.models.map_store import MapStore
from supermage.recipe import Recipe
from supermage.recipe_sections import TrainSection

FloatArray = NDArray[np.float64]
Columns = Callable[[str], FloatArray]

R = ("r_light",)
GR = ("r_light", "g_r")
V = ("mean_velocity", "dispersion")

EARLY_SERSIC, EARLY_BULGE = 2.0, 0.5
EARLY_COLUMNS = ("n_sersic", "b_t")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes
    ----------
    key
        Its name in recipes and on the command line.
    section
        Of the paper.
    inputs, targets
        Maps that the network sees, and what it is trained on.
    prediction
        What is compared with the truth: a target, ``fdm_of_masses`` or ``ml_of_mass``.
    mean, sigma
        Of the paper, dex; None where it prints none.
    image_pixels
        Of its images, 300 but for the resolution tests.
    early_types
        Whether early types alone are compared.
    in_table
        Whether it stands in Table 4; the others stand in the text of the section.
    """

    key: str
    section: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    prediction: str
    mean: float | None
    sigma: float | None
    image_pixels: int = 300
    early_types: bool = False
    in_table: bool = True

    @property
    def network(self) -> tuple[tuple[str, ...], tuple[str, ...], int]:
        """What must be trained: rows that share it share a network."""
        return self.inputs, self.targets, self.image_pixels

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the maps that its training and its comparison need."""
        truth = {"fdm_of_masses": ("log_fdm",), "ml_of_mass": ("log_mstar_2d", "log_ml_2d")}.get(self.prediction, (self.prediction,))
        return tuple(dict.fromkeys((*self.targets, *truth, *(EARLY_COLUMNS if self.early_types else ()))))


def _single(section: str, name: str, inputs: tuple[str, ...], target: str, mean: float, sigma: float) -> Row:
    return Row(f"{name}-{target.removeprefix('log_').replace('_', '-')}", section, inputs, (target,), target, mean, sigma)


_JOINT = ("log_mstar", "log_mtot")

ROWS: dict[str, Row] = {row.key: row for row in (
    _single("4.1", "r", R, "log_mstar", 0.00, 0.06),
    _single("4.1", "r", R, "log_mstar_2d", -0.01, 0.07),
    _single("4.1", "gr", GR, "log_mstar", 0.00, 0.05),
    _single("4.1", "gr", GR, "log_mstar_2d", 0.00, 0.06),
    _single("4.1", "v", V, "log_mstar", 0.00, 0.05),
    _single("4.1", "v", V, "log_mstar_2d", 0.00, 0.05),
    _single("4.1", "r+v", R + V, "log_mstar", 0.00, 0.04),
    _single("4.1", "r+v", R + V, "log_mstar_2d", 0.00, 0.05),
    _single("4.1", "r+v", R + V, "log_mstar_2rhsm", 0.00, 0.04),
    _single("4.1", "r+v", R + V, "log_mstar_2d_2rhsm", 0.00, 0.04),
    _single("4.2", "r", R, "log_mtot", 0.00, 0.07),
    _single("4.2", "gr", GR, "log_mtot", 0.00, 0.07),
    _single("4.2", "v", V, "log_mtot", 0.00, 0.09),
    _single("4.2", "r+v", R + V, "log_mtot", 0.00, 0.06),
    _single("4.2", "r+v", R + V, "log_mtot_2rhsm", 0.00, 0.06),
    Row("joint-mstar", "4.3", R + V, _JOINT, "log_mstar", 0.01, 0.04),
    Row("joint-mtot", "4.3", R + V, _JOINT, "log_mtot", -0.01, 0.06),
    Row("joint-fdm", "4.3", R + V, _JOINT, "fdm_of_masses", 0.02, 0.05),
    Row("joint-fdm-early", "4.3", R + V, _JOINT, "fdm_of_masses", -0.02, 0.04, early_types=True),
    _single("4.4", "r", R, "log_ml_2d", 0.01, 0.10),
    _single("4.4", "v", V, "log_ml_2d", 0.01, 0.11),
    _single("4.4", "r+v", R + V, "log_ml_2d", 0.01, 0.07),
    _single("4.4", "gr", GR, "log_ml_2d", 0.01, 0.05),
    _single("4.4", "gr+v", GR + V, "log_ml_2d", 0.00, 0.04),
    Row("r+v-ml-of-mass", "4.1", R + V, ("log_mstar_2d",), "ml_of_mass", None, None, in_table=False),
    Row("r-150-mstar", "4.1", R, ("log_mstar",), "log_mstar", None, 0.06, image_pixels=150, in_table=False),
    Row("r-60-mstar", "4.1", R, ("log_mstar",), "log_mstar", None, 0.07, image_pixels=60, in_table=False),
)}  # fmt: skip
"""The 24 rows of Table 4 in its order, then what the text of section 4.1 adds."""


def rows() -> tuple[Row, ...]:
    """Every row, in the table's order."""
    return tuple(ROWS.values())


def row_of(key: str) -> Row:
    """A row by its key.

    Raises
    ------
    RecipeError
        If there is none.
    """
    if key not in ROWS:
        raise RecipeError(f"a row of Table 4 must be one of {', '.join(ROWS)}, got '{key}'{nearest_name(key, ROWS)}")
    return ROWS[key]


def recipe_of(row: Row, maps: Path, folder: Path, *, seed: int = 1, options: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that trains a row's network.

    Parameters
    ----------
    row
        The row.
    maps
        File or folder of maps.
    folder
        Where the artefact and the checkpoint go.
    seed
        Of everything random.
    options
        Other keys of ``[train.options]``. Without ``preset`` the paper's is used. An ``image_pixels`` stands for the paper's 300: rows at
        other resolutions have the same share of it.
    """
    given = {"preset": "paper", **(options or {})}
    if "image_pixels" in given or row.image_pixels != 300:
        given["image_pixels"] = int(given.get("image_pixels", 300)) * row.image_pixels // 300
    train = {"maps": str(Path(maps).resolve()), "inputs": list(row.inputs), "targets": list(row.targets), **given}
    return Recipe(folder=folder, train=TrainSection(kind="galaxy-cnn", seed=seed, options=train))


def recipe_text(recipe: Recipe) -> str:
    """A recipe of :func:`recipe_of` as TOML, for ``supermage train``."""
    if recipe.train is None:
        raise RecipeError("this needs a recipe with a [train] section, got none")
    lines = ["[train]", f"kind = {json.dumps(recipe.train.kind)}", f"output = {json.dumps(recipe.train.output)}",
             f"seed = {recipe.train.seed}", "", "[train.options]"]  # fmt: skip
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in recipe.train.options.items())]) + "\n"


def check_columns(chosen: Iterable[Row], store: MapStore) -> None:
    """See that maps hold what rows need, before anything is trained on them.

    Raises
    ------
    DataError
        Naming the first row that lacks a map, or a column with a number in it, and which.
    """
    for row in chosen:
        for name in row.inputs:
            if name not in store.pixels:
                raise DataError(f"{store.path}: the row {row.key} of Table 4 needs the maps {', '.join(row.inputs)}, got no {name}")
        for name in row.columns:
            if name not in store.columns or not np.isfinite(store.column(name)).any():
                got = "none" if name not in store.columns else "one without a number"
                raise DataError(f"{store.path}: the row {row.key} of Table 4 needs the column {name}, got {got}")


def early_types(columns: Columns) -> NDArray[np.bool_]:
    """Early types among rows, shape (row,); ``columns`` gives a column by name."""
    return (columns("n_sersic") > EARLY_SERSIC) & (columns("b_t") > EARLY_BULGE)


def error_of(row: Row, predicted: Mapping[str, FloatArray], columns: Columns) -> FloatArray:
    """Predicted minus true logarithm of a row's prediction, shape (row,); NaN where it is not defined or the row is not of the subset.

    Parameters
    ----------
    row
        The row.
    predicted
        Target -> predicted log10, shape (row,).
    columns
        Function that gives a true column by name, for the same galaxies.
    """
    if row.prediction == "fdm_of_masses":
        fraction = 1.0 - 10.0 ** (predicted["log_mstar"] - predicted["log_mtot"])
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where(fraction > 0.0, np.log10(np.maximum(fraction, 1e-300)), np.nan) - columns("log_fdm")
    elif row.prediction == "ml_of_mass":
        light = columns("log_mstar_2d") - columns("log_ml_2d")
        error = (predicted["log_mstar_2d"] - light) - columns("log_ml_2d")
    else:
        error = predicted[row.prediction] - columns(row.prediction)
    return np.where(early_types(columns), error, np.nan) if row.early_types else error


def summary(error: FloatArray) -> dict[str, float | int | None]:
    """Mean and standard deviation (dex) of the finite errors, and how many; None where there are none."""
    finite = error[np.isfinite(error)]
    if not len(finite):
        return {"mean": None, "sigma": None, "rows": 0, "undefined": len(error)}
    return {"mean": float(finite.mean()), "sigma": float(finite.std()), "rows": len(finite), "undefined": len(error) - len(finite)}
