"""Honest intervals: each likelihood on mocks from noise on, and the statistics that judge them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from supermage.data_reduction.mock_cells import CellMock
from supermage.errors import DomainError
from supermage.inference.calibration import (
    binomial_band,
    coverage,
    linear_ranks,
    nearly_linear_ranks,
    uniformity,
    z_spread,
)
from supermage.inference.likelihood import DENSITIES, VisibilityNoise
from tests.data_reduction.factories import make_gridded

TRIALS = 150


def _templates(mock: CellMock, rng: np.random.Generator) -> np.ndarray:
    x = np.linspace(-1.0, 1.0, mock.channels)
    profiles = np.exp(-(x**2) / 0.18), x * np.exp(-(x**2) / 0.18)
    phase = np.exp(1j * rng.uniform(0.0, 2.0 * np.pi, (2, mock.cells)))
    return np.stack([profile[:, None] * one for profile, one in zip(profiles, phase)])


@pytest.fixture(scope="module", params=[CellMock(visibilities=2, unknown=0.4), CellMock(visibilities=50)], ids=["2 a cell", "50 a cell"])
def ranks(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    mock: CellMock = request.param
    found: dict[str, list[float]] = {name: [] for name in DENSITIES}
    for number in range(TRIALS):
        rng = np.random.default_rng([number, mock.visibilities])
        templates = _templates(mock, rng)
        prior = 5.0 * np.sqrt(mock.scale / mock.visibilities / np.sum(np.abs(templates) ** 2, axis=(1, 2)))
        truth = prior * rng.standard_normal(2)
        data = mock.reduce(rng, np.tensordot(truth, templates, 1))
        assert np.array_equal(np.stack([data.cell_u, data.cell_v], axis=1), mock.places)
        for name in DENSITIES:
            noise = VisibilityNoise(data, likelihood=name, dtype=torch.float64)
            one = linear_ranks(noise, torch.from_numpy(templates[:, None]), truth, prior, rng, draws=1500)
            assert one.effective > 300
            found[name].append(float(one.below[number % 2]))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("likelihood", ["moderated_t", "student_t", "gaussian"])
def test_intervals_hold_the_truth_as_often_as_they_say(ranks: dict[str, np.ndarray], likelihood: str) -> None:
    """Bands of 99.9 %, and uniform ranks at 1 in 1000: a right likelihood fails 1 of 300 sets of seeds."""
    below = ranks[likelihood]
    for level in (0.68, 0.95):
        low, high = binomial_band(TRIALS, level, 0.999)
        assert low <= coverage(below, level) <= high
    assert uniformity(below, bins=10) > 1e-3


def test_the_papers_likelihood_is_shown_to_fail(ranks: dict[str, np.ndarray]) -> None:
    """Sigma x 2 makes intervals too wide: the truth lies in nine of ten 68 % intervals, where the band ends near eight."""
    assert coverage(ranks["paper"], 0.68) > binomial_band(TRIALS, 0.68, 0.999)[1]
    assert z_spread(ranks["paper"]) < 0.75


def test_errors_half_as_large_are_shown_to_fail() -> None:
    """The mutation that counts both half planes: sigma too small by sqrt(2)."""
    mock, outside = CellMock(visibilities=20), []
    for number in range(60):
        rng = np.random.default_rng([number, 7])
        templates = _templates(mock, rng)
        prior = 5.0 * np.sqrt(mock.scale / mock.visibilities / np.sum(np.abs(templates) ** 2, axis=(1, 2)))
        truth = prior * rng.standard_normal(2)
        data = mock.reduce(rng, np.tensordot(truth, templates, 1))
        data = data.replace(standard_error=data.standard_error / np.sqrt(2.0))
        noise = VisibilityNoise(data, likelihood="moderated_t", dtype=torch.float64)
        below = linear_ranks(noise, torch.from_numpy(templates[:, None]), truth, prior, rng, draws=1500).below
        outside.append(np.abs(below - 0.5) > 0.475)
    assert np.mean(outside) > 0.1  # 17 % expected; 5 % if the errors were right: 120 draws below 0.1 then, 1 in 200


def test_nearly_linear_model_agrees_with_the_linear_one() -> None:
    data = make_gridded(n_cell=60, n_channel=10, n_block=1)
    noise = VisibilityNoise(data, dtype=torch.float64)
    rng = np.random.default_rng(2)
    x = np.linspace(-1.0, 1.0, 10)
    templates = torch.from_numpy(np.stack([np.exp(-(x**2) / s)[None, :, None] * np.ones(data.mean.shape) for s in (0.2, 0.05)]) + 0j)
    truth, prior = np.array([1e-4, -2e-4]), np.array([2e-3, 2e-3])

    def residual(theta: torch.Tensor) -> torch.Tensor:
        return noise.residual(torch.einsum("p,pbck->bck", theta.to(torch.complex128), templates))

    one = linear_ranks(noise, templates, truth, prior, rng, draws=40_000)
    two = nearly_linear_ranks(residual, noise, truth, np.zeros(2), prior, rng, draws=40_000)
    assert two.effective > 63.9  # the ratio is one everywhere
    np.testing.assert_allclose(one.below, two.below, atol=0.02)


def test_statistics_of_ranks() -> None:
    rng = np.random.default_rng(1)
    even = (np.arange(2000) + 0.5) / 2000
    assert coverage(even, 0.68) == pytest.approx(0.68) and uniformity(even) == pytest.approx(1.0)
    assert z_spread(even) == pytest.approx(1.0, abs=0.01)
    narrow = stats.norm.cdf(2.0 * rng.standard_normal(2000))
    assert z_spread(narrow) == pytest.approx(2.0, abs=0.15) and uniformity(narrow) < 1e-10
    low, high = binomial_band(200, 0.68)
    assert stats.binom.cdf(200 * high, 200, 0.68) - stats.binom.cdf(200 * low - 1, 200, 0.68) >= 0.99
    with pytest.raises(DomainError, match="a band needs trials"):
        binomial_band(0, 0.68)
