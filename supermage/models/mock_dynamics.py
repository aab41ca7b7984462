"""Forces and equilibrium of one mock galaxy: potentials of thick discs, Jeans dispersions of discs and of spheres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.special import j0, j1

from supermage.errors import DomainError
from supermage.models.mock_mass import DISC_EDGE, GRAVITY, MassModel

FloatArray = NDArray[np.float64]

GAS_HEIGHT = 0.1
"""Height z0 of the cold gas in scale lengths."""

_WAVE_PIECES = ((0.0, 2.0, 32), (2.0, 10.0, 64), (10.0, 60.0, 96), (60.0, 300.0, 96), (300.0, 2000.0, 64))
_RADIUS = np.concatenate([[0.0], np.geomspace(0.02, DISC_EDGE, 71)])
_ABOVE = np.concatenate([[0.0], np.geomspace(0.005, DISC_EDGE, 47)])


def _gauss_legendre(low: float, high: float, number: int) -> tuple[FloatArray, FloatArray]:
    node, weight = np.polynomial.legendre.leggauss(number)
    return low + 0.5 * (high - low) * (node + 1.0), 0.5 * (high - low) * weight


@lru_cache(maxsize=16)
def _disc_tables(height: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Potential of a disc with M = h = G = 1, its radial and its vertical derivative, each (radius, above)."""
    pieces = [_gauss_legendre(*piece) for piece in _WAVE_PIECES]
    wave, weight = (np.concatenate(part) for part in zip(*pieces, strict=True))
    layer = height * np.arctanh((np.arange(64) + 0.5) / 64.0)
    smooth = np.zeros((len(wave), len(_ABOVE)))
    slope = np.zeros_like(smooth)
    for side in (-1.0, 1.0):
        offset = _ABOVE[:, None] - side * layer
        decay = np.exp(-wave[:, None, None] * np.abs(offset))
        smooth += decay.mean(axis=2) / 2.0
        slope -= wave[:, None] * np.einsum("wal,al->wa", decay, np.sign(offset)) / 128.0
    strength = weight / (1.0 + wave**2) ** 1.5
    phase = wave * _RADIUS[:, None]
    strength = strength * np.exp(-((phase / 80.0) ** 2))  # a disc smooth over R / 80 needs no shorter waves
    around, outward = j0(phase) * strength, j1(phase) * strength * wave
    return -around @ smooth, outward @ smooth, -around @ slope


@dataclass(frozen=True)
class DiscField:
    """Potential and force of an exponential disc with the vertical profile ``sech^2(z / z0)``.

    Attributes
    ----------
    mass, scale, height
        Msun; scale length and z0, kpc.

    Notes
    -----
    ``Phi = -G M/h int dk J0(k R/h) (1 + k^2)^(-3/2) I(k, z/h)`` with I the vertical profile smoothed by ``exp(-k |z|)`` (Binney & Tremaine
    2008, sect. 2.6), tabulated to 15 scale lengths h; a point mass beyond. The force is right to 1 %.
    """

    mass: float
    scale: float
    height: float

    def __post_init__(self) -> None:
        if not (self.mass >= 0 and self.scale > 0 and self.height > 0):
            raise DomainError(f"a disc's mass, scale and height must be positive, got {self.mass:g}, {self.scale:g}, {self.height:g}")

    def _look_up(self, table: int, radius: FloatArray, above: FloatArray) -> FloatArray:
        line = np.interp(radius / self.scale, _RADIUS, np.arange(len(_RADIUS), dtype=np.float64))
        column = np.interp(np.abs(above) / self.scale, _ABOVE, np.arange(len(_ABOVE), dtype=np.float64))
        return map_coordinates(_disc_tables(self.height / self.scale)[table], [line, column], order=1, mode="nearest")

    def potential(self, radius: FloatArray, above: FloatArray) -> FloatArray:
        """Specific potential energy, (km/s)^2, at cylindrical radius and height in kpc, of one shape."""
        value = GRAVITY * self.mass / self.scale * self._look_up(0, radius, above)
        distance = np.hypot(radius, above)
        return np.where(distance < DISC_EDGE * self.scale, value, -GRAVITY * self.mass / np.maximum(distance, self.scale))

    def gradient(self, radius: FloatArray, above: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Derivatives of the potential by radius and by height, (km/s)^2 / kpc."""
        unit = GRAVITY * self.mass / self.scale**2
        distance = np.hypot(radius, above)
        is_near = distance < DISC_EDGE * self.scale
        far = GRAVITY * self.mass / np.maximum(distance, self.scale) ** 3
        outward = np.where(is_near, unit * self._look_up(1, radius, above), far * radius)
        upward = np.where(is_near, unit * np.sign(above) * self._look_up(2, radius, above), far * above)
        return outward, upward


@dataclass(frozen=True)
class DiscMotion:
    """Velocities in a disc by radius, averaged over its height; all but `radius` (kpc) in (km/s)^2.

    Attributes
    ----------
    radius
        Increasing, (n,).
    circular
        Squared circular velocity.
    rotation
        Squared mean azimuthal velocity: the circular one less the asymmetric drift.
    outward, around, upward
        Squared dispersions.
    """

    radius: FloatArray
    circular: FloatArray
    rotation: FloatArray
    outward: FloatArray
    around: FloatArray
    upward: FloatArray


@dataclass(frozen=True)
class Galaxy:
    """One galaxy's potential: discs in the plane z = 0 and what is spherical about the origin.

    Attributes
    ----------
    model
        One galaxy's masses.
    """

    model: MassModel

    def __post_init__(self) -> None:
        if len(self.model) != 1:
            raise DomainError(f"one galaxy at a time has a potential, got {len(self.model)}")

    @cached_property
    def discs(self) -> tuple[DiscField, DiscField]:
        """Fields of the stellar disc and of the cold gas."""
        model = self.model
        gas_scale = float(model.gas_scale[0])
        return (
            DiscField(float(model.disc_mass[0]), float(model.disc_scale[0]), float(model.disc_height[0])),
            DiscField(float(model.gas_mass[0]), gas_scale, GAS_HEIGHT * gas_scale),
        )

    def spherical_mass(self, radius: FloatArray) -> FloatArray:
        """Mass of bulge, halo, hot gas and black hole within spheres: (n,) kpc -> (n,) Msun."""
        r, model = radius[None], self.model
        return (model.bulge(r) + model.hot_gas(r) + model.dark_matter(r))[0] + model.black_hole_mass[0]

    @cached_property
    def radius(self) -> FloatArray:
        """Radii (kpc) of the tables, from far inside the bulge and the disc to the edge of all."""
        model = self.model
        inner = min(model.bulge_scale[0], model.disc_scale[0])
        outer = max(model.halo_edge[0], DISC_EDGE * max(model.disc_scale[0], model.gas_scale[0]), (model.bulge_edge * model.bulge_scale)[0])
        return np.geomspace(2e-3 * inner, 1.001 * outer, 400)

    @cached_property
    def _spherical_potential(self) -> FloatArray:
        mass, radius = self.spherical_mass(self.radius), self.radius
        middle = np.sqrt(radius[1:] * radius[:-1])
        steps = GRAVITY * self.spherical_mass(middle) * (1.0 / radius[:-1] - 1.0 / radius[1:])
        outside = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        return -outside - GRAVITY * mass[-1] / radius[-1]

    @cached_property
    def _log_spherical_mass(self) -> tuple[FloatArray, FloatArray]:
        """Logarithms of radius and of the spherical mass without the black hole."""
        mass = self.spherical_mass(self.radius) - self.model.black_hole_mass[0]
        return np.log(self.radius), np.log(np.maximum(mass, 1e-300))

    def potential(self, position: FloatArray) -> FloatArray:
        """Specific potential energy, (km/s)^2, at positions (n, 3) in kpc, the discs in the plane z = 0."""
        around, above = np.hypot(position[:, 0], position[:, 1]), position[:, 2]
        distance = np.hypot(around, above)
        inside = np.interp(distance, self.radius, self._spherical_potential)
        hole = GRAVITY * self.model.black_hole_mass[0]
        inside -= hole * np.clip(1.0 / np.maximum(distance, 1e-12) - 1.0 / self.radius[0], 0.0, None)
        outside = distance > self.radius[-1]
        inside[outside] *= self.radius[-1] / distance[outside]
        return inside + sum((disc.potential(around, above) for disc in self.discs if disc.mass), np.zeros(len(position)))

    def acceleration(self, position: FloatArray) -> FloatArray:
        """Acceleration, (km/s)^2 / kpc, at positions (n, 3) in kpc."""
        around, above = np.hypot(position[:, 0], position[:, 1]), position[:, 2]
        distance = np.maximum(np.hypot(around, above), 1e-12)
        inside = np.exp(np.interp(np.log(distance), *self._log_spherical_mass)) + self.model.black_hole_mass[0]
        value = -position * (GRAVITY * inside / distance**3)[:, None]
        for disc in self.discs:
            if disc.mass:
                outward, upward = disc.gradient(around, above)
                value[:, :2] -= position[:, :2] * (outward / np.maximum(around, 1e-12))[:, None]
                value[:, 2] -= upward
        return value

    def disc_motion(self, scale: float, height: float, *, heating: float) -> DiscMotion:
        """Equilibrium of an exponential, sech^2 tracer disc: scale and z0 in kpc; ``heating`` is sigma_R / sigma_z.

        Notes
        -----
        ``sigma_z^2 = <z dPhi/dz>`` over the disc's height; ``sigma_phi^2 = sigma_R^2 kappa^2 / 4 Omega^2``; the drift from the radial
        Jeans equation without its mixed term (Binney & Tremaine 2008, sect. 4.8.2). Where the drift would take more than all rotation,
        as in a thick disc's centre, there is none.
        """
        radius = np.geomspace(0.02, DISC_EDGE, 96) * scale
        rank, weight = _gauss_legendre(0.0, 1.0, 16)
        above = height * np.arctanh(rank)
        around, up = np.broadcast_arrays(radius[:, None], above)
        distance = np.hypot(around, up)
        pull = GRAVITY * self.spherical_mass(distance.ravel()).reshape(distance.shape) / distance**3
        outward, upward = pull * around, pull * up
        for disc in self.discs:
            if disc.mass:
                more_outward, more_upward = disc.gradient(around, up)
                outward, upward = outward + more_outward, upward + more_upward
        circular = radius * (outward @ weight)
        vertical = (upward * up) @ weight
        log_radius = np.log(radius)
        ratio = np.clip(0.5 * (1.0 + 0.5 * np.gradient(np.log(circular), log_radius)), 0.25, 1.0)
        radial = np.minimum(heating**2 * vertical, circular)
        drift = 1.0 - ratio + np.gradient(np.log(radial), log_radius) - radius / scale
        rotation = np.clip(circular + radial * drift, 0.0, circular)
        return DiscMotion(radius, circular, rotation, radial, ratio * radial, vertical)

    def sphere_dispersion(self, mass_within: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Squared isotropic dispersion, (km/s)^2 at `radius`, of a spherical tracer from its mass within spheres.

        Notes
        -----
        ``rho sigma^2 = int_r rho G M / r^2 dr`` (Binney & Tremaine 2008, eq. 4.216), all masses spherically averaged.
        """
        radius = self.radius
        middle = np.sqrt(radius[1:] * radius[:-1])
        shell = np.diff(mass_within(radius))
        pull = GRAVITY * self.model.total(middle[None])[0] / middle**2
        pressure = np.cumsum((shell * pull / middle**2)[::-1])[::-1]
        density = shell / np.diff(radius) / middle**2
        squared = pressure / np.where(density > 0, density, np.inf) - 0.5 * pull * np.diff(radius)
        return np.interp(np.log(radius), np.log(middle), np.maximum(squared, 0.0))

    def escape_speed(self, position: FloatArray) -> FloatArray:
        """Speed (km/s) that leaves the galaxy from positions (n, 3)."""
        return np.sqrt(-2.0 * self.potential(position))
