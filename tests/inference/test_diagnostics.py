"""R-hat, effective sample sizes, edges and widths against ArviZ and closed forms."""

from __future__ import annotations

import dataclasses
import math
import statistics
import warnings

import numpy as np
import pytest

from supermage.errors import DomainError
from supermage.inference.diagnostics import EDGE_SHARE, diagnose, diagnose_parameter, find_modes, nested_rhat, unwrap_angle
from supermage.inference.parameters import PARAMETERS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

X = dataclasses.replace(PARAMETERS["x"], lower=-5.0, upper=5.0)
ANGLE = PARAMETERS["PA"]


def autoregressive(rho: float, *, offset: float = 0.0, seed: int = 1, n: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.zeros((4, n))
    for k in range(1, n):
        x[:, k] = rho * x[:, k - 1] + math.sqrt(1 - rho**2) * rng.standard_normal(4)
    return x + offset * np.arange(4)[:, None]


@pytest.mark.parametrize(("rho", "offset"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.3)])
def test_numbers_are_those_of_arviz(rho: float, offset: float) -> None:
    x = autoregressive(rho, offset=offset)
    found = diagnose_parameter(x, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.rhat == pytest.approx(float(arviz.rhat(x)))
        assert found.ess_bulk == pytest.approx(float(arviz.ess(x, method="bulk")))
        assert found.ess_tail == pytest.approx(float(arviz.ess(x, method="tail", prob=(0.05, 0.95))))
        assert found.mcse_mean == pytest.approx(float(arviz.mcse({"x": x}, method="mean")["x"]), rel=1e-3)
    assert found.width_ratio == pytest.approx(x.std() / (10.0 / math.sqrt(12.0)))


def test_effective_sample_size_of_an_autoregressive_chain() -> None:
    found = diagnose_parameter(autoregressive(0.8, n=8000), X)
    assert found.ess_bulk == pytest.approx(4 * 8000 * 0.2 / 1.8, rel=0.15)
    assert found.rhat < 1.01


def test_rhat_of_chains_apart() -> None:
    """Unit normals whose means scatter by s have R-hat near sqrt(1 + s^2)."""
    x = autoregressive(0.0, offset=1.0)
    assert diagnose_parameter(x, X).rhat == pytest.approx(math.sqrt(1 + np.var([0, 1, 2, 3], ddof=1)), rel=0.1)


def test_edges_are_seen() -> None:
    rng = np.random.default_rng(2)
    flat = diagnose_parameter(rng.uniform(-5, 5, (4, 5000)), X)
    assert flat.lower_edge == pytest.approx(EDGE_SHARE, rel=0.2) and flat.upper_edge == pytest.approx(EDGE_SHARE, rel=0.2)
    assert flat.width_ratio == pytest.approx(1.0, rel=0.02)
    low = diagnose_parameter(np.abs(rng.normal(0, 0.1, (4, 500))) - 5.0, X)
    assert low.lower_edge > 0.9 and low.upper_edge == 0.0
    high = diagnose_parameter(5.0 - np.abs(rng.normal(0, 0.1, (4, 500))), X)
    assert high.upper_edge > 0.9 and high.lower_edge == 0.0
    # a circle has no edges
    circle = diagnose_parameter(rng.uniform(0, 2, (4, 500)), ANGLE, circular=True)
    assert circle.lower_edge == circle.upper_edge == 0.0


@pytest.mark.parametrize("centre", [0.5, 67.0, 180.0, 300.0, 359.5])
def test_angles_across_the_cut(centre: float) -> None:
    rng = np.random.default_rng(3)
    straight = centre + rng.normal(0, 3.0, (4, 400))
    unwrapped = unwrap_angle(straight % 360.0)
    assert np.ptp(unwrapped) < 40.0
    assert np.allclose((unwrapped - straight + 180.0) % 360.0, 180.0)
    assert -1.0 < unwrapped.mean() < 361.0
    found = diagnose_parameter(straight % 360.0, ANGLE, circular=True)
    direct = diagnose_parameter(straight, ANGLE)
    assert found.rhat == pytest.approx(direct.rhat) and found.width_ratio == pytest.approx(direct.width_ratio)


def test_verdict() -> None:
    good, slow, apart = autoregressive(0.0), autoregressive(0.99, n=1000), autoregressive(0.0, offset=0.5)
    y = dataclasses.replace(X, name="y")
    both = diagnose({"x": good, "y": good}, (X, y), acceptance=np.full((4, 2000), 0.7))
    assert both.converged
    assert both.acceptance == pytest.approx((0.7,) * 4)
    for bad in (slow, apart, np.zeros((4, 100))):
        assert not diagnose({"x": good, "y": bad}, (X, y)).converged
        assert not diagnose({"x": bad, "y": good}, (X, y)).converged
    mixed = diagnose({"x": good, "y": apart}, (X, y))
    assert mixed.worst_rhat == mixed.parameters["y"].rhat > mixed.parameters["x"].rhat
    assert mixed.smallest_ess == min(mixed.parameters["y"].ess_bulk, mixed.parameters["y"].ess_tail)


def test_nested_rhat_by_its_definition() -> None:
    """Four groups of three chains of one draw: the variance between group means over that within, Margossian et al. 2024, sec. 3."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(12, 1)) + np.repeat([0.0, 0.0, 3.0, 0.0], 3)[:, None]
    groups = np.repeat(np.arange(4), 3)
    means = np.array([x[groups == g].mean() for g in range(4)])
    within = np.mean([statistics.variance(x[groups == g, 0].tolist()) for g in range(4)])
    assert nested_rhat(x, groups.tolist()) == pytest.approx(math.sqrt(1.0 + statistics.variance(means.tolist()) / within))
    assert nested_rhat(autoregressive(0.0), range(4)) == pytest.approx(1.0, abs=0.01)
    # chains of one start agree with each other and not with those of the other
    apart = autoregressive(0.0) + np.array([0.0, 0.0, 2.0, 2.0])[:, None]
    assert nested_rhat(apart, [0, 0, 1, 1]) == pytest.approx(math.sqrt(1.0 + 2.0 / 1.0), rel=0.05)
    with pytest.raises(DomainError, match="chains of at least two starts, got 1"):
        nested_rhat(apart, [0, 0, 0, 0])


def test_chains_in_different_modes_are_named() -> None:
    near, far = autoregressive(0.5), autoregressive(0.5) + np.array([0.0, 6.0, 0.0, 6.0])[:, None]
    assert find_modes({"x": near, "y": near}) == ((0, 1, 2, 3),)
    assert find_modes({"x": near, "y": far}) == ((0, 2), (1, 3))
    # a chain between two others joins them
    assert find_modes({"x": near[:3] + np.array([0.0, 2.0, 4.0])[:, None]}) == ((0, 1, 2),)
    found = diagnose({"x": near, "y": far}, (X, dataclasses.replace(X, name="y")))
    assert found.modes == ((0, 2), (1, 3)) and not found.converged and found.worst_nested_rhat > 2.0
    # on a circle 359 deg and 1 deg are one place
    angle = (autoregressive(0.0) + np.array([359.0, 1.0, 359.0, 1.0])[:, None]) % 360.0
    assert diagnose({"PA": angle}, (ANGLE,), circular=("PA",)).modes == ((0, 1, 2, 3),)


def test_too_few_draws_do_not_converge() -> None:
    assert not diagnose({"x": np.random.default_rng(4).normal(size=(2, 3))}, (X,)).converged
    assert not diagnose({"x": np.random.default_rng(4).normal(size=(2, 20))}, (X,)).converged


def test_every_failure_is_told() -> None:
    """Eight short chains of two starts that differ by a width: each R-hat of its own, and the modes."""
    rng = np.random.default_rng(0)
    parameter = PARAMETERS["gamma"]
    start = np.repeat([0.0, 0.12], 4)[:, None]
    draws = 0.5 + 0.1 * rng.standard_normal((8, 100)) + start
    found = diagnose({"gamma": draws}, (parameter,), superchains=[0, 0, 0, 0, 1, 1, 1, 1])
    assert not found.converged
    assert found.worst_nested_name == "gamma"
    words = [text.split(" (")[0].rsplit(" ", 1)[0] for text in found.failures]
    assert words == ["worst R-hat", "nested R-hat", "smallest effective sample size"]
    assert found.failures[1].endswith("chains of different starts disagree")
    far = diagnose({"gamma": draws + 5.0 * start}, (parameter,), superchains=[0, 0, 0, 0, 1, 1, 1, 1])
    assert far.failures[-1] == "chains in 2 modes: 1, 2, 3, 4; 5, 6, 7, 8"
    good = diagnose({"gamma": 0.5 + 0.1 * rng.standard_normal((8, 400))}, (parameter,), superchains=[0, 0, 0, 0, 1, 1, 1, 1])
    assert good.converged and good.failures == ()
