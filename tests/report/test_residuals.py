import numpy as np
import pytest
from scipy.stats import norm

from supermage.report.cubes import sky_cubes
from supermage.report.residuals import look_elsewhere, residuals_of
from tests.data_reduction.factories import make_gridded, point_source


def noise_only(seed, *, floor=1e-6, factor=1.0, **shape):
    empty = make_gridded(seed=seed, noise=False, **{"n_channel": 24, "n_cell": 150, **shape})
    mixing = np.linalg.cholesky(empty.response.correlation(empty.n_channel, floor=floor))
    rng = np.random.default_rng(seed + 50)
    white = rng.standard_normal((2, *empty.mean.shape))
    good = np.isfinite(empty.standard_error)
    noise = factor * np.einsum("cd,bdk->bck", mixing, white[0] + 1j * white[1]) * np.where(good, empty.standard_error, 0.0)
    return empty.replace(mean=np.where(good, noise, 0.0), degrees_of_freedom=np.full(empty.mean.shape, 1e6))


@pytest.mark.parametrize("continuum", [False, True])
def test_pure_noise_gives_one_everywhere(continuum):
    sigmas, worst, spread = [], [], []
    for seed in range(12):
        gridded = noise_only(seed)
        r = residuals_of(gridded, np.zeros_like(gridded.mean), continuum=continuum)
        sigmas.append(r.sigma)
        worst += [r.by_channel.worst_sigma(), r.by_baseline.worst_sigma()]
        spread.append(r.whitened.std())
    assert abs(np.mean(sigmas)) < 4 / np.sqrt(12)
    assert 0.5 < np.std(sigmas) < 1.7
    assert np.max(np.abs(worst)) < 3.5
    assert np.mean(spread) == pytest.approx(1.0, abs=0.01)


def test_wrong_noise_scale_is_seen_and_is_not_called_structure():
    gridded = noise_only(3, factor=1.2)
    r = residuals_of(gridded, np.zeros_like(gridded.mean), continuum=True)
    assert r.chi2_per_datum == pytest.approx(1.44, rel=0.05)
    assert r.sigma > 10
    assert abs(r.by_channel.worst_sigma()) < 4


def test_a_line_left_in_one_channel_is_structure():
    gridded = noise_only(4)
    line = np.zeros_like(gridded.mean)
    line[:, 12] = point_source(gridded, 0.1, 0.2, 6e-3)[:, 12]
    r = residuals_of(gridded, line, continuum=True)
    assert abs(r.by_channel.worst_sigma()) > 5
    cubes = sky_cubes(gridded, line, r.continuum)
    peak, expected = cubes.peak()
    assert peak > 1.5 * expected


def test_continuum_is_found_and_taken_out():
    gridded = noise_only(5)
    flat = point_source(gridded, 0.3, -0.2, 0.05).mean(axis=1)
    bright = gridded.replace(mean=np.where(np.isfinite(gridded.standard_error), gridded.mean + flat[:, None, :], 0.0))
    r = residuals_of(bright, np.zeros_like(bright.mean), continuum=True)
    good = np.isfinite(bright.standard_error).all(axis=1)
    error = np.where(good, bright.standard_error.mean(axis=1), 1.0)
    assert np.ptp(np.abs(r.continuum), axis=1).max() < 1e-12
    z = ((r.continuum[:, 0] - flat) / error)[good]
    assert 0.1 < z.real.std() < 0.6  # 24 correlated channels are worth about ten
    assert np.abs(z).max() < 3
    assert abs(r.sigma) < 4


def test_residual_pixels_of_noise_stay_below_the_expected_peak():
    above = 0
    for seed in range(10):
        gridded = noise_only(seed, n_pixel=32, pixel_scale=0.14)
        cubes = sky_cubes(gridded, np.zeros_like(gridded.mean), np.zeros(gridded.mean.shape, dtype=complex))
        peak, expected = cubes.peak()
        above += peak > expected
        assert 0.6 * expected < peak < 1.3 * expected
    assert above <= 2


def test_look_elsewhere():
    assert look_elsewhere(3.0, 1) == pytest.approx(3.0)
    p = 1 - (1 - 2 * norm.sf(3.0)) ** 40
    assert look_elsewhere(3.0, 40) == pytest.approx(norm.isf(p / 2), rel=1e-9)
    assert 0 < look_elsewhere(9.0, 40) < 9.0
    assert look_elsewhere(50.0, 40) == 50.0
