"""Where data and forward model meet: the Pyro model of a galaxy, and the log density that the sampler walks on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Complex, Float
from pyro import poutine
from torch import Tensor

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DomainError, RecipeError
from supermage.forward.mass_model import SharedCurve
from supermage.inference.coordinates import Coordinates, Pivots
from supermage.inference.langevin import only_finite
from supermage.inference.likelihood import ObservedVisibilities, VisibilityNoise
from supermage.inference.mass_prior import StellarMassPrior, build_mass_prior
from supermage.inference.metric import gauss_newton, jacobian
from supermage.inference.model_checks import check_centre, check_emulator_range, check_line
from supermage.inference.nuisances import BlockNuisances
from supermage.inference.priors import Priors, build_priors
from supermage.inference.stretches import Stretch, Widening
from supermage.recipe import Recipe

Theta = Mapping[str, Tensor]

MOST_BLACK_HOLE = 1.0
"""Largest v^2 of the black hole over that of the stars that the pivots reckon with: beyond it they shear more than they straighten."""


@runtime_checkable
class SkyModel(Protocol):
    """What the fit needs of a forward model; `supermage.forward.galaxy_model.GalaxyModel` is one."""

    def visibilities(self, theta: Theta) -> Complex[Tensor, "block chan cell"]:
        """Model visibilities, Jy."""

    def circular_velocity(self, theta: Theta, radius: Tensor, component: str = "total") -> Float[Tensor, "radius"]:
        """Circular velocity, km/s, at radii in arcsec."""


@dataclass(frozen=True)
class Chart:
    """Which coordinates the sampler uses, in numbers for a file.

    Attributes
    ----------
    cut
        The circle's centre.
    velocity_radius, slope_radius, reference
        Of the pivots.
    stretch
        Rate and knee of the mass' `Stretch`.
    widened
        Name, gain, rate and knee of every `Widening`.
    """

    cut: float = 180.0
    velocity_radius: float | None = None
    slope_radius: float | None = None
    reference: tuple[tuple[str, float], ...] = ()
    stretch: tuple[float, float] | None = None
    widened: tuple[tuple[str, float, float, float], ...] = ()

    def notes(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> Chart:
        """The inverse of `notes`, from what JSON makes of it."""
        stretch = notes["stretch"]
        return cls(
            notes["cut"],
            notes["velocity_radius"],
            notes["slope_radius"],
            tuple((str(name), float(value)) for name, value in notes["reference"]),
            None if stretch is None else (float(stretch[0]), float(stretch[1])),
            tuple((str(name), float(gain), float(rate), float(knee)) for name, gain, rate, knee in notes["widened"]),
        )


class GalaxyFit:
    """A galaxy's Pyro model with its pieces.

    Parameters
    ----------
    galaxy_model
        The forward model.
    noise
        Data and noise.
    priors
        Free and fixed parameters.
    nuisances
        What differs between execution blocks, where the priors hold any.
    mass_prior
        On the stars' mass, in place of the uniform one of ``intensity_rb``.
    """

    def __init__(
        self, galaxy_model: SkyModel, noise: VisibilityNoise, priors: Priors, nuisances: BlockNuisances | None = None,
        mass_prior: StellarMassPrior | None = None,
    ) -> None:  # fmt: skip
        self.galaxy_model, self.mass_prior = galaxy_model, mass_prior
        self.noise = noise
        self.priors = priors
        self.nuisances = nuisances

    def on(self, device: str) -> GalaxyFit:
        """A copy whose forward model, noise and nuisances are on another device; parameters and coordinates stay on the CPU."""
        model: Any = copy.deepcopy(self.galaxy_model)
        nuisances = None if self.nuisances is None else self.nuisances.to(device)
        return GalaxyFit(model.to(device), self.noise.to(device), self.priors, nuisances, self.mass_prior)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled parameters."""
        return self.priors.names

    def pyro_model(self) -> Theta:
        """The model as a Pyro program: sites named as in Table 1, and the observed site ``visibilities``."""
        theta: dict[str, Tensor] = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.priors.fixed.items()}
        for p in self.priors.free:
            upper = p.lower + 360.0 if p.name in self.priors.circular else p.upper
            numbers = torch.tensor(p.normal or (p.lower, upper), dtype=torch.float64)
            prior = dist.Uniform if p.normal is None else dist.Normal
            theta[p.name] = pyro.sample(p.name, prior(numbers[0], numbers[1], validate_args=False))
        if self.mass_prior is not None:
            pyro.factor("mass_prior", self.log_mass_prior(theta))
        mean = self.visibilities(theta)
        pyro.sample("visibilities", ObservedVisibilities(mean, self.noise), obs=self.noise.data)
        return theta

    def visibilities(self, theta: Theta) -> Complex[Tensor, "block chan cell"]:
        """Model visibilities, Jy, with what differs between the execution blocks."""
        visibilities = self.galaxy_model.visibilities(theta)
        return visibilities if self.nuisances is None else self.nuisances(theta, visibilities)

    def visibilities_of_chains(self, theta: Theta, **at_hand: Tensor) -> Complex[Tensor, "chain block chan cell"]:
        """Model visibilities of several chains' parameters, each of shape (chain,), in one pass where the forward model has one.

        ``at_hand``: their stars' curves, ``curve``, where :meth:`one_curve` has given them.
        """
        together = getattr(self.galaxy_model, "visibilities_of_chains", None)
        if together is None or self.nuisances is not None:
            return torch.func.vmap(self.visibilities)(dict(theta))
        return torch.as_tensor(together(theta, **at_hand))

    def log_prob(self, theta: Theta) -> Float[Tensor, ""]:
        """Log of prior times likelihood: the log probability of the Pyro model's trace at theta."""
        trace = poutine.trace(poutine.condition(self.pyro_model, data=dict(theta))).get_trace()
        return torch.as_tensor(trace.log_prob_sum())

    def log_mass_prior(self, theta: Theta) -> Float[Tensor, "*batch"]:
        """Log of the prior on the stars' mass over the uniform one of ``intensity_rb``, which it stands for; 0 without one."""
        if self.mass_prior is None:
            return torch.zeros((), dtype=torch.float64)
        return self.mass_prior.log_density(theta) + next(p.log_prior_width for p in self.priors.free if p.name == "intensity_rb")

    def one_curve(self) -> contextlib.AbstractContextManager[SharedCurve | None]:
        """Inside, pivots and model share the stars' velocity curve where they are given one and the same tensors."""
        keeping: Callable[[], contextlib.AbstractContextManager[SharedCurve | None]]
        keeping = getattr(self.galaxy_model, "one_curve", contextlib.nullcontext)
        return keeping()

    def log_likelihood(self, theta: Theta) -> Float[Tensor, ""]:
        """Log likelihood of every parameter's value."""
        return self.noise.log_likelihood_of(self.noise.residual(self.visibilities(theta)))

    def whitened_residual(self, theta: Theta) -> Float[Tensor, "spectrum reim chan"]:
        """Residual whose Jacobian J makes the Fisher matrix J^T J."""
        return self.noise.fisher_residual(self.noise.residual(self.visibilities(theta)))

    def coordinates(self, chart: Chart) -> Coordinates:
        """The coordinates that a chart describes."""
        stretch = None if chart.stretch is None else Stretch(*chart.stretch)
        widened = {name: Widening(*numbers) for name, *numbers in chart.widened}
        if chart.velocity_radius is None or chart.slope_radius is None:
            return Coordinates(self.priors, cut=chart.cut, stretch=stretch, widened=widened)
        radii = (chart.velocity_radius, chart.slope_radius)
        reference = dict(chart.reference)
        pivots = Pivots(*radii, self._log_velocity_squared(radii[0]), reference, self._black_hole_over_stars(reference, radii))
        return Coordinates(self.priors, pivots=pivots, cut=chart.cut, stretch=stretch, widened=widened)

    def _black_hole_over_stars(self, reference: Mapping[str, float], radii: tuple[float, float]) -> tuple[float, float]:
        """V^2 of the black hole over that of the stars at two radii."""
        theta = {name: torch.tensor(value, dtype=torch.float64) for name, value in reference.items()}
        where = torch.tensor(radii, dtype=torch.float64)
        with torch.no_grad():
            hole, stars = (
                self.galaxy_model.circular_velocity(theta, where, component=c).to(torch.float64) for c in ("black_hole", "stars")
            )
            first, second = ((hole / stars.clamp(min=1e-6)) ** 2).clamp(max=MOST_BLACK_HOLE).tolist()
        return first, second

    def _log_velocity_squared(self, radius: float) -> Callable[[Theta], Tensor]:
        where = torch.tensor([radius], dtype=torch.float64)

        def log_velocity_squared(theta: Theta) -> Tensor:
            # intensity_rb is linear in log10 v^2: evaluated at a mid value, so that no velocity underflows
            raised = {**theta, "intensity_rb": theta["intensity_rb"] + 3.0}
            velocity = self.galaxy_model.circular_velocity(raised, where, component="stars")[0].to(torch.float64)
            return 2.0 * torch.log10(velocity.clamp(min=1e-6)) - 3.0

        return log_velocity_squared


FISHERS_AT_ONCE = 16
"""Points whose Fisher matrices are carried together: each has the arrays of 15 gradients."""


class PosteriorTarget:
    """The posterior's log density in the sampler's coordinates, its gradient and its Fisher matrix.

    Parameters
    ----------
    fit
        The galaxy's model.
    coordinates
        The map from z to the parameters.
    together
        The model that several chains use in one pass, on a graphics card for instance; `fit` where not given.
    """

    def __init__(self, fit: GalaxyFit, coordinates: Coordinates, together: GalaxyFit | None = None) -> None:
        self.fit = fit
        self.together = fit if together is None else together
        self.coordinates = coordinates
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self._asked: tuple[Tensor, Tensor, Tensor] | None = None
        self._last_of_chains: tuple[Tensor, Tensor, Tensor] | None = None
        self._asked_of_chains: tuple[Tensor, Tensor, Tensor] | None = None

    def log_density(self, z: Float[Tensor, "param"]) -> Float[Tensor, ""]:
        """Log posterior density of z, Jacobian included."""
        theta, log_jacobian = self.coordinates.to_theta(z)
        return self.fit.log_prob(theta) + log_jacobian

    def value_and_gradient(self, z: Float[Tensor, "param"]) -> tuple[Tensor, Tensor]:
        """Log density and gradient; minus infinity and zero where the model is not finite."""
        leaf = z.detach().clone().requires_grad_(True)
        with self.fit.one_curve():
            theta, log_jacobian = self.coordinates.to_theta(leaf)
            try:
                likelihood = self.fit.log_likelihood(theta)
            except DomainError:
                # a prior's very edge may lie outside the model's domain: a scale length of exactly 0 is no disc
                return torch.tensor(-torch.inf, dtype=torch.float64), torch.zeros_like(z)
        # the same as `log_density`, without a trace of the Pyro program, which takes as long as a small model
        value = likelihood + self.coordinates.log_prior(leaf, log_jacobian) + self.fit.log_mass_prior(theta)
        self._last = (leaf.detach(), self.coordinates.vector(theta).detach(), log_jacobian.detach())
        if not torch.isfinite(value):
            return torch.tensor(-torch.inf, dtype=torch.float64), torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(value, leaf)
        if not bool(torch.isfinite(gradient).all()):
            return torch.tensor(-torch.inf, dtype=torch.float64), torch.zeros_like(z)
        return value.detach(), gradient

    def parameters(self, z: Float[Tensor, "param"]) -> tuple[Float[Tensor, "param"], Float[Tensor, ""]]:
        """The free parameters at z and ``log |d theta / d z|``; remembers the points last evaluated and last asked for: a draw is one."""
        for known in (self._asked, self._last):
            if known is not None and torch.equal(known[0], z):
                self._asked = known
                return known[1], known[2]
        with torch.no_grad():
            theta, log_jacobian = self.coordinates.to_theta(z.detach())
            self._asked = (z.detach().clone(), self.coordinates.vector(theta), log_jacobian)
        return self._asked[1], self._asked[2]

    def __call__(self, position: Float[Tensor, "chain param"]) -> tuple[Float[Tensor, "chain"], Float[Tensor, "chain param"]]:
        """Log density and gradient of several chains, one after the other."""
        pairs = [self.value_and_gradient(z) for z in position]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

    def of_chains(self, position: Float[Tensor, "chain param"]) -> tuple[Float[Tensor, "chain"], Float[Tensor, "chain param"]]:
        """Log density and gradient of several chains in one vmapped pass."""
        leaf = position.detach().clone().requires_grad_(True)
        theta, log_jacobian, prior, at_hand = torch.func.vmap(self._theta_and_prior)(leaf)
        noise = self.together.noise
        there = {name: value.to(noise.data.device) for name, value in theta.items()}
        visibilities = self.together.visibilities_of_chains(there, **at_hand if self.together is self.fit else {})
        likelihood = torch.func.vmap(lambda item: noise.log_likelihood_of(noise.residual(item)))(visibilities)
        value = likelihood.to(prior.device) + prior + self.fit.log_mass_prior(theta)
        vector = torch.stack([theta[name] for name in self.coordinates.names], dim=-1)
        self._last_of_chains = (leaf.detach(), vector.detach(), log_jacobian.detach())
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return only_finite(value.detach(), gradient)

    def _theta_and_prior(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
        with self.fit.one_curve() as shared:
            theta, log_jacobian = self.coordinates.to_theta(z)
        curve = None if shared is None else shared.of(theta)
        return theta, log_jacobian, self.coordinates.log_prior(z, log_jacobian), {} if curve is None else {"curve": curve}

    def parameters_of_chains(self, position: Float[Tensor, "chain param"]) -> tuple[Float[Tensor, "chain param"], Float[Tensor, "chain"]]:
        """`parameters` of several chains; a chain is where it was last evaluated, or where it was last asked for."""
        asked, last = self._asked_of_chains, self._last_of_chains
        if asked is not None and last is not None and asked[0].shape == last[0].shape == position.shape:
            moved, stayed = ((position == known[0]).all(dim=-1) for known in (last, asked))
            if bool((moved | stayed).all()):
                vector, log_jacobian = torch.where(moved[:, None], last[1], asked[1]), torch.where(moved, last[2], asked[2])
                self._asked_of_chains = (position.detach().clone(), vector, log_jacobian)
                return vector, log_jacobian
        with torch.no_grad():
            theta, log_jacobian = torch.func.vmap(self.coordinates.to_theta)(position.detach())
        vector = torch.stack([theta[name] for name in self.coordinates.names], dim=-1)
        self._asked_of_chains = (position.detach().clone(), vector, log_jacobian)
        return vector, log_jacobian

    def fisher(self, z: Float[Tensor, "param"], *, with_prior: bool = True) -> Float[Tensor, "param param"]:
        """``J^T J`` plus the prior's inverse variances, 1 for nearly every coordinate, and what a prior on the stars' mass adds."""
        mass_prior = self.fit.mass_prior if with_prior else None

        def residual(here: Tensor) -> Tensor:
            with self.fit.one_curve():
                theta = self.coordinates.to_theta(here)[0]
                found = self.fit.whitened_residual(theta)
            return found if mass_prior is None else torch.cat([found.flatten(), mass_prior.residual(theta).to(found.dtype)[None]])

        matrix = gauss_newton(jacobian(residual, z))
        return matrix + torch.diag(self.coordinates.prior_precision(z.detach())) if with_prior else matrix

    def fisher_of_chains(self, position: Float[Tensor, "chain param"]) -> Float[Tensor, "chain param param"]:
        """`fisher` of several chains in one vmapped pass: a fifth of the time one after the other, where a model is small."""
        return torch.func.vmap(self.fisher, chunk_size=FISHERS_AT_ONCE)(position.detach())


def build_model(recipe: Recipe, gridded: GriddedVisibilities) -> GalaxyFit:
    """Assemble forward model, noise and priors.

    Parameters
    ----------
    recipe
        With sections ``galaxy`` and ``fit``.
    gridded
        The data that ``fit.visibilities`` names.

    Raises
    ------
    RecipeError
        If a section is missing, a prior names an unknown parameter, the priors leave the emulator's range, or the galaxy cannot lie inside
        the band or the image.
    DataError, DomainError, ModelFileError
        If data, likelihood or emulator cannot be used.
    """
    from supermage.forward.galaxy_model import GalaxyModel
    from supermage.models.registry import load_model

    if recipe.fit is None or recipe.galaxy is None:
        raise RecipeError("a fit needs the sections [galaxy] and [fit], got a recipe without")
    options = recipe.fit.model
    dtype = torch.float32 if options.precision == "float32" else torch.float64
    priors = build_priors(recipe.fit, gridded.n_block)
    check_line(recipe.galaxy.rest_frequency, gridded, priors)
    check_centre(gridded.grid.field_of_view, priors)
    emulator: Any = load_model(options.emulator)
    check_emulator_range(emulator, priors, recipe.galaxy.distance)
    galaxy_model = GalaxyModel(
        gridded.grid,
        frequency=gridded.frequency,
        topo_to_frame=gridded.topo_to_frame,
        rest_frequency=recipe.galaxy.rest_frequency,
        convention=gridded.convention,
        hanning=gridded.hanning,
        averaging=gridded.response.spacing,
        taps=gridded.response.line_taps,
        cell_u=gridded.cell_u,
        cell_v=gridded.cell_v,
        offset_mean=gridded.offset_mean,
        offset_second=gridded.offset_second,
        distance=recipe.galaxy.distance,
        emulator=emulator,
        dish_diameter=gridded.dish_diameter,
        primary_beam_factor=gridded.primary_beam_factor,
        dtype=dtype,
        halo=options.halo,
    )
    noise = VisibilityNoise(gridded, likelihood=options.likelihood, continuum=options.continuum, order=options.continuum_order, dtype=dtype)
    nuisances = BlockNuisances(gridded, dtype=dtype) if options.block_flux or options.block_position else None
    return GalaxyFit(galaxy_model, noise, priors, nuisances, build_mass_prior(recipe, emulator, priors))
