"""Do whole black-hole fits mean their intervals: galaxies drawn from the priors, observed, fitted, and ranked; prints JSON, resumes.

    python benchmarks/mass_coverage.py [--trials 100] [--output mass-coverage.jsonl] [--part 1/1]

Every trial draws all 15 parameters of the paper's model from uniform priors, adds noise (correlated along the channels, of the standard
errors that a short mock observation was reduced to) to the forward model's visibilities, and runs the whole fit: starts, warm-up, chains
until they agree. Recorded are the rank of the truth among the draws, posterior over prior width, and convergence.

- `coverage`: share of central intervals that hold the true log10 M, with the 99 % binomial band; `ks_p`: p-value of uniform ranks.
- `tarp_p`: the same for all parameters together (Lemos et al. 2023): share of draws nearer to a random point than the truth is.
- Fits that did not converge are counted, and enter like the others.

A trial depends on its number alone; with `--part 1/2` and `--part 2/2` two processes share the work, each with a file of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.inference.calibration import binomial_band
from supermage.inference.chains import Problem
from supermage.inference.fit import choose_chart, fit
from supermage.inference.model import build_model
from supermage.progress import make_progress
from supermage.recipe import Recipe, load_recipe

DEMO = Path(__file__).parents[1] / "data_reduction/mock-ngc4697/recipe.toml"
MASS = "log10_mbh"
PRIORS = {
    "scale_length": (0.25, 0.5),
    MASS: (7.5, 9.2),
    "inclination": (35.0, 80.0),
    "qintr": (0.3, 0.95),
    "alpha": (0.5, 6.0),
    "gamma_minus_beta": (-2.0, -0.4),
    "gamma": (0.1, 1.1),
    "break_r": (0.3, 3.0),
    "intensity_rb": (3.2, 4.6),
    "PA": (20.0, 160.0),
    "line_broadening": (2.0, 25.0),
    "systemic_velocity": (1200.0, 1280.0),
    "x": (-0.3, 0.3),
    "y": (-0.3, 0.3),
    "Flux": (1.0, 4.0),
}
"""Uniform priors from which galaxies are drawn and with which they are fitted; names and units of the paper's Table 1."""
SAMPLER: dict[str, Any] = {"chains": 16, "execution": "vmap", "starts": 60, "optima": 2, "warmup": (80, 150, 150), "draws": 600,
                           "most_draws": 3000, "segment": 200, "metric_points": 16}  # fmt: skip
"""Sixteen chains in one vmapped pass: at this size calling costs more than reckoning."""


def recipe_of(folder: Path, number: int) -> Recipe:
    """The fit of one trial."""
    demo = load_recipe(DEMO)
    assert demo.galaxy is not None
    priors = {name: {"lower": low, "upper": high} for name, (low, high) in PRIORS.items()}
    section = {"visibilities": "visibilities.nc", "output": "posterior.nc", "priors": priors, "sampler": {**SAMPLER, "seed": number + 1}}
    return Recipe.model_validate({"folder": folder, "galaxy": demo.galaxy.model_dump(), "fit": section})


def observe(folder: Path) -> GriddedVisibilities:
    """A short observation whose cells, channels and noise the trials share: 12 channels of 100 km/s, an image of 20 pixels of 0.24"."""
    demo = load_recipe(DEMO)
    assert demo.simulate is not None and demo.reduce is not None and demo.galaxy is not None
    table = {"folder": folder, "galaxy": demo.galaxy.model_dump(),
             "simulate": {**demo.simulate.model_dump(), "output": "mock.ms", "minutes": 1.0, "dates": demo.simulate.dates[:1],
                          "channels": 14, "channel_width": 78.125e6, "flagged_edge": 1, "noise": 2e-4},
             "reduce": {**demo.reduce.model_dump(), "measurement_set": "mock.ms", "output": "template.nc",
                        "velocity_range": [640.0, 1840.0], "grid": {"n_pixel": 20, "pixel_scale": 0.24}}}  # fmt: skip
    recipe = Recipe.model_validate(table)
    simulate(recipe)
    return reduce(recipe)


def trial(number: int, template: GriddedVisibilities, folder: Path) -> dict[str, Any]:
    """Draw a galaxy, observe and fit it."""
    rng = np.random.default_rng(number)
    truth = {name: float(rng.uniform(low, high)) for name, (low, high) in PRIORS.items()}
    recipe = recipe_of(folder, number)
    model = build_model(recipe, template)
    with torch.no_grad():
        signal = model.visibilities({name: torch.tensor(value, dtype=torch.float64) for name, value in truth.items()})
    colour = np.linalg.cholesky(template.response.correlation(template.n_channel, floor=1e-9))
    white = rng.standard_normal((*template.mean.shape, 2)).view(np.complex128)[..., 0]
    noise = np.einsum("cd,bdk->bck", colour, white) * np.where(np.isfinite(template.standard_error), template.standard_error, 0.0)
    dataclasses.replace(template, mean=signal.numpy() + noise).save(folder / "visibilities.nc")
    began = time.perf_counter()
    posterior = fit(recipe, resume=False, until_converged=True)
    seconds = time.perf_counter() - began
    draws = {name: posterior.draws(name).ravel() for name in PRIORS}
    width = {name: high - low for name, (low, high) in PRIORS.items()}
    reference = {name: float(rng.uniform(*PRIORS[name])) for name in PRIORS}
    distance = sum(((draws[name] - reference[name]) / width[name]) ** 2 for name in PRIORS)
    of_truth = sum(((truth[name] - reference[name]) / width[name]) ** 2 for name in PRIORS)
    found = posterior.diagnosis
    return {"number": number, "truth": truth, "rank": {name: float(np.mean(draws[name] < truth[name])) for name in PRIORS},
            "tarp": float(np.mean(distance < of_truth)),
            "width_ratio": {name: round(found.parameters[name].width_ratio, 4) for name in PRIORS},
            "median": float(np.median(draws[MASS])), "worst_rhat": found.worst_rhat, "smallest_ess": found.smallest_ess,
            "converged": bool(posterior.converged), "draws": int(posterior.draws(MASS).shape[1]), "seconds": round(seconds, 1)}  # fmt: skip


def judge(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage of the mass, ranks of every parameter, and what the data added to the priors."""
    number = len(trials)
    ranks = {name: np.array([one["rank"][name] for one in trials]) for name in PRIORS}
    coverage = {}
    for level in (0.68, 0.95):
        share = float(np.mean(np.abs(ranks[MASS] - 0.5) < 0.5 * level))
        coverage[f"{level:.0%}"] = {"share": round(share, 3), "band_99": [round(edge, 3) for edge in binomial_band(number, level)]}
    widths: NDArray[np.float64] = np.array([one["width_ratio"][MASS] for one in trials])
    return {"trials": number, "converged": sum(one["converged"] for one in trials), "coverage": coverage,
            "ks_p": {name: float(f"{stats.kstest(values, 'uniform').pvalue:.2g}") for name, values in ranks.items()},
            "tarp_p": float(f"{stats.kstest([one['tarp'] for one in trials], 'uniform').pvalue:.2g}"),
            "width_ratio_of_mass": {f"{q:.0%}": round(float(np.quantile(widths, q)), 3) for q in (0.16, 0.5, 0.84)},
            "seconds_a_fit": round(float(np.median([one["seconds"] for one in trials])), 1)}  # fmt: skip


def gradient_seconds(template: GriddedVisibilities, folder: Path) -> tuple[float, float]:
    """Median times of the posterior's value and gradient a chain, all chains together and one alone, one thread, s."""
    problem = Problem(build_model(recipe_of(folder, 0), template))
    middle = {name: 0.5 * (low + high) for name, (low, high) in PRIORS.items()}
    target = problem.target(choose_chart(middle, problem.fit.priors))
    chains = int(SAMPLER["chains"])
    scatter = 0.05 * torch.from_numpy(np.random.default_rng(0).standard_normal((chains, len(PRIORS))))
    positions = target.coordinates.from_theta(middle) + scatter
    found = []
    for carry in (target.of_chains, lambda many: target.value_and_gradient(many[0])):
        times = []
        for _ in range(12):
            began = time.perf_counter()
            carry(positions)
            times.append(time.perf_counter() - began)
        found.append(float(np.median(times[2:])))
    return found[0] / chains, found[1]


def main() -> None:
    """Run what is missing, judge all that is there, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("mass-coverage.jsonl"))
    parser.add_argument("--part", default="1/1", help="k/n: every n-th trial, from the k-th on")
    parser.add_argument("--judge", type=Path, nargs="+", help="judge these files and run nothing")
    options = parser.parse_args()
    if options.judge:
        known = {number: one for path in options.judge for number, one in read(path).items()}
        print(json.dumps(judge(list(known.values())), indent=1))
        return
    torch.set_num_threads(1)
    part, parts = (int(piece) for piece in options.part.split("/"))
    done = read(options.output)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template_path = options.output.with_suffix(".template.nc")
        if not template_path.exists():
            observe(folder).save(template_path)
        template = open_visibilities(template_path)
        milliseconds, alone = (1e3 * seconds for seconds in gradient_seconds(template, folder))
        print(f"value and gradient: {milliseconds:.1f} ms a chain in one pass, {alone:.1f} ms alone; {template.n_cell} cells, "
              f"{template.n_channel} channels", file=sys.stderr)  # fmt: skip
        progress = make_progress()
        numbers = [number for number in range(part - 1, options.trials, parts)]
        progress.start("fits", len(numbers))
        with options.output.open("a", encoding="utf-8") as file:
            for number in numbers:
                if number not in done:
                    done[number] = trial(number, template, folder)
                    file.write("\n" + json.dumps(done[number]))
                    file.flush()
                progress.advance()
        progress.done("")
    print(json.dumps({"gradient_ms": round(milliseconds, 1), **judge([done[number] for number in numbers])}, indent=1))


def read(path: Path) -> dict[int, dict[str, Any]]:
    """Trials in a file; the line at which a run was killed is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[one["number"]] = one
    return found


if __name__ == "__main__":
    main()
