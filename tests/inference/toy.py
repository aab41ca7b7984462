"""A cheap stand-in for the forward model: a rotating ring of blobs whose 15 parameters act roughly as the galaxy's do."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermage.constants import ARCSEC
from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.inference.likelihood import VisibilityNoise
from supermage.inference.model import GalaxyFit
from supermage.inference.priors import build_priors
from supermage.recipe import FitSection, Recipe
from tests.data_reduction.factories import make_gridded
from tests.mock_galaxy import TRUTH


def tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(float(value), dtype=torch.float64) for name, value in values.items()}


class ToySky:
    """Twelve blobs on a ring of one scale length."""

    def __init__(self, gridded: GriddedVisibilities) -> None:
        u, v = gridded.uv_wavelengths()
        self.u, self.v = (torch.from_numpy(w.mean(axis=(0, 1)) * ARCSEC) for w in (u, v))
        self.velocity = torch.from_numpy(gridded.velocity)
        self.width = gridded.velocity_width
        self.azimuth = torch.arange(12, dtype=torch.float64) * (2 * math.pi / 12)

    def to(self, device: str) -> ToySky:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def circular_velocity(self, theta: Mapping[str, Tensor], radius_arcsec: Tensor, component: str = "total") -> Tensor:
        radius = torch.as_tensor(radius_arcsec, dtype=torch.float64)
        slope = theta["gamma"] - theta["gamma_minus_beta"] * torch.sigmoid(
            theta["alpha"] * (torch.log(radius) - torch.log(theta["break_r"]))
        )
        stars = (
            13.0
            * 10 ** (theta["intensity_rb"] - 1.0)
            * (0.7 + 0.3 * theta["qintr"])
            * (radius / theta["break_r"]) ** (1.0 - 0.4 * slope)
            / 2
        )
        hole = 10 ** (theta["log10_mbh"] - 8.0) * 7800.0 / radius
        return torch.sqrt({"stars": stars, "black_hole": hole, "total": stars + hole}[component])

    def visibilities(self, theta: Mapping[str, Tensor]) -> Tensor:
        radius = theta["scale_length"]
        speed = self.circular_velocity(theta, radius[None])[0]
        inclination, angle = torch.deg2rad(theta["inclination"]), torch.deg2rad(theta["PA"])
        along, across = radius * torch.cos(self.azimuth), radius * torch.sin(self.azimuth) * torch.cos(inclination)
        east = theta["x"] + along * torch.sin(angle) - across * torch.cos(angle)
        north = theta["y"] + along * torch.cos(angle) + across * torch.sin(angle)
        velocity = theta["systemic_velocity"] + speed * torch.sin(inclination) * torch.cos(self.azimuth)
        spread = torch.sqrt(theta["line_broadening"] ** 2 + 20.0**2)
        line = torch.exp(-0.5 * ((self.velocity[..., None] - velocity) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
        phase = -2 * math.pi * (self.u[:, None] * east + self.v[:, None] * north)
        taper = torch.exp(-2 * (math.pi * 0.3 * radius) ** 2 * (self.u**2 + self.v**2))
        cells = torch.polar(taper[:, None].expand_as(phase) * theta["Flux"] / 12, phase)
        return torch.einsum("bck,nk->bcn", line.to(cells.dtype), cells)


def toy_data(
    *,
    seed: int = 3,
    n_cell: int = 150,
    n_channel: int = 24,
    n_block: int = 2,
    noise: bool = True,
    truth: Mapping[str, float] = TRUTH,
    **changes: Any,
) -> GriddedVisibilities:
    shape = {"seed": seed, "n_block": n_block, "n_channel": n_channel, "n_cell": n_cell, "n_pixel": 64, "channel_width": 25e6, **changes}
    quiet = make_gridded(noise=False, **shape)
    signal = ToySky(quiet).visibilities(tensors(truth)).numpy()
    return make_gridded(signal=signal, noise=noise, **shape)


def toy_fit(gridded: GriddedVisibilities, **options: object) -> GalaxyFit:
    section = FitSection(visibilities="v.nc", output="p.nc", **options)  # type: ignore[arg-type]
    return fit_of(gridded, section)


def fit_of(gridded: GriddedVisibilities, section: FitSection) -> GalaxyFit:
    noise = VisibilityNoise(gridded, likelihood=section.model.likelihood, continuum=section.model.continuum, dtype=torch.float64)
    return GalaxyFit(ToySky(gridded), noise, build_priors(section))


def held(*free: str, truth: Mapping[str, float] = TRUTH) -> dict[str, dict[str, float]]:
    """Priors that hold every parameter at the truth but some."""
    return {name: {"fixed": value} for name, value in truth.items() if name not in free}


def random_theta(rng: np.random.Generator, fit: GalaxyFit) -> dict[str, float]:
    return {p.name: float(rng.uniform(p.lower + 0.02 * (p.upper - p.lower), p.upper - 0.02 * (p.upper - p.lower))) for p in fit.priors.free}


FREE = ("log10_mbh", "gamma", "intensity_rb", "PA", "systemic_velocity", "x", "Flux")
"""What the small fits leave free: the stretched mass, both pivots, the circle, and three plain parameters."""


def toy_recipe(folder: Path, *, priors: Mapping[str, Any] | None = None, **sampler: object) -> Recipe:
    """A recipe of a fit that takes a second, its data written beside it."""
    folder.mkdir(exist_ok=True)
    if not (folder / "visibilities.nc").exists():
        toy_data(n_cell=20, n_channel=6).save(folder / "visibilities.nc")
    settings = {"processes": 1, "chains": 2, "starts": 4, "optima": 1, "metric_points": 2, "warmup": (6, 8, 6)}
    settings |= {"draws": 45, "segment": 15, **sampler}
    fit = {"visibilities": "visibilities.nc", "output": "posterior.nc", "priors": priors or held(*FREE), "sampler": settings}
    galaxy = {"name": "toy", "distance": 11.4, "rest_frequency": 230.538e9}
    return Recipe.model_validate({"folder": folder, "galaxy": galaxy, "fit": fit})


@dataclass(frozen=True)
class ToyFactory:
    """Makes the toy's model inside a process; ``pause`` seconds longer for each model computed."""

    recipe: Recipe
    pause: float = 0.0

    def __call__(self) -> GalaxyFit:
        section = self.recipe.fit
        assert section is not None
        fit = fit_of(open_visibilities(self.recipe.path(section.visibilities)), section)
        if self.pause > 0:
            quick = fit.galaxy_model.visibilities

            def slow(theta: Mapping[str, Tensor]) -> Tensor:
                time.sleep(self.pause)
                return quick(theta)

            fit.galaxy_model.visibilities = slow  # type: ignore[method-assign]
        return fit
