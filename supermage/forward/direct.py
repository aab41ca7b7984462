"""Visibilities without any grid: fine polar sampling of the disc, explicit non-uniform transform. Slow; the oracle of the fast path.

In the sign of the gridded data, ``exp(-2 pi i (u l + v m))``: see docs/conventions.md. A measurement set holds the conjugate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ducc0
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erf

from supermage.constants import ARCSEC, SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S
from supermage.errors import DomainError
from supermage.forward.disc import edge_taper

if TYPE_CHECKING:
    from supermage.forward.galaxy_model import GalaxyModel, Theta

_EPSILON = 1e-9
BEYOND = 1.5
"""Radius of the disc here over that of the model, so that what the model cuts off is seen."""


@dataclass(frozen=True)
class DirectSettings:
    """Sampling of the disc: rings between two radii (arcsec), points around each ring."""

    inner: float
    outer: float
    rings: int = 240
    azimuths: int = 1024


def polar_nodes(settings: DirectSettings, edge: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Radius, azimuth from the receding major axis and area (arcsec^2, disc plane) of every node; rings evenly spaced in log radius."""
    step = math.log(settings.outer / settings.inner) / settings.rings
    ring = settings.inner * np.exp(step * (np.arange(settings.rings) + 0.5))
    azimuth = (np.arange(settings.azimuths) + 0.5) * (2.0 * math.pi / settings.azimuths)
    area = ring**2 * step * (2.0 * math.pi / settings.azimuths) * edge(ring / settings.outer)
    shape = (settings.rings, settings.azimuths)
    radius, area = np.broadcast_to(ring[:, None], shape), np.broadcast_to(area[:, None], shape)
    return radius.ravel(), np.broadcast_to(azimuth, shape).ravel(), area.ravel()


def line_in_channels(
    edges: NDArray[np.float64], matrix: NDArray[np.float64], velocity: NDArray[np.float64], deviation: float, flux: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean flux density (Jy) of Gaussian lines over the channels of one block, shape (chan, node)."""
    scaled = (edges[:, None] - velocity) / (math.sqrt(2.0) * deviation)
    result: NDArray[np.float64] = matrix @ (0.5 * erf(scaled)) * flux
    return result


def transform(
    position: NDArray[np.float64],
    values: NDArray[np.float64],
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> NDArray[np.complex128]:
    """``sum_p I_p exp(-2 pi i (u l_p + v m_p))`` for every channel.

    Parameters
    ----------
    position
        (east, north) of the points, arcsec, shape (point, 2).
    values
        Flux density of the points in every channel, shape (chan, point).
    u, v
        Baselines, m, shape (visibility,).
    frequency
        Hz, shape (chan,).

    Raises
    ------
    DomainError
        If u and v differ in shape.
    """
    if u.shape != v.shape:
        raise DomainError(f"u and v must have the same shape, got {u.shape} and {v.shape}")
    result = np.empty((frequency.size, u.size), dtype=np.complex128)
    for channel, nu in enumerate(frequency):
        baseline = np.stack([u, v], axis=-1) * (nu / SPEED_OF_LIGHT_M_S)
        result[channel] = ducc0.nufft.experimental.nu2nu(
            points_in=values[channel].astype(np.complex128),
            coord_in=position * ARCSEC,
            coord_out=baseline * (2.0 * math.pi),
            forward=True,
            epsilon=_EPSILON,
            nthreads=1,
        )
    return result


def direct_visibilities(
    model: GalaxyModel,
    theta: Theta,
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    *,
    rings: int = 240,
    azimuths: int = 1024,
) -> NDArray[np.complex128]:
    """Visibilities of single baselines, without cells, moments or interpolation, shape (block, chan, visibility), Jy.

    The sign is that of the gridded data; the disc reaches 1.5 times as far as the model's.

    Parameters
    ----------
    model
        Gives channels, mass model and beam.
    theta
        Parameters of Table 1.
    u, v
        Baselines, m, in the half plane or not, shape (visibility,) or (block, visibility).
    rings, azimuths
        Sampling of the disc.
    """
    number = {name: float(value) for name, value in theta.items()}
    limit = BEYOND * model.disc_radius
    radius, azimuth, area = polar_nodes(DirectSettings(1e-4 * limit, limit, rings, azimuths), edge_taper)
    circular = model.circular_velocity(theta, torch.tensor(radius)).detach().numpy()
    inclination, angle = math.radians(number["inclination"]), math.radians(number["PA"])
    systemic = number["systemic_velocity"]
    # the light of everything in the galaxy is stretched by 1 + z; radio velocities follow the frequency, optical ones the wavelength
    optical = model.channels.convention == "optical"
    one_plus_z = 1.0 + systemic / SPEED_OF_LIGHT if optical else 1.0 / (1.0 - systemic / SPEED_OF_LIGHT)
    seen = one_plus_z if optical else 1.0 / one_plus_z
    velocity = systemic + seen * circular * math.sin(inclination) * np.cos(azimuth)
    along, across = radius * np.cos(azimuth), radius * np.sin(azimuth) * math.cos(inclination)
    east = number["x"] + along * math.sin(angle) - across * math.cos(angle)
    north = number["y"] + along * math.cos(angle) + across * math.sin(angle)
    index = number.get("gas_index", 1.0)
    flux = number["Flux"] * area * np.exp(-((radius / number["scale_length"]) ** index))
    flux = flux * index / (2.0 * math.pi * number["scale_length"] ** 2 * math.gamma(2.0 / index))
    if model.beam_deviation is not None:
        flux = flux * np.exp(-(east**2 + north**2) / (2.0 * model.beam_deviation**2))
    sky = np.stack([east, north], axis=-1)
    channels = model.channels
    result = []
    for block, frequency in enumerate(channels.frequency):
        line = line_in_channels(channels.edges[block], channels.matrix[block], velocity, seen * number["line_broadening"], flux)
        own_u, own_v = (u, v) if u.ndim == 1 else (u[block], v[block])
        result.append(transform(sky, line, own_u, own_v, frequency))
    return np.stack(result)
