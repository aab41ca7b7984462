"""The baseline that an estimator has to beat: a power law between luminosity and mass (Chu et al., section 4.1 and Figure 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError

FloatArray = NDArray[np.float64]

PIVOT = -20.0
"""Absolute magnitude at which the law's mass is stated."""


@dataclass(frozen=True)
class PowerLaw:
    """``log M = log_mass_at_pivot + slope * log(L / L_pivot)``, with L_pivot the luminosity of absolute magnitude :data:`PIVOT`.

    Attributes
    ----------
    slope
        d log M / d log L.
    log_mass_at_pivot
        log10 of the mass, Msun.
    """

    slope: float
    log_mass_at_pivot: float

    def predict(self, magnitude: FloatArray) -> FloatArray:
        """log10 of the mass (Msun) of galaxies by their absolute magnitudes, NaN where those are missing."""
        return self.log_mass_at_pivot + self.slope * log_luminosity(magnitude)


def log_luminosity(magnitude: FloatArray) -> FloatArray:
    """log10 of the luminosity in units of that of absolute magnitude :data:`PIVOT`."""
    return -0.4 * (magnitude - PIVOT)


def fit_power_law(magnitude: FloatArray, log_mass: FloatArray) -> PowerLaw:
    """Fit a power law by least squares in log M.

    Parameters
    ----------
    magnitude
        Absolute magnitudes, shape (row,).
    log_mass
        log10 of the masses, Msun, shape (row,).

    Raises
    ------
    DataError
        If shapes differ, a number is not finite, or fewer than two different magnitudes are given.
    """
    if magnitude.ndim != 1 or magnitude.shape != log_mass.shape:
        raise DataError(f"a power law needs one mass for each magnitude, got shapes {magnitude.shape} and {log_mass.shape}")
    bad = np.count_nonzero(~(np.isfinite(magnitude) & np.isfinite(log_mass)))
    if bad:
        raise DataError(f"a power law needs finite magnitudes and masses, got {bad} rows without")
    different = len(np.unique(magnitude))
    if different < 2:
        raise DataError(f"a power law needs at least two different magnitudes, got {different}")
    luminosity = log_luminosity(magnitude)
    offset = luminosity - luminosity.mean()
    slope = float(offset @ log_mass / (offset @ offset))
    return PowerLaw(slope=slope, log_mass_at_pivot=float(log_mass.mean() - slope * luminosity.mean()))
