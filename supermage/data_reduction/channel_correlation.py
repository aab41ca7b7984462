"""The noise's correlation along the channels, measured from differences that hold no source, and the response that it speaks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from supermage.data_reduction.history import Processing
from supermage.data_reduction.response import SpectralResponse, after
from supermage.data_reduction.visibilities import ExecutionBlock, SpectralWindow, VisibilityChunk

FloatArray = NDArray[np.float64]

HANDS, TIMES = "difference of hands", "difference of integrations"

LAGS = 8
"""Highest lag; channels further apart count as independent."""

PRODUCTS = 20_000_000
"""Most products of channels that enter a measurement: lag 1 is then known to better than 0.001."""

DOUBTFUL_SIGMA, DOUBTFUL_LAG = 5.0, 0.05
"""Measured and expected lag 1 must differ by more than both to be told."""

UNKNOWN_FRACTION = 0.5 - 0.5 * 3.0**-0.5
"""Fraction of the interpolation where it cannot be measured, 0.211: that whose broadening is the mean over all offsets, f (1 - f) = 1/6."""

_BATCHES, _LONGEST_PAIR = 32, 120.0
_WORTH_A_FRACTION, _KNOWN, _MODEL_ERROR = 4.0, 0.05, 0.01


LEAST_CHANNELS = 8


class Source(Protocol):
    """What visibilities are read from."""

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        """Stream the cross-correlations of a block."""


@dataclass(frozen=True, eq=False)
class ChannelCorrelation:
    """Noise correlation along the channels, as measured.

    Attributes
    ----------
    lags
        Correlation of channels 0, 1, 2, ... apart, shape (lag,); 1 at 0.
    standard_error
        Of ``lags``, shape (lag,); 0 at 0.
    products
        Pairs of channels that entered.
    estimator
        `HANDS` or `TIMES`.
    """

    lags: FloatArray
    standard_error: FloatArray
    products: int
    estimator: str

    def differs_from(self, response: SpectralResponse) -> bool:
        """Whether lag 1 is not what a response makes it: by more than 5 standard errors and 0.05."""
        return is_doubtful(self.to_json(response))

    def misfit(self, response: SpectralResponse) -> float:
        """Chi^2 of lags 1 and 2 against a response, each with 0.01 for what a stationary response cannot be."""
        expected = np.array([lag_of(response, lag) for lag in range(1, self.lags.size)][:2])
        return float(np.sum((self.lags[1:3] - expected) ** 2 / (self.standard_error[1:3] ** 2 + _MODEL_ERROR**2)))

    def to_json(self, response: SpectralResponse) -> dict[str, Any]:
        """Measured against expected, for the provenance."""
        return {"measured": self.lags.round(4).tolist(), "standard_error": self.standard_error.round(5).tolist(),
                "expected": [round(lag_of(response, lag), 4) for lag in range(self.lags.size)], "products": self.products,
                "estimator": self.estimator}


def is_doubtful(facts: Mapping[str, Any]) -> bool:
    """Whether lag 1 is not as expected, by more than 5 standard errors and 0.05: of what `ChannelCorrelation.to_json` stored."""
    return abs(facts["measured"][1] - facts["expected"][1]) > max(DOUBTFUL_SIGMA * facts["standard_error"][1], DOUBTFUL_LAG)


def lag_of(response: SpectralResponse, lag: int) -> float:
    """Noise correlation that a response gives to channels ``lag`` apart."""
    lags = response.lags
    return float(lags[lag]) if lag < lags.size else 0.0


class LagAccumulator:
    """Accumulates the products of channels of one or more blocks, in one pass and little memory.

    Both hands: their difference x1 - x2, with the weight w1 w2 / (w1 + w2). One hand: the difference of two consecutive integrations of a
    baseline, each used once. With d such a difference and s its standard deviation from the weights, the mean of ``|d_i - d_(i+k)|^2 /
    (2 s_i s_(i+k))`` is 1 - rho_k times the noise's scale, and whatever is flat along the channels drops out, flags or not. Lags above the
    highest measured one, up to twice it, give the scale. Standard errors come from leaving out one of 32 batches of rows.

    Parameters
    ----------
    n_channel
        Channels; with fewer than 17 the highest lag is below 8, half of those that are left, and with fewer than 8 there is none: lags that
        stand for no correlation must lie beyond what a correlator correlates.
    rows
        How many rows will come, about; fewer are looked at where they would give more than ``products``.
    products
        Most pairs of channels that enter.
    """

    def __init__(self, n_channel: int, rows: int, products: int = PRODUCTS) -> None:
        self.n_lag = min(LAGS, (n_channel - 1) // 2) if n_channel >= LEAST_CHANNELS else 0
        highest = min(2 * self.n_lag, n_channel - 1)
        each = sum(n_channel - lag for lag in range(1, highest + 1))
        self._share = min(1.0, products / max(rows * each, 1))
        self._sums = np.zeros((_BATCHES, highest + 1, 2))
        self._seen, self._used = 0, 0
        self._waiting: VisibilityChunk | None = None
        self._by_time = False

    def add(self, chunk: VisibilityChunk) -> None:
        """Add a chunk of visibilities."""
        if self.n_lag < 1:
            return
        if chunk.data.shape[2] == 1:
            self._by_time = True
            chunk = self._paired(chunk)
        rows = chunk.data.shape[0]
        # the golden ratio picks rows evenly, whatever the order of baselines
        number = np.arange(self._seen, self._seen + rows)
        keep = np.flatnonzero((number * 0.6180339887498949) % 1.0 < self._share)
        self._seen += rows
        data, weight = (np.ascontiguousarray(array if keep.size == rows else array[keep]) for array in (chunk.data, chunk.weight))
        _add_products(data, weight, self._used, self._sums)
        self._used += keep.size

    def _paired(self, chunk: VisibilityChunk) -> VisibilityChunk:
        """Consecutive integrations of a baseline side by side, as if they were two hands; the odd one out waits for the next chunk."""
        if self._waiting is not None:
            chunk = _joined(self._waiting, chunk)
        order = np.lexsort((chunk.time, chunk.antenna2, chunk.antenna1))
        baseline = np.stack([chunk.antenna1[order], chunk.antenna2[order]])
        new = np.concatenate([[True], (baseline[:, 1:] != baseline[:, :-1]).any(axis=0)]) if order.size else np.zeros(0, dtype=bool)
        place = np.arange(order.size) - np.maximum.accumulate(np.where(new, np.arange(order.size), 0))
        last = np.append(new[1:], True)[:order.size]
        first = np.flatnonzero((place % 2 == 0) & ~last)
        self._waiting = _rows_of(chunk, order[np.flatnonzero((place % 2 == 0) & last)])
        near = np.abs(chunk.time[order[first + 1]] - chunk.time[order[first]]) <= _LONGEST_PAIR
        before, after = order[first[near]], order[first[near] + 1]
        return replace(_rows_of(chunk, before), data=np.concatenate([chunk.data[before], chunk.data[after]], axis=2),
                       weight=np.concatenate([chunk.weight[before], chunk.weight[after]], axis=2))

    def finish(self) -> ChannelCorrelation | None:
        """Correlation from everything added; None where there is too little of it, such as one integration of one hand, or no noise."""
        products = self._sums[:, :, 1].sum(axis=0)
        filled = np.flatnonzero(self._sums[:, 1:, 1].any(axis=1)) if self.n_lag >= 1 else np.zeros(0, dtype=int)
        if filled.size < 2 or not (products[1:] > 0).all():
            return None
        total = self._sums.sum(axis=0)
        if not total[self.n_lag + 1:, 0].sum() > 0:
            return None
        lags = _lags(total, self.n_lag)
        without = np.stack([_lags(total - self._sums[batch], self.n_lag) for batch in filled])
        spread = (filled.size - 1) / filled.size * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
        return ChannelCorrelation(lags=lags, standard_error=np.sqrt(spread), products=int(products[1:].sum()),
                                  estimator=TIMES if self._by_time else HANDS)


def _lags(sums: FloatArray, n_lag: int) -> FloatArray:
    scale = sums[n_lag + 1:, 0].sum() / sums[n_lag + 1:, 1].sum()
    unlike = sums[1:n_lag + 1, 0] / np.maximum(sums[1:n_lag + 1, 1], 1.0)
    return np.concatenate([[1.0], 1.0 - unlike / scale])


def _rows_of(chunk: VisibilityChunk, rows: NDArray[np.int64]) -> VisibilityChunk:
    return replace(chunk, uvw=chunk.uvw[rows], data=chunk.data[rows], weight=chunk.weight[rows], antenna1=chunk.antenna1[rows],
                   antenna2=chunk.antenna2[rows], time=chunk.time[rows])


def _joined(one: VisibilityChunk, other: VisibilityChunk) -> VisibilityChunk:
    return replace(
        other, uvw=np.concatenate([one.uvw, other.uvw]), data=np.concatenate([one.data, other.data]),
        weight=np.concatenate([one.weight, other.weight]), antenna1=np.concatenate([one.antenna1, other.antenna1]),
        antenna2=np.concatenate([one.antenna2, other.antenna2]), time=np.concatenate([one.time, other.time]))


@numba.njit(nogil=True)
def _add_products(data, weight, used, sums):  # type: ignore[no-untyped-def]  # compiled
    n_row, n_channel, _ = data.shape
    n_batch, n_lag, _ = sums.shape
    real, imaginary, root = np.empty(n_channel), np.empty(n_channel), np.empty(n_channel)
    for row in range(n_row):
        for c in range(n_channel):
            w1, w2 = np.float64(weight[row, c, 0]), np.float64(weight[row, c, 1])
            root[c] = np.sqrt(w1 * w2 / (w1 + w2)) if w1 > 0.0 and w2 > 0.0 else 0.0
            real[c] = np.float64(data[row, c, 0].real) - np.float64(data[row, c, 1].real)
            imaginary[c] = np.float64(data[row, c, 0].imag) - np.float64(data[row, c, 1].imag)
        batch = sums[(used + row) % n_batch]
        for lag in range(1, n_lag):
            total, count = 0.0, 0
            for c in range(n_channel - lag):
                w = root[c] * root[c + lag]
                if w > 0.0:
                    x, y = real[c] - real[c + lag], imaginary[c] - imaginary[c + lag]
                    total += 0.5 * w * (x * x + y * y)
                    count += 1
            batch[lag, 0] += total
            batch[lag, 1] += count


def sample_correlation(source: Source, blocks: Sequence[tuple[ExecutionBlock, slice]], *, rows: int = 2000, products: int = PRODUCTS,
                       slices: int = 4) -> ChannelCorrelation | None:
    """Measure the correlation from a part of each block: rows from the start of each of its quarters, no more than are needed.

    Parameters
    ----------
    source
        The open set.
    blocks
        Each with its channels, the same number in every block.
    rows
        Rows a chunk.
    products
        Most pairs of channels that enter.
    slices
        Parts of a block's time that are looked into; 1 where the source can only be read from its beginning.

    Returns
    -------
    ChannelCorrelation or None
        None where it cannot be measured: fewer than 8 channels, or one integration of one hand.
    """
    n_channel = len(range(*blocks[0][1].indices(blocks[0][0].window.n_channel)))
    lags = LagAccumulator(n_channel, rows=0, products=products)
    if lags.n_lag < 1:
        return None
    chunks = max(1, -(-products // (2 * n_channel * lags.n_lag * rows * slices * len(blocks))))
    for block, channels in blocks:
        whole = block.rows <= chunks * rows * slices
        ends = np.linspace(block.start, block.stop, 2 if whole else slices + 1).tolist()
        for start, stop in pairwise(ends):
            piece = replace(block, start=start, stop=stop)
            for chunk in islice(source.chunks(piece, channels=channels, rows=rows), None if whole else chunks):
                lags.add(chunk)
    return lags.finish()


def settle_response(response: SpectralResponse, measured: ChannelCorrelation | None, window: SpectralWindow,
                    processing: Processing) -> SpectralResponse:
    """The response of a regridded set: with the interpolation that fits the noise's lags 1 and 2 best. Of any other set, as it is.

    A new channel lies f of a channel from the nearer old one, and f changes with time, block and channel, so the f that is found is one
    that stands for all of them. Where the channels before the regridding, or their width, are not known either, no smoothing and Hanning
    with averaging 1, 2 and 4 are tried as well. Whatever filter made the noise's correlation acted on the line too, so its taps are the
    model's. Where lag 1 is not known to 0.05, the fraction is `UNKNOWN_FRACTION` if the history tells of a regridding, else 0.

    Parameters
    ----------
    response
        As `detect_response` found it.
    measured
        The noise's correlation.
    window, processing
        The spectral window, and what was done to it.
    """
    if not processing.regridded:
        return response
    if measured is None or measured.standard_error[1] > _KNOWN:
        return response.interpolated(round(UNKNOWN_FRACTION, 3)) if processing.interpolation else response
    tried = [response]
    if not (window.window_function and processing.new_width):
        natives = [SpectralResponse(hanning=hanning, averaging=n) for hanning, n in ((False, 1), (True, 1), (True, 2), (True, 4))]
        tried += [after(native, processing) for native in natives]
    return min((_interpolated_to_fit(one, measured) for one in tried), key=measured.misfit)


def _interpolated_to_fit(response: SpectralResponse, measured: ChannelCorrelation) -> SpectralResponse:
    """With the best fraction; without interpolation where that fits about as well."""
    found = optimize.minimize_scalar(lambda f: measured.misfit(response.interpolated(f)), bounds=(0.0, 0.5), method="bounded",
                                     options={"xatol": 1e-4})
    with_it = response.interpolated(round(min(max(float(found.x), 0.0), 0.5), 3))
    return with_it if measured.misfit(with_it) < measured.misfit(response) - _WORTH_A_FRACTION else response
