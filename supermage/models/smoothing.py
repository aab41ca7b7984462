"""Star particles smoothed onto an image: the cubic spline of smoothed-particle hydrodynamics, projected, every particle's light kept."""

from __future__ import annotations

import functools

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from supermage.errors import DomainError
from supermage.models.particles import FloatArray

NEIGHBOURS = 32

_KNOTS = 4096
_FINE = 4.0
_SUBPIXELS = 16
_WIDE = 48.0


def smoothing_radii(position: FloatArray, neighbours: int = NEIGHBOURS) -> FloatArray:
    """Distance of every particle to its 32nd nearest neighbour, itself not counted, shape (particle,), in the positions' unit.

    The kernel ends there (as in Gadget; Monaghan's h is half of it). Of fewer particles, the distance of the farthest; 0 of one alone.
    """
    number = min(neighbours, len(position) - 1)
    if number < 1:
        return np.zeros(len(position))
    tree = cKDTree(position, compact_nodes=False)
    radius = np.empty(len(position))
    radius[tree.indices] = tree.query(position[tree.indices], k=[number + 1])[0][:, 0]  # in the tree's order: three times faster
    return radius


def projected_kernel(radius: FloatArray) -> FloatArray:
    """Cubic spline of Monaghan (1992) integrated along the line of sight, for a kernel that ends at radius 1; unit integral over the plane.

    ``8/pi`` times ``1 - 6 r^2 + 6 r^3`` inside 1/2 and ``2 (1 - r)^3`` outside, by 64-point Gauss-Legendre quadrature over each piece.
    """
    node, weight = np.polynomial.legendre.leggauss(64)
    total = np.zeros(radius.shape)
    for inner, outer in ((0.0, 0.5), (0.5, 1.0)):
        low, high = (np.sqrt(np.maximum(edge**2 - radius**2, 0.0)) for edge in (inner, outer))
        depth = low[..., None] + (high - low)[..., None] * 0.5 * (node + 1.0)
        distance = np.sqrt(radius[..., None] ** 2 + depth**2)
        value = np.where(distance < 0.5, 1.0 - 6.0 * distance**2 + 6.0 * distance**3, 2.0 * np.maximum(1.0 - distance, 0.0) ** 3)
        total += (value * weight).sum(axis=-1) * (high - low)  # twice half the length: both sides of the plane
    return 8.0 / np.pi * total


def smoothed_images(position: FloatArray, values: FloatArray, radius: FloatArray, *, half_width: float, pixels: int) -> FloatArray:
    """Deposit particles onto square images, shape (value, y, x): what falls into each pixel, in the values' unit.

    Pixel (0, 0) is the corner of lowest x and y; the image reaches from ``-half_width`` to ``half_width`` both ways. A particle's weights
    are kernel values on a lattice of points: pixel centres where the kernel is wide, points 2, 4, 8 or 16 times closer where it would hold
    too few of them; a kernel smaller than a quarter of a pixel counts as a point. The weights are normalised over the whole unbounded
    lattice, so a particle gives all of its light, and what falls beyond the image is lost, never moved to its edge. Wide kernels that
    reach beyond it are normalised by their integral, which their sum equals to 1e-8.

    Parameters
    ----------
    position
        Shape (particle, 2): x and y.
    values
        Shape (value, particle): what to deposit, for instance g and r luminosities.
    radius
        Where each particle's kernel ends, shape (particle,).
    half_width, pixels
        Of the image; lengths in one unit.

    Raises
    ------
    DomainError
        No pixels or no width.
    """
    if pixels < 1 or not half_width > 0.0:
        raise DomainError(f"an image needs a pixel and a positive half-width, got {pixels} pixels and {half_width:g}")
    scale = pixels / (2.0 * half_width)
    place = (position + half_width) * scale
    return _deposit(place, np.ascontiguousarray(values), radius * scale, _kernel_table(), pixels)


@functools.cache
def _kernel_table() -> FloatArray:
    """The projected kernel at even steps of r^2, linear between them and of unit integral as such; one zero more at its end."""
    table = projected_kernel(np.sqrt(np.arange(_KNOTS + 1) / _KNOTS))
    return np.append(table / (np.pi * (table[:-1] + table[1:]).sum() / (2 * _KNOTS)), 0.0)


@numba.njit(nogil=True)
def _deposit(place: FloatArray, values: FloatArray, radius: FloatArray, table: FloatArray, pixels: int) -> FloatArray:
    """Deposit in units of pixels; see `smoothed_images`."""
    image = np.zeros((len(values), pixels, pixels))
    scratch = np.empty(pixels)
    for index in range(len(radius)):
        x, y, reach = place[index, 0], place[index, 1], radius[index]
        if x + reach <= 0.0 or y + reach <= 0.0 or x - reach >= pixels or y - reach >= pixels:
            continue
        fine = 1
        while fine < _SUBPIXELS and reach * fine < _FINE:
            fine *= 2
        if reach * fine < _FINE:
            column, row = int(np.floor(x)), int(np.floor(y))
            if 0 <= column < pixels and 0 <= row < pixels:
                for k in range(len(values)):
                    image[k, row, column] += values[k, index]
            continue
        inside = x >= reach and y >= reach and x + reach <= pixels and y + reach <= pixels
        if reach > _WIDE and not inside:
            _add_wide(image, values, table, scratch, index, x, y, reach)
        else:
            side = int(2.0 * reach * fine) + 2
            if side * side > len(scratch):
                scratch = np.empty(2 * side * side)
            _add(image, values, table, scratch, index, x * fine, y * fine, reach * fine, fine)
    return image


@numba.njit(nogil=True)
def _row_span(row: int, x: float, y: float, reach: float) -> tuple[int, int]:
    """First column whose centre lies within reach in a row, and the first beyond."""
    span = np.sqrt(max(reach * reach - (row + 0.5 - y) ** 2, 0.0))
    return int(np.ceil(x - span - 0.5)), int(np.floor(x + span - 0.5)) + 1


@numba.njit(nogil=True)
def _weigh(
    weights: FloatArray, at: int, first: int, last: int, square: float, x: float, scale: float, table: FloatArray
) -> float:  # fmt: skip
    """Kernel values along a row, of which ``square`` is the distance in y squared, from ``at`` on; their sum."""
    total = 0.0
    for column in range(first, last):
        dx = column + 0.5 - x
        place = (dx * dx + square) * scale
        knot = int(place)
        weight = table[knot] + (place - knot) * (table[knot + 1] - table[knot])
        weights[at + column - first] = weight
        total += weight
    return total


@numba.njit(nogil=True)
def _add(
    image: FloatArray, values: FloatArray, table: FloatArray, scratch: FloatArray,
    index: int, x: float, y: float, reach: float, fine: int,
) -> None:  # fmt: skip
    """Add a particle, all lengths in steps of its lattice; the sum over the lattice first."""
    size = image.shape[1] * fine
    first_y, last_y = int(np.ceil(y - reach - 0.5)), int(np.floor(y + reach - 0.5)) + 1
    scale = (len(table) - 2) / (reach * reach)
    total, at = 0.0, 0
    for row in range(first_y, last_y):
        first, last = _row_span(row, x, y, reach)
        total += _weigh(scratch, at, first, last, (row + 0.5 - y) ** 2, x, scale, table)
        at += max(last - first, 0)
    at = 0
    for row in range(first_y, last_y):
        first, last = _row_span(row, x, y, reach)
        if 0 <= row < size:
            left, right = max(first, 0), min(last, size)
            weights = scratch[at + left - first : at + max(right, left) - first]
            for k in range(len(values)):
                share = values[k, index] / total
                if fine == 1:
                    line = image[k, row, left : max(right, left)]
                    for column in range(len(weights)):
                        line[column] += share * weights[column]
                else:
                    line = image[k, row // fine]
                    for column in range(len(weights)):
                        line[(left + column) // fine] += share * weights[column]
        at += max(last - first, 0)


@numba.njit(nogil=True)
def _add_wide(
    image: FloatArray, values: FloatArray, table: FloatArray, scratch: FloatArray,
    index: int, x: float, y: float, reach: float,
) -> None:  # fmt: skip
    """Add a particle whose kernel is so smooth on the pixels that its sum over them is its integral, to 1e-8."""
    pixels = image.shape[1]
    scale = (len(table) - 2) / (reach * reach)
    for row in range(max(int(np.ceil(y - reach - 0.5)), 0), min(int(np.floor(y + reach - 0.5)) + 1, pixels)):
        first, last = _row_span(row, x, y, reach)
        left, right = max(first, 0), min(last, pixels)
        _weigh(scratch, 0, left, right, (row + 0.5 - y) ** 2, x, scale, table)
        for k in range(len(values)):
            share = values[k, index] / (reach * reach)
            line = image[k, row, left : max(right, left)]
            for column in range(len(line)):
                line[column] += share * scratch[column]


def rebinned(image: FloatArray, pixels: int) -> NDArray[np.float64]:
    """Sum of the pixels of an image in coarser ones, shape (..., pixels, pixels).

    Raises
    ------
    DomainError
        A number of pixels that does not divide the image's.
    """
    size = image.shape[-1]
    if pixels < 1 or size % pixels:
        raise DomainError(f"an image of {size} pixels can be rebinned to a divisor of that, got {pixels}")
    step = size // pixels
    return image.reshape(*image.shape[:-2], pixels, step, pixels, step).sum(axis=(-3, -1), dtype=np.float64)
