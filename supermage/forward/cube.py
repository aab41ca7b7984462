"""The line integrated over channels, and the cube of pixels on the sky (for pictures and checks)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


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
    """Sampling points of every pixel: ``subpixels`` squared each, and ``centre_subpixels`` squared in a patch around the dynamical centre.

    Parameters
    ----------
    axis
        Pixel centres, arcsec, evenly spaced.
    subpixels, centre_pixels, centre_subpixels
        Points along a pixel's side, width of the patch in pixels, points along a side of the patch's pixels.
    """

    def __init__(self, axis: NDArray[np.float64], *, subpixels: int, centre_pixels: int, centre_subpixels: int) -> None:
        self.axis = axis
        self.scale = float(axis[1] - axis[0])
        self.subpixels, self.centre_pixels, self.centre_subpixels = subpixels, min(centre_pixels, axis.size), centre_subpixels

    def integrate(
        self, emission: Callable[[Tensor, Tensor, float], Tensor], centre: tuple[float, float], like: Tensor
    ) -> Float[Tensor, "block chan y x"]:
        """Sum ``emission(east, north, area)`` (block, chan, *points) over each pixel; ``centre`` says where the patch lies, arcsec."""
        axis = torch.tensor(self.axis, dtype=torch.float64, device=like.device)
        cube = self._block(emission, axis, axis, self.subpixels)
        if self.centre_pixels:
            x, y = (self._patch(position) for position in centre)
            fine = self._block(emission, axis[x], axis[y], self.centre_subpixels)
            cube = cube.clone()
            cube[..., y, x] = fine
        return cube

    def _patch(self, position: float) -> slice:
        middle = (position - float(self.axis[0])) / self.scale + 0.5
        start = round(middle - 0.5 * self.centre_pixels)
        start = min(max(start, 0), self.axis.size - self.centre_pixels)
        return slice(start, start + self.centre_pixels)

    def _block(self, emission: Callable[[Tensor, Tensor, float], Tensor], x: Tensor, y: Tensor, count: int) -> Tensor:
        offsets = (np.arange(count) + 0.5) / count - 0.5
        area = (self.scale / count) ** 2
        parts = [
            emission((x + self.scale * dx).expand(y.numel(), -1), (y + self.scale * dy).unsqueeze(-1).expand(-1, x.numel()), area)
            for dy in offsets
            for dx in offsets
        ]
        return torch.stack(parts).sum(0) if len(parts) <= 4 else _running_sum(parts)  # noqa: PLR2004


def _running_sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
