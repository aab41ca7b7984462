"""A cheap stand-in for the forward model: a rotating ring of blobs whose 15 parameters act roughly as the galaxy's do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from supermage.constants import ARCSEC
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.inference.likelihood import VisibilityNoise
from supermage.inference.model import GalaxyFit
from supermage.inference.priors import build_priors
from supermage.recipe import FitSection
from tests.data_reduction.factories import make_gridded

TRUTH = {
    "scale_length": 0.5,
    "log10_mbh": 8.1139,
    "inclination": 76.0,
    "qintr": 0.6,
    "alpha": 2.0,
    "gamma_minus_beta": -1.2,
    "gamma": 0.8,
    "break_r": 1.5,
    "intensity_rb": 4.35,
    "PA": 67.0,
    "line_broadening": 10.0,
    "systemic_velocity": 1241.0,
    "x": 0.1,
    "y": -0.05,
    "Flux": 2.0,
}


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


def toy_data(*, seed: int = 3, n_cell: int = 150, n_channel: int = 24, truth: Mapping[str, float] = TRUTH) -> GriddedVisibilities:
    quiet = make_gridded(seed=seed, n_channel=n_channel, n_cell=n_cell, n_pixel=64, noise=False, channel_width=25e6)
    signal = ToySky(quiet).visibilities(tensors(truth)).numpy()
    return make_gridded(seed=seed, n_channel=n_channel, n_cell=n_cell, n_pixel=64, channel_width=25e6, signal=signal)


def toy_fit(gridded: GriddedVisibilities, **options: object) -> GalaxyFit:
    section = FitSection(visibilities="v.nc", output="p.nc", **options)  # type: ignore[arg-type]
    noise = VisibilityNoise(gridded, likelihood=section.model.likelihood, continuum=section.model.continuum, dtype=torch.float64)
    return GalaxyFit(ToySky(gridded), noise, build_priors(section))


def random_theta(rng: np.random.Generator, fit: GalaxyFit) -> dict[str, float]:
    return {p.name: float(rng.uniform(p.lower + 0.02 * (p.upper - p.lower), p.upper - 0.02 * (p.upper - p.lower))) for p in fit.priors.free}
