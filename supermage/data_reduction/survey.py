"""What a set's weights are worth: noise against weight by baseline and in time, and the factors that put it right."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.gridding import RowNoise
from supermage.data_reduction.moderation import LEAST_MEMBERS, VariancePrior, fit_variance_prior
from supermage.data_reduction.noise import LEAST_CHANNELS_FOR_FLAT, channel_pooling
from supermage.data_reduction.spectral import SpectralResponse
from supermage.data_reduction.visibilities import VisibilityChunk

FloatArray = NDArray[np.float64]

TIME_BINS = (30.0, 600.0)
"""Shortest and longest stretch, s, a block being cut into twelve if that lies between: system temperatures follow elevation and weather."""

WORTH_CORRECTING = 0.05
"""Spread of the noise against the weights, in log sigma, from which on a second pass with corrected weights is worth its time."""


@dataclass(frozen=True, eq=False)
class WeightVerdict:
    """How the noise of one execution block departs from its weights.

    Attributes
    ----------
    baselines
        Antenna numbers, shape (baseline, 2).
    by_baseline
        Moderated variance times weight of each baseline over the block's, shape (baseline,).
    baseline_prior
        Distribution of the true ones.
    times
        First second of every stretch, shape (time,).
    by_time, time_prior
        As for baselines.
    """

    baselines: NDArray[np.int64]
    by_baseline: FloatArray
    baseline_prior: VariancePrior
    times: FloatArray
    by_time: FloatArray
    time_prior: VariancePrior

    @property
    def spreads(self) -> tuple[float | None, float | None]:
        """Spread of the noise against the weights, in log sigma, between baselines and in time; None where there are too few to say."""
        pairs = (self.by_baseline, self.baseline_prior), (self.by_time, self.time_prior)
        baselines, times = (prior.spread if len(factors) >= LEAST_MEMBERS else None for factors, prior in pairs)
        return baselines, times

    @property
    def worth_correcting(self) -> bool:
        """Whether the weights are wrong enough, between baselines or in time, to be corrected."""
        return max(spread or 0.0 for spread in self.spreads) > WORTH_CORRECTING

    def correct(self, chunk: VisibilityChunk) -> VisibilityChunk:
        """The chunk with its weights divided by the factors of its baselines and times."""
        place = np.searchsorted(_key(self.baselines[:, 0], self.baselines[:, 1]), _key(chunk.antenna1, chunk.antenna2))
        when = np.clip(np.searchsorted(self.times, chunk.time, side="right") - 1, 0, self.times.size - 1)
        known = place < self.by_baseline.size
        factor = np.where(known, self.by_baseline[np.where(known, place, 0)], 1.0) * self.by_time[when]
        return dataclasses.replace(chunk, weight=(chunk.weight / factor[:, None, None]).astype(np.float32))


class NoiseSurvey:
    """Accumulates what rows tell of the noise, by baseline and in time.

    Parameters
    ----------
    response
        The channels' spectral response, which says what pooling over channels is worth.
    n_channel
        Channels of the block.
    start, stop
        Its first and last time stamp, s.
    """

    def __init__(self, response: SpectralResponse, n_channel: int, start: float, stop: float) -> None:
        flat = n_channel >= LEAST_CHANNELS_FOR_FLAT
        hands, lost = channel_pooling(response, n_channel, flat=flat)
        times, _ = channel_pooling(response, n_channel, flat=False)
        number = np.arange(1, n_channel + 1)
        self._expected = np.stack([2.0 * (number - lost), 2.0 * number], axis=1)
        self._degrees = np.stack([2.0 * hands, 2.0 * times], axis=1)
        self._start, self._bin = start, float(np.clip((stop - start) / 12.0, *TIME_BINS))
        self._baseline: dict[int, FloatArray] = {}
        self._time: dict[int, FloatArray] = {}

    def add(self, chunk: VisibilityChunk, rows: RowNoise) -> None:
        """Add what the gridder found in a chunk."""
        kind = np.where(rows.number[:, 0] > 0, 0, 1)
        each = np.arange(kind.size)
        number = rows.number[each, kind]
        used = np.flatnonzero(number > 0)
        if not used.size:
            return
        place, kind = number[used] - 1, kind[used]
        values = np.stack([rows.square[used, kind], self._expected[place, kind], self._degrees[place, kind]], axis=1)
        stretch = ((chunk.time[used] - self._start) // self._bin).astype(np.int64)
        for store, keys in ((self._baseline, _key(chunk.antenna1[used], chunk.antenna2[used])), (self._time, stretch)):
            unique, inverse = np.unique(keys, return_inverse=True)
            for key, total in zip(unique.tolist(), _sum_by(inverse.ravel(), values, unique.size)):
                store[key] = store.get(key, 0.0) + total

    def finish(self) -> WeightVerdict | None:
        """The verdict; None where no differences were found."""
        if not self._baseline:
            return None
        keys = np.array(sorted(self._baseline), dtype=np.int64)
        by_baseline, baseline_prior = _factors(np.stack([self._baseline[key] for key in keys.tolist()]))
        stretches = np.array(sorted(self._time), dtype=np.int64)
        by_time, time_prior = _factors(np.stack([self._time[key] for key in stretches.tolist()]))
        times = np.asarray(self._start + self._bin * stretches, dtype=np.float64)
        return WeightVerdict(baselines=np.stack([keys // 2**32, keys % 2**32], axis=1), by_baseline=by_baseline,
                             baseline_prior=baseline_prior, times=times, by_time=by_time, time_prior=time_prior)


def _key(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(first, dtype=np.int64) * 2**32 + second


def _sum_by(group: NDArray[np.intp], values: FloatArray, size: int) -> FloatArray:
    return np.stack([np.bincount(group, values[:, column], size) for column in range(values.shape[1])], axis=1)


def _factors(sums: FloatArray) -> tuple[FloatArray, VariancePrior]:
    """Moderated factors, mean 1 by degrees of freedom, from rows of (square, expected, degrees)."""
    square, expected, degrees = sums.T
    ratio = square / expected / (square.sum() / expected.sum()) if square.sum() > 0 else np.ones(len(sums))
    good = (ratio > 0) & (degrees > 0)
    prior = fit_variance_prior(ratio[good], degrees[good])
    moderated, _ = prior.shrink(np.where(good, ratio, prior.scale), np.where(good, degrees, 0.0))
    return moderated / np.average(moderated, weights=np.maximum(degrees, 1e-12)), prior
