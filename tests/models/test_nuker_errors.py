"""The measure of the emulator's errors is itself measured: solves with a known mistake, whose errors must come out in numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from supermage.forward.deprojection import NukerDeprojection
from supermage.forward.velocity import ScaleFreeCurve
from supermage.models.nuker_errors import (
    AXIS_RATIOS,
    gradient_errors,
    log_profile,
    measure,
    profile_errors,
    velocity_radii,
    weights_and_slopes,
)
from supermage.models.nuker_mge import NukerSolve

SHAPE = np.array([2.0, 2.0, 0.3, 400.0])
SOLVE = NukerSolve()
QUANTITIES = [f"velocity_q{q:g}" for q in AXIS_RATIOS]


def exact_squares(shape: np.ndarray) -> dict[float, np.ndarray]:
    reference = NukerDeprojection(*shape[:3])
    return {q: reference.force(velocity_radii() / shape[3], q) for q in AXIS_RATIOS}


def solved(shape: np.ndarray) -> torch.Tensor:
    return weights_and_slopes(SOLVE, shape[None])[0][0]


def with_bump(shape: np.ndarray, radius: float, width: float, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Widths and weights of the solve with one Gaussian more, which at a radius (pc) is this share of the profile."""
    density = float(np.exp(log_profile(*shape[:3], np.log([radius / shape[3]])))[0])
    peak = size * density * np.exp(0.5 * (radius / width) ** 2)
    widths = torch.cat([SOLVE.width_ratio, torch.tensor([width / shape[3]], dtype=torch.float64)])
    return widths, torch.cat([solved(shape), torch.tensor([peak], dtype=torch.float64)])


def test_an_exact_solve_has_next_to_no_error() -> None:
    errors = profile_errors(SHAPE, SOLVE.width_ratio, solved(SHAPE), exact_squares(SHAPE))
    assert errors["surface_density"] < 1e-4 and errors["not_positive"] == 0
    assert all(errors[name] < 1e-12 and errors[f"{name}_beyond_5pc"] < 1e-12 for name in QUANTITIES)


@pytest.mark.parametrize(("radius", "width"), [(2.0, 1.0), (10_000.0, 20_000.0)])
@pytest.mark.parametrize("size", [0.01, -0.01])
def test_a_hundredth_of_the_density_at_the_innermost_and_the_outermost_radius(radius: float, width: float, size: float) -> None:
    """Each fades within the range, so that radii that stop short of it do not see it."""
    errors = profile_errors(SHAPE, *with_bump(SHAPE, radius, width, size), exact_squares(SHAPE))
    assert errors["surface_density"] == pytest.approx(0.01, rel=0.05)


def test_the_largest_error_lies_where_the_bump_is() -> None:
    """+1 % at 3 pc by a narrow Gaussian is more at 2 pc by its shape alone."""
    width = 1.5
    expected = 0.01 * np.exp(0.5 * (9.0 - 4.0) / width**2) * (2.0 / 3.0) ** 0.3
    errors = profile_errors(SHAPE, *with_bump(SHAPE, 3.0, width, 0.01), exact_squares(SHAPE))
    assert errors["surface_density"] == pytest.approx(expected, rel=0.05)


def changed(radius: float, share: float) -> tuple[dict[float, np.ndarray], int]:
    """Exact squares of the velocity, off by a share of the velocity at the radius (pc) nearest to the one given."""
    squares, k = exact_squares(SHAPE), int(np.abs(velocity_radii() - radius).argmin())
    for values in squares.values():
        values[k] *= (1.0 + share) ** 2
    return squares, k


def test_radii_of_the_velocities_are_those_that_the_card_states() -> None:
    radius = velocity_radii()
    assert (radius[0], radius[-1]) == (pytest.approx(2.0), pytest.approx(5000.0)) and radius.size >= 100


@pytest.mark.parametrize("share", [0.01, -0.01])
def test_a_hundredth_of_the_velocity_counts_by_the_larger_of_v_and_a_twentieth_of_the_maximum(share: float) -> None:
    for radius in (3.0, 30.0, 4000.0):
        squares, k = changed(radius, share)
        errors = profile_errors(SHAPE, SOLVE.width_ratio, solved(SHAPE), squares)
        for q, name in zip(AXIS_RATIOS, QUANTITIES, strict=True):
            velocity = np.sqrt(exact_squares(SHAPE)[q])
            fraction = velocity[k] / velocity.max()
            expected = 0.01 * min(1.0, fraction / 0.05)
            assert errors[name] == pytest.approx(expected, rel=0.05)
            assert errors[f"{name}_beyond_5pc"] == pytest.approx(0.0 if radius < 5.0 else expected, rel=0.05, abs=1e-12)
            assert fraction < 0.5 or radius > 30.0, "a floor of the whole maximum must show"


def test_one_negative_point_is_counted() -> None:
    squares = exact_squares(SHAPE)
    squares[0.1][0] = -1e-9
    assert profile_errors(SHAPE, SOLVE.width_ratio, solved(SHAPE), squares)["not_positive"] == 1
    assert profile_errors(SHAPE, *with_bump(SHAPE, 2.0, 0.5, -1.5), exact_squares(SHAPE))["not_positive"] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_hundredth_of_a_gradient(axis: int) -> None:
    """Each parameter's slope alone, the others being exact to a part in a thousand."""
    curve = ScaleFreeCurve(SOLVE.width_ratio)
    weights, slopes = weights_and_slopes(SOLVE, SHAPE[None])
    exact = gradient_errors(SOLVE, SHAPE, weights[0], slopes[0], curve)
    assert max(exact.values()) < 5e-4
    slopes[0, :, axis] *= 1.01
    errors = gradient_errors(SOLVE, SHAPE, weights[0], slopes[0], curve)
    assert errors == {name: pytest.approx(0.01, rel=0.05) for name in ("gradient_density", "gradient_velocity")}


class Heavier(NukerSolve):
    """A solve whose weights are 2 % too large: 2 % in density, 1 % in velocity, none in the gradients of logarithms."""

    def weights(self, alpha: torch.Tensor, beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return 1.02 * super().weights(alpha, beta, gamma)


def test_the_table_of_a_model_that_is_too_heavy() -> None:
    table = measure(Heavier(), profiles=8, seed=5)
    for group in ("random", "corners", "faces"):
        assert table[group]["surface_density"]["median"] == pytest.approx(0.02, rel=0.05)
        assert table[group]["velocity_q1"]["max"] == pytest.approx(np.sqrt(1.02) - 1.0, rel=0.05)
        assert table[group]["gradient_density"]["max"] < 0.01
