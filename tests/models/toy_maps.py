"""Galaxies whose maps and masses are a few formulas: round exponential light, a rotation curve, a dispersion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from supermage.models.map_store import Maps, write_maps
from supermage.recipe import Recipe, TrainSection

IMAGE, KINEMATIC = 32, 16


def grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y within 3 half-mass radii."""
    centre = (np.arange(pixels) + 0.5) / pixels * 6.0 - 3.0
    return np.meshgrid(centre, centre)


def toy_galaxies(count: int, seed: int, *, image: int = IMAGE, kinematic: int = KINEMATIC) -> tuple[Maps, dict[str, np.ndarray]]:
    """Maps and columns of ``count`` rows, three projections a galaxy: M* is light times a function of colour, Mtot of the motions."""
    generator = np.random.default_rng(seed)
    galaxies = -(-count // 3)
    of_row = np.repeat(np.arange(galaxies), 3)[:count]
    log_light, colour, log_speed = (generator.uniform(*ends, galaxies)[of_row] for ends in ((9.5, 11.0), (0.4, 0.8), (2.0, 2.5)))
    x, y = grid(image)
    disc = np.exp(-1.68 * np.hypot(x, y))
    light = disc / disc.sum() * 10.0 ** log_light[:, None, None]
    x, y = grid(kinematic)
    speed = 10.0 ** log_speed[:, None, None]
    sine = np.array([0.3, 0.6, 0.9])[np.arange(count) % 3][:, None, None]
    maps = {"r_light": light, "g_r": np.broadcast_to(colour[:, None, None], light.shape),
            "mean_velocity": sine * speed * np.tanh(x), "dispersion": 0.5 * speed * np.exp(-0.2 * np.hypot(x, y))}
    log_mstar = log_light + 1.1 * (colour - 0.6)
    log_mtot = log_mstar + 0.2 + 0.5 * (log_speed - 2.0)
    columns: dict[str, np.ndarray] = {
        "galaxy_id": of_row, "group_id": of_row // 2, "projection": np.arange(count) % 3, "log_mstar": log_mstar, "log_mtot": log_mtot,
        "log_mdm": log_mtot + np.log10(1.0 - 10.0 ** (log_mstar - log_mtot)) - generator.uniform(0.005, 0.02, galaxies)[of_row],
        "log_mstar_2d": log_mstar + 0.1, "log_ml_2d": log_mstar + 0.1 - log_light,
        "log_fdm": np.log10(1.0 - 10.0 ** (log_mstar - log_mtot)),
        "n_sersic": 1.0 + 3.0 * (colour - 0.4) / 0.4, "b_t": (colour - 0.4) / 0.4,
    }  # fmt: skip
    return {name: np.ascontiguousarray(item, dtype=np.float32) for name, item in maps.items()}, columns


def toy_store(path: Path, count: int = 120, seed: int = 1, **sizes: int) -> Path:
    """A file of such galaxies."""
    maps, columns = toy_galaxies(count, seed, **sizes)
    return write_maps(path, maps, columns, source="toy galaxies of the tests", mock=True)


def toy_recipe(folder: Path, maps: Path, *, seed: int = 1, **options: Any) -> Recipe:
    """A recipe that trains a small network in seconds."""
    small = {"maps": str(maps), "width": 2, "image_pixels": IMAGE, "batch": 16, "epochs": 3, "learning_rate": 5e-3}
    return Recipe(folder=folder, train=TrainSection(kind="galaxy-cnn", seed=seed, options={**small, **options}))
