"""Recalibration: a smooth monotone map with its inverse and Jacobian, fitted so that probabilities become uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from supermage.errors import DataError
from supermage.models.recalibration import Warp, fit_map, rank_distance

NUMBER = st.floats(-0.7, 0.7)


@given(NUMBER, NUMBER, NUMBER, NUMBER, st.floats(-30.0, 30.0))
def test_inverse_and_jacobian(shift: float, stretch: float, skew: float, tail: float, raw: float) -> None:
    warp = Warp(torch.tensor([[shift, stretch, skew, tail]], dtype=torch.float64))
    centre, scale = torch.tensor([9.0], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    start = (centre + scale * raw).requires_grad_()
    value = warp.forward(start, centre, scale)
    back, log_slope = warp.inverse(value, centre, scale)
    assert torch.allclose(back, start, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(value.sum(), start)
    assert float(slope) > 0
    assert float(log_slope.detach()) == pytest.approx(-float(torch.log(slope)), abs=1e-7)


def test_identity_changes_nothing() -> None:
    value = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    centre, scale = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    assert torch.allclose(Warp.identity(2).forward(value, centre, scale), value)


def recalibrated(truth: Tensor) -> tuple[Tensor, Warp]:
    """Probabilities of a unit normal's recalibration on half of the rows, for the other half."""

    def probability(rows: Tensor, warp: Warp) -> Tensor:
        raw, _ = warp.inverse(rows[:, None], torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        return torch.special.ndtr(raw[:, 0])

    numbers = fit_map(lambda point: [probability(truth[::2], Warp(point[None]))])
    return probability(truth[1::2], Warp(numbers[None])), Warp(numbers[None])


@pytest.mark.parametrize("kind", ["shifted", "too narrow", "skew", "heavy tails"])
def test_probabilities_become_uniform_on_other_rows(kind: str) -> None:
    """Predicted is a unit normal; the truth is another. Two-sample KS on rows that were not fitted, false alarm 1e-3 each."""
    generator = np.random.default_rng(5)
    normal = generator.standard_normal(3000)
    truth = {"shifted": normal + 0.3, "too narrow": 1.5 * normal, "skew": np.sinh(np.arcsinh(normal) + 0.4) - 0.3,
             "heavy tails": generator.standard_t(2, 3000)}[kind]  # fmt: skip
    before = stats.kstest(stats.norm.cdf(truth[1::2]), "uniform").pvalue
    after, _ = recalibrated(torch.tensor(truth))
    assert before < 1e-3
    distance = stats.kstest(after.numpy(), "uniform").statistic
    assert stats.kstwobign.sf(distance * np.sqrt(750.0)) > 1e-3


def test_calibrated_predictions_are_left_alone() -> None:
    """Numbers below five of their standard errors, which are of order n^-1/2."""
    _, warp = recalibrated(torch.tensor(np.random.default_rng(2).standard_normal(4000)))
    assert float(warp.parameters.abs().max()) < 0.15


def test_rank_distance_of_uniform_values() -> None:
    """Its expectation is 1 / (n + 2) at every rank, for variances are p (1 - p) / (n + 2)."""
    n = 40
    generator = torch.Generator().manual_seed(0)
    values = [float(rank_distance(torch.rand(n, generator=generator, dtype=torch.float64))) for _ in range(2000)]
    assert np.mean(values) == pytest.approx(1.0 / (n + 2), rel=0.1)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least 40 rows, got 5"):
        fit_map(lambda point: [torch.rand(5, dtype=torch.float64) + 0.0 * point[0]])
