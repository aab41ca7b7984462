"""Compiled operators against plain torch: values, both modes of differentiation, vmap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf

from supermage.forward import compiled
from supermage.forward.cube import channel_flux
from supermage.forward.operators import CellGather, DiscTable, LineFlux
from supermage.forward.visibilities import CellBasis, interpolate

BLOCKS, CHANNELS, TAPS, NODES = 2, 7, 4, 300


def lines(seed: int = 1) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.uniform(-100, 100, (BLOCKS, CHANNELS + TAPS - 1)), axis=1)
    taps, first = rng.normal(size=(BLOCKS, CHANNELS, TAPS)), np.arange(CHANNELS)
    matrix = np.zeros((BLOCKS, CHANNELS, edges.shape[1]))
    for channel in range(CHANNELS):
        matrix[:, channel, channel : channel + TAPS] = taps[:, channel]
    node = [rng.uniform(-120, 120, NODES), 1 / rng.uniform(5, 40, NODES), rng.uniform(0, 1, NODES)]
    constants = [torch.tensor(edges, dtype=torch.float32), torch.tensor(first), torch.tensor(taps, dtype=torch.float32)]
    return [torch.tensor(item, dtype=torch.float32) for item in node], constants, torch.tensor(matrix)


def reference(node: list[torch.Tensor], edges: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    velocity, inverse, flux = (item.double() for item in node)
    return channel_flux(edges.double(), matrix, velocity, np.sqrt(0.5) / inverse, flux)


def test_error_function_of_the_compiled_loops() -> None:
    z = np.linspace(-9, 9, 4001).astype(np.float32)
    got = np.array([compiled._error_function(x, compiled._gaussian(x * x)) for x in z])
    assert np.abs(got - erf(z.astype(float))).max() < 2e-6
    assert np.abs(np.array([compiled._gaussian(x * x) for x in z]) - np.exp(-(z.astype(float) ** 2))).max() < 2e-6


def test_lines_and_their_derivatives() -> None:
    node, constants, matrix = lines()
    expected = reference(node, constants[0], matrix)
    assert LineFlux.apply(*node, *constants).numpy() == pytest.approx(expected.numpy(), abs=5e-6)
    leaves = [item.clone().requires_grad_() for item in node]
    doubles = [item.double().requires_grad_() for item in node]
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (LineFlux.apply(*leaves, *constants) * weight).sum().backward()
    (reference(doubles, constants[0], matrix) * weight).sum().backward()
    for got, want in zip(leaves, doubles):
        assert got.grad.numpy() == pytest.approx(want.grad.numpy(), abs=2e-5 * float(want.grad.abs().max()))


def test_forward_mode_is_the_transpose_of_reverse_mode_and_batches() -> None:
    node, constants, _ = lines(2)

    def flux(*items: torch.Tensor) -> torch.Tensor:
        return LineFlux.apply(*items, *constants)

    tangents = tuple(torch.randn(3, NODES, generator=torch.Generator().manual_seed(n)) for n in range(3))

    def along(*directions: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(flux, tuple(node), directions)[1]

    together = torch.func.vmap(along)(*tangents)
    value, pull = torch.func.vjp(flux, *node)
    weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(9))
    pulled = pull(weight)
    for item in range(3):
        single = [t[item] for t in tangents]
        assert together[item].numpy() == pytest.approx(along(*single).numpy())
        there = float((together[item].double() * weight).sum())
        assert there == pytest.approx(float(sum((p.double() * t).sum() for p, t in zip(pulled, single))), rel=1e-3)


def cells(seed: int = 4, reach: float = 1e-3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    rng = np.random.default_rng(seed)
    count = 9
    table = rng.normal(size=(BLOCKS, 12, 8, 2, CHANNELS))
    weights = rng.normal(size=(2, BLOCKS, count, 16))
    phase = rng.normal(size=(BLOCKS, count)) * 5
    index = np.stack([rng.integers(0, 9, (BLOCKS, count)), rng.integers(0, 5, (BLOCKS, count))], axis=-1)
    sign = np.sign(rng.normal(size=(BLOCKS, count)))
    stretch = 1 + reach * rng.normal(size=(BLOCKS, CHANNELS))
    return [torch.tensor(item) for item in (table, *weights, phase)], [torch.tensor(item) for item in (index, sign, stretch)]


@pytest.mark.parametrize("reach", [1e-3, 0.3])
def test_gather_agrees_with_plain_torch(reach: float) -> None:
    variables, (index, sign, stretch) = cells(reach=reach)
    zero = torch.zeros(1, dtype=torch.float64)
    basis = CellBasis(index, sign, (zero, zero, zero), (zero, zero, zero), (zero, zero), (zero, zero))
    plain = interpolate(variables[0], (variables[1], variables[2]), basis, variables[3], stretch)
    assert CellGather.apply(*variables, index, sign, stretch).numpy() == pytest.approx(plain.numpy(), abs=1e-9)


def test_gather_and_table_pass_gradcheck_both_ways() -> None:
    variables, constants = cells()
    inputs = tuple(item.requires_grad_() for item in variables)
    assert torch.autograd.gradcheck(
        lambda *items: CellGather.apply(*items, *constants), inputs, check_forward_ad=True, fast_mode=True
    )
    generator = torch.Generator().manual_seed(5)
    line, across, cosine, sine = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 5, 8), (2, 3, 6, 5), (2, 3, 4, 7), (2, 3, 4, 7))
    )
    assert torch.autograd.gradcheck(
        lambda item: DiscTable.apply(item, across, cosine, sine), (line.requires_grad_(),), check_forward_ad=True
    )


def test_edges_that_no_line_reaches_are_left_out_and_nothing_changes() -> None:
    """Narrow lines, ordered: most edges lie beyond all lines of a tile, on either side. What is not finite is never left out."""
    node, constants, matrix = lines(3)
    node = [torch.sort(node[0]).values, node[1] * 20.0, node[2]]
    sides = [float(compiled._side(np.float32(edge), *compiled._reach(node[0].numpy()[:128], node[1].numpy()[:128], 128)))
             for edge in constants[0].flatten().tolist()]  # fmt: skip
    assert sides.count(1.0) > 3 and 0.0 in sides
    expected = reference(node, constants[0], matrix)
    assert LineFlux.apply(*node, *constants).numpy() == pytest.approx(expected.numpy(), abs=5e-6)
    leaves, doubles = [item.clone().requires_grad_() for item in node], [item.double().requires_grad_() for item in node]
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4))
    (LineFlux.apply(*leaves, *constants) * weight).sum().backward()
    (reference(doubles, constants[0], matrix) * weight).sum().backward()
    for got, want in zip(leaves, doubles):
        assert got.grad.numpy() == pytest.approx(want.grad.numpy(), abs=2e-5 * float(want.grad.abs().max()))
    tangents = tuple(torch.randn(NODES, generator=torch.Generator().manual_seed(n)) for n in range(3))
    moved = torch.func.jvp(lambda *items: LineFlux.apply(*items, *constants), tuple(node), tangents)[1]
    wanted = torch.func.jvp(lambda *items: reference(list(items), constants[0], matrix), tuple(node), tangents)[1]
    assert moved.numpy() == pytest.approx(wanted.numpy(), abs=2e-5 * float(wanted.abs().max()))
    broken = np.where(np.arange(128) == 5, np.nan, 1e6).astype(np.float32)
    assert compiled._side(np.float32(0.0), *compiled._reach(broken, np.ones(128, dtype=np.float32), 128)) == 0.0
