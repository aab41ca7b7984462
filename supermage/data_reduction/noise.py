"""The noise of gridded visibilities, measured from the data themselves: how large, and known from how many degrees of freedom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.gridding import BlockSums
from supermage.data_reduction.spectral import SpectralResponse
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

LEAST_DEGREES = 8.0
"""A cell whose own noise scale is known from fewer degrees of freedom takes the block's."""

_LEAST_CHANNEL_DEGREES = 200.0


def variance_of_mean(window: FloatArray, weight: FloatArray, scale: float) -> float:
    """Variance of the mean ``sum k w x / sum k w`` where each x has the variance ``scale / w``: ``scale sum k^2 w / (sum k w)^2``."""
    return float(scale * np.sum(window**2 * weight) / np.sum(window * weight) ** 2)


def unbiased_scale(values: FloatArray, window: FloatArray, weight: FloatArray) -> float:
    """Scale phi of the variances ``phi / w`` of real values: ``sum a (x - m)^2 / (sum k - sum k^2 w / sum k w)``, a = k w."""
    a = window * weight
    mean = np.sum(a * values) / a.sum()
    return float(np.sum(a * (values - mean) ** 2) / (window.sum() - np.sum(window**2 * weight) / a.sum()))


def satterthwaite_degrees(window: FloatArray, weight: FloatArray) -> float:
    """Effective degrees of freedom of `unbiased_scale` for real values: n - 1 where the window is flat, less where it is not.

    ``(sum a s^2 - sum a^2 s^2 / A)^2 / (sum a^2 s^4 - 2 sum a^3 s^4 / A + (sum a^2 s^2)^2 / A^2)`` with a = k w, s^2 = 1 / w, A = sum a.
    """
    a, variance = window * weight, 1.0 / weight
    total = a.sum()
    numerator = (np.sum(a * variance) - np.sum(a**2 * variance) / total) ** 2
    denominator = (np.sum(a**2 * variance**2) - 2.0 * np.sum(a**3 * variance**2) / total + np.sum(a**2 * variance) ** 2 / total**2)
    return float(numerator / denominator)


@dataclass(frozen=True, eq=False)
class BlockNoise:
    """Noise of one execution block.

    Attributes
    ----------
    standard_error
        Of the real part and of the imaginary part, Jy, shape (chan, cell); ``inf`` where empty.
    degrees_of_freedom
        Of the cell's scale, shape (chan, cell).
    estimator
        ``"difference of hands"`` or ``"scatter within cells"``.
    scale
        Variance over 1 / weight in the whole block: 1 where the set's weights are inverse variances.
    by_channel
        Scale of each channel over the block's, shape (chan,).
    borrowed
        Number of occupied cells that took the block's scale, their own resting on fewer than 8 degrees of freedom.
    """

    standard_error: FloatArray
    degrees_of_freedom: FloatArray
    estimator: str
    scale: float
    by_channel: FloatArray
    borrowed: int


def measure_noise(sums: BlockSums, response: SpectralResponse, *, name: str = "this block") -> BlockNoise:
    """Standard errors of a block's cells, from the difference of the parallel hands, or from the scatter within cells where there is one hand.

    The difference of the hands holds no source. Each cell's scale is pooled over its channels (after division by the channel's own
    factor, pooled over the cells), hands, and real and imaginary parts; channel correlation lowers its degrees of freedom.

    Parameters
    ----------
    sums
        What the gridder accumulated.
    response
        The channels' spectral response.
    name
        Of the block, for the error message.

    Raises
    ------
    DataError
        If no noise can be measured at all: one visibility a cell and one hand.
    """
    paired = int(sums.difference_count.sum())
    if 2 * paired >= 0.5 * int(sums.count.sum()):
        estimator, square, number = "difference of hands", sums.difference_square, sums.difference_count
    else:
        estimator, square, number = "scatter within cells", sums.scatter, np.maximum(sums.count - 1, 0)
        square = np.where(number > 0, square, 0.0)
    degrees = 2.0 * number
    if degrees.sum() < LEAST_DEGREES:
        raise DataError(f"noise must be measurable: both hands or several visibilities in a cell, got {int(degrees.sum())} degrees of freedom "
                        f"for {name}")
    scale = float(square.sum() / degrees.sum())
    if not scale > 0:
        raise DataError(f"visibilities must be noisy, got no scatter at all in {name}")
    by_channel = _channel_factor(square, degrees, scale)
    pooled = degrees.sum(axis=0)
    filled = np.maximum((number > 0).sum(axis=0), 1)
    correlation = np.array([response.pooling_factor(n) for n in range(1, number.shape[0] + 1)])[filled - 1]
    effective = pooled / correlation
    own = (effective >= LEAST_DEGREES) & (square.sum(axis=0) > 0)
    by_cell = np.where(own, (square / by_channel[:, None]).sum(axis=0) / np.maximum(pooled, 1.0), scale)
    whole = float(pooled.sum() / response.pooling_factor(number.shape[0]))
    variance = by_cell * by_channel[:, None]
    filled_cells = sums.weight > 0
    standard_error = np.where(filled_cells, np.sqrt(variance / np.where(filled_cells, sums.weight, 1.0)), np.inf)
    return BlockNoise(standard_error=standard_error, degrees_of_freedom=np.broadcast_to(np.where(own, effective, whole), square.shape).copy(),
                      estimator=estimator, scale=scale, by_channel=by_channel, borrowed=int(np.count_nonzero(~own & filled_cells.any(axis=0))))


def _channel_factor(square: FloatArray, degrees: FloatArray, scale: float) -> FloatArray:
    """Each channel's scale over the block's, 1 where it is not known to 10 %.

    Cells differ in scale and channels in which cells they fill, so a channel is held against the cells that it fills.
    """
    cell_degrees = degrees.sum(axis=0)
    by_cell = np.where(cell_degrees > 0, square.sum(axis=0) / np.maximum(cell_degrees, 1.0), scale)
    expected = (degrees * by_cell).sum(axis=1)
    known = (degrees.sum(axis=1) >= _LEAST_CHANNEL_DEGREES) & (expected > 0)
    return np.where(known, square.sum(axis=1) / np.where(known, expected, 1.0), 1.0)
