"""From a network's point predictions to joint densities of masses: its outputs are the features of a ``mass-prior``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from astropy.table import Column, Table
from numpy.typing import NDArray
from pydantic import Field

from supermage.models.cnn import CNN, PRIOR_FOLDER, unusable
from supermage.models.cnn_data import Inputs, Rows
from supermage.models.columns import IDENTITY
from supermage.models.map_store import MAPS, MapStore
from supermage.models.stellar_light import SOLAR_MAGNITUDE
from supermage.progress import Progress
from supermage.recipe import Section

if TYPE_CHECKING:
    from supermage.models.mass_prior import MassPrior

NEEDED = ("log_mstar", "log_mtot")
"""Targets of a network that can have a density."""

CHUNK = 256

WIDENED = 0.01
"""Weight of the population above which a row counts as widened: what a description's ``test_rows_widened`` counts."""


class PriorOptions(Section):
    """``[train.options.prior]``: the density that is trained on galaxies which the network has not learnt from.

    ``fractions`` of their groups train it, choose nothing, recalibrate it and test it; the other keys as of a ``mass-prior``.
    """

    fractions: tuple[float, float, float, float] = (0.45, 0.05, 0.25, 0.25)
    steps: Annotated[int, Field(ge=1)] = 400
    rounds: Annotated[int, Field(ge=1)] = 60
    members: Annotated[int, Field(ge=1)] = 5
    hidden: Annotated[int, Field(ge=1)] = 32


def catalogue_of(cnn: CNN, maps: Mapping[str, NDArray[np.float32]]) -> Table:
    """The features that a density is conditioned on, one row a galaxy.

    ``predicted_...`` of every target; ``M_r`` and ``g_r`` of the light in the image, where the network sees it: they tell a galaxy unlike
    the training set, which the network does not. Rows that cannot be predicted hold NaN.
    """
    table = Table({f"predicted_{name}": value for name, value in cnn.estimate(maps).items()})
    if "r_light" not in cnn.inputs:
        return table
    light = np.where(np.isfinite(maps["r_light"]), maps["r_light"], 0.0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        bright = SOLAR_MAGNITUDE["r"] - 2.5 * np.log10(light.sum((1, 2)))
        table["M_r"] = Column(np.where(np.isfinite(bright), bright, np.nan), unit="mag")
        if "g_r" in cnn.inputs:
            known = np.isfinite(maps["g_r"])
            blue = (light * 10.0 ** (-0.4 * np.where(known, maps["g_r"], 0.0)) * known).sum((1, 2))
            colour = -2.5 * np.log10(blue / (light * known).sum((1, 2)))
            table["g_r"] = Column(np.where(np.isfinite(colour), colour, np.nan), unit="mag")
    return table


def catalogue_of_store(cnn: CNN, store: MapStore, inputs: Inputs, rows: Rows) -> Table:
    """The same for rows of a store, with identities and masses of ``log_mstar``, ``log_mtot``, ``log_mdm``: what a density is trained on.

    Raises
    ------
    DataError
        If the store lacks one of these columns.
    """
    from astropy.table import vstack

    table = vstack([catalogue_of(cnn, inputs.read(store, rows[first : first + CHUNK])) for first in range(0, len(rows), CHUNK)])
    for name in ("galaxy_id", "group_id", "projection"):
        table[name] = store.column(name)[rows]
    table["group_id"] = np.where(table["group_id"] < 0, -1 - np.asarray(table["galaxy_id"]), np.asarray(table["group_id"]))
    for kind, target in (("star", "log_mstar"), ("tot", "log_mtot"), ("dm", "log_mdm")):
        table[f"m_{kind}_1rhsm"] = Column(10.0 ** store.column(target)[rows], unit="Msun")
    return table


def pieces_of_store(cnn: CNN, store: MapStore) -> Iterator[Table]:
    """A store's rows as tables of :func:`inputs_of_density`."""
    for first in range(0, store.n_rows, CHUNK):
        yield inputs_of_density(cnn, store, np.arange(first, min(first + CHUNK, store.n_rows)))


def inputs_of_density(cnn: CNN, store: MapStore, rows: Rows) -> Table:
    """Some rows of a store as :func:`catalogue_of` has them, with their identities; ``meta["reasons"]`` says which cannot be predicted."""
    images = [item for name, item in cnn.scaling.items() if MAPS[name].is_image]
    inputs = Inputs(cnn.inputs, images[0].pixels if images else 0, images[0].stretch if images else "linear")
    maps = inputs.read(store, rows) if images else store.read(rows, cnn.inputs)
    table = catalogue_of(cnn, maps)
    for place, (name, column) in enumerate(IDENTITY.items()):
        table.add_column(Column(store.column(name)[rows], description=column.description), name=name, index=place)
    table.meta["reasons"] = unusable(maps, cnn.inputs)
    return table


def scatter_inside(prior: MassPrior, truth: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Standard deviation (dex) of median minus truth over the rows that are not widened; none where fewer than ten are left.

    Parameters
    ----------
    prior
        Batch shape (row,).
    truth
        Target -> true values, shape (row,); :data:`NEEDED` of them count.
    """
    from supermage.models.mass_scores import score_table
    from supermage.models.out_of_distribution import population_weight

    inside = np.flatnonzero(population_weight(prior.out_of_distribution.numpy()) <= WIDENED)
    if len(inside) < 10:
        return {}
    scores = score_table(prior[inside], {name: truth[name][inside] for name in NEEDED if name in truth}, calibration_rows=len(inside))
    return {name: float(entry["scatter"]) for name, entry in scores.items()}


def train_prior(
    cnn: CNN, store: MapStore, inputs: Inputs, rows: Rows, options: PriorOptions, *, name: str, seed: int, artefact: Path, products: Path,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Train a density on a network's predictions and put it beside the network's weights.

    Parameters
    ----------
    cnn
        The network, as it lies in ``artefact``.
    store, inputs, rows
        Maps, and rows that the network has not learnt from.
    options
        Of the recipe.
    name
        Of the model.
    seed
        Of the recipe; the rows are divided by another seed, for the network's own divided the groups already.
    artefact, products
        Folders of the network, and of what is written on the way.
    progress
        Where progress is shown.

    Returns
    -------
    dict
        Calibration tables by title, as :func:`supermage.models.mass_card.calibration_table` prints them.
    """
    from supermage.models import mass_training
    from supermage.models.mass_card import write_mass_card
    from supermage.models.mass_estimator import load_mass_estimator
    from supermage.models.mass_sample import sample_of_table
    from supermage.models.training import run_steps

    table = catalogue_of_store(cnn, store, inputs, rows)
    extra = [column for column in ("M_r", "g_r") if column in table.colnames]
    features = [*(f"predicted_{target}" for target in cnn.targets), *extra]
    given = mass_training.Options(sample="catalogue", features=features, needs=["predicted_log_mstar"], **options.model_dump())
    sample = sample_of_table(table, source=store.source, cuts=["what the network learnt from"])
    problem: Any = mass_training.MassTraining(sample, given, seed + 1, f"{name}-prior")
    run_steps(problem, products / "prior-checkpoint.safetensors", "", None, progress=progress)
    found = load_mass_estimator(problem.finish(products / "prior" / "artefact", progress=progress))
    own = {"of_network": cnn.description["sha256"], "mock": store.mock, "licence": str(store.provenance.get("licence", "")),
           "test_scatter_inside": scatter_inside(problem.prior_of_part(found, "test"), problem.truth("test"))}  # fmt: skip
    found = found.with_about({**found.about, **own}).save(artefact / PRIOR_FOLDER)
    write_mass_card(products / "prior" / "card.md", found.about)
    (products / "prior-checkpoint.safetensors").unlink(missing_ok=True)
    return dict(found.about["scores"])
