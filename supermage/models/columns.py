"""Canonical columns of galaxy catalogues: name, unit, range and meaning in one line each; and the names of what is predicted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a catalogue.

    Attributes
    ----------
    name, unit
        Canonical name, and unit as astropy reads it ("" for a pure number).
    lower, upper
        What lies outside cannot be meant: wrong unit, a luminosity where a magnitude is asked for, a placeholder for missing.
    description
        What it is.
    """

    name: str
    unit: str
    lower: float
    upper: float
    description: str


def _by_name(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


MOCK = "Mock galaxies, drawn from scaling relations by supermage's generator: neither observed nor simulated, for tests and offline runs."
"""What every table of mock galaxies says of itself, as ``meta["mock"]``."""

MOCK_COLUMNS = "mock_"
"""How the names of columns begin that such tables alone have: what tells them where a file's format has no room for the words."""

IDENTITY = _by_name(
    Column("galaxy_id", "", 0.0, 2.0**62, "number of the galaxy (subhalo)"),
    Column("group_id", "", 0.0, 2.0**62, "number of its friends-of-friends group"),
    Column("projection", "", 0.0, 2.0, "axis of projection: 0, 1 or 2"),
)
"""Which galaxy a row is: what splits go by."""

PAPER_FEATURES = _by_name(
    Column("M_r", "mag", -30.0, -5.0, "absolute r magnitude, AB"),
    Column("g_r", "mag", -1.0, 3.0, "colour g - r"),
    Column("sfr", "Msun / yr", 0.0, 1e5, "star-formation rate"),
    Column("n_sersic", "", 0.0, 1e4, "Sersic index of the light within 5 R_hsm"),
    Column("c_a", "", 0.0, 1.0, "shortest over longest axis of the stars, iterated within 3 R_hsm"),
    Column("sigma_v", "km / s", 1.0, 3000.0, "light-weighted dispersion along the line of sight within a projected 2 R_hsm"),
    Column("lambda_r", "", 0.0, 1.0, "dimensionless spin within a projected 2 R_hsm (Emsellem et al. 2007)"),
    Column("b_t", "", 0.0, 2.0, "kinetic bulge-to-total: twice the mass of negative circularity within 2 R_hsm"),
    Column("f_cold", "", 0.0, 1.0, "mass fraction of circularity above 0.8 within 2 R_hsm"),
    Column("f_hot", "", 0.0, 1.0, "mass fraction of circularity within 0.25 of zero within 2 R_hsm"),
)
"""Features of Chu et al., Table 1, in its order."""

GROUP_CATALOGUE_FEATURES = _by_name(
    *(Column(f"M_{band}", "mag", -30.0, -5.0, f"absolute {band} magnitude, {'Vega' if band in 'UBVK' else 'AB'}") for band in "UBVKgiz"),
    Column("sigma_3d1", "km / s", 1.0, 3000.0, "dispersion of all particles, three-dimensional over the root of 3"),
    Column("spin", "kpc km / s", 0.0, 1e7, "specific angular momentum of all particles"),
    Column("r_hsm", "kpc", 0.01, 1000.0, "radius of half the stellar mass, three-dimensional"),
    Column("f_disk_2d", "", 0.0, 1.0, "disc fraction of a decomposition in energy and circularity"),
    Column("f_disk_1d", "", 0.0, 1.0, "disc fraction of a decomposition in circularity"),
    Column("bulge_index", "", 0.0, 1e4, "Sersic index of that decomposition's bulge"),
)
"""What group catalogues and their value-added tables give beside Table 1's."""

SHARED_FEATURES = _by_name(
    Column("m_star_total", "Msun", 1e5, 1e14, "stellar mass of the galaxy"),
    Column("r50_3d", "kpc", 0.01, 1000.0, "radius of half the stellar mass, as the catalogue's aperture has it"),
    Column("m_gas_total", "Msun", 0.0, 1e15, "gas mass of the galaxy"),
)
"""What catalogues of different simulations share."""

CHOSEN_APERTURE = _by_name(Column("aperture_ratio", "", 0.01, 100.0, "radius of the sphere asked about, in units of r50_3d"))
"""Of estimators whose sphere is the caller's choice."""

CUT_COLUMNS = _by_name(
    Column("m_star_30kpc", "Msun", 0.0, 1e14, "stellar mass within 30 kpc"),
    Column("m_subhalo", "Msun", 0.0, 1e17, "mass of the whole subhalo"),
)
"""What the paper's cuts ask for."""

APERTURES = ("1rhsm", "2rhsm")
"""Spheres within which masses are given: one and two half-mass radii of the stars."""

MASSES = _by_name(
    *(
        Column(f"m_{kind}_{aperture}", "Msun", 0.0, 1e16, f"{word} within {aperture[0]} R_hsm")
        for aperture in APERTURES
        for kind, word in (("star", "stellar mass"), ("dm", "dark-matter mass"), ("gas", "gas mass"), ("bh", "black-hole mass"),
                           ("tot", "total mass"))
    )
)
"""Masses that targets are made of."""

COLUMNS = {**IDENTITY, **PAPER_FEATURES, **GROUP_CATALOGUE_FEATURES, **SHARED_FEATURES, **CHOSEN_APERTURE, **CUT_COLUMNS, **MASSES}
"""Every canonical column by name."""

TARGETS: dict[str, str] = {
    "log_mstar": "log10 of the stellar mass, Msun",
    "log_mtot": "log10 of the total mass, Msun",
    "log_mdm": "log10 of the dark-matter mass, Msun",
    "log_fstar": "log10 of stellar over total mass",
    "log_fdm": "log10 of dark-matter over total mass",
    "log_ml": "log10 of the stellar mass-to-light ratio in r, Msun/Lsun",
}
"""What estimators predict, within the sphere of 1 R_hsm. ``_2d`` after a name: within the projected circle; ``_2rhsm`` last: of 2 R_hsm."""
