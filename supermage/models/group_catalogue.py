"""Group catalogues in the simulations' native HDF5 layout, as catalogues in canonical columns: TNG and Illustris, and EAGLE."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.columns import APERTURES, COLUMNS
from supermage.models.growth_curve import half_mass_radius, mass_within

FloatArray = NDArray[np.float64]

MASS_UNIT = 1e10
"""Msun / h: unit of mass of TNG and Illustris."""

GAS, DARK, STARS, BLACK_HOLES = 0, 1, 4, 5
"""Types of particles; 2 is unused and 3, tracers, weighs nothing."""

BANDS = ("U", "B", "V", "K", "g", "r", "i", "z")
"""Order of ``SubhaloStellarPhotometrics``: Vega, Vega, Vega, Vega, AB, AB, AB, AB; without dust."""

_APERTURE_FIELDS = {"1rhsm": "SubhaloMassInHalfRadType", "2rhsm": "SubhaloMassInRadType"}
_PIECE = re.compile(r"^(?P<stem>.*\.)(?P<number>\d+)(?P<ending>\.h5|\.hdf5)$")
_SPHERE = re.compile(r"^\d{3}kpc$")
_STARS_WITHIN = 30.0
"""kpc: sphere in which EAGLE's tables count."""

OF_TNG = {"m_star_total": "stellar mass of the whole subhalo", "m_gas_total": "gas mass of the whole subhalo",
          "r50_3d": "radius of half of the stars of the whole subhalo"}  # fmt: skip
OF_EAGLE = {"m_star_total": "stellar mass within 30 kpc", "m_gas_total": "gas mass within 30 kpc",
            "r50_3d": "radius of half of the stars within 30 kpc, by the growth curve"}  # fmt: skip
"""What the columns are that two simulations share: for their descriptions."""

NO_CURVE = "missing: radius of half of the stars within 30 kpc, the file has too few of ApertureMeasurements/Mass; r_hsm is of all stars"
"""Description of ``r50_3d`` where it cannot be told."""

_CM_PER_KPC, _G_PER_MSUN = 3.0856775814913673e21, 1.988409870698051e33


def is_group_catalogue(path: str | Path) -> bool:
    """Whether a path is a group catalogue in native HDF5 layout, or a folder of its pieces."""
    path = Path(path)
    if path.is_dir():
        return bool(_catalogues(path))
    if not path.is_file() or path.suffix not in (".hdf5", ".h5") or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "Header" in file and ("Subhalo" in file or "Group" in file or "FOF" in file)
    except OSError:
        return False


def read_group_catalogue(
    path: str | Path, *, least_stellar_mass: float = 0.0, mass_30kpc: tuple[str | Path, str] | NDArray[np.floating[Any]] | None = None
) -> Table:
    """Subhaloes of a group catalogue, h and the scale factor taken out.

    Of TNG and Illustris (``fof_subhalo_tab_*.hdf5``, Nelson et al. 2019): masses of 1e10 Msun/h within the stellar half-mass radius
    (``SubhaloMassInHalfRadType``) and within twice that (``SubhaloMassInRadType``), radii of comoving kpc/h, spins of (kpc/h) km/s (their
    length is taken), dispersions of all particles in km/s, magnitudes without dust. ``m_star_total``, ``m_gas_total`` and ``r50_3d`` are of
    the whole subhalo, where ``tng-shared`` was trained on 30 kpc, and nothing in the files tells R50 within 30 kpc: above 10^11.5 Msun of
    stars that biases its Mtot by +0.14 dex.

    Of EAGLE (``eagle_subfind_tab_*.hdf5``, McAlpine et al. 2016) by each data set's own exponents of h and a: stars and gas within 30 kpc
    as ``m_star_total`` and ``m_gas_total``, and ``r50_3d``, the radius of half of those stars, read from the masses within spheres of 1 to
    30 kpc (:func:`supermage.models.growth_curve.half_mass_radius`); masked without these, and below the smallest sphere (1 kpc, where the
    softening is 0.7). ``r_hsm`` is the half-mass radius of all stars (``HalfMassRad``, whose exponent of a in the files is wrong: it is
    physical), and masses within it and twice it are interpolated in the same masses within 1 to 100 kpc: good to some per cent, of clumpy
    gas in small galaxies to a factor of two. ``MassTwiceHalfMassRad`` is not used but for stars where these are missing, for it may go by
    each type's own half-mass radius. There are no magnitudes, and dispersions (``StellarVelDisp``) and spins are of stars or of gas: none
    of them is ``sigma_3d1`` or ``spin``.

    Parameters
    ----------
    path
        A file, any piece of a catalogue in several files (the others lie beside it), or the folder of the pieces of one snapshot.
    least_stellar_mass
        Msun: subhaloes with less stellar mass are left out while the pieces are read, so that a whole box fits into memory.
    mass_30kpc
        Stellar masses within 30 kpc of all subhaloes, which TNG's catalogue itself lacks: a supplementary file and the name of its data
        set, in 1e10 Msun/h, or an array in Msun; in the catalogue's order.

    Returns
    -------
    Table
        Canonical columns as far as the file has the fields, and ``central`` and ``flag`` (False: not of cosmological origin) where it has
        those. ``galaxy_id`` is the number of the subhalo in the whole catalogue. Magnitudes, radii and stellar masses of subhaloes without
        stars are masked.

    Raises
    ------
    DataError
        If a file is missing or damaged, a piece is missing, a folder holds several catalogues, nothing is left, or the supplementary masses
        are of another number.
    """
    pieces = _pieces(Path(path))
    parts: list[dict[str, FloatArray]] = []
    offset = groups = 0
    is_eagle = False
    first_of_group: list[FloatArray] = []
    try:
        for piece in pieces:
            with h5py.File(piece, "r") as file:
                is_eagle = "FOF" in file
                part, length, first = _read_eagle(file) if is_eagle else _read_tng(file)
            if "galaxy_id" not in part:
                part["galaxy_id"] = offset + np.arange(length, dtype=np.float64)
            part["_row"] = offset + np.arange(length, dtype=np.float64)
            first_of_group.append(first)
            offset, groups = offset + length, groups + len(first)
            keep = np.nan_to_num(part.get("m_star_total", np.full(length, np.inf))) >= least_stellar_mass
            parts.append({name: value[keep] for name, value in part.items()})
    except (OSError, KeyError, ValueError, IndexError) as error:
        said = " ".join(str(error).split())[:160]
        raise DataError(f"{piece}: a group catalogue must be complete and in its native layout, got: {said}") from None
    parts = [part for part in parts if len(part["_row"])]
    if not parts:
        wanted = f"at least one galaxy of {least_stellar_mass:g} Msun"
        raise DataError(f"{path}: a group catalogue must hold {wanted}, got none of {offset} subhaloes")
    column = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if all(name in part for part in parts)}
    row = column.pop("_row").astype(np.int64)
    if mass_30kpc is not None:
        column["m_star_30kpc"] = _supplement(mass_30kpc, offset, _hubble(pieces[0]))[row]
    if groups and "group_id" in column and "central" not in column:
        column["central"] = _centrals(np.concatenate(first_of_group), column["group_id"], column["galaxy_id"])
    meanings = OF_EAGLE if is_eagle else OF_TNG
    if is_eagle and "r50_3d" not in column:
        column["r50_3d"], meanings = np.full(len(row), np.nan), {**OF_EAGLE, "r50_3d": NO_CURVE}
    return _table(column, meanings)


def _catalogues(folder: Path) -> dict[str, Path]:
    """A file of every catalogue in a folder, by name: of those with subhaloes (groups may stand in files of their own), else of all."""
    files: dict[str, list[Path]] = {}
    for item in sorted(folder.iterdir()):
        if item.suffix in (".hdf5", ".h5"):
            match = _PIECE.match(item.name)
            files.setdefault(f"{match['stem']}*{match['ending']}" if match else item.name, []).append(item)
    found = {name: next(filter(is_group_catalogue, items), None) for name, items in files.items()}
    some = {name: item for name, item in found.items() if item is not None}
    return {name: item for name, item in some.items() if any(map(_has_subhaloes, files[name]))} or some


def _has_subhaloes(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "Subhalo" in file
    except OSError:
        return False


def _pieces(path: Path) -> list[Path]:
    """Every file of a catalogue, in order of its number."""
    if path.is_dir():
        found = _catalogues(path)
        if not found:
            raise DataError(f"{path}: a group catalogue must be a file or a folder of its pieces, got a folder without any")
        if len(found) > 1:
            raise DataError(f"{path}: a folder must hold the pieces of one group catalogue, else a file says which, got {', '.join(found)}")
        path = next(iter(found.values()))
    if not path.is_file():
        raise DataError(f"{path}: a group catalogue must be a file or a folder of its pieces, got nothing of that name")
    if not is_group_catalogue(path):
        raise DataError(f"{path}: a group catalogue must hold the groups Header and Subhalo, got another file or a damaged one")
    match = _PIECE.match(path.name)
    if match is None:
        return [path]
    numbered = {int(other["number"]): item for item in path.parent.iterdir()
                if (other := _PIECE.match(item.name)) and (other["stem"], other["ending"]) == (match["stem"], match["ending"])}  # fmt: skip
    with h5py.File(path, "r") as file:
        header = file["Header"].attrs
        count = int(header.get("NumFiles", header.get("NumFilesPerSnapshot", header.get("NTask", len(numbered)))))
    missing = [number for number in range(count) if number not in numbered]
    if missing:
        raise DataError(f"{path}: a group catalogue of {count} files must be whole, got none with number {missing[0]}")
    return [numbered[number] for number in range(count)]


def _hubble(path: Path) -> float:
    with h5py.File(path, "r") as file:
        return float(file["Header"].attrs["HubbleParam"])


def _read_tng(file: h5py.File) -> tuple[dict[str, FloatArray], int, FloatArray]:
    """Columns of one piece, its number of subhaloes, and the first subhalo of each of its groups."""
    header = file["Header"].attrs
    hubble, scale = float(header["HubbleParam"]), float(header["Time"])
    first = _array(file["Group/GroupFirstSub"]) if "Group/GroupFirstSub" in file else np.empty(0)
    subhalo = file.get("Subhalo", {})
    if not len(subhalo):
        return {}, 0, first
    length = len(next(iter(subhalo.values())))
    mass = MASS_UNIT / hubble
    column: dict[str, FloatArray] = {}
    for name, field in _TNG_FIELDS.items():
        if field.name in subhalo:
            factor = mass**field.mass * (scale / hubble) ** field.length / hubble**field.spin
            column[name] = field.take(_array(subhalo[field.name])) * factor
    for aperture in APERTURES:
        if _APERTURE_FIELDS[aperture] in subhalo:
            column |= _masses(_array(subhalo[_APERTURE_FIELDS[aperture]]) * mass, aperture)
    if "SubhaloStellarPhotometrics" in subhalo:
        magnitude = _array(subhalo["SubhaloStellarPhotometrics"])
        column |= {f"M_{band}": magnitude[:, number] for number, band in enumerate(BANDS)}
        column["g_r"] = column["M_g"] - column["M_r"]
    return _without_stars(column, length), length, first


@dataclass(frozen=True)
class _Field:
    """A data set of TNG, the number a row that is taken of it, and the powers of its units."""

    name: str
    take: Callable[[FloatArray], FloatArray]
    mass: int = 0
    length: int = 0
    spin: int = 0


def _same(value: FloatArray) -> FloatArray:
    return value


_TNG_FIELDS = {
    "group_id": _Field("SubhaloGrNr", _same),
    "m_subhalo": _Field("SubhaloMass", _same, mass=1),
    "m_star_total": _Field("SubhaloMassType", lambda value: value[:, STARS], mass=1),
    "m_gas_total": _Field("SubhaloMassType", lambda value: value[:, GAS], mass=1),
    "r_hsm": _Field("SubhaloHalfmassRadType", lambda value: value[:, STARS], length=1),
    "r50_3d": _Field("SubhaloHalfmassRadType", lambda value: value[:, STARS], length=1),
    "sigma_3d1": _Field("SubhaloVelDisp", _same),
    "spin": _Field("SubhaloSpin", lambda value: np.linalg.norm(value, axis=1), spin=1),
    "sfr": _Field("SubhaloSFR", _same),
    "flag": _Field("SubhaloFlag", _same),
}


def _read_eagle(file: h5py.File) -> tuple[dict[str, FloatArray], int, FloatArray]:
    """As :func:`_read_tng`, by each data set's conversion factor to cgs and exponents of h and a."""
    if "Subhalo" not in file or not len(file["Subhalo"]):
        return {}, 0, np.empty(0)
    subhalo = file["Subhalo"]
    length = len(subhalo["GroupNumber"])
    header = file["Header"].attrs
    hubble, scale = float(header["HubbleParam"]), float(header.get("ExpansionFactor", header.get("Time", np.nan)))

    def physical(name: str, unit: float, *, is_physical: bool = False) -> FloatArray | None:
        if name not in subhalo:
            return None
        attrs = subhalo[name].attrs
        powers = hubble ** float(attrs["h-scale-exponent"]) * (1.0 if is_physical else scale ** float(attrs["aexp-scale-exponent"]))
        return _array(subhalo[name]) * (float(attrs["CGSConversionFactor"]) * powers / unit)

    column = {"group_id": _array(subhalo["GroupNumber"])}
    if "SubGroupNumber" in subhalo:
        column["central"] = (_array(subhalo["SubGroupNumber"]) == 0.0).astype(np.float64)
    if (whole := physical("Mass", _G_PER_MSUN)) is not None:
        column["m_subhalo"] = whole
    names = sorted(name for name in subhalo.get("ApertureMeasurements/Mass", {}) if _SPHERE.match(name))
    spheres = {float(name[:3]): physical(f"ApertureMeasurements/Mass/{name}", _G_PER_MSUN) for name in names}
    curve = {radius: mass for radius, mass in spheres.items() if mass is not None}
    if (radius := physical("HalfMassRad", _CM_PER_KPC, is_physical=True)) is not None:
        column["r_hsm"] = radius[:, STARS]
    column |= _of_growth_curve(curve, column.get("r_hsm"))
    if (twice := physical("MassTwiceHalfMassRad", _G_PER_MSUN)) is not None:
        column.setdefault("m_star_2rhsm", twice[:, STARS])
    if "StarFormationRate" in subhalo:
        column["sfr"] = _array(subhalo["StarFormationRate"])
    return _without_stars(column, length), length, np.empty(0)


def _of_growth_curve(curve: dict[float, FloatArray], r_hsm: FloatArray | None) -> dict[str, FloatArray]:
    """Columns made of EAGLE's masses by type, (subhalo, type), within spheres of so many kpc."""
    column: dict[str, FloatArray] = {}
    if (inner := curve.get(_STARS_WITHIN)) is not None:
        column |= {"m_star_30kpc": inner[:, STARS], "m_star_total": inner[:, STARS].copy(), "m_gas_total": inner[:, GAS]}
        radius = np.array([item for item in curve if item <= _STARS_WITHIN])
        if len(radius) > 1:
            column["r50_3d"] = half_mass_radius(radius, np.stack([curve[item][:, STARS] for item in radius], axis=1))
    if r_hsm is not None and len(curve) > 1:
        radius, within = np.array(list(curve)), np.stack(list(curve.values()), axis=1)
        for ratio, aperture in enumerate(APERTURES, start=1):
            by_type = [mass_within(radius, within[:, :, kind], ratio * r_hsm) for kind in range(within.shape[2])]
            column |= _masses(np.stack(by_type, axis=1), aperture)
    return column


def _array(data: h5py.Dataset) -> FloatArray:
    return np.asarray(data[()], dtype=np.float64)


def _masses(by_type: FloatArray, aperture: str) -> dict[str, FloatArray]:
    """Masses within an aperture by kind, and their sum."""
    kinds = {"star": STARS, "dm": DARK, "gas": GAS, "bh": BLACK_HOLES}
    column = {f"m_{kind}_{aperture}": by_type[:, number] for kind, number in kinds.items()}
    return column | {f"m_tot_{aperture}": by_type[:, list(kinds.values())].sum(axis=1)}


def _without_stars(column: dict[str, FloatArray], length: int) -> dict[str, FloatArray]:
    """What stars alone have is missing where there are none (the files have zeros and 1e30 there)."""
    for name, value in column.items():
        if len(value) != length:
            raise DataError(f"a group catalogue needs one value a subhalo, got {len(value)} of {name} for {length}")
    radius, mass = column.get("r_hsm"), column.get("m_star_total")
    none = np.zeros(length, dtype=bool) if mass is None else mass <= 0.0
    none |= False if radius is None else radius <= 0.0
    lost = [name for name in column if name.startswith("M_") or name in ("g_r", "r_hsm", "r50_3d") or name.endswith("rhsm")]
    for name in lost:
        column[name] = np.where(none, np.nan, column[name])
    if mass is not None:
        column["m_star_total"] = np.where(mass <= 0.0, np.nan, mass)
    return column


def _centrals(first: FloatArray, group: FloatArray, galaxy: FloatArray) -> FloatArray:
    """1 where a subhalo is the first of its group."""
    number = group.astype(np.int64)
    inside = (number >= 0) & (number < len(first))
    return (inside & (first[np.where(inside, number, 0)] == galaxy)).astype(np.float64)


def _supplement(given: tuple[str | Path, str] | NDArray[np.floating[Any]], count: int, hubble: float) -> FloatArray:
    """Stellar masses within 30 kpc, Msun, of every subhalo."""
    if isinstance(given, tuple):
        path, name = given
        try:
            with h5py.File(path, "r") as file:
                value = _array(file[name]) * (MASS_UNIT / hubble)
        except (OSError, KeyError):
            raise DataError(f"{path}: masses within 30 kpc must stand in the data set '{name}', got none") from None
    else:
        value = np.asarray(given, dtype=np.float64)
    if value.shape != (count,):
        raise DataError(f"masses within 30 kpc must be one for each of {count} subhaloes, got shape {value.shape}")
    return value


def _table(column: dict[str, FloatArray], meanings: dict[str, str]) -> Table:
    """Canonical columns in the vocabulary's order, then flags; some with a description of their own."""
    table = Table()
    for name in [name for name in COLUMNS if name in column] + [name for name in ("central", "flag") if name in column]:
        value = column[name]
        missing = ~np.isfinite(value)
        if name in ("galaxy_id", "group_id"):
            table[name] = MaskedColumn(np.where(missing, 0, value).astype(np.int64), mask=missing, description=COLUMNS[name].description)
        elif name in COLUMNS:
            text = meanings.get(name, COLUMNS[name].description)
            table[name] = MaskedColumn(value, mask=missing, unit=COLUMNS[name].unit or None, description=text)
        else:
            table[name] = value.astype(bool)
    table.meta["checked"] = " ".join(table.colnames)
    return table
