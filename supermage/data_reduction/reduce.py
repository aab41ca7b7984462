"""`supermage reduce`: a measurement set of any size to gridded visibilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.account import GIVEN
from supermage.data_reduction.channel_correlation import sample_correlation, settle_response
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.data_reduction.gridding import BlockSums
from supermage.data_reduction.history import read_processing
from supermage.data_reduction.images import blank, write_fits
from supermage.data_reduction.noise import BlockNoise
from supermage.data_reduction.reduce_block import ReducedBlock, Selection, reduce_block
from supermage.data_reduction.set_notes import radiometer_sigma
from supermage.data_reduction.sources import VisibilitySource, open_source
from supermage.data_reduction.spectral import Band, SpectralResponse, choose_channels, detect_response, frame_factor
from supermage.data_reduction.ungridded_image import combine_blocks
from supermage.errors import DataError, RecipeError
from supermage.progress import Progress, SilentProgress
from supermage.recipe import GalaxySection, Recipe, ReduceSection

SAME_WIDTH = 0.01
"""Relative difference of channel widths up to which execution blocks keep the same number of channels over the line."""

LEAST_SHARE, LEAST_CELLS = 0.01, 10
"""Share of the unflagged visibilities, and number of cells, below which nothing that a fit could use has reached the grid."""


def reduce(recipe: Recipe, *, progress: Progress | None = None) -> GriddedVisibilities:
    """Read the recipe's measurement set or UVFITS file, grid it, measure its noise and write the gridded visibilities.

    Nothing is written before everything is done: a run that is interrupted leaves no half file, and an earlier file stays as it was.

    Parameters
    ----------
    recipe
        With the sections ``galaxy`` and ``reduce``.
    progress
        Told of every chunk.

    Raises
    ------
    RecipeError
        If a section is missing, or the output cannot be written.
    DataError
        If the set cannot be used: see `MeasurementSet` and `UVFITS`; if the line lies outside the band, the windows have different
        responses, or no unflagged data, or nearly none, are left inside the grid.
    """
    if recipe.galaxy is None or recipe.reduce is None:
        raise RecipeError("reducing needs the sections [galaxy] and [reduce], got a recipe without one of them")
    galaxy, section = recipe.galaxy, recipe.reduce
    progress = progress or SilentProgress()
    path, output = recipe.path(section.measurement_set), recipe.output(section.output)
    image = None if section.image is None else recipe.output(section.image)
    if image == output:
        raise RecipeError(f"reduce.image and reduce.output must be two files, got {output} for both")
    with open_source(path, field=section.field, spectral_window=section.spectral_window) as source:
        selections, left_out = _select(source, galaxy, section)
        response, response_facts = _response(selections, source, section)
        grid = UVGrid(section.grid.n_pixel, section.grid.pixel_scale, float(np.mean([chosen.frequency for chosen in selections])))
        dish = _dish_diameter(source, section)
        noted = [source.notes(chosen.block.window.number) for chosen in selections]
        reduced = [reduce_block(source, chosen, grid, response, rows=section.chunk_rows, reweigh=section.reweigh,
                                window=section.grid.window, imaged=image is not None, progress=progress)
                   for chosen in selections]
    sums, noises = [one.sums for one in reduced], [one.noise for one in reduced]
    _check_use(sums, grid)
    provenance = {
        "measurement_set": path.name, "field": source.field_name, "telescope": source.telescope, "data_column": source.data_column,
        "stored_frame": selections[0].block.window.frame, **response_facts,
        "resolution_over_width": selections[0].block.window.resolution / selections[0].block.window.width, "left_out": left_out,
        "window": section.grid.window, "flag_reasons": noted[0].get("flag_reasons"),
        "blocks": [{**one.account, **_radiometer(one, chosen, notes, dish, response)}
                   for one, chosen, notes in zip(reduced, selections, noted)]}
    gridded = _assemble(grid, selections, sums, noises).replace(
        hanning=response.hanning, averaging=response.averaging, response_steps=response.steps, phase_centre=source.phase_centre,
        dish_diameter=dish, primary_beam_factor=section.primary_beam_factor, rest_frequency=galaxy.rest_frequency, frame=section.frame,
        convention=section.convention, provenance=provenance)
    gridded.save(output)
    if image is not None:
        cube = combine_blocks([one.image for one in reduced if one.image is not None], gridded)
        write_fits(image, blank(cube.data, cube.noise), gridded, beam=cube.beam, frequency=cube.frequency)
    return gridded


def _select(source: VisibilitySource, galaxy: GalaxySection, section: ReduceSection) -> tuple[list[Selection], list[str]]:
    """Blocks whose band holds the line, their channels, and the names of the blocks that do not."""
    bands = []
    drifts = []
    for block in source.blocks:
        first, factor, last = (frame_factor(time, source.observatory, source.phase_centre, stored=block.window.frame, wanted=section.frame,
                                            scale=source.time_scale) for time in (block.start, (block.start + block.stop) / 2, block.stop))
        drifts.append((last - first) * float(block.window.frequency.mean()) / block.window.width)
        bands.append(Band(block.name, block.window.ascending_frequency, block.window.width, factor))
    covering = [i for i, band in enumerate(bands) if band.covers(section.velocity_range, galaxy.rest_frequency, section.convention)]
    kept = covering or [_nearest(bands, galaxy, section)]
    slices = choose_channels([bands[i] for i in kept], section.velocity_range, rest_frequency=galaxy.rest_frequency, frame=section.frame,
                             convention=section.convention)
    selections = [Selection(source.blocks[i], channels, bands[i].factor, drifts[i]) for i, channels in zip(kept, slices)]
    widths = [chosen.block.window.width for chosen in selections]
    if max(widths) > (1.0 + SAME_WIDTH) * min(widths):
        raise DataError(f"the windows of a fit must have channels of one width, got {min(widths):.6g} and {max(widths):.6g} Hz; choose a "
                        "spectral_window")
    frames = sorted({chosen.block.window.frame for chosen in selections})
    if len(frames) > 1:
        raise DataError(f"the windows of a fit must be in one frame, got {', '.join(frames)}; choose a spectral_window")
    return selections, [band.name for i, band in enumerate(bands) if i not in kept]


def _nearest(bands: list[Band], galaxy: GalaxySection, section: ReduceSection) -> int:
    middle = sum(section.velocity_range) / 2
    distances = [abs(sum(band.edges(galaxy.rest_frequency, section.convention)) / 2 - middle) for band in bands]
    return int(np.argmin(distances))


def _response(selections: list[Selection], source: VisibilitySource, section: ReduceSection) -> tuple[SpectralResponse, dict[str, Any]]:
    """The response that all windows share, the recipe's word before the set's, and for the provenance what it rests on."""
    windows = [chosen.block.window for chosen in selections]
    processed = [read_processing(source.path, window) for window in windows]
    found = [detect_response(window, source.telescope, done) for window, done in zip(windows, processed)]
    told = section.hanning is not None or section.averaging is not None
    responses = {SpectralResponse(hanning=section.hanning if section.hanning is not None else response.hanning,
                                  averaging=section.averaging if section.averaging is not None else response.averaging)
                 if told else response for response, _ in found}
    if len(responses) > 1:
        raise DataError("the windows of a fit must have one channel response, got " + "; ".join(
            sorted(response.words for response in responses)) + "; choose a spectral_window")
    response = responses.pop()
    measured = sample_correlation(source, [(chosen.block, chosen.channels) for chosen in selections], rows=section.chunk_rows,
                                  slices=4 if source.path.is_dir() else 1)
    if not told:
        response = settle_response(response, measured, windows[0], processed[0])
    return response, {
        "channel_response": GIVEN if told else found[0][1], "history": list(processed[0].steps), "regridded": processed[0].regridded,
        "continuum_order": max((done.continuum_order for done in processed if done.continuum_order is not None), default=None),
        "channel_correlation": None if measured is None else measured.to_json(response)}


def _dish_diameter(source: VisibilitySource, section: ReduceSection) -> float:
    if section.dish_diameter is not None:
        return section.dish_diameter
    if len(source.dish_diameters) != 1 or not source.dish_diameters[0] > 0:
        got = ", ".join(f"{diameter:g} m" for diameter in source.dish_diameters) or "none"
        raise DataError(f"all dishes must have one known diameter unless reduce.dish_diameter says otherwise, got {got} in {source.path}")
    return source.dish_diameters[0]


def _radiometer(one: ReducedBlock, chosen: Selection, notes: Mapping[str, Any], dish: float, response: SpectralResponse) -> dict[str, Any]:
    """Noise of a visibility as measured, and as the radiometer equation has it where the set knows its system temperature, Jy."""
    weight, number = float(one.sums.weight.sum()), int(one.sums.count.sum())
    measured = float(np.sqrt(one.noise.scale * number / weight)) if weight > 0 else None
    temperature = notes.get("system_temperature")
    expected = None if temperature is None else radiometer_sigma(
        temperature, dish_diameter=dish, width=chosen.block.window.width, seconds=notes["seconds"], response=response)
    return {"system_temperature": temperature, "sigma": measured, "radiometer_sigma": expected}


def _check_use(sums: list[BlockSums], grid: UVGrid) -> None:
    """Refuse a grid that nearly all visibilities miss: they lie beyond it, or it knows too few cells apart."""
    used, beyond = sum(int(one.count.sum()) for one in sums), sum(one.beyond for one in sums)
    if used < LEAST_SHARE * (used + beyond):
        longest = grid.cell_size * grid.n_pixel / 2
        raise DataError(f"the grid must hold at least {100.0 * LEAST_SHARE:g} % of the unflagged visibilities, got {used} of "
                        f"{used + beyond}; baselines beyond {longest:.3g} m are outside: reduce.grid.pixel_scale is too large")
    cells = len(set().union(*(zip(one.cell_u.tolist(), one.cell_v.tolist()) for one in sums)))
    if cells < LEAST_CELLS:
        raise DataError(f"the visibilities must lie in at least {LEAST_CELLS} cells of the grid, got {cells}; a cell is "
                        f"{grid.cell_size:.3g} m wide: enlarge reduce.grid.n_pixel times pixel_scale, or take a set with more baselines")


def _assemble(grid: UVGrid, selections: list[Selection], sums: list[BlockSums], noises: list[BlockNoise]) -> GriddedVisibilities:
    """Bring the blocks' occupied cells together; a cell that a block does not reach is empty there."""
    side = grid.n_pixel + 1
    numbers = [one.cell_u.astype(np.int64) * side + one.cell_v + side // 2 for one in sums]
    cells = np.unique(np.concatenate(numbers))
    places = [np.searchsorted(cells, number) for number in numbers]
    shape = (len(sums), selections[0].frequency.size, cells.size)

    def spread(arrays: list[NDArray[Any]], fill: float, tail: tuple[int, ...] = ()) -> NDArray[Any]:
        whole = np.full((*shape, *tail), fill, dtype=arrays[0].dtype)
        for block, (array, place) in enumerate(zip(arrays, places)):
            whole[block][:, place] = array
        return whole

    def spread_cells(arrays: list[NDArray[np.float64]], fill: float) -> NDArray[np.float64]:
        whole = np.full((len(arrays), cells.size), fill)
        for block, (array, place) in enumerate(zip(arrays, places)):
            whole[block, place] = array
        return whole

    return GriddedVisibilities(
        grid=grid, cell_u=(cells // side).astype(np.int32), cell_v=(cells % side - side // 2).astype(np.int32),
        mean=spread([one.mean for one in sums], 0.0), standard_error=spread([noise.standard_error for noise in noises], np.inf),
        degrees_of_freedom=spread([noise.degrees_of_freedom for noise in noises], 0.0),
        cell_scale=spread_cells([noise.cell_scale for noise in noises], 1.0),
        cell_degrees=spread_cells([noise.cell_degrees for noise in noises], 0.0),
        moderated_scale=spread_cells([noise.moderated_scale for noise in noises], 1.0), count=spread([one.count for one in sums], 0),
        offset_mean=spread([one.offset_mean for one in sums], 0.0, (2,)),
        offset_second=spread([one.offset_second for one in sums], 0.0, (3,)),
        frequency=np.stack([chosen.frequency for chosen in selections]),
        channel_width=np.array([chosen.block.window.width for chosen in selections]),
        topo_to_frame=np.array([chosen.factor for chosen in selections]), hanning=False, averaging=1,
        block_names=tuple(chosen.block.name for chosen in selections), phase_centre=(0.0, 0.0), dish_diameter=1.0, primary_beam_factor=1.0,
        rest_frequency=grid.reference_frequency)
