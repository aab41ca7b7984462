"""The line integrated over channels, and the cube of pixels on the sky (for pictures and checks)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

_MOST_SUBPIXELS = 24


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
        self, emission: Callable[[Tensor, Tensor, float], Tensor], centre: tuple[float, float], like: Tensor, *, refine: float = 1.0
    ) -> Float[Tensor, "block chan y x"]:
        """Sum ``emission(east, north, area)`` (block, chan, *points) over each pixel.

        ``centre`` says where the patch lies (arcsec); ``refine`` multiplies the points along each side, up to 24 outside the patch and to
        twice the patch's own, for discs so inclined that the velocity changes quickly across the minor axis.
        """
        outer = max(self.subpixels, min(math.ceil(self.subpixels * refine), _MOST_SUBPIXELS))
        inner = min(math.ceil(self.centre_subpixels * refine), 2 * self.centre_subpixels)
        axis = torch.tensor(self.axis, dtype=torch.float64, device=like.device)
        cube = self._block(emission, axis, axis, outer)
        if self.centre_pixels:
            x, y = (self._patch(position) for position in centre)
            fine = self._block(emission, axis[x], axis[y], max(inner, outer))
            cube = cube.clone()
            cube[..., y, x] = fine
        return cube

    def _patch(self, position: float) -> slice:
        middle = (position - float(self.axis[0])) / self.scale + 0.5
        start = round(middle - 0.5 * self.centre_pixels)
        start = min(max(start, 0), self.axis.size - self.centre_pixels)
        return slice(start, start + self.centre_pixels)

    def _block(self, emission: Callable[[Tensor, Tensor, float], Tensor], x: Tensor, y: Tensor, count: int) -> Tensor:
        offsets = self.scale * ((torch.arange(count, dtype=x.dtype, device=x.device) + 0.5) / count - 0.5)
        area = (self.scale / count) ** 2
        east = (x.unsqueeze(-1) + offsets).flatten().expand(y.numel(), -1)
        total = torch.zeros((), device=x.device)
        for offset in offsets:
            north = (y + offset).unsqueeze(-1).expand_as(east)
            total = total + emission(east, north, area).unflatten(-1, (x.numel(), count)).sum(-1)
        return total
