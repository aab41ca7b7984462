"""Maps and targets of galaxies made in parts, by several processes if asked: what was made stays when the work is interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.map_store import MapStore, write_maps
from supermage.models.particles import Particles
from supermage.models.training import to_json, write_atomically
from supermage.progress import Progress

REQUEST = "request.json"

MEASURED = ("n_sersic", "b_t")
"""Columns that are measured where no table has them: early types are chosen by them."""

Make = Callable[[Path, Any, int], None]
"""Makes the part of a number: its file, the request, the number. Other processes import it by its name."""


def begin(folder: Path, wanted: dict[str, Any]) -> None:
    """Say in the folder what is made there, or see that it was begun in the same way.

    Parameters
    ----------
    folder
        Of the parts.
    wanted
        What the parts depend on, as JSON writes it.

    Raises
    ------
    DataError
        If the folder holds parts of another request, or cannot be written.
    """
    path = folder / REQUEST
    try:
        begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        raise DataError(f"{path}: must be readable, got a damaged file; remove the folder to start anew") from None
    if begun is not None and begun != wanted:
        other = next((key for key in {**wanted, **begun} if begun.get(key) != wanted.get(key)), "other keys")
        was, now = begun.get(other), wanted.get(other)
        raise DataError(f"{folder}: parts must be continued as they were begun, with {other} = {was}, got {now}; "
                        "take another folder or remove this one")  # fmt: skip
    if begun is None:
        try:
            write_atomically(path, to_json(wanted))
        except OSError as error:
            raise DataError(f"parts must go to a folder that can be written, got {folder} ({error.strerror})") from None


def part_names(galaxies: int, part: int, ending: str = ".nc") -> list[str]:
    """Names of the files of so many galaxies, ``part`` in each."""
    return [f"part-{number:05d}{ending}" for number in range(-(-galaxies // part))]


def is_whole(path: Path) -> bool:
    """Whether a part is there and can be read."""
    if not path.exists():
        return False
    try:
        MapStore(path).close()
    except DataError:
        return False
    return True


def make_parts(
    folder: Path, names: Sequence[str], make: Make, request: Any, *, processes: int, progress: Progress, title: str,
    whole: Callable[[Path], bool] = is_whole,
) -> None:  # fmt: skip
    """Make the parts that are not there yet.

    Parameters
    ----------
    folder, names
        Where they go, and their files.
    make, request
        What makes one, and of what.
    processes
        How many work at a time; 1: this one.
    progress, title
        Where progress is shown, and under which words; it stays open.
    whole
        Whether a part need not be made again.
    """
    left = [number for number, name in enumerate(names) if not whole(folder / name)]
    progress.start(title, len(names))
    progress.advance(len(names) - len(left))
    for _ in _work(folder, names, make, request, left, processes):
        progress.advance(1)


def _work(folder: Path, names: Sequence[str], make: Make, request: Any, left: list[int], processes: int) -> Iterator[None]:
    """Make the parts that are left, one item for each."""
    if processes == 1:
        for number in left:
            make(folder / names[number], request, number)
            yield
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running: set[Future[None]] = {pool.submit(make, folder / names[number], request, number) for number in left}
        try:
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for item in ended:
                    item.result()
                    yield
        finally:
            pool.shutdown(cancel_futures=True)


class Rows:
    """Maps and columns of the galaxies of a part, three rows each: one for every axis of projection."""

    def __init__(self) -> None:
        self.maps: list[Any] = []
        self.columns: list[dict[str, float]] = []

    def add(
        self, particles: Particles, *, image_pixels: int, map_pixels: int, half_mass_radius: float | None = None,
        columns: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Add a galaxy; a galaxy that fails adds nothing.

        Parameters
        ----------
        particles
            About the centre and at rest, with its numbers.
        image_pixels, map_pixels, half_mass_radius
            As of :func:`supermage.models.maps.make_maps`.
        columns
            Further columns by canonical name, the same in all three rows. Added are ``r_hsm``, the radius that the maps reach three times,
            and what is absent of :data:`MEASURED` (:func:`measured_columns`).

        Raises
        ------
        DataError
            As :func:`supermage.models.maps.make_maps` and :func:`supermage.models.targets_of_particles.targets_of_particles`.
        """
        from supermage.models.dust import observed_luminosities
        from supermage.models.features import checked_half_mass_radius
        from supermage.models.maps import three_projections
        from supermage.models.targets_of_particles import targets_of_particles

        maps = three_projections(particles, image_pixels=image_pixels, map_pixels=map_pixels, half_mass_radius=half_mass_radius)
        found: list[dict[str, float]] = []
        given = {**(columns or {}), "r_hsm": checked_half_mass_radius(particles, half_mass_radius)}
        light = [observed_luminosities(particles, axis) for axis in range(3)]
        measured = measured_columns(particles, light, given["r_hsm"], [name for name in MEASURED if name not in given])
        for axis in range(3):
            targets = targets_of_particles(particles, axis, luminosity_r=light[axis]["r"], half_mass_radius=half_mass_radius)
            identity = {"galaxy_id": particles.galaxy_id, "group_id": particles.group_id, "projection": axis}
            found.append({**identity, **given, **measured[axis], **targets})
        self.maps.extend(maps)
        self.columns.extend(found)

    def write(self, path: Path, *, source: str, mock: bool, provenance: Mapping[str, Any]) -> None:
        """Write them as one part; see :func:`supermage.models.map_store.write_maps`."""
        from supermage.models.cnn import stack_maps

        table = {name: np.array([item[name] for item in self.columns]) for name in self.columns[0]}
        write_maps(path, stack_maps(self.maps), table, source=source, mock=mock, provenance=provenance)


def measured_columns(
    particles: Particles, light: Sequence[Mapping[str, NDArray[np.float64]]], half_mass_radius: float, names: Sequence[str]
) -> list[dict[str, float]]:
    """Features of :func:`supermage.models.features.measure_features` from three sides, one mapping for each.

    Parameters
    ----------
    particles
        About the centre and at rest.
    light
        Of the stars by band, behind dust, for each axis.
    half_mass_radius
        R_hsm, kpc.
    names
        Of the features; of none nothing is measured. NaN where they cannot be measured, ``b_t`` also where the file has no dark matter:
        the potential is not known then.
    """
    from supermage.models.features import features_of, intrinsic_features

    if not names:
        return [{} for _ in light]
    try:
        shared = intrinsic_features(particles, half_mass_radius=half_mass_radius)
        found = [features_of(particles, axis, luminosity_r=item["r"], luminosity_g=item["g"], half_mass_radius=half_mass_radius,
                             intrinsic=shared) for axis, item in enumerate(light)]  # fmt: skip
    except DataError:
        return [dict.fromkeys(names, math.nan) for _ in light]
    dark = len(particles.dark_matter) > 0
    return [{name: item[name] if dark or name != "b_t" else math.nan for name in names} for item in found]
