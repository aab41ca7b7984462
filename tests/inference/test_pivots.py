"""Radii of the pivots: matrices carried between charts against those computed there, and a chart that makes them constant is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.inference.chains import Workers, chain_in_chart, fisher_in_chart
from supermage.inference.fit import choose_chart
from supermage.inference.model import Chart
from supermage.inference.pivots import FACTORS, carry_chain, carry_fishers, carry_position, choose_pivots, regular_points, stiffness
from tests.inference.toy import FREE, TRUTH, held, random_theta, toy_data, toy_fit

FIT = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE))
OLD = replace(choose_chart(TRUTH, FIT.priors), stretch=(0.8, 0.3))
NEW = replace(OLD, velocity_radius=1.4 * (OLD.velocity_radius or 0.0), slope_radius=0.7 * (OLD.slope_radius or 0.0))


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers(lambda: FIT, 1, fit=FIT)


def points(number: int) -> list[Tensor]:
    rng = np.random.default_rng(5)
    return [FIT.coordinates(OLD).from_theta(random_theta(rng, FIT)) for _ in range(number)]


def test_matrices_are_carried_as_they_would_be_computed(workers: Workers) -> None:
    here = points(4)
    fishers = [fisher_in_chart(workers.problem, OLD, z) for z in here]
    (all_carried,) = carry_fishers(workers.problem, OLD, [NEW], here, fishers)
    for z, carried in zip(here, all_carried, strict=True):
        there = carry_position(workers.problem, OLD, NEW, z)
        direct = fisher_in_chart(workers.problem, NEW, there)
        assert torch.allclose(carried, direct, rtol=1e-6, atol=1e-8 * float(direct.abs().max()))
    assert not all(torch.allclose(carried, fisher, rtol=0.05) for carried, fisher in zip(all_carried, fishers, strict=True))


def test_a_point_lost_beyond_an_edge_is_told_and_spoils_no_other(workers: Workers) -> None:
    """Where a parameter no longer moves with its z there is nothing to solve for."""
    here = points(3)
    fishers = [fisher_in_chart(workers.problem, OLD, z) for z in here]
    lost = here[1].clone()
    coordinates = FIT.coordinates(OLD)
    lost[coordinates.names.index(coordinates.plain[0])] = 60.0
    assert regular_points(workers.problem, OLD, [here[0], lost, here[2]]) == [True, False, True]
    (alone,) = carry_fishers(workers.problem, OLD, [NEW], here, fishers)
    (carried,) = carry_fishers(workers.problem, OLD, [NEW], [here[0], lost, here[2]], fishers)
    assert not bool(torch.isfinite(carried[1]).all())
    assert torch.allclose(carried[0], alone[0]) and torch.allclose(carried[2], alone[2])


def test_jacobian_of_a_chart_is_the_numerical_one() -> None:
    coordinates, z = FIT.coordinates(OLD), points(1)[0]
    found = coordinates.jacobian(z)
    for i in range(len(z)):
        step = torch.zeros_like(z)
        step[i] = 1e-5
        numerical = (coordinates.vector(coordinates.to_theta(z + step)[0]) - coordinates.vector(coordinates.to_theta(z - step)[0])) / 2e-5
        assert torch.allclose(found[:, i], numerical, rtol=1e-5, atol=1e-6)


def test_a_chain_stays_at_its_parameters(workers: Workers) -> None:
    z = points(1)[0]
    chain = chain_in_chart(workers.problem, OLD, z, 0.3, 1, 0)
    moved = carry_chain(workers.problem, OLD, NEW, chain)
    before, after = FIT.coordinates(OLD).to_theta(z), FIT.coordinates(NEW).to_theta(moved.state.position[0])
    for name in FREE:
        assert float(after[0][name]) == pytest.approx(float(before[0][name]), rel=1e-8), name
    # the density of the parameters is one and the same: densities of z differ by the Jacobians
    assert float(moved.state.log_density - after[1]) == pytest.approx(float(chain.state.log_density - before[1]), abs=1e-6)
    assert torch.equal(moved.generator, chain.generator) and not moved.state.momentum.any()


def test_the_chart_that_makes_the_matrix_constant_is_found(workers: Workers) -> None:
    """A likelihood matrix that is one and the same everywhere in another chart, seen from this one."""
    rng = np.random.default_rng(6)
    root = torch.from_numpy(rng.standard_normal((len(FREE), len(FREE))) + 6.0 * np.eye(len(FREE)))
    here = points(10)
    there = [carry_position(workers.problem, OLD, NEW, z) for z in here]
    coordinates = FIT.coordinates(NEW)
    constant = [10.0 * root @ root.mT + torch.diag(coordinates.prior_precision(z)) for z in there]
    (seen,) = carry_fishers(workers.problem, NEW, [OLD], there, constant)
    choice = choose_pivots(workers, OLD, here, seen)
    assert 1.4 in FACTORS and 0.7 in FACTORS
    assert choice.chart.velocity_radius == pytest.approx(NEW.velocity_radius)
    assert choice.chart.slope_radius == pytest.approx(NEW.slope_radius)
    assert choice.stiffness[0] > 1.3 and choice.stiffness[1] == pytest.approx(1.0, abs=0.02)
    assert torch.allclose(choice.fishers[3], constant[3], rtol=1e-5, atol=1e-5 * float(constant[3].abs().max()))
    assert choose_pivots(workers, NEW, there, constant).chart == NEW


def test_without_pivots_nothing_is_chosen(workers: Workers) -> None:
    plain = Chart(cut=67.0)
    matrices = [torch.eye(len(FREE), dtype=torch.float64)]
    assert choose_pivots(workers, plain, [torch.zeros(len(FREE), dtype=torch.float64)], matrices).chart == plain


def test_stiffness() -> None:
    same = [torch.diag(torch.tensor([1.0, 100.0], dtype=torch.float64))] * 3
    assert stiffness(same) == pytest.approx(1.0)
    # mean 2.5; in its units 0.4 and 1.6 in the first direction, 1 in the second
    apart = [torch.diag(torch.tensor([value, 7.0], dtype=torch.float64)) for value in (1.0, 4.0)]
    assert stiffness(apart) == pytest.approx((1.0 * 1.6) ** 0.5)
    assert stiffness([torch.full((2, 2), float("nan"), dtype=torch.float64)]) == float("inf")
