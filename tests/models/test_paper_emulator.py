"""The emulator by the paper's recipe: its formulas, and that it trains, resumes and is measured like ours."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from supermage.forward.nuker import Nuker
from supermage.models import paper_emulator, training
from supermage.models.adam import adam_init, adam_step
from supermage.models.nuker_errors import corners, measure, measure_physical
from supermage.models.nuker_mge import BOX, NukerSolve
from supermage.models.paper_emulator import PaperTraining, load_paper_emulator, symexp, unit_box
from supermage.progress import SilentProgress
from supermage.recipe import Recipe, TrainSection

SMALL = {"steps": 10, "batch": 32, "hidden": 16, "depth": 2, "card_profiles": 4}


def recipe(folder: Path, **options: object) -> Recipe:
    return Recipe(folder=folder, train=TrainSection(kind="nuker-mge-paper", options={**SMALL, **options}))


def test_symexp_is_equation_3() -> None:
    value = torch.tensor([-13.5, -0.3, 0.0, 2.0, 15.0], dtype=torch.float64)
    expected = [math.copysign(1e-12 * (10.0 ** abs(x) - 1.0), x) for x in value.tolist()]
    assert symexp(value).tolist() == pytest.approx(expected, rel=1e-12)


def test_inputs_span_the_box() -> None:
    shapes = torch.from_numpy(corners())
    unit = unit_box(*shapes.T)
    assert torch.allclose(unit.amin(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(unit.amax(0), torch.ones(4, dtype=torch.float64))
    assert unit[0].tolist() == pytest.approx([0.0] * 4)
    assert list(BOX) == ["alpha", "gamma", "beta - gamma", "break_radius"]


def test_training_profiles_are_nuker_profiles_of_the_grid() -> None:
    problem = PaperTraining(paper_emulator.Options(**SMALL), 1)
    got, truth = problem._profiles(torch.Generator().manual_seed(7), 3)
    unit = torch.randint(0, 50, (3, 4), generator=torch.Generator().manual_seed(7)).to(torch.float64) / 49
    assert got.shape == truth.shape == (3, 100)
    for k in range(3):
        alpha, gamma, difference, scale = (low + (high - low) * float(unit[k, j]) for j, (low, high) in enumerate(BOX.values()))
        expected = Nuker(alpha, gamma + difference, gamma, scale, 1.0).surface_density_at(torch.exp(problem.log_radius))
        assert torch.allclose(truth[k], expected, rtol=1e-10)


def test_it_trains_resumes_to_the_same_bits_and_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    training.train(recipe(whole))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Stop(SilentProgress):
        steps = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.steps += n
            if self.steps > 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(parts), progress=Stop())
    training.train(recipe(parts))
    here, there = (load_paper_emulator(folder / "artefact") for folder in (whole, parts))
    for one, other in zip(here.layers, there.layers, strict=True):
        assert torch.equal(one, other)
    card = (whole / "card.md").read_text()
    assert "Adam with a rate of" in card
    assert "| random | velocity q0.3 |" in card


def test_loss_falls() -> None:
    """On one batch, at a thousand times the paper's rate."""
    problem = PaperTraining(paper_emulator.Options(**{**SMALL, "batch": 64}), 1)
    before = problem.loss(0).item()
    state = adam_init(problem.parameters)
    for step in range(120):
        adam_step(problem.parameters, torch.autograd.grad(problem.loss(0), problem.parameters), state, step=step, learning_rate=0.01)
    assert problem.loss(0).item() < 0.3 * before


def test_adam_is_torchs() -> None:
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    state, reference = adam_init([ours]), torch.optim.Adam([theirs], lr=0.02)
    for step in range(50):
        adam_step([ours], torch.autograd.grad(((ours - target) ** 4).sum(), [ours]), state, step=step, learning_rate=0.02)
        reference.zero_grad()
        ((theirs - target) ** 4).sum().backward()
        reference.step()
    assert torch.allclose(ours, theirs, rtol=1e-9)


def test_both_ways_of_measuring_agree() -> None:
    """The tabulated kernel of scale-free models, and the exact one in physical units."""
    model = NukerSolve()

    def expansion(alpha: float, beta: float, gamma: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        return model.width_ratio * scale, model.weights(*(torch.tensor(item, dtype=torch.float64) for item in (alpha, beta, gamma)))

    one, other = measure(model, profiles=4, seed=5)["random"], measure_physical(expansion, profiles=4, seed=5)["random"]
    for key, entry in other.items():
        if key != "not_positive":
            assert np.isclose(entry["max"], one[key]["max"], rtol=0.2, atol=2e-5), key
