"""The stretched exponential against scipy's quadrature, and against the exponential that it contains."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from supermage.forward.disc import exponential_disc, gas_disc, stretched_disc


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@given(index=st.floats(0.5, 15.0), scale=st.floats(0.1, 100.0))
def test_flux_is_normalised_over_the_plane(index: float, scale: float) -> None:
    def ring(t: float) -> float:
        radius = scale * t
        return (
            2
            * np.pi
            * radius
            * scale
            * float(stretched_disc(torch.tensor([radius]).double(), tensor(scale), tensor(index), tensor(3.0))[0])
        )

    total = quad(ring, 0, 1.2, limit=200)[0] + quad(ring, 1.2, 800.0, limit=400, points=[2, 5, 20, 100])[0]
    assert total == pytest.approx(3.0, rel=1e-4)


def test_index_one_is_the_exponential() -> None:
    radius = torch.linspace(0.01, 5, 50, dtype=torch.float64)
    expected = exponential_disc(radius, tensor(0.7), tensor(2.0))
    torch.testing.assert_close(gas_disc(radius, {"scale_length": tensor(0.7), "Flux": tensor(2.0), "gas_index": tensor(1.0)}), expected)
    torch.testing.assert_close(gas_disc(radius, {"scale_length": tensor(0.7), "Flux": tensor(2.0)}), expected)


def test_gradient_is_finite_far_outside_an_edge() -> None:
    index = tensor(15.0).requires_grad_()
    radius = torch.tensor([1e-4, 0.5, 1.0, 1e3], dtype=torch.float32)
    (gradient,) = torch.autograd.grad(stretched_disc(radius, tensor(0.5), index, tensor(1.0)).sum(), index)
    assert torch.isfinite(gradient)
