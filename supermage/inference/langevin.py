"""Langevin and Hamiltonian steps as pure functions of (chain, param) float64 tensors.

Step-size convention: in coordinates whitened by the metric ``C = L L^T`` a Langevin proposal is ``x' = x + eps^2/2 C g + eps L xi``,
xi standard normal, g the gradient of the log density. Random numbers come in as arguments, so a step is a function and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Chains = Float[Tensor, "chain param"]
PerChain = Float[Tensor, "chain"]
Target = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Log density and its gradient: (chain, param) -> (chain,), (chain, param)."""


class State(NamedTuple):
    """Where the chains are: position, log density and gradient there, and the whitened momentum that persistent kernels keep."""

    position: Chains
    log_density: PerChain
    gradient: Chains
    momentum: Chains


class Info(NamedTuple):
    """What a step did: acceptance probability, whether it was accepted, gradients spent a chain.

    ``tuned`` is the acceptance that the step size is tuned on, where that is another; NaN where a step of such a kernel has none.
    """

    acceptance: PerChain
    accepted: Bool[Tensor, "chain"]
    gradients: int
    tuned: PerChain | None = None


class Draw(NamedTuple):
    """The random numbers of one step: normals (chain, param), uniforms in (0, 1) for acceptance and for jitter (chain,), and for signs."""

    normal: Chains
    uniform: PerChain
    jitter: PerChain
    signs: Chains


def init(target: Target, position: Chains) -> State:
    """The state of chains that start at ``position``."""
    log_density, gradient = target(position)
    return State(position, log_density, gradient, torch.zeros_like(position))


def only_finite(log_density: PerChain, gradient: Chains) -> tuple[PerChain, Chains]:
    """Minus infinity and zero for chains where log density or gradient is not finite."""
    fine = torch.isfinite(log_density) & torch.isfinite(gradient).all(dim=-1)
    nowhere = torch.full_like(log_density, -torch.inf)
    return torch.where(fine, log_density, nowhere), torch.where(fine[:, None], gradient, torch.zeros_like(gradient))


def select(accepted: Bool[Tensor, "chain"], new: State, old: State) -> State:
    """The new state where accepted, the old one elsewhere."""
    column = accepted[:, None]
    return State(
        torch.where(column, new.position, old.position),
        torch.where(accepted, new.log_density, old.log_density),
        torch.where(column, new.gradient, old.gradient),
        torch.where(column, new.momentum, old.momentum),
    )


def _probability(log_ratio: PerChain) -> PerChain:
    """min(1, exp(log_ratio)); nothing finite, nothing accepted."""
    return torch.where(torch.isfinite(log_ratio), log_ratio, torch.full_like(log_ratio, -torch.inf)).clamp(max=0.0).exp()


def _times(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Each chain's vector times the matrix, or times its own, where there is one a chain."""
    return vectors @ matrix if matrix.ndim == 2 else (vectors[:, None, :] @ matrix)[:, 0, :]


def mala(target: Target, state: State, factor: Float[Tensor, "... param param"], step_size: PerChain, draw: Draw) -> tuple[State, Info]:
    """Metropolis-adjusted Langevin step with a dense mass matrix (Besag 1994; Roberts & Rosenthal 1998).

    Parameters
    ----------
    target
        Log density and gradient.
    state
        Where the chains are.
    factor
        L of the metric ``C = L L^T``, or one a chain.
    step_size
        eps, one a chain.
    draw
        Random numbers.
    """
    eps = step_size[:, None]
    drift = 0.5 * eps * _times(state.gradient, factor)
    jump = eps * (drift + draw.normal)
    position = state.position + _times(jump, factor.mT)
    log_density, gradient = target(position)
    # whitened: the way back needs the noise -(jump/eps) - eps g'/2
    back = -(drift + draw.normal) - 0.5 * eps * _times(gradient, factor)
    log_ratio = log_density - state.log_density - 0.5 * back.square().sum(-1) + 0.5 * draw.normal.square().sum(-1)
    acceptance = _probability(log_ratio)
    accepted = draw.uniform < acceptance
    return select(accepted, State(position, log_density, gradient, state.momentum), state), Info(acceptance, accepted, 1)


def leapfrog(target: Target, state: State, factor: Float[Tensor, "... param param"], step_size: PerChain, n_steps: int) -> State:
    """``n_steps`` leapfrog steps of Hamiltonian dynamics with mass matrix ``C^-1``; momentum whitened."""
    eps = step_size[:, None]
    position, gradient, log_density = state.position, state.gradient, state.log_density
    momentum = state.momentum + 0.5 * eps * _times(gradient, factor)
    for k in range(n_steps):
        position = position + eps * _times(momentum, factor.mT)
        log_density, gradient = target(position)
        momentum = momentum + (1.0 if k < n_steps - 1 else 0.5) * eps * _times(gradient, factor)
    return State(position, log_density, gradient, momentum)


def _log_hamiltonian(state: State) -> PerChain:
    return state.log_density - 0.5 * state.momentum.square().sum(-1)


def hmc(
    target: Target, state: State, factor: Float[Tensor, "... param param"], step_size: PerChain, draw: Draw, *, n_steps: int
) -> tuple[State, Info]:
    """Hamiltonian Monte Carlo with ``n_steps`` leapfrog steps and a fresh momentum; with one step it is `mala`."""
    start = state._replace(momentum=draw.normal)
    end = leapfrog(target, start, factor, step_size, n_steps)
    acceptance = _probability(_log_hamiltonian(end) - _log_hamiltonian(start))
    accepted = draw.uniform < acceptance
    return select(accepted, end, start), Info(acceptance, accepted, n_steps)


def persistent(
    target: Target,
    state: State,
    factor: Float[Tensor, "... param param"],
    step_size: PerChain,
    draw: Draw,
    *,
    persistence: PerChain,
    n_steps: int = 1,
) -> tuple[State, Info]:
    """Langevin step that keeps ``persistence`` of its momentum and reverses it on rejection (Horowitz 1991)."""
    kept = persistence[:, None]
    refreshed = kept * state.momentum + torch.sqrt(1.0 - kept**2) * draw.normal
    start = state._replace(momentum=refreshed)
    end = leapfrog(target, start, factor, step_size, n_steps)
    acceptance = _probability(_log_hamiltonian(end) - _log_hamiltonian(start))
    accepted = draw.uniform < acceptance
    return select(accepted, end, start._replace(momentum=-refreshed)), Info(acceptance, accepted, n_steps)


def barker(target: Target, state: State, factor: Float[Tensor, "... param param"], step_size: PerChain, draw: Draw) -> tuple[State, Info]:
    """Barker step (Livingstone & Zanella 2022): a whitened jump of given size whose signs are drawn towards the gradient.

    Its proposal never runs longer than its noise, however steep the density: for the way in from far starts.
    """
    jump = step_size[:, None] * draw.normal.abs()
    drift = _times(state.gradient, factor)
    jump = torch.where(draw.signs < torch.sigmoid(jump * drift), jump, -jump)
    position = state.position + _times(jump, factor.mT)
    log_density, gradient = target(position)
    log_sigmoid = torch.nn.functional.logsigmoid
    back, forth = log_sigmoid(-jump * _times(gradient, factor)).sum(-1), log_sigmoid(jump * drift).sum(-1)
    acceptance = _probability(log_density - state.log_density + back - forth)
    accepted = draw.uniform < acceptance
    return select(accepted, State(position, log_density, gradient, state.momentum), state), Info(acceptance, accepted, 1)


STEP_JITTER = 0.2
"""Every step size is multiplied by a uniform number in 1 -+ this: no resonance, and a way out of stiff corners."""

HMC_JITTER = 0.15
"""The same of trajectories, whose lengths are drawn as well."""

TRAJECTORY = (1.0, 2.6)
"""Shortest and longest Hamiltonian trajectory in units of the posterior's widest direction; lengths are uniform between.

About pi / 2 a Gaussian has forgotten where it was: 0.4 - 0.6 effective samples a gradient in 15 dimensions, 0.25 - 0.3 where lengths are
uniform from 0 to 3, and a banana that such short ones do not pass is passed.
"""

MAX_LEAPFROG = 48
"""Most leapfrog steps of one trajectory."""

FRICTION = 0.5
"""Rate at which the persistent kernel forgets its momentum, in units of one over the posterior's widest direction."""


def surrogate_hmc(
    target: Target, approximate: Target, state: State, factor: Float[Tensor, "... param param"], step_size: PerChain, draw: Draw, *,
    n_steps: int,
) -> tuple[State, Info]:  # fmt: skip
    """A trajectory that follows an approximate density's gradient and is judged by the true density, asked once at its end.

    Leapfrog steps are reversible and keep volumes whatever gradient they follow, so the true Hamiltonian's acceptance is exact (Rasmussen
    2003; Zhang, Shahbaba & Zhao 2017). Ours: the step size is tuned on the acceptance that the approximate density would give, since no
    step makes up for what the approximation lacks.

    Parameters
    ----------
    approximate
        Log density and gradient that the trajectory follows; exactness does not depend on it.
    """
    start = init(approximate, state.position)._replace(momentum=draw.normal)
    end = leapfrog(approximate, start, factor, step_size, n_steps)
    tuned = _probability(_log_hamiltonian(end) - _log_hamiltonian(start))
    log_density, gradient = target(end.position)
    arrived = State(end.position, log_density, gradient, end.momentum)
    acceptance = _probability(_log_hamiltonian(arrived) - _log_hamiltonian(state._replace(momentum=draw.normal)))
    accepted = draw.uniform < acceptance
    return select(accepted, arrived, state._replace(momentum=draw.normal)), Info(acceptance, accepted, 1, tuned)


def _jittered(step_size: Tensor, draw: Draw, share: float = STEP_JITTER) -> Tensor:
    return step_size * (1.0 + share * (2.0 * draw.jitter - 1.0))


def _mala_kernel(target: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    return mala(target, state, factor, _jittered(step_size, draw), draw)


def _paper_kernel(target: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    return mala(target, state, factor, step_size, draw)


def _hmc_kernel(target: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    n_steps = _leapfrog_steps(step_size, draw, length)
    return hmc(target, state, factor, _jittered(step_size, draw, HMC_JITTER), draw, n_steps=n_steps)


def _leapfrog_steps(step_size: Tensor, draw: Draw, length: float) -> int:
    # one length for all chains of a batch, so that they stay together; signs are Barker's, here one is the length's uniform
    shortest, longest = TRAJECTORY
    wanted = torch.ceil(length * (shortest + (longest - shortest) * draw.signs[0, 0]) / step_size.mean())
    return int(min(max(1.0, wanted.item()), MAX_LEAPFROG))


def surrogate_kernel(
    target: Target, approximate: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float
) -> tuple[State, Info]:
    """`surrogate_hmc` at HMC's lengths and jitter; with the chance `OWN_SHARE` a short trajectory of the true density instead.

    Without these a chain would hardly leave where the approximation is far too low.
    """
    jittered = _jittered(step_size, draw, HMC_JITTER)
    if float(draw.signs[0, -1]) < OWN_SHARE:
        state, info = hmc(target, state, factor, jittered, draw, n_steps=OWN_LEAPFROG)
        return state, info._replace(tuned=torch.full_like(info.acceptance, torch.nan))
    n_steps = min(_leapfrog_steps(step_size, draw, length), FOLLOWED)
    return surrogate_hmc(target, approximate, state, factor, jittered, draw, n_steps=n_steps)


FOLLOWED = 32
"""Most leapfrog steps that follow an approximation: the judgement at the end, not the length, bounds how far chains forget."""

OWN_SHARE, OWN_LEAPFROG = 0.1, 8
"""Share of `surrogate_kernel`'s trajectories that follow the true density, and their leapfrog steps."""


def _persistent_kernel(target: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    persistence = torch.exp(-FRICTION / length * step_size)
    return persistent(target, state, factor, _jittered(step_size, draw), draw, persistence=persistence)


def _barker_kernel(target: Target, state: State, factor: Tensor, step_size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    return barker(target, state, factor, _jittered(step_size, draw), draw)


Step = Callable[[Target, State, Tensor, Tensor, Draw, float], tuple[State, Info]]
"""``(target, state, factor, step_size, draw, length) -> (state, info)``; length: the posterior's widest direction in the metric's units."""


class Kernel(NamedTuple):
    """A step, the acceptance that its step size is tuned to, and how fast acceptance falls with the step.

    Attributes
    ----------
    step
        See `Step`.
    target_acceptance
        Mean acceptance aimed at.
    order
        Power p of the law ``acceptance = 2 Phi(-c eps^p)`` of Gaussians in many dimensions: 3 for one step, 2 for a trajectory.
    """

    step: Step
    target_acceptance: float
    order: float = 3.0


PAPER = "mala-paper"
"""The published procedure: metric at the best point, a step size chosen from a list, no jitter."""

SURROGATE = "surrogate-hmc"
"""HMC that follows an expansion of the likelihood, see `surrogate_kernel`: for fits, which know what to expand in."""

KERNELS: dict[str, Kernel] = {
    "mala": Kernel(_mala_kernel, 0.574),
    "hmc": Kernel(_hmc_kernel, 0.8, 2.0),
    "persistent-mala": Kernel(_persistent_kernel, 0.95),
    "barker": Kernel(_barker_kernel, 0.4),
    PAPER: Kernel(_paper_kernel, 0.574),
}
"""Kernels by the name that a recipe gives. Best acceptances: 0.574 for MALA (Roberts & Rosenthal 1998), 0.4 for Barker (Vogrinc+ 2023)."""

FIT_KERNELS: dict[str, Kernel] = {**KERNELS, SURROGATE: KERNELS["hmc"]}
"""The same for fits; of `SURROGATE` the step where there is no expansion yet."""


def draw_numbers(generators: list[torch.Generator], dimension: int) -> Draw:
    """The random numbers of one step, each chain's from its own generator, so that chains do not depend on how they are batched."""
    normal = torch.stack([torch.randn(dimension, dtype=torch.float64, generator=g) for g in generators])
    uniform = torch.stack([torch.rand(2, dtype=torch.float64, generator=g) for g in generators])
    signs = torch.stack([torch.rand(dimension, dtype=torch.float64, generator=g) for g in generators])
    return Draw(normal, uniform[:, 0], uniform[:, 1], signs)
