"""Stretched coordinates: there and back, slopes against differences, ends of the widening."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from supermage.inference.stretches import Stretch, Widening


def real(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


GAINS, RATES, KNEES = st.floats(0.0, 30.0), st.floats(0.1, 10.0), st.floats(-3.0, 3.0)


@given(st.floats(-8.0, 8.0), GAINS, RATES, st.sampled_from([-1.0, 1.0]), KNEES)
def test_widening_there_and_back(z: float, gain: float, rate: float, sign: float, knee: float) -> None:
    widening = Widening(gain, sign * rate, knee)
    assert float(widening.inverse(widening.forward(real(z)))) == pytest.approx(z, abs=1e-11)


@given(st.floats(-5.0, 5.0), GAINS, RATES, st.sampled_from([-1.0, 1.0]), KNEES)
def test_slopes_are_those_of_the_map_and_of_its_inverse(z: float, gain: float, rate: float, sign: float, knee: float) -> None:
    widening = Widening(gain, sign * rate, knee)
    numerical = (widening.forward(real(z + 1e-5)) - widening.forward(real(z - 1e-5))) / 2e-5
    assert float(widening.slope(real(z))) == pytest.approx(float(numerical), rel=1e-6)
    t = widening.forward(real(z)).requires_grad_(True)
    (slope,) = torch.autograd.grad(widening.inverse(t), t)
    assert float(slope * widening.slope(real(z))) == pytest.approx(1.0, rel=1e-9)


def test_ends_of_a_widening() -> None:
    down, up = Widening(4.0, -3.0, 0.5), Widening(4.0, 3.0, 0.5)
    assert float(down.slope(real(9.0))) == pytest.approx(1.0) and float(down.slope(real(-9.0))) == pytest.approx(5.0)
    assert float(up.slope(real(9.0))) == pytest.approx(5.0) and float(up.slope(real(-9.0))) == pytest.approx(1.0)
    assert float(down.slope(real(0.5))) == float(up.slope(real(0.5))) == pytest.approx(3.0)


@pytest.mark.parametrize("curve", [Widening(4.0, -3.0, 0.5), Stretch(1.3, -0.4)])
def test_an_inverse_is_differentiated_every_way(curve: Widening | Stretch) -> None:
    """Reverse, forward, batched and twice, against differences."""
    t = torch.linspace(-2.0, 3.0, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(curve.inverse, t, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(curve.inverse, t)
    single = torch.stack([torch.func.grad(curve.inverse)(x) for x in t.detach()])
    assert torch.allclose(torch.func.vmap(torch.func.grad(curve.inverse))(t.detach()), single, rtol=1e-12)
    tangents = torch.func.vmap(lambda x: torch.func.jvp(curve.inverse, (x,), (torch.ones_like(x),))[1])(t.detach())
    assert torch.allclose(tangents, single, rtol=1e-12)


def test_what_is_no_number_has_no_inverse_and_makes_no_noise() -> None:
    far = torch.tensor([torch.nan, torch.inf, 1e200], dtype=torch.float64)
    assert not bool(torch.isfinite(Widening(4.0, 3.0, 0.5).inverse(far)[:2]).any())
