"""A run of chains through warm-up stages and draws, saved after every segment, continued from wherever it was cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.inference.adaptation import final_step, pool_steps
from supermage.inference.chains import Chain, Drawn, Segment, Workers, fisher_in_chart, restart_adaptation, segment_in_chart
from supermage.inference.metric import add_ridge, effective_draws, factor_of_covariance, factor_of_precision, pooled_covariance, shrink
from supermage.inference.model import Chart
from supermage.progress import Progress
from supermage.recipe import SamplerSection

FloatArray = NDArray[np.float64]

RECORDS = ("z", "theta", "log_density", "log_probability", "acceptance", "step_size")
"""What is kept of every step, by the names of `Drawn`."""


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
        Fisher matrix plus prior at the best point so far.
    best_z, best_log_density
        That point.
    stage
        Warm-up stage, or their number for the draws.
    steps_done
        Steps done in this stage, each chain.
    gradients
        Spent so far, all chains.
    warmup, draws
        Records, each (chain, step, ...).
    stage_records
        z of the stage going on.
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but numbers and names as arrays, for a checkpoint."""
        out: dict[str, NDArray[Any]] = {"factor": self.factor.numpy(), "precision": self.precision.numpy(), "best_z": self.best_z.numpy()}
        for number, chain in enumerate(self.chains):
            out |= {f"chain{number}.{name}": array for name, array in chain.arrays().items()}
        out |= {f"warmup.{name}": array for name, array in self.warmup.items()}
        return out | {f"draws.{name}": array for name, array in self.draws.items()}

    def notes(self) -> dict[str, Any]:
        """The rest, for JSON."""
        return {"chart": [self.chart.cut, self.chart.velocity_radius, self.chart.slope_radius, list(map(list, self.chart.reference))],
                "chains": len(self.chains), "best_log_density": self.best_log_density, "stage": self.stage, "steps_done": self.steps_done,
                "gradients": self.gradients, "steps": self.steps}

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[Any]], notes: dict[str, Any]) -> Run:
        """The inverse of `arrays` and `notes`."""
        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

        cut, velocity_radius, slope_radius, reference = notes["chart"]
        chart = Chart(cut, velocity_radius, slope_radius, tuple((str(name), float(value)) for name, value in reference))
        tensors = [torch.from_numpy(arrays[name].copy()) for name in ("factor", "precision", "best_z")]
        chains = [Chain.from_arrays(part(f"chain{number}.")) for number in range(notes["chains"])]
        return cls(chart, chains, *tensors, notes["best_log_density"], notes["stage"], notes["steps_done"], notes["gradients"],
                   part("warmup."), part("draws."), list(notes["steps"]))


def advance(run: Run, workers: Workers, sampler: SamplerSection, *, save: Callable[[Run], None], progress: Progress) -> None:
    """Carry a run to its end, in place; ``save`` is called after every segment."""
    while run.stage < len(sampler.warmup):
        total = sampler.warmup[run.stage]
        progress.start(f"warm-up, stage {run.stage + 1} of {len(sampler.warmup)}", total)
        progress.advance(run.steps_done)
        while run.steps_done < total:
            _segment(run, workers, sampler, min(sampler.segment, total - run.steps_done), run.warmup, adapting=True, progress=progress)
            if run.steps_done < total:
                save(run)
        progress.done(_end_stage(run, workers, sampler))
        save(run)
    progress.start("draws", sampler.draws)
    progress.advance(run.steps_done)
    while run.steps_done < sampler.draws:
        _segment(run, workers, sampler, min(sampler.segment, sampler.draws - run.steps_done), run.draws, adapting=False, progress=progress)
        save(run)
    progress.done(f"{run.gradients} gradients")


def _segment(run: Run, workers: Workers, sampler: SamplerSection, n_steps: int, records: dict[str, FloatArray], *, adapting: bool,
             progress: Progress) -> None:
    work = [(run.chart, Segment(chain, sampler.kernel, run.factor, n_steps, adapting)) for chain in run.chains]
    brought: list[Drawn] = workers.map(segment_in_chart, work)
    run.chains = [drawn.chain for drawn in brought]
    run.gradients += sum(drawn.gradients for drawn in brought)
    run.steps_done += n_steps
    for name in RECORDS:
        new = np.stack([getattr(drawn, name) for drawn in brought])
        records[name] = np.concatenate([records[name], new], axis=1) if name in records else new
    for drawn in brought:
        k = int(np.argmax(drawn.log_density))
        if drawn.log_density[k] > run.best_log_density:
            run.best_log_density, run.best_z = float(drawn.log_density[k]), torch.from_numpy(drawn.z[k].copy())
    progress.advance(n_steps, f"acceptance {np.mean([d.acceptance.mean() for d in brought]):.2f}")


def _end_stage(run: Run, workers: Workers, sampler: SamplerSection) -> str:
    """Set metric and step size for the next stage.

    After the first stage the metric is the Fisher matrix at the best point sampled (paper, App. C). After later ones it is the
    covariance pooled over the chains' second half, shrunk towards that. The last stage only tunes the step size.
    """
    total, last = sampler.warmup[run.stage], run.stage == len(sampler.warmup) - 1
    step = pool_steps(torch.cat([final_step(chain.dual) for chain in run.chains]))
    note = f"step {step:.3f}"
    if not last:
        run.precision = workers.map(fisher_in_chart, [(run.chart, run.best_z)])[0]
        precision = add_ridge(run.precision, ridge_frac=sampler.ridge_frac, ridge_min=sampler.ridge_min)
        laplace = factor_of_precision(precision)
        run.factor = laplace
        if run.stage > 0:
            recent = torch.from_numpy(run.warmup["z"][:, -(total - total // 2):]).permute(1, 0, 2)
            effective = effective_draws(recent)
            run.factor = factor_of_covariance(shrink(pooled_covariance(recent), laplace @ laplace.mT, effective=effective))
            note += f", {effective:.0f} effective draws in the metric"
    run.steps.append(step)
    run.stage += 1
    run.steps_done = 0
    run.chains = [restart_adaptation(chain, step) for chain in run.chains]
    return note
