"""The Gauss-Newton matrix of Pyro models against closed-form Fisher matrices and the scatter of scores."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from supermage.inference.gauss_newton import FlatModel, gauss_newton_matrix, has_residuals
from tests.inference.toy import FREE, TRUTH, held, toy_data, toy_fit


def real(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def flat_model(model: object, *arguments: object) -> FlatModel:
    pyro.set_rng_seed(0)
    initial, _, transforms, _ = initialize_model(model, model_args=arguments)
    return FlatModel(model, arguments, {}, transforms, {name: value.shape for name, value in initial.items()})  # type: ignore[arg-type]


def normal(y: Tensor) -> None:
    centre = pyro.sample("centre", dist.Normal(real(0.0), 2.0))
    log_width = pyro.sample("log_width", dist.Normal(real(0.0), 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(centre, torch.exp(log_width)), obs=y)


def student(y: Tensor, nu: float) -> None:
    centre = pyro.sample("centre", dist.Normal(real(0.0), 2.0))
    log_width = pyro.sample("log_width", dist.Normal(real(0.0), 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.StudentT(real(nu), centre, torch.exp(log_width)), obs=y)


AT = torch.tensor([0.7, -0.4], dtype=torch.float64)
N = 11


def test_normal_with_unknown_scale() -> None:
    """n / sigma^2 for the mean and 2 n for log sigma, plus the priors."""
    matrix = gauss_newton_matrix(flat_model(normal, torch.zeros(N, dtype=torch.float64)), AT)
    assert torch.allclose(matrix, torch.diag(torch.tensor([N / math.exp(-0.8) + 0.25, 2.0 * N + 1.0 / 9.0], dtype=torch.float64)))


@pytest.mark.parametrize("nu", [1.0, 4.0, 30.0])
def test_student_t_is_the_scatter_of_its_scores(nu: float) -> None:
    """Fisher information is the variance of the score, drawn here from the model itself."""
    matrix = gauss_newton_matrix(flat_model(student, torch.zeros(N, dtype=torch.float64), nu), AT)
    t = np.random.default_rng(1).standard_t(nu, 200_000)
    width = math.exp(-0.4)
    score = np.stack([(nu + 1) * t / (nu + t**2) / width, (nu + 1) * t**2 / (nu + t**2) - 1.0])
    expected = N * np.cov(score) + np.diag([0.25, 1.0 / 9.0])
    scale = np.sqrt(np.diag(expected))
    assert np.allclose(matrix.numpy() / np.outer(scale, scale), expected / np.outer(scale, scale), atol=0.02)


def test_masked_and_repeated_data_count_as_they_do() -> None:
    y = torch.zeros(N, dtype=torch.float64)
    mask = torch.arange(N) < 4

    def masked(y: Tensor) -> None:
        centre = pyro.sample("centre", dist.Normal(real(0.0), 2.0))
        with pyro.plate("data", len(y)), poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(centre, real(0.5)), obs=y)

    def repeated(y: Tensor) -> None:
        centre = pyro.sample("centre", dist.Normal(real(0.0), 2.0))
        with poutine.scale(scale=3.0), pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(centre, real(0.5)), obs=y)

    assert float(gauss_newton_matrix(flat_model(masked, y), AT[:1])) == pytest.approx(4 * 4.0 + 0.25)
    assert float(gauss_newton_matrix(flat_model(repeated, y), AT[:1])) == pytest.approx(3 * N * 4.0 + 0.25)


def test_other_priors_count_by_their_width_in_unconstrained_coordinates() -> None:
    """The logarithm of a Gamma(100) variate has variance psi'(100) = 0.01005; its precision is measured from 200 draws."""

    def model() -> None:
        width = pyro.sample("width", dist.Gamma(real(100.0), real(1.0)))
        pyro.sample("y", dist.Normal(0.0 * width, real(1.0)), obs=real(0.0))

    flat = flat_model(model)
    before = torch.random.get_rng_state()
    assert float(gauss_newton_matrix(flat, torch.log(torch.tensor([100.0], dtype=torch.float64)))) == pytest.approx(99.5, rel=0.3)
    # the caller's random numbers are left alone
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_models_with_residuals_have_one() -> None:
    def counts(y: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(real(2.0), 1.0))
        pyro.sample("y", dist.Poisson(rate), obs=y)

    def prior_only() -> None:
        pyro.sample("x", dist.Normal(real(0.0), 1.0))

    y = torch.zeros(N, dtype=torch.float64)
    assert has_residuals(flat_model(normal, y), AT) and has_residuals(flat_model(student, y, 3.0), AT)
    assert not has_residuals(flat_model(counts, real(2.0)), AT[:1])
    assert not has_residuals(flat_model(prior_only), AT[:1])


def test_vectors_and_names_go_there_and_back() -> None:
    def model() -> None:
        pyro.sample("b", dist.Normal(torch.zeros(2, 3, dtype=torch.float64), 1.0).to_event(2))
        pyro.sample("a", dist.LogNormal(real(0.0), 1.0))
        pyro.sample("y", dist.Normal(real(0.0), 1.0), obs=real(0.0))

    flat = flat_model(model)
    assert flat.names == ["a", "b"]
    vector = torch.arange(7, dtype=torch.float64)
    assert torch.equal(flat.join(flat.split(vector)), vector)
    constrained = flat.constrain(vector)
    assert float(constrained["a"]) == 1.0 and torch.equal(constrained["b"], vector[1:].reshape(2, 3))


def test_a_galaxys_model_brings_its_own_residual() -> None:
    """In unconstrained coordinates of the uniform priors: J^T J of the whitened residual, plus the priors of logistic width."""
    fit = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE))
    flat = flat_model(fit.pyro_model)
    here = flat.join({name: flat.transforms[name](real(TRUTH[name])) for name in flat.names})
    assert has_residuals(flat, here)

    def residual(vector: Tensor) -> Tensor:
        fixed = {name: real(value) for name, value in fit.priors.fixed.items()}
        return fit.whitened_residual(fixed | flat.constrain(vector)).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(residual, here)
    rest = gauss_newton_matrix(flat, here) - jacobian.mT @ jacobian
    # the logit of a uniform number has variance pi^2 / 3
    assert torch.allclose(rest.diagonal(), torch.full((len(FREE),), 3.0 / math.pi**2, dtype=torch.float64), rtol=0.35)
    assert float((rest - torch.diag(rest.diagonal())).abs().max()) < 1e-6 * float(jacobian.square().sum())


def test_a_logarithm_is_seen_through() -> None:
    """A latent LogNormal is a Normal in unconstrained coordinates, and an observed one measures its location: 1 / width^2 each."""

    def model() -> None:
        width = pyro.sample("width", dist.LogNormal(real(8.0), 0.5))
        pyro.sample("y", dist.LogNormal(torch.log(width), 0.25).expand([7]).to_event(1), obs=torch.full((7,), 9.0, dtype=torch.float64))

    assert float(gauss_newton_matrix(flat_model(model), AT[:1] + 8.0)) == pytest.approx(4.0 + 7 * 16.0)


def test_a_transform_with_parameters_has_no_residual() -> None:
    def affine() -> None:
        centre = pyro.sample("centre", dist.Normal(real(0.0), 1.0))
        moved = torch.distributions.transforms.AffineTransform(centre, 0.1)
        unit = torch.distributions.Normal(real(0.0), 1.0)
        pyro.sample("y", dist.TransformedDistribution(unit, [moved]), obs=real(0.0))

    def folded() -> None:
        width = pyro.sample("width", dist.HalfNormal(real(2.0)))
        pyro.sample("y", dist.HalfNormal(width), obs=real(1.0))

    assert not has_residuals(flat_model(affine), AT[:1])
    assert not has_residuals(flat_model(folded), AT[:1])


def test_a_half_normal_prior_counts_by_its_width() -> None:
    """The logarithm of a half-normal variate has variance pi^2 / 8, whatever its scale."""

    def model() -> None:
        pyro.sample("width", dist.HalfNormal(real(20.0)))
        pyro.sample("y", dist.Normal(real(0.0), 1.0), obs=real(0.0))

    assert float(gauss_newton_matrix(flat_model(model), AT[:1])) == pytest.approx(8.0 / math.pi**2, rel=0.3)


def test_masks_and_scales_inside_events() -> None:
    """Rows of two numbers each, the second row masked, everything counted three times."""
    y = torch.zeros(3, 2, dtype=torch.float64)
    mask = torch.tensor([True, False, True])

    def model() -> None:
        centre = pyro.sample("centre", dist.Normal(real(0.0), 2.0))
        with poutine.scale(scale=3.0), pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(centre.expand(3, 2), real(0.5)).to_event(1).mask(mask), obs=y)

    assert float(gauss_newton_matrix(flat_model(model), AT[:1])) == pytest.approx(3 * 2 * 2 * 4.0 + 0.25)


def test_an_improper_prior_knows_nothing() -> None:
    def model() -> None:
        centre = pyro.sample("centre", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.sample("y", dist.Normal(centre, real(0.5)), obs=real(0.0))

    flat = FlatModel(model, (), {}, {}, {"centre": torch.Size()})
    assert float(gauss_newton_matrix(flat, AT[:1])) == pytest.approx(4.0)
