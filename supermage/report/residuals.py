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
from supermage.inference.likelihood import continuum_polynomials, whitening_matrix

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
BASELINE_BINS = 12
LEAST_FREEDOM = 4.5
"""Noise scales known from fewer degrees of freedom than this count as known from so many: the variance of an F needs more than four."""


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
        Every whitened residual over its expected standard deviation, flat.
    by_channel, by_baseline
        Binned chi^2 over its expectation.
    chi2_per_datum, sigma
        Chi^2 over its expectation as a whole, and its distance from 1 in standard deviations.
    n_data
        Whitened real numbers.
    continuum
        Continuum of the residual in every cell, Jy, shape (block, chan, cell).
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


def residuals_of(gridded: GriddedVisibilities, model: ComplexArray, *, continuum: bool, order: int = 0) -> Residuals:
    """Whiten data minus model and hold its squares against what noise alone would give.

    The likelihood whitens with a small white floor under the channels' correlation, without which the matrix is singular in practice. The
    noise itself has none, so the expected square of a whitened residual is below 1: it is worked out, and everything is relative to it.

    Parameters
    ----------
    gridded
        The data.
    model
        Jy, shape (block, chan, cell).
    continuum
        Whether a continuum is projected out of every cell, as in the likelihood.
    order
        Of its polynomial, see `continuum_polynomials`.
    """
    white = _whiten(gridded, model, continuum_polynomials(gridded, continuum=continuum, order=order))
    freedom = np.where(np.isfinite(gridded.standard_error), gridded.degrees_of_freedom, 0.0).max(axis=1)
    freedom = np.maximum(freedom, LEAST_FREEDOM)
    used = white.mean > 0
    # A scale estimated from few visibilities makes chi^2 larger on average by nu / (nu - 2), and more uncertain.
    mean = white.mean * (freedom / (freedom - 2.0))[:, None]
    per_channel_variance = 4.0 * white.mean**2 + _scale_variance(2.0 * mean, freedom[:, None])
    square = np.abs(white.value) ** 2
    total, expected = square.sum(axis=1), 2.0 * mean.sum(axis=1)
    variance = white.variance + _scale_variance(expected, freedom)
    return Residuals(
        whitened=np.concatenate([part[used] / np.sqrt(mean[used]) for part in (white.value.real, white.value.imag)]),
        by_channel=_by_channel(gridded, square, 2.0 * mean, per_channel_variance),
        by_baseline=_by_baseline(gridded, total, expected, variance),
        chi2_per_datum=float(total.sum() / expected.sum()),
        sigma=float((total.sum() - expected.sum()) / math.sqrt(variance.sum())),
        n_data=float(2.0 * used.sum()),
        continuum=white.continuum,
    )


def _scale_variance(expected: FloatArray, freedom: FloatArray) -> FloatArray:
    """What the error of an estimated noise scale, common to a spectrum, adds to the variance of its chi^2."""
    return 2.0 * expected**2 / freedom


@dataclass(frozen=True)
class _White:
    """Whitened residual, expected square of its real part, continuum (all block, chan, cell); variance of chi^2 (block, cell)."""

    value: ComplexArray
    mean: FloatArray
    variance: FloatArray
    continuum: ComplexArray


def _whiten(gridded: GriddedVisibilities, model: ComplexArray, polynomials: FloatArray) -> _White:
    good = np.isfinite(gridded.standard_error)
    inverse = np.where(good, 1.0 / np.where(good, gridded.standard_error, 1.0), 0.0)
    scaled = np.where(good, gridded.mean - model, 0.0) * inverse
    floored, bare = (gridded.response.correlation(gridded.n_channel, **floor) for floor in ({}, {"floor": 0.0}))
    out = _White(
        np.zeros(scaled.shape, dtype=complex),
        np.zeros(scaled.shape),
        np.zeros((gridded.n_block, gridded.n_cell)),
        np.zeros(scaled.shape, dtype=complex),
    )
    for block in range(gridded.n_block):
        patterns, member = np.unique(good[block].T, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if pattern.sum() < 1 + len(polynomials):
                continue
            matrix = whitening_matrix(floored, pattern)
            noise = matrix @ bare @ matrix.T
            for cell in np.flatnonzero(member.reshape(-1) == number):
                spectrum, covariance = matrix @ scaled[block, :, cell], noise
                if len(polynomials):
                    directions, lengths = np.linalg.qr(matrix @ (inverse[block, :, cell] * polynomials).T)
                    along = directions.T @ spectrum
                    out.continuum[block, :, cell] = np.linalg.solve(lengths, along) @ polynomials
                    spectrum = spectrum - directions @ along
                    across = directions.T @ noise
                    covariance = noise - directions @ across - across.T @ directions.T + directions @ (across @ directions) @ directions.T
                out.value[block, :, cell] = spectrum
                out.mean[block, :, cell] = np.where(pattern, np.maximum(np.diagonal(covariance), 0.0), 0.0)
                out.variance[block, cell] = 4.0 * float(np.sum(covariance**2))
    return out


def _by_channel(gridded: GriddedVisibilities, square: FloatArray, expected: FloatArray, variance: FloatArray) -> Bins:
    """Channels of the blocks fall at slightly different velocities; they are counted by their number, at the mean velocity."""
    total, mean, spread = (item.sum(axis=(0, 2)) for item in (square, expected, variance))
    keep = mean > 0
    return Bins(gridded.velocity.mean(axis=0)[keep], total[keep] / mean[keep], 2.0 * mean[keep] ** 2 / spread[keep])


def _by_baseline(gridded: GriddedVisibilities, chi2: FloatArray, expected: FloatArray, variance: FloatArray) -> Bins:
    length = np.hypot(*(w.mean(axis=1) for w in gridded.uv_wavelengths())) / 1e3
    keep = expected > 0
    length, chi2, expected, variance = length[keep], chi2[keep], expected[keep], variance[keep]
    edges = np.quantile(length, np.linspace(0, 1, min(BASELINE_BINS, length.size) + 1))
    index = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, len(edges) - 2)

    def total(values: FloatArray) -> FloatArray:
        return np.bincount(index, weights=values, minlength=len(edges) - 1).astype(np.float64)

    some = total(expected) > 0
    mean = total(length)[some] / np.bincount(index, minlength=len(edges) - 1)[some]
    return Bins(mean, total(chi2)[some] / total(expected)[some], 2.0 * total(expected)[some] ** 2 / total(variance)[some])
