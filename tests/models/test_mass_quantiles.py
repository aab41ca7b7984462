"""Quantiles of many rows at once are those of the marginals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from supermage.models import mass_quantiles
from supermage.models.mass_prior import MassPrior
from supermage.models.mass_quantiles import fast_quantiles
from tests.models.mass_mixtures import mixture

POINTS = (0.025, 0.16, 0.5, 0.84, 0.975)


@pytest.mark.parametrize("name", ["log_mstar", "log_ml", "log_mtot", "log_fstar"])
@pytest.mark.parametrize("share", [0.001, 0.3])
def test_probabilities_of_the_quantiles_are_those_asked_for(name: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the marginal's own distribution function: to 1e-3, with little of the population and with much; 3 of 7 rows at once."""
    monkeypatch.setattr(mass_quantiles, "ROWS", 3)
    base = mixture(7)
    wide = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    head = base.log_weight[:, :2].log_softmax(-1) + np.log1p(-share)
    log_weight = torch.cat([head, torch.full((7, 1), np.log(share), dtype=torch.float64)], dim=1)
    alike = replace(base, log_weight=log_weight, mean=torch.where(wide[:, None] > 0, base.mean[:1], base.mean),
                    factor=torch.where(wide[:, None, None] > 0, base.factor[:1], base.factor))  # fmt: skip
    prior = MassPrior(alike, log_light=torch.full((7,), 9.0, dtype=torch.float64))
    got = fast_quantiles(prior, name, POINTS)
    below = prior.marginal(name).cdf(torch.from_numpy(got.T.copy())).numpy()
    assert got.shape == (7, 5)
    assert np.abs(below - np.array(POINTS)[:, None]).max() < 1e-3


def test_no_rows() -> None:
    assert fast_quantiles(MassPrior(mixture(3))[:0], "log_mtot", POINTS).shape == (0, 5)
