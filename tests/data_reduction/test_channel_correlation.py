"""The noise's correlation along the channels: against Monte Carlo with known taps, with a flat part, flags, one hand; on the real set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supermage.data_reduction.channel_correlation import (
    HANDS,
    TIMES,
    UNKNOWN_FRACTION,
    ChannelCorrelation,
    LagAccumulator,
    lag_of,
    sample_correlation,
    settle_response,
)
from supermage.data_reduction.history import Processing
from supermage.data_reduction.measurement_set import MeasurementSet
from supermage.data_reduction.response import SpectralResponse
from supermage.data_reduction.visibilities import ExecutionBlock, SpectralWindow, VisibilityChunk

HANNING, WHITE = SpectralResponse(hanning=True), SpectralResponse(hanning=False)
RESPONSES = [WHITE, HANNING, HANNING.averaged(2), HANNING.smoothed(), HANNING.averaged(2).smoothed(), HANNING.interpolated(0.3),
             WHITE.interpolated(0.5), HANNING.widened(2)]


def make_chunks(response: SpectralResponse, *, rows: int = 3000, n_channel: int = 48, hands: int = 2, seed: int = 1, flat: float = 5.0,
                flagged: float = 0.05, each: int = 700) -> list[VisibilityChunk]:
    """White native noise through the taps; weights that differ from row to row; a source in both hands, and a flat part unlike in them.

    Baselines come in turn, 60 of them, every 10 s.
    """
    rng = np.random.default_rng(seed)
    spacing, taps = response.spacing, response.taps
    native = n_channel * spacing + taps.size - 1
    white = rng.standard_normal((rows, hands, native, 2)).view(complex)[..., 0]
    noise = sum(tap * white[..., k:k + n_channel * spacing:spacing] for k, tap in enumerate(taps)) / np.sqrt(np.sum(taps**2))
    weight = np.broadcast_to(rng.uniform(0.2, 5.0, (rows, 1, hands)), (rows, n_channel, hands)).astype(np.float32)
    baseline, time = np.arange(rows) % 60, 10.0 * (np.arange(rows) // 60)
    source = 20.0 * np.exp(-0.5 * (np.arange(n_channel) - n_channel / 2) ** 2 / 9.0)[None, :, None] * np.exp(1j * baseline)[:, None, None]
    data = source + flat * rng.standard_normal((rows, 1, hands)) + noise.transpose(0, 2, 1) / np.sqrt(weight)
    weight = np.where(rng.uniform(size=weight.shape) < flagged, np.float32(0), weight)
    data = np.where(weight > 0, data, 0).astype(np.complex64)
    whole = VisibilityChunk(uvw=np.zeros((rows, 3)), data=data, weight=weight, antenna1=baseline, antenna2=baseline + 100, time=time,
                            flagged=0, unweighted=0)
    return [replace(whole, **{name: getattr(whole, name)[start:start + each]
                              for name in ("uvw", "data", "weight", "antenna1", "antenna2", "time")}) for start in range(0, rows, each)]


def measure(chunks: list[VisibilityChunk], **settings: int) -> ChannelCorrelation:
    lags = LagAccumulator(chunks[0].data.shape[1], **{"rows": 3000, **settings})
    for chunk in chunks:
        lags.add(chunk)
    found = lags.finish()
    assert found is not None
    return found


@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: response.words)
@pytest.mark.parametrize("hands", [2, 1])
def test_lags_of_known_taps(response: SpectralResponse, hands: int) -> None:
    """All 8 lags within 5 standard errors, which 128 comparisons at once leave with a chance of 1 in 400 (t of 31 degrees)."""
    found = measure(make_chunks(response, hands=hands, rows=3000 * (3 - hands)))
    expected = np.array([lag_of(response, lag) for lag in range(9)])
    assert found.estimator == (HANDS if hands == 2 else TIMES)
    assert found.lags[0] == 1.0
    assert found.standard_error[0] == 0.0
    assert found.products > 1e6
    assert np.all(np.abs(found.lags - expected)[1:] < 5 * found.standard_error[1:])
    assert found.standard_error[1] < 0.01
    assert not found.differs_from(response)


def test_standard_errors_are_right() -> None:
    """The scatter of lag 1 over 60 seeds is the mean standard error to 30 % (3 sigma of the scatter), and there is no bias."""
    found = [measure(make_chunks(HANNING.averaged(2), rows=400, n_channel=32, seed=seed), rows=400) for seed in range(60)]
    z = np.array([(one.lags[1:4] - [0.3, 0.0, 0.0]) / one.standard_error[1:4] for one in found])
    assert np.all(np.abs(z.mean(axis=0)) < 0.5)
    assert np.all(np.abs(z.std(axis=0) - 1.0) < 0.3)


def test_a_wrong_response_is_told_and_a_right_one_is_not() -> None:
    """At 5 standard errors and 0.05: with 100 sets of each response none is doubted (the chance is 2 in 10^5 each)."""
    for response in (WHITE, HANNING, HANNING.averaged(2)):
        for seed in range(100):
            found = measure(make_chunks(response, rows=128, n_channel=24, seed=seed), rows=128)
            assert not found.differs_from(response)
    found = measure(make_chunks(HANNING))
    for other in (WHITE, HANNING.averaged(2), HANNING.averaged(4), HANNING.smoothed()):
        assert found.differs_from(other)


def test_rows_are_thinned_to_the_products_that_are_wanted() -> None:
    chunks = make_chunks(HANNING, rows=4000)
    few = measure(chunks, rows=4000, products=300_000)
    assert 0.8 * 300_000 < few.products < 1.1 * 300_000
    assert abs(few.lags[1] - 2 / 3) < 5 * few.standard_error[1]
    assert few.standard_error[1] > 2 * measure(chunks, rows=4000).standard_error[1]


def test_the_size_of_the_chunks_does_not_matter() -> None:
    for hands in (1, 2):
        one = measure(make_chunks(HANNING, hands=hands, each=3000))
        many = measure(make_chunks(HANNING, hands=hands, each=97))
        np.testing.assert_allclose(one.lags, many.lags, atol=1e-6 if hands == 2 else 0.02)
        assert one.products == many.products


def test_integrations_far_apart_are_no_pair() -> None:
    chunks = [replace(chunk, time=100.0 * chunk.time) for chunk in make_chunks(HANNING, hands=1)]
    lags = LagAccumulator(48, rows=3000)
    for chunk in chunks:
        lags.add(chunk)
    assert lags.finish() is None


@pytest.mark.parametrize(("n_channel", "n_lag"), [(1, 0), (3, 0), (7, 0), (8, 3), (11, 5), (17, 8), (64, 8)])
def test_few_channels(n_channel: int, n_lag: int) -> None:
    lags = LagAccumulator(n_channel, rows=3000)
    for chunk in make_chunks(WHITE, n_channel=n_channel):
        lags.add(chunk)
    found = lags.finish()
    assert lags.n_lag == n_lag
    assert (found is None) == (n_lag == 0)
    if found is not None:
        assert found.lags.size == n_lag + 1
        assert np.all(np.abs(found.lags[1:]) < 5 * found.standard_error[1:])
        assert found.misfit(WHITE) < 25


def test_what_holds_no_noise_is_not_measured() -> None:
    lags = LagAccumulator(16, rows=3000)
    assert lags.finish() is None
    for chunk in make_chunks(WHITE, n_channel=16):
        lags.add(replace(chunk, weight=0 * chunk.weight))
    assert lags.finish() is None
    for chunk in make_chunks(WHITE, n_channel=16):
        lags.add(replace(chunk, data=np.ones_like(chunk.data)))
    assert lags.finish() is None


def test_the_alma_set(alma_set: Path) -> None:
    """One baseline, 40 integrations, 11 channels: lag 1 is 2/3 to what they can tell, 0.04, and so tells Hanning from any averaging."""
    with MeasurementSet(alma_set) as source:
        found = sample_correlation(source, [(source.blocks[0], slice(None))])
        one_hand = sample_correlation(_OneHand(source), [(source.blocks[0], slice(None))])
    for measured in (found, one_hand):
        assert measured is not None
        assert measured.lags.size == 6
        assert 0.01 < measured.standard_error[1] < 0.1
        assert abs(measured.lags[1] - 2 / 3) < 3 * measured.standard_error[1]
        assert not measured.differs_from(HANNING)
        assert measured.differs_from(HANNING.averaged(4))
    assert found is not None
    assert found.differs_from(HANNING.averaged(2))
    assert found.to_json(HANNING)["expected"][:3] == [1.0, 0.6667, 0.1667]


class _OneHand:
    def __init__(self, source: MeasurementSet) -> None:
        self._source = source

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        for chunk in self._source.chunks(block, channels=channels, rows=rows):
            yield replace(chunk, data=chunk.data[..., :1], weight=chunk.weight[..., :1])


class _Recorder:
    """A source that remembers what it was asked for."""

    def __init__(self) -> None:
        self.read: list[float] = []

    def chunks(self, block: ExecutionBlock, *, channels: slice = slice(None), rows: int = 2000) -> Iterator[VisibilityChunk]:
        for chunk in make_chunks(HANNING, rows=10 * rows, n_channel=16, each=rows):
            self.read.append(block.start)
            yield chunk


def test_a_long_block_is_read_in_part_all_along_it() -> None:
    window = SpectralWindow(0, np.arange(16) * 1e6 + 1e11, 1e6, 2e6, "TOPO")
    block = ExecutionBlock("a", 0, 0, window, ("XX", "YY"), (0, 1), (0,), 0.0, 4000.0, rows=10**7, autocorrelations=0)
    source = _Recorder()
    found = sample_correlation(source, [(block, slice(None))], rows=100, products=200_000)
    assert found is not None
    assert sorted(set(source.read)) == [0.0, 1000.0, 2000.0, 3000.0]
    assert found.products < 300_000


REGRIDDED = Processing((("regrid", 1),), interpolation="linear")
SILENT = Processing((("regrid", 0),))


def _window(function: str) -> SpectralWindow:
    return SpectralWindow(0, np.arange(16) * 1e6 + 1e11, 1e6, 1e6, "LSRK", function, 1)


@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("native", [HANNING, HANNING.averaged(2), WHITE])
def test_the_fraction_that_fits(native: SpectralResponse, fraction: float) -> None:
    """Where the correlator's words are known, f comes out to 0.05: the misfit is flat at f = 1/2, and at 0 for Hanning."""
    found = measure(make_chunks(native.interpolated(fraction), rows=6000), rows=6000)
    settled = settle_response(native, found, _window("HANNING"), REGRIDDED)
    assert replace(settled, steps=()) == native
    assert sum(amount for _, amount in settled.steps) == pytest.approx(fraction, abs=0.05)
    assert found.misfit(settled) < 9


@pytest.mark.parametrize("true", [HANNING.averaged(4).interpolated(0.2), HANNING.interpolated(0.4), WHITE, HANNING.averaged(2)])
def test_where_the_correlator_is_not_known_the_noise_decides(true: SpectralResponse) -> None:
    found = measure(make_chunks(true, rows=6000), rows=6000)
    settled = settle_response(WHITE, found, _window(""), SILENT)
    for lag in (1, 2):
        assert lag_of(settled, lag) == pytest.approx(lag_of(true, lag), abs=0.03)


def test_what_is_not_regridded_is_left_alone() -> None:
    found = measure(make_chunks(WHITE))
    assert settle_response(HANNING, found, _window(""), Processing()) == HANNING


def test_where_nothing_can_be_measured_the_mean_fraction_is_taken() -> None:
    """Only where the history tells of an interpolation; a frame may also be followed by the correlator."""
    vague = replace(measure(make_chunks(WHITE)), standard_error=np.full(9, 0.2))
    for nothing in (None, vague):
        assert settle_response(HANNING, nothing, _window(""), REGRIDDED) == HANNING.interpolated(0.211)
        assert settle_response(HANNING, nothing, _window(""), SILENT) == HANNING
    assert pytest.approx(1 / 6) == UNKNOWN_FRACTION * (1 - UNKNOWN_FRACTION)
