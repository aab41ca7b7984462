"""Moments of a cube along velocity: integrated flux, mean velocity and dispersion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Moment maps, each of shape (y, x): Jy/beam km/s, km/s, km/s; the last two NaN where nothing is bright enough."""

    flux: FloatArray
    velocity: FloatArray
    dispersion: FloatArray


def main_body(image: FloatArray, threshold: float) -> NDArray[np.bool_]:
    """Pixels above a threshold that hang together with the brightest one: the source without the beam's side lobes."""
    parts, _ = label(image > threshold)
    return np.asarray(parts == parts[np.unravel_index(np.argmax(image), image.shape)])


def emission_mask(model: FloatArray, *, noise: float, fraction: float = 0.1) -> NDArray[np.bool_]:
    """Voxels (chan, y, x) of the main body in which a noise-free cube exceeds a fraction of its peak, and half the noise of one channel.

    Masking data and model by the same noise-free cube keeps positive noise peaks from being picked.
    """
    threshold = max(fraction * float(model.max()), 0.5 * noise)
    return np.asarray((model > threshold) & main_body(model.max(axis=0), threshold))


def moments(cube: FloatArray, velocity: FloatArray, mask: NDArray[np.bool_], *, width: float, floor: float) -> Moments:
    """Moments of the masked cube.

    Parameters
    ----------
    cube
        Jy/beam, shape (chan, y, x).
    velocity
        km/s, shape (chan,).
    mask
        Voxels that enter.
    width
        Channel width, km/s.
    floor
        Integrated flux (Jy/beam km/s) below which mean velocity and dispersion are left blank.
    """
    inside = np.where(mask, cube, 0.0)
    total = inside.sum(axis=0)
    flux = np.where(mask.any(axis=0), total * width, 0.0)
    bright = flux > max(floor, 0.0)
    weight = np.where(bright, total, np.nan)
    mean = np.einsum("cyx,c->yx", inside, velocity) / weight
    square = np.einsum("cyx,cyx->yx", inside, (velocity[:, None, None] - np.where(bright, mean, 0.0)) ** 2) / weight
    return Moments(flux=flux, velocity=mean, dispersion=np.sqrt(np.where(square >= 0, square, np.nan)))
