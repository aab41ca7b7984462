"""A mock observation for the forward model: uv cells with random in-cell offsets, two blocks, and the truth of the demo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from supermage.constants import CO_2_1_FREQUENCY, SPEED_OF_LIGHT
from supermage.data_reduction.grid import UVGrid
from supermage.forward.galaxy_model import GalaxyModel
from tests.mock_galaxy import TRUTH


class FewGaussians:
    """A cheap, smooth stand-in for the emulator: each Gaussian as high as the Nuker profile at its width."""

    def __init__(self) -> None:
        self.width_ratio = torch.logspace(-3, 2, 24, dtype=torch.float64)

    def weights(self, alpha: torch.Tensor, beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        x = self.width_ratio.to(alpha.dtype)
        bend = torch.nn.functional.softplus(alpha * torch.log(x)) / alpha
        return 0.5 * torch.exp(-gamma * torch.log(x) - (beta - gamma) * (bend - math.log(2.0) / alpha))


@dataclass(frozen=True)
class Mock:
    """A model and the visibilities behind its cells: baselines (block, visibility) in m, their cell, their weight in each channel."""

    model: GalaxyModel
    u: np.ndarray
    v: np.ndarray
    cell: np.ndarray
    weight: np.ndarray

    def averaged(self, single: np.ndarray) -> np.ndarray:
        """Mean over each cell's visibilities of values (block, chan, visibility)."""
        cells = self.cell.max() + 1
        weighted = single * self.weight
        total = np.zeros((*single.shape[:2], cells), dtype=complex)
        count = np.zeros(total.shape)
        for block, channel in np.ndindex(*single.shape[:2]):
            value = weighted[block, channel]
            total[block, channel] = np.bincount(self.cell, value.real, cells) + 1j * np.bincount(self.cell, value.imag, cells)
            count[block, channel] = np.bincount(self.cell, self.weight[block, channel], cells)
        return total / count


def build_mock(*, channels: int = 12, width: float = 52e6, n_pixel: int = 32, pixel_scale: float = 0.24, reach: float = 22.0,
               spread: float = 1.0, flagged: bool = False, blocks: int = 2, seed: int = 3, **options: Any) -> Mock:
    """Cells within ``reach`` of the origin, 1 - 11 visibilities in each, offsets uniform over ``spread`` cells; or unevenly flagged."""
    grid = UVGrid(n_pixel, pixel_scale, 229.58e9)
    rng = np.random.default_rng(seed)
    iu, iv = np.meshgrid(np.arange(n_pixel // 2 + 1), np.arange(-n_pixel // 2, n_pixel // 2), indexing="ij")
    inside = (np.hypot(iu, iv) < reach) & ((iu > 0) | (iv >= 0))
    cell = np.stack([iu[inside], iv[inside]], axis=-1)
    count = rng.integers(1, 12, len(cell))
    owner = np.repeat(np.arange(len(cell)), count)
    offset = rng.uniform(-0.5, 0.5, (blocks, owner.size, 2)) * spread * grid.cell_size
    weight = np.ones((blocks, channels, owner.size))
    if flagged:
        first = np.concatenate([np.arange(n) == 0 for n in count])
        weight[:, : channels // 2] = np.where(first, 1.0, 0.25)
    products = np.stack([offset[..., 0] ** 2, offset[..., 0] * offset[..., 1], offset[..., 1] ** 2], axis=-1)
    total = np.zeros((blocks, channels, len(cell), 5))
    norm = np.zeros((blocks, channels, len(cell), 1))
    moments = np.concatenate([offset, products], axis=-1)
    for block, channel in np.ndindex(blocks, channels):
        np.add.at(total[block, channel], owner, moments[block] * weight[block, channel, :, None])
        np.add.at(norm[block, channel, :, 0], owner, weight[block, channel])
    total /= norm
    factor = np.array([1 + 2e-5, 1 - 6e-5])[:blocks]
    centre = CO_2_1_FREQUENCY * (1 - 1241.0 / SPEED_OF_LIGHT) / factor
    frequency = centre[:, None] + width * (np.arange(channels) - 0.5 * channels + 0.3 * np.arange(blocks)[:, None])
    settings: dict[str, Any] = {
        "frequency": frequency, "topo_to_frame": factor, "rest_frequency": CO_2_1_FREQUENCY, "convention": "radio", "hanning": True,
        "averaging": 1, "cell_u": cell[:, 0], "cell_v": cell[:, 1], "offset_mean": total[..., :2], "offset_second": total[..., 2:],
        "distance": 11.4, "emulator": FewGaussians(), "dish_diameter": 12.0, "primary_beam_factor": 1.13, "dtype": torch.float64,
    }
    model = GalaxyModel(grid, **{**settings, **options})
    u, v = (cell[owner, axis] * grid.cell_size + offset[..., axis] for axis in (0, 1))
    return Mock(model, u, v, owner, weight)


@pytest.fixture(scope="session")
def make_mock() -> Callable[..., Mock]:
    return build_mock


@pytest.fixture(scope="session")
def mock() -> Mock:
    return build_mock()


@pytest.fixture
def theta() -> Callable[..., dict[str, torch.Tensor]]:
    def make(**changes: float) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in {**TRUTH, **changes}.items()}

    return make
