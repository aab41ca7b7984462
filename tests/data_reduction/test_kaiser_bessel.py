"""The paper's gridding against plain loops and scipy, and what its rule does to z-scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import signal

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockGridder
from supermage.data_reduction.kaiser_bessel import LEAST_VISIBILITIES, SHAPE, WIDEST, WindowedBlock, WindowGridder, kaiser_bessel
from supermage.data_reduction.noise import satterthwaite_degrees, unbiased_scale, variance_of_mean
from supermage.data_reduction.visibilities import VisibilityChunk
from tests.data_reduction.test_gridding import make_chunk

GRID = UVGrid(16, 0.5, 230e9)


def _gridded(chunk: VisibilityChunk) -> WindowedBlock:
    first = BlockGridder(GRID, chunk.data.shape[1])
    first.add(chunk)
    gridder = WindowGridder(GRID, first.finish())
    gridder.add(chunk)
    return gridder.finish()


@pytest.mark.parametrize("half_width", [0.5, 2.5])
def test_window_is_scipys(half_width: float) -> None:
    beta = SHAPE * 2 * half_width
    samples = signal.windows.kaiser(2001, beta)
    x = np.linspace(-half_width, half_width, 2001)
    np.testing.assert_allclose(kaiser_bessel(x, half_width), samples, rtol=1e-10)
    assert kaiser_bessel(np.array([1.001 * half_width]), half_width)[0] == 0.0


@pytest.mark.parametrize("rows", [40, 400])
def test_every_cell_is_a_plain_loop(rows: int) -> None:
    chunk = make_chunk(np.random.default_rng(rows), rows=rows, n_channel=2)
    found = _gridded(chunk)
    assert found.cell_u.size > 5 and (rows == 400 or np.count_nonzero(found.half_width) > 5)
    for k in range(found.cell_u.size):
        centre, wide = np.array([found.cell_u[k], found.cell_v[k]]), found.half_width[k] + 0.5
        for channel in range(2):
            values, windows, weights, offsets = [], [], [], []
            for row, hand in np.ndindex(rows, 2):
                if chunk.weight[row, channel, hand] == 0:
                    continue
                here = chunk.uvw[row, :2] / GRID.cell_size
                copies = [(np.abs(s * here - centre).max() > wide, np.sum((s * here - centre) ** 2), s * here[0] < 0, s) for s in (1, -1)]
                outside, _, _, sign = min(copies)
                if not outside:
                    offsets.append(sign * here - centre)
                    x = chunk.data[row, channel, hand]
                    values.append(x if sign == 1 else np.conj(x))
                    windows.append(np.prod(kaiser_bessel(offsets[-1], wide)))
                    weights.append(chunk.weight[row, channel, hand])
            assert found.count[channel, k] == len(values)
            if len(values) < LEAST_VISIBILITIES:
                assert np.isinf(found.standard_error[channel, k]) and found.degrees_of_freedom[channel, k] == 0
                continue
            x, window, weight, d = np.array(values, dtype=complex), np.array(windows), np.array(weights, dtype=float), np.array(offsets)
            a = window * weight
            assert found.mean[channel, k] == pytest.approx((a * x).sum() / a.sum(), abs=1e-5)
            scale = (unbiased_scale(x.real, window, weight) + unbiased_scale(x.imag, window, weight)) / 2
            assert found.standard_error[channel, k] == pytest.approx(np.sqrt(variance_of_mean(window, weight, scale)), rel=1e-4)
            assert found.degrees_of_freedom[channel, k] == pytest.approx(2 * satterthwaite_degrees(window, weight), rel=1e-4)
            np.testing.assert_allclose(found.offset_mean[channel, k], (a @ d) / a.sum() * GRID.cell_size, rtol=1e-4, atol=1e-6)


def test_windows_grow_until_they_hold_five_and_no_further() -> None:
    chunk = make_chunk(np.random.default_rng(3), rows=60, n_channel=1, hands=1, extent=0.45 * GRID.n_pixel * GRID.cell_size)
    chunk = dataclasses.replace(chunk, weight=np.ones_like(chunk.weight))
    found = _gridded(chunk)
    assert found.half_width.max() > 0 and found.half_width.max() <= WIDEST
    assert (found.count >= LEAST_VISIBILITIES).all()
    here = chunk.uvw[:, :2] / GRID.cell_size
    for k in np.flatnonzero(found.half_width > 0):
        narrower = found.half_width[k] - 0.5
        centre = np.array([found.cell_u[k], found.cell_v[k]])
        inside = [np.abs(s * here - centre).max(axis=1) <= narrower for s in (1, -1)]
        assert np.count_nonzero(inside[0] | inside[1]) < LEAST_VISIBILITIES


@pytest.mark.parametrize(("number", "expected"), [(5, 0.58), (50, 0.51)])
def test_the_papers_rule_is_not_calibrated(number: int, expected: float) -> None:
    """Rms z-score with sigma x 2, cells of equal weights under a flat window: t with 2 (n - 1) degrees of freedom over 2, never 1."""
    rng = np.random.default_rng(number)
    spots = np.stack(np.meshgrid(np.arange(1, 8), np.arange(-7, 8), indexing="ij"), axis=-1).reshape(-1, 2)
    uvw = np.concatenate([np.repeat(spots, number, axis=0) * GRID.cell_size, np.zeros((spots.shape[0] * number, 1))], axis=1)
    rows, channels = uvw.shape[0], 60
    data = (rng.standard_normal((rows, channels, 1, 2)) @ np.array([1.0, 1.0j])).astype(np.complex64)
    found = _gridded(VisibilityChunk(uvw=uvw, data=data, weight=np.ones((rows, channels, 1), dtype=np.float32),
                                     antenna1=np.zeros(rows, dtype=np.int64), antenna2=np.ones(rows, dtype=np.int64), time=np.zeros(rows),
                                     flagged=0, unweighted=0))
    assert np.unique(found.degrees_of_freedom).round(6).tolist() == [2.0 * (number - 1)]
    z = found.mean / (2.0 * found.standard_error)
    assert np.sqrt(np.mean(np.abs(z) ** 2) / 2) == pytest.approx(expected, rel=0.02)
