"""A population study: a catalogue in, masses with intervals out, then the mass function and the relation of total and stellar mass.

    python docs/population_study.py CATALOGUE [--model tng-gbdt] [--volume 1e6] [--figure masses.png]
    python docs/population_study.py --mock 5000 --figure masses.png       # generated galaxies: to see how it goes, not a result

Errors are propagated by draws: every draw of the masses of all galaxies is a catalogue of its own, binned and fitted like the others; a
Poisson bootstrap over the galaxies adds the noise of the sample. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

import supermage
from supermage.models.catalogue import read_catalogue
from supermage.models.mass_prior import MassPrior
from supermage.models.mock_population import draw_population

EDGES = np.arange(9.5, 12.01, 0.25)
"""Bins of log10 M*, dex."""


def draws_of(prior: MassPrior, number: int, seed: int) -> NDArray[np.float64]:
    """Draws of (log M*, log Mtot) for every galaxy, shape (draw, galaxy, 2)."""
    torch.manual_seed(seed)
    return prior.sample((number,)).numpy()


def mass_function(draws: NDArray[np.float64], volume: float, rng: np.random.Generator) -> dict[str, list[float]]:
    """Number density per dex of stellar mass, Mpc^-3: median and 68 % interval over draws and Poisson bootstraps."""
    counts = []
    for masses in draws[..., 0]:
        weight = rng.poisson(1.0, len(masses))
        counts.append(np.histogram(masses, bins=EDGES, weights=weight)[0] / np.diff(EDGES) / volume)
    low, middle, high = np.quantile(counts, [0.16, 0.5, 0.84], axis=0)
    centre = 0.5 * (EDGES[1:] + EDGES[:-1])
    return {"log_mstar": centre.tolist(), "median": middle.tolist(), "lower": low.tolist(), "upper": high.tolist()}


def relation(draws: NDArray[np.float64], rng: np.random.Generator, pivot: float = 10.5) -> dict[str, dict[str, float]]:
    """``log Mtot = intercept + slope (log M* - pivot)`` and the scatter about it, each with its error."""
    found = []
    for masses in draws:
        picked = rng.integers(0, len(masses), len(masses))
        x, y = masses[picked, 0] - pivot, masses[picked, 1]
        slope, intercept = np.polyfit(x, y, 1)
        found.append((intercept, slope, np.std(y - intercept - slope * x)))
    values = np.array(found)
    return {name: {"value": float(values[:, k].mean()), "error": float(values[:, k].std())}
            for k, name in enumerate(("intercept", "slope", "scatter"))}


def study(table: Table, *, model: str, volume: float, draws: int = 200, seed: int = 1) -> dict[str, Any]:
    """Predict, keep the rows that can be predicted and lie inside the training set, and measure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # counted below
        prior = supermage.load_model(model).predict(table)
    score = prior.out_of_distribution.numpy()
    kept = np.isfinite(score) & (score <= 1.0)
    rng = np.random.default_rng(seed)
    values = draws_of(prior[torch.from_numpy(kept)], draws, seed)
    return {"made_with": str(table.meta.get("mock", "")) or "the catalogue's galaxies", "model": prior.source,
            "galaxies": len(table), "not_predicted": int((~np.isfinite(score)).sum()), "outside_the_training_set": int((score > 1.0).sum()),
            "mass_function": mass_function(values, volume, rng), "mtot_of_mstar": relation(values, rng)}


def draw(found: dict[str, Any], path: Path) -> None:
    """The mass function with its errors."""
    import matplotlib.pyplot as plt

    function = {name: np.array(values) for name, values in found["mass_function"].items()}
    figure, axes = plt.subplots(figsize=(5.0, 3.6), layout="constrained")
    seen = function["median"] > 0
    error = np.abs(np.stack([function["median"] - function["lower"], function["upper"] - function["median"]]))[:, seen]
    axes.errorbar(function["log_mstar"][seen], function["median"][seen], yerr=error, fmt="o", capsize=2)
    axes.set(yscale="log", xlabel=r"$\log_{10} M_*(<R_{\rm hsm})/{\rm M}_\odot$", ylabel=r"${\rm d}n/{\rm d}\log M_*$ (Mpc$^{-3}$)")
    if found["made_with"] != "the catalogue's galaxies":
        axes.set_title("generated galaxies", fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Read or generate a catalogue, study it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", nargs="?", type=Path)
    parser.add_argument("--model", default="tng-gbdt")
    parser.add_argument("--mock", type=int, default=0, metavar="N", help="generate N galaxies in place of a catalogue")
    parser.add_argument("--volume", type=float, default=1e6, help="Mpc^3 that the catalogue is complete in")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    if (given.catalogue is None) == (given.mock == 0):
        parser.error("give a catalogue, or --mock N")
    table = draw_population(given.mock, 1) if given.mock else read_catalogue(given.catalogue)
    found = study(table, model=given.model, volume=given.volume)
    if given.figure is not None:
        draw(found, given.figure)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
