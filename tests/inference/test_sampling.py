"""supermage.sample on known targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.errors import ConvergenceWarning, DomainError
from supermage.inference.arviz_access import ess, rhat
from supermage.inference.langevin import KERNELS, Kernel
from supermage.inference.sampling import sample

SCALES = torch.tensor([0.1, 1.0, 5.0, 30.0], dtype=torch.float64)
ROTATION = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
PRECISION = ROTATION @ torch.diag(SCALES**-2) @ ROTATION.mT
COVARIANCE = ROTATION @ torch.diag(SCALES**2) @ ROTATION.mT
MEAN = torch.tensor([3.0, -1.0, 0.0, 10.0], dtype=torch.float64)


def log_density(x: Tensor) -> Tensor:
    return -0.5 * (x - MEAN) @ PRECISION @ (x - MEAN)


START = MEAN + torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) @ torch.linalg.cholesky(COVARIANCE).mT


@pytest.mark.parametrize("kernel", ["mala", "hmc", "persistent-mala"])
@pytest.mark.parametrize("fisher", [None, lambda x: PRECISION])
def test_moments_of_a_rotated_gaussian(kernel: str, fisher: object) -> None:
    data = sample(log_density, START, kernel=kernel, draws=500, warmup=300, seed=4, fisher=fisher)
    x = data["posterior"]["x"].values
    assert x.shape == (4, 500, 4)
    for k in range(4):
        width = float(COVARIANCE[k, k]) ** 0.5
        assert rhat(x[..., k]) < 1.1
        assert abs(x[..., k].mean() - float(MEAN[k])) < 4 * width / ess(x[..., k], method="mean") ** 0.5
        squared = (x[..., k] - float(MEAN[k])) ** 2
        assert abs(squared.mean() / width**2 - 1.0) < 4 * squared.std() / width**2 / ess(squared, method="mean") ** 0.5
    assert data["sample_stats"]["acceptance_rate"].shape == (4, 500)
    assert data.attrs["gradients"] >= 4 * 800


def test_trajectories_accept_what_was_aimed_at_and_forget_where_they_were() -> None:
    """Fifteen dimensions: acceptance 0.8, and 0.4 effective draws a gradient (benchmark: 0.43 - 0.59 of three seeds)."""
    turn = torch.linalg.qr(torch.randn(15, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    precision = turn @ torch.diag(torch.logspace(0, 4, 15, dtype=torch.float64)) @ turn.mT
    data = sample(lambda x: -0.5 * x @ precision @ x, torch.zeros(4, 15, dtype=torch.float64), kernel="hmc", draws=300, warmup=300, seed=5)
    x = data["posterior"]["x"].values
    assert float(data["sample_stats"]["acceptance_rate"].mean()) == pytest.approx(0.8, abs=0.07)
    effective = min(ess(x[..., k], method="bulk") for k in range(15))
    assert effective / data.attrs["draw_gradients"] > 0.35


def test_reproducible_and_seeded() -> None:
    one, two, other = (sample(log_density, START, draws=20, warmup=30, seed=s)["posterior"]["x"].values for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_density_that_cannot_be_vmapped() -> None:
    def branching(x: Tensor) -> Tensor:
        return -0.5 * (x**2).sum() if float(x.detach()[0]) > -100 else -(x**4).sum()

    x = sample(branching, torch.zeros(2, 3, dtype=torch.float64), draws=400, warmup=200, seed=0)["posterior"]["x"].values
    assert abs(x.std() - 1.0) < 0.15


def test_bad_input() -> None:
    with pytest.raises(DomainError, match="did you mean 'mala'"):
        sample(log_density, START, kernel="malla", draws=1, warmup=0, seed=0)
    with pytest.raises(DomainError, match=r"shape \(chains, d\), got \(4,\)"):
        sample(log_density, START[0], draws=1, warmup=0, seed=0)
    with pytest.raises(DomainError, match=r"^start must be a tensor of shape \(chains, d\), got a list$"):
        sample.__wrapped__(log_density, START.tolist(), draws=1, warmup=0, seed=0)
    for density, words in (
        (lambda x: -0.5 * x**2, r"scalar tensor, got shape \(4,\)"),
        (lambda x: -0.5 * (x**2).sum(dim=0, keepdim=True), r"scalar tensor, got shape \(1,\)"),
        (lambda x: -0.5 * float((x**2).sum()), "scalar tensor, got a float"),
        (lambda x: -0.5 * (x.detach() ** 2).sum(), "differentiable in its argument, got a tensor without a gradient"),
    ):
        with pytest.raises(DomainError, match=f"^a log density must be a? ?{words}$"):
            sample(density, START, draws=1, warmup=0, seed=0)
    with pytest.raises(DomainError, match="finite log density"):
        sample(lambda x: torch.log(x).sum(), -torch.ones(2, 2, dtype=torch.float64), draws=1, warmup=0, seed=0)


def test_where_the_density_raises_nothing_is_drawn() -> None:
    """A Cholesky factor that does not exist beyond x0 = 1: rejected there, counted, and elsewhere the same normal, cut off."""

    def log_density(x: torch.Tensor) -> torch.Tensor:
        torch.linalg.cholesky(torch.diag(torch.stack([1.0 - x[0], 2.0 + 0.0 * x[0]])))
        return -0.5 * x.square().sum()

    data = sample(log_density, torch.zeros(4, 2, dtype=torch.float64), kernel="mala", draws=800, warmup=300, seed=1)
    draws = data["posterior"]["x"].values
    assert data.attrs["failed_evaluations"] > 10
    assert draws[..., 0].max() < 1.0
    # mean of a unit normal below 1: -phi(1) / Phi(1)
    assert draws[..., 0].mean() == pytest.approx(-0.2876, abs=0.1)
    with pytest.raises(DomainError, match=r"finite log density, got _?LinAlgError"):
        sample(log_density, torch.full((4, 2), 2.0, dtype=torch.float64), draws=10, warmup=10, seed=1)


def test_mistakes_are_not_swallowed() -> None:
    with pytest.raises(AttributeError, match="squared"):
        sample(lambda x: -x.squared().sum(), torch.zeros(2, 2, dtype=torch.float64), draws=10, warmup=10, seed=1)


def test_persistent_steps_come_in_from_far() -> None:
    """Thirty widths away: without another kernel for the way in R-hat was 4."""
    scale = torch.logspace(0.0, 2.0, 10, dtype=torch.float64)
    start = 30.0 * torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) / scale
    data = sample(lambda x: -0.5 * (scale * x).square().sum(), start, kernel="persistent-mala", draws=400, warmup=400, seed=1)
    draws = data["posterior"]["x"].values
    assert max(rhat(draws[..., i]) for i in range(10)) < 1.05
    assert (draws * scale.numpy()).std(axis=(0, 1)) == pytest.approx(np.ones(10), abs=0.25)


def test_chains_in_different_modes_are_named() -> None:
    """Two normals 40 widths apart: no kernel passes from one to the other, and R-hat alone does not say which chains are where."""

    def two(x: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * (x - 20.0).square().sum(), -0.5 * (x + 20.0).square().sum())

    start = torch.tensor([[20.0, 20.0], [-20.0, -20.0], [20.0, 20.0]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match=r"^chains must agree, got chains in 2 modes: 0 2 \| 1$") as caught:
        data = sample(two, start, kernel="hmc", draws=100, warmup=20, seed=0)
    assert len(caught) == 1
    assert data.attrs["worst_rhat"] > 1.5
    assert data.attrs["smallest_ess"] < 20


def test_chains_that_have_not_met_are_named() -> None:
    """A metric fifty times too narrow: the chains crawl from where they started, which is the same place."""
    narrow = 2500.0 * torch.eye(2, dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match=r"^R-hat must be below 1.05, got [0-9.]+ in x\[[01]\]; draw more, or try another kernel$"):
        sample(lambda x: -0.5 * x.square().sum(), 0.0 * START[:, :2], draws=200, warmup=0, seed=0, fisher=lambda x: narrow)


def test_too_few_effective_draws_and_a_lone_chain_are_told_of() -> None:
    with pytest.warns(ConvergenceWarning, match=r"^effective sample sizes must be above 100, got [0-9]+ in x\[[0-3]\]; draw more$"):
        found = sample(log_density, START[:2], draws=100, warmup=200, seed=0)
    assert found.attrs["worst_rhat"] < 1.05 and found.attrs["smallest_ess"] <= 100.0
    with pytest.warns(ConvergenceWarning, match=r"^convergence can be judged from two chains on, got one$"):
        assert "worst_rhat" not in sample(log_density, START[:1], draws=100, warmup=10, seed=0).attrs


def test_no_verdict_on_a_handful_of_draws() -> None:
    data = sample(log_density, START, draws=99, warmup=0, seed=0)
    assert "worst_rhat" not in data.attrs


@pytest.mark.parametrize("warmup", [0, 3, 7, 250])
def test_the_last_steps_of_warm_up_are_the_kernels_own(warmup: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the warm-up, whose stages may have no step: the step size is tuned for the kernel that draws."""
    walked = spy(monkeypatch)
    sample(log_density, START, kernel="persistent-mala", draws=5, warmup=warmup, seed=0)
    last = max(warmup - round(0.35 * warmup), 1)
    assert {name for name, *_ in walked[last:]} == {"persistent-mala"}
    assert {name for name, *_ in walked[: round(0.6 * warmup)]} <= {"mala"}


@pytest.mark.parametrize("kernel", ["mala", "hmc", "persistent-mala", "barker"])
def test_nothing_adapts_after_warm_up(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One metric, one step and one length for every draw, those of the last step of warm-up's trial being others."""
    walked = spy(monkeypatch)
    sample(log_density, START, kernel=kernel, draws=50, warmup=200, seed=0)
    assert len(walked) == 250
    for name, factor, step, length in walked[201:]:
        assert name == kernel
        assert torch.equal(factor, walked[200][1]) and torch.equal(step, walked[200][2]) and length == walked[200][3]
    assert len({float(step[0]) for _, _, step, _ in walked[:160]}) > 100


def spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensor, Tensor, float]]:
    """Kernel, metric, step and length of every step to come."""
    seen: list[tuple[str, Tensor, Tensor, float]] = []

    def watched(name: str, kernel: Kernel) -> Kernel:
        def step(target: object, state: object, factor: Tensor, size: Tensor, draw: object, length: float) -> object:
            seen.append((name, factor.clone(), size.clone(), length))
            return kernel.step(target, state, factor, size, draw, length)

        return kernel._replace(step=step)

    for name, kernel in list(KERNELS.items()):
        monkeypatch.setitem(KERNELS, name, watched(name, kernel))
    return seen


def test_an_interrupt_keeps_what_was_drawn() -> None:
    calls = 0

    def density(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 300:
            raise KeyboardInterrupt
        return -0.5 * x.square().sum() * (1.0 + 0.0 * float(x.detach()[0]))

    few = pytest.warns(ConvergenceWarning, match="^effective sample sizes must be above 100")
    with few, pytest.warns(ConvergenceWarning, match=r"^sampling was interrupted after [0-9]+ of 5000 draws, which are returned$"):
        data = sample(density, torch.zeros(2, 2, dtype=torch.float64), draws=5000, warmup=20, seed=0)
    shape = data["posterior"]["x"].shape
    assert 10 < shape[1] < 200
    assert data["sample_stats"]["lp"].shape == shape[:2]
    assert data.attrs["interrupted"] == 1


def test_odd_arguments_are_one_line() -> None:
    for change, words in (
        ({"draws": 10.0}, "^draws must be a whole number, got 10.0$"),
        ({"seed": -1}, "^seed must not be negative, got -1$"),
        ({"seed": None}, "^seed must be a whole number, got None$"),
        ({"kernel": None}, "^a kernel must be one of .*, got None"),
        ({"fisher": lambda x: -torch.eye(4)}, "^fisher must return a positive matrix"),
        ({"fisher": lambda x: np.eye(4)}, r"^fisher must return a \(4, 4\) tensor, got a ndarray$"),
    ):
        with pytest.raises(DomainError, match=words):
            sample.__wrapped__(log_density, START, **({"draws": 5, "warmup": 20, "seed": 0} | change))


def test_a_density_in_single_precision() -> None:
    data = sample(lambda x: -0.5 * x.float().square().sum(), torch.zeros(2, 2, dtype=torch.float64), draws=300, warmup=200, seed=0)
    assert data["posterior"]["x"].values.std() == pytest.approx(1.0, abs=0.2)
