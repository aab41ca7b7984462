"""What a set's weights are worth: noise against weight by baseline and in time, and the factors that put it right."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.gridding import RowNoise
from supermage.data_reduction.moderation import LEAST_MEMBERS, VariancePrior, fit_variance_prior
from supermage.data_reduction.noise import channel_pooling
from supermage.data_reduction.spectral import SpectralResponse
from supermage.data_reduction.visibilities import VisibilityChunk

FloatArray = NDArray[np.float64]

TIME_BINS = (30.0, 600.0)
"""Shortest and longest stretch, s, a block being cut into twelve if that lies between: system temperatures follow elevation and weather."""

WORTH_CORRECTING = 0.05
"""Spread of the noise against the weights, in log sigma, from which on a second pass with corrected weights is worth its time."""


LEAST_EXPECTED = 0.5
"""Rows whose differences, less their flat part, hold less than this of their noise say nothing."""

ROUNDS = 8
"""In which the factors of baselines and times are fitted in turn."""


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
        As for baselines; both factors are fitted together.
    inflation
        By what the factors' own errors make a variance that was measured after the correction too small.
    """

    baselines: NDArray[np.int64]
    by_baseline: FloatArray
    baseline_prior: VariancePrior
    times: FloatArray
    by_time: FloatArray
    time_prior: VariancePrior
    inflation: float = 1.0

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
        keys, wanted = _key(self.baselines[:, 0], self.baselines[:, 1]), _key(chunk.antenna1, chunk.antenna2)
        place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
        when = np.clip(np.searchsorted(self.times, chunk.time, side="right") - 1, 0, self.times.size - 1)
        factor = np.where(keys[place] == wanted, self.by_baseline[place], 1.0) * self.by_time[when]
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
        hands, _ = channel_pooling(response, n_channel, flat=True)
        self._share = hands / np.maximum(np.arange(1, n_channel + 1), 1)
        self._start, self._bin = start, float(np.clip((stop - start) / 12.0, *TIME_BINS))
        self._found: dict[tuple[int, int], FloatArray] = {}

    def add(self, chunk: VisibilityChunk, rows: RowNoise) -> None:
        """Add what the gridder found in a chunk."""
        kind = np.where(rows.number[:, 0] > 0, 0, 1)
        each = np.arange(kind.size)
        number, expected = rows.number[each, kind], rows.expected[each, kind]
        used = np.flatnonzero(expected > LEAST_EXPECTED)
        if not used.size:
            return
        kind, expected = kind[used], expected[used]
        degrees = 2.0 * number[used] * self._share[np.minimum(number[used], self._share.size) - 1]
        values = np.stack([rows.square[used, kind], expected, np.minimum(degrees, expected)], axis=1)
        stretch = np.maximum((chunk.time[used] - self._start) // self._bin, 0.0).astype(np.int64)
        pairs = np.stack([_key(chunk.antenna1[used], chunk.antenna2[used]), stretch], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        for (key, when), total in zip(unique.tolist(), _sum_by(inverse.ravel(), values, len(unique))):
            self._found[key, when] = self._found.get((key, when), 0.0) + total

    def finish(self) -> WeightVerdict | None:
        """The verdict; None where no differences were found."""
        if not self._found:
            return None
        pairs = np.array(list(self._found), dtype=np.int64)
        square, expected, degrees = np.array(list(self._found.values())).T
        keys, baseline = np.unique(pairs[:, 0], return_inverse=True)
        stretches, when = np.unique(pairs[:, 1], return_inverse=True)
        baseline, when = baseline.ravel(), when.ravel()
        by_baseline, by_time = np.ones(keys.size), np.ones(stretches.size)
        for _ in range(ROUNDS):
            # each factor is the mean of what the other leaves: a baseline that stops half way says nothing of the other half
            by_baseline, baseline_prior, lost = _factors(baseline, square / by_time[when], expected, degrees, keys.size)
            by_time, time_prior, lost_in_time = _factors(when, square / by_baseline[baseline], expected, degrees, stretches.size)
        times = np.asarray(self._start + self._bin * stretches, dtype=np.float64)
        return WeightVerdict(baselines=np.stack([keys // 2**32, keys % 2**32], axis=1), by_baseline=by_baseline,
                             baseline_prior=baseline_prior, times=times, by_time=by_time, time_prior=time_prior,
                             inflation=1.0 + lost + lost_in_time)


def _key(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(first, dtype=np.int64) * 2**32 + second


def _sum_by(group: NDArray[np.intp], values: FloatArray, size: int) -> FloatArray:
    return np.stack([np.bincount(group, values[:, column], size) for column in range(values.shape[1])], axis=1)


def _factors(
    group: NDArray[np.intp], square: FloatArray, expected: FloatArray, degrees: FloatArray, size: int
) -> tuple[FloatArray, VariancePrior, float]:
    """Moderated factors of the groups, mean 1; their prior; and the share by which their errors make later variances too small.

    A factor f with d of its own and d0 prior degrees of freedom is fitted to the very noise that is measured again later, which takes
    2 / (d0 + d) off; and weights 1 / f overstate the weight of a mean by the variance of f, 2 d / (d0 + d)^2.
    """
    squares, wanted, freedom = (np.bincount(group, values, size).astype(np.float64) for values in (square, expected, degrees))
    ratio = squares / wanted / (squares.sum() / wanted.sum()) if squares.sum() > 0 else np.ones(size)
    good = (ratio > 0) & (freedom > 0)
    prior = fit_variance_prior(ratio[good], freedom[good])
    moderated, total = prior.shrink(np.where(good, ratio, prior.scale), np.where(good, freedom, 0.0))
    lost = np.where(np.isfinite(total), 2.0 / total * (1.0 + freedom / total), 0.0)
    return moderated / np.average(moderated, weights=np.maximum(wanted, 1e-12)), prior, float(np.average(lost, weights=wanted))
