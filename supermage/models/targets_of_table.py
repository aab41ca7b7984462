"""What estimators predict, from the masses of a catalogue: logarithms within an aperture."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.catalogue import canonical, column_values
from supermage.models.columns import APERTURES

FloatArray = NDArray[np.float64]

SUN_R = 4.65
"""Absolute AB magnitude of the Sun in SDSS r (Willmer 2018)."""

_PARTS = ("star", "dm", "gas", "bh")


def targets_of_masses(table: Table, aperture: str = "1rhsm") -> dict[str, FloatArray]:
    """Logarithms of masses, fractions and mass-to-light ratio.

    The light of a catalogue is the whole galaxy's, so ``log_ml`` is the whole galaxy's too, by ``M*/L = 2 M*(< R_hsm) / L`` with
    ``log10 L = 0.4 (4.65 - M_r)``: R_hsm holds half of the stars by its definition. It is the same for both apertures, and equals the ratio
    within the aperture where light follows mass. (The light is as the catalogue has it: TNG's without dust. The paper's M*/L is a ratio in
    projection with light behind dust, which takes particles.) The factor 2 shifts ``log_ml`` by 0.301 and leaves all scatter as it is.

    Parameters
    ----------
    table
        A canonical catalogue, or one with units on its columns, with masses ``m_<kind>_<aperture>``.
    aperture
        ``1rhsm`` or ``2rhsm``: the sphere of one or two half-mass radii of the stars.

    Returns
    -------
    dict
        Names of :data:`supermage.models.columns.TARGETS` (with ``_2rhsm`` last for that aperture) to float64 arrays of shape (row,), for
        all targets that the columns allow; NaN where a mass is missing or zero. The total is ``m_tot_*`` or else the sum of all four parts.

    Raises
    ------
    DataError
        If the aperture is unknown, the table allows no target, or a total is below its stars by more than rounding.
    """
    if aperture not in APERTURES:
        raise DataError(f"an aperture must be one of {', '.join(APERTURES)}, got '{aperture}'")
    needed = [f"m_{part}_{item}" for part in (*_PARTS, "tot") for item in {aperture, "1rhsm"}]
    table = canonical(table, names=[*needed, "M_r"])
    present = [part for part in ("star", "dm") if f"m_{part}_{aperture}" in table.colnames]
    log = {part: _log10(column_values(table, f"m_{part}_{aperture}")) for part in present}
    total = _total(table, aperture)
    if total is not None:
        log["tot"] = _log10(total)
    result: dict[str, FloatArray] = {f"log_m{part}": log[part] for part in ("star", "tot", "dm") if part in log}
    if "star" in log and "tot" in log:
        _check_total(log["star"], log["tot"], aperture)
        result["log_fstar"] = log["star"] - log["tot"]
    if "dm" in log and "tot" in log:
        result["log_fdm"] = log["dm"] - log["tot"]
    if {"m_star_1rhsm", "M_r"} <= set(table.colnames):
        light = 0.4 * (SUN_R - column_values(table, "M_r"))
        result["log_ml"] = np.log10(2.0) + _log10(column_values(table, "m_star_1rhsm")) - light
    if not result:
        raise DataError(f"targets need masses within an aperture, like m_star_{aperture}, got none of {', '.join(sorted(needed))}")
    ending = "" if aperture == "1rhsm" else f"_{aperture}"
    return {f"{name}{ending}": value for name, value in result.items()}


def _total(table: Table, aperture: str) -> FloatArray | None:
    """The total mass as it stands, or else the sum of all parts; None where a part is lacking."""
    if f"m_tot_{aperture}" in table.colnames:
        return column_values(table, f"m_tot_{aperture}")
    if all(f"m_{part}_{aperture}" in table.colnames for part in _PARTS):
        return np.sum([column_values(table, f"m_{part}_{aperture}") for part in _PARTS], axis=0)
    return None


def _check_total(star: FloatArray, total: FloatArray, aperture: str) -> None:
    short = np.flatnonzero(star - total > 1e-5)
    if len(short):
        row = short[0]
        got = f"10^{total[row]:.4f} below 10^{star[row]:.4f} Msun in row {row} ({len(short)} such rows)"
        raise DataError(f"the total mass within {aperture} must be at least that of its stars, got {got}")


def _log10(value: FloatArray) -> FloatArray:
    """NaN for zero and below."""
    return np.log10(np.where(value > 0.0, value, np.nan))
