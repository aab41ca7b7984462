"""Warm-up and draws: the weights of modes, the pooled metric, chains that are brought back, records that come back from a file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.inference.chains import Problem, Workers, chain_in_chart
from supermage.inference.checkpoint import CheckpointStore
from supermage.inference.metric import add_ridge, factor_of_precision
from supermage.inference.model import Chart
from supermage.inference.run import Run, advance, log_weights
from supermage.progress import SilentProgress
from supermage.recipe import SamplerSection
from tests.inference.toy import toy_data, toy_fit

APART = torch.tensor([[-20.0, 0.0], [20.0, 5.0]], dtype=torch.float64)
PRECISIONS = (torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)), torch.diag(torch.tensor([9.0, 0.25], dtype=torch.float64)))


class TwoModes:
    """A mixture of two Gaussians that no chain crosses; the second holds ``exp(log_weight)`` times the first's probability."""

    def __init__(self, log_weight: float, *, broken_near: float | None = None) -> None:
        self.peaks = [0.5 * float(torch.logdet(p)) + w for p, w in zip(PRECISIONS, (0.0, log_weight), strict=True)]
        self.broken_near = broken_near

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        leaf = position.detach().clone().requires_grad_(True)
        parts = [
            peak - 0.5 * ((leaf - mean) @ p * (leaf - mean)).sum(dim=1) for peak, mean, p in zip(self.peaks, APART, PRECISIONS, strict=True)
        ]
        value = torch.logsumexp(torch.stack(parts), dim=0)
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return 2.0 * z, torch.tensor(-2.0 * math.log(2.0), dtype=torch.float64)

    def fisher(self, z: Tensor, *, with_prior: bool = True) -> Tensor:
        if self.broken_near is not None and float(z[0]) * self.broken_near > 0:
            return torch.full((2, 2), math.nan, dtype=torch.float64)
        return PRECISIONS[0] if float(z[0]) < 0 else PRECISIONS[1]


class OneProblem(Problem):
    """A problem whose target is given."""

    def __init__(self, target: TwoModes) -> None:
        self.given = target

    def target(self, chart: Chart) -> TwoModes:  # type: ignore[override]
        return self.given


class Here(Workers):
    """One process, and a problem that is given."""

    def __init__(self, target: TwoModes) -> None:
        super().__init__(lambda: FIT, 1, fit=FIT)
        self.problem = OneProblem(target)


FIT = toy_fit(toy_data(n_cell=10, n_channel=4))


def begin(workers: Workers, places: list[int], *, seed: int = 3) -> Run:
    """Chains at the given modes."""
    chains = workers.map(chain_in_chart, [(Chart(), APART[m] + 0.1 * c, 0.5, seed, c) for c, m in enumerate(places)])
    return Run(Chart(), chains, factor_of_precision(add_ridge(PRECISIONS[0])), PRECISIONS[0], APART[0], -math.inf)


def sampler(**changes: object) -> SamplerSection:
    return SamplerSection.model_validate(
        {"kernel": "mala", "chains": 4, "warmup": (40, 40, 40), "draws": 30, "segment": 20, "metric_points": 8, **changes}
    )


def carry(run: Run, workers: Workers, section: SamplerSection) -> list[Run]:
    saved: list[Run] = []
    advance(run, workers, section, save=saved.append, progress=SilentProgress())
    return saved


@pytest.mark.parametrize("log_weight", [-50.0, -3.0, 0.0, 6.0])
def test_log_weights_are_the_evidence_of_gaussians(log_weight: float) -> None:
    """For exact draws: log of peak times (2 pi)^(d/2) / sqrt(det precision), to the Monte-Carlo error of a mean log density."""
    rng, n, d = np.random.default_rng(1), 4000, 5
    precisions, heights = [], []
    for k in range(3):
        root = rng.standard_normal((d, d)) + (2 + k) * np.eye(d)
        precisions.append(torch.from_numpy(root @ root.T))
        heights.append((0.0, log_weight, log_weight)[k] + 0.5 * float(torch.logdet(precisions[k])))
    # log density of draws from a Gaussian: its height minus half a chi-square of d degrees of freedom
    log_density = np.stack([height - 0.5 * rng.chisquare(d, n) for height in heights])
    expected = np.array([0.0, log_weight, log_weight]) - max(0.0, log_weight)
    assert np.allclose(log_weights(log_density, precisions), expected, atol=5 * math.sqrt(d / 2 / n))


def test_log_weights_of_what_is_not_finite() -> None:
    log_density = np.array([[-1.0, -2.0], [-np.inf, -1.0], [-1.0, -2.0]])
    weights = log_weights(log_density, [PRECISIONS[0], PRECISIONS[0], torch.full((2, 2), math.nan, dtype=torch.float64)])
    assert weights[0] == 0.0 and (weights[1:] < -1e300).all()


def test_a_chain_in_a_mode_without_weight_is_brought_back() -> None:
    workers = Here(TwoModes(-60.0))
    run = begin(workers, [0, 0, 1, 0])
    run.superchains = [3, 4, 5, 6]
    saved = carry(run, workers, sampler())
    # chain 2 was brought to where held[2] = chain 3 had been, and counts as of its start from then on
    assert run.superchains == [3, 4, 6, 6]
    assert run.brought_back == 1
    assert (run.warmup["z"][2, 39, 0] > 10) and (run.warmup["z"][:, 40:, 0] < 0).all() and (run.draws["z"][..., 0] < 0).all()
    # it set out from where another chain had been, with random numbers of its own
    assert not np.array_equal(run.draws["z"][2], run.draws["z"][0])
    assert run.best_log_density == pytest.approx(0.5 * math.log(4.0), abs=0.2)
    assert float(run.best_z[0]) == pytest.approx(-20.0, abs=0.5)
    assert saved[-1] is run and json.loads(json.dumps(run.notes()))["brought_back"] == 1


def test_a_chain_in_a_mode_with_weight_stays() -> None:
    workers = Here(TwoModes(-5.0))
    run = begin(workers, [0, 0, 1, 0])
    carry(run, workers, sampler())
    assert run.brought_back == 0
    assert (run.draws["z"][2, :, 0] > 10).all() and (run.draws["z"][[0, 1, 3], :, 0] < 0).all()


def test_many_strays_after_a_short_stage() -> None:
    """More strays than steps in half a stage."""
    workers = Here(TwoModes(-200.0))
    run = begin(workers, [0, 1, 1, 1, 1, 1])
    carry(run, workers, sampler(warmup=(3, 10), chains=6))
    assert run.brought_back == 5 and (run.draws["z"][..., 0] < 0).all()


@pytest.mark.parametrize(("places", "expected"), [([0, 0, 0, 0], 0.0), ([0, 0, 1, 0], 0.25), ([1, 0, 1, 0], 0.5)])
def test_metric_is_the_mean_over_the_chains_that_count(places: list[int], expected: float) -> None:
    workers = Here(TwoModes(-1.0))
    run = begin(workers, places)
    carry(run, workers, sampler(warmup=(40, 40)))
    mixed = (1.0 - expected) * PRECISIONS[0] + expected * PRECISIONS[1]
    assert torch.allclose(run.precision, mixed)
    assert torch.allclose(torch.linalg.inv(run.factor @ run.factor.mT), add_ridge(mixed), rtol=1e-9)


def test_metric_without_the_chains_that_do_not_count() -> None:
    workers = Here(TwoModes(-60.0))
    run = begin(workers, [0, 0, 1, 0])
    carry(run, workers, sampler(warmup=(40, 40)))
    assert torch.allclose(run.precision, PRECISIONS[0])


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_fisher_matrix_that_is_not_finite_neither_counts_nor_banishes(side: float) -> None:
    workers = Here(TwoModes(-1.0, broken_near=side))
    run = begin(workers, [0, 0, 1, 0])
    carry(run, workers, sampler(warmup=(40, 40)))
    assert run.brought_back == 0
    assert torch.isfinite(run.factor).all() and torch.isfinite(run.precision).all()
    assert (run.draws["z"][2, :, 0] > 10).all()


def test_records_and_moments() -> None:
    workers = Here(TwoModes(-60.0))
    run = begin(workers, [0, 0, 0, 0])
    carry(run, workers, sampler(draws=800, segment=300, metric_points=4, warmup=(40, 40, 200)))
    assert run.warmup["z"].shape == (4, 280, 2) and run.draws["z"].shape == (4, 800, 2)
    assert np.allclose(run.draws["theta"], 2.0 * run.draws["z"])
    assert np.allclose(run.draws["log_probability"], run.draws["log_density"] + 2.0 * math.log(2.0))
    assert run.gradients == 4 * 1080 and len(run.steps) == 3
    # one frozen step for all
    assert np.ptp(run.draws["step_size"]) == 0.0 and run.draws["step_size"][0, 0] == pytest.approx(run.steps[-1])
    assert run.draws["acceptance"].mean() == pytest.approx(0.574, abs=0.12)
    scaled = (run.draws["z"] - APART[0].numpy()) * np.sqrt(PRECISIONS[0].diagonal().numpy())
    assert np.abs(scaled.mean(axis=(0, 1))).max() < 0.15 and scaled.std(axis=(0, 1)) == pytest.approx(np.ones(2), abs=0.1)


def test_a_run_comes_back_from_a_checkpoint(tmp_path: object) -> None:
    """Cut off after every segment in turn, restored from its file and carried on: the same draws to the last bit."""
    section, target = sampler(warmup=(30, 10), draws=25, segment=10, kernel="persistent-mala"), TwoModes(-60.0)
    whole = begin(Here(target), [0, 1, 0, 0])
    store = CheckpointStore(tmp_path, "mark")  # type: ignore[arg-type]
    files = []

    def keep(state: Run) -> None:
        store.save(state.arrays(), state.notes())
        files.append(store.newest.read_bytes())

    advance(whole, Here(target), section, save=keep, progress=SilentProgress())
    assert len(files) == 2 + 3 + 3
    for content in files:
        store.newest.write_bytes(content)
        found = store.load()
        assert found is not None
        run = Run.restore(*found)
        carry(run, Here(target), section)
        assert run.notes() == whole.notes()
        restored, expected = run.arrays(), whole.arrays()
        assert restored.keys() == expected.keys()
        assert all(np.array_equal(restored[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("kernel", "aim"), [("mala", 0.574), ("persistent-mala", 0.95), ("hmc", 0.8)])
def test_the_draws_accept_what_was_aimed_at(kernel: str, aim: float) -> None:
    """Dual averaging alone left MALA at 0.68; the last stage tries its step and corrects it. 4 x 400 draws, error some 0.015.

    HMC missed with an unjittered step, since two steps of sqrt(2) are half a period exactly: 0.87, 0.94, 0.82 at 1.2, 1.4, 1.5.
    """
    run = begin(Here(TwoModes(-60.0)), [0, 0, 0, 0])
    carry(run, Here(TwoModes(-60.0)), sampler(kernel=kernel, warmup=(60, 60, 300), draws=400, segment=400))
    assert float(run.draws["acceptance"].mean()) == pytest.approx(aim, abs=0.07)
    assert np.unique(run.draws["step_size"]).size == 1 and run.steps[-1] == run.draws["step_size"][0, 0]


def test_the_published_procedure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metric: the Fisher matrix at the best point, without prior. Step: of the list, what accepts closest to 0.574."""
    asked: list[tuple[Tensor, bool]] = []

    class Told(TwoModes):
        def fisher(self, z: Tensor, *, with_prior: bool = True) -> Tensor:
            asked.append((z, with_prior))
            return super().fisher(z)

    workers = Here(Told(-60.0))
    run = begin(workers, [0, 0, 0, 0])
    sizes = (0.05, 0.4, 1.6, 5.0)
    saved = carry(run, workers, sampler(kernel="mala-paper", warmup=(30, 40), step_sizes=sizes, draws=100))
    assert len(asked) == 1 and not asked[0][1]
    assert run.best_log_density >= run.warmup["log_density"][:, :30].max()
    tried = run.warmup["step_size"][:, 30:]
    assert np.allclose(tried.reshape(4, 4, 10), np.array(sizes)[:, None], rtol=1e-12)
    acceptance = run.warmup["acceptance"][:, 30:].reshape(4, 4, 10).mean(axis=(0, 2))
    assert run.steps[-1] == sizes[int(np.argmin(np.abs(acceptance - 0.574)))] == 1.6
    assert saved and run.brought_back == 0


def test_a_chart_comes_back_from_its_notes() -> None:
    workers = Here(TwoModes(0.0))
    for chart in (Chart(), Chart(12.5, 0.8, 0.5, (("PA", 12.5), ("x", 0.1)), (1.5, -0.3))):
        run = begin(workers, [0, 1])
        run.chart = chart
        assert Run.restore(run.arrays(), json.loads(json.dumps(run.notes()))).chart == chart
