"""Features and masses of simulated galaxies from their particle cutouts: the table that estimators of catalogues are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import ArrayLike

from supermage.errors import DataError, DomainError
from supermage.models.columns import COLUMNS, IDENTITY, PAPER_FEATURES
from supermage.models.cutout_maps import (
    RADIUS,
    Cutout,
    check_light,
    cutouts_of,
    described_cutouts,
    hand_over,
    is_done,
    say_done,
    told,
    what_was_done,
)
from supermage.models.features import check_projection
from supermage.models.map_parts import begin, make_parts, part_names
from supermage.models.particles import Particles
from supermage.models.prediction_files import TableWriter
from supermage.progress import Progress, SilentProgress

NOTES = "notes"
"""Column of what is missing or not measured as the paper does, in words."""


@dataclass(frozen=True)
class Request:
    """What is measured of which galaxies; see :func:`features_of_cutouts`."""

    cutouts: tuple[Cutout, ...]
    source: str
    licence: str
    mock: bool
    aperture: int
    part: int

    def described(self) -> dict[str, Any]:
        """What the rows depend on; of the galaxies a hash."""
        own = {name: getattr(self, name) for name in ("source", "licence", "mock", "aperture", "part")}
        return {**own, "made": "features", **described_cutouts(self.cutouts)}


@dataclass(frozen=True)
class CutoutFeatures:
    """What came out: the table's file, how many galaxies it holds, and the reason of each that it does not, by its file."""

    path: Path
    galaxies: int
    left_out: dict[str, str]


def features_of_cutouts(
    files: Sequence[str | Path],
    groups: Table | ArrayLike,
    output: str | Path,
    *,
    source: str,
    licence: str = "",
    aperture: int = 2,
    mock: bool = False,
    part: int = 50,
    processes: int = 1,
    progress: Progress | None = None,
) -> CutoutFeatures:
    """Make a table of features and masses of galaxies, each from three sides, or what an interrupted run has left of it.

    One row a galaxy and projection: ``galaxy_id``, ``group_id``, ``projection``; the ten features of the paper's Table 1
    (:func:`supermage.models.features.measure_features`), of light behind the galaxy's dust; ``r_hsm``; masses ``m_<kind>_1rhsm`` and
    ``_2rhsm`` within spheres and ``m_<kind>_2d_1rhsm`` ... within circles on the sky, of ``star``, ``dm``, ``gas``, ``bh`` and ``tot``;
    ``notes``; and what ``groups`` has besides. `supermage train` reads it with ``sample = "catalogue"`` and ``features = "paper"``.

    Parts lie in the folder ``<output>.parts`` and are kept: what is there is not measured again. A galaxy that cannot be used (no stars, a
    damaged file, neither magnitudes nor ages of the stars, no dark matter: its total mass and its orbits are unknown; fewer than 50 stars
    within the aperture) is left out, and its reason stands beside its part in ``part-....json``: to try it again, remove that file.

    Parameters
    ----------
    files
        Particle cutouts, one a galaxy; see :func:`supermage.models.particle_files.read_particles`.
    groups
        One a file, in the same order: numbers of groups, or a table, as in :func:`supermage.models.cutout_maps.maps_of_cutouts`. All
        columns of a table come along; where one is named as what is measured here, as ``original_<name>``. A galaxy alone in its group (-1)
        gets a number that no group has, for splits go by it.
    output
        The table's file; its ending says the format, such as ``.parquet`` or ``.ecsv``, see
        :class:`supermage.models.prediction_files.TableWriter`.
    source, licence
        Where the galaxies come from, and what is stated of their licence and citation; kept with the table.
    aperture
        Within which features are measured, 2 as the paper or 1, in R_hsm.
    mock
        Whether a generator made the galaxies; the table then says so.
    part
        Galaxies of a part.
    processes
        How many work at a time; the rows do not depend on it.
    progress
        Where progress is shown.

    Raises
    ------
    DataError
        If files and groups do not match, a file or a number comes twice, the parts are of another request, the ending or the folder cannot
        be written to, or no galaxy can be used.
    DomainError
        If the aperture is neither 1 nor 2, or galaxies of a part or processes are below 1.
    """
    check_projection(0, aperture)
    for name, value in (("part", part), ("processes", processes)):
        if value < 1:
            raise DomainError(f"{name} must be at least 1, got {value}")
    output, progress = Path(output), progress or SilentProgress()
    writer, folder = TableWriter(output), output.with_name(f"{output.name}.parts")
    cutouts = tuple(replace(item, columns={}) for item in cutouts_of([Path(item) for item in files], groups))
    request = Request(cutouts, source, licence, mock, aperture, part)
    begin(folder, request.described())
    names = part_names(len(cutouts), part, ".ecsv")
    make_parts(folder, names, make_part, request, processes=processes, progress=progress, title="measuring features of cutouts",
               whole=is_part_done)  # fmt: skip
    done, left_out = what_was_done(folder, names)
    parts = [_read(folder / name) for name, item in done.items() if item["galaxies"]]
    with writer:
        writer.add(assembled(parts, request, groups if isinstance(groups, Table) else None))
    made = CutoutFeatures(output, sum(item["galaxies"] for item in done.values()), left_out)
    progress.done("; ".join([f"{made.galaxies} galaxies, each from three sides, in {output}", *told(left_out)]))
    return made


def make_part(path: Path, request: Request, number: int) -> None:
    """Measure one part; the file beside it, which says that it is done and what was left out, comes last."""
    rows: list[dict[str, Any]] = []
    left_out = hand_over(request.cutouts[number * request.part : (number + 1) * request.part],
                         lambda cutout, particles: rows.extend(rows_of(particles, cutout, request.aperture)))  # fmt: skip
    if rows:
        with TableWriter(path) as writer:
            writer.add(Table({name: [row[name] for row in rows] for name in rows[0]}))
    say_done(path, {"galaxies": len(rows) // 3, "left_out": left_out})


def rows_of(particles: Particles, cutout: Cutout, aperture: int) -> list[dict[str, Any]]:
    """Three rows of a galaxy, by column.

    Raises
    ------
    DataError
        Of a galaxy without light or dark matter; as :func:`supermage.models.features.measure_features`.
    """
    from supermage.models.dust import observed_luminosities
    from supermage.models.features import checked_half_mass_radius, intrinsic_features, measure_features
    from supermage.models.targets_of_particles import masses_of_particles

    check_light(particles)
    if not len(particles.dark_matter):
        raise DataError("features need dark matter, got none in the file: total mass and orbits are unknown")
    radius = checked_half_mass_radius(particles, cutout.half_mass_radius)
    shared = intrinsic_features(particles, aperture=aperture, half_mass_radius=radius)
    rows: list[dict[str, Any]] = []
    for axis in range(3):
        light = observed_luminosities(particles, axis)
        found = measure_features(particles, axis, luminosity_r=light["r"], luminosity_g=light["g"], aperture=aperture,
                                 half_mass_radius=radius, intrinsic=shared)  # fmt: skip
        masses = masses_of_particles(particles, axis, half_mass_radius=radius)
        identity = {"galaxy_id": cutout.galaxy_id, "group_id": cutout.group_id, "projection": axis}
        rows.append({**identity, **found.values, RADIUS: radius, **masses, NOTES: "; ".join(found.notes)})
    return rows


def is_part_done(path: Path) -> bool:
    """Whether a part need not be measured again."""
    return is_done(path, _is_whole)


def assembled(parts: Sequence[Table], request: Request, table: Table | None) -> Table:
    """The whole table: parts one after the other, units and descriptions, what the galaxies' own table has, and where they come from.

    Parameters
    ----------
    parts
        Rows as :func:`make_part` wrote them.
    request
        Of which.
    table
        The galaxies' own table, of all of them; None if there is none.
    """
    from supermage.models.mock_population import MOCK

    whole: Table = vstack(list(parts), metadata_conflicts="silent")
    for name in whole.colnames:
        whole[name].unit, whole[name].description = _unit_and_description(name, request.aperture)
    whole["group_id"] = _groups(whole, request.cutouts)
    if table is not None:
        _add_columns(whole, table)
    whole.meta = {"source": request.source, "licence": request.licence, "aperture": f"features within {request.aperture} R_hsm",
                  "light": "behind the dust of the galaxy's own gas, as in the images of supermage"}  # fmt: skip
    if request.mock:
        whole.meta["mock"] = MOCK
    return whole


def _groups(whole: Table, cutouts: Sequence[Cutout]) -> Any:
    """Groups of the rows as a column; numbers above all others for galaxies alone."""
    first = 1 + max(0, *(item.group_id for item in cutouts))
    alone = sorted(item.galaxy_id for item in cutouts if item.group_id < 0)
    number = {galaxy: first + place for place, galaxy in enumerate(alone)}
    column = whole["group_id"].copy()
    column[:] = [number.get(int(galaxy), group) for galaxy, group in zip(whole["galaxy_id"], whole["group_id"], strict=True)]
    return column


def _add_columns(whole: Table, table: Table) -> None:
    """Add a table's columns, one row a galaxy, to the rows of these galaxies."""
    from supermage.models.catalogue import canonical

    theirs = canonical(table, names=[name for name in COLUMNS if name in table.colnames])
    place = {int(galaxy): row for row, galaxy in enumerate(theirs["galaxy_id"])}
    rows = np.array([place[int(galaxy)] for galaxy in whole["galaxy_id"]])
    for name in theirs.colnames:
        if name not in (*IDENTITY, RADIUS):
            whole[f"original_{name}" if name in whole.colnames else name] = theirs[name][rows]


def _unit_and_description(name: str, aperture: int) -> tuple[str | None, str]:
    if name == NOTES:
        return None, "what is missing or not measured as the paper does"
    if name not in COLUMNS:  # masses within circles on the sky
        column = COLUMNS[name.replace("_2d", "")]
        return column.unit, f"{column.description} on the sky"
    column = COLUMNS[name]
    said = column.description.replace("2 R_hsm", f"{aperture} R_hsm") if name in PAPER_FEATURES else column.description
    return column.unit or None, said


def _read(path: Path) -> Table:
    """A part; what was no note is read as a gap."""
    part = Table.read(path, format="ascii.ecsv")
    part[NOTES] = [str(item) for item in np.ma.filled(np.ma.asarray(part[NOTES]).astype(str), "")]
    return part


def _is_whole(path: Path) -> bool:
    try:
        return len(_read(path)) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False
