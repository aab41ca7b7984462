"""One velocity curve shared within a gradient: the same numbers, kept for one shape only, forgotten at the end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supermage.forward.mass_model import MassModel
from supermage.models.nuker_mge import NukerSolve

LOG_RADIUS = torch.linspace(0.0, 5.0, 7, dtype=torch.float64)
NAMES = ("alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb", "qintr", "inclination", "log10_mbh")
VALUES = (2.0, -1.2, 0.8, 1.5, 3.5, 0.6, 70.0, 8.0)


@pytest.fixture(scope="module")
def model() -> MassModel:
    return MassModel(NukerSolve(), 50.0)


def leaves() -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in zip(NAMES, VALUES, strict=True)}


def gradient(model: MassModel, theta: dict[str, Tensor]) -> Tensor:
    """Of what pivots and model ask for: the stars alone at another brightness, and everything."""
    brighter = {**theta, "intensity_rb": theta["intensity_rb"] + 3.0}
    value = torch.log(model(brighter, "stars")(LOG_RADIUS)).sum() + model(theta)(LOG_RADIUS).sum()
    return torch.stack(torch.autograd.grad(value, list(theta.values())))


def test_shared_or_not_the_gradient_is_one(model: MassModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    reckon = type(model.curve).velocity_squared
    monkeypatch.setattr(type(model.curve), "velocity_squared", lambda *given: (asked.append(1), reckon(*given))[1])
    expected = gradient(model, leaves())
    assert len(asked) == 2
    with model.one_curve():
        assert torch.allclose(gradient(model, leaves()), expected, rtol=1e-12)
    assert len(asked) == 3


def test_other_tensors_have_a_curve_of_their_own(model: MassModel) -> None:
    """Equal values are not enough: the gradient must reach the tensors that were given."""
    with model.one_curve():
        first, second = leaves(), leaves()
        model(first, "stars")
        assert torch.equal(gradient(model, second), gradient(model, leaves()))
        changed = {**second, "qintr": torch.tensor(0.3, dtype=torch.float64)}
        with torch.no_grad():
            assert not torch.allclose(model(changed, "stars")(LOG_RADIUS), model(second, "stars")(LOG_RADIUS), rtol=1e-3)


def test_outside_nothing_is_kept(model: MassModel) -> None:
    theta = leaves()

    def interrupted() -> None:
        with model.one_curve():
            model(theta, "stars")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        interrupted()
    # a curve kept from the first would have lost its graph by the second
    assert torch.equal(gradient(model, theta), gradient(model, theta))
