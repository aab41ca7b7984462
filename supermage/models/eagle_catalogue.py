"""Central galaxies of EAGLE with their dark-matter fractions, as a catalogue in canonical columns."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError
from supermage.models.catalogue import canonical

NO_GAS = -1.0
"""Logarithm of the gas mass that stands in the file for none."""

_NUMBER_OF_COLUMNS = 10


def read_eagle_centrals(path: str | Path) -> Table:
    """Read the text table of centrals of RefL0100N1504 (McAlpine et al. 2016; Schaye et al. 2015).

    Stars and gas are counted within 30 kpc, and ``r50_3d`` is the radius of half of the stars within 30 kpc: TNG's rows have the whole
    subhalo for all three. Their galaxies are centrals of more than 1e10 Msun.

    Parameters
    ----------
    path
        Text file of ten columns: galaxy, group, log10 stellar mass, half-mass radius in space and in projection (kpc), log10 gas mass,
        log10 halo mass M200, kappa_co, half-light radius (kpc), dark-matter fraction within that radius.

    Returns
    -------
    Table
        ``galaxy_id``, ``group_id``, ``m_star_total`` and ``m_star_30kpc`` (the same numbers), ``r50_3d``, ``m_gas_total`` (Msun, 0 where
        the file has -1), and beside the vocabulary ``r50_2d`` and ``r_e`` (kpc), ``m_200`` (Msun), ``kappa_co`` and ``f_dm_re``.

    Raises
    ------
    DataError
        If the file is missing, empty, or not of ten columns of numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: EAGLE's centrals must be a text table of numbers, got: {' '.join(str(error).split())[:160]}") from None
    if rows.size == 0 or rows.shape[1] != _NUMBER_OF_COLUMNS:
        raise DataError(f"{path}: EAGLE's centrals must have {_NUMBER_OF_COLUMNS} columns and a row at least, got shape {rows.shape}")
    gas = np.where(rows[:, 5] == NO_GAS, 0.0, 10.0 ** rows[:, 5])
    table = Table({"galaxy_id": rows[:, 0], "group_id": rows[:, 1]})
    masses = {"m_star_total": 10.0 ** rows[:, 2], "m_star_30kpc": 10.0 ** rows[:, 2], "m_gas_total": gas, "m_200": 10.0 ** rows[:, 6]}
    lengths = {"r50_3d": rows[:, 3], "r50_2d": rows[:, 4], "r_e": rows[:, 8]}
    for unit, columns in (("Msun", masses), ("kpc", lengths), (None, {"kappa_co": rows[:, 7], "f_dm_re": rows[:, 9]})):
        for name, value in columns.items():
            table[name] = MaskedColumn(value, unit=unit)
    table.meta["source"] = "EAGLE RefL0100N1504, centrals (McAlpine et al. 2016; Schaye et al. 2015)"
    return canonical(table)
