"""Streaming visibilities onto the uv grid: weighted sums, offsets' moments and what the noise needs, in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.visibilities import VisibilityChunk

FloatArray = NDArray[np.float64]

SUMS = ("weight", "real", "imaginary", "u", "v", "uu", "uv", "vv", "square", "difference_square", "time_square")
_N_SUMS = len(SUMS)


@dataclass(frozen=True, eq=False)
class BlockSums:
    """Sums over the visibilities of one execution block in its occupied cells.

    With weights w, data x, offsets d from the cell's centre, and the difference x1 - x2 of the parallel hands with its weight
    w1 w2 / (w1 + w2):

    Attributes
    ----------
    cell_u, cell_v
        Cell indices, shape (cell,), ordered by u, then v.
    weight, mean
        Sum of w and weighted mean of x (0 where empty), shape (chan, cell).
    offset_mean, offset_second
        Weighted means of d (chan, cell, 2), m, and of its products uu, uv, vv (chan, cell, 3), m^2.
    scatter
        Sum of w |x - mean|^2, shape (chan, cell).
    count
        Number of x, shape (chan, cell).
    difference_square, difference_count
        Sum of w1 w2 / (w1 + w2) |x1 - x2|^2, and number of differences, shape (chan, cell).
    difference_flat, difference_spectra
        What a row's weighted mean difference over its channels (a continuum seen unequally by the hands) contributes to the sum of
        ``difference_square`` over the channels, and what noise of unit scale alone would make that on average, halved, shape (cell,).
    time_square, time_count, time_flat, time_spectra
        The same of one hand's differences between consecutive integrations of a baseline, where there is no second hand.
    beyond
        Number of x that fell beyond the grid.
    """

    cell_u: NDArray[np.int32]
    cell_v: NDArray[np.int32]
    weight: FloatArray
    mean: NDArray[np.complex128]
    offset_mean: FloatArray
    offset_second: FloatArray
    scatter: FloatArray
    count: NDArray[np.int32]
    difference_square: FloatArray
    difference_count: NDArray[np.int32]
    difference_flat: FloatArray
    difference_spectra: FloatArray
    time_square: FloatArray
    time_count: NDArray[np.int32]
    time_flat: FloatArray
    time_spectra: FloatArray
    beyond: int


@dataclass(frozen=True, eq=False)
class RowNoise:
    """What the rows of a chunk tell of the noise, by differences of the hands (first column) or of consecutive integrations (second).

    Attributes
    ----------
    square
        Sum over the channels of w1 w2 / (w1 + w2) |x1 - x2|^2, the flat part taken out, shape (row, 2).
    expected
        What it is on average for noise of unit scale, shape (row, 2).
    number
        Channels that entered, shape (row, 2).
    """

    square: FloatArray
    expected: FloatArray
    number: NDArray[np.int32]


class TimePairs:
    """Pairs the consecutive integrations of each baseline without overlap, so that every visibility enters one difference.

    Parameters
    ----------
    n_channel
        Channels of the block.
    cell_size
        m; two integrations further apart than a quarter of it see the source differently and are no pair.
    lags
        Noise correlation of channels 0, 1, ... apart.
    """

    def __init__(self, n_channel: int, cell_size: float, lags: FloatArray) -> None:
        self._slots: dict[int, int] = {}
        self._limit, self._lags = 0.25 * cell_size, lags
        self._waiting = np.zeros(0, dtype=np.bool_)
        self._place = np.zeros((0, 2))
        self._data = np.zeros((0, n_channel, 2), dtype=np.complex64)
        self._weight = np.zeros((0, n_channel, 2), dtype=np.float32)

    def add(self, chunk: VisibilityChunk, rows: NDArray[np.int64], slot: NDArray[np.int64], sums: FloatArray, counts: NDArray[np.int32],
            flat: FloatArray, noise: RowNoise) -> None:
        """Add the differences of some rows to the cells of their later integrations, and to ``noise``."""
        keys = chunk.antenna1[rows] * 2**32 + chunk.antenna2[rows]
        for key in np.unique(keys).tolist():
            self._slots.setdefault(key, len(self._slots))
        room = len(self._slots) - self._waiting.size
        if room > 0:
            room += self._waiting.size // 2
            self._waiting, self._place, self._data, self._weight = (
                np.concatenate([array, np.zeros((room, *array.shape[1:]), dtype=array.dtype)])
                for array in (self._waiting, self._place, self._data, self._weight))
        numbers = np.array([self._slots[key] for key in keys.tolist()])
        _pair(rows, numbers, slot, np.ascontiguousarray(chunk.uvw), chunk.data, chunk.weight, self._limit, self._waiting, self._place,
              self._data, self._weight, sums, counts, flat, self._lags, noise.square, noise.expected, noise.number)


class BlockGridder:
    """Accumulates one execution block. Memory grows with the occupied cells, never with the number of visibilities.

    Every visibility counts once, in the half plane u >= 0: one with u < 0 (or u = 0 and v < 0) is conjugated and its (u, v) negated.
    It falls into the cell whose centre is nearest.

    Parameters
    ----------
    grid
        The geometry.
    n_channel
        Channels of the block.
    lags
        Noise correlation of channels 0, 1, ... apart, which says how much of a flat part is noise; None: channels are independent.
    """

    def __init__(self, grid: UVGrid, n_channel: int, lags: FloatArray | None = None) -> None:
        self.grid, self.n_channel, self.beyond = grid, n_channel, 0
        side = grid.n_pixel + 1
        self._slots = np.full((grid.n_pixel // 2 + 1) * side, -1, dtype=np.int64)
        self._cells = np.empty(0, dtype=np.int64)
        self._sums = np.zeros((0, n_channel, _N_SUMS))
        self._counts = np.zeros((0, n_channel, 3), dtype=np.int32)
        self._flat = np.zeros((0, 4))
        self._lags = np.ones(1) if lags is None else np.ascontiguousarray(lags[:n_channel], dtype=np.float64)
        self._pairs = TimePairs(n_channel, grid.cell_size, self._lags)

    def add(self, chunk: VisibilityChunk) -> RowNoise:
        """Add a chunk of visibilities, and say what each row tells of the noise."""
        cell, folded = _locate(np.ascontiguousarray(chunk.uvw), self.grid.cell_size, self.grid.n_pixel // 2)
        inside = cell >= 0
        self.beyond += int(np.count_nonzero(chunk.weight[~inside]))
        self._make_room(cell[inside])
        slot = np.where(inside, self._slots[cell], -1)
        data, weight = np.ascontiguousarray(chunk.data), np.ascontiguousarray(chunk.weight)
        shape = (data.shape[0], 2)
        rows = RowNoise(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int32))
        _accumulate(slot, folded, data, weight, self._sums, self._counts, self._flat, self._lags, rows.square, rows.expected, rows.number)
        single = np.flatnonzero((rows.number[:, 0] == 0) & inside)
        if single.size:
            self._pairs.add(chunk, single, slot, self._sums, self._counts, self._flat, rows)
        return rows

    def _make_room(self, cells: NDArray[np.int64]) -> None:
        new = np.unique(cells[self._slots[cells] < 0])
        if not new.size:
            return
        used = self._cells.size
        self._slots[new] = np.arange(used, used + new.size)
        self._cells = np.concatenate([self._cells, new])
        if self._cells.size > self._sums.shape[0]:
            room = max(self._cells.size, min(2 * self._sums.shape[0], self._slots.size))
            sums, counts = np.zeros((room, self.n_channel, _N_SUMS)), np.zeros((room, self.n_channel, 3), dtype=np.int32)
            sums[:used], counts[:used] = self._sums[:used], self._counts[:used]
            flat = np.zeros((room, 4))
            flat[:used] = self._flat[:used]
            self._sums, self._counts, self._flat = sums, counts, flat

    def finish(self) -> BlockSums:
        """The sums over everything added, in the cells that hold at least one visibility."""
        counts = self._counts[:self._cells.size]
        occupied = np.flatnonzero(counts[:, :, 0].any(axis=1))
        order = occupied[np.argsort(self._cells[occupied])]
        sums = {name: np.ascontiguousarray(self._sums[order, :, i].T) for i, name in enumerate(SUMS)}
        weight = sums["weight"]
        safe = np.where(weight > 0, weight, 1.0)
        mean = np.asarray((sums["real"] + 1j * sums["imaginary"]) / safe, dtype=np.complex128)
        side = self.grid.n_pixel + 1
        return BlockSums(
            cell_u=(self._cells[order] // side).astype(np.int32), cell_v=(self._cells[order] % side - side // 2).astype(np.int32),
            weight=weight, mean=mean, offset_mean=np.stack([sums["u"] / safe, sums["v"] / safe], axis=-1),
            offset_second=np.stack([sums[name] / safe for name in ("uu", "uv", "vv")], axis=-1),
            scatter=np.maximum(sums["square"] - weight * np.abs(mean) ** 2, 0.0), count=np.ascontiguousarray(counts[order, :, 0].T),
            difference_square=sums["difference_square"], difference_count=np.ascontiguousarray(counts[order, :, 1].T),
            difference_flat=self._flat[order, 0], difference_spectra=self._flat[order, 1], time_square=sums["time_square"],
            time_count=np.ascontiguousarray(counts[order, :, 2].T), time_flat=self._flat[order, 2], time_spectra=self._flat[order, 3],
            beyond=self.beyond)


@numba.njit(nogil=True)
def _locate(uvw, cell_size, half):  # type: ignore[no-untyped-def]  # compiled
    """Cell number (-1 beyond the grid), and per row (sign, offset u, offset v) after folding."""
    n_row = uvw.shape[0]
    cell = np.empty(n_row, dtype=np.int64)
    folded = np.empty((n_row, 3))
    for row in range(n_row):
        u, v = uvw[row, 0], uvw[row, 1]
        sign = -1.0 if (u < 0.0 or (u == 0.0 and v < 0.0)) else 1.0
        u, v = sign * u, sign * v
        iu, iv = np.rint(u / cell_size), np.rint(v / cell_size)
        folded[row, 0], folded[row, 1], folded[row, 2] = sign, u - iu * cell_size, v - iv * cell_size
        if iu <= half and -half <= iv <= half:
            cell[row] = int(iu) * (2 * half + 1) + int(iv) + half
        else:
            cell[row] = -1
    return cell, folded


@numba.njit(nogil=True)
def _of_flat(pair_weight, lags):  # type: ignore[no-untyped-def]  # compiled
    """What noise of unit scale makes of a row's flat part on average, over two: ``sum_ij sqrt(w_i w_j) C_ij / sum w``."""
    n_channel = pair_weight.size
    total, found = 0.0, 0.0
    for c in range(n_channel):
        total += pair_weight[c]
        found += pair_weight[c]
        for lag in range(1, min(lags.size, n_channel - c)):
            found += 2.0 * lags[lag] * np.sqrt(pair_weight[c] * pair_weight[c + lag])
    return found / total


@numba.njit(nogil=True)
def _accumulate(slot, folded, data, weight, sums, counts, flat, lags, row_square, row_expected, row_number):  # type: ignore[no-untyped-def]
    n_row, n_channel, n_hand = data.shape
    pair_weight = np.zeros(n_channel)
    for row in range(n_row):
        k = slot[row]
        if k < 0:
            continue
        sign, du, dv = folded[row, 0], folded[row, 1], folded[row, 2]
        uu, uv, vv = du * du, du * dv, dv * dv
        flat_weight, flat_re, flat_im = 0.0, 0.0, 0.0
        apart, number = 0.0, 0
        for c in range(n_channel):
            pair_weight[c] = 0.0
            total, re, im, square = 0.0, 0.0, 0.0, 0.0
            n = 0
            for h in range(n_hand):
                w = np.float64(weight[row, c, h])
                if w > 0.0:
                    x, y = np.float64(data[row, c, h].real), np.float64(data[row, c, h].imag)
                    total += w
                    re += w * x
                    im += w * y
                    square += w * (x * x + y * y)
                    n += 1
            if n == 0:
                continue
            cell = sums[k, c]
            cell[0] += total
            cell[1] += re
            cell[2] += sign * im
            cell[3] += total * du
            cell[4] += total * dv
            cell[5] += total * uu
            cell[6] += total * uv
            cell[7] += total * vv
            cell[8] += square
            counts[k, c, 0] += n
            if n == 2 and n_hand == 2:
                w1, w2 = np.float64(weight[row, c, 0]), np.float64(weight[row, c, 1])
                x = np.float64(data[row, c, 0].real) - np.float64(data[row, c, 1].real)
                y = np.float64(data[row, c, 0].imag) - np.float64(data[row, c, 1].imag)
                w = w1 * w2 / (w1 + w2)
                cell[9] += w * (x * x + y * y)
                counts[k, c, 1] += 1
                apart += w * (x * x + y * y)
                number += 1
                pair_weight[c] = w
                flat_weight += w
                flat_re += w * x
                flat_im += w * y
        if flat_weight > 0.0:
            level = (flat_re * flat_re + flat_im * flat_im) / flat_weight
            part = _of_flat(pair_weight, lags)
            flat[k, 0] += level
            flat[k, 1] += part
            row_square[row, 0] = max(apart - level, 0.0)
            row_expected[row, 0] = 2.0 * (number - part)
            row_number[row, 0] = number


@numba.njit(nogil=True)
def _pair(rows, numbers, slot, uvw, data, weight, limit, waiting, place, held, held_weight, sums, counts, flat, lags,  # type: ignore[no-untyped-def]
          row_square, row_expected, row_number):  # compiled
    n_channel, n_hand = data.shape[1], data.shape[2]
    pair_weight = np.zeros(n_channel)
    for i in range(rows.size):
        row, b = rows[i], numbers[i]
        u, v = uvw[row, 0], uvw[row, 1]
        if not waiting[b] or np.hypot(u - place[b, 0], v - place[b, 1]) > limit:
            waiting[b] = True
            place[b, 0], place[b, 1] = u, v
            for c in range(n_channel):
                for h in range(n_hand):
                    held[b, c, h], held_weight[b, c, h] = data[row, c, h], weight[row, c, h]
            continue
        waiting[b] = False
        k = slot[row]
        for h in range(n_hand):
            flat_weight, flat_re, flat_im, apart, number = 0.0, 0.0, 0.0, 0.0, 0
            for c in range(n_channel):
                pair_weight[c] = 0.0
                w1, w2 = np.float64(weight[row, c, h]), np.float64(held_weight[b, c, h])
                if w1 > 0.0 and w2 > 0.0:
                    x = np.float64(data[row, c, h].real) - np.float64(held[b, c, h].real)
                    y = np.float64(data[row, c, h].imag) - np.float64(held[b, c, h].imag)
                    w = w1 * w2 / (w1 + w2)
                    square = w * (x * x + y * y)
                    sums[k, c, 10] += square
                    counts[k, c, 2] += 1
                    pair_weight[c] = w
                    apart += square
                    number += 1
                    flat_weight += w
                    flat_re += w * x
                    flat_im += w * y
            if flat_weight > 0.0:
                level = (flat_re * flat_re + flat_im * flat_im) / flat_weight
                part = _of_flat(pair_weight, lags)
                flat[k, 2] += level
                flat[k, 3] += part
                row_square[row, 1] += max(apart - level, 0.0)
                row_expected[row, 1] += 2.0 * (number - part)
                row_number[row, 1] += number
