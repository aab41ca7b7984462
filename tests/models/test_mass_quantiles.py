"""Quantiles of many rows at once are those of the marginals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from supermage.models import mass_quantiles
from supermage.models.mass_prior import MassPrior
from supermage.models.mass_quantiles import fast_quantiles, hermite_nodes
from tests.models.mass_mixtures import mixture

POINTS = (0.025, 0.16, 0.5, 0.84, 0.975)


@pytest.mark.parametrize("name", ["log_mstar", "log_mtot", "log_fstar", "log_ml"])
def test_same_as_the_marginal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of 3 of 7 rows. The mixtures' widest components are 4 times as wide as the others: 2e-3 dex."""
    monkeypatch.setattr(mass_quantiles, "ROWS", 3)
    prior = MassPrior(mixture(7), log_light=torch.full((7,), 9.0, dtype=torch.float64))
    exact = prior.marginal(name).quantiles(POINTS).numpy()
    got = fast_quantiles(prior, name, POINTS)
    assert got.shape == (7, 5)
    tolerance = 2e-3 if name == "log_mtot" else 1e-4
    assert np.abs(got - exact).max() < tolerance


def test_rows_that_do_not_settle_are_solved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_quantiles, "ROUNDS", 1)
    prior = MassPrior(mixture(4))
    got = fast_quantiles(prior, "log_mstar", POINTS)
    assert np.abs(got - prior.marginal("log_mstar").quantiles(POINTS).numpy()).max() < 1e-9


def test_hermite_nodes_are_exact_for_polynomials() -> None:
    points, weights = hermite_nodes(5)
    assert [float((weights * points**power).sum()) for power in (0, 1, 2, 4, 6, 8)] == pytest.approx([1, 0, 1, 3, 15, 105], abs=1e-9)
