"""A run of chains through warm-up stages and draws, saved after every segment, continued from wherever it was cut off."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.inference.adaptation import correct_step, final_step, pool_steps, start_dual_average
from supermage.inference.chains import (
    RECORDS,
    Chain,
    Drawn,
    Segment,
    Workers,
    approach_in_chart,
    approach_together_in_chart,
    expand_in_chart,
    fisher_in_chart,
    fishers_in_chart,
    place_in_chart,
    restart_adaptation,
    segment_in_chart,
    together_in_chart,
)
from supermage.inference.execution import TOGETHER
from supermage.inference.langevin import FIT_KERNELS, PAPER, SURROGATE, State
from supermage.inference.metric import add_ridge, factor_of_precision, log_weights, mean_of_finite, picked, widest_direction
from supermage.inference.model import Chart
from supermage.inference.pivots import carry_chain, carry_positions, choose_pivots, regular_points
from supermage.inference.surrogate import Surrogate
from supermage.inference.widening import choose_widening
from supermage.progress import Progress
from supermage.recipe import SamplerSection

FloatArray = NDArray[np.float64]

APPROACH = 25
"""Steps of the first stage between two evaluations of each chain's own metric."""

CARRIED_EVERY = 5
"""Of the warm-up's draws every so many are carried into a new chart, to see how wide the posterior is there."""

NO_WEIGHT = -30.0
"""A mode with this log weight against the best one is of no account: in warm-up its chains are brought back, and the record says so."""

TOGETHER_AT_MOST = 4
"""Chains that share a pass of the surrogate, in two groups at least: a pass takes as long for four as for one."""

BELIEVED_OVER, LEAST_BELIEVED = 40, 0.2
"""Steps at a stage's end whose acceptance tells how good the surrogate is, and the acceptance below which another kernel is advised."""


@dataclass
class Run:
    """Everything that a run is at the end of a segment.

    Attributes
    ----------
    chart
        The coordinates.
    chains
        One entry a chain.
    factor
        L of the metric in use.
    precision
        Fisher matrix plus prior that it was made of.
    best_z, best_log_density
        The point of largest log density so far.
    stage
        Warm-up stage, or their number for the draws.
    steps_done
        Steps done in this stage, each chain.
    gradients
        Spent so far, all chains.
    warmup, draws
        Records, each (chain, step, ...).
    steps
        Step size that each stage ended with.
    brought_back
        Chains that warm-up brought back from modes without weight.
    length
        Width of the posterior's widest direction in units of the metric, at least 1: what trajectories are measured by.
    superchains
        The optimum around which each chain started; of one brought back, that of the chain to which it was brought.
    way
        How chains are carried, see `supermage.inference.execution`; one pass is kept over an interruption, since it rounds otherwise.
    surrogate
        The likelihood's expansion, of the kernel `SURROGATE`; renewed with the metric.
    """

    chart: Chart
    chains: list[Chain]
    factor: Tensor
    precision: Tensor
    best_z: Tensor
    best_log_density: float
    stage: int = 0
    steps_done: int = 0
    gradients: int = 0
    warmup: dict[str, FloatArray] = field(default_factory=dict)
    draws: dict[str, FloatArray] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)
    brought_back: int = 0
    length: float = 1.0
    superchains: list[int] = field(default_factory=list)
    way: str = "loop"
    surrogate: Surrogate | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but numbers and names as arrays, for a checkpoint."""
        out: dict[str, NDArray[Any]] = {"factor": self.factor.numpy(), "precision": self.precision.numpy(), "best_z": self.best_z.numpy()}
        for number, chain in enumerate(self.chains):
            out |= {f"chain{number}.{name}": array for name, array in chain.arrays().items()}
        out |= {} if self.surrogate is None else {f"surrogate.{name}": array for name, array in self.surrogate.arrays().items()}
        out |= {f"warmup.{name}": array for name, array in self.warmup.items()}
        return out | {f"draws.{name}": array for name, array in self.draws.items()}

    def notes(self) -> dict[str, Any]:
        """The rest, for JSON."""
        return {
            "chart": self.chart.notes(),
            "chains": len(self.chains),
            "best_log_density": self.best_log_density,
            "stage": self.stage,
            "steps_done": self.steps_done,
            "gradients": self.gradients,
            "steps": self.steps,
            "brought_back": self.brought_back,
            "length": self.length,
            "superchains": self.superchains,
            "way": self.way,
        }

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[Any]], notes: dict[str, Any]) -> Run:
        """The inverse of `arrays` and `notes`."""

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

        chart = Chart.of_notes(notes["chart"])
        factor, precision, best_z = (torch.from_numpy(arrays[name].copy()) for name in ("factor", "precision", "best_z"))
        chains = [Chain.from_arrays(part(f"chain{number}.")) for number in range(notes["chains"])]
        return cls(
            chart,
            chains,
            factor,
            precision,
            best_z,
            notes["best_log_density"],
            notes["stage"],
            notes["steps_done"],
            notes["gradients"],
            part("warmup."),
            part("draws."),
            list(notes["steps"]),
            notes["brought_back"],
            notes["length"],
            list(notes["superchains"]),
            notes["way"],
            Surrogate.from_arrays(expansion) if (expansion := part("surrogate.")) else None,
        )


def advance(run: Run, workers: Workers, sampler: SamplerSection, *, save: Callable[[Run], None], progress: Progress) -> None:
    """Carry a run to its end, in place; ``save`` is called after every segment."""
    while run.stage < len(sampler.warmup):
        marks = _marks(sampler, run.stage)
        progress.start(f"warm-up, stage {run.stage + 1} of {len(sampler.warmup)}", marks[-1])
        progress.advance(run.steps_done)
        while run.steps_done < marks[-1]:
            last = run.stage == len(sampler.warmup) - 1
            if last and run.steps_done == 0 and sampler.kernel == PAPER:
                _freeze(run, sampler.step_sizes[0])
            adapting = not last or (sampler.kernel != PAPER and run.steps_done < marks[0])
            until = next(mark for mark in marks if mark > run.steps_done)
            length = min(APPROACH if run.stage == 0 else sampler.segment, until - run.steps_done)
            _segment(run, workers, sampler, length, run.warmup, adapting=adapting, progress=progress)
            if run.steps_done in marks[:-1]:
                _freeze(run, _next_step(run, sampler, marks))
            if run.steps_done < marks[-1]:
                save(run)
        progress.done(_end_stage(run, workers, sampler, marks))
        save(run)
    progress.start("draws", max(sampler.draws, run.steps_done))
    progress.advance(run.steps_done)
    while run.steps_done < sampler.draws:
        _segment(run, workers, sampler, min(sampler.segment, sampler.draws - run.steps_done), run.draws, adapting=False, progress=progress)
        save(run)
    progress.done(f"{run.gradients} gradients")


def _marks(sampler: SamplerSection, stage: int) -> list[int]:
    """Steps of a stage after which the step size is set anew; the last stage tries it frozen, `mala-paper` a list of them."""
    total = sampler.warmup[stage]
    if stage < len(sampler.warmup) - 1:
        return [total]
    if sampler.kernel == PAPER:
        number = len(sampler.step_sizes)
        return sorted({max(1, round(total * (k + 1) / number)) for k in range(number)})
    trial = total // 5
    return sorted({max(total - 2 * trial, 1), max(total - trial, 1), total})


def _next_step(run: Run, sampler: SamplerSection, marks: list[int]) -> float:
    """The step size at a mark: pooled over the chains, then corrected by what its trial accepted; the paper's, the next of its list."""
    place = marks.index(run.steps_done)
    if sampler.kernel == PAPER:
        return sampler.step_sizes[place + 1]
    step = pool_steps(torch.cat([final_step(chain.dual) for chain in run.chains]))
    if place == 0:
        return step
    trial = run.warmup["tuned"][:, marks[place - 1] - marks[place] :]
    trial = trial[~np.isnan(trial)]
    if not trial.size:
        return step
    kernel = FIT_KERNELS[sampler.kernel]
    aim = kernel.target_acceptance if sampler.target_acceptance is None else sampler.target_acceptance
    return correct_step(step, float(trial.mean()), aim, kernel.order)


def _best_of_list(run: Run, sampler: SamplerSection, marks: list[int]) -> float:
    """The paper's choice: of the step sizes tried, that whose acceptance came closest to the aim."""
    acceptance = run.warmup["acceptance"][:, -marks[-1] :]
    parts = [float(part.mean()) for part in np.split(acceptance, marks[:-1], axis=1)]
    aim = FIT_KERNELS[PAPER].target_acceptance if sampler.target_acceptance is None else sampler.target_acceptance
    return sampler.step_sizes[int(np.argmin(np.abs(np.array(parts) - aim)))]


def _freeze(run: Run, step: float) -> None:
    dual = start_dual_average(torch.tensor([step], dtype=torch.float64))
    run.chains = [replace(chain, dual=dual) for chain in run.chains]


def _segment(
    run: Run, workers: Workers, sampler: SamplerSection, n_steps: int, records: dict[str, FloatArray], *, adapting: bool, progress: Progress
) -> None:
    approaching = run.stage == 0 and adapting and sampler.kernel != PAPER
    kernel, aim = (sampler.burn_in, None) if approaching else (sampler.kernel, sampler.target_acceptance)
    surrogate = None if approaching else run.surrogate
    segments = [Segment(chain, kernel, run.factor, n_steps, adapting, aim, run.length, surrogate) for chain in run.chains]
    brought: list[Drawn]
    if run.way in TOGETHER:
        (brought,) = workers.map(approach_together_in_chart if approaching else together_in_chart, [(run.chart, segments)])
    elif surrogate is not None:
        # the same whatever the number of processes, on which no draw may depend
        shares = np.array_split(np.arange(len(segments)), max(2, math.ceil(len(segments) / TOGETHER_AT_MOST)))
        found = workers.map(together_in_chart, [(run.chart, [segments[c] for c in share], False) for share in shares])
        brought = [drawn for share in found for drawn in share]
    else:
        brought = workers.map(approach_in_chart if approaching else segment_in_chart, [(run.chart, segment) for segment in segments])
    run.chains = [drawn.chain for drawn in brought]
    run.gradients += sum(drawn.gradients for drawn in brought)
    run.steps_done += n_steps
    new = {name: np.stack([getattr(drawn, name) for drawn in brought]) for name in RECORDS}
    # all at once: an interruption must find records of one length
    records.update({name: np.concatenate([records[name], array], axis=1) if name in records else array for name, array in new.items()})
    for drawn in brought:
        k = int(np.argmax(drawn.log_density))
        if drawn.log_density[k] > run.best_log_density:
            run.best_log_density, run.best_z = float(drawn.log_density[k]), torch.from_numpy(drawn.z[k].copy())
    progress.advance(n_steps, f"acceptance {np.mean([d.acceptance.mean() for d in brought]):.2f}")


def _end_stage(run: Run, workers: Workers, sampler: SamplerSection, marks: list[int]) -> str:
    """Set metric and step size for the next stage, and bring back chains from modes without weight; the last stage only tunes the step."""
    last = run.stage == len(sampler.warmup) - 1
    if last and sampler.kernel == PAPER:
        step = _best_of_list(run, sampler, marks)
    elif last:
        step = _next_step(run, sampler, marks)
    else:
        step = pool_steps(torch.cat([final_step(chain.dual) for chain in run.chains]))
    note = f"step {step:.3f}" + (_believed(run) if sampler.kernel == SURROGATE and (run.stage or last) else "")
    if not last:
        note += _paper_metric(run, workers, sampler) if sampler.kernel == PAPER else _pooled_metric(run, workers, sampler)
        if sampler.kernel == SURROGATE:
            (run.surrogate,) = workers.map(expand_in_chart, [(run.chart, run.best_z)])
    run.steps.append(step)
    run.stage += 1
    run.steps_done = 0
    run.chains = [restart_adaptation(chain, step) for chain in run.chains]
    return note


def _believed(run: Run) -> str:
    """How often the likelihood agreed with its expansion of late, and what to do where it hardly did."""
    steps = min(BELIEVED_OVER, run.steps_done if run.stage else 2 * (run.steps_done // 5))
    acceptance, tuned = (run.warmup[name][:, -max(steps, 1) :] for name in ("acceptance", "tuned"))
    followed = acceptance[~np.isnan(tuned)]
    if not followed.size:
        return ""
    accepted = float(followed.mean())
    advice = "" if accepted > LEAST_BELIEVED else f' (below {LEAST_BELIEVED:g}: kernel = "hmc" needs no expansion)'
    return f", {100 * accepted:.0f} % of the expansion's proposals accepted{advice}"


def _paper_metric(run: Run, workers: Workers, sampler: SamplerSection) -> str:
    """The Fisher matrix at the best point sampled so far, with its ridge and no prior (Yantovski-Barth et al., App. C)."""
    precision = workers.map(fisher_in_chart, [(run.chart, run.best_z, False)])[0]
    if bool(torch.isfinite(precision).all()):
        run.precision = precision
        run.factor = factor_of_precision(add_ridge(precision, ridge_frac=sampler.ridge_frac, ridge_min=sampler.ridge_min))
    return ", metric at the best point"


def _pooled_metric(run: Run, workers: Workers, sampler: SamplerSection) -> str:
    """The Fisher matrix pooled over where the chains are; those in modes without weight do not count, and are brought back."""
    total = sampler.warmup[run.stage]
    half = slice(-(total - total // 2), None)
    position, log_density = run.warmup["z"][:, half], run.warmup["log_density"][:, half]
    points = picked(position, sampler.metric_points)
    fishers = _fishers(run, workers, points)
    means = [mean_of_finite(matrices, otherwise=run.precision) for matrices in fishers]
    held = [c for c, weight in enumerate(log_weights(log_density, means)) if weight > NO_WEIGHT]
    run.precision = torch.stack([means[c] for c in held]).mean(dim=0)
    run.factor = factor_of_precision(add_ridge(run.precision, ridge_frac=sampler.ridge_frac, ridge_min=sampler.ridge_min))
    run.length = widest_direction(torch.from_numpy(position[held].swapaxes(0, 1).copy()), run.factor)
    note = f", metric from {sampler.metric_points} points, {run.length:.1f} wide"
    strays = [c for c in range(len(run.chains)) if c not in held]
    if strays:
        homes = [held[c % len(held)] for c in strays]
        places = [torch.from_numpy(position[home, c % position.shape[1]].copy()) for c, home in zip(strays, homes, strict=True)]
        _bring_back(run, workers, strays, places)
        # none has a start of its own any more: nested R-hat must not count it as one
        moved = dict(zip(strays, homes, strict=True))
        run.superchains = [run.superchains[moved.get(c, c)] for c in range(len(run.superchains))]
        note += f", {len(strays)} of {len(run.chains)} chains brought back from modes with less than e^{NO_WEIGHT:.0f} of the weight"
    known = [pair for c in held for pair in zip(points[c], fishers[c], strict=True)]
    return note + _renew_chart(run, workers, sampler, position[held], known)


def _renew_chart(run: Run, workers: Workers, sampler: SamplerSection, position: FloatArray, known: list[tuple[Tensor, Tensor]]) -> str:
    """Choose pivots and widenings by which the Fisher matrix changes least over where the chains are, and carry chains and metric there."""
    finite = [(z, matrix) for z, matrix in known if bool(torch.isfinite(matrix).all())]
    if finite and (run.chart.velocity_radius is not None or run.chart.widened):
        (regular,) = workers.map(regular_points, [(run.chart, [z for z, _ in finite])])
        finite = [pair for pair, kept in zip(finite, regular, strict=True) if kept]
    if not finite:
        return ""
    points, fishers = [z for z, _ in finite], [matrix for _, matrix in finite]
    pivots = choose_pivots(workers, run.chart, points, fishers)
    if pivots.chart != run.chart:
        (points,) = workers.map(carry_positions, [(run.chart, pivots.chart, points)])
    choice = choose_widening(workers, pivots.chart, points, pivots.fishers)
    if choice.chart == run.chart:
        return ""
    old, run.chart = run.chart, choice.chart
    run.chains = workers.map(carry_chain, [(old, run.chart, chain) for chain in run.chains])
    (best,) = workers.map(carry_chain, [(old, run.chart, replace(run.chains[0], state=_at(run.chains[0].state, run.best_z)))])
    run.best_z, run.best_log_density = best.state.position[0], float(best.state.log_density[0])
    run.precision = torch.stack(choice.fishers).mean(dim=0)
    run.factor = factor_of_precision(add_ridge(run.precision, ridge_frac=sampler.ridge_frac, ridge_min=sampler.ridge_min))
    some = [[torch.from_numpy(z.copy()) for z in of_chain[::CARRIED_EVERY]] for of_chain in position]
    moved = workers.map(carry_positions, [(old, run.chart, of_chain) for of_chain in some])
    run.length = widest_direction(torch.stack([torch.stack(of_chain) for of_chain in moved], dim=1), run.factor)
    note = f", now {run.length:.1f} wide"
    if pivots.chart != old:
        note += (f", pivots moved to {run.chart.velocity_radius:.3g} and {run.chart.slope_radius:.3g} arcsec "
                 f"(stiffness {pivots.stiffness[0]:.2g} to {pivots.stiffness[1]:.2g})")
    if choice.chart.widened != old.widened:
        names = ", ".join(name for name, *_ in choice.chart.widened) or "none"
        note += f", widened: {names} (unevenness {choice.unevenness[0]:.2g} to {choice.unevenness[1]:.2g})"
    return note


def _at(state: State, position: Tensor) -> State:
    return state._replace(position=position[None])


def _fishers(run: Run, workers: Workers, points: list[list[Tensor]]) -> list[list[Tensor]]:
    """Fisher matrix plus prior at each chain's points.

    Source: the paper evaluates it at the best point alone (App. C.1). Averaged over the posterior it stays the natural metric where the
    curvature changes from place to place; a covariance pooled over the few effective draws of a warm-up stage is far noisier than either.
    """
    each = len(points[0])
    every = [z for of_chain in points for z in of_chain]
    if run.way in TOGETHER:
        (matrices,) = workers.map(fishers_in_chart, [(run.chart, every)])
    else:
        matrices = workers.map(fisher_in_chart, [(run.chart, z) for z in every])
    return [matrices[c * each : (c + 1) * each] for c in range(len(points))]


def _bring_back(run: Run, workers: Workers, strays: list[int], positions: list[Tensor]) -> None:
    placed = workers.map(place_in_chart, [(run.chart, run.chains[c], z) for c, z in zip(strays, positions, strict=True)])
    for c, chain in zip(strays, placed, strict=True):
        run.chains[c] = chain
    run.brought_back += len(strays)
