"""The spectral response of a channel: what the correlator and what came after it made of white native noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.history import AVERAGE, SMOOTH, Processing
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DomainError

FloatArray = NDArray[np.float64]

HANNING = (0.25, 0.5, 0.25)

Step = tuple[str, float]
Kernel = Callable[[float], tuple[FloatArray, int]]
"""From the number of a step to its weights at the spacing of the channels so far, and every how many-th is kept."""

INTERPOLATE = "interpolate"
STEPS = {"average": "averaged over {:g}", "smooth": "Hanning-smoothed {:g} times", "widen": "regridded to {:g} times the width",
         INTERPOLATE: "interpolated with a fraction of {:.3g}"}
"""The steps of a response, in words."""


@dataclass(frozen=True)
class SpectralResponse:
    """How a channel mixes its native neighbours: Hanning smoothing and averaging in the correlator, then what was done to the set.

    The noise of the native channels is white; every step is a convolution, at the spacing that the channels have by then, and a choice of
    every n-th: an average smoothed is not a smooth averaged.

    Parameters
    ----------
    hanning
        Whether the correlator smoothed with (1/4, 1/2, 1/4).
    averaging
        Native channels averaged into one channel; averaging on line and, straight after it, off line are one (`averaged`).
    steps
        What followed, in order, each a name and a number: ``("average", n)``, n channels into one; ``("smooth", n)``, n times with
        (1/4, 1/2, 1/4); ``("interpolate", f)``, (1 - f, f), 0 <= f <= 1/2, as linear interpolation does; ``("widen", n)``, as CASA regrids
        without averaging first to channels n times as wide, (1/2, 1, ..., 1, 1/2) / n over n + 1 (measured: exact for even n, where its
        frequencies then lie half an old channel too high; for odd n it takes n - 1 and n + 1 in turn).

    Raises
    ------
    DomainError
        If ``averaging`` is below one, or a step is unknown or its number out of range.
    """

    hanning: bool
    averaging: int = 1
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.averaging < 1:
            raise DomainError(f"averaging must be a positive number of channels, got {self.averaging}")
        for kind, amount in self.steps:
            if kind not in STEPS:
                raise DomainError(f"a step of a channel response must be one of {', '.join(STEPS)}, got '{kind}'")
            if kind == INTERPOLATE and not 0.0 <= amount <= 0.5:
                raise DomainError(f"the fraction of an interpolation must lie in [0, 1/2], got {amount}")
            if kind != INTERPOLATE and not (amount >= 1 and amount == int(amount)):
                raise DomainError(f"the step '{kind}' must have a positive whole number, got {amount}")

    def averaged(self, count: int) -> SpectralResponse:
        """The response after ``count`` of these channels were averaged into one."""
        if count == 1:
            return self
        if not self.steps:
            return replace(self, averaging=self.averaging * count)
        return self._then("average", count)

    def smoothed(self, times: int = 1) -> SpectralResponse:
        """The response after Hanning smoothing of these channels."""
        return self._then("smooth", times) if times else self

    def widened(self, count: int) -> SpectralResponse:
        """The response after CASA's regridding to channels ``count`` times as wide."""
        return self._then("widen", count) if count > 1 else self

    def interpolated(self, fraction: float) -> SpectralResponse:
        """The response after linear interpolation between these channels."""
        return self._then(INTERPOLATE, fraction) if fraction else self

    def _then(self, kind: str, amount: float) -> SpectralResponse:
        return replace(self, steps=(*self.steps, (kind, amount)))

    @property
    def spacing(self) -> int:
        """Native channels from one channel to the next."""
        return self._built(_KERNELS)[1]

    @property
    def taps(self) -> FloatArray:
        """Weights of the native channels in one channel, sum 1; native spacing is width / ``spacing``. Only interpolation is asymmetric."""
        return self._built(_KERNELS)[0]

    @property
    def line_taps(self) -> FloatArray:
        """Taps with which a line is seen: symmetric about the channel's centre, sum 1.

        Linear interpolation puts 1 - f and f at -f and 1 - f of a channel from where the new one is said to be: the line stays in place and
        is broadened by f (1 - f). On which side the nearer channel lies changes with block, time and channel, so (a, 1 - 2a, a) with
        a = f (1 - f) / 2 stands for it: the same shift, none, and the same broadening.
        """
        return self._built({**_KERNELS, INTERPOLATE: _interpolation_of_a_line})[0]

    def _built(self, kernels: Mapping[str, Kernel]) -> tuple[FloatArray, int]:
        taps = np.full(self.averaging, 1.0 / self.averaging)
        if self.hanning:
            taps = np.convolve(taps, HANNING)
        spacing = self.averaging
        for kind, amount in self.steps:
            kernel, stride = kernels[kind](amount)
            spread = np.zeros((kernel.size - 1) * spacing + 1)
            spread[::spacing] = kernel
            taps, spacing = np.convolve(taps, spread), spacing * stride
        return taps, spacing

    @property
    def lags(self) -> FloatArray:
        """Noise correlation of channels 0, 1, 2, ... apart, up to the last that is not zero."""
        taps, spacing = self._built(_KERNELS)
        autocorrelation = np.correlate(taps, taps, mode="full")[taps.size - 1:]
        return np.asarray(autocorrelation[::spacing] / autocorrelation[0], dtype=float)

    def correlation(self, n_channels: int, floor: float = 0.01) -> FloatArray:
        """Noise correlation matrix, shape (chan, chan), unit diagonal, with a white part ``floor`` that keeps it well conditioned."""
        matrix = np.zeros((n_channels, n_channels))
        for lag, value in enumerate(self.lags[:n_channels]):
            matrix += value * (np.eye(n_channels, k=lag) if lag == 0 else np.eye(n_channels, k=lag) + np.eye(n_channels, k=-lag))
        return (1.0 - floor) * matrix + floor * np.eye(n_channels)

    def pooling_factor(self, n_channels: int) -> float:
        """By how much pooling over ``n_channels`` correlated channels falls short of independent ones (1.94 for Hanning, many channels)."""
        lags = np.arange(1, min(self.lags.size, n_channels))
        return float(1.0 + 2.0 * np.sum((1.0 - lags / n_channels) * self.lags[lags] ** 2))

    @property
    def words(self) -> str:
        """In words, such as ``"Hanning, averaging 2, then interpolated with a fraction of 0.21"``."""
        then = "".join(f", then {STEPS[kind].format(amount)}" for kind, amount in self.steps)
        return f"{'Hanning' if self.hanning else 'no smoothing'}, averaging {self.averaging}{then}"

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, for `from_json`."""
        return {"hanning": self.hanning, "averaging": self.averaging, "steps": [[kind, amount] for kind, amount in self.steps]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SpectralResponse:
        """The response that `to_json` stored."""
        return cls(hanning=bool(stored["hanning"]), averaging=int(stored["averaging"]),
                   steps=tuple((str(kind), float(amount)) for kind, amount in stored.get("steps", ())))


def _interpolation(fraction: float) -> tuple[FloatArray, int]:
    return np.array([1.0 - fraction, fraction]), 1


def _interpolation_of_a_line(fraction: float) -> tuple[FloatArray, int]:
    beside = 0.5 * fraction * (1.0 - fraction)
    return np.array([beside, 1.0 - 2.0 * beside, beside]), 1


def _smoothing(times: float) -> tuple[FloatArray, int]:
    kernel = np.ones(1)
    for _ in range(int(times)):
        kernel = np.convolve(kernel, HANNING)
    return kernel, 1


def _average(count: float) -> tuple[FloatArray, int]:
    return np.full(int(count), 1.0 / int(count)), int(count)


def _widening(count: float) -> tuple[FloatArray, int]:
    return np.convolve(np.full(int(count), 1.0 / int(count)), [0.5, 0.5]), int(count)


_KERNELS: dict[str, Kernel] = {"average": _average, "smooth": _smoothing, "widen": _widening, INTERPOLATE: _interpolation}


def resolution_in_channels(response: SpectralResponse) -> float:
    """Full width at half maximum of a channel's response to a narrow line, in channels: 2.0, 1.16, 0.99 for Hanning and N = 1, 2, 4."""
    taps = response.line_taps
    native = np.arange(taps.size) - (taps.size - 1) / 2
    offset = np.linspace(0.0, taps.size, 20_001)
    profile = np.sinc(offset[:, None] - native) @ taps
    below = int(np.argmax(profile < profile[0] / 2))
    x = np.interp(profile[0] / 2, [profile[below], profile[below - 1]], [offset[below], offset[below - 1]])
    return float(2.0 * x / response.spacing)


NATIVE_RESOLUTION = {1: 2.0, 2: 1.156}
"""RESOLUTION over width of Hanning-smoothed channels that the correlator averaged (ALMA Technical Handbook); 4 and more are too near 1."""

_LISTED, _MOST_AVERAGED = 5e-4, 12
"""How near RESOLUTION comes to what casatasks make of it, and the most channels averaged off line that are looked for."""


def detect_response(window: SpectralWindow, telescope: str, processing: Processing | None = None) -> tuple[SpectralResponse, str]:
    """Spectral response of a window, and in words what it was read from.

    The correlator's own words (SDM_WINDOW_FUNCTION, SDM_NUM_BIN) come first, except where RESOLUTION contradicts them; then RESOLUTION over
    channel width: about 2, 1.16 or 0.99 is Hanning with 1, 2 or 4 channels averaged. A ratio of exactly 1 is taken as no smoothing.

    casatasks that average n channels make the ratio (ratio + n - 1) / n (measured), so averaging shows in it where the history is silent;
    smoothing leaves it as it is, and regridding makes it 1, whatever it was: then only the correlator's words are left, and the noise
    itself (`settle_response`).

    Parameters
    ----------
    window
        The spectral window as it is now.
    telescope
        Name of the array.
    processing
        What was done since the correlator; None or an empty one: nothing is known.
    """
    averaged = processing.averaged if processing else 1
    regridded = processing is not None and processing.regridded
    response, words = _correlator_response(window, telescope, averaged, regridded=regridded)
    if processing is None:
        return response, words
    return after(response, processing), "; ".join([words, *processing.steps])


def after(response: SpectralResponse, processing: Processing) -> SpectralResponse:
    """The response after what was done to a set, but for the fraction of an interpolation, which no history tells."""
    for kind, amount in processing.operations:
        if kind == AVERAGE:
            response = response.averaged(amount)
        elif kind == SMOOTH:
            response = response.smoothed(amount)
        else:
            response = response.widened(amount)
    return response


def _correlator_response(window: SpectralWindow, telescope: str, averaged: int, *, regridded: bool) -> tuple[SpectralResponse, str]:
    """The response before the history's operations, averaging of which the history is silent included."""
    now = window.resolution / window.width
    ratio = averaged * now - (averaged - 1)
    if not 0 < ratio < 2.1:
        ratio = now  # older programs let RESOLUTION grow with the width
    says_hanning = window.window_function.upper() == "HANNING" and window.bins >= 1
    if says_hanning and (regridded or not np.isclose(ratio, 1.0, atol=1e-6)):
        told = f"SDM_WINDOW_FUNCTION HANNING, SDM_NUM_BIN {window.bins}"
        more = 1 if regridded else _averaged_in_silence(ratio, window.bins)
        later = f", but RESOLUTION is {now:.3f} channel widths: averaged over {more} since" if more > 1 else ""
        return SpectralResponse(hanning=True, averaging=window.bins * more), told + later
    if regridded and np.isclose(ratio, 1.0, atol=1e-6):
        return SpectralResponse(hanning=False), "RESOLUTION is the channel width, as after any regridding"
    return _response_of_ratio(ratio, now, telescope)


def _averaged_in_silence(ratio: float, bins: int) -> int:
    """Channels averaged off line that RESOLUTION shows, where the correlator averaged over ``bins``."""
    if bins not in NATIVE_RESOLUTION:
        return 1
    excess = NATIVE_RESOLUTION[bins] - 1.0
    return next((n for n in range(2, _MOST_AVERAGED + 1) if abs(ratio - 1.0 - excess / n) < _LISTED), 1)


def _response_of_ratio(ratio: float, now: float, telescope: str) -> tuple[SpectralResponse, str]:
    words = f"RESOLUTION is {now:.3f} channel widths"
    if ratio <= 0:
        return SpectralResponse(hanning=False), "RESOLUTION is not given: no smoothing assumed"
    for bins in (2, 1):
        more = _averaged_in_silence(ratio, bins)
        if more > 1:
            return SpectralResponse(hanning=True, averaging=bins * more), f"{words}: Hanning, averaging {bins}, then averaged over {more}"
    if ratio > 1.6:
        return SpectralResponse(hanning=True, averaging=1), words
    if ratio > 1.08:
        return SpectralResponse(hanning=True, averaging=2), words
    if telescope.upper().startswith("ALMA") and abs(ratio - 1.0) > 1e-6:
        return SpectralResponse(hanning=True, averaging=4), words
    return SpectralResponse(hanning=False), words
