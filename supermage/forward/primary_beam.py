"""The primary beam, a Gaussian about the pointing, over a disc that is offset from it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

Offset = tuple[Tensor, Tensor]
"""East and north, arcsec."""


def along_and_across(offset: Offset, angle: Float[Tensor, ""]) -> Offset:
    """An offset's parts along the major axis, at a position angle in rad, and across it."""
    east, north = offset
    sine, cosine = torch.sin(angle), torch.cos(angle)
    return east * sine + north * cosine, north * sine - east * cosine


def beam_at_nodes(
    deviation: float, nodes: tuple[Float[Tensor, "x"], Float[Tensor, "y"]], centre: Offset, angle: Tensor, inclination: Tensor
) -> Float[Tensor, "y side x"]:
    """Primary beam at the nodes, even part in the minor-axis coordinate.

    Parameters
    ----------
    deviation
        Standard deviation of the beam, arcsec.
    nodes
        Coordinates along and across the major axis in the disc's plane, arcsec.
    centre
        Of the disc.
    angle, inclination
        Position angle and inclination, rad.
    """
    dtype = nodes[0].dtype
    along, across = (part.to(dtype) for part in along_and_across(centre, angle))
    variance = deviation**2
    x = torch.stack([nodes[0], -nodes[0]]) + along
    y = nodes[1] * torch.cos(inclination).to(dtype)
    major = torch.exp(-(x**2) / (2 * variance))
    minor = torch.exp(-(y**2 + across**2) / (2 * variance)) * torch.cosh(y * across / variance)
    return minor[:, None, None] * major


def beam_slope(deviation: float, centre: Offset, angle: Tensor, inclination: Tensor) -> Float[Tensor, ""]:
    """What the odd part in the minor-axis coordinate multiplies a derivative by the spatial frequency with, cycles per arcsec."""
    return along_and_across(centre, angle)[1] * torch.cos(inclination) / (2.0 * math.pi * deviation**2)
