"""The metric of a sampler: empirical Fisher matrix with ridge (paper, App. C.1), and the covariance pooled over chains."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import DomainError

Matrix = Float[Tensor, "param param"]
Vector = Float[Tensor, "param"]
FloatArray = NDArray[np.float64]


def jacobian(residual: Callable[[Tensor], Tensor], z: Vector, *, columns: int = 16) -> Float[Tensor, "datum param"]:
    """Jacobian of a residual by forward mode, ``columns`` directions at a time: some 20 gradients for 15 parameters.

    Parameters
    ----------
    residual
        ``z -> residual``, of any shape; it is flattened.
    z
        Where.
    columns
        Directions pushed forward at once: fewer take less memory and more time.
    """
    here = z.detach()

    def along(tangent: Tensor) -> Tensor:
        return torch.func.jvp(lambda p: residual(p).reshape(-1), (here,), (tangent,))[1]

    return torch.func.vmap(along, chunk_size=columns)(torch.eye(len(here), dtype=here.dtype)).mT


def gauss_newton(jacobian_matrix: Float[Tensor, "datum param"]) -> Matrix:
    """``F = J^T J``, the empirical Fisher matrix (paper, App. C.1)."""
    return jacobian_matrix.mT @ jacobian_matrix


def ridge(fisher: Matrix, *, ridge_frac: float, ridge_min: float) -> float:
    """``lambda = max(ridge_frac median(diag F), ridge_min)`` (paper, App. C.1, which gives no numbers)."""
    return max(ridge_frac * float(fisher.diagonal().median()), ridge_min)


def add_ridge(fisher: Matrix, *, ridge_frac: float = 1e-6, ridge_min: float = 1e-10) -> Matrix:
    """``F + lambda I``."""
    return fisher + ridge(fisher, ridge_frac=ridge_frac, ridge_min=ridge_min) * torch.eye(len(fisher), dtype=fisher.dtype)


def checked_metric(fisher: Callable[[Tensor], Tensor], position: Vector) -> Matrix:
    """What a given ``fisher`` makes of a position, float64.

    Raises
    ------
    DomainError
        If it is no symmetric, finite (d, d) tensor with a positive and no negative eigenvalue.
    """
    found, d = fisher(position), len(position)
    if not isinstance(found, Tensor):
        raise DomainError(f"fisher must return a ({d}, {d}) tensor, got a {type(found).__name__}")
    if found.shape != (d, d):
        raise DomainError(f"fisher must return a ({d}, {d}) tensor, got shape {tuple(found.shape)}")
    matrix = found.detach().to(torch.float64)
    if not bool(torch.isfinite(matrix).all()):
        raise DomainError("fisher must return finite numbers, got nan or inf")
    if not torch.allclose(matrix, matrix.mT, rtol=1e-5, atol=1e-8 * float(matrix.abs().max())):
        apart = float((matrix - matrix.mT).abs().max())
        raise DomainError(f"fisher must return a symmetric matrix, got one that differs from its transpose by {apart:.3g}")
    values = torch.linalg.eigvalsh(0.5 * (matrix + matrix.mT))
    if not (values[-1] > 0 and values[0] >= -1e-9 * values[-1]):
        raise DomainError(f"fisher must return a positive matrix, got eigenvalues from {float(values[0]):.3g} to {float(values[-1]):.3g}")
    return matrix


def factor_of_precision(precision: Matrix) -> Matrix:
    """L with ``L L^T = precision^-1``; rows in order in memory, as it comes back from a file, so that products agree to the last bit."""
    values, vectors = torch.linalg.eigh(0.5 * (precision + precision.mT))
    floor = values.max().clamp(min=1e-300) * 1e-14
    return (vectors / torch.sqrt(values.clamp(min=floor))).contiguous()


def factor_of_covariance(covariance: Matrix) -> Matrix:
    """L with ``L L^T = covariance``; eigenvalues below a part in 1e14 of the largest are raised to it."""
    values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.mT))
    return (vectors * torch.sqrt(values.clamp(min=values.max().clamp(min=1e-300) * 1e-14))).contiguous()


def pooled_covariance(draws: Float[Tensor, "draw chain param"]) -> Matrix:
    """Covariance over all draws of all chains about their common mean.

    The chains' own means are *not* taken out: before convergence their scatter is part of the posterior's width.
    """
    flat = draws.reshape(-1, draws.shape[-1])
    centred = flat - flat.mean(dim=0)
    return centred.mT @ centred / max(1, len(flat) - 1)


def shrink(covariance: Matrix, toward: Matrix, *, effective: float, prior: float | None = None) -> Matrix:
    """Weigh a covariance measured with ``effective`` independent draws against another that counts for ``prior`` (default 2 d) of them."""
    weight = 2.0 * len(covariance) if prior is None else prior
    return (effective * covariance + weight * toward) / (effective + weight)


def agree(covariance: Matrix, other: Matrix, *, effective: float, slack: float = 1.3) -> bool:
    """Whether a covariance of ``effective`` draws scatters about another as chance alone would let it (Marchenko & Pastur's edges)."""
    edge = (len(covariance) / max(effective, 1.0)) ** 0.5
    root = factor_of_covariance(other)
    half = torch.linalg.solve(root, covariance)
    values = torch.linalg.eigvalsh(torch.linalg.solve(root, half.mT))
    return edge < 1.0 and bool(values[0] > (1.0 - edge) ** 2 / slack) and bool(values[-1] < (1.0 + edge) ** 2 * slack)


WIDEST = 6.0
"""Most by which a trajectory is lengthened for a direction that is wider than the metric says."""


def widest_direction(draws: Float[Tensor, "draw chain param"], factor: Matrix) -> float:
    """Standard deviation of draws along their widest direction, in units of the metric, between 1 and `WIDEST`.

    The largest eigenvalue l of a covariance of n effective draws is too large. Below ``(1 + sqrt(g))^2`` with ``g = d / n`` it is what unit
    normals give; above, it stems from a true ``x`` with ``l = x + g x / (x - 1)`` (Baik & Silverstein 2006).
    """
    whitened = torch.linalg.solve(factor, draws.reshape(-1, draws.shape[-1]).mT).mT.reshape(draws.shape)
    largest = float(torch.linalg.eigvalsh(pooled_covariance(whitened))[-1])
    share = draws.shape[-1] / effective_draws(whitened)
    if not largest > (1.0 + share**0.5) ** 2:
        return 1.0
    twice = largest + 1.0 - share
    return min((0.5 * (twice + (twice**2 - 4.0 * largest) ** 0.5)) ** 0.5, WIDEST)


def effective_draws(draws: Float[Tensor, "draw chain param"]) -> float:
    """Rough number of independent draws: the median over parameters of an initial-positive-sequence estimate, summed over chains."""
    n, chains, _ = draws.shape
    if n < 4:
        return 1.0
    centred = draws - draws.mean(dim=0, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)
    auto = torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=0)[:n].mean(dim=1)
    rho = auto / auto[0].clamp(min=1e-300)
    even = n - n % 2
    pairs = rho[0:even:2] + rho[1:even:2]
    positive = torch.cumprod((pairs > 0).to(rho.dtype), dim=0)
    time = (2.0 * (pairs * positive).sum(dim=0) - 1.0).clamp(min=1.0)
    return max(1.0, float((n * chains / time).median()))


def picked(position: FloatArray, points: int) -> list[list[Tensor]]:
    """Each chain's share of ``points`` positions (chain, step, param), evenly spread along it."""
    chains, steps, _ = position.shape
    picked = np.linspace(0, steps - 1, max(1, math.ceil(points / chains))).round().astype(int)
    return [[torch.from_numpy(position[c, k].copy()) for k in picked] for c in range(chains)]


def mean_of_finite(matrices: list[Tensor], *, otherwise: Tensor) -> Tensor:
    """The mean of those matrices that are finite, or another where none is."""
    finite = [matrix for matrix in matrices if bool(torch.isfinite(matrix).all())]
    return torch.stack(finite).mean(dim=0) if finite else otherwise


def log_weights(log_density: FloatArray, precisions: list[Tensor]) -> FloatArray:
    """Log of the probability that the mode around each chain holds, relative to the largest: mean log density and volume of a Gaussian.

    Parameters
    ----------
    log_density
        Along each chain, shape (chain, step).
    precisions
        Inverse covariance of the mode that each chain is in.
    """
    volume = [-0.5 * float(torch.logdet(precision)) for precision in precisions]
    weight = log_density.mean(axis=1) + np.array(volume)
    return np.nan_to_num(weight - np.nanmax(weight), nan=-np.inf)
