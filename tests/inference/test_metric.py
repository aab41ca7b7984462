"""The metric against finite differences, closed forms and autoregressive chains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermage.inference.metric import (
    WIDEST,
    add_ridge,
    agree,
    effective_draws,
    factor_of_covariance,
    factor_of_precision,
    gauss_newton,
    jacobian,
    pooled_covariance,
    ridge,
    shrink,
    widest_direction,
)
from supermage.inference.model import Chart
from tests.inference.toy import TRUTH, tensors, toy_data, toy_fit


def positive(seed: int, size: int = 5, *, condition: float = 1e4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    return rotation @ torch.diag(torch.logspace(0, math.log10(condition), size, dtype=torch.float64)) @ rotation.mT


@pytest.mark.parametrize("columns", [1, 4, 16])
def test_jacobian_is_the_numerical_one(columns: int) -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6))
    coordinates = fit.coordinates(Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())), (1.7, 0.3)))
    z = coordinates.from_theta(tensors(TRUTH))

    def residual(p: Tensor) -> Tensor:
        return fit.whitened_residual(coordinates.to_theta(p)[0])

    found = jacobian(residual, z, columns=columns)
    step = 1e-5
    for i in range(len(z)):
        away = torch.zeros_like(z)
        away[i] = step
        numerical = (residual(z + away) - residual(z - away)).reshape(-1) / (2 * step)
        assert torch.allclose(found[:, i], numerical, rtol=1e-5, atol=1e-5 * float(numerical.abs().max()) + 1e-9), fit.names[i]


def test_gauss_newton_sums_over_the_data() -> None:
    matrix = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(gauss_newton(matrix), sum((torch.outer(row, row) for row in matrix), torch.zeros(3, 3, dtype=torch.float64)))


def test_ridge_is_a_share_of_the_median_diagonal_or_the_least() -> None:
    fisher = torch.diag(torch.tensor([1.0, 400.0, 9.0, 1e6, 25.0], dtype=torch.float64))
    assert ridge(fisher, ridge_frac=0.1, ridge_min=1e-10) == pytest.approx(2.5)
    assert ridge(fisher, ridge_frac=1e-6, ridge_min=0.5) == 0.5
    added = add_ridge(fisher, ridge_frac=0.1, ridge_min=0.0) - fisher
    assert torch.allclose(added, 2.5 * torch.eye(5, dtype=torch.float64))
    # off the diagonal it does nothing
    full = positive(3)
    assert torch.equal((add_ridge(full, ridge_frac=0.3) - full).triu(1), torch.zeros(5, 5, dtype=torch.float64))


@given(st.integers(0, 1000), st.integers(1, 8))
def test_factors(seed: int, size: int) -> None:
    matrix = positive(seed, size)
    identity = torch.eye(size, dtype=torch.float64)
    precision_factor, covariance_factor = factor_of_precision(matrix), factor_of_covariance(matrix)
    assert precision_factor.is_contiguous() and covariance_factor.is_contiguous()
    assert torch.allclose(precision_factor.mT @ matrix @ precision_factor, identity, atol=1e-9)
    assert torch.allclose(precision_factor @ precision_factor.mT, torch.linalg.inv(matrix), rtol=1e-8, atol=1e-10)
    assert torch.allclose(covariance_factor @ covariance_factor.mT, matrix, rtol=1e-9)


def test_factors_of_what_is_not_positive_stay_finite() -> None:
    broken = torch.diag(torch.tensor([4.0, 0.0, -1e-18], dtype=torch.float64))
    assert torch.isfinite(factor_of_precision(broken)).all()
    factor = factor_of_covariance(broken)
    assert torch.allclose((factor @ factor.mT).diagonal(), torch.tensor([4.0, 4e-14, 4e-14], dtype=torch.float64), rtol=1e-6)


def test_pooled_covariance_keeps_the_scatter_of_the_chains() -> None:
    draws = torch.randn(50, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    draws = draws + 10.0 * torch.arange(3, dtype=torch.float64)[None, :, None]
    assert np.allclose(pooled_covariance(draws).numpy(), np.cov(draws.reshape(-1, 4).numpy(), rowvar=False))
    assert float(pooled_covariance(draws)[0, 0]) > 50


def test_shrink_weighs_by_draws() -> None:
    covariance, toward = positive(4), torch.eye(5, dtype=torch.float64)
    assert torch.allclose(shrink(covariance, toward, effective=30.0, prior=10.0), 0.75 * covariance + 0.25 * toward)
    assert torch.allclose(shrink(covariance, toward, effective=10.0), 0.5 * covariance + 0.5 * toward)
    assert torch.allclose(shrink(covariance, toward, effective=0.0), toward)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_draws_of_autoregressive_chains(rho: float) -> None:
    """An AR(1) chain has (1 - rho) / (1 + rho) effective draws a draw."""
    rng = np.random.default_rng(5)
    n, chains, dimension = 4000, 4, 5
    x = np.zeros((n, chains, dimension))
    x[0] = rng.standard_normal((chains, dimension))
    for k in range(1, n):
        x[k] = rho * x[k - 1] + math.sqrt(1 - rho**2) * rng.standard_normal((chains, dimension))
    expected = n * chains * (1 - rho) / (1 + rho)
    assert effective_draws(torch.from_numpy(x)) == pytest.approx(expected, rel=0.15)
    # neither offset nor unit of a parameter matters
    assert effective_draws(torch.from_numpy(1e3 * x - 7.0)) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_the_widest_direction_is_that_of_the_draws(width: float) -> None:
    """Unit normals but for one direction that no axis shows; 12 dimensions, 4 chains."""
    rng = np.random.default_rng(12)
    turn, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    scale = np.ones(12)
    scale[0] = width
    draws = torch.from_numpy((rng.standard_normal((600, 4, 12)) * scale) @ turn.T)
    root = torch.from_numpy(rng.standard_normal((12, 12)) + 4.0 * np.eye(12))
    assert widest_direction(draws @ root.mT, root) == pytest.approx(width, rel=0.08)
    few = torch.from_numpy(rng.standard_normal((6, 4, 12)))
    assert widest_direction(few, torch.eye(12, dtype=torch.float64)) < 1.3
    assert widest_direction(100.0 * draws, torch.eye(12, dtype=torch.float64)) == WIDEST


def test_covariances_that_agree_within_chance() -> None:
    rng = np.random.default_rng(13)
    truth = torch.diag(torch.logspace(-3, 3, 10, dtype=torch.float64))
    agreed = [agree(torch.from_numpy(np.cov((rng.standard_normal((100, 10)) * truth.diagonal().sqrt().numpy()).T)), truth, effective=100.0)
              for _ in range(200)]  # fmt: skip
    assert np.mean(agreed) > 0.95
    wider = truth.clone()
    wider[0, 0] *= 4.0
    assert not agree(wider, truth, effective=100.0) and not agree(truth, wider, effective=100.0)
    assert not agree(truth, truth, effective=9.0)


def test_effective_draws_of_next_to_nothing() -> None:
    assert effective_draws(torch.zeros(3, 2, 2, dtype=torch.float64)) == 1.0
    assert effective_draws(torch.zeros(40, 2, 2, dtype=torch.float64)) >= 1.0
