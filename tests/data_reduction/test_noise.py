"""Noise: the formulae against Monte Carlo and closed forms, and standard errors that are right on average, cell by cell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockGridder, BlockSums
from supermage.data_reduction.noise import (
    _channel_factor,
    channel_pooling,
    measure_noise,
    satterthwaite_degrees,
    unbiased_scale,
    variance_of_mean,
)
from supermage.data_reduction.spectral import SpectralResponse
from supermage.data_reduction.visibilities import VisibilityChunk
from supermage.errors import DataError
from tests.data_reduction.test_gridding import make_chunk

GRID = UVGrid(16, 0.5, 230e9)


@settings(deadline=None)
@given(st.integers(2, 40), st.floats(0.1, 10.0))
def test_flat_window_gives_the_textbook(n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    weight, values = rng.uniform(0.2, 5.0, n), rng.standard_normal(n)
    ones = np.ones(n)
    assert satterthwaite_degrees(ones, weight) == pytest.approx(n - 1)
    assert variance_of_mean(ones, weight, scale) == pytest.approx(scale / weight.sum())
    equal = np.full(n, 0.7)
    assert unbiased_scale(values, ones, equal) == pytest.approx(0.7 * np.var(values, ddof=1))


def test_any_window_by_monte_carlo() -> None:
    """40 000 draws: mean and variance of the scale within 5 standard errors (1 seed in a million)."""
    rng = np.random.default_rng(8)
    window, weight = rng.uniform(0.05, 1.0, 7), rng.uniform(0.2, 5.0, 7)
    draws = rng.standard_normal((40_000, 7)) * np.sqrt(2.5 / weight)
    scales = np.array([unbiased_scale(draw, window, weight) for draw in draws])
    means = (draws * window * weight).sum(axis=1) / (window * weight).sum()
    degrees = satterthwaite_degrees(window, weight)
    assert degrees < 6
    assert abs(scales.mean() / 2.5 - 1.0) < 5 * np.sqrt(2 / degrees / 40_000)
    assert scales.var() / 2.5**2 == pytest.approx(2.0 / degrees, rel=0.08)
    assert means.var() == pytest.approx(variance_of_mean(window, weight, 2.5), rel=0.04)


def _noisy_sums(rng: np.random.Generator, *, rows: int, n_channel: int, response: SpectralResponse, hands: int = 2, scale: float = 1.7,
                channel: np.ndarray | None = None, leak: float = 0.0, spread: float = 3.0) -> BlockSums:
    chunk = make_chunk(rng, rows=rows, n_channel=n_channel, hands=hands, extent=0.5 * GRID.n_pixel * GRID.cell_size)
    factor = np.linalg.cholesky(response.correlation(n_channel, floor=1e-9))
    white = rng.standard_normal((rows, n_channel, hands, 2)) @ np.array([1.0, 1.0j])
    weight = np.broadcast_to(rng.uniform(1.0, spread, (rows, 1, hands)), white.shape)
    noise = np.einsum("cd,rdh->rch", factor, white) * np.sqrt(scale / weight)
    if channel is not None:
        noise = noise * np.sqrt(channel)[:, None]
    noise[..., 0] += leak
    gridder = BlockGridder(GRID, n_channel, response.lags)
    gridder.add(chunk.__class__(**{**chunk.__dict__, "data": noise.astype(np.complex64), "weight": weight.astype(np.float32)}))
    return gridder.finish()


@pytest.mark.parametrize("averaging", [1, 2])
@pytest.mark.parametrize("rows", [150, 3000])
@pytest.mark.parametrize("leak", [0.0, 3.0])
def test_z_scores_follow_a_t_with_the_stated_degrees(averaging: int, rows: int, leak: float) -> None:
    """From about 1 to 20 visibilities a cell, 12 correlated channels. A Kolmogorov-Smirnov test fails for 1 seed in 1000.

    With ``leak`` one hand sees a continuum that the other does not (3 times the noise): the scale must not notice.
    """
    rng = np.random.default_rng(10 + averaging + rows)
    response = SpectralResponse(hanning=True, averaging=averaging)
    z, degrees = [], []
    for _ in range(6):
        sums = _noisy_sums(rng, rows=rows, n_channel=12, response=response, leak=leak)
        noise = measure_noise(sums, response)
        assert noise.estimator == "difference of hands"
        filled = np.isfinite(noise.standard_error[5])
        centred = sums.mean[5] if leak == 0.0 else sums.mean[5] - sums.mean.mean(axis=0)
        z.append((centred.real / noise.standard_error[5])[filled])
        degrees.append(noise.degrees_of_freedom[5][filled])
    z, degrees = np.concatenate(z), np.concatenate(degrees)
    if leak:
        # Less the channels' mean, whose variance and covariance with one channel are known.
        matrix = response.correlation(12, floor=0.0)
        z = z / np.sqrt(1.0 - 2.0 * matrix[5].mean() + matrix.mean())
    probability = stats.t.cdf(z, degrees)
    assert stats.kstest(probability, "uniform").pvalue > 1e-3
    assert np.std(z * np.sqrt(1.0 - 2.0 / degrees)) == pytest.approx(1.0, abs=0.1)


def test_degrees_of_freedom_by_monte_carlo() -> None:
    """The scatter of the scale over 3000 simulated cells must be that of the stated degrees, to 10 % (1 seed in 10 000)."""
    rng = np.random.default_rng(4)
    response = SpectralResponse(hanning=True, averaging=1)
    ratios, degrees = [], []
    for _ in range(30):
        sums = _noisy_sums(rng, rows=400, n_channel=16, response=response)
        noise = measure_noise(sums, response)
        known = noise.cell_degrees > 0
        ratios.append(noise.cell_scale[known] * noise.scale / 1.7)
        degrees.append(noise.cell_degrees[known])
    ratio, nu = np.concatenate(ratios), np.concatenate(degrees)
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert np.mean((ratio - 1.0) ** 2 * nu / 2.0) == pytest.approx(1.0, abs=0.1)


def test_cells_of_one_noise_are_pooled_and_cells_apart_are_not() -> None:
    """True scales that are one are found to be within 5 %, a spread of 0.3 in log sigma to 15 % (5 standard errors of the fit)."""
    rng = np.random.default_rng(14)
    response = SpectralResponse(hanning=False)
    sums = _noisy_sums(rng, rows=4000, n_channel=6, response=response)
    noise = measure_noise(sums, response)
    assert noise.prior.spread < 0.05 and np.allclose(noise.moderated_scale, 1.0, atol=0.1)
    factor = np.exp(2 * rng.normal(0.0, 0.3, sums.cell_u.size))
    apart = dataclasses.replace(sums, difference_square=sums.difference_square * factor, difference_flat=sums.difference_flat * factor)
    noise = measure_noise(apart, response)
    assert noise.prior.spread == pytest.approx(0.3, rel=0.15)


def test_one_hand_is_differenced_in_time() -> None:
    """A source of 20 times the noise, the same in consecutive integrations, must not enter; 8000 differences know the scale to 1.1 %."""
    rng = np.random.default_rng(15)
    response = SpectralResponse(hanning=False)
    gridder = BlockGridder(GRID, 4)
    baseline = rng.uniform(-0.4, 0.4, (40, 3)) * GRID.n_pixel * GRID.cell_size
    pair = np.arange(40)
    for integration in range(0, 100, 10):
        number = np.arange(integration, integration + 10).repeat(40)
        uvw = np.tile(baseline, (10, 1)) * (1.0 + 1e-4 * number)[:, None]
        weight = np.broadcast_to(rng.uniform(1.0, 3.0, (400, 1, 1)), (400, 4, 1))
        noise = (rng.standard_normal((400, 4, 1, 2)) @ [1, 1j]) * np.sqrt(1.7 / weight)
        data = 20.0 * np.exp(0.3j * np.tile(pair, 10))[:, None, None] + noise
        gridder.add(VisibilityChunk(uvw=uvw, data=data.astype(np.complex64), weight=weight.astype(np.float32), antenna1=np.tile(pair, 10),
                                    antenna2=np.tile(pair, 10) + 1, time=10.0 * number, flagged=0, unweighted=0))
    sums = gridder.finish()
    assert sums.time_count.sum() == 40 * 50 * 4 and sums.difference_count.sum() == 0
    noise = measure_noise(sums, response)
    assert noise.estimator == "difference of integrations"
    assert noise.scale == pytest.approx(1.7, rel=5 * 0.011)


@pytest.mark.parametrize("averaging", [1, 2, 4])
@pytest.mark.parametrize("flat", [False, True])
def test_pooling_over_channels_is_that_of_the_matrices(averaging: int, flat: bool) -> None:
    response = SpectralResponse(hanning=True, averaging=averaging)
    effective, lost = channel_pooling(response, 12, flat=flat)
    for n in range(1, 13):
        matrix = response.correlation(n, floor=0.0)
        centred = matrix - matrix.mean(axis=0) if flat and n > 1 else matrix
        assert effective[n - 1] == pytest.approx(np.trace(centred) ** 2 / np.trace(centred @ centred), rel=1e-9)
        assert lost[n - 1] == pytest.approx(matrix.sum() / n if flat and n > 1 else 0.0)


def test_channels_with_more_noise_get_larger_errors() -> None:
    rng = np.random.default_rng(5)
    channel = np.array([1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    sums = _noisy_sums(rng, rows=20_000, n_channel=8, response=SpectralResponse(hanning=False), channel=channel)
    noise = measure_noise(sums, SpectralResponse(hanning=False))
    np.testing.assert_allclose(noise.by_channel / noise.by_channel[0], channel, rtol=0.06)
    z = sums.mean / noise.standard_error
    np.testing.assert_allclose(np.sqrt((np.abs(z) ** 2).mean(axis=1) / 2), 1.0, atol=0.25)


def test_one_hand_without_consecutive_integrations_falls_back_on_the_scatter_within_cells() -> None:
    rng = np.random.default_rng(6)
    sums = _noisy_sums(rng, rows=3000, n_channel=6, response=SpectralResponse(hanning=False), hands=1)
    noise = measure_noise(sums, SpectralResponse(hanning=False))
    assert noise.estimator == "scatter within cells"
    assert noise.scale == pytest.approx(1.7, rel=0.05)


def test_cells_known_too_poorly_take_the_blocks_noise() -> None:
    rng = np.random.default_rng(7)
    sums = _noisy_sums(rng, rows=120, n_channel=2, response=SpectralResponse(hanning=False))
    noise = measure_noise(sums, SpectralResponse(hanning=False))
    assert np.count_nonzero(noise.cell_degrees == 0) + np.count_nonzero(noise.cell_degrees < 8) > 20
    assert noise.degrees_of_freedom.min() >= 8.0


def test_what_cannot_be_measured_is_refused() -> None:
    rng = np.random.default_rng(9)
    sums = _noisy_sums(rng, rows=1, n_channel=4, response=SpectralResponse(hanning=False), hands=1)
    with pytest.raises(DataError, match="noise must be measurable"):
        measure_noise(sums, SpectralResponse(hanning=False))
    silent = _noisy_sums(rng, rows=100, n_channel=4, response=SpectralResponse(hanning=False), scale=0.0)
    with pytest.raises(DataError, match="no scatter at all"):
        measure_noise(silent, SpectralResponse(hanning=False))


@pytest.mark.parametrize("n_channel", [8, 16])
@pytest.mark.parametrize("kind", ["half at random", "half the band"])
def test_flags_that_differ_by_row_leave_the_noise_unbiased(n_channel: int, kind: str) -> None:
    """Correlated channels, half of them flagged: the flat part that is taken out is that of the channels that are there.

    30 000 differences know the scale to 0.5 %; 5 standard errors. Contiguous channels assumed, it came out 1.16 to 1.5.
    """
    rng = np.random.default_rng(n_channel)
    response = SpectralResponse(hanning=True)
    chunk = make_chunk(rng, rows=4000, n_channel=n_channel, extent=0.45 * GRID.n_pixel * GRID.cell_size)
    colour = np.linalg.cholesky(response.correlation(n_channel, floor=1e-9))
    noise = np.einsum("cd,rdh->rch", colour, rng.standard_normal((4000, n_channel, 2, 2)) @ np.array([1.0, 1.0j]))
    if kind == "half at random":
        kept = rng.uniform(size=(4000, n_channel, 1)) < 0.5
    else:
        kept = (np.arange(n_channel) < n_channel // 2)[None, :, None] ^ (rng.uniform(size=(4000, 1, 1)) < 0.5)
    weight = np.broadcast_to(np.where(kept, 1.0, 0.0), noise.shape)
    gridder = BlockGridder(GRID, n_channel, response.lags)
    data = np.where(weight > 0, noise + 0.5, 0.0)
    gridder.add(dataclasses.replace(chunk, data=data.astype(np.complex64), weight=weight.astype(np.float32)))
    assert measure_noise(gridder.finish(), response).scale == pytest.approx(1.0, abs=0.03)


def test_a_source_that_turns_does_not_enter_time_differences() -> None:
    """A continuum of ten times the noise at an eighth of the field, baselines that move by a tenth of a cell an integration."""
    rng = np.random.default_rng(16)
    gridder = BlockGridder(GRID, 12)
    start = rng.uniform(-0.4, 0.4, (60, 3)) * GRID.n_pixel * GRID.cell_size
    pair = np.arange(60)
    per_metre = GRID.reference_frequency / 299792458.0 * np.pi / 648000.0
    for number in range(60):
        uvw = start + 0.1 * GRID.cell_size * number * np.array([0.6, 0.8, 0.0])
        signal = 10.0 * np.exp(-2j * np.pi * (uvw[:, 0] - uvw[:, 1]) * GRID.field_of_view / 8.0 * per_metre)
        noise = rng.standard_normal((60, 12, 1, 2)) @ np.array([1.0, 1.0j])
        gridder.add(VisibilityChunk(uvw=uvw, data=(signal[:, None, None] + noise).astype(np.complex64),
                                    weight=np.ones((60, 12, 1), dtype=np.float32), antenna1=pair, antenna2=pair + 1,
                                    time=np.full(60, 10.0 * number), flagged=0, unweighted=0))
    noise = measure_noise(gridder.finish(), SpectralResponse(hanning=False))
    assert noise.estimator == "difference of integrations" and noise.scale == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(("step", "paired"), [(0.2, True), (0.3, False)])
def test_integrations_far_apart_are_no_pair(step: float, paired: bool) -> None:
    gridder = BlockGridder(GRID, 2)
    for number in range(4):
        uvw = np.array([[2.0 + step * number, 1.0, 0.0]]) * GRID.cell_size
        gridder.add(VisibilityChunk(uvw=uvw, data=np.ones((1, 2, 1), dtype=np.complex64), weight=np.ones((1, 2, 1), dtype=np.float32),
                                    antenna1=np.array([0]), antenna2=np.array([1]), time=np.array([10.0 * number]), flagged=0,
                                    unweighted=0))
    assert gridder.finish().time_count.sum() == (4 if paired else 0)


@pytest.mark.parametrize(("share", "estimator"), [(0.3, "difference of hands"), (0.2, "scatter within cells")])
def test_the_first_estimator_that_a_quarter_of_the_visibilities_enter(share: float, estimator: str) -> None:
    rng = np.random.default_rng(17)
    sums = _noisy_sums(rng, rows=3000, n_channel=4, response=SpectralResponse(hanning=False))
    fewer = dataclasses.replace(sums, difference_count=(sums.count * share / 2.0).round().astype(np.int32))
    assert measure_noise(fewer, SpectralResponse(hanning=False)).estimator == estimator


def test_a_channel_is_held_against_the_cells_that_it_fills() -> None:
    """Half of the band is flagged in the quiet cells, the other half in cells of four times their variance: no channel is at fault."""
    of_cell = np.repeat([1.0, 4.0], 50)
    degrees = np.full((16, 100), 40.0)
    degrees[:8, :30], degrees[8:, 60:] = 0.0, 0.0
    assert _channel_factor(degrees * of_cell, degrees) == pytest.approx(1.0, abs=1e-12)


def test_degrees_of_freedom_are_those_of_the_channels_that_are_there() -> None:
    """Half the band flagged: degrees of freedom by the matrices of the other half's correlation."""
    rng = np.random.default_rng(19)
    response = SpectralResponse(hanning=True)
    chunk = make_chunk(rng, rows=2000, n_channel=24, extent=0.45 * GRID.n_pixel * GRID.cell_size)
    colour = np.linalg.cholesky(response.correlation(24, floor=1e-9))
    noise = np.einsum("cd,rdh->rch", colour, rng.standard_normal((2000, 24, 2, 2)) @ np.array([1.0, 1.0j]))
    kept = np.broadcast_to((np.arange(24) < 12)[None, :, None], noise.shape)
    gridder = BlockGridder(GRID, 24, response.lags)
    gridder.add(dataclasses.replace(chunk, data=np.where(kept, noise, 0.0).astype(np.complex64), weight=kept.astype(np.float32)))
    sums = gridder.finish()
    matrix = response.correlation(12, floor=0.0)
    centred = matrix - matrix.mean(axis=0)
    expected = 2.0 * sums.difference_count[0] * np.trace(centred) ** 2 / np.trace(centred @ centred)
    np.testing.assert_allclose(measure_noise(sums, response).cell_degrees, expected, rtol=1e-6)
