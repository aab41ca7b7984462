"""Radial profiles of a subsample of the posterior, split into black hole, stars, halo and gas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.forward.disc import edge_taper, gas_disc
from supermage.forward.nuker import Nuker

FloatArray = NDArray[np.float64]
DRAWS_AT_A_TIME = 500


@dataclass(frozen=True)
class Profiles:
    """Profiles at radii in arcsec, shape (radius,).

    Attributes
    ----------
    radius, pc_per_arcsec
        Arcsec, and the scale at the galaxy's distance.
    velocity
        Circular velocity of every component and of their total, km/s, each (draw, radius).
    surface_density
        Of the stars along the major axis, Msun/pc^2, (draw, radius).
    black_hole_mass
        Msun, (draw,).
    true_velocity, true_surface_density
        Of a mock, or empty.
    """

    radius: FloatArray
    pc_per_arcsec: float
    velocity: Mapping[str, FloatArray]
    surface_density: FloatArray
    black_hole_mass: FloatArray
    true_velocity: Mapping[str, FloatArray]
    true_surface_density: FloatArray | None = None

    def mass(self, velocity: FloatArray) -> FloatArray:
        """Dynamical mass ``v^2 R / G``, Msun: the enclosed mass where the component is spherical."""
        return velocity**2 * self.radius * self.pc_per_arcsec / GRAVITATIONAL_CONSTANT

    def black_hole_surface_density(self) -> FloatArray:
        """Black-hole mass over the area of the circle, Msun/pc^2, (draw, radius)."""
        return self.black_hole_mass[:, None] / (np.pi * (self.radius * self.pc_per_arcsec) ** 2)

    def sphere_of_influence(self) -> FloatArray:
        """Radius at which black hole and stars pull alike, arcsec, (draw,)."""
        return equal_pull_radius(self.radius, self.velocity["black_hole"], self.velocity["stars"])


def components(theta: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the components of the circular velocity that these parameters have, the total first."""
    halo, gas = (("halo",) if "halo_log10_m200" in theta else ()), (("gas",) if "gas_log10_mass" in theta else ())
    return ("total", "black_hole", "stars", *halo, *gas)


def equal_pull_radius(radius: FloatArray, black_hole: FloatArray, stars: FloatArray) -> FloatArray:
    """First radius outwards at which the stars' circular velocity exceeds the black hole's, clipped to the given radii; (draw,)."""
    ratio = 2.0 * np.log(np.maximum(stars, 1e-30) / np.maximum(black_hole, 1e-30))
    above = ratio > 0
    first = np.where(above.any(axis=1), above.argmax(axis=1), radius.size - 1)
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(ratio))
    low, high = ratio[rows, before], ratio[rows, first]
    span = np.where(high > low, high - low, 1.0)
    step = np.clip(np.where(first > 0, -low / span, 0.0), 0.0, 1.0)
    return np.exp(np.log(radius[before]) + step * (np.log(radius[first]) - np.log(radius[before])))


def as_tensors(theta: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Parameters as float64 scalars."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in theta.items()}


def surface_density(theta: Mapping[str, float], radius_pc: FloatArray, pc_per_arcsec: float) -> FloatArray:
    """Nuker profile of one set of parameters, Msun/pc^2."""
    nuker = Nuker(
        theta["alpha"],
        theta["gamma"] - theta["gamma_minus_beta"],
        theta["gamma"],
        theta["break_r"] * pc_per_arcsec,
        10.0 ** theta["intensity_rb"],
    )
    return nuker.surface_density_at(torch.as_tensor(radius_pc, dtype=torch.float64)).numpy()


def circular_velocities(model: Any, thetas: list[dict[str, float]], radius: FloatArray, component: str) -> FloatArray:
    """Circular velocity of one component, km/s, (draw, radius), at radii in arcsec: many draws at a time."""
    where = torch.as_tensor(radius, dtype=torch.float64)
    table = torch.tensor([list(theta.values()) for theta in thetas], dtype=torch.float64)

    def one(values: torch.Tensor) -> torch.Tensor:
        speed: torch.Tensor = model.circular_velocity(dict(zip(thetas[0], values, strict=True)), where, component=component)
        return speed.double()

    with torch.no_grad():
        parts = [torch.func.vmap(one)(block) for block in table.split(DRAWS_AT_A_TIME)]
    return torch.cat(parts).numpy()


def flux_inside(theta: Mapping[str, float], radius_limit: float) -> float:
    """Fraction of a gas disc's flux that the model keeps: it tapers the disc to zero at ``radius_limit``, arcsec in the disc plane."""
    scale, index = theta["scale_length"], theta.get("gas_index", 1.0)
    # Up to the radius beyond which exp(-(R/h)^n) holds nothing.
    radius = scale * np.geomspace(1e-4, 60.0 ** (1.0 / index), 20_001)
    light = gas_disc(torch.as_tensor(radius), as_tensors({**theta, "Flux": 1.0})).numpy() * radius**2
    whole = np.trapezoid(light, np.log(radius))
    return float(np.trapezoid(light * edge_taper(radius / radius_limit), np.log(radius)) / whole)


def profiles_of(
    model: Any, thetas: list[dict[str, float]], radius: FloatArray, *, pc_per_arcsec: float, truth: Mapping[str, float] | None
) -> Profiles:
    """Evaluate profiles.

    Parameters
    ----------
    model
        A galaxy model with ``circular_velocity(theta, radius_arcsec, component=...)``.
    thetas
        Draws.
    radius
        Arcsec.
    truth
        True parameters of a mock.
    """

    def speeds(draws: list[dict[str, float]]) -> dict[str, FloatArray]:
        return {name: circular_velocities(model, draws, radius, name) for name in components(thetas[0])}

    def stars(theta: Mapping[str, float]) -> FloatArray:
        if "ml_gradient" in theta:
            with torch.no_grad():
                return np.asarray(model.surface_density(as_tensors(theta), torch.as_tensor(radius)).numpy())
        return surface_density(theta, radius * pc_per_arcsec, pc_per_arcsec)

    return Profiles(
        radius=radius,
        pc_per_arcsec=pc_per_arcsec,
        velocity=speeds(thetas),
        surface_density=np.array([stars(theta) for theta in thetas]),
        black_hole_mass=np.array([10.0 ** theta["log10_mbh"] for theta in thetas]),
        true_velocity={} if truth is None else {name: curve[0] for name, curve in speeds([dict(truth)]).items()},
        true_surface_density=None if truth is None else stars(truth),
    )
