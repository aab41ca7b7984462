"""sample: any log density on an unconstrained space, with the kernels of the fits."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import ConvergenceWarning, DomainError, nearest_name
from supermage.inference import langevin
from supermage.inference.adaptation import correct_step, final_step, pool_steps, start_dual_average, update_dual_average
from supermage.inference.batch_target import BatchTarget, LogDensity
from supermage.inference.langevin import KERNELS, State, draw_numbers
from supermage.inference.metric import (
    add_ridge,
    agree,
    checked_metric,
    effective_draws,
    factor_of_covariance,
    factor_of_precision,
    pooled_covariance,
    shrink,
    widest_direction,
)

FisherMatrix = Callable[[Tensor], Tensor]

STAGE_SHARES = (0.1, 0.1, 0.2, 0.25)
"""Shares of the warm-up after which the metric is set anew; the rest only tunes the step size."""

APPROACH: dict[str, tuple[str, ...]] = {"persistent-mala": ("mala",) * len(STAGE_SHARES)}
"""Kernels by which others walk through the stages that learn the metric. Persistent steps, tuned to be accepted, crawl in from far starts:
posteriordb's logmesquite came to R-hat 2.0 without, 1.01 with. Barker's steps did worse than either (3.3 on kidscore_interaction)."""

LEAST_FOR_TRIALS = 200
"""Steps of warm-up from which on its last fifth tries the step size, frozen, and corrects it twice."""

LEAST_FOR_VERDICT = 100
"""Draws a chain from which on it is said whether the chains agree."""

TINY_RIDGE = 1e-10
"""All that is added to a metric that was given: this share of its median diagonal."""


def sample(
    log_density: LogDensity, start: Tensor, *, kernel: str = "mala", draws: int, warmup: int, seed: int, fisher: FisherMatrix | None = None
) -> Any:
    """Draw from a density on an unconstrained space.

    Warm-up re-evaluates the metric in stages (the Fisher matrix at the best point so far, or the covariance pooled over the chains) and
    tunes the step size by dual averaging; both are frozen for the draws.

    Parameters
    ----------
    log_density
        Maps a (d,) float64 tensor to a scalar tensor, differentiable.
    start
        Where the chains begin, (chains, d) float64.
    kernel
        A name in `supermage.inference.langevin.KERNELS`. ``mala-paper`` is MALA without jitter here: its list of steps belongs to fits.
    draws, warmup
        Steps a chain, kept and not kept.
    seed
        Of all random numbers; each chain has a generator of its own.
    fisher
        Maps a (d,) tensor to the (d, d) matrix used as the metric, whole: only a tiny ridge is added. Without it the metric is learnt from
        the density's curvature where the chains are, and from their covariance as draws accumulate.

    Returns
    -------
    arviz.InferenceData
        ``posterior["x"]`` (chain, draw, x_dim_0), the warm-up beside it, and ``sample_stats`` (lp, acceptance_rate, step_size). Attributes
        say how chains were carried (``execution``) and at how many points the density raised (``failed_evaluations``): these are rejected.

        From 100 draws of two chains on ``worst_rhat`` and ``smallest_ess`` (bulk and tail) are there too.

    Warns
    -----
    ConvergenceWarning
        If draws were interrupted (Ctrl-C; those that there are come back, with the attribute ``interrupted``), if chains lie in different
        modes (in some dimension their central 90 % intervals do not meet), R-hat is 1.05 or more, an effective sample size is 100 or
        less, or one chain alone leaves nothing to judge by.

    Raises
    ------
    DomainError
        If the kernel is unknown, ``start`` is no tensor or has the wrong shape, numbers of steps are not positive, the density is no
        differentiable scalar, or a chain starts where it is not finite.
    """
    from supermage.inference import arviz_access

    _check(start, kernel, draws, warmup, seed)
    target = BatchTarget(log_density)
    generators = [
        torch.Generator().manual_seed(int(np.random.SeedSequence([seed, c]).generate_state(1, np.uint64)[0] >> 1))
        for c in range(len(start))
    ]
    state = langevin.init(target, start.detach().to(torch.float64).clone())
    if not bool(torch.isfinite(state.log_density).all()):
        raise DomainError(f"every start must have a finite log density, got {target.cause or state.log_density.tolist()}")
    warm, state, tuned = _warm_up(target, state, kernel, generators, warmup, fisher)
    steps = torch.full((len(start),), tuned.step, dtype=torch.float64)
    kept = _Record()
    interrupted = False
    try:
        for _ in range(draws):
            state, info = KERNELS[kernel].step(target, state, tuned.factor, steps, draw_numbers(generators, start.shape[1]), tuned.length)
            kept.add(state, info, steps)
    except KeyboardInterrupt:
        if not len(kept):
            raise
        interrupted = True
        warnings.warn(f"sampling was interrupted after {len(kept)} of {draws} draws, which are returned", ConvergenceWarning, stacklevel=2)
    stats = {"lp": kept.array("lp"), "acceptance_rate": kept.array("acceptance"), "step_size": kept.array("step")}
    groups = {"posterior": {"x": kept.array("x")}, "sample_stats": stats}
    if warmup:
        groups["warmup_posterior"] = {"x": warm.array("x")}
    attributes = {"kernel": kernel, "seed": seed, "gradients": warm.gradients + kept.gradients, "draw_gradients": kept.gradients,
                  "length": tuned.length, "execution": target.execution, "failed_evaluations": target.failed}
    if interrupted:
        attributes["interrupted"] = 1
    if len(kept) >= LEAST_FOR_VERDICT:
        attributes |= _verdict(groups["posterior"]["x"])
    return arviz_access.from_dict(groups, attributes=attributes)


def _check(start: object, kernel: object, draws: Any, warmup: Any, seed: Any) -> None:
    if not isinstance(kernel, str) or kernel not in KERNELS:
        raise DomainError(f"a kernel must be one of {', '.join(KERNELS)}, got {kernel!r}{nearest_name(str(kernel), KERNELS)}")
    if not isinstance(start, Tensor):
        raise DomainError(f"start must be a tensor of shape (chains, d), got a {type(start).__name__}")
    if start.ndim != 2 or 0 in start.shape:
        raise DomainError(f"start must have shape (chains, d), got {tuple(start.shape)}")
    for name, value in (("draws", draws), ("warmup", warmup), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise DomainError(f"{name} must be a whole number, got {value!r}")
    if seed < 0:
        raise DomainError(f"seed must not be negative, got {seed}")
    if draws < 1 or warmup < 0:
        raise DomainError(f"draws must be positive and warmup not negative, got {draws} and {warmup}")


def _verdict(x: NDArray[np.float64]) -> dict[str, float]:
    """Worst R-hat and smallest effective sample size of (chain, draw, d) draws; warns where chains disagree or say too little."""
    from supermage.inference.arviz_access import ess, rhat
    from supermage.inference.diagnostics import ESS_LIMIT, RHAT_LIMIT, find_modes

    if len(x) < 2:
        warnings.warn("convergence can be judged from two chains on, got one", ConvergenceWarning, stacklevel=3)
        return {}
    each = {f"x[{i}]": x[..., i] for i in range(x.shape[-1])}
    rhats = {name: rhat(values) for name, values in each.items()}
    worst = max(rhats, key=lambda name: np.nan_to_num(rhats[name], nan=np.inf))
    modes = find_modes(each)
    if len(modes) > 1:
        apart = " | ".join(" ".join(str(chain) for chain in mode) for mode in modes)
        warnings.warn(f"chains must agree, got chains in {len(modes)} modes: {apart}", ConvergenceWarning, stacklevel=3)
    elif not rhats[worst] < RHAT_LIMIT:
        text = f"R-hat must be below {RHAT_LIMIT}, got {rhats[worst]:.3f} in {worst}; draw more, or try another kernel"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)
    sizes = {name: float(np.min([ess(values, method=method) for method in ("bulk", "tail")])) for name, values in each.items()}
    fewest = min(sizes, key=lambda name: np.nan_to_num(sizes[name], nan=0.0))
    smallest = sizes[fewest]
    if len(modes) == 1 and rhats[worst] < RHAT_LIMIT and not smallest > ESS_LIMIT:
        text = f"effective sample sizes must be above {ESS_LIMIT:g}, got {smallest:.0f} in {fewest}; draw more"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)
    return {"worst_rhat": rhats[worst], "smallest_ess": smallest}


class _Record:
    """What is kept of every step."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Tensor]] = {"x": [], "lp": [], "acceptance": [], "step": []}
        self.gradients = 0

    def __len__(self) -> int:
        return len(self.rows["x"])

    def add(self, state: State, info: langevin.Info, step: Tensor) -> None:
        self.gradients += info.gradients * len(step)
        for name, value in (("step", step), ("lp", state.log_density), ("acceptance", info.acceptance), ("x", state.position)):
            self.rows[name].append(value)

    def array(self, name: str) -> Any:
        return torch.stack(self.rows[name][: len(self)], dim=1).numpy()


class _Tuned(NamedTuple):
    """What warm-up leaves: metric factor, step size, and the posterior's widest direction in the metric's units."""

    factor: Tensor
    step: float
    length: float


def _warm_up(
    target: BatchTarget, state: State, name: str, generators: list[torch.Generator], warmup: int, fisher: FisherMatrix | None
) -> tuple[_Record, State, _Tuned]:
    chains, dimension = state.position.shape
    record = _Record()
    walks = [KERNELS[walk] for walk in APPROACH.get(name, (name,) * len(STAGE_SHARES))] + [KERNELS[name]]
    best = int(state.log_density.argmax())
    best_x, best_value = state.position[best].clone(), float(state.log_density[best])
    factor = _given(fisher, best_x) if fisher is not None else _start_factor(target.curvature(state.position), dimension)
    length = 1.0
    dual = start_dual_average(torch.full((chains,), 1.0 / dimension ** (1 / 6), dtype=torch.float64))
    ends = np.cumsum([round(share * warmup) for share in STAGE_SHARES]).tolist()
    trial = warmup // 10
    trials = [warmup - 2 * trial, warmup - trial] if warmup >= LEAST_FOR_TRIALS else []
    frozen: float | None = None
    stage_start = 0
    for k in range(warmup):
        kernel = walks[bisect_right(ends, k)]
        if k in trials:
            frozen = pool_steps(final_step(dual)) if frozen is None else _corrected(frozen, record, trial, kernel)
        step = torch.exp(dual.log_step) if frozen is None else torch.full((chains,), frozen, dtype=torch.float64)
        state, info = kernel.step(target, state, factor, step, draw_numbers(generators, dimension), length)
        if frozen is None:
            dual = update_dual_average(dual, info.acceptance, kernel.target_acceptance)
        record.add(state, info, step)
        i = int(state.log_density.argmax())
        if float(state.log_density[i]) > best_value:
            best_x, best_value = state.position[i].clone(), float(state.log_density[i])
        if k + 1 in ends:
            recent = torch.stack(record.rows["x"][stage_start + (k + 1 - stage_start) // 3 :])
            factor = _given(fisher, best_x) if fisher is not None else _learnt(recent, target.curvature(state.position), factor)
            length = widest_direction(recent, factor)
            stage_start = k + 1
            dual = start_dual_average(final_step(dual) * _change(kernel, walks[bisect_right(ends, k + 1)]))
            state = state._replace(momentum=torch.zeros_like(state.momentum))
    last = pool_steps(final_step(dual)) if frozen is None else _corrected(frozen, record, trial, walks[-1])
    return record, state, _Tuned(factor, last, length)


def _change(old: langevin.Kernel, new: langevin.Kernel) -> float:
    """What a step is multiplied by when another kernel takes over: both are taken to accept by MALA's law."""
    return 1.0 if new is old else correct_step(1.0, old.target_acceptance, new.target_acceptance, new.order)


def _corrected(step: float, record: _Record, trial: int, kernel: langevin.Kernel) -> float:
    measured = float(torch.stack(record.rows["acceptance"][-trial:]).mean())
    return correct_step(step, measured, kernel.target_acceptance, kernel.order)


def _given(fisher: FisherMatrix, x: Tensor) -> Tensor:
    return factor_of_precision(add_ridge(checked_metric(fisher, x), ridge_frac=TINY_RIDGE, ridge_min=1e-300))


def _start_factor(curvature: Tensor | None, dimension: int) -> Tensor:
    return torch.eye(dimension, dtype=torch.float64) if curvature is None else factor_of_precision(curvature)


def _learnt(recent: Float[Tensor, "draw chain param"], curvature: Tensor | None, factor: Float[Tensor, "param param"]) -> Tensor:
    """Covariance of a stage's later two thirds, shrunk towards what the curvature says, or towards its own diagonal where there is none.

    The curvature alone where the two do not differ beyond chance: it has no noise.
    """
    if len(recent) < 10:
        return factor
    covariance = pooled_covariance(recent)
    if curvature is None:
        toward, weight = torch.diag(covariance.diagonal()), 5.0
    else:
        root = factor_of_precision(curvature)
        toward, weight = root @ root.mT, 2.0 * len(covariance)
        if agree(covariance, toward, effective=effective_draws(recent)):
            return root
    return factor_of_covariance(shrink(covariance, toward, effective=effective_draws(recent), prior=weight))
