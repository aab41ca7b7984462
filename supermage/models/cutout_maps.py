"""Maps and targets of simulated galaxies from their particle cutouts, such as TNG's: what a network of real galaxies is trained on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from supermage.errors import DataError, DomainError
from supermage.models.columns import COLUMNS, IDENTITY
from supermage.models.map_parts import MEASURED, Rows, begin, is_whole, make_parts, part_names
from supermage.models.map_store import finish_parts
from supermage.models.maps import IMAGE_PIXELS, MAP_PIXELS
from supermage.models.particles import Particles
from supermage.models.stellar_light import has_light
from supermage.models.training import to_json, write_atomically
from supermage.progress import Progress, SilentProgress

RADIUS = "r_hsm"
"""Column of the half-mass radius: where a table has it, cutouts need not hold all of a galaxy's stars."""


@dataclass(frozen=True)
class Cutout:
    """A galaxy's file, its numbers, its half-mass radius (kpc) where a table has it, and the table's other columns."""

    path: Path
    galaxy_id: int
    group_id: int
    half_mass_radius: float | None = None
    columns: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is made of which galaxies; see :func:`maps_of_cutouts`."""

    cutouts: tuple[Cutout, ...]
    source: str
    licence: str
    mock: bool
    one_ratio: bool
    image_pixels: int
    map_pixels: int
    part: int

    def described(self) -> dict[str, Any]:
        """What the maps depend on; of the galaxies a hash."""
        own = {name: getattr(self, name) for name in ("source", "licence", "mock", "one_ratio", "image_pixels", "map_pixels", "part")}
        measured = [name for name in MEASURED if name not in self.cutouts[0].columns]
        return {**own, "measured": measured, **described_cutouts(self.cutouts)}


@dataclass(frozen=True)
class CutoutMaps:
    """What came out.

    Attributes
    ----------
    folder
        Of the store.
    galaxies
        How many it holds.
    left_out
        The reason of each that it does not hold, by its file.
    without_dark_matter
        How many of those that it holds have none in their file: their total mass is unknown, and no row of theirs is trained on where the
        target needs it.
    """

    folder: Path
    galaxies: int
    left_out: dict[str, str]
    without_dark_matter: int = 0


def maps_of_cutouts(
    files: Sequence[str | Path],
    groups: Table | ArrayLike,
    folder: str | Path,
    *,
    source: str,
    licence: str = "",
    image_pixels: int = IMAGE_PIXELS,
    map_pixels: int = MAP_PIXELS,
    mock: bool = False,
    one_ratio: bool = False,
    part: int = 20,
    processes: int = 1,
    progress: Progress | None = None,
) -> CutoutMaps:
    """Make a store of maps and targets of galaxies, each from three sides, or what an interrupted run has left of it.

    Parts that are there are kept. A galaxy that cannot be used (no stars, a damaged file, stars of which neither magnitudes nor ages are
    known) is left out, and its reason stands beside its part in ``part-....json``: to try it again, remove that file.

    Parameters
    ----------
    files
        Particle cutouts, one a galaxy; see :func:`supermage.models.particle_files.read_particles`.
    groups
        One a file, in the same order. Numbers of the friends-of-friends groups, by which splits go, -1 for a galaxy alone in its group; a
        galaxy's number is then its place among the files. Or a table with units: ``galaxy_id``, ``group_id``, and perhaps ``r_hsm``, which
        is then the galaxy's half-mass radius, and any other canonical column. ``n_sersic`` and ``b_t``, by which early types are chosen,
        are measured where the table has no such column (:func:`supermage.models.map_parts.measured_columns`).
    folder
        Of the store, for :class:`supermage.models.map_store.MapStore` and the option ``maps`` of a recipe.
    source, licence
        Where the galaxies come from, and what is stated of their licence and citation, for the card of what is trained on them.
    image_pixels, map_pixels
        On a side.
    mock
        Whether a generator made the galaxies.
    one_ratio
        Also use stars of which neither magnitudes nor ages are known, with one mass-to-light ratio for all: the image is then the
        stellar mass itself, and no network learns from it what light would tell.
    part
        Galaxies of a file.
    processes
        How many work at a time; the maps do not depend on it.
    progress
        Where progress is shown.

    Raises
    ------
    DataError
        If files and groups do not match, a file or a number comes twice, the folder holds other maps or cannot be written, or no galaxy
        can be used.
    DomainError
        If a number of pixels, galaxies of a part or processes is below 1.
    """
    for name, value in (("image_pixels", image_pixels), ("map_pixels", map_pixels), ("part", part), ("processes", processes)):
        if value < 1:
            raise DomainError(f"{name} must be at least 1, got {value}")
    folder, progress = Path(folder), progress or SilentProgress()
    request = Request(cutouts_of([Path(item) for item in files], groups), source, licence, mock, one_ratio, image_pixels, map_pixels, part)
    begin(folder, request.described())
    names = part_names(len(request.cutouts), part)
    make_parts(folder, names, make_part, request, processes=processes, progress=progress, title="making maps of cutouts", whole=is_done)
    done, left_out = what_was_done(folder, names)
    finish_parts(folder, [name for name, item in done.items() if item["galaxies"]])
    dark = sum(item.get("without_dark_matter", 0) for item in done.values())
    made = CutoutMaps(folder, sum(item["galaxies"] for item in done.values()), left_out, dark)
    words = [f"{dark} of them without dark matter in their file: total mass unknown"] if dark else []
    progress.done("; ".join([f"{made.galaxies} galaxies, each from three sides", *words, *told(left_out)]))
    return made


def make_part(path: Path, request: Request, number: int) -> None:
    """Make one part; the file beside it, which says that it is done and what was left out, comes last."""
    rows = Rows()
    without: list[bool] = []

    def add(cutout: Cutout, particles: Particles) -> None:
        if not request.one_ratio:
            check_light(particles)
        rows.add(particles, image_pixels=request.image_pixels, map_pixels=request.map_pixels,
                 half_mass_radius=cutout.half_mass_radius, columns=cutout.columns)  # fmt: skip
        without.append(not len(particles.dark_matter))

    left_out = hand_over(request.cutouts[number * request.part : (number + 1) * request.part], add)
    if rows.columns:
        rows.write(path, source=request.source, mock=request.mock, provenance=request.described())
    say_done(path, {"galaxies": len(without), "without_dark_matter": sum(without), "left_out": left_out})


def hand_over(cutouts: Sequence[Cutout], add: Callable[[Cutout, Particles], None]) -> dict[str, str]:
    """Read galaxy by galaxy and give each to ``add``; return the reason of every one that cannot be used, by its file."""
    from supermage.models.particle_files import read_particles

    left_out = {}
    for cutout in cutouts:
        try:
            add(cutout, read_particles(cutout.path, galaxy_id=cutout.galaxy_id, group_id=cutout.group_id))
        except (DataError, DomainError) as error:
            left_out[str(cutout.path)] = str(error)
    return left_out


def say_done(path: Path, words: dict[str, Any]) -> None:
    """Say beside a part that it is done: how many ``galaxies`` it holds, and the reasons of those ``left_out``."""
    write_atomically(_beside(path), to_json(words))


def is_done(path: Path, whole: Callable[[Path], bool] = is_whole) -> bool:
    """Whether a part need not be made again: all of its galaxies were left out, or its file is whole."""
    try:
        said = json.loads(_beside(path).read_text(encoding="utf-8"))
        return not said["galaxies"] or whole(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def what_was_done(folder: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What :func:`say_done` said beside every part, by its name, and all that was left out, by its file.

    Raises
    ------
    DataError
        If no galaxy can be used.
    """
    done = {name: json.loads(_beside(folder / name).read_text(encoding="utf-8")) for name in names}
    left_out = {file: str(reason) for item in done.values() for file, reason in item["left_out"].items()}
    if not any(item["galaxies"] for item in done.values()):
        raise DataError(f"cutouts must hold a galaxy that can be used, got none in {len(left_out)} files: {next(iter(left_out.values()))}")
    return done, left_out


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def told(left_out: dict[str, str]) -> list[str]:
    """How many were left out, and the most frequent reason without the name of the file."""
    if not left_out:
        return []
    reasons = Counter(reason.rsplit(f"{file}: ", 1)[-1] for file, reason in left_out.items())
    reason, count = reasons.most_common(1)[0]
    return [f"{len(left_out)} left out ({count}: {reason})"]


def check_light(particles: Particles) -> None:
    """Raise a DataError where neither magnitudes nor ages tell the stars' light."""
    if not has_light(particles.stars):
        raise DataError("light needs magnitudes or ages of the stars, got neither: with one ratio for all the light is the stellar mass")


def described_cutouts(cutouts: Sequence[Cutout]) -> dict[str, Any]:
    """How many galaxies, and a hash of their files, numbers, radii and columns."""
    said = json.dumps([[item.path.name, item.galaxy_id, item.group_id, item.half_mass_radius, item.columns] for item in cutouts])
    return {"galaxies": len(cutouts), "files_and_numbers": hashlib.sha256(said.encode()).hexdigest()[:16]}


def cutouts_of(files: list[Path], groups: Table | ArrayLike) -> tuple[Cutout, ...]:
    """The galaxies of files and of their groups or table, see :func:`maps_of_cutouts`.

    Raises
    ------
    DataError
        If files and groups do not match, or a file or a number comes twice.
    """
    if not files:
        raise DataError("galaxies need at least one cutout, got none")
    if isinstance(groups, Table):
        found = _of_table(files, groups)
    else:
        numbers = np.asarray(groups)
        if numbers.shape != (len(files),) or numbers.dtype.kind not in "iu":
            raise DataError(f"cutouts need one whole number of a group each, got shape {numbers.shape} of {numbers.dtype} for {len(files)}")
        found = [Cutout(path, place, int(number)) for place, (path, number) in enumerate(zip(files, numbers, strict=True))]
    for what, values in (("file", [str(item.path.resolve()) for item in found]), ("galaxy_id", [item.galaxy_id for item in found])):
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise DataError(f"each cutout must have a {what} of its own, got {count} with {value}")
    return tuple(found)


def _of_table(files: list[Path], table: Table) -> list[Cutout]:
    from supermage.models.catalogue import canonical, column_values

    if len(table) != len(files):
        raise DataError(f"cutouts need one row of the table each, got {len(table)} rows for {len(files)} files")
    table = canonical(table)
    galaxy, group = (_numbers(table, name) for name in ("galaxy_id", "group_id"))
    if (galaxy < 0).any():
        raise DataError(f"cutouts need a galaxy_id each, got {np.count_nonzero(galaxy < 0)} rows without")
    names = [name for name in table.colnames if name in COLUMNS and name not in IDENTITY and table[name].dtype.kind in "iuf"]
    values = {name: column_values(table, name) for name in names}
    radius = values.get(RADIUS, np.full(len(files), np.nan))
    return [
        Cutout(path, int(galaxy[row]), int(group[row]), float(radius[row]) if radius[row] > 0.0 else None,
               {name: float(value[row]) for name, value in values.items()})
        for row, path in enumerate(files)
    ]  # fmt: skip


def _numbers(table: Table, name: str) -> NDArray[np.int64]:
    """Numbers that identify, -1 where missing."""
    if name not in table.colnames or table[name].dtype.kind not in "iu":
        got = table[name].dtype.name if name in table.colnames else "none"
        raise DataError(f"cutouts need a column {name} of whole numbers, got {got}")
    return np.asarray(np.ma.filled(np.ma.asarray(table[name]), -1), dtype=np.int64)
