"""Likelihoods of gridded visibilities: whitened along the channels, with a flat continuum marginalised in every cell.

The noise of one cell of one block is ``D R D`` over its channels, ``D`` the standard errors and ``R`` the correlation that the spectral
response makes. With ``W`` the inverse Cholesky factor of ``R``, a residual ``r`` becomes ``z = W D^-1 r``, whose covariance is the unit
matrix. A flat continuum of unknown amplitude (``C + tau^2 1 1^T``, tau -> infinity) takes away the one direction ``a = W D^-1 1``:
``z - a (a.z) / (a.a)``. The limit is taken exactly: with a finite tau the Student-t scale would learn from a
continuum that is weak against tau, and a strong continuum would leak by ``1 / tau``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.linalg import cholesky_banded, eig_banded, solve_banded
from torch import Tensor

from supermage.constants import ARCSEC
from supermage.data_reduction.gridded import KAISER_BESSEL, GriddedVisibilities
from supermage.errors import DataError, DomainError, nearest_name

PerSpectrum = Float[Tensor, "*point spectrum"]
OneASpectrum = Float[Tensor, "spectrum"]
Whitened = Float[Tensor, "spectrum reim chan"]

COMMON_PATTERN = 32
"""Spectra that miss the same channels share one matrix product when there are at least so many of them."""

LEAST_EIGENVALUE = 1e-3
"""Of the channels' correlation; the white floor of 1 % keeps every response's above it by a factor of ten."""

PAPER_SIGMA_FACTOR = 2.0
"""The paper's Gaussian multiplies every standard error by two (Yantovski-Barth et al., Sec. 2.3)."""


@dataclass(frozen=True)
class Density:
    """A density of whitened residuals that depends on their length alone.

    Attributes
    ----------
    log_density
        ``(chi2, dimension, degrees_of_freedom) -> log density``, each one number a spectrum.
    fisher_weight
        ``(dimension, degrees_of_freedom) -> w``: the Fisher matrix of a location is w times the Gaussian's.
    noise
        Which of `GriddedVisibilities.noise_of` it takes.
    """

    log_density: Callable[[Tensor, Tensor, Tensor], Tensor]
    fisher_weight: Callable[[Tensor, Tensor], Tensor]
    noise: str


def student_t_log_density(chi2: PerSpectrum, dimension: OneASpectrum, degrees_of_freedom: OneASpectrum) -> PerSpectrum:
    """Multivariate Student-t: all channels, real and imaginary, share one *estimated* scale with ``nu`` degrees of freedom.

    The scale's error is common to the spectrum, so the residuals are not independent t variates: given the true scale they are
    Gaussian, and averaging over the scale's chi^2 distribution gives ``(1 + chi2 / nu)^(-(nu + p) / 2)`` with p the dimension.
    """
    nu, p = degrees_of_freedom, dimension
    constant = torch.lgamma((nu + p) / 2) - torch.lgamma(nu / 2) - p / 2 * torch.log(math.pi * nu)
    return constant - (nu + p) / 2 * torch.log1p(chi2 / nu)


def student_t_fisher_weight(dimension: OneASpectrum, degrees_of_freedom: OneASpectrum) -> OneASpectrum:
    """``(nu + p) / (nu + p + 2)``; for p = 1 the familiar ``(nu + 1) / (nu + 3)``."""
    return (degrees_of_freedom + dimension) / (degrees_of_freedom + dimension + 2)


def gaussian_log_density(
    chi2: PerSpectrum, dimension: OneASpectrum, degrees_of_freedom: OneASpectrum, *, factor: float = 1.0
) -> PerSpectrum:
    """Gaussian whose standard errors are multiplied by ``factor``."""
    return -0.5 * chi2 / factor**2 - dimension * (0.5 * math.log(2 * math.pi) + math.log(factor)) + 0.0 * degrees_of_freedom


def _paper_log_density(chi2: Tensor, dimension: Tensor, degrees_of_freedom: Tensor) -> Tensor:
    return gaussian_log_density(chi2, dimension, degrees_of_freedom, factor=PAPER_SIGMA_FACTOR)


DENSITIES: dict[str, Density] = {
    "moderated_t": Density(student_t_log_density, student_t_fisher_weight, "moderated"),
    "student_t": Density(student_t_log_density, student_t_fisher_weight, "own"),
    "gaussian": Density(gaussian_log_density, lambda p, nu: torch.ones_like(p), "pooled"),
    "paper": Density(_paper_log_density, lambda p, nu: torch.full_like(p, PAPER_SIGMA_FACTOR**-2), "own"),
}
"""Likelihoods by the name that a recipe gives: Student's t of the cells' moderated noise (the default) or of each cell's own, the Gaussian
of the execution block's noise, and the paper's Gaussian of each cell's own noise times two."""


def continuum_polynomials(gridded: GriddedVisibilities, *, continuum: bool = True, order: int = 0) -> NDArray[np.float64]:
    """Legendre polynomials along the channels that are marginalised, shape (term, chan); none without a continuum.

    Where the data's history shows a continuum subtraction, its order is the least: what a subtraction of order n does to the noise lies in
    the span of the polynomials up to n, and marginalising these leaves only contrasts that the subtraction never touched.
    """
    if not continuum:
        return np.zeros((0, gridded.n_channel))
    done = gridded.provenance.get("continuum_order")
    place = np.linspace(-1.0, 1.0, gridded.n_channel)
    return np.ascontiguousarray(np.polynomial.legendre.legvander(place, max(order, int(done or 0))).T)


def whitening_matrix(correlation: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Inverse Cholesky factor of a correlation matrix without the rows and columns of missing channels, zero in their place.

    Parameters
    ----------
    correlation
        Shape (chan, chan), positive definite; noise is correlated over a few channels, and the factor is found in the band.
    good
        Which channels are there, shape (chan,).

    Raises
    ------
    DataError
        If the matrix is near singular: such a whitening would trust contrasts of the channels that hold next to no noise.
    """
    matrix = np.zeros_like(correlation)
    kept = np.flatnonzero(good)
    if kept.size:
        part = correlation[np.ix_(kept, kept)]
        reach = int(np.max(np.abs(np.subtract(*np.nonzero(part)))))
        band = np.zeros((reach + 1, kept.size))
        for lag in range(reach + 1):
            band[lag, : kept.size - lag] = np.diagonal(part, -lag)
        smallest = float(eig_banded(band, lower=True, eigvals_only=True, select="i", select_range=(0, 0))[0])
        if not smallest > LEAST_EIGENVALUE:
            raise DataError(f"the channels' noise correlation must have no eigenvalue below {LEAST_EIGENVALUE:g}, got {smallest:.2g}")
        factor = cholesky_banded(band, lower=True)
        matrix[np.ix_(kept, kept)] = solve_banded((reach, 0), factor, np.eye(kept.size))
    return matrix


class VisibilityNoise:
    """Data and noise of gridded visibilities, whitened once.

    Parameters
    ----------
    gridded
        The data.
    likelihood
        A name in `DENSITIES`.
    continuum
        Whether a continuum is marginalised in every cell.
    order
        Order of its polynomial along the channels, 0 for a flat one; at least that of a subtraction in the data's history.
    dtype
        Precision of the whitening of the *model*; residuals are formed and reduced in float64.

    Raises
    ------
    DomainError
        If the likelihood is unknown.
    DataError
        If no cell keeps enough channels, or a number of an unflagged cell is not finite.
    """

    def __init__(
        self, gridded: GriddedVisibilities, *, likelihood: str = "moderated_t", continuum: bool = True, order: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        if likelihood not in DENSITIES:
            raise DomainError(
                f"a likelihood must be one of {', '.join(DENSITIES)}, got '{likelihood}'{nearest_name(likelihood, DENSITIES)}"
            )
        if gridded.window == KAISER_BESSEL and likelihood not in ("gaussian", "paper"):
            raise DataError(f"visibilities gridded with a Kaiser-Bessel window have a noise scale in every channel and need the likelihood "
                            f"gaussian or paper, got {likelihood}")
        self.density = DENSITIES[likelihood]
        self.shape = tuple(gridded.mean.shape)
        self.dtype = dtype
        block, chan, cell = self.shape
        standard_error, degrees = gridded.noise_of(self.density.noise)
        error = _spectra(standard_error)
        good = np.isfinite(error) & (error > 0)
        value = _spectra(np.where(np.isfinite(standard_error), gridded.mean, 0.0))
        if not np.all(np.isfinite(value)):
            raise DataError("visibilities of unflagged cells must be finite, got NaN or infinity")
        polynomials = continuum_polynomials(gridded, continuum=continuum, order=order)
        terms = len(polynomials)
        places, sizes, factors = _group(good, gridded.response.correlation(chan), minimum=terms + 1)
        if places.size == 0:
            raise DataError(f"a fit needs cells with at least {terms + 1} unflagged channels, got none")
        inverse_error = np.where(good, 1.0 / np.where(good, error, 1.0), 0.0)[places]
        self._order = torch.from_numpy(places)
        self._whole = bool(places.size == block * cell and np.all(np.diff(places) == 1))
        self._sizes = sizes
        self._factors = [torch.from_numpy(f).to(dtype) for f in factors]
        self._inverse_error = torch.from_numpy(inverse_error)[:, None, :].to(dtype)
        exact = [torch.from_numpy(f) for f in factors]
        shapes = _apply(exact, sizes, torch.from_numpy(inverse_error[:, None, :] * polynomials))
        directions, lengths = torch.linalg.qr(shapes.mT)
        self._directions = directions.permute(2, 0, 1).contiguous()
        scaled = torch.from_numpy(np.stack([value.real, value.imag], axis=1)[places] * inverse_error[:, None, :])
        self._whitened_data = self._project(_apply(exact, sizes, scaled), self._directions)
        self._directions_fast = self._directions.to(dtype)
        self.dimension = torch.from_numpy(2.0 * (good[places].sum(axis=1) - terms))
        freedom = degrees.ravel()[places]
        if not np.all(freedom > 0):
            raise DataError("degrees of freedom of unflagged cells must be positive, got zero or less")
        self.degrees_of_freedom = torch.from_numpy(np.clip(freedom, 1e-3, 1e8))
        self._sqrt_weight = torch.sqrt(self.density.fisher_weight(self.dimension, self.degrees_of_freedom))
        diagonal = np.concatenate(_log_diagonals(factors, sizes))
        log_determinant = 2.0 * (diagonal + np.log(np.where(inverse_error > 0, inverse_error, 1.0)).sum(axis=1))
        self._constant = torch.from_numpy(log_determinant) - 2.0 * torch.log(lengths.diagonal(dim1=-2, dim2=-1).abs()).sum(dim=-1)
        self.data = torch.from_numpy(np.where(np.isfinite(standard_error), gridded.mean, 0.0))
        self._standard_error = torch.from_numpy(np.where(np.isfinite(standard_error), standard_error, 0.0))
        where = np.stack([w.mean(axis=1).reshape(-1) for w in gridded.uv_wavelengths()], axis=-1)[places] * ARCSEC
        self.uv = torch.from_numpy(where)
        """u and v of every spectrum, cycles per arcsec, shape (spectrum, 2)."""

    def to(self, device: torch.device | str) -> VisibilityNoise:
        """The same on another device."""
        other = copy(self)
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        vars(other).update(moved, _factors=[factor.to(device) for factor in self._factors])
        return other

    @property
    def n_spectra(self) -> int:
        """Number of spectra (a cell of a block) that enter."""
        return int(self._order.numel())

    @property
    def n_data(self) -> float:
        """Real numbers that the data are worth: dimensions left after missing channels and the continuum."""
        return float(self.dimension.sum())

    def whiten(self, visibilities: Complex[Tensor, "block chan cell"]) -> Whitened:
        """Whiten visibilities and remove the continuum's directions; linear, differentiable, float64 out."""
        pairs = torch.view_as_real(visibilities.resolve_conj()).to(self.dtype)
        spectra = pairs.permute(0, 2, 3, 1).reshape(self.shape[0] * self.shape[2], 2, self.shape[1])
        if not self._whole:
            spectra = spectra.index_select(0, self._order)
        whitened = _apply(self._factors, self._sizes, spectra * self._inverse_error)
        return self._project(whitened, self._directions_fast).to(torch.float64)

    def residual(
        self, visibilities: Complex[Tensor, "block chan cell"], data: Complex[Tensor, "block chan cell"] | None = None
    ) -> Whitened:
        """Whitened model minus whitened data, float64."""
        whitened_data = self._whitened_data if data is None or data is self.data else self.whiten(data)
        return self.whiten(visibilities) - whitened_data

    @property
    def whitened_data(self) -> Whitened:
        """The data, whitened, float64."""
        return self._whitened_data

    def chi2(self, residual: Whitened) -> PerSpectrum:
        """Squared length of every spectrum's whitened residual."""
        return residual.square().sum(dim=(-1, -2))

    def log_likelihood_of(self, residual: Whitened) -> Float[Tensor, ""]:
        """Log likelihood of a whitened residual, normalisation included."""
        return (self.density.log_density(self.chi2(residual), self.dimension, self.degrees_of_freedom) + self._constant).sum()

    def fisher_residual(self, residual: Whitened) -> Whitened:
        """Residual times the square root of its Fisher weight: its Jacobian J makes the Fisher matrix J^T J."""
        return residual * self._sqrt_weight[:, None, None]

    def draw(
        self, visibilities: Complex[Tensor, "block chan cell"], generator: torch.Generator | None = None
    ) -> Complex[Tensor, "block chan cell"]:
        """Draw Gaussian mock data around model visibilities with this noise, correlated along the channels; 0 where data are missing."""
        block, chan, cell = self.shape
        spectra = torch.zeros(block * cell, 2, chan, dtype=torch.float64)
        white = torch.randn(self.n_spectra, 2, chan, dtype=torch.float64, generator=generator)
        start = 0
        for factor, size in zip(self._factors, self._sizes, strict=True):
            rows = white[start : start + size]
            inverse = torch.linalg.pinv(factor.to(torch.float64))
            coloured = rows @ inverse.mT if factor.ndim == 2 else torch.matmul(rows, inverse.mT)
            spectra[self._order[start : start + size]] = coloured
            start += size
        pairs = spectra.reshape(block, cell, 2, chan).permute(0, 3, 1, 2) * self._standard_error[..., None]
        noisy = visibilities.to(torch.complex128) + torch.view_as_complex(pairs.contiguous())
        return torch.where(self._standard_error > 0, noisy, torch.zeros_like(noisy))

    @staticmethod
    def _project(spectra: Tensor, directions: Tensor) -> Tensor:
        for direction in directions:
            along = (spectra * direction[:, None, :]).sum(dim=-1, keepdim=True)
            spectra = spectra - along * direction[:, None, :]
        return spectra


class ObservedVisibilities(dist.TorchDistribution):
    """The distribution of gridded visibilities around a model, as a Pyro site.

    Parameters
    ----------
    mean
        Model visibilities, Jy, shape (block, chan, cell).
    noise
        The noise model.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = dist.constraints.independent(dist.constraints.real, 3)
    has_rsample = False

    def __init__(self, mean: Tensor, noise: VisibilityNoise) -> None:
        self.noise = noise
        self._mean = mean
        super().__init__(torch.Size(), torch.Size(noise.shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Model visibilities."""
        return self._mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of data, a float64 scalar."""
        return self.noise.log_likelihood_of(self.noise.residual(self._mean, value))

    def whitened_residual(self, value: Tensor) -> Tensor:
        """Residual whose Jacobian J makes the Fisher matrix J^T J; see `VisibilityNoise.fisher_residual`."""
        return self.noise.fisher_residual(self.noise.residual(self._mean, value))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Gaussian mock data with this noise."""
        if sample_shape:
            raise DomainError(f"visibilities are drawn one set at a time, got sample_shape {tuple(sample_shape)}")
        return self.noise.draw(self._mean.detach())


def _spectra(array: NDArray[Any]) -> NDArray[Any]:
    """Reorder (block, chan, cell) to (block * cell, chan)."""
    return np.ascontiguousarray(array.transpose(0, 2, 1)).reshape(-1, array.shape[1])


def _group(
    good: NDArray[np.bool_], correlation: NDArray[np.float64], minimum: int
) -> tuple[NDArray[np.int64], list[int], list[NDArray[np.float64]]]:
    """Order the spectra by which channels they miss; a group has one whitening matrix, the rare patterns one a spectrum."""
    patterns, member = np.unique(good, axis=0, return_inverse=True)
    member = member.reshape(-1)
    usable = patterns.sum(axis=1) >= minimum
    counts = np.bincount(member, minlength=len(patterns))
    common = [k for k in np.argsort(-counts, kind="stable") if usable[k] and counts[k] >= COMMON_PATTERN]
    rare = np.flatnonzero(usable[member] & ~np.isin(member, common))
    orders = [np.flatnonzero(member == k) for k in common]
    factors = [whitening_matrix(correlation, patterns[k]) for k in common]
    if rare.size:
        by_pattern = {k: whitening_matrix(correlation, patterns[k]) for k in np.unique(member[rare])}
        orders.append(rare)
        factors.append(np.stack([by_pattern[k] for k in member[rare]]))
    order = np.concatenate(orders) if orders else np.zeros(0, dtype=np.int64)
    return order.astype(np.int64), [o.size for o in orders], factors


def _apply(factors: list[Tensor], sizes: list[int], spectra: Tensor) -> Tensor:
    parts = torch.split(spectra, sizes)
    # one matrix for a whole group is a plain product; rare patterns carry one matrix a spectrum
    out = [torch.matmul(part, factor.mT) for part, factor in zip(parts, factors, strict=True)]
    return out[0] if len(out) == 1 else torch.cat(out)


def _log_diagonals(factors: list[NDArray[np.float64]], sizes: list[int]) -> list[NDArray[np.float64]]:
    sums = []
    for factor, size in zip(factors, sizes, strict=True):
        diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
        total = np.log(np.where(diagonal > 0, diagonal, 1.0)).sum(axis=-1)
        sums.append(np.broadcast_to(total, (size,)))
    return sums
