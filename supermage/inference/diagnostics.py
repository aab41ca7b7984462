"""Whether chains have converged, and what the data said beyond the priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from supermage.errors import DomainError
from supermage.inference.arviz_access import ess, rhat
from supermage.inference.parameters import Parameter

FloatArray = NDArray[np.float64]

RHAT_LIMIT = 1.05
"""A converged fit's worst R-hat lies below."""

ESS_LIMIT = 100.0
"""A converged fit's smallest effective sample size lies above."""

APART = 0.9
"""Chains whose central intervals of this share do not meet lie in different modes."""

EDGE_SHARE = 0.02
"""Width of a prior's edge zones as a share of the prior's width."""


@dataclass(frozen=True)
class ParameterDiagnosis:
    """One parameter's convergence and information.

    Attributes
    ----------
    rhat, ess_bulk, ess_tail, mcse_mean
        Rank-normalised split R-hat, effective sample sizes and Monte-Carlo error of the mean.
    lower_edge, upper_edge
        Share of the draws within 2 % of the prior's width from its edges (1 would be 50 times a flat posterior's).
    width_ratio
        Posterior's over prior's standard deviation: near 1, the data said nothing.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    mcse_mean: float
    lower_edge: float
    upper_edge: float
    width_ratio: float

    @property
    def ess(self) -> float:
        """The smaller of the two effective sample sizes; NaN if either is."""
        return float(np.min([self.ess_bulk, self.ess_tail]))


@dataclass(frozen=True)
class Diagnosis:
    """A fit's verdict in numbers.

    Attributes
    ----------
    parameters
        By name.
    acceptance
        Mean acceptance of each chain.
    worst_rhat, smallest_ess
        Over all parameters (bulk and tail).
    worst_nested_rhat, worst_nested_name
        Over all parameters, see `nested_rhat`, and whose it is.
    modes
        Chains (counted from 0) by the mode that they lie in: one group where they agree.
    """

    parameters: Mapping[str, ParameterDiagnosis]
    acceptance: tuple[float, ...]
    worst_rhat: float
    smallest_ess: float
    worst_nested_rhat: float = 1.0
    modes: tuple[tuple[int, ...], ...] = ()
    worst_nested_name: str = ""

    @property
    def failures(self) -> tuple[str, ...]:
        """What keeps the chains from counting as converged, in words; empty if nothing does."""
        found = []
        worst = max(self.parameters, key=lambda name: np.nan_to_num(self.parameters[name].rhat, nan=np.inf))
        fewest = min(self.parameters, key=lambda name: np.nan_to_num(self.parameters[name].ess, nan=0.0))
        if not self.worst_rhat < RHAT_LIMIT:
            found.append(f"worst R-hat {self.worst_rhat:.3f} ({worst}; required below {RHAT_LIMIT})")
        if not self.worst_nested_rhat < RHAT_LIMIT:
            found.append(f"nested R-hat {self.worst_nested_rhat:.3f} ({self.worst_nested_name}; required below {RHAT_LIMIT}): "
                         "chains of different starts disagree")
        if not self.smallest_ess > ESS_LIMIT:
            found.append(f"smallest effective sample size {self.smallest_ess:.0f} ({fewest}; required above {ESS_LIMIT:.0f})")
        if found and len(self.modes) > 1:
            apart = "; ".join(", ".join(str(chain + 1) for chain in group) for group in self.modes)
            found.append(f"chains in {len(self.modes)} modes: {apart}")
        return tuple(found)

    @property
    def converged(self) -> bool:
        """Worst R-hat, nested too, below 1.05 and smallest ESS above 100; NaN is not."""
        return self.worst_rhat < RHAT_LIMIT and self.worst_nested_rhat < RHAT_LIMIT and self.smallest_ess > ESS_LIMIT


def unwrap_angle(draws: FloatArray) -> FloatArray:
    """Angles in deg moved to within half a turn of their circular mean in [0, 360), so that ordinary statistics hold."""
    radians = np.radians(draws)
    centre = np.degrees(np.arctan2(np.sin(radians).mean(), np.cos(radians).mean())) % 360.0
    return centre + (draws - centre + 180.0) % 360.0 - 180.0


def nested_rhat(draws: FloatArray, superchains: Sequence[int]) -> float:
    """Nested R-hat of (chain, draw) values (Margossian et al. 2024): do groups of chains, each with a start of its own, agree?

    ``sqrt(1 + B / W)``: B the variance between the groups' means, W the mean variance within them, between their chains and along them.
    It also tells of chains too short for the ordinary R-hat, if there are many.

    Parameters
    ----------
    draws
        Values, shape (chain, draw).
    superchains
        The group of every chain; groups need not be of one size.

    Raises
    ------
    DomainError
        If there is only one group.
    """
    groups = [np.flatnonzero(np.asarray(superchains) == group) for group in sorted(set(superchains))]
    if len(groups) < 2:
        raise DomainError(f"nested R-hat needs chains of at least two starts, got {len(groups)}")
    means = draws.mean(axis=1)
    along = draws.var(axis=1, ddof=1) if draws.shape[1] > 1 else np.zeros(len(draws))
    between = np.var([means[group].mean() for group in groups], ddof=1)
    within = np.mean([(means[group].var(ddof=1) if group.size > 1 else 0.0) + along[group].mean() for group in groups])
    return float(np.sqrt(1.0 + between / within)) if within > 0 else float("nan")


def find_modes(draws: Mapping[str, FloatArray]) -> tuple[tuple[int, ...], ...]:
    """Chains in groups: two lie in one mode if, in every parameter, their central 90 % intervals meet, directly or by way of others.

    Parameters
    ----------
    draws
        (chain, draw) values by name.
    """
    chains = len(next(iter(draws.values())))
    meet = np.ones((chains, chains), dtype=bool)
    for values in draws.values():
        low, high = np.quantile(values, [0.5 - 0.5 * APART, 0.5 + 0.5 * APART], axis=1)
        meet &= (low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None])
    number, label = connected_components(meet, directed=False)
    return tuple(tuple(np.flatnonzero(label == group).tolist()) for group in range(number))


def diagnose_parameter(draws: FloatArray, parameter: Parameter, *, circular: bool = False) -> ParameterDiagnosis:
    """Diagnose (chain, draw) values of one parameter under its prior."""
    values = unwrap_angle(draws) if circular else draws
    width = parameter.upper - parameter.lower
    prior = width / np.sqrt(12.0) if parameter.normal is None else parameter.normal[1]
    deviation = float(values.std())
    bulk = ess(values, method="bulk")
    mean_error = deviation / np.sqrt(ess(values, method="mean")) if deviation > 0 else 0.0
    edges = [float(np.mean(s)) for s in (draws < parameter.lower + EDGE_SHARE * width, draws > parameter.upper - EDGE_SHARE * width)]
    lower, upper = (0.0, 0.0) if circular else edges
    return ParameterDiagnosis(
        rhat(values), bulk, ess(values, method="tail"), float(mean_error), lower, upper, deviation / prior
    )


def diagnose(
    draws: Mapping[str, FloatArray],
    parameters: tuple[Parameter, ...],
    *,
    circular: tuple[str, ...] = (),
    acceptance: FloatArray | None = None,
    superchains: Sequence[int] | None = None,
) -> Diagnosis:
    """Diagnose every parameter of a fit.

    Parameters
    ----------
    draws
        (chain, draw) values by name.
    parameters
        With the priors' bounds.
    circular
        Names of angles on a whole circle.
    acceptance
        (chain, draw) acceptance probabilities.
    superchains
        The start of every chain, for nested R-hat; where not given each has its own.
    """
    values = {p.name: unwrap_angle(draws[p.name]) if p.name in circular else draws[p.name] for p in parameters}
    each = {p.name: diagnose_parameter(draws[p.name], p, circular=p.name in circular) for p in parameters}
    rates = () if acceptance is None else tuple(float(a) for a in acceptance.mean(axis=1))
    # max and min of Python would drop a NaN depending on its place
    worst = float(np.max([d.rhat for d in each.values()]))
    smallest = float(np.min([[d.ess_bulk, d.ess_tail] for d in each.values()]))
    chains = len(next(iter(values.values())))
    starts = tuple(range(chains)) if superchains is None or len(set(superchains)) < 2 else superchains
    nested = {name: nested_rhat(one, starts) for name, one in values.items()} if chains > 1 else {next(iter(values)): float("nan")}
    disagreeing = max(nested, key=lambda name: np.nan_to_num(nested[name], nan=np.inf))
    return Diagnosis(each, rates, worst, smallest, nested[disagreeing], find_modes(values), disagreeing)
