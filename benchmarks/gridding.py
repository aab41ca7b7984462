"""Throughput of the gridding kernel: visibilities a second on one core, and the cost against adding the same numbers with numpy.

python benchmarks/gridding.py [--rows 200000] [--channels 64] [--output gridding.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockGridder
from supermage.data_reduction.visibilities import VisibilityChunk


def make_chunks(rows: int, channels: int, grid: UVGrid, *, chunk_rows: int = 2000) -> list[VisibilityChunk]:
    """Visibilities in track order: 861 baselines that creep through the uv plane, both hands, 1 % flagged. A few chunks, used in turn."""
    rng = np.random.default_rng(1)
    baseline = rng.normal(0.0, 0.15 * grid.n_pixel * grid.cell_size, (861, 3))
    chunks = []
    for start in range(0, min(rows, 10 * chunk_rows), chunk_rows):
        number = np.arange(start, start + chunk_rows)
        weight = rng.uniform(0.5, 2.0, (chunk_rows, channels, 2)).astype(np.float32)
        weight[rng.uniform(size=weight.shape) < 0.01] = 0.0
        data = rng.standard_normal((chunk_rows, channels, 2), dtype=np.float32) * np.complex64(1 + 1j)
        chunks.append(VisibilityChunk(uvw=baseline[number % 861] * (1 + 1e-4 * (number // 861))[:, None], data=data, weight=weight,
                                      antenna1=number * 0, antenna2=number * 0 + 1, time=number * 1.0, flagged=0, unweighted=0))
    return chunks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    grid = UVGrid(options.pixels, 0.12, 230.538e9)
    chunks = make_chunks(options.rows, options.channels, grid)
    BlockGridder(grid, options.channels).add(chunks[0])
    gridder = BlockGridder(grid, options.channels)
    turns = max(options.rows // 2000, 1)
    start = time.perf_counter()
    for turn in range(turns):
        gridder.add(chunks[turn % len(chunks)])
    gridding = time.perf_counter() - start
    gridder.finish()
    start = time.perf_counter()
    for turn in range(turns):
        chunk = chunks[turn % len(chunks)]
        (chunk.data * chunk.weight).sum(axis=0)
    adding = time.perf_counter() - start
    visibilities = turns * 2000 * options.channels * 2
    result = {"visibilities": visibilities, "million_a_second": round(visibilities / gridding / 1e6, 1),
              "time_over_numpy_sum": round(gridding / adding, 2), "pixels": options.pixels, "channels": options.channels,
              "machine": platform.processor() or platform.machine()}
    print(json.dumps(result, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
