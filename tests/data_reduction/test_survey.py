"""The verdict on weights: known factors between baselines and in time are found and put right, right weights are left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockGridder
from supermage.data_reduction.noise import measure_noise
from supermage.data_reduction.spectral import SpectralResponse
from supermage.data_reduction.survey import TIME_BINS, NoiseSurvey, WeightVerdict
from supermage.data_reduction.visibilities import VisibilityChunk

GRID = UVGrid(16, 0.5, 230e9)
HANNING = SpectralResponse(hanning=True, averaging=1)
ANTENNAS, CHANNELS = 9, 12
STRETCH = TIME_BINS[1]


def _chunks(rng: np.random.Generator, hands: int, antenna_factor: np.ndarray, time_factor: np.ndarray) -> list[VisibilityChunk]:
    """Forty integrations of every baseline in each stretch of time, noise variance factor_i factor_j factor_t / weight."""
    first, second = np.triu_indices(ANTENNAS, 1)
    place = rng.uniform(-0.45, 0.45, (first.size, 3)) * GRID.n_pixel * GRID.cell_size
    colour = np.linalg.cholesky(HANNING.correlation(CHANNELS, floor=1e-9))
    chunks = []
    for stretch, factor in enumerate(time_factor):
        number = np.arange(40).repeat(first.size)
        a, b = np.tile(first, 40), np.tile(second, 40)
        weight = np.broadcast_to(rng.uniform(1.0, 3.0, (a.size, 1, hands)), (a.size, CHANNELS, hands))
        white = rng.standard_normal((a.size, CHANNELS, hands, 2)) @ np.array([1.0, 1.0j])
        sigma = np.sqrt(antenna_factor[a] * antenna_factor[b] * factor)[:, None, None] / np.sqrt(weight)
        data = 5.0 + np.einsum("cd,rdh->rch", colour, white) * sigma
        chunks.append(VisibilityChunk(uvw=np.tile(place, (40, 1)), data=data.astype(np.complex64), weight=weight.astype(np.float32),
                                      antenna1=a, antenna2=b, time=1e9 + STRETCH * (stretch + 0.02 * number), flagged=0, unweighted=0))
    return chunks


def _survey(chunks: list[VisibilityChunk], verdict: WeightVerdict | None = None) -> tuple[WeightVerdict, BlockGridder]:
    gridder, survey = BlockGridder(GRID, CHANNELS, HANNING.lags), NoiseSurvey(HANNING, CHANNELS, 1e9, 1e9 + 12 * STRETCH)
    for chunk in chunks:
        one = chunk if verdict is None else verdict.correct(chunk)
        survey.add(one, gridder.add(one))
    found = survey.finish()
    assert found is not None
    return found, gridder


@pytest.mark.parametrize("hands", [1, 2])
def test_right_weights_are_left_alone(hands: int) -> None:
    """The spread found where there is none stays below the threshold by far (0.02 against 0.05; over 20 seeds at most 0.012)."""
    verdict, _ = _survey(_chunks(np.random.default_rng(1), hands, np.ones(ANTENNAS), np.ones(6)))
    assert not verdict.worth_correcting and verdict.baseline_prior.spread < 0.02 and verdict.time_prior.spread < 0.02


@pytest.mark.parametrize("hands", [1, 2])
def test_wrong_weights_are_found_and_put_right(hands: int) -> None:
    rng = np.random.default_rng(2)
    antenna, time = np.exp(rng.normal(0.0, 0.4, ANTENNAS)), np.array([1.0, 1.2, 0.7, 2.0, 1.0, 0.9, 1.5, 1.1, 0.8, 1.0])
    chunks = _chunks(rng, hands, antenna, time)
    verdict, before = _survey(chunks)
    assert verdict.worth_correcting
    true = antenna[verdict.baselines[:, 0]] * antenna[verdict.baselines[:, 1]]
    # 40 x 10 rows of about 12 / 1.94 independent channels each know a factor to 2 % (hands) or 3 % (time); 5 standard errors
    np.testing.assert_allclose(verdict.by_baseline / true * np.mean(true), 1.0, rtol=0.15)
    np.testing.assert_allclose(verdict.by_time / time * np.mean(time), 1.0, rtol=0.15)
    again, after = _survey(chunks, verdict)
    assert not again.worth_correcting
    spread = [measure_noise(gridder.finish(), HANNING).prior.spread for gridder in (before, after)]
    assert spread[0] > 0.2 and spread[1] < 0.05


def test_a_baseline_unknown_to_the_verdict_keeps_its_weight() -> None:
    chunks = _chunks(np.random.default_rng(3), 2, np.linspace(0.5, 2.0, ANTENNAS), np.ones(2))
    verdict, _ = _survey(chunks)
    stranger = dataclasses.replace(chunks[0], antenna1=np.full_like(chunks[0].antenna1, 40), antenna2=np.full_like(chunks[0].antenna2, 41))
    kept = verdict.correct(stranger)
    assert np.allclose(kept.weight / stranger.weight, verdict.by_time[0])


def test_no_difference_no_verdict() -> None:
    assert NoiseSurvey(HANNING, CHANNELS, 0.0, 1.0).finish() is None


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_right_weights_of_few_and_flagged_channels_are_left_alone(channels: int) -> None:
    """Half of the channels flagged at random: what a flat part takes away differs from row to row."""
    rng = np.random.default_rng(channels)
    first, second = np.triu_indices(20, 1)
    place = rng.uniform(-0.45, 0.45, (first.size, 3)) * GRID.n_pixel * GRID.cell_size
    colour = np.linalg.cholesky(HANNING.correlation(channels, floor=1e-9))
    gridder, survey = BlockGridder(GRID, channels, HANNING.lags), NoiseSurvey(HANNING, channels, 1e9, 1e9 + 12 * STRETCH)
    for number in range(60):
        noise = np.einsum("cd,rdh->rch", colour, rng.standard_normal((first.size, channels, 2, 2)) @ np.array([1.0, 1.0j]))
        weight = np.broadcast_to(rng.uniform(size=(first.size, channels, 1)) < (0.5 if channels > 1 else 1.0), noise.shape)
        chunk = VisibilityChunk(uvw=place, data=np.where(weight, noise, 0.0).astype(np.complex64), weight=weight.astype(np.float32),
                                antenna1=first, antenna2=second, time=np.full(first.size, 1e9 + STRETCH * 0.2 * number), flagged=0,
                                unweighted=0)
        survey.add(chunk, gridder.add(chunk))
    verdict = survey.finish()
    if channels == 1:
        assert verdict is None  # one channel is all flat part
        return
    assert verdict is not None and not verdict.worth_correcting
    np.testing.assert_allclose(verdict.by_baseline, 1.0, atol=0.1)


def test_noisy_baselines_that_stop_half_way_leave_time_alone() -> None:
    """Margins multiplied would call the first half noisy; factors fitted together do not."""
    rng = np.random.default_rng(5)
    noisy = np.where(np.arange(ANTENNAS) < 3, 4.0, 1.0)
    chunks = _chunks(rng, 2, noisy, np.ones(10))
    late = [dataclasses.replace(chunk, weight=np.where((chunk.antenna1 < 3)[:, None, None], np.float32(0.0), chunk.weight))
            for chunk in chunks[5:]]  # fmt: skip
    verdict, _ = _survey(chunks[:5] + late)
    np.testing.assert_allclose(verdict.by_time, 1.0, atol=0.05)
    true = noisy[verdict.baselines[:, 0]] * noisy[verdict.baselines[:, 1]]
    np.testing.assert_allclose(verdict.by_baseline / true, np.mean(verdict.by_baseline / true), rtol=0.15)


def test_a_stranger_between_known_baselines_keeps_its_weight() -> None:
    chunks = _chunks(np.random.default_rng(6), 2, np.linspace(0.3, 3.0, ANTENNAS), np.ones(2))
    odd = [dataclasses.replace(chunk, antenna1=2 * chunk.antenna1, antenna2=2 * chunk.antenna2) for chunk in chunks]
    verdict, _ = _survey(odd)
    between = dataclasses.replace(odd[0], antenna1=np.full_like(odd[0].antenna1, 3), antenna2=np.full_like(odd[0].antenna2, 5))
    np.testing.assert_allclose(verdict.correct(between).weight, between.weight / verdict.by_time[0], rtol=1e-5)


def test_means_under_corrected_weights_scatter_as_claimed() -> None:
    """Few integrations and channels a baseline, weights that scatter widely: chi^2 of the cells' means over the claimed variance.

    100 sets of 9 baselines: 5.5 % is 3 standard errors; without the inflation it is 1.10.
    """
    rng = np.random.default_rng(7)
    first, second = np.triu_indices(ANTENNAS, 1)
    ratios = []
    for _ in range(100):
        place = np.repeat(rng.integers(1, 6, (6, 2)), 6, axis=0) * GRID.cell_size
        place = np.concatenate([place, np.zeros((36, 1))], axis=1)
        factor = np.exp(rng.normal(0.0, 0.8, first.size))
        white = rng.standard_normal((4, first.size, 8, 2, 2)) @ np.array([1.0, 1.0j])
        data = (white * np.sqrt(factor)[:, None, None]).reshape(-1, 8, 2)
        chunk = VisibilityChunk(uvw=np.tile(place, (4, 1)), data=data.astype(np.complex64),
                                weight=np.ones((4 * first.size, 8, 2), dtype=np.float32), antenna1=np.tile(first, 4),
                                antenna2=np.tile(second, 4), time=np.full(4 * first.size, 1e9), flagged=0, unweighted=0)
        response = SpectralResponse(hanning=False)
        gridder, survey = BlockGridder(GRID, 8), NoiseSurvey(response, 8, 1e9, 1e9 + 1.0)
        survey.add(chunk, gridder.add(chunk))
        verdict = survey.finish()
        assert verdict is not None
        again = BlockGridder(GRID, 8)
        again.add(verdict.correct(chunk))
        sums = again.finish()
        noise = measure_noise(sums, response, inflation=verdict.inflation)
        ratios.append(np.mean(np.abs(sums.mean) ** 2 / noise.standard_error**2) / 2.0)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.055)


def test_weights_wrong_in_time_alone_are_worth_correcting() -> None:
    time = np.array([1.0, 3.0, 0.5, 2.0, 1.0, 0.4])
    verdict, _ = _survey(_chunks(np.random.default_rng(8), 2, np.ones(ANTENNAS), time))
    assert verdict.spreads[0] is not None and verdict.spreads[0] < 0.03 < 0.2 < (verdict.spreads[1] or 0.0) and verdict.worth_correcting
    assert np.average(verdict.by_time) == pytest.approx(1.0, abs=0.02) and np.average(verdict.by_baseline) == pytest.approx(1.0, abs=0.02)
    assert len(verdict.times) == 6 and np.allclose(np.diff(verdict.times), STRETCH)


@pytest.mark.parametrize(("minutes", "stretch"), [(5.0, 30.0), (60.0, 300.0), (600.0, 600.0)])
def test_stretches_are_a_twelfth_of_the_block(minutes: float, stretch: float) -> None:
    rng = np.random.default_rng(9)
    survey, gridder = NoiseSurvey(HANNING, CHANNELS, 1e9, 1e9 + 60.0 * minutes), BlockGridder(GRID, CHANNELS, HANNING.lags)
    for chunk in _chunks(rng, 2, np.ones(ANTENNAS), np.ones(1)):
        when = 1e9 + np.linspace(0.0, 60.0 * minutes * 0.999, chunk.time.size)
        one = dataclasses.replace(chunk, time=when)
        survey.add(one, gridder.add(one))
    verdict = survey.finish()
    assert verdict is not None and np.allclose(np.diff(verdict.times), stretch) and verdict.times[0] == 1e9
