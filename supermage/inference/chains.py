"""Chains in segments: each chain owns its random generator, so that the draws do not depend on how the work is spread or interrupted."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import SupermageError
from supermage.inference import langevin
from supermage.inference.adaptation import DualAverage, final_step, start_dual_average, update_dual_average
from supermage.inference.langevin import FIT_KERNELS, State, draw_numbers
from supermage.inference.metric import add_ridge, factor_of_precision
from supermage.inference.model import Chart, GalaxyFit, PosteriorTarget
from supermage.inference.surrogate import Surrogate, SurrogateTarget, expand

Result = TypeVar("Result")


@dataclass(frozen=True)
class Chain:
    """One chain between two segments: state, step-size adaptation, random generator."""

    state: State
    dual: DualAverage
    generator: Tensor

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, for a checkpoint."""
        named = {f"state.{k}": v for k, v in self.state._asdict().items()} | {f"dual.{k}": v for k, v in self.dual._asdict().items()}
        return {name: tensor.numpy() for name, tensor in {**named, "generator": self.generator}.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return cls(
            State(*(tensors[f"state.{k}"] for k in State._fields)),
            DualAverage(*(tensors[f"dual.{k}"] for k in DualAverage._fields)),
            tensors["generator"],
        )


@dataclass(frozen=True)
class Segment:
    """Work for one chain: so many steps of a kernel with a metric factor.

    ``adapting`` tunes the step size on the way, to ``target_acceptance`` or the kernel's own; ``length`` is the posterior's widest
    direction in units of the metric; ``surrogate`` is what `SURROGATE` makes its proposals with.
    """

    chain: Chain
    kernel: str
    factor: Tensor
    n_steps: int
    adapting: bool
    target_acceptance: float | None = None
    length: float = 1.0
    surrogate: Surrogate | None = None


@dataclass(frozen=True)
class Drawn:
    """What a segment brought: positions z and parameters, (step, param); log density of z and of the parameters, acceptance, step size.

    ``tuned`` is the acceptance that the step size is tuned on; see `supermage.inference.langevin.Info`.
    """

    chain: Chain
    z: NDArray[np.float64]
    theta: NDArray[np.float64]
    log_density: NDArray[np.float64]
    log_probability: NDArray[np.float64]
    acceptance: NDArray[np.float64]
    step_size: NDArray[np.float64]
    tuned: NDArray[np.float64]
    gradients: int


RECORDS = ("z", "theta", "log_density", "log_probability", "acceptance", "step_size", "tuned")
"""What is kept of every step, by the names of `Drawn`."""


class Target(Protocol):
    """A log density with gradient, and the parameters that belong to a position."""

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log density and gradient of (chain, param) positions."""

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters at z and the log Jacobian of the map."""


def start_chain(target: Target, position: Tensor, *, step_size: float, seed: int, number: int) -> Chain:
    """A chain at a position (param,), with a generator of its own that follows from the run's seed and the chain's number."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1))
    dual = start_dual_average(torch.tensor([step_size], dtype=torch.float64))
    return Chain(langevin.init(target, position[None]), dual, generator.get_state())


def restart_adaptation(chain: Chain, step_size: float) -> Chain:
    """The same chain with its adaptation begun anew at ``step_size``, its momentum forgotten (the metric has changed)."""
    dual = start_dual_average(torch.tensor([step_size], dtype=torch.float64))
    return Chain(chain.state._replace(momentum=torch.zeros_like(chain.state.momentum)), dual, chain.generator)


def run_segment(target: Target, segment: Segment) -> Drawn:
    """Run a segment; a pure function of the segment. With ``adapting`` false the step size is the adaptation's average, frozen."""
    kernel = FIT_KERNELS[segment.kernel]
    state, dual = segment.chain.state, segment.chain.dual
    aim = kernel.target_acceptance if segment.target_acceptance is None else segment.target_acceptance
    generator = torch.Generator()
    generator.set_state(segment.chain.generator)
    n, dimension = segment.n_steps, state.position.shape[1]
    z, theta = torch.empty(n, dimension, dtype=torch.float64), torch.empty(n, dimension, dtype=torch.float64)
    log_density, log_jacobian, acceptance, steps = (torch.empty(n, dtype=torch.float64) for _ in range(4))
    gradients = 0
    for k in range(n):
        step_size = torch.exp(dual.log_step) if segment.adapting else final_step(dual)
        state, info = kernel.step(target, state, segment.factor, step_size, draw_numbers([generator], dimension), segment.length)
        if segment.adapting:
            dual = update_dual_average(dual, info.acceptance, aim)
        gradients += info.gradients
        z[k] = state.position[0]
        theta[k], log_jacobian[k] = target.parameters(state.position[0])
        log_density[k], acceptance[k], steps[k] = state.log_density[0], info.acceptance[0], step_size[0]
    chain = Chain(state, dual, generator.get_state())
    return Drawn(
        chain,
        z.numpy(),
        theta.numpy(),
        log_density.numpy(),
        (log_density - log_jacobian).numpy(),
        acceptance.numpy(),
        steps.numpy(),
        acceptance.numpy(),
        gradients,
    )


def run_together(target: PosteriorTarget, segments: Sequence[Segment], *, one_pass: bool = True) -> list[Drawn]:
    """Segments of several chains in lockstep; each chain's random numbers are its own, as in `run_segment`.

    A metric that the segments share is one object; else each chain uses its own. ``one_pass``: the chains' densities come of one vmapped
    pass, not one after the other.
    """
    first = segments[0]
    shared = all(segment.factor is first.factor for segment in segments)
    factor = first.factor if shared else torch.stack([segment.factor for segment in segments])
    kernel = FIT_KERNELS[first.kernel]
    aim = kernel.target_acceptance if first.target_acceptance is None else first.target_acceptance
    state = State(*(torch.cat(parts) for parts in zip(*(segment.chain.state for segment in segments), strict=True)))
    dual = DualAverage(*(torch.cat(parts) for parts in zip(*(segment.chain.dual for segment in segments), strict=True)))
    generators = [torch.Generator() for _ in segments]
    for generator, segment in zip(generators, segments, strict=True):
        generator.set_state(segment.chain.generator)
    step = _step_of(target.of_chains if one_pass else target, target, first)
    kept: dict[str, list[Tensor]] = {name: [] for name in RECORDS}
    gradients = 0
    for _ in range(first.n_steps):
        step_size = torch.exp(dual.log_step) if first.adapting else final_step(dual)
        state, info = step(state, factor, step_size, generators)
        tuned = info.acceptance if info.tuned is None else info.tuned
        if first.adapting:
            dual = update_dual_average(dual, torch.where(torch.isnan(tuned), info.acceptance, tuned), aim)
        gradients += info.gradients
        theta, log_jacobian = target.parameters_of_chains(state.position)
        record = (state.position, theta, state.log_density, state.log_density - log_jacobian, info.acceptance, step_size, tuned)
        for values, value in zip(kept.values(), record, strict=True):
            values.append(value)
    records = {name: torch.stack(values, dim=1).numpy() for name, values in kept.items()}
    ended = [Chain(State(*(part[c : c + 1] for part in state)), DualAverage(*(part[c : c + 1] for part in dual)), generator.get_state())
             for c, generator in enumerate(generators)]  # fmt: skip
    return [Drawn(chain, **{name: record[c] for name, record in records.items()}, gradients=gradients) for c, chain in enumerate(ended)]


def _step_of(density: langevin.Target, target: PosteriorTarget, segment: Segment) -> Callable[..., tuple[State, langevin.Info]]:
    """``(state, factor, step_size, generators) -> (state, info)`` of a segment's kernel."""
    if segment.surrogate is None:
        kernel = FIT_KERNELS[segment.kernel].step
        return lambda state, factor, step_size, generators: kernel(
            density, state, factor, step_size, draw_numbers(generators, state.position.shape[1]), segment.length
        )
    approximate = SurrogateTarget(target.fit, target.coordinates, segment.surrogate)

    def step(state: State, factor: Tensor, step_size: Tensor, generators: list[torch.Generator]) -> tuple[State, langevin.Info]:
        numbers = draw_numbers(generators, state.position.shape[1])
        return langevin.surrogate_kernel(density, approximate, state, factor, step_size, numbers, segment.length)

    return step


class Problem:
    """A fit inside a process: the model, and the target in the chart last asked for."""

    def __init__(self, fit: GalaxyFit) -> None:
        self.fit = fit
        self._together: GalaxyFit | None = None
        self._target: tuple[Chart, PosteriorTarget] | None = None

    def accelerate(self, device: str | None) -> None:
        """From now on chains in one pass use a model on this device; None: that of the loop."""
        self._together = None if device is None else self.fit.on(device)
        self._target = None

    def target(self, chart: Chart) -> PosteriorTarget:
        """The posterior in a chart's coordinates."""
        if self._target is None or self._target[0] != chart:
            self._target = (chart, PosteriorTarget(self.fit, self.fit.coordinates(chart), self._together))
        return self._target[1]


_PROBLEM: list[Problem] = []


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _enter_process(factory: Callable[[], GalaxyFit]) -> None:
    # Ctrl-C belongs to the parent, which saves what is drawn
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a parent that is killed cannot end its processes, and they would wait for work for ever
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _PROBLEM[:] = [Problem(factory())]


def _in_process(packed: bytes) -> bytes:
    # packed here, by value: left to itself torch passes file descriptors, and a process that ends meanwhile leaves a traceback
    function, arguments = pickle.loads(packed)
    return pickle.dumps(function(_PROBLEM[0], *arguments))


def _then(result: Result, ended: Callable[[], object]) -> Result:
    ended()
    return result


class Workers:
    """Processes that each hold the model; one process means this one. Every one uses a single thread, so that sums come out the same.

    Parameters
    ----------
    factory
        Makes the model; must be picklable where there are several processes.
    processes
        How many.
    fit
        The model, where this process has it already.
    """

    def __init__(self, factory: Callable[[], GalaxyFit], processes: int, *, fit: GalaxyFit | None = None) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.problem = Problem(factory() if fit is None else fit)
        self.spread(factory, processes)

    def spread(self, factory: Callable[[], GalaxyFit], processes: int) -> None:
        """From now on use so many processes, where there are none yet."""
        if processes > 1 and self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_enter_process, initargs=(factory,))

    def map(
        self, function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], *, ended: Callable[[], object] = lambda: None
    ) -> list[Result]:
        """``function(problem, *arguments)`` for every tuple of arguments, in order; ``ended`` is called after each, as it ends.

        Raises
        ------
        SupermageError
            If a process died, of too little memory for instance.
        """
        if self._pool is None:
            return [_then(function(self.problem, *a), ended) for a in arguments]
        try:
            futures = [self._pool.submit(_in_process, pickle.dumps((function, a))) for a in arguments]
            for future in as_completed(futures):
                _then(future.result(), ended)
            brought: list[Result] = [pickle.loads(future.result()) for future in futures]
            return brought
        except BrokenProcessPool:
            raise SupermageError("the processes of a fit must live to its end, got one that died (out of memory?)") from None

    def stop(self) -> None:
        """End the processes at once, in the middle of their work."""
        if self._pool is not None:
            for process in list((getattr(self._pool, "_processes", None) or {}).values()):
                process.terminate()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        torch.set_num_threads(self._threads)


def segment_in_chart(problem: Problem, chart: Chart, segment: Segment) -> Drawn:
    """`run_segment` on the posterior in a chart's coordinates; for `Workers.map`."""
    return run_segment(problem.target(chart), segment)


def together_in_chart(problem: Problem, chart: Chart, segments: Sequence[Segment], one_pass: bool = True) -> list[Drawn]:
    """`run_together` on the posterior in a chart's coordinates; for `Workers.map`."""
    return run_together(problem.target(chart), segments, one_pass=one_pass)


def expand_in_chart(problem: Problem, chart: Chart, z: Tensor) -> Surrogate:
    """The likelihood's expansion about z; for `Workers.map`.

    Raises
    ------
    SupermageError
        If it is not finite.
    """
    with torch.no_grad():
        theta = problem.fit.coordinates(chart).to_theta(z)[0]
    found = expand(problem.fit, theta)
    if not found.finite:
        raise SupermageError("the kernel surrogate-hmc needs finite derivatives of the likelihood at the best point, got some that are not")
    return found


def approach_in_chart(problem: Problem, chart: Chart, segment: Segment) -> Drawn:
    """`run_segment` with the Fisher matrix of where the chain is as its metric: to come from a far start to the bulk, never for draws."""
    target = problem.target(chart)
    return run_segment(target, _with_metric(segment, target.fisher(segment.chain.state.position[0])))


def approach_together_in_chart(problem: Problem, chart: Chart, segments: Sequence[Segment]) -> list[Drawn]:
    """`approach_in_chart` of all chains in one vmapped pass a step."""
    target = problem.target(chart)
    precisions = target.fisher_of_chains(torch.cat([segment.chain.state.position for segment in segments]))
    return run_together(target, [_with_metric(segment, precision) for segment, precision in zip(segments, precisions, strict=True)])


def _with_metric(segment: Segment, precision: Tensor) -> Segment:
    if not bool(torch.isfinite(precision).all()):
        return segment
    momentum = torch.zeros_like(segment.chain.state.momentum)
    chain = replace(segment.chain, state=segment.chain.state._replace(momentum=momentum))
    return replace(segment, chain=chain, factor=factor_of_precision(add_ridge(precision)))


def fisher_in_chart(problem: Problem, chart: Chart, z: Tensor, with_prior: bool = True) -> Tensor:
    """The Fisher matrix at z in a chart's coordinates; for `Workers.map`."""
    return problem.target(chart).fisher(z, with_prior=with_prior)


def fishers_in_chart(problem: Problem, chart: Chart, points: Sequence[Tensor]) -> list[Tensor]:
    """`fisher_in_chart` at many points in one vmapped pass."""
    return list(problem.target(chart).fisher_of_chains(torch.stack(list(points))))


def place_in_chart(problem: Problem, chart: Chart, chain: Chain, position: Tensor) -> Chain:
    """The same chain, its generator and adaptation kept, at another position (param,); for `Workers.map`."""
    return replace(chain, state=langevin.init(problem.target(chart), position[None]))


def chain_in_chart(problem: Problem, chart: Chart, position: Tensor, step_size: float, seed: int, number: int) -> Chain:
    """`start_chain` on the posterior in a chart's coordinates; for `Workers.map`."""
    return start_chain(problem.target(chart), position, step_size=step_size, seed=seed, number=number)
