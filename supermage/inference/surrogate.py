"""A likelihood that needs no visibilities: the true one to second order in what the data see, for proposals that the true one judges.

What the data see of a rotating disc are its rotation at each radius and where it lies; of the seven parameters behind the rotation they
leave most combinations open, along valleys that are long and bent in the parameters. In the speeds themselves the model is so nearly linear
that one expansion serves the whole posterior: in the demo's it leaves 0.6 of log likelihood unexplained (rms). Priors and the map from
parameters to speeds, where the bends are, stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.forward.rotation import ROTATION_ONLY
from supermage.inference.coordinates import Coordinates
from supermage.inference.langevin import only_finite
from supermage.inference.model import GalaxyFit

Features = Float[Tensor, "*chain feature"]
COLUMNS = 8
"""Directions pushed forward at once: more are no faster and take more memory."""

TEMPER = 0.85
"""Power of the expanded likelihood that trajectories follow.

Where an expansion falls off too fast chains arrive seldom and stay long: of the demo's draws the worst is 3.3 of log density too low at
power 1, 1.7 at this one, and as many proposals are accepted, 0.77.
"""


@dataclass(frozen=True)
class Surrogate:
    """``L0 + g.d - d.F.d / 2`` with ``d`` the features' distance from those of the expansion's centre.

    Attributes
    ----------
    centre
        Features there.
    value, slope
        Log likelihood and its gradient by the features.
    curvature
        Fisher matrix of the features.
    circular
        Which features are angles on a whole circle, deg.
    """

    centre: Float[Tensor, "feature"]
    value: Float[Tensor, ""]
    slope: Float[Tensor, "feature"]
    curvature: Float[Tensor, "feature feature"]
    circular: Bool[Tensor, "feature"]

    def __call__(self, features: Features) -> Float[Tensor, "*chain"]:
        """Log likelihood, to second order."""
        away = features - self.centre
        away = away - 360.0 * torch.where(self.circular, torch.round(away.detach() / 360.0), 0.0)
        return self.value + away @ self.slope - 0.5 * ((away @ self.curvature) * away).sum(-1)

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return all(bool(torch.isfinite(part).all()) for part in (self.centre, self.value, self.slope, self.curvature))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For a checkpoint."""
        return {name: tensor.numpy() for name, tensor in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`."""
        return cls(**{name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})


def beside_rotation(fit: GalaxyFit) -> tuple[str, ...]:
    """Free parameters that are features themselves: those that show by more than the rotation curve; all, of a model without one."""
    by_speed = ROTATION_ONLY if hasattr(fit.galaxy_model, "projected_speed") else frozenset()
    return tuple(name for name in fit.names if name not in by_speed)


def _is_factor(fit: GalaxyFit, name: str) -> bool:
    """Whether a feature is the parameter's logarithm: fluxes and their scales multiply one another."""
    return (name == "Flux" or name.startswith("flux_scale_")) and any(p.name == name and p.lower > 0 for p in fit.priors.free)


def features(fit: GalaxyFit, theta: Mapping[str, Tensor]) -> Float[Tensor, "feature"]:
    """What the data see of the parameters: those of `beside_rotation`, and the projected speeds, km/s, at the model's knots.

    Of the flux and of blocks' flux scales, which multiply one another, the logarithms.
    """
    beside = beside_rotation(fit)
    parts = [torch.log(theta[name]) if _is_factor(fit, name) else theta[name] for name in beside]
    seen = torch.stack(parts) if parts else torch.zeros(0, dtype=torch.float64)
    speed = getattr(fit.galaxy_model, "projected_speed", None)
    return seen if speed is None else torch.cat([seen, speed(theta)])


def expand(fit: GalaxyFit, theta: Mapping[str, Tensor]) -> Surrogate:
    """Expand the log likelihood about parameters; about as dear as 50 gradients.

    The curvature is the Fisher matrix of the features, ``J^T J`` of the weighted residual, as the metric's is (cf. paper, App. C.1).
    """
    names = beside_rotation(fit)
    centre = features(fit, theta).detach()

    def residual(point: Tensor) -> Tensor:
        beside = dict(zip(names, point[: len(names)].unbind(), strict=True))
        here = {**theta, **{name: torch.exp(value) if _is_factor(fit, name) else value for name, value in beside.items()}}
        return fit.noise.residual(_visibilities(fit, here, point[len(names) :]))

    def along(direction: Tensor) -> Tensor:
        return torch.func.jvp(residual, (centre,), (direction,))[1]

    there = residual(centre).detach().requires_grad_(True)
    value = fit.noise.log_likelihood_of(there)
    (by_residual,) = torch.autograd.grad(value, there)
    slopes, weighted = [], []
    for directions in torch.eye(len(centre), dtype=centre.dtype).split(COLUMNS):
        jacobian = torch.func.vmap(along)(directions)
        slopes.append((jacobian * by_residual).flatten(1).sum(-1))
        weighted.append(torch.func.vmap(fit.noise.fisher_residual)(jacobian).flatten(1).to(torch.float32))
    rows = torch.cat(weighted)
    circular = torch.tensor([k < len(names) and names[k] in fit.priors.circular for k in range(len(centre))])
    return Surrogate(centre, value.detach(), torch.cat(slopes), (rows @ rows.mT).to(torch.float64), circular)


def _visibilities(fit: GalaxyFit, theta: Mapping[str, Tensor], speeds: Tensor) -> Tensor:
    """Model visibilities at these projected speeds, whatever those of the parameters are."""
    model: Any = fit.galaxy_model
    if not len(speeds):
        return fit.visibilities(theta)
    visibilities = torch.as_tensor(model.visibilities(theta, speed_change=speeds - model.projected_speed(theta)))
    return visibilities if fit.nuisances is None else fit.nuisances(theta, visibilities)


class SurrogateTarget:
    """The posterior's log density in the sampler's coordinates with the likelihood's expansion in its place, and its gradient.

    Parameters
    ----------
    fit
        The galaxy's model.
    coordinates
        The map from z to the parameters.
    surrogate
        The expansion.
    temper
        Power of the expanded likelihood.
    """

    def __init__(self, fit: GalaxyFit, coordinates: Coordinates, surrogate: Surrogate, *, temper: float = TEMPER) -> None:
        self._fit, self._coordinates, self._surrogate, self._temper = fit, coordinates, surrogate, temper

    def __call__(self, position: Float[Tensor, "chain param"]) -> tuple[Float[Tensor, "chain"], Float[Tensor, "chain param"]]:
        """Log density and gradient of several chains in one vmapped pass; minus infinity and zero where either is not finite."""
        leaf = position.detach().clone().requires_grad_(True)
        theta, prior, seen = torch.func.vmap(self._one)(leaf)
        likelihood = self._surrogate.value + self._temper * (self._surrogate(seen) - self._surrogate.value)
        value = likelihood + prior + self._fit.log_mass_prior(theta)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return only_finite(value.detach(), gradient)

    def _one(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        with self._fit.one_curve():
            theta, log_jacobian = self._coordinates.to_theta(z)
            return theta, self._coordinates.log_prior(z, log_jacobian), features(self._fit, theta)
