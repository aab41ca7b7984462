"""The estimator ``galaxy-cnn``: maps of galaxies in, logarithms of masses out, by one branch of ResNet-18 for each kind of map.

Source: Chu et al., sec. 2.2 and 3.1. Scaling constants belong to the training set, not to an image: an image scaled by its own brightest
pixel has lost the galaxy's luminosity, a velocity map scaled by its own range the depth of its potential.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from supermage.errors import DataError, ModelFileError
from supermage.models.map_store import MAPS, Maps
from supermage.models.nuker_emulator import DESCRIPTION_FILE, WEIGHTS_FILE, file_hash
from supermage.models.resnet import MultiBranchResNet
from supermage.models.training import to_json, write_atomically

if TYPE_CHECKING:
    from supermage.models.mass_estimator import MassEstimator
    from supermage.models.mass_prior import MassPrior

KIND, VERSION = "galaxy-cnn", "1"
BATCH = 64
PRIOR_FOLDER = "prior"
"""Folder of the density beside a network's weights."""

UNTRAINED = "num_batches_tracked"
"""Counters of batch normalisation that nothing depends on."""

Stretch = Literal["linear", "log"]


@dataclass(frozen=True)
class Scaling:
    """How one kind of map becomes a network's input: ``(stretched - lower) / (upper - lower)``, 0 to 1 over the training set.

    Attributes
    ----------
    pixels
        Along a side; an image of more pixels is re-binned by area.
    lower, upper
        Smallest and largest stretched pixel of the training set.
    fill
        What a pixel without value (NaN) counts as, before the stretch.
    stretch, soft
        ``linear``, or ``log``: ``log10(1 + value / soft)``.
    """

    pixels: int
    lower: float
    upper: float
    fill: float
    stretch: Stretch = "linear"
    soft: float = 1.0

    def stretched(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values as they go into the linear scaling; pixels without value filled."""
        filled = np.where(np.isfinite(maps), maps, np.float32(self.fill))
        if self.stretch == "linear":
            return filled
        return (np.log1p(np.maximum(filled, 0.0) / np.float32(self.soft)) / np.float32(math.log(10.0))).astype(np.float32)

    def scaled(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs of the network, shape as given; the same constants for every row."""
        size = self.upper - self.lower if self.upper > self.lower else 1.0
        return ((self.stretched(maps) - np.float32(self.lower)) / np.float32(size)).astype(np.float32)


def stack_maps(galaxies: Sequence[Any]) -> Maps:
    """Maps of several galaxies (:class:`supermage.models.maps.GalaxyMaps`), one row each; colours only where there is light, else NaN."""
    maps = {name: np.stack([np.asarray(getattr(item, name), dtype=np.float32) for item in galaxies]) for name in MAPS}
    maps["g_r"] = np.where(maps["r_light"] > 0.0, maps["g_r"], np.float32(np.nan))
    return maps


def rebin_images(maps: Mapping[str, NDArray[np.float32]], pixels: int) -> Maps:
    """The same maps with images of fewer pixels: light shared out by area, colours those of the summed light.

    A pixel on the border of new ones gives each its part of the light: ``W L W^T``, with the overlaps of new and old pixels in W
    (:func:`overlaps`). Where the number divides, that is the sum over blocks.

    Parameters
    ----------
    maps
        Name -> array of shape (row, pixel, pixel). Kinematic maps come out as they are.
    pixels
        Along a side of the images; at most the old number.

    Raises
    ------
    DataError
        If it is more or below 1, or if there is a colour map without an image.
    """
    out = dict(maps)
    for name in ("r_light", "g_r"):
        if name in maps and maps[name].shape[-1] != pixels:
            size = maps[name].shape[-1]
            if not 1 <= pixels < size:
                raise DataError(f"images can be re-binned to fewer pixels than their {size}, got {pixels}")
            light = np.where(np.isfinite(maps["r_light"]), maps["r_light"], 0.0).astype(np.float64) if "r_light" in maps else None
            if light is None:
                raise DataError("colours can be re-binned beside the r image, whose light weights them, got no r_light")
            if name == "r_light":
                out[name] = _summed(light, pixels).astype(np.float32)
                continue
            known = np.isfinite(maps["g_r"]) & (light > 0.0)
            blue = _summed(np.where(known, light * 10.0 ** (-0.4 * np.where(known, maps["g_r"], 0.0)), 0.0), pixels)
            red = _summed(np.where(known, light, 0.0), pixels)
            with np.errstate(divide="ignore", invalid="ignore"):
                out[name] = np.where(red > 0.0, -2.5 * np.log10(blue / red), np.nan).astype(np.float32)
    return out


def overlaps(size: int, pixels: int) -> NDArray[np.float64]:
    """Part of each of ``size`` pixels of a line that lies in each of ``pixels`` wider ones, shape (pixels, size); columns sum to 1."""
    new, old = np.arange(pixels)[:, None] * size, np.arange(size)[None, :] * pixels
    return np.asarray(np.maximum(np.minimum(new + size, old + pixels) - np.maximum(new, old), 0) / pixels)


def _summed(image: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    block, rest = divmod(image.shape[-1], pixels)
    if rest:
        weight = overlaps(image.shape[-1], pixels)
        return np.asarray(weight @ image @ weight.T)
    return image.reshape(len(image), pixels, block, pixels, block).sum((2, 4))


def unusable(maps: Mapping[str, NDArray[np.float32]], inputs: Sequence[str]) -> list[str]:
    """Why each row cannot be predicted; an empty string where it can.

    Parameters
    ----------
    maps
        Name -> array of shape (row, pixel, pixel).
    inputs
        The maps that are used.
    """
    reasons = [""] * len(maps[inputs[0]])
    for name in inputs:
        values = maps[name]
        empty = np.asarray(~np.isfinite(values).any(axis=(1, 2)))
        infinite = np.asarray(np.isinf(values).any(axis=(1, 2)))
        dark = np.asarray(~(values > 0.0).any(axis=(1, 2))) & (name == "r_light")
        for row in np.flatnonzero(empty | infinite | dark):
            what = "no pixel with a value" if empty[row] else "infinite pixels" if infinite[row] else "no light"
            reasons[row] = reasons[row] or f"{name}: {what}"
    return reasons


class CNN:
    """A trained network with its scaling.

    Parameters
    ----------
    network
        The network, with standardised targets.
    scaling
        Kind of map -> constants, in the order of the branches.
    targets
        Names of what is predicted, log10.
    target_mean, target_deviation
        Of the training set, shape (target,): a prediction is the network's output times the deviation plus the mean.
    description
        What else ``model.json`` holds.
    density
        What was trained on its predictions, if anything was.
    """

    name = KIND
    version = VERSION

    def __init__(self, network: MultiBranchResNet, scaling: Mapping[str, Scaling], targets: Sequence[str],
                 target_mean: NDArray[np.float64], target_deviation: NDArray[np.float64],
                 description: Mapping[str, Any] | None = None, density: MassEstimator | None = None) -> None:  # fmt: skip
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.scaling = dict(scaling)
        self.targets = tuple(targets)
        self.target_mean, self.target_deviation = target_mean, target_deviation
        self.description = dict(description or {})
        self.density = density

    @property
    def inputs(self) -> tuple[str, ...]:
        """Kinds of map that it needs."""
        return tuple(self.scaling)

    @property
    def mock(self) -> bool:
        """Whether it was trained on galaxies that a generator made."""
        return bool(self.description.get("mock", False))

    def prepare(self, maps: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
        """The network's inputs of maps in physical units, float32, each of shape (row, pixel, pixel).

        Raises
        ------
        DataError
            If a kind of map is missing, or has another number of pixels than the trained one, of an image fewer.
        """
        return prepare(maps, self.scaling)

    def predict(self, maps: Mapping[str, NDArray[np.float32]], targets: Sequence[str] = ("log_mstar", "log_mtot")) -> MassPrior:
        """Joint density of masses for every row, of the density that was trained on this network's predictions.

        Parameters
        ----------
        maps
            As of :meth:`estimate`. A row that cannot be predicted (:func:`unusable`) gets the population's density.
        targets
            Names, see :data:`supermage.models.columns.TARGETS`.

        Raises
        ------
        ModelFileError
            If the network was trained without a density.
        DataError
            As :meth:`prepare`.
        DomainError
            If a target is unknown.

        Warns
        -----
        OutOfDistributionWarning
            Where rows lie outside the training set.
        """
        from supermage.models.cnn_prior import catalogue_of

        if self.density is None:
            raise ModelFileError("this network must have a density beside its weights, got none: [train.options.prior] trains one")
        return self.density.predict(catalogue_of(self, maps), targets)

    def estimate(self, maps: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
        """The network's point predictions: log10 of every target, each of shape (row,); NaN where :func:`unusable` has a reason.

        Parameters
        ----------
        maps
            Name -> float32 array of shape (row, pixel, pixel), units of :data:`supermage.models.map_store.MAPS`.

        Raises
        ------
        DataError
            As :meth:`prepare`.
        """
        standardised = self.features(maps)
        return {name: standardised[:, k] * self.target_deviation[k] + self.target_mean[k] for k, name in enumerate(self.targets)}

    @torch.no_grad()
    def features(self, maps: Mapping[str, NDArray[np.float32]], *, penultimate: bool = False) -> NDArray[np.float64]:
        """Standardised predictions, shape (row, target): what a density of masses is conditioned on.

        Parameters
        ----------
        maps
            As of :meth:`estimate`.
        penultimate
            Append the features of all branches: shape (row, target + feature).

        Raises
        ------
        DataError
            As :meth:`prepare`.
        """
        inputs = self.prepare(maps)
        rows = len(next(iter(inputs.values())))
        out = np.full((rows, len(self.targets) + (self.network.n_features if penultimate else 0)), np.nan)
        for first in range(0, rows, BATCH):
            part = {name: item[first : first + BATCH].to(self.device) for name, item in inputs.items()}
            inner = self.network.penultimate(part)
            columns = [self.network.join(inner), inner] if penultimate else [self.network.join(inner)]
            out[first : first + BATCH] = torch.cat(columns, dim=1).double().cpu().numpy()
        out[[bool(reason) for reason in unusable(maps, self.inputs)]] = np.nan
        return out

    def save(self, folder: Path) -> Path:
        """Write weights and description, each atomically; the weights first."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items() if UNTRAINED not in key}
        write_atomically(folder / WEIGHTS_FILE, save(tensors, metadata={"model": f"{KIND} version {VERSION}"}))
        width = self.network.n_features // (8 * len(self.scaling))
        own = {"kind": KIND, "version": VERSION, "sha256": file_hash(folder / WEIGHTS_FILE), "width": width, "inputs": list(self.inputs),
               "scaling": {name: asdict(item) for name, item in self.scaling.items()}, "targets": list(self.targets),
               "target_mean": self.target_mean.tolist(), "target_deviation": self.target_deviation.tolist()}  # fmt: skip
        self.description.update(own)
        write_atomically(folder / DESCRIPTION_FILE, to_json(self.description))
        return folder


def prepare(maps: Mapping[str, NDArray[np.float32]], scaling: Mapping[str, Scaling]) -> dict[str, Tensor]:
    """Inputs of maps under given constants; see :meth:`CNN.prepare`."""
    for name in scaling:
        if name not in maps:
            raise DataError(f"this network needs the maps {', '.join(scaling)}, got no {name}")
        if maps[name].ndim != 3:
            raise DataError(f"maps must have the shape (row, pixel, pixel), got {maps[name].shape} for {name}")
    for pixels in {item.pixels for name, item in scaling.items() if MAPS[name].is_image}:
        maps = rebin_images(maps, pixels)
    for name, item in scaling.items():
        if maps[name].shape[1:] != (item.pixels, item.pixels):
            raise DataError(f"{name} must have {item.pixels} x {item.pixels} pixels, got {' x '.join(map(str, maps[name].shape[1:]))}")
    return {name: torch.from_numpy(np.ascontiguousarray(item.scaled(maps[name]))) for name, item in scaling.items()}


def load_cnn(folder: Path) -> CNN:
    """Load a trained network, frozen.

    Raises
    ------
    ModelFileError
        If a file is missing, altered or of another version.
    """
    description = _description(folder)
    path = folder / WEIGHTS_FILE
    try:
        got = file_hash(path)
    except OSError as error:
        raise ModelFileError(f"{path}: the network's weights must be readable, got {error.strerror}") from None
    if got != description["sha256"]:
        raise ModelFileError(f"{path}: the weights must have the hash in {DESCRIPTION_FILE}, got {got[:12]}: altered or incomplete")
    try:
        scaling = {name: Scaling(**description["scaling"][name]) for name in description["inputs"]}
        network = MultiBranchResNet(description["inputs"], len(description["targets"]), width=int(description["width"]))
        result = network.load_state_dict(load_file(path), strict=False)
        if result.unexpected_keys or any(UNTRAINED not in key for key in result.missing_keys):
            raise ValueError
        mean, deviation = (np.array(description[key], dtype=np.float64) for key in ("target_mean", "target_deviation"))
    except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError):
        raise ModelFileError(f"{path}: the weights must fit the network that {DESCRIPTION_FILE} describes, got other tensors") from None
    return CNN(network, scaling, description["targets"], mean, deviation, description, _density(folder, description["sha256"]))


def _density(folder: Path, weights: str) -> MassEstimator | None:
    from supermage.models.mass_estimator import load_mass_estimator

    if not (folder / PRIOR_FOLDER).is_dir():
        return None
    density = load_mass_estimator(folder / PRIOR_FOLDER)
    if density.about.get("of_network") != weights:
        raise ModelFileError(f"{folder / PRIOR_FOLDER}: the density must be of the network beside it, got another's: train again")
    return density


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = description["kind"], description["version"]
        for key in ("sha256", "width", "inputs", "targets", "scaling", "target_mean", "target_deviation"):
            description[key]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"{path}: a network must come with a complete {DESCRIPTION_FILE}, got none or a damaged one") from None
    if kind != KIND or version != VERSION:
        raise ModelFileError(f"{path}: must be '{KIND}' version {VERSION}, got '{kind}' version {version}")
    return description
