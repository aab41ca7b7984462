"""The galaxy's Pyro model and the sampler's target: gradients, Fisher matrix and edges against brute force."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DomainError, RecipeError
from supermage.forward.galaxy_model import GalaxyModel
from supermage.inference.model import Chart, PosteriorTarget, SkyModel, build_model
from supermage.recipe import PARAMETER_NAMES, Recipe
from tests.data_reduction.factories import make_gridded
from tests.inference.toy import FREE, TRUTH, ToySky, held, tensors, toy_data, toy_fit

CHART = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())), (1.7, 0.3))
DATA = toy_data(n_cell=30, n_channel=8)
FIT = toy_fit(DATA, priors=held(*FREE))
TARGET = PosteriorTarget(FIT, FIT.coordinates(CHART))
Z = TARGET.coordinates.from_theta(TRUTH)


def test_sites_are_those_of_table_1() -> None:
    trace = poutine.trace(FIT.pyro_model).get_trace()
    latent = [name for name, node in trace.nodes.items() if node["type"] == "sample" and not node["is_observed"]]
    assert tuple(latent) == FIT.names and "visibilities" in trace.nodes
    assert isinstance(FIT.galaxy_model, SkyModel)


def test_log_density_is_likelihood_prior_and_jacobian() -> None:
    theta, log_jacobian = TARGET.coordinates.to_theta(Z)
    volume = sum(math.log(360.0 if p.name == "PA" else p.upper - p.lower) for p in FIT.priors.free)
    expected = float(FIT.log_likelihood(theta)) - volume + float(log_jacobian)
    assert float(TARGET.log_density(Z)) == pytest.approx(expected, abs=1e-8)
    value, gradient = TARGET.value_and_gradient(Z)
    assert float(value) == pytest.approx(expected, abs=1e-8)
    step = 1e-5
    for i in range(len(Z)):
        away = torch.zeros_like(Z)
        away[i] = step
        numerical = float(TARGET.log_density(Z + away) - TARGET.log_density(Z - away)) / (2 * step)
        assert float(gradient[i]) == pytest.approx(numerical, rel=1e-4, abs=1e-4), FIT.names[i]


def test_several_chains_are_each_their_own() -> None:
    value, gradient = TARGET(torch.stack([Z, Z + 0.1]))
    for k, z in enumerate((Z, Z + 0.1)):
        alone = TARGET.value_and_gradient(z)
        assert torch.equal(value[k], alone[0]) and torch.equal(gradient[k], alone[1])


@pytest.mark.parametrize("chart", [CHART, Chart(cut=67.0)])
@pytest.mark.parametrize("likelihood", ["paper", "student_t", "moderated_t", "gaussian"])
def test_fisher_is_minus_the_hessian_where_data_are_the_model(chart: Chart, likelihood: str) -> None:
    """For a Gaussian exactly. For Student's t the weight is ``(nu + p) / (nu + p + 2)``, the Hessian's at no residual ``(nu + p) / nu``."""
    quiet = toy_data(n_cell=30, n_channel=8, noise=False)
    quiet = dataclasses.replace(quiet, degrees_of_freedom=np.full_like(quiet.degrees_of_freedom, 40.0),
                                cell_degrees=np.full_like(quiet.cell_degrees, 40.0))
    fit = toy_fit(quiet, priors=held(*FREE), model={"likelihood": likelihood, "continuum": False})
    target = PosteriorTarget(fit, fit.coordinates(chart))
    z = target.coordinates.from_theta(TRUTH)
    found = target.fisher(z) - torch.diag(target.coordinates.prior_precision(z))
    hessian = -torch.autograd.functional.hessian(lambda p: fit.log_likelihood(target.coordinates.to_theta(p)[0]), z)
    p = 16.0
    share = 1.0 if likelihood in ("paper", "gaussian") else 40.0 / (42.0 + p)
    scale = torch.sqrt(found.diagonal())
    assert torch.allclose(found / torch.outer(scale, scale), share * hessian / torch.outer(scale, scale), atol=1e-6)


def test_fisher_adds_the_priors_precision() -> None:
    def residual(p: Tensor) -> Tensor:
        return FIT.whitened_residual(TARGET.coordinates.to_theta(p)[0]).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(residual, Z)
    expected = jacobian.mT @ jacobian + torch.diag(TARGET.coordinates.prior_precision(Z))
    assert torch.allclose(TARGET.fisher(Z), expected, rtol=1e-8, atol=1e-8)
    i = FIT.names.index("log10_mbh")
    assert 0.0 < float(TARGET.coordinates.prior_precision(Z)[i]) < 1.0


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # Pyro says so, rightly
def test_what_is_not_finite_has_no_density(monkeypatch: pytest.MonkeyPatch) -> None:
    target = PosteriorTarget(FIT, FIT.coordinates(CHART))
    for broken in (lambda _: torch.full(FIT.noise.shape, complex(math.nan, 0.0)), _outside):
        with monkeypatch.context() as patched:
            patched.setattr(FIT.galaxy_model, "visibilities", broken)
            value, gradient = target.value_and_gradient(Z)
        assert float(value) == -math.inf and float(gradient.abs().max()) == 0.0


def _outside(_: object) -> Tensor:
    raise DomainError("a scale length must be positive, got 0")


def test_parameters_are_remembered_and_right() -> None:
    target = PosteriorTarget(FIT, FIT.coordinates(CHART))
    for z in (Z, Z + 0.2):
        target.value_and_gradient(z)
        for asked in (z, Z, Z - 0.1, z):
            theta, log_jacobian = target.parameters(asked)
            expected = target.coordinates.to_theta(asked)
            assert torch.allclose(theta, target.coordinates.vector(expected[0]), rtol=1e-14)
            assert float(log_jacobian) == pytest.approx(float(expected[1]))


def test_pivot_velocity_is_that_of_the_stars() -> None:
    pivots = FIT.coordinates(CHART).pivots
    assert pivots is not None
    for values in (TRUTH, {**TRUTH, "intensity_rb": 0.0, "gamma": 0.3}):
        speed = FIT.galaxy_model.circular_velocity(tensors(values), torch.tensor([0.8], dtype=torch.float64), "stars")[0]
        assert float(pivots.log_velocity_squared(tensors(values))) == pytest.approx(2.0 * math.log10(float(speed)))
    faint = {**TRUTH, "log10_mbh": 6.5}
    hole, stars = (
        ToySky(DATA).circular_velocity(tensors(faint), torch.tensor([0.8, 0.5], dtype=torch.float64), c) ** 2
        for c in ("black_hole", "stars")
    )
    chart = dataclasses.replace(CHART, reference=tuple(sorted(faint.items())))
    assert FIT.coordinates(chart).pivots.black_hole == pytest.approx((hole / stars).tolist())  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def gridded() -> GriddedVisibilities:
    return make_gridded(n_channel=4, n_cell=30)


def recipe(**fit: object) -> Recipe:
    galaxy = {"name": "toy", "distance": 11.4, "rest_frequency": 230.538e9}
    return Recipe.model_validate({"galaxy": galaxy, "fit": {"visibilities": "v.nc", "output": "p.nc", **fit}})


def test_build_model_puts_the_pieces_together(gridded: GriddedVisibilities) -> None:
    fit = build_model(recipe(model={"precision": "float64", "likelihood": "paper"}), gridded)
    assert set(fit.names) == set(TRUTH) and isinstance(fit.galaxy_model, SkyModel)
    with torch.no_grad():
        model = fit.galaxy_model.visibilities(tensors(TRUTH))
    assert model.shape == gridded.mean.shape and model.dtype == torch.complex128
    # the paper's Gaussian by hand: correlated along the channels, sigma times two, the flat continuum's direction taken out
    value = float(fit.log_likelihood(tensors(TRUTH)) - fit.log_likelihood(tensors({**TRUTH, "Flux": 4.0})))
    by_hand = [_chi2(gridded, fit.galaxy_model.visibilities(tensors({**TRUTH, "Flux": flux})).detach().numpy()) for flux in (2.0, 4.0)]
    assert value == pytest.approx(-0.5 * (by_hand[0] - by_hand[1]) / 4.0, rel=1e-8)


def test_no_tensor_is_left_on_the_processor(gridded: GriddedVisibilities) -> None:
    """On the meta device, which has shapes and no numbers, what mixes it with the CPU fails as it would on a graphics card."""
    fit = build_model(recipe(), gridded)
    model, noise = cast(GalaxyModel, fit.galaxy_model).to("meta"), fit.noise.to("meta")
    chains = {name: torch.full((3,), 0.5, dtype=torch.float64, device="meta", requires_grad=True) for name in PARAMETER_NAMES}
    visibilities = model.visibilities_of_chains(chains)
    energy = torch.func.vmap(lambda item: noise.log_likelihood_of(noise.residual(item)))(visibilities)
    assert visibilities.device.type == "meta" and energy.device.type == "meta" and energy.shape == (3,)
    energy.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.shape == (3,) for leaf in chains.values())
    with pytest.raises(RuntimeError, match="device"):
        fit.noise.residual(visibilities[0])


def _chi2(gridded: GriddedVisibilities, model: np.ndarray) -> float:
    correlation, total = gridded.response.correlation(gridded.mean.shape[1]), 0.0
    for block in range(gridded.mean.shape[0]):
        for cell in range(gridded.mean.shape[2]):
            error = gridded.standard_error[block, :, cell]
            if np.all(np.isfinite(error)):
                inverse = np.linalg.inv(correlation * np.outer(error, error))
                flat = inverse.sum(axis=1)
                without = inverse - np.outer(flat, flat) / flat.sum()
                residual = model[block, :, cell] - gridded.mean[block, :, cell]
                total += float((residual.conj() @ without @ residual).real)
    return total


def test_build_model_refuses(gridded: GriddedVisibilities) -> None:
    with pytest.raises(RecipeError, match="needs the sections") as error:
        build_model(Recipe(), gridded)
    with pytest.raises(RecipeError, match="priors must stay inside the emulator's range") as error:
        build_model(recipe(priors={"alpha": {"lower": 0.1, "upper": 50.0}}), gridded)
    assert "\n" not in str(error.value)
    gradient = {"model": {"mass_to_light": "gradient"}}
    with pytest.raises(RecipeError, match=r"gamma \+ ml_gradient must lie in \[0.001, 1.2\].*narrow the prior of gamma or of ml_gradient$"):
        build_model(recipe(**gradient), gridded)
    build_model(recipe(priors={"gamma": {"lower": 0.2, "upper": 0.9}, "ml_gradient": {"lower": -0.1, "upper": 0.3}}, **gradient), gridded)


def test_centres_must_lie_inside_the_image(gridded: GriddedVisibilities) -> None:
    """A prior that reaches into it is enough, its edge too: the half width is 1.92 arcsec."""
    for prior in ({"lower": 1.92, "upper": 50.0}, {"lower": -50.0, "upper": -1.92}, {"fixed": 1.9}):
        build_model(recipe(priors={"x": prior}), gridded)
    for prior, got in (({"lower": 1.93, "upper": 2.5}, "1.93 to 2.5"), ({"fixed": -2.0}, "-2 to -2")):
        with pytest.raises(RecipeError, match=rf"^the centre must lie inside the image, -1.92 to 1.92 arcsec, got y of {got} arcsec$"):
            build_model(recipe(priors={"y": prior}), gridded)


def test_the_sampler_walks_on_the_pyro_programs_density() -> None:
    """Its value leaves the trace out and shares one velocity curve between pivots and model; neither may change it."""
    for z in (Z, Z + 0.05, Z - 0.05):
        value, gradient = TARGET.value_and_gradient(z)
        assert float(value) == pytest.approx(float(TARGET.log_density(z)), abs=1e-8)
        leaf = z.clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(TARGET.log_density(leaf), leaf)
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
