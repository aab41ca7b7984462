"""One posterior with everything that its report needs, each piece worked out when it is first asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.constants import pc_per_arcsec
from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.errors import DataError, DomainError, nearest_name
from supermage.plots.profile import outer_level
from supermage.report.cubes import SkyCubes, sky_cubes
from supermage.report.mass_prior import MassPriorFacts, mass_prior_facts
from supermage.report.mass_prior_words import judge_mass_prior
from supermage.report.noise import noise_facts
from supermage.report.predictive import Predictive, predictive_of
from supermage.report.profiles import Profiles, as_tensors, flux_inside, profiles_of
from supermage.report.record import MASS, Record
from supermage.report.residuals import Residuals, residuals_of
from supermage.report.statistics import edge_density, interval
from supermage.report.verdict import ConvergenceFacts, HeldMass, MassFacts, NoiseFacts, ResidualFacts, Verdict, judge

BAND_DRAWS = 1000
"""Draws behind the median, 68 % and 95 % bands; 99.73 % bands take every draw."""
PREDICTIVE_DRAWS = 40
RADII = 90
INNERMOST_BEAMS = 0.06
SEED = 1
EMULATOR_RANGE = (2.0, 10_000.0)
"""Radii, pc, over which the emulators' errors are measured (their model card)."""


class Case:
    """A posterior, its data and its model.

    Parameters
    ----------
    record
        The posterior.
    gridded, fit
        The data and the model; read and built as the posterior's recipe says when absent.
    output
        Folder of the report where one was asked for, for the commands in its captions.
    chosen
        Names of the parameters of the corner plot, in order, in place of the main ones.
    reference
        Values to compare with, by name, inside the prior or not, drawn in the corner plots as a truth is; they take its place.

    Raises
    ------
    DomainError
        If one of them names no sampled parameter, or a value is not finite.
    """

    def __init__(
        self, record: Record, *, gridded: GriddedVisibilities | None = None, fit: Any = None, output: Path | None = None,
        chosen: Sequence[str] = (), reference: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.record = record
        self.output = output
        self.chosen = tuple(chosen)
        self.reference = {name: float(value) for name, value in (reference or {}).items()}
        names = [parameter.name for parameter in record.parameters]
        for name in (*self.chosen, *self.reference):
            if name not in names:
                near = nearest_name(name, names)
                raise DomainError(f"a parameter of the corner plot must be one of {', '.join(names)}, got '{name}'{near}")
        for name, value in self.reference.items():
            if not math.isfinite(value):
                raise DomainError(f"a reference must be a finite number, got {name} = {value:g}")
        self._gridded = gridded
        self._fit = fit

    @cached_property
    def gridded(self) -> GriddedVisibilities:
        """The data.

        Raises
        ------
        DataError
            If they are missing, or not those that were fitted.
        """
        gridded = self._gridded if self._gridded is not None else open_visibilities(self._visibilities_path())
        wanted = self.record.facts.get("data_checksum")
        if wanted and wanted != gridded.checksum:
            raise DataError(
                f"a report needs the data that were fitted (checksum {str(wanted)[:12]}), got {gridded.checksum[:12]}: reduced anew since?"
            )
        return gridded

    def _visibilities_path(self) -> Path:
        stored = Path(str(self.record.facts["visibilities"]))
        fit = self.record.recipe.fit
        choices = [stored, self.record.path.parent / stored] + ([] if fit is None else [self.record.recipe.path(fit.visibilities)])
        return next((path for path in choices if path.is_file()), stored)

    @cached_property
    def fit(self) -> Any:
        """The model that was fitted."""
        if self._fit is not None:
            return self._fit
        from supermage.inference.model import build_model

        recipe = self.record.recipe
        if recipe.fit is not None and recipe.fit.mass_prior is not None:
            # its numbers are in the posterior: neither estimator nor catalogue need be here
            recipe = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"mass_prior": None})})
        return build_model(recipe, self.gridded)

    @property
    def continuum(self) -> bool:
        """Whether a continuum was marginalised."""
        return True if self.record.recipe.fit is None else self.record.recipe.fit.model.continuum

    @cached_property
    def best_theta(self) -> dict[str, float]:
        """The draw of highest posterior density."""
        return self.record.theta(self.record.best)

    @cached_property
    def best_visibilities(self) -> NDArray[np.complex128]:
        """Model visibilities of the best draw, Jy."""
        with torch.no_grad():
            return self.fit.visibilities(as_tensors(self.best_theta)).to(torch.complex128).numpy()

    @cached_property
    def discretisation(self) -> tuple[float, float]:
        """What twice the nodes along each axis, and a disc 1.5 times as large, change in the best draw's visibilities.

        Relative rms, and chi-squared.
        """
        fit, best = self.fit, self.best_visibilities
        with torch.no_grad():
            theta = as_tensors(self.best_theta)
            refined = fit.galaxy_model.refined().visibilities(theta)
            finer = (refined if fit.nuisances is None else fit.nuisances(theta, refined)).to(torch.complex128)
            difference = torch.from_numpy(best) - finer
            chi2 = float(fit.noise.chi2(fit.noise.whiten(difference)).sum())
        return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(finer)), chi2

    @cached_property
    def residuals(self) -> Residuals:
        """Whitened residuals of the best draw."""
        fit = self.record.recipe.fit
        order = 0 if fit is None else fit.model.continuum_order
        return residuals_of(self.gridded, self.best_visibilities, continuum=self.continuum, order=order)

    @cached_property
    def predictive(self) -> Predictive:
        """Residuals of a seeded subsample of the draws."""
        fit, record = self.record.recipe.fit, self.record
        chosen = np.random.default_rng(SEED).choice(record.n_draws, size=min(PREDICTIVE_DRAWS, record.n_draws), replace=False)

        def visibilities(theta: dict[str, float]) -> NDArray[np.complex128]:
            with torch.no_grad():
                return self.fit.visibilities(as_tensors(theta)).to(torch.complex128).numpy()

        draws = [record.theta(int(k)) for k in np.sort(chosen)]
        order = 0 if fit is None else fit.model.continuum_order
        return predictive_of(self.gridded, visibilities, draws, continuum=self.continuum, order=order)

    @cached_property
    def noise(self) -> NoiseFacts | None:
        """The noise held against what is stated of it."""
        return noise_facts(self.gridded, self.best_visibilities)

    @cached_property
    def cubes(self) -> SkyCubes:
        """Dirty cubes of data, model and residual."""
        return sky_cubes(self.gridded, self.best_visibilities, self.residuals.continuum)

    @property
    def pc_per_arcsec(self) -> float:
        """Scale at the galaxy's distance."""
        return pc_per_arcsec(self.record.distance)

    @cached_property
    def profiles(self) -> Profiles:
        """Profiles of the truth and of the draws behind the bands."""
        record = self.record
        cubes = self.cubes
        radius = np.geomspace(INNERMOST_BEAMS * cubes.beam_width, 0.5 * self.gridded.grid.field_of_view, RADII)
        return profiles_of(
            self.fit.galaxy_model,
            [record.theta(int(k)) for k in self.band_draws()],
            radius,
            pc_per_arcsec=self.pc_per_arcsec,
            truth=record.true_theta(),
        )

    def band_draws(self) -> NDArray[np.int64]:
        """Indices of the draws behind the bands: a seeded subsample, or all where 99.73 % bands are to be drawn."""
        record = self.record
        size = record.n_draws if outer_level(record.tail_ess)[0] > 0.99 else min(BAND_DRAWS, record.n_draws)
        return np.sort(np.random.default_rng(SEED).choice(record.n_draws, size=size, replace=False))

    @property
    def emulator_range(self) -> tuple[float, float]:
        """Radii (arcsec) over which the emulator's errors are measured."""
        return EMULATOR_RANGE[0] / self.pc_per_arcsec, EMULATOR_RANGE[1] / self.pc_per_arcsec

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on this posterior."""
        # with a prior on the stars' mass intensity_rb has no uniform one that its width could be held against
        left_out = {MASS} if self.mass_prior is None else {MASS, "intensity_rb"}
        others = {p.name: p.width_ratio for p in self.record.parameters if p.name not in left_out}
        found = judge(self.mass_facts(), self.residual_facts(), convergence_facts(self.record), others, disc_inside=self.disc_inside())
        return found if self.mass_prior is None else judge_mass_prior(found, self.mass_prior)

    @cached_property
    def mass_prior(self) -> MassPriorFacts | None:
        """What a prior on the stars' mass did, where the fit had one."""
        return mass_prior_facts(self.record, self.fit.galaxy_model, self.band_draws()) if self.record.mass_prior is not None else None

    def disc_inside(self) -> float:
        """Fraction of the median gas disc's flux that lies inside the image."""
        median = {p.name: float(np.median(p.draws)) for p in self.record.parameters}
        return flux_inside({**self.record.fixed, **median}, self.fit.galaxy_model.disc_radius)

    def mass_facts(self) -> MassFacts | HeldMass:
        """What the draws say of the mass, or what it was held at."""
        mass, profiles = self.record.mass, self.profiles
        if mass is None:
            return HeldMass(self.record.fixed[MASS])
        low, high = edge_density(mass.draws, mass.lower, mass.upper)
        spheres = profiles.sphere_of_influence()
        sphere, inner = float(np.median(spheres)), interval(spheres, 0.68)
        return MassFacts(
            width_ratio=mass.width_ratio,
            span=interval(mass.draws, 0.68).width,
            lower_edge=low,
            upper_edge=high,
            sphere_of_influence=sphere,
            beam=self.cubes.beam_width,
            at_most=sphere <= float(profiles.radius[0]) * (1 + 1e-9),
            sphere_range=(inner.low, inner.high),
        )

    def residual_facts(self) -> ResidualFacts:
        """What the residuals say of the best draw."""
        residuals = self.residuals
        peak, expected = self.cubes.peak()
        return ResidualFacts(
            chi2_per_datum=residuals.chi2_per_datum,
            chi2_sigma=residuals.sigma,
            peak=peak,
            peak_expected=expected,
            worst_channel_sigma=residuals.by_channel.worst_sigma(),
            worst_baseline_sigma=residuals.by_baseline.worst_sigma(),
            noise=self.noise,
        )


def convergence_facts(record: Record) -> ConvergenceFacts:
    """The worst numbers over all parameters, and what the fit itself recorded."""
    worst = max(record.parameters, key=lambda p: np.nan_to_num(p.mixing.r_hat, nan=np.inf))
    fewest = min(record.parameters, key=lambda p: np.nan_to_num(p.mixing.ess, nan=0.0))
    return ConvergenceFacts(
        worst_r_hat=worst.mixing.r_hat,
        worst_r_hat_name=worst.name,
        smallest_ess=fewest.mixing.ess,
        smallest_ess_name=fewest.name,
        declared=bool(int(record.facts.get("converged", 1))),
        complete=bool(int(record.facts.get("complete", 1))),
        modes=tuple(tuple(group) for group in json.loads(str(record.facts.get("modes", "[]")))),
        nested_r_hat=float(record.facts.get("worst_nested_rhat", 1.0)),
        nested_r_hat_name=str(record.facts.get("worst_nested_name", "")),
    )
