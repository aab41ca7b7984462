"""A prior on the stars' mass inside an aperture, in place of the uniform prior of ``intensity_rb``.

``m = log10 M*`` inside the aperture is ``intensity_rb + log10 I``, I being the mass there for ``Sigma_b = 1`` of the Gaussians that the
sampled shape, axis ratio and inclination give. To draw from the prior: draw the shape from its own priors and m from p_m, set
``intensity_rb = m - log10 I``, and begin anew where that leaves the prior of ``intensity_rb``. Since ``dm / d intensity_rb = 1`` at a fixed
shape, the density of the parameters is

``p(shape) p_m(intensity_rb + log10 I(shape)) [intensity_rb inside its prior]``,

up to a constant and with no Jacobian: p_m stands where the uniform density of ``intensity_rb`` stood, which stays the sampled parameter,
in its own coordinates. Where draws are rejected the shape feels it too: `StellarMassPrior.draw` says how many are. Nor is the density of m
under the whole prior then p_m, but

``p_eff(m) = p_m(m) A(m)``, with ``A(m) = F(m - lower) - F(m - upper)``

up to a constant, F being the distribution of log10 I under the shape's own priors, lower and upper the bounds of ``intensity_rb``. A
posterior records tables of p_m and of F, so that a report can hold the data against p_eff.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.constants import pc_per_arcsec
from supermage.errors import RecipeError
from supermage.forward.enclosed_mass import UnitMass
from supermage.forward.mass_model import ShapeModel
from supermage.inference.mass_knowledge import MassKnowledge, read_mass_knowledge
from supermage.inference.priors import Priors
from supermage.progress import Progress
from supermage.recipe import Recipe

FloatArray = NDArray[np.float64]
Theta = Mapping[str, Tensor]

INNERMOST, REACH = 2.0, 5e3
"""Least radius, pc, and most, in break radii, at which the emulators hold the mass inside a sphere (10 kpc for the least break radius)."""

TOLD_SCORES, TOLD_WIDTHS = 6.0, 8.0
"""How far the recorded table of p_m reaches: normal scores, and widths from the centre."""

TOLD_SHARES = 401
"""Quantiles of log10 I that a posterior records."""

LEAST_LOG = -700.0
"""Least log density that is recorded."""

AT_A_TIME = 500
"""Draws whose mass is worked out together."""

CORE = (0.1586552539314571, 0.5, 0.8413447460685429)
"""Probabilities of the median and of the central interval that holds as much as a normal's standard deviation."""

LEAST_ACCEPTED = 0.01
"""Share of the prior's draws that must leave ``intensity_rb`` inside its prior."""

_TINY = 1e-15
"""Tail probability below which a normal score is cut off, at 7.9."""


@dataclass(frozen=True)
class PriorDraws:
    """Draws of every parameter and of the mass, those inside the prior of ``intensity_rb``.

    Attributes
    ----------
    theta
        Parameters by name, each of shape (draw,).
    log_mass
        log10 of the stars' mass inside the aperture, Msun, shape (draw,).
    accepted
        Share of all tries that these are.
    unit_mass
        log10 of the mass inside the aperture for ``Sigma_b = 1``, of every try, shape (try,).
    """

    theta: dict[str, FloatArray]
    log_mass: FloatArray
    accepted: float
    unit_mass: FloatArray


class StellarMassPrior:
    """The factor p_m of the prior, as a function of the galaxy's parameters.

    Parameters
    ----------
    knowledge
        What is known of m, and where it is from.
    unit_mass
        log10 of the mass inside the aperture for ``Sigma_b = 1``, from parameters of one shape, 0-d or (draw,).

    Attributes
    ----------
    centre, width
        Median of p_m, and half the width of its central 68.27 % interval.
    """

    def __init__(self, knowledge: MassKnowledge, unit_mass: Callable[[Theta], Tensor]) -> None:
        self.knowledge, self.unit_mass = knowledge, unit_mass
        low, middle, high = self._quantiles(list(CORE))
        self.centre, self.width = middle, 0.5 * (high - low)

    def _quantiles(self, shares: list[float]) -> list[float]:
        return [float(value) for value in self.knowledge.density.icdf(torch.tensor(shares, dtype=torch.float64)).reshape(-1)]

    def log_mass(self, theta: Theta) -> Float[Tensor, "*batch"]:
        """log10 of the stars' mass inside the aperture, Msun."""
        return theta["intensity_rb"] + self.unit_mass(theta)

    def log_density(self, theta: Theta) -> Float[Tensor, "*batch"]:
        """``log p_m``, per dex."""
        mass = self.log_mass(theta)
        return self.knowledge.density.log_prob(mass).reshape(mass.shape)

    def residual(self, theta: Theta) -> Float[Tensor, "*batch"]:
        """Distance of m from p_m's median in its widths: the square of its derivatives is what p_m adds to the Fisher matrix."""
        return (self.log_mass(theta) - self.centre) / self.width

    def draw(self, priors: Priors, number: int, rng: np.random.Generator) -> PriorDraws:
        """Draw so many times from the whole prior, the data left out; those outside the prior of ``intensity_rb`` are rejected."""
        theta = {name: np.full(number, value) for name, value in priors.fixed.items()}
        for p in priors.free:
            theta[p.name] = rng.uniform(p.lower, p.upper, number) if p.normal is None else rng.normal(*p.normal, number)
        mass = self._icdf(rng.uniform(size=number))
        unit = of_draws(theta, self.unit_mass)
        theta["intensity_rb"] = mass - unit
        lower, upper = priors.edges["intensity_rb"]
        inside = (theta["intensity_rb"] >= lower) & (theta["intensity_rb"] <= upper)
        return PriorDraws({name: values[inside] for name, values in theta.items()}, mass[inside], float(inside.mean()), unit)

    def statistics(self, draws: Mapping[str, FloatArray], fixed: Mapping[str, float]) -> dict[str, FloatArray]:
        """What a posterior keeps of every draw, shapes (chain, draw).

        Parameters
        ----------
        draws, fixed
            Sampled parameters, and held ones.

        Returns
        -------
        dict
            ``log_stellar_mass``, m; ``log_mass_prior``, log p_m; ``mass_prior_score``, m as the normal score that it has under p_m.
        """
        shape = next(iter(draws.values())).shape
        theta = {name: values.ravel() for name, values in draws.items()}
        theta |= {name: np.full(math.prod(shape), value) for name, value in fixed.items()}
        mass = of_draws(theta, self.log_mass)
        with torch.no_grad():
            value = torch.from_numpy(mass)
            density, share = (f(value).reshape(value.shape) for f in (self.knowledge.density.log_prob, self.knowledge.density.cdf))
            score = torch.special.ndtri(share.clamp(_TINY, 1.0 - _TINY))
        found = {"log_stellar_mass": mass, "log_mass_prior": density.numpy(), "mass_prior_score": score.numpy()}
        return {name: values.reshape(shape) for name, values in found.items()}

    def notes(self, accepted: float, unit_mass: FloatArray | None = None) -> dict[str, Any]:
        """For a posterior's attributes, as JSON has it.

        Parameters
        ----------
        accepted, unit_mass
            Those of `draw`.

        Returns
        -------
        dict
            What is known of m; ``centre``, ``width``, ``low_95`` and ``high_95`` of p_m; ``normal``, whether it is one; ``density``, a
            table of m and log p_m; ``accepted``; ``unit_mass``, evenly spaced quantiles of log10 I, from the least to the largest of
            ``tried``.
        """
        told = {f.name: getattr(self.knowledge, f.name) for f in fields(self.knowledge) if f.name != "density"}
        low, high = self._quantiles([0.025, 0.975])
        told |= {"centre": self.centre, "width": self.width, "low_95": low, "high_95": high, "accepted": accepted}
        told |= {"normal": isinstance(self.knowledge.density, torch.distributions.Normal), "density": self._table()}
        if unit_mass is None:
            return told
        quantiles = np.quantile(unit_mass, np.linspace(0.0, 1.0, TOLD_SHARES))
        return {**told, "unit_mass": np.round(quantiles, 5).tolist(), "tried": len(unit_mass)}

    def _table(self) -> list[list[float]]:
        """Of m and log p_m, fine in the core and reaching into the wings."""
        shares = np.asarray(torch.special.ndtr(torch.linspace(-TOLD_SCORES, TOLD_SCORES, 121, dtype=torch.float64)).numpy())
        core = self.centre + self.width * np.linspace(-TOLD_WIDTHS, TOLD_WIDTHS, 129)
        mass = np.unique(np.round(np.concatenate([self._icdf(shares), core]), 6))
        with torch.no_grad():
            density = self.knowledge.density.log_prob(torch.from_numpy(mass)).reshape(-1).numpy()
        return [mass.tolist(), np.round(np.maximum(density, LEAST_LOG), 5).tolist()]

    def words(self, accepted: float) -> str:
        """The prior in a line."""
        known = self.knowledge
        left = "" if accepted > 0.995 else f"; {100.0 * (1.0 - accepted):.2g} % of its draws leave the prior of intensity_rb"
        unlike = "; unlike what the estimator was trained on" if known.out_of_distribution else ""
        return f"log10 M* = {self.centre:.3f} +- {self.width:.3f} inside {known.aperture} ({known.source}){unlike}{left}"

    def _icdf(self, share: FloatArray) -> FloatArray:
        with torch.no_grad():
            return np.asarray(self.knowledge.density.icdf(torch.from_numpy(share)).reshape(-1).numpy(), dtype=np.float64)


def of_draws(theta: Mapping[str, FloatArray], function: Callable[[Theta], Tensor]) -> FloatArray:
    """A function of parameters, each of shape (draw,), for every draw, some at a time."""
    number, parts = len(next(iter(theta.values()))), []
    with torch.no_grad():
        for k in range(0, number, AT_A_TIME):
            some = {name: torch.from_numpy(np.ascontiguousarray(values[k : k + AT_A_TIME])) for name, values in theta.items()}
            parts.append(function(some).numpy())
    return np.concatenate(parts)


def build_mass_prior(recipe: Recipe, emulator: ShapeModel, priors: Priors) -> StellarMassPrior | None:
    """The recipe's prior on the stars' mass, or None.

    Parameters
    ----------
    recipe
        With sections ``galaxy`` and ``fit``.
    emulator
        That of the forward model.
    priors
        Of the same recipe.

    Raises
    ------
    RecipeError
        If ``intensity_rb`` is held, or the aperture lies where the emulator does not hold the mass.
    DataError, ModelFileError
        If catalogue or estimator cannot be used.
    """
    if recipe.fit is None or recipe.galaxy is None or recipe.fit.mass_prior is None:
        return None
    if "intensity_rb" not in priors.names:
        raise RecipeError(f"fit.mass_prior needs a free intensity_rb, got it fixed at {priors.fixed['intensity_rb']:g}")
    knowledge, scale = read_mass_knowledge(recipe, recipe.fit.mass_prior), pc_per_arcsec(recipe.galaxy.distance)
    radius, most = 1e3 * knowledge.radius, REACH * priors.edges["break_r"][0] * scale
    if not INNERMOST <= radius <= most:
        raise RecipeError(f"the aperture of fit.mass_prior must lie between {INNERMOST:g} pc and {REACH:g} times the least break radius, "
                          f"{1e-3 * most:.3g} kpc, where the emulator holds the mass inside it, got {knowledge.radius:g} kpc")
    return StellarMassPrior(knowledge, UnitMass(emulator, scale, radius))


def tell_mass_prior(prior: StellarMassPrior, priors: Priors, progress: Progress, *, number: int = 4000, seed: int = 0) -> PriorDraws:
    """Say what the prior is, and what share of its draws leave ``intensity_rb`` inside its own prior; returns these draws.

    Raises
    ------
    RecipeError
        If hardly any does: the two priors contradict each other.
    """
    progress.start("prior on the stars' mass", None)
    drawn = prior.draw(priors, number, np.random.default_rng(seed))
    progress.done(prior.words(drawn.accepted))
    if drawn.accepted < LEAST_ACCEPTED:
        lower, upper = priors.edges["intensity_rb"]
        raise RecipeError(f"fit.mass_prior must leave intensity_rb inside its prior, [{lower:g}, {upper:g}], got "
                          f"{100.0 * drawn.accepted:.2g} % of its draws there: widen fit.priors.intensity_rb")
    return drawn
