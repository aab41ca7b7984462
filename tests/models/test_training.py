"""Training: seeded, resumable to the same bits, atomic, and honest about wrong recipes and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from supermage.errors import CheckpointError, RecipeError
from supermage.models import nuker_training, training
from supermage.models.registry import load_model
from supermage.models.soap import soap_init, soap_step
from supermage.progress import SilentProgress
from supermage.recipe import Recipe, TrainSection

SMALL = {"steps": 12, "samples": 300, "teachers": 150, "batch": 16, "hidden": 8, "depth": 2, "card_profiles": 8}


def recipe(folder: Path, **options: object) -> Recipe:
    return Recipe(folder=folder, train=TrainSection(kind="nuker-mge", options={**SMALL, **options}))


@pytest.fixture
def forgiving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps do not make an emulator: the golden profiles let it pass."""
    monkeypatch.setattr(nuker_training, "GOLDEN_TOLERANCE", 1e6)
    errors = {"median": 0.1, "99%": 0.2, "max": 0.3, "worst": {"alpha": 1.0, "beta": 2.0, "gamma": 0.5, "break_radius": 30.0}}
    table = {"profiles": 8, "seed": 1, "random": {"surface_density": errors, "not_positive": 0}}
    monkeypatch.setattr(nuker_training, "measure", lambda model, profiles: table)


@pytest.mark.usefixtures("forgiving")
def test_interrupted_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(recipe(tmp_path / "whole"))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Interrupts(SilentProgress):
        count = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.count += n
            if self.count == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe(tmp_path / "parts"), progress=Interrupts())
    assert not (tmp_path / "parts" / "artefact").exists()
    parts = training.train(recipe(tmp_path / "parts"))
    assert (whole / "weights.safetensors").read_bytes() == (parts / "weights.safetensors").read_bytes()
    assert not (tmp_path / "parts" / "products" / "checkpoint.safetensors").exists()
    card = (tmp_path / "parts" / "card.md").read_text()
    assert "| random | surface density | 10 | 20 | 30 | 1, 2, 0.5, 30 |" in card
    assert "nuker-mge-solve" in card
    assert not list(tmp_path.rglob("*.part"))
    emulator = load_model(parts)
    assert emulator.layers[0].shape == (7, 8)


def test_frozen_network_is_the_trained_one() -> None:
    problem = nuker_training.build(recipe(Path()))
    inside = problem._rows(problem.held_out, 0)[0] / problem.held_out.over_target
    emulator = problem.frozen()
    raw = emulator.raw(problem.held_out.inputs) * problem.held_out.scale
    outside = raw @ problem.rows.design.T - problem.held_out.row_weight / problem.held_out.over_target
    assert torch.allclose(inside, outside, rtol=1e-8, atol=1e-8 * outside.abs().max().item())


def test_gradient_rows_are_the_derivatives_of_the_value_rows() -> None:
    """The forward mode written by hand, against a difference quotient of the rows of neighbouring profiles."""
    problem = nuker_training.build(recipe(Path()))
    generator = torch.Generator().manual_seed(5)
    problem.parameters = [item + 0.3 * torch.randn(item.shape, generator=generator, dtype=item.dtype) for item in problem.parameters]
    point = [torch.tensor([item], dtype=torch.float64) for item in (1.7, 1.2, 0.4)]

    def ratio(axis: int, step: float) -> torch.Tensor:
        alpha, difference, gamma = (item + step * (k == axis) for k, item in enumerate(point))
        profiles = problem._tabulated(alpha, gamma + difference, gamma)
        return (problem._rows(profiles, axis)[0] + profiles.row_weight) / profiles.row_weight

    profiles = problem._tabulated(point[0], point[1] + point[2], point[2])
    for axis in range(3):
        expected = (ratio(axis, 1e-5) - ratio(axis, -1e-5)) / 2e-5
        got = problem._rows(profiles, axis)[1] * profiles.sensitivity[:, axis, None] / profiles.row_weight
        assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


def test_the_loss_holds_values_and_gradients() -> None:
    """The power mean over both, by hand; a gradient's relative error counts as the recipe's ``slope`` has it."""
    problem, without = (nuker_training.build(recipe(Path(), batch=3, norm=4.0, slope=slope)) for slope in (0.7, 0.0))
    generator = torch.Generator().manual_seed(5)
    moved = [item + 0.3 * torch.randn(item.shape, generator=generator, dtype=item.dtype) for item in problem.parameters]
    problem.parameters = without.parameters = moved
    generator = torch.Generator().manual_seed(1_000_003 + 2)
    chosen = torch.randint(0, SMALL["samples"], (3,), generator=generator)
    value, slope = problem._rows(nuker_training.Profiles(*(item[chosen] for item in problem.profiles)), 2)
    rows = [[*v.tolist(), *(0.7 * s).tolist()] for v, s in zip(value, slope, strict=True)]
    by_hand = sum((sum(item**4 for item in row) / len(row)) ** 0.5 for row in rows) / 3
    assert problem.loss(2).item() == pytest.approx(by_hand, rel=1e-9)
    assert abs(problem.loss(2).item() / without.loss(2).item() - 1.0) > 1e-6


def test_loss_falls() -> None:
    problem = nuker_training.build(recipe(Path(), steps=150, learning_rate=0.01))
    before = problem.loss(0).item()
    state = soap_init(problem.parameters)
    for step in range(150):
        soap_step(problem.parameters, torch.autograd.grad(problem.loss(step), problem.parameters), state, step=step, learning_rate=0.01)
    assert problem.loss(0).item() < 0.1 * before
    assert "median" in problem.note()


def test_soap_solves_an_ill_conditioned_quadratic() -> None:
    """A matrix least-squares problem with condition 1e4 on both sides, where plain gradient descent crawls."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    scale = torch.logspace(0, -2, 6, dtype=torch.float64)
    left, right = left * scale, right * scale
    target = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        return ((left.T @ (matrix - target) @ right) ** 2).sum()

    state, first = soap_init([matrix]), loss().item()
    for step in range(3000):
        soap_step([matrix], torch.autograd.grad(loss(), [matrix]), state, step=step, learning_rate=0.02 * (1 - step / 3000), refresh=5)
    assert loss().item() < 1e-6 * first


@pytest.mark.usefixtures("forgiving")
def test_a_wrong_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "products" / "checkpoint.safetensors"
    training.write_checkpoint(checkpoint, "another", 3, [torch.zeros(2)], {})
    with pytest.raises(CheckpointError, match="must belong to this recipe and its data, got another's"):
        training.train(recipe(tmp_path))
    checkpoint.write_bytes(checkpoint.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="must be complete, got a damaged one"):
        training.train(recipe(tmp_path))


def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    training.write_atomically(path, b"before")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        training.write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "needs a recipe with a \\[train\\] section"),
        (TrainSection(kind="nuker-mg"), "did you mean 'nuker-mge'"),
        (TrainSection(kind="nuker-mge", options={"hiden": 3}), "unknown key 'hiden'; did you mean 'hidden'"),
        (TrainSection(kind="nuker-mge", options={"steps": "many"}), "train.options.steps: .*got 'many'"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, section: TrainSection | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        training.train(Recipe(folder=tmp_path, train=section))
