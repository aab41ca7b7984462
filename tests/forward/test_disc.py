"""The disc: quadrature against closed forms, geometry against rotation matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from supermage.errors import DomainError
from supermage.forward.disc import (
    disc_nodes,
    edge_taper,
    exponential_disc,
    graded_rule,
    line_of_sight_velocity,
    sky_to_disc,
    unresolved_variance,
)


def test_graded_rule_integrates_smooth_functions_and_covers_the_range() -> None:
    node, width = graded_rule(5.0, finest=0.02, growth=0.2, coarsest=0.2)
    assert (np.diff(node) > 0).all()
    assert node[0] > 0
    assert node[-1] < 5.0
    assert width.sum() == pytest.approx(5.0, rel=1e-3)
    assert (width * np.exp(-0.5 * node**2)).sum() == pytest.approx(math.sqrt(math.pi / 2) * math.erf(5 / math.sqrt(2)), rel=1e-5)
    assert width[0] == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("scale_length", [0.1, 0.5, 1.0])
def test_nodes_hold_the_whole_flux_of_a_disc_well_inside_them(scale_length: float) -> None:
    nodes = disc_nodes(12.0 * scale_length + 3.0, 0.34)
    density = exponential_disc(torch.tensor(nodes.radius), torch.tensor(scale_length), torch.tensor(2.0))
    assert float((4.0 * density * torch.tensor(nodes.area)).sum()) == pytest.approx(2.0, rel=3e-3)


def test_exponential_disc_is_normalised() -> None:
    def ring(radius: float) -> float:
        return 2 * math.pi * radius * float(exponential_disc(torch.tensor([radius]), torch.tensor(0.7), torch.tensor(3.0)))

    assert integrate.quad(ring, 0, 40)[0] == pytest.approx(3.0, rel=1e-6)


def test_taper_is_one_inside_and_zero_at_the_edge() -> None:
    assert edge_taper(np.array([0.0, 0.85, 0.925, 1.0, 2.0])) == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


@given(st.floats(0, 359.9), st.floats(0, 89), st.floats(-3, 3), st.floats(-3, 3))
def test_sky_to_disc_inverts_a_rotation_and_a_projection(angle: float, inclination: float, along: float, across: float) -> None:
    pa, i = math.radians(angle), math.radians(inclination)
    projected = across * math.cos(i)
    east, north = along * math.sin(pa) - projected * math.cos(pa), along * math.cos(pa) + projected * math.sin(pa)
    got = sky_to_disc(*(torch.tensor(item, dtype=torch.float64) for item in (east, north, pa, i)))
    assert [float(item) for item in got] == pytest.approx([along, across], abs=1e-9)


def test_the_receding_side_lies_at_the_position_angle() -> None:
    angle, inclination = torch.tensor(math.radians(90.0)), torch.tensor(math.radians(60.0))
    along, across = sky_to_disc(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 0.0]), angle, inclination)
    velocity = line_of_sight_velocity(torch.tensor([200.0, 200.0]), along, torch.hypot(along, across), inclination)
    expected = 200 * math.sin(math.radians(60))
    assert velocity.tolist() == pytest.approx([expected, -expected])


def test_variance_across_a_cell_is_that_of_a_uniform_spread() -> None:
    x, y = torch.arange(6.0) + 0.5, torch.arange(5.0) + 0.5
    velocity = 3.0 * x + 0.0 * y[:, None]
    assert unresolved_variance(velocity)[:, :-1].numpy() == pytest.approx(9.0 / 12.0)
    curved = x + y[:, None] ** 2
    assert float(unresolved_variance(curved)[2, 3]) == pytest.approx((1 + (2 * 2.5) ** 2) / 12.0)


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0)])
def test_bad_numbers_are_refused(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(DomainError, match="must be positive"):
        disc_nodes(arguments[0], arguments[1], density=arguments[2])
