"""Galaxies with known masses, as the training of a mass prior takes them: columns, masses within one sphere, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.catalogue import column_values, read_catalogue, some_of
from supermage.models.catalogue_files import read_raw
from supermage.models.columns import APERTURES, COLUMNS
from supermage.models.cuts import Cut, apply_cuts
from supermage.models.targets_of_table import SUN_R
from supermage.models.tng_rows import read_tng_rows

FloatArray = NDArray[np.float64]

TNG_SOURCE = "TNG100-1, z = 0 (Nelson et al. 2019; kinematic decompositions of Jagvaral et al. 2021)"

CATALOGUE_RADIUS = 30.0
"""kpc: sphere in which EAGLE's public tables count stars and gas."""

_YES, _NO = ("true", "t", "yes", "1"), ("false", "f", "no", "0", "")

INNER_SLOPE = {"star": (0.9, 1.5), "dm": (1.5, 2.1), "gas": (1.7, 2.3)}
"""d ln M(<r) / d ln r within the innermost radius at which a mass is known, drawn uniformly: no more is known there."""


@dataclass(frozen=True)
class Sample:
    """Galaxies.

    Attributes
    ----------
    columns
        Values of each column, NaN where missing; shape (row,).
    stellar, total, dark
        Masses within the sphere, Msun.
    group
        Friends-of-friends group.
    log_light
        log10 of what the stellar mass is divided by in M*/L, Lsun; NaN where unknown.
    aperture
        The sphere: ``1rhsm``, ``2rhsm``, or ``ratio`` where a column says it.
    source
        Where the galaxies come from.
    cuts
        What was left out, with numbers, one line each.
    mock
        Whether a generator made the galaxies.
    """

    columns: dict[str, FloatArray]
    stellar: FloatArray
    total: FloatArray
    dark: FloatArray
    group: NDArray[np.int64]
    log_light: FloatArray
    aperture: str
    source: str
    cuts: list[str] = field(default_factory=list)
    mock: bool = False

    def __post_init__(self) -> None:
        rows = len(self.stellar)
        if not rows:
            raise DataError("a sample must hold at least one galaxy, got none")
        for name, value in (*self.columns.items(), ("total", self.total), ("dark", self.dark), ("group", self.group)):
            if value.shape != (rows,):
                raise DataError(f"a sample must have one number a row in each column, got shape {value.shape} in {name} for {rows} rows")

    def __len__(self) -> int:
        return len(self.stellar)


def light_of(magnitude: FloatArray) -> FloatArray:
    """What M*(< R_hsm) is divided by in M*/L: half of the r-band light, log10 Lsun, from the absolute AB magnitude."""
    return 0.4 * (SUN_R - magnitude) - np.log10(2.0)


def sample_of_table(table: Table, *, aperture: str = "1rhsm", source: str = "", cuts: list[str] | None = None) -> Sample:
    """The rows of a catalogue whose stellar and total mass are known.

    Parameters
    ----------
    table
        Canonical catalogue with ``group_id`` (numbers or texts) and masses; other columns may be outside the vocabulary
        (``predicted_...``).
    aperture
        ``1rhsm`` or ``2rhsm``.
    source, cuts
        As in :class:`Sample`.

    Raises
    ------
    DataError
        If a column is missing or no row is left.
    """
    if aperture not in APERTURES:
        raise DataError(f"an aperture must be one of {', '.join(APERTURES)}, got {aperture!r}")
    stellar, total, dark = (column_values(table, f"m_{kind}_{aperture}") for kind in ("star", "tot", "dm"))
    known = np.isfinite(stellar) & np.isfinite(total) & (stellar > 0)
    group, grouped = _groups(table)
    said = [*(cuts or []), f"stellar or total mass unknown: {np.count_nonzero(~known)} of {len(known)} rows left out"]
    if lost := np.count_nonzero(known & ~grouped):
        said.append(f"group unknown: {lost} of {np.count_nonzero(known)} rows left out")
    known &= grouped
    names = [name for name in table.colnames if (name in COLUMNS or name.startswith("predicted_")) and table[name].dtype.kind in "iuf"]
    columns = {name: column_values(table, name)[known] for name in names}
    light = light_of(columns["M_r"]) if "M_r" in columns else np.full(known.sum(), np.nan)
    masses = stellar[known], np.maximum(total, stellar)[known], np.nan_to_num(dark)[known]
    return Sample(columns, *masses, group[known], light, aperture, source, said)


def _groups(table: Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Group of every row as a number, and whether it is known."""
    if "group_id" not in table.colnames:
        raise DataError(f"a sample must have group_id, for no group may stand on two sides of a split, got {some_of(table.colnames)}")
    values = np.ma.asarray(table["group_id"])
    mask = np.ma.getmaskarray(values)
    if values.dtype.kind in "iuf":
        return values.filled(0).astype(np.int64), ~mask
    texts = np.array([str(item) for item in values.data.tolist()])
    return np.unique(texts, return_inverse=True)[1].astype(np.int64), ~mask & (texts != "")


def read_own_sample(
    path: Path, *, aperture: str = "1rhsm", cuts: Sequence[str] = (), columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None, mass_30kpc: tuple[Path, str] | None = None,
    source: str = "",
) -> Sample:  # fmt: skip
    """The rows of a user's catalogue whose stellar and total mass are known.

    Rows whose ``flag`` is False, where there is such a column, are left out first, then what the cuts remove; both are counted, in
    :attr:`Sample.cuts`. A catalogue of generated galaxies says so in :attr:`Sample.source`.

    Parameters
    ----------
    path, columns, units, mass_30kpc
        As in :func:`supermage.models.catalogue.read_catalogue`.
    aperture
        ``1rhsm`` or ``2rhsm``.
    cuts
        Texts like ``"m_star_30kpc > 5e9"``, in canonical units, or ``"n_sersic <= 100 or missing"``; see
        :meth:`supermage.models.cuts.Cut.parse`.
    source
        Where the galaxies come from, in a few words; the file's name by default.

    Raises
    ------
    DataError
        If the catalogue cannot be used, a cut cannot be read or its column is missing, or no row is left.
    """
    asked = [Cut.parse(text) for text in cuts]
    table = read_catalogue(path, columns=columns, units=units, mass_30kpc=mass_30kpc)
    said = []
    if "flag" in table.colnames:
        flag = _flags(table)
        said.append(f"flag False: {np.count_nonzero(~flag)} of {len(flag)} rows left out")
        if not flag.any():
            raise DataError(f"a sample must hold at least one galaxy, got {said[0]}")
        table = table[flag]
    table, counts = apply_cuts(table, asked)
    said += [str(count) for count in counts]
    source = source or path.name
    source = f"{source}: {table.meta['mock']}" if "mock" in table.meta else source
    return replace(sample_of_table(table, aperture=aperture, source=source, cuts=said), mock="mock" in table.meta)


def _flags(table: Table) -> NDArray[np.bool_]:
    """Which rows may be used; CSV has the words for numbers."""
    values = np.ma.asarray(table["flag"])
    there = ~np.ma.getmaskarray(values)
    if values.dtype.kind in "biuf":
        number = values.filled(0).astype(np.float64)
        return there & np.isfinite(number) & (number != 0)
    words = np.array([str(item).strip().lower() for item in values.data.tolist()])
    if (unknown := np.flatnonzero(there & ~np.isin(words, [*_YES, *_NO]))).size:
        raise DataError(f"column 'flag' must say True or False, got '{words[unknown[0]]}' in row {unknown[0]}")
    return there & np.isin(words, _YES)


def read_tng_sample(path: Path, *, aperture: str = "1rhsm", cuts: Sequence[str] = ()) -> Sample:
    """Galaxies of TNG100-1 of cosmological origin, with the masses within one or two R_hsm, and what cuts leave of them.

    Raises
    ------
    DataError
        As :func:`supermage.models.tng_rows.read_tng_rows`.
    """
    table = read_tng_rows(path)
    flag = np.asarray(table["flag"], dtype=bool)
    kept, counts = apply_cuts(table[flag], [Cut.parse(text) for text in cuts])
    said = [f"not of cosmological origin (SubhaloFlag 0): {np.count_nonzero(~flag)} of {len(flag)} rows left out", *map(str, counts)]
    return sample_of_table(kept, aperture=aperture, source=TNG_SOURCE, cuts=said)


def read_shared_sample(
    path: Path, *, copies: int, seed: int, discrepancy: float, ratios: tuple[float, float] = (0.15, 6.0), least_stellar_mass: float = 5e9
) -> Sample:
    """Galaxies of TNG100-1 as EAGLE's public tables would list them, with the masses within a sphere of any multiple of R50.

    Stars and gas are counted within 30 kpc and R50 holds half of those stars, from masses within R_hsm, 2 R_hsm, the radius of the largest
    circular velocity and the half-mass radii, interpolated in ln M against ln r. Each galaxy comes several times, with spheres drawn
    log-uniformly in units of its R50 (column ``aperture_ratio``): all copies are of one group and so on one side of a split. Within the
    innermost known radius, mostly R_hsm, the profiles go on with a slope drawn from :data:`INNER_SLOPE`.

    Other simulations have other dark masses inside galaxies of the same stars, for haloes contract and expand with the physics of gas and
    feedback: ``discrepancy`` moves the dark mass of every galaxy by a normal number, so that densities trained and calibrated on such
    rows do not claim to know another simulation as well as TNG.

    Parameters
    ----------
    path
        The TNG rows.
    copies
        Spheres for each galaxy.
    seed
        Of spheres, slopes and dark masses.
    discrepancy
        Standard deviation, dex, of what the dark mass of a galaxy is moved by, in all its spheres alike.
    ratios
        Least and largest multiple of R50.
    least_stellar_mass
        Msun within 30 kpc.

    Raises
    ------
    DataError
        If a column is missing or no row is left.
    """
    raw = read_raw(path)
    rows = {name: np.asarray(raw[name], dtype=np.float64) for name in raw.colnames if raw[name].dtype.kind in "iuf"}
    flag = np.asarray(raw["flag"], dtype=bool)
    generator = np.random.default_rng(seed)
    profiles = {kind: _Profile(rows, kind, generator.uniform(*INNER_SLOPE[kind], len(flag))) for kind in INNER_SLOPE}
    within = np.full(len(flag), CATALOGUE_RADIUS)
    stars, gas = (np.minimum(profiles[kind].mass(within), rows[f"m_{kind}_sub"]) for kind in ("star", "gas"))
    r50 = profiles["star"].radius(0.5 * stars)
    kept = flag & (stars > least_stellar_mass)
    ratio = np.exp(generator.uniform(np.log(ratios[0]), np.log(ratios[1]), (copies, len(flag))))
    found = {kind: np.stack([profile.mass(item * r50) for item in ratio]) for kind, profile in profiles.items()}
    found["dm"] = found["dm"] * 10.0 ** (discrepancy * generator.standard_normal(len(flag)))
    inner = np.where(ratio * r50 > rows["r_hsm"], 1.0, ratio * r50 / rows["r_hsm"])
    found["bh"] = rows["m_bh_1rhsm"] * np.minimum(inner * 1e3, 1.0)
    pick = {kind: value[:, kept].ravel() for kind, value in found.items()}
    columns = {"m_star_total": stars, "m_gas_total": gas, "r50_3d": r50}
    cuts = [f"not of cosmological origin (SubhaloFlag 0): {np.count_nonzero(~flag)} of {len(flag)} rows left out",
            f"stellar mass within 30 kpc below {least_stellar_mass:.3g} Msun: {np.count_nonzero(flag & ~kept)} left out"]  # fmt: skip
    return Sample(
        {**{name: np.tile(value[kept], copies) for name, value in columns.items()}, "aperture_ratio": ratio[:, kept].ravel()},
        pick["star"], sum(pick.values(), np.zeros(kept.sum() * copies)), pick["dm"], np.tile(rows["GrNr"][kept], copies).astype(np.int64),
        np.full(kept.sum() * copies, np.nan), "ratio",
        f"{TNG_SOURCE}, as EAGLE's tables would list it; dark masses moved at random by {discrepancy:g} dex", cuts,
    )  # fmt: skip


class _Profile:
    """Mass of one kind within spheres, for all rows: straight lines in ln M against ln r between what is known."""

    def __init__(self, rows: dict[str, FloatArray], kind: str, slope: FloatArray) -> None:
        radii = rows["r_hsm"], 2.0 * rows["r_hsm"], rows["r_vmax"]
        known = [(radius, rows[f"m_{kind}_{name}"]) for radius, name in zip(radii, ("1rhsm", "2rhsm", "rmax"), strict=True)]
        half = {"dm": "r_hdm", "gas": "r_hgas"}.get(kind)
        if half is not None:
            known.append((rows[half], 0.5 * rows[f"m_{kind}_sub"]))
        known.append((np.maximum(8.0 * rows["r_hsm"], 2.0 * known[-1][0]), rows[f"m_{kind}_sub"]))
        radius, mass = (np.stack(list(part), axis=1) for part in zip(*known, strict=True))
        good = (radius > 0) & (mass > 0)
        with np.errstate(divide="ignore"):
            log_radius, log_mass = (np.where(good, np.log(value), np.inf) for value in (radius, mass))
        order = np.argsort(log_radius, axis=1)
        self._radius = np.take_along_axis(log_radius, order, axis=1)
        self._mass = np.maximum.accumulate(np.take_along_axis(log_mass, order, axis=1), axis=1)
        self._count = good.sum(axis=1)
        self._slope = slope

    def mass(self, radius: FloatArray) -> FloatArray:
        """Msun within a radius (kpc) for each row; 0 where there is none of the kind."""
        return self._read(np.log(radius), self._radius, self._mass, self._slope)

    def radius(self, mass: FloatArray) -> FloatArray:
        """Radius (kpc) that holds a mass (Msun)."""
        return self._read(np.log(mass), self._mass, self._radius, 1.0 / self._slope)

    def _read(self, at: FloatArray, x: FloatArray, y: FloatArray, slope: FloatArray) -> FloatArray:
        result = np.zeros(len(at))
        for row, count in enumerate(self._count):
            if count:
                inside = at[row] < x[row, 0]
                value = y[row, 0] + slope[row] * (at[row] - x[row, 0]) if inside else np.interp(at[row], x[row, :count], y[row, :count])
                result[row] = np.exp(value)
        return result
