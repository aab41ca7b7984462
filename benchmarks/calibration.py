"""Are the intervals honest: coverage and ranks of every likelihood on mocks whose truth is drawn from the prior; prints JSON.

    python benchmarks/calibration.py gridded [--trials 1600] [--output calibration-gridded.jsonl]
    python benchmarks/calibration.py chain [--trials 200] [--output calibration-chain.jsonl]

`gridded` draws visibilities cell by cell (1 to 500 a cell, channels correlated by a Hanning window, system temperatures that the weights
know, and in half of the cases cells whose noise no weight knows), grids them, measures their noise and fits three amplitudes of a linear
model. `chain` makes measurement sets with `supermage simulate`, reduces them with `supermage reduce`, and fits flux, centre and systemic
velocity of the gas disc, all else held at the truth. Posteriors are exact up to importance sampling; no chain is drawn.

Every trial is a line of the output file and depends on its number alone: the command goes on where it was stopped.

A likelihood passes where the shares of central 68 and 95 % intervals that hold the truth lie inside the 99 % binomial band: each right one
fails one band in a hundred by chance, and the p-value of its ranks being uniform falls below 0.01 as often. Bands are counted over trials,
one parameter each, since a trial's parameters share its noise: the parameter is chosen in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.data_reduction.mock_cells import CellMock
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.inference.calibration import binomial_band, coverage, linear_ranks, nearly_linear_ranks, uniformity, z_spread
from supermage.inference.likelihood import DENSITIES, VisibilityNoise
from supermage.inference.model import build_model
from supermage.progress import make_progress
from supermage.recipe import Recipe, load_recipe

HERE = Path(__file__).parents[1]
CASES: dict[str, CellMock] = {
    **{f"{n} a cell": CellMock(visibilities=n, cells=30 if n < 500 else 12) for n in (1, 2, 5, 20, 100, 500)},
    **{f"{n} a cell, noise that no weight knows": CellMock(visibilities=n, cells=30 if n < 500 else 12, unknown=0.5)
       for n in (1, 2, 5, 20, 100, 500)},
    "5 a cell, averaging 2": CellMock(averaging=2),
    **{f"5 a cell, {n} channels": CellMock(channels=n) for n in (6, 8)},
    **{f"{n} a cell, one hand, 4 channels": CellMock(visibilities=n, hands=1, channels=4) for n in (2, 5, 50)},
}
MANY = 16
"""Channels from which on the white floor under their correlation costs next to nothing; fewer are summed up apart."""
FREE = {"Flux": 0.3, "x": 0.08, "y": 0.08, "systemic_velocity": 12.0}
"""Standard deviations of the priors of `chain` about the demo's truth: about five times what the data leave."""

Trial = Callable[[int], dict[str, list[float]]]


def gridded_trial(mock: CellMock, number: int) -> dict[str, list[float]]:
    """Ranks of three amplitudes under each likelihood: a line, its slope, and a narrower line, each on its own sky."""
    rng = np.random.default_rng([number, mock.visibilities, mock.hands, mock.averaging, int(100 * mock.unknown)])
    x = np.linspace(-1.0, 1.0, mock.channels)
    broad, narrow = np.exp(-(x**2) / (2 * 0.3**2)), np.exp(-((x - 0.2) ** 2) / (2 * 0.2**2))
    phase = np.exp(1j * rng.uniform(0.0, 2.0 * np.pi, (3, mock.cells)))
    templates = np.stack([profile[:, None] * one for profile, one in zip((broad, x * broad, narrow), phase)])
    noise = np.sqrt(mock.scale / (mock.visibilities * mock.hands))
    prior = 5.0 * noise / np.sqrt(np.sum(np.abs(templates) ** 2, axis=(1, 2)))
    truth = prior * rng.standard_normal(3)
    data = mock.reduce(rng, np.tensordot(truth, templates, 1))
    shapes = torch.from_numpy(templates[:, None])
    return {name: linear_ranks(VisibilityNoise(data, likelihood=name, dtype=torch.float64), shapes, truth, prior, rng).below.tolist()
            for name in DENSITIES}


def chain_trial(number: int) -> dict[str, list[float]]:
    """Ranks of flux, centre and systemic velocity under each likelihood, from measurement set to posterior."""
    rng = np.random.default_rng(number)
    demo = load_recipe(HERE / "data_reduction/mock-ngc4697/recipe.toml")
    assert demo.simulate is not None and demo.reduce is not None and demo.galaxy is not None
    centre = {name: demo.simulate.truth[name] for name in FREE}
    theta = {name: centre[name] + FREE[name] * float(rng.standard_normal()) for name in FREE}
    with tempfile.TemporaryDirectory() as folder:
        table = {
            "folder": folder, "galaxy": demo.galaxy.model_dump(),
            "simulate": {**demo.simulate.model_dump(), "output": "mock.ms", "minutes": 0.5, "noise": 6e-4, "channels": 32,
                         "channel_width": 31.25e6, "flagged_edge": 2, "seed": number + 1,
                         "truth": {**demo.simulate.truth, **theta}},
            "reduce": {**demo.reduce.model_dump(), "measurement_set": "mock.ms", "output": "visibilities.nc"},
            "fit": {"visibilities": "visibilities.nc", "output": "posterior.nc", "priors": {
                **{name: {"fixed": value} for name, value in demo.simulate.truth.items() if name not in FREE},
                "x": {"lower": -2.0, "upper": 2.0}, "y": {"lower": -2.0, "upper": 2.0}}}}  # fmt: skip
        recipe = Recipe.model_validate(table)
        simulate(recipe)
        data = reduce(recipe)
    ranks = {}
    for name in DENSITIES:
        fit = build_model(_with_likelihood(recipe, name), data)
        fixed = {key: torch.tensor(value, dtype=torch.float64) for key, value in fit.priors.fixed.items()}

        def residual(point: torch.Tensor, fit: Any = fit, fixed: Any = fixed) -> torch.Tensor:
            return fit.noise.residual(fit.galaxy_model.visibilities({**fixed, **dict(zip(FREE, point.unbind()))}))

        ranks[name] = nearly_linear_ranks(
            residual, fit.noise, np.array(list(theta.values())), np.array(list(centre.values())), np.array(list(FREE.values())), rng
        ).below.tolist()
    return ranks


def _with_likelihood(recipe: Recipe, name: str) -> Recipe:
    assert recipe.fit is not None
    section = recipe.fit.model_copy(update={"model": recipe.fit.model.model_copy(update={"likelihood": name})})
    return recipe.model_copy(update={"fit": section})


def run(case: str, trial: Trial, trials: int, store: Path) -> list[dict[str, list[float]]]:
    """Every trial of a case, those in the file read, the others run and added to it."""
    done: dict[int, dict[str, list[float]]] = {}
    if store.exists():
        for line in store.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line at which the last run was killed
                continue
            if entry["case"] == case:
                done[entry["number"]] = entry["ranks"]
    progress = make_progress()
    progress.start(case, trials)
    with store.open("a", encoding="utf-8") as file:
        for number in range(trials):
            if number not in done:
                done[number] = trial(number)
                file.write("\n" + json.dumps({"case": case, "number": number, "ranks": done[number]}))
                file.flush()
            progress.advance()
    progress.done("")
    return [done[number] for number in range(trials)]


def judge(ranks: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Coverage, bands, spread and uniformity of each likelihood."""
    bands = {level: binomial_band(len(ranks), level) for level in (0.68, 0.95)}
    edges = {str(level): [round(edge, 3) for edge in band] for level, band in bands.items()}
    result: dict[str, Any] = {"trials": len(ranks), "bands": edges}
    for name in DENSITIES:
        below: NDArray[np.float64] = np.array([one[name][number % len(one[name])] for number, one in enumerate(ranks)])
        shares = {level: coverage(below, level) for level in bands}
        result[name] = {
            **{f"{level:.0%}": round(share, 3) for level, share in shares.items()}, **_spread(np.array([one[name] for one in ranks])),
            "uniform_p": float(f"{uniformity(below):.2g}"),
            "inside_bands": all(low <= shares[level] <= high for level, (low, high) in bands.items()),
        }  # fmt: skip
    return result


def _spread(below: NDArray[np.float64]) -> dict[str, list[float]]:
    """Rms z of all parameters of all trials, 1 where errors are right, and its standard error: parameters of a trial count as one."""
    square = np.array([z_spread(one) ** 2 for one in below])
    rms = float(np.sqrt(square.mean()))
    return {"rms_z": [round(rms, 3), round(float(square.std() / np.sqrt(len(square)) / 2.0 / rms), 3)]}


def main() -> None:
    """Run, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("gridded", "chain"))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = options.output or Path(f"calibration-{options.part}.jsonl")
    trials = options.trials or (1600 if options.part == "gridded" else 200)
    if options.part == "chain":
        print(json.dumps({"chain": judge(run("chain", chain_trial, trials, store))}, indent=1))
        return
    found = {case: run(case, lambda number, mock=mock: gridded_trial(mock, number), trials, store) for case, mock in CASES.items()}
    whole = [one for case, ranks in found.items() if CASES[case].channels >= MANY for one in ranks]
    few = [one for case, ranks in found.items() if CASES[case].channels < MANY for one in ranks]
    print(json.dumps({**{case: judge(ranks) for case, ranks in found.items()}, f"all of {MANY} channels": judge(whole),
                      f"all of fewer than {MANY}": judge(few)}, indent=1))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
