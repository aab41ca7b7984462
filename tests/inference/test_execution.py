"""How chains are carried: the probe takes the fastest way that gives the loop's numbers, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.errors import RecipeError
from supermage.inference import execution
from supermage.inference.chains import (
    Problem,
    Segment,
    approach_in_chart,
    approach_together_in_chart,
    run_segment,
    run_together,
    start_chain,
)
from supermage.inference.execution import Plan, choose_plan, resume_plan
from supermage.inference.fit import fit
from supermage.inference.langevin import KERNELS
from supermage.inference.model import Chart
from supermage.recipe import SamplerSection
from tests.inference.toy import FREE, ToyFactory, held, toy_data, toy_fit, toy_recipe

PROBLEM = Problem(toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE)))
CHART = Chart(cut=67.0)
TARGET = PROBLEM.target(CHART)


def sampler(**changes: object) -> SamplerSection:
    return SamplerSection.model_validate({"chains": 4, **changes})


def positions(chains: int) -> Tensor:
    return 0.3 * torch.randn(chains, len(FREE), dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_one_pass_gives_the_numbers_of_the_loop() -> None:
    here = positions(5)
    value, gradient = TARGET.of_chains(here)
    expected = TARGET(here)
    assert torch.allclose(value, expected[0], rtol=1e-12) and torch.allclose(gradient, expected[1], rtol=1e-9, atol=1e-9)
    theta, log_jacobian = TARGET.parameters_of_chains(here)
    for c in range(5):
        one, jacobian = TARGET.parameters(here[c])
        assert torch.allclose(theta[c], one, rtol=1e-12) and torch.allclose(log_jacobian[c], jacobian, rtol=1e-12)


@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"hmc"}))
@pytest.mark.parametrize("adapting", [True, False])
def test_chains_in_lockstep_are_the_chains_alone(kernel: str, adapting: bool) -> None:
    chains = [start_chain(TARGET, z, step_size=0.3, seed=4, number=c) for c, z in enumerate(positions(3))]
    factor = torch.eye(len(FREE), dtype=torch.float64)
    segments = [Segment(chain, kernel, factor, 12, adapting) for chain in chains]
    for segment, together in zip(segments, run_together(TARGET, segments), strict=True):
        alone = run_segment(TARGET, segment)
        for name in ("z", "theta", "log_density", "log_probability", "acceptance", "step_size"):
            assert np.allclose(getattr(together, name), getattr(alone, name), rtol=1e-7, atol=1e-7), name
        assert torch.equal(together.chain.generator, alone.chain.generator) and together.gradients == alone.gradients
        assert np.allclose(together.chain.dual.log_average, alone.chain.dual.log_average, atol=1e-7)


@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"hmc"}))
def test_chains_in_lockstep_keep_metrics_of_their_own(kernel: str) -> None:
    chains = [start_chain(TARGET, z, step_size=0.3, seed=4, number=c) for c, z in enumerate(positions(3))]
    segments = [Segment(chain, kernel, torch.eye(len(FREE), dtype=torch.float64), 6, True) for chain in chains]
    together = approach_together_in_chart(PROBLEM, CHART, segments)
    for segment, found in zip(segments, together, strict=True):
        alone = approach_in_chart(PROBLEM, CHART, segment)
        for name in ("z", "log_density", "acceptance", "step_size"):
            assert np.allclose(getattr(found, name), getattr(alone, name), rtol=1e-7, atol=1e-7), name
    shared = run_together(TARGET, segments)
    assert not np.allclose([one.z for one in shared], [one.z for one in together], rtol=1e-3)


def test_a_density_of_several_nodes_is_differentiated_as_in_the_loop() -> None:
    """Twice: nested batches take another way through the operators than single ones."""
    here = positions(4).reshape(2, 2, -1)

    def energy(z: Tensor) -> Tensor:
        return TARGET.fit.log_likelihood(TARGET.coordinates.to_theta(z)[0])

    gradient = torch.func.vmap(torch.func.vmap(torch.func.grad(energy)))(here)
    for outer in range(2):
        for inner in range(2):
            assert torch.allclose(gradient[outer, inner], torch.func.grad(energy)(here[outer, inner]), rtol=1e-9, atol=1e-9)


def test_the_recipe_decides_where_it_says() -> None:
    assert choose_plan(PROBLEM, sampler(processes=3)) == Plan("processes", 3)
    assert choose_plan(PROBLEM, sampler(processes=1)) == Plan("loop", 1)
    assert choose_plan(PROBLEM, sampler(execution="processes"), cores=8) == Plan("processes", 4)
    assert choose_plan(PROBLEM, sampler(execution="vmap", processes=2)).way == "vmap"
    assert "as the recipe says" in choose_plan(PROBLEM, sampler(execution="loop")).words


@pytest.mark.parametrize(("loop", "vmap", "cores", "expected"), [
    (1.0, 5.0, 2, Plan("processes", 2, {"loop": 4.0, "processes": 2.0, "vmap": 5.0})),
    (1.0, 5.0, 3, Plan("processes", 3, {"loop": 4.0, "processes": 2.0, "vmap": 5.0})),
    (1.0, 0.5, 2, Plan("vmap", 1, {"loop": 4.0, "processes": 2.0, "vmap": 0.5})),
    (1.0, 1.6, 2, Plan("processes", 2, {"loop": 4.0, "processes": 2.0, "vmap": 1.6})),
    (1.0, 2.5, 1, Plan("vmap", 1, {"loop": 4.0, "vmap": 2.5})),
    (1.0, 5.0, 1, Plan("loop", 1, {"loop": 4.0, "vmap": 5.0})),
    (1.0, None, 4, Plan("processes", 4, {"loop": 4.0, "processes": 1.0})),
])  # fmt: skip
def test_the_fastest_way_is_taken(monkeypatch: pytest.MonkeyPatch, loop: float, vmap: float | None, cores: int, expected: Plan) -> None:
    monkeypatch.setattr(execution, "_seconds", lambda function: loop)
    monkeypatch.setattr(execution, "_vmapped_seconds", lambda target, here: vmap)
    assert choose_plan(PROBLEM, sampler(), cores=cores) == expected


def test_vmap_with_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert execution._vmapped_seconds(TARGET, positions(2)) is not None
    right = TARGET.of_chains
    for wrong in (lambda z: (right(z)[0] + 1.0, right(z)[1]), lambda z: (right(z)[0], 1.01 * right(z)[1]),
                  lambda z: (torch.full((2,), -torch.inf, dtype=torch.float64), right(z)[1])):  # fmt: skip
        monkeypatch.setattr(TARGET, "of_chains", wrong)
        assert execution._vmapped_seconds(TARGET, positions(2)) is None

    def refused(z: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError("vmap: no batching rule")

    monkeypatch.setattr(TARGET, "of_chains", refused)
    assert execution._vmapped_seconds(TARGET, positions(2)) is None


def test_a_fit_in_one_pass_is_the_fit_in_a_loop_and_says_how_it_was_carried(tmp_path: Path) -> None:
    loop, vmap = (fit(recipe, factory=ToyFactory(recipe)) for recipe in (
        toy_recipe(tmp_path / way, execution=way, draws=6) for way in ("loop", "vmap")))  # fmt: skip
    for name in FREE:
        assert np.allclose(loop.draws(name), vmap.draws(name), rtol=1e-5), name
    assert json.loads(vmap.attributes["execution"])["way"] == "vmap" and json.loads(loop.attributes["execution"])["way"] == "loop"
    # cut off and carried on under another wish, it goes on as it began
    again = toy_recipe(tmp_path / "vmap", execution="loop", draws=9)
    assert json.loads(fit(again, factory=ToyFactory(again)).attributes["execution"])["way"] == "vmap"


def test_without_a_graphics_card_none_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_accelerator", lambda: None)
    with pytest.raises(RecipeError, match="needs a CUDA device"):
        choose_plan(PROBLEM, sampler(execution="gpu"))
    assert resume_plan(PROBLEM, sampler(), Plan("gpu")) == Plan("vmap")


@pytest.mark.parametrize(("gpu", "way"), [(0.1, "gpu"), (9.0, "vmap"), (None, "vmap")])
def test_a_device_is_taken_where_it_is_fastest(monkeypatch: pytest.MonkeyPatch, gpu: float | None, way: str) -> None:
    """The CPU stands in for the device: a copy of the model on it, told from the model itself."""
    problem = Problem(toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE)))
    monkeypatch.setattr(execution, "_accelerator", lambda: "cpu")
    monkeypatch.setattr(execution, "_seconds", lambda function: 1.0)
    monkeypatch.setattr(execution, "_vmapped_seconds", lambda target, here: 0.5 if target.together is target.fit else gpu)
    plan = choose_plan(problem, sampler(), cores=1)
    assert plan.way == way and plan.seconds.get("gpu") == gpu
    target = problem.target(Chart())
    assert (target.together is not target.fit) == (way == "gpu")
    z = positions(2)
    for found, expected in zip(target.of_chains(z), target(z), strict=True):
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7)


TIMES = {"loop": 4.0}


@pytest.mark.parametrize(("began", "wish", "goes_on"), [
    (Plan("vmap", 1, TIMES), {"execution": "loop"}, Plan("vmap", 1, TIMES)),
    (Plan("gpu"), {"processes": 2}, Plan("gpu")),
    (Plan("loop"), {"execution": "vmap"}, Plan("loop")),
    (Plan("processes", 2, TIMES), {"execution": "loop"}, Plan("loop", 1, TIMES)),
    (Plan("processes", 2, TIMES), {}, Plan("processes", 3, TIMES)),
    (Plan("loop", 1, TIMES), {}, Plan("loop", 1, TIMES)),
    (Plan("loop"), {"processes": 2}, Plan("processes", 2)),
    (Plan("processes", 2), {"processes": 1}, Plan("loop")),
])  # fmt: skip
def test_one_pass_stays_one_pass(monkeypatch: pytest.MonkeyPatch, began: Plan, wish: dict[str, object], goes_on: Plan) -> None:
    monkeypatch.setattr(execution, "_accelerator", lambda: "cpu")
    problem = Problem(toy_fit(toy_data(n_cell=20, n_channel=6), priors=held(*FREE)))
    assert resume_plan(problem, sampler(**wish), began, cores=3) == goes_on
    target = problem.target(Chart())
    assert (target.together is not target.fit) == (goes_on.way == "gpu")
