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
    always = Draw(normal, torch.full((200,), -1.0, dtype=torch.float64), torch.full((200,), 0.5, dtype=torch.float64), torch.zeros(200, 3))
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
    assert torch.allclose(forth[fine], again[fine], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("target", [gaussian, quartic])
@pytest.mark.parametrize("eps", [0.1, 0.7, 1.6])
def test_barker_satisfies_detailed_balance(target: Callable[[Tensor], tuple[Tensor, Tensor]], eps: float) -> None:
    """The proposal's density from its definition: a normal's size, and a sign drawn with probability 1 / (1 + exp(-w c))."""
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(200, 3, dtype=torch.float64, generator=rng)
    numbers = torch.randn(200, 3, dtype=torch.float64, generator=rng), torch.rand(200, 3, dtype=torch.float64, generator=rng)
    always = Draw(numbers[0], torch.full((200,), -1.0, dtype=torch.float64), torch.full((200,), 0.5, dtype=torch.float64), numbers[1])
    step = torch.full((200,), eps, dtype=torch.float64)
    moved, info = langevin.barker(target, langevin.init(target, x), FACTOR, step, always)
    y = moved.position
    jump = torch.linalg.solve(FACTOR, (y - x).mT).mT
    assert bool((jump > 0).any()) and bool((jump < 0).any())
    # back with the same sizes and the opposite signs: 0 is below every probability, 1 above
    back = always._replace(normal=jump / eps, signs=(jump > 0).to(torch.float64))
    returned, back_info = langevin.barker(target, langevin.init(target, y), FACTOR, step, back)
    assert torch.allclose(returned.position, x, atol=1e-12)

    def log_q(start: Tensor, jumps: Tensor) -> Tensor:
        share = 1.0 / (1.0 + torch.exp(-jumps * (target(start)[1] @ FACTOR)))
        return (torch.distributions.Normal(0.0, eps).log_prob(jumps) + torch.log(2.0 * share)).sum(-1)

    forth = target(x)[0] + log_q(x, jump) + torch.log(info.acceptance)
    again = target(y)[0] + log_q(y, -jump) + torch.log(back_info.acceptance)
    fine = torch.isfinite(forth) & torch.isfinite(again)
    assert int(fine.sum()) > 50
    assert torch.allclose(forth[fine], again[fine], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("n_steps", [1, 5])
def test_trajectories_satisfy_detailed_balance(n_steps: int) -> None:
    """Of position and momentum together: exp(-H) times acceptance is the same there and back, and the map keeps volumes."""
    rng = torch.Generator().manual_seed(6)
    x, p = (torch.randn(100, 3, dtype=torch.float64, generator=rng) for _ in range(2))
    step = torch.full((100,), 0.15, dtype=torch.float64)
    numbers = Draw(p, torch.full((100,), -1.0, dtype=torch.float64), torch.zeros(100), torch.zeros(100, 3))
    end, info = langevin.hmc(quartic, langevin.init(quartic, x), FACTOR, step, numbers, n_steps=n_steps)
    back, back_info = langevin.hmc(quartic, langevin.init(quartic, end.position), FACTOR, step, numbers._replace(normal=-end.momentum),
                                   n_steps=n_steps)  # fmt: skip
    assert torch.allclose(back.position, x, atol=1e-9)
    forth = quartic(x)[0] - 0.5 * p.square().sum(-1) + torch.log(info.acceptance)
    again = quartic(end.position)[0] - 0.5 * end.momentum.square().sum(-1) + torch.log(back_info.acceptance)
    fine = torch.isfinite(forth) & torch.isfinite(again)
    assert int(fine.sum()) > 50 and torch.allclose(forth[fine], again[fine], atol=1e-10, rtol=1e-10)

    def carried(both: Tensor) -> Tensor:
        gone = langevin.leapfrog(quartic, langevin.init(quartic, both[None, :3])._replace(momentum=both[None, 3:]),
                                 FACTOR, step[:1], n_steps)  # fmt: skip
        return torch.cat([gone.position[0], gone.momentum[0]])

    volume = torch.linalg.det(torch.func.jacrev(carried)(torch.cat([x[0], p[0]])))
    assert float(volume) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("eps", [0.1, 0.7, 1.6])
def test_persistent_steps_satisfy_skew_detailed_balance(eps: float) -> None:
    """pi(x, p) a((x, p) -> (x', p')) = pi(x', -p') a((x', -p') -> (x, -p)), the momentum being kept whole (Horowitz 1991).

    Its refreshment, p' = c p + sqrt(1 - c^2) n, is reversible under the unit normal: cov(p', p) is symmetric and both have unit variance.
    """
    rng = torch.Generator().manual_seed(8)
    x, p, unused = (torch.randn(200, 3, dtype=torch.float64, generator=rng) for _ in range(3))
    always = Draw(unused, torch.full((200,), -1.0, dtype=torch.float64), torch.full((200,), 0.5, dtype=torch.float64), torch.zeros(200, 3))
    step, whole = torch.full((200,), eps, dtype=torch.float64), torch.ones(200, dtype=torch.float64)

    def moved(state: State) -> tuple[State, Tensor]:
        new, info = langevin.persistent(quartic, state, FACTOR, step, always, persistence=whole)
        return new, info.acceptance

    new, acceptance = moved(langevin.init(quartic, x)._replace(momentum=p))
    back, back_acceptance = moved(langevin.init(quartic, new.position)._replace(momentum=-new.momentum))
    near = new.position.abs().amax(-1) < 20.0
    assert torch.allclose(back.position[near], x[near], atol=1e-9) and torch.allclose(back.momentum[near], -p[near], atol=1e-9)
    forth = quartic(x)[0] - 0.5 * p.square().sum(-1) + torch.log(acceptance)
    again = quartic(new.position)[0] - 0.5 * new.momentum.square().sum(-1) + torch.log(back_acceptance)
    fine = near & torch.isfinite(forth) & torch.isfinite(again)
    assert int(fine.sum()) > 50
    assert torch.allclose(forth[fine], again[fine], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.95])
def test_persistent_steps_reverse_their_momentum_on_rejection(persistence: float) -> None:
    """Accepted: the momentum of the trajectory. Rejected: the refreshed one, reversed, so that the way back exists."""
    rng = torch.Generator().manual_seed(7)
    x, p, normal = (torch.randn(100, 3, dtype=torch.float64, generator=rng) for _ in range(3))
    uniform = torch.rand(100, dtype=torch.float64, generator=rng)
    state = langevin.init(quartic, x)._replace(momentum=p)
    step, share = torch.full((100,), 0.9, dtype=torch.float64), torch.full((100,), persistence, dtype=torch.float64)
    new, info = langevin.persistent(quartic, state, FACTOR, step, Draw(normal, uniform, uniform, normal), persistence=share)
    refreshed = persistence * p + math.sqrt(1.0 - persistence**2) * normal
    end = langevin.leapfrog(quartic, state._replace(momentum=refreshed), FACTOR, step, 1)
    assert 10 < int(info.accepted.sum()) < 90
    assert torch.equal(info.accepted, uniform < info.acceptance)
    assert torch.allclose(new.momentum[info.accepted], end.momentum[info.accepted], atol=1e-12)
    assert torch.allclose(new.momentum[~info.accepted], -refreshed[~info.accepted], atol=1e-12)
    assert torch.equal(new.position[~info.accepted], x[~info.accepted])


def test_mala_is_hmc_with_one_step() -> None:
    rng = torch.Generator().manual_seed(1)
    state = langevin.init(quartic, torch.randn(50, 3, dtype=torch.float64, generator=rng))
    draw = Draw(
        torch.randn(50, 3, dtype=torch.float64, generator=rng),
        torch.rand(50, dtype=torch.float64, generator=rng),
        torch.zeros(50, dtype=torch.float64),
        torch.zeros(50, 3, dtype=torch.float64),
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


Step = langevin.Step


def run(step: Step, target: langevin.Target, *, n: int, chains: int = 64, eps: float = 0.8, seed: int = 0) -> Tensor:
    generators = [torch.Generator().manual_seed(1000 * seed + c) for c in range(chains)]
    state = langevin.init(
        target, MEAN + torch.linalg.cholesky(COVARIANCE).mul(1.0).sum(-1) * torch.linspace(-1, 1, chains, dtype=torch.float64)[:, None]
    )
    kept = []
    for k in range(n):
        state, _ = step(target, state, FACTOR, torch.full((chains,), eps, dtype=torch.float64), draw_numbers(generators, 3), 1.0)
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


def without_acceptance(
    target: langevin.Target, state: State, factor: Tensor, step: Tensor, draw: Draw, length: float = 1.0
) -> tuple[State, langevin.Info]:
    return langevin.mala(target, state, factor, step, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))


def with_naive_ratio(
    target: langevin.Target, state: State, factor: Tensor, step: Tensor, draw: Draw, length: float = 1.0
) -> tuple[State, langevin.Info]:
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
        state, _ = KERNELS["mala"].step(wall, state, FACTOR, torch.full((16,), 0.8, dtype=torch.float64), draw_numbers(generators, 3), 1.0)
        assert bool((state.position[:, 0] <= MEAN[0]).all())
        assert bool(torch.isfinite(state.log_density).all())


def test_chains_do_not_depend_on_their_batch() -> None:
    def walk(which: list[int]) -> np.ndarray:
        generators = [torch.Generator().manual_seed(c) for c in which]
        state = langevin.init(quartic, torch.stack([torch.full((3,), 0.1 * c, dtype=torch.float64) for c in which]))
        for _ in range(30):
            state, _ = KERNELS["mala"].step(
                quartic, state, FACTOR, torch.full((len(which),), 0.5, dtype=torch.float64), draw_numbers(generators, 3), 1.0
            )
        return state.position.numpy()

    together, alone = walk([0, 1, 2]), walk([1])
    assert np.allclose(together[1], alone[0], rtol=1e-10)
