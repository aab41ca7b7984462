"""The line integrated over channels, and the cube of pixels on the sky (for pictures and checks)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

MOST_SUBPIXELS = 256
VELOCITY_STEP = 0.25
"""Largest difference of velocity between neighbouring points of a pixel, in line widths."""
BRIGHTNESS_STEP = 0.05
"""Largest difference of ln(brightness) between them."""
FAINT = 1e-3
"""Share of the brightest point's brightness below which a pixel is sampled more coarsely, by the square root of what it lacks."""
POINTS_AT_A_TIME = 20_000


def channel_flux(
    edges: Float[Tensor, "block edge"],
    matrix: Float[Tensor, "block chan edge"],
    velocity: Float[Tensor, "node"],
    deviation: Float[Tensor, "node"],
    flux: Float[Tensor, "node"],
) -> Float[Tensor, "block chan node"]:
    """Mean flux density (Jy) over each channel of Gaussian lines: differences of error functions, through the correlator's response.

    Parameters
    ----------
    edges, matrix
        Velocity of the sub-channel edges (km/s) and response, see :class:`supermage.forward.channels.ChannelResponse`.
    velocity, deviation, flux
        Centre and standard deviation (km/s) and integral (Jy km/s) of each line. What falls outside the band is lost.
    """
    inverse = math.sqrt(0.5) / deviation
    cumulative = torch.erf(edges.unsqueeze(-1) * inverse - velocity * inverse)
    return matrix @ cumulative * (0.5 * flux)


class SkySampler:
    """Points inside every pixel, as many along each side as the velocity and the brightness change across it.

    Parameters
    ----------
    axis
        Pixel centres, arcsec, evenly spaced.
    least, most
        Fewest and most points along a pixel's side.
    """

    def __init__(self, axis: NDArray[np.float64], *, least: int = 2, most: int = MOST_SUBPIXELS) -> None:
        self.axis, self.least, self.most = axis, least, most
        self.scale = float(axis[1] - axis[0])

    def counts(
        self, velocity: Callable[[Tensor, Tensor], Tensor], log_brightness: Callable[[Tensor, Tensor], Tensor], deviation: float
    ) -> Int[Tensor, "y x"]:
        """Points along each pixel's side: of its velocities (km/s) neighbouring points may differ by ``VELOCITY_STEP`` deviations.

        ``velocity`` and the natural logarithm of the brightness are functions of east and north, arcsec; ``deviation`` is the line's, with
        half a channel in quadrature.
        """
        middle = torch.tensor(self.axis, dtype=torch.float64)
        offset = self.scale * torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5], dtype=torch.float64)
        east = (middle[None, :, None, None] + offset).expand(middle.numel(), -1, 5, -1)
        north = (middle[:, None, None, None] + offset[:, None]).expand_as(east)
        speed, brightness = velocity(east, north).flatten(-2), log_brightness(east, north).flatten(-2)
        needed = torch.maximum(_range(speed) / (VELOCITY_STEP * deviation), _range(brightness) / BRIGHTNESS_STEP)
        share = torch.exp(brightness.amax(-1) - brightness.max()) / FAINT
        return (needed * share.clamp(max=1.0).sqrt()).ceil().clamp(self.least, self.most).to(torch.int64)

    def integrate(
        self, emission: Callable[[Tensor, Tensor, float], Tensor], counts: Int[Tensor, "y x"], like: Tensor
    ) -> Float[Tensor, "block chan y x"]:
        """Sum ``emission(east, north, step)`` (block, chan, pixel, point) over each pixel's points; ``step`` is their distance, arcsec."""
        axis = torch.tensor(self.axis, dtype=torch.float64, device=like.device)
        where, parts = [], []
        for count in counts.unique().tolist():
            offset = self.scale * ((torch.arange(count, dtype=axis.dtype, device=axis.device) + 0.5) / count - 0.5)
            pixels = torch.nonzero(counts == count)
            for chosen in pixels.split(max(1, POINTS_AT_A_TIME // count**2)):
                y, x = axis[chosen[:, 0]], axis[chosen[:, 1]]
                east = (x[:, None, None] + offset).expand(-1, count, -1).flatten(1)
                north = (y[:, None, None] + offset[:, None]).expand(-1, -1, count).flatten(1)
                parts.append(emission(east, north, self.scale / count).sum(-1))
                where.append(chosen[:, 0] * axis.numel() + chosen[:, 1])
        order = torch.argsort(torch.cat(where))
        return torch.cat(parts, dim=-1)[..., order].unflatten(-1, (axis.numel(), axis.numel()))


def _range(values: Tensor) -> Tensor:
    return values.amax(-1) - values.amin(-1)
