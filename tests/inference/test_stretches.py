"""Stretched coordinates: there and back, slopes against differences, ends of the widening."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from supermage.inference.stretches import Widening


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
