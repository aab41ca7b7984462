"""Time and memory of `supermage reduce` on a set that is far larger than the memory it may take.

    python benchmarks/streaming.py [--gigabytes 5] [--channels 128] [--folder /big/disk] [--format uvfits] [--chunk-rows 2000]

A minute of the mock array (casatools' simulator, correlated noise, flags) is repeated under new times, with the baselines turned and the
phase of every row drawn anew, until the set has the size. It is written once into --folder, or into a temporary folder that is removed.
Printed as JSON: the set's size; seconds and million visibilities a second of the whole command; and, in MB (10^6 bytes), the peak resident
memory of its process, what that process held before it opened the set, the grid's own arrays, the peak less the grid, and less both. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.simulate import simulate
from supermage.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "data_reduction/mock-ngc4697/recipe.toml"
WIDTH, EDGE = 15.625e6, 4
COPIES_AT_ONCE = 4
TURN = 2.5e-3
"""Angle by which the baselines turn from one copy to the next, rad."""


def main() -> int:
    """Build the set if it is not there, reduce it in a process of its own, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--format", choices=("ms", "uvfits"), default="ms")
    parser.add_argument("--chunk-rows", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        return inside(options.inside)
    if options.folder is not None:
        figures = measure(options.folder.resolve(), options)
    else:
        with tempfile.TemporaryDirectory(prefix="streaming-") as name:
            figures = measure(Path(name), options)
    print(json.dumps(figures, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(figures["exit"])


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the command on a set of the wanted size."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{options.gigabytes:g}GB-{options.channels}ch.{options.format}"
    building = 0.0
    if not path.exists():
        began = time.monotonic()
        build(folder, path, options)
        building = time.monotonic() - began
    recipe = folder / "reduce.toml"
    write_recipe(recipe, path, options)
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, __file__, "--inside", str(recipe)], stdout=sys.stderr)
    _, status, usage = os.wait4(child.pid, 0)  # its maximum resident size would count this process too
    seconds = time.monotonic() - began
    said = json.loads(recipe.with_suffix(".json").read_text())
    size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
    peak = said["peak"]
    return {
        "format": options.format, "gigabytes": round(size / 1e9, 3), "rows": said["rows"], "visibilities": said["visibilities"],
        "seconds": round(seconds, 1), "million_visibilities_per_second": round(said["visibilities"] / seconds / 1e6, 2),
        "seconds_after_opening": round(said["seconds"], 1), "user_seconds": round(usage.ru_utime, 1),
        "system_seconds": round(usage.ru_stime, 1), "peak_MB": megabytes(peak), "before_opening_MB": megabytes(said["before"]),
        "grid_MB": megabytes(said["grid"]), "peak_above_grid_MB": megabytes(peak - said["grid"]),
        "peak_above_grid_and_start_MB": megabytes(peak - said["grid"] - said["before"]), "cells": said["cells"],
        "channels": said["channels"], "building_seconds": round(building, 1), "exit": os.waitstatus_to_exitcode(status),
        "machine": platform.processor() or platform.machine()}


def megabytes(size: float) -> float:
    """In 10^6 bytes."""
    return round(size / 1e6, 1)


def inside(recipe: Path) -> int:
    """The command itself, with a note of the memory before the set is opened and of the grid's arrays."""
    from supermage import cli
    from supermage.data_reduction import reduce as module
    from supermage.data_reduction import reduce_block
    from supermage.data_reduction.gridding import BlockGridder

    said: dict[str, Any] = {"grid": 0, "rows": 0, "visibilities": 0}
    open_source = module.open_source

    def opening(*arguments: Any, **named: Any) -> Any:
        said["before"], said["began"] = memory("VmRSS"), time.monotonic()
        return open_source(*arguments, **named)

    class Gridder(BlockGridder):
        def add(self, chunk: Any) -> Any:
            said["rows"] += chunk.time.size
            said["visibilities"] += chunk.data.size
            return super().add(chunk)

        def finish(self) -> Any:
            sums = super().finish()
            said["grid"] += sum(array_bytes(self)) + sum(array_bytes(sums))
            said["cells"], said["channels"] = int(sums.cell_u.size), self.n_channel
            return sums

    module.open_source = opening
    reduce_block.BlockGridder = Gridder  # type: ignore[misc]
    try:
        cli.main(["reduce", str(recipe)])
    except SystemExit as left:
        code = left.code
    else:
        code = 0
    said["seconds"], said["peak"] = time.monotonic() - said["began"], memory("VmHWM")
    recipe.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    return int(code or 0)


def array_bytes(thing: Any) -> Iterator[int]:
    """Sizes of the arrays that an object and its attributes hold."""
    for value in vars(thing).values():
        if isinstance(value, np.ndarray):
            yield value.nbytes
        elif type(value).__module__.startswith("supermage"):
            yield from array_bytes(value)


def memory(name: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM), bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def write_recipe(recipe: Path, path: Path, options: argparse.Namespace) -> None:
    """All channels but the flagged ones and two more on each side."""
    half = (0.5 * options.channels - EDGE - 2) * WIDTH / 230.538e9 * 299792.458
    rows = "" if options.chunk_rows is None else f"chunk_rows = {options.chunk_rows}\n"
    hanning = "hanning = true\naveraging = 1\n"
    recipe.write_text(
        f'[galaxy]\nname = "mock"\ndistance = 11.4\nrest_frequency = 230.538e9\n\n[reduce]\nmeasurement_set = "{path}"\n'
        f'output = "visibilities.nc"\nvelocity_range = [{1241 - half}, {1241 + half}]\n{rows}{hanning}\n'
        "[reduce.grid]\nn_pixel = 64\npixel_scale = 0.12\n", encoding="utf-8")


def build(folder: Path, path: Path, options: argparse.Namespace) -> None:
    """Simulate a minute, then repeat it until the set has the size."""
    demo = load_recipe(DEMO)
    assert demo.simulate is not None
    minute = folder / "minute.ms"
    section = demo.simulate.model_copy(update={"output": str(minute), "dates": ("2018-11-20",), "minutes": 1.0,
                                               "channels": options.channels, "channel_width": WIDTH, "flagged_edge": EDGE})
    simulate(Recipe(folder=folder, galaxy=demo.galaxy, simulate=section))
    draft = path.with_name(f".{path.name}.part")
    if options.format == "ms":
        minute.rename(draft)
        repeat_set(draft, options.gigabytes * 1e9)
    else:
        repeat_uvfits(minute, draft, options.gigabytes * 1e9)
    draft.rename(path)


def repeat_set(path: Path, size: float) -> None:
    """Append copies of a measurement set's rows to it."""
    table = import_casatools().table()
    table.open(str(path), nomodify=False)
    try:
        rows, random = table.nrows(), np.random.default_rng(1)
        columns = {name: table.getcol(name) for name in table.colnames() if table.iscelldefined(name, 0) and name != "FLAG_CATEGORY"}
        span = np.ptp(columns["TIME"]) + 10.0
        a_row = sum(file.stat().st_size for file in path.glob("table.f*")) / rows
        copies = int(np.ceil(size / (a_row * rows)))
        for first in range(1, copies, COPIES_AT_ONCE):
            numbers = np.arange(first, min(first + COPIES_AT_ONCE, copies))
            start = table.nrows()
            table.addrows(rows * numbers.size)
            for name, column in columns.items():
                table.putcol(name, np.concatenate([copy(name, column, number, span, random) for number in numbers], axis=-1), start)
    finally:
        table.close()


def copy(name: str, column: Any, number: int, span: float, random: np.random.Generator) -> Any:
    """A column as it stands in the copy ``number``."""
    if name in ("TIME", "TIME_CENTROID"):
        return column + number * span
    if name == "UVW":
        return np.stack([*turned(column[0], column[1], number), column[2]])
    if name == "DATA":
        return column * phases(column.shape[-1], random)
    return column


def turned(u: Any, v: Any, number: int) -> tuple[Any, Any]:
    """Baselines after ``number`` steps."""
    cos, sin = np.cos(number * TURN), np.sin(number * TURN)
    return cos * u - sin * v, sin * u + cos * v


def phases(rows: int, random: np.random.Generator) -> Any:
    """Random phases, single precision."""
    return np.exp(2j * np.pi * random.random(rows)).astype(np.complex64)


def repeat_uvfits(minute: Path, path: Path, size: float) -> None:
    """Export a measurement set and write copies of its groups."""
    from astropy.io import fits

    from supermage.data_reduction.calibrate import run_casatasks

    small = minute.with_suffix(".uvfits")
    run_casatasks([{"task": "exportuvfits", "arguments": {"vis": str(minute), "fitsfile": str(small), "datacolumn": "data"}}],
                  minute.parent / "casa", minute.parent / "casa.log")
    with fits.open(small) as hdus:
        header, names = hdus[0].header.copy(), [str(name) for name in hdus[0].data.parnames]
        offset, count = hdus[0].fileinfo()["datLoc"], int(header["GCOUNT"])
        width = int(np.prod([header[f"NAXIS{i}"] for i in range(2, header["NAXIS"] + 1)])) + int(header["PCOUNT"])
        end = hdus[1].fileinfo()["hdrLoc"]
    groups = np.fromfile(small, dtype=">f4", count=count * width, offset=offset).reshape(count, width).astype(np.float32)
    days = groups[:, names.index("DATE") + 1].astype(float)
    step, random = float(np.ptp(days)) + 10.0 / 86400.0, np.random.default_rng(1)
    copies = int(np.ceil(size / (groups.size * 4)))
    header["GCOUNT"] = copies * count
    with path.open("wb") as file:
        file.write(header.tostring().encode("ascii"))
        for number in range(copies):
            made = groups.copy()
            made[:, 0], made[:, 1] = turned(groups[:, 0], groups[:, 1], number)
            made[:, names.index("DATE") + 1] = days + number * step
            vectors = made[:, len(names):].reshape(count, -1, 3)
            turn = phases(count, random)[:, None] * (vectors[..., 0] + 1j * vectors[..., 1])
            vectors[..., 0], vectors[..., 1] = turn.real, turn.imag
            file.write(made.astype(">f4").tobytes())
        file.write(b"\0" * (-file.tell() % 2880))
        file.write(small.read_bytes()[end:])


if __name__ == "__main__":
    raise SystemExit(main())
