"""Every step leaves the posterior as it is: exact tests on a curved, bounded model, and mutants that they must catch.

Parameters are drawn from the prior and data from the parameters; a chain that starts at these parameters and targets their posterior must,
after any number of steps, still be distributed as the prior, jointly with the data (Geweke 2004; Gandy & Scott 2020). 6000 independent
pairs a test, no chain run to convergence, no tolerance: a right kernel fails once in 10 000 times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from supermage.inference import langevin
from supermage.inference.coordinates import softbox, softbox_inverse
from supermage.inference.langevin import KERNELS, Draw, Info, State, draw_numbers
from supermage.inference.stretches import Widening

PAIRS, STEPS, NOISE = 6000, 6, 0.4
FALSE_ALARM = 1e-4
METRICS = {"unit": torch.eye(3, dtype=torch.float64),
           "sheared": torch.tensor([[0.9, 0.0, 0.2], [0.5, 0.6, 0.0], [0.0, -0.3, 1.1]], dtype=torch.float64)}  # fmt: skip
CHARTED = torch.diag(torch.tensor([0.2, 2.0, 0.7], dtype=torch.float64))
SIZES = {"mala": 0.6, "mala-paper": 0.6, "persistent-mala": 0.5, "hmc": 0.4, "barker": 0.7}


def to_theta(z: Tensor) -> Tensor:
    """Uniform priors on (0, 1) as unit normals."""
    return torch.special.ndtr(z)


def model(theta: Tensor) -> Tensor:
    """Curved and nearly degenerate: a sum, a product and a power."""
    a, b, c = theta.unbind(-1)
    return torch.stack([a + b**2, 2.0 * a * b + c, 1.5 * c**2 - b], dim=-1)


class Plain:
    """Coordinates z: unit normals."""

    def from_theta(self, theta: Tensor) -> Tensor:
        return torch.special.ndtri(theta)

    def to_theta(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters, and the log determinant of their derivative by the coordinates, but for a constant."""
        return to_theta(z), -0.5 * z.square().sum(-1)


class Charted(Plain):
    """The fits' own: a kept bound under a shear by another parameter (`softbox`), and a `Widening`."""

    widening = Widening(6.0, 3.0, 0.3)

    def from_theta(self, theta: Tensor) -> Tensor:
        a, b, c = theta.unbind(-1)
        wide = self.widening.forward(torch.special.ndtri(b))
        return torch.stack([softbox_inverse(a, 0.0, 1.0) + 0.7 * b, wide, torch.special.ndtri(c)], dim=-1)

    def to_theta(self, z: Tensor) -> tuple[Tensor, Tensor]:
        wide = self.widening.inverse(z[:, 1])
        b, c = torch.special.ndtr(wide), torch.special.ndtr(z[:, 2])
        a, log_slope = softbox(z[:, 0] - 0.7 * b, 0.0, 1.0)
        log_slope = log_slope - torch.log(self.widening.slope(wide))
        return torch.stack([a, b, c], dim=-1), log_slope - 0.5 * (wide.square() + z[:, 2].square())


class Posterior:
    """Log density of the coordinates given each chain's own data, and its gradient; ``jacobian`` 0 forgets their determinant."""

    def __init__(self, data: Tensor, *, chart: Plain | None = None, jacobian: float = 1.0) -> None:
        self.data, self.jacobian, self.chart = data, jacobian, chart or Plain()

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        leaf = z.detach().clone().requires_grad_(True)
        theta, log_determinant = self.chart.to_theta(leaf)
        value = -0.5 * ((model(theta) - self.data) / NOISE).square().sum(-1) + self.jacobian * log_determinant
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


Step = Callable[[langevin.Target, State, Tensor, Tensor, Draw, float], tuple[State, Info]]


def p_values(
    step: Step, size: float, *, metric: str = "sheared", chart: Plain | None = None, jacobian: float = 1.0, seed: int = 1
) -> NDArray[np.float64]:
    """KS p-values: each parameter after the steps against its prior, and two statistics of parameters and data against fresh pairs."""
    rng = torch.Generator().manual_seed(seed)
    chart = chart or Plain()
    generators = [torch.Generator().manual_seed(1_000_000 * seed + c) for c in range(PAIRS)]

    def pairs() -> tuple[Tensor, Tensor]:
        theta = torch.rand(PAIRS, 3, dtype=torch.float64, generator=rng)
        return theta, model(theta) + NOISE * torch.randn(PAIRS, 3, dtype=torch.float64, generator=rng)

    theta, data = pairs()
    z = chart.from_theta(theta)
    target = Posterior(data, chart=chart, jacobian=jacobian)
    factor = CHARTED if isinstance(chart, Charted) else METRICS[metric]
    state = langevin.init(target, z)._replace(momentum=torch.randn(PAIRS, 3, dtype=torch.float64, generator=rng))
    for _ in range(STEPS):
        numbers = draw_numbers(generators, 3)
        state, _ = step(target, state, factor, torch.full((PAIRS,), size, dtype=torch.float64), numbers, 1.0)
    assert float((state.position != z).any(-1).double().mean()) > 0.5
    moved = chart.to_theta(state.position)[0]
    found = [stats.kstest(moved[:, k].numpy(), "uniform").pvalue for k in range(3)]
    fresh, fresh_data = pairs()
    for statistic in (lambda here, y: (model(here) - y).square().sum(-1), lambda here, y: (here * y).sum(-1)):
        found.append(stats.ks_2samp(statistic(moved, data).numpy(), statistic(fresh, fresh_data).numpy()).pvalue)
    return np.array(found)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_every_kernel_leaves_the_posterior_as_it_is(kernel: str, metric: str) -> None:
    """Whatever the metric: five tests, Bonferroni at 1e-4."""
    assert p_values(KERNELS[kernel].step, SIZES[kernel], metric=metric).min() > FALSE_ALARM / 5.0


class Askew:
    """A density that is not the posterior: other data, half the curvature, a slope of its own."""

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = Posterior(posterior.data + 0.3, chart=posterior.chart)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self._posterior(z)
        return 0.5 * value + 0.4 * z.sum(-1), 0.5 * gradient + 0.4


def following(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Trajectories of an approximate density, now and then one of the true one."""
    return langevin.surrogate_kernel(target, Askew(target), state, factor, size, draw, length)


def believing(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """The same without asking the true density."""
    return langevin.surrogate_hmc(Askew(target), Askew(target), state, factor, size, draw, n_steps=4)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_trajectory_of_another_density_leaves_the_posterior_as_it_is(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed with those of the true one, both of which must have been taken."""
    monkeypatch.setattr(langevin, "OWN_SHARE", 0.5)
    taken: set[bool] = set()

    def mixed(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
        state, info = following(target, state, factor, size, draw, length)
        taken.add(info.tuned is not None and bool(torch.isnan(info.tuned).all()))
        return state, info

    assert p_values(mixed, 0.4, metric=metric).min() > FALSE_ALARM / 5.0
    assert taken == {True, False}


def test_a_trajectory_that_is_not_judged_by_the_posterior_is_found() -> None:
    assert p_values(believing, 0.4).min() < 1e-8


def always(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """No accept step."""
    return langevin.mala(target, state, factor, size, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))


def adapting(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """A step size that goes on following where the chain is."""
    return langevin.mala(target, state, factor, size * torch.exp(0.8 * state.position[:, 0]), draw)


def keeping_momentum(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Persistent momentum that is not reversed on rejection."""
    new, info = langevin.persistent(target, state, factor, size, draw, persistence=torch.full_like(size, 0.95))
    return new._replace(momentum=torch.where(info.accepted[:, None], new.momentum, -new.momentum)), info


def without_signs(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Barker's jumps accepted as if their signs had been drawn evenly."""
    new, _ = langevin.barker(target, state, factor, size, draw._replace(uniform=torch.full_like(draw.uniform, -1.0)))
    acceptance = (new.log_density - state.log_density).clamp(max=0.0).exp()
    return langevin.select(draw.uniform < acceptance, new, state), Info(acceptance, draw.uniform < acceptance, 1)


def reflecting(target: langevin.Target, state: State, factor: Tensor, size: Tensor, draw: Draw, length: float) -> tuple[State, Info]:
    """Proposals thrown back at a wall, with the ratio of proposals that do not know it."""
    moved, _ = always(target, state, factor, size, draw, length)
    position = torch.where(moved.position > 1.0, 2.0 - moved.position, moved.position)
    new = State(position, *target(position), state.momentum)
    whitened = torch.linalg.solve(factor, (position - state.position).mT).mT / size[:, None]
    forth = whitened - 0.5 * size[:, None] * (state.gradient @ factor)
    back = -whitened - 0.5 * size[:, None] * (new.gradient @ factor)
    ratio = new.log_density - state.log_density - 0.5 * back.square().sum(-1) + 0.5 * forth.square().sum(-1)
    acceptance = ratio.clamp(max=0.0).exp()
    return langevin.select(draw.uniform < acceptance, new, state), Info(acceptance, draw.uniform < acceptance, 1)


@pytest.mark.parametrize(("mutant", "size"), [(always, 0.9), (adapting, 0.6), (keeping_momentum, 0.9), (without_signs, 0.9),
                                              (reflecting, 0.6)])  # fmt: skip
def test_wrong_steps_are_caught(mutant: Step, size: float) -> None:
    assert p_values(mutant, size).min() < 1e-8


def test_coordinates_without_their_jacobian_are_caught() -> None:
    """The density of theta taken for that of z: the unit normal that the uniform prior becomes is missing."""
    assert p_values(KERNELS["mala"].step, 0.6, jacobian=0.0).min() < 1e-8


def test_the_fits_own_coordinates_leave_the_posterior_as_it_is() -> None:
    assert p_values(KERNELS["persistent-mala"].step, 0.5, chart=Charted()).min() > FALSE_ALARM / 5.0


@pytest.mark.parametrize("part", ["softbox", "widening"])
def test_a_missing_determinant_is_caught(part: str) -> None:
    """The slope of one coordinate left out, the rest as it should be."""

    class Forgetful(Charted):
        def to_theta(self, z: Tensor) -> tuple[Tensor, Tensor]:
            theta, log_determinant = super().to_theta(z)
            if part == "softbox":
                return theta, log_determinant - softbox(z[:, 0] - 0.7 * theta[:, 1], 0.0, 1.0)[1]
            return theta, log_determinant + torch.log(self.widening.slope(self.widening.inverse(z[:, 1])))

    assert p_values(KERNELS["mala"].step, 0.7, chart=Forgetful()).min() < 1e-8


def test_numbers_of_a_step_do_not_know_of_each_other() -> None:
    """Every pair of the eight numbers of a step and the eight of the next, over 3000 chains: correlations within 5.5 / sqrt(3000).

    120 pairs, and of their squares too: false alarms 240 x 4e-8 = 1e-5.
    """
    generators = [torch.Generator().manual_seed(c) for c in range(3000)]
    steps = [draw_numbers(generators, 2) for _ in range(2)]
    rows = torch.cat([torch.cat([d.normal, d.uniform[:, None], d.jitter[:, None], d.signs], dim=1) for d in steps], dim=1)
    for values in (rows, (rows - rows.mean(dim=0)).square()):
        correlation = torch.corrcoef(values.mT)
        assert float((correlation - torch.eye(len(correlation), dtype=torch.float64)).abs().max()) < 5.5 / 3000**0.5


def test_numbers_of_a_step_are_what_they_are_taken_for() -> None:
    """Uniforms and normals of `draw_numbers`; KS at 1e-4 each."""
    generators = [torch.Generator().manual_seed(c) for c in range(3000)]
    numbers = draw_numbers(generators, 3)
    assert stats.kstest(numbers.normal.ravel().numpy(), "norm").pvalue > FALSE_ALARM
    for values in (numbers.uniform, numbers.jitter, numbers.signs):
        assert stats.kstest(values.ravel().numpy(), "uniform").pvalue > FALSE_ALARM
