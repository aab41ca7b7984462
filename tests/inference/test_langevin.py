"""Steps: detailed balance, known moments, and mutants that these tests must catch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.inference import langevin
from supermage.inference.langevin import KERNELS, Draw, State, draw_numbers

COVARIANCE = torch.tensor([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)
FACTOR = torch.tensor([[1.2, 0.0, 0.1], [0.3, 0.8, 0.0], [0.1, -0.2, 0.7]], dtype=torch.float64)


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    centred = position - MEAN
    gradient = -centred @ PRECISION
    return 0.5 * (centred * gradient).sum(-1), gradient


def quartic(position: Tensor) -> tuple[Tensor, Tensor]:
    """Not Gaussian, not symmetric: log p = -x^4/4 - (y - x^2)^2 - z^2/2."""
    x, y, z = position.unbind(-1)
    value = -(x**4) / 4 - (y - x**2) ** 2 - z**2 / 2
    return value, torch.stack([-(x**3) + 4 * x * (y - x**2), -2 * (y - x**2), -z], dim=-1)


def proposal_log_density(target: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, y: Tensor, eps: float) -> Tensor:
    """log q(y | x) from the definition: a normal with mean x + eps^2/2 C g and covariance eps^2 C."""
    mean = x + 0.5 * eps**2 * (target(x)[1] @ (FACTOR @ FACTOR.mT))
    normal = torch.distributions.MultivariateNormal(mean, scale_tril=eps * torch.linalg.cholesky(FACTOR @ FACTOR.mT))
    return normal.log_prob(y)


@pytest.mark.parametrize("target", [gaussian, quartic])
@pytest.mark.parametrize("eps", [0.1, 0.7, 1.6])
def test_mala_satisfies_detailed_balance(target: Callable[[Tensor], tuple[Tensor, Tensor]], eps: float) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(200, 3, dtype=torch.float64, generator=rng)
    normal = torch.randn(200, 3, dtype=torch.float64, generator=rng)
    always = Draw(normal, torch.full((200,), -1.0, dtype=torch.float64), torch.full((200,), 0.5, dtype=torch.float64))
    step = torch.full((200,), eps, dtype=torch.float64)
    moved, info = langevin.mala(target, langevin.init(target, x), FACTOR, step, always)
    y = moved.position
    # the way back with its own noise
    back = (torch.linalg.solve(FACTOR, (x - y).mT).mT - 0.5 * eps**2 * (target(y)[1] @ FACTOR)) / eps
    _, back_info = langevin.mala(target, langevin.init(target, y), FACTOR, step, always._replace(normal=back))
    forth = target(x)[0] + proposal_log_density(target, x, y, eps) + torch.log(info.acceptance)
    again = target(y)[0] + proposal_log_density(target, y, x, eps) + torch.log(back_info.acceptance)
    fine = torch.isfinite(forth) & torch.isfinite(again)
    assert int(fine.sum()) > 50
    assert torch.allclose(forth[fine], again[fine], atol=1e-9, rtol=1e-10)


def test_mala_is_hmc_with_one_step() -> None:
    rng = torch.Generator().manual_seed(1)
    state = langevin.init(quartic, torch.randn(50, 3, dtype=torch.float64, generator=rng))
    draw = Draw(
        torch.randn(50, 3, dtype=torch.float64, generator=rng),
        torch.rand(50, dtype=torch.float64, generator=rng),
        torch.zeros(50, dtype=torch.float64),
    )
    step = torch.full((50,), 0.6, dtype=torch.float64)
    one, info_one = langevin.mala(quartic, state, FACTOR, step, draw)
    two, info_two = langevin.hmc(quartic, state, FACTOR, step, draw, n_steps=1)
    assert torch.allclose(info_one.acceptance, info_two.acceptance, atol=1e-12)
    assert torch.allclose(one.position, two.position, atol=1e-12)


def test_leapfrog_is_reversible() -> None:
    rng = torch.Generator().manual_seed(2)
    state = langevin.init(quartic, torch.randn(20, 3, dtype=torch.float64, generator=rng))
    state = state._replace(momentum=torch.randn(20, 3, dtype=torch.float64, generator=rng))
    step = torch.full((20,), 0.2, dtype=torch.float64)
    end = langevin.leapfrog(quartic, state, FACTOR, step, 7)
    back = langevin.leapfrog(quartic, end._replace(momentum=-end.momentum), FACTOR, step, 7)
    assert torch.allclose(back.position, state.position, atol=1e-9)


Step = Callable[[langevin.Target, State, Tensor, Tensor, Draw], tuple[State, langevin.Info]]


def run(step: Step, target: langevin.Target, *, n: int, chains: int = 64, eps: float = 0.8, seed: int = 0) -> Tensor:
    generators = [torch.Generator().manual_seed(1000 * seed + c) for c in range(chains)]
    state = langevin.init(
        target, MEAN + torch.linalg.cholesky(COVARIANCE).mul(1.0).sum(-1) * torch.linspace(-1, 1, chains, dtype=torch.float64)[:, None]
    )
    kept = []
    for k in range(n):
        state, _ = step(target, state, FACTOR, torch.full((chains,), eps, dtype=torch.float64), draw_numbers(generators, 3))
        if k >= n // 5:
            kept.append(state.position)
    return torch.stack(kept)


def z_scores(draws: Tensor) -> Tensor:
    """Mean and variances against the truth in units of their Monte-Carlo error, chains being independent."""
    centred = draws - MEAN
    statistics = torch.cat(
        [centred.mean(0), centred.square().mean(0) - COVARIANCE.diagonal(), (centred[..., :1] * centred[..., 1:2]).mean(0) - 0.9], dim=-1
    )
    return statistics.mean(0) / (statistics.std(0) / math.sqrt(statistics.shape[0]))


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_known_mean_and_covariance(name: str) -> None:
    assert float(z_scores(run(KERNELS[name].step, gaussian, n=400)).abs().max()) < 4.0


def without_acceptance(target: langevin.Target, state: State, factor: Tensor, step: Tensor, draw: Draw) -> tuple[State, langevin.Info]:
    return langevin.mala(target, state, factor, step, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))


def with_naive_ratio(target: langevin.Target, state: State, factor: Tensor, step: Tensor, draw: Draw) -> tuple[State, langevin.Info]:
    """Metropolis without the proposal's densities."""
    new, _ = without_acceptance(target, state, factor, step, draw)
    acceptance = (new.log_density - state.log_density).clamp(max=0).exp()
    return langevin.select(draw.uniform < acceptance, new, state), langevin.Info(acceptance, draw.uniform < acceptance, 1)


@pytest.mark.parametrize("mutant", [without_acceptance, with_naive_ratio])
def test_mutants_are_caught(mutant: Step) -> None:
    assert float(z_scores(run(mutant, gaussian, n=400)).abs().max()) > 8.0


def test_nothing_infinite_is_accepted() -> None:
    def wall(position: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = gaussian(position)
        outside = position[:, 0] > MEAN[0]
        return torch.where(outside, torch.full_like(value, -torch.inf), value), torch.where(
            outside[:, None], torch.zeros_like(gradient), gradient
        )

    generators = [torch.Generator().manual_seed(c) for c in range(16)]
    state = langevin.init(wall, (MEAN - 1.0).expand(16, 3).contiguous())
    for _ in range(50):
        state, _ = KERNELS["mala"].step(wall, state, FACTOR, torch.full((16,), 0.8, dtype=torch.float64), draw_numbers(generators, 3))
        assert bool((state.position[:, 0] <= MEAN[0]).all())
        assert bool(torch.isfinite(state.log_density).all())


def test_chains_do_not_depend_on_their_batch() -> None:
    def walk(which: list[int]) -> np.ndarray:
        generators = [torch.Generator().manual_seed(c) for c in which]
        state = langevin.init(quartic, torch.stack([torch.full((3,), 0.1 * c, dtype=torch.float64) for c in which]))
        for _ in range(30):
            state, _ = KERNELS["mala"].step(
                quartic, state, FACTOR, torch.full((len(which),), 0.5, dtype=torch.float64), draw_numbers(generators, 3)
            )
        return state.position.numpy()

    together, alone = walk([0, 1, 2]), walk([1])
    assert np.allclose(together[1], alone[0], rtol=1e-10)
