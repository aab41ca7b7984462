"""Small mixtures and samples for the tests of mass priors."""

from __future__ import annotations

import numpy as np
import torch

from supermage.models.mass_prior import MassPrior
from supermage.models.mass_sample import Sample
from supermage.models.recalibration import Warp
from supermage.models.warped_mixture import WarpedMixture

WARP = Warp(torch.tensor([[0.1, 0.1, 0.1, 0.1], [-0.1, 0.2, -0.2, -0.1], [0.05, -0.1, 0.1, 0.2]], dtype=torch.float64))


def mixture(rows: int = 2, *, seed: int = 0, warp: Warp = WARP) -> WarpedMixture:
    """Three components, one of them wide and not warped, with correlations."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.03, 0.09, 0.4], dtype=torch.float64)
    away = torch.randn(rows, 3, 3, generator=generator, dtype=torch.float64)
    mean = torch.tensor([9.5, 0.2, -1.5], dtype=torch.float64) + 2.0 * spread * away
    below = torch.randn(rows, 3, 3, 3, generator=generator, dtype=torch.float64).tril(-1)
    factor = torch.diag_embed(spread.expand(rows, 3, 3)) + 0.02 * below
    factor[:, -1] *= 4.0
    weight = torch.log_softmax(torch.randn(rows, 3, generator=generator, dtype=torch.float64), dim=-1)
    return WarpedMixture(weight, mean, factor, mean[:, :2].mean(1), 2.0 * spread.expand(rows, 3), torch.tensor([True, True, False]), warp)


def prior(rows: int = 2, **options: object) -> MassPrior:
    """A prior of the default targets."""
    return MassPrior(mixture(rows), log_light=torch.full((rows,), 9.8, dtype=torch.float64), **options)


def sample(rows: int = 900, *, seed: int = 3) -> Sample:
    """Galaxies whose masses follow from their columns by a known rule, with scatter; in groups of three."""
    generator = np.random.default_rng(seed)
    magnitude, colour = generator.normal(-19.5, 1.5, rows), generator.normal(0.6, 0.12, rows)
    sigma, radius = 10.0 ** generator.normal(1.9, 0.2, rows), 10.0 ** generator.normal(0.5, 0.2, rows)
    log_star = -0.4 * (magnitude - 4.65) + 1.2 * (colour - 0.6) + 0.05 * generator.standard_normal(rows)
    excess = 0.3 + 0.5 * (np.log10(radius) - 0.5) + 0.1 * generator.standard_normal(rows)
    stellar, total = 10.0**log_star, 10.0**log_star * (1.0 + 10.0**excess)
    dark = (total - stellar) * generator.uniform(0.85, 0.99, rows)
    columns = {"M_r": magnitude, "g_r": colour, "sigma_3d1": sigma, "r_hsm": radius}
    light = 0.4 * (4.65 - magnitude) - np.log10(2.0)
    return Sample(columns, stellar, total, dark, np.arange(rows) // 3, light, "1rhsm", "galaxies made by a rule")


OPTIONS = {"features": ["M_r", "g_r", "log_sigma", "log_r_hsm"], "needs": ["M_r"], "steps": 40, "warmup": 5,
           "rounds": 20, "members": 2, "hidden": 8,
           "population": 2, "batch": 64, "fractions": [0.4, 0.1, 0.3, 0.2], "masked": 1}  # fmt: skip
"""Of a training that takes a second."""
