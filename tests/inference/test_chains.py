"""Chains in segments: however they are cut, stored or spread, their draws are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.inference.chains import (
    Chain,
    Problem,
    Segment,
    Workers,
    approach_in_chart,
    chain_in_chart,
    fisher_in_chart,
    place_in_chart,
    restart_adaptation,
    run_segment,
    segment_in_chart,
    start_chain,
)
from supermage.inference.langevin import KERNELS
from supermage.inference.metric import add_ridge, factor_of_precision
from supermage.inference.model import Chart
from tests.inference.toy import TRUTH, held, toy_data, toy_fit

PRECISION = torch.tensor([[4.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
FACTOR = factor_of_precision(PRECISION)
FIT = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held("PA", "systemic_velocity", "Flux"))
CHART = Chart(cut=67.0)


class Gaussian:
    """A normal density whose parameters are three times the position."""

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        gradient = -position @ PRECISION
        return 0.5 * (position * gradient).sum(dim=1), gradient

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return 3.0 * z, torch.tensor(0.25, dtype=torch.float64)


def begin(number: int = 0, *, seed: int = 1) -> Chain:
    return start_chain(Gaussian(), torch.tensor([0.3, -0.2], dtype=torch.float64), step_size=0.4, seed=seed, number=number)


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("adapting", [False, True])
def test_cut_anywhere_and_stored_between(kernel: str, adapting: bool) -> None:
    whole = run_segment(Gaussian(), Segment(begin(), kernel, FACTOR, 30, adapting))
    chain, pieces = begin(), []
    for steps in (1, 12, 17):
        chain = Chain.from_arrays({name: array.copy() for name, array in chain.arrays().items()})
        drawn = run_segment(Gaussian(), Segment(chain, kernel, FACTOR, steps, adapting))
        chain = drawn.chain
        pieces.append(drawn)
    for name in ("z", "theta", "log_density", "log_probability", "acceptance", "step_size"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in pieces]), getattr(whole, name)), name
    assert sum(p.gradients for p in pieces) == whole.gradients
    for name, array in whole.chain.arrays().items():
        assert np.array_equal(chain.arrays()[name], array), name


def test_a_segment_leaves_its_chain_alone() -> None:
    chain = begin()
    before = {name: array.copy() for name, array in chain.arrays().items()}
    segment = Segment(chain, "persistent-mala", FACTOR, 10, True)
    one, two = run_segment(Gaussian(), segment), run_segment(Gaussian(), segment)
    assert np.array_equal(one.z, two.z)
    assert all(np.array_equal(chain.arrays()[name], array) for name, array in before.items())


def test_what_a_segment_brings() -> None:
    drawn = run_segment(Gaussian(), Segment(begin(), "mala", FACTOR, 20, False))
    assert np.allclose(drawn.theta, 3.0 * drawn.z)
    assert np.allclose(drawn.log_density, -0.5 * np.einsum("ki,ij,kj->k", drawn.z, PRECISION.numpy(), drawn.z))
    assert np.allclose(drawn.log_probability, drawn.log_density - 0.25)
    assert drawn.gradients == 20 and np.ptp(drawn.step_size) == 0.0


def test_chains_have_random_numbers_of_their_own() -> None:
    draws = [
        run_segment(Gaussian(), Segment(begin(n, seed=s), "mala", FACTOR, 5, False)).z for n, s in ((0, 1), (1, 1), (0, 2), (1, 0), (0, 1))
    ]
    assert np.array_equal(draws[0], draws[4])
    assert all(not np.allclose(draws[i], draws[j]) for i in range(4) for j in range(i))


def test_adaptation_reaches_its_target() -> None:
    for aim in (0.6, 0.9):
        tuned = run_segment(Gaussian(), Segment(begin(), "mala", FACTOR, 600, True, aim)).chain
        kept = run_segment(Gaussian(), Segment(tuned, "mala", FACTOR, 400, False))
        assert kept.acceptance.mean() == pytest.approx(aim, abs=0.07)


def test_restart_forgets_momentum_and_step_only() -> None:
    chain = run_segment(Gaussian(), Segment(begin(), "persistent-mala", FACTOR, 10, True)).chain
    again = restart_adaptation(chain, 0.2)
    assert float(chain.state.momentum.abs().max()) > 0 and float(again.state.momentum.abs().max()) == 0
    assert torch.equal(again.state.position, chain.state.position) and torch.equal(again.generator, chain.generator)
    assert float(torch.exp(again.dual.log_average)) == pytest.approx(0.2) and float(again.dual.updates) == 0


def test_functions_for_processes_are_those_of_the_target() -> None:
    problem = Problem(FIT)
    target = problem.target(CHART)
    assert problem.target(Chart(cut=67.0)) is target and problem.target(Chart(cut=10.0)) is not target
    z = FIT.coordinates(CHART).from_theta(TRUTH)
    precision = fisher_in_chart(problem, CHART, z)
    assert torch.equal(precision, problem.target(CHART).fisher(z))
    chain = chain_in_chart(problem, CHART, z + 0.1, 0.3, 1, 0)
    segment = Segment(chain, "mala", factor_of_precision(add_ridge(precision)), 5, False)
    assert np.array_equal(segment_in_chart(problem, CHART, segment).z, run_segment(problem.target(CHART), segment).z)
    placed = place_in_chart(problem, CHART, chain, z)
    assert torch.equal(placed.state.position[0], z) and torch.equal(placed.generator, chain.generator)
    assert float(placed.state.log_density[0]) == pytest.approx(float(problem.target(CHART).log_density(z)))


def test_approach_uses_the_metric_of_where_the_chain_is() -> None:
    problem = Problem(FIT)
    z = FIT.coordinates(CHART).from_theta(TRUTH)
    chain = chain_in_chart(problem, CHART, z + 0.1, 0.3, 1, 0)
    far_off = 1e6 * torch.eye(len(z), dtype=torch.float64)
    local = factor_of_precision(add_ridge(problem.target(CHART).fisher(z + 0.1)))
    approached = approach_in_chart(problem, CHART, Segment(chain, "mala", far_off, 5, False))
    assert np.array_equal(approached.z, segment_in_chart(problem, CHART, Segment(chain, "mala", local, 5, False)).z)


def test_one_process_is_this_one_and_gives_its_threads_back() -> None:
    threads = torch.get_num_threads()
    workers = Workers(lambda: FIT, 1)
    assert torch.get_num_threads() == 1
    assert workers.problem.fit is FIT
    assert workers.map(lambda problem, a, b: (problem is workers.problem, a + b), [(1, 2), (3, 4)]) == [(True, 3), (True, 7)]
    workers.stop()
    workers.close()
    assert torch.get_num_threads() == threads


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processes")
def test_no_process_outlives_a_killed_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, "-m", "tests.inference.orphan"], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        numbers = [int(word) for word in parent.stdout.readline().split()]
        assert numbers and all(alive(number) for number in numbers)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20.0
    while any(alive(number) for number in numbers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(number) for number in numbers)
