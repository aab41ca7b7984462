"""Dirty images of data, model and residual on one velocity axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.stats import norm

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.plots.beam import Beam

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
FALSE_ALARM = 0.01


@dataclass(frozen=True)
class SkyCubes:
    """Dirty cubes.

    Attributes
    ----------
    axis
        Pixel centres, arcsec, shape (n,), east and north positive.
    velocity
        km/s, ascending, shape (chan,).
    data, model, residual
        Jy/beam, shape (chan, y, x), x growing east; a flat continuum has been taken from the data where the fit allowed for one.
    dirty_beam
        Shape (y, x), 1 at its centre.
    beam
        Gaussian that fits its main lobe.
    noise
        Noise of one channel that the standard errors predict, Jy/beam, shape (chan,).
    """

    axis: FloatArray
    velocity: FloatArray
    data: FloatArray
    model: FloatArray
    residual: FloatArray
    dirty_beam: FloatArray
    beam: Beam
    noise: FloatArray

    @property
    def width(self) -> float:
        """Channel width, km/s."""
        return float(np.median(np.diff(self.velocity)))

    def peak(self) -> tuple[float, float]:
        """Brightest residual pixel over the noise, and the level that noise alone passes in 1 of 100 such cubes."""
        area = math.pi / (4 * math.log(2)) * self.beam.major * self.beam.minor
        field = (self.axis[-1] - self.axis[0]) ** 2
        trials = max(len(self.velocity) * field / area, 1.0) * 2.0  # about two independent values a beam
        peak = float(np.max(np.abs(self.residual) / self.noise[:, None, None]))
        return peak, float(norm.isf(FALSE_ALARM / (2.0 * trials)))


def sky_cubes(gridded: GriddedVisibilities, model: ComplexArray, continuum: ComplexArray) -> SkyCubes:
    """Image data, model and residual with natural weights.

    Parameters
    ----------
    gridded
        The data.
    model
        Jy, shape (block, chan, cell).
    continuum
        Flat continuum to take from the data, Jy, shape (block, cell).
    """
    good = np.isfinite(gridded.standard_error)
    data = np.where(good, gridded.mean - continuum[:, None, :], 0.0)
    velocity, target = common_channels(gridded)
    cubes = [_image(gridded, values, target, len(velocity)) for values in (data, model)]
    dirty_beam = _image(gridded, np.ones_like(model), target, len(velocity))[0].mean(axis=0)
    axis = gridded.grid.axis
    noise = cubes[0][1]
    return SkyCubes(axis=axis, velocity=velocity, data=cubes[0][0], model=cubes[1][0], residual=cubes[0][0] - cubes[1][0],
                    dirty_beam=dirty_beam, beam=fit_beam(dirty_beam, axis), noise=noise)


def common_channels(gridded: GriddedVisibilities) -> tuple[FloatArray, NDArray[np.int64]]:
    """Velocity axis of the first block, ascending, and the channel on it that is nearest to every block's channel (-1 beyond its ends)."""
    velocity = np.sort(gridded.velocity[0])
    width = float(np.median(np.diff(velocity))) if velocity.size > 1 else 1.0
    index = np.rint((gridded.velocity - velocity[0]) / width).astype(np.int64)
    return velocity, np.where((index >= 0) & (index < velocity.size), index, -1)


def _image(gridded: GriddedVisibilities, values: ComplexArray, target: NDArray[np.int64], n_channel: int) -> tuple[FloatArray, FloatArray]:
    """Dirty cube (chan, y, x), Jy/beam, and its noise (chan,): natural weights, blocks added at their nearest channel."""
    n = gridded.grid.n_pixel
    weighted = np.zeros((n_channel, n, n), dtype=complex)
    weight = np.zeros(n_channel)
    row, column = gridded.cell_v % n, gridded.cell_u % n
    for block, channels in enumerate(target):
        for channel, number in enumerate(channels):
            if number >= 0:
                w = gridded.weight[block, channel]
                np.add.at(weighted[number], (row, column), w * values[block, channel])
                weight[number] += w.sum()
    # The other half of the uv plane doubles the real part; axes are [v, u] -> [y, x] with the phase centre at n / 2.
    cube = np.fft.fftshift(np.fft.ifft2(weighted).real * n * n, axes=(1, 2))
    safe = np.where(weight > 0, weight, np.inf)
    return cube / safe[:, None, None], np.where(weight > 0, 1.0 / np.sqrt(np.where(weight > 0, weight, 1.0)), np.inf)


def fit_beam(dirty_beam: FloatArray, axis: FloatArray) -> Beam:
    """Gaussian of the same second moments as the main lobe above half its height, scaled to full width at half maximum."""
    lobes, _ = label(dirty_beam > 0.5 * dirty_beam.max())
    peak = np.unravel_index(np.argmax(dirty_beam), dirty_beam.shape)
    y, x = np.nonzero(lobes == lobes[peak])
    east, north = axis[x] - axis[peak[1]], axis[y] - axis[peak[0]]
    # Least squares of -ln(beam) = quadratic form: exact for a Gaussian, unlike moments of a clipped lobe.
    design = np.stack([east**2, 2 * east * north, north**2], axis=1)
    value = -np.log(dirty_beam[y, x] / dirty_beam.max())
    (a, b, c), *_ = np.linalg.lstsq(design, value, rcond=None)
    size, direction = np.linalg.eigh(np.array([[a, b], [b, c]]))
    minor_major = np.sqrt(math.log(2.0) / np.maximum(size, 1e-12)) * 2.0
    east_major, north_major = direction[:, 0]
    return Beam(float(minor_major[0]), float(minor_major[1]), float(np.degrees(np.arctan2(east_major, north_major)) % 180.0))
