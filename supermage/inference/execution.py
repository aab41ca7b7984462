"""How the chains of a fit are carried: one after the other, in processes, or in one vmapped pass, on a graphics card if there is one.

A timing probe decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from supermage.errors import RecipeError
from supermage.inference.chains import Problem
from supermage.inference.model import Chart, PosteriorTarget
from supermage.recipe import SamplerSection

REPEATS = 3
"""Times that each way is tried; the fastest counts."""

SPREAD = 0.3
"""Scatter of the trial positions about the middle of the priors, in the widths of the priors."""

AGREEMENT = 1e-4
"""Relative difference of a vmapped log density or gradient from the loop's from which on vmap is not used."""

CLEARLY_FASTER = 0.7
"""One pass is taken where it needs less than this share of the time of chains carried one by one."""

Way = Literal["loop", "processes", "vmap", "gpu"]
TOGETHER: tuple[Way, ...] = ("vmap", "gpu")


@dataclass(frozen=True)
class Plan:
    """How chains are carried, and what the probe found.

    Attributes
    ----------
    way
        ``loop``: one chain after the other in this process; ``processes``: spread over several; ``vmap``: all chains in one pass;
        ``gpu``: the same on a graphics card.
    processes
        How many there are.
    seconds
        A step of all chains by each way, s: timed, but for processes, which are reckoned from the loop; empty where the recipe decided.
    """

    way: Way = "loop"
    processes: int = 1
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The choice in a line."""
        what = {"loop": "one chain after the other", "processes": f"chains in {self.processes} processes", "vmap": "all chains in one pass",
                "gpu": "all chains in one pass on a graphics card"}  # fmt: skip
        tried = ", ".join(f"{way} {1e3 * seconds:.3g} ms" for way, seconds in self.seconds.items())
        return what[self.way] + (f" (a step of all: {tried})" if tried else " (as the recipe says)")

    def notes(self) -> dict[str, Any]:
        """For a checkpoint or a posterior's attributes."""
        return asdict(self)


def choose_plan(problem: Problem, sampler: SamplerSection, *, cores: int | None = None) -> Plan:
    """The recipe's way, or the fastest of those that a probe of the posterior's gradient tries.

    Parameters
    ----------
    problem
        The fit.
    sampler
        ``execution`` and ``processes`` of the recipe; ``processes`` alone, above 1, means processes.
    cores
        Cores that may be used; those of this process where not given.

    Raises
    ------
    RecipeError
        If the recipe asks for a graphics card and there is none that torch can use, or the model does not give the loop's numbers there.
    """
    processes = _processes(sampler, cores)
    if sampler.execution == "processes":
        return Plan("processes", processes)
    if sampler.execution == "vmap" or sampler.execution == "loop":
        return Plan(sampler.execution)
    if sampler.execution == "gpu":
        found = _on_accelerator(problem, _positions(problem, sampler))
        if found is None:
            raise RecipeError("fit.sampler.execution = 'gpu' needs a CUDA device on which the model gives the CPU's numbers, got none")
        return Plan("gpu")
    if sampler.processes is not None:
        return Plan("processes" if processes > 1 else "loop", processes)
    target, positions = problem.target(Chart()), _positions(problem, sampler)
    one = _seconds(lambda: target.value_and_gradient(positions[0]))
    seconds = {"loop": one * sampler.chains}
    if processes > 1:
        seconds["processes"] = one * -(-sampler.chains // processes)
    vmapped = _vmapped_seconds(target, positions)
    if vmapped is not None:
        seconds["vmap"] = vmapped
    accelerated = _on_accelerator(problem, positions)
    if accelerated is not None:
        seconds["gpu"] = accelerated
    way: Way = "processes" if "processes" in seconds else "loop"
    # these two give the same bits; one pass rounds otherwise, so that a choice which hangs on the clock's noise would change the draws
    for other in TOGETHER:
        if other in seconds and seconds[other] < (CLEARLY_FASTER if way not in TOGETHER else 1.0) * seconds[way]:
            way = other
    if way != "gpu":
        problem.accelerate(None)
    return Plan(way, processes if way == "processes" else 1, {name: float(f"{value:.3g}") for name, value in seconds.items()})


def resume_plan(problem: Problem, sampler: SamplerSection, began: Plan, *, cores: int | None = None) -> Plan:
    """The plan by which a run goes on that began by another: one pass stays one pass, since it rounds otherwise than a loop.

    Loop and processes give the same bits, and the recipe chooses between them. A run of a graphics card goes on without one where there
    is none; its draws are then as good, though not the same bit by bit.
    """
    if began.way in TOGETHER:
        device = _accelerator() if began.way == "gpu" else None
        problem.accelerate(device)
        return replace(began, way="vmap" if device is None else "gpu")
    processes = _processes(sampler, cores)
    as_before = began.way == "processes" if sampler.processes is None else processes > 1
    wanted = {"processes": True, "loop": False}.get(sampler.execution, as_before)
    return replace(began, way="processes" if wanted else "loop", processes=processes if wanted else 1)


def _processes(sampler: SamplerSection, cores: int | None) -> int:
    if sampler.processes is not None:
        return sampler.processes
    available = len(os.sched_getaffinity(0)) if cores is None and hasattr(os, "sched_getaffinity") else (cores or os.cpu_count() or 1)
    return min(sampler.chains, available)


def _accelerator() -> str | None:
    return "cuda" if torch.cuda.is_available() else None


def _on_accelerator(problem: Problem, positions: Tensor) -> float | None:
    """A step of all chains on the graphics card; None without one, or where its memory or its numbers do not serve."""
    device = _accelerator()
    if device is None:
        return None
    try:
        problem.accelerate(device)
    except (RuntimeError, AttributeError):
        problem.accelerate(None)
        return None
    seconds = _vmapped_seconds(problem.target(Chart()), positions)
    if seconds is None:
        problem.accelerate(None)
    return seconds


def _positions(problem: Problem, sampler: SamplerSection) -> Tensor:
    """Trial positions about the middle of the priors."""
    dimension = problem.target(Chart()).coordinates.dimension
    return torch.from_numpy(SPREAD * np.random.default_rng(sampler.seed).standard_normal((sampler.chains, dimension)))


def _seconds(function: Callable[[], object]) -> float:
    function()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return min(found)


def _vmapped_seconds(target: PosteriorTarget, positions: Tensor) -> float | None:
    """A step by vmap; None where the model does not allow it or its numbers are not those of the loop."""
    try:
        value, gradient = target.of_chains(positions)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
        return None
    expected = target(positions)
    for found, wanted in ((value, expected[0]), (gradient, expected[1])):
        fine = torch.isfinite(wanted)
        scale = wanted[fine].abs().max().clamp(min=1.0) if bool(fine.any()) else torch.ones(())
        if not torch.equal(torch.isfinite(found), fine) or bool(((found - wanted)[fine].abs() > AGREEMENT * scale).any()):
            return None
    return _seconds(lambda: target.of_chains(positions))
