"""Training of ``gbdt`` models: the paper's LightGBM on any catalogue, one target, its artefact, losses and card (Chu et al., sec. 3.2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from pydantic import Field

from supermage.errors import RecipeError, nearest_name
from supermage.models.catalogue import column_values, read_catalogue
from supermage.models.columns import COLUMNS, TARGETS
from supermage.models.cuts import Cut, apply_cuts
from supermage.models.gbdt import ROUNDS, SETTINGS
from supermage.models.gbdt_table import GROUP_CATALOGUE_SETS, PAPER_SETS, Outcome, measure, with_colours
from supermage.models.mass_card import licence_of
from supermage.models.splits import PAPER_TREE_SIZES, Split, groups_of, paper_split, split_by_group
from supermage.models.targets_of_table import targets_of_masses
from supermage.models.training import options_of, write_atomically
from supermage.progress import Progress, SilentProgress
from supermage.recipe import Recipe, Section

FloatArray = NDArray[np.float64]

SETS = {"paper": PAPER_SETS, "group catalogue": GROUP_CATALOGUE_SETS}
"""Sets of features by what they come from; ``inputs`` is one of their keys."""

CARD = """# {name}: {meaning} by LightGBM

{mock}{rounds} trees with the settings of Chu et al., Table 3 ({settings}), after their sec. 3.2. A point prediction without an interval;
a `mass-prior` gives a density. `supermage.load_model("path/to/{name}").predict(features, names)`.

- Galaxies: {source}. Left out: {cuts}.
- Features, with their share of the gain: {gain}.
- Target: `{target}`, {meaning}, within {aperture}.
- Split: {split}.
- On {rows} test rows: mean {mean:+.4f}, scatter {scatter:.4f} dex (log10 of predicted over true).{leaks}

## Licence

{licence}"""

MOCK = "**Trained on generated galaxies**: neither observed nor simulated.\n\n"


class Options(Section):
    """``[train.options]`` of trees.

    ``rows`` is a catalogue with masses, groups and features; ``columns``, ``units``, ``mass_30kpc``, ``cuts``, ``source`` and ``licence``
    as of a ``mass-prior``. ``features``: a list, or ``"paper"`` or ``"group catalogue"`` with one of their sets in ``inputs``
    (``default``, ``default without magnitude``, ``luminosity and dispersion`` and, of group catalogues, ``default and radius``).
    ``test``: share of the groups that test; ``split = "paper"`` divides rows by the paper's numbers and leaks where galaxies come in
    several projections.
    """

    rows: str
    target: str = "log_mstar"
    aperture: Literal["1rhsm", "2rhsm"] = "1rhsm"
    features: str | list[str] = "paper"
    inputs: str = "default"
    columns: dict[str, str] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    mass_30kpc: tuple[str, str] | None = None
    cuts: list[str] = Field(default_factory=list)
    split: Literal["group", "paper"] = "group"
    test: Annotated[float, Field(gt=0, lt=1)] = 0.33
    rounds: Annotated[int, Field(ge=1)] = ROUNDS
    source: str = ""
    licence: str = ""


def train_trees(recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """Train the trees of a recipe with ``kind = "gbdt"``; as :func:`supermage.models.training.train`, which calls this for its kind.

    Seconds of work: there is no checkpoint.

    Returns
    -------
    Path
        The artefact's folder; the card lies beside it.

    Raises
    ------
    RecipeError
        If an option is unknown.
    DataError
        If the catalogue cannot be used, a cut's column or a feature is missing, or too few rows are left.
    """
    progress = progress or SilentProgress()
    options: Options = options_of(recipe, Options)
    seed = recipe.train.seed if recipe.train else 1
    names, target = _names(options), _target(options)
    progress.start("reading the catalogue", None)
    beside = None if options.mass_30kpc is None else (recipe.path(options.mass_30kpc[0]), options.mass_30kpc[1])
    table = read_catalogue(recipe.path(options.rows), columns=options.columns, units=options.units, mass_30kpc=beside)
    table, counts = apply_cuts(table, [Cut.parse(text) for text in options.cuts])
    progress.done("; ".join([*map(str, counts), f"{len(table)} rows"]))
    group, split = _split(table, options, seed)
    columns = with_colours({name: column_values(table, name) for name in table.colnames if table[name].dtype.kind in "fiu"})
    source = options.source or Path(options.rows).name
    source = f"{source}: {table.meta['mock']}" if "mock" in table.meta else source
    progress.start("training", None)
    true = targets_of_masses(table, options.aperture).get(target if options.aperture == "1rhsm" else f"{target}_{options.aperture}")
    if true is None:
        raise RecipeError(f"train.options.target must follow from the catalogue's masses, got {target} without them")
    (outcome,) = measure(columns, names, true, [(split[0], split[1])], group=group, target_name=target, seed=seed, source=source,
                         rounds=options.rounds)  # fmt: skip
    progress.done(f"scatter {outcome.scatter.scatter:.4f} dex on {outcome.scatter.rows} test rows")
    assert recipe.train is not None
    folder = recipe.path(recipe.train.output)
    outcome.model.save(folder)
    card = _card(recipe, options, outcome, split, cuts=[str(count) for count in counts], mock="mock" in table.meta)
    write_atomically(folder.parent / "card.md", card.encode())
    return folder


def _names(options: Options) -> tuple[str, ...]:
    """Features by the options."""
    if not options.features:
        raise RecipeError(f"train.options.features must name at least one feature, got {options.features!r}")
    if not isinstance(options.features, str):
        return tuple(options.features)
    if options.features not in SETS:
        raise RecipeError(f"train.options.features must be a list or one of {', '.join(SETS)}, got '{options.features}'"
                          f"{nearest_name(options.features, SETS)}")  # fmt: skip
    sets = SETS[options.features]
    if options.inputs not in sets:
        raise RecipeError(f"train.options.inputs must be one of {', '.join(sets)}, got '{options.inputs}'"
                          f"{nearest_name(options.inputs, sets)}")  # fmt: skip
    return sets[options.inputs]


def _target(options: Options) -> str:
    if options.target not in TARGETS:
        raise RecipeError(f"train.options.target must be one of {', '.join(TARGETS)}, got '{options.target}'"
                          f"{nearest_name(options.target, TARGETS)}")  # fmt: skip
    return options.target


def _split(table: Table, options: Options, seed: int) -> tuple[NDArray[Any] | None, Split]:
    """Groups that must not stand on both sides, None where that is what is asked for, and training and test rows."""
    if options.split == "paper":
        split = paper_split(len(table), 1, PAPER_TREE_SIZES, seed)
        told = f"LEAKING, as the paper: every row on its own, seed {seed}: {' / '.join(str(len(part)) for part in split)} rows"
        return None, replace(split, description=told)
    group = groups_of(table)
    return group, split_by_group(group, (1.0 - options.test, options.test), seed)


def _card(recipe: Recipe, options: Options, outcome: Outcome, split: Split, *, cuts: list[str], mock: bool) -> str:
    model = outcome.model
    gain = sorted(model.gain().items(), key=lambda item: -item[1])
    return CARD.format(
        name=recipe.folder.resolve().name, meaning=TARGETS[model.target], mock=MOCK if mock else "", rounds=model.rounds,
        settings=", ".join(f"{key} {value}" for key, value in SETTINGS.items()), source=model.source, cuts="; ".join(cuts) or "nothing",
        gain=", ".join(f"`{name}` ({_unit(name)}) {share:.3f}" for name, share in gain), target=model.target,
        aperture=f"the sphere of {options.aperture[0]} R_hsm", split=split.description, rows=outcome.scatter.rows,
        mean=outcome.scatter.mean, scatter=outcome.scatter.scatter, leaks=" Flattered: the split leaks." if split.leaks else "",
        licence=licence_of(source=model.source, mock=mock, stated=options.licence),
    )  # fmt: skip


def _unit(name: str) -> str:
    return (COLUMNS[name].unit or "1") if name in COLUMNS else "mag"
