"""A population study: a catalogue in, masses with intervals out, then the mass function and the relation of total and stellar mass.

    python docs/population_study.py CATALOGUE [--column M_r=rmag] [--unit M_r=mag] [--model tng-gbdt] [--volume 1e6] [--figure masses.png]
    python docs/population_study.py --mock 5000 --figure masses.png       # generated galaxies: to see how it goes, not a result

Errors are propagated by draws: every draw of the masses of all galaxies is a catalogue of its own, binned and fitted like the others; a
Poisson bootstrap over the galaxies adds the noise of the sample. Prints JSON.

No galaxy of the volume is lost. Those unlike the training set (score above 1) stay, with densities that are widened to the training
population's on purpose. Those that cannot be predicted (no magnitude) are taken to be like the others: every galaxy that can be counts for
`weight` of them, which is wrong where faint galaxies are those without numbers; more than half are refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

import supermage
from supermage.errors import DataError, DomainError, SupermageError
from supermage.models.catalogue import read_catalogue
from supermage.models.mass_prior import MassPrior
from supermage.models.mock_population import MOCK, draw_population

EDGES = np.arange(9.5, 12.01, 0.25)
"""Bins of log10 M*, dex."""


def draws_of(prior: MassPrior, number: int, seed: int) -> NDArray[np.float64]:
    """Draws of (log M*, log Mtot) for every galaxy, shape (draw, galaxy, 2)."""
    torch.manual_seed(seed)
    return prior.sample((number,)).numpy()


def mass_function(draws: NDArray[np.float64], volume: float, rng: np.random.Generator, weight: float = 1.0) -> dict[str, list[Any]]:
    """Number density per dex of stellar mass, Mpc^-3: median and 68 % interval over draws and Poisson bootstraps.

    Every galaxy counts for ``weight`` of them. A bin that no draw has a galaxy in holds None: such draws tell no error.
    """
    counts = []
    for masses in draws[..., 0]:
        times = rng.poisson(1.0, len(masses))
        counts.append(weight * np.histogram(masses, bins=EDGES, weights=times)[0] / np.diff(EDGES) / volume)
    low, middle, high = np.quantile(counts, [0.16, 0.5, 0.84], axis=0)
    centre = 0.5 * (EDGES[1:] + EDGES[:-1])
    seen = np.histogram(draws[..., 0], bins=EDGES)[0] > 0
    found = {name: np.where(seen, value, None).tolist() for name, value in (("median", middle), ("lower", low), ("upper", high))}
    return {"log_mstar": centre.tolist(), **found}


LEAST = 3
"""Galaxies for a line and the scatter about it."""


def relation(draws: NDArray[np.float64], rng: np.random.Generator, pivot: float = 10.5) -> dict[str, dict[str, float]]:
    """``log Mtot = intercept + slope (log M* - pivot)`` and the scatter about it, each with its error."""
    found = []
    for masses in draws:
        picked = rng.integers(0, len(masses), len(masses))
        while len(np.unique(picked)) < LEAST:  # through fewer galaxies a line has no scatter
            picked = rng.integers(0, len(masses), len(masses))
        x, y = masses[picked, 0] - pivot, masses[picked, 1]
        slope, intercept = np.polyfit(x, y, 1)
        found.append((intercept, slope, np.std(y - intercept - slope * x)))
    values = np.array(found)
    return {name: {"value": float(values[:, k].mean()), "error": float(values[:, k].std())}
            for k, name in enumerate(("intercept", "slope", "scatter"))}


def mock_note(table: Table) -> str:
    """What the table says of generated galaxies, in ``meta`` or by columns ``mock_*``, which outlive formats without meta; else empty."""
    said = [str(value) for name, value in table.meta.items() if name.lower() == "mock" and value]
    return said[0] if said else MOCK if any(name.lower().startswith("mock_") for name in table.colnames) else ""


def study(table: Table, *, model: str, volume: float, draws: int = 200, seed: int = 1) -> dict[str, Any]:
    """Predict and measure, with every row that can be predicted.

    Raises
    ------
    DataError
        If there is no galaxy, more than half of them cannot be predicted, or fewer than 3 can.
    DomainError
        If the volume is not positive.
    """
    if not volume > 0.0:
        raise DomainError(f"a volume must be positive, Mpc^3, got {volume:g}")
    if not len(table):
        raise DataError("a study needs at least one galaxy, got none")
    estimator = supermage.load_model(model)
    if not hasattr(estimator, "reasons"):
        raise DataError(f"a study needs a model of catalogues, such as tng-gbdt, got {model}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # counted below
        prior = estimator.predict(table)
    score = prior.out_of_distribution.numpy()
    kept = np.isfinite(score)
    missing = int((~kept).sum())
    if 2 * missing > len(table):
        why = next(text for text in estimator.reasons(table) if text)
        raise DataError(f"a study needs predictions of half of the galaxies or more, got none for {missing} of {len(table)} ({why})")
    if len(table) - missing < LEAST:
        raise DataError(f"a relation needs at least {LEAST} galaxies with predictions, got {len(table) - missing}")
    rng, weight = np.random.default_rng(seed), len(table) / int(kept.sum())
    values = draws_of(prior[torch.from_numpy(kept)], draws, seed)
    note = mock_note(table)
    return {"made_with": note or "the catalogue's galaxies", "is_mock": bool(note), "model": prior.source, "galaxies": len(table),
            "not_predicted": missing, "weight": weight, "outside_the_training_set": int((score > 1.0).sum()),
            "mass_function": mass_function(values, volume, rng, weight), "mtot_of_mstar": relation(values, rng)}  # fmt: skip


def draw(found: dict[str, Any], path: Path) -> None:
    """The mass function with its errors."""
    import matplotlib.pyplot as plt

    function = {name: np.array(values, dtype=np.float64) for name, values in found["mass_function"].items()}  # None: NaN
    figure, axes = plt.subplots(figsize=(5.0, 3.6), layout="constrained")
    seen = function["median"] > 0.0
    error = np.abs(np.stack([function["median"] - function["lower"], function["upper"] - function["median"]]))[:, seen]
    axes.errorbar(function["log_mstar"][seen], function["median"][seen], yerr=error, fmt="o", capsize=2)
    axes.set(yscale="log", xlabel=r"$\log_{10} M_*(<R_{\rm hsm})/{\rm M}_\odot$", ylabel=r"${\rm d}n/{\rm d}\log M_*$ (Mpc$^{-3}$)")
    if found["is_mock"]:
        axes.set_title("generated galaxies", fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def check_figure(path: Path) -> None:
    """Refuse, before any work, a figure that cannot be written.

    Raises
    ------
    DataError
        If its folder is missing or not writable, or its ending is of no kind that is drawn.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise DataError(f"a figure must end in one of {', '.join(f'.{kind}' for kind in sorted(kinds))}, got '{path.name}'")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"a figure must go to a file in a folder that is there and can be written to, got {path}")


def pair(word: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``."""
    name, _, value = word.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got '{word}'")
    return name, value


def fail(message: str) -> NoReturn:
    """End with one line on standard error."""
    print(f"population_study: {message}", file=sys.stderr)
    raise SystemExit(1)


def main(words: list[str] | None = None) -> None:
    """Read or generate a catalogue, study it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", nargs="?", type=Path)
    parser.add_argument("--model", default="tng-gbdt")
    parser.add_argument("--column", type=pair, action="append", default=[], metavar="NAME=THEIRS", help="a column's name in the catalogue")
    parser.add_argument("--unit", type=pair, action="append", default=[], metavar="NAME=UNIT", help="a unit that the catalogue lacks")
    parser.add_argument("--mock", type=int, metavar="N", help="generate N galaxies in place of a catalogue")
    parser.add_argument("--volume", type=float, default=1e6, help="Mpc^3 that the catalogue is complete in")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args(words)
    if (given.catalogue is None) == (given.mock is None):
        parser.error("give a catalogue, or --mock N")
    try:
        if given.figure is not None:
            check_figure(given.figure)
        if given.catalogue is None:
            table = draw_population(given.mock, 1)
        else:
            table = read_catalogue(given.catalogue, columns=dict(given.column), units=dict(given.unit))
        found = study(table, model=given.model, volume=given.volume)
    except SupermageError as error:
        fail(str(error))
    print(json.dumps(found, indent=1), flush=True)
    if given.figure is not None:
        try:
            draw(found, given.figure)
        except OSError as error:
            fail(f"{given.figure}: a figure must have room on the disk, got: {error.strerror or error}")


if __name__ == "__main__":
    main()
