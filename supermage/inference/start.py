"""Starts: a cheap scan of draws, the best polished by Levenberg-Marquardt with the Fisher matrix, duplicates merged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.inference.chains import Problem
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


@dataclass(frozen=True)
class Search:
    """Where discs are looked for: ranges that the data can tell apart, narrower than the priors.

    Attributes
    ----------
    scale_length
        From a pixel to a sixth of the field, arcsec.
    velocity
        Rotation velocity at a scale length, from 1.5 channels to six tenths of the band, km/s.
    """

    scale_length: tuple[float, float]
    velocity: tuple[float, float]

    @classmethod
    def of(cls, gridded: GriddedVisibilities) -> Search:
        """The ranges for a data set."""
        band = float(np.ptp(gridded.velocity))
        return cls((gridded.grid.pixel_scale, gridded.grid.field_of_view / 6.0), (1.5 * gridded.velocity_width, 0.6 * band))


def _draw_prior(priors: Priors, rng: np.random.Generator) -> dict[str, float]:
    """A draw from the priors, away from the very edges of uniform ones; fixed parameters too."""
    drawn = {p.name: p.lower + (p.upper - p.lower) * float(rng.uniform(INWARDS, 1 - INWARDS)) for p in priors.free if p.normal is None}
    drawn |= {p.name: float(rng.normal(*p.normal)) for p in priors.free if p.normal is not None}
    return drawn | dict(priors.fixed)


def draw_starts(fit: GalaxyFit, number: int, rng: np.random.Generator, search: Search) -> list[dict[str, float]]:
    """Draws from the priors whose size and rotation lie, log-uniformly, where the data can see them."""
    starts = []
    for _ in range(number):
        start = _draw_prior(fit.priors, rng)
        size, velocity = (math.exp(rng.uniform(math.log(low), math.log(high))) for low, high in (search.scale_length, search.velocity))
        starts.append(_with_rotation(fit, start, size, velocity, rng))
    return starts


def vary_starts(
    fit: GalaxyFit, scanned: list[tuple[float, dict[str, float]]], number: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Variations of the best starts so far: turned by some 15 deg, size and velocity changed by some 20 %."""
    best = [start for _, start in sorted(scanned, key=lambda pair: -pair[0])[: max(1, number // 8)]]
    starts = []
    for k in range(number):
        parent = best[k % len(best)]
        start = _draw_prior(fit.priors, rng)
        start |= _inside(
            fit.priors,
            {
                "PA": parent["PA"] + float(rng.normal(0, 15.0)),
                "systemic_velocity": parent["systemic_velocity"] + float(rng.normal(0, 10.0)),
            },
        )
        size = parent["scale_length"] * math.exp(rng.normal(0, 0.25))
        speed = float(fit.galaxy_model.circular_velocity(_tensors(parent), torch.tensor([parent["scale_length"]], dtype=torch.float64))[0])
        starts.append(_with_rotation(fit, start, size, speed * math.exp(rng.normal(0, 0.2)), rng))
    return starts


def _with_rotation(fit: GalaxyFit, start: dict[str, float], size: float, velocity: float, rng: np.random.Generator) -> dict[str, float]:
    """A start with this scale length whose circular velocity there is as asked, a random share of it the black hole's."""
    start |= _inside(fit.priors, {"scale_length": size})
    radius = start["scale_length"]
    share = float(rng.uniform(0.0, 0.7))
    unit = circular_speed(fit, {**start, "log10_mbh": 8.0}, radius, "black_hole")
    start |= _inside(fit.priors, {"log10_mbh": 8.0 + math.log10(max(share, 1e-3) * velocity**2 / max(unit**2, 1e-6))})
    rest = max(velocity**2 - circular_speed(fit, start, radius, "black_hole") ** 2, 0.02 * velocity**2)
    stars = circular_speed(fit, {**start, "intensity_rb": 3.0}, radius, "stars")
    return start | _inside(fit.priors, {"intensity_rb": 3.0 + math.log10(rest / max(stars**2, 1e-6))})


def circular_speed(fit: GalaxyFit, values: Mapping[str, float], radius: float, component: str) -> float:
    """Circular velocity of a component at a radius (arcsec), km/s."""
    with torch.no_grad():
        return float(fit.galaxy_model.circular_velocity(_tensors(values), torch.tensor([radius], dtype=torch.float64), component)[0])


def _inside(priors: Priors, values: Mapping[str, float]) -> dict[str, float]:
    """Those of the values that are free, moved into the priors."""
    moved = {}
    for p in priors.free:
        if p.name in values:
            margin = INWARDS * (p.upper - p.lower)
            value = p.lower + (values[p.name] - p.lower) % 360.0 if p.name in priors.circular else values[p.name]
            moved[p.name] = float(min(max(value, p.lower + margin), p.upper - margin))
    return moved


def _tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def scan(problem: Problem, starts: list[dict[str, float]]) -> list[tuple[float, dict[str, float]]]:
    """Log likelihood of each start with its flux and centre set to their best values inside the priors.

    The model is linear in the flux, and moving the centre turns every cell's phase: the best centre is the peak of the cross-correlation
    of whitened model and data. Both cost next to nothing beside the model.
    """
    return [_profile(problem.fit, start) for start in starts]


def _profile(fit: GalaxyFit, start: dict[str, float]) -> tuple[float, dict[str, float]]:
    with torch.no_grad():
        model = _as_complex(fit.noise.whiten(fit.visibilities(_tensors(start))))
        data = _as_complex(fit.noise.whitened_data)
        power = float(model.abs().square().sum())
        if not (math.isfinite(power) and power > 0):
            return -math.inf, start
        east, north, phase = _offsets(fit, start)
        cross = (model.conj() * data).sum(dim=-1)
        match = (phase.conj() @ cross).real
        k = int(match.argmax())
        found = {name: float(value[k]) for name, value in (("x", east), ("y", north)) if name not in fit.priors.fixed}
        ratio = float(match[k]) / power
        found |= _inside(fit.priors, {"Flux": start["Flux"] * ratio})
        residual = model * phase[k][:, None] * (found.get("Flux", start["Flux"]) / start["Flux"]) - data
        value = float(fit.noise.log_likelihood_of(torch.stack([residual.real, residual.imag], dim=1)))
    return (value if math.isfinite(value) else -math.inf), {**start, **found}


def _as_complex(whitened: Tensor) -> Tensor:
    return torch.complex(whitened[:, 0, :], whitened[:, 1, :])


def _offsets(fit: GalaxyFit, start: dict[str, float], *, number: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """Trial centres inside the priors, and the phases that move a model from the start's centre there, shape (trial, spectrum)."""
    axes = []
    for name in ("x", "y"):
        bounds = next(((p.lower, p.upper) for p in fit.priors.free if p.name == name), None)
        margin = 0.0 if bounds is None else INWARDS * (bounds[1] - bounds[0])
        axes.append(
            torch.tensor([start[name]], dtype=torch.float64)
            if bounds is None
            else torch.linspace(bounds[0] + margin, bounds[1] - margin, number, dtype=torch.float64)
        )
    east, north = (grid.reshape(-1) for grid in torch.meshgrid(*axes, indexing="ij"))
    moved = torch.stack([east - start["x"], north - start["y"]], dim=-1)
    turn = -2.0 * math.pi * (moved @ fit.noise.uv.mT)
    return east, north, torch.polar(torch.ones_like(turn), turn)


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
