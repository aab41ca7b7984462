"""The noise of gridded visibilities, measured from the data themselves: how large, and known from how many degrees of freedom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.gridding import BlockSums
from supermage.data_reduction.moderation import VariancePrior, fit_variance_prior
from supermage.data_reduction.spectral import SpectralResponse
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

LEAST_DEGREES = 8.0
"""Degrees of freedom without which a block's noise counts as not measured."""

HANDS, TIMES, SCATTER = "difference of hands", "difference of integrations", "scatter within cells"
LEAST_SHARE = 0.25
"""Share of the visibilities that must enter differences for these to be preferred to the scatter."""

_LEAST_CHANNEL_DEGREES = 200.0
LEAST_CHANNELS_FOR_FLAT = 8


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
        Of the real part and of the imaginary part, Jy, shape (chan, cell); ``inf`` where empty. It rests on the moderated scales.
    degrees_of_freedom
        Of the moderated scale, shape (chan, cell).
    cell_scale, cell_degrees
        The cell's own variance over the block's, and its degrees of freedom (0: not measured, and the scale is 1), shape (cell,).
    moderated_scale
        The moderated variance over the block's, shape (cell,).
    estimator
        `HANDS`, `TIMES` or `SCATTER`.
    scale
        Variance over 1 / weight in the whole block: 1 where the set's weights are inverse variances.
    by_channel
        Scale of each channel over the block's, shape (chan,).
    prior
        Distribution of the cells' true scales.
    """

    standard_error: FloatArray
    degrees_of_freedom: FloatArray
    cell_scale: FloatArray
    cell_degrees: FloatArray
    moderated_scale: FloatArray
    estimator: str
    scale: float
    by_channel: FloatArray
    prior: VariancePrior


def measure_noise(sums: BlockSums, response: SpectralResponse, *, name: str = "this block", inflation: float = 1.0) -> BlockNoise:
    """Standard errors of a block's cells: by differences of the hands, else of consecutive integrations, else by the scatter in cells.

    Differences hold no source; what a continuum seen unequally by the two hands leaves in theirs is flat along the channels and taken out
    (for 8 channels or more). A cell's scale is pooled over its channels (after division by the channel's own factor, pooled over the
    cells), hands, and real and imaginary parts; channel correlation lowers its degrees of freedom. The scales are then moderated: drawn
    towards the block's by what the spread of all of them shows to be their true one (`fit_variance_prior`).

    Parameters
    ----------
    sums
        What the gridder accumulated.
    response
        The channels' spectral response.
    name
        Of the block, for the error message.
    inflation
        Factor on the variances, for weights that were corrected by the same noise: see `WeightVerdict`.

    Raises
    ------
    DataError
        If no noise can be measured at all: one visibility a cell, one hand and no consecutive integrations.
    """
    pool = _pool(sums, response)
    total = pool.expected.sum()
    if pool.degrees.sum() < LEAST_DEGREES:
        raise DataError("noise must be measurable (both hands, or several visibilities in a cell), "
                        f"got {pool.degrees.sum():.0f} degrees of freedom for {name}")
    scale = float(pool.square.sum() / total)
    if not scale > 0:
        raise DataError(f"visibilities must be noisy, got no scatter at all in {name}")
    own = (pool.degrees > 0) & (pool.square > 0) & (pool.expected > 0)
    cell_scale = np.where(own, pool.square / np.where(own, pool.expected, 1.0) / scale, 1.0)
    cell_degrees = np.where(own, pool.degrees, 0.0)
    prior = fit_variance_prior(cell_scale[own], cell_degrees[own])
    moderated, degrees = prior.shrink(cell_scale, cell_degrees)
    filled = sums.weight > 0
    scale = inflation * scale
    variance = scale * moderated * pool.by_channel[:, None] / np.where(filled, sums.weight, 1.0)
    return BlockNoise(standard_error=np.where(filled, np.sqrt(variance), np.inf),
                      degrees_of_freedom=np.broadcast_to(np.minimum(degrees, pool.degrees.sum()), filled.shape).copy(),
                      cell_scale=cell_scale, cell_degrees=cell_degrees, moderated_scale=moderated, estimator=pool.estimator, scale=scale,
                      by_channel=pool.by_channel, prior=prior)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Per cell: squares pooled over the channels, their expectation for a scale of 1, effective degrees of freedom; factors by channel."""

    estimator: str
    square: FloatArray
    expected: FloatArray
    degrees: FloatArray
    by_channel: FloatArray


def _pool(sums: BlockSums, response: SpectralResponse) -> _Pool:
    estimator, number, square = _choose_estimator(sums)
    degrees = np.asarray(2.0 * number, dtype=np.float64)
    by_channel = _channel_factor(square, degrees)
    pooled, expected = (square / by_channel[:, None]).sum(axis=0), degrees.sum(axis=0)
    n_channel = number.shape[0]
    flat = estimator != SCATTER and n_channel >= LEAST_CHANNELS_FOR_FLAT
    if flat:
        # The flat part is not divided by the channels' factors: their mean is 1.
        level, part = (sums.difference_flat, sums.difference_spectra) if estimator == HANDS else (sums.time_flat, sums.time_spectra)
        pooled, expected = np.maximum(pooled - level, 0.0), np.maximum(expected - 2.0 * part, 0.0)
    filled = np.maximum((number > 0).sum(axis=0), 1)
    effective, _ = channel_pooling(response, n_channel, flat=flat)
    return _Pool(estimator=estimator, square=pooled, expected=expected,
                 degrees=degrees.sum(axis=0) / filled * effective[filled - 1], by_channel=by_channel)


def _choose_estimator(sums: BlockSums) -> tuple[str, NDArray[np.int32], FloatArray]:
    """The first estimator that enough visibilities enter; two make a difference."""
    every = int(sums.count.sum())
    for estimator, number, square in ((HANDS, sums.difference_count, sums.difference_square), (TIMES, sums.time_count, sums.time_square)):
        if 2 * int(number.sum()) >= LEAST_SHARE * every:
            return estimator, number, square
    number = np.maximum(sums.count - 1, 0)
    return SCATTER, number, np.where(number > 0, sums.scatter, 0.0)


def channel_pooling(response: SpectralResponse, n_channel: int, *, flat: bool) -> tuple[FloatArray, FloatArray]:
    """For 1 ... n_channel correlated channels: effective number of independent ones, and how many a flat part takes away.

    With C the correlation matrix and P the projection that takes a flat part out, ``(tr PC)^2 / tr (PC)^2``, from sums over lags.
    """
    lags = response.lags[1:]
    effective, lost = np.empty(n_channel), np.zeros(n_channel)
    for n in range(1, n_channel + 1):
        rows = np.ones(n)
        squares = float(n)
        for lag, value in enumerate(lags[: n - 1], start=1):
            rows[lag:] += value
            rows[:-lag] += value
            squares += 2.0 * (n - lag) * value**2
        if flat and n > 1:
            whole = rows.sum()
            lost[n - 1] = whole / n
            effective[n - 1] = (n - whole / n) ** 2 / (squares - 2.0 / n * np.sum(rows**2) + (whole / n) ** 2)
        else:
            effective[n - 1] = n**2 / squares
    return effective, lost


def _channel_factor(square: FloatArray, degrees: FloatArray) -> FloatArray:
    """Each channel's scale over the block's, 1 where it is not known to 10 %.

    Cells differ in scale and channels in which cells they fill, so a channel is held against the cells that it fills.
    """
    cell_degrees = degrees.sum(axis=0)
    by_cell = square.sum(axis=0) / np.maximum(cell_degrees, 1.0)
    expected = (degrees * by_cell).sum(axis=1)
    known = (degrees.sum(axis=1) >= _LEAST_CHANNEL_DEGREES) & (expected > 0)
    return np.where(known, square.sum(axis=1) / np.where(known, expected, 1.0), 1.0)
