"""Card of a trained ``galaxy-cnn``, in Markdown, from its own description and that of the density beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supermage.models.cnn import PRIOR_FOLDER
from supermage.models.cnn_data import PARTS
from supermage.models.columns import TARGETS
from supermage.models.map_store import MAPS
from supermage.models.mass_card import calibration_table, callable_name, licence_of, limits_of
from supermage.models.nuker_emulator import DESCRIPTION_FILE
from supermage.models.training import write_atomically

MOCK = """
**Trained on generated galaxies.** A generator made them from scaling relations; no simulation and no observation is in these weights.
They are for running and testing everything offline. Masses predicted with them say nothing about real galaxies.
"""

HEAD = """# {title}: masses of galaxies from images and kinematic maps
{mock}
A branch of ResNet-18 ({width} channels in its first stage) for each map, joined in one fully connected layer, after Chu et al. (sec. 3.1).

- Version {version}, weights sha256 `{sha256}`, seed {seed}. Trained by `supermage train`; the options stand in `model.json`.
- Losses of every epoch: in `model.json` too, and drawn by that command in `products/loss.png`.
- Galaxies: {source}.
- Maps: {maps}, within 3 half-mass radii of the stars. {stretch}
- Scaled with the training set's constants, kept beside the weights; an image's own would erase its luminosity.
- Predicts, within the aperture in the name (none: the sphere of the half-mass radius): {targets}.
- Loss: mean squared error of the logarithms, standardised over the training set. Kept: the weights of epoch {best_epoch} of {epochs},
  whose loss on the validation part was the lowest.
- Split: {split}
- Left out: {left_out}.

| part | target | rows | mean (dex) | 1 sigma (dex) |
|---|---|---|---|---|
"""

TAIL = """
Predicted minus true. The training and validation parts have been seen: only the test part tells what the network does with others, and
the calibration part is kept for what is conditioned on its predictions.
"""

LIMITS = """
## Limits

{galaxies}- Maps of other pixels, distances, noise or dust are outside what it knows. It does not say so itself: its predictions are points,
  and intervals come from the density that is conditioned on them.

## Licence

{licence}"""

DENSITY = """
## Joint density of masses

`supermage.load_model("{call}").predict(maps)` is a `MassPrior` of log M* and log Mtot: a density, in `{folder}/`, trained and
recalibrated on the network's predictions for galaxies of the calibration and test parts, divided anew by group; the tables are of groups
that neither the network, nor the choice of its best epoch, nor the density nor its recalibration has seen. It
widens to the population's for predictions, light and colours unlike those. Projections of one galaxy are rows of their own in these tables
and not independent: the p-values come out too small.
"""

WIDENED = """
{count} of the {rows} rows of the test part ({share:.1f} %) lie outside the density's training set and are widened: their medians are the
population's or on the way there, and what they miss by is in the scatter below.{inside}
"""


def write_cnn_card(path: Path, artefact: Path, *, tables: Mapping[str, Any] | None = None) -> None:
    """Write the card of an artefact.

    Parameters
    ----------
    path
        The card.
    artefact
        Folder with ``model.json``.
    tables
        Calibration tables of the density on its predictions, by title; by default those of the density in the artefact, if there is one.
    """
    about: dict[str, Any] = json.loads((artefact / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    options, scaling = about["training"], about["scaling"]
    title, mock = path.parent.resolve().name, bool(about["mock"])
    path_of_density = artefact / PRIOR_FOLDER / DESCRIPTION_FILE
    density: dict[str, Any] = json.loads(path_of_density.read_text(encoding="utf-8")) if path_of_density.is_file() else {}
    tables = density.get("scores", {}) if tables is None else tables
    left_out = [*about.get("cuts", []), *(f"{count} rows ({reason})" for reason, count in about["left_out"].items())]
    sizes = {name: f"{scaling[name]['pixels']} x {scaling[name]['pixels']}" for name in about["inputs"]}
    names = [f"{MAPS[name].description} ({MAPS[name].unit}, {size})" for name, size in sizes.items()]
    log = [f"log10(1 + value / {item['soft']:.3g}) of {MAPS[name].description}, then linear." for name, item in scaling.items()
           if item["stretch"] == "log"]  # fmt: skip
    split = about["split"] + (": the scatter below is too small." if about["leaking_split"] else ".")
    text = HEAD.format(
        title=title, mock=MOCK if mock else "", width=about["width"], version=about["version"], sha256=about["sha256"],
        seed=about["seed"], source=about["source"], maps="; ".join(names), stretch=" ".join(log) or "Linear.",
        targets="; ".join(f"`{name}` ({_meaning(name)})" for name in about["targets"]), best_epoch=about["history"]["best_epoch"],
        epochs=options["epochs"], split=split,
        left_out="; ".join(left_out) or "nothing",
    )  # fmt: skip
    for part in (part for part in PARTS if part in about["scatter"]):
        for name in about["targets"]:
            entry = about["scatter"][part][name]
            text += f"| {part} | `{name}` | {entry['rows']} | {entry['mean']:+.3f} | {entry['sigma']:.3f} |\n"
    text += TAIL
    for number, (heading, table) in enumerate(tables.items()):
        text += "" if number else DENSITY.format(call=callable_name(title), folder=PRIOR_FOLDER) + _widened(density)
        text += f"\n### On the {heading}\n\n{calibration_table(table)}"
    stated = str(about.get("maps_provenance", {}).get("licence", ""))
    licence = licence_of(source=about["source"], mock=mock, stated=stated)
    write_atomically(path, (text + LIMITS.format(galaxies=limits_of(mock=mock), licence=licence)).encode())


def _widened(density: Mapping[str, Any]) -> str:
    """How many rows the density does not know, and what its scatter is without them, where that was measured."""
    if not density.get("test_rows_widened"):
        return ""
    known = [f"{value:.4f} dex (`{name}`)" for name, value in density.get("test_scatter_inside", {}).items()]
    inside = f"\nWithout them the scatter is {' and '.join(known)}." if known else ""
    count, rows = density["test_rows_widened"], density["rows"]["test"]
    return WIDENED.format(count=count, rows=rows, share=100.0 * count / rows, inside=inside)


def _meaning(name: str) -> str:
    return TARGETS[name.removesuffix("_2rhsm").removesuffix("_2d")]
