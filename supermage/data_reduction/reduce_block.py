"""One execution block of a reduction: gridded in one pass, or in two where its weights turn out wrong between baselines or in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import KAISER_BESSEL, PILLBOX
from supermage.data_reduction.gridding import BlockGridder, BlockSums
from supermage.data_reduction.kaiser_bessel import LEAST_VISIBILITIES, WindowGridder
from supermage.data_reduction.noise import BlockNoise, measure_noise
from supermage.data_reduction.sources import VisibilitySource
from supermage.data_reduction.spectral import SpectralResponse
from supermage.data_reduction.survey import NoiseSurvey, WeightVerdict
from supermage.data_reduction.ungridded_image import BlockImage, DirtyImager
from supermage.data_reduction.visibilities import ExecutionBlock, VisibilityChunk
from supermage.errors import DataError
from supermage.progress import Progress

MOST_LISTED = 12
"""Antennas that lost most of their data which the account names."""


@dataclass(frozen=True, eq=False)
class Selection:
    """An execution block with its chosen channels, its factor to the velocity frame, and by how many channels a line drifts within it."""

    block: ExecutionBlock
    channels: slice
    factor: float
    drift: float = 0.0

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Native channel centres, ascending, Hz."""
        return self.block.window.ascending_frequency[self.channels]


@dataclass
class _Count:
    """What became of the visibilities."""

    total: int = 0
    flagged: int = 0
    unweighted: int = 0
    unused_by_channel: NDArray[np.int64] | None = None
    by_antenna: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, chunk: VisibilityChunk) -> None:
        self.total, self.flagged, self.unweighted = (
            self.total + chunk.weight.size, self.flagged + chunk.flagged, self.unweighted + chunk.unweighted)
        unused = chunk.weight == 0
        by_channel = np.count_nonzero(unused, axis=(0, 2))
        self.unused_by_channel = by_channel if self.unused_by_channel is None else self.unused_by_channel + by_channel
        by_row = np.count_nonzero(unused, axis=(1, 2))
        each = chunk.weight.shape[1] * chunk.weight.shape[2]
        for antennas in (chunk.antenna1, chunk.antenna2):
            numbers, place = np.unique(antennas, return_inverse=True)
            lost, rows = np.bincount(place.ravel(), by_row), np.bincount(place.ravel())
            for number, one, many in zip(numbers.tolist(), lost, rows):
                self.by_antenna[number] = self.by_antenna.get(number, 0) + np.array([int(one), int(many) * each])

    def words(self) -> dict[str, Any]:
        """Counts for the provenance; antennas by what they lost, most first."""
        lost = sorted(((counts[0] / counts[1], number) for number, counts in self.by_antenna.items()), reverse=True)
        by_channel = np.zeros(1) if self.unused_by_channel is None else self.unused_by_channel
        return {"visibilities": self.total, "flagged": self.flagged, "unweighted": self.unweighted,
                "unused_by_channel": (by_channel * by_channel.size / max(self.total, 1)).round(4).tolist(),
                "unused_by_antenna": [[int(number), round(float(share), 4)] for share, number in lost[:MOST_LISTED]]}


@dataclass(frozen=True, eq=False)
class ReducedBlock:
    """A gridded block with its noise, and the account of it in words and numbers that JSON can hold."""

    sums: BlockSums
    noise: BlockNoise
    account: dict[str, Any]
    image: BlockImage | None = None


def reduce_block(source: VisibilitySource, chosen: Selection, grid: UVGrid, response: SpectralResponse, *, rows: int, reweigh: bool,
                 window: str = PILLBOX, imaged: bool = False, progress: Progress) -> ReducedBlock:
    """Stream a block onto the grid and measure its noise.

    Parameters
    ----------
    source
        The open set.
    chosen
        Block and channels.
    grid
        The geometry.
    response
        The channels' spectral response.
    rows
        Rows a chunk.
    reweigh
        Whether to read the block again with corrected weights where they are wrong by more than `WORTH_CORRECTING`.
    window
        `PILLBOX`, or `KAISER_BESSEL` for the paper's gridding, which reads the block once more.
    imaged
        Whether to make the block's dirty cube too, from the visibilities themselves.
    progress
        Told of every chunk.

    Raises
    ------
    DataError
        If no unflagged data are left inside the grid, or no noise can be measured.
    """
    block, count = chosen.block, _Count()
    survey = NoiseSurvey(response, chosen.frequency.size, block.start, block.stop)

    def counted() -> Iterator[VisibilityChunk]:
        for chunk in source.chunks(block, channels=chosen.channels, rows=rows):
            count.add(chunk)
            yield chunk

    imager = DirtyImager(grid, chosen.frequency) if imaged else None
    sums = _grid(counted(), chosen, grid, response, progress, f"gridding {block.name}", survey, imager)
    if not sums.weight.any():
        why = f"{count.flagged} flagged, {count.unweighted} without a usable weight, {sums.beyond} beyond the grid"
        raise DataError(f"a block must hold unflagged data inside the grid, got none of {count.total} visibilities in {block.name} ({why})")
    progress.done(f"{sums.cell_u.size} cells, {100.0 * count.flagged / count.total:.1f} % flagged, "
                  f"{sums.beyond} of {count.total} beyond the grid")
    verdict = survey.finish()
    corrected = verdict is not None and reweigh and verdict.worth_correcting

    def again() -> Iterator[VisibilityChunk]:
        for chunk in source.chunks(block, channels=chosen.channels, rows=rows):
            yield verdict.correct(chunk) if verdict is not None and corrected else chunk

    if corrected:
        imager = DirtyImager(grid, chosen.frequency) if imaged else None
        sums = _grid(again(), chosen, grid, response, progress, f"gridding {block.name} with its weights put right", None, imager)
        progress.done(f"{sums.cell_u.size} cells")
    noise = measure_noise(sums, response, name=block.name, inflation=verdict.inflation if verdict is not None and corrected else 1.0)
    if window == KAISER_BESSEL:
        sums, noise = _grid_windowed(again(), chosen, grid, progress, sums, noise)
    account = {"name": block.name, "hands": list(block.hands), "rows": block.rows, "autocorrelations": block.autocorrelations,
               **count.words(), "beyond_grid": sums.beyond, "gridded": int(sums.count.sum()), "start_mjd": block.start / 86400.0,
               "stop_mjd": block.stop / 86400.0, **_noise_words(noise), **_weight_words(verdict), "weights_corrected": corrected,
               "drift_in_channels": round(chosen.drift, 4)}
    return ReducedBlock(sums, noise, account, None if imager is None else imager.finish())


def _grid(chunks: Iterator[VisibilityChunk], chosen: Selection, grid: UVGrid, response: SpectralResponse, progress: Progress, words: str,
          survey: NoiseSurvey | None, imager: DirtyImager | None) -> BlockSums:
    gridder = BlockGridder(grid, chosen.frequency.size, response.lags)
    progress.start(words, chosen.block.rows)
    for chunk in chunks:
        found = gridder.add(chunk)
        if survey is not None:
            survey.add(chunk, found)
        if imager is not None:
            imager.add(chunk)
        progress.advance(chunk.time.size)
    return gridder.finish()


def _grid_windowed(chunks: Iterator[VisibilityChunk], chosen: Selection, grid: UVGrid, progress: Progress, first: BlockSums,
                   noise: BlockNoise) -> tuple[BlockSums, BlockNoise]:
    """Sums and noise of the paper's gridding in the shape of the pillbox's: every cell and channel has its own sample variance."""
    gridder = WindowGridder(grid, first)
    progress.start(f"gridding {chosen.block.name} under a Kaiser-Bessel window", chosen.block.rows)
    for chunk in chunks:
        gridder.add(chunk)
        progress.advance(chunk.time.size)
    found = gridder.finish()
    if not found.cell_u.size:
        raise DataError(f"a Kaiser-Bessel window must hold at least {LEAST_VISIBILITIES} visibilities in some cell, got none in "
                        f"{chosen.block.name}")
    progress.done(f"{found.cell_u.size} cells, windows widened in {np.count_nonzero(found.half_width)}")
    known = np.isfinite(found.standard_error)
    least = np.where(known, found.degrees_of_freedom, np.inf).min(axis=0)
    empty = np.zeros(found.count.shape)
    sums = BlockSums(
        cell_u=found.cell_u, cell_v=found.cell_v, weight=np.where(known, 1.0, 0.0) / found.standard_error**2, mean=found.mean,
        offset_mean=found.offset_mean, offset_second=found.offset_second, scatter=empty, count=found.count, difference_square=empty,
        difference_count=found.count * 0, difference_flat=empty[0], difference_spectra=empty[0], time_square=empty,
        time_count=found.count * 0, time_flat=empty[0], time_spectra=empty[0], beyond=first.beyond)
    ones = np.ones(found.cell_u.size)
    return sums, BlockNoise(standard_error=found.standard_error, degrees_of_freedom=found.degrees_of_freedom, cell_scale=ones,
                            cell_degrees=least, moderated_scale=ones, estimator=noise.estimator, scale=noise.scale,
                            by_channel=noise.by_channel, prior=noise.prior)


def _noise_words(noise: BlockNoise) -> dict[str, Any]:
    return {"noise_estimator": noise.estimator, "noise_scale": noise.scale, "noise_by_channel": noise.by_channel.round(4).tolist(),
            "cells_without_own_noise": int(np.count_nonzero(noise.cell_degrees == 0)), "spread_of_cells": noise.prior.spread,
            "prior_degrees": float(min(noise.prior.degrees, noise.degrees_of_freedom.max()))}


def _weight_words(verdict: WeightVerdict | None) -> dict[str, Any]:
    """Noise against the weights as the set gives them."""
    if verdict is None:
        return {"spread_of_baselines": None, "spread_in_time": None}
    order = np.argsort(-verdict.by_baseline)[:MOST_LISTED]
    baselines, times = verdict.spreads
    return {"spread_of_baselines": baselines, "spread_in_time": times,
            "noisiest_baselines": [[*verdict.baselines[i].tolist(), round(float(np.sqrt(verdict.by_baseline[i])), 3)] for i in order],
            "noise_in_time": [[round(float(t) / 86400.0, 5), round(float(np.sqrt(f)), 3)] for t, f in zip(verdict.times, verdict.by_time)]}
