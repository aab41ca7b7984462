"""MALA inside pyro.infer.MCMC on models with known posteriors."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from torch import Tensor

from supermage.errors import DomainError
from supermage.inference.arviz_access import ess
from supermage.inference.gauss_newton import FlatModel, gauss_newton_matrix
from supermage.inference.kernels import MALA, Barker, JitteredHMC, PersistentMALA

X = torch.linspace(-2, 2, 30, dtype=torch.float64)
Y = 1.5 * X - 0.7 + 0.5 * torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
DESIGN = torch.stack([X, torch.ones_like(X)], dim=1)


def line(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 10.0))
    offset = pyro.sample("offset", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x + offset, 0.5), obs=y)


def exact() -> tuple[Tensor, Tensor]:
    precision = DESIGN.mT @ DESIGN / 0.25 + 0.01 * torch.eye(2, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    return covariance @ (DESIGN.mT @ Y / 0.25), covariance


@pytest.mark.parametrize(("kernel", "least", "most"), [(MALA, 0.4, 0.75), (PersistentMALA, 0.85, 0.99), (JitteredHMC, 0.6, 0.97),
                                                       (Barker, 0.25, 0.6)])  # fmt: skip
def test_line_fit_has_its_exact_posterior(kernel: type[MALA], least: float, most: float) -> None:
    pyro.set_rng_seed(1)
    mcmc = MCMC(kernel(line), num_samples=800, warmup_steps=200, disable_progbar=True)
    mcmc.run(X, Y)
    draws = mcmc.get_samples()
    mean, covariance = exact()
    for k, name in enumerate(("slope", "offset")):
        values = draws[name].numpy()
        width = float(covariance[k, k]) ** 0.5
        effective = ess(values[None], method="mean")
        assert effective > 100
        assert abs(values.mean() - float(mean[k])) < 4 * width / math.sqrt(effective)
        assert values.std() / width == pytest.approx(1.0, abs=0.25)
    assert least < mcmc.diagnostics()["acceptance rate"]["chain 0"] < most


def test_gauss_newton_matrix_of_a_line_is_its_precision() -> None:
    model = FlatModel(line, (X, Y), {}, {}, {"slope": torch.Size(), "offset": torch.Size()})
    matrix = gauss_newton_matrix(model, torch.tensor([0.3, -0.2], dtype=torch.float64))
    order = [1, 0]  # offset, slope
    assert torch.allclose(matrix, torch.linalg.inv(exact()[1])[order][:, order], rtol=1e-8)


def robust(y: Tensor) -> None:
    centre = pyro.sample("centre", dist.Uniform(torch.tensor(-5.0, dtype=torch.float64), 5.0))
    width = pyro.sample("width", dist.LogNormal(torch.tensor(0.0, dtype=torch.float64), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.StudentT(torch.tensor(4.0, dtype=torch.float64), centre, width), obs=y)


def test_student_t_with_a_scale_and_bounded_parameters() -> None:
    y = 1.0 + 0.5 * torch.tensor(np.random.default_rng(5).standard_t(4, size=60))
    pyro.set_rng_seed(2)
    mcmc = MCMC(MALA(robust), num_samples=800, warmup_steps=300, disable_progbar=True)
    mcmc.run(y)
    draws = {name: values.numpy() for name, values in mcmc.get_samples().items()}
    # the posterior on a grid
    centre, width = np.meshgrid(np.linspace(0.3, 1.7, 141), np.linspace(0.2, 1.2, 151), indexing="ij")
    scaled = (y.numpy()[:, None, None] - centre) / width
    log_posterior = (-2.5 * np.log1p(scaled**2 / 4) - np.log(width)).sum(axis=0) - 0.5 * np.log(width) ** 2 - np.log(width)
    weight = np.exp(log_posterior - log_posterior.max())
    weight /= weight.sum()
    for values, grid in ((draws["centre"], centre), (draws["width"], width)):
        mean = float((weight * grid).sum())
        deviation = math.sqrt(float((weight * (grid - mean) ** 2).sum()))
        effective = ess(values[None], method="mean")
        assert effective > 60
        assert abs(values.mean() - mean) < 4 * deviation / math.sqrt(effective)
        assert values.std() / deviation == pytest.approx(1.0, abs=0.3)


def counts(y: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def test_other_likelihoods_learn_their_metric() -> None:
    y = torch.tensor([3.0, 5.0, 4.0, 2.0, 6.0, 3.0], dtype=torch.float64)
    pyro.set_rng_seed(3)
    kernel = MALA(counts)
    mcmc = MCMC(kernel, num_samples=800, warmup_steps=300, disable_progbar=True)
    mcmc.run(y)
    rate = mcmc.get_samples()["rate"].numpy()
    shape, scale = 2.0 + 23.0, 1.0 / 7.0
    effective = ess(rate[None], method="mean")
    assert abs(rate.mean() - shape * scale) < 4 * math.sqrt(shape) * scale / math.sqrt(effective)
    assert float(kernel._factor[0, 0]) != 1.0


def test_metric_is_frozen_after_warm_up() -> None:
    pyro.set_rng_seed(4)
    kernel = MALA(line)
    seen = []
    mcmc = MCMC(
        kernel,
        num_samples=50,
        warmup_steps=60,
        disable_progbar=True,
        hook_fn=lambda k, _, stage, __: seen.append((stage, k._factor.clone(), float(k._dual.log_average[0]))),
    )
    mcmc.run(X, Y)
    kept = [entry for entry in seen if entry[0].startswith("Sample")]
    assert len({entry[2] for entry in kept}) == 1
    assert all(torch.equal(entry[1], kept[0][1]) for entry in kept)


def test_a_given_fisher_matrix_is_the_metric() -> None:
    pyro.set_rng_seed(5)
    kernel = MALA(line, fisher=lambda flat: torch.diag(torch.tensor([4.0, 25.0], dtype=torch.float64)))
    kernel.setup(10, X, Y)
    assert torch.allclose(kernel._factor @ kernel._factor.mT, torch.diag(torch.tensor([0.25, 0.04], dtype=torch.float64)), rtol=1e-6)


def test_a_log_normal_far_from_one() -> None:
    """With the transform overlooked the metric was that of exp(w): 0.004 in place of 1 for the width of log w."""

    def model() -> None:
        width = pyro.sample("width", dist.LogNormal(torch.tensor(8.0, dtype=torch.float64), 1.0))
        mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 10.0))
        pyro.sample("y", dist.Normal(mean + 0.1 * torch.log(width), 1.0), obs=torch.tensor(0.0, dtype=torch.float64))

    pyro.set_rng_seed(2)
    mcmc = MCMC(MALA(model), num_samples=800, warmup_steps=300, disable_progbar=True)
    mcmc.run()
    log_width = torch.log(mcmc.get_samples()["width"]).numpy()
    assert ess(log_width[None], method="mean") > 100
    assert log_width.std() == pytest.approx(1.0, abs=0.25)
    assert log_width.mean() == pytest.approx(8.0, abs=0.4)


def test_wrong_starts_and_metrics_are_one_line() -> None:
    def run(kernel: MALA, **initial: object) -> None:
        MCMC(kernel, num_samples=2, warmup_steps=2, disable_progbar=True, initial_params=initial or None).run(X, Y)

    nan, zero = torch.tensor(math.nan, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for initial, words in (
        ({"slope": nan, "offset": zero}, r"^initial_params must have a finite log density, got -inf at \[0.0, nan\]$"),
        ({"slope": zero}, "^initial_params must give offset, slope, got slope$"),
        ({"slope": zero, "offset": torch.zeros(2)}, r"^initial_params of 'offset' must have the unconstrained shape \(\), got \(2,\)$"),
    ):
        with pytest.raises(DomainError, match=words):
            run(MALA(line), **initial)
    for fisher, words in (
        (lambda z: -torch.eye(2, dtype=torch.float64), "^fisher must return a positive matrix, got eigenvalues from -1 to -1$"),
        (lambda z: torch.full((2, 2), math.nan), "^fisher must return finite numbers, got nan or inf$"),
        (lambda z: z, r"^fisher must return a \(2, 2\) tensor, got shape \(2,\)$"),
        (lambda z: [[1.0]], r"^fisher must return a \(2, 2\) tensor, got a list$"),
        (lambda z: torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "^fisher must return a symmetric matrix, got .* its transpose by 1$"),
    ):
        with pytest.raises(DomainError, match=words):
            run(MALA(line, fisher=fisher))


def test_a_model_without_parameters_is_one_line() -> None:
    with pytest.raises(DomainError, match=r"^a model must have a continuous parameter to sample, got none$"):
        MCMC(MALA(lambda: None), num_samples=2, warmup_steps=2, disable_progbar=True).run()


def test_a_model_without_a_forward_derivative_goes_by_its_draws() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return 2.0 * x

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return 2.0 * gradient

    def model() -> None:
        x = pyro.sample("x", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 3.0))
        pyro.sample("y", dist.Normal(Twice.apply(x), 1.0), obs=torch.tensor(4.0, dtype=torch.float64))

    pyro.set_rng_seed(1)
    mcmc = MCMC(MALA(model), num_samples=800, warmup_steps=300, disable_progbar=True)
    with pytest.warns(UserWarning, match="^the metric is the covariance of the warm-up's draws: the model has no forward derivative"):
        mcmc.run()
    x = mcmc.get_samples()["x"].numpy()
    # precision 4 + 1/9
    assert x.mean() == pytest.approx(8.0 / (4.0 + 1.0 / 9.0), abs=0.15)
    assert x.std() == pytest.approx((4.0 + 1.0 / 9.0) ** -0.5, abs=0.1)


def test_where_a_model_raises_nothing_is_accepted() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0))
        torch.linalg.cholesky(torch.eye(2, dtype=torch.float64) * (1.0 - x))
        pyro.sample("y", dist.Normal(x, 10.0), obs=torch.tensor(0.0, dtype=torch.float64))

    pyro.set_rng_seed(1)
    mcmc = MCMC(MALA(model), num_samples=600, warmup_steps=200, disable_progbar=True, initial_params={"x": torch.tensor(0.0).double()})
    mcmc.run()
    x = mcmc.get_samples()["x"]
    assert float(x.max()) < 1.0
    # mean of a unit normal below 1: -phi(1) / Phi(1)
    assert float(x.mean()) == pytest.approx(-0.2876, abs=0.12)
