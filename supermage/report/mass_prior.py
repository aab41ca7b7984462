"""What a prior on the stars' mass did: the black hole with it and without it, and how far prior and data are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.errors import DataError
from supermage.forward.enclosed_mass import UnitMass
from supermage.inference.mass_prior import of_draws
from supermage.report.record import MASS, Record, StoredMassPrior, read_record
from supermage.report.reweighting import smooth_weights, weighted_quantiles
from supermage.report.statistics import Interval, interval, mixing

FloatArray = NDArray[np.float64]

IN_TENSION, CONTRADICT = 2.0, 3.0
"""Standard deviations between prior and data from which on the headline says so, and from which on no mass is claimed."""

MOST_DRAWS = 4000
"""Draws of another fit whose stellar mass is worked out."""

WITHOUT = "without-mass-prior"
"""Of a posterior ``NAME.nc`` the same fit without the prior is looked for in ``NAME.without-mass-prior.nc``."""


@dataclass(frozen=True)
class Tension:
    """How far prior and data are apart.

    Attributes
    ----------
    sigma
        Their difference over the root of the summed variances, or a lower bound of it.
    at_least
        Whether it is a lower bound: the data narrow the prior by less than the draws can tell.
    data
        Mean and standard deviation of log10 of the stars' mass by the data alone; None where they say too little of it.
    """

    sigma: float
    at_least: bool = False
    data: tuple[float, float] | None = None

    @property
    def probability(self) -> float:
        """Of a difference as large if prior and data agree, two-sided."""
        return float(2.0 * norm.sf(self.sigma))


@dataclass(frozen=True)
class Held:
    """Median and 68 % interval of log10 of a mass, and how it was come by."""

    median: float
    span: Interval
    how: str

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return 0.5 * self.span.width


@dataclass(frozen=True)
class Reach:
    """How far the aperture lies outside the gas: radii in kpc, the share of the aperture's mass inside the gas' radius, the outer slope."""

    gas: float
    aperture: float
    share: tuple[float, float, float]
    slope: tuple[float, float, float]


@dataclass(frozen=True)
class MassPriorFacts:
    """All that is said of a prior on the stars' mass.

    Attributes
    ----------
    notes
        As the posterior records it.
    posterior
        Of log10 of the stars' mass, data and prior together.
    tension
        Between prior and data.
    with_prior, without_prior
        log10 of the black hole's mass; None where it was held fixed, or where nothing reliable can be said without another fit.
    refused
        Why there is no number without the prior.
    reach
        The gas and the aperture.
    truth
        log10 of a mock's stellar mass in the aperture.
    """

    notes: Mapping[str, Any]
    posterior: Held
    tension: Tension
    with_prior: Held | None
    without_prior: Held | None
    refused: str
    reach: Reach
    truth: float | None = None

    @property
    def status(self) -> str:
        """``agree``, ``tension`` or ``contradict``; what is no number contradicts."""
        if self.tension.sigma < IN_TENSION:
            return "agree"
        return "tension" if self.tension.sigma < CONTRADICT else "contradict"


def tension_of_update(score: FloatArray, centre: float, width: float) -> Tension:
    """Prior against data from how the data moved the prior: no other fit is needed.

    In the normal score under the prior, which is 0 +- 1 there, data that know it as d +- s leave ``d / (1 + s^2)`` and a variance of
    ``s^2 / (1 + s^2)``: the mean over the root of one minus the variance is ``d / sqrt(1 + s^2)``, prior against data.

    Parameters
    ----------
    score
        Normal scores of the draws under the prior, shape (chain, draw).
    centre, width
        Of the prior, dex.
    """
    mean, variance = float(score.mean()), float(score.var())
    independent = max(mixing(score).ess, 4.0)
    error = variance * math.sqrt(2.0 / independent)
    narrowed = 1.0 - variance
    if narrowed > 3.0 * error:
        spread = math.sqrt(variance / narrowed)
        return Tension(abs(mean) / math.sqrt(narrowed), data=(centre + width * mean / narrowed, width * spread))
    # what the chains leave open of the mean is no tension
    beyond = max(abs(mean) - 2.0 * math.sqrt(variance / independent), 0.0)
    return Tension(beyond / math.sqrt(max(narrowed + 2.0 * error, 1e-3)), at_least=True)


def tension_of_draws(log_mass: FloatArray, centre: float, width: float) -> Tension:
    """Prior against the draws of the same fit without it."""
    mean, spread = float(log_mass.mean()), float(log_mass.std())
    return Tension(abs(mean - centre) / math.hypot(spread, width), data=(mean, spread))


def held(draws: FloatArray, how: str) -> Held:
    """Median and 68 % interval of draws."""
    return Held(float(np.median(draws)), interval(draws, 0.68), how)


def without_path(path: Path) -> Path:
    """Where the same fit without the prior is looked for."""
    return path.with_name(f"{path.stem}.{WITHOUT}{path.suffix}")


def mass_prior_facts(record: Record, galaxy_model: Any, chosen: NDArray[np.int64]) -> MassPriorFacts | None:
    """What there is to say of a posterior's prior on the stars' mass; None where it has none.

    Parameters
    ----------
    record
        The posterior.
    galaxy_model
        Its forward model.
    chosen
        Draws by which the reach of the aperture is measured.

    Raises
    ------
    DataError
        If the fit without the prior, beside the posterior, is not one of the same data.
    """
    stored = record.mass_prior
    if stored is None:
        return None
    centre, width = float(stored.notes["centre"]), float(stored.notes["width"])
    with_prior = None if record.mass is None else held(record.mass.draws, "this fit")
    tension, other, refused = tension_of_update(stored.score, centre, width), _other_fit(record), ""
    without: Held | None = None
    if other is not None:
        unit = _unit_mass(galaxy_model, 1e3 * float(stored.notes["radius"]))
        theta = _arrays(other, np.arange(other.n_draws)[:: max(other.n_draws // MOST_DRAWS, 1)])
        tension = tension_of_draws(theta["intensity_rb"] + of_draws(theta, unit), centre, width)
        without = None if other.mass is None else held(other.mass.draws, f"the fit in {other.path.name}")
    elif record.mass is not None:
        without, refused = _reweighted(record, stored)
    reach = _reach(record, galaxy_model, stored.notes, chosen)
    truth = _truth(record, _unit_mass(galaxy_model, 1e3 * float(stored.notes["radius"])))
    return MassPriorFacts(stored.notes, held(stored.log_mass, "this fit"), tension, with_prior, without, refused, reach, truth)


def _truth(record: Record, unit: UnitMass) -> float | None:
    """Of a mock whose truth has every parameter of this fit."""
    theta = {**record.fixed, **record.truth}
    if not record.truth or any(parameter.name not in theta for parameter in record.parameters):
        return None
    arrays = {name: np.array([float(value)]) for name, value in theta.items()}
    return float((arrays["intensity_rb"] + of_draws(arrays, unit))[0])


def _unit_mass(galaxy_model: Any, radius: float) -> UnitMass:
    return UnitMass(galaxy_model.mass_model.emulator, galaxy_model.scale, radius)


def _arrays(record: Record, chosen: NDArray[np.int64]) -> dict[str, FloatArray]:
    """Every parameter of chosen draws, each of shape (draw,)."""
    draws = [record.theta(int(k)) for k in chosen]
    return {name: np.array([theta[name] for theta in draws]) for name in draws[0]}


def _other_fit(record: Record) -> Record | None:
    """The same fit without the prior, where it lies beside this one."""
    path = without_path(record.path)
    if not path.is_file():
        return None
    other = read_record(path)
    same = other.facts.get("data_checksum") == record.facts.get("data_checksum")
    if not same or other.mass_prior is not None or (other.mass is None) != (record.mass is None):
        what = "with the prior" if other.mass_prior is not None else "of another fit"
        raise DataError(f"a fit without the prior on the stars' mass must be of the same data and parameters, got {path} {what}")
    return other


def _reweighted(record: Record, stored: StoredMassPrior) -> tuple[Held | None, str]:
    """The black hole without the prior, by weights of this fit's draws, or why there is none."""
    independent = min(mixing(stored.log_mass).ess / record.n_draws, 1.0)
    weights = smooth_weights(-stored.log_density.ravel(), independent=max(independent, 1e-6))
    told = f"Pareto k {weights.k:.2f}, {weights.effective:.0f} effective draws"
    if not weights.reliable:
        name = without_path(record.path).name
        return None, (f"not told, for the draws cannot be weighted to it ({told}): fit once more without [fit.mass_prior], output "
                      f"{name}, and report again.")  # fmt: skip
    low, middle, high = weighted_quantiles(record[MASS].draws.ravel(), weights.share, (0.16, 0.5, 0.84))
    return Held(middle, Interval(low, high), f"draws weighted, {told}"), ""


def _reach(record: Record, galaxy_model: Any, notes: Mapping[str, Any], chosen: NDArray[np.int64]) -> Reach:
    theta = _arrays(record, chosen)
    index = float(np.median(theta["gas_index"])) if "gas_index" in theta else 1.0
    gas = float(np.median(theta["scale_length"])) * math.gamma(3.0 / index) / math.gamma(2.0 / index) * galaxy_model.scale
    inside, whole = (_unit_mass(galaxy_model, radius) for radius in (gas, 1e3 * float(notes["radius"])))
    share = 10.0 ** (of_draws(theta, inside) - of_draws(theta, whole))
    slope = theta["gamma"] - theta["gamma_minus_beta"] + theta.get("ml_gradient", np.zeros(len(share)))
    return Reach(1e-3 * gas, float(notes["radius"]), _three(share), _three(slope))


def _three(values: FloatArray) -> tuple[float, float, float]:
    inner = interval(values, 0.68)
    return float(np.median(values)), inner.low, inner.high
