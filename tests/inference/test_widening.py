"""Which coordinates are widened, learnt from matrices whose evenness is known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.inference.chains import Workers, fisher_in_chart
from supermage.inference.fit import choose_chart
from supermage.inference.metric import factor_of_precision
from supermage.inference.pivots import carry_chain, carry_fishers, carry_position
from supermage.inference.stretches import Widening
from supermage.inference.widening import LEAST_POINTS, choose_widening, unevenness, widen
from tests.inference.toy import FREE, TRUTH, held, random_theta, toy_data, toy_fit

FIT = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE))
BARE = replace(choose_chart(TRUTH, FIT.priors), stretch=(0.8, 0.3))
NAME = "systemic_velocity"
INDEX = FREE.index(NAME)
TRUE = (6.0, -3.0, -0.4)
WIDE = replace(BARE, widened=((NAME, *TRUE),))


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers(lambda: FIT, 1, fit=FIT)


def points(number: int) -> list[Tensor]:
    rng = np.random.default_rng(5)
    return [FIT.coordinates(BARE).from_theta(random_theta(rng, FIT)) for _ in range(number)]


def test_matrices_of_a_widened_chart(workers: Workers) -> None:
    """Scaled by the slope, carried by Jacobians, and computed there: one and the same."""
    here = points(4)
    fishers = [fisher_in_chart(workers.problem, BARE, z) for z in here]
    (carried,) = carry_fishers(workers.problem, BARE, [WIDE], here, fishers)
    scaled = widen(torch.stack(fishers), torch.stack(here)[:, INDEX], INDEX, Widening(*TRUE))
    for z, by_jacobian, by_slope in zip(here, carried, scaled, strict=True):
        direct = fisher_in_chart(workers.problem, WIDE, carry_position(workers.problem, BARE, WIDE, z))
        for found in (by_jacobian, by_slope):
            assert torch.allclose(found, direct, rtol=1e-6, atol=1e-8 * float(direct.abs().max()))


def test_unevenness() -> None:
    even = torch.diag(torch.tensor([1.0, 100.0], dtype=torch.float64)).expand(3, 2, 2)
    assert unevenness(even) == pytest.approx(0.0, abs=1e-20)
    # mean 2.5; in its units 0.4 and 1.6 in the first direction, 1 in the second
    apart = torch.stack([torch.diag(torch.tensor([value, 7.0], dtype=torch.float64)) for value in (1.0, 4.0)])
    assert unevenness(apart) == pytest.approx(0.5 * (np.log(0.4) ** 2 + np.log(1.6) ** 2))


@pytest.fixture(scope="module")
def seen(workers: Workers) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices whose part of the data is one and the same in the widened chart, in the bare one."""
    rng = np.random.default_rng(6)
    root = torch.from_numpy(rng.standard_normal((len(FREE), len(FREE))) + 6.0 * np.eye(len(FREE)))
    here = points(30)
    there = [carry_position(workers.problem, BARE, WIDE, z) for z in here]
    coordinates = FIT.coordinates(WIDE)
    constant = [3.0 * root @ root.mT + torch.diag(coordinates.prior_precision(z)) for z in there]
    (matrices,) = carry_fishers(workers.problem, WIDE, [BARE], there, constant)
    return here, matrices


def test_the_widening_that_makes_the_matrices_even_is_found(workers: Workers, seen: tuple[list[Tensor], list[Tensor]]) -> None:
    choice = choose_widening(workers, BARE, *seen)
    assert [name for name, *_ in choice.chart.widened] == [NAME]
    found, true = Widening(*choice.chart.widened[0][1:]), Widening(*TRUE)
    z = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)
    # the slope's scale is the metric's affair, its course along z is what was learnt
    ratio = found.slope(z) / true.slope(z)
    assert float(ratio.max() / ratio.min()) < 1.25
    assert choice.unevenness[0] > 2.0 and choice.unevenness[1] < 0.2
    assert choice.unevenness[1] == pytest.approx(unevenness(torch.stack(choice.fishers)))


def test_what_is_known_already_is_kept(workers: Workers, seen: tuple[list[Tensor], list[Tensor]]) -> None:
    here, matrices = seen
    (there,) = carry_fishers(workers.problem, BARE, [WIDE], here, matrices)
    at = [carry_position(workers.problem, BARE, WIDE, z) for z in here]
    assert choose_widening(workers, WIDE, at, there).chart == WIDE


def test_even_matrices_and_few_points_change_nothing(workers: Workers, seen: tuple[list[Tensor], list[Tensor]]) -> None:
    here, matrices = seen
    assert choose_widening(workers, BARE, here, [matrices[0]] * len(here)).chart == BARE
    few = LEAST_POINTS - 1
    assert choose_widening(workers, BARE, here[:few], matrices[:few]).chart == BARE


def test_the_density_of_the_parameters_stays(workers: Workers) -> None:
    """A wrong slope in the Jacobian would move it."""
    from supermage.inference.chains import chain_in_chart

    for z in points(3):
        chain = chain_in_chart(workers.problem, BARE, z, 0.3, 1, 0)
        moved = carry_chain(workers.problem, BARE, WIDE, chain)
        before = FIT.coordinates(BARE).to_theta(z)[1]
        after = FIT.coordinates(WIDE).to_theta(moved.state.position[0])[1]
        assert float(moved.state.log_density - after) == pytest.approx(float(chain.state.log_density - before), abs=1e-6)
        assert float(after - before) == pytest.approx(-float(torch.log(Widening(*TRUE).slope(z[INDEX]))), abs=1e-9)
        assert bool(torch.isfinite(factor_of_precision(fisher_in_chart(workers.problem, WIDE, moved.state.position[0]))).all())
