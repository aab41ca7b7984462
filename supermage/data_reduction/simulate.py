"""Mock measurement sets: a known galaxy, seen by casatools' array through noise, flags and a failing antenna."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT_M_S
from supermage.data_reduction.casa import casadata_folder, import_casatools
from supermage.data_reduction.folders import check_replaceable, replace_folder
from supermage.data_reduction.mock_array import Antennas, Block, plan_blocks, read_array, write_empty_set
from supermage.data_reduction.mock_noise import baseline_sigma, correlated_noise, system_temperature
from supermage.data_reduction.sky import Nodes, channel_flux, disc_nodes, in_the_band, primary_beam, primary_beam_width, transform
from supermage.errors import DataError, RecipeError
from supermage.progress import Progress, SilentProgress
from supermage.recipe import GalaxySection, Recipe, SimulateSection

Array = NDArray[np.float64]

CHUNK_ROWS = 20_000
GARBAGE = 50.0
"""Size of what a failing antenna delivers, Jy: a reader that forgets a flag will notice."""


@dataclass(frozen=True)
class _Plan:
    """Everything that is decided before a visibility is computed."""

    section: SimulateSection
    galaxy: GalaxySection
    antennas: Antennas
    blocks: list[Block]
    nodes: Nodes


@dataclass(frozen=True)
class _Rows:
    """Rows of one block: their numbers in the MAIN table, antennas, uvw (m), and which belong to the antenna that has failed."""

    number: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    uvw: Array
    dead: NDArray[np.bool_]


def simulate(recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """Make the mock measurement set of a recipe and write the truth beside it, in ``<output>.truth.json``.

    Two polarisations, one execution block a date, native TOPO channels, antenna-dependent noise that is correlated along the channels,
    flagged band edges and one antenna that fails late. The set is built in a temporary folder and renamed: a failure leaves what was there.

    Returns
    -------
    Path
        The measurement set.

    Raises
    ------
    RecipeError
        If the recipe has no galaxy or simulate section, or asks for what cannot be observed.
    DataError
        If the set cannot be written.
    """
    if recipe.galaxy is None or recipe.simulate is None:
        raise RecipeError("simulating needs a [galaxy] and a [simulate] section")
    galaxy, section = recipe.galaxy, recipe.simulate
    progress = SilentProgress() if progress is None else progress
    antennas = read_array(section.array, casadata_folder())
    _check(section, antennas)
    output = recipe.path(section.output)
    check_replaceable(output)
    truth_file = recipe.output(str(output.with_name(f"{output.name}.truth.json")))
    blocks = plan_blocks(section, galaxy)
    _check_place(section, antennas, blocks)
    plan = _Plan(section, galaxy, antennas, blocks, disc_nodes(section.truth, galaxy.distance))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            draft = Path(folder) / output.name
            write_empty_set(draft, section, galaxy, antennas, plan.blocks)
            _fill(draft, plan, progress)
            truth = Path(folder) / "truth.json"
            truth.write_text(json.dumps(_truth(plan), indent=2) + "\n", encoding="utf-8")
            replace_folder(draft, output)
            os.replace(truth, truth_file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"the mock measurement set {output} could not be written: {str(error).splitlines()[0]}") from None
    return output


def _check(section: SimulateSection, antennas: Antennas) -> None:
    failing = section.antennas.failing
    if failing is not None and not 0 <= failing < len(antennas.names):
        raise RecipeError(f"simulate.antennas.failing must be an antenna of the array, 0 to {len(antennas.names) - 1}, got {failing}")
    if np.ptp(antennas.diameter) > 0:
        raise RecipeError(f"simulate.array must have dishes of one size, got {antennas.diameter.min()} to {antennas.diameter.max()} m")


def _check_place(section: SimulateSection, antennas: Antennas, blocks: list[Block]) -> None:
    """Refuse a galaxy that the dishes do not see: they would observe noise."""
    width = min(primary_beam_width(float(block.frequency.mean()), float(antennas.diameter[0])) for block in blocks)
    for name in ("x", "y"):
        if not abs(section.truth[name]) <= width:
            raise RecipeError(f"simulate.truth.{name} must lie in the primary beam, at most its full width of {width:.1f} arcsec from the "
                              f"phase centre, got {section.truth[name]:g}")
    if not section.truth["scale_length"] <= width:
        raise RecipeError(f"simulate.truth.scale_length must be at most the primary beam's full width, {width:.1f} arcsec, "
                          f"got {section.truth['scale_length']:g}")


def _fill(path: Path, plan: _Plan, progress: Progress) -> None:
    """Write signal, noise, weights and flags into an empty set, some rows at a time."""
    section = plan.section
    table = import_casatools().table()
    table.open(str(path), nomodify=False)
    try:
        every = [_rows_of_block(table, k, block, section) for k, block in enumerate(plan.blocks)]
        chunks = sum(-(-rows.number.size // CHUNK_ROWS) for rows in every)
        progress.start("simulating visibilities", chunks * section.channels)
        for k, (block, rows) in enumerate(zip(plan.blocks, every, strict=True)):
            random = np.random.default_rng([section.seed, k])
            sigma = _sigma(section, rows, len(plan.antennas.names), random)
            broadening = float(in_the_band(section.truth, np.array(section.truth["line_broadening"])))
            flux = channel_flux(plan.nodes, block.frequency, width=section.channel_width, to_frame=block.topo_to_lsrk,
                                rest_frequency=plan.galaxy.rest_frequency, line_broadening=broadening, averaging=section.averaging)
            for start in range(0, rows.number.size, CHUNK_ROWS):
                part = slice(start, min(start + CHUNK_ROWS, rows.number.size))
                signal = _signal(plan, flux, block.frequency, rows.uvw[part], progress)
                noise = correlated_noise(random, part.stop - part.start, section.channels, averaging=section.averaging)
                _write_rows(table, section, rows, part, signal, sigma[part], noise)
        progress.done()
    finally:
        table.close()


def _sigma(section: SimulateSection, rows: _Rows, antennas: int, random: np.random.Generator) -> Array:
    """Noise per visibility and channel, Jy, shape (row, 2): such that all good rows together reach the recipe's, naturally weighted."""
    relative = baseline_sigma(system_temperature(random, antennas), rows.first, rows.second)
    nominal = section.noise if section.noise > 0 else 1.0
    sigma: Array = relative * nominal * np.sqrt(np.sum(relative[~rows.dead] ** -2.0))
    return sigma


def _rows_of_block(table: Any, k: int, block: Block, section: SimulateSection) -> _Rows:
    """Rows of block ``k``, which the simulator writes one after the other."""
    number = np.flatnonzero(table.getcol("OBSERVATION_ID") == k)
    if number.size == 0 or number[-1] - number[0] != number.size - 1:
        raise DataError(f"the field must be up for the whole of each block, got {number.size} rows on {section.dates[k]}")
    start, count = int(number[0]), int(number.size)
    first, second, time = (table.getcol(name, start, count) for name in ("ANTENNA1", "ANTENNA2", "TIME"))
    late = time >= block.start + section.antennas.fails_after * 60.0 * section.minutes
    failing = section.antennas.failing
    dead = late & ((first == failing) | (second == failing)) if failing is not None else np.zeros(count, dtype=bool)
    return _Rows(number, first, second, table.getcol("UVW", start, count).T, dead)


def _signal(plan: _Plan, flux: Array, frequency: Array, uvw: Array, progress: Progress) -> NDArray[np.complex128]:
    """Noiseless visibilities of some rows, Jy, shape (row, chan)."""
    nodes, dish = plan.nodes, float(plan.antennas.diameter[0])
    out = np.empty((uvw.shape[0], frequency.size), dtype=np.complex128)
    for channel, hertz in enumerate(frequency):
        seen = flux[channel] * primary_beam(nodes.east, nodes.north, hertz, dish)
        out[:, channel] = transform(nodes.east, nodes.north, seen, uvw * (hertz / SPEED_OF_LIGHT_M_S))
        progress.advance()
    return out


def _write_rows(table: Any, section: SimulateSection, rows: _Rows, part: slice, signal: NDArray[np.complex128], sigma: Array,
                noise: NDArray[np.complex128]) -> None:
    """Write DATA, WEIGHT, SIGMA, FLAG and FLAG_ROW of some rows. casatools' arrays are (polarisation, chan, row)."""
    scale = sigma[:, :, None] if section.noise > 0 else 0.0
    data = signal[:, None, :] + scale * noise
    dead = rows.dead[part]
    data[dead] = GARBAGE * noise[dead]
    flag = np.zeros(data.shape, dtype=bool)
    if section.flagged_edge:
        flag[:, :, : section.flagged_edge] = flag[:, :, -section.flagged_edge :] = True
    flag[dead] = True
    start, count = int(rows.number[part.start]), signal.shape[0]
    table.putcol("DATA", np.ascontiguousarray(data.transpose(1, 2, 0)), start, count)
    table.putcol("FLAG", np.ascontiguousarray(flag.transpose(1, 2, 0)), start, count)
    table.putcol("FLAG_ROW", dead, start, count)
    table.putcol("SIGMA", np.ascontiguousarray(sigma.T), start, count)
    table.putcol("WEIGHT", np.ascontiguousarray(sigma.T**-2.0), start, count)


def _truth(plan: _Plan) -> dict[str, Any]:
    """What went in, for the report that compares."""
    section, galaxy = plan.section, plan.galaxy
    return {
        "parameters": {name: float(value) for name, value in section.truth.items()},
        "distance": galaxy.distance,
        "galaxy": galaxy.name,
        "line": galaxy.line,
        "rest_frequency": galaxy.rest_frequency,
        "frame": "LSRK",
        "convention": "radio",
        "noise": section.noise,
        "array": section.array,
        "averaging": section.averaging,
        "seed": section.seed,
        "blocks": [{"date": date, "mjd_seconds": block.middle, "topo_to_lsrk": block.topo_to_lsrk,
                    "first_channel": float(block.frequency[0]), "last_channel": float(block.frequency[-1])}
                   for date, block in zip(section.dates, plan.blocks, strict=True)],
    }
