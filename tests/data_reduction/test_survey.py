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
    gridder, survey = BlockGridder(GRID, CHANNELS), NoiseSurvey(HANNING, CHANNELS, 1e9, 1e9 + 12 * STRETCH)
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
