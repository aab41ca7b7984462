"""Circularity of stars' orbits, and the fractions of a galaxy on hot, cold and counter-rotating orbits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DataError
from supermage.models.particles import Kind, Particles

FloatArray = NDArray[np.float64]

G_KPC = 1e-3 * GRAVITATIONAL_CONSTANT
"""G in kpc (km/s)^2 / Msun."""
KNOTS, INNERMOST = 400, 16
"""Radii of the table, in equal steps of ln r, from the one that holds so many particles."""
COLD, HOT = 0.8, 0.25
"""Circularity above which an orbit is cold, and modulus below which it is hot (Zhu et al. 2018; Xu et al. 2019)."""


@dataclass(frozen=True)
class Monopole:
    """Spherically averaged potential of particles, with its circular orbits.

    Attributes
    ----------
    radius, enclosed_mass, potential
        kpc, Msun, (km/s)^2 at the knots, shape (knot,); the potential is zero at infinity if nothing lies beyond the particles.
    offset
        (km/s)^2, to be added: what the matter outside the particles adds, measured where the particles bring a potential of their own.
    has_outside
        Whether such a potential was there: the rotation curve is then carried on flat beyond the last particle, else Keplerian.
    """

    radius: FloatArray
    enclosed_mass: FloatArray
    potential: FloatArray
    offset: float = 0.0
    has_outside: bool = False

    def at(self, radius: FloatArray) -> FloatArray:
        """Potential at radii (kpc), (km/s)^2: within the first knot that of uniform density, between knots linear in ln r."""
        first, last = float(self.radius[0]), float(self.radius[-1])
        between = np.interp(np.log(np.maximum(radius, first)), np.log(self.radius), self.potential)
        inner = self.potential[0] + 0.5 * G_KPC * self.enclosed_mass[0] / first * ((np.minimum(radius, first) / first) ** 2 - 1.0)
        found = np.where(radius < first, inner, between)
        beyond = radius > last
        if beyond.any():
            found[beyond] = -G_KPC * self.enclosed_mass[-1] / radius[beyond]
        return np.asarray(found + self.offset)

    def circular_angular_momentum(self, energy: FloatArray) -> FloatArray:
        """Specific angular momentum (kpc km/s) of the circular orbit of a specific energy ((km/s)^2, with the offset).

        ``E = Phi(r) + G M(<r) / 2 r``, ``j = sqrt(G M(<r) r)``, which both grow with r. Below the energy at rest in the centre 0; a star
        that is not bound gets the j of one that barely is, so that its circularity is small but keeps its sign.
        """
        squared = G_KPC * self.enclosed_mass / self.radius
        levels = np.concatenate([[self.potential[0] - 0.5 * squared[0]], self.potential + 0.5 * squared])
        momenta = np.concatenate([[0.0], self.radius * np.sqrt(squared)])
        bound = energy - self.offset
        found = np.interp(bound, np.maximum.accumulate(levels), momenta)
        beyond = bound > levels[-1]
        if beyond.any():
            if self.has_outside:
                found[beyond] = momenta[-1] * np.exp(np.minimum((bound[beyond] - levels[-1]) / squared[-1], 50.0))
            else:
                barely = 1e-6 * levels[0]
                found[beyond] = G_KPC * self.enclosed_mass[-1] / np.sqrt(-2.0 * np.minimum(bound[beyond], barely))
        return np.asarray(found)


def monopole_of(particles: Particles, *, anchor_radius: float = np.inf) -> Monopole:
    """Spherically averaged potential of all particles of all kinds.

    ``Phi(r) = -G [M(<r)/r + sum_(r_i > r) m_i/r_i]``. Where kinds bring potentials from their file, the mass-weighted mean of these less
    ours, over such particles within ``anchor_radius`` (kpc), is the offset: exact for matter outside in spherical shells.

    Raises
    ------
    DataError
        All particles in one point, or none within the anchor radius.
    """
    kinds = [kind for kind in particles.kinds.values() if len(kind)]
    radius = np.concatenate([np.linalg.norm(kind.position, axis=1) for kind in kinds])
    mass = np.concatenate([kind.mass for kind in kinds])
    order = np.argsort(radius)
    ordered, weight = radius[order], mass[order]
    first, last = float(ordered[min(INNERMOST, len(ordered)) - 1]), float(ordered[-1])
    if not first > 0 or not last > first:
        raise DataError(f"a potential needs particles at different radii, got {len(ordered)} between {first:g} and {last:g} kpc")
    knots = np.geomspace(first, last, KNOTS)
    knots[-1] = last
    within = np.searchsorted(ordered, knots, side="right")
    enclosed = np.concatenate([[0.0], np.cumsum(weight)])[within]
    shells = weight / np.maximum(ordered, first)
    outside = np.concatenate([np.cumsum(shells[::-1])[::-1], [0.0]])[within]
    monopole = Monopole(knots, enclosed, -G_KPC * (enclosed / knots + outside))
    return _anchored(monopole, kinds, anchor_radius)


def _anchored(monopole: Monopole, kinds: list[Kind], anchor_radius: float) -> Monopole:
    """The same with the offset that the kinds' own potentials ask for."""
    chosen = [(kind, np.linalg.norm(kind.position, axis=1)) for kind in kinds if len(kind.potential)]
    if not chosen:
        return monopole
    radius = np.concatenate([radius for _, radius in chosen])
    given = np.concatenate([kind.potential for kind, _ in chosen])
    mass = np.concatenate([kind.mass for kind, _ in chosen])
    near = radius <= anchor_radius
    total = float(mass[near].sum())
    if not total > 0:
        raise DataError(f"a file's potential needs particles within {anchor_radius:g} kpc, got none")
    offset = float(np.sum(mass[near] * (given[near] - monopole.at(radius[near]))) / total)
    return Monopole(monopole.radius, monopole.enclosed_mass, monopole.potential, offset, True)


@dataclass(frozen=True)
class OrbitFractions:
    """Shares of the stars' mass within an aperture, by circularity.

    Attributes
    ----------
    b_t
        Twice the share with negative circularity: kinetic bulge-to-total ratio.
    f_cold, f_hot
        Shares with circularity above 0.8, and within 0.25 of zero.
    """

    b_t: float
    f_cold: float
    f_hot: float


def circularity_of(particles: Particles, radius: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Circularity ``eps = j_z / j_circ(E)`` of the stars within a sphere.

    ``E = v^2/2 + Phi`` with the file's potential where the stars have one, else with `monopole_of`; j_circ(E) of the circular orbit of the
    same energy in the spherically averaged potential (Abadi et al. 2003). z is the direction of the angular momentum of the stars
    within the sphere, velocities are relative to their mean. Neither potential knows softening. In a flattened potential the modulus may
    exceed 1; of a galaxy without rotation the axis is noise.

    Parameters
    ----------
    particles
        Centred on the galaxy.
    radius
        Of the sphere, kpc.

    Returns
    -------
    circularity, inside
        Shapes (star inside,) and (star,): of the stars within the sphere, and which these are.

    Raises
    ------
    DataError
        No stars within the sphere, or all particles in one point.
    """
    stars = particles.stars
    distance = np.linalg.norm(stars.position, axis=1)
    inside = distance <= radius
    mass = stars.mass[inside]
    if not mass.sum() > 0:
        raise DataError(f"circularities need stars within {radius:g} kpc, got none")
    velocity = stars.velocity[inside] - mass @ stars.velocity[inside] / mass.sum()
    angular = np.cross(stars.position[inside], velocity)
    axis = mass @ angular
    length = float(np.linalg.norm(axis))
    axis = axis / length if length > 0 else np.array([0.0, 0.0, 1.0])
    monopole = monopole_of(particles, anchor_radius=radius)
    potential = stars.potential[inside] if len(stars.potential) else monopole.at(distance[inside])
    circular = monopole.circular_angular_momentum(0.5 * np.einsum("ij,ij->i", velocity, velocity) + potential)
    along = angular @ axis
    return np.divide(along, circular, out=np.zeros_like(along), where=circular > 0), inside


def orbit_fractions(circularity: FloatArray, mass: FloatArray) -> OrbitFractions:
    """Kinetic bulge-to-total ratio, cold and hot fraction of stars (Table 1 of the paper; Xu et al. 2019), arrays of shape (star,)."""
    total = float(mass.sum())
    if not total > 0:
        raise DataError(f"orbit fractions need stars with mass, got {len(mass)} of {total:g} Msun together")
    return OrbitFractions(
        b_t=2.0 * float(mass[circularity < 0].sum()) / total,
        f_cold=float(mass[circularity > COLD].sum()) / total,
        f_hot=float(mass[np.abs(circularity) < HOT].sum()) / total,
    )
