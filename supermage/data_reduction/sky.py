"""The sky of a mock observation, by a path that shares nothing with the forward model that is fitted to it.

Stars: a Nuker surface density, deprojected numerically to an oblate spheroid and integrated to a circular velocity; no Gaussian expansion.
Gas: nodes in the plane of the disc, each with its exact line integral; no image, no pixels. Visibilities: a direct non-uniform transform
from the nodes to every (u, v, w) at every channel's own frequency; no grid of cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ducc0
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

from supermage.constants import ALMA_BEAM_FACTOR, ARCSEC, GRAVITATIONAL_CONSTANT, SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S, pc_per_arcsec
from supermage.errors import DomainError

Array = NDArray[np.float64]

TRANSFORM_ACCURACY = 1e-9
FLAT_SKY = 1e-7
"""Largest error, as a share of the flux, with which the w term is taken to first order."""
RADIAL_EXTENT = 25.0
"""Outermost node in scale lengths: the flux beyond is 4e-10 of the whole."""


@dataclass(frozen=True)
class NukerProfile:
    """Projected Nuker profile along the major axis: slopes, break radius (pc), surface density at the break (Msun/pc^2).

    Source: Yantovski-Barth et al., eq. 2.
    """

    alpha: float
    beta: float
    gamma: float
    break_radius: float
    surface_density: float

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.break_radius > 0 and self.surface_density > 0):
            raise DomainError("a Nuker profile needs alpha > 0, break radius > 0 and surface density > 0, "
                              f"got {self.alpha}, {self.break_radius}, {self.surface_density}")
        if not (self.gamma < 2 and self.beta > 0):
            raise DomainError(f"a Nuker profile needs gamma < 2 and beta > 0, got gamma {self.gamma}, beta {self.beta}")

    def minus_slope(self, radius: Array) -> Array:
        """``-dSigma/dR`` in Msun/pc^3 at radii in pc, any shape."""
        log_x = np.log(radius / self.break_radius)
        softplus = np.logaddexp(0.0, self.alpha * log_x)
        log_sigma = (self.beta - self.gamma) / self.alpha * (math.log(2.0) - softplus) - self.gamma * log_x
        local_slope = self.gamma + (self.beta - self.gamma) * np.exp(self.alpha * log_x - softplus)
        return np.asarray(self.surface_density * np.exp(log_sigma) * local_slope / radius)


def _panels(edges: ArrayLike, order: int) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre panels between consecutive edges."""
    edge = np.asarray(edges, dtype=np.float64)
    node, weight = np.polynomial.legendre.leggauss(order)
    half = 0.5 * np.diff(edge)[:, None]
    return (edge[:-1, None] + half * (1.0 + node)).ravel(), (half * weight).ravel()


def spheroid_density(profile: NukerProfile, radius: ArrayLike, *, intrinsic_axis_ratio: float, observed_axis_ratio: float) -> Array:
    """Density rho(m) of the oblate spheroid whose projection is the profile, Msun/pc^3, at m in pc (any shape).

    Abel's inversion with R = m cosh t, ``rho(m) = (q'/q) / pi * int_0^inf -Sigma'(m cosh t) dt``: with elliptical isodensity surfaces
    of axis ratio q the line of sight is stretched by q/q' against a sphere.
    """
    m = np.asarray(radius, dtype=np.float64)
    # -Sigma' falls like exp(-(beta + 1) t) past the break: 60 e-foldings are more than enough below it too.
    t, weight = _panels(np.concatenate([np.linspace(0.0, 20.0, 41), np.linspace(22.0, 60.0, 20)]), 8)
    total = profile.minus_slope(m[..., None] * np.cosh(t)) @ weight
    return np.asarray(observed_axis_ratio / intrinsic_axis_ratio / math.pi * total)


def stellar_velocity_squared(profile: NukerProfile, radius: ArrayLike, *, inclination: float, intrinsic_axis_ratio: float) -> Array:
    """Square of the circular velocity of the stars in the equatorial plane, (km/s)^2, at radii in pc, shape (radius,).

    ``v^2(R) = 4 pi G q int_0^R rho(m) m^2 dm / sqrt(R^2 - (1 - q^2) m^2)`` (Binney & Tremaine, Galactic Dynamics, eq. 2.132). The
    projected axis ratio is ``q'^2 = q^2 sin^2 i + cos^2 i``.

    Raises
    ------
    DomainError
        If the axis ratio is outside (0, 1] or the inclination (degrees) outside (0, 90].
    """
    q = intrinsic_axis_ratio
    if not 0 < q <= 1:
        raise DomainError(f"the intrinsic axis ratio must lie in (0, 1], got {q}")
    if not 0 < inclination <= 90:
        raise DomainError(f"inclination must lie in (0, 90] deg, got {inclination}")
    tilt = math.radians(inclination)
    observed = math.hypot(q * math.sin(tilt), math.cos(tilt))
    r = np.atleast_1d(np.asarray(radius, dtype=np.float64))
    # m = R exp(-t): panels grow from the surface, where a flat spheroid's kernel is sharp, to where rho m^3 has died out.
    span = 40.0 / (2.0 - profile.gamma)
    t, weight = _panels(np.concatenate([[0.0], np.geomspace(1e-5, span, 46)]), 10)
    s = np.exp(-t)
    kernel = weight * s**3 / np.sqrt(1.0 - (1.0 - q * q) * s * s)
    # The inversion is costly: once on a fine logarithmic grid (cubic, exact to 1e-8 or so at alpha = 2, 2e-6 at alpha = 10).
    log_m = np.arange(math.log(r.min()) - span, math.log(r.max()) + 0.03, 0.015)
    density = spheroid_density(profile, np.exp(log_m), intrinsic_axis_ratio=q, observed_axis_ratio=observed)
    log_density = CubicSpline(log_m, np.log(density))
    inside = np.exp(log_density(np.log(r)[:, None] - t)) @ kernel
    velocity: Array = 4.0 * math.pi * GRAVITATIONAL_CONSTANT * q * r**2 * inside
    return velocity


@dataclass(frozen=True)
class Nodes:
    """Points of a rotating thin disc: offsets east and north (arcsec), line-of-sight velocity (km/s), share of the flux; shape (node,)."""

    east: Array
    north: Array
    velocity: Array
    flux: Array


def disc_nodes(truth: dict[str, float], distance: float, *, radii: int = 480, azimuths: int | None = None) -> Nodes:
    """Sample an exponential, thin, rotating disc in its own plane; velocities on the radio axis, the galaxy's redshift included.

    Parameters
    ----------
    truth
        Parameters by the names and units of Table 1.
    distance
        Mpc.
    radii, azimuths
        Number of nodes: Gauss-Legendre in log radius, and equidistant in azimuth (spectrally accurate once two neighbours are closer than
        the line width, which is how the default is chosen).

    Raises
    ------
    DomainError
        If there is no disc (scale length or line broadening not positive) or a parameter leaves its domain.
    """
    scale, width = truth["scale_length"], truth["line_broadening"]
    if not (scale > 0 and width > 0):
        raise DomainError(f"a mock needs scale_length > 0 and line_broadening > 0, got {scale} and {width}")
    log_s, weight = _panels(np.linspace(math.log(1e-4), math.log(RADIAL_EXTENT), max(radii // 8, 1) + 1), 8)
    s = np.exp(log_s)
    share = weight * s * s * np.exp(-s)
    rotation = np.sqrt(_circular_velocity_squared(truth, distance, s * scale))
    tilt = math.radians(truth["inclination"])
    if azimuths is None:
        reference = float(np.interp(0.02, s, rotation)) * math.sin(tilt)
        azimuths = int(np.clip(math.ceil(2 * math.pi * reference / (0.6 * width)), 256, 2048))
    azimuth = 2 * math.pi * (np.arange(azimuths) + 0.5) / azimuths
    major = (scale * s)[:, None] * np.cos(azimuth)
    minor = (scale * s)[:, None] * np.sin(azimuth) * math.cos(tilt)
    angle = math.radians(truth["PA"])
    flux = np.repeat(share / share.sum() / azimuths, azimuths)
    return Nodes(
        east=(truth["x"] + major * math.sin(angle) - minor * math.cos(angle)).ravel(),
        north=(truth["y"] + major * math.cos(angle) + minor * math.sin(angle)).ravel(),
        velocity=(truth["systemic_velocity"] + in_the_band(truth, rotation)[:, None] * math.sin(tilt) * np.cos(azimuth)).ravel(),
        flux=truth["Flux"] * flux,
    )


def in_the_band(truth: dict[str, float], velocity: Array) -> Array:
    """Velocities inside the galaxy (km/s, small) as they show on the radio axis: every frequency is divided by the galaxy's 1 + z."""
    systemic_frequency = 1.0 - truth["systemic_velocity"] / SPEED_OF_LIGHT
    shifted: Array = systemic_frequency * (1.0 - velocity / SPEED_OF_LIGHT)
    return np.asarray(SPEED_OF_LIGHT * (systemic_frequency - shifted))


def _circular_velocity_squared(truth: dict[str, float], distance: float, radius: Array) -> Array:
    """Stars and black hole, (km/s)^2, at radii in arcsec."""
    pc = pc_per_arcsec(distance)
    profile = NukerProfile(alpha=truth["alpha"], beta=truth["gamma"] - truth["gamma_minus_beta"], gamma=truth["gamma"],
                           break_radius=truth["break_r"] * pc, surface_density=10.0 ** truth["intensity_rb"])
    stars = stellar_velocity_squared(profile, radius * pc, inclination=truth["inclination"], intrinsic_axis_ratio=truth["qintr"])
    total: Array = stars + GRAVITATIONAL_CONSTANT * 10.0 ** truth["log10_mbh"] / (radius * pc)
    return total


def response_taps(averaging: int) -> Array:
    """Spectral response of one output channel over the native ones, shape (averaging + 2,), sum 1: Hanning, then the mean of N."""
    taps: Array = np.convolve([0.25, 0.5, 0.25], np.full(averaging, 1.0 / averaging))
    return taps


def channel_flux(nodes: Nodes, frequency: Array, *, width: float, to_frame: float, rest_frequency: float, line_broadening: float,
                 averaging: int = 1) -> Array:
    """Flux density of every node in every channel, Jy, shape (chan, node).

    The Gaussian line is integrated exactly over each native channel (``averaging`` of them make an output channel), then smoothed with the
    correlator's response. Channels outside the line take nothing and flux outside the band is lost.

    Parameters
    ----------
    frequency, width
        Channel centres (chan,) ascending and their spacing, Hz, as observed.
    to_frame
        Factor from observed frequency to the frame of the nodes' velocities (radio convention).
    rest_frequency, line_broadening
        Hz, km/s as observed (see :func:`in_the_band`).
    """
    native = width / averaging
    edges = frequency[0] - 0.5 * width + native * np.arange(-1, frequency.size * averaging + 2)
    velocity = SPEED_OF_LIGHT * (1.0 - edges * to_frame / rest_frequency)
    step = SPEED_OF_LIGHT * native * to_frame / rest_frequency
    taps = response_taps(averaging)
    out = np.empty((frequency.size, nodes.flux.size))
    for start in range(0, nodes.flux.size, 20_000):
        part = slice(start, start + 20_000)
        below = ndtr((velocity[:, None] - nodes.velocity[part]) / line_broadening)
        line = (below[:-1] - below[1:]) * (nodes.flux[part] / step)
        out[:, part] = sum(tap * line[k : k + averaging * frequency.size : averaging] for k, tap in enumerate(taps))
    return out


def transform(east: Array, north: Array, flux: Array, uvw: Array) -> NDArray[np.complex128]:
    """Visibilities ``sum flux exp(+2 pi i (u l + v m + w (n - 1)))``, the measurement set's own sign, shape (row,).

    A type-3 non-uniform transform, exact to 1e-9 of the total flux. Where the w term may enter to first order with an error below
    `FLAT_SKY`, as for sources of some arcsec, the transform is of two dimensions; elsewhere it is of three.

    Parameters
    ----------
    east, north, flux
        arcsec, arcsec, Jy; shape (node,).
    uvw
        Wavelengths, shape (row, 3), as stored in a measurement set.
    """
    l_cos, m_cos = east * ARCSEC, north * ARCSEC
    n_minus_1 = np.sqrt(1.0 - l_cos**2 - m_cos**2) - 1.0
    place = np.stack([l_cos, m_cos, n_minus_1], axis=1)
    steepest = 2 * math.pi * np.abs(uvw[:, 2]).max()
    if 0.5 * steepest**2 * np.sum(np.abs(flux) * n_minus_1**2) > FLAT_SKY * np.sum(np.abs(flux)):
        return _type_3(flux, place, uvw)
    plane, curved = _type_3(np.stack([flux, flux * n_minus_1]), np.ascontiguousarray(place[:, :2]), uvw[:, :2])
    result: NDArray[np.complex128] = plane + 2j * math.pi * uvw[:, 2] * curved
    return result


def _type_3(source: Array, place: Array, uvw: Array) -> NDArray[np.complex128]:
    """``sum source exp(+2 pi i uvw . place)`` for sources of shape (node,) or (set, node)."""
    result: NDArray[np.complex128] = ducc0.nufft.experimental.nu2nu(
        points_in=source.astype(np.complex128), coord_in=place, coord_out=2 * math.pi * np.ascontiguousarray(uvw), forward=False,
        epsilon=TRANSFORM_ACCURACY, nthreads=1)
    return result


def primary_beam(east: Array, north: Array, frequency: float, dish_diameter: float, *, factor: float = ALMA_BEAM_FACTOR) -> Array:
    """Gaussian power pattern, FWHM ``factor * lambda / D``, at offsets in arcsec for a frequency in Hz and a dish in m."""
    full_width = primary_beam_width(frequency, dish_diameter, factor=factor)
    beam: Array = np.exp(-4.0 * math.log(2.0) * (east**2 + north**2) / full_width**2)
    return beam


def primary_beam_width(frequency: float, dish_diameter: float, *, factor: float = ALMA_BEAM_FACTOR) -> float:
    """Full width at half maximum of the primary beam, arcsec: ``factor * lambda / D`` for a frequency in Hz and a dish in m."""
    return factor * SPEED_OF_LIGHT_M_S / frequency / dish_diameter / ARCSEC
