"""The gridding of Yantovski-Barth et al.: a Kaiser-Bessel window on every cell, widened until it holds five visibilities.

Kept to reproduce the paper. Its noise is each cell's and channel's own sample variance, from as few as five visibilities, and widened
windows share visibilities with their neighbours, which no likelihood here knows of: the default gridding is the pillbox of
`supermage.data_reduction.gridding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockSums
from supermage.data_reduction.visibilities import VisibilityChunk

FloatArray = NDArray[np.float64]

LEAST_VISIBILITIES = 5
"""Yantovski-Barth et al., sec. 2.2."""

WIDEST = 8
"""Cells by which a window may grow on each side; a cell that is then still too empty holds no data."""

SHAPE = 2.34
"""Kaiser-Bessel parameter per cell of the window's full width; the paper prints none."""

_SUMS = ("a", "real", "imaginary", "u", "v", "uu", "uv", "vv", "square", "k", "kkw", "kk", "kkkw")


@dataclass(frozen=True, eq=False)
class WindowedBlock:
    """Means, moments and noise of an execution block under the window; arrays as in `GriddedVisibilities`, without the block axis.

    Attributes
    ----------
    cell_u, cell_v
        Cells that hold a visibility of their own and whose window holds enough, shape (cell,).
    half_width
        Cells by which the window grew on each side, shape (cell,).
    mean, standard_error, degrees_of_freedom, count
        Shape (chan, cell); infinite error and no degrees of freedom where the channel has fewer than five.
    offset_mean, offset_second
        Shapes (chan, cell, 2) and (chan, cell, 3).
    """

    cell_u: NDArray[np.int32]
    cell_v: NDArray[np.int32]
    half_width: NDArray[np.int64]
    mean: NDArray[np.complex128]
    standard_error: FloatArray
    degrees_of_freedom: FloatArray
    count: NDArray[np.int32]
    offset_mean: FloatArray
    offset_second: FloatArray


def kaiser_bessel(offset: FloatArray, half_width: float) -> FloatArray:
    """Window ``I0(b sqrt(1 - (offset / w)^2)) / I0(b)`` with half width w in cells and b = `SHAPE` times 2 w; 0 outside."""
    b = SHAPE * 2.0 * half_width
    inside = np.maximum(1.0 - (np.asarray(offset) / half_width) ** 2, 0.0)
    return np.where(np.abs(offset) <= half_width, np.i0(b * np.sqrt(inside)) / np.i0(b), 0.0)


class WindowGridder:
    """Accumulates one execution block under windows whose widths a first pass (pillbox) has decided.

    Parameters
    ----------
    grid
        The geometry.
    first
        The first pass's sums, of which only the counts matter.
    """

    def __init__(self, grid: UVGrid, first: BlockSums) -> None:
        self.grid = grid
        self._half = _half_widths(grid, first)
        self._cell_u, self._cell_v = first.cell_u, first.cell_v
        side = grid.n_pixel + 1
        self._slots = np.full((grid.n_pixel // 2 + 1, side), -1, dtype=np.int64)
        self._slots[first.cell_u, first.cell_v + side // 2] = np.arange(first.cell_u.size)
        n_channel = first.count.shape[0]
        self._sums = np.zeros((first.cell_u.size, n_channel, len(_SUMS)))
        self._count = np.zeros((first.cell_u.size, n_channel), dtype=np.int32)
        self._table = _window_table()

    def add(self, chunk: VisibilityChunk) -> None:
        """Add a chunk of visibilities to every window that holds them."""
        _accumulate(np.ascontiguousarray(chunk.uvw), np.ascontiguousarray(chunk.data), np.ascontiguousarray(chunk.weight),
                    self.grid.cell_size, self.grid.n_pixel // 2, self._slots, self._half, self._table, self._sums, self._count)

    def finish(self) -> WindowedBlock:
        """Weighted means, and errors by the formulae of `supermage.data_reduction.noise` with window k and weights w."""
        s = {name: np.ascontiguousarray(self._sums[:, :, i].T) for i, name in enumerate(_SUMS)}
        count = np.ascontiguousarray(self._count.T)
        enough = count >= LEAST_VISIBILITIES
        a = np.where(s["a"] > 0, s["a"], 1.0)
        mean = (s["real"] + 1j * s["imaginary"]) / a
        left = s["k"] - s["kkw"] / a
        scatter = np.maximum(s["square"] - a * np.abs(mean) ** 2, 0.0)
        scale = scatter / 2.0 / np.where(left > 0, left, 1.0)
        enough &= scale > 0
        error = np.where(enough, np.sqrt(scale * s["kkw"]) / a, np.inf)
        spread = s["kk"] - 2.0 * s["kkkw"] / a + (s["kkw"] / a) ** 2
        degrees = np.where(enough, 2.0 * left**2 / np.where(spread > 0, spread, 1.0), 0.0)
        kept = np.flatnonzero(enough.any(axis=0))
        return WindowedBlock(
            cell_u=self._cell_u[kept], cell_v=self._cell_v[kept], half_width=self._half[kept],
            mean=np.where(enough, mean, 0.0)[:, kept], standard_error=error[:, kept], degrees_of_freedom=degrees[:, kept],
            count=count[:, kept], offset_mean=np.stack([s["u"] / a, s["v"] / a], axis=-1)[:, kept],
            offset_second=np.stack([s[name] / a for name in ("uu", "uv", "vv")], axis=-1)[:, kept])


def _half_widths(grid: UVGrid, first: BlockSums) -> NDArray[np.int64]:
    """By how many cells each window must grow on both sides to hold enough visibilities in every channel that has any."""
    half = grid.n_pixel // 2
    any_at_all = first.count.max(axis=0) > 0
    least = np.where(first.count > 0, first.count, np.iinfo(np.int32).max).min(axis=0)
    plane = np.zeros((2 * half + 1 + 2 * WIDEST, 2 * half + 1 + 2 * WIDEST))
    u, v = first.cell_u + half + WIDEST, first.cell_v + half + WIDEST
    number = np.where(any_at_all, least, 0)
    np.add.at(plane, (u, v), number)
    np.add.at(plane, (half - first.cell_u + WIDEST, half - first.cell_v + WIDEST), number)
    whole = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    whole[1:, 1:] = plane.cumsum(axis=0).cumsum(axis=1)

    def within(low_u: NDArray[Any], high_u: NDArray[Any], low_v: NDArray[Any], high_v: NDArray[Any]) -> FloatArray:
        return whole[high_u + 1, high_v + 1] - whole[low_u, high_v + 1] - whole[high_u + 1, low_v] + whole[low_u, low_v]

    found = np.full(u.size, WIDEST, dtype=np.int64)
    origin = half + WIDEST
    for width in range(WIDEST - 1, -1, -1):
        inside = within(u - width, u + width, v - width, v + width)
        # a visibility whose conjugate lies in the same window counts once: both lie where the window meets its mirror image
        a, b = width - (u - origin), width - np.abs(v - origin)
        both = np.where((a >= 0) & (b >= 0), within(origin - np.abs(a), origin + np.abs(a), origin - np.abs(b), origin + np.abs(b)), 0.0)
        found = np.where(inside - 0.5 * both >= LEAST_VISIBILITIES, width, found)
    return found


_TABLE_STEPS = 8192


def _window_table() -> FloatArray:
    """The window of every half width on even steps of the offset over the half width, shape (width, step)."""
    x = np.linspace(0.0, 1.0, _TABLE_STEPS + 1)
    return np.stack([kaiser_bessel(x * (width + 0.5), width + 0.5) for width in range(WIDEST + 1)])


@numba.njit(nogil=True)
def _accumulate(uvw, data, weight, cell_size, half, slots, widths, table, sums, count):  # type: ignore[no-untyped-def]  # compiled
    n_row, n_channel, n_hand = data.shape
    reach = table.shape[0] - 1
    steps = table.shape[1] - 1
    for row in range(n_row):
        folded = -1.0 if (uvw[row, 0] < 0.0 or (uvw[row, 0] == 0.0 and uvw[row, 1] < 0.0)) else 1.0
        for mirror in range(2):
            sign = folded * (1.0 - 2.0 * mirror)
            u, v = sign * uvw[row, 0] / cell_size, sign * uvw[row, 1] / cell_size
            if u < -(reach + 0.5):
                continue
            iu, iv = int(np.rint(u)), int(np.rint(v))
            for tu in range(max(iu - reach, 0), min(iu + reach, half) + 1):
                for tv in range(max(iv - reach, -half), min(iv + reach, half) + 1):
                    k = slots[tu, tv + half]
                    if k < 0:
                        continue
                    wide = widths[k] + 0.5
                    du, dv = u - tu, v - tv
                    if abs(du) > wide or abs(dv) > wide:
                        continue
                    # near the origin a window may hold a visibility and its conjugate: the nearer one enters, alone; at it the folded one
                    other = (-u - tu) ** 2 + (-v - tv) ** 2
                    own = du * du + dv * dv
                    if abs(-u - tu) <= wide and abs(-v - tv) <= wide and (other < own or (other == own and mirror == 1)):
                        continue
                    window = 1.0
                    for offset in (abs(du), abs(dv)):
                        place = offset / wide * steps
                        low = min(int(place), steps - 1)
                        part = place - low
                        window *= (1.0 - part) * table[widths[k], low] + part * table[widths[k], low + 1]
                    _add(k, row, sign, du * cell_size, dv * cell_size, window, data, weight, sums, count, n_channel, n_hand)


@numba.njit(nogil=True)
def _add(k, row, sign, du, dv, window, data, weight, sums, count, n_channel, n_hand):  # type: ignore[no-untyped-def]  # compiled
    for c in range(n_channel):
        for h in range(n_hand):
            w = np.float64(weight[row, c, h])
            if w <= 0.0:
                continue
            a = window * w
            x, y = np.float64(data[row, c, h].real), sign * np.float64(data[row, c, h].imag)
            cell = sums[k, c]
            cell[0] += a
            cell[1] += a * x
            cell[2] += a * y
            cell[3] += a * du
            cell[4] += a * dv
            cell[5] += a * du * du
            cell[6] += a * du * dv
            cell[7] += a * dv * dv
            cell[8] += a * (x * x + y * y)
            cell[9] += window
            cell[10] += window * a
            cell[11] += window * window
            cell[12] += window * window * a
            count[k, c] += 1
