"""Mixture networks: their densities against torch's own, unseen coordinates integrated out, the ensemble, the population."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions as dist

from supermage.errors import DataError
from supermage.models.mixture_density import ConditionalDensity, NetworkShape, components, draw_layers, fit_population
from supermage.models.recalibration import Warp

SHAPE = NetworkShape(inputs=4, latents=3, members=2, components=2, hidden=8, depth=2)


def layers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [layer + 0.3 * torch.randn(layer.shape, generator=generator, dtype=torch.float64) for layer in draw_layers(SHAPE, 1)]


def reference(row: int, member: int, inputs: torch.Tensor) -> dist.MixtureSameFamily:
    got = components(layers(), SHAPE, inputs)
    gaussians = dist.MultivariateNormal(got.mean[member, row], scale_tril=got.factor[member, row])
    return dist.MixtureSameFamily(dist.Categorical(logits=got.log_weight[member, row]), gaussians)


def test_density_is_that_of_a_mixture_of_gaussians() -> None:
    inputs = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    value = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    got = components(layers(), SHAPE, inputs).log_density(value)
    for member in range(2):
        for row in range(5):
            assert float(got[member, row]) == pytest.approx(float(reference(row, member, inputs).log_prob(value[row])), abs=1e-10)


def test_last_coordinate_unseen_is_integrated_out() -> None:
    inputs = torch.zeros(1, 4, dtype=torch.float64)
    point = torch.tensor([[0.2, -0.1, torch.nan]], dtype=torch.float64)
    got = torch.exp(components(layers(), SHAPE, inputs).log_density(point))[0, 0]
    axis = torch.linspace(-60.0, 60.0, 60_001, dtype=torch.float64)
    whole = torch.stack([torch.full_like(axis, 0.2), torch.full_like(axis, -0.1), axis], dim=-1)
    total = torch.exp(reference(0, 0, inputs).log_prob(whole)).sum() * (axis[1] - axis[0])
    assert float(got) == pytest.approx(float(total), rel=1e-8)


def test_members_see_their_own_rows() -> None:
    inputs = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    both = components(layers(), SHAPE, inputs)
    assert torch.allclose(both.mean[1], components(layers(), SHAPE, inputs[1]).mean[1])


def test_ensemble_is_the_mean_of_densities_about_the_anchor_with_the_population() -> None:
    inputs = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    spread, anchor = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.full((3, 3), 9.0, dtype=torch.float64)
    population = fit_population(np.random.default_rng(0).normal(9.0, 1.0, (400, 3)), 2)
    density = ConditionalDensity(SHAPE, layers(), spread, population, Warp.identity(3))
    share = torch.tensor([0.001, 0.3, 1.0], dtype=torch.float64)
    mixture = density.mixture(inputs, anchor, share)
    value = anchor + spread * torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
    one = components(layers(), SHAPE, inputs).log_density((value - anchor) / spread) - torch.log(spread).sum()
    gaussians = dist.MultivariateNormal(population.mean, scale_tril=population.factor)
    wide = dist.MixtureSameFamily(dist.Categorical(logits=population.log_weight), gaussians).log_prob(value)
    expected = torch.log((1.0 - share) * torch.exp(torch.logsumexp(one, 0) - math.log(2.0)) + share * torch.exp(wide))
    assert torch.allclose(mixture.log_density(value), expected, rtol=1e-6, atol=1e-9)


def test_training_starts_near_a_unit_normal_and_from_the_seed() -> None:
    first, again = draw_layers(SHAPE, 5), draw_layers(SHAPE, 5)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    got = components(first, SHAPE, torch.zeros(1, 4, dtype=torch.float64))
    assert float(torch.diagonal(got.factor, dim1=-2, dim2=-1).log().abs().max()) < 1.0


def test_population_finds_two_separate_clouds() -> None:
    """Weights within 5 binomial deviations, means within 5 standard errors, covariances within 10 %."""
    generator = np.random.default_rng(4)
    rows = np.concatenate([generator.normal(0.0, 1.0, (3000, 2)), generator.normal(9.0, 0.5, (1000, 2))])
    got = fit_population(rows, 2)
    order = torch.argsort(got.mean[:, 0])
    assert torch.exp(got.log_weight)[order].tolist() == pytest.approx([0.75, 0.25], abs=5 * math.sqrt(0.75 * 0.25 / 4000))
    assert got.mean[order].flatten().tolist() == pytest.approx([0.0, 0.0, 9.0, 9.0], abs=0.1)
    covariance = (got.factor @ got.factor.mT)[order]
    assert covariance[0].diagonal().tolist() == pytest.approx([1.0, 1.0], rel=0.1)
    assert covariance[1].diagonal().tolist() == pytest.approx([0.25, 0.25], rel=0.15)


def test_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="needs 60 rows, got 10"):
        fit_population(np.zeros((10, 3)), 2)
