"""Model visibilities against a direct transform on six ALMA configurations, as JSON: ``python benchmarks/visibilities.py [--channels 12]``.

Two blocks of 5 minutes with the antennas of casadata's ``alma.cycle6.1`` to ``alma.cycle6.6``, every visibility folded into the uv cells of
a 64 x 64 grid as the reduction does. The galaxy is the demo's with all angles scaled by the configuration's resolution (0.5" is the
demo's own), primary beam and Hanning response on. The direct transform sums a fine polar sampling of the disc at every single baseline,
and is then averaged over each cell. Three terms leave out the second moments, one term all moments, to show what they are worth.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import numpy as np
import torch
from forward import truth
from numpy.typing import NDArray

from supermage.constants import ARCSEC, CO_2_1_FREQUENCY, SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.casa import casadata_folder
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.mock_array import read_array
from supermage.forward.direct import direct_visibilities
from supermage.forward.galaxy_model import GalaxyModel
from supermage.models.registry import load_model

CONFIGURATIONS = tuple(f"alma.cycle6.{number}" for number in range(1, 7))
LATITUDE, DECLINATION = math.radians(-23.023), math.radians(-5.801)
HOURS = ((-0.6, -0.517), (0.35, 0.433))
SKY = 229.58e9
NOISE = 6e-4
LENGTHS = ("scale_length", "break_r", "x", "y")

Array = NDArray[np.float64]


def baselines(name: str) -> tuple[Array, Array]:
    """U and v (m) of every baseline and integration, two blocks, each of shape (block, visibility)."""
    position = read_array(name, casadata_folder()).position
    first, second = np.triu_indices(len(position), 1)
    east, north, up = (position[second] - position[first]).T
    x = up * math.cos(LATITUDE) - north * math.sin(LATITUDE)
    z = up * math.sin(LATITUDE) + north * math.cos(LATITUDE)
    blocks = []
    for start, stop in HOURS:
        angle = np.linspace(start, stop, 30)[:, None] * (math.pi / 12.0)
        u = np.sin(angle) * x + np.cos(angle) * east
        v = math.sin(DECLINATION) * (np.sin(angle) * east - np.cos(angle) * x) + math.cos(DECLINATION) * z
        blocks.append((u.ravel(), v.ravel()))
    u, v = (np.stack(item) for item in zip(*blocks, strict=True))
    fold = (u < 0) | ((u == 0) & (v < 0))
    return np.where(fold, -u, u), np.where(fold, -v, v)


def cells(grid: UVGrid, u: Array, v: Array) -> tuple[Array, Array, Array, Array]:
    """Occupied cells (cell, 2), the cell and the number of visibilities of each, and the offsets' five moments (block, cell, 5)."""
    index = np.stack([np.rint(u / grid.cell_size), np.rint(v / grid.cell_size)], axis=-1).astype(int)
    unique, owner = np.unique(index.reshape(-1, 2), axis=0, return_inverse=True)
    owner = owner.reshape(u.shape)
    offset = np.stack([u, v], axis=-1) - index * grid.cell_size
    products = np.stack([offset[..., 0] ** 2, offset[..., 0] * offset[..., 1], offset[..., 1] ** 2], axis=-1)
    moments = np.concatenate([offset, products], axis=-1)
    count = np.stack([np.bincount(item, minlength=len(unique)) for item in owner])
    sums = [[np.bincount(owner[b], moments[b, :, k], len(unique)) for k in range(5)] for b in range(len(u))]
    return unique, owner, count, np.moveaxis(np.array(sums), 1, 2) / np.maximum(count, 1)[..., None]


def measure(name: str, channels: int) -> dict[str, Any]:
    """Figures of one configuration."""
    u, v = baselines(name)
    longest = float(np.hypot(u, v).max())
    resolution = SPEED_OF_LIGHT_M_S / SKY / longest / ARCSEC
    grid = UVGrid(64, 0.45 * resolution, SKY)
    unique, owner, count, moments = cells(grid, u, v)
    inside = np.abs(unique).max(1) < grid.n_pixel // 2
    scale = 0.8 * resolution / 0.5
    theta = {key: torch.tensor(value * (scale if key in LENGTHS else 1.0), dtype=torch.float64) for key, value in truth().items()}
    factor = np.array([1.0 + 2e-5, 1.0 - 6e-5])
    width = 40 * 15.625e6 / channels
    frequency = CO_2_1_FREQUENCY * (1 - 1241 / SPEED_OF_LIGHT) / factor[:, None] + width * (np.arange(channels) - 0.5 * channels)
    shape = (2, channels, int(inside.sum()))

    def model_of(first: float, second: float) -> GalaxyModel:
        some = np.broadcast_to(moments[:, None, inside], (*shape, 5))
        return GalaxyModel(
            grid, frequency=frequency, topo_to_frame=factor, rest_frequency=CO_2_1_FREQUENCY, convention="radio", hanning=True, averaging=1,
            cell_u=unique[inside, 0], cell_v=unique[inside, 1], offset_mean=first * some[..., :2], offset_second=second * some[..., 2:],
            distance=11.4, emulator=load_model("nuker-mge"), dish_diameter=12.0, primary_beam_factor=1.13,
        )  # fmt: skip

    model = model_of(1.0, 1.0)
    began = time.perf_counter()
    direct = direct_visibilities(model, theta, u, v)
    seconds = time.perf_counter() - began
    exact = np.zeros((2, channels, len(unique)), dtype=complex)
    for block, channel in np.ndindex(2, channels):
        value = direct[block, channel]
        total = np.bincount(owner[block], value.real, len(unique)) + 1j * np.bincount(owner[block], value.imag, len(unique))
        exact[block, channel] = total / np.maximum(count[block], 1)
    weight = np.where(count[:, None, inside] > 0, count[:, None, inside], 0.0)
    exact = exact[..., inside]
    errors = {}
    for terms, orders in (("six terms", (1.0, 1.0)), ("three terms", (1.0, 0.0)), ("one term", (0.0, 0.0))):
        with torch.no_grad():
            got = (model if terms == "six terms" else model_of(*orders)).visibilities(theta).to(torch.complex128).numpy()
        square = (weight * np.abs(got - exact) ** 2).sum()
        errors[terms] = 100.0 * math.sqrt(square / (weight * np.abs(exact) ** 2).sum())
        if terms == "six terms":
            chi2 = square / (weight[:, 0].sum() / 2) / NOISE**2
    return {"resolution_arcsec": round(resolution, 3), "cells": shape[2], "visibilities": int(u.size), "rms_error_percent": errors,
            "chi2_at_0.6_mJy": float(chi2), "direct_seconds": round(seconds, 1)}


def main() -> None:
    """Print every configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({name: measure(name, given.channels) for name in CONFIGURATIONS}, indent=1))


if __name__ == "__main__":
    main()
