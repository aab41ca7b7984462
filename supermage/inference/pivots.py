"""Where the pivots lie: the radii at which the Fisher matrix, whitened by its mean, changes least over the posterior.

A step size must suit the stiffest place that a chain visits, so what counts is the largest eigenvalue of the local Fisher matrix in units
of the metric. A matrix is carried from one chart to another by the charts' Jacobians alone: no radii tried cost a model evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from supermage.inference import langevin
from supermage.inference.chains import Chain, Problem, Workers
from supermage.inference.metric import factor_of_precision
from supermage.inference.model import Chart

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Radii that are tried, in units of those that the optimum suggested, for both pivots."""

WORTH_MOVING = 0.8
"""Share of the stiffness that other radii must leave to be taken. With 0.95 the demo's pivots moved for 2.8 in place of 3, and its break
radius, wide and hidden, mixed half as fast."""

Matrix = Float[Tensor, "param param"]

TOGETHER_CARRIED = 8
"""Points whose matrices are carried in one pass: the same for any number of processes, so that sums come out the same."""


@dataclass(frozen=True)
class PivotChoice:
    """A chart, the Fisher matrices in it, and its stiffness beside that of the chart before.

    Attributes
    ----------
    chart
        The chart to use.
    fishers
        Fisher matrix plus prior at every point, in it.
    stiffness
        See `stiffness`; of the chart before, and of this one.
    """

    chart: Chart
    fishers: list[Matrix]
    stiffness: tuple[float, float]


def carry_fishers(problem: Problem, old: Chart, new: Sequence[Chart], points: list[Tensor], fishers: list[Matrix]) -> list[list[Matrix]]:
    """Fisher matrices plus prior at points of the old chart, in each of the new ones; for `Workers.map`."""
    here, positions = problem.fit.coordinates(old), torch.stack(points)
    precision = torch.func.vmap(here.prior_precision)(positions)
    likelihood, jacobian = torch.stack(fishers) - torch.diag_embed(precision), here.jacobians(positions)
    with torch.no_grad():
        theta = torch.func.vmap(lambda z: here.to_theta(z)[0])(positions)
    carried = []
    for chart in new:
        there = problem.fit.coordinates(chart)
        with torch.no_grad():
            moved = torch.func.vmap(there.from_theta)(theta)
        change, singular = torch.linalg.solve_ex(jacobian, there.jacobians(moved))
        change[singular > 0] = torch.nan
        precision = torch.func.vmap(there.prior_precision)(moved)
        carried.append(list(change.mT @ likelihood @ change + torch.diag_embed(precision)))
    return carried


def regular_points(problem: Problem, chart: Chart, points: list[Tensor]) -> list[bool]:
    """Whether parameters follow z: a chain lost far beyond a prior's edge has none that do, and no matrix can be carried from there."""
    jacobian = problem.fit.coordinates(chart).jacobians(torch.stack(points))
    singular = torch.linalg.inv_ex(jacobian)[1] > 0
    return (torch.isfinite(jacobian).all(dim=-1).all(dim=-1) & ~singular).tolist()


def stiffness(fishers: list[Matrix]) -> float:
    """Geometric mean over the points of the largest eigenvalue, in units of the mean matrix; 1 where the Fisher matrix is constant."""
    every = torch.stack(fishers)
    if not bool(torch.isfinite(every).all()):
        return float("inf")
    root = factor_of_precision(every.mean(dim=0))
    return float(torch.exp(torch.log(torch.linalg.eigvalsh(root.mT @ every @ root)[:, -1]).mean()))


def choose_pivots(workers: Workers, chart: Chart, points: list[Tensor], fishers: list[Matrix]) -> PivotChoice:
    """Try radii of both pivots on Fisher matrices at points of the posterior.

    Parameters
    ----------
    workers
        The fit.
    chart
        The chart in which points and matrices are given; without pivots there is nothing to choose.
    points
        Positions of the chains.
    fishers
        Fisher matrix plus prior there.
    """
    before = stiffness(fishers)
    if chart.velocity_radius is None or chart.slope_radius is None:
        return PivotChoice(chart, fishers, (before, before))
    trials = [replace(chart, velocity_radius=a * chart.velocity_radius, slope_radius=b * chart.slope_radius)
              for a, b in itertools.product(FACTORS, FACTORS) if (a, b) != (1.0, 1.0)]  # fmt: skip
    shares = [slice(k, k + TOGETHER_CARRIED) for k in range(0, len(points), TOGETHER_CARRIED)]
    brought = workers.map(carry_fishers, [(chart, trials, points[share], fishers[share]) for share in shares])
    carried = [[matrix for share in brought for matrix in share[k]] for k in range(len(trials))]
    found = [stiffness(matrices) for matrices in carried]
    best = min(range(len(trials)), key=found.__getitem__)
    if not found[best] < WORTH_MOVING * before:
        return PivotChoice(chart, fishers, (before, before))
    return PivotChoice(trials[best], carried[best], (before, found[best]))


def carry_chain(problem: Problem, old: Chart, new: Chart, chain: Chain) -> Chain:
    """A chain at the same parameters in another chart, its momentum forgotten; for `Workers.map`."""
    position = carry_position(problem, old, new, chain.state.position[0])
    return replace(chain, state=langevin.init(problem.target(new), position[None]))


def carry_positions(problem: Problem, old: Chart, new: Chart, positions: list[Tensor]) -> list[Tensor]:
    """`carry_position` of many; for `Workers.map`."""
    return [carry_position(problem, old, new, z) for z in positions]


def carry_position(problem: Problem, old: Chart, new: Chart, z: Float[Tensor, "param"]) -> Float[Tensor, "param"]:
    """The z of the same parameters in another chart; for `Workers.map`."""
    with torch.no_grad():
        return problem.fit.coordinates(new).from_theta(problem.fit.coordinates(old).to_theta(z)[0])
