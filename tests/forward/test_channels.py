"""Channel edges and the correlator's response."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf, ndtr

from supermage.constants import CO_2_1_FREQUENCY, SPEED_OF_LIGHT
from supermage.data_reduction.response import SpectralResponse
from supermage.errors import DomainError
from supermage.forward.channels import ChannelResponse, velocity_of

FREQUENCY = 229.6e9 + 15.625e6 * np.arange(16)


def response(**changes: object) -> ChannelResponse:
    arguments = {"frequency": FREQUENCY[None], "topo_to_frame": np.ones(1), "rest_frequency": CO_2_1_FREQUENCY, "convention": "radio",
                 "hanning": True, "averaging": 1, **changes}
    positional = [arguments.pop(name) for name in ("frequency", "topo_to_frame", "rest_frequency", "convention")]
    return ChannelResponse(*positional, **arguments)  # type: ignore[arg-type]


def test_velocity_conventions() -> None:
    nu = np.array([0.99, 1.0, 1.01]) * CO_2_1_FREQUENCY
    assert velocity_of(nu, CO_2_1_FREQUENCY, "radio") == pytest.approx(SPEED_OF_LIGHT * np.array([0.01, 0.0, -0.01]))
    assert velocity_of(nu, CO_2_1_FREQUENCY, "optical") == pytest.approx(SPEED_OF_LIGHT * (1 / np.array([0.99, 1.0, 1.01]) - 1))
    with pytest.raises(DomainError, match="'radio' or 'optical', got 'relativistic'"):
        velocity_of(nu, CO_2_1_FREQUENCY, "relativistic")


@pytest.mark.parametrize("averaging", [1, 2, 4])
@pytest.mark.parametrize("hanning", [True, False])
@pytest.mark.parametrize("frequency", [FREQUENCY, FREQUENCY[::-1]])
def test_constant_flux_density_is_kept(averaging: int, hanning: bool, frequency: np.ndarray) -> None:
    channels = response(averaging=averaging, hanning=hanning, frequency=frequency[None])
    integral = 3.0 * channels.edges
    assert channels.matrix[0] @ integral[0] == pytest.approx(np.full(16, 3.0))
    banded = [(channels.taps[0, c] * integral[0, start : start + channels.taps.shape[2]]).sum() for c, start in enumerate(channels.first)]
    assert banded == pytest.approx([3.0] * 16)


@pytest.mark.parametrize(("averaging", "expected"), [(1, [0.25, 0.5, 0.25]), (2, [0.75, 0.25])])
def test_a_narrow_line_shows_the_response(averaging: int, expected: list[float]) -> None:
    channels = response(averaging=averaging)
    edge = channels.edges[0]
    middle = edge.size // 2 if averaging == 1 else 1 + averaging * 8
    step = np.where(np.arange(edge.size) > middle, np.sign(edge[1] - edge[0]), 0.0)
    width = abs(edge[averaging] - edge[0])
    got = channels.matrix[0] @ step * width
    assert sorted(got[got > 1e-9]) == pytest.approx(sorted(expected), rel=1e-4)


@pytest.mark.parametrize("convention", ["radio", "optical"])
@pytest.mark.parametrize("hanning", [True, False])
@pytest.mark.parametrize("averaging", [1, 2, 4])
def test_a_narrow_line_lies_in_the_channel_of_its_frequency(averaging: int, hanning: bool, convention: str) -> None:
    """The mean channel, weighted by flux, of lines spread over a channel's width: half a native channel's shift would show."""
    channels = response(averaging=averaging, hanning=hanning, convention=convention)
    width = np.gradient(velocity_of(FREQUENCY, CO_2_1_FREQUENCY, convention))
    for offset in (-0.3, 0.0, 0.2):
        places = 8.0 + offset + np.arange(400) / 400.0
        velocity = velocity_of(np.interp(places, np.arange(16), FREQUENCY), CO_2_1_FREQUENCY, convention)
        flux = channels.matrix[0] @ ndtr((channels.edges[0][:, None] - velocity) / 1e-3) * width[:, None]
        found = (flux * np.arange(16)[:, None]).sum(0) / flux.sum(0)
        assert found.mean() == pytest.approx(places.mean(), abs=0.01)


def test_emission_just_outside_the_band_leaks_in_only_with_hanning() -> None:
    def leak(hanning: bool) -> float:
        channels = response(hanning=hanning)
        inside = np.sort(velocity_of(FREQUENCY + 0.5 * 15.625e6, CO_2_1_FREQUENCY, "radio"))[0]
        line = (channels.edges[0] > inside - 10.0).astype(float)
        return float(np.abs(channels.matrix[0] @ line).max())

    assert leak(True) > 0
    assert leak(False) == 0


def test_blocks_are_shifted_by_their_own_factor() -> None:
    channels = response(frequency=np.stack([FREQUENCY, FREQUENCY]), topo_to_frame=np.array([1.0, 1.0 + 1e-4]))
    assert (channels.edges[0] - channels.edges[1]) == pytest.approx(1e-4 * SPEED_OF_LIGHT * 229.7e9 / CO_2_1_FREQUENCY, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency": FREQUENCY[None] / 1e9}, "GHz passed for Hz"),
        ({"rest_frequency": 230.538}, "GHz passed for Hz"),
        ({"frequency": FREQUENCY[None] + 1e5 * np.arange(16) ** 2}, "evenly spaced"),
        ({"frequency": FREQUENCY}, "shape"),
        ({"topo_to_frame": np.ones(2)}, "one factor per block"),
        ({"averaging": 0}, "at least 1"),
    ],
)
def test_bad_axes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DomainError, match=message):
        response(**changes)


BLOCKS = np.stack([230e9 + np.arange(20) * 1e6, 231e9 + np.arange(20) * 1e6])
SETTING = (BLOCKS, np.array([1.0, 1.0001]), 230.538e9, "radio")


@pytest.mark.parametrize("hanning", [True, False])
@pytest.mark.parametrize("averaging", [1, 2, 3, 4])
def test_taps_given_are_those_of_the_correlator(hanning: bool, averaging: int) -> None:
    named = ChannelResponse(*SETTING, hanning=hanning, averaging=averaging)
    response = SpectralResponse(hanning, averaging)
    given = ChannelResponse(*SETTING, hanning=False, averaging=response.spacing, taps=response.line_taps)
    for name in ("edges", "matrix", "first", "taps"):
        np.testing.assert_allclose(getattr(named, name), getattr(given, name), rtol=1e-12)


@pytest.mark.parametrize(
    "response",
    [
        SpectralResponse(True, 2),
        SpectralResponse(True, 4),
        SpectralResponse(True, 2).smoothed(),
        SpectralResponse(True).widened(2),
        SpectralResponse(True).interpolated(0.3),
        SpectralResponse(True).smoothed().averaged(3).interpolated(0.5),
        SpectralResponse(False).widened(3),
    ],
    ids=str,
)
def test_a_line_keeps_flux_and_place_and_is_broadened_by_the_taps(response: SpectralResponse) -> None:
    """Flux, centre and variance of a Gaussian line summed over the channels; the channels' velocities by hand."""
    channels = ChannelResponse(*SETTING, hanning=False, averaging=response.spacing, taps=response.line_taps)
    centre = channels.edges.mean(axis=1)
    deviation = 1.5 * np.abs(np.diff(channels.edges[0])).mean() * response.spacing
    for block in range(2):
        cumulative = 0.5 * (1 + erf((channels.edges[block] - centre[block]) / deviation / np.sqrt(2)))
        flux = channels.matrix[block] @ cumulative
        velocity = SPEED_OF_LIGHT * (1 - BLOCKS[block] * SETTING[1][block] / 230.538e9)
        width = abs(velocity[1] - velocity[0])
        assert flux.sum() * width == pytest.approx(1.0, abs=1e-3)
        assert (flux * velocity).sum() / flux.sum() == pytest.approx(centre[block], abs=1e-3 * width)
        place = (np.arange(response.line_taps.size) - (response.line_taps.size - 1) / 2) / response.spacing
        variance = deviation**2 + width**2 * (response.line_taps @ place**2 + 1 / 12 / response.spacing**2)
        assert (flux * (velocity - centre[block]) ** 2).sum() / flux.sum() == pytest.approx(variance, rel=2e-3)
