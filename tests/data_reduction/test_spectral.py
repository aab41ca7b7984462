"""Frames against casatools' measures, choice of channels."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.utils import iers
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.constants import SPEED_OF_LIGHT
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.spectral import (
    Band,
    choose_channels,
    frame_factor,
    frequency_of_velocity,
    velocity_of_frequency,
)
from supermage.errors import DataError, DomainError

ALMA = np.array([2225142.18, -5440307.37, -2481029.85])
VLA = np.array([-1601185.4, -5041977.5, 3554875.9])


@pytest.mark.parametrize("frame", ["LSRK", "BARY", "GEO"])
@pytest.mark.parametrize("mjd", [49820.42, 55400.7, 58575.9, 60800.3])
@pytest.mark.parametrize("place", [(192.15, -5.8), (10.0, 60.0), (83.8, -69.5)])
@pytest.mark.parametrize("site", [ALMA, VLA], ids=["ALMA", "VLA"])
def test_frames_agree_with_casatools_to_a_third_of_1_m_per_s(frame: str, mjd: float, place: tuple[float, float], site: np.ndarray) -> None:
    """GEO alone is what the Earth's turn makes, up to 465 m/s; BARY adds its orbit, 30 km/s; LSRK the Sun's 20 km/s."""
    tools = import_casatools()
    measures, quanta = tools.measures(), tools.quanta()
    measures.doframe(measures.epoch("utc", quanta.quantity(mjd, "d")))
    longitude, latitude = np.arctan2(site[1], site[0]), np.arcsin(site[2] / np.linalg.norm(site))
    measures.doframe(measures.position("ITRF", quanta.quantity(longitude, "rad"), quanta.quantity(latitude, "rad"),
                                       quanta.quantity(float(np.linalg.norm(site)), "m")))
    measures.doframe(measures.direction("ICRS", quanta.quantity(place[0], "deg"), quanta.quantity(place[1], "deg")))
    casa = measures.measure(measures.frequency("TOPO", quanta.quantity(1.0, "GHz")), frame)["m0"]["value"] / 1e9
    ours = frame_factor(mjd * 86400.0, site, place, stored="TOPO", wanted=frame)
    assert abs(casa - 1.0) > 1e-10
    assert abs(ours - casa) * SPEED_OF_LIGHT * 1e3 < 0.3
    back = frame_factor(mjd * 86400.0, site, place, stored=frame, wanted="TOPO")
    assert ours * back == pytest.approx(1.0, abs=1e-15)
    assert frame_factor(mjd * 86400.0, site, place, stored=frame, wanted=frame) == 1.0


def test_dates_beyond_the_tables_of_earth_rotation_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor tables that are younger than a month, which astropy asks for where it may not download."""
    monkeypatch.setattr(iers.conf, "auto_max_age", 1e-3)
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


def test_atomic_times_are_not_taken_for_utc() -> None:
    """37 s in 2018: a rotating Earth moves ALMA by up to 1.2 m/s in between, the two scales of one moment must agree."""
    from astropy.time import Time

    moment = Time("2018-11-20T13:00:00", scale="utc")
    site, centre = np.array([2225061.0, -5440058.0, -2481681.0]), (192.15, -5.8)
    utc, tai = (frame_factor(getattr(moment, scale).mjd * 86400.0, site, centre, stored="TOPO", wanted="LSRK", scale=scale)
                for scale in ("utc", "tai"))  # fmt: skip
    wrong = frame_factor(moment.tai.mjd * 86400.0, site, centre, stored="TOPO", wanted="LSRK")
    assert abs(utc / tai - 1.0) * SPEED_OF_LIGHT < 1e-5 < 1e-4 < abs(wrong / utc - 1.0) * SPEED_OF_LIGHT
