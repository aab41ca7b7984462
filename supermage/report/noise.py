"""The noise of data minus model held against what is stated of it: its scale, and the correlation of neighbouring channels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.report.residuals import LEAST_FREEDOM
from supermage.report.verdict import NoiseFacts

ComplexArray = NDArray[np.complex128]
FloatArray = NDArray[np.float64]
FIRST = np.array([-1.0, 1.0])
THIRD = np.array([-1.0, 3.0, -3.0, 1.0])


def noise_facts(gridded: GriddedVisibilities, model: ComplexArray) -> NoiseFacts | None:
    """Measure scale and correlation of the noise from differences along the channels of data minus model.

    The source is taken out, since first differences would take its slope for noise. Errors are those of the scatter between
    cells, which holds whatever the channels' correlation is.

    Parameters
    ----------
    gridded
        The data.
    model
        Jy, shape (block, chan, cell).

    Returns
    -------
    facts
        None where no two cells have four filled channels in a row.
    """
    if gridded.n_channel < len(THIRD):
        return None
    good = np.isfinite(gridded.standard_error)
    residual = np.where(good, (gridded.mean - model) / np.where(good, gridded.standard_error, 1.0), np.nan)
    freedom = np.maximum(np.where(good, gridded.degrees_of_freedom, 0.0).max(axis=1), LEAST_FREEDOM)
    correlation = gridded.response.correlation(len(THIRD), floor=0.0)
    third = _mean_square(residual, THIRD, freedom)
    first = _mean_square(residual, FIRST, freedom)
    if third is None or first is None:
        return None
    expected = 2.0 * float(THIRD @ correlation @ THIRD)
    rms = math.sqrt(third[0] / expected)
    return NoiseFacts(
        rms=rms,
        rms_error=0.5 * third[1] / expected / max(rms, 1e-12),
        lag_one=1.0 - 0.25 * first[0],
        lag_one_error=0.25 * first[1],
        lag_one_expected=float(correlation[0, 1]),
    )


def _mean_square(residual: ComplexArray, stencil: FloatArray, freedom: FloatArray) -> tuple[float, float] | None:
    """Mean square of the differences and its standard error; residual (block, chan, cell), freedom (block, cell).

    A noise scale estimated from nu degrees of freedom makes squares larger by nu / (nu - 2), and is common to a cell's differences.
    """
    count = residual.shape[1] - len(stencil) + 1
    difference = sum(c * residual[:, k : k + count] for k, c in enumerate(stencil))
    square = np.abs(np.asarray(difference)) ** 2 * ((freedom - 2.0) / freedom)[:, None]
    number = np.isfinite(square).sum(axis=1)
    used = number > 0
    if used.sum() < 2:
        return None
    total, number, freedom = np.nansum(square, axis=1)[used], number[used], freedom[used]
    weight = 1.0 / (1.0 + number / (freedom - 4.0))
    whole = float(np.sum(weight * number))
    mean = float(np.sum(weight * total)) / whole
    return mean, float(np.sqrt(np.sum((weight * (total - mean * number)) ** 2))) / whole
