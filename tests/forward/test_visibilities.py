"""From nodes to visibilities: splines, moments and transform against direct sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.errors import DomainError
from supermage.forward.disc import disc_nodes
from supermage.forward.visibilities import (
    DiscTransform,
    cell_basis,
    cell_geometry,
    cell_weights,
    derivative_weights,
    interpolate,
    spline_weights,
)


def test_splines_sum_to_one_and_differentiate() -> None:
    fraction = torch.linspace(0, 1, 11, dtype=torch.float64).requires_grad_()
    value, first, second = spline_weights(fraction)
    assert value.sum(-1).detach().numpy() == pytest.approx(1.0)
    assert (value * torch.arange(-1, 3)).sum(-1).detach().numpy() == pytest.approx(fraction.detach().numpy())
    for tap in range(4):
        slope = torch.autograd.grad(value[:, tap].sum(), fraction, retain_graph=True)[0]
        curve = torch.autograd.grad(first[:, tap].sum(), fraction, retain_graph=True)[0]
        assert slope.numpy() == pytest.approx(first[:, tap].detach().numpy(), abs=1e-12)
        assert curve.numpy() == pytest.approx(second[:, tap].detach().numpy(), abs=1e-12)


def test_geometry_from_moments() -> None:
    rng = np.random.default_rng(7)
    offset = rng.uniform(-5, 5, (6, 2))
    mean = np.broadcast_to(offset.mean(0), (1, 3, 1, 2)).copy()
    products = np.stack([offset[:, 0] ** 2, offset[:, 0] * offset[:, 1], offset[:, 1] ** 2], axis=-1)
    second = np.broadcast_to(products.mean(0), (1, 3, 1, 3)).copy()
    mean[:, 1], second[:, 1] = np.nan, np.nan
    geometry = cell_geometry(np.array([[3, -2]]), mean, second, cell_size=11.0, reference_frequency=230e9)
    scale = 230e9 / SPEED_OF_LIGHT_M_S * ARCSEC
    assert geometry.position[0, 0] == pytest.approx((np.array([33.0, -22.0]) + offset.mean(0)) * scale)
    covariance = np.cov(offset.T, bias=True)
    assert geometry.spread[0, 0] == pytest.approx(np.array([covariance[0, 0], covariance[0, 1], covariance[1, 1]]) * scale**2)
    assert geometry.shift is None
    mean[:, 2] += 1.0
    second[:, 2] += 2 * mean[:, 2][..., [0]] + 1
    assert cell_geometry(np.array([[3, -2]]), mean, second, cell_size=11.0, reference_frequency=230e9).shift is not None


@pytest.mark.parametrize("angle", [0.3, math.nan, math.inf])
@pytest.mark.parametrize("rows", [4, 12])
def test_no_index_leaves_the_table(angle: float, rows: int) -> None:
    """Compiled loops write where the indices point: an angle that is no number, and a table too small, must not lead them astray."""
    position = torch.tensor([[[0.1, 0.2], [3.0, -2.0], [1e9, 0.0]]], dtype=torch.float64)
    angles = torch.tensor(angle, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    basis = cell_basis(position, 0.1, *angles, (rows, rows))
    assert int(basis.index.min()) >= 0 and int(basis.index.max()) <= rows - 4
    value = basis.along[0].sum(-1)[0]
    assert bool(torch.isnan(value[1:]).all()) if rows == 4 or not math.isfinite(angle) else bool(torch.isnan(value[2]))
    with pytest.raises(DomainError, match="at least 4 rows along each axis, got 12 and 3"):
        cell_basis(position, 0.1, *angles, (12, 3))


def test_no_cell_is_refused() -> None:
    with pytest.raises(DomainError, match="at least one cell"):
        cell_geometry(np.zeros((0, 2), dtype=int), np.zeros((1, 2, 0, 2)), np.zeros((1, 2, 0, 3)), cell_size=1.0, reference_frequency=1e9)


class Setup:
    """Random line fluxes on few nodes, and the sum over all four quarters at any baseline."""

    def __init__(self) -> None:
        self.nodes = disc_nodes(2.0, 0.5)
        rng = np.random.default_rng(11)
        x, y = self.nodes.along, self.nodes.across
        envelope = np.exp(-np.hypot(y[:, None, None], x) / 0.4)
        self.line = rng.uniform(0, 1, (1, 2, y.size, 2, x.size)) * envelope
        self.stretch = np.array([[0.999, 1.002]])
        self.transform = DiscTransform(self.nodes, 2.0, self.stretch, dtype=torch.float64)
        self.angle, self.inclination = torch.tensor(2.1, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)

    def direct(self, u: np.ndarray, v: np.ndarray, centre: tuple[float, float], channel: int) -> np.ndarray:
        pa, ci = float(self.angle), math.cos(float(self.inclination))
        total = np.zeros(u.shape, dtype=complex)
        for side, sign in enumerate((1.0, -1.0)):
            for half in (1.0, -1.0):
                along, across = np.meshgrid(sign * self.nodes.along, half * self.nodes.across * ci)
                east = centre[0] + along * math.sin(pa) - across * math.cos(pa)
                north = centre[1] + along * math.cos(pa) + across * math.sin(pa)
                phase = np.exp(-2j * np.pi * self.stretch[0, channel] * (np.multiply.outer(u, east) + np.multiply.outer(v, north)))
                total += 0.5 * (phase * self.line[0, channel, :, side]).sum((-2, -1))
        return total

    def fast(self, position: np.ndarray, spread: np.ndarray, centre: tuple[float, float], order: tuple[int, ...] = ()) -> np.ndarray:
        table = self.transform(torch.tensor(self.line).flatten(-2), self.transform.rows)
        basis = cell_basis(torch.tensor(position), self.transform.step, self.angle, self.inclination, (self.transform.rows,) * 2)
        shift = tuple(torch.tensor(item, dtype=torch.float64) for item in centre)
        weights = derivative_weights(basis, shift, order) if order else cell_weights(basis, torch.tensor(spread), shift, None)
        phase = 2 * math.pi * (torch.tensor(position) @ torch.stack(shift))
        return torch.view_as_complex(interpolate(table, weights, basis, phase, torch.tensor(self.stretch)).contiguous()).numpy()


def test_transform_and_interpolation_against_the_direct_sum() -> None:
    setup = Setup()
    rng = np.random.default_rng(2)
    position = rng.uniform(-1.4, 1.4, (1, 40, 2))
    position[0, 0] = 0.0
    got = setup.fast(position, np.zeros((1, 40, 3)), (0.3, -0.4))
    for channel in range(2):
        expected = setup.direct(position[0, :, 0], position[0, :, 1], (0.3, -0.4), channel)
        assert np.abs(got[0, channel] - expected).max() < 5e-4 * np.abs(expected).max()
        mirrored = setup.direct(-position[0, :, 0], position[0, :, 1], (0.3, -0.4), channel)
        assert np.abs(got[0, channel] - mirrored).max() > 0.05 * np.abs(expected).max(), "the sign of u must matter"
        swapped = setup.direct(position[0, :, 1], position[0, :, 0], (0.3, -0.4), channel)
        assert np.abs(got[0, channel] - swapped).max() > 0.05 * np.abs(expected).max(), "east and north must not be interchangeable"


def test_hermitian_symmetry() -> None:
    setup = Setup()
    position = np.random.default_rng(3).uniform(-1.4, 1.4, (1, 20, 2))
    none = np.zeros((1, 20, 3))
    assert setup.fast(-position, none, (0.1, 0.2)) == pytest.approx(np.conj(setup.fast(position, none, (0.1, 0.2))), abs=1e-12)


def test_second_moments_are_those_of_the_mean_over_a_cell() -> None:
    setup = Setup()
    rng = np.random.default_rng(5)
    position = rng.uniform(-1.2, 1.2, (1, 12, 2))
    offset = rng.normal(size=(200, 2)) @ np.array([[0.03, 0.01], [0.0, 0.02]])
    offset = np.concatenate([offset, -offset])
    covariance = np.cov(offset.T, bias=True)
    spread = np.broadcast_to([covariance[0, 0], covariance[0, 1], covariance[1, 1]], (1, 12, 3)).copy()
    got = setup.fast(position, spread, (0.3, -0.4))[0, 0]
    sky = position[0][:, None] + offset
    expected = setup.direct(sky[..., 0], sky[..., 1], (0.3, -0.4), 0).mean(1)
    centre = setup.direct(position[0, :, 0], position[0, :, 1], (0.3, -0.4), 0)
    without, remaining = np.abs(centre - expected).max(), np.abs(got - expected).max()
    assert remaining < 0.1 * without


@pytest.mark.parametrize("order", [(0,), (1,), (0, 0), (0, 1), (1, 1)])
def test_derivatives_on_the_sky(order: tuple[int, ...]) -> None:
    setup = Setup()
    position = np.random.default_rng(6).uniform(-1.2, 1.2, (1, 12, 2))
    step, centre = 1e-3, (0.3, -0.4)
    got = setup.fast(position, np.zeros((1, 12, 3)), centre, order)[0, 0] * setup.stretch[0, 0] ** len(order)

    def shifted(*signs: float) -> np.ndarray:
        moved = position[0].copy()
        for axis, sign in zip(order, signs):
            moved[:, axis] += sign * step
        return setup.direct(moved[:, 0], moved[:, 1], centre, 0)

    if len(order) == 1:
        expected = (shifted(1.0) - shifted(-1.0)) / (2 * step)
    else:
        expected = (shifted(1, 1) - shifted(1, -1) - shifted(-1, 1) + shifted(-1, -1)) / (4 * step**2)
    assert np.abs(got - expected).max() < 2e-2 * np.abs(expected).max()
