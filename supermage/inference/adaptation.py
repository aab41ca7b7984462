"""Step-size adaptation: dual averaging, vectorised over chains (Hoffman & Gelman 2014, Sec. 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

PerChain = Float[Tensor, "chain"]

SHRINKAGE, DELAY, DECAY = 0.05, 10.0, 0.75
"""gamma, t0 and kappa of the paper."""


class DualAverage(NamedTuple):
    """State of the adaptation: log step in use, its running average, mean error of the acceptance, updates, and the point of attraction."""

    log_step: PerChain
    log_average: PerChain
    error: PerChain
    updates: PerChain
    attraction: PerChain


def start_dual_average(step_size: PerChain) -> DualAverage:
    """Begin at ``step_size``; steps twice as large are tried first."""
    log_step = torch.log(step_size)
    zero = torch.zeros_like(log_step)
    return DualAverage(log_step, log_step.clone(), zero, zero.clone(), log_step + math.log(2.0))


def update_dual_average(state: DualAverage, acceptance: PerChain, target: float) -> DualAverage:
    """One update with the acceptance probability of the last step."""
    count = state.updates + 1.0
    weight = 1.0 / (count + DELAY)
    error = (1.0 - weight) * state.error + weight * (target - acceptance)
    log_step = state.attraction - torch.sqrt(count) / SHRINKAGE * error
    decay = count**-DECAY
    return DualAverage(log_step, decay * log_step + (1.0 - decay) * state.log_average, error, count, state.attraction)


def final_step(state: DualAverage) -> PerChain:
    """The step to freeze, one a chain."""
    return torch.exp(state.log_average)


def correct_step(step: float, measured: float, target: float, order: float) -> float:
    """The step at which acceptance is ``target`` where ``step`` was measured to give ``measured``, by ``2 Phi(-c eps^order)``.

    Dual averaging ends on a mean of log steps whose acceptance is not the mean acceptance: a trial with the step frozen puts it right.
    At most by a factor of two.
    """
    wanted, found = (-special.ndtri(0.5 * min(max(a, 0.02), 0.98)) for a in (target, measured))
    return step * float(min(max((wanted / found) ** (1.0 / order), 0.5), 2.0))


def pool_steps(steps: PerChain) -> float:
    """One step for all chains: the geometric mean."""
    return float(torch.exp(torch.log(steps).mean()))
