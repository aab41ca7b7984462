"""Every step leaves the posterior as it is: exact tests on a curved, bounded model, and mutants that they must catch.

Parameters are drawn from the prior and data from the parameters; a chain that starts at these parameters and targets their posterior must,
after any number of steps, still be distributed as the prior, jointly with the data (Geweke 2004; Gandy & Scott 2020). 6000 independent
pairs a test, no chain run to convergence, no tolerance: a right kernel fails once in 10 000 times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from supermage.inference import langevin
from supermage.inference.langevin import KERNELS, Draw, Info, State, draw_numbers

PAIRS, STEPS, NOISE = 6000, 6, 0.4
FALSE_ALARM = 1e-4
METRICS = {"unit": torch.eye(3, dtype=torch.float64),
           "sheared": torch.tensor([[0.9, 0.0, 0.2], [0.5, 0.6, 0.0], [0.0, -0.3, 1.1]], dtype=torch.float64)}  # fmt: skip
SIZES = {"mala": 0.6, "mala-paper": 0.6, "persistent-mala": 0.5, "hmc": 0.4, "barker": 0.7}


def to_theta(z: Tensor) -> Tensor:
    """Uniform priors on (0, 1) as unit normals."""
    return torch.special.ndtr(z)


def model(theta: Tensor) -> Tensor:
    """Curved and nearly degenerate: a sum, a product and a power."""
    a, b, c = theta.unbind(-1)
    return torch.stack([a + b**2, 2.0 * a * b + c, 1.5 * c**2 - b], dim=-1)


class Posterior:
    """Log density of z given each chain's own data, and its gradient; ``jacobian`` 0 forgets that of the coordinates."""

    def __init__(self, data: Tensor, *, jacobian: float = 1.0) -> None:
        self.data, self.jacobian = data, jacobian

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        leaf = z.detach().clone().requires_grad_(True)
        misfit = -0.5 * ((model(to_theta(leaf)) - self.data) / NOISE).square().sum(-1)
        value = misfit - 0.5 * self.jacobian * leaf.square().sum(-1)
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


Step = Callable[[langevin.Target, State, Tensor, Tensor, Draw, float], tuple[State, Info]]


def p_values(step: Step, size: float, *, metric: str = "sheared", jacobian: float = 1.0, seed: int = 1) -> NDArray[np.float64]:
    """KS p-values: each parameter after the steps against its prior, and two statistics of parameters and data against fresh pairs."""
    rng = torch.Generator().manual_seed(seed)

    def pairs() -> tuple[Tensor, Tensor]:
        z = torch.randn(PAIRS, 3, dtype=torch.float64, generator=rng)
        return z, model(to_theta(z)) + NOISE * torch.randn(PAIRS, 3, dtype=torch.float64, generator=rng)

    z, data = pairs()
    target = Posterior(data, jacobian=jacobian)
    state = langevin.init(target, z)._replace(momentum=torch.randn(PAIRS, 3, dtype=torch.float64, generator=rng))
    for _ in range(STEPS):
        numbers = Draw(*(make(shape, dtype=torch.float64, generator=rng) for make, shape in (
            (torch.randn, (PAIRS, 3)), (torch.rand, (PAIRS,)), (torch.rand, (PAIRS,)), (torch.rand, (PAIRS, 3)))))  # fmt: skip
        state, _ = step(target, state, METRICS[metric], torch.full((PAIRS,), size, dtype=torch.float64), numbers, 1.0)
    moved = state.position
    assert float((moved != z).any(-1).double().mean()) > 0.5
    found = [stats.kstest(moved[:, k].numpy(), "norm").pvalue for k in range(3)]
    fresh, fresh_data = pairs()
    for statistic in (lambda here, y: (model(to_theta(here)) - y).square().sum(-1), lambda here, y: (to_theta(here) * y).sum(-1)):
        found.append(stats.ks_2samp(statistic(moved, data).numpy(), statistic(fresh, fresh_data).numpy()).pvalue)
    return np.array(found)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_every_kernel_leaves_the_posterior_as_it_is(kernel: str, metric: str) -> None:
    """Whatever the metric: five tests, Bonferroni at 1e-4."""
    assert p_values(KERNELS[kernel].step, SIZES[kernel], metric=metric).min() > FALSE_ALARM / 5.0


def always(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """No accept step."""
    return langevin.mala(target, state, factor, size, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))


def adapting(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """A step size that goes on following where the chain is."""
    return langevin.mala(target, state, factor, size * torch.exp(0.8 * state.position[:, 0]), draw)


def keeping_momentum(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Persistent momentum that is not reversed on rejection."""
    new, info = langevin.persistent(target, state, factor, size, draw, persistence=torch.full_like(size, 0.95))
    return new._replace(momentum=torch.where(info.accepted[:, None], new.momentum, -new.momentum)), info


def without_signs(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Barker's jumps accepted as if their signs had been drawn evenly."""
    new, _ = langevin.barker(target, state, factor, size, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))
    acceptance = (new.log_density - state.log_density).clamp(max=0.0).exp()
    return langevin.select(draw.uniform < acceptance, new, state), Info(acceptance, draw.uniform < acceptance, 1)


def reflecting(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Proposals thrown back at a wall, with the ratio of proposals that do not know it."""
    moved, _ = always(target, state, factor, size, draw, length)
    position = torch.where(moved.position > 1.0, 2.0 - moved.position, moved.position)
    new = State(position, *target(position), state.momentum)
    whitened = torch.linalg.solve(factor, (position - state.position).mT).mT / size[:, None]
    forth = whitened - 0.5 * size[:, None] * (state.gradient @ factor)
    back = -whitened - 0.5 * size[:, None] * (new.gradient @ factor)
    ratio = new.log_density - state.log_density - 0.5 * back.square().sum(-1) + 0.5 * forth.square().sum(-1)
    acceptance = ratio.clamp(max=0.0).exp()
    return langevin.select(draw.uniform < acceptance, new, state), Info(acceptance, draw.uniform < acceptance, 1)


@pytest.mark.parametrize(("mutant", "size"), [(always, 0.9), (adapting, 0.6), (keeping_momentum, 0.9), (without_signs, 0.9),
                                              (reflecting, 0.6)])  # fmt: skip
def test_wrong_steps_are_caught(mutant: Step, size: float) -> None:
    assert p_values(mutant, size).min() < 1e-8


def test_coordinates_without_their_jacobian_are_caught() -> None:
    """The density of theta taken for that of z: the unit normal that the uniform prior becomes is missing."""
    assert p_values(KERNELS["mala"].step, 0.6, jacobian=0.0).min() < 1e-8


def test_numbers_of_a_step_are_what_they_are_taken_for() -> None:
    """Uniforms and normals of `draw_numbers`; KS at 1e-4 each."""
    generators = [torch.Generator().manual_seed(c) for c in range(3000)]
    numbers = draw_numbers(generators, 3)
    assert stats.kstest(numbers.normal.ravel().numpy(), "norm").pvalue > FALSE_ALARM
    for values in (numbers.uniform, numbers.jitter, numbers.signs):
        assert stats.kstest(values.ravel().numpy(), "uniform").pvalue > FALSE_ALARM
