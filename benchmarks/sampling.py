"""How well each kernel samples: effective draws a gradient and a second, beside Pyro's NUTS (NumPyro's where installed); prints JSON.

    python benchmarks/sampling.py [--cases gaussian banana lines] [--kernels mala persistent-mala hmc barker nuts] [--seed 1]
    python benchmarks/sampling.py --cases demo --kernels surrogate-hmc hmc nuts [--draws 4000] [--points 40]
    python benchmarks/sampling.py --cases demo --kernels nuts-own-metric --minutes 35

- ``gaussian``: 15 dimensions, a random rotation, condition number 1e4. Goals: MALA 0.17, HMC 0.4 a gradient.
- ``banana``: 15 dimensions, of which the second is bent about the first: x2 ~ N(x1^2 - 1, 0.3^2).
- ``lines``: 15 bounded parameters (amplitude, centre, width) of five blended spectral lines. Goal: R-hat < 1.01, 0.001 a gradient.
- ``demo``: the posterior of the demo's black hole, whose data must have been reduced (``make demo``), or ``--recipe`` names another fit.

The effective draws are the smallest over the parameters, bulk and tail apart; ``per_gradient`` counts the gradients of the kept draws,
``per_second`` the time of the whole run. NUTS learns a dense mass matrix. In ``demo`` it runs one chain in the coordinates that warm-up
chose for the others, whitened by their metric (``nuts``) or not (``nuts-own-metric``), and only its own time counts;
``per_second_of_draws`` is there for all: of the time after warm-up.
Of ``surrogate-hmc`` it is also said what its expansion leaves unexplained: of the log likelihood at the draws less a power of the
expanded one's, the rms about the mean, the largest excess, and the chance that a proposal from one draw to another would be accepted.
With ``--points`` the Fisher matrix is evaluated at so many draws and whitened by each candidate metric: the largest eigenvalue (median,
90 %, maximum) is the square of what the step size loses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import MCMC, NUTS
from torch import Tensor

from supermage.data_reduction.gridded import open_visibilities
from supermage.inference.arviz_access import ess, rhat
from supermage.inference.chains import Problem, Workers, fisher_in_chart
from supermage.inference.diagnostics import diagnose, unwrap_angle
from supermage.inference.execution import choose_plan
from supermage.inference.fit import ModelFactory, begin
from supermage.inference.langevin import FIT_KERNELS, SURROGATE
from supermage.inference.metric import factor_of_precision, jacobian
from supermage.inference.priors import Priors, build_priors
from supermage.inference.run import Run, advance
from supermage.inference.sampling import sample
from supermage.inference.surrogate import TEMPER, features
from supermage.progress import make_progress
from supermage.recipe import Recipe, load_recipe
from supermage.recipe_fit import SamplerSection

DEMO = Path(__file__).parents[1] / "inference/mock-ngc4697/recipe.toml"
DIMENSION, CHAINS = 15, 4
NUTS_NAME = "nuts"
PLAIN_NUTS_NAME = "nuts-own-metric"
NUMPYRO_NAME = "numpyro-nuts"
STEPS = {"gaussian": (800, 2500), "banana": (1500, 5000), "lines": (2000, 10_000)}
"""Warm-up and draws of the one-step kernels; Hamiltonian ones take a quarter of the draws, NUTS an eighth."""
SHARES = {"hmc": 0.25, SURROGATE: 0.25, NUTS_NAME: 0.125, PLAIN_NUTS_NAME: 0.125, NUMPYRO_NAME: 0.125}
FEWEST = 20
"""Draws below which nothing is said of NUTS."""
WARMUP = {"hmc": (100, 100, 150), SURROGATE: (100, 60, 60), NUTS_NAME: (100, 60, 60), PLAIN_NUTS_NAME: (100, 60, 60)}
"""Warm-up steps in ``demo`` of kernels whose steps hold many gradients; NUTS starts where the surrogate's warm-up ends."""


@dataclass(frozen=True)
class Case:
    """A density on an unconstrained space: log density, starts of the chains, the metric where there is a natural one."""

    log_density: Callable[[Tensor], Tensor]
    starts: Tensor
    fisher: Callable[[Tensor], Tensor] | None = None
    numpyro: Callable[[Any], Any] | None = None


def gaussian(seed: int) -> Case:
    """A rotated Gaussian with condition number 1e4."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    matrix: NDArray[np.float64] = turn @ np.diag(np.geomspace(1.0, 1e4, DIMENSION)) @ turn.T
    precision = torch.from_numpy(matrix)
    return Case(lambda x: -0.5 * x @ precision @ x, _normal_starts(seed), numpyro=lambda x: 0.5 * x @ matrix @ x)


def banana(seed: int) -> Case:
    """The second coordinate bent about the first."""

    def potential(x: Any) -> Any:
        return 0.5 * x[0] ** 2 + 0.5 * ((x[1] - (x[0] ** 2 - 1.0)) / 0.3) ** 2 + 0.5 * (x[2:] ** 2).sum()

    return Case(lambda x: -torch.as_tensor(potential(x)), _normal_starts(seed), numpyro=potential)


def lines(seed: int) -> Case:
    """Five blended lines, 120 channels of noise 0.1; amplitude, centre and width bounded, in coordinates of unit normal priors."""
    rng = np.random.default_rng(seed)
    number = torch.arange(5, dtype=torch.float64)
    lower = torch.cat([torch.zeros(5, dtype=torch.float64), number - 0.5, torch.full((5,), 0.2, dtype=torch.float64)])
    upper = torch.cat([torch.full((5,), 2.0, dtype=torch.float64), number + 0.5, torch.full((5,), 1.2, dtype=torch.float64)])
    axis = torch.linspace(-2.0, 6.0, 120, dtype=torch.float64)

    def spectrum(z: Tensor) -> Tensor:
        amplitude, centre, width = (lower + (upper - lower) * torch.special.ndtr(z)).reshape(3, 5)
        return (amplitude[:, None] * torch.exp(-0.5 * ((axis - centre[:, None]) / width[:, None]) ** 2)).sum(0)

    truth = torch.from_numpy(rng.normal(0.0, 0.6, DIMENSION))
    data = spectrum(truth) + 0.1 * torch.from_numpy(rng.standard_normal(120))

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * ((spectrum(z) - data) / 0.1).square().sum() - 0.5 * z.square().sum()

    def fisher(z: Tensor) -> Tensor:
        slope = jacobian(lambda p: spectrum(p) / 0.1, z)
        return slope.mT @ slope + torch.eye(DIMENSION, dtype=torch.float64)

    def potential(z: Any) -> Any:
        import jax

        low, high, channels, flux = (tensor.numpy() for tensor in (lower, upper, axis, data))
        amplitude, centre, width = (low + (high - low) * jax.scipy.special.ndtr(z)).reshape(3, 5)
        model = (amplitude[:, None] * jax.numpy.exp(-0.5 * ((channels - centre[:, None]) / width[:, None]) ** 2)).sum(0)
        return 0.5 * (((model - flux) / 0.1) ** 2).sum() + 0.5 * (z**2).sum()

    return Case(log_density, 0.5 * _normal_starts(seed), fisher, potential)


CASES: dict[str, Callable[[int], Case]] = {"gaussian": gaussian, "banana": banana, "lines": lines}


def _normal_starts(seed: int) -> Tensor:
    return torch.randn(CHAINS, DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def figures(draws: NDArray[np.float64], gradients: int, seconds: float) -> dict[str, Any]:
    """Convergence and cost of (chain, draw, param) draws that took so many gradients."""
    # Python's own min and max may lose a NaN
    bulk, tail = (float(np.min([ess(draws[..., i], method=kind) for i in range(draws.shape[-1])])) for kind in ("bulk", "tail"))
    worst = float(np.max([rhat(draws[..., i]) for i in range(draws.shape[-1])]))
    return {"worst_rhat": _short(worst, 5), "ess_bulk": _short(bulk), "ess_tail": _short(tail), "gradients_draws": gradients,
            "per_gradient": _short(bulk / gradients), "tail_per_gradient": _short(tail / gradients), "per_second": _short(bulk / seconds),
            "seconds": round(seconds, 1)}  # fmt: skip


def _short(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


def run_case(name: str, kernel: str, seed: int, share: float) -> dict[str, Any]:
    """One kernel on one density."""
    case = CASES[name](seed)
    warmup, draws = STEPS[name]
    draws = max(50, int(share * draws * SHARES.get(kernel, 1.0)))
    warmup = max(50, int(share * warmup * (0.5 if kernel in SHARES else 1.0)))
    began = time.perf_counter()
    if kernel == NUTS_NAME:
        values, gradients = pyro_nuts(case.log_density, case.starts, warmup, draws, seed)
    elif kernel == NUMPYRO_NAME:
        return numpyro_nuts(case, warmup, draws, seed)
    else:
        found = sample(case.log_density, case.starts, kernel=kernel, draws=draws, warmup=warmup, seed=seed)
        values, gradients = np.asarray(found["posterior"]["x"].values), int(found.attrs["draw_gradients"])
    return figures(values, gradients, time.perf_counter() - began)


class TimeUp(Exception):  # noqa: N818
    """A chain has had its minutes."""


class Gradient(torch.autograd.Function):
    """A posterior's density by the way the other kernels take: quick, and minus infinity where the model has no value."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, target: Any) -> Tensor:
        """Log density."""
        with torch.enable_grad():
            value, ctx.gradient = target.value_and_gradient(z)
        return torch.as_tensor(value)

    @staticmethod
    def backward(ctx: Any, outer: Any) -> Any:
        """Its gradient."""
        return outer * ctx.gradient, None


def pyro_nuts(
    log_density: Callable[[Tensor], Tensor], starts: Tensor, warmup: int, draws: int, seed: int, minutes: float = np.inf,
    ended: list[float] | None = None,
) -> tuple[NDArray[np.float64], int]:
    """Draws of Pyro's NUTS with a dense mass matrix, chain after chain, and the gradients that the kept ones took.

    A chain that has been drawing for so many minutes, warm-up included, ends with the draws that it has; ``ended`` takes when the last
    warm-up did.
    """
    import pyro

    chains, gradients = [], 0
    for number, start in enumerate(starts):
        pyro.set_rng_seed(1000 * seed + number)
        calls = [0]

        def potential(values: dict[str, Tensor], calls: list[int] = calls) -> Tensor:
            calls[0] += 1
            return -log_density(values["x"])

        kernel = NUTS(potential_fn=potential, full_mass=True)
        warm, kept, began = [0], [], time.perf_counter()

        def note(
            _: Any, values: dict[str, Tensor], stage: str, step: int, warm: list[int] = warm, calls: list[int] = calls,
            kept: list[NDArray[np.float64]] = kept, began: float = began,
        ) -> None:
            if stage.lower().startswith("warm"):
                warm[0] = calls[0]
                if ended is not None:
                    ended[0] = time.perf_counter()
            else:
                kept.append(values["x"].detach().numpy().copy())
            if time.perf_counter() - began > 60.0 * minutes:
                raise TimeUp

        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, initial_params={"x": start.clone()}, disable_progbar=True, hook_fn=note)
        with contextlib.suppress(TimeUp):
            mcmc.run()
        chains.append(np.stack(kept) if kept else np.empty((0, len(start))))
        gradients += calls[0] - warm[0]
    return np.stack([chain[: min(map(len, chains))] for chain in chains]), gradients


def numpyro_nuts(case: Case, warmup: int, draws: int, seed: int) -> dict[str, Any]:
    """NumPyro's NUTS, where it is installed and the density has been written for it."""
    try:
        import jax
        import numpyro
    except ImportError:
        return {"left_out": "NumPyro is not installed"}
    if case.numpyro is None:
        return {"left_out": "the density is not written in JAX"}
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    kernel = numpyro.infer.NUTS(potential_fn=case.numpyro, dense_mass=True)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=warmup, num_samples=draws, num_chains=CHAINS, chain_method="sequential",
                              progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.PRNGKey(seed), init_params=jax.numpy.asarray(case.starts.numpy()), extra_fields=("num_steps",))
    values = np.asarray(mcmc.get_samples(group_by_chain=True))
    return figures(values, int(np.asarray(mcmc.get_extra_fields()["num_steps"]).sum()), time.perf_counter() - began)


def run_demo(recipe: Recipe, kernel: str, given: argparse.Namespace) -> dict[str, Any]:
    """One kernel, or NUTS in the same coordinates, on a galaxy's posterior."""
    assert recipe.fit is not None
    steps = max(4, int(given.draws * SHARES.get(kernel, 1.0)))
    changes: dict[str, Any] = {"kernel": kernel if kernel in FIT_KERNELS else SURROGATE, "draws": steps, "seed": given.seed}
    changes["warmup"] = WARMUP.get(kernel, SamplerSection().warmup)
    section = recipe.fit.model_copy(update={"sampler": recipe.fit.sampler.model_copy(update=changes)})
    recipe = recipe.model_copy(update={"fit": section})
    assert recipe.fit is not None
    data = open_visibilities(recipe.path(recipe.fit.visibilities))
    priors = build_priors(recipe.fit, data.n_block)
    began, warm, warm_at = time.perf_counter(), [0], [0.0]

    def note(state: Run) -> None:
        if state.stage == len(section.sampler.warmup) and not state.steps_done:
            warm[0], warm_at[0] = state.gradients, time.perf_counter()

    factory = ModelFactory(recipe)
    workers = Workers(factory, 1)
    try:
        plan = choose_plan(workers.problem, section.sampler)
        workers.spread(factory, plan.processes)
        run = begin(workers, priors, section, data, progress=make_progress())
        run.way = plan.way
        if kernel in (NUTS_NAME, PLAIN_NUTS_NAME):
            # its coordinates are those that the other kernels draw in, whitened by their metric, its time its own alone
            advance(run, workers, section.sampler.model_copy(update={"draws": 0}), save=note, progress=make_progress())
            began = time.perf_counter()
            target = workers.problem.target(run.chart)
            factor = run.factor if kernel == NUTS_NAME else torch.eye(len(run.factor), dtype=torch.float64)
            start = torch.linalg.solve(factor, run.chains[0].state.position.mT).mT
            values, gradients = pyro_nuts(lambda y: Gradient.apply(factor @ y, target), start, given.draws // 10, steps, given.seed,
                                          given.minutes, ended=warm_at)  # fmt: skip
            values = values @ factor.mT.numpy()
            if values.shape[1] < FEWEST:
                return {"left_out": f"{values.shape[1]} draws after warm-up in {given.minutes} minutes", "gradients_draws": gradients}
            theta = torch.stack([target.parameters(torch.from_numpy(z))[0] for z in values.reshape(-1, values.shape[-1])])
            return {**timed(theta.numpy().reshape(values.shape), priors, gradients, began, warm_at[0]), "draws": values.shape[1]}
        advance(run, workers, section.sampler, save=note, progress=make_progress())
        measured = timed(run.draws["theta"], priors, run.gradients - warm[0], began, warm_at[0])
        found = diagnose({name: run.draws["theta"][..., i] for i, name in enumerate(priors.names)}, priors.free, circular=priors.circular,
                         acceptance=run.draws["acceptance"])  # fmt: skip
        return {
            **measured,
            "gradients_warmup": warm[0],
            "step_sizes": run.steps,
            "length": run.length,
            "acceptance": [round(float(a), 3) for a in found.acceptance],
            "chains_brought_back": run.brought_back,
            "unexplained": unexplained(workers.problem, run, priors) if run.surrogate is not None else None,
            "largest_eigenvalues": eigenvalues(workers.problem, run, given.points) if given.points else None,
        }
    finally:
        workers.close()


def unexplained(problem: Problem, run: Run, priors: Priors) -> dict[str, dict[str, float]]:
    """How far the expansion is from the likelihood over the draws, at power 1 and at that used."""
    assert run.surrogate is not None
    fixed = {name: torch.tensor(value, dtype=torch.float64) for name, value in priors.fixed.items()}
    theta = torch.from_numpy(run.draws["theta"].reshape(-1, len(priors.names)))
    with torch.no_grad():
        seen = torch.func.vmap(lambda row: features(problem.fit, dict(zip(priors.names, row.unbind(), strict=True)) | fixed))(theta)
        expanded = (run.surrogate(seen) - run.surrogate.value).numpy()
    found = {}
    for power in (1.0, TEMPER):
        left = run.draws["log_probability"].ravel() - power * expanded
        other = np.random.default_rng(0).permutation(left)
        found[f"{power:g}"] = {"rms": _short(left.std()), "largest": _short(left.max() - left.mean()),
                               "accepted": _short(np.minimum(1.0, np.exp(other - left)).mean())}  # fmt: skip
    return found


def timed(theta: NDArray[np.float64], priors: Priors, gradients: int, began: float, warm_at: float) -> dict[str, Any]:
    """`figures` of a galaxy's (chain, draw, param) draws up to now, angles on the circle, and the same by the time after warm-up."""
    now = time.perf_counter()
    straight = [unwrap_angle(theta[..., i]) if name in priors.circular else theta[..., i] for i, name in enumerate(priors.names)]
    found = figures(np.stack(straight, axis=-1), gradients, now - began)
    return {**found, "per_second_of_draws": _short(found["ess_bulk"] / (now - warm_at)), "seconds_of_draws": round(now - warm_at, 1)}


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


def _quantiles(local: Tensor, factor: Tensor) -> list[float]:
    largest: NDArray[np.float64] = torch.linalg.eigvalsh(factor.mT @ local @ factor)[:, -1].numpy()
    return [float(q) for q in np.quantile(largest, [0.5, 0.9, 1.0])]


def main() -> None:
    """Print the figures of every kernel on every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "demo"], default=list(CASES))
    parser.add_argument("--kernels", nargs="+", choices=[*FIT_KERNELS, NUTS_NAME, PLAIN_NUTS_NAME, NUMPYRO_NAME],
                        default=["mala", "persistent-mala", "hmc", "barker", NUTS_NAME, NUMPYRO_NAME])  # fmt: skip
    parser.add_argument("--recipe", type=Path, default=DEMO)
    parser.add_argument("--draws", type=int, default=1500, help="demo: steps a chain; fewer for kernels whose steps hold many gradients")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of all cases but the demo")
    parser.add_argument("--points", type=int, default=0, help="demo: draws at which the Fisher matrix is evaluated")
    parser.add_argument("--minutes", type=float, default=60.0, help="demo: after which NUTS ends with the draws that it has")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for case in given.cases:
        found[case] = {}
        for kernel in given.kernels:
            if kernel in ((NUMPYRO_NAME,) if case == "demo" else (PLAIN_NUTS_NAME, SURROGATE)):
                found[case][kernel] = {"left_out": "of galaxies' posteriors only" if case != "demo" else "of densities written in JAX only"}
                continue
            found[case][kernel] = run_demo(load_recipe(given.recipe), kernel, given) if case == "demo" else run_case(
                case, kernel, given.seed, given.share)  # fmt: skip
            if given.json is not None:
                given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
