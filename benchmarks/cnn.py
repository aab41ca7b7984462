"""Rows of Table 4 of Chu et al. trained and measured, beside the paper's numbers, as JSON.

    python benchmarks/cnn.py --list
    python benchmarks/cnn.py --rows r-mstar joint-mtot --galaxies 1000 --work DIR    # on generated galaxies, small preset
    python benchmarks/cnn.py --rows all --maps MAPS --preset paper --work DIR        # on maps of one's own, such as TNG100's
    python benchmarks/cnn.py --recipes DIR --maps MAPS                               # writes a recipe for every row
    python benchmarks/cnn.py --figures FIGURES --work DIR                            # Figures 5 - 9 of these rows, or of --rows
    python benchmarks/cnn.py --seconds --galaxies 100 --work DIR                     # how long maps and an epoch take

Rows that share a network train it once. Each training continues where an earlier one in DIR was interrupted; networks that are there are
measured as they are. On generated galaxies the numbers say what the network can do with them, and nothing about the paper's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import SupermageError
from supermage.models.cnn import CNN, load_cnn
from supermage.models.cnn_data import Inputs, cut_rows, split_rows, usable_rows
from supermage.models.cnn_table import Row, check_columns, early_types, error_of, recipe_of, recipe_text, row_of, rows, summary
from supermage.models.cnn_training import build, learning_rate, read_options, train_cnn
from supermage.models.map_store import MapStore
from supermage.models.mock_maps import MockMaps, make_mock_maps
from supermage.models.power_law import fit_power_law
from supermage.models.stellar_light import SOLAR_MAGNITUDE
from supermage.plots.prediction import prediction
from supermage.plots.style import PAGE, journal_style, new_figure
from supermage.plots.training import draw_losses
from supermage.progress import make_progress
from supermage.recipe import Recipe

FloatArray = NDArray[np.float64]

POWER_LAW = "power law"
FIGURES = {
    "figure_6": (("r+v-mstar",), (POWER_LAW,)),
    "figure_7": (("r+v-mtot",),),
    "figure_8": (("joint-mstar", "joint-mtot"), ("joint-fdm", "joint-fdm-early")),
    "figure_9": (("r+v-ml-2d", "gr+v-ml-2d"),),
}
"""Panels of the paper's figures by the keys of their rows; Figure 5 is the losses of ``r+v-mstar``, every network's are drawn."""

SYMBOLS = {"log_mstar": r"\log_{10}(M_*/M_\odot)", "log_mtot": r"\log_{10}(M_\mathrm{tot}/M_\odot)", "log_ml": r"\log_{10}(M_*/L)"}


@dataclass(frozen=True)
class Panel:
    """True and predicted values of a test part, and what they are called; ``unit`` of their difference."""

    true: FloatArray
    predicted: FloatArray
    label: str
    unit: str = "dex"


def label_of(target: str) -> str:
    """Symbol of a target and where it is taken, such as ``log_mstar_2d_2rhsm``."""
    base = target.removesuffix("_2rhsm").removesuffix("_2d")
    where = f"{'circle' if '_2d' in target else 'sphere'} of {'2 ' if target.endswith('_2rhsm') else ''}$R_\\mathrm{{hsm}}$"
    return f"${SYMBOLS[base]}$, {where}"


def panel_of(row: Row, error: FloatArray, truth: FloatArray) -> Panel:
    """A row's panel from its errors and true logarithms: dark-matter fractions linear, as the paper draws them."""
    if row.prediction == "fdm_of_masses":
        kind = ", early types" if row.early_types else ""
        return Panel(10.0**truth, 10.0 ** (truth + error), rf"$f_\mathrm{{DM}}${kind}", unit="")
    return Panel(truth, truth + error, label_of("log_ml_2d" if row.prediction == "ml_of_mass" else row.prediction))


def power_law_panel(recipe: Recipe, store: MapStore) -> Panel:
    """Stellar mass by a power law of the light in the image, fitted to the training part of the network's own split."""
    parts = parts_of(recipe, store)

    def magnitude(rows: NDArray[np.int64]) -> FloatArray:
        images = (store.read(part, ("r_light",))["r_light"] for part in np.array_split(rows, -(-len(rows) // 256)))
        light = np.concatenate([np.nansum(image, axis=(1, 2), dtype=np.float64) for image in images])
        return np.asarray(SOLAR_MAGNITUDE["r"] - 2.5 * np.log10(light))

    true = store.column("log_mstar")
    law = fit_power_law(magnitude(parts["training"]), true[parts["training"]])
    return Panel(true[parts["test"]], law.predict(magnitude(parts["test"])), label_of("log_mstar"))


def draw(folder: Path, panels: dict[str, Panel], source: str) -> None:
    """The paper's figures of the rows at hand; every other row has one of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = {key for grid in FIGURES.values() for keys in grid for key in keys}
    grids = {name: grid for name, grid in FIGURES.items() if any(key in panels for keys in grid for key in keys)}
    grids |= {f"row_{key}": ((key,),) for key in panels if key not in inside}
    with journal_style():
        for name, grid in grids.items():
            figure = new_figure(PAGE / 2 * len(grid[0]) + 0.3, PAGE / 2 * len(grid))
            for keys, line in zip(grid, figure.subplots(len(grid), len(grid[0]), squeeze=False), strict=True):
                for key, axes in zip(keys, line, strict=True):
                    panel = panels.get(key)
                    if panel is None or not np.isfinite(panel.true + panel.predicted).any():
                        axes.set_axis_off()
                        continue
                    prediction(axes, panel.true, panel.predicted, label=panel.label, unit=panel.unit).set_title(key)
            figure.suptitle(source)
            figure.savefig(folder / f"{name}.png")


def trained(recipe: Recipe) -> CNN:
    """The row's network: loaded where an earlier run has left it, else trained."""
    artefact = recipe.path("artefact")
    if not (artefact / "model.json").is_file():
        train_cnn(recipe, progress=make_progress())
    return load_cnn(artefact)


def parts_of(recipe: Recipe, store: MapStore) -> dict[str, NDArray[np.int64]]:
    """The network's own split."""
    options = read_options(recipe)
    inputs, kept = Inputs(options.inputs, options.image_pixels, options.stretch), cut_rows(store, options.cuts)[0]
    usable, _ = usable_rows(store, inputs, options.targets, kept)
    seed = recipe.train.seed if recipe.train else 1
    return split_rows(store, usable, options.fractions, seed, leaking=options.split == "paper")[0]


def predicted(cnn: CNN, recipe: Recipe, store: MapStore) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Predictions of the test part of the network's own split, and the numbers of its rows."""
    options = read_options(recipe)
    inputs = Inputs(options.inputs, options.image_pixels, options.stretch)
    chosen = parts_of(recipe, store)["test"]
    values = [cnn.estimate(inputs.read(store, part)) for part in np.array_split(chosen, -(-len(chosen) // 256))]
    return {name: np.concatenate([part[name] for part in values]) for name in cnn.targets}, chosen


def measure(row: Row, options: argparse.Namespace, given: dict[str, Any], panels: dict[str, Panel]) -> dict[str, Any]:
    """A row's mean and scatter on the test part, beside the paper's; its panel goes to ``panels``, its losses to the folder of figures."""
    name = next(item.key for item in rows() if item.network == row.network)
    recipe = recipe_of(row, options.maps, options.work / name, seed=options.seed, options=given)
    start = time.perf_counter()
    cnn = trained(recipe)
    spent = time.perf_counter() - start
    with MapStore(options.maps) as store:
        values, chosen = predicted(cnn, recipe, store)
        error = error_of(row, values, lambda column: store.column(column)[chosen])
        truth = store.column({"fdm_of_masses": "log_fdm", "ml_of_mass": "log_ml_2d"}.get(row.prediction, row.prediction))[chosen]
        panels[row.key] = panel_of(row, error, truth)
        if options.figures and row.key == "r+v-mstar":
            panels[POWER_LAW] = power_law_panel(recipe, store)
        if row.early_types:
            error = error[early_types(lambda column: store.column(column)[chosen])]
        about = {"row": row.key, "section": row.section, "inputs": row.inputs, "trained_on": row.targets, "prediction": row.prediction,
                 "early_types": row.early_types, "in_table": row.in_table, "paper": {"mean": row.mean, "sigma": row.sigma},
                 "ours": summary(error), "mock": store.mock, "split": cnn.description["split"], "rows": cnn.description["rows"],
                 "preset": cnn.description["training"]["preset"], "image_pixels": cnn.description["training"]["image_pixels"],
                 "best_epoch": cnn.description["history"]["best_epoch"], "training_s": round(spent, 1)}  # fmt: skip
    if options.figures:
        draw_losses(recipe.path("artefact"), options.figures / f"loss_{name}.png")
    return about


def seconds(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """Processor seconds of this process for a galaxy's maps, and of an epoch of the network with all inputs for 1000 galaxies."""
    import torch

    torch.set_num_threads(1)
    start, folder = time.process_time(), options.work / "timing-maps"
    warm = MockMaps(galaxies=1, image_pixels=given["image_pixels"])
    make_mock_maps(options.work / "timing-warm", warm)
    start = time.process_time()
    make_mock_maps(folder, warm.model_copy(update={"galaxies": options.galaxies}))
    maps = time.process_time() - start
    row = Row("timing", "", ("r_light", "g_r", "mean_velocity", "dispersion"), ("log_mstar", "log_mtot"), "log_mstar", None, None)
    problem = build(recipe_of(row, folder, options.work / "timing", options=given))
    problem._step(0, *problem.batch(0))
    steps = min(8, problem.steps - 1)
    start = time.process_time()
    for step in range(1, 1 + steps):
        problem._step(step, *problem.batch(step))
    of_row = (time.process_time() - start) / (steps * len(problem.batch(0)[1]))
    start = time.process_time()
    problem.standardised(problem.parts["validation"])
    of_validation = (time.process_time() - start) / len(problem.parts["validation"])
    return {"maps_s_per_galaxy": maps / options.galaxies, "training_s_per_1000_rows": 1e3 * of_row,
            "prediction_s_per_1000_rows": 1e3 * of_validation, "epoch_of_1000_galaxies_s": 3e3 * of_row,
            "parameters": problem.parameters.numel(), "threads": 1, "options": given,
            "last_learning_rate": learning_rate(problem.options, problem.options.epochs - 1)}  # fmt: skip


def markdown(measured: list[dict[str, Any]]) -> str:
    """The table for a page."""
    lines = ["| row | section | maps | predicted | ours | paper |", "| --- | --- | --- | --- | --- | --- |"]
    for item in measured:
        ours = f"{item['ours']['mean']:+.3f} +- {item['ours']['sigma']:.3f}"
        paper = "" if item["paper"]["sigma"] is None else f"{item['paper']['mean'] or 0.0:+.2f} +- {item['paper']['sigma']:.2f}"
        what = item["prediction"] + (", early types" if item["early_types"] else "")
        lines.append(f"| {item['row']} | {item['section']} | {' + '.join(item['inputs'])} | {what} | {ours} | {paper} |")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the rows and what the paper got")
    parser.add_argument("--rows", nargs="+", default=[], help="keys of rows, or all")
    parser.add_argument("--figures", type=Path, help="draw losses and predicted against true values to this folder")
    parser.add_argument("--recipes", type=Path, help="write a recipe for every row to this folder")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page instead")
    parser.add_argument("--seconds", action="store_true", help="measure speed")
    parser.add_argument("--maps", type=Path, help="file or folder of maps; generated galaxies without it")
    parser.add_argument("--work", type=Path, default=Path("products/cnn"), help="folder of maps, checkpoints and networks")
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--galaxies", type=int, default=1000, help="generated galaxies, each from three sides")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--split", choices=("group", "paper"), default="group", help="paper: projections apart, which leaks")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Print the numbers."""
    options = parsed()
    if options.figures and not options.rows:
        options.rows = [key for grid in FIGURES.values() for keys in grid for key in keys if key != POWER_LAW]
    if options.list:
        for row in rows():
            sigma, mean = (f"{item:+.2f}" if item is not None else "-" for item in (row.sigma, row.mean))
            inputs, targets = " + ".join(row.inputs), ", ".join(row.targets)
            print(f"{row.key:20} {row.section}  {inputs:46} {targets:20} -> {row.prediction:20} {mean} {sigma}")
        return
    # Of the small images 90, 45 and 18 pixels are the same shares as the paper's 300, 150 and 60.
    given = {"preset": options.preset, "split": options.split, "image_pixels": 300 if options.preset == "paper" else 90}
    if options.epochs:
        given["epochs"] = options.epochs
    if options.seconds:
        print(json.dumps(seconds(options, given), indent=1))
        return
    if options.maps is None:
        options.maps = options.work / f"maps-{options.galaxies}-{given['image_pixels']}"
        if options.rows:
            request = MockMaps(galaxies=options.galaxies, image_pixels=given["image_pixels"])
            make_mock_maps(options.maps, request, progress=make_progress(sys.stderr))
    if options.recipes:
        for row in rows():
            path = options.recipes / row.key / "recipe.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(recipe_text(recipe_of(row, options.maps, path.parent, seed=options.seed, options=given)), encoding="utf-8")
    chosen = rows() if options.rows == ["all"] else [row_of(key) for key in options.rows]
    if chosen:
        try:
            with MapStore(options.maps) as store:
                check_columns(chosen, store)
        except SupermageError as error:
            sys.exit(str(error))
    panels: dict[str, Panel] = {}
    measured = [measure(row, options, given, panels) for row in chosen]
    if options.figures:
        draw(options.figures, panels, "generated galaxies" if any(item["mock"] for item in measured) else str(options.maps))
    print(markdown(measured) if options.markdown else json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
