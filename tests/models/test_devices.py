"""Several devices: shares make up the batch, gradients and statistics are those of all, every process has the same bits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from supermage.errors import RecipeError
from supermage.models import cnn_training
from supermage.models.cnn_training import build
from supermage.models.devices import Devices, find_devices
from tests.models.toy_maps import toy_recipe, toy_store


class Meeting:
    """Where threads that stand for processes add up their tensors."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=60), [torch.empty(0)] * size

    def summed(self, rank: int, values: torch.Tensor) -> torch.Tensor:
        self.values[rank] = values.clone()
        self.barrier.wait()
        values.copy_(torch.stack(self.values).sum(0))
        self.barrier.wait()
        return values


@dataclass(frozen=True)
class Together(Devices):
    meeting: Any = field(default=None)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        return self.meeting.summed(self.rank, values)


def test_shares_make_up_the_rows() -> None:
    rows = np.arange(11)
    shares = [Devices(torch.device("cpu"), rank, 3).share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_has_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    devices = find_devices()
    assert devices.world == 1 and devices.is_first
    assert devices.half == (devices.device.type == "cuda" and torch.cuda.is_bf16_supported())
    values = torch.ones(2)
    assert torch.equal(devices.summed(values), torch.ones(2))
    with find_devices("bfloat16").precision():
        assert torch.nn.Linear(3, 3)(torch.ones(1, 3)).dtype == (torch.bfloat16 if devices.device.type == "cpu" else torch.float32)


def test_graphics_cards_take_repeatable_kernels_within_the_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags alone: no card is needed to set them."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    before = cudnn.deterministic

    def interrupted() -> None:
        with Devices(torch.device("cuda", 0)).repeatable():
            assert cudnn.deterministic and not cudnn.benchmark
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cudnn.deterministic == before and cudnn.benchmark
    with Devices(torch.device("cpu")).repeatable():
        assert cudnn.deterministic == before and cudnn.benchmark


def test_two_processes_take_the_step_of_both_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is that of the whole batch's mean, each half normalised by itself; the statistics are the halves' mean."""
    store = toy_store(tmp_path / "maps.nc", 90)
    meeting, problems = Meeting(2), []
    for rank in range(2):
        devices = Together(torch.device("cpu"), rank, 2, meeting=meeting)
        monkeypatch.setattr(cnn_training, "find_devices", lambda precision, devices=devices: devices)
        problems.append(build(toy_recipe(tmp_path, store, turn=False, decay="none")))
    reference = problems[0].network, problems[0].parameters.clone(), problems[0].statistics.clone()
    halves, gradient, statistics = [problem.batch(0) for problem in problems], 0.0, 0.0
    for maps, targets, size in halves:
        reference[0].train()
        problems[0].statistics.copy_(reference[2])
        loss = ((reference[0](maps) - targets) ** 2).mean(1).sum() / size
        gradient = gradient + torch.cat([item.reshape(-1) for item in torch.autograd.grad(loss, list(reference[0].parameters()))])
        statistics = statistics + 0.5 * problems[0].statistics.clone()
    problems[0].statistics.copy_(reference[2])

    def train(problem: Any) -> None:
        for step in range(problem.per_epoch):
            problem._step(step, *(halves[problem.devices.rank] if step == 0 else problem.batch(step)))
            if step == 0:
                first.append((problem.parameters.clone(), problem.statistics.clone(), problem.state["m0"].clone()))
        problem._validate(0)

    first: list[Any] = []
    threads = [threading.Thread(target=train, args=(problem,)) for problem in problems]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first) == 2
    assert torch.allclose(first[0][2][0], 0.1 * gradient, rtol=1e-4, atol=1e-7)
    assert torch.allclose(first[0][1], statistics, rtol=1e-5, atol=1e-7)
    assert torch.equal(problems[0].parameters, problems[1].parameters)
    assert torch.equal(problems[0].statistics, problems[1].statistics)
    history = [problem.state["history"] for problem in problems]
    assert torch.equal(history[0].nan_to_num(-1.0), history[1].nan_to_num(-1.0))
    rows = problems[0].parts["validation"]
    loss = ((problems[0].standardised(rows) - problems[0].batches.targets[rows]) ** 2).double().mean()
    assert float(history[0][1, 0]) == pytest.approx(float(loss), rel=1e-6)


def test_a_batch_must_have_rows_for_every_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = toy_store(tmp_path / "maps.nc", 90)
    monkeypatch.setattr(cnn_training, "find_devices", lambda precision: Devices(torch.device("cpu"), 0, 12))
    with pytest.raises(RecipeError, match="must hold two rows for each of 12 devices, got 16"):
        build(toy_recipe(tmp_path, store))
