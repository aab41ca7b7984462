"""Starts: a cheap scan of draws, the best polished by Levenberg-Marquardt with the Fisher matrix, duplicates merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.inference.chains import Problem
from supermage.inference.guess import Guess
from supermage.inference.metric import factor_of_precision
from supermage.inference.model import Chart, GalaxyFit, PosteriorTarget
from supermage.inference.priors import Priors

INWARDS = 0.02
"""Starts keep this share of the prior's width from its edges."""

KEEP_WITHIN = 12.0
"""Optima whose log posterior falls this much below the best one's are dropped."""


@dataclass(frozen=True)
class Optimum:
    """A local maximum of the posterior in a chart: position, log density, Fisher matrix plus prior."""

    z: Tensor
    log_density: float
    precision: Tensor


def draw_starts(priors: Priors, number: int, rng: np.random.Generator, guess: Guess | None,
                solve_density: Callable[[dict[str, float], float, float], float] | None = None) -> list[dict[str, float]]:
    """Draws from the priors; all but a quarter of them follow the data's guess where there is one."""
    starts = []
    for k in range(number):
        start = {p.name: p.lower + (p.upper - p.lower) * float(rng.uniform(INWARDS, 1 - INWARDS)) for p in priors.free}
        start |= priors.fixed
        if guess is not None and k % 4:
            guided = {"x": guess.x, "y": guess.y, "PA": guess.position_angle + float(rng.normal(0, 15.0)),
                      "systemic_velocity": guess.systemic_velocity + float(rng.normal(0, 0.1 * guess.half_width)),
                      "scale_length": guess.radius * float(np.exp(rng.normal(-0.4, 0.5)))}
            start |= _inside(priors, {name: value for name, value in guided.items() if name not in priors.fixed})
            if solve_density is not None and "intensity_rb" not in priors.fixed:
                wanted = guess.half_width / math.sin(math.radians(start["inclination"])) * float(rng.uniform(0.6, 1.1))
                start |= _inside(priors, {"intensity_rb": solve_density(start, guess.radius, wanted)})
        starts.append(start)
    return starts


def _inside(priors: Priors, values: Mapping[str, float]) -> dict[str, float]:
    moved = {}
    for p in priors.free:
        if p.name in values:
            margin = INWARDS * (p.upper - p.lower)
            value = p.lower + (values[p.name] - p.lower) % 360.0 if p.name in priors.circular else values[p.name]
            moved[p.name] = float(min(max(value, p.lower + margin), p.upper - margin))
    return moved


def density_for_velocity(fit: GalaxyFit, start: Mapping[str, float], radius: float, velocity: float) -> float:
    """``intensity_rb`` with which the circular velocity at a radius (arcsec) is ``velocity`` (km/s), black hole included."""
    theta = _tensors({**start, "intensity_rb": 3.0})
    where = torch.tensor([radius], dtype=torch.float64)
    with torch.no_grad():
        total, stars = (float(fit.galaxy_model.circular_velocity(theta, where, component=c)[0]) for c in ("total", "stars"))
    rest = max(total**2 - stars**2, 0.0)
    return 3.0 + math.log10(max(velocity**2 - rest, 0.05 * velocity**2) / max(stars**2, 1e-6))


def _tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def scan(problem: Problem, starts: list[dict[str, float]]) -> list[tuple[float, dict[str, float]]]:
    """Log likelihood of each start with its flux (linear in the data) set to the best value inside the prior."""
    fit = problem.fit
    bounds = {p.name: (p.lower, p.upper) for p in fit.priors.free}
    found = []
    for start in starts:
        best = dict(start)
        with torch.no_grad():
            theta = _tensors(start)
            model = fit.noise.whiten(fit.galaxy_model.visibilities(theta))
            if "Flux" in bounds:
                power = float(model.square().sum())
                ratio = float((model * fit.noise.whitened_data).sum()) / power if power > 0 else 1.0
                lower, upper = bounds["Flux"]
                margin = INWARDS * (upper - lower)
                best["Flux"] = min(max(start["Flux"] * ratio, lower + margin), upper - margin)
                model = model * (best["Flux"] / start["Flux"])
            value = float(fit.noise.log_likelihood_of(model - fit.noise.whitened_data))
        found.append((value if math.isfinite(value) else -math.inf, best))
    return found


def levenberg_marquardt(target: PosteriorTarget, z: Tensor, *, max_iterations: int = 40, tolerance: float = 0.02) -> Optimum:
    """Climb to a maximum of the log density with damped Fisher-scoring steps.

    Parameters
    ----------
    target
        The posterior.
    z
        Where to begin.
    max_iterations
        Most Fisher matrices computed.
    tolerance
        Stop when the gradient predicts a gain below this.
    """
    value, gradient = target.value_and_gradient(z)
    damping = 1e-2
    for _ in range(max_iterations):
        precision = target.fisher(z)
        diagonal = torch.diag(precision.diagonal())
        if 0.5 * float(gradient @ torch.linalg.solve(precision, gradient)) < tolerance:
            break
        improved = False
        for _ in range(8):
            step = torch.linalg.solve(precision + damping * diagonal, gradient)
            trial = z + step.clamp(-1.5, 1.5)
            trial_value, trial_gradient = target.value_and_gradient(trial)
            if float(trial_value) > float(value):
                gain = float(trial_value - value)
                z, value, gradient, improved = trial, trial_value, trial_gradient, True
                damping = max(damping / 5.0, 1e-6)
                break
            damping = min(damping * 6.0, 1e6)
        if not improved or gain < 0.1 * tolerance:
            break
    return Optimum(z, float(value), target.fisher(z))


def polish(problem: Problem, chart: Chart, start: dict[str, float], max_iterations: int) -> tuple[dict[str, float], float]:
    """Levenberg-Marquardt from a start; every parameter at the maximum, and the log *posterior of the parameters* there."""
    target = problem.target(chart)
    optimum = levenberg_marquardt(target, target.coordinates.from_theta(start), max_iterations=max_iterations)
    with torch.no_grad():
        theta = target.coordinates.to_theta(optimum.z)[0]
        value = float(problem.fit.log_prob(theta))
    return {name: float(v) for name, v in theta.items()}, value


def optimum_in_chart(problem: Problem, chart: Chart, theta: dict[str, float], max_iterations: int) -> Optimum:
    """Levenberg-Marquardt in the final chart from an optimum found in another."""
    target = problem.target(chart)
    return levenberg_marquardt(target, target.coordinates.from_theta(theta), max_iterations=max_iterations)


def merge(optima: list[Optimum]) -> list[Optimum]:
    """Best first, without duplicates (closer than the widths that the better one has) and without those far below the best."""
    kept: list[Optimum] = []
    for optimum in sorted(optima, key=lambda o: -o.log_density):
        if kept and optimum.log_density < kept[0].log_density - KEEP_WITHIN:
            continue
        distances = [float((optimum.z - o.z) @ o.precision @ (optimum.z - o.z)) for o in kept]
        if all(d > len(optimum.z) for d in distances):
            kept.append(optimum)
    return kept


def overdispersed(target: PosteriorTarget, optimum: Optimum, *, factor: float, rng: np.random.Generator, tries: int = 50) -> Tensor:
    """A start ``factor`` times the Laplace width around an optimum, where the log density is finite; drawn closer after failures."""
    width = factor_of_precision(optimum.precision)
    z = optimum.z
    for k in range(tries):
        normal: NDArray[np.float64] = rng.standard_normal(len(optimum.z))
        z = optimum.z + factor * 0.9**k * (width @ torch.from_numpy(normal))
        if math.isfinite(float(target.value_and_gradient(z)[0])):
            return z
    return optimum.z
