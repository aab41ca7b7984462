"""How far a prior on the stars' mass and the data are apart, from the draws of a fit with the prior, or of one without it.

With m_p drawn from the prior and m_d from what the data alone say of m, the difference of the two leaves 0 on its far side with the
probability P; the tension is the standard deviations at which a normal variable does so. For a normal prior, centre c and width w, and
normal data d +- s that is ``|d - c| / sqrt(s^2 + w^2)``. What the data alone say is the likelihood averaged over the prior of the shape at
each m: the draws weighted by one over the prior's density of m. Where the weights do not serve, the likelihood of m is taken as normal and
fitted: the draws' density is then the prior's times ``exp(a m - b m^2 / 2)``, with ``d = a / b`` and ``s^2 = 1 / b``, and the mean of m and
of its square fix both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

from supermage.inference.arviz_access import ess
from supermage.report.prior_curve import EVEN, PriorCurve, SampledPrior, log_acceptance
from supermage.report.reweighting import Weights, smooth_weights
from supermage.report.statistics import mixing
from supermage.report.tilt import KOLMOGOROV, Tilt, distance, trapezoid

FloatArray = NDArray[np.float64]

CLEAR = 7.0
"""Standard errors from which on the data are taken to narrow a normal prior."""

SAFE = 3.0
"""Standard errors by which a lower bound is lowered."""

SHARP, LOOSE = 0.1, 0.2
"""Standard error of a tension, as a share of it and in itself, beyond which a bound stands for it."""

ROUGH = 0.05
"""Share of a tension by weights whose standard error is so large that a normal likelihood is tried too."""

MOST_SIGMA = 7.5
"""Standard deviations that the recorded wings of a prior can tell: what is more is told as at least so much."""

_SCORES = 30.0
"""Effective draws that must lie in a tail whose probability is counted."""

_UNSEEN = 4.0
"""Effective draws that may be missed by chance, at 2 %."""

_TABLE = 4000.0
"""Draws behind the recorded prior."""

_NEAR_NORMAL = 0.2
"""Spread over the draws of a log density less a normal's up to which it counts as that normal's."""


@dataclass(frozen=True)
class Tension:
    """How far prior and data are apart.

    Attributes
    ----------
    sigma
        Standard deviations, or a lower bound of them.
    at_least
        Whether it is a lower bound.
    data
        Mean and standard deviation of log10 of the stars' mass by the data alone; None where the draws do not tell it.
    apart
        Their difference over the root of the summed squared widths: more than ``sigma`` where the prior has broader wings than a normal
        one; None where the draws do not tell it.
    error
        Standard error of ``sigma`` by the number of draws.
    how
        How the data alone were come by.
    """

    sigma: float
    at_least: bool = False
    data: tuple[float, float] | None = None
    apart: float | None = None
    error: float = 0.0
    how: str = ""

    @property
    def probability(self) -> float:
        """Of a difference as large if prior and data agree, two-sided."""
        return float(2.0 * norm.sf(self.sigma))


NOT_TOLD = Tension(0.0, at_least=True)


def tension_of_prior(prior: SampledPrior) -> Tension:
    """Prior against data from how the data moved the prior: no other fit is needed.

    A normal prior by `tension_of_update`, where the draws are normal too (Kolmogorov and Smirnov, 1 %). Else by weighted draws where the
    weights are reliable and the draws are not the prior's own; else, or where few draws carry the weight, by a normal likelihood, and,
    where the file does not tell the prior beyond the draws, only if the prior is normal over them.
    """
    centre, width = prior.core
    score = (prior.log_mass - centre) / width
    if prior.normal:
        found = tension_of_update(score, centre, width)
        if found.at_least or _are_normal(score):
            return found
        prior = dataclasses.replace(prior, normal=False)
    weights, independent = data_alone(prior)
    # what the bounds leave of the prior is known by draws, too
    number = 1.0 / (1.0 / independent + 1.0 / _TABLE) if prior.rejected else independent
    if weights.reliable and _moved(prior.below / (prior.below + prior.above), independent):
        found = _compared(prior, prior.log_mass.ravel(), weights, prior.below.ravel(), prior.above.ravel())
        found = dataclasses.replace(found, how=f"draws weighted, Pareto k {weights.k:.2f}, {weights.effective:.0f} effective draws")
        if prior.curve is None or found.error <= ROUGH * found.sigma + LOOSE * ROUGH:
            return found
        other = tension_of_tilt(prior, prior.curve, number)
        return found if other.at_least or other.error >= found.error else other
    if prior.curve is not None:
        return tension_of_tilt(prior, prior.curve, number)
    wings = prior.log_density + 0.5 * score**2
    return tension_of_update(score, centre, width) if float(np.ptp(wings)) < _NEAR_NORMAL else NOT_TOLD


def _are_normal(score: FloatArray) -> bool:
    """Whether draws are normal: of a normal prior and a normal likelihood they would be."""
    shares = ndtr((score - score.mean()) / score.std())
    return distance(shares) <= KOLMOGOROV / math.sqrt(max(mixing(score).ess, 4.0))


def tension_of_update(score: FloatArray, centre: float, width: float) -> Tension:
    """Normal prior against data that know the mass as a normal likelihood says.

    In the normal score under the prior, which is 0 +- 1 there, data that know it as d +- s leave ``d / (1 + s^2)`` and a variance of
    ``s^2 / (1 + s^2)``: the mean over the root of one minus the variance is ``d / sqrt(1 + s^2)``, prior against data.

    Parameters
    ----------
    score
        Distances of the draws from the prior's centre in its widths, shape (chain, draw).
    centre, width
        Of the prior, dex.
    """
    mean, variance = float(score.mean()), float(score.var())
    independent = max(mixing(score).ess, 4.0)
    error, of_mean = variance * math.sqrt(2.0 / independent), math.sqrt(variance / independent)
    narrowed = 1.0 - variance
    if narrowed > CLEAR * error:
        root = math.sqrt(narrowed)
        sigma = abs(mean) / root
        data = centre + width * mean / narrowed, width * math.sqrt(variance) / root
        return Tension(sigma, data=data, apart=sigma, error=math.hypot(of_mean / root, 0.5 * sigma * error / narrowed), how=NORMAL)
    # what the chains leave open of the mean is no tension
    beyond = max(abs(mean) - SAFE * of_mean, 0.0)
    return Tension(beyond / math.sqrt(max(narrowed, 0.0) + SAFE * error + 1e-12), at_least=True)


NORMAL = "the likelihood of the mass taken as normal"


def tension_of_tilt(prior: SampledPrior, curve: PriorCurve, independent: float) -> Tension:
    """Any prior against data that know the mass as a normal likelihood says, by maximum likelihood.

    The draws between two of their order statistics are draws of the density cut off there, whatever lies beyond: the outermost ones, an
    effective draw's number at each end, give the cuts and are left out.

    Parameters
    ----------
    prior, curve
        Draws, and the density that they were drawn under.
    independent
        Effective number of draws.
    """
    ordered = np.sort(prior.log_mass.ravel())
    cut = math.ceil(len(ordered) / independent)
    mass = ordered[cut:-cut]
    if len(mass) < _SCORES or not np.ptp(mass) > 0.0:
        return NOT_TOLD
    low, high = float(ordered[cut - 1]), float(ordered[-cut])
    inside = curve.log_mass[(curve.log_mass > low) & (curve.log_mass < high)]
    nodes = np.unique(np.concatenate([np.linspace(low, high, 401), inside]))
    tilt = Tilt.of_draws(mass, nodes, curve.log_at(nodes), independent * len(mass) / len(ordered))
    if tilt is None:
        return NOT_TOLD
    least = min((_convolved(curve, *data) for data in tilt.region(SAFE)), default=0.0)
    if not tilt.closed:
        return Tension(least, at_least=True)
    near = [_convolved(curve, *data) for data in tilt.region(1.0)]
    sigma, error = _convolved(curve, *tilt.data), 0.5 * (max(near) - min(near))
    if error > max(LOOSE, SHARP * sigma):
        return Tension(least, at_least=True)
    return _capped(Tension(sigma, data=tilt.data, apart=_apart(tilt.data, prior.core), error=error, how=NORMAL))


def tension_of_draws(log_mass: FloatArray, prior: SampledPrior, notes: Mapping[str, Any], bounds: tuple[float, float]) -> Tension | None:
    """Prior against the draws of the same fit without it; None where they are no more than what its bounds leave, or do not tell it.

    There ``intensity_rb`` is uniform, and the mass has the density of `log_acceptance`, which the draws are divided by.

    Parameters
    ----------
    log_mass
        log10 of the stars' mass, Msun, shape (chain, draw).
    prior
        Of the fit with the prior.
    notes, bounds
        What the posterior keeps of the prior, and the bounds of ``intensity_rb``.
    """
    mass, mixed = log_mass.ravel(), mixing(log_mass).ess
    weights = Weights(np.full(len(mass), 1.0 / len(mass)), 0.0, mixed)
    if "unit_mass" in notes:
        accepted = log_acceptance(notes, mass, bounds)
        if float(np.ptp(accepted)) > EVEN:
            weights = smooth_weights(-accepted, independent=max(min(mixed / len(mass), 1.0), 1e-6))
            if not weights.reliable or not _moved(_share_of_bounds(notes, mass, bounds), mixed):
                return None
    below, above = (None, None) if prior.curve is None else (prior.curve.below(mass), prior.curve.above(mass))
    return _compared(prior, mass, weights, below, above)


def data_alone(prior: SampledPrior) -> tuple[Weights, float]:
    """Weights of the draws by which they are those of the data alone, and the effective number of draws before they are weighted."""
    ratio = -prior.log_density
    # rare draws in the wings of the prior carry the most, and no rank of the mass sees whether they mix
    counts = [mixing(prior.log_mass).ess, ess(prior.log_mass, method="mean"), ess(np.exp(ratio - ratio.max()), method="mean")]
    independent = max(min((count for count in counts if math.isfinite(count)), default=4.0), 4.0)
    return smooth_weights(ratio.ravel(), independent=min(independent / ratio.size, 1.0)), independent


def _compared(prior: SampledPrior, mass: FloatArray, weights: Weights, below: FloatArray | None, above: FloatArray | None) -> Tension:
    """Prior against weighted draws of the data alone, with the prior's probabilities of less and of more at each.

    A tail too thin for the draws to tell is that of a normal of their mean and spread.
    """
    share = weights.share
    mean = float(share @ mass)
    spread = math.sqrt(float(share @ (mass - mean) ** 2))
    data, effective = (mean, spread), max(weights.effective, 4.0)
    apart = _apart(data, prior.core)
    known = spread**2 / (spread**2 + prior.core[1] ** 2)
    error = math.hypot(math.sqrt(known / effective), apart * known / math.sqrt(2.0 * effective))
    sigma = apart
    if below is not None and above is not None and not prior.normal:
        tail = min(float(share @ below), float(share @ above))
        if tail > _SCORES / effective:
            sigma = float(norm.isf(min(tail, 0.5)))
        elif prior.curve is not None:
            sigma = _convolved(prior.curve, mean, spread)
        else:
            return Tension(float(norm.isf(min(tail + _UNSEEN / effective, 0.5))), at_least=True, data=data, apart=apart)
    found = Tension(sigma, data=data, apart=apart, error=error * min(1.0, sigma / apart if apart > 0 else 1.0))
    return found if prior.normal else _capped(found)


def _capped(tension: Tension) -> Tension:
    return tension if tension.sigma < MOST_SIGMA else dataclasses.replace(tension, sigma=MOST_SIGMA, at_least=True, error=0.0)


def _apart(data: tuple[float, float], core: tuple[float, float]) -> float:
    return abs(data[0] - core[0]) / math.hypot(data[1], core[1])


def _convolved(curve: PriorCurve, mean: float, spread: float) -> float:
    """Tension of a prior and of normal data."""
    share = np.exp(curve.log_density) * trapezoid(curve.log_mass)
    share /= share.sum()
    score = (curve.log_mass - mean) / spread
    return float(norm.isf(min(max(min(float(share @ ndtr(score)), float(share @ ndtr(-score))), 1e-300), 0.5)))


def _moved(share: FloatArray, independent: float) -> bool:
    """Whether draws with these probabilities of less under a prior are not simply its own."""
    return distance(share) > KOLMOGOROV * math.sqrt(1.0 / max(independent, 4.0) + 1.0 / _TABLE)


def _share_of_bounds(notes: Mapping[str, Any], log_mass: FloatArray, bounds: tuple[float, float]) -> FloatArray:
    """Probability of less under the prior that the bounds of ``intensity_rb`` alone leave of the mass."""
    quantiles = notes["unit_mass"]
    nodes = np.linspace(quantiles[0] + bounds[0], quantiles[-1] + bounds[1], 801)
    height = np.exp(log_acceptance(notes, nodes, bounds))
    return np.interp(log_mass, nodes, (np.cumsum(height) - 0.5 * height) / height.sum())
