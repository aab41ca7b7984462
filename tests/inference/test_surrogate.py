"""The likelihood's expansion: exact at its centre to second order, by the model's own derivatives; and HMC that follows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from supermage.errors import RecipeError, SupermageError
from supermage.forward.rotation import ROTATION_ONLY, between_knots
from supermage.inference import chains
from supermage.inference.arviz_access import ess
from supermage.inference.chains import Problem, Segment, run_together, start_chain
from supermage.inference.fit import fit
from supermage.inference.langevin import SURROGATE
from supermage.inference.model import Chart, GalaxyFit, PosteriorTarget, build_model
from supermage.inference.posterior import Posterior
from supermage.inference.surrogate import Surrogate, SurrogateTarget, beside_rotation, expand, features
from supermage.recipe import Recipe
from tests.data_reduction.factories import make_gridded
from tests.inference.toy import FREE, TRUTH, ToyFactory, ToySky, held, tensors, toy_data, toy_fit, toy_recipe

DATA = toy_data(n_cell=20, n_channel=6)
PRIORS = held(*FREE)
CHART = Chart(cut=67.0)
EASY = ("log10_mbh", "PA", "systemic_velocity", "x", "Flux")
"""Without the pivots' valleys, in which a few hundred draws would not converge."""


class Rotating(ToySky):
    """The toy, which also says its speeds at three radii and takes a change of them."""

    knots = TRUTH["scale_length"] * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    _added = torch.zeros(3, dtype=torch.float64)

    def circular_velocity(self, theta: Mapping[str, Tensor], radius_arcsec: Tensor, component: str = "total") -> Tensor:
        added = between_knots(self._added, torch.log(radius_arcsec), torch.log(self.knots))
        return super().circular_velocity(theta, radius_arcsec, component) + added

    def projected_speed(self, theta: Mapping[str, Tensor]) -> Tensor:
        return super().circular_velocity(theta, self.knots) * torch.sin(torch.deg2rad(theta["inclination"]))

    def visibilities(self, theta: Mapping[str, Tensor], *, speed_change: Tensor | None = None) -> Tensor:
        if speed_change is not None:
            self._added = speed_change / torch.sin(torch.deg2rad(theta["inclination"]))
        try:
            return super().visibilities(theta)
        finally:
            self.__dict__.pop("_added", None)


def turning_fit(*free: str) -> GalaxyFit:
    plain = toy_fit(DATA, priors=held(*(free or FREE)))
    return GalaxyFit(Rotating(DATA), plain.noise, plain.priors)


def target_at(z: Tensor) -> tuple[SurrogateTarget, Problem]:
    problem = Problem(turning_fit())
    coordinates = problem.fit.coordinates(CHART)
    return SurrogateTarget(problem.fit, coordinates, expand(problem.fit, coordinates.to_theta(z)[0]), temper=1.0), problem


def test_value_and_gradient_are_the_posteriors_at_the_centre() -> None:
    z = 0.2 * torch.randn(len(FREE), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    surrogate, problem = target_at(z)
    value, gradient = surrogate(z[None])
    expected = problem.target(CHART).value_and_gradient(z)
    assert float(value[0]) == pytest.approx(float(expected[0]), rel=1e-7)
    assert torch.allclose(gradient[0], expected[1], rtol=1e-4, atol=1e-4 * float(expected[1].abs().max()))


def test_the_fall_from_the_optimum_is_the_posteriors() -> None:
    """Where data are at their model's best, half a Mahalanobis distance by the Fisher matrix: a few hundredths, to third order."""
    coordinates = turning_fit().coordinates(CHART)
    z = coordinates.from_theta(TRUTH)
    surrogate, problem = target_at(z)
    target = problem.target(CHART)
    precision = target.fisher(z)
    width = torch.linalg.cholesky(torch.linalg.inv(precision))
    for k in range(4):
        step = 0.15 * width @ torch.randn(len(FREE), dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        there = target.value_and_gradient(z + step)[0] - target.value_and_gradient(z)[0]
        found = (surrogate((z + step)[None])[0] - surrogate(z[None])[0])[0]
        assert float(found) == pytest.approx(float(there), abs=0.05)


@pytest.mark.parametrize("section", [{}, {"model": {"block_flux": 0.1}, "mass_prior": {"mean": 9.5, "width": 0.1, "radius": 3.0}}])
def test_a_galaxys_gradient_at_the_centre_is_the_posteriors(section: dict[str, object]) -> None:
    """Of the forward model itself, in every kind of coordinate, with flux scales of the blocks and a prior on the mass, or neither."""
    galaxy = {"name": "toy", "distance": 11.4, "rest_frequency": 230.538e9}
    model = {"precision": "float64", **section.get("model", {})}
    recipe = Recipe.model_validate({"galaxy": galaxy, "fit": {"visibilities": "v.nc", "output": "p.nc", **section, "model": model}})
    fit = build_model(recipe, make_gridded(n_channel=4, n_cell=30))
    chart = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())), (1.7, 0.3), (("break_r", 2.0, 1.5, 0.2),))
    target = PosteriorTarget(fit, fit.coordinates(chart))
    start = {p.name: min(max(TRUTH.get(p.name, 1.05), p.lower + 0.01), p.upper - 0.01) for p in fit.priors.free}
    z = target.coordinates.from_theta(start)
    surrogate = SurrogateTarget(fit, target.coordinates, expand(fit, target.coordinates.to_theta(z)[0]), temper=1.0)
    value, gradient = surrogate(z[None])
    expected = target.value_and_gradient(z)
    assert float(value[0]) == pytest.approx(float(expected[0]), rel=1e-9)
    width = 1.0 / torch.sqrt(target.fisher(z).diagonal())
    # in widths: what is left is the speeds' interpolation between knots
    assert float(((gradient[0] - expected[1]) * width).abs().max()) < 0.02


def test_every_free_parameter_is_a_feature_of_a_model_without_speeds() -> None:
    plain = toy_fit(DATA, priors=PRIORS)
    assert beside_rotation(plain) == plain.names
    expected = {**tensors(TRUTH), "Flux": torch.log(tensors(TRUTH)["Flux"])}
    assert torch.equal(features(plain, tensors(TRUTH)), torch.stack([expected[name] for name in plain.names]))


def test_parameters_of_the_mass_are_seen_by_their_speeds() -> None:
    turning = turning_fit()
    beside = beside_rotation(turning)
    assert beside == ("PA", "systemic_velocity", "x", "Flux") and set(beside) == set(turning.names) - ROTATION_ONLY
    assert len(features(turning, tensors(TRUTH))) == len(beside) + 3


def test_whole_through_a_checkpoint() -> None:
    numbers = (torch.randn(shape, dtype=torch.float64) for shape in ((3,), (), (3,), (3, 3)))
    surrogate = Surrogate(*numbers, torch.tensor([False, True, False]))
    again = Surrogate.from_arrays(surrogate.arrays())
    point = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(again(point), surrogate(point))


def test_an_angle_is_as_far_on_either_side_of_north() -> None:
    unit, square = torch.ones(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    surrogate = Surrogate(2.0 * unit, 0.0 * unit[0], 0.0 * unit, square, unit > 0)
    assert surrogate(torch.tensor([[359.0], [5.0], [-1.0]], dtype=torch.float64)).tolist() == [-4.5, -4.5, -4.5]


def draws_of(kernel: str, surrogate: Surrogate | None, *, n: int) -> np.ndarray:
    problem = Problem(turning_fit(*EASY))
    target = problem.target(CHART)
    z = target.coordinates.from_theta(TRUTH)
    factor = torch.linalg.cholesky(torch.linalg.inv(target.fisher(z)))
    begun = [start_chain(target, z, step_size=0.3, seed=4, number=c) for c in range(8)]
    drawn = run_together(target, [Segment(chain, kernel, factor, n, False, None, 1.0, surrogate) for chain in begun])
    return np.stack([d.theta for d in drawn])[:, n // 5 :]


def test_draws_are_those_of_the_posterior_even_by_a_poor_expansion() -> None:
    """Means and widths against those of HMC on the posterior itself, within 4.5 Monte-Carlo errors: ten numbers, false alarm 1e-4."""
    good = expand(turning_fit(*EASY), tensors(TRUTH))
    shift = torch.zeros_like(good.centre)
    shift[2] = 0.3 / torch.sqrt(good.curvature[2, 2])
    tilted = replace(good, centre=good.centre + shift, curvature=1.2 * good.curvature)
    ours, theirs = draws_of(SURROGATE, tilted, n=300), draws_of("hmc", None, n=150)
    for k in range(len(EASY)):
        middle = theirs[..., k].mean()
        for power in (1, 2):
            mine, other = ((draws[..., k] - middle) ** power for draws in (ours, theirs))
            error = math.hypot(*(values.std() / math.sqrt(ess(values)) for values in (mine, other)))
            assert abs(mine.mean() - other.mean()) < 4.5 * error


def run_fit(recipe: Recipe) -> Posterior:
    return fit(recipe, factory=ToyFactory(recipe))


def test_an_interrupted_fit_ends_with_the_same_draws(tmp_path: Path) -> None:
    options = {"kernel": SURROGATE, "warmup": (4, 3, 3), "draws": 8, "segment": 4, "chains": 4, "processes": 1}
    whole = run_fit(toy_recipe(tmp_path / "whole", **options))
    run_fit(toy_recipe(tmp_path / "cut", **{**options, "draws": 4}))
    again = run_fit(toy_recipe(tmp_path / "cut", **options))
    for name in whole.names:
        assert np.array_equal(again.draws(name), whole.draws(name)), name
    assert whole.attributes["kernel"] == SURROGATE


def test_one_stage_of_warm_up_tunes_the_expansions_steps(tmp_path: Path) -> None:
    """By the last trials' acceptance under the expansion; Barker's step before them knows nothing of it."""
    options = {"kernel": SURROGATE, "warmup": (40,), "draws": 4, "segment": 4, "chains": 4}
    bold, careful = (run_fit(toy_recipe(tmp_path / f"{aim}", **options, target_acceptance=aim)) for aim in (0.3, 0.95))
    step = [float(found.to_arviz()["sample_stats"]["step_size"].max()) for found in (bold, careful)]
    assert step[1] < 0.7 * step[0]


def test_an_expansion_that_is_not_finite_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Surrogate(*(torch.full(shape, torch.nan) for shape in ((3,), (), (3,), (3, 3))), torch.zeros(3) > 0)
    monkeypatch.setattr(chains, "expand", lambda *_: broken)
    with pytest.raises(SupermageError, match="needs finite derivatives of the likelihood at the best point"):
        run_fit(toy_recipe(tmp_path, kernel=SURROGATE))


def test_the_draws_do_not_depend_on_how_many_processes_come_back(tmp_path: Path) -> None:
    """Chains that share the expansion's passes stay together: a run of one process goes on in two, and ends as it would have."""
    options = {"kernel": SURROGATE, "warmup": (4, 3, 3), "segment": 4, "chains": 4}
    whole = run_fit(toy_recipe(tmp_path / "whole", **options, draws=8, processes=1))
    run_fit(toy_recipe(tmp_path / "cut", **options, draws=4, processes=1))
    again = run_fit(toy_recipe(tmp_path / "cut", **options, draws=8, processes=2))
    for name in whole.names:
        assert np.array_equal(again.draws(name), whole.draws(name)), name


def test_the_kernel_is_no_burn_in(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fit\.sampler\.burn_in must be one of"):
        run_fit(toy_recipe(tmp_path, burn_in=SURROGATE))
