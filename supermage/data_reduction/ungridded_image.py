"""A dirty cube straight from the visibilities, as tclean with niter = 0 makes it: nothing is averaged before the transform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT_M_S
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.data_reduction.images import DirtyCube, fit_gaussian_beam, transform_to_image
from supermage.data_reduction.visibilities import VisibilityChunk
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

MOST_BUFFERED = 4_000_000
"""Visibilities (hands together) that wait for their transform: a transform costs as much for one as for thousands."""


@dataclass(frozen=True, eq=False)
class BlockImage:
    """Sums of one execution block over its visibilities x with imaging weights w.

    Attributes
    ----------
    image, beam
        Of w x exp(2 pi i (u l + v m)), shape (chan, y, x), and of the same for x = 1, shape (y, x).
    weight, variance
        Of w, and of w^2 times the variance of x where the set's weights are inverse variances, shape (chan,).
    """

    image: FloatArray
    beam: FloatArray
    weight: FloatArray
    variance: FloatArray


class DirtyImager:
    """Accumulates the dirty cube of one execution block, in memory that does not grow with the number of visibilities.

    Stokes I and natural weights as CASA has them: the plain mean of both hands where neither is flagged, weighted by the mean of their
    weights. (The gridded visibilities weigh each hand by its own noise, which is a little better.)

    Parameters
    ----------
    grid
        The image.
    frequency
        Native channel centres, Hz, shape (chan,).
    """

    def __init__(self, grid: UVGrid, frequency: FloatArray) -> None:
        self._grid, self._frequency = grid, frequency
        n = grid.n_pixel
        self._image, self._beam = np.zeros((frequency.size, n, n)), np.zeros((n, n))
        self._weight, self._variance = np.zeros(frequency.size), np.zeros(frequency.size)
        self._waiting: list[tuple[FloatArray, NDArray[np.complex64], NDArray[np.float32]]] = []
        self._rows = 0

    def add(self, chunk: VisibilityChunk) -> None:
        """Add a chunk of visibilities, natural weighting."""
        good = (chunk.weight > 0).all(axis=2)
        weight = np.where(good, chunk.weight.mean(axis=2), np.float32(0.0))
        of_mean = (1.0 / np.where(chunk.weight > 0, chunk.weight, 1.0)).sum(axis=2, dtype=np.float64) / chunk.weight.shape[2] ** 2
        self._variance += (weight**2 * of_mean).sum(axis=0)
        self._waiting.append((chunk.uvw[:, :2], chunk.data.mean(axis=2) * weight, weight))
        self._rows += weight.shape[0]
        if self._rows * self._frequency.size >= MOST_BUFFERED:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        place, data, weight = (np.concatenate(parts) for parts in zip(*self._waiting))
        self._waiting, self._rows = [], 0
        for channel, frequency in enumerate(self._frequency):
            used = weight[:, channel] > 0
            metres = place[used][:, ::-1] * (frequency / SPEED_OF_LIGHT_M_S)
            self._image[channel] += transform_to_image(metres, data[used, channel].astype(np.complex128), self._grid)
            self._beam += transform_to_image(metres, weight[used, channel].astype(np.complex128), self._grid)
            self._weight[channel] += float(weight[used, channel].sum(dtype=np.float64))

    def finish(self) -> BlockImage:
        """The sums over everything added."""
        self._flush()
        return BlockImage(self._image, self._beam, self._weight, self._variance)


def combine_blocks(images: list[BlockImage], gridded: GriddedVisibilities) -> DirtyCube:
    """Dirty cube of all execution blocks, each channel added to the first block's channel that is nearest in the frame.

    Parameters
    ----------
    images
        One a block.
    gridded
        The same data gridded: geometry, frequencies, and each block's variance over 1 / weight.

    Raises
    ------
    DataError
        If no visibility has both hands.
    """
    frequency = gridded.frame_frequency
    scales = [float(block["noise_scale"]) for block in gridded.provenance["blocks"]]
    cube, beam = np.zeros_like(images[0].image), np.zeros_like(images[0].beam)
    total, variance = np.zeros(frequency.shape[1]), np.zeros(frequency.shape[1])
    for block, (one, scale) in enumerate(zip(images, scales)):
        for channel in range(frequency.shape[1]):
            target = int(np.argmin(np.abs(frequency[0] - frequency[block, channel])))
            cube[target] += one.image[channel] / scale
            total[target] += one.weight[channel] / scale
            variance[target] += one.variance[channel] / scale
        beam += one.beam / scale
    if not total.any():
        raise DataError("a dirty cube needs visibilities with both hands unflagged, got none")
    safe = np.where(total > 0, total, 1.0)
    beam_image = beam / total.sum()
    scale = gridded.grid.pixel_scale
    return DirtyCube(data=cube / safe[:, None, None], beam_image=beam_image, beam=fit_gaussian_beam(beam_image, scale),
                     frequency=frequency[0], noise=np.where(total > 0, np.sqrt(variance) / safe, np.inf), pixel_scale=scale)
