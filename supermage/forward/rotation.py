"""Rotation as the data see it: projected speeds at knots of the disc, which stand for every parameter that acts through the mass alone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

ROTATION_ONLY = frozenset({"alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb", "qintr", "log10_mbh", "ml_gradient",
                           "halo_log10_m200", "halo_log10_c", "gas_log10_mass"})  # fmt: skip
"""Parameters that a thin disc shows by its rotation curve and by nothing else."""

KNOTS = 32
"""Radii, evenly spaced in their logarithm. In the demo's posterior 12 leave 0.9 of log likelihood unexplained (rms), 24 0.63, 48 0.59."""

INNERMOST = 0.1
"""Radius of the first knot in units of the finest fringe."""


def rotation_knots(longest: float, disc_radius: float) -> Float[Tensor, "knot"]:
    """Radii (arcsec) from a tenth of the finest fringe, ``1 / longest``, to the disc's edge."""
    ends = (math.log(min(INNERMOST / longest, 0.5 * disc_radius)), math.log(disc_radius))
    return torch.exp(torch.linspace(*ends, KNOTS, dtype=torch.float64))


def between_knots(
    change: Float[Tensor, "knot"], log_radius: Float[Tensor, "*node"], log_knots: Float[Tensor, "knot"]
) -> Float[Tensor, "*node"]:
    """A change of speed at the knots, linear in ln R between them and constant beyond."""
    last = len(log_knots) - 1
    place = ((log_radius - log_knots[0]) * (last / (log_knots[-1] - log_knots[0]))).clamp(0.0, last)
    below = place.floor().long().clamp(max=last - 1)
    share = place - below
    return change[below] * (1.0 - share) + change[below + 1] * share
