"""fit: gridded visibilities in, posterior out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.errors import DataError, RecipeError, SupermageError, nearest_name
from supermage.inference.chains import Workers, chain_in_chart, expand_in_chart
from supermage.inference.checkpoint import CheckpointStore, fingerprint
from supermage.inference.diagnostics import diagnose
from supermage.inference.execution import Plan, choose_plan, resume_plan
from supermage.inference.langevin import FIT_KERNELS, KERNELS, PAPER, SURROGATE
from supermage.inference.mass_knowledge import identity
from supermage.inference.mass_prior import PriorDraws, StellarMassPrior, tell_mass_prior
from supermage.inference.metric import add_ridge, factor_of_precision
from supermage.inference.model import Chart, GalaxyFit, build_model
from supermage.inference.parameters import PARAMETERS
from supermage.inference.posterior import Posterior, make_posterior
from supermage.inference.priors import Priors, build_priors
from supermage.inference.run import Run, advance
from supermage.inference.start import (
    Optimum,
    Search,
    circular_speed,
    draw_starts,
    merge,
    optimum_in_chart,
    overdispersed,
    polish,
    scan,
    vary_starts,
)
from supermage.inference.stretches import Stretch
from supermage.models.registry import describe
from supermage.progress import Progress, SilentProgress
from supermage.recipe import BLOCK_PARAMETER, FitSection, Recipe, SamplerSection

FloatArray = NDArray[np.float64]

VELOCITY_PIVOT, SLOPE_PIVOT = 0.8, 0.5
"""Radii of the pivots in units of the gas' flux-weighted mean radius: 0.8" and 0.5" in the demo, where velocity and slope are measured."""

STRETCH_SHARE = 0.3
"""Share of the black hole in v^2 at the inner pivot at which the data's information about its mass is measured."""

SCAN_BATCH = 10
"""Starts scanned by one call of a process."""

FIRST_STEP = 0.3
"""Step size that the first warm-up stage begins with, in the metric's widths."""

LAYOUT = 3
"""Of what a checkpoint holds: one of another layout is refused."""

PACKAGES = ("supermage", "torch", "pyro-ppl", "numpy", "scipy", "numba", "ducc0", "astropy", "arviz", "xarray", "h5netcdf", "matplotlib",
            "casatools")
"""What a posterior's record of versions names."""


@dataclass(frozen=True)
class ModelFactory:
    """Builds the model inside a process."""

    recipe: Recipe

    def __call__(self) -> GalaxyFit:
        """Open the data and build the model."""
        return build_model(self.recipe, open_visibilities(self.recipe.path(_section(self.recipe).visibilities)))


def _section(recipe: Recipe) -> FitSection:
    if recipe.fit is None or recipe.galaxy is None:
        raise RecipeError("a fit needs the sections [galaxy] and [fit], got a recipe without")
    return recipe.fit


def fit(
    recipe: Recipe, *, resume: bool = True, until_converged: bool = False, progress: Progress | None = None,
    factory: Callable[[], GalaxyFit] | None = None,
) -> Posterior:
    """Fit a galaxy: starts, warm-up, draws. Checkpointed after every segment in ``<stem>.checkpoint/`` beside the output.

    Parameters
    ----------
    recipe
        With sections ``galaxy`` and ``fit``.
    resume
        Continue from a checkpoint of the same recipe, data and version, its number of draws apart; False starts afresh.
    until_converged
        Draw half as much again, and again, until the chains agree or ``fit.sampler.most_draws`` are reached.
    progress
        Where progress is told.
    factory
        Makes another model than the recipe's; picklable where there are several processes.

    Returns
    -------
    Posterior
        Saved at the recipe's ``output``. Whether the chains converged is ``.converged``.

    Raises
    ------
    SupermageError
        One line for any wrong input: recipe, data, start, checkpoint, another fit of the same output still running.
    KeyboardInterrupt
        After what was drawn so far has been saved at ``output``.
    """
    section = _section(recipe)
    progress = SilentProgress() if progress is None else progress
    began = time.monotonic()
    _checked_priors(section)
    output = recipe.output(section.output)
    truth = _read_truth(recipe)
    gridded = open_visibilities(recipe.path(section.visibilities))
    priors = build_priors(section, gridded.n_block)
    store = CheckpointStore(output.parent / f"{output.stem}.checkpoint", _fingerprint(recipe, gridded))
    factory = factory or ModelFactory(recipe)
    with store.alone(resume=resume) as found, _workers(factory) as workers:
        if found is None:
            progress.start("execution", None)
            plan = choose_plan(workers.problem, section.sampler)
            progress.done(plan.words)
            # at once: a run that is killed in its starts comes back by the same way. Not over the checkpoint that --fresh is to replace
            if not store.newest.exists():
                store.save({}, {"plan": plan.notes(), "seconds": 0.0})
        else:
            plan = resume_plan(workers.problem, section.sampler, Plan(**found[1]["plan"]))
            began -= float(found[1]["seconds"])
        workers.spread(factory, plan.processes)
        mass_prior = workers.problem.fit.mass_prior
        drawn = None if mass_prior is None else tell_mass_prior(mass_prior, priors, progress)
        new = found is None or not found[0]
        run = begin(workers, priors, section, gridded, progress=progress) if found is None or new else Run.restore(*found)
        run.way = plan.way

        def save(state: Run, *, first: bool = False) -> None:
            store.save(state.arrays(), {**state.notes(), "plan": plan.notes(), "seconds": time.monotonic() - began}, first=first)

        def result() -> Posterior:
            return _posterior(run, recipe, priors, gridded, truth, plan, time.monotonic() - began, mass_prior, drawn)

        save(run, first=new)
        if new:
            _set_aside(output, progress)
        try:
            for draws in _rounds(section.sampler, until_converged):
                advance(run, workers, section.sampler.model_copy(update={"draws": draws}), save=save, progress=progress)
                if not until_converged or _converged(run, priors, draws):
                    break
        except KeyboardInterrupt:
            workers.stop()
            if run.draws:
                result().save(output)
            raise
        posterior = result()
        posterior.save(output)
    return posterior


def _set_aside(output: Path, progress: Progress) -> None:
    """Rename the posterior of an earlier run: were this one killed, it would be taken for its result."""
    if output.exists():
        progress.start("an earlier posterior", None)
        kept = output.with_name(f"{output.stem}.previous{output.suffix}")
        output.replace(kept)
        progress.done(f"kept as {kept.name}")


def _rounds(sampler: SamplerSection, until_converged: bool) -> Iterator[int]:
    """Numbers of draws after which convergence is looked at: the recipe's, then half as many again each time, up to the limit."""
    draws = sampler.draws
    yield draws
    while until_converged and draws < sampler.most_draws:
        draws = min(draws + max(draws // 2, 1), sampler.most_draws)
        yield draws


def _converged(run: Run, priors: Priors, draws: int) -> bool:
    """Whether the first so many draws agree: no more of them, so that a fit that was cut off decides as an undisturbed one."""
    theta = {name: run.draws["theta"][:, :draws, i] for i, name in enumerate(priors.names)}
    return diagnose(theta, priors.free, circular=priors.circular, superchains=run.superchains or None).converged


def _checked_priors(section: FitSection) -> Priors:
    """The priors, once kernel and start are known to be ones that a fit can use."""
    sampler = section.sampler
    for key, name, known in (("kernel", sampler.kernel, FIT_KERNELS), ("burn_in", sampler.burn_in, KERNELS)):
        if name not in known:
            raise RecipeError(f"fit.sampler.{key} must be one of {', '.join(known)}, got '{name}'{nearest_name(name, known)}")
    priors = build_priors(section)
    if sampler.start is not None:
        priors.check_inside({name: value for name, value in sampler.start.items() if not BLOCK_PARAMETER.fullmatch(name)})
    return priors


@contextlib.contextmanager
def _workers(factory: Callable[[], GalaxyFit]) -> Iterator[Workers]:
    workers = Workers(factory, 1)
    try:
        yield workers
    except BaseException:
        workers.stop()
        raise
    finally:
        workers.close()


def begin(workers: Workers, priors: Priors, section: FitSection, gridded: GriddedVisibilities, *, progress: Progress) -> Run:
    """Scan, climb, choose the chart, and set the chains around the optima."""
    sampler = section.sampler
    rng = np.random.default_rng([sampler.seed, 0])
    fit_here = workers.problem.fit
    search = Search.of(gridded)
    progress.start("scan of starts", sampler.starts)
    scanned: list[tuple[float, dict[str, float]]] = []
    for generation in range(2):
        number = sampler.starts - sampler.starts // 3 if generation == 0 else sampler.starts // 3
        starts = draw_starts(fit_here, number, rng, search) if generation == 0 else vary_starts(fit_here, scanned, number, rng)
        starts = [{**start, **(sampler.start or {})} for start in starts]
        for found in workers.map(scan, [(starts[k : k + SCAN_BATCH],) for k in range(0, number, SCAN_BATCH)]):
            scanned += found
            progress.advance(len(found))
    progress.done(f"best log likelihood {max(value for value, _ in scanned):.1f}")
    best = [start for _, start in sorted(scanned, key=lambda pair: -pair[0])[: 2 * sampler.optima]]
    progress.start("climbs", len(best))
    climbed = workers.map(polish, [(Chart(cut=start.get("PA", 180.0)), start, 40) for start in best], ended=progress.advance)
    climbed.sort(key=lambda pair: -pair[1])
    if not np.isfinite(climbed[0][1]):
        raise SupermageError("a fit needs a start where the model is finite, got none")
    progress.done(f"log posterior {', '.join(f'{value:.1f}' for _, value in climbed)}")
    _tell_discretisation(fit_here, climbed[0][0], progress)
    chart = choose_chart(climbed[0][0], priors)
    chart = Chart(chart.cut) if sampler.kernel == PAPER else stretch_mass(workers, chart, climbed[0][0], priors)
    optima = merge(workers.map(optimum_in_chart, [(chart, theta, 15) for theta, value in climbed if value > climbed[0][1] - 40.0]))
    return _set_out(workers, chart, optima, sampler, rng)


def _tell_discretisation(fit: GalaxyFit, theta: dict[str, float], progress: Progress) -> None:
    """Say, before hours are spent, how far the model's visibilities are from those of finer nodes and a larger disc, if it can tell."""
    measure = getattr(fit.galaxy_model, "discretisation_error", None)
    if measure is not None:
        progress.start("discretisation", None)
        error = measure({name: torch.tensor(value, dtype=torch.float64) for name, value in theta.items()})
        progress.done(f"{100.0 * error:.2g} % of the signal at the best start")


def choose_chart(theta: dict[str, float], priors: Priors) -> Chart:
    """Centre the circle on the best position angle, and put the pivots where the gas is."""
    cut = theta["PA"] if "PA" in priors.circular else 180.0
    index = theta.get("gas_index", 1.0)
    scale = max(theta["scale_length"], 1e-3) * math.gamma(3.0 / index) / math.gamma(2.0 / index)
    return Chart(cut, VELOCITY_PIVOT * scale, SLOPE_PIVOT * scale, tuple(sorted(theta.items())))


def stretch_mass(workers: Workers, chart: Chart, theta: dict[str, float], priors: Priors) -> Chart:
    """Stretch the coordinate of the black hole's mass by what the data know of it, the other parameters left free.

    The Fisher matrix is taken where the hole has a share of v^2 at the inner pivot, whatever the mass of ``theta``: it needs no data, and
    at a light optimum it would know nothing.
    """
    free = {p.name: p for p in priors.free}
    if "log10_mbh" not in free or chart.slope_radius is None:
        return chart
    prior = free["log10_mbh"]
    trial = {**theta, "log10_mbh": 8.0}
    total, unit = (circular_speed(workers.problem.fit, trial, chart.slope_radius, part) for part in ("total", "black_hole"))
    margin = 0.05 * (prior.upper - prior.lower)
    mass = 8.0 + math.log10(max(STRETCH_SHARE * total**2, 1e-6) / max(unit**2, 1e-6))
    mass = min(max(mass, prior.lower + margin), prior.upper - margin)
    target = workers.problem.target(chart)
    precision = target.fisher(target.coordinates.from_theta({**theta, "log10_mbh": mass}))
    i = priors.names.index("log10_mbh")
    information = 1.0 / float(torch.linalg.inv(precision)[i, i]) - 1.0
    stretch = Stretch.of_mass(mass, prior.lower, prior.upper, information)
    return chart if stretch is None else replace(chart, stretch=(stretch.rate, stretch.knee))


def _set_out(workers: Workers, chart: Chart, optima: list[Optimum], sampler: Any, rng: np.random.Generator) -> Run:
    target = workers.problem.target(chart)
    placed = [overdispersed(target, optima[c % len(optima)], factor=sampler.overdispersion, rng=rng) for c in range(sampler.chains)]
    chains = workers.map(chain_in_chart, [(chart, z, FIRST_STEP, sampler.seed, c) for c, z in enumerate(placed)])
    precision = add_ridge(optima[0].precision, ridge_frac=sampler.ridge_frac, ridge_min=sampler.ridge_min)
    starts = [c % len(optima) for c in range(sampler.chains)]
    # of more stages the first does without, and its end makes one
    needed = sampler.kernel == SURROGATE and len(sampler.warmup) == 1
    surrogate = workers.map(expand_in_chart, [(chart, optima[0].z)])[0] if needed else None
    return Run(chart, chains, factor_of_precision(precision), optima[0].precision, optima[0].z, optima[0].log_density, superchains=starts,
               surrogate=surrogate)  # fmt: skip


def _fingerprint(recipe: Recipe, gridded: GriddedVisibilities) -> str:
    """Of all that a draw depends on; not of paths, of processes or segments, nor of how many draws there are to be."""
    section = _section(recipe).model_dump(mode="json", exclude={"visibilities", "output", "truth"})
    for name in ("processes", "execution", "segment", "draws", "most_draws"):
        section["sampler"].pop(name)
    galaxy = recipe.galaxy.model_dump(mode="json") if recipe.galaxy else {}
    section.pop("mass_prior")
    versions = {"emulator": describe(_section(recipe).model.emulator), "supermage": _version("supermage"), "torch": torch.__version__}
    return fingerprint({"layout": LAYOUT, "fit": section, "galaxy": galaxy, "data": gridded.checksum, **versions, **identity(recipe)})


def _read_truth(recipe: Recipe) -> dict[str, Any] | None:
    name = _section(recipe).truth
    if name is None:
        return None
    path = recipe.path(name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"fit.truth must be a JSON file of true values, got {path} ({why})") from None
    if not isinstance(table, dict) or not isinstance(table.get("parameters"), dict):
        raise DataError(f"fit.truth must hold 'parameters', got {path} without")
    for parameter, value in table["parameters"].items():
        if parameter not in PARAMETERS:
            near = nearest_name(parameter, PARAMETERS)
            raise DataError(f"fit.truth must name parameters of the model, got '{parameter}' in {path}{near}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"fit.truth must hold finite numbers, got {parameter} = {value!r} in {path}")
    return table


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _posterior(
    run: Run, recipe: Recipe, priors: Priors, gridded: GriddedVisibilities, truth: dict[str, Any] | None, plan: Plan, seconds: float,
    mass_prior: StellarMassPrior | None, drawn: PriorDraws | None,
) -> Posterior:  # fmt: skip
    section = _section(recipe)
    draws = {name: np.ascontiguousarray(run.draws["theta"][..., i]) for i, name in enumerate(priors.names)}
    warmup = {name: np.ascontiguousarray(run.warmup["theta"][..., i]) for i, name in enumerate(priors.names)} if run.warmup else None
    stats = {"lp": run.draws["log_probability"], "acceptance_rate": run.draws["acceptance"], "step_size": run.draws["step_size"]}
    attributes = {
        "recipe": recipe.model_dump_json(exclude={"folder"}),
        "recipe_folder": str(recipe.folder.resolve()),
        "visibilities": str(recipe.path(section.visibilities)),
        "data_checksum": gridded.checksum,
        "seed": section.sampler.seed,
        "versions": json.dumps({"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}}),
        "emulator": describe(section.model.emulator),
        "command": " ".join(["supermage", *sys.argv[1:]]),
        "gradients": run.gradients,
        "wall_seconds": seconds,
        "truth": json.dumps(truth) if truth else "",
        "distance": recipe.galaxy.distance if recipe.galaxy else np.nan,
        "kernel": section.sampler.kernel,
        "likelihood": section.model.likelihood,
        "fixed": json.dumps(dict(priors.fixed)),
        "circular": json.dumps(list(priors.circular)),
        "complete": int(run.draws["z"].shape[1] >= section.sampler.draws),
        "pivot_radii": json.dumps([run.chart.velocity_radius, run.chart.slope_radius]),
        "warmup_steps": json.dumps(run.steps),
        "best_log_density": run.best_log_density,
        "chains_brought_back": run.brought_back,
        "execution": json.dumps(plan.notes()),
        "superchains": json.dumps(run.superchains),
        "trajectory_length": run.length,
    }
    if mass_prior is not None and drawn is not None:
        stats |= mass_prior.statistics(draws, priors.fixed)
        attributes["mass_prior"] = json.dumps(mass_prior.notes(drawn.accepted, drawn.unit_mass))
    posterior = make_posterior(draws, stats, priors.free, warmup=warmup, attributes=attributes)
    diagnosis = posterior.diagnosis
    found = {
        "converged": int(diagnosis.converged),
        "worst_rhat": diagnosis.worst_rhat,
        "smallest_ess": diagnosis.smallest_ess,
        "worst_nested_rhat": diagnosis.worst_nested_rhat,
        "worst_nested_name": diagnosis.worst_nested_name,
        "modes": json.dumps(diagnosis.modes),
        "acceptance": ", ".join(f"{rate:.2f}" for rate in diagnosis.acceptance),
        "step_size": float(f"{run.draws['step_size'][:, -1].mean():.4g}"),
    }
    for holder in (posterior.to_arviz(), posterior.to_arviz()["posterior"]):
        holder.attrs.update(found)
    return posterior
