"""Seconds that the features and targets of one galaxy take on one core, as JSON.

    OMP_NUM_THREADS=1 python benchmarks/galaxy_features.py

An exponential disc of stars in a Plummer sphere of stars and one of dark matter; medians of several rounds, of the processor's time: other
work on the machine hardly counts. `one_projection`:
features and targets in one projection, all told; `three_projections`: in all three, which share shape and orbits; the rest are its parts.
`particles`: stars and dark matter, half of each; `stars`: as many stars, and as much dark matter beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from supermage.models.features import SERSIC_APERTURE, SHAPE_APERTURE, features_of, intrinsic_features
from supermage.models.orbits import circularity_of
from supermage.models.particles import Kind, Particles
from supermage.models.sersic import fit_sersic
from supermage.models.shape import axes_of
from supermage.models.targets_of_particles import targets_of_particles

Array = NDArray[np.float64]


def directions(count: int, rng: np.random.Generator) -> Array:
    """Unit vectors of random directions, shape (count, 3)."""
    vector = rng.standard_normal((count, 3))
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def sphere(count: int, scale: float, mass: float, rng: np.random.Generator) -> Kind:
    """A Plummer sphere with random velocities of about the right size."""
    radius = scale / np.sqrt(rng.uniform(0.01, 0.999, count) ** (-2 / 3) - 1)
    return Kind(radius[:, None] * directions(count, rng), 90.0 * rng.standard_normal((count, 3)), np.full(count, mass / count))


def galaxy(stars: int, dark: int, seed: int = 1) -> Particles:
    """Three stars of four in a disc that rotates at 200 km/s."""
    rng = np.random.default_rng(seed)
    bulge = sphere(stars // 4, 1.0, 1e10, rng)
    count = stars - stars // 4
    radius, angle = 3.0 * rng.gamma(2.0, size=count), rng.uniform(0, 2 * np.pi, count)
    zero = np.zeros(count)
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.3 * rng.standard_normal(count)], axis=1)
    velocity = 200.0 * np.stack([-np.sin(angle), np.cos(angle), zero], axis=1) + 30.0 * rng.standard_normal((count, 3))
    both = Kind(np.concatenate([bulge.position, position]), np.concatenate([bulge.velocity, velocity]),
                np.concatenate([bulge.mass, np.full(count, 3e10 / count)]), age=13.0 * rng.random(stars),
                initial_mass=np.full(stars, 6e10 / stars))  # fmt: skip
    return Particles(both, sphere(dark, 20.0, 5e11, rng))


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median processor time of a call, s."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return round(float(np.median(found)), 4)


def measure(particles: Particles, rounds: int) -> dict[str, float]:
    """Seconds of the whole and of its parts."""
    light = np.random.default_rng(2).random(len(particles.stars)) * 1e6
    scale = particles.half_mass_radius()
    position, mass = particles.stars.position, particles.stars.mass
    radius = np.hypot(position[:, 0], position[:, 1])

    def view(axis: int) -> None:
        features_of(particles, axis, luminosity_r=light, luminosity_g=light)
        targets_of_particles(particles, axis, luminosity_r=light)

    def all_views() -> None:
        intrinsic = intrinsic_features(particles)
        for axis in range(3):
            features_of(particles, axis, luminosity_r=light, luminosity_g=light, intrinsic=intrinsic)
            targets_of_particles(particles, axis, luminosity_r=light, half_mass_radius=scale)

    return {
        "one_projection": seconds(lambda: view(0), rounds),
        "three_projections": seconds(all_views, rounds),
        "circularities": seconds(lambda: circularity_of(particles, 2.0 * scale), rounds),
        "axes": seconds(lambda: axes_of(position, mass, SHAPE_APERTURE * scale), rounds),
        "sersic": seconds(lambda: fit_sersic(radius, light, SERSIC_APERTURE * scale), rounds),
        "targets": seconds(lambda: targets_of_particles(particles, 0, luminosity_r=light), rounds),
    }


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.count
    print(json.dumps({"count": count, "particles": measure(galaxy(count // 2, count // 2), options.rounds),
                      "stars": measure(galaxy(count, count), options.rounds)}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
