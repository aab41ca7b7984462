"""How well each kernel samples a galaxy's posterior: worst R-hat, smallest effective sample size, kernel gradients, seconds; prints JSON.

    python benchmarks/sampler.py [--kernels mala persistent-mala hmc] [--draws 1500] [--seed 1] [--points 40] [--json sampler.json]

The demo's data must have been reduced (``make demo``), or ``--recipe`` names another fit. With ``--points`` the Fisher matrix is evaluated
at so many draws and whitened by each candidate metric: the largest eigenvalue (median, 90 %, maximum) is the square of what the step size
loses.
Kernel gradients count what the kernels evaluate in warm-up and draws; starts and metrics are not among them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.inference.chains import Problem, Workers, fisher_in_chart
from supermage.inference.diagnostics import diagnose
from supermage.inference.fit import ModelFactory, begin
from supermage.inference.metric import factor_of_precision
from supermage.inference.priors import Priors, build_priors
from supermage.inference.run import Run, advance
from supermage.progress import make_progress
from supermage.recipe import Recipe, load_recipe

DEMO = Path(__file__).parents[1] / "inference/mock-ngc4697/recipe.toml"
WARMUP = {"hmc": (100, 100, 100)}
"""Warm-up steps of kernels whose steps hold many gradients."""


def run_kernel(recipe: Recipe, data: GriddedVisibilities, priors: Priors, kernel: str, given: argparse.Namespace) -> dict[str, Any]:
    """One kernel's figures."""
    assert recipe.fit is not None
    changes: dict[str, Any] = {"kernel": kernel, "draws": given.draws if kernel != "hmc" else max(1, given.draws // 4), "seed": given.seed}
    changes["warmup"] = WARMUP.get(kernel, recipe.fit.sampler.warmup)
    section = recipe.fit.model_copy(update={"sampler": recipe.fit.sampler.model_copy(update=changes)})
    recipe = recipe.model_copy(update={"fit": section})
    began, warm = time.monotonic(), [0]

    def note(state: Run) -> None:
        if state.stage == len(section.sampler.warmup) and not state.steps_done:
            warm[0] = state.gradients

    workers = Workers(ModelFactory(recipe), section.sampler.processes)
    try:
        run = begin(workers, priors, section, data, progress=make_progress())
        advance(run, workers, section.sampler, save=note, progress=make_progress())
        seconds = time.monotonic() - began
        theta = {name: run.draws["theta"][..., i] for i, name in enumerate(priors.names)}
        found = diagnose(theta, priors.free, circular=priors.circular, acceptance=run.draws["acceptance"])
        drawn = run.gradients - warm[0]
        return {
            "worst_rhat": found.worst_rhat,
            "smallest_ess": found.smallest_ess,
            "kernel_gradients_warmup": warm[0],
            "kernel_gradients_draws": drawn,
            "ess_per_1000_gradients": 1e3 * found.smallest_ess / drawn,
            "step_sizes": run.steps,
            "acceptance": [float(a) for a in found.acceptance],
            "chains_brought_back": run.brought_back,
            "seconds": seconds,
            "largest_eigenvalues": eigenvalues(workers.problem, run, given.points) if given.points else None,
        }
    finally:
        workers.close()


def eigenvalues(problem: Problem, run: Run, points: int) -> dict[str, list[float]]:
    """Quantiles 0.5, 0.9 and 1 of the local Fisher matrix' largest eigenvalue, whitened by four metrics; last the whitened covariance's."""
    z = run.draws["z"].reshape(-1, run.draws["z"].shape[-1])
    picked = z[np.random.default_rng(0).choice(len(z), points, replace=False)]
    local = torch.stack([fisher_in_chart(problem, run.chart, torch.from_numpy(p.copy())) for p in picked])
    best = fisher_in_chart(problem, run.chart, run.best_z)
    covariance = torch.from_numpy(np.cov(z.T))
    candidates = {"mean over these draws": local.mean(dim=0), "at the best point": best, "as used": run.precision}
    candidates["covariance of the draws"] = torch.linalg.inv(covariance)
    out = {name: _quantiles(local, factor_of_precision(metric)) for name, metric in candidates.items()}
    inverse = torch.linalg.inv(factor_of_precision(candidates["mean over these draws"]))
    out["covariance, whitened by the mean"] = torch.linalg.eigvalsh(inverse @ covariance @ inverse.mT)[-3:].tolist()
    return out


def _quantiles(local: torch.Tensor, factor: torch.Tensor) -> list[float]:
    largest: NDArray[np.float64] = torch.linalg.eigvalsh(factor.mT @ local @ factor)[:, -1].numpy()
    return [float(q) for q in np.quantile(largest, [0.5, 0.9, 1.0])]


def main() -> None:
    """Print the figures of every kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=DEMO)
    parser.add_argument("--kernels", nargs="+", default=["mala", "persistent-mala", "hmc"])
    parser.add_argument("--draws", type=int, default=1500, help="steps a chain; a quarter of them for hmc, whose steps hold many gradients")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=0, help="draws at which the Fisher matrix is evaluated")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    assert recipe.fit is not None
    data, priors = open_visibilities(recipe.path(recipe.fit.visibilities)), build_priors(recipe.fit)
    text = json.dumps({kernel: run_kernel(recipe, data, priors, kernel, given) for kernel in given.kernels}, indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
