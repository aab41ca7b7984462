"""Priors: Table 1's uniform ones, changed or fixed by the recipe, and normal ones of what may differ between execution blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from supermage.constants import pc_per_arcsec
from supermage.errors import RecipeError, nearest_name
from supermage.forward.deprojection import NukerDeprojection
from supermage.inference.parameters import OPTIONAL, TABLE_1, Parameter, block_parameters
from supermage.models.nuker_mge import BOX, EDGE_TOLERANCE
from supermage.physical import broken_rule
from supermage.recipe import BLOCK_PARAMETER, OPTIONAL_NAMES, FitSection, MassPriorSection, Prior

CUSP, INNERMOST, CUSP_SHARE = 0.01, 2.0, 0.2
"""Radii (pc) whose masses are compared, and the share from which on a cusp counts as a black hole's double."""

SEEN_DATA = "the prior on the stars' mass comes from what has seen the fitted data: they count twice, and intervals come out too narrow"
"""What is said of a prior that is not independent of the likelihood."""

FULL_TURN = 359.0
"""A prior on the position angle at least this wide (deg) is a whole circle."""


@dataclass(frozen=True)
class Priors:
    """The sampled parameters, with the bounds of their uniform priors, and the fixed ones.

    Attributes
    ----------
    free
        Sampled parameters in the order of Table 1; their ``lower`` and ``upper`` (or ``normal``) are the prior's.
    fixed
        Values of the others.
    mass
        What the recipe says of a prior on the stars' mass, which stands for the uniform one of ``intensity_rb``.
    """

    free: tuple[Parameter, ...]
    fixed: Mapping[str, float]
    mass: MassPriorSection | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled parameters."""
        return tuple(parameter.name for parameter in self.free)

    @property
    def edges(self) -> dict[str, tuple[float, float]]:
        """Bounds of every parameter; both are the value where it is fixed."""
        return {p.name: (p.lower, p.upper) for p in self.free} | {name: (value, value) for name, value in self.fixed.items()}

    @property
    def circular(self) -> tuple[str, ...]:
        """Sampled angles whose prior is the whole circle."""
        return tuple(p.name for p in self.free if p.name == "PA" and p.upper - p.lower >= FULL_TURN)

    def check_inside(self, values: Mapping[str, float], *, what: str = "a start") -> None:
        """Refuse values of unknown parameters, or outside the priors (edges belong to them).

        Raises
        ------
        RecipeError
            At the first value that breaks the rule.
        """
        bounds = {p.name: p for p in self.free}
        for name, value in values.items():
            _check_disc(f"scale_length of {what}", name, value)
            if name in self.fixed:
                if not math.isclose(value, self.fixed[name]):
                    raise RecipeError(f"{what} cannot move the fixed parameter '{name}' from {self.fixed[name]:g}, got {value:g}")
            elif name not in bounds:
                raise RecipeError(f"{what} names an unknown parameter, got '{name}'{nearest_name(name, [*bounds, *self.fixed])}")
            elif not bounds[name].lower <= value <= bounds[name].upper:
                raise RecipeError(
                    f"{what} must lie inside the prior of '{name}', [{bounds[name].lower:g}, {bounds[name].upper:g}], got {value:g}"
                )


def _check_physical(name: str, prior: Prior | None) -> None:
    if prior is None:
        return
    if prior.fixed is not None:
        _check_disc(f"fit.priors.{name}", name, prior.fixed)
    for value in (prior.lower, prior.upper, prior.fixed):
        broken = None if value is None else broken_rule(name, value, is_bound=True)
        if broken is not None:
            raise RecipeError(f"fit.priors.{name} {broken}")


def _check_disc(what: str, name: str, value: float) -> None:
    """Refuse a single scale length of 0; a prior may begin there, as the paper's does."""
    if name == "scale_length" and value == 0:
        raise RecipeError(f"{what} must be above 0 (a scale length of 0 is no disc), got 0")


def cautions(priors: Priors, distance: float) -> tuple[str, ...]:
    """What the priors allow and is yet risky, a line each: stars packed so tightly that no data can tell them from a black hole, and data
    that count twice.

    Nothing is said of priors that leave the emulator's range: a fit refuses them.

    Parameters
    ----------
    distance
        Mpc.
    """
    twice = (SEEN_DATA,) if priors.mass is not None and priors.mass.seen_data else ()
    edges = priors.edges
    alpha, gamma, difference = edges["alpha"][0], edges["gamma"][1], -edges["gamma_minus_beta"][0]
    break_radius = edges["break_r"][0] * pc_per_arcsec(distance)
    corner = {"alpha": alpha, "gamma": gamma, "beta - gamma": difference, "break_radius": break_radius}
    within = all(BOX[name][0] * (1.0 - EDGE_TOLERANCE) <= value <= BOX[name][1] * (1.0 + EDGE_TOLERANCE) for name, value in corner.items())
    if "log10_mbh" not in priors.names or not within:
        return twice
    inside, all_of_it = NukerDeprojection(alpha, gamma + difference, gamma).enclosed_mass(np.array([CUSP, INNERMOST]) / break_radius)
    share = float(inside / all_of_it)
    if share < CUSP_SHARE:
        return twice
    return (*twice, f"at the priors' edge, alpha = {alpha:g} with gamma = {gamma:g}, {100.0 * share:.0f} % of the stars' mass inside "
            f"{INNERMOST:g} pc lies inside {CUSP:g} pc, degenerate with a black hole; alpha from 0.3 on avoids it",)


def build_priors(fit: FitSection, blocks: int = 0) -> Priors:
    """Table 1's priors, and those of what ``fit.model`` adds, under the recipe's changes.

    Parameters
    ----------
    fit
        The recipe's section.
    blocks
        Execution blocks of the data, for what may differ between them; 0 where they are not known yet.

    Raises
    ------
    RecipeError
        If the recipe fixes everything, names a block that the data lack, or allows what is no disc or lies outside
        `supermage.physical.PHYSICAL`. (Names and order of bounds are checked when a recipe is read.)
    """
    asked = {name for name, (key, value) in OPTIONAL_NAMES.items() if getattr(fit.model, key) == value}
    known = (*TABLE_1, *(parameter for parameter in OPTIONAL if parameter.name in asked))
    free, fixed = [], {}
    for parameter in known:
        _check_physical(parameter.name, fit.priors.get(parameter.name))
        prior = fit.priors.get(parameter.name)
        if prior is not None and prior.fixed is not None:
            fixed[parameter.name] = prior.fixed
        elif prior is not None and prior.lower is not None and prior.upper is not None:
            free.append(dataclasses.replace(parameter, lower=prior.lower, upper=prior.upper))
        else:
            free.append(parameter)
    if not free:
        raise RecipeError("a fit needs at least one free parameter, got every one fixed")
    of_blocks = block_parameters(blocks, flux=fit.model.block_flux, position=fit.model.block_position)
    beyond = [name for name in fit.priors if BLOCK_PARAMETER.fullmatch(name) and name not in {parameter.name for parameter in of_blocks}]
    if blocks and beyond:
        raise RecipeError(f"fit.priors may name blocks 1 to {blocks} of the data, got '{beyond[0]}'")
    for parameter in of_blocks:
        prior = fit.priors.get(parameter.name)
        if prior is not None and prior.fixed is not None:
            fixed[parameter.name] = prior.fixed
        else:
            free.append(parameter)
    return Priors(tuple(free), fixed, fit.mass_prior)
