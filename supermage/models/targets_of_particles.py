"""Masses and targets of a galaxy from its particles: within spheres, and within circles on the sky."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from supermage.models.columns import APERTURES
from supermage.models.features import check_light, check_projection, checked_half_mass_radius, in_projection
from supermage.models.particles import Particles

FloatArray = NDArray[np.float64]

SHORT = {"stars": "star", "dark_matter": "dm", "gas": "gas", "black_holes": "bh"}
"""How columns call the kinds."""
PROJECTED = "_2d"


def masses_of_particles(particles: Particles, axis: int, *, half_mass_radius: float | None = None) -> dict[str, float]:
    """Masses of every kind within one and two R_hsm, Msun.

    Parameters
    ----------
    particles
        Centred on the galaxy.
    axis
        Direction of projection: 0, 1 or 2.
    half_mass_radius
        R_hsm, kpc; from all stars if None.

    Returns
    -------
    dict
        ``m_star_1rhsm``, ``m_dm_1rhsm``, ``m_gas_1rhsm``, ``m_bh_1rhsm``, ``m_tot_1rhsm`` within the sphere, ``m_star_2d_1rhsm`` ... within
        the circle on the sky (all along the line of sight that the particles hold); the same with ``2rhsm``. The edge belongs to it.

    Raises
    ------
    DataError
        A half-mass radius that is not above 0, or a galaxy that is not centred.
    DomainError
        Another axis.
    """
    check_projection(axis, 1)
    scale = checked_half_mass_radius(particles, half_mass_radius)
    masses: dict[str, float] = {}
    for projected, aperture in ((projected, aperture) for projected in ("", PROJECTED) for aperture in APERTURES):
        limit = int(aperture[0]) * scale
        found = {short: float(kind.mass[_radius(kind.position, axis, bool(projected)) <= limit].sum())
                 for short, kind in ((SHORT[name], kind) for name, kind in particles.kinds.items())}  # fmt: skip
        masses |= {f"m_{short}{projected}_{aperture}": mass for short, mass in found.items()}
        masses[f"m_tot{projected}_{aperture}"] = sum(found.values())
    return masses


def targets_of_particles(
    particles: Particles, axis: int, *, luminosity_r: FloatArray | None = None, half_mass_radius: float | None = None
) -> dict[str, float]:
    """Targets by canonical name, within spheres and circles of one and two R_hsm.

    Parameters
    ----------
    particles, axis, half_mass_radius
        As of `masses_of_particles`.
    luminosity_r
        r light of the stars as it leaves the galaxy in this direction, dust taken off, Lsun, shape (star,); without it no ``log_ml``.

    Returns
    -------
    dict
        Every name of `supermage.models.columns.TARGETS`, bare (sphere of one R_hsm) and with ``_2d``, ``_2rhsm``, ``_2d_2rhsm``; log10.
        ``log_ml`` is the mass over the light of the same stars: the paper's M*/L is ``log_ml_2d``. NaN where there is no such mass (no dark
        matter within: ``log_mdm``, ``log_fdm``) or no light; of particles without any dark matter, which their file has left out, the total
        is not known either: ``log_mtot``, ``log_fstar``.

    Raises
    ------
    DataError
        As `masses_of_particles`; light that is not one finite number a star, negative or nowhere.
    DomainError
        Another axis.
    """
    masses = masses_of_particles(particles, axis, half_mass_radius=half_mass_radius)
    if luminosity_r is not None:
        check_light(particles, r=luminosity_r)
    scale = checked_half_mass_radius(particles, half_mass_radius)
    targets: dict[str, float] = {}
    for projected, aperture in ((projected, aperture) for projected in ("", PROJECTED) for aperture in APERTURES):
        star, dark, total = (masses[f"m_{kind}{projected}_{aperture}"] for kind in ("star", "dm", "tot"))
        total = total if len(particles.dark_matter) else math.nan
        light = math.nan
        if luminosity_r is not None:
            inside = _radius(particles.stars.position, axis, bool(projected)) <= int(aperture[0]) * scale
            light = float(luminosity_r[inside].sum())
        ending = projected + ("" if aperture == APERTURES[0] else f"_{aperture}")
        found = {"log_mstar": _log_ratio(star), "log_mtot": _log_ratio(total), "log_mdm": _log_ratio(dark),
                 "log_fstar": _log_ratio(star, total), "log_fdm": _log_ratio(dark, total), "log_ml": _log_ratio(star, light)}  # fmt: skip
        targets |= {name + ending: value for name, value in found.items()}
    return targets


def _radius(position: FloatArray, axis: int, projected: bool) -> FloatArray:
    first, second, along = in_projection(position, axis)
    flat = np.hypot(first, second)
    return np.asarray(flat if projected else np.hypot(flat, along))


def _log_ratio(mass: float, other: float = 1.0) -> float:
    """log10 of a ratio, NaN (missing) where either is not above 0."""
    return math.log10(mass / other) if mass > 0 and other > 0 else math.nan
