"""Maps and targets of generated galaxies, made in parallel and in parts: what was made stays when the work is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from pydantic import Field

from supermage.errors import DataError
from supermage.models.map_store import MANIFEST, MapStore, finish_parts, write_maps
from supermage.models.training import to_json, write_atomically
from supermage.progress import Progress, SilentProgress
from supermage.recipe import Section

REQUEST = "request.json"
OF_ROW = ("n_sersic", "b_t")
"""Columns taken over from the population: what early types are chosen by."""


class MockMaps(Section):
    """What is made: ``[train.options.mock]`` of a recipe.

    Galaxies that pass the paper's cuts, each seen along three axes. ``n_star``, ``n_dm``, ``n_gas``: particles of each; TNG100's galaxies
    above the cuts have 3600 stars or more. ``part``: galaxies of a file.
    """

    galaxies: Annotated[int, Field(ge=1)] = 1000
    seed: Annotated[int, Field(ge=0)] = 1
    n_star: Annotated[int, Field(ge=100)] = 8000
    n_dm: Annotated[int, Field(ge=100)] = 16_000
    n_gas: Annotated[int, Field(ge=0)] = 2000
    image_pixels: Annotated[int, Field(ge=16)] = 96
    map_pixels: Annotated[int, Field(ge=16)] = 48
    part: Annotated[int, Field(ge=1)] = 50
    processes: Annotated[int, Field(ge=1)] = 1


def make_mock_maps(folder: Path, request: MockMaps, *, progress: Progress | None = None) -> Path:
    """Make a store of maps of generated galaxies, or what an interrupted run has left of it.

    Parameters
    ----------
    folder
        Of the store; :class:`supermage.models.map_store.MapStore` opens it when it is complete.
    request
        What is made. Maps do not depend on ``processes``.
    progress
        Where progress is shown.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If the folder holds maps of another request, or cannot be written.
    """
    progress = progress or SilentProgress()
    wanted = request.model_dump(exclude={"processes"})
    begun = _begun(folder)
    if begun is not None and begun != wanted:
        other = next(key for key in wanted if begun.get(key) != wanted[key])
        raise DataError(f"{folder}: maps must be continued as they were begun, with {other} = {begun.get(other)}, got {wanted[other]}; "
                        "take another folder or remove this one")  # fmt: skip
    if (folder / MANIFEST).is_file():
        return folder
    if begun is None:
        try:
            write_atomically(folder / REQUEST, to_json(wanted))
        except OSError as error:
            raise DataError(f"maps must go to a folder that can be written, got {folder} ({error.strerror})") from None
    names = [f"part-{number:05d}.nc" for number in range(-(-request.galaxies // request.part))]
    left = [number for number, name in enumerate(names) if not _is_whole(folder / name)]
    progress.start("making maps of generated galaxies", len(names))
    progress.advance(len(names) - len(left))
    for _ in _work(folder, request, names, left):
        progress.advance(1)
    finish_parts(folder, names)
    progress.done(f"{request.galaxies} galaxies, each from three sides")
    return folder


def _begun(folder: Path) -> Any:
    path = folder / REQUEST
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        raise DataError(f"{path}: must be readable, got a damaged file; remove the folder to start anew") from None


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        MapStore(path).close()
    except DataError:
        return False
    return True


def _work(folder: Path, request: MockMaps, names: list[str], left: list[int]) -> Iterator[None]:
    """Make the parts that are left, one item for each; with several processes as many at a time."""
    if request.processes == 1:
        for number in left:
            make_part(folder / names[number], request, number)
            yield
        return
    with ProcessPoolExecutor(request.processes, mp_context=get_context("spawn")) as pool:
        running: set[Future[None]] = {pool.submit(make_part, folder / names[number], request, number) for number in left}
        try:
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for item in ended:
                    item.result()
                    yield
        finally:
            pool.shutdown(cancel_futures=True)


def population(request: MockMaps) -> Table:
    """The galaxies of a request: the first of a drawn population that pass the paper's cuts."""
    from supermage.models.cuts import PAPER_CUTS, apply_cuts
    from supermage.models.mock_population import draw_population

    drawn = 2 * request.galaxies + 100
    kept, _ = apply_cuts(draw_population(drawn, request.seed), PAPER_CUTS)
    while len(kept) < request.galaxies:
        drawn *= 2
        kept, _ = apply_cuts(draw_population(drawn, request.seed), PAPER_CUTS)
    return kept[: request.galaxies]


def make_part(path: Path, request: MockMaps, number: int) -> None:
    """Make one part: its galaxies, their maps and targets from three sides."""
    from supermage.models.cnn import stack_maps
    from supermage.models.dust import observed_luminosities
    from supermage.models.maps import three_projections
    from supermage.models.mock_galaxy import SOURCE, make_galaxy
    from supermage.models.targets_of_particles import targets_of_particles

    galaxies = population(request)[number * request.part : (number + 1) * request.part]
    maps: list[Any] = []
    columns: list[dict[str, float]] = []
    for row in galaxies:
        particles = make_galaxy(row, n_star=request.n_star, n_dm=request.n_dm, n_gas=request.n_gas, seed=request.seed)
        maps.extend(three_projections(particles, image_pixels=request.image_pixels, map_pixels=request.map_pixels))
        for axis in range(3):
            targets = targets_of_particles(particles, axis, luminosity_r=observed_luminosities(particles, axis)["r"])
            columns.append({"galaxy_id": particles.galaxy_id, "group_id": particles.group_id, "projection": axis,
                            **{name: float(row[name]) for name in OF_ROW}, **targets})  # fmt: skip
    table: dict[str, NDArray[Any]] = {name: np.array([item[name] for item in columns]) for name in columns[0]}
    write_maps(path, stack_maps(maps), table, source=SOURCE, mock=True, provenance=request.model_dump(exclude={"processes"}))
