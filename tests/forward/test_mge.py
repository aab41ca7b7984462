"""MGE: published galaxies against adaptive quadrature, and mutations that the numbers must catch."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from astropy import units

from supermage.constants import GRAVITATIONAL_CONSTANT, pc_per_arcsec
from supermage.errors import DomainError
from supermage.forward import velocity
from supermage.forward.mge import MGE

TABLES = Path(__file__).parents[1] / "data" / "mge"
GALAXIES = {"m32": (1.4, 2.5e6, 0.7, 70.0), "ngc3258": (2.68, 2.249e9, 31.3, 49.0)}
double = {"dtype": torch.float64}


def rows(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return list(csv.reader(lines))[1:]


def published(folder: Path, galaxy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Peak (Lsun/pc^2), sigma (arcsec), observed axis ratio."""
    peak, sigma, flattening = np.array([[float(item) for item in row] for row in rows(folder / f"{galaxy}.csv")]).T
    return 10.0**peak, 10.0**sigma if galaxy == "m32" else sigma, flattening


def reference(folder: Path, galaxy: str) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = [(float(radius), float(velocity)) for name, radius, velocity in rows(folder / "circular_velocity.csv") if name == galaxy]
    radius, velocity = torch.tensor(chosen, **double).T
    return radius, velocity


def velocity_error(
    folder: Path, galaxy: str, change: Callable[[np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, ...]] | None = None
) -> float:
    ratio, black_hole, distance, inclination = GALAXIES[galaxy]
    peak, sigma, flattening = published(folder, galaxy)
    if change is not None:
        peak, sigma, flattening = change(peak, sigma, flattening, inclination)
    scale = pc_per_arcsec(distance)
    mge = MGE(*(torch.from_numpy(np.ascontiguousarray(item)) for item in (peak * ratio, sigma * scale, flattening)))
    radius, expected = reference(folder, galaxy)
    got = mge.circular_velocity(radius * scale, inclination=inclination, black_hole_mass=black_hole)
    return float((got / expected - 1).abs().max())


@pytest.mark.parametrize("galaxy", GALAXIES)
def test_published_galaxies(galaxy: str) -> None:
    assert velocity_error(TABLES, galaxy) < 1e-6


@pytest.mark.reference
@pytest.mark.parametrize("galaxy", GALAXIES)
def test_published_galaxies_of_the_reference_folder(galaxy: str, reference_data: Path) -> None:
    assert velocity_error(reference_data / "mge", galaxy) < 1e-6


MUTATIONS = {
    "total luminosity taken for the peak": lambda peak, sigma, q, i: (peak / (2 * np.pi * sigma**2 * q), sigma, q),
    "q in the place of q'": lambda peak, sigma, q, i: (
        peak, sigma, np.sqrt(q**2 - math.cos(math.radians(i)) ** 2) / math.sin(math.radians(i)) * 0.999 + 0.001 * q
    ),
    "sigma^2 for 2 sigma^2": lambda peak, sigma, q, i: (peak, sigma * math.sqrt(2), q),
    "the narrowest Gaussian dropped": lambda peak, sigma, q, i: (peak[1:], sigma[1:], q[1:]),
    "the widest Gaussian dropped": lambda peak, sigma, q, i: (peak[:-1], sigma[:-1], q[:-1]),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations_are_caught(mutation: str) -> None:
    galaxy = "m32"  # every q' stays above cos(i) when it is made smaller
    assert velocity_error(TABLES, galaxy, MUTATIONS[mutation]) > 1e-4


def test_peak_normalisation_by_the_total_mass() -> None:
    """Far away a Gaussian is a point of 2 pi q' sigma^2 times its peak."""
    mge = MGE(torch.tensor([100.0], **double), torch.tensor([3.0], **double), 0.7)
    velocity = mge.circular_velocity(torch.tensor([3e4], **double), inclination=80.0)
    assert velocity.item() ** 2 == pytest.approx(GRAVITATIONAL_CONSTANT * 2 * math.pi * 0.7 * 9.0 * 100.0 / 3e4, rel=1e-6)


def test_surface_density_is_the_sum_of_peaks() -> None:
    mge = MGE(torch.tensor([100.0, -20.0], **double), torch.tensor([3.0, 1.0], **double), 0.7)
    got = mge.surface_density_at(torch.tensor([0.0, 2.0], **double))
    assert got.tolist() == pytest.approx([80.0, 100 * math.exp(-2 / 9) - 20 * math.exp(-2)], rel=1e-14)


def test_black_hole_adds_in_quadrature_and_softens() -> None:
    mge = MGE(torch.tensor([100.0], **double), torch.tensor([3.0], **double), 0.7)
    radius = torch.tensor([0.5, 4.0], **double)
    bare = mge.circular_velocity(radius, inclination=80.0)
    held = mge.circular_velocity(radius, inclination=80.0, black_hole_mass=1e5, softening=0.3)
    expected = GRAVITATIONAL_CONSTANT * 1e5 * radius**2 / (radius**2 + 0.09) ** 1.5
    assert torch.allclose(held**2 - bare**2, expected, rtol=1e-10)


def test_batches_broadcast() -> None:
    peak = torch.tensor([[100.0, 5.0], [40.0, 7.0]], **double)
    flattening = torch.tensor([0.7, 0.9], **double)
    mge = MGE(peak, torch.tensor([3.0, 9.0], **double), flattening[:, None])
    radius = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], **double)
    mass = torch.tensor([0.0, 1e4], **double)
    got = mge.circular_velocity(radius, inclination=torch.tensor([80.0, 85.0], **double), black_hole_mass=mass)
    assert got.shape == (2, 3)
    single = MGE(peak[1], torch.tensor([3.0, 9.0], **double), 0.9).circular_velocity(radius[1], inclination=85.0, black_hole_mass=1e4)
    assert torch.allclose(got[1], single, rtol=1e-13)
    assert mge.surface_density_at(radius[0]).shape == (2, 3)


def test_gradients_are_finite_at_the_centre_and_right_elsewhere() -> None:
    radius = torch.tensor([0.0, 2.0], requires_grad=True, **double)
    peak = torch.tensor([100.0, -10.0], requires_grad=True, **double)
    velocity = MGE(peak, torch.tensor([3.0, 1.0], **double), 0.7).circular_velocity(radius, inclination=80.0)
    velocity.sum().backward()
    assert torch.isfinite(radius.grad).all()
    assert torch.isfinite(peak.grad).all()

    def value(p: torch.Tensor, r: torch.Tensor, q: torch.Tensor, inclination: torch.Tensor) -> torch.Tensor:
        return MGE(p, torch.tensor([3.0, 1.0], **double), q).circular_velocity(r, inclination=inclination, black_hole_mass=1e4)

    arguments = [torch.tensor(item, requires_grad=True, **double) for item in ([100.0, -10.0], [0.4, 2.0], [0.7, 0.8], 80.0)]
    assert torch.autograd.gradcheck(value, arguments, rtol=1e-5)


def test_mass_to_light_of_a_power_law() -> None:
    """Light of slope 1, ratio falling as R^-0.3: mass of slope 1.3, its factor in closed form."""
    sigma = torch.logspace(-6, 10, 600, **double)
    light = MGE(1.0 / sigma, sigma, 0.8)
    mass = light.with_mass_to_light(2.5, gradient=0.3, radius=7.0)
    radius = torch.tensor([0.5, 7.0, 90.0], **double)
    ratio = mass.surface_density_at(radius) / light.surface_density_at(radius)
    factor = 2.5 * 2.0**0.15 * math.gamma(0.65) / math.gamma(0.5)
    assert ratio.tolist() == pytest.approx([factor * (r / 7.0) ** -0.3 for r in (0.5, 7.0, 90.0)], rel=1e-6)
    constant = light.with_mass_to_light(2.5)
    speeds = [item.circular_velocity(radius, inclination=80.0) for item in (constant, light)]
    assert torch.allclose(speeds[0] ** 2, 2.5 * speeds[1] ** 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio must be positive and finite"),
        ({"ratio": 1.0, "gradient": math.nan}, "gradient must be finite, got nan"),
        ({"ratio": 1.0, "radius": -1.0}, "radius must be positive and finite"),
    ],
)
def test_bad_mass_to_light_is_refused(options: dict[str, float], message: str) -> None:
    mge = MGE(torch.tensor([100.0], **double), torch.tensor([3.0], **double), 0.7)
    with pytest.raises(DomainError, match=message):
        mge.with_mass_to_light(**options)


def test_no_circular_orbit_is_nan() -> None:
    mge = MGE(torch.tensor([100.0, -99.0], **double), torch.tensor([3.0, 0.3], **double), 0.9)
    assert torch.isnan(mge.circular_velocity(torch.tensor([0.1], **double), inclination=80.0)).all()


def test_works_under_vmap() -> None:
    def value(peak: torch.Tensor) -> torch.Tensor:
        return MGE(peak, torch.tensor([3.0, 9.0], **double), 0.7).circular_velocity(torch.tensor([1.0], **double), inclination=80.0)

    peaks = torch.tensor([[100.0, 5.0], [40.0, 7.0]], **double)
    assert torch.allclose(torch.func.vmap(value)(peaks)[1], value(peaks[1]))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0.3,), {"inclination": 70.0}, r"observed_axis_ratio must exceed cos\(inclination\).*got 0.3"),
        ((0.7,), {"inclination": 95.0}, r"inclination must lie in \(0, 90\] deg, got 95"),
        ((0.7,), {"inclination": 0.0}, r"inclination must lie in \(0, 90\] deg, got 0"),
        ((0.7,), {"inclination": 80.0, "black_hole_mass": -1.0}, "black_hole_mass must be finite and not negative"),
        ((0.7,), {"inclination": 80.0, "softening": -1.0}, "softening must be finite and not negative"),
    ],
)
def test_bad_geometry_is_refused(arguments: tuple[float], options: dict[str, float], message: str) -> None:
    mge = MGE(torch.tensor([100.0], **double), torch.tensor([3.0], **double), *arguments)
    with pytest.raises(DomainError, match=message):
        mge.circular_velocity(torch.tensor([1.0], **double), **options)


@pytest.mark.parametrize(
    ("peak", "sigma", "flattening", "message"),
    [(float("inf"), 1.0, 0.7, "surface_density must be finite"), (1.0, 0.0, 0.7, "sigma must be positive"),
     (1.0, 1.0, 1.1, r"observed_axis_ratio must lie in \(0, 1\]: oblate or round, not prolate, got 1.1")],
)
def test_bad_gaussians_are_refused(peak: float, sigma: float, flattening: float, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        MGE(torch.tensor([peak], **double), torch.tensor([sigma], **double), flattening)


@pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf])
def test_radii_that_are_none_are_refused(radius: float) -> None:
    mge = MGE(torch.tensor([100.0], **double), torch.tensor([3.0], **double), 0.7)
    for call in (mge.surface_density_at, lambda r: mge.circular_velocity(r, inclination=80.0)):
        with pytest.raises(DomainError, match=r"radius must be finite and not negative \(pc\), got "):
            call(torch.tensor([1.0, radius], **double))


def test_a_shape_that_could_mean_two_things_is_refused() -> None:
    peak, width, q = torch.ones(2, 2, **double), torch.tensor([1.0, 10.0], **double), torch.tensor([0.4, 0.9], **double)
    with pytest.raises(DomainError, match=r"q\[:, None\] the batch's, q\[None\] the Gaussians', got shape \(2,\) for .*\(2, 2\)$"):
        MGE(peak, width, q)
    assert MGE(peak, width, q[:, None]).observed_axis_ratio.tolist() == [[0.4, 0.4], [0.9, 0.9]]
    assert MGE(peak, width, q[None]).observed_axis_ratio.tolist() == [[0.4, 0.9], [0.4, 0.9]]
    three = torch.ones(3, 2, **double)
    assert MGE(three, width, torch.tensor([0.3, 0.5, 0.7], **double)).observed_axis_ratio[:, 1].tolist() == [0.3, 0.5, 0.7]
    assert MGE(three, width, q).observed_axis_ratio[2].tolist() == [0.4, 0.9]
    assert MGE(torch.ones(1, 1, **double), width[:1], q[:1]).observed_axis_ratio.tolist() == [[0.4]]


def test_shapes_that_clash_are_one_line() -> None:
    with pytest.raises(DomainError, match=r"^shapes must go together, got surface_density \(3,\), sigma \(2,\), observed_axis"):
        MGE(torch.ones(3, **double), torch.ones(2, **double), 0.5)
    mge = MGE(torch.ones(3, 2, **double), torch.ones(2, **double), 0.5)
    with pytest.raises(DomainError, match=r"^shapes must go together, got Gaussians \(3,\), inclination \(2,\)$"):
        mge.circular_velocity(1.0, inclination=torch.tensor([70.0, 80.0], **double))


def test_quantities_are_converted() -> None:
    peak, width, radius = torch.tensor([100.0, 5.0], **double), torch.tensor([3.0, 900.0], **double), torch.tensor([1.0, 400.0], **double)
    plain = MGE(peak, width, 0.7)
    got = MGE(peak.numpy() * 1e6 * units.Msun / units.kpc**2, width.numpy() * 1e-3 * units.kpc, 0.7 * units.one)
    assert torch.allclose(got.sigma, plain.sigma) and torch.allclose(got.surface_density, plain.surface_density)
    speed = got.circular_velocity(
        radius.numpy() / 1e3 * units.kpc, inclination=1.4 * units.rad, black_hole_mass=2e36 * units.kg, softening=0.002 * units.kpc
    )
    mass = float((2e36 * units.kg).to_value("solMass"))
    expected = plain.circular_velocity(radius, inclination=math.degrees(1.4), black_hole_mass=mass, softening=2.0)
    assert torch.allclose(speed, expected, rtol=1e-12)
    assert torch.allclose(got.surface_density_at(0.4 * units.kpc), plain.surface_density_at(400.0))
    light = plain.with_mass_to_light(2.0 * units.Msun / units.Lsun, radius=1.0 * units.kpc, gradient=0.2)
    assert torch.allclose(light.surface_density, plain.with_mass_to_light(2.0, radius=1000.0, gradient=0.2).surface_density)
    with pytest.raises(DomainError, match=r"a quantity must convert to pc, got 5.0 arcsec$"):
        plain.surface_density_at(5.0 * units.arcsec)
    with pytest.raises(DomainError, match=r"a quantity must convert to a pure number, got 0.7 pc$"):
        MGE(peak, width, 0.7 * units.pc)


def test_many_profiles_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more nodes at once than a million, and the same velocities and gradients as at once."""
    peak = torch.linspace(1.0, 9.0, 12, **double).reshape(3, 4).requires_grad_()
    width, q = torch.logspace(0.0, 2.0, 4, **double), torch.tensor([0.5, 0.7, 0.9], **double)
    radius = torch.logspace(-1.0, 3.0, 11, **double)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        speed = MGE(peak, width, q).circular_velocity(radius, inclination=75.0)
        return speed.detach(), torch.autograd.grad(speed.sum(), peak)[0]

    at_once, sizes = run(), []
    monkeypatch.setattr(velocity, "AT_A_TIME", 7)
    kernel = velocity.gaussian_kernel
    monkeypatch.setattr(velocity, "gaussian_kernel", lambda x, q: sizes.append(x.numel()) or kernel(x, q))
    in_parts = run()
    assert max(sizes) == 7 and sum(sizes) == 3 * 11 * 4
    assert all(torch.allclose(a, b, rtol=1e-14) for a, b in zip(at_once, in_parts, strict=True))
    mapped = torch.func.vmap(lambda p: MGE(p, width, 0.5).circular_velocity(radius, inclination=75.0))(peak.detach())
    assert torch.allclose(mapped[0], in_parts[0][0], rtol=1e-14)



JAMPYS_CONSTANT = 0.004301
"""Its rounded constant of gravity, (km/s)^2 pc/Msun: 1e-5 in velocity from ours."""


def jampys_circular_velocity() -> Callable[..., np.ndarray]:
    """`jampy.mge.mge_vcirc`, its file loaded by path: the package itself does not import on Python 3.11."""
    folder = Path(str(distribution("jampy").locate_file("jampy")))
    stubs = {name: ModuleType(name) for name in ("jampy", "jampy.util", "jampy.util.quad1d")}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stubs.items():
            patch.setitem(sys.modules, name, module)
        for name, path in (("jampy.util.quad1d", "util/quad1d.py"), ("oracle", "mge/mge_vcirc.py")):
            spec = spec_from_file_location(name, folder / path)
            assert spec is not None
            assert spec.loader is not None
            module = module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        return module.mge_vcirc


@pytest.mark.parametrize("inclination", [61.0, 84.0, 90.0])
def test_jampy_agrees(inclination: float) -> None:
    """Gaussians 1e6 apart in width, signed, flat and round, with a black hole; beyond the widest jampy itself is good to 2e-5 only."""
    rng = np.random.default_rng(4)
    sigma = 10.0 ** rng.uniform(-3, 3, 9)
    peak = 10.0 ** rng.uniform(-1, 1, 9) / sigma * np.where(rng.random(9) < 0.25, -0.1, 1.0)
    flattening = rng.uniform(0.55, 1.0, 9)
    radius, scale = np.geomspace(1e-5, 1e3, 45), pc_per_arcsec(11.4)
    expected = jampys_circular_velocity()(peak, sigma, flattening, inclination, 1e5, 11.4, radius)
    mge = MGE(*(torch.from_numpy(item) for item in (peak, sigma * scale, flattening)))
    got = mge.circular_velocity(torch.from_numpy(radius * scale), inclination=inclination, black_hole_mass=1e5)
    assert got.numpy() == pytest.approx(expected * math.sqrt(GRAVITATIONAL_CONSTANT / JAMPYS_CONSTANT), rel=1e-6)
