"""Speed of the generator of mock galaxies, and its population beside the TNG100 rows, as JSON: ``python benchmarks/mock_galaxies.py``.

Galaxies a second as rows of a catalogue and as particles; medians and scatters (half of the central 68 %) of relations with stellar mass,
mock and TNG, in bins of log10 M*; the same in one figure with ``--figure FILE``. The rows are those of the reference data that are of
cosmological origin and have dark matter; the mock galaxies are drawn from `supermage.models.mock_relations.GROUPS`, for the rows are of the
most massive groups of the box. ``outside_training_set`` is the share with a score above 1 of `tng-gbdt`, trained on half of the rows:
features may each look right and be a pair that no row has.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from supermage.models.mock_galaxy import make_galaxy
from supermage.models.mock_population import draw_population
from supermage.models.mock_relations import GROUPS
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.registry import load_model
from supermage.models.tng_rows import read_tng_rows
from supermage.plots.population import LABELS, MASS_EDGES, binned, distribution, quantities, relation
from supermage.plots.style import PAGE, journal_style, new_figure

REFERENCE = Path(__file__).resolve().parents[2] / "shared/data/galaxies/tng100-1-z0-subhalos.parquet"
SHOWN = ("log_size", "log_total", "dark_share", "colour", "log_light", "log_dispersion", "log_spin", "disc_share", "log_black_hole")
NAMES = ("mock galaxies", "TNG100-1 rows")


def seconds_of(work: Callable[[], Any]) -> dict[str, float]:
    """Processor and wall-clock seconds of a piece of work."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}


def speed(n: int) -> dict[str, Any]:
    """Rows and particles a second."""
    table = draw_population(20, 2, relations=GROUPS)
    for row in table[:2]:
        make_galaxy(row, n_star=1000)
    rows = seconds_of(lambda: draw_population(n, 1, relations=GROUPS))
    numbers = {"n_star": 60_000, "n_dm": 30_000, "n_gas": 10_000}
    galaxies = seconds_of(lambda: [make_galaxy(row, **numbers) for row in table])
    return {
        "catalogue": {"galaxies": n, **rows, "galaxies_per_processor_second": n / rows["processor"]},
        "particles": {**numbers, "galaxies": len(table), **galaxies, "galaxies_per_processor_second": len(table) / galaxies["processor"]},
    }


def compare(mock: Table, rows: Table) -> dict[str, Any]:
    """Medians and scatters of each relation by bin, and the largest difference over bins with 30 galaxies or more."""
    ours, theirs = quantities(mock), quantities(rows)
    found: dict[str, Any] = {"bins": MASS_EDGES.tolist()}
    for name in SHOWN:
        mine, other = (binned(part["log_stars"], part[name], MASS_EDGES) for part in (ours, theirs))
        is_full = (mine.number >= 30) & (other.number >= 30)
        scatter = [0.5 * (part.high - part.low) for part in (mine, other)]
        found[name] = {
            "median_mock": mine.median.round(3).tolist(), "median_tng": other.median.round(3).tolist(),
            "scatter_mock": scatter[0].round(3).tolist(), "scatter_tng": scatter[1].round(3).tolist(),
            "largest_difference_of_medians": float(np.abs(mine.median - other.median)[is_full].max()),
            "scatter_ratio_range": [float(f((scatter[0] / scatter[1])[is_full])) for f in (np.min, np.max)],
        }  # fmt: skip
    return found


def outside(table: Table) -> float:
    """Share of galaxies that the shipped estimator calls unlike its training set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        return float(np.mean(load_model("tng-gbdt").predict(table).out_of_distribution.numpy() > 1.0))


def draw(mock: Table, rows: Table, path: Path) -> None:
    """One figure of all relations and two distributions."""
    ours, theirs = quantities(mock), quantities(rows)
    with journal_style():
        figure = new_figure(PAGE, 9.0)
        grid = figure.subplots(4, 3).ravel()
        for axes, name in zip(grid, SHOWN, strict=False):
            pairs = [(part["log_stars"], part[name]) for part in (ours, theirs)]
            relation(axes, *pairs, names=NAMES, labels=(LABELS["log_stars"], LABELS[name]))
        for axes, low in zip(grid[len(SHOWN) :], (9.0, 9.7, 10.5), strict=True):
            colours = [part["colour"][(part["log_stars"] > low) & (part["log_stars"] < low + 0.7)] for part in (ours, theirs)]
            distribution(axes, *colours, names=NAMES, label=f"$g-r$, $\\log_{{10}} M_*$ {low:g} to {low + 0.7:g}")
        grid[0].legend(loc="upper left")
        figure.suptitle("Mock galaxies of supermage's generator beside rows of TNG100-1 (Nelson et al. 2019)")
        figure.savefig(path, dpi=200)


def main() -> None:
    """Print speeds and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=100_000, help="rows to draw for the speed")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="the TNG rows")
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    arguments = parser.parse_args()
    figures: dict[str, Any] = speed(arguments.galaxies)
    if arguments.reference.is_file():
        rows = read_tng_rows(arguments.reference, cosmological=True)
        rows = rows[np.asarray(rows["m_dm_2rhsm"]) > 0]
        mock = draw_population(len(rows), 3, relations=GROUPS)
        figures["comparison"] = compare(mock, rows)
        default, dusty = (draw_population(4000, 3, dust=dust) for dust in (False, True))
        parts = {"TNG100-1 rows": rows, "groups": mock, "default": default, "default, dust": dusty}
        figures["outside_training_set"] = {name: outside(table) for name, table in parts.items()}
        if arguments.figure:
            draw(mock, rows, arguments.figure)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
