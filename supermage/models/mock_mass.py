"""Mass of mock galaxies: disc, bulge, cold and hot gas, black hole, and a halo that has answered to them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError

FloatArray = NDArray[np.float64]

GRAVITY = GRAVITATIONAL_CONSTANT / 1000.0
"""G in kpc (km/s)^2 / Msun."""

HUBBLE = 67.74
"""km/s/Mpc (Planck Collaboration 2016), as in TNG."""

BARYON_FRACTION = 0.157
"""Of the matter of the universe."""

DISC_EDGE = 15.0
"""Where the discs end, in scale lengths; the mass beyond, 5e-6 of all, is left out."""

HEIGHTS = (0.05, 0.8)
"""Heights of stellar discs that the table of masses holds, in scale lengths."""

_LOG_RADIUS = np.linspace(np.log(1e-3), np.log(DISC_EDGE), 481)
_LOG_HEIGHT = np.linspace(np.log(HEIGHTS[0]), np.log(HEIGHTS[1]), 49)


def thin_disc(x: FloatArray) -> FloatArray:
    """Share of an exponential disc's mass within x scale lengths."""
    return np.asarray(-np.expm1(-x) - x * np.exp(-x))


def hernquist(x: FloatArray, edge: FloatArray | float = np.inf) -> FloatArray:
    """Share of a Hernquist (1990) sphere's mass within x scale lengths, where it ends at ``edge`` scale lengths."""
    end = np.asarray(edge, dtype=np.float64)
    whole = 1.0 / (1.0 + 1.0 / end) ** 2
    x = np.minimum(x, end)
    return np.asarray((x / (1.0 + x)) ** 2 / whole)


def nfw(x: FloatArray) -> FloatArray:
    """``ln(1 + x) - x / (1 + x)``, exact for small x too (Navarro, Frenk & White 1997)."""
    series = x**2 * (0.5 - x * (2.0 / 3.0 - 0.75 * x))
    return np.where(x < 1e-3, series, np.log1p(x) - x / (1.0 + x))


@lru_cache(maxsize=1)
def _sphere_table() -> FloatArray:
    """Logarithm of a thick disc's mass share within a sphere, (height, radius): ``int 2 pi R Sigma tanh(sqrt(r^2 - R^2) / z0) dR``."""
    node, weight = np.polynomial.legendre.leggauss(128)
    angle = 0.25 * np.pi * (node + 1.0)
    radius, height = np.exp(_LOG_RADIUS)[:, None], np.exp(_LOG_HEIGHT)[:, None, None]
    inside, above = radius * np.sin(angle), radius * np.cos(angle)
    share = inside * np.exp(-inside) * above * np.tanh(above / height) @ (0.25 * np.pi * weight)
    return np.log(share)


def disc_in_sphere(x: FloatArray, height: FloatArray) -> FloatArray:
    """Share of the mass of an exponential, sech^2 disc within a sphere of x scale lengths.

    Parameters
    ----------
    x, height
        Radius, and z0 of ``sech^2(z / z0)``, in scale lengths; they broadcast.

    Notes
    -----
    Tabulated; the relative error is below 2e-4 from 0.01 scale lengths on.
    """
    if np.any((height < HEIGHTS[0]) | (height > HEIGHTS[1])):
        raise DomainError(f"a disc's height must lie in {list(HEIGHTS)} scale lengths, got {np.min(height):g} to {np.max(height):g}")
    x, height = np.broadcast_arrays(x, height)
    log_x = np.log(np.clip(x, 1e-300, DISC_EDGE))
    column = (log_x - _LOG_RADIUS[0]) / (_LOG_RADIUS[1] - _LOG_RADIUS[0])
    line = (np.log(height) - _LOG_HEIGHT[0]) / (_LOG_HEIGHT[1] - _LOG_HEIGHT[0])
    value = map_coordinates(_sphere_table(), [line, column], order=1, mode="nearest")
    value = np.exp(value + 3.0 * np.minimum(log_x - _LOG_RADIUS[0], 0.0))
    return np.minimum(value, 1.0)


@dataclass(frozen=True)
class MassModel:
    """Spherically averaged masses of many galaxies: every attribute has the shape (galaxy,).

    Attributes
    ----------
    disc_mass, disc_scale, disc_height
        Exponential stellar disc: Msun, scale length and z0 of ``sech^2(z / z0)`` in kpc.
    bulge_mass, bulge_scale, bulge_edge
        Hernquist bulge: Msun, scale radius in kpc, edge in scale radii.
    gas_mass, gas_scale
        Thin exponential disc of cold gas: Msun, kpc.
    hot_mass
        Hot gas within R200, a Hernquist sphere of scale R200: Msun.
    halo_mass, concentration, halo_edge
        NFW halo before galaxies formed: M200 in Msun with its baryons, R200 over its scale radius, and where tides have cut it, kpc.
    response
        Power of the halo's contraction: 0 for none, 1 for Cautun et al. (2020).
    black_hole_mass
        Msun.
    """

    disc_mass: FloatArray
    disc_scale: FloatArray
    disc_height: FloatArray
    bulge_mass: FloatArray
    bulge_scale: FloatArray
    bulge_edge: FloatArray
    gas_mass: FloatArray
    gas_scale: FloatArray
    hot_mass: FloatArray
    halo_mass: FloatArray
    concentration: FloatArray
    halo_edge: FloatArray
    response: FloatArray
    black_hole_mass: FloatArray

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value.ndim != 1 or not (np.isfinite(value).all() and (value >= 0).all()):
                raise DomainError(f"a mock galaxy's {item.name} must be finite and not negative, in one dimension, got {value!r}")
        if (self.response > 1.8).any():
            raise DomainError(f"the response of a halo must be at most 1.8, or its mass could fall outwards, got {self.response.max():g}")

    def __len__(self) -> int:
        return len(self.disc_mass)

    def __getitem__(self, part: slice) -> MassModel:
        """Some of the galaxies."""
        return MassModel(**{item.name: getattr(self, item.name)[part] for item in fields(self)})

    @classmethod
    def from_columns(cls, columns: Any) -> MassModel:
        """The model of a table's rows, or of one row, from its columns ``mock_<attribute>``."""
        return cls(**{item.name: np.atleast_1d(np.asarray(columns[f"mock_{item.name}"], dtype=np.float64)) for item in fields(cls)})

    @property
    def halo_radius(self) -> FloatArray:
        """R200, kpc."""
        return virial_radius(self.halo_mass)

    def disc(self, radius: FloatArray) -> FloatArray:
        """Mass of the stellar disc within spheres; like the following, radius (galaxy, n) in kpc -> (galaxy, n) in Msun."""
        scale = self.disc_scale[:, None]
        return self.disc_mass[:, None] * disc_in_sphere(radius / scale, self.disc_height[:, None] / scale)

    def bulge(self, radius: FloatArray) -> FloatArray:
        """Mass of the bulge within spheres."""
        return self.bulge_mass[:, None] * hernquist(radius / self.bulge_scale[:, None], self.bulge_edge[:, None])

    def stars(self, radius: FloatArray) -> FloatArray:
        """Mass of all stars within spheres."""
        return self.disc(radius) + self.bulge(radius)

    def cold_gas(self, radius: FloatArray) -> FloatArray:
        """Mass of the cold gas within spheres."""
        return self.gas_mass[:, None] * thin_disc(radius / self.gas_scale[:, None])

    def hot_gas(self, radius: FloatArray) -> FloatArray:
        """Mass of the hot gas within spheres."""
        inside = np.minimum(radius, self.halo_edge[:, None])
        return self.hot_mass[:, None] * hernquist(inside / self.halo_radius[:, None], 1.0)

    def components(self, radius: FloatArray) -> dict[str, FloatArray]:
        """Masses within spheres of disc, bulge, cold and hot gas and dark matter, by name."""
        parts = {"disc": self.disc(radius), "bulge": self.bulge(radius), "cold": self.cold_gas(radius), "hot": self.hot_gas(radius)}
        return {**parts, "dark": self._contracted(radius, parts["disc"] + parts["bulge"] + parts["cold"] + parts["hot"])}

    def dark_matter(self, radius: FloatArray) -> FloatArray:
        """Mass of dark matter within spheres.

        Notes
        -----
        Cautun et al. (2020), eq. 11: the mass of dark matter of the undisturbed halo times ``0.45 + 0.38 (eta + 1.16)^0.53``, here to the
        power of `response`; eta is the mass of baryons over the share that it would have without galaxies. Since the mass of
        baryons does not fall outwards, neither does that of dark matter for a response below 1 / 0.53.
        """
        return self.components(radius)["dark"]

    def _contracted(self, radius: FloatArray, baryons: FloatArray) -> FloatArray:
        edge, concentration = self.halo_edge[:, None], self.concentration[:, None]
        inside = np.minimum(radius, edge)
        undisturbed = self.halo_mass[:, None] * nfw(inside * concentration / self.halo_radius[:, None]) / nfw(concentration)
        if (radius > edge).any():
            baryons = np.where(radius > edge, self._baryons(edge), baryons)
        excess = baryons / np.maximum(BARYON_FRACTION * undisturbed, 1e-300)
        return (1.0 - BARYON_FRACTION) * undisturbed * (0.45 + 0.38 * (excess + 1.16) ** 0.53) ** self.response[:, None]

    def _baryons(self, radius: FloatArray) -> FloatArray:
        return self.stars(radius) + self.cold_gas(radius) + self.hot_gas(radius)

    def total(self, radius: FloatArray) -> FloatArray:
        """All mass within spheres, the black hole's too."""
        return sum(self.components(radius).values(), self.black_hole_mass[:, None])


def virial_radius(mass: FloatArray) -> FloatArray:
    """Radius (kpc) within which a mass (Msun) has 200 times the critical density."""
    critical = 3.0 * (HUBBLE / 1000.0) ** 2 / (8.0 * np.pi * GRAVITY)
    return np.asarray((3.0 * mass / (800.0 * np.pi * critical)) ** (1.0 / 3.0))


def half_mass_scale(disc_share: FloatArray, height: FloatArray, bulge_scale: FloatArray, bulge_edge: FloatArray) -> FloatArray:
    """Radius of half of the stars' mass, in scale lengths of the disc.

    Parameters
    ----------
    disc_share
        Of the disc in the stars' mass, (galaxy,).
    height, bulge_scale
        In scale lengths of the disc.
    bulge_edge
        In scale radii of the bulge.
    """
    low, high = np.full(len(disc_share), np.log(1e-2)), np.full(len(disc_share), np.log(1e3))
    for _ in range(30):
        middle = 0.5 * (low + high)
        x = np.exp(middle)
        inside = disc_share * disc_in_sphere(x, height) + (1.0 - disc_share) * hernquist(x / bulge_scale, bulge_edge)
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    return np.exp(0.5 * (low + high))
