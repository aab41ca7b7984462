"""The maps from Nuker profiles to Gaussians: one contract for the emulator and the exact solve, held against direct deprojection."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from astropy import units
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.errors import DomainError
from supermage.forward.deprojection import NukerDeprojection, nuker_circular_velocity
from supermage.forward.nuker import Nuker, as_float_tensor
from supermage.models.mge_rows import EnclosedMass, mass_radii
from supermage.models.nuker_errors import corners, draw_profiles, measure
from supermage.models.nuker_mge import BOX, NukerMGE, NukerSolve, clamp_to_box
from supermage.models.registry import load_model

NAMES = ("nuker-mge", "nuker-mge-step", "nuker-mge-solve")
SHAPES = [(0.1, 0.301, 0.001), (0.1, 4.2, 1.2), (10.0, 4.2, 1.2), (10.0, 3.001, 0.001), (2.0, 2.0, 0.8)]
double = {"dtype": torch.float64}


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> NukerMGE:
    return load_model(request.param)


def triple(*shape: float) -> list[torch.Tensor]:
    return [torch.tensor(item, **double) for item in shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_enclosed_mass_is_the_abel_mass(shape: tuple[float, float, float]) -> None:
    radius = mass_radii()
    got = EnclosedMass(radius)(*triple(*shape)).numpy()
    assert got == pytest.approx(NukerDeprojection(*shape).enclosed_mass(radius.numpy()), rel=1e-8)


def test_errors_over_the_box(model: NukerMGE) -> None:
    """A small sample of the card's table; the whole one is `benchmarks/emulator.py`."""
    table = measure(model, profiles=40, seed=3)
    for group in ("random", "corners", "faces"):
        entry = table[group]
        assert entry["surface_density"]["max"] < 2e-3
        assert entry["not_positive"] == 0
        for q in ("1", "0.3", "0.1"):
            assert entry[f"velocity_q{q}"]["max"] < 3e-3
    for kind in ("density", "velocity"):
        assert table["random"][f"gradient_{kind}"]["max"] < 0.03
    assert table["random"]["surface_density"]["median"] < 3e-4
    assert table["random"]["velocity_q1"]["median"] < 1e-4


def test_velocity_in_physical_units(model: NukerMGE) -> None:
    profile = (2.0, 2.0, 0.8, 83.0, 10.0**4.35)
    inclination, q = 76.0, 0.6
    observed = float(np.hypot(q * np.sin(np.radians(inclination)), np.cos(np.radians(inclination))))
    radius = np.geomspace(2.0, 5000.0, 30)
    got = model(*profile, observed).circular_velocity(torch.from_numpy(radius), inclination=inclination).numpy()
    expected = nuker_circular_velocity(radius, Nuker(*profile), intrinsic_axis_ratio=q, inclination=inclination)
    assert got == pytest.approx(expected, rel=1e-3)
    density = model(*profile, observed).surface_density_at(torch.from_numpy(radius))
    assert torch.allclose(density, Nuker(*profile).surface_density_at(torch.from_numpy(radius)), rtol=3e-3)


def test_scale_free(model: NukerMGE) -> None:
    """Twice the break radius and thrice the density: the same curve, stretched."""
    radius = torch.tensor([10.0, 100.0, 1000.0], **double)
    one = model(1.7, 2.3, 0.4, 50.0, 100.0, 0.8)
    other = model(1.7, 2.3, 0.4, 100.0, 300.0, 0.8)
    assert torch.allclose(other.surface_density_at(2 * radius), 3 * one.surface_density_at(radius), rtol=1e-9)
    squared = [item.circular_velocity(at, inclination=70.0) ** 2 for item, at in ((one, radius), (other, 2 * radius))]
    assert torch.allclose(squared[1], 6 * squared[0], rtol=1e-9)


def test_gradients_are_those_of_the_profile(model: NukerMGE) -> None:
    """d ln Sigma / d parameter of the Gaussians against the Nuker profile's own."""
    radius = torch.tensor([0.05, 0.5, 1.0, 3.0, 50.0], **double)
    design = torch.exp(-0.5 * (radius[:, None] / model.width_ratio) ** 2)

    def of_model(*shape: torch.Tensor) -> torch.Tensor:
        return torch.log(design @ model.weights(*shape))

    def of_profile(*shape: torch.Tensor) -> torch.Tensor:
        return torch.log(Nuker(*shape, 1.0, 1.0).surface_density_at(radius))

    shape = triple(1.6, 1.9, 0.7)
    got = torch.stack(torch.func.jacfwd(of_model, argnums=(0, 1, 2))(*shape))
    expected = torch.stack(torch.func.jacfwd(of_profile, argnums=(0, 1, 2))(*shape))
    assert torch.allclose(got, expected, atol=0.01 * expected.abs().max().item())
    reverse = torch.stack(torch.func.jacrev(of_model, argnums=(0, 1, 2))(*shape))
    assert torch.allclose(got, reverse, rtol=1e-6, atol=1e-8)


def test_batches_and_precisions_agree(model: NukerMGE) -> None:
    shapes = torch.tensor([[0.5, 1.2, 0.3], [2.0, 2.0, 0.8], [9.0, 3.9, 1.1]], **double)
    together = model.weights(*shapes.T)
    assert together.shape == (3, model.width_ratio.numel())
    radius = torch.logspace(-3, 3, 60, **double)
    design = torch.exp(-0.5 * (radius[:, None] / model.width_ratio) ** 2)
    density = together @ design.T
    for k in range(3):
        assert torch.allclose(design @ model.weights(*shapes[k]), density[k], rtol=1e-8)
    assert torch.allclose(torch.func.vmap(model.weights)(*shapes.T) @ design.T, density, rtol=1e-8)
    single = model.weights(*shapes.float().T)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double() @ design.T, density, rtol=1e-4)


def test_batched_call_gives_a_batched_mge(model: NukerMGE) -> None:
    mge = model(torch.tensor([[2.0], [3.0]], **double), 2.0, 0.8, torch.tensor([50.0, 100.0, 200.0], **double), 1e3, 0.7)
    assert mge.surface_density.shape == (2, 3, model.width_ratio.numel())
    density = mge.surface_density_at(torch.tensor([50.0, 100.0], **double))
    assert density.shape == (2, 3, 2)
    assert density[1, 0, 0].item() == pytest.approx(1e3, rel=3e-3)


GOOD = {"alpha": 2.0, "beta": 2.0, "gamma": 0.8, "break_radius": 50.0, "surface_density": 1e3, "observed_axis_ratio": 0.7}
OUTSIDE = {
    "alpha must lie in [0.1, 10]": {"alpha": 10.0 * (1 + 1e-8)},
    "alpha must lie in [0.1, 10], ": {"alpha": 0.0999},
    "gamma must lie in [0.001, 1.2]": {"gamma": 1.25},
    "beta - gamma must lie in [0.3, 3]": {"beta": 1.0},
    "break_radius must lie in [2, 2000] pc": {"break_radius": 1.9},
    "break_radius must lie in [2, 2000] pc, ": {"break_radius": 2000.1},
    "surface_density must be positive": {"surface_density": 0.0},
    "observed_axis_ratio must lie in (0, 1]": {"observed_axis_ratio": 1.2},
    "gamma must lie in [0.001, 1.2], ": {"gamma": float("nan")},
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_outside_the_box_is_refused(model: NukerMGE, message: str) -> None:
    with pytest.raises(DomainError) as caught:
        model(**{**GOOD, **OUTSIDE[message]})
    assert message in str(caught.value)
    assert ", got " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_edges_belong_to_the_box(model: NukerMGE) -> None:
    for alpha, beta, gamma, scale in corners():
        for nudge in (1 - 5e-10, 1.0, 1 + 5e-10):
            mge = model(alpha * nudge, gamma + (beta - gamma) * nudge, gamma, scale * nudge, 1.0, 1.0)
            assert torch.isfinite(mge.surface_density).all()
        single = [torch.tensor(item) for item in (alpha, beta, gamma, scale)]
        assert torch.isfinite(model(*single, 1.0, 1.0).surface_density).all()
    shape = [torch.tensor(item, requires_grad=True, **double) for item in (10.0, 4.2, 1.2)]
    gradients = torch.autograd.grad(model(*shape, 100.0, 1.0, 0.9).surface_density.sum(), shape)
    assert all(item.abs() > 0 for item in gradients)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(BOX)), st.floats(0, 1))
def test_clamping_changes_nothing_inside(name: str, fraction: float) -> None:
    lower, upper = BOX[name]
    value = torch.tensor(lower + fraction * (upper - lower), **double)
    assert clamp_to_box(name, value).item() == pytest.approx(value.item(), rel=1e-12)


def test_the_emulator_is_quick() -> None:
    emulator = load_model("nuker-mge")
    shape = triple(2.0, 2.0, 0.8)
    with torch.no_grad():
        best = min(_seconds(lambda: emulator.weights(*shape)) for _ in range(20))
    assert best < 3e-3  # 0.2 ms without the tests' type checks


def _seconds(call: object) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_test_profiles_lie_in_the_box_and_are_seeded() -> None:
    drawn = draw_profiles(100, 5)
    assert {key: len(value) for key, value in drawn.items()} == {"random": 100, "corners": 16, "faces": 25}
    for shapes in drawn.values():
        for column, name in ((shapes[:, 0], "alpha"), (shapes[:, 2], "gamma"), (shapes[:, 1] - shapes[:, 2], "beta - gamma"),
                             (shapes[:, 3], "break_radius")):
            lower, upper = BOX[name]
            assert (column >= lower * (1 - 1e-12)).all()
            assert (column <= upper * (1 + 1e-12)).all()
    assert np.array_equal(draw_profiles(100, 5)["faces"], drawn["faces"])


def test_a_dropped_gaussian_is_noticed() -> None:
    solve = NukerSolve()
    weights = solve.weights

    def without(alpha: torch.Tensor, beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        found = weights(alpha, beta, gamma).clone()
        found[..., 50] = 0.0
        return found

    solve.weights = without
    assert measure(solve, profiles=8)["random"]["surface_density"]["median"] > 0.01


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_the_ridge_is_positive(ridge: float) -> None:
    with pytest.raises(DomainError, match="ridge must be positive"):
        NukerSolve(ridge=ridge)


@pytest.mark.parametrize("wrong", ["2", None, 1j])
def test_what_is_no_number_is_refused_in_one_line(wrong: object) -> None:
    """Past the check of types, which only tests have."""
    with pytest.raises(DomainError, match=rf"^a quantity must be a number or a tensor of numbers, got {wrong!r}$"):
        as_float_tensor.__wrapped__(wrong)


def test_quantities_are_converted_or_refused(model: NukerMGE) -> None:
    """83 kpc is not 83 pc."""
    got = model(2.0, 2.0, 0.8, 0.083 * units.kpc, 2.2e10 * units.Msun / units.kpc**2, 0.65)
    plain = model(2.0, 2.0, 0.8, 83.0, 2.2e4, 0.65)
    assert torch.allclose(got.sigma, plain.sigma) and torch.allclose(got.surface_density, plain.surface_density)
    with pytest.raises(DomainError, match=r"break_radius must lie in \[2, 2000\] pc, .*got 83000"):
        model(2.0, 2.0, 0.8, 83.0 * units.kpc, 2.2e4, 0.65)
    with pytest.raises(DomainError, match=r"a quantity must convert to pc, got 83.0 km / s$"):
        model(2.0, 2.0, 0.8, 83.0 * units.km / units.s, 2.2e4, 0.65)


def test_shapes_that_clash_are_one_line(model: NukerMGE) -> None:
    with pytest.raises(DomainError, match=r"^shapes must go together, got alpha \(2,\), beta \(3,\)$"):
        model(torch.full((2,), 2.0), torch.full((3,), 2.0), 0.8, 83.0, 1e4, 0.6)


def test_weights_are_double_whatever_goes_in(model: NukerMGE) -> None:
    """Signed weights of single precision would cancel to a thousandth of the velocity; what is left is the arguments' own rounding."""
    radius = torch.logspace(0.4, 3.6, 20)
    for shape in ((10.0, 2.9, 0.01, 300.0), (0.11, 4.0, 1.1, 3.0), (9.0, 1.5, 0.2, 50.0)):
        single = model(*(torch.tensor(item) for item in (*shape, 1e3)), torch.tensor(0.5))
        rounded = model(*(torch.tensor(item).double() for item in (*shape, 1e3)), torch.tensor(0.5).double())
        assert single.surface_density.dtype == torch.float64
        speeds = [mge.circular_velocity(radius, inclination=80.0) for mge in (single, rounded)]
        assert torch.allclose(*speeds, rtol=1e-9)
        exact = model(*shape, 1e3, 0.5).circular_velocity(radius.double(), inclination=80.0)
        assert torch.allclose(speeds[0], exact, rtol=2e-5)
