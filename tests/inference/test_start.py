"""Starts: the scan against brute force, the climb against scipy, what is merged and where chains set out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from supermage.inference.chains import Problem
from supermage.inference.model import Chart, PosteriorTarget
from supermage.inference.start import (
    INWARDS,
    KEEP_WITHIN,
    Optimum,
    Search,
    draw_starts,
    levenberg_marquardt,
    merge,
    optimum_in_chart,
    overdispersed,
    polish,
    scan,
    vary_starts,
)
from tests.inference.toy import TRUTH, held, tensors, toy_data, toy_fit

# on the scan's grid of 17 x 17 centres, 0.12" apart
CENTRED = {**TRUTH, "x": 0.12, "y": -0.24, "Flux": 9.0}
CHART = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())), (1.7, 0.3))


@pytest.mark.parametrize("truth", [CENTRED, {**CENTRED, "x": -0.96, "y": 0.6}])
def test_scan_finds_flux_and_centre_exactly(truth: dict[str, float]) -> None:
    fit = toy_fit(toy_data(n_cell=60, n_channel=8, n_block=1, noise=False, truth=truth))
    start = {**truth, "x": 0.31, "y": 0.77, "Flux": 30.0}
    ((value, found),) = scan(Problem(fit), [start])
    assert {name: found[name] for name in ("x", "y", "Flux")} == pytest.approx({name: truth[name] for name in ("x", "y", "Flux")})
    assert {**found, **truth} == truth | {name: found[name] for name in found if name not in truth}
    assert value == pytest.approx(float(fit.log_likelihood(tensors(truth))), abs=1e-6)
    assert start["Flux"] == 30.0


def test_scan_is_the_best_of_all_trials() -> None:
    """Noise and a wrong start: the same as computing the model at every trial centre, its best flux by least squares."""
    fit = toy_fit(toy_data(n_cell=60, n_channel=8, n_block=1, truth=CENTRED))
    start = {**TRUTH, "PA": 90.0, "scale_length": 0.4, "Flux": 5.0}
    ((value, found),) = scan(Problem(fit), [start])
    data, best = fit.noise.whitened_data.reshape(-1).numpy(), (np.inf, 0.0, 0.0, 0.0)
    for x in np.linspace(-0.96, 0.96, 17):
        for y in np.linspace(-0.96, 0.96, 17):
            model = fit.noise.whiten(fit.galaxy_model.visibilities(tensors({**start, "x": x, "y": y}))).reshape(-1).numpy()
            ratio = float(np.linalg.lstsq(model[:, None], data, rcond=None)[0][0])
            if ratio > 0:
                best = min(best, (float(np.sum((ratio * model - data) ** 2)), x, y, start["Flux"] * ratio))
    assert (found["x"], found["y"], found["Flux"]) == pytest.approx(best[1:])
    assert value == pytest.approx(float(fit.log_likelihood(tensors(found))), abs=1e-6)


def test_scan_keeps_what_is_fixed() -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6), priors={"x": {"fixed": 0.1}, "Flux": {"fixed": 2.0}})
    ((_, found),) = scan(Problem(fit), [TRUTH])
    assert found["x"] == 0.1 and found["Flux"] == 2.0


def test_scan_of_a_model_that_is_not_finite() -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6))
    ((value, found),) = scan(Problem(fit), [{**TRUTH, "line_broadening": math.nan}])
    assert value == -math.inf and found["Flux"] == 2.0


def test_climb_reaches_the_optimum_of_scipy() -> None:
    truth, free = {**TRUTH, "Flux": 12.0}, ("intensity_rb", "PA", "systemic_velocity", "x", "y", "Flux")
    fit = toy_fit(toy_data(n_cell=60, n_channel=8, truth=truth), priors=held(*free, truth=truth))
    target = PosteriorTarget(fit, fit.coordinates(CHART))
    z = target.coordinates.from_theta({**truth, "PA": 60.0, "x": 0.15, "intensity_rb": 4.2, "systemic_velocity": 1236.0, "Flux": 9.0})
    found = levenberg_marquardt(target, z)

    def minus(p: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = target.value_and_gradient(torch.from_numpy(p))
        return -float(value), -gradient.numpy()

    best = optimize.minimize(minus, found.z.numpy() + 0.02, jac=True, method="BFGS", options={"gtol": 1e-4})
    assert found.log_density == pytest.approx(-best.fun, abs=0.1)
    apart = found.z - torch.from_numpy(best.x)
    assert float(apart @ found.precision @ apart) < 0.3
    assert found.log_density > float(target.value_and_gradient(z)[0]) + 10
    assert torch.allclose(found.precision, target.fisher(found.z))
    theta, value = polish(Problem(fit), CHART, {**truth, "PA": 60.0, "Flux": 9.0}, 40)
    assert value == pytest.approx(float(fit.log_prob(tensors(theta))))
    again = optimum_in_chart(Problem(fit), CHART, theta, 15)
    assert again.log_density == pytest.approx(found.log_density, abs=0.1)


def optimum(z: list[float], log_density: float, width: float = 1.0) -> Optimum:
    position = torch.tensor(z, dtype=torch.float64)
    return Optimum(position, log_density, torch.eye(len(z), dtype=torch.float64) / width**2)


def test_merge_keeps_the_best_of_each_place() -> None:
    # in 3 dimensions a squared distance of 3 in the better one's widths is the same place
    best, same, other, far_below = (
        optimum([0.0, 0.0, 0.0], 10.0),
        optimum([1.0, 1.0, 0.9], 9.0),
        optimum([1.1, 1.1, 1.1], 8.0),
        optimum([50.0, 0.0, 0.0], 10.0 - KEEP_WITHIN - 0.1),
    )
    assert merge([far_below, other, same, best]) == [best, other]
    # it is the better one's widths that count
    assert merge([optimum([0.0, 0.0, 0.0], 10.0, width=0.1), same])[1] is same
    assert merge([best]) == [best]
    assert len(merge([best, optimum([50.0, 0.0, 0.0], 10.0 - KEEP_WITHIN + 0.1)])) == 2


def test_overdispersed_is_as_wide_as_asked() -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held("x", "y", "Flux"))
    target = PosteriorTarget(fit, fit.coordinates(Chart()))
    z = target.coordinates.from_theta(TRUTH)
    precision = torch.tensor([[900.0, 200.0, 0.0], [200.0, 400.0, 10.0], [0.0, 10.0, 100.0]], dtype=torch.float64)
    rng = np.random.default_rng(1)
    placed = torch.stack([overdispersed(target, Optimum(z, 0.0, precision), factor=3.0, rng=rng) for _ in range(400)]) - z
    covariance = placed.mT @ placed / len(placed)
    assert torch.allclose(covariance @ precision, 9.0 * torch.eye(3, dtype=torch.float64), atol=3.5)
    assert float((placed @ precision * placed).sum(dim=1).mean()) == pytest.approx(27.0, rel=0.1)


def test_overdispersed_comes_closer_where_the_density_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = toy_fit(toy_data(n_cell=20, n_channel=6), priors=held("x", "y"))
    target = PosteriorTarget(fit, fit.coordinates(Chart()))
    centre = optimum([0.0, 0.0], 0.0)

    def island(z: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(0.0 if float(z.norm()) < radius else -math.inf), torch.zeros_like(z)

    rng = np.random.default_rng(2)
    for radius in (0.5, 1e-9):
        monkeypatch.setattr(target, "value_and_gradient", lambda z, r=radius: island(z, r))
        for _ in range(5):
            assert float(overdispersed(target, centre, factor=50.0, rng=rng).norm()) < radius


def test_starts_lie_inside_the_priors_and_rotate_as_the_data_can_see() -> None:
    data = toy_data(n_cell=20, n_channel=24)
    fit = toy_fit(data, priors={"qintr": {"fixed": 0.6}})
    search = Search.of(data)
    assert search.scale_length == (data.grid.pixel_scale, pytest.approx(64 * data.grid.pixel_scale / 6.0))
    assert search.velocity[1] == pytest.approx(0.6 * np.ptp(data.velocity))
    starts = draw_starts(fit, 60, np.random.default_rng(3), search)
    scanned = [(float(k), start) for k, start in enumerate(starts)]
    varied = vary_starts(fit, scanned, 40, np.random.default_rng(4))
    for start in starts + varied:
        assert set(start) == set(TRUTH) and start["qintr"] == 0.6
        for p in fit.priors.free:
            margin = INWARDS * (p.upper - p.lower) - 1e-9
            assert p.lower + margin <= start[p.name] <= p.upper - margin, p.name
    inside = 0
    for start in starts:
        radius = torch.tensor([start["scale_length"]], dtype=torch.float64)
        speed = float(fit.galaxy_model.circular_velocity(tensors(start), radius)[0])
        inside += search.velocity[0] * 0.95 < speed < search.velocity[1] * 1.05
    assert inside > 50  # the rest stopped at an edge of a prior
    # variations are of the five best, turned by some 15 deg
    parents = [start["PA"] for start in starts[-5:]]
    turns = np.array([min(abs((v["PA"] - p + 180.0) % 360.0 - 180.0) for p in parents) for v in varied])
    assert np.median(turns) < 20.0 and turns.max() < 60.0
