"""Small synthetic gridded visibilities for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from supermage.constants import SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.data_reduction.spectral import SpectralResponse, frequency_of_velocity


def make_gridded(*, seed: int = 1, n_block: int = 2, n_channel: int = 8, n_pixel: int = 32, pixel_scale: float = 0.12, n_cell: int = 120,
                 systemic_velocity: float = 1241.0, channel_width: float = 15.625e6, rest_frequency: float = 230.538e9,
                 hanning: bool = True, averaging: int = 1, sensitivity: float = 6e-4, signal: np.ndarray | None = None, noise: bool = True,
                 **changes: Any) -> GriddedVisibilities:
    """Gridded visibilities of noise alone, correlated along the channels as the response says, plus ``signal`` (block, chan, cell).

    ``sensitivity`` is the natural-weighting noise of an image of one block and channel, Jy. Every tenth cell is empty in the second block.
    """
    rng = np.random.default_rng(seed)
    centre = frequency_of_velocity(systemic_velocity, rest_frequency, "radio")
    factors = 1.0 + np.array([12.0, -9.0, 4.0, 20.0])[:n_block] / SPEED_OF_LIGHT
    steps = (np.arange(n_channel) - (n_channel - 1) / 2) * channel_width
    frequency = np.stack([centre / factor + steps + 0.2 * block * channel_width for block, factor in enumerate(factors)])
    grid = UVGrid(n_pixel, pixel_scale, float(frequency.mean()))

    half = n_pixel // 2
    candidates = np.array([(u, v) for u in range(half + 1) for v in range(-half, half + 1) if u > 0 or v >= 0])
    distance = np.hypot(*candidates.T)
    candidates = candidates[(distance > 0.5) & (distance < half - 1)]
    chosen = candidates[np.sort(rng.choice(len(candidates), size=min(n_cell, len(candidates)), replace=False))]
    n_cell = len(chosen)

    count = rng.integers(1, 30, size=(n_block, 1, n_cell)) * np.ones((1, n_channel, 1), dtype=int)
    if n_block > 1:
        count[1, :, ::10] = 0
    weight = count * rng.uniform(0.7, 1.4, size=(n_block, 1, n_cell))
    weight *= 1.0 / (sensitivity**2 * weight.sum(axis=2, keepdims=True))
    standard_error = np.where(count > 0, 1.0 / np.sqrt(np.where(count > 0, weight, 1.0)), np.inf)
    response = SpectralResponse(hanning=hanning, averaging=averaging)
    mean = np.zeros((n_block, n_channel, n_cell), dtype=complex) if signal is None else np.array(signal, dtype=complex)
    if noise:
        factor = np.linalg.cholesky(response.correlation(n_channel))
        white = rng.standard_normal((n_block, n_channel, n_cell)) + 1j * rng.standard_normal((n_block, n_channel, n_cell))
        mean += np.einsum("cd,bdk->bck", factor, white) * np.where(count > 0, standard_error, 0.0)
    mean[count == 0] = 0.0
    dof = count * 2.0 * n_channel / response.pooling_factor(n_channel)
    offset = rng.uniform(-0.5, 0.5, size=(n_block, 1, n_cell, 2)) * grid.cell_size / np.sqrt(np.maximum(count, 1))[..., None]
    spread = (1.0 - 1.0 / np.maximum(count, 1)) * grid.cell_size**2 / 12.0
    second = np.stack([offset[..., 0] ** 2 + spread, offset[..., 0] * offset[..., 1], offset[..., 1] ** 2 + spread], axis=-1)
    empty = (count == 0)[..., None]
    values: dict[str, Any] = {
        "grid": grid, "cell_u": chosen[:, 0].astype(np.int32), "cell_v": chosen[:, 1].astype(np.int32), "mean": mean,
        "standard_error": standard_error, "degrees_of_freedom": dof, "count": count.astype(np.int32),
        "offset_mean": np.where(empty, 0.0, offset), "offset_second": np.where(empty, 0.0, second), "frequency": frequency,
        "channel_width": np.full(n_block, channel_width), "topo_to_frame": factors, "hanning": hanning, "averaging": averaging,
        "block_names": tuple(f"block {b}" for b in range(n_block)), "phase_centre": (192.1496, -5.8008), "dish_diameter": 12.0,
        "primary_beam_factor": 1.13, "rest_frequency": rest_frequency, "provenance": {"source": "synthetic"}}
    return GriddedVisibilities(**{**values, **changes})


def point_source(gridded: GriddedVisibilities, east: float, north: float, flux: float = 1.0) -> np.ndarray:
    """Visibilities of a point source at (east, north) arcsec at the cells' mean positions, Jy, shape (block, chan, cell)."""
    per_metre = gridded.frequency[:, :, None] / SPEED_OF_LIGHT_M_S
    size = gridded.grid.cell_size
    u = (gridded.cell_u * size + gridded.offset_mean[..., 0]) * per_metre
    v = (gridded.cell_v * size + gridded.offset_mean[..., 1]) * per_metre
    arcsec = np.pi / 648000.0
    return flux * np.exp(-2j * np.pi * (u * east + v * north) * arcsec)
