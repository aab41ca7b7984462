"""The cube of pixels on the sky, for pictures and checks; fits integrate in the plane of the disc instead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supermage.forward.channels import apparent_over_true
from supermage.forward.disc import gas_disc, line_of_sight_velocity, sky_to_disc
from supermage.forward.mge import floored_root

if TYPE_CHECKING:
    from supermage.forward.galaxy_model import GalaxyModel

_LEAST_SQUARE = 1e-4
"""Floor of a squared radius in squared pixels."""


def draw(model: GalaxyModel, theta: dict[str, Tensor], *, primary_beam: bool) -> Float[Tensor, "block chan y x"]:
    """Image of every channel, Jy per pixel.

    Parameters
    ----------
    model
        Gives geometry, mass, channels, beam and the sampler of the pixels.
    theta
        Every parameter, float64.
    primary_beam
        Whether the beam attenuates.
    """
    inclination, angle = torch.deg2rad(theta["inclination"]), torch.deg2rad(theta["PA"])
    squared, seen = model.mass_model(theta), apparent_over_true(theta["systemic_velocity"], model.channels.convention)
    broadening = seen * theta["line_broadening"]
    floor = _LEAST_SQUARE * model.grid.pixel_scale**2

    def in_disc(east: Tensor, north: Tensor) -> tuple[Tensor, Tensor]:
        along, across = sky_to_disc(east - theta["x"], north - theta["y"], angle, inclination)
        return along, torch.sqrt(along**2 + across**2 + floor)

    def velocity(east: Tensor, north: Tensor) -> Tensor:
        along, radius = in_disc(east, north)
        speed = floored_root(squared(torch.log(radius * model.scale)))
        return seen * line_of_sight_velocity(speed, along, radius, inclination)

    def log_brightness(east: Tensor, north: Tensor) -> Tensor:
        return torch.log(gas_disc(in_disc(east, north)[1], theta) + 1e-30)

    def emission(east: Tensor, north: Tensor, step: float) -> Tensor:
        flux = gas_disc(in_disc(east, north)[1], theta) * step**2 / torch.cos(inclination)
        if primary_beam and model.beam_deviation is not None:
            flux = flux * torch.exp(-(east**2 + north**2) / (2 * model.beam_deviation**2))
        centre, half = velocity(east, north), 0.5 * step
        rise_east = velocity(east + half, north) - velocity(east - half, north)
        rise_north = velocity(east, north + half) - velocity(east, north - half)
        deviation = torch.sqrt(broadening**2 + (rise_east**2 + rise_north**2) / 12.0)
        centre = theta["systemic_velocity"] - model.reference_velocity + centre
        return model.in_channels(centre.to(model.dtype), deviation.to(model.dtype), flux.to(model.dtype))

    with torch.no_grad():
        channel = float(np.abs(np.diff(model.channels.edges)).min())
        counts = model.sampler.counts(velocity, log_brightness, math.hypot(float(broadening), 0.5 * channel))
    return model.sampler.integrate(emission, counts, model.edges)
