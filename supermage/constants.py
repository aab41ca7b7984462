"""Physical constants, in the units that the whole package uses (pc, km/s, Msun, Hz, arcsec)."""

from __future__ import annotations

import math

GRAVITATIONAL_CONSTANT = 0.00430091727
"""G in pc (km/s)^2 / Msun."""

SPEED_OF_LIGHT = 299_792.458
"""c in km/s (exact)."""

SPEED_OF_LIGHT_M_S = 299_792_458.0
"""c in m/s (exact)."""

ARCSEC = math.pi / 648_000.0
"""One arcsecond in radians."""

CO_2_1_FREQUENCY = 230.538e9
"""Rest frequency of CO(2-1) in Hz."""

HI_FREQUENCY = 1.420405751786e9
"""Rest frequency of the HI 21 cm line in Hz."""

BOLTZMANN_JY_M2_PER_K = 1380.649
"""Boltzmann's constant in Jy m^2 / K: the radiometer equation's unit."""

ALMA_BEAM_FACTOR = 1.13
"""FWHM of a 12 m ALMA dish's primary beam in units of lambda / D (ALMA Technical Handbook)."""


def pc_per_arcsec(distance: float) -> float:
    """Length in pc that subtends one arcsecond at an angular-diameter distance in Mpc."""
    return distance * math.pi / 0.648
