"""Response of a channel: its noise and its line, built step by step, and read from the window and what was done to it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.data_reduction.history import Operation, Processing
from supermage.data_reduction.response import SpectralResponse, after, detect_response, resolution_in_channels
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DomainError


@pytest.mark.parametrize(("averaging", "lag_one", "resolution", "pooling"),
                         [(1, 2 / 3, 2.0, 1.94), (2, 0.3, 1.156, 1.18), (4, 0.115, 0.992, 1.03)])
def test_hanning_numbers(averaging: int, lag_one: float, resolution: float, pooling: float) -> None:
    response = SpectralResponse(hanning=True, averaging=averaging)
    assert response.lags[1] == pytest.approx(lag_one, abs=5e-4)
    assert resolution_in_channels(response) == pytest.approx(resolution, abs=1e-3)
    assert response.pooling_factor(10_000) == pytest.approx(pooling, abs=5e-3)
    assert response.taps.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(response.taps, response.taps[::-1])


@pytest.mark.parametrize("averaging", [1, 2, 4])
def test_correlation_against_smoothed_white_noise(averaging: int) -> None:
    """400 000 samples: each lag's error is below 0.01 but for 1 seed in a million."""
    rng = np.random.default_rng(3)
    response = SpectralResponse(hanning=True, averaging=averaging)
    channels = np.convolve(rng.standard_normal(400_000 * averaging), response.taps, mode="valid")[::averaging]
    for lag in range(1, 4):
        measured = np.mean(channels[lag:] * channels[:-lag]) / np.mean(channels**2)
        expected = response.correlation(8, floor=0.0)[0, lag]
        assert abs(measured - expected) < 0.01


@settings(deadline=None)
@given(st.integers(1, 80), st.sampled_from([1, 2, 3, 4, 8]), st.booleans())
def test_correlation_is_positive_definite(n: int, averaging: int, hanning: bool) -> None:
    matrix = SpectralResponse(hanning=hanning, averaging=averaging).correlation(n)
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    assert np.linalg.eigvalsh(matrix).min() > 0.0099


def test_averaging_must_be_positive() -> None:
    with pytest.raises(DomainError, match="got 0"):
        SpectralResponse(hanning=True, averaging=0)


def _window(ratio: float, function: str = "", bins: int = 0) -> SpectralWindow:
    return SpectralWindow(0, np.arange(8) * 1e6 + 1e11, 1e6, ratio * 1e6, "TOPO", function, bins)


@pytest.mark.parametrize(("ratio", "function", "bins", "hanning", "averaging"), [
    (2.0, "", 0, True, 1), (1.156, "", 0, True, 2), (0.992, "", 0, True, 4), (1.0, "", 0, False, 1), (0.0, "", 0, False, 1),
    (1.156, "HANNING", 2, True, 2), (1.0, "UNIFORM", 1, False, 1), (1.0, "HANNING", 1, False, 1), (0.9996, "HANNING", 8, True, 8)])
def test_response_is_read_from_the_window(ratio: float, function: str, bins: int, hanning: bool, averaging: int) -> None:
    response, words = detect_response(_window(ratio, function, bins), "ALMA")
    assert response == SpectralResponse(hanning=hanning, averaging=averaging)
    assert words


@pytest.mark.parametrize(("ratio", "function", "bins", "averaging"), [
    (1.5, "", 0, 2), (4 / 3, "", 0, 3), (1.25, "", 0, 4), (1.125, "", 0, 8), (1.078, "", 0, 4), (1 + 0.156 / 8, "", 0, 16),
    (1.5, "HANNING", 1, 2), (1.125, "HANNING", 1, 8), (1.078, "HANNING", 2, 4), (0.9985, "HANNING", 4, 4)])
def test_averaging_of_which_the_history_is_silent(ratio: float, function: str, bins: int, averaging: int) -> None:
    response, words = detect_response(_window(ratio, function, bins), "ALMA")
    assert response == SpectralResponse(hanning=True, averaging=averaging)
    assert ("averaged over" in words) == (averaging != max(bins, 1))


@pytest.mark.parametrize(("ratio", "function", "bins", "operations", "expected"), [
    (1.5, "", 0, (("average", 2),), SpectralResponse(True, 2)),
    (1.5, "HANNING", 1, (("average", 2),), SpectralResponse(True, 2)),
    (1.25, "", 0, (("average", 2),), SpectralResponse(True, 4)),
    (2.0, "", 0, (("average", 2),), SpectralResponse(True, 2)),
    (1.0, "", 0, (("average", 2),), SpectralResponse(False, 2)),
    (1.078, "", 0, (("average", 2), ("smooth", 1)), SpectralResponse(True, 4, (("smooth", 1),))),
    (2.0, "", 0, (("smooth", 1), ("average", 2)), SpectralResponse(True, 1, (("smooth", 1), ("average", 2)))),
    (1.0, "HANNING", 2, (("regrid", 1),), SpectralResponse(True, 2)),
    (1.0, "HANNING", 2, (("regrid", 4),), SpectralResponse(True, 2, (("widen", 4),))),
    (1.0, "", 0, (("smooth", 1), ("regrid", 0)), SpectralResponse(False, 1, (("smooth", 1),))),
    (2.0, "", 0, (("regrid", 0),), SpectralResponse(True, 1))])
def test_the_history_goes_into_the_response(ratio: float, function: str, bins: int, operations: tuple[Operation, ...],
                                            expected: SpectralResponse) -> None:
    processing = Processing(operations, steps=("so it went",))
    response, words = detect_response(_window(ratio, function, bins), "ALMA", processing)
    assert response == expected
    assert words.endswith("; so it went")


def test_no_history_changes_nothing() -> None:
    window = _window(1.156)
    assert detect_response(window, "ALMA", Processing()) == detect_response(window, "ALMA")
    assert after(SpectralResponse(True, 2), Processing()) == SpectralResponse(True, 2)


STEPS = st.lists(st.one_of(
    st.tuples(st.just("average"), st.integers(1, 4)), st.tuples(st.just("smooth"), st.integers(1, 2)),
    st.tuples(st.just("widen"), st.integers(2, 4)), st.tuples(st.just("interpolate"), st.floats(0.0, 0.5))), max_size=3)


def _made(hanning: bool, averaging: int, steps: list[tuple[str, float]]) -> SpectralResponse:
    return SpectralResponse(hanning=hanning, averaging=averaging, steps=tuple(steps))


@settings(deadline=None, max_examples=60)
@given(st.booleans(), st.integers(1, 4), STEPS)
def test_any_response_obeys_the_rules(hanning: bool, averaging: int, steps: list[tuple[str, float]]) -> None:
    response = _made(hanning, averaging, steps)
    for taps in (response.taps, response.line_taps):
        assert taps.sum() == pytest.approx(1.0)
        assert (taps >= 0).all()
    np.testing.assert_allclose(response.line_taps, response.line_taps[::-1], atol=1e-15)
    matrix = response.correlation(24)
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    assert np.linalg.eigvalsh(matrix).min() > 0.0099
    assert response.pooling_factor(24) >= 1.0
    assert SpectralResponse.from_json(json.loads(json.dumps(response.to_json()))) == response


@settings(deadline=None, max_examples=20)
@given(st.booleans(), st.integers(1, 4), STEPS, st.integers(0, 2**32 - 1))
def test_lags_are_those_of_noise_that_went_through_the_steps(hanning: bool, averaging: int, steps: list[tuple[str, float]],
                                                             seed: int) -> None:
    """Each step applied to the noise itself, channel by channel; lags to 5 of their standard errors (Bartlett), 1 in 10^5 is beyond."""
    response = _made(hanning, averaging, steps)
    noise = np.random.default_rng(seed).standard_normal(40_000 * response.spacing)
    if hanning:
        noise = np.convolve(noise, [0.25, 0.5, 0.25], mode="valid")
    noise = noise[: noise.size // averaging * averaging].reshape(-1, averaging).mean(axis=1)
    for kind, amount in steps:
        noise = _stepped(noise, kind, amount)
    for lag in range(1, 4):
        measured = np.mean(noise[lag:] * noise[:-lag]) / np.mean(noise**2)
        expected = response.correlation(8, floor=0.0)[0, lag]
        assert abs(measured - expected) < 5 * np.sqrt(2 * response.pooling_factor(1000) / noise.size)


def _stepped(noise: np.ndarray, kind: str, amount: float) -> np.ndarray:
    n = int(amount)
    if kind == "average":
        return noise[: noise.size // n * n].reshape(-1, n).mean(axis=1)
    if kind == "smooth":
        for _ in range(n):
            noise = 0.25 * noise[:-2] + 0.5 * noise[1:-1] + 0.25 * noise[2:]
        return noise
    if kind == "widen":
        halves = 0.5 * (noise[1:] + noise[:-1])
        return halves[: halves.size // n * n].reshape(-1, n).mean(axis=1)
    return (1 - amount) * noise[:-1] + amount * noise[1:]


def test_averaging_off_line_is_averaging_on_line() -> None:
    response = SpectralResponse(hanning=True, averaging=2)
    assert response.averaged(3) == SpectralResponse(hanning=True, averaging=6)
    np.testing.assert_allclose(SpectralResponse(True, 2, (("average", 3),)).taps, response.averaged(3).taps)
    assert response.averaged(1) == response.smoothed(0) == response.widened(1) == response.interpolated(0.0) == response
    assert response.smoothed().averaged(2).spacing == 4


def test_the_order_of_steps_matters() -> None:
    response = SpectralResponse(hanning=True)
    first, then = response.averaged(2).smoothed(), response.smoothed().averaged(2)
    assert first.lags[1] == pytest.approx(0.72619, abs=1e-5)
    assert then.lags[1] == pytest.approx(0.47619, abs=1e-5)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_an_interpolated_line_stays_and_is_broadened(fraction: float) -> None:
    """By f (1 - f) of a squared channel, as the asymmetric taps do about their own centre."""
    response = SpectralResponse(hanning=True, averaging=2).interpolated(fraction)

    def moments(taps: np.ndarray) -> tuple[float, float]:
        place = (np.arange(taps.size) - (taps.size - 1) / 2) / response.spacing
        mean = float(taps @ place)
        return mean, float(taps @ (place - mean) ** 2)

    _, wanted = moments(response.taps)
    mean, variance = moments(response.line_taps)
    assert mean == pytest.approx(0.0, abs=1e-15)
    assert variance == pytest.approx(wanted)
    assert resolution_in_channels(response) > resolution_in_channels(SpectralResponse(hanning=True, averaging=2))


@pytest.mark.parametrize(("count", "lag_one", "variance"), [(2, 1 / 6, 0.375), (4, 1 / 14, 0.21875), (8, 1 / 30, 0.1171875)])
def test_casas_wider_channels(count: int, lag_one: float, variance: float) -> None:
    """Measured with impulses sent through mstransform (casatasks 6.7)."""
    response = SpectralResponse(hanning=False).widened(count)
    assert response.lags[1] == pytest.approx(lag_one)
    assert np.sum(response.taps**2) == pytest.approx(variance)


@pytest.mark.parametrize(("step", "words"), [
    (("blur", 1), "got 'blur'"), (("interpolate", 0.6), "got 0.6"), (("average", 0), "got 0"), (("smooth", 1.5), "got 1.5")])
def test_wrong_steps_are_named(step: tuple[str, float], words: str) -> None:
    with pytest.raises(DomainError, match=words):
        SpectralResponse(hanning=True, steps=(step,))


def test_a_response_in_words() -> None:
    assert SpectralResponse(True, 2).words == "Hanning, averaging 2"
    assert SpectralResponse(False).averaged(4).smoothed().interpolated(0.211).words == (
        "no smoothing, averaging 4, then Hanning-smoothed 1 times, then interpolated with a fraction of 0.211")
