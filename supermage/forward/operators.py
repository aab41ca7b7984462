"""Differentiable operators around the compiled loops: reverse mode, forward mode and vmap.

Each is a ``torch.autograd.Function`` whose backward and jvp are operators too, so that ``torch.func`` transforms compose.
A batch is one node of the graph: its items run in a loop that no graph sees, for the gradient of each item's slice would be as large
as the whole batch.
"""

# ruff: noqa: D102 - the methods are those that torch.autograd.Function asks for

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from supermage.forward import compiled


def _batched(
    function: Any, info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...], ranks: tuple[int, ...]
) -> tuple[Any, Any]:
    """Call a Function once with a leading axis for the batch on what varies; within another batch once per item, and stack.

    ``ranks`` are the numbers of axes that the arguments have by themselves, negative for constants, which need no gradient.
    """
    size = info.batch_size
    single = [argument if dim is None else argument.select(dim, 0) for argument, dim in zip(arguments, in_dims)]
    if any(item.ndim != abs(rank) for item, rank in zip(single, ranks)):
        items = ([a if dim is None else a.select(dim, item) for a, dim in zip(arguments, in_dims)] for item in range(size))
        rows = [function.apply(*chosen) for chosen in items]
        if isinstance(rows[0], tuple):
            return tuple(torch.stack(column) for column in zip(*rows)), (0,) * len(rows[0])
        return torch.stack(rows), 0
    first = [argument.movedim(dim, 0) if dim is not None else argument if rank < 0 else argument.expand(size, *argument.shape)
             for argument, dim, rank in zip(arguments, in_dims, ranks)]  # fmt: skip
    found = function.apply(*first)
    return found, (0,) * len(found) if isinstance(found, tuple) else 0


def _each(run: Any, ranks: tuple[int, ...], arguments: tuple[Tensor, ...]) -> Any:
    """What ``run`` gives for arguments, or for each item of a batch, stacked."""
    size = next((len(argument) for argument, rank in zip(arguments, ranks) if argument.ndim > abs(rank)), None)
    if size is None:
        return run(*arguments)
    rows = [run(*(a[item] if a.ndim > abs(rank) else a for a, rank in zip(arguments, ranks))) for item in range(size)]
    return tuple(torch.stack(column) for column in zip(*rows)) if isinstance(rows[0], tuple) else torch.stack(rows)


def _numpy(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


_LINES = (1, 1, 1, -2, -1, -3)
_GATHER = (5, 3, 3, 2, -3, -2, -2)
_TABLE = (-4, -4, -4)


class LineFlux(torch.autograd.Function):
    """Flux density (block, chan, node) of Gaussian lines.

    Arguments: velocity, 1 / (sqrt 2 deviation), flux, all (node,); then edges, first, taps.
    """

    @staticmethod
    def forward(*arguments: Tensor) -> Tensor:
        def run(velocity: Tensor, inverse: Tensor, flux: Tensor, edges: Tensor, first: Tensor, taps: Tensor) -> Tensor:
            out = torch.empty((edges.shape[0], first.shape[0], velocity.shape[0]), dtype=torch.float32)
            compiled.lines_forward(*_numpy(edges, first, taps, velocity, inverse, flux), out.numpy())
            return out

        return torch.as_tensor(_each(run, _LINES, arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:
        if gradient is None:
            return (None,) * 6
        return (*LineFluxAdjoint.apply(gradient, *ctx.saved_tensors), None, None, None)

    @staticmethod
    def jvp(ctx: Any, d_velocity: Any, d_inverse: Any, d_flux: Any, *_: Any) -> Any:
        velocity, inverse, flux, *constants = ctx.saved_tensors
        tangents = [torch.zeros_like(a) if t is None else t for a, t in zip((velocity, inverse, flux), (d_velocity, d_inverse, d_flux))]
        return LineFluxTangent.apply(*tangents, velocity, inverse, flux, *constants)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(LineFlux, info, in_dims, arguments, _LINES)


class LineFluxAdjoint(torch.autograd.Function):
    """Reverse mode of :class:`LineFlux`."""

    @staticmethod
    def forward(*arguments: Tensor) -> Any:
        def run(gradient: Tensor, velocity: Tensor, inverse: Tensor, flux: Tensor, edges: Tensor, first: Tensor, taps: Tensor) -> Any:
            out = [torch.zeros_like(velocity, memory_format=torch.contiguous_format) for _ in range(3)]
            lines = _numpy(edges, first, taps, velocity, inverse, flux, gradient)
            compiled.lines_adjoint(*lines, *(item.numpy() for item in out))
            return tuple(out)

        return _each(run, (3, *_LINES), arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(LineFluxAdjoint, info, in_dims, arguments, (3, *_LINES))


class LineFluxTangent(torch.autograd.Function):
    """Forward mode of :class:`LineFlux`."""

    @staticmethod
    def forward(*arguments: Tensor) -> Tensor:
        def run(*items: Tensor) -> Tensor:
            d_velocity, d_inverse, d_flux, velocity, inverse, flux, edges, first, taps = items
            out = torch.empty((edges.shape[0], first.shape[0], velocity.shape[0]), dtype=torch.float32)
            lines = _numpy(edges, first, taps, velocity, inverse, flux, d_velocity, d_inverse, d_flux)
            compiled.lines_tangent(*lines, out.numpy())
            return out

        return torch.as_tensor(_each(run, (1, 1, 1, *_LINES), arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(LineFluxTangent, info, in_dims, arguments, (1, 1, 1, *_LINES))


class CellGather(torch.autograd.Function):
    """Visibilities (block, chan, cell, part) from the table: table, real and imaginary weights, phase; then index, sign, stretch.

    The phase of the centre, ``exp(-i stretch phase)``, is applied inside.
    """

    @staticmethod
    def forward(*arguments: Tensor) -> Tensor:
        def run(table: Tensor, real: Tensor, imaginary: Tensor, phase: Tensor, index: Tensor, sign: Tensor, stretch: Tensor) -> Tensor:
            out = torch.empty((*stretch.shape, index.shape[1], 2), dtype=table.dtype)
            compiled.gather_forward(*_numpy(table, real, imaginary, phase, index, sign, stretch), out.numpy())
            return out

        return torch.as_tensor(_each(run, _GATHER, arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:
        if gradient is None:
            return (None,) * 7
        return (*CellGatherAdjoint.apply(gradient, *ctx.saved_tensors), None, None, None)

    @staticmethod
    def jvp(ctx: Any, d_table: Any, d_real: Any, d_imaginary: Any, d_phase: Any, *_: Any) -> Any:
        table, real, imaginary, phase, index, sign, stretch, value = ctx.saved_tensors
        tangent = torch.zeros_like(value)
        if d_table is not None:
            tangent = tangent + CellGather.apply(d_table, real, imaginary, phase, index, sign, stretch)
        if d_real is not None or d_imaginary is not None:
            d_real = torch.zeros_like(real) if d_real is None else d_real
            d_imaginary = torch.zeros_like(imaginary) if d_imaginary is None else d_imaginary
            tangent = tangent + CellGather.apply(table, d_real, d_imaginary, phase, index, sign, stretch)
        if d_phase is not None:
            turn = (stretch.unsqueeze(-1) * d_phase.unsqueeze(-2)).to(value.dtype)
            tangent = tangent + torch.stack([turn * value[..., 1], -turn * value[..., 0]], dim=-1)
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(CellGather, info, in_dims, arguments, _GATHER)


class CellGatherAdjoint(torch.autograd.Function):
    """Reverse mode of :class:`CellGather`."""

    @staticmethod
    def forward(*arguments: Tensor) -> Any:
        def run(gradient: Tensor, *items: Tensor) -> Any:
            out = [torch.zeros_like(item, memory_format=torch.contiguous_format) for item in items[:4]]
            compiled.gather_adjoint(*_numpy(*items, gradient), *(item.numpy() for item in out))
            return tuple(out)

        return _each(run, (4, *_GATHER, 4), arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(CellGatherAdjoint, info, in_dims, arguments, (4, *_GATHER, 4))


class DiscTable(torch.autograd.Function):
    """Linear map from the nodes' line fluxes (block, chan, y, side*x) to the table of F (block, a, b, part, chan).

    Arguments: line, then the cosines across (block, chan, b, y), and cosines and negative sines along (block, chan, x, a). Any device.
    """

    @staticmethod
    def forward(line: Tensor, across: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        receding, approaching = torch.matmul(across, line).chunk(2, dim=-1)
        table = line.new_empty((*line.shape[:-3], cosine.shape[-1], across.shape[-2], 2, line.shape[-3]))
        table[..., 0, :] = torch.matmul(receding + approaching, cosine).transpose(-1, -3)
        table[..., 1, :] = torch.matmul(receding - approaching, sine).transpose(-1, -3)
        return table

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:
        if gradient is None:
            return (None,) * 4
        return DiscTableAdjoint.apply(gradient, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, d_line: Tensor, *_: Any) -> Any:
        return DiscTable.apply(d_line, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(DiscTable, info, in_dims, arguments, (4, *_TABLE))


class DiscTableAdjoint(torch.autograd.Function):
    """Transpose of :class:`DiscTable`."""

    @staticmethod
    def forward(gradient: Tensor, across: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        real, imaginary = gradient.movedim(-2, 0).transpose(-1, -3).contiguous()
        even = torch.matmul(real, cosine.mT)
        odd = torch.matmul(imaginary, sine.mT)
        return torch.matmul(across.mT, torch.cat([even + odd, even - odd], dim=-1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        return _batched(DiscTableAdjoint, info, in_dims, arguments, (5, *_TABLE))
