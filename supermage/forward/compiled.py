"""Compiled loops of the forward model (numba), one thread, no allocation inside: what :mod:`supermage.forward.operators` differentiates.

Lines are evaluated in tiles of nodes so that every intermediate stays in the first-level cache and the inner loops run in vector registers.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

TILE = 128
BEYOND = np.float32(4.0)
"""sqrt(2) standard deviations from its centre at which a line ends: only the edges that a tile's lines reach are evaluated."""
_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
_SERIES_LIMIT = 0.5

_OPTIONS: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "nogil": True}


@numba.njit(**_OPTIONS, inline="always")
def _gaussian(square):  # type: ignore[no-untyped-def]
    """``exp(-square)`` in float32 for square >= 0, absolute error < 1e-6, tiny beyond 40. No table, no bit tricks: it vectorises."""
    x = min(square, np.float32(40.0)) * np.float32(1.0 / 8.0)
    p = np.float32(1.0 / 40320.0)
    p = p * x + np.float32(1.0 / 5040.0)
    p = p * x + np.float32(1.0 / 720.0)
    p = p * x + np.float32(1.0 / 120.0)
    p = p * x + np.float32(1.0 / 24.0)
    p = p * x + np.float32(1.0 / 6.0)
    p = p * x + np.float32(0.5)
    p = p * x + np.float32(1.0)
    p = p * x + np.float32(1.0)
    q = np.float32(1.0) / p
    q = q * q
    q = q * q
    return q * q


@numba.njit(**_OPTIONS, inline="always")
def _error_function(z, gaussian):  # type: ignore[no-untyped-def]
    """``erf(z)`` given ``exp(-z^2)``, absolute error < 2e-7 (Abramowitz & Stegun 7.1.26)."""
    magnitude = abs(z)
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.3275911) * magnitude)
    p = np.float32(1.061405429)
    p = p * t + np.float32(-1.453152027)
    p = p * t + np.float32(1.421413741)
    p = p * t + np.float32(-0.284496736)
    p = p * t + np.float32(0.254829592)
    return math.copysign(np.float32(1.0) - p * t * gaussian, z)


@numba.njit(nogil=True)
def _reach(v, w, size):  # type: ignore[no-untyped-def]
    """Lowest and highest centre of a tile's lines and the smallest inverse width; 0 for that where a number is not finite."""
    low, high, slow = v[0], v[0], w[0]
    for j in range(size):
        if not (np.isfinite(v[j]) and np.isfinite(w[j])):
            return np.float32(0.0), np.float32(0.0), np.float32(0.0)
        low, high, slow = min(low, v[j]), max(high, v[j]), min(slow, w[j])
    return low, high, slow


@numba.njit(nogil=True)
def _side(edge, low, high, slow):  # type: ignore[no-untyped-def]
    """1 where every line of a tile ends below an edge, -1 where it begins above, 0 where one reaches it: erf is 1 to 1.5e-8 beyond 4."""
    if (edge - high) * slow > BEYOND:
        return np.float32(1.0)
    if (edge - low) * slow < -BEYOND:
        return np.float32(-1.0)
    return np.float32(0.0)


@numba.njit(**_OPTIONS)
def _respond(first, taps, block, integral, row, out, start, size):  # type: ignore[no-untyped-def]
    """Banded response of one tile: ``out[block, c] = sum_tap taps[c, tap] integral[first[c] + tap]``."""
    for c in range(first.shape[0]):
        k = first[c]
        row[:] = np.float32(0.0)
        for tap in range(taps.shape[2]):
            weight = taps[block, c, tap]
            for j in range(TILE):
                row[j] += weight * integral[k + tap, j]
        for j in range(size):
            out[block, c, start + j] = row[j]


@numba.njit(**_OPTIONS)
def _load(source, start, size, tile):  # type: ignore[no-untyped-def]
    tile[:] = np.float32(0.0)
    for j in range(size):
        tile[j] = source[start + j]


@numba.njit(**_OPTIONS)
def lines_forward(edges, first, taps, velocity, inverse, flux, out):  # type: ignore[no-untyped-def]
    """Flux density per channel (block, chan, node): banded response of the integrals at the edges, from ``first`` on in each channel."""
    blocks, width, nodes = edges.shape[0], edges.shape[1], velocity.shape[0]
    integral = np.empty((width, TILE), dtype=np.float32)
    v, w, f, row = np.empty((4, TILE), dtype=np.float32)
    for start in range(0, nodes, TILE):
        size = min(TILE, nodes - start)
        _load(velocity, start, size, v)
        _load(inverse, start, size, w)
        _load(flux, start, size, f)
        low, high, slow = _reach(v, w, size)
        for block in range(blocks):
            for k in range(width):
                edge = edges[block, k]
                side = _side(edge, low, high, slow)
                if side != 0:
                    for j in range(TILE):
                        integral[k, j] = np.float32(0.5) * side * f[j]
                    continue
                for j in range(TILE):
                    z = (edge - v[j]) * w[j]
                    integral[k, j] = np.float32(0.5) * f[j] * _error_function(z, _gaussian(z * z))
            _respond(first, taps, block, integral, row, out, start, size)


@numba.njit(**_OPTIONS)
def lines_adjoint(edges, first, taps, velocity, inverse, flux, gradient, to_velocity, to_inverse, to_flux):  # type: ignore[no-untyped-def]
    """Gradients with respect to the lines' centres, inverse widths and fluxes, into the last three (node,) arrays."""
    blocks, width, nodes = edges.shape[0], edges.shape[1], velocity.shape[0]
    pulled = np.empty((width, TILE), dtype=np.float32)
    v, w, f, row, sum_v, sum_w, sum_f = np.empty((7, TILE), dtype=np.float32)
    for start in range(0, nodes, TILE):
        size = min(TILE, nodes - start)
        _load(velocity, start, size, v)
        _load(inverse, start, size, w)
        _load(flux, start, size, f)
        low, high, slow = _reach(v, w, size)
        sum_v[:] = np.float32(0.0)
        sum_w[:] = np.float32(0.0)
        sum_f[:] = np.float32(0.0)
        for block in range(blocks):
            pulled[:, :] = np.float32(0.0)
            for c in range(first.shape[0]):
                _load(gradient[block, c], start, size, row)
                for tap in range(taps.shape[2]):
                    weight, k = taps[block, c, tap], first[c] + tap
                    for j in range(TILE):
                        pulled[k, j] += weight * row[j]
            for k in range(width):
                edge = edges[block, k]
                side = _side(edge, low, high, slow)
                if side != 0:
                    for j in range(TILE):
                        sum_f[j] += side * pulled[k, j]
                    continue
                for j in range(TILE):
                    distance = edge - v[j]
                    z = distance * w[j]
                    gaussian = _gaussian(z * z)
                    slope = pulled[k, j] * gaussian
                    sum_f[j] += pulled[k, j] * _error_function(z, gaussian)
                    sum_v[j] += slope
                    sum_w[j] += slope * distance
        for j in range(size):
            scale = np.float32(0.5 * _TWO_OVER_ROOT_PI) * f[j]
            to_velocity[start + j] = -scale * w[j] * sum_v[j]
            to_inverse[start + j] = scale * sum_w[j]
            to_flux[start + j] = np.float32(0.5) * sum_f[j]


@numba.njit(**_OPTIONS)
def lines_tangent(edges, first, taps, velocity, inverse, flux, d_velocity, d_inverse, d_flux, out):  # type: ignore[no-untyped-def]
    """Directional derivative of :func:`lines_forward`."""
    blocks, width, nodes = edges.shape[0], edges.shape[1], velocity.shape[0]
    integral = np.empty((width, TILE), dtype=np.float32)
    v, w, f, dv, dw, df, row = np.empty((7, TILE), dtype=np.float32)
    for start in range(0, nodes, TILE):
        size = min(TILE, nodes - start)
        _load(velocity, start, size, v)
        _load(inverse, start, size, w)
        _load(flux, start, size, f)
        _load(d_velocity, start, size, dv)
        _load(d_inverse, start, size, dw)
        _load(d_flux, start, size, df)
        low, high, slow = _reach(v, w, size)
        for block in range(blocks):
            for k in range(width):
                edge = edges[block, k]
                side = _side(edge, low, high, slow)
                if side != 0:
                    for j in range(TILE):
                        integral[k, j] = np.float32(0.5) * side * df[j]
                    continue
                for j in range(TILE):
                    distance = edge - v[j]
                    z = distance * w[j]
                    gaussian = _gaussian(z * z)
                    moved = np.float32(_TWO_OVER_ROOT_PI) * gaussian * (distance * dw[j] - w[j] * dv[j])
                    integral[k, j] = np.float32(0.5) * (df[j] * _error_function(z, gaussian) + f[j] * moved)
            _respond(first, taps, block, integral, row, out, start, size)


@numba.njit(**_OPTIONS)
def _rotation(phase, stretch, middle, reach, cosine, sine):  # type: ignore[no-untyped-def]
    """Cosine and sine of ``phase * stretch`` for every channel: one exact pair, then a short series for what the channels differ by."""
    if abs(phase) * reach > _SERIES_LIMIT:
        for c in range(stretch.shape[0]):
            cosine[c] = math.cos(phase * stretch[c])
            sine[c] = math.sin(phase * stretch[c])
        return
    c0, s0 = math.cos(phase * middle), math.sin(phase * middle)
    for c in range(stretch.shape[0]):
        e = phase * (stretch[c] - middle)
        q = e * e
        ce = 1.0 - q * (0.5 - q * (1.0 / 24.0 - q * (1.0 / 720.0 - q * (1.0 / 40320.0))))
        se = e * (1.0 - q * (1.0 / 6.0 - q * (1.0 / 120.0 - q * (1.0 / 5040.0 - q * (1.0 / 362880.0)))))
        cosine[c] = c0 * ce - s0 * se
        sine[c] = s0 * ce + c0 * se


@numba.njit(**_OPTIONS)
def gather_forward(table, real, imaginary, phase, index, sign, stretch, out):  # type: ignore[no-untyped-def]
    """Interpolate the table (block, a, b, part, chan) at the cells; ``out`` is (block, chan, cell, part)."""
    blocks, cells, channels = index.shape[0], index.shape[1], stretch.shape[1]
    vr, vi = np.empty(channels, table.dtype), np.empty(channels, table.dtype)
    cosine, sine = np.empty(channels, table.dtype), np.empty(channels, table.dtype)
    for block in range(blocks):
        middle = 0.5 * (stretch[block].min() + stretch[block].max())
        reach = stretch[block].max() - middle
        for n in range(cells):
            vr[:] = 0
            vi[:] = 0
            s = sign[block, n]
            for tap in range(16):
                row = table[block, index[block, n, 0] + tap // 4, index[block, n, 1] + tap % 4]
                wr, wi = real[block, n, tap], imaginary[block, n, tap]
                swr, swi = s * wr, s * wi
                for c in range(channels):
                    vr[c] += wr * row[0, c] - swi * row[1, c]
                    vi[c] += wi * row[0, c] + swr * row[1, c]
            _rotation(phase[block, n], stretch[block], middle, reach, cosine, sine)
            for c in range(channels):
                out[block, c, n, 0] = vr[c] * cosine[c] + vi[c] * sine[c]
                out[block, c, n, 1] = vi[c] * cosine[c] - vr[c] * sine[c]


@numba.njit(**_OPTIONS)
def gather_adjoint(table, real, imaginary, phase, index, sign, stretch, value, gradient, to_table, to_real, to_imaginary, to_phase):  # type: ignore[no-untyped-def]
    """Gradients with respect to table, weights and phase; ``value`` is the forward result, ``to_table`` is added to."""
    blocks, cells, channels = index.shape[0], index.shape[1], stretch.shape[1]
    hr, hi = np.empty(channels, table.dtype), np.empty(channels, table.dtype)
    cosine, sine = np.empty(channels, table.dtype), np.empty(channels, table.dtype)
    for block in range(blocks):
        middle = 0.5 * (stretch[block].min() + stretch[block].max())
        reach = stretch[block].max() - middle
        for n in range(cells):
            _rotation(phase[block, n], stretch[block], middle, reach, cosine, sine)
            turned = 0.0
            for c in range(channels):
                gr, gi = gradient[block, c, n, 0], gradient[block, c, n, 1]
                turned += stretch[block, c] * (gr * value[block, c, n, 1] - gi * value[block, c, n, 0])
                hr[c] = gr * cosine[c] - gi * sine[c]
                hi[c] = gr * sine[c] + gi * cosine[c]
            to_phase[block, n] = turned
            s = sign[block, n]
            for tap in range(16):
                row = table[block, index[block, n, 0] + tap // 4, index[block, n, 1] + tap % 4]
                to_row = to_table[block, index[block, n, 0] + tap // 4, index[block, n, 1] + tap % 4]
                wr, wi = real[block, n, tap], imaginary[block, n, tap]
                swr, swi = s * wr, s * wi
                rr, ii = table.dtype.type(0), table.dtype.type(0)
                for c in range(channels):
                    rr += hr[c] * row[0, c] + s * hi[c] * row[1, c]
                    ii += hi[c] * row[0, c] - s * hr[c] * row[1, c]
                    to_row[0, c] += wr * hr[c] + wi * hi[c]
                    to_row[1, c] += swr * hi[c] - swi * hr[c]
                to_real[block, n, tap] = rr
                to_imaginary[block, n, tap] = ii
