"""Training of ``mass-prior`` models: trees cross-fitted by group, mixture networks on them, recalibration, artefact and card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from supermage.errors import RecipeError
from supermage.models.feature_space import FeatureSpace, derive, feature_names, fit_feature_space
from supermage.models.gbdt import GBDT, ROUNDS, train_gbdt
from supermage.models.mass_card import write_mass_card
from supermage.models.mass_coordinates import latents_of_masses
from supermage.models.mass_estimator import CHOSEN, Anchor, MassEstimator
from supermage.models.mass_prior import MassPrior, line_of_target, nodes_of_gaussian
from supermage.models.mass_sample import Sample, read_own_sample, read_shared_sample, read_tng_sample
from supermage.models.mass_scores import score_table, true_targets
from supermage.models.mixture_density import ConditionalDensity, NetworkShape, components, draw_layers, fit_population
from supermage.models.out_of_distribution import fit_region, population_weight
from supermage.models.recalibration import Warp, fit_map
from supermage.models.splits import split_by_group
from supermage.models.training import Schedule, options_of
from supermage.models.warped_mixture import WarpedMixture
from supermage.progress import Progress
from supermage.recipe import Recipe

FloatArray = NDArray[np.float64]

PARTS = ("train", "validation", "calibration", "test")

OF_CATALOGUES = ("cuts", "columns", "units", "mass_30kpc", "source", "licence")
"""Options of one's own catalogues."""

WATCHED_ROWS = 2000
"""Training rows whose loss is watched, at most."""

LIGHT = ("M_r", "M_K")
"""Features of which a row must have one, where nothing else is said."""

GAPS_TOGETHER = (("U_B", "B_V"), ("M_K", "V_K"), ("g_r", "r_i", "i_z"), ("f_disk_2d", "f_disk_1d", "log_bulge_index"))
"""Features that catalogues lack together."""

SERVED = (("log_mstar",), ("log_mtot", "log_fstar"), ("log_fdm",))
"""Targets whose probabilities the recalibration of each coordinate makes uniform."""


class Options(Schedule):
    """``[train.options]`` of a mass prior.

    ``sample`` says what the rows are: ``tng`` (the reference rows), ``tng-shared`` (the same as EAGLE's tables would list them, within
    ``apertures`` spheres for each galaxy, dark masses moved by ``discrepancy`` dex) or ``catalogue`` (any with masses and groups; with
    ``columns`` and ``units`` of your own as in ``supermage predict``, and ``cuts`` such as ``"m_star_30kpc > 5e9"``).
    With ``tng`` too ``cuts`` may be given; a group catalogue takes ``mass_30kpc``, file and data set of the stars within 30 kpc that it
    lacks. Of a catalogue of your own, ``source`` and ``licence`` say on the card where its galaxies come from and on what terms.
    ``features`` is a preset or a list; a row needs one of ``needs`` (``M_r`` and ``M_K`` if they are features). ``fractions`` are those of
    train, validation, calibration and test. ``masked`` copies of each training row lose features by chance ``gap``, and make up
    ``masked_share`` of a batch. ``noise`` blurs the networks' inputs, in spreads.
    """

    optimiser: Literal["soap", "adam"] = "adam"
    steps: Annotated[int, Field(ge=1)] = 700
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup: Annotated[int, Field(ge=0)] = 50
    sample: Literal["tng", "tng-shared", "catalogue"] = "tng"
    rows: str = "../../../shared/data/galaxies/tng100-1-z0-subhalos.parquet"
    cuts: list[str] = Field(default_factory=list)
    columns: dict[str, str] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    mass_30kpc: tuple[str, str] | None = None
    source: str = ""
    licence: str = ""
    aperture: Literal["1rhsm", "2rhsm"] = "1rhsm"
    apertures: Annotated[int, Field(ge=1)] = 4
    discrepancy: Annotated[float, Field(ge=0)] = 0.1
    features: str | list[str] = "group catalogue"
    needs: list[str] = Field(default_factory=list)
    fractions: tuple[float, float, float, float] = (0.5, 0.1, 0.2, 0.2)
    masked: Annotated[int, Field(ge=0)] = 2
    masked_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    gap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    rounds: Annotated[int, Field(ge=1)] = ROUNDS
    folds: Annotated[int, Field(ge=2)] = 5
    members: Annotated[int, Field(ge=1)] = 5
    components: Annotated[int, Field(ge=1)] = 2
    hidden: Annotated[int, Field(ge=1)] = 64
    depth: Annotated[int, Field(ge=1)] = 2
    population: Annotated[int, Field(ge=1)] = 4
    batch: Annotated[int, Field(ge=1)] = 256
    noise: Annotated[float, Field(ge=0)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3


class MassTraining:
    """The problem: the negative log likelihood of the latent coordinates, of batches drawn for every member.

    Parameters
    ----------
    sample
        Galaxies with known masses.
    options
        Of the recipe.
    seed
        Of split, gaps, folds, networks and batches.
    name
        Of the model, for its card.
    """

    def __init__(self, sample: Sample, options: Options, seed: int, name: str) -> None:
        self.schedule = self.options = options
        self.sample, self.seed, self.name = sample, seed, name
        self.names = feature_names(options.features)
        self.needs = options.needs or [name for name in LIGHT if name in self.names]
        if not self.needs:
            raise RecipeError(f"train.options.needs must name a feature that a row must have, got none for {', '.join(self.names)}")
        for need in self.needs:
            if need not in self.names:
                raise RecipeError(f"train.options.needs must name features of the model, got {need!r}")
        if sample.aperture == "ratio" and CHOSEN not in self.names:
            raise RecipeError(f"train.options.features must have {CHOSEN} where each row has its own sphere, got {', '.join(self.names)}")
        self.split = split_by_group(sample.group, options.fractions, seed)
        self.parts = dict(zip(PARTS, self.split.parts, strict=True))
        self.latents = latents_of_masses(sample.stellar, sample.total, sample.dark, seed=seed)
        features = derive(self.names, sample.columns)
        train = self.parts["train"]
        self.space = fit_feature_space(self.names, features[train])
        self.standard = self.space.standardise(features)
        self.region = fit_region(self.standard[train])
        rows, standard = self._copies()
        self.anchor, anchored = fit_anchor(self.space, standard, self.latents[rows], sample.group[rows], options, seed)
        residual = self.latents[rows] - anchored
        self.spread = torch.tensor(np.nanstd(residual[: len(train)], axis=0))
        self.inputs = torch.tensor(self.anchor.network_inputs(self.space.inputs(standard), anchored))
        self.target = torch.tensor(residual) / self.spread
        self.complete = len(train)
        self.shape = NetworkShape(self.inputs.shape[1], 3, options.members, options.components, options.hidden, options.depth)
        self.parameters = [layer.requires_grad_() for layer in draw_layers(self.shape, seed)]
        self.population = fit_population(_finite_rows(self.latents[train]), options.population)
        self._validation: tuple[Tensor, Tensor] | None = None
        self.history: dict[str, Any] = {}
        self.prepared = "; ".join([*sample.cuts, ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())])
        self.identity = hashlib.sha256(np.concatenate([features, self.latents], axis=1).tobytes() + sample.group.tobytes()).hexdigest()

    def loss(self, step: int) -> Tensor:
        """Negative log likelihood per row of a batch for each member, plus the weight decay; from the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        shape = (self.shape.members, self.options.batch)
        rows = torch.randint(self.complete, shape, generator=generator)
        if len(self.inputs) > self.complete:
            masked = torch.randint(self.complete, len(self.inputs), shape, generator=generator)
            rows = torch.where(torch.rand(shape, generator=generator) < self.options.masked_share, masked, rows)
        inputs = self.inputs[rows]
        inputs = inputs + self.options.noise * torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
        likelihood = components(self.parameters, self.shape, inputs).log_density(self.target[rows]).mean()
        decay = sum(((layer[:-1] ** 2).sum() for layer in self.parameters), torch.zeros((), dtype=torch.float64))
        return self.options.weight_decay / self.shape.members * decay - likelihood

    @torch.no_grad()
    def note(self) -> str:
        """Mean log density of the ensemble on validation rows, per row, in the networks' units."""
        return f"log density of validation rows {-self.watch()[1]:.3f}"

    @torch.no_grad()
    def watch(self) -> tuple[float, float]:
        """Negative log density of the ensemble per row, of training rows without gaps (a part of them) and of the validation rows."""
        seen = self.inputs[: min(self.complete, WATCHED_ROWS)], self.target[: min(self.complete, WATCHED_ROWS)]
        if self._validation is None:
            rows = self.parts["validation"]
            inputs = self.space.inputs(self.standard[rows])
            anchored = self.anchor.latents(inputs)
            target = torch.tensor(self.latents[rows] - anchored) / self.spread
            self._validation = torch.tensor(self.anchor.network_inputs(inputs, anchored)), target
        losses = []
        for given, wanted in (seen, self._validation):
            found = components(self.parameters, self.shape, given).log_density(wanted)
            losses.append(-float((torch.logsumexp(found, dim=0) - np.log(self.shape.members)).mean()))
        return losses[0], losses[1]

    def finish(self, output: Path, *, progress: Progress) -> Path:
        """Recalibrate on the calibration part, measure on the test part, write artefact and card."""
        layers = [layer.detach().clone() for layer in self.parameters]
        density = ConditionalDensity(self.shape, layers, self.spread, self.population, Warp.identity(3))
        estimator = MassEstimator(self.name, self.space, self.region, self.anchor, density, tuple(self.needs), self.sample.aperture, {})
        progress.start("recalibrating", None)
        estimator = estimator.with_warp(self._recalibrated(self.prior_of_part(estimator, "calibration")))
        progress.done()
        progress.start("measuring on the test part", None)
        scores = self.scores(estimator)
        estimator = estimator.with_about(self._about(scores)).save(output)
        write_mass_card(output.parent / "card.md", estimator.about)
        progress.done(f"wrote {output}")
        return output

    def scores(self, estimator: MassEstimator) -> dict[str, Any]:
        """The calibration table of the test part, and beside it that of the density before recalibration."""
        truth = self.truth("test")
        rows = len(self.parts["calibration"])
        bare = estimator.with_warp(Warp.identity(3))
        return {
            "test part": score_table(self.prior_of_part(estimator, "test"), truth, calibration_rows=rows),
            "test part, without recalibration": score_table(self.prior_of_part(bare, "test"), truth, calibration_rows=rows),
        }

    def _copies(self) -> tuple[NDArray[np.intp], FloatArray]:
        """Rows of the sample, and their standardised features: the training part whole, then its copies with gaps."""
        train, generator = self.parts["train"], np.random.default_rng([self.seed, 1])
        parts = [self.standard[train]]
        together = [[self.names.index(name) for name in group if name in self.names] for group in GAPS_TOGETHER]
        together += [[number] for number, name in enumerate(self.names) if not any(name in group for group in GAPS_TOGETHER)]
        for _ in range(self.options.masked):
            copy = self.standard[train].copy()
            for group in filter(None, together):
                if self.names[group[0]] != CHOSEN:
                    copy[np.ix_(np.flatnonzero(generator.random(len(train)) < self.options.gap), np.array(group))] = np.nan
            lost = np.isnan(copy[:, [self.names.index(name) for name in self.needs]]).all(axis=1)
            copy[lost] = self.standard[train][lost]
            parts.append(copy)
        return np.tile(train, len(parts)), np.concatenate(parts)

    def prior_of_part(self, estimator: MassEstimator, part: str) -> MassPrior:
        """Densities of a part of the sample."""
        rows = self.parts[part]
        light = torch.tensor(self.sample.log_light[rows])
        return estimator.prior_of(self.standard[rows], light)

    def truth(self, part: str) -> dict[str, FloatArray]:
        """True targets of a part of the sample; those that it knows."""
        rows = self.parts[part]
        sample = self.sample
        truth = true_targets(sample.stellar[rows], sample.total[rows], sample.dark[rows], sample.log_light[rows])
        return {name: value for name, value in truth.items() if np.isfinite(value).sum() > 10}

    def _recalibrated(self, prior: MassPrior) -> Warp:
        truth = {name: torch.from_numpy(value) for name, value in self.truth("calibration").items()}
        numbers = torch.zeros(3, 4, dtype=torch.float64)
        nodes = nodes_of_gaussian(31, 5.0)
        for latent, served in enumerate(SERVED):

            def probability(point: Float[Tensor, "4"], latent: int = latent, served: tuple[str, ...] = served) -> list[Tensor]:
                warp = Warp(torch.cat([numbers[:latent], point[None], numbers[latent + 1 :]]))
                return [_probabilities(prior.mixture, warp, name, truth[name], prior.log_light, nodes) for name in served]

            numbers[latent] = fit_map(probability)
        return Warp(numbers)

    def _about(self, scores: dict[str, Any]) -> dict[str, Any]:
        weight = population_weight(self.region.score(self.standard[self.parts["test"]]))
        return {
            "seed": self.seed, "training": self.options.model_dump(), "source": self.sample.source, "cuts": self.sample.cuts,
            "split": self.split.description, "rows": {name: len(rows) for name, rows in self.parts.items()}, "scores": scores,
            "mock": self.sample.mock, "history": self.history, "licence": self.options.licence, "validation": self.note(),
            "test_rows_widened": int((weight > 0.01).sum()),
        }  # fmt: skip


def _probabilities(
    mixture: WarpedMixture, warp: Warp, name: str, truth: Tensor, log_light: Tensor, nodes: tuple[Tensor, Tensor]
) -> Tensor:
    from dataclasses import replace

    there = torch.isfinite(truth)
    rows = replace(mixture, warp=warp).map(lambda tensor, axes: tensor[there])
    return line_of_target(name, rows, log_light[there], nodes=nodes).cdf(truth[there])


def fit_anchor(
    space: FeatureSpace, standard: FloatArray, latents: FloatArray, group: NDArray[np.int64], options: Options, seed: int
) -> tuple[Anchor, FloatArray]:
    """First guesses of the coordinates: a linear fit and trees on what it leaves.

    The guesses for the training rows come from trees that have not seen their group, so that the networks learn on errors as large as those
    that they will meet; the trees that are kept have seen all.

    Parameters
    ----------
    space
        Feature space.
    standard
        Standardised features of the training rows, copies with gaps included.
    latents
        Coordinates, NaN where there is none.
    group
        Of each row.
    options, seed
        Of the recipe.

    Returns
    -------
    Anchor, NDArray
        What gives the guesses, and those of the training rows, shape (row, latent).
    """
    inputs = space.inputs(standard)
    names = [*space.names, *(f"{name}_missing" for name in space.names)]
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    fold = _folds(group, options.folds, seed)
    slopes, trees = [], []
    guess = np.zeros_like(latents)
    for number in range(latents.shape[1]):
        there = np.isfinite(latents[:, number])
        slope = np.linalg.lstsq(design[there], latents[there, number], rcond=1e-8)[0]
        residual = latents[:, number] - design @ slope
        slopes.append(slope)
        for part in range(options.folds):
            seen, left = there & (fold != part), fold == part
            guess[left, number] = _trees(inputs[seen], residual[seen], names, number, options, seed).predict(inputs[left], names)
        trees.append(_trees(inputs[there], residual[there], names, number, options, seed))
        guess[:, number] += design @ slope
    anchor = Anchor(np.stack(slopes), tuple(trees), guess.mean(axis=0), guess.std(axis=0))
    return anchor, guess


def _trees(inputs: FloatArray, target: FloatArray, names: list[str], number: int, options: Options, seed: int) -> GBDT:
    return train_gbdt(inputs, target, names=names, target_name=f"u{number + 1}", rounds=options.rounds, seed=seed)


def _folds(group: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of every row, the same for a whole group."""
    names, place = np.unique(group, return_inverse=True)
    return (np.random.default_rng([seed, 2]).permutation(len(names)) % folds)[place]


def _finite_rows(rows: FloatArray) -> FloatArray:
    return rows[np.isfinite(rows).all(axis=1)]


def build(recipe: Recipe) -> MassTraining:
    """The problem of a recipe with ``kind = "mass-prior"``."""
    options: Options = options_of(recipe, Options)
    seed = recipe.train.seed if recipe.train else 1
    path, beside = recipe.path(options.rows), options.mass_30kpc
    whole = options if beside is None else options.model_copy(update={"mass_30kpc": (str(recipe.path(beside[0])), beside[1])})
    return MassTraining(read_sample(path, whole, seed), options, seed, recipe.folder.resolve().name)


def read_sample(path: Path, options: Options, seed: int) -> Sample:
    """The galaxies that a recipe names, whose paths are whole.

    Raises
    ------
    RecipeError
        If names, units or cuts are given for rows that have their own.
    DataError
        As the readers of :mod:`supermage.models.mass_sample`.
    """
    own = ("columns", "units", "mass_30kpc", "source", "licence") if options.sample == "tng" else OF_CATALOGUES
    if options.sample != "catalogue" and (given := [name for name in own if getattr(options, name)]):
        taken = "sample = 'catalogue'" + (" or 'tng'" if given[0] == "cuts" else "")
        raise RecipeError(f"train.options.{given[0]} must come with {taken}, got sample = '{options.sample}'")
    if options.sample == "tng":
        return read_tng_sample(path, aperture=options.aperture, cuts=options.cuts)
    if options.sample == "tng-shared":
        return read_shared_sample(path, copies=options.apertures, seed=seed, discrepancy=options.discrepancy)
    beside = None if options.mass_30kpc is None else (Path(options.mass_30kpc[0]), options.mass_30kpc[1])
    return read_own_sample(path, aperture=options.aperture, cuts=options.cuts, columns=options.columns, units=options.units,
                           mass_30kpc=beside, source=options.source)  # fmt: skip
