"""Masses of galaxies by LightGBM: every row of Chu et al., Table 6, beside the paper's, as JSON.

python benchmarks/galaxy_masses.py [--rows FILE] [--splits 5] [--galaxies 9370] [--figures FOLDER] [--markdown]

On rows of TNG100-1 (read from the reference data) with what a group catalogue holds, and, labelled as mock, on generated galaxies with the
features of the paper's Table 1, seen along three axes. Training and test rows share no friends-of-friends group; scatter is the
standard deviation of log10(predicted / true) on the test rows, mean and spread over several splits. The last part holds the
paper's own split, in which projections of one galaxy stand on both sides, against the split by group.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from supermage.models.catalogue import column_values
from supermage.models.cuts import PAPER_CUTS, PAPER_EXCLUSIONS, apply_cuts
from supermage.models.gbdt import ROUNDS, SETTINGS
from supermage.models.gbdt_table import (
    GROUP_CATALOGUE_SETS,
    PAPER_POWER_LAW_SCATTER,
    PAPER_SETS,
    TABLE_6,
    Outcome,
    TableRow,
    correlation_matrix,
    left_out_in_turn,
    measure,
    scatter_of,
    with_colours,
)
from supermage.models.maps import make_maps
from supermage.models.mock_galaxy import make_galaxy
from supermage.models.mock_population import draw_population
from supermage.models.particle_files import read_particles
from supermage.models.particles import Particles
from supermage.models.power_law import fit_power_law
from supermage.models.splits import PAPER_TREE_SIZES, groups_of, paper_split, split_by_group
from supermage.models.targets_of_table import targets_of_masses
from supermage.models.tng_rows import read_tng_rows
from supermage.plots.correlation import correlation
from supermage.plots.feature_gain import symbol
from supermage.plots.galaxy_maps import galaxy_maps
from supermage.plots.loss_curve import loss_curve
from supermage.plots.prediction import prediction
from supermage.plots.style import PAGE, journal_style, new_figure

FloatArray = NDArray[np.float64]
Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

ROWS = Path(__file__).resolve().parents[2] / "shared/data/galaxies/tng100-1-z0-subhalos.parquet"
GALAXY = "tng100-subhalo-394242.h5"
"""One whole galaxy, beside the rows."""
FRACTIONS = (PAPER_TREE_SIZES[0] / sum(PAPER_TREE_SIZES), PAPER_TREE_SIZES[1] / sum(PAPER_TREE_SIZES))
FOLDS = 5

GOALS = {
    ("default", "log_mstar"): 0.050, ("default", "log_mtot"): 0.095, ("default", "log_mdm"): 0.165, ("default", "log_fstar"): 0.09,
    ("default", "log_fdm"): 0.085, ("default", "log_ml"): 0.05,
    ("default and radius", "log_mtot"): 0.06, ("default and radius", "log_mdm"): 0.095,
}  # fmt: skip
"""Scatter aimed at on the rows of TNG, dex."""

RADIUS_ROWS = tuple(("default and radius", target) for target in ("log_mstar", "log_mtot", "log_mdm", "log_fstar", "log_fdm", "log_ml"))
AXIS_LABELS = {
    "log_mstar": r"$\log_{10}(M_*/M_\odot)$", "log_mtot": r"$\log_{10}(M_\mathrm{tot}/M_\odot)$",
    "log_mdm": r"$\log_{10}(M_\mathrm{DM}/M_\odot)$", "log_fstar": r"$\log_{10}f_*$", "log_fdm": r"$\log_{10}f_\mathrm{DM}$",
    "log_ml": r"$\log_{10}(M_*/L)$ ($M_\odot/L_\odot$)",
}  # fmt: skip
DEFAULT_ROWS = tuple(("default", target) for _, target in RADIUS_ROWS)
COLOUR_ROWS = tuple(("one colour", target) for _, target in RADIUS_ROWS)


class Sample:
    """A catalogue ready for training: columns, targets, groups and splits."""

    def __init__(self, table: Table, source: str, *, splits: int) -> None:
        self.table, self.source = table, source
        self.columns = with_colours({name: column_values(table, name) for name in table.colnames if table[name].dtype.kind in "fiu"})
        self.targets = targets_of_masses(table)
        self.group = groups_of(table)
        by_group = [split_by_group(self.group, FRACTIONS, seed) for seed in range(splits)]
        self.splits: Splits = [(split[0], split[1]) for split in by_group]
        self.folds: Splits = left_out_in_turn(split_by_group(self.group, [1.0 / FOLDS] * FOLDS, 0).parts)


def table_entry(sample: Sample, names: tuple[str, ...], target: str, *, inputs: str, fold: bool) -> tuple[dict[str, Any], list[Outcome]]:
    """One row of the table: scatter on test rows of each split, and, if asked for, of cross-validation over all rows."""
    true = sample.targets[target]
    options: dict[str, Any] = {"target_name": target, "source": sample.source}
    outcomes = measure(sample.columns, names, true, sample.splits, group=sample.group, **options)
    gain = outcomes[0].model.gain()
    entry = {
        "inputs": inputs, "target": target, **spread_of([outcome.scatter.scatter for outcome in outcomes]),
        "mean": float(np.mean([outcome.scatter.mean for outcome in outcomes])),
        "without_target": int(np.count_nonzero(~np.isfinite(true))),
        "gain": {name: round(share, 3) for name, share in sorted(gain.items(), key=lambda item: -item[1])[:5]},
    }  # fmt: skip
    if fold:
        folds = measure(sample.columns, names, true, sample.folds, group=sample.group, **options)
        left_out = np.full(len(true), np.nan)
        for part in folds:
            left_out[part.test] = part.predicted
        entry["cross_validation"] = {**asdict(scatter_of(left_out, true)), "folds": spread_of([part.scatter.scatter for part in folds])}
    return entry, outcomes


def spread_of(scatters: list[float]) -> dict[str, float]:
    """Mean, standard deviation (over splits) and largest."""
    return {"scatter": float(np.mean(scatters)), "spread": float(np.std(scatters)), "largest": float(np.max(scatters))}


def paper_of(inputs: str, target: str) -> TableRow | None:
    """The paper's row of those inputs and that target."""
    return next((row for row in TABLE_6 if (row.inputs, row.target) == (inputs, target)), None)


def power_law_entry(sample: Sample) -> tuple[dict[str, Any], FloatArray, FloatArray]:
    """The power law between luminosity and stellar mass on the same splits; true and predicted of the first test set."""
    magnitude, true = sample.columns["M_r"], sample.targets["log_mstar"]
    found = []
    for train, test in sample.splits:
        law = fit_power_law(magnitude[train], true[train])
        found.append((law, scatter_of(law.predict(magnitude[test]), true[test])))
    test = sample.splits[0][1]
    entry = {"inputs": "power law in luminosity", "target": "log_mstar", **spread_of([scatter.scatter for _, scatter in found]),
             "slope": found[0][0].slope, "paper": {"scatter": PAPER_POWER_LAW_SCATTER}}  # fmt: skip
    return entry, true[test], found[0][0].predict(magnitude[test])


def run_table(
    sample: Sample, sets: dict[str, tuple[str, ...]], wanted: list[tuple[str, str]], *, goals: bool, fold: bool
) -> tuple[list[Any], dict[Any, Any]]:
    """Entries of all wanted (inputs, target), and what the figures need."""
    entries, kept = [], {}
    for inputs, target in wanted:
        entry, outcomes = table_entry(sample, sets[inputs], target, inputs=inputs, fold=fold)
        paper = paper_of(inputs, target)
        if paper is not None:
            entry["paper"] = {"section": paper.section, "mean": paper.paper_mean, "scatter": paper.paper_scatter}
        if goals and (inputs, target) in GOALS:
            entry["goal"] = GOALS[inputs, target]
            entry["reached"] = bool(entry["scatter"] <= GOALS[inputs, target])
        entries.append(entry)
        first = outcomes[0]
        kept[inputs, target] = (sample.targets[target][first.test], first.predicted, first.model)
    entry, true, predicted = power_law_entry(sample)
    kept["power law"] = (true, predicted, None)
    return [*entries, entry], kept


def tng_samples(path: Path, splits: int) -> dict[str, Sample]:
    """The populations that are looked at; the first is the one that the goals are held against."""
    everything = read_tng_rows(path)
    galaxies = read_tng_rows(path, cosmological=True)
    cut, _ = apply_cuts(galaxies, PAPER_CUTS)
    tables = {"galaxies": galaxies, "galaxies within the paper's cuts": cut, "all rows, clumps of discs included": everything}
    return {name: Sample(table, f"TNG100-1, {name}", splits=splits) for name, table in tables.items()}


def leak(sample: Sample, galaxies: int, splits: int) -> dict[str, Any]:
    """The paper's split, whose test galaxies are seen in training along other axes, against the split by group, on the same rows."""
    leaking = [paper_split(galaxies, 3, PAPER_TREE_SIZES, seed) for seed in range(splits)]
    result: dict[str, Any] = {}
    for target in ("log_mstar", "log_mtot", "log_fdm", "log_ml"):
        scatters = {}
        for name, parts, group in (("paper", [(split[0], split[1]) for split in leaking], None), ("by_group", sample.splits, sample.group)):
            true = sample.targets[target]
            outcomes = measure(sample.columns, PAPER_SETS["default"], true, parts, group=group, target_name=target, source=sample.source)
            scatters[name] = spread_of([outcome.scatter.scatter for outcome in outcomes])
        difference = scatters["by_group"]["scatter"] - scatters["paper"]["scatter"]
        error = np.hypot(scatters["by_group"]["spread"], scatters["paper"]["spread"]) / np.sqrt(splits)
        result[target] = {**scatters, "difference": difference, "difference_error": float(error)}
    return result


def mock_sample(galaxies: int, splits: int) -> tuple[Sample, Sample]:
    """Generated galaxies along three axes: all of them, and those that the paper's exclusions leave."""
    table = draw_population(galaxies, 6, projections=3, dust=True)
    kept, _ = apply_cuts(table, PAPER_EXCLUSIONS)
    return Sample(table, "mock galaxies, three axes", splits=splits), Sample(kept, "mock galaxies, three axes", splits=splits)


def draw_all(folder: Path, sample: Sample, sets: dict[str, tuple[str, ...]], kept: dict[Any, Any], *, name: str) -> None:
    """Figures 4, 6, 10, 11 and 12 of the paper for one sample."""
    folder.mkdir(parents=True, exist_ok=True)
    with journal_style():
        both = ("default", "default without magnitude")
        masses = [[(inputs, target) for inputs in both] for target in ("log_mstar", "log_mtot", "log_mdm")]
        ratios = [[("default", target)] for target in ("log_ml", "log_fstar", "log_fdm")]
        for title, grid in {"masses": masses, "ratios": ratios, "power_law": [["power law"]]}.items():
            draw_predictions(folder / f"{name}_{title}.png", grid, kept, title=sample.source)
        figure = new_figure(PAGE, 2.4)
        curves = kept["default", "log_ml"][2].curves
        for axes, (metric, unit) in zip(figure.subplots(1, 2), (("mae", "dex"), ("mse", "dex$^2$")), strict=True):
            label = f"{metric.upper()} of {symbol('log_ml')} ({unit})"
            loss_curve(axes, {part: errors[metric] for part, errors in curves.items()}, label=label)
        figure.suptitle(sample.source)
        figure.savefig(folder / f"{name}_loss.png")
        features, targets = list(sets["default"]), list(sample.targets)
        figure = new_figure(PAGE, 6.3)
        matrix = correlation_matrix({**sample.columns, **sample.targets}, [*features, *targets])
        correlation(figure.subplots(), matrix, [*features, *targets], features=len(features)).set_title(sample.source)
        figure.savefig(folder / f"{name}_correlation.png")


def draw_predictions(path: Path, grid: list[list[Any]], kept: dict[Any, Any], *, title: str) -> None:
    """Panels of predicted against true values, one for each key."""
    rows, columns = len(grid), len(grid[0])
    figure = new_figure(PAGE / 2 * columns + 0.3, PAGE / 2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, keys in enumerate(grid):
        for column, key in enumerate(keys):
            true, predicted, model = kept[key]
            label = AXIS_LABELS["log_mstar" if model is None else model.target]
            prediction(panels[row, column], true, predicted, label=label, gain=None if model is None else model.gain())
    figure.suptitle(title)
    figure.savefig(path)


def draw_maps(path: Path, particles: Particles, title: str) -> None:
    """Figure 1: the maps of one galaxy."""
    maps = make_maps(particles, 2)
    with journal_style():
        figure = new_figure(PAGE, 2.6)
        galaxy_maps(figure.subplots(1, 4), maps.r_image, maps.g_r, maps.mean_velocity, maps.dispersion, occupied=maps.occupied)
        figure.suptitle(title)
        figure.savefig(path)


def markdown(result: dict[str, Any]) -> str:
    """Tables for a page."""
    lines = []
    for name, part in result.items():
        if "table" not in part:
            continue
        lines += [f"\n### {name} ({part['rows']} rows)\n", "| inputs | target | scatter | cross-validated | goal | paper |"]
        lines += ["|---|---|---|---|---|---|"]
        for entry in part["table"]:
            folds = f"{entry['cross_validation']['scatter']:.4f}" if "cross_validation" in entry else ""
            paper = f"{entry['paper']['scatter']:.2f}" if "paper" in entry else ""
            goal = f"{entry['goal']:.3f}" if "goal" in entry else ""
            ours = f"{entry['scatter']:.4f} ± {entry['spread']:.4f}"
            lines.append(f"| {entry['inputs']} | {entry['target']} | {ours} | {folds} | {goal} | {paper} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS, help="Parquet file of TNG100-1 rows; without it only mock galaxies are used")
    parser.add_argument("--splits", type=int, default=5, help="splits by group")
    parser.add_argument("--galaxies", type=int, default=9370, help="mock galaxies, each along three axes; 0 for none")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page instead")
    given = parser.parse_args()
    start = time.perf_counter()
    wanted = [(row.inputs, row.target) for row in TABLE_6]
    result: dict[str, Any] = {"settings": {**SETTINGS, "num_boost_round": ROUNDS}}
    if given.rows.exists():
        for name, sample in tng_samples(given.rows, given.splits).items():
            began = time.perf_counter()
            first = name == "galaxies"
            rows = [*wanted, *RADIUS_ROWS, *COLOUR_ROWS] if first else [*DEFAULT_ROWS, *RADIUS_ROWS]
            entries, kept = run_table(sample, GROUP_CATALOGUE_SETS, rows, goals=True, fold=first)
            result[name] = {"source": sample.source, "rows": len(sample.group), "table": entries, "seconds": time.perf_counter() - began}
            if given.figures and first:
                draw_all(given.figures, sample, GROUP_CATALOGUE_SETS, kept, name="tng")
    if given.figures and (galaxy := given.rows.with_name(GALAXY)).exists():
        draw_maps(given.figures / "tng_maps.png", read_particles(galaxy), "TNG100-1, subhalo 394242 (the file has no ages: one colour)")
    if given.galaxies:
        began = time.perf_counter()
        everything, kept_sample = mock_sample(given.galaxies, given.splits)
        entries, kept = run_table(kept_sample, PAPER_SETS, wanted, goals=False, fold=False)
        result["mock"] = {"source": everything.table.meta["mock"], "rows": len(kept_sample.group), "table": entries,
                          "leak": leak(everything, given.galaxies, given.splits), "seconds": time.perf_counter() - began}  # fmt: skip
        if given.figures:
            draw_all(given.figures, kept_sample, PAPER_SETS, kept, name="mock")
            row = everything.table[int(np.argmin(np.abs(everything.targets["log_mstar"] - 10.5)))]
            draw_maps(given.figures / "mock_maps.png", make_galaxy(row, n_star=100_000, n_gas=20_000, seed=1), "mock galaxy")
    result["seconds"] = {"all": time.perf_counter() - start}
    print(markdown(result) if given.markdown else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
