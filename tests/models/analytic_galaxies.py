"""Galaxies with known answers: Plummer spheres from their distribution function, razor-thin discs, similar ellipsoids."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from supermage.models.particles import Kind, Particles

Array = NDArray[np.float64]

G = 4.30091727e-6  # kpc (km/s)^2 / Msun
MASS = 5e10


def directions(count: int, rng: np.random.Generator) -> Array:
    vector = rng.standard_normal((count, 3))
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def plummer_radii(share: Array) -> Array:
    """Radii, in scale radii, that hold a share of the mass."""
    return 1.0 / np.sqrt(share ** (-2.0 / 3.0) - 1.0)


PLUMMER_HALF_MASS = float(plummer_radii(np.array(0.5)))


def plummer(count: int, seed: int, *, scale: float = 3.0, mass: float = MASS) -> Kind:
    """Isotropic, in equilibrium on its own: speeds from the distribution function by rejection (Aarseth, Henon & Wielen 1974)."""
    rng = np.random.default_rng(seed)
    radius = plummer_radii(rng.random(count))
    speed = np.empty(0)
    while len(speed) < count:
        q, height = rng.random(4 * count), rng.uniform(0.0, 0.1, 4 * count)
        speed = np.concatenate([speed, q[height < q**2 * (1.0 - q**2) ** 3.5]])
    escape = np.sqrt(2.0 * G * mass / scale) * (1.0 + radius**2) ** -0.25
    return Kind(scale * radius[:, None] * directions(count, rng), (speed[:count] * escape)[:, None] * directions(count, rng),
                np.full(count, mass / count))  # fmt: skip


def smooth_plummer(count: int, seed: int, *, scale: float, mass: float) -> Kind:
    """A sphere of Plummer's profile without noise in radius, at rest: one particle for each equal share of the mass."""
    rng = np.random.default_rng(seed)
    radius = scale * plummer_radii((np.arange(count) + 0.5) / count)
    return Kind(radius[:, None] * directions(count, rng), np.zeros((count, 3)), np.full(count, mass / count))


def plummer_enclosed(radius: Array, scale: float, mass: float) -> Array:
    return mass * radius**3 / (radius**2 + scale**2) ** 1.5


def plummer_potential(radius: Array, scale: float, mass: float) -> Array:
    return -G * mass / np.sqrt(radius**2 + scale**2)


def plummer_circular(energy: Array, scale: float, mass: float) -> Array:
    """Angular momentum of the circular orbit of an energy, by root finding at 400 energies, then a spline's worth of interpolation."""

    def excess(log_radius: float, level: float) -> float:
        radius = np.exp(log_radius)
        return float(plummer_potential(radius, scale, mass) + 0.5 * G * plummer_enclosed(radius, scale, mass) / radius - level)

    deepest = -G * mass / scale
    levels = deepest * np.linspace(0.9999, 0.005, 400)
    radii = np.exp([brentq(excess, np.log(1e-4 * scale), np.log(1e5 * scale), args=(level,)) for level in levels])
    return np.interp(energy, levels, np.sqrt(G * plummer_enclosed(radii, scale, mass) * radii))


def cold_disc(count: int, seed: int, *, scale: float = 3.0, mass: float = MASS, halo: int = 20_000) -> Particles:
    """A razor-thin exponential disc in the plane of x and y whose stars circle in the monopole of disc and halo."""
    rng = np.random.default_rng(seed)
    radius = scale * rng.gamma(2.0, size=count)
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    dark = smooth_plummer(halo, seed + 1, scale=4.0 * scale, mass=10.0 * mass)
    x = radius / scale
    enclosed = mass * (1.0 - (1.0 + x) * np.exp(-x)) + plummer_enclosed(radius, 4.0 * scale, 10.0 * mass)
    speed = np.sqrt(G * enclosed / radius)
    zero = np.zeros(count)
    stars = Kind(np.stack([radius * np.cos(angle), radius * np.sin(angle), zero], axis=1),
                 np.stack([-speed * np.sin(angle), speed * np.cos(angle), zero], axis=1), np.full(count, mass / count))  # fmt: skip
    return Particles(stars, dark)


def octahedral(points: Array) -> Array:
    """Every image of points under the 48 symmetries of the cube: any second moment of these about the origin is isotropic."""
    images = [points[:, order] * signs for order in map(list, itertools.permutations(range(3)))
              for signs in itertools.product((1.0, -1.0), repeat=3)]  # fmt: skip
    return np.concatenate(images)


def turned(particles: Particles, matrix: Array) -> Particles:
    """The galaxy after a rotation: rows of positions and velocities are multiplied with the matrix."""
    kinds = {name: replace(kind, position=kind.position @ matrix.T, velocity=kind.velocity @ matrix.T)
             for name, kind in particles.kinds.items()}  # fmt: skip
    return Particles(kinds["stars"], kinds["dark_matter"], kinds["gas"], kinds["black_holes"])
