"""What a reduction assumed and found, in a few lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ducc0
import numpy as np

from supermage.constants import ARCSEC
from supermage.data_reduction.channel_correlation import is_doubtful
from supermage.data_reduction.gridded import KAISER_BESSEL, GriddedVisibilities
from supermage.data_reduction.images import fit_gaussian_beam
from supermage.data_reduction.spectral import resolution_in_channels
from supermage.data_reduction.survey import WORTH_CORRECTING

GIVEN = "given in the recipe"
"""Said of a channel response that the recipe has decided."""

EXACTLY = 1e-6

RESOLUTION_TOLERANCE = 0.03
"""Relative: observatories round, but 2, 1.16 and 0.99 channels are further apart."""

WELL_MEASURED = 0.02
"""Standard error of the noise's lag 1 that tells Hanning with any averaging up to 4 (0.115 and more) from no smoothing."""

PIXELS_A_BEAM = 3.0

MOST_DRIFT = 0.1
"""Channels by which a line may wander within a block before it is said."""

SIDE, FINE = 128, 6.0
"""Pixels along a side of the image in which the beam is measured, and pixels in its narrowest possible width."""


def account(gridded: GriddedVisibilities) -> list[str]:
    """Three lines: the channel response and what it was read from; the noise and the share that was not used; what the weights are worth.

    Parameters
    ----------
    gridded
        Fresh from `reduce`, whose provenance holds the counts.
    """
    facts = gridded.provenance
    blocks = facts["blocks"]
    response = f"{gridded.response.words} ({facts['channel_response']})"
    number = f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}"
    left_out = f", {len(facts['left_out'])} more without the line" if facts["left_out"] else ""
    scales = [float(block["noise_scale"]) for block in blocks]
    spread = f"{min(scales):.3g}" if max(scales) - min(scales) < 5e-3 * max(scales) else f"{min(scales):.3g} to {max(scales):.3g}"
    estimators = " and ".join(sorted({str(block["noise_estimator"]) for block in blocks}))
    total = sum(block["visibilities"] for block in blocks)
    shares = ", ".join(f"{100.0 * sum(block[key] for block in blocks) / total:.2g} % {words}" for key, words in
                       (("flagged", "flagged"), ("unweighted", "left out for want of a weight"), ("beyond_grid", "beyond the grid")))
    return [f"channels: {response}; {gridded.n_channel} in {number}{left_out}{_correlation_in_words(facts)}",
            f"noise: variance {spread} times 1/weight, by {estimators}; {shares}", weights_in_words(gridded)]


def _correlation_in_words(facts: Mapping[str, Any]) -> str:
    """Noise correlation of neighbouring channels, measured against expected; empty where it was not measured."""
    found = facts.get("channel_correlation")
    if found is None:
        return ""
    lag, error, expected = (found[key][1] for key in ("measured", "standard_error", "expected"))
    return f"; neighbours' noise correlates by {lag:.3f} +- {error:.2g}, {expected:.3f} expected"


def weights_in_words(gridded: GriddedVisibilities) -> str:
    """Verdict on the set's weights, in one line: whether they are inverse variances, but for a factor, between baselines and in time."""
    blocks = gridded.provenance["blocks"]
    largest = {words: max((float(block[key]) for block in blocks if block.get(key) is not None), default=None)
               for key, words in (("spread_of_baselines", "between baselines"), ("spread_in_time", "in time"))}
    known = [f"{100.0 * spread:.2g} % {words}" for words, spread in largest.items() if spread is not None]
    if not known:
        return "weights: not to be judged, for want of differences of hands or integrations, or of baselines"
    left = max(spread or 0.0 for spread in largest.values()) > WORTH_CORRECTING
    done = "; corrected" if any(block["weights_corrected"] for block in blocks) else "; left as they are" if left else ""
    return f"weights: sigma departs from them by {' and '.join(known)}{done}"


def cautions(gridded: GriddedVisibilities) -> tuple[str, ...]:
    """What a reduction did and is yet doubtful, a line each: the channel response, and pixels that are too wide for the beam.

    UVFITS does not carry RESOLUTION, and a set made from it has the channel width there, whatever the correlator did; one that mstransform
    has regridded may.

    Parameters
    ----------
    gridded
        Fresh from `reduce`.
    """
    facts = gridded.provenance
    ratio, told = float(facts["resolution_over_width"]), facts["channel_response"] == GIVEN
    lines = _cautions_of_the_noise(gridded, told=told)
    if not lines and not told and abs(ratio - 1.0) <= EXACTLY and not _is_well_measured(facts):
        lines.append("RESOLUTION equals the channel width exactly, and no smoothing was assumed: if the set has been through UVFITS or "
                     "mstransform, give reduce.hanning and reduce.averaging in the recipe")
    if told and ratio > 0 and abs(ratio - 1.0) > EXACTLY:
        wanted = resolution_in_channels(gridded.response)
        if abs(ratio / wanted - 1.0) > RESOLUTION_TOLERANCE:
            lines.append(f"the recipe's {gridded.response.words}, would resolve "
                         f"{wanted:.2f} channel widths, but RESOLUTION is {ratio:.2f}: the recipe's word was taken")
    if gridded.window == KAISER_BESSEL:
        lines.append("gridded as the paper does: windows widened to five visibilities share them with their neighbours, which no "
                     "likelihood knows, and fits need likelihood = 'gaussian' or 'paper'")
    drift = max((abs(float(block.get("drift_in_channels", 0.0))) for block in facts["blocks"]), default=0.0)
    if drift > MOST_DRIFT:
        lines.append(f"the Earth's motion shifts the line by {drift:.2f} channels within one execution block, which has one factor to "
                     f"{gridded.frame}: lines come out that much broader")
    beam = beam_width(gridded)
    if gridded.grid.pixel_scale > beam / PIXELS_A_BEAM * (1.0 + EXACTLY):
        lines.append(f"a pixel should be at most a third of the beam, {beam:.3g} / {PIXELS_A_BEAM:g} = {beam / PIXELS_A_BEAM:.3g} arcsec, "
                     f"but reduce.grid.pixel_scale is {gridded.grid.pixel_scale:g}")
    return tuple(lines)


def _cautions_of_the_noise(gridded: GriddedVisibilities, *, told: bool) -> list[str]:
    """That the set was regridded, and what was assumed; that the noise is not correlated along the channels as the response makes it."""
    facts, lines = gridded.provenance, []
    if facts.get("regridded") and not told:
        fitted = "which was fitted to the noise" if facts.get("channel_correlation") else "which could not be held against the noise"
        lines.append(f"the channels may not be the correlator's own ({'; '.join(facts['history'])}): their response was taken to be "
                     f"{gridded.response.words}, {fitted}; TOPO channels, never regridded, are better")
    found = facts.get("channel_correlation")
    if found is not None and is_doubtful(found):
        lines.append(f"neighbouring channels' noise correlates by {found['measured'][1]:.3f} +- {found['standard_error'][1]:.2g}, but the "
                     f"channel response makes it {found['expected'][1]:.3f}: check reduce.hanning and reduce.averaging")
    return lines


def _is_well_measured(facts: Mapping[str, Any]) -> bool:
    """Whether the noise itself has confirmed the response."""
    found = facts.get("channel_correlation")
    return found is not None and found["standard_error"][1] < WELL_MEASURED and not is_doubtful(found)


def beam_width(gridded: GriddedVisibilities) -> float:
    """Full width at half maximum of the naturally weighted beam along its minor axis, arcsec, in the filled channel nearest the middle.

    The beam is computed on pixels of its own, finer than itself, so that the image's pixels do not matter.
    """
    filled = np.flatnonzero(np.isfinite(gridded.standard_error).any(axis=(0, 2)))
    middle = int(filled[np.argmin(np.abs(filled - gridded.n_channel // 2))])
    weight = gridded.weight[:, middle].ravel()
    place = np.stack([axis[:, middle].ravel() for axis in reversed(gridded.uv_wavelengths())], axis=1)
    spread = float(np.linalg.eigvalsh((place * weight[:, None]).T @ place / weight.sum())[-1]) ** 0.5
    if spread == 0:
        return math.inf
    # the Gaussian with the beam's curvature at its peak, which is never wider than the lobe
    narrow = math.sqrt(2.0 * math.log(2.0)) / (math.pi * spread)
    step = narrow / FINE
    image = ducc0.nufft.nu2u(points=weight.astype(np.complex128), coord=np.ascontiguousarray(place * step), forward=False, epsilon=1e-6,
                             periodicity=1.0, out=np.empty((SIDE, SIDE), dtype=np.complex128), fft_order=False).real
    return fit_gaussian_beam(image / weight.sum(), step / ARCSEC).minor
