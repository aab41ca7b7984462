"""Mass inside spheres and circles against closed forms, direct integration, the Nuker profile's own masses, and far orbits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError
from supermage.forward.deprojection import NukerDeprojection
from supermage.forward.enclosed_mass import UnitMass, mass_in_circle, mass_in_sphere, share_in_circle, share_in_sphere
from supermage.forward.mass_model import MassModel
from supermage.forward.mge import MGE
from supermage.forward.nuker import Nuker
from supermage.models.registry import load_model


def real(value: object) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def closed_form(x: float, q: float) -> float:
    """Share inside a sphere with 60 digits, which its cancellation leaves enough of."""
    with mpmath.workdps(60):
        ratio, flat = mpmath.mpf(x), mpmath.mpf(q)
        if q == 1.0:
            return float(mpmath.erf(ratio / mpmath.sqrt(2)) - mpmath.sqrt(2 / mpmath.pi) * ratio * mpmath.exp(-(ratio**2) / 2))
        e = mpmath.sqrt(1 - flat**2)
        far = ratio / (flat * mpmath.sqrt(2))
        return float(mpmath.erf(far) - mpmath.exp(-(ratio**2) / 2) / e * mpmath.erf(far * e))


@pytest.mark.parametrize("q", [0.05, 0.2, 0.7, 0.999999, 1.0])
def test_sphere_is_the_closed_form(q: float) -> None:
    ratio = np.logspace(-4, 3, 29)
    found = share_in_sphere(torch.from_numpy(ratio), real(q)).numpy()
    assert found == pytest.approx([closed_form(x, q) for x in ratio], rel=1e-12, abs=0.0)


@pytest.mark.parametrize(("x", "q"), [(0.3, 0.4), (1.5, 0.15), (3.0, 0.8)])
def test_sphere_is_the_density_summed_up(x: float, q: float) -> None:
    """The deprojected Gaussian, integrated in cylindrical coordinates by scipy."""

    def density(radius: float, z: float) -> float:
        return 2 * math.pi * radius * math.exp(-0.5 * (radius**2 + (z / q) ** 2)) / (q * (2 * math.pi) ** 1.5)

    expected, _ = integrate.dblquad(density, -x, x, 0.0, lambda z: math.sqrt(x**2 - z**2), epsabs=1e-13, epsrel=1e-11)
    assert float(share_in_sphere(real(x), real(q))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("x", "q"), [(0.01, 0.3), (0.4, 0.05), (2.0, 0.6), (6.0, 0.05), (1.0, 1.0)])
def test_circle_is_the_surface_density_summed_up(x: float, q: float) -> None:
    def density(y: float, across: float) -> float:
        return math.exp(-0.5 * (across**2 + (y / q) ** 2)) / (2 * math.pi * q)

    edge = min(x, 9.0 * q)
    inside = [integrate.quad(lambda y: density(y, 0.0) * _slice(math.sqrt(x**2 - y**2)), -edge, edge, epsabs=0, epsrel=1e-12)[0]]
    assert float(share_in_circle(real(x), real(q))) == pytest.approx(inside[0], rel=1e-9)
    assert float(share_in_circle(real(1.0), real(1.0))) == pytest.approx(-math.expm1(-0.5), rel=1e-14)


def _slice(half: float) -> float:
    return math.sqrt(2 * math.pi) * math.erf(half / math.sqrt(2))


@given(st.floats(1e-3, 30.0), st.floats(0.05, 1.0))
def test_shares_grow_outwards_and_a_circle_holds_more(x: float, q: float) -> None:
    sphere, circle, further = share_in_sphere(real(x), real(q)), share_in_circle(real(x), real(q)), share_in_sphere(real(1.1 * x), real(q))
    # edge-on the observed axis ratio is the intrinsic one, and the circle's cylinder holds the sphere
    assert 0.0 < float(sphere) <= float(circle) * (1 + 1e-12)
    assert float(circle) <= 1.0 + 1e-12
    assert float(further) >= float(sphere) * (1 - 1e-13)


def test_derivatives_forwards_and_backwards() -> None:
    x, q = real([0.2, 1.0, 9.0]).requires_grad_(True), real([0.1, 0.6, 1.0]).requires_grad_(True)
    for share in (share_in_sphere, share_in_circle):
        assert torch.autograd.gradcheck(share, (x, q.detach() * 0.9), check_forward_ad=True)
        assert torch.autograd.gradcheck(lambda flat, share=share: share(x.detach(), flat * 0.99), (q,), check_forward_ad=True)
    # of a sphere the derivative by the radius is the density on its surface: round, 4 pi r^2 rho
    (slope,) = torch.autograd.grad(share_in_sphere(x, real(1.0)).sum(), x)
    assert torch.allclose(slope, math.sqrt(2 / math.pi) * x.detach() ** 2 * torch.exp(-0.5 * x.detach() ** 2), rtol=1e-11)


def test_masses_of_an_mge() -> None:
    """Signed Gaussians, one of them seen nearly face-on; far out all of it, whatever the shape."""
    mge = MGE(real([300.0, -20.0, 5.0]), real([10.0, 40.0, 500.0]), real(0.8))
    whole = float((2 * math.pi * mge.surface_density * mge.sigma**2 * 0.8).sum())
    assert float(mass_in_sphere(mge, 1e5, inclination=60.0)) == pytest.approx(whole, rel=1e-12)
    assert float(mass_in_circle(mge, 1e5)) == pytest.approx(whole, rel=1e-12)
    intrinsic = math.sqrt(0.8**2 - 0.25) / math.sqrt(0.75)
    by_hand = sum(2 * math.pi * w * s**2 * 0.8 * closed_form(60.0 / s, intrinsic) for w, s in ((300.0, 10.0), (-20.0, 40.0), (5.0, 500.0)))
    assert float(mass_in_sphere(mge, 60.0, inclination=60.0)) == pytest.approx(by_hand, rel=1e-11)
    several = mass_in_sphere(MGE(real([[1.0], [1.0]]), real([[10.0], [10.0]]), real([[0.9], [0.9]])), real([5.0, 10.0]), inclination=80.0)
    assert several.shape == (2,) and float(several[1]) > float(several[0])


def test_what_cannot_be_is_refused() -> None:
    mge = MGE(real([1.0]), real([1.0]), real(0.4))
    for call, rule in (
        (lambda: mass_in_sphere(mge, 0.0, inclination=80.0), r"^radius must be positive \(pc\), got 0$"),
        (lambda: mass_in_circle(mge, -1.0), "radius must be finite and not negative"),
        (lambda: mass_in_sphere(mge, 1.0, inclination=50.0), r"^observed_axis_ratio must exceed cos\(inclination\)"),
        (lambda: mass_in_sphere(mge, 1.0, inclination=95.0), r"inclination must lie in \(0, 90\] deg, got 95"),
        (lambda: UnitMass(load_model("nuker-mge-solve"), 55.0, 0.0), r"^the radius of an aperture must be positive \(pc\), got 0.0$"),
    ):
        with pytest.raises(DomainError, match=rule):
            call()


SHAPE = {"alpha": 1.3, "gamma_minus_beta": -1.4, "gamma": 0.5, "break_r": 1.2, "qintr": 0.6, "inclination": 75.0, "intensity_rb": 3.0}


@pytest.mark.parametrize("model", ["nuker-mge", "nuker-mge-solve"])
@pytest.mark.parametrize("ratio", [1.0, 100.0, 5000.0])
def test_round_stars_hold_the_nuker_profiles_mass(model: str, ratio: float) -> None:
    """Sphere by Abel inversion, circle by the profile's own integral, out to the 5000 break radii that the emulators hold."""
    theta = {name: real(value) for name, value in {**SHAPE, "qintr": 1.0}.items()}
    reach = ratio * 1.2 * 55.0
    expected = NukerDeprojection(1.3, 1.9, 0.5).enclosed_mass(np.array([ratio]))[0] * (1.2 * 55.0) ** 2
    emulator = load_model(model)
    assert 10.0 ** float(UnitMass(emulator, 55.0, reach)(theta)) == pytest.approx(expected, rel=2e-3 if model == "nuker-mge" else 1e-5)
    flat = float(Nuker(1.3, 1.9, 0.5, 1.2 * 55.0, 1.0).projected_mass(reach))
    assert 10.0 ** float(UnitMass(emulator, 55.0, reach, projected=True)(theta)) == pytest.approx(flat, rel=2e-3)


@pytest.fixture(scope="module")
def mass_model() -> MassModel:
    return MassModel(load_model("nuker-mge-solve"), 55.0)


@pytest.mark.parametrize("gradient", [0.0, 0.2])
def test_unit_mass_is_of_the_gaussians_that_pull_the_gas(mass_model: MassModel, gradient: float) -> None:
    """The very Gaussians of `MassModel`: its velocity curve far outside all of them is that of their mass."""
    model, emulator = mass_model, load_model("nuker-mge-solve")
    theta = {name: real(value) for name, value in {**SHAPE, "ml_gradient": gradient}.items()}
    far = 9e4 * 1.2 * 55.0
    speed = model(theta, "stars")(torch.log(real([far])))
    unit = UnitMass(emulator, 55.0, far)(theta)
    assert float(speed[0]) * far / GRAVITATIONAL_CONSTANT == pytest.approx(10.0 ** float(unit + 3.0), rel=2e-2)
    observed = math.hypot(0.6 * math.sin(math.radians(75.0)), math.cos(math.radians(75.0)))
    mge = emulator(1.3, 1.9 + gradient, 0.5 + gradient, 1.2 * 55.0, 10.0**3.0, observed)
    for radius in (30.0, 2000.0):
        expected = float(mass_in_sphere(mge, radius, inclination=75.0))
        assert float(UnitMass(emulator, 55.0, radius)(theta)) + 3.0 == pytest.approx(math.log10(expected), abs=1e-9)
        on_the_sky = float(mass_in_circle(mge, radius))
        assert float(UnitMass(emulator, 55.0, radius, projected=True)(theta)) + 3.0 == pytest.approx(math.log10(on_the_sky), abs=1e-9)


def test_unit_mass_of_many_is_that_of_each() -> None:
    """And a wrong axis ratio is caught: flatter stars of the same face-on density weigh less inside the same sphere, seen edge-on."""
    unit = UnitMass(load_model("nuker-mge"), 55.0, 3000.0)
    rng = np.random.default_rng(2)
    many = {name: torch.from_numpy(value * rng.uniform(0.9, 1.1, 5)) for name, value in SHAPE.items()}
    together = unit(many)
    each = torch.stack([unit({name: values[k] for name, values in many.items()}) for k in range(5)])
    assert torch.allclose(together, each, rtol=1e-12)
    one = {name: real(value) for name, value in SHAPE.items()}
    halved = unit({**one, "qintr": real(0.3), "inclination": real(89.9)}) - unit({**one, "qintr": real(0.6), "inclination": real(89.9)})
    assert -0.31 < float(halved) < -0.27
