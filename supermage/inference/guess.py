"""A first guess from dirty images: where the line's emission lies at each velocity gives centre, position angle, width and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.constants import ARCSEC
from supermage.data_reduction.gridded import GriddedVisibilities

FloatArray = NDArray[np.float64]

WINDOWS = 24
"""Velocity windows across the band."""

DETECTED = 4.5
"""Peak over noise that counts as emission."""


@dataclass(frozen=True)
class Guess:
    """Kinematics read off dirty images: centre (arcsec east, north), position angle (deg), systemic velocity and half width (km/s), radius (arcsec)."""

    x: float
    y: float
    position_angle: float
    systemic_velocity: float
    half_width: float
    radius: float


def dirty_peaks(gridded: GriddedVisibilities, *, n_pixel: int = 48) -> FloatArray:
    """Velocity, east, north and peak over noise of the brightest point in overlapping velocity windows, shape (window, 4).

    Every cell's mean over its channels is taken out first, so that a continuum does not pose as emission.
    """
    weight = gridded.weight
    total = weight.sum(axis=1, keepdims=True)
    mean = (weight * gridded.mean).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    weighted = weight * (gridded.mean - mean)
    velocity = gridded.velocity
    edges = np.linspace(velocity.min(), velocity.max(), WINDOWS + 1)
    width = 2.0 * (edges[1] - edges[0])
    size = gridded.grid.cell_size_wavelengths * ARCSEC
    axis = np.linspace(-0.3, 0.3, n_pixel) * gridded.grid.field_of_view
    east = np.exp(2j * np.pi * size * np.outer(axis, gridded.cell_u))
    north = np.exp(2j * np.pi * size * np.outer(axis, gridded.cell_v))
    rows = []
    for centre in 0.5 * (edges[1:] + edges[:-1]):
        inside = np.abs(velocity - centre) < 0.5 * width
        if not inside.any():
            continue
        summed = (weighted * inside[:, :, None]).sum(axis=(0, 1))
        noise = np.sqrt((weight * inside[:, :, None]).sum())
        image = np.real((north * summed) @ east.T) / max(noise, 1e-300)
        row, column = np.unravel_index(int(image.argmax()), image.shape)
        rows.append((centre, axis[column], axis[row], float(image[row, column])))
    return np.array(rows)


def guess_kinematics(gridded: GriddedVisibilities) -> Guess | None:
    """Fit a line through the dirty peaks' positions against velocity; None where fewer than four windows show emission."""
    peaks = dirty_peaks(gridded)
    peaks = peaks[peaks[:, 3] > DETECTED] if len(peaks) else peaks
    if len(peaks) < 4:  # noqa: PLR2004
        return None
    velocity, east, north, signal = peaks.T
    systemic = 0.5 * (velocity.min() + velocity.max())
    design = np.stack([np.ones_like(velocity), velocity - systemic], axis=1)
    weight = signal
    for _ in range(5):  # robust: windows far from the line count less
        fit_east, fit_north = (np.linalg.lstsq(design * weight[:, None], axis * weight, rcond=None)[0] for axis in (east, north))
        distance = np.hypot(east - design @ fit_east, north - design @ fit_north)
        weight = signal / (1.0 + (distance / (1e-9 + np.median(distance) * 2.0)) ** 2)
    along = np.hypot(east - fit_east[0], north - fit_north[0])
    return Guess(float(fit_east[0]), float(fit_north[0]), float(np.degrees(np.arctan2(fit_east[1], fit_north[1])) % 360.0), float(systemic),
                 float(0.5 * np.ptp(velocity)), float(max(np.average(along, weights=signal), 0.1 * gridded.grid.pixel_scale)))
