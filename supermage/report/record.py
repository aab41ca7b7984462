"""What a posterior file says, as plain numbers: the parameters with their priors and draws, the truth of a mock, and the run's facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, RecipeError
from supermage.inference.parameters import Parameter
from supermage.inference.posterior import open_posterior
from supermage.recipe import PARAMETER_NAMES, Recipe
from supermage.report.statistics import Mixing, circular_mean, interval, mixing, touched_edges, unwrap, width_ratio

FloatArray = NDArray[np.float64]
NEEDED = ("recipe", "visibilities")
FULL_CIRCLE = 359.0
MASS = "log10_mbh"


@dataclass(frozen=True, eq=False)
class Sampled:
    """One sampled parameter.

    Attributes
    ----------
    name, symbol, unit, description
        As in `supermage.inference.parameters`.
    lower, upper
        Bounds of the uniform prior, or what counts as such of a normal one.
    draws
        Shape (chain, draw); of an angle whose prior is the whole circle, moved by whole turns to lie around its circular mean.
    truth
        Of a mock.
    circular
        Whether it is an angle whose prior is the whole circle.
    normal
        Mean and standard deviation of a normal prior.
    """

    name: str
    symbol: str
    unit: str
    description: str
    lower: float
    upper: float
    draws: FloatArray
    truth: float | None = None
    circular: bool = False
    normal: tuple[float, float] | None = None

    @cached_property
    def mixing(self) -> Mixing:
        """R-hat and effective sample sizes."""
        return mixing(self.draws)

    @property
    def width_ratio(self) -> float:
        """Posterior over prior width."""
        return width_ratio(self.draws, self.lower, self.upper, normal=self.normal)

    @property
    def touched(self) -> str:
        """Edges of the prior that the posterior runs into: "", "lower", "upper" or "both"."""
        if self.circular or self.normal is not None:
            return ""
        return {(True, True): "both", (True, False): "lower", (False, True): "upper"}.get(
            touched_edges(self.draws, self.lower, self.upper), ""
        )

    @cached_property
    def turn(self) -> tuple[float, float] | None:
        """Ends of the turn around the draws' mean direction, of an angle whose prior is the whole circle."""
        if not self.circular:
            return None
        mean = float(self.draws.mean())
        # of the mean direction's values the one among the draws: where it is north, rounding makes it 0 or 360
        middle = mean + (circular_mean(self.draws) - mean + 180.0) % 360.0 - 180.0
        return middle - 180.0, middle + 180.0

    def beside_draws(self, value: float | None) -> float | None:
        """Move a value by whole turns into the turn of the draws, where there is a value and the prior is the whole circle."""
        return value if value is None or self.turn is None else self.turn[0] + (value - self.turn[0]) % 360.0

    def inside(self, level: float) -> bool | None:
        """Whether the truth of a mock lies in the central interval."""
        truth, span = self.beside_draws(self.truth), interval(self.draws, level)
        return None if truth is None else span.low <= truth <= span.high


@dataclass(frozen=True, eq=False)
class StoredMassPrior:
    """A prior on the stars' mass as a posterior keeps it.

    Attributes
    ----------
    notes
        See `supermage.inference.mass_prior.StellarMassPrior.notes`.
    log_mass, log_density, score
        log10 of the mass (Msun) of every draw, the prior's log density there, and its normal score under the prior, shape (chain, draw).
    """

    notes: Mapping[str, Any]
    log_mass: FloatArray
    log_density: FloatArray
    score: FloatArray


@dataclass(frozen=True, eq=False)
class Record:
    """A whole posterior file.

    Attributes
    ----------
    path
        The file.
    recipe
        The recipe that made it.
    parameters
        In the order of Table 1.
    log_density
        Shape (chain, draw); where the file has none, None.
    fixed
        Parameters that the recipe holds fixed.
    truth
        True values of a mock, or empty.
    facts
        The file's attributes: seed, versions, command and the like.
    mass_prior
        On the stars' mass, where the fit had one.
    """

    path: Path
    recipe: Recipe
    parameters: tuple[Sampled, ...]
    log_density: FloatArray | None
    fixed: Mapping[str, float]
    truth: Mapping[str, float]
    facts: Mapping[str, Any]
    mass_prior: StoredMassPrior | None = None

    def __getitem__(self, name: str) -> Sampled:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def __contains__(self, name: str) -> bool:
        return any(parameter.name == name for parameter in self.parameters)

    @property
    def mass(self) -> Sampled | None:
        """The logarithm of the black-hole mass, or None where it was held fixed."""
        return next((parameter for parameter in self.parameters if parameter.name == MASS), None)

    @property
    def distance(self) -> float:
        """Angular-diameter distance, Mpc."""
        return float(self.facts.get("distance") or (self.recipe.galaxy.distance if self.recipe.galaxy else np.nan))

    @property
    def n_draws(self) -> int:
        """Draws of all chains."""
        return self.parameters[0].draws.size

    @property
    def tail_ess(self) -> float:
        """Smallest tail effective sample size."""
        return min(parameter.mixing.ess_tail for parameter in self.parameters)

    def theta(self, index: int) -> dict[str, float]:
        """All parameters of one draw (counted over all chains), fixed ones included, angles in [0, 360)."""
        drawn = {p.name: float(p.draws.flat[index] % 360.0 if p.circular else p.draws.flat[index]) for p in self.parameters}
        return {**self.fixed, **drawn}

    @property
    def best(self) -> int:
        """Index of the draw of highest posterior density, or the one nearest the medians if the file has no densities."""
        if self.log_density is not None:
            return int(np.nanargmax(self.log_density))
        z = [(p.draws.ravel() - np.median(p.draws)) / (p.draws.std() or 1.0) for p in self.parameters]
        return int(np.argmin(np.square(z).sum(axis=0)))

    def true_theta(self) -> dict[str, float] | None:
        """The truth of a mock with nothing missing, or None."""
        names = {*self.fixed, *(p.name for p in self.parameters)}
        return dict(self.truth) if names and names <= set(self.truth) else None


def is_circular(unit: str, lower: float, upper: float) -> bool:
    """Whether a uniform prior is a circle cut open."""
    return unit == "deg" and upper - lower >= FULL_CIRCLE


def read_record(path: str | Path) -> Record:
    """Read a posterior file.

    Raises
    ------
    DataError
        If it is missing, or not a posterior that ``supermage fit`` wrote.
    """
    path = Path(path)
    posterior = open_posterior(path)
    inference = posterior.to_arviz()
    facts = {**inference["posterior"].attrs, **posterior.attributes}
    missing = [name for name in NEEDED if name not in facts] + ([] if MASS in {*posterior.names, *posterior.fixed} else [MASS])
    if missing:
        raise DataError(f"a report needs a posterior that `supermage fit` wrote, got {path} without {', '.join(missing)}")
    for name in posterior.names:
        if not {"prior_lower", "prior_upper"} <= set(inference["posterior"][name].attrs):
            raise DataError(f"a report needs a posterior that `supermage fit` wrote, got {path} without the prior of {name}")
        if not np.isfinite(posterior.draws(name)).all():
            raise DataError(f"draws of a posterior must be finite, got NaN or infinity in {name} of {path}")
    order = {name: number for number, name in enumerate(PARAMETER_NAMES)}
    circular = tuple(json.loads(str(facts.get("circular", "[]"))))
    parameters = tuple(
        _sampled(p, posterior.draws(p.name), posterior.truth, p.name in circular)
        for p in sorted(posterior.parameters, key=lambda p: order.get(p.name, len(order)))
    )
    stats = inference.get("sample_stats", {})
    return Record(
        path=path,
        recipe=_recipe(facts, path),
        parameters=parameters,
        fixed=posterior.fixed,
        truth=posterior.truth,
        facts=facts,
        log_density=np.asarray(stats["lp"].values, dtype=float) if "lp" in stats else None,
        mass_prior=_mass_prior(posterior.mass_prior, stats),
    )


def _mass_prior(notes: Mapping[str, Any], stats: Any) -> StoredMassPrior | None:
    names = ("log_stellar_mass", "log_mass_prior", "mass_prior_score")
    if not notes or any(name not in stats for name in names):
        return None
    return StoredMassPrior(notes, *(np.asarray(stats[name].values, dtype=float) for name in names))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _sampled(parameter: Parameter, draws: FloatArray, truth: Mapping[str, float], circular: bool) -> Sampled:
    circular = circular or is_circular(parameter.unit, parameter.lower, parameter.upper)
    return Sampled(
        name=parameter.name,
        symbol=parameter.symbol.strip("$"),
        unit=parameter.unit,
        description=parameter.description,
        lower=parameter.lower,
        upper=parameter.upper,
        draws=unwrap(draws) if circular else draws,
        circular=circular,
        normal=parameter.normal,
        truth=truth.get(parameter.name),
    )


def _recipe(facts: Mapping[str, Any], path: Path) -> Recipe:
    try:
        table = json.loads(str(facts["recipe"]))
        return Recipe.model_validate({**table, "folder": facts.get("recipe_folder") or table.get("folder") or "."})
    except ValueError as error:  # JSON's and pydantic's errors are both of this kind
        raise RecipeError(f"the recipe stored in {path} must be one that this version knows, got: {_first_line(error)}") from None
