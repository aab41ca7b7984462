"""Axes of a cloud of particles by the iterated, reduced inertia tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError

FloatArray = NDArray[np.float64]

TOLERANCE, MAX_ITERATIONS = 1e-4, 50
"""The iteration ends when both axis ratios change by less than this relative amount, or after so many rounds."""
FLATTEST = 1e-6
"""Axis ratio below which a cloud counts as a plane or a line: the ratio is then 0."""
LEAST_PARTICLES = 50
"""Particles that the ellipsoid must hold."""


@dataclass(frozen=True)
class Axes:
    """Principal axes.

    Attributes
    ----------
    b_a, c_a
        Intermediate and shortest over longest axis; NaN where too few particles are left inside.
    directions
        Rows are unit vectors along the longest, intermediate and shortest axis, shape (3, 3).
    iterations, converged
        Rounds, and whether the ratios stood still at the end.
    n_inside
        Particles within the last ellipsoid.
    """

    b_a: float
    c_a: float
    directions: FloatArray
    iterations: int
    converged: bool
    n_inside: int


def axes_of(position: FloatArray, mass: FloatArray, radius: float) -> Axes:
    """Axis ratios of the mass within an ellipsoid whose longest axis is held at a radius.

    ``M_ij = sum m x_i x_j / r^2`` over the particles with ``r <= radius``, ``r^2 = x^2 + y^2/(b/a)^2 + z^2/(c/a)^2`` along the axes of the
    round before; a, b, c are the roots of its eigenvalues; the first round takes a sphere (Allgood et al. 2006, section 2). Exact for
    a density on similar ellipsoids about the origin: stretched to a sphere, the tensor is isotropic whatever the profile.

    Parameters
    ----------
    position
        Shape (particle, 3), about the centre.
    mass
        Shape (particle,).
    radius
        Of the sphere at the start, in the positions' unit; the longest axis keeps it.

    Raises
    ------
    DataError
        A radius that is not above 0.
    """
    if not radius > 0:
        raise DataError(f"an inertia tensor needs a radius above 0, got {radius:g}")
    squared = np.einsum("ij,ij->i", position, position)
    chosen = (squared <= radius**2) & (squared > 0)
    point, weight = position[chosen], mass[chosen]
    directions, b_a, c_a = np.eye(3), 1.0, 1.0
    inside = 0
    for iteration in range(1, MAX_ITERATIONS + 1):
        along = point @ directions.T
        elliptical = np.square(along) @ np.array([1.0, b_a**-2, c_a**-2])
        share = np.where(elliptical <= radius**2, weight / elliptical, 0.0)
        inside = int(np.count_nonzero(share))
        if inside < LEAST_PARTICLES:
            return Axes(math.nan, math.nan, directions, iteration, False, inside)
        value, vector = np.linalg.eigh((along * share[:, None]).T @ along)
        directions = vector.T[::-1] @ directions
        root = np.sqrt(np.maximum(value[::-1], 0.0))
        new_b, new_c = float(root[1] / root[0]), float(root[2] / root[0])
        if new_c < FLATTEST:
            return Axes(new_b if new_b >= FLATTEST else 0.0, 0.0, directions, iteration, True, inside)
        settled = abs(new_b / b_a - 1.0) < TOLERANCE and abs(new_c / c_a - 1.0) < TOLERANCE
        b_a, c_a = new_b, new_c
        if settled:
            return Axes(b_a, c_a, directions, iteration, True, inside)
    return Axes(b_a, c_a, directions, MAX_ITERATIONS, False, inside)
