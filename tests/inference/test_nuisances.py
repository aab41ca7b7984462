"""What differs between execution blocks: against a point source moved and dimmed by hand, and normal priors through chart and Pyro."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from supermage.errors import RecipeError
from supermage.inference.coordinates import Coordinates
from supermage.inference.model import PosteriorTarget, build_model
from supermage.inference.nuisances import BlockNuisances
from supermage.inference.parameters import block_parameters
from supermage.inference.priors import Priors, build_priors
from tests.data_reduction.factories import make_gridded, point_source
from tests.inference.test_model import recipe

BOTH = {"block_flux": 0.07, "block_position": 0.02}


def _tensors(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_each_block_is_moved_and_scaled_by_its_own() -> None:
    gridded = make_gridded(n_channel=5, n_cell=60)
    apply = BlockNuisances(gridded, dtype=torch.float64)
    here = torch.from_numpy(point_source(gridded, 0.2, -0.1))
    theta = _tensors(flux_scale_1=0.9, flux_scale_2=1.1, offset_x_1=0.05, offset_y_1=-0.02, offset_x_2=0.0, offset_y_2=0.3)
    got = apply(theta, here).numpy()
    assert got[0] == pytest.approx(0.9 * point_source(gridded, 0.25, -0.12)[0], abs=1e-9)
    assert got[1] == pytest.approx(1.1 * point_source(gridded, 0.2, 0.2)[1], abs=1e-9)
    assert apply(_tensors(x=0.1), here) is here
    only_flux = apply(_tensors(flux_scale_1=1.0, flux_scale_2=2.0), here)
    assert torch.equal(only_flux, torch.stack([here[0], 2.0 * here[1]]))


def test_names_and_priors() -> None:
    found = block_parameters(2, flux=0.05, position=0.01)
    assert [p.name for p in found] == ["flux_scale_1", "offset_x_1", "offset_y_1", "flux_scale_2", "offset_x_2", "offset_y_2"]
    assert found[0].normal == (1.0, 0.05) and found[4].normal == (0.0, 0.01)
    assert block_parameters(3, flux=0.0, position=0.0) == ()


def test_a_block_can_be_trusted_and_only_blocks_of_the_data_named() -> None:
    trusted = recipe(model=BOTH, priors={"flux_scale_1": {"fixed": 1.0}}).fit
    assert trusted is not None
    priors = build_priors(trusted, 2)
    assert priors.fixed == {"flux_scale_1": 1.0} and {"flux_scale_2", "offset_x_1", "offset_y_2"} < set(priors.names)
    beyond = recipe(model=BOTH, priors={"offset_x_3": {"fixed": 0.0}}).fit
    assert beyond is not None and "offset_x_3" not in build_priors(beyond).names
    with pytest.raises(RecipeError, match=r"fit.priors may name blocks 1 to 2 of the data, got 'offset_x_3'"):
        build_priors(beyond, 2)
    gridded = make_gridded(n_channel=16, n_cell=100, n_pixel=64)
    free, fixed = (build_model(recipe(model=BOTH, priors=table), gridded) for table in ({}, {"flux_scale_1": {"fixed": 0.9}}))
    theta, _ = Coordinates(free.priors).to_theta(0.3 * torch.ones(len(free.names), dtype=torch.float64))
    dimmed = {**theta, "flux_scale_1": torch.tensor(0.9, dtype=torch.float64)}
    assert "flux_scale_1" not in fixed.names
    of_free, of_fixed = (PosteriorTarget(fit, Coordinates(fit.priors)) for fit in (free, fixed))
    at_free, at_fixed = (of.coordinates.from_theta({name: dimmed[name] for name in of.fit.names}) for of in (of_free, of_fixed))
    prior = stats.norm.logpdf((0.9 - 1.0) / 0.07)
    assert float(of_fixed.log_density(at_fixed)) == pytest.approx(float(of_free.log_density(at_free)) - prior, abs=1e-6)


def test_normal_prior_in_the_chart() -> None:
    priors = Priors(block_parameters(1, flux=0.05, position=0.02), {})
    chart = Coordinates(priors)
    z = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    theta, log_jacobian = chart.to_theta(z)
    assert theta["flux_scale_1"].item() == pytest.approx(1.015) and theta["offset_y_1"].item() == pytest.approx(0.04)
    assert log_jacobian.item() == pytest.approx(math.log(0.05 * 0.02 * 0.02))
    assert torch.allclose(chart.from_theta(theta), z) and chart.prior_precision(z).tolist() == [1.0, 1.0, 1.0]
    assert chart.log_prior(z).item() == pytest.approx(stats.norm.logpdf(z.numpy()).sum())


def test_a_fit_with_nuisances_is_likelihood_and_priors() -> None:
    gridded = make_gridded(n_channel=16, n_cell=100, n_pixel=64)
    fit = build_model(recipe(model=BOTH), gridded)
    assert fit.names[-6:] == tuple(p.name for p in block_parameters(2, flux=0.07, position=0.02))
    target = PosteriorTarget(fit, Coordinates(fit.priors, cut=67.0))
    z = 0.3 * torch.ones(len(fit.names), dtype=torch.float64)
    theta, log_jacobian = target.coordinates.to_theta(z)
    value, gradient = target.value_and_gradient(z)
    uniform = sum(p.log_prior_width for p in fit.priors.free if p.normal is None) + math.log(360.0 / 359.9)
    normal = sum(stats.norm.logpdf(float(theta[p.name]), *p.normal) for p in fit.priors.free if p.normal is not None)
    assert float(value) == pytest.approx(float(fit.log_likelihood(theta)) - uniform + normal + float(log_jacobian), abs=1e-5)
    with torch.no_grad():
        plain = fit.galaxy_model.visibilities(theta)
        assert torch.allclose(fit.visibilities(theta), BlockNuisances(gridded)(theta, plain))
    step = torch.zeros_like(z)
    for i in (len(z) - 6, len(z) - 1):
        step[i] = 1e-2
        numerical = float(target.log_density(z + step) - target.log_density(z - step)) / 2e-2
        assert float(gradient[i]) == pytest.approx(numerical, rel=5e-3, abs=5e-3)
        step[i] = 0.0
    assert np.isfinite(target.fisher(z).numpy()).all()
