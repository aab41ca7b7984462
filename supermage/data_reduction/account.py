"""What a reduction assumed and found, in a few lines."""

from __future__ import annotations

from supermage.data_reduction.gridded import GriddedVisibilities

GIVEN = "given in the recipe"
"""Said of a channel response that the recipe has decided."""

EXACTLY = 1e-6


def account(gridded: GriddedVisibilities) -> list[str]:
    """Two lines: the channel response and what it was read from; the noise against the weights, and the share that was not used.

    Parameters
    ----------
    gridded
        Fresh from `reduce`, whose provenance holds the counts.
    """
    facts = gridded.provenance
    blocks = facts["blocks"]
    response = f"{'Hanning' if gridded.hanning else 'no smoothing'}, averaging {gridded.averaging} ({facts['channel_response']})"
    number = f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}"
    left_out = f", {len(facts['left_out'])} more without the line" if facts["left_out"] else ""
    scales = [float(block["noise_scale"]) for block in blocks]
    spread = f"{min(scales):.3g}" if max(scales) - min(scales) < 5e-3 * max(scales) else f"{min(scales):.3g} to {max(scales):.3g}"
    estimators = " and ".join(sorted({str(block["noise_estimator"]) for block in blocks}))
    total = sum(block["visibilities"] for block in blocks)
    shares = ", ".join(f"{100.0 * sum(block[key] for block in blocks) / total:.2g} % {words}" for key, words in
                       (("flagged", "flagged"), ("unweighted", "left out for want of a weight"), ("beyond_grid", "beyond the grid")))
    return [f"channels: {response}; {gridded.n_channel} in {number}{left_out}",
            f"noise: variance {spread} times 1/weight, by {estimators}; {shares}"]


def caution(gridded: GriddedVisibilities) -> str | None:
    """A line on a channel response that may have been lost on the way, or None.

    UVFITS does not carry RESOLUTION, and a set made from it has the channel width there, whatever the correlator did; one that mstransform
    has regridded may.
    """
    facts = gridded.provenance
    if facts["channel_response"] == GIVEN or abs(facts["resolution_over_width"] - 1.0) > EXACTLY:
        return None
    return ("RESOLUTION equals the channel width exactly, and no smoothing was assumed: if the set has been through UVFITS or mstransform, "
            "give reduce.hanning and reduce.averaging in the recipe")
