"""A synthetic fit: gridded visibilities of the real forward model with noise, and draws that need no sampler."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.inference.parameters import TABLE_1
from supermage.inference.posterior import Posterior, make_posterior
from supermage.recipe import Recipe
from tests.data_reduction.factories import make_gridded
from tests.mock_galaxy import TRUTH

WIDTH = {
    "scale_length": 0.02,
    "log10_mbh": 0.15,
    "inclination": 1.5,
    "gamma": 0.15,
    "intensity_rb": 0.1,
    "PA": 0.8,
    "line_broadening": 3.0,
    "systemic_velocity": 1.5,
    "x": 0.008,
    "y": 0.007,
    "Flux": 0.06,
}
"""Posterior widths; parameters without one keep their prior."""


def make_recipe(folder: Path, *, priors: dict[str, Any] | None = None, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "folder": folder,
            "galaxy": {"name": "NGC 4697", "distance": 11.4},
            "fit": {
                "visibilities": "visibilities.nc",
                "output": "posterior.nc",
                "model": {"emulator": "nuker-mge-solve", **model},
                "priors": priors or {},
            },
        }
    )


@lru_cache
def default_data() -> GriddedVisibilities:
    return make_data(make_recipe(Path()))


def make_data(
    recipe: Recipe,
    *,
    n_pixel: int = 32,
    pixel_scale: float = 0.14,
    n_channel: int = 40,
    n_cell: int = 150,
    scale: float = 1.0,
    seed: int = 1,
) -> GriddedVisibilities:
    """Data of the truth with noise; ``scale`` multiplies the line's flux behind the fit's back."""
    from supermage.inference.model import build_model

    empty = make_gridded(seed=seed, n_pixel=n_pixel, pixel_scale=pixel_scale, n_channel=n_channel, n_cell=n_cell, noise=False)
    theta = {name: torch.tensor(value, dtype=torch.float64) for name, value in TRUTH.items()}
    with torch.no_grad():
        signal = build_model(recipe, empty).galaxy_model.visibilities(theta).to(torch.complex128).numpy()
    # Correlated as the response says, without the white floor that the likelihood adds.
    factor = np.linalg.cholesky(empty.response.correlation(n_channel, floor=1e-6))
    rng = np.random.default_rng(seed + 100)
    white = rng.standard_normal((2, *empty.mean.shape))
    good = np.isfinite(empty.standard_error)
    noise = np.einsum("cd,bdk->bck", factor, white[0] + 1j * white[1]) * np.where(good, empty.standard_error, 0.0)
    return empty.replace(mean=np.where(good, scale * signal + noise, 0.0))


def make_draws(
    *,
    chains: int = 4,
    draws: int = 500,
    seed: int = 1,
    width: dict[str, float] | None = None,
    shift: dict[str, float] | None = None,
    drift: float = 0.0,
) -> dict[str, np.ndarray]:
    """Independent draws inside the priors; ``drift`` moves the chains apart, in widths."""
    rng = np.random.default_rng(seed)
    out = {}
    for p in TABLE_1:
        sigma = {**WIDTH, **(width or {})}.get(p.name)
        uniform = rng.uniform(0.001, 0.999, size=(chains, draws))
        if sigma is None:
            out[p.name] = p.lower + (p.upper - p.lower) * uniform
        else:
            centre = TRUTH[p.name] + (shift or {}).get(p.name, 0.0) + drift * sigma * np.arange(chains)[:, None]
            low, high = norm.cdf(((p.lower - centre) / sigma, (p.upper - centre) / sigma))
            out[p.name] = np.clip(centre + sigma * norm.ppf(low + (high - low) * uniform), p.lower, p.upper)
    # The best draw is the truth, so that its residuals are noise.
    for name, value in TRUTH.items():
        out[name][0, 0] = value
    return out


def make_fit(
    folder: Path,
    *,
    truth: bool = True,
    converged: int = 1,
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    gridded: GriddedVisibilities | None = None,
    attributes: dict[str, Any] | None = None,
    fixed: dict[str, float] | None = None,
    **draws: Any,
) -> Path:
    """Write visibilities.nc and posterior.nc into ``folder``; returns the posterior's path."""
    folder.mkdir(parents=True, exist_ok=True)
    fixed = fixed or {}
    recipe = make_recipe(folder, priors={name: {"fixed": value} for name, value in fixed.items()}, **(model or {}))
    gridded = gridded or (make_data(recipe, **data) if data else default_data())
    gridded.save(folder / "visibilities.nc")
    values = {name: one for name, one in make_draws(**draws).items() if name not in fixed}
    shape = values["inclination"].shape
    density = np.full(shape, -1.0)
    density[0, 0] = 0.0
    attributes = {
        **(attributes or {}),
        "recipe": recipe.model_dump_json(exclude={"folder"}),
        "recipe_folder": str(folder),
        "visibilities": str(folder / "visibilities.nc"),
        "data_checksum": gridded.checksum,
        "seed": 1,
        "versions": json.dumps({"python": "3.11", "torch": "2.13.0"}),
        "command": "supermage fit recipe.toml",
        "emulator": "nuker-mge-solve",
        "gradients": 24000,
        "wall_seconds": 600.0,
        "distance": 11.4,
        "converged": converged,
        "worst_rhat": 1.01,
        "smallest_ess": 400.0,
        "fixed": json.dumps(fixed),
        "circular": '["PA"]',
        "truth": json.dumps({"parameters": TRUTH, "distance": 11.4}) if truth else "",
    }
    stats = {"lp": density, "acceptance_rate": np.full(shape, 0.57), "step_size": np.full(shape, 0.3)}
    posterior: Posterior = make_posterior(values, stats, tuple(p for p in TABLE_1 if p.name in values), attributes=attributes)
    return posterior.save(folder / "posterior.nc")
