"""Mock gridded visibilities from noise on: visibilities drawn cell by cell and reduced like a measurement set's, without the set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.data_reduction.gridding import BlockGridder
from supermage.data_reduction.mock_noise import correlated_noise
from supermage.data_reduction.noise import measure_noise
from supermage.data_reduction.response import SpectralResponse
from supermage.data_reduction.visibilities import VisibilityChunk

FloatArray = NDArray[np.float64]

REST_FREQUENCY = 230.538e9


@dataclass(frozen=True)
class CellMock:
    """A small observation of one block.

    Attributes
    ----------
    cells
        Occupied cells, each with ``visibilities`` of them in every hand.
    visibilities
        Rows a cell.
    channels, averaging
        Channels, Hanning-smoothed and then averaged on line.
    hands
        2, or 1 for a set without a second hand.
    known
        Log-normal scatter of the visibilities' variances that their weights know (system temperatures).
    unknown
        Log-normal scatter of the cells' variances that no weight knows.
    scale
        Variance over 1 / weight in all of them.
    """

    cells: int = 30
    visibilities: int = 5
    channels: int = 16
    averaging: int = 1
    hands: int = 2
    known: float = 0.4
    unknown: float = 0.0
    scale: float = 1.7

    @property
    def grid(self) -> UVGrid:
        """The geometry: 16 x 16 pixels of half an arcsec."""
        return UVGrid(16, 0.5, REST_FREQUENCY)

    @property
    def places(self) -> NDArray[np.int64]:
        """The occupied cells, shape (cell, 2), in the order of the gridded ones."""
        half = self.grid.n_pixel // 2
        every = [(u, v) for u in range(1, half) for v in range(1 - half, half)]
        return np.array(every)[np.linspace(0, len(every) - 1, self.cells).astype(int)]

    def reduce(self, rng: np.random.Generator, signal: NDArray[np.complex128]) -> GriddedVisibilities:
        """Draw visibilities of a signal (chan, cell), Jy, and grid them.

        No baseline repeats, so that with one hand the noise must come from the scatter within the cells.
        """
        grid = self.grid
        rows = self.cells * self.visibilities
        cell = np.repeat(np.arange(self.cells), self.visibilities)
        uvw = np.zeros((rows, 3))
        uvw[:, :2] = (self.places[cell] + rng.uniform(-0.4, 0.4, (rows, 2))) * grid.cell_size
        variance = np.exp(self.known * rng.standard_normal((rows, self.hands)))
        hidden = np.exp(self.unknown * rng.standard_normal(self.cells))[cell][:, None]
        noise = correlated_noise(rng, rows, self.channels, averaging=self.averaging)[:, : self.hands]
        noise = noise * np.sqrt(self.scale * variance * hidden)[..., None]
        data = (signal.T[cell][:, None, :] + noise).transpose(0, 2, 1)
        weight = np.broadcast_to(1.0 / variance[:, None, :], data.shape)
        response = SpectralResponse(hanning=True, averaging=self.averaging)
        gridder = BlockGridder(grid, self.channels, response.lags)
        gridder.add(VisibilityChunk(
            uvw=uvw, data=data.astype(np.complex64), weight=weight.astype(np.float32), antenna1=np.arange(rows),
            antenna2=np.arange(rows) + 1, time=np.zeros(rows), flagged=0, unweighted=0))
        sums = gridder.finish()
        found = measure_noise(sums, response)
        frequency = REST_FREQUENCY + 1e6 * (np.arange(self.channels, dtype=np.float64) - self.channels / 2)
        return GriddedVisibilities(
            grid=grid, cell_u=sums.cell_u, cell_v=sums.cell_v, mean=sums.mean[None], standard_error=found.standard_error[None],
            degrees_of_freedom=found.degrees_of_freedom[None], cell_scale=found.cell_scale[None], cell_degrees=found.cell_degrees[None],
            moderated_scale=found.moderated_scale[None], count=sums.count[None], offset_mean=sums.offset_mean[None],
            offset_second=sums.offset_second[None], frequency=frequency[None], channel_width=np.array([1e6]), topo_to_frame=np.ones(1),
            hanning=True, averaging=self.averaging, block_names=("mock",), phase_centre=(0.0, 0.0), dish_diameter=12.0,
            primary_beam_factor=1.13, rest_frequency=REST_FREQUENCY)
