"""The density of the stars' mass under the whole prior of a fit, from what its posterior records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.inference.mass_knowledge import NUMBERS
from supermage.inference.mass_prior import CORE
from supermage.report.record import StoredMassPrior

FloatArray = NDArray[np.float64]

REJECTED = 0.005
"""Share of the prior's draws beyond the bounds of ``intensity_rb`` up to which the prior of the mass is taken as given."""

EVEN = 0.02
"""Share by which acceptance may differ over the draws of a posterior, likewise."""


@dataclass(frozen=True, eq=False)
class PriorCurve:
    """A density of log10 of the stars' mass.

    Attributes
    ----------
    log_mass
        Ascending, shape (node,).
    log_density
        Per dex, normalised, shape (node,); linear between nodes.
    """

    log_mass: FloatArray
    log_density: FloatArray

    @cached_property
    def _sums(self) -> tuple[FloatArray, FloatArray]:
        """Probability below and above every node, each summed from its own end."""
        density = np.exp(self.log_density)
        cells = 0.5 * (density[1:] + density[:-1]) * np.diff(self.log_mass)
        return np.concatenate([[0.0], np.cumsum(cells)]), np.concatenate([np.cumsum(cells[::-1])[::-1], [0.0]])

    def log_at(self, log_mass: FloatArray) -> FloatArray:
        """Log density at masses within the nodes."""
        return np.interp(log_mass, self.log_mass, self.log_density)

    def below(self, log_mass: FloatArray) -> FloatArray:
        """Probability of less."""
        return np.interp(log_mass, self.log_mass, self._sums[0])

    def above(self, log_mass: FloatArray) -> FloatArray:
        """Probability of more."""
        return np.interp(log_mass, self.log_mass, self._sums[1])

    @cached_property
    def core(self) -> tuple[float, float]:
        """Median, and half the width of the central 68 % interval."""
        low, middle, high = np.interp(CORE, self._sums[0] / self._sums[0][-1], self.log_mass)
        return float(middle), 0.5 * float(high - low)


@dataclass(frozen=True, eq=False)
class SampledPrior:
    """A posterior's draws of the stars' mass with the prior that they were drawn under.

    Attributes
    ----------
    log_mass
        log10 of the mass, Msun, shape (chain, draw).
    log_density
        Of the prior at the draws, up to a constant, shape (chain, draw).
    below, above
        Probability of less and of more under the prior at the draws, shape (chain, draw).
    core
        Median, and half the width of the central 68 % interval.
    normal
        Whether the prior is normal wherever it matters.
    curve
        The prior; None where the file does not tell it.
    rejected
        Whether some of the prior's draws leave the bounds of ``intensity_rb``: ``core`` then differs from the recipe's numbers.
    told
        False where there are such draws and the file does not tell what they leave of the prior.
    """

    log_mass: FloatArray
    log_density: FloatArray
    below: FloatArray
    above: FloatArray
    core: tuple[float, float]
    normal: bool
    curve: PriorCurve | None
    rejected: bool = False
    told: bool = True


def sampled_prior(stored: StoredMassPrior, bounds: tuple[float, float]) -> SampledPrior:
    """The prior that a posterior's stellar mass was drawn under.

    Parameters
    ----------
    stored
        What the posterior keeps.
    bounds
        Of ``intensity_rb``.
    """
    notes, mass = stored.notes, stored.log_mass
    core, rejected = (float(notes["centre"]), float(notes["width"])), float(notes.get("accepted", 1.0)) < 1.0 - REJECTED
    normal, table = bool(notes.get("normal", notes.get("source") == NUMBERS)), _table(notes)
    below, above, density = norm.cdf(stored.score), norm.sf(stored.score), stored.log_density
    if "unit_mass" not in notes:
        curve = None if table is None else _curve(table, stored, np.zeros(len(table[0])), np.zeros(mass.shape))
        return SampledPrior(mass, density, below, above, core, normal, curve, rejected, not rejected)
    here = log_acceptance(notes, mass, bounds)
    if not rejected and float(here.min()) > np.log1p(-EVEN):
        curve = None if table is None else _curve(table, stored, np.zeros(len(table[0])), np.zeros(mass.shape))
        return SampledPrior(mass, density, below, above, core, normal, curve)
    if table is None:
        return SampledPrior(mass, density, below, above, core, normal, None, rejected, told=False)
    curve = _curve(table, stored, log_acceptance(notes, table[0], bounds), here)
    return SampledPrior(mass, density + here, curve.below(mass), curve.above(mass), curve.core, False, curve, rejected)


def log_acceptance(notes: Mapping[str, Any], log_mass: FloatArray, bounds: tuple[float, float]) -> FloatArray:
    """Log of the share of shapes that a mass lets stay within the bounds of ``intensity_rb``; at least half a draw's."""
    quantiles = np.asarray(notes["unit_mass"], dtype=np.float64)
    # equal quantiles are no function of the mass
    nodes = np.maximum.accumulate(quantiles + 1e-9 * np.arange(len(quantiles)))
    shares = np.linspace(0.0, 1.0, len(nodes))
    most, least = (np.interp(log_mass - bound, nodes, shares) for bound in bounds)
    return np.log(np.maximum(most - least, 0.5 / float(notes["tried"])))


def _table(notes: Mapping[str, Any]) -> tuple[FloatArray, FloatArray] | None:
    """The recorded density, or that of a normal prior, by nodes."""
    if "density" in notes:
        mass, density = (np.asarray(values, dtype=np.float64) for values in notes["density"])
        return mass, density
    if notes.get("source") != NUMBERS:
        return None
    centre, width = float(notes["centre"]), float(notes["width"])
    mass = centre + width * np.linspace(-8.0, 8.0, 129)
    return mass, norm.logpdf(mass, centre, width)


def _curve(table: tuple[FloatArray, FloatArray], stored: StoredMassPrior, accepted: FloatArray, here: FloatArray) -> PriorCurve:
    """The density times acceptance, normalised; draws beyond the recorded table are nodes too."""
    mass, density = stored.log_mass.ravel(), stored.log_density.ravel() + here.ravel()
    beyond = (mass < table[0][0]) | (mass > table[0][-1])
    nodes, first = np.unique(np.concatenate([table[0], mass[beyond]]), return_index=True)
    values = np.concatenate([table[1] + accepted, density[beyond]])[first]
    height = np.exp(values - values.max())
    whole = float(np.sum(0.5 * (height[1:] + height[:-1]) * np.diff(nodes)))
    return PriorCurve(nodes, values - values.max() - np.log(whole))
