"""What a recipe's ``[fit.mass_prior]`` says of the stars' mass: numbers, or an estimator's word on a galaxy of a catalogue or of maps."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from supermage.errors import DataError, ModelFileError, RecipeError, nearest_name
from supermage.recipe import MassPriorSection, Recipe

TARGET = "log_mstar"
"""What is asked of an estimator: log10 of the stellar mass, Msun."""

INSIDE = 1.0
"""Score of a galaxy above which it is unlike those that the estimator was trained on."""

RADIUS = "r_hsm"
APERTURES = {"1rhsm": (1.0, RADIUS), "2rhsm": (2.0, RADIUS)}
"""Radius of an estimator's sphere: how many times which column of catalogue or maps, kpc."""

NUMBERS = "numbers of the recipe"


@runtime_checkable
class MassDensity(Protocol):
    """A density of log10 of a mass, normal or a marginal of `supermage.models.mass_prior.MassPrior`."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density."""

    def cdf(self, value: Tensor) -> Tensor:
        """Probability below a value."""

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile."""


@dataclass(frozen=True)
class MassKnowledge:
    """A density of log10 of the stars' mass, Msun, inside a sphere.

    Attributes
    ----------
    density
        Its log10 density, of one galaxy.
    radius
        Of the aperture, kpc.
    aperture, source
        The aperture, and where the numbers are from, in words.
    estimator
        Name of the model, empty where the recipe gives numbers.
    seen_data
        Whether the source has seen the data that are fitted.
    out_of_distribution
        Whether the estimator was not trained on the like of this galaxy.
    """

    density: MassDensity = field(repr=False)
    radius: float
    aperture: str
    source: str
    estimator: str = ""
    seen_data: bool = False
    out_of_distribution: bool = False


def read_mass_knowledge(recipe: Recipe, section: MassPriorSection) -> MassKnowledge:
    """Read numbers, or ask the estimator.

    Raises
    ------
    RecipeError
        If numbers are missing, or the model predicts no mass.
    DataError, ModelFileError
        If catalogue or estimator cannot be used, or the table does not hold the galaxy once.
    """
    if section.model is not None:
        return _predicted(recipe, section, section.model)
    if section.mean is None or section.width is None or section.radius is None:
        raise RecipeError("fit.mass_prior without a model needs mean, radius and width, got none")
    numbers = torch.tensor((section.mean, section.width), dtype=torch.float64)
    density = torch.distributions.Normal(numbers[0], numbers[1], validate_args=False)
    return MassKnowledge(density, section.radius, f"a sphere of {section.radius:g} kpc", NUMBERS, seen_data=section.seen_data)


def identity(recipe: Recipe) -> dict[str, Any]:
    """What the draws of a fit depend on, for its fingerprint: numbers, estimator, the content of catalogue or maps; not where files lie."""
    section = None if recipe.fit is None else recipe.fit.mass_prior
    if section is None:
        return {}
    found = section.model_dump(mode="json", exclude={"catalogue", "maps", "projection", "columns", "units", "seen_data"})
    if section.model is not None:
        from supermage.models.registry import describe

        found["model"] = describe(_model(recipe, section.model))
    if section.catalogue is not None:
        found["catalogue"] = _checksum(_row(recipe, section))
    if section.maps is not None:
        from supermage.models.registry import load_model

        # trained anew a density has other weights beside the same network
        density = getattr(load_model(_model(recipe, str(section.model))), "density", None)
        found |= {"density": getattr(density, "source", None), "projection": section.projection}
        found["maps"] = _checksum_of_maps(recipe.path(section.maps), section)
    return {"mass_prior": found}


def _checksum(row: Any) -> str:
    """Of the galaxy's own canonical numbers: neither the file's form nor its other rows matter."""
    from supermage.models.columns import COLUMNS

    numbers = {name: _number(row, name) for name in sorted(row.colnames) if name in COLUMNS and row[name].dtype.kind in "fiu"}
    return hashlib.sha256(repr(numbers).encode()).hexdigest()


def _checksum_of_maps(path: Path, section: MassPriorSection) -> str:
    """Of the galaxy's own maps and radius: what else the store holds does not matter."""
    from supermage.models.map_store import MapStore

    with MapStore(path) as store:
        row = _row_of_store(store, section, path)
        radius = store.column(RADIUS)[row] if RADIUS in store.columns else np.empty(0)
        arrays = [*(maps for _, maps in sorted(store.read(row, sorted(store.pixels)).items())), radius]
    return hashlib.sha256(b"".join(np.ascontiguousarray(values).tobytes() for values in arrays)).hexdigest()


def _predicted(recipe: Recipe, section: MassPriorSection, name: str) -> MassKnowledge:
    from supermage.models.registry import load_model

    estimator = load_model(_model(recipe, name))
    of_maps = hasattr(estimator, "estimate")
    if not of_maps and not hasattr(estimator, "reasons"):
        raise RecipeError(f"fit.mass_prior.model must be an estimator of galaxy masses, got '{name}', which predicts none")
    kind, key, other = ("maps", "maps", "catalogue") if of_maps else ("catalogues", "catalogue", "maps")
    if getattr(section, key) is None:
        got = "none" if getattr(section, other) is None else other
        raise RecipeError(f"fit.mass_prior by the model '{name}', one of {kind}, needs {key}, got {got}")
    if of_maps:
        return _by_network(recipe.path(str(section.maps)), section, estimator, name)
    return _by_columns(recipe, section, estimator, name)


def _model(recipe: Recipe, name: str) -> str:
    """A name that the package knows, or the folder beside the recipe."""
    from supermage.models.registry import MODELS

    return name if name in MODELS or not recipe.path(name).is_dir() else str(recipe.path(name))


def _by_columns(recipe: Recipe, section: MassPriorSection, estimator: Any, name: str) -> MassKnowledge:
    """The word of an estimator that reads a catalogue."""
    path, row = recipe.path(str(section.catalogue)), _row(recipe, section)
    learnt = getattr(estimator, "about", {}).get("mock", False)
    invented = [what for what, mock in (("the catalogue", "mock" in row.meta), ("what the estimator learnt from", learnt)) if mock]
    row, radius, aperture = _sphere(section, row, str(estimator.aperture), path)
    who = f"{'the only row' if section.galaxy_id is None else f'galaxy {section.galaxy_id}'} of {path.name}"
    return _labelled(_knowledge(section, estimator, name, row, estimator.reasons(row), who, radius, aperture), invented)


def _by_network(path: Path, section: MassPriorSection, network: Any, name: str) -> MassKnowledge:
    """The word of a network that looks at maps: that of the density on its predictions."""
    from supermage.models.cnn_prior import inputs_of_density
    from supermage.models.map_store import MapStore

    if network.density is None:
        raise ModelFileError(f"fit.mass_prior needs a network with a density, got '{name}' without: [train.options.prior] trains one")
    with MapStore(path) as store:
        place = _row_of_store(store, section, path)
        row = inputs_of_density(network, store, place)
        if RADIUS in store.columns:
            row[RADIUS] = store.column(RADIUS)[place]
        invented = [what for what, mock in (("the maps", store.mock), ("what the network learnt from", network.mock)) if mock]
    row, radius, aperture = _sphere(section, row, str(network.density.aperture), path)
    side = f"{'' if section.projection is None else f', projection {section.projection}'}"
    who = f"{'the only galaxy' if section.galaxy_id is None else f'galaxy {section.galaxy_id}'}{side} of {path.name}"
    return _labelled(_knowledge(section, network.density, name, row, row.meta["reasons"], who, radius, aperture), invented)


def _labelled(found: MassKnowledge, invented: list[str]) -> MassKnowledge:
    """The same with a word on what a generator made."""
    return replace(found, source=f"{found.source}; {' and '.join(invented)}: generated galaxies") if invented else found


def _knowledge(
    section: MassPriorSection, estimator: Any, name: str, row: Any, reasons: list[str], who: str, radius: float, aperture: str
) -> MassKnowledge:
    """An estimator's density for a table of one row."""
    (why,) = reasons
    if why:
        raise DataError(f"fit.mass_prior.model must be able to predict {who}, got nothing: {why}")
    with warnings.catch_warnings():
        # that a galaxy is unlike the training set is told with the prior, once, and by the report
        warnings.simplefilter("ignore")
        prior = estimator.predict(row)[0]
    unlike = not float(prior.out_of_distribution) <= INSIDE
    return MassKnowledge(prior.marginal(TARGET), radius, aperture, f"{prior.source}, {who}", name, section.seen_data, unlike)


def _row_of_store(store: Any, section: MassPriorSection, path: Path) -> Any:
    """The galaxy's row among a store's, shape (1,)."""
    chosen = np.arange(store.n_rows)
    for key in ("galaxy_id", "projection"):
        wanted, values = getattr(section, key), store.column(key)[chosen]
        if wanted is not None:
            chosen = chosen[np.asarray([str(value) == str(wanted) for value in values], dtype=bool)]
        elif len(set(values.tolist())) > 1:
            raise DataError(f"fit.mass_prior needs {key} where the maps have several, got {len(set(values.tolist()))} in {path}")
    if len(chosen) != 1:
        raise DataError(f"fit.mass_prior.galaxy_id and projection must name one row of the maps, got {len(chosen)} rows in {path}")
    return chosen


def _row(recipe: Recipe, section: MassPriorSection) -> Any:
    """The galaxy's row of the catalogue, a canonical table of one."""
    from supermage.models.catalogue import read_catalogue

    path, galaxy = recipe.path(str(section.catalogue)), section.galaxy_id
    table = read_catalogue(path, columns=section.columns or None, units=section.units or None)
    if galaxy is None:
        if len(table) != 1:
            raise DataError(f"fit.mass_prior needs galaxy_id where the catalogue has several rows, got {len(table)} in {path}")
        return table
    if "galaxy_id" not in table.colnames:
        raise DataError(f"a catalogue must have the column galaxy_id here, got {path} without{nearest_name('galaxy_id', table.colnames)}")
    found = np.flatnonzero([str(value) == str(galaxy) for value in table["galaxy_id"]])
    if len(found) != 1:
        raise DataError(f"fit.mass_prior.galaxy_id must name one row of the catalogue, got {len(found)} rows of {galaxy} in {path}")
    return table[found]


def _sphere(section: MassPriorSection, row: Any, kind: str, path: Path) -> tuple[Any, float, str]:
    """The row as the estimator is to see it, radius of the estimator's sphere for this galaxy, kpc, and what it is in words."""
    if kind == "ratio":
        return _chosen_sphere(section, row, path)
    if kind not in APERTURES:
        raise ModelFileError(f"an estimator's aperture must be one of {', '.join(APERTURES)} and ratio, got '{kind}' of {section.model}")
    multiple, column = APERTURES[kind]
    radius = multiple * _number(row, column)
    if section.radius is not None:
        if np.isfinite(radius) and not np.isclose(radius, section.radius, rtol=1e-3):
            raise DataError(f"fit.mass_prior.radius must be left out where {path.name} has {column}, got {section.radius:g} kpc beside "
                            f"{multiple:g} R_hsm = {radius:.4g} kpc, the sphere that is predicted for")  # fmt: skip
        return row, section.radius, f"the sphere of {section.radius:g} kpc that the recipe gives for the estimator's in R_hsm"
    if not np.isfinite(radius):
        raise DataError(_no_radius(column, path))
    return row, radius, f"the sphere of {multiple:g} R_hsm, {radius:.3g} kpc"


def _chosen_sphere(section: MassPriorSection, row: Any, path: Path) -> tuple[Any, float, str]:
    """The same where the mass is predicted inside the sphere asked for, ``aperture_ratio`` times R50: radius and mass must be of one."""
    ratio, half = (_number(row, column) for column in ("aperture_ratio", "r50_3d"))
    if not np.isfinite(half):
        raise DataError(f"fit.mass_prior by '{section.model}' needs r50_3d in {path.name}, the unit of its sphere's radius, got none")
    if section.radius is None:
        if not np.isfinite(ratio):
            raise DataError(_no_radius("aperture_ratio", path))
        return row, ratio * half, f"the sphere of {ratio:g} R50, {ratio * half:.3g} kpc"
    if np.isfinite(ratio):
        raise DataError(
            f"fit.mass_prior.radius must be left out where {path.name} has aperture_ratio, the sphere that is predicted for, "
            f"got {section.radius:g} kpc beside {ratio:g} R50 = {ratio * half:.3g} kpc"
        )
    row = row.copy()
    row["aperture_ratio"] = [section.radius / half]
    return row, section.radius, f"the sphere of {section.radius:g} kpc that the recipe gives, {section.radius / half:.3g} R50"


def _no_radius(column: str, path: Path) -> str:
    return f"fit.mass_prior needs the radius of the estimator's aperture: give radius, or {column} in {path.name}, got neither"


def _number(row: Any, name: str) -> float:
    """A column's number in a table of one row, NaN where there is none."""
    return float(np.ma.filled(np.ma.asarray(row[name], dtype=float), np.nan)[0]) if name in row.colnames else np.nan
