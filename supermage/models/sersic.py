"""Sersic profile of the light of stars in projection, fitted to circular annuli."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import gammainc, gammaincinv

from supermage.errors import DataError, DomainError

FloatArray = NDArray[np.float64]

INDEX_RANGE = (0.1, 200.0)
"""Sersic indices that a fit may reach. The paper leaves out galaxies above 100: what no index describes runs to the upper edge."""
RADIUS_RANGE = (1e-3, 1e3)
"""Effective radii that a fit may reach, in units of the outermost annulus."""
ANNULI, INNERMOST = 40, 0.01
"""Number of annuli, in equal steps of ln R; outer radius of the disc at the centre, in units of the outermost annulus."""
LEAST_EFFECTIVE, LEAST_ANNULI = 16.0, 6
"""Stars of equal light that an annulus must count as; annuli that a fit must have."""
FLOOR = 0.05
"""Relative error of every annulus beside the shot noise of its stars: no galaxy is a Sersic profile to better than that."""
STARTS = (1.0, 4.0)


@dataclass(frozen=True)
class SersicFit:
    """A fitted profile.

    Attributes
    ----------
    index
        Sersic index n; NaN where the light is in too few annuli for a fit.
    effective_radius
        Radius that holds half of the profile's light out to infinity, in the radii's unit.
    luminosity
        Light of the profile out to infinity, in the stars' unit; the part within the annuli is measured, the rest follows.
    chi_square, n_annuli
        Of the fit; three parameters are free.
    """

    index: float
    effective_radius: float
    luminosity: float
    chi_square: float
    n_annuli: int


def enclosed_share(radius: FloatArray, index: float, effective_radius: float) -> FloatArray:
    """Share of a Sersic profile's light within a projected radius.

    ``P(2 n, b_n (R/R_e)^(1/n))`` with ``P(2 n, b_n) = 1/2`` (Ciotti 1991; Graham & Driver 2005, eq. 2), any unit of length.

    Raises
    ------
    DomainError
        An index or a radius that is not above 0.
    """
    if not (index > 0 and effective_radius > 0):
        raise DomainError(f"a Sersic profile needs an index and a radius above 0, got {index:g} and {effective_radius:g}")
    b_n = float(gammaincinv(2.0 * index, 0.5))
    return np.asarray(gammainc(2.0 * index, b_n * (radius / effective_radius) ** (1.0 / index)))


def fit_sersic(radius: FloatArray, luminosity: FloatArray, outer_radius: float) -> SersicFit:
    """Sersic profile of light within a circle.

    The light in concentric circular annuli (`annuli_of`) is compared with the profile's, each annulus exactly integrated, by weighted
    least squares in ln L. An annulus weighs as the shot noise of its stars, ``sum l^2 / (sum l)^2``, and `FLOOR` in quadrature; beyond two
    standard errors residuals count linearly (soft L1), so that a companion does not draw the fit. Annuli are circular whatever the
    flattening: of a disc seen edge-on the index is that of its circularly averaged light.

    Parameters
    ----------
    radius
        Projected radii of the stars, shape (star,).
    luminosity
        Their light, shape (star,).
    outer_radius
        Edge of the outermost annulus, in the radii's unit; no star beyond counts.

    Returns
    -------
    SersicFit
        All NaN where fewer than `LEAST_ANNULI` annuli have enough stars.

    Raises
    ------
    DataError
        An outer radius that is not above 0.
    """
    if not outer_radius > 0:
        raise DataError(f"a Sersic fit needs an outer radius above 0, got {outer_radius:g}")
    edge, light, variance = annuli_of(radius, luminosity, outer_radius)
    if len(light) < LEAST_ANNULI:
        return SersicFit(math.nan, math.nan, math.nan, math.nan, len(light))
    log_light = np.log(light)
    sigma = np.sqrt(variance / light**2 + FLOOR**2)

    def residuals(point: FloatArray) -> FloatArray:
        share = np.diff(enclosed_share(edge, math.exp(point[0]), outer_radius * math.exp(point[1])))
        return (log_light - point[2] - np.log(np.maximum(share, 1e-300))) / sigma

    inside = np.cumsum(light)
    half = math.log(float(np.interp(0.5 * inside[-1], inside, edge[1:])) / outer_radius)
    lower, upper = (np.array([math.log(INDEX_RANGE[k]), math.log(RADIUS_RANGE[k]), -np.inf if k == 0 else np.inf]) for k in (0, 1))
    starts = (np.array([math.log(index), half, math.log(inside[-1])]) for index in STARTS)
    fits = [least_squares(residuals, start, bounds=(lower, upper), loss="soft_l1", f_scale=2.0) for start in starts]
    best = min(fits, key=lambda fit: fit.cost)
    index, scale, total = (math.exp(min(value, 700.0)) for value in best.x)
    return SersicFit(index, outer_radius * scale, total, float(np.sum(residuals(best.x) ** 2)), len(light))


def annuli_of(radius: FloatArray, luminosity: FloatArray, outer_radius: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Light of stars in annuli, neighbours joined from the centre outwards until each counts as `LEAST_EFFECTIVE` stars of equal light.

    The last ends at the outermost star within the outer radius: a cutout may end before.

    Returns
    -------
    edge, light, variance
        Shapes (annulus + 1,), (annulus,), (annulus,): edges in the radii's unit, ``sum l`` and ``sum l^2``. What is left over at the
        outside is joined to the last annulus.
    """
    inside = (radius <= outer_radius) & (luminosity > 0)
    outer_radius = min(outer_radius, float(np.max(radius[inside], initial=0.0)))
    if not outer_radius > 0:
        return np.zeros(1), np.empty(0), np.empty(0)
    edges = np.concatenate([[0.0], np.geomspace(INNERMOST * outer_radius, outer_radius, ANNULI)])
    edges[-1] = outer_radius
    number = np.maximum(np.searchsorted(edges, radius[inside], side="left"), 1) - 1
    light = np.bincount(number, weights=luminosity[inside], minlength=ANNULI)
    variance = np.bincount(number, weights=luminosity[inside] ** 2, minlength=ANNULI)
    outer: list[float] = []
    sums: list[tuple[float, float]] = []
    held = (0.0, 0.0)
    for k in range(ANNULI):
        held = (held[0] + float(light[k]), held[1] + float(variance[k]))
        if held[1] > 0 and held[0] ** 2 >= LEAST_EFFECTIVE * held[1]:
            outer.append(float(edges[k + 1]))
            sums.append(held)
            held = (0.0, 0.0)
    if sums:
        sums[-1] = (sums[-1][0] + held[0], sums[-1][1] + held[1])
        outer[-1] = outer_radius
    table = np.array(sums).reshape(-1, 2)
    return np.array([0.0, *outer]), table[:, 0].copy(), table[:, 1].copy()
