"""Channel response, frames against casatools' measures, choice of channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.constants import SPEED_OF_LIGHT
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.spectral import (
    Band,
    SpectralResponse,
    choose_channels,
    detect_response,
    frame_factor,
    frequency_of_velocity,
    resolution_in_channels,
    velocity_of_frequency,
)
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DataError, DomainError

ALMA = np.array([2225142.18, -5440307.37, -2481029.85])


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


@pytest.mark.parametrize("frame", ["LSRK", "BARY", "GEO"])
@pytest.mark.parametrize("mjd", [49820.42, 58442.1, 58575.9, 60800.3])
@pytest.mark.parametrize("place", [(192.15, -5.8), (10.0, 60.0), (230.5, 5.07)])
def test_frames_agree_with_casatools_to_1_m_per_s(frame: str, mjd: float, place: tuple[float, float]) -> None:
    tools = import_casatools()
    measures, quanta = tools.measures(), tools.quanta()
    measures.doframe(measures.epoch("utc", quanta.quantity(mjd, "d")))
    longitude, latitude = np.arctan2(ALMA[1], ALMA[0]), np.arcsin(ALMA[2] / np.linalg.norm(ALMA))
    measures.doframe(measures.position("ITRF", quanta.quantity(longitude, "rad"), quanta.quantity(latitude, "rad"),
                                       quanta.quantity(float(np.linalg.norm(ALMA)), "m")))
    measures.doframe(measures.direction("ICRS", quanta.quantity(place[0], "deg"), quanta.quantity(place[1], "deg")))
    casa = measures.measure(measures.frequency("TOPO", quanta.quantity(1.0, "GHz")), frame)["m0"]["value"] / 1e9
    ours = frame_factor(mjd * 86400.0, ALMA, place, stored="TOPO", wanted=frame)
    assert abs(casa - 1.0) > 1e-8
    assert abs(ours - casa) * SPEED_OF_LIGHT * 1e3 < 0.3
    back = frame_factor(mjd * 86400.0, ALMA, place, stored=frame, wanted="TOPO")
    assert ours * back == pytest.approx(1.0, abs=1e-15)
    assert frame_factor(mjd * 86400.0, ALMA, place, stored=frame, wanted=frame) == 1.0


def test_dates_beyond_the_tables_of_earth_rotation_need_no_network() -> None:
    assert abs(frame_factor(69000 * 86400.0, ALMA, (192.0, -5.0), stored="TOPO", wanted="LSRK") - 1.0) < 2e-4


def test_an_unknown_frame_is_named() -> None:
    with pytest.raises(DataError, match="got 'REST'"):
        frame_factor(5e9, ALMA, (0.0, 0.0), stored="REST", wanted="LSRK")


@settings(deadline=None)
@given(st.floats(-3000, 30000), st.sampled_from(["radio", "optical"]))
def test_velocity_and_frequency_are_inverse(velocity: float, convention: str) -> None:
    frequency = frequency_of_velocity(velocity, 230.538e9, convention)
    assert velocity_of_frequency(frequency, 230.538e9, convention) == pytest.approx(velocity, abs=1e-6)
    assert (frequency < 230.538e9) == (velocity > 0) or abs(velocity) < 1e-6


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(DomainError, match="relativistic"):
        velocity_of_frequency(1e9, 1e9, "relativistic")


def _band(name: str, systemic: float, factor: float, n: int = 64, shift: float = 0.0) -> Band:
    centre = frequency_of_velocity(systemic, 230.538e9, "radio") / factor
    return Band(name, centre + (np.arange(n) - (n - 1) / 2 + shift) * 15.625e6, 15.625e6, factor)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.9998, 1.0002), st.floats(-0.5, 0.5), st.floats(100.0, 400.0))
def test_channels_are_centred_on_the_range_in_every_block(factor: float, shift: float, half: float) -> None:
    bands = [_band("a", 1241.0, 1.0), _band("b", 1241.0, factor, shift=shift)]
    slices = choose_channels(bands, (1241.0 - half, 1241.0 + half), rest_frequency=230.538e9, frame="LSRK", convention="radio")
    counts = {piece.stop - piece.start for piece in slices}
    assert len(counts) == 1
    width = 15.625e6 / 230.538e9 * SPEED_OF_LIGHT
    assert abs(counts.pop() - 2 * half / width) <= 1.5
    for band, piece in zip(bands, slices):
        velocity = velocity_of_frequency(band.frequency[piece] * band.factor, 230.538e9, "radio")
        assert abs(velocity.mean() - 1241.0) <= 0.51 * width


@pytest.mark.parametrize(("wanted", "words"), [
    ((3000.0, 3300.0), r"inside the band, got 3000 to 3300 km/s \(LSRK, radio\) for a, whose channels cover 590.*GHz"),
    ((1000.0, 2000.0), "inside the band"),
    ((1240.0, 1245.0), "at least 2 channels")])
def test_a_line_outside_the_band_is_refused(wanted: tuple[float, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        choose_channels([_band("a", 1241.0, 1.0)], wanted, rest_frequency=230.538e9, frame="LSRK", convention="radio")
