"""Whitening, the continuum, and the densities against dense linear algebra, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DataError, DomainError
from supermage.inference.likelihood import (
    DENSITIES,
    ObservedVisibilities,
    VisibilityNoise,
    student_t_fisher_weight,
    student_t_log_density,
    whitening_matrix,
)
from tests.data_reduction.factories import make_gridded


def ragged(seed: int = 5, n_cell: int = 60, n_channel: int = 10) -> GriddedVisibilities:
    """Data with whole cells, single channels and many different patterns missing."""
    gridded = make_gridded(seed=seed, n_cell=n_cell, n_channel=n_channel)
    error = gridded.standard_error * np.random.default_rng(seed).uniform(0.8, 1.3, size=gridded.standard_error.shape)
    missing = np.random.default_rng(seed + 1).uniform(size=error.shape) < 0.05
    missing[0, 3, 10:50] = True
    missing[1, :-1, 7] = True
    return gridded.replace(standard_error=np.where(missing, np.inf, error))


def dense_log_likelihood(gridded: GriddedVisibilities, model: np.ndarray, tau: float | None, order: int = 0) -> float:
    """Gaussian log likelihood cell by cell with C = D R D + tau^2 P P^T (P: 1, x, ...), plus what makes tau -> infinity finite."""
    shapes = np.linspace(-1.0, 1.0, gridded.n_channel)[:, None] ** np.arange(order + 1)
    correlation = gridded.response.correlation(gridded.n_channel)
    total = 0.0
    for block in range(gridded.n_block):
        for cell in range(gridded.n_cell):
            error = gridded.standard_error[block, :, cell]
            good = np.isfinite(error)
            if good.sum() < (order + 2 if tau else 1):
                continue
            covariance = correlation[np.ix_(good, good)] * np.outer(error[good], error[good])
            residual = (model - gridded.mean)[block, good, cell]
            if tau:
                covariance = covariance + tau**2 * shapes[good] @ shapes[good].T
            log_determinant = np.linalg.slogdet(2 * math.pi * covariance)[1]
            for part in (residual.real, residual.imag):
                total += -0.5 * float(part @ np.linalg.solve(covariance, part)) - 0.5 * log_determinant
                total += (order + 1) * (math.log(tau) + 0.5 * math.log(2 * math.pi)) if tau else 0.0
    return total


@pytest.mark.parametrize("continuum", [False, True])
def test_gaussian_log_likelihood_is_that_of_the_dense_covariance(continuum: bool) -> None:
    gridded = ragged()
    rng = np.random.default_rng(0)
    model = 1e-3 * (rng.standard_normal(gridded.mean.shape) + 1j * rng.standard_normal(gridded.mean.shape))
    noise = VisibilityNoise(gridded, likelihood="gaussian", continuum=continuum, dtype=torch.float64)
    got = float(noise.log_likelihood_of(noise.residual(torch.from_numpy(model))))
    # tau large against the noise, small enough for double precision
    assert got == pytest.approx(dense_log_likelihood(gridded, model, 3.0 if continuum else None), rel=1e-6)


def test_polynomial_continuum_is_the_dense_limit() -> None:
    gridded = ragged()
    rng = np.random.default_rng(0)
    model = 1e-3 * (rng.standard_normal(gridded.mean.shape) + 1j * rng.standard_normal(gridded.mean.shape))
    noise = VisibilityNoise(gridded, likelihood="gaussian", order=1, dtype=torch.float64)
    got = float(noise.log_likelihood_of(noise.residual(torch.from_numpy(model))))
    assert got == pytest.approx(dense_log_likelihood(gridded, model, 3.0, 1), rel=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_continuum_subtraction_in_the_history_changes_nothing(order: int) -> None:
    """A polynomial fitted to line-free channels and taken off every channel, as uvcontsub does: differences of log likelihood stay."""
    gridded = make_gridded(n_cell=40, n_channel=16)
    free = np.r_[0:5, 11:16]
    x = np.linspace(-1.0, 1.0, 16)
    shapes = x[:, None] ** np.arange(order + 1)
    fitted = np.einsum("cf,bfk->bck", shapes @ np.linalg.pinv(shapes[free]), gridded.mean[:, free])
    subtracted = gridded.replace(mean=np.where(np.isfinite(gridded.standard_error), gridded.mean - fitted, 0.0),
                                 provenance={"continuum_order": order})  # fmt: skip
    models = [torch.from_numpy(s * np.exp(-20 * x**2)[None, :, None] * np.ones(gridded.mean.shape) * (1 + 0.5j)) for s in (1e-3, 2e-3)]
    differences = []
    for data, given in ((gridded, order), (subtracted, 0)):
        noise = VisibilityNoise(data, likelihood="gaussian", order=given, dtype=torch.float64)
        one, two = (float(noise.log_likelihood_of(noise.residual(model))) for model in models)
        differences.append(one - two)
    assert differences[0] == pytest.approx(differences[1], rel=1e-9) and abs(differences[0]) > 1


def test_a_near_singular_correlation_is_refused() -> None:
    """Hanning alone has eigenvalues down to 2e-6 for 64 channels; a correlation cut at lag two is not positive at all."""
    bare = make_gridded().response.correlation(64, floor=0.0)
    cut = np.eye(64) + sum(value * (np.eye(64, k=lag) + np.eye(64, k=-lag)) for lag, value in ((1, 0.661), (2, 0.156)))
    for matrix in (bare, cut):
        with pytest.raises(DataError, match=r"no eigenvalue below 0\.001, got "):
            whitening_matrix(matrix, np.ones(64, dtype=bool))
    good = np.random.default_rng(1).uniform(size=64) > 0.3
    kept = np.ix_(good, good)
    matrix = make_gridded().response.correlation(64)
    assert np.allclose(whitening_matrix(matrix, good)[kept], np.linalg.inv(np.linalg.cholesky(matrix[kept])), atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whitened_noise_has_unit_covariance(dtype: torch.dtype) -> None:
    gridded = make_gridded(seed=8, n_cell=400, n_channel=12, n_pixel=64)
    noise = VisibilityNoise(gridded, likelihood="gaussian", continuum=False, dtype=dtype)
    z = noise.whitened_data.reshape(-1, 12)
    covariance = z.mT @ z / len(z)
    error = 1.0 / math.sqrt(len(z))
    assert float((covariance - torch.eye(12, dtype=torch.float64)).abs().max()) < 5.5 * error
    # a mutant that ignores the correlation is far off
    naive = torch.from_numpy((gridded.mean / gridded.standard_error)[0].T.real.copy())
    assert float((naive.mT @ naive / len(naive))[0, 1]) > 0.4


def test_mock_draws_have_the_noise_that_is_whitened() -> None:
    gridded = ragged(n_cell=200)
    noise = VisibilityNoise(gridded, likelihood="gaussian", continuum=False, dtype=torch.float64)
    zero = torch.zeros(gridded.mean.shape, dtype=torch.complex128)
    generator = torch.Generator().manual_seed(1)
    chi2 = [float(noise.chi2(noise.whiten(noise.draw(zero, generator))).sum()) for _ in range(20)]
    expected = noise.n_data
    assert abs(np.mean(chi2) - expected) < 4 * math.sqrt(2 * expected / 20)


def test_any_flat_continuum_leaves_the_likelihood_alone() -> None:
    gridded = ragged()
    noise = VisibilityNoise(gridded, dtype=torch.float64)
    rng = np.random.default_rng(3)
    flat = rng.standard_normal((gridded.n_block, 1, gridded.n_cell)) + 1j * rng.standard_normal((gridded.n_block, 1, gridded.n_cell))
    model = torch.from_numpy(1e-3 * np.ones(gridded.mean.shape) + 0j)
    shifted = model + torch.from_numpy(np.broadcast_to(flat, gridded.mean.shape).copy())
    one, two = (float(noise.log_likelihood_of(noise.residual(m))) for m in (model, shifted))
    assert one == pytest.approx(two, abs=1e-6)
    without = VisibilityNoise(gridded, continuum=False, dtype=torch.float64)
    three, four = (float(without.log_likelihood_of(without.residual(m))) for m in (model, shifted))
    assert abs(three - four) > 100


def test_student_t_is_scipys() -> None:
    rng = np.random.default_rng(1)
    residual = rng.standard_normal((6, 2, 4))
    chi2 = torch.from_numpy((residual**2).sum(axis=(1, 2)))
    nu = torch.tensor([3.0, 5.0, 8.0, 20.0, 100.0, 1000.0], dtype=torch.float64)
    got = student_t_log_density(chi2, torch.full((6,), 8.0, dtype=torch.float64), nu)
    want = [stats.multivariate_t.logpdf(residual[k].ravel(), loc=np.zeros(8), shape=np.eye(8), df=float(nu[k])) for k in range(6)]
    assert np.allclose(got.numpy(), want, rtol=1e-10)


def test_student_t_is_what_a_shared_estimated_scale_makes() -> None:
    """Gaussian residuals over a scale estimated with nu degrees of freedom: squared length / p follows Fisher's F(p, nu)."""
    rng = np.random.default_rng(2)
    nu, p = 7.0, 6
    chi2 = (rng.standard_normal((200_000, p)) ** 2).sum(axis=1) / (rng.chisquare(nu, size=200_000) / nu)
    edges = np.quantile(chi2, [0.1, 0.3, 0.5, 0.7, 0.9])
    radius = np.linspace(0, 400, 400_001)[1:]
    density = np.exp(
        student_t_log_density(
            torch.from_numpy(radius),
            torch.full((len(radius),), float(p), dtype=torch.float64),
            torch.full((len(radius),), nu, dtype=torch.float64),
        ).numpy()
    )
    shell = density * radius ** (p / 2 - 1) * math.pi ** (p / 2) / math.gamma(p / 2)
    cumulative = np.cumsum(shell) * (radius[1] - radius[0])
    assert np.allclose(np.interp(edges, radius, cumulative), [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.006)


def test_fisher_weights() -> None:
    nu = torch.tensor([4.0, 30.0], dtype=torch.float64)
    assert torch.allclose(student_t_fisher_weight(torch.ones(2, dtype=torch.float64), nu), (nu + 1) / (nu + 3))
    # the variance of the score of a location, by simulation
    rng = np.random.default_rng(4)
    p, freedom = 6, 5.0
    scale = rng.chisquare(freedom, size=(400_000, 1)) / freedom
    r = rng.standard_normal((400_000, p)) / np.sqrt(scale)
    score = (freedom + p) / freedom * r[:, 0] / (1 + (r**2).sum(axis=1) / freedom)
    weight = float(student_t_fisher_weight(torch.tensor([float(p)], dtype=torch.float64), torch.tensor([freedom], dtype=torch.float64)))
    assert np.mean(score**2) == pytest.approx(weight, rel=0.01)


def test_the_papers_likelihood_doubles_every_error() -> None:
    gridded = ragged()
    paper = VisibilityNoise(gridded, likelihood="paper", dtype=torch.float64)
    doubled = VisibilityNoise(gridded.replace(standard_error=2 * gridded.standard_error), likelihood="gaussian", dtype=torch.float64)
    model = torch.from_numpy(np.full(gridded.mean.shape, 2e-4 + 1e-4j) * np.linspace(0, 1, gridded.n_channel)[None, :, None])
    zero = torch.zeros_like(model)
    # a doubled error also doubles the flat direction's length: the normalisations differ by a constant
    difference = [float(n.log_likelihood_of(n.residual(model)) - n.log_likelihood_of(n.residual(zero))) for n in (paper, doubled)]
    assert difference[0] == pytest.approx(difference[1], rel=1e-9)
    one, two = (n.fisher_residual(n.residual(model)) for n in (paper, doubled))
    assert torch.allclose(one.square().sum(), two.square().sum())


def test_single_precision_is_enough() -> None:
    gridded = ragged()
    model = torch.from_numpy(np.full(gridded.mean.shape, 1e-3 + 0j) * np.sin(np.arange(gridded.n_channel))[None, :, None])
    exact, fast = (
        float(n.log_likelihood_of(n.residual(model))) for n in (VisibilityNoise(gridded, dtype=d) for d in (torch.float64, torch.float32))
    )
    assert exact == pytest.approx(fast, abs=2e-3)


def test_distribution_is_the_likelihood_and_its_gradient_flows() -> None:
    gridded = ragged()
    noise = VisibilityNoise(gridded, dtype=torch.float64)
    mean = torch.zeros(gridded.mean.shape, dtype=torch.complex128, requires_grad=True)
    value = ObservedVisibilities(mean, noise).log_prob(noise.data)
    value.backward()
    assert mean.grad is not None
    assert float(mean.grad.abs().sum()) > 0
    other = noise.draw(torch.zeros_like(mean).detach(), torch.Generator().manual_seed(0))
    assert float(ObservedVisibilities(mean.detach(), noise).log_prob(other)) != pytest.approx(float(value.detach()))


def test_bad_data_are_refused() -> None:
    gridded = ragged()
    with pytest.raises(DomainError, match="did you mean 'student_t'"):
        VisibilityNoise(gridded, likelihood="studentt")
    error = np.full_like(gridded.standard_error, np.inf)
    error[0, 0, 0] = 1.0
    with pytest.raises(DataError, match="at least 2 unflagged channels"):
        VisibilityNoise(gridded.replace(standard_error=error))
    assert sorted(DENSITIES) == ["gaussian", "moderated_t", "paper", "student_t"]


def test_the_papers_gridding_needs_a_gaussian() -> None:
    gridded = make_gridded(n_cell=20).replace(provenance={"window": "kaiser-bessel"})
    assert VisibilityNoise(gridded, likelihood="paper").n_spectra > 0
    with pytest.raises(DataError, match="need the likelihood gaussian or paper, got moderated_t"):
        VisibilityNoise(gridded)


def test_each_likelihood_takes_its_noise() -> None:
    """Standard errors as stored; times the cell's own scale over the moderated one; over the moderated one alone."""
    gridded = make_gridded(n_cell=20, n_block=1)
    rng = np.random.default_rng(1)
    own, moderated, degrees = rng.uniform(0.3, 3.0, (1, 20)), rng.uniform(0.8, 1.2, (1, 20)), rng.uniform(3.0, 50.0, (1, 20))
    degrees[0, 0] = 0.0
    gridded = gridded.replace(cell_scale=own, moderated_scale=moderated, cell_degrees=degrees)
    model = torch.zeros(gridded.mean.shape, dtype=torch.complex128)

    def chi2(kind: str) -> np.ndarray:
        noise = VisibilityNoise(gridded, likelihood=kind, continuum=False, dtype=torch.float64)
        return noise.chi2(noise.residual(model)).numpy()

    stored = chi2("moderated_t")
    np.testing.assert_allclose(chi2("gaussian"), stored * moderated[0], rtol=1e-9)
    np.testing.assert_allclose(chi2("student_t"), stored * moderated[0] / np.where(degrees[0] > 0, own[0], 1.0), rtol=1e-9)
    noise = VisibilityNoise(gridded, likelihood="student_t")
    np.testing.assert_allclose(noise.degrees_of_freedom, [degrees.sum(), *degrees[0, 1:]])
