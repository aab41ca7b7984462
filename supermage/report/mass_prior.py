"""What a prior on the stars' mass did: the black hole with it and without it, and how far prior and data are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.forward.enclosed_mass import UnitMass
from supermage.inference.mass_prior import of_draws
from supermage.report.prior_curve import SampledPrior, sampled_prior
from supermage.report.record import Record, StoredMassPrior, read_record
from supermage.report.reweighting import smooth_weights, weighted_quantiles
from supermage.report.same_fit import difference
from supermage.report.statistics import Interval, interval
from supermage.report.tension import Tension, data_alone, tension_of_draws, tension_of_prior
from supermage.report.verdict import R_HAT_LIMIT

FloatArray = NDArray[np.float64]

IN_TENSION, CONTRADICT = 2.0, 3.0
"""Standard deviations between prior and data from which on the headline says so, and from which on no mass is claimed."""

MOST_DRAWS = 4000
"""Draws of another fit whose stellar mass is worked out."""

WITHOUT = "without-mass-prior"
"""Of a posterior ``NAME.nc`` the same fit without the prior is looked for in ``NAME.without-mass-prior.nc``."""


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
    prior
        Median and half the width of the central 68 % of what the bounds of ``intensity_rb`` leave of the prior; None where they leave it
        all, or the file does not tell.
    prior_told
        Whether it does tell, where they leave less.
    other_differs
        What makes the fit beside this one another fit than this one without the prior.
    halo
        Whether the mass model has a dark halo.
    """

    notes: Mapping[str, Any]
    posterior: Held
    tension: Tension
    with_prior: Held | None
    without_prior: Held | None
    refused: str
    reach: Reach
    truth: float | None = None
    prior: tuple[float, float] | None = None
    prior_told: bool = True
    other_differs: str = ""
    halo: bool = False

    @property
    def prior_alone(self) -> tuple[float, float]:
        """Median and half the width of the central 68 % of the prior that the data are held against."""
        return (float(self.notes["centre"]), float(self.notes["width"])) if self.prior is None else self.prior

    @property
    def status(self) -> str:
        """``agree``, ``tension``, ``contradict`` or, of a low lower bound, ``untold``; what is no number contradicts."""
        if self.tension.sigma < IN_TENSION:
            return "untold" if self.tension.at_least else "agree"
        return "tension" if self.tension.sigma < CONTRADICT else "contradict"


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
        If the fit without the prior, beside the posterior, is one of other data, or has such a prior itself.
    """
    stored = record.mass_prior
    if stored is None:
        return None
    bounds = record["intensity_rb"].lower, record["intensity_rb"].upper
    prior, unit = sampled_prior(stored, bounds), _unit_mass(galaxy_model, 1e3 * float(stored.notes["radius"]))
    tension, (without, refused) = tension_of_prior(prior), _reweighted(record, stored, prior)
    other = _other_fit(record)
    differs = "" if other is None else difference(record, other) or _unmixed(other)
    if other is not None and not differs:
        tension = tension_of_draws(_stellar_mass(other, unit), prior, stored.notes, bounds) or tension
        without, refused = None if other.mass is None else held(other.mass.draws, f"the fit in {other.path.name}"), ""
    return MassPriorFacts(
        notes=stored.notes,
        posterior=held(stored.log_mass, "this fit"),
        tension=tension,
        with_prior=None if record.mass is None else held(record.mass.draws, "this fit"),
        without_prior=without,
        refused=refused,
        reach=_reach(record, galaxy_model, stored.notes, chosen),
        truth=_truth(record, unit),
        prior=prior.core if prior.rejected and prior.told else None,
        prior_told=prior.told,
        other_differs=differs and f"{without_path(record.path).name} is not the same fit without the prior and is left aside: {differs}",
        halo=record.recipe.fit is not None and record.recipe.fit.model.halo != "none",
    )


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
    if not same or other.mass_prior is not None:
        what = "with the prior" if other.mass_prior is not None else "of other data"
        raise DataError(f"a fit without the prior on the stars' mass must be of the same data and parameters, got {path} {what}")
    return other


def _unmixed(other: Record) -> str:
    """What keeps another fit's draws from being used; empty where they may be."""
    worst = max(other.parameters, key=lambda p: np.nan_to_num(p.mixing.r_hat, nan=np.inf))
    return f"R-hat of {worst.name} is {worst.mixing.r_hat:.3f} there" if not worst.mixing.r_hat < R_HAT_LIMIT else ""


def _stellar_mass(record: Record, unit: UnitMass) -> FloatArray:
    """log10 of the stars' mass in the aperture, of some draws of every chain, shape (chain, draw)."""
    chains, draws = record.parameters[0].draws.shape
    some = np.arange(draws)[:: max(record.n_draws // MOST_DRAWS, 1)]
    theta = _arrays(record, (np.arange(chains)[:, None] * draws + some).ravel())
    return (theta["intensity_rb"] + of_draws(theta, unit)).reshape(chains, len(some))


def _reweighted(record: Record, stored: StoredMassPrior, prior: SampledPrior) -> tuple[Held | None, str]:
    """The black hole without the prior, by weights of this fit's draws, or why there is none."""
    if record.mass is None:
        return None, ""
    _, independent = data_alone(prior)
    # intensity_rb keeps its bounds in a fit without the prior: the weights are one over the density of the recipe's, not of what they leave
    weights = smooth_weights(-stored.log_density.ravel(), independent=min(independent / record.n_draws, 1.0))
    told = f"Pareto k {weights.k:.2f}, {weights.effective:.0f} effective draws"
    if not weights.reliable:
        name = without_path(record.path).name
        return None, (f"not told, for the draws cannot be weighted to it ({told}): fit once more without [fit.mass_prior], output "
                      f"{name}, and report again.")  # fmt: skip
    low, middle, high = weighted_quantiles(record.mass.draws.ravel(), weights.share, (0.16, 0.5, 0.84))
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
