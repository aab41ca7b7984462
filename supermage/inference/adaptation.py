"""Step-size adaptation: dual averaging, vectorised over chains (Hoffman & Gelman 2014, Sec. 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
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


def pool_steps(steps: PerChain) -> float:
    """One step for all chains: the geometric mean."""
    return float(torch.exp(torch.log(steps).mean()))
