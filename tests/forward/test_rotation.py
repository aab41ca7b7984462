"""Projected speeds at knots stand for the parameters behind the rotation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from supermage.forward.rotation import KNOTS, ROTATION_ONLY, between_knots, rotation_knots
from supermage.forward.theta import DISC, HALO, STARS

Theta = Callable[..., dict[str, torch.Tensor]]
CHANGES = {"log10_mbh": 0.02, "gamma": 0.05, "alpha": 0.3, "break_r": 0.2, "intensity_rb": 0.01, "qintr": 0.03, "gamma_minus_beta": 0.04}


def test_changes_are_linear_in_the_logarithm_and_constant_beyond() -> None:
    knots = torch.log(rotation_knots(20.0, 7.0))
    change = torch.sin(torch.arange(KNOTS, dtype=torch.float64))
    where = torch.linspace(float(knots[0]) - 1.0, float(knots[-1]) + 1.0, 301, dtype=torch.float64).reshape(7, 43)
    expected = np.interp(where.numpy(), knots.numpy(), change.numpy())
    assert np.allclose(between_knots(change, where, knots).numpy(), expected, atol=1e-12)


def test_knots_reach_from_inside_a_fringe_to_the_edge() -> None:
    knots = rotation_knots(4.0, 6.0)
    assert float(knots[0]) == pytest.approx(0.025) and float(knots[-1]) == pytest.approx(6.0)
    assert float(rotation_knots(1e-3, 6.0)[0]) == pytest.approx(3.0)


def test_parameters_of_the_rotation_alone_are_no_other_parts_of_the_disc() -> None:
    assert {*STARS, *HALO, "log10_mbh"} - {"inclination"} <= ROTATION_ONLY
    assert not ROTATION_ONLY & set(DISC)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_of_the_mass_is_a_change_of_the_speeds(mock: object, theta: Theta, name: str) -> None:
    """Visibilities of changed parameters, against those of the old ones with the difference of speeds: a fifth of the change remains."""
    old, new = theta(), theta(**{name: float(theta()[name]) + CHANGES[name]})
    model = mock.model
    with torch.no_grad():
        change = model.projected_speed(new) - model.projected_speed(old)
        before, after, moved = model.visibilities(old), model.visibilities(new), model.visibilities(old, speed_change=change)
    assert float(torch.linalg.vector_norm(moved - after)) < 0.2 * float(torch.linalg.vector_norm(after - before))
    assert float(torch.linalg.vector_norm(model.visibilities(old, speed_change=0.0 * change) - before)) == 0.0


def test_speeds_are_velocities_times_the_sine(mock: object, theta: Theta) -> None:
    values = theta()
    expected = mock.model.circular_velocity(values, mock.model.knots) * torch.sin(torch.deg2rad(values["inclination"]))
    assert torch.allclose(mock.model.projected_speed(values), expected, rtol=1e-10)
