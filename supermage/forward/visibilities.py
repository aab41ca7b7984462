"""From the disc plane to visibilities: exact transform of the nodes, then smooth interpolation to where the visibilities lie.

With ``a`` and ``b`` the components of the baseline along the receding major axis and (times cos i) across it, the visibility of a thin
disc is ``V = exp(-2 pi i (u x + v y)) F(a, b)``, ``F = sum_nodes L exp(-2 pi i a X) cos(2 pi b Y)``: the nodes never move. ``F`` is
tabulated on a regular grid (two matrix products a channel) and interpolated by cubic B-splines whose taper is divided out of the matrices.
The spread of the visibilities in a cell enters through their mean position (exactly) and their second central moments (Taylor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.errors import DomainError
from supermage.forward.disc import DiscNodes
from supermage.forward.operators import DiscTable

SUPPORT = 4
OVERSAMPLING = 2.5
TWO_PI = 2.0 * math.pi
_SPLINE = np.hstack(
    [
        np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6.0,
        np.array([[-1, 0, 1, 0], [2, -4, 2, 0], [-1, 3, -3, 1], [0, 0, 0, 0]]) / 2.0,
        np.array([[1, -2, 1, 0], [-1, 3, -3, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ]
)
"""Powers of the fraction to the spline at four points, its first and its second derivative."""


@dataclass(frozen=True)
class CellGeometry:
    """Where the visibilities of each cell lie, in cycles per arcsec at the reference frequency.

    Attributes
    ----------
    position
        Mean position over the cell's channels, shape (block, cell, 2).
    spread
        Second central moments (uu, uv, vv) about it, mean over the channels, shape (block, cell, 3).
    shift, extra_spread
        What single channels have beyond that, shapes (block, chan, cell, 2) and (block, chan, cell, 3); None where all channels agree.
    """

    position: NDArray[np.float64]
    spread: NDArray[np.float64]
    shift: NDArray[np.float64] | None
    extra_spread: NDArray[np.float64] | None

    @property
    def longest(self) -> float:
        """Longest baseline, cycles per arcsec."""
        return float(np.linalg.norm(self.position, axis=-1).max())


def cell_geometry(
    cell: NDArray[np.int64],
    offset_mean: NDArray[np.float64],
    offset_second: NDArray[np.float64],
    *,
    cell_size: float,
    reference_frequency: float,
    tolerance: float = 5e-4,
) -> CellGeometry:
    """Split the stored moments into what all channels share and what they do not.

    Parameters
    ----------
    cell
        Cell indices (iu, iv), shape (cell, 2).
    offset_mean, offset_second
        Mean offset from the cell's centre, m, shape (block, chan, cell, 2), and mean products (uu, uv, vv), m^2, shape
        (block, chan, cell, 3). A channel in which all are zero or NaN holds no visibilities.
    cell_size
        m.
    reference_frequency
        Hz.
    tolerance
        Differences between channels below this fraction of a cell are dropped.

    Raises
    ------
    DomainError
        If no cell is occupied, or shapes do not fit.
    """
    if not cell.size or offset_mean.shape[2:] != cell.shape or offset_second.shape != (*offset_mean.shape[:3], 3):
        raise DomainError(
            f"cells and moments must have shapes (cell, 2), (block, chan, cell, 2), (block, chan, cell, 3) with at least one cell, "
            f"got {cell.shape}, {offset_mean.shape}, {offset_second.shape}"
        )
    mean, second = np.nan_to_num(offset_mean), np.nan_to_num(offset_second)
    filled = (mean != 0).any(-1) | (second != 0).any(-1)
    count = np.maximum(filled.sum(1), 1)[..., None]
    common = (mean * filled[..., None]).sum(1) / count
    shift = np.where(filled[..., None], mean - common[:, None], 0.0)
    u, v = common[:, None, :, 0], common[:, None, :, 1]
    about = np.stack(
        [
            second[..., 0] - 2 * mean[..., 0] * u + u * u,
            second[..., 1] - mean[..., 0] * v - mean[..., 1] * u + u * v,
            second[..., 2] - 2 * mean[..., 1] * v + v * v,
        ],
        axis=-1,
    )
    about = np.where(filled[..., None], about, 0.0)
    spread = about.sum(1) / count
    extra = np.where(filled[..., None], about - spread[:, None], 0.0)
    scale = reference_frequency / SPEED_OF_LIGHT_M_S * ARCSEC
    varies = max(np.abs(shift).max(), math.sqrt(np.abs(extra).max())) > tolerance * cell_size
    return CellGeometry(
        (cell[None] * cell_size + common) * scale,
        spread * scale**2,
        shift * scale if varies else None,
        extra * scale**2 if varies else None,
    )


class DiscTransform(nn.Module):
    """Transform of the nodes' line fluxes to the regular (a, b) grid, each channel at its own frequency.

    Parameters
    ----------
    nodes
        Quadrature nodes of the disc plane.
    longest
        Longest baseline, cycles per arcsec at the reference frequency.
    stretch
        Frequency over reference frequency, shape (block, chan).
    dtype
        Of the matrices.
    """

    across: Tensor
    along_cosine: Tensor
    along_sine: Tensor

    def __init__(self, nodes: DiscNodes, longest: float, stretch: NDArray[np.float64], *, dtype: torch.dtype) -> None:
        super().__init__()
        self.step = 1.0 / (OVERSAMPLING * 2.0 * nodes.radius_limit * float(stretch.max()))
        self.rows = math.ceil(longest / self.step) + SUPPORT
        frequency = (np.arange(self.rows) - 1) * self.step
        across = stretch[..., None, None] * nodes.across
        along = stretch[..., None, None] * nodes.along[:, None]
        taper_across, taper_along = np.sinc(self.step * across) ** -4, np.sinc(self.step * along) ** -4
        wave = np.cos(TWO_PI * frequency[:, None] * across) * taper_across
        self.register_buffer("across", torch.tensor(wave, dtype=dtype), persistent=False)
        phase = TWO_PI * along * frequency
        self.register_buffer("along_cosine", torch.tensor(np.cos(phase) * taper_along, dtype=dtype), persistent=False)
        self.register_buffer("along_sine", torch.tensor(-np.sin(phase) * taper_along, dtype=dtype), persistent=False)

    def forward(self, line: Float[Tensor, "block chan y column"], rows: int) -> Float[Tensor, "block a b part chan"]:
        """Table of F (real and imaginary part) for the first ``rows`` values of b; ``side`` 0 is the receding half, 1 the other."""
        return DiscTable.apply(line, self.across[:, :, :rows], self.along_cosine, self.along_sine)


def spline_weights(fraction: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor, Tensor]:
    """Cubic B-spline at the four grid points around a position, its first and second derivative (per grid step), shapes (*shape, 4)."""
    square = fraction * fraction
    powers = torch.stack([torch.ones_like(fraction), fraction, square, square * fraction], dim=-1)
    value, first, second = (powers @ torch.tensor(_SPLINE, dtype=fraction.dtype, device=fraction.device)).split(SUPPORT, dim=-1)
    return value, first, second


@dataclass(frozen=True)
class CellBasis:
    """Splines and derivatives at every cell, in the frame of the disc. ``index`` is the table row of the first tap, ``sign`` that of a."""

    index: Int[Tensor, "block cell 2"]
    sign: Float[Tensor, "block cell"]
    along: tuple[Tensor, Tensor, Tensor]
    across: tuple[Tensor, Tensor, Tensor]
    major: tuple[Tensor, Tensor]
    minor: tuple[Tensor, Tensor]


def cell_basis(
    position: Float[Tensor, "block cell 2"], step: float, position_angle: Tensor, inclination: Tensor, size: tuple[int, int]
) -> CellBasis:
    """Splines at positions in cycles per arcsec; angles in rad. Derivatives are per (cycle per arcsec) along +a and +b.

    ``size`` is that of the table along a and b: no index leaves it, whatever the angles; a position beyond it has weights that are NaN.

    Raises
    ------
    DomainError
        If the table is smaller than a spline.
    """
    if min(size) < SUPPORT:
        raise DomainError(f"a table of the uv plane must have at least {SUPPORT} rows along each axis, got {size[0]} and {size[1]}")
    sine, cosine, flattening = torch.sin(position_angle), torch.cos(position_angle), torch.cos(inclination)
    major, minor = (sine, cosine), (-cosine * flattening, sine * flattening)
    u, v = position.unbind(-1)
    axes, starts, signs = [], [], []
    for unit, rows in zip((major, minor), size, strict=True):
        coordinate = u * unit[0] + v * unit[1]
        sign = torch.where(coordinate.detach() < 0, -1.0, 1.0).to(position.dtype)
        scaled = coordinate * sign / step
        below = scaled.detach().floor()
        start = below.nan_to_num(0.0).clamp(0.0, float(rows - SUPPORT))
        value, first, second = spline_weights(torch.where(start == below, scaled - start, torch.nan))
        axes.append((value, first * (sign / step).unsqueeze(-1), second / step**2))
        starts.append(start.long())
        signs.append(sign)
    return CellBasis(torch.stack(starts, dim=-1), signs[0], axes[0], axes[1], major, minor)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)


def _combine(
    basis: CellBasis, value: Tensor | None, gradient: tuple[Tensor, Tensor] | None, hessian: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    """Weights of ``value F + g_a F_a + g_b F_b + h_aa F_aa / 2 + h_ab F_ab + h_bb F_bb / 2``, shape (block, cell, 16)."""
    (k, k1, k2), (m, m1, m2) = basis.along, basis.across
    zero = torch.zeros_like(m)
    with_k, with_k1, with_k2 = zero, zero, None
    if value is not None:
        with_k = value.unsqueeze(-1) * m
    if gradient is not None:
        with_k = with_k + gradient[1].unsqueeze(-1) * m1
        with_k1 = gradient[0].unsqueeze(-1) * m
    if hessian is not None:
        with_k = with_k + 0.5 * hessian[2].unsqueeze(-1) * m2
        with_k1 = with_k1 + hessian[1].unsqueeze(-1) * m1
        with_k2 = 0.5 * hessian[0].unsqueeze(-1) * m
    total = _outer(k, with_k) + _outer(k1, with_k1)
    return total if with_k2 is None else total + _outer(k2, with_k2)


def _product(spread: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    uu, uv, vv = spread.unbind(-1)
    return left[0] * right[0] * uu + (left[0] * right[1] + left[1] * right[0]) * uv + left[1] * right[1] * vv


def cell_weights(
    basis: CellBasis, spread: Float[Tensor, "block cell 3"], centre: tuple[Tensor, Tensor], beam_slope: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the interpolation weights, shape (block, cell, 16), phase of the centre's offset not yet applied.

    Parameters
    ----------
    basis
        Splines at the cells.
    spread
        Second central moments, (cycles per arcsec)^2.
    centre
        Offset (x, y) of the dynamical centre from the phase centre, arcsec.
    beam_slope
        Slope of the primary beam's logarithm across the disc, ``q cos i / (2 pi s^2)``, or None without a beam.

    Notes
    -----
    The mean of ``F(u + d) exp(-2 pi i d.X)`` over the cell to second order in d, X being the centre:
    ``F + <dd>:F'' / 2 - 2 pi i <d (d.X)>.F' - 2 pi^2 <(d.X)^2> F``.
    """
    hessian = (
        _product(spread, basis.major, basis.major),
        _product(spread, basis.major, basis.minor),
        _product(spread, basis.minor, basis.minor),
    )
    value = 1.0 - 2.0 * math.pi**2 * _product(spread, centre, centre)
    towards = (-TWO_PI * _product(spread, basis.major, centre), -TWO_PI * _product(spread, basis.minor, centre))
    if beam_slope is not None:
        towards = (towards[0], towards[1] - beam_slope)
    return _combine(basis, value, None, hessian), _combine(basis, None, towards, None)


def derivative_weights(basis: CellBasis, centre: tuple[Tensor, Tensor], order: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Real and imaginary weights of a derivative of ``F exp(-2 pi i u.X)``: ``order`` lists one or two axes, 0 for u and 1 for v."""
    directions = [(basis.major[axis], basis.minor[axis]) for axis in order]
    shape = basis.sign
    if len(order) == 1:
        (major, minor), offset = directions[0], centre[order[0]]
        ones = torch.ones_like(shape)
        return _combine(basis, None, (major * ones, minor * ones), None), _combine(basis, -TWO_PI * offset * ones, None, None)
    (p, q), (x, y) = directions, (centre[order[0]], centre[order[1]])
    ones = torch.ones_like(shape)
    hessian = (2 * p[0] * q[0] * ones, (p[0] * q[1] + p[1] * q[0]) * ones, 2 * p[1] * q[1] * ones)
    value = -4.0 * math.pi**2 * x * y * ones
    gradient = (-TWO_PI * (x * q[0] + y * p[0]) * ones, -TWO_PI * (x * q[1] + y * p[1]) * ones)
    return _combine(basis, value, None, hessian), _combine(basis, None, gradient, None)


def interpolate(
    table: Float[Tensor, "block a b part chan"],
    weights: tuple[Tensor, Tensor],
    basis: CellBasis,
    phase: Float[Tensor, "block cell"],
    stretch: Float[Tensor, "block chan"],
) -> Float[Tensor, "block chan cell part"]:
    """Visibilities at the cells: weighted sum of 16 table entries, turned by ``exp(-i stretch phase)``; last axis real and imaginary.

    Plain torch: works on any device, under vmap and in forward mode.
    """
    rows = table.shape[2]
    tap = torch.arange(SUPPORT, device=table.device)
    index = ((basis.index[..., :1] + tap).unsqueeze(-1) * rows + (basis.index[..., 1:] + tap).unsqueeze(-2)).flatten(-2)
    flat = table.flatten(1, 2).flatten(2)
    gathered = torch.stack([flat[block][index[block]] for block in range(flat.shape[0])])
    chosen = gathered.unflatten(-1, (2, -1))
    real = torch.einsum("bntpc,bnt->bnpc", chosen, weights[0])
    imaginary = torch.einsum("bntpc,bnt->bnpc", chosen, weights[1])
    sign = basis.sign.to(table.dtype).unsqueeze(-1)
    vr = real[:, :, 0] - sign * imaginary[:, :, 1]
    vi = imaginary[:, :, 0] + sign * real[:, :, 1]
    angle = phase.to(torch.float64).unsqueeze(-1) * stretch.unsqueeze(-2)
    c, s = torch.cos(angle).to(table.dtype), torch.sin(angle).to(table.dtype)
    return torch.stack([vr * c + vi * s, vi * c - vr * s], dim=-1).transpose(1, 2)
