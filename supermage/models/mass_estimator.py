"""A trained mass prior: from a catalogue's rows to the joint density of their masses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from supermage.errors import DataError, DomainError, ModelFileError
from supermage.models.catalogue import canonical, check_features, column_values, reasons, some_of
from supermage.models.columns import APERTURES, COLUMNS
from supermage.models.feature_space import FeatureSpace, columns_of, derive
from supermage.models.gbdt import GBDT, TEXT_START, gbdt_of_text
from supermage.models.mass_coordinates import DEFAULT, check_targets
from supermage.models.mass_prior import MassPrior
from supermage.models.mass_sample import light_of
from supermage.models.mixture_density import ConditionalDensity, NetworkShape, Population
from supermage.models.nuker_emulator import DESCRIPTION_FILE, WEIGHTS_FILE, file_hash
from supermage.models.out_of_distribution import TrainingRegion, population_weight, warn_of
from supermage.models.recalibration import Warp
from supermage.models.training import to_json, write_atomically

FloatArray = NDArray[np.float64]

KIND, VERSION = "mass-prior", "1"
CHOSEN = "log_aperture"
"""Feature that a row must have where the sphere is the row's own (aperture ``ratio``)."""

TREES_FILE, CALIBRATION_FILE = "model.txt", "calibration.json"


@dataclass(frozen=True)
class Anchor:
    """First guesses of the latent coordinates: linear in the inputs, plus trees.

    Attributes
    ----------
    slopes
        Shape (latent, input + 1), the constant last.
    trees
        One ensemble of trees for each coordinate.
    mean, spread
        Of the guesses in training, shape (latent,): they standardise what the networks see of them.
    """

    slopes: FloatArray
    trees: tuple[GBDT, ...]
    mean: FloatArray
    spread: FloatArray

    def latents(self, inputs: FloatArray, *, num_threads: int = 1) -> FloatArray:
        """Guesses, shape (row, latent)."""
        linear = inputs @ self.slopes[:, :-1].T + self.slopes[:, -1]
        if not len(inputs):
            return linear
        return linear + np.stack([trees.predict(inputs, trees.features, num_threads=num_threads) for trees in self.trees], axis=1)

    def network_inputs(self, inputs: FloatArray, latents: FloatArray) -> FloatArray:
        """What the networks see: inputs, and the guesses standardised."""
        return np.concatenate([inputs, (latents - self.mean) / self.spread], axis=1)


@dataclass(frozen=True)
class MassEstimator:
    """A trained model, frozen.

    Attributes
    ----------
    name
        Of the model.
    space, region, anchor, density
        Feature space, training region, first guesses, conditional density.
    needs
        Features of which a row must have one at least.
    aperture
        The sphere within which masses are predicted: ``1rhsm``, ``2rhsm``, or ``ratio``: a column ``aperture_ratio`` says it in units of
        R50.
    about
        What the card says: data, cuts, split, scores.
    """

    name: str
    space: FeatureSpace
    region: TrainingRegion
    anchor: Anchor
    density: ConditionalDensity
    needs: tuple[str, ...]
    aperture: str
    about: dict[str, Any]

    version = VERSION

    def __repr__(self) -> str:
        return f"MassEstimator({self.source}, aperture {self.aperture}, features {', '.join(self.space.names)})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a catalogue that the model reads; some may be missing."""
        return columns_of(self.space.names)

    @property
    def required(self) -> tuple[str, ...]:
        """Features that every row must have, beside one of :attr:`needs`: without its radius a sphere holds no certain mass."""
        return (CHOSEN,) if self.aperture == "ratio" and CHOSEN in self.space.names else ()

    @property
    def has_light(self) -> bool:
        """Whether the light that M*/L divides by is known where ``M_r`` is."""
        return self.aperture == "1rhsm" and "M_r" in self.columns

    @property
    def source(self) -> str:
        """Name, version and weights in one line, as predictions record it."""
        return f"{self.name} version {VERSION}, weights {self.about.get('sha256', 'unsaved')[:12]}"

    def predict(self, table: Table, targets: Sequence[str] = DEFAULT) -> MassPrior:
        """Joint density of the targets for every row.

        Parameters
        ----------
        table
            Catalogue with units on its columns, in any order; gaps allowed, masked or NaN.
        targets
            Names, see :data:`supermage.models.columns.TARGETS`.

        Returns
        -------
        MassPrior
            Batch shape (row,), within :attr:`aperture`. A row of which the model cannot tell anything (:meth:`reasons`) gets the
            population's; ``log_ml`` is NaN where ``M_r`` is missing.

        Raises
        ------
        DataError
            If the table has no row or none of the columns that a row needs, a unit is missing or of another kind, or most of a column
            cannot be meant.
        DomainError
            As :meth:`check_targets`.

        Warns
        -----
        OutOfDistributionWarning
            In one line, with the number of rows outside the training set.
        """
        self.check_targets(targets)
        standard, light = self.features(table)
        prior = self.prior_of(standard, torch.from_numpy(light)).with_targets(targets)
        warn_of(prior.out_of_distribution.numpy())
        return prior

    def check_targets(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The names as a tuple, if the model can predict them.

        Raises
        ------
        DomainError
            If one is unknown or a function of the others, or asks for a light that the model does not know.
        """
        names = check_targets(targets, self.density.shape.latents)
        if "log_ml" in names and not self.has_light:
            raise DomainError(f"log_ml needs a model with M_r and the sphere of 1 R_hsm, whose light is known, got {self.name}, without")
        return names

    def features(self, table: Table) -> tuple[FloatArray, FloatArray]:
        """Standardised features, shape (row, feature), NaN where missing, and log10 of the light within the aperture, Lsun.

        Raises
        ------
        DataError
            As :meth:`predict`.
        """
        if not isinstance(table, Table):
            raise DataError(f"a catalogue must be an astropy Table with units on its columns, got a {type(table).__name__}")
        columns = self._values(table)
        standard = self.space.standardise(derive(self.space.names, columns))
        light = light_of(columns["M_r"]) if self.has_light and "M_r" in columns else np.full(len(table), np.nan)
        return standard, light

    def reasons(self, table: Table) -> list[str]:
        """Why a row cannot be predicted, one text a row; empty where it can."""
        standard, _ = self.features(table)
        return self.reasons_of(table, standard)

    def reasons_of(self, table: Table, standard: FloatArray) -> list[str]:
        """As :meth:`reasons`, for features at hand."""
        texts: list[list[str]] = [[] for _ in standard]
        for names, lacking in zip((self.needs, *((name,) for name in self.required)), self._lacking(standard), strict=True):
            rows, asked = np.flatnonzero(lacking), [name for name in columns_of(names) if name in COLUMNS]
            said = reasons(table, asked) if len(rows) and asked else ["missing"] * len(standard)
            for row in rows:
                why = said[row].removeprefix(f"{asked[0]} ") if names != self.needs else said[row]
                texts[row].append(f"needs {' or '.join(columns_of(names))}: {why}")
        return ["; ".join(text) for text in texts]

    def _lacking(self, standard: FloatArray) -> list[NDArray[np.bool_]]:
        """Rows without any of :attr:`needs`, and those without each of :attr:`required`."""
        gaps = np.isnan(standard)
        needed = [self.space.names.index(name) for name in self.needs]
        return [np.asarray(gaps[:, needed].all(axis=1)), *(gaps[:, self.space.names.index(name)] for name in self.required)]

    def prior_of(self, standard: FloatArray, light: Tensor, *, num_threads: int = 1) -> MassPrior:
        """The density of standardised features, without a warning."""
        score = self.region.score(standard)
        score[np.any(self._lacking(standard), axis=0)] = np.nan
        weight = population_weight(score)
        inputs = self.space.inputs(standard)
        anchored = self.anchor.latents(inputs, num_threads=num_threads)
        seen = torch.from_numpy(self.anchor.network_inputs(inputs, anchored))
        mixture = self.density.mixture(seen, torch.from_numpy(anchored), torch.from_numpy(weight))
        return MassPrior(mixture, aperture=self.aperture, log_light=light, out_of_distribution=torch.from_numpy(score), source=self.source)

    def with_warp(self, warp: Warp) -> MassEstimator:
        """The same with another recalibration."""
        return replace(self, density=replace(self.density, warp=warp))

    def with_about(self, about: dict[str, Any]) -> MassEstimator:
        """The same with other words about it."""
        return replace(self, about=about)

    def _values(self, table: Table) -> dict[str, FloatArray]:
        """Columns by name, NaN where missing."""
        known = [name for name in self.columns if name in COLUMNS]
        others = [name for name in self.columns if name not in COLUMNS and name in table.colnames]
        if not known and not others:
            raise DataError(f"a catalogue must have one of {', '.join(self.columns)}, got none")
        values = {name: column_values(table, name) for name in others}
        if known:
            table = canonical(table, names=known)
            values |= dict(zip(known, check_features(table, known).T, strict=True))
        for names in (self.needs, *((name,) for name in self.required)):
            if not any(set(columns_of([name])) <= set(table.colnames) for name in names):
                asked = " or ".join(" with ".join(columns_of([name])) for name in names)
                raise DataError(f"a catalogue must have {asked} for {self.name}, got {some_of(table.colnames)}")
        return values

    def save(self, folder: Path) -> MassEstimator:
        """Write the artefact: trees as LightGBM's text, weights, recalibration, description; each file atomically.

        Returns
        -------
        MassEstimator
            The same, with the description that was written.
        """
        population, space = self.density.population, self.space
        tensors = {f"layers.{number}": layer for number, layer in enumerate(self.density.layers)}
        tensors |= {"spread": self.density.spread, "population.log_weight": population.log_weight, "population.mean": population.mean,
                    "population.factor": population.factor}  # fmt: skip
        arrays = {"space.mean": space.mean, "space.spread": space.spread, "space.correlation": space.correlation,
                  "region.mean": self.region.mean, "region.covariance": self.region.covariance, "anchor.slopes": self.anchor.slopes,
                  "anchor.mean": self.anchor.mean, "anchor.spread": self.anchor.spread}  # fmt: skip
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        contents = {
            WEIGHTS_FILE: save({name: value.detach().contiguous() for name, value in tensors.items()}, metadata={"model": self.name}),
            TREES_FILE: "".join(trees.text for trees in self.anchor.trees).encode(),
            CALIBRATION_FILE: to_json({"warp": self.density.warp.parameters.tolist(), "edge": self.region.edge}),
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        description = {
            "kind": KIND, "version": VERSION, "name": self.name, "sha256": hashes[WEIGHTS_FILE], "files": hashes,
            "features": list(space.names), "needs": list(self.needs), "aperture": self.aperture,
            "network": {key: getattr(self.density.shape, key) for key in _SIZES},
            "trees": [{**trees.description(), "curves": {}} for trees in self.anchor.trees],
            **{key: value for key, value in self.about.items() if key not in ("sha256", "files")},
        }  # fmt: skip
        for name, content in contents.items():
            write_atomically(folder / name, content)
        write_atomically(folder / DESCRIPTION_FILE, to_json(description))
        return self.with_about(description)


_SIZES = ("inputs", "latents", "members", "components", "hidden", "depth")


def load_mass_estimator(folder: Path | None) -> MassEstimator:
    """Load what :meth:`MassEstimator.save` wrote.

    Raises
    ------
    ModelFileError
        If a file is missing, altered, or of another version.
    """
    if folder is None:
        raise ModelFileError("a mass prior must have a folder of files, got none")
    about = _description(folder)
    for name, expected in about["files"].items():
        try:
            got = file_hash(folder / name)
        except OSError as error:
            raise ModelFileError(f"{folder / name}: a model's files must be readable, got {error.strerror}") from None
        if got != expected:
            raise ModelFileError(f"{folder / name}: must have the hash in {DESCRIPTION_FILE}, got {got[:12]}: altered or incomplete")
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        calibration = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
        return _assembled(folder, about, tensors, calibration)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        raise ModelFileError(f"{folder}: the files must fit the model that {DESCRIPTION_FILE} describes, got others") from None


def _assembled(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor], calibration: dict[str, Any]) -> MassEstimator:
    arrays = {name: value.numpy() for name, value in tensors.items() if name.split(".")[0] in ("space", "region", "anchor")}
    shape = NetworkShape(**{key: int(about["network"][key]) for key in _SIZES})
    layers = [tensors[f"layers.{number}"] for number in range(shape.members * len(shape.layers))]
    population = Population(tensors["population.log_weight"], tensors["population.mean"], tensors["population.factor"])
    warp = Warp(torch.tensor(calibration["warp"], dtype=torch.float64))
    names, needs = tuple(about["features"]), tuple(about["needs"])
    if about["aperture"] not in (*APERTURES, "ratio") or not needs or not set(needs) <= set(names):
        raise ValueError
    texts = [TEXT_START + text for text in (folder / TREES_FILE).read_text(encoding="utf-8").split(TEXT_START)[1:]]
    trees = tuple(gbdt_of_text(text.encode(), item, source=str(folder)) for text, item in zip(texts, about["trees"], strict=True))
    if any(item.features != (*names, *(f"{name}_missing" for name in names)) for item in trees):
        raise ValueError
    return MassEstimator(
        str(about["name"]),
        FeatureSpace(names, arrays["space.mean"], arrays["space.spread"], arrays["space.correlation"]),
        TrainingRegion(arrays["region.mean"], arrays["region.covariance"], float(calibration["edge"])),
        Anchor(arrays["anchor.slopes"], trees, arrays["anchor.mean"], arrays["anchor.spread"]),
        ConditionalDensity(shape, layers, tensors["spread"], population, warp),
        needs, str(about["aperture"]), about,
    )  # fmt: skip


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = about["kind"], about["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"{path}: a mass prior must come with a complete {DESCRIPTION_FILE}, got none or a damaged one") from None
    if (kind, version) != (KIND, VERSION):
        raise ModelFileError(f"{path}: must be '{KIND}' version {VERSION}, got '{kind}' version {version}")
    for key in ("name", "sha256", "files", "features", "needs", "aperture", "network", "trees"):
        if key not in about:
            raise ModelFileError(f"{path}: a mass prior must come with a complete {DESCRIPTION_FILE}, got one without {key}")
    return about
