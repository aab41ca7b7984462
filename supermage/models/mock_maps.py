"""Maps and targets of generated galaxies, made in parallel and in parts: what was made stays when the work is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from astropy.table import Table
from pydantic import Field

from supermage.models.map_parts import Rows, begin, make_parts, part_names
from supermage.models.map_store import MANIFEST, finish_parts
from supermage.progress import Progress, SilentProgress
from supermage.recipe import Section

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
    begin(folder, request.model_dump(exclude={"processes"}))
    if (folder / MANIFEST).is_file():
        return folder
    names = part_names(request.galaxies, request.part)
    title = "making maps of generated galaxies"
    make_parts(folder, names, make_part, request, processes=request.processes, progress=progress, title=title)
    finish_parts(folder, names)
    progress.done(f"{request.galaxies} galaxies, each from three sides")
    return folder


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
    from supermage.models.mock_galaxy import SOURCE, make_galaxy

    rows = Rows()
    for row in population(request)[number * request.part : (number + 1) * request.part]:
        particles = make_galaxy(row, n_star=request.n_star, n_dm=request.n_dm, n_gas=request.n_gas, seed=request.seed)
        rows.add(particles, image_pixels=request.image_pixels, map_pixels=request.map_pixels,
                 columns={name: float(row[name]) for name in OF_ROW})  # fmt: skip
    rows.write(path, source=SOURCE, mock=True, provenance=request.model_dump(exclude={"processes"}))
