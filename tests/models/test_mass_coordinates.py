"""Latent coordinates: there and back for every set of targets that fixes them, Jacobians by automatic differentiation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supermage.errors import DomainError
from supermage.models.mass_coordinates import (
    EXCESS_FLOOR,
    NAMES,
    chart_of_targets,
    check_targets,
    latents_of_masses,
    log_difference,
    log_sum,
    target_of_latents,
)

LIGHT = torch.tensor(9.7, dtype=torch.float64)


def allowed(size: int) -> list[tuple[str, ...]]:
    found = []
    for names in combinations(NAMES, size):
        try:
            found.append(check_targets(names, 3))
        except DomainError:
            continue
    return found


@pytest.mark.parametrize("names", [*allowed(2), *allowed(3)])
def test_charts_invert_the_targets_with_their_jacobian(names: tuple[str, ...]) -> None:
    latents = torch.tensor([9.4, 0.3, -1.2], dtype=torch.float64)

    def targets(point: torch.Tensor) -> torch.Tensor:
        return torch.stack([target_of_latents(name, point, LIGHT) for name in names])

    chart = chart_of_targets(names, targets(latents), LIGHT)
    if chart is None:
        assert len(names) == 2
        return
    assert bool(chart.inside)
    assert torch.allclose(chart.value, latents[list(chart.latents)], atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(targets, latents)[:, list(chart.latents)]
    assert float(chart.log_jacobian) == pytest.approx(-float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-9)


def test_every_triple_fixes_its_coordinates() -> None:
    latents = torch.tensor([9.4, 0.3, -1.2], dtype=torch.float64)
    for names in allowed(3):
        value = torch.stack([target_of_latents(name, latents, LIGHT) for name in names])
        assert chart_of_targets(names, value, LIGHT) is not None


@given(st.floats(-12.0, 12.0))
def test_log_sum_and_its_inverse(value: float) -> None:
    point = torch.tensor(value, dtype=torch.float64)
    assert float(log_sum(point)) == pytest.approx(float(np.log10(1.0 + 10.0**value)), rel=1e-12)
    assert float(log_difference(log_sum(point))) == pytest.approx(value, abs=1e-3 if value < -9 else 1e-6)


def test_masses_to_coordinates_and_back() -> None:
    star, total, dark = np.array([1e10, 3e9, 2e9]), np.array([3e10, 3e9, 2.001e9]), np.array([1.8e10, 0.0, 0.0])
    got = latents_of_masses(star, total, dark, seed=1)
    assert got[0] == pytest.approx([10.0, np.log10(2.0), np.log10(0.2 / 1.8)])
    assert np.all(got[1:, 1] <= np.log10(EXCESS_FLOOR)) and np.all(got[1:, 1] >= np.log10(EXCESS_FLOOR) - 1.0)
    assert np.isnan(got[1:, 2]).all()
    assert np.array_equal(got, latents_of_masses(star, total, dark, seed=1), equal_nan=True)
    with pytest.raises(DomainError, match="must be positive, got 1 others"):
        latents_of_masses(np.array([0.0]), np.array([1.0]), np.array([0.0]), seed=1)


def test_models_without_dark_matter_do_not_offer_it() -> None:
    assert check_targets("log_mstar", 1) == ("log_mstar",)
    with pytest.raises(DomainError, match="must be among log_mstar, log_ml, log_mtot, log_fstar, got 'log_mdm'"):
        check_targets(("log_mdm",), 2)
