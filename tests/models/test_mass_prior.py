"""Mass priors: joint densities, marginals, quantiles and draws agree with one another, and masses are ordered by construction."""

from __future__ import annotations

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from scipy import integrate, stats
from torch import Tensor

from supermage.errors import DomainError
from supermage.models.mass_coordinates import NAMES
from supermage.models.mass_prior import MassPrior
from supermage.models.recalibration import Warp
from tests.models.mass_mixtures import mixture, prior


def test_shapes_and_names() -> None:
    """One row alone is that row of many, up to the last bits: the exponentials of one number and of four at a time round differently."""
    torch.manual_seed(1)
    got = prior(3)
    assert got.batch_shape == (3,) and got.event_shape == (2,)
    assert got.targets == ("log_mstar", "log_mtot") and got.aperture == "1rhsm"
    point = got.rsample((5,))
    assert point.shape == (5, 3, 2) and point.dtype == torch.float64
    assert got.log_prob(point).shape == (5, 3)
    assert got[1].batch_shape == () and got[1].rsample().shape == (2,)
    assert torch.allclose(got[1].log_prob(point[:, 1]), got.log_prob(point)[:, 1], rtol=0.0, atol=1e-12)
    assert got.expand((4, 3)).log_prob(point[:4]).shape == (4, 3)
    assert len(got) == 3 and [row.batch_shape for row in got] == [()] * 3


def test_it_is_a_distribution_of_pyros_models() -> None:
    """As a sample site, alone and in a plate: the trace's log probability is the density's."""
    rows = prior(3)

    def model() -> None:
        pyro.sample("one", rows[0])
        with pyro.plate("galaxies", 3):
            pyro.sample("all", rows)

    trace = poutine.trace(model).get_trace()
    expected = rows[0].log_prob(trace.nodes["one"]["value"]) + rows.log_prob(trace.nodes["all"]["value"]).sum()
    assert float(trace.log_prob_sum()) == pytest.approx(float(expected)) and rows.event_dim == 1


def test_joint_density_integrates_to_one_and_to_its_marginals() -> None:
    """On a grid finer than every component, against both marginals: to 1e-6 of their largest density."""
    got = prior(1)[0]
    axes = []
    for name in got.targets:
        low, high = (float(item) for item in got.marginal(name)._line.bracket())
        axes.append(torch.linspace(low, high, 600, dtype=torch.float64))
    steps = [float(axis[1] - axis[0]) for axis in axes]
    density = torch.stack([torch.exp(got.log_prob(torch.stack([value.expand(600), axes[1]], dim=-1))) for value in axes[0]])
    assert float(density.sum()) * steps[0] * steps[1] == pytest.approx(1.0, abs=1e-6)
    for number, name in enumerate(got.targets):
        marginal = torch.exp(got.marginal(name).log_prob(axes[number]))
        assert float((density.sum(1 - number) * steps[1 - number] - marginal).abs().max() / marginal.max()) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_marginal_is_one_distribution(name: str) -> None:
    """cdf' = pdf, the integral (Simpson; f_dm piles up where there is no gas), icdf inverts cdf, draws follow (false alarm 1e-3 each)."""
    torch.manual_seed(1)
    got = prior(1)[0].marginal(name)
    axis = got.icdf(torch.special.ndtr(torch.linspace(-7.0, 7.0, 401, dtype=torch.float64)))
    total = integrate.simpson(torch.exp(got.log_prob(axis)).numpy(), x=axis.numpy())
    assert total == pytest.approx(1.0, abs=2e-3 if name == "log_fdm" else 1e-5)
    probability = torch.tensor([1e-6, 0.025, 0.3, 0.5, 0.84, 0.999], dtype=torch.float64)
    value = got.icdf(probability).requires_grad_()
    below = got.cdf(value)
    assert torch.allclose(below, probability, rtol=0, atol=1e-11)
    (slope,) = torch.autograd.grad(below.sum(), value)
    assert torch.allclose(slope, torch.exp(got.log_prob(value)), rtol=1e-9)
    draws = got.rsample((1500,))
    assert stats.kstest(got.cdf(draws).numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(got.cdf(got.sample((1500,))).numpy(), "uniform").pvalue > 1e-3
    assert float(got.mean) == pytest.approx(float(draws.mean()), abs=5.0 * float(got.variance.sqrt()) / 1500**0.5)


@pytest.mark.parametrize("targets", [("log_mstar", "log_mdm"), ("log_mtot", "log_mdm"), ("log_mdm", "log_fdm"), ("log_fstar", "log_mdm"),
                                     ("log_mtot", "log_fdm"), ("log_mstar", "log_fdm"), ("log_ml", "log_fstar")])  # fmt: skip
def test_other_pairs_integrate_to_their_marginals(targets: tuple[str, str]) -> None:
    """The second target's axis resolves all but what piles up where there is nearly no gas: 1e-3."""
    got = prior(1)[0].with_targets(targets)
    first, second = (got.marginal(name) for name in targets)
    low, high = (float(item) for item in second._line.bracket())
    axis = torch.linspace(low, high, 700, dtype=torch.float64)
    for probability in (0.1, 0.6):
        value = first.icdf(torch.tensor(probability, dtype=torch.float64))
        density = torch.exp(got.log_prob(torch.stack([value.expand(700), axis], dim=-1)))
        assert float(density.sum() * (axis[1] - axis[0])) == pytest.approx(float(torch.exp(first.log_prob(value))), rel=1e-3)


def test_triple_has_the_density_of_its_coordinates() -> None:
    """Against the density in the latent coordinates and a Jacobian by automatic differentiation."""
    got = prior(1)[0].with_targets(("log_mstar", "log_mtot", "log_mdm"))
    torch.manual_seed(4)
    latents = got.draw_latents()

    def targets(point: Tensor) -> Tensor:
        u1, u2, u3 = point
        return torch.stack([u1, torch.log10(10.0**u1 * (1.0 + 10.0**u2)), torch.log10(10.0 ** (u1 + u2) / (1.0 + 10.0**u3))])

    jacobian = torch.autograd.functional.jacobian(targets, latents)
    expected = got.mixture.log_density(latents) - torch.linalg.slogdet(jacobian).logabsdet
    assert float(got.log_prob(targets(latents))) == pytest.approx(float(expected), abs=1e-8)


@settings(max_examples=15)
@given(st.floats(-3.0, 3.0), st.floats(-1.0, 1.0), st.integers(0, 1000))
def test_masses_are_ordered(shift: float, skew: float, seed: int) -> None:
    """Whatever the recalibration does."""
    torch.manual_seed(seed)
    warp = Warp(torch.tensor([[shift, 0.5, skew, 0.3], [-shift, 0.5, -skew, -0.3], [0.0, 0.0, skew, 0.0]], dtype=torch.float64))
    got = MassPrior(mixture(2, warp=warp), ("log_mstar", "log_mtot", "log_mdm"))
    star, total, dark = got.sample((100,)).unbind(-1)
    assert bool((total >= star).all())
    assert bool((10.0**total * (1.0 + 1e-9) >= 10.0**star + 10.0**dark).all())


def test_density_is_zero_without_a_gradient_where_masses_cannot_be() -> None:
    point = torch.tensor([[9.6, 9.5], [9.5, 9.5]], dtype=torch.float64, requires_grad=True)
    value = prior(2).log_prob(point)
    assert bool(torch.isneginf(value).all())
    (gradient,) = torch.autograd.grad(torch.where(torch.isfinite(value), value, 0.0).sum(), point)
    assert bool((gradient == 0).all())


def test_gradients_of_density_and_draws() -> None:
    """log_prob by finite differences of the point; a draw's derivative by a component's mean, at fixed random numbers."""
    got = prior(1)[0]
    torch.manual_seed(7)
    point = got.rsample()
    assert torch.autograd.gradcheck(got.log_prob, (point.clone().requires_grad_(),), eps=1e-6, atol=1e-5)
    base = mixture(1)
    uniform = torch.tensor([[0.3, 0.7, 0.4]], dtype=torch.float64)

    def draw(mean: Tensor, log_weight: Tensor) -> Tensor:
        return MassPrior(type(base)(log_weight, mean, base.factor, base.centre, base.scale, base.warped, base.warp)).mixture.draw(uniform)

    inputs = (base.mean.clone().requires_grad_(), base.log_weight.clone().requires_grad_())
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-6, atol=1e-5, rtol=1e-3)


def test_quantiles_are_differentiable() -> None:
    got = prior(1)[0].marginal("log_mtot")
    probability = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value = got.icdf(probability)
    (slope,) = torch.autograd.grad(value, probability)
    assert float(slope) == pytest.approx(float(torch.exp(-got.log_prob(value.detach()))), rel=1e-8)
    ends = got.icdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.isneginf(ends[0]) and torch.isposinf(ends[1])


def test_mass_to_light_is_the_stellar_mass_moved() -> None:
    got = prior(2)
    probability = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert torch.allclose(got.marginal("log_ml").icdf(probability), got.marginal("log_mstar").icdf(probability) - 9.8)


@pytest.mark.parametrize(
    ("targets", "word"),
    [((), "none"), (("log_mstr",), "did you mean 'log_mstar'"), (("log_mstar", "log_ml"), "functions of one another"),
     (("log_mstar", "log_mtot", "log_fstar"), "functions of one another")],
)  # fmt: skip
def test_wrong_targets_are_refused_in_one_line(targets: tuple[str, ...], word: str) -> None:
    with pytest.raises(DomainError, match=word) as caught:
        MassPrior(mixture(1), targets)
    assert "\n" not in str(caught.value)


def test_wrong_points_are_refused() -> None:
    with pytest.raises(DomainError, match="2 numbers on its last axis"):
        prior(1).log_prob(torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(DomainError, match=r"must lie in \[0, 1\]"):
        prior(1).marginal("log_mstar").icdf(torch.tensor(1.5))
    with pytest.raises(DomainError, match="did you mean 'log_mtot'"):
        prior(1).marginal("log_mtott")
