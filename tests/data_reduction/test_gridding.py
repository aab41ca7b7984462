"""Gridding: nothing lost, each visibility once, moments as a direct sum says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridding import BlockGridder
from supermage.data_reduction.visibilities import VisibilityChunk

GRID = UVGrid(16, 0.5, 230e9)


def make_chunk(rng: np.random.Generator, *, rows: int, n_channel: int = 3, hands: int = 2, extent: float | None = None) -> VisibilityChunk:
    """Random visibilities, a fifth of them flagged, uv out to ``extent`` m (default: a little beyond the grid)."""
    extent = 0.6 * GRID.n_pixel * GRID.cell_size if extent is None else extent
    shape = (rows, n_channel, hands)
    weight = rng.uniform(0.5, 2.0, shape) * (rng.uniform(size=shape) > 0.2)
    data = (rng.standard_normal((*shape, 2)) @ np.array([1.0, 1.0j])).astype(np.complex64)
    return VisibilityChunk(uvw=rng.uniform(-extent, extent, (rows, 3)), data=np.where(weight > 0, data, np.complex64(0)),
                           weight=weight.astype(np.float32), antenna1=np.zeros(rows, dtype=np.int64),
                           antenna2=np.ones(rows, dtype=np.int64), time=np.zeros(rows), flagged=0, unweighted=0)


def _direct(chunk: VisibilityChunk, grid: UVGrid) -> dict[tuple[int, int, int], np.ndarray]:
    """The sums by plain Python: (iu, iv, channel) -> [sum w, sum w x, sum w du, dv, duu, duv, dvv, count]."""
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for row in range(chunk.uvw.shape[0]):
        u, v = chunk.uvw[row, :2]
        flip = u < 0 or (u == 0 and v < 0)
        u, v = (-u, -v) if flip else (u, v)
        iu, iv = round(u / grid.cell_size), round(v / grid.cell_size)
        if iu > grid.n_pixel // 2 or abs(iv) > grid.n_pixel // 2:
            continue
        du, dv = u - iu * grid.cell_size, v - iv * grid.cell_size
        for channel in range(chunk.data.shape[1]):
            for hand in range(chunk.data.shape[2]):
                w = float(chunk.weight[row, channel, hand])
                if w > 0:
                    x = complex(chunk.data[row, channel, hand])
                    x = x.conjugate() if flip else x
                    add = np.array([w, w * x, w * du, w * dv, w * du * du, w * du * dv, w * dv * dv, 1.0], dtype=complex)
                    found[iu, iv, channel] = found.get((iu, iv, channel), 0.0) + add
    return found


def test_sums_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    chunks = [make_chunk(rng, rows=n) for n in (1, 150, 90)]
    gridder = BlockGridder(GRID, 3)
    for chunk in chunks:
        gridder.add(chunk)
    sums = gridder.finish()
    arrays = [f.name for f in dataclasses.fields(VisibilityChunk) if f.name not in ("flagged", "unweighted")]
    whole = VisibilityChunk(flagged=0, unweighted=0, **{name: np.concatenate([getattr(c, name) for c in chunks]) for name in arrays})
    direct = _direct(whole, GRID)
    assert {(u, v) for u, v, _ in direct} == set(zip(sums.cell_u.tolist(), sums.cell_v.tolist()))
    for k, (u, v) in enumerate(zip(sums.cell_u.tolist(), sums.cell_v.tolist())):
        for c in range(3):
            want = direct.get((u, v, c), np.zeros(8, dtype=complex))
            w = max(want[0].real, 1e-300)
            assert sums.weight[c, k] == pytest.approx(want[0].real)
            assert sums.mean[c, k] == pytest.approx(want[1] / w if want[0].real else 0.0, abs=1e-12)
            np.testing.assert_allclose(sums.offset_mean[c, k] * sums.weight[c, k], want[2:4].real, atol=1e-9)
            np.testing.assert_allclose(sums.offset_second[c, k] * sums.weight[c, k], want[4:7].real, atol=1e-9)
            assert sums.count[c, k] == int(want[7].real)
    kept = sum(int(value[7].real) for value in direct.values())
    assert kept + sums.beyond == int(np.count_nonzero(whole.weight))
    assert sums.beyond > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_weight_and_folded_flux_are_conserved(seed: int, rows: int) -> None:
    chunk = make_chunk(np.random.default_rng(seed), rows=rows, extent=0.49 * GRID.n_pixel * GRID.cell_size)
    gridder = BlockGridder(GRID, 3)
    gridder.add(chunk)
    sums = gridder.finish()
    assert sums.beyond == 0
    assert np.all(sums.cell_u >= 0)
    assert sums.weight.sum() == pytest.approx(float(chunk.weight.sum(dtype=float)))
    flip = (chunk.uvw[:, 0] < 0)[:, None, None]
    folded = np.where(flip, np.conj(chunk.data), chunk.data)
    assert (sums.weight * sums.mean).sum() == pytest.approx(complex((chunk.weight * folded).sum(dtype=complex)), abs=1e-5)
    assert np.all(np.abs(sums.offset_mean) <= 0.5 * GRID.cell_size + 1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_baseline_named_backwards_is_the_same_visibility(seed: int) -> None:
    chunk = make_chunk(np.random.default_rng(seed), rows=25)
    turned = dataclasses.replace(chunk, uvw=-chunk.uvw, data=np.conj(chunk.data))
    one, two = BlockGridder(GRID, 3), BlockGridder(GRID, 3)
    one.add(chunk)
    two.add(turned)
    first, second = one.finish(), two.finish()
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.offset_mean, second.offset_mean)


def test_counting_both_half_planes_would_double_the_weight() -> None:
    """The mutation that halves every variance: each visibility entered with its conjugate at -u, -v too."""
    chunk = make_chunk(np.random.default_rng(3), rows=40, extent=0.49 * GRID.n_pixel * GRID.cell_size)
    once, twice = BlockGridder(GRID, 3), BlockGridder(GRID, 3)
    for gridder in (once, twice):
        gridder.add(chunk)
    twice.add(dataclasses.replace(chunk, uvw=-chunk.uvw, data=np.conj(chunk.data)))
    true = float(chunk.weight.sum(dtype=float))
    assert once.finish().weight.sum() == pytest.approx(true)
    assert twice.finish().weight.sum() == pytest.approx(2.0 * true)


@pytest.mark.parametrize(("u", "v", "sign"), [(0.0, 3.0, 1), (0.0, -3.0, -1), (3.0, -3.0, 1), (-3.0, 3.0, -1), (0.0, 0.0, 1)])
def test_folding_at_the_edge_of_the_half_plane(u: float, v: float, sign: int) -> None:
    cell = GRID.cell_size
    chunk = VisibilityChunk(uvw=np.array([[u * cell, v * cell, 0.0]]), data=np.full((1, 1, 1), 1 + 2j, dtype=np.complex64),
                            weight=np.ones((1, 1, 1), dtype=np.float32), antenna1=np.zeros(1, dtype=np.int64),
                            antenna2=np.ones(1, dtype=np.int64), time=np.zeros(1), flagged=0, unweighted=0)
    gridder = BlockGridder(GRID, 1)
    gridder.add(chunk)
    sums = gridder.finish()
    assert (int(sums.cell_u[0]), int(sums.cell_v[0])) == (int(sign * u), int(sign * v))
    assert sums.mean[0, 0] == 1 + 2j * sign


def test_second_order_moments_predict_a_source_off_the_centre() -> None:
    """A point source's cell means from the zeroth, first and second moments: the error must fall order by order, to a few 1e-3."""
    rng = np.random.default_rng(2)
    chunk = make_chunk(rng, rows=6000, n_channel=1, hands=1, extent=0.45 * GRID.n_pixel * GRID.cell_size)
    east, north = 0.9 * ARCSEC, -0.6 * ARCSEC
    per_metre = GRID.reference_frequency / SPEED_OF_LIGHT_M_S
    phase = -2j * np.pi * per_metre
    data = np.exp(phase * (chunk.uvw[:, 0] * east + chunk.uvw[:, 1] * north))
    gridder = BlockGridder(GRID, 1)
    gridder.add(dataclasses.replace(chunk, data=data[:, None, None].astype(np.complex64), weight=np.ones((6000, 1, 1), dtype=np.float32)))
    sums = gridder.finish()
    centre = np.exp(phase * GRID.cell_size * (sums.cell_u * east + sums.cell_v * north))
    first = phase * (sums.offset_mean[0] @ np.array([east, north]))
    second = 0.5 * phase**2 * (sums.offset_second[0] @ np.array([east**2, 2 * east * north, north**2]))
    models = (centre, centre * (1 + first), centre * (1 + first + second))
    errors = [np.sqrt(np.mean(np.abs(model - sums.mean[0]) ** 2)) for model in models]
    assert errors[0] > 2 * errors[1] > 10 * errors[2]
    assert errors[2] < 5e-3


def test_hands_are_averaged_by_weight_and_compared_by_their_own() -> None:
    data = np.array([[[1 + 0j, 3 + 0j]]], dtype=np.complex64)
    weight = np.array([[[1.0, 3.0]]], dtype=np.float32)
    gridder = BlockGridder(GRID, 1)
    gridder.add(VisibilityChunk(uvw=np.ones((1, 3)), data=data, weight=weight, antenna1=np.zeros(1, dtype=np.int64),
                                antenna2=np.ones(1, dtype=np.int64), time=np.zeros(1), flagged=0, unweighted=0))
    sums = gridder.finish()
    assert sums.mean[0, 0] == 2.5
    assert sums.weight[0, 0] == 4.0
    assert sums.difference_square[0, 0] == pytest.approx(0.75 * 4.0)
    assert sums.scatter[0, 0] == pytest.approx(1.0 * 1.5**2 + 3.0 * 0.5**2)
    assert (sums.count[0, 0], sums.difference_count[0, 0]) == (2, 1)
