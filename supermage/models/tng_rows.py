"""Rows of the TNG100-1 group catalogue at z = 0 with masses within apertures, as a catalogue in canonical columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from supermage.errors import DataError, nearest_name
from supermage.models.catalogue import canonical
from supermage.models.catalogue_files import read_raw
from supermage.models.columns import APERTURES
from supermage.models.group_catalogue import BANDS

BULGE_INDEX_CEILING = 100.0
"""Largest Sersic index of a bulge that the decomposition's fit allows: 61 of the reference rows stand there, not at a measured value."""

RENAMED = {
    "galaxy_id": "SubfindID",
    "group_id": "GrNr",
    "m_subhalo": "m_tot_sub",
    "m_star_total": "m_star_sub",
    "m_star_30kpc": "m_star_sub",
    "m_gas_total": "m_gas_sub",
    "r50_3d": "r_hsm",
    "f_disk_2d": "dec_f_disk_2d",
    "f_disk_1d": "dec_f_disk_1d_1comp",
    "bulge_index": "dec_bulge_index",
}
"""Canonical name -> name in the rows, where they differ."""

_MASSES = tuple(f"m_{kind}_{aperture}" for aperture in APERTURES for kind in ("star", "dm", "gas", "bh", "tot"))
_UNITS = {
    "Msun": (*_MASSES, "m_star_sub", "m_gas_sub", "m_tot_sub"),
    "kpc": ("r_hsm",),
    "km / s": ("sigma_3d1",),
    "kpc km / s": ("spin",),
    "Msun / yr": ("sfr",),
    "mag": tuple(f"M_{band}" for band in BANDS),
    "": ("SubfindID", "GrNr", "dec_f_disk_2d", "dec_f_disk_1d_1comp", "dec_bulge_index", "central", "flag"),
}


def read_tng_rows(path: str | Path, *, cosmological: bool = False) -> Table:
    """Read catalogue rows of TNG100-1 (Nelson et al. 2019) with kinematic decompositions (Jagvaral et al. 2021).

    What the rows' columns stand for here:

    - ``m_star_total``, ``m_gas_total``, ``m_subhalo``: the whole subhalo. ``m_star_30kpc`` repeats ``m_star_total``, for the rows have no
      mass within 30 kpc; that is less in the most massive galaxies, whose outskirts reach beyond, and the same elsewhere.
    - ``r_hsm`` and ``r50_3d``: radius of half the stars of the whole subhalo (EAGLE's tables count within 30 kpc).
    - ``M_*``: no dust; ``g_r`` is M_g - M_r. ``sigma_3d1`` and ``spin``: of all particles of the subhalo.
    - ``f_disk_2d``, ``f_disk_1d``, ``bulge_index``: masked where there is no decomposition (454 of 5377 reference rows); an index of 100 is
      the fit's ceiling, no measurement.
    - ``flag``: False marks 826 reference rows that are clumps of a disc rather than galaxies of cosmological origin (the catalogue's
      ``SubhaloFlag``): nearly without dark matter, so log10 of it is missing for many.

    Parameters
    ----------
    path
        Parquet file of the rows (lengths and masses without h).
    cosmological
        Leave the rows out whose flag is False; they stay by default.

    Returns
    -------
    Table
        Identity, features, masses within 1 and 2 R_hsm, masses of the cuts, in canonical units, and ``central`` and ``flag`` (bool).

    Raises
    ------
    DataError
        If the file is not such a table, or has no row left.
    """
    raw = read_raw(Path(path))
    table = Table(meta={"source": "TNG100-1 z = 0 (Nelson et al. 2019); decompositions by Jagvaral et al. 2021"})
    for unit, names in _UNITS.items():
        for name in names:
            if name not in raw.colnames:
                raise DataError(f"{path}: rows of TNG must have the column {name}, got none{nearest_name(name, raw.colnames)}")
            table[name] = raw[name]
            table[name].unit = unit or None
    table["flag"], table["central"] = np.asarray(raw["flag"], dtype=bool), np.asarray(raw["central"], dtype=bool)
    if cosmological:
        table = table[table["flag"]]
    return canonical(table, columns=RENAMED)
