"""Whitened residuals of a fit: chi^2 as a whole, by channel, by baseline length, and what noise alone would give.

Residuals are whitened here anew from the gridded data, with the public pieces that the likelihood is made of, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.inference.likelihood import whitening_matrix

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
BASELINE_BINS = 12


@dataclass(frozen=True)
class Bins:
    """Chi^2 per datum in bins: position (km/s or kilo-wavelengths), value, effective number of data (its spread is sqrt(2 / count))."""

    position: FloatArray
    value: FloatArray
    count: FloatArray

    def worst_sigma(self) -> float:
        """Most deviant bin after the overall mean is scaled to 1, in standard deviations, reduced for having looked at all bins."""
        overall = float(np.sum(self.value * self.count) / np.sum(self.count))
        sigma = (self.value / overall - 1.0) * np.sqrt(self.count / 2.0)
        worst = float(sigma[np.argmax(np.abs(sigma))])
        return math.copysign(look_elsewhere(abs(worst), len(sigma)), worst)


@dataclass(frozen=True)
class Residuals:
    """Residuals of one model.

    Attributes
    ----------
    whitened
        Every whitened residual, scaled by its expected standard deviation, flat.
    by_channel, by_baseline
        Binned chi^2 per datum.
    chi2_per_datum, sigma
        As a whole, and its distance from 1 in standard deviations.
    n_data
        Real numbers that the data are worth.
    continuum
        Flat continuum of the residual in every cell, Jy, shape (block, cell).
    """

    whitened: FloatArray
    by_channel: Bins
    by_baseline: Bins
    chi2_per_datum: float
    sigma: float
    n_data: float
    continuum: ComplexArray


def look_elsewhere(sigma: float, trials: int) -> float:
    """Two-sided significance of the largest of ``trials`` independent deviations (Sidak), in standard deviations."""
    single = 2.0 * float(norm.sf(sigma))
    if single < 1e-290:
        return sigma
    return max(float(norm.isf(-math.expm1(trials * math.log1p(-min(single, 1.0 - 1e-15))) / 2.0)), 0.0)


def residuals_of(gridded: GriddedVisibilities, model: ComplexArray, *, continuum: bool) -> Residuals:
    """Whiten data minus model.

    Parameters
    ----------
    gridded
        The data.
    model
        Jy, shape (block, chan, cell).
    continuum
        Whether a flat continuum is projected out of every cell, as in the likelihood.
    """
    z, freedom, flat = _whiten(gridded, model, continuum=continuum)
    nu = np.maximum(np.where(np.isfinite(gridded.standard_error), gridded.degrees_of_freedom, 0.0).max(axis=1), 4.5)
    used = freedom.sum(axis=1) > 0
    scale = (nu - 2.0) / nu  # the estimated noise scale makes chi^2 larger on average by nu / (nu - 2)
    square = (np.abs(z) ** 2) * scale[:, None]
    size = 2.0 * freedom
    per_spectrum, data = square.sum(axis=1), size.sum(axis=1)
    variance = _variance(data, nu)
    return Residuals(
        whitened=_scaled(z, freedom, scale), by_channel=_by_channel(gridded, square, size, nu),
        by_baseline=_by_baseline(gridded, per_spectrum, data, variance), chi2_per_datum=float(per_spectrum[used].sum() / data[used].sum()),
        sigma=float((per_spectrum[used].sum() - data[used].sum()) / math.sqrt(variance[used].sum())), n_data=float(data[used].sum()),
        continuum=flat)


def _whiten(gridded: GriddedVisibilities, model: ComplexArray, *, continuum: bool) -> tuple[ComplexArray, FloatArray, ComplexArray]:
    """Whitened residual (block, chan, cell), its expected variance (of the real part), and the continuum (block, cell)."""
    error = gridded.standard_error
    good = np.isfinite(error)
    inverse = np.where(good, 1.0 / np.where(good, error, 1.0), 0.0)
    scaled = np.where(good, gridded.mean - model, 0.0) * inverse
    correlation = gridded.response.correlation(gridded.n_channel)
    z = np.zeros(scaled.shape, dtype=complex)
    variance = np.zeros(scaled.shape)
    flat = np.zeros((gridded.n_block, gridded.n_cell), dtype=complex)
    for block in range(gridded.n_block):
        patterns, member = np.unique(good[block].T, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            cells = np.flatnonzero(member.reshape(-1) == number)
            if pattern.sum() < 1 + int(continuum):
                continue
            matrix = whitening_matrix(correlation, pattern)
            part = matrix @ scaled[block][:, cells]
            spread = np.repeat(pattern[:, None].astype(float), cells.size, axis=1)
            if continuum:
                direction = matrix @ inverse[block][:, cells]
                length = (direction**2).sum(axis=0)
                flat[block, cells] = (direction * part).sum(axis=0) / length
                part = part - direction * flat[block, cells]
                spread -= direction**2 / length
            z[block][:, cells], variance[block][:, cells] = part, spread
    return z, variance, flat


def _scaled(z: ComplexArray, variance: FloatArray, scale: FloatArray) -> FloatArray:
    keep = variance > 1e-3
    values = z * np.sqrt(scale[:, None] / np.where(keep, variance, 1.0))
    return np.concatenate([values[keep].real, values[keep].imag])


def _variance(size: FloatArray, freedom: FloatArray) -> FloatArray:
    """Variance of ``size * F(size, freedom)``, rescaled to mean ``size``: a chi^2 whose scale was itself estimated."""
    return 2.0 * size * np.maximum(size + freedom - 2.0, 0.0) / (freedom - 4.0)


def _by_channel(gridded: GriddedVisibilities, square: FloatArray, size: FloatArray, nu: FloatArray) -> Bins:
    """Channels of the blocks fall at slightly different velocities; they are counted by their number, at the mean velocity."""
    total, data, variance = (item.sum(axis=(0, 2)) for item in (square, size, _variance(size, nu[:, None])))
    keep = data > 0
    return Bins(gridded.velocity.mean(axis=0)[keep], total[keep] / data[keep], 2.0 * data[keep] ** 2 / variance[keep])


def _by_baseline(gridded: GriddedVisibilities, chi2: FloatArray, data: FloatArray, variance: FloatArray) -> Bins:
    length = np.hypot(*(w.mean(axis=1) for w in gridded.uv_wavelengths())) / 1e3
    keep = data > 0
    length, chi2, data, variance = length[keep], chi2[keep], data[keep], variance[keep]
    edges = np.quantile(length, np.linspace(0, 1, min(BASELINE_BINS, length.size) + 1))
    index = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, len(edges) - 2)

    def total(values: FloatArray) -> FloatArray:
        return np.bincount(index, weights=values, minlength=len(edges) - 1)

    some = total(data) > 0
    mean = total(length)[some] / np.bincount(index, minlength=len(edges) - 1)[some]
    return Bins(mean, total(chi2)[some] / total(data)[some], 2.0 * total(data)[some] ** 2 / total(variance)[some])
