"""Training of the network ``galaxy-cnn``: presets, an own loop over epochs that resumes to the same bits, validation, artefact.

The same bits: tested on the CPU, on as many threads. On CUDA cuDNN is told to take repeatable kernels; no card was at hand to test it.

Source: Chu et al., sec. 3.1, 4 and Table 2. Ours where the paper prints nothing: targets are logarithms, standardised over the training
set, and the loss is their mean squared error; weights as in He et al.; the colour map stands for what Table 4 calls the g image.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from supermage.errors import CheckpointError, DataError, DomainError, RecipeError, nearest_name
from supermage.models.adam import adam_init, adam_step
from supermage.models.cnn import CNN, Stretch
from supermage.models.cnn_card import write_cnn_card
from supermage.models.cnn_data import Batches, Inputs, Rows, cut_rows, scaling_of, split_rows, usable_rows
from supermage.models.cnn_prior import NEEDED, PriorOptions, train_prior
from supermage.models.columns import TARGETS
from supermage.models.cuts import Cut
from supermage.models.devices import Precision, find_devices
from supermage.models.map_store import MapStore
from supermage.models.mock_maps import MockMaps, make_mock_maps
from supermage.models.resnet import SMALLEST_MAP, MultiBranchResNet
from supermage.models.training import CHECKPOINT_SECONDS, fingerprint_of, options_of, read_checkpoint, write_checkpoint
from supermage.progress import Progress, SilentProgress
from supermage.recipe import Recipe, Section

MapName = Literal["r_light", "g_r", "mean_velocity", "dispersion"]
PAPER_RATE, PAPER_PERIOD = 1e-4, 200
SPENT_ON_CHECKPOINTS = 0.03

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"width": 64, "image_pixels": 300, "batch": 40, "epochs": 200, "learning_rate": PAPER_RATE, "decay": "paper",
              "stretch": "linear", "turn": False},
    "small": {"width": 16, "image_pixels": 96, "batch": 32, "epochs": 30, "learning_rate": 2e-3, "decay": "cosine", "stretch": "log",
              "turn": True},
}  # fmt: skip
"""The paper's Table 2, and a network that two cores train."""


class Options(Section):
    """``[train.options]`` of the network. What a preset says can be said otherwise.

    ``decay``: ``paper`` multiplies the learning rate with cos(n / 200), n being the epoch and the angle in radians, as printed: the last of
    200 epochs still has 0.54 of the first one's rate; ``cosine`` lets it fall to nothing; ``none`` keeps it. ``turn``: maps turned by
    multiples of 90 degrees and mirrored at random. ``fractions``: of groups for training, validation, calibration and test.
    ``split = "paper"`` divides projections as the paper did, and leaks. ``memory``: GB of maps held. ``mock``: what maps to generate first,
    where ``maps`` does not hold them yet. ``cuts``: texts such as ``"m_star_30kpc > 5e9"`` or ``"n_sersic <= 100 or missing"``, of columns
    of the maps, in canonical units. ``prior``: train a density of masses on the network's predictions, so that it gives a MassPrior.
    """

    maps: str
    preset: Literal["paper", "small"] = "small"
    inputs: Annotated[tuple[MapName, ...], Field(min_length=1)] = ("r_light", "g_r", "mean_velocity", "dispersion")
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("log_mstar", "log_mtot")
    cuts: tuple[str, ...] = ()
    width: Annotated[int, Field(ge=1)] = 16
    image_pixels: Annotated[int, Field(ge=SMALLEST_MAP)] = 96
    batch: Annotated[int, Field(ge=2)] = 32
    epochs: Annotated[int, Field(ge=1)] = 30
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    decay: Literal["paper", "cosine", "none"] = "cosine"
    stretch: Stretch = "log"
    turn: bool = True
    split: Literal["group", "paper"] = "group"
    fractions: tuple[float, float, float, float] = (0.6, 0.12, 0.13, 0.15)
    precision: Precision = "auto"
    memory: Annotated[float, Field(ge=0)] = 8.0
    mock: MockMaps | None = None
    prior: PriorOptions | None = None

    @field_validator("targets")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.removesuffix("_2rhsm").removesuffix("_2d") not in TARGETS:
                raise ValueError(f"a target must be one of {', '.join(TARGETS)}, with _2d or _2rhsm after it{nearest_name(name, TARGETS)}")
        return value

    @field_validator("cuts")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                Cut.parse(text)
            except DataError as error:
                raise ValueError(str(error).rpartition(", got ")[0]) from None
        return value

    @field_validator("prior")
    @classmethod
    def _has_masses(cls, value: PriorOptions | None, info: ValidationInfo) -> PriorOptions | None:
        if value is not None and not set(NEEDED) <= set(info.data.get("targets", NEEDED)):
            raise ValueError(f"a density of masses needs the targets {' and '.join(NEEDED)}")
        if value is not None and info.data.get("split") == "paper":
            raise ValueError("a density of masses needs split = 'group': the paper's leaves no galaxy that the network has not seen")
        return value

    @field_validator("fractions")
    @classmethod
    def _whole(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0 or abs(sum(value) - 1.0) > 1e-9:
            raise ValueError("fractions of training, validation, calibration and test must be above 0 and sum to 1")
        return value


def read_options(recipe: Recipe) -> Options:
    """The checked ``[train.options]``, with the preset's values where the recipe has none.

    Raises
    ------
    RecipeError
        Naming the first wrong key.
    """
    preset = recipe.train.options.get("preset", "small") if recipe.train else "small"
    return options_of(recipe, Options, PRESETS.get(str(preset)))


def learning_rate(options: Options, epoch: int) -> float:
    """Rate of an epoch, counted from 0."""
    if options.decay == "paper":
        return options.learning_rate * math.cos(epoch / PAPER_PERIOD)
    if options.decay == "cosine":
        return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * epoch / options.epochs))
    return options.learning_rate


def flatten_parameters(network: nn.Module) -> Tensor:
    """All parameters in one tensor, shape (1, number), which they are views of from now on."""
    parameters = list(network.parameters())
    flat = torch.cat([item.detach().reshape(-1) for item in parameters])
    for item, part in zip(parameters, flat.split([item.numel() for item in parameters]), strict=True):
        item.data = part.view_as(item)
    return flat.unsqueeze(0)


def flatten_statistics(network: nn.Module) -> Tensor:
    """Running means and variances of batch normalisation in one tensor, shape (number,), which they are views of from now on."""
    norms = [(module, key) for module in network.modules() if isinstance(module, nn.BatchNorm2d) for key in ("running_mean", "running_var")]
    flat = torch.cat([getattr(module, key) for module, key in norms])
    for (module, key), part in zip(norms, flat.split([len(getattr(module, key)) for module, key in norms]), strict=True):
        setattr(module, key, part)
    return flat


class CNNTraining:
    """A network in training.

    Parameters
    ----------
    options
        Of the recipe.
    seed
        Of the weights, the split, the order of every epoch and the turns.
    store
        The maps; stays open.
    """

    def __init__(self, options: Options, seed: int, store: MapStore) -> None:
        self.options, self.seed, self.store = options, seed, store
        self.devices = find_devices(options.precision)
        if options.batch < 2 * self.devices.world:
            raise RecipeError(f"train.options.batch: must hold two rows for each of {self.devices.world} devices, got {options.batch}")
        self.inputs = Inputs(options.inputs, options.image_pixels, options.stretch)
        stored = store.pixels.get("r_light", store.pixels.get("g_r", 0))
        if {"r_light", "g_r"} & set(options.inputs) and stored < options.image_pixels:
            raise RecipeError(f"train.options.image_pixels: must be at most the {stored} pixels of the maps, got {options.image_pixels}")
        kept, self.cuts = cut_rows(store, options.cuts)
        usable, self.left_out = usable_rows(store, self.inputs, options.targets, kept)
        self.parts, self.split = split_rows(store, usable, options.fractions, seed, leaking=options.split == "paper")
        truth = np.stack([store.column(name) for name in options.targets], axis=1)
        self.target_mean = truth[self.parts["training"]].mean(0)
        self.target_deviation = truth[self.parts["training"]].std(0)
        if not (self.target_deviation > 0.0).all():
            constant = options.targets[int(self.target_deviation.argmin())]
            raise DomainError(f"targets must vary over the training set, got one value of {constant}")
        self.truth = truth
        self.scaling = scaling_of(store, self.parts["training"], self.inputs)
        standardised = ((truth - self.target_mean) / self.target_deviation).astype(np.float32)
        self.batches = Batches(store, self.inputs, self.scaling, standardised, memory=1e9 * options.memory,
                               rows=np.concatenate([self.parts["training"], self.parts["validation"]]))  # fmt: skip
        self.network = MultiBranchResNet(options.inputs, len(options.targets), width=options.width, seed=seed).to(self.devices.device)
        self.parameters, self.statistics = flatten_parameters(self.network), flatten_statistics(self.network)
        self.per_epoch = max(1, len(self.parts["training"]) // options.batch)
        self.steps = self.per_epoch * options.epochs
        self.state = self._initial()

    @property
    def prepared(self) -> str:
        """What was left out and why, and the rows of every part, in a few words."""
        left_out = [f"{count} rows left out ({reason})" for reason, count in self.left_out.items()]
        return "; ".join([*self.cuts, *left_out, ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())])

    def _initial(self) -> dict[str, Tensor]:
        """All that changes besides weights and statistics: moments, best weights, losses of every epoch, the sum of this one's."""
        history = torch.full((2, self.options.epochs), torch.nan, dtype=torch.float64)
        best = {"best": self.parameters.clone(), "best_statistics": self.statistics.clone()}
        running = torch.zeros((), dtype=torch.float64)
        return {**adam_init([self.parameters]), "statistics": self.statistics, **best, "history": history, "running": running}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take weights and state from a checkpoint's tensors, in place.

        Raises
        ------
        CheckpointError
            If they are another network's.
        """
        try:
            with torch.no_grad():
                self.parameters.copy_(tensors["parameter0"])
                for key, value in self.state.items():
                    value.copy_(tensors[f"state.{key}"])
        except (KeyError, RuntimeError):
            raise CheckpointError("a checkpoint must fit the network of this recipe, got other tensors; remove it to start anew") from None

    def run(self, checkpoint: Path, fingerprint: str, stored: tuple[int, dict[str, Tensor]] | None, *, progress: Progress) -> None:
        """All epochs, from the stored state if there is one; the best one's weights are the network's at the end.

        Checkpoints come every half minute, or so seldom that they take 3 % of the time.
        """
        first = 0
        if stored is not None:
            first = stored[0]
            self.restore(stored[1])
        progress.start("training", self.steps)
        progress.advance(first, self.note() if first else "")
        last, pause = time.monotonic(), CHECKPOINT_SECONDS
        with ThreadPoolExecutor(1) as reader, self.devices.repeatable():
            waiting: Future[Any] | None = reader.submit(self.batch, first) if first < self.steps else None
            for step in range(first, self.steps):
                assert waiting is not None
                batch = waiting.result()
                waiting = reader.submit(self.batch, step + 1) if step + 1 < self.steps else None
                self._step(step, *batch)
                note = self._validate(step // self.per_epoch) if (step + 1) % self.per_epoch == 0 else ""
                if self.devices.is_first and (time.monotonic() - last > pause or step == self.steps - 1):
                    last = time.monotonic()
                    write_checkpoint(checkpoint, fingerprint, step + 1, [self.parameters], self.state)
                    pause = max(CHECKPOINT_SECONDS, (time.monotonic() - last) / SPENT_ON_CHECKPOINTS)
                progress.advance(1, note)
        with torch.no_grad():
            self.parameters.copy_(self.state["best"])
            self.statistics.copy_(self.state["best_statistics"])
        progress.done(self.note())

    def batch(self, step: int) -> tuple[dict[str, Tensor], Tensor, int]:
        """Maps and targets of this process's share of a batch, and the size of the whole; depends on the seed and the step alone."""
        epoch, number = divmod(step, self.per_epoch)
        rows = self.parts["training"]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)).numpy()
        whole = np.array_split(rows[order], self.per_epoch)[number]
        chosen = self.devices.share(whole)
        turn = (self.seed * 1_000_003 + step) * 1009 + self.devices.rank
        maps = self.batches.turned(chosen, turn) if self.options.turn else self.batches.maps(chosen)
        return maps, self.batches.targets[torch.from_numpy(chosen)], len(whole)

    def _step(self, step: int, maps: dict[str, Tensor], targets: Tensor, size: int) -> None:
        """One step of Adam on the mean squared error of a batch, summed over all devices."""
        devices = self.devices
        self.network.train()
        with devices.precision():
            got = self.network({name: item.to(devices.device) for name, item in maps.items()})
        loss = ((got.float() - targets.to(devices.device)) ** 2).mean(1).sum() / size
        gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        with torch.no_grad():
            everything = torch.cat([*(item.reshape(-1) for item in gradients), self.statistics / devices.world, loss.reshape(1)])
            devices.summed(everything)
            gradient, statistics, loss = everything.split([self.parameters.numel(), self.statistics.numel(), 1])
            self.statistics.copy_(statistics)
            self.state["running"] += loss.double().cpu().reshape(()) * size
        if not math.isfinite(float(self.state["running"])):
            raise DomainError(f"training must keep a finite loss, got none at step {step + 1}: lower train.options.learning_rate")
        rate = learning_rate(self.options, step // self.per_epoch)
        adam_step([self.parameters], (gradient.unsqueeze(0),), self.state, step=step, learning_rate=rate)

    def _validate(self, epoch: int) -> str:
        """Loss of the validation part; keeps the weights if it is the lowest yet."""
        history, rows = self.state["history"], self.parts["validation"]
        history[0, epoch] = self.state["running"] / len(self.parts["training"])
        self.state["running"].zero_()
        missed = (self.standardised(self.devices.share(rows)) - self.batches.targets[torch.from_numpy(self.devices.share(rows))]) ** 2
        total = self.devices.summed(missed.double().mean(1).sum().to(self.devices.device))
        history[1, epoch] = total.cpu() / len(rows)
        if epoch == int(np.nanargmin(history[1].numpy())):
            self.state["best"].copy_(self.parameters)
            self.state["best_statistics"].copy_(self.statistics)
        return self.note()

    @torch.no_grad()
    def standardised(self, rows: Rows) -> Tensor:
        """Standardised predictions of rows of the training or the validation part, shape (row, target), float32, on the CPU."""
        self.network.eval()
        out = [torch.empty(0, len(self.options.targets))]
        for part in np.array_split(rows, max(1, math.ceil(len(rows) / (2 * self.options.batch)))):
            with self.devices.precision():
                maps = {name: item.to(self.devices.device) for name, item in self.batches.maps(part).items()}
                out.append(self.network(maps).float().cpu())
        return torch.cat(out)

    def note(self) -> str:
        """Epochs done and their losses."""
        history = self.state["history"].numpy()
        done = int(np.count_nonzero(np.isfinite(history[1])))
        if not done:
            return ""
        best = int(np.nanargmin(history[1]))
        return (f"epoch {done} of {self.options.epochs}, loss {history[0, done - 1]:.2e}, validation {history[1, done - 1]:.2e}, "
                f"best {history[1, best]:.2e} in epoch {best + 1}")  # fmt: skip

    def finish(self, output: Path, products: Path, *, progress: Progress) -> Path:
        """Write artefact and card, with the scatter on the test part; train the density if one is asked for."""
        if self.devices.is_first:
            progress.start("measuring the scatter", None)
            history = [item.tolist() for item in self.state["history"]]
            cnn = CNN(self.network, self.scaling, self.options.targets, self.target_mean, self.target_deviation)
            cnn.description = {
                "seed": self.seed, "mock": self.store.mock, "source": self.store.source, "maps_provenance": self.store.provenance,
                "training": self.options.model_dump(), "aperture": "1rhsm", "cuts": self.cuts, "left_out": self.left_out,
                "split": self.split,
                "rows": {name: len(rows) for name, rows in self.parts.items()}, "leaking_split": self.options.split == "paper",
                "history": {"training": history[0], "validation": history[1], "best_epoch": int(np.argmin(history[1])) + 1},
                "scatter": {name: scatter_of(cnn, self.store, self.inputs, rows, self.truth)
                            for name, rows in self.parts.items() if len(rows)},
            }  # fmt: skip
            cnn.save(output)
            progress.done()
            write_cnn_card(output.parent / "card.md", output, tables=self._density(cnn, output, products, progress))
        self.devices.wait()
        return output

    def _density(self, cnn: CNN, output: Path, products: Path, progress: Progress) -> dict[str, Any]:
        """Calibration tables of the density on the network's predictions for what it has not learnt from; none without one."""
        if self.options.prior is None:
            return {}
        rows = np.sort(np.concatenate([self.parts[name] for name in ("calibration", "test")]))
        return train_prior(cnn, self.store, self.inputs, rows, self.options.prior, name=output.parent.resolve().name, seed=self.seed,
                           artefact=output, products=products, progress=progress)  # fmt: skip


def scatter_of(cnn: CNN, store: MapStore, inputs: Inputs, rows: Rows, truth: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of predicted minus true logarithm, dex, by target; ``truth`` has shape (row of the store, target)."""
    parts = [cnn.estimate(inputs.read(store, part)) for part in np.array_split(rows, math.ceil(len(rows) / 256))]
    missed = {name: np.concatenate([part[name] for part in parts]) - truth[rows, k] for k, name in enumerate(cnn.targets)}
    return {name: {"mean": float(item.mean()), "sigma": float(item.std()), "rows": len(item)} for name, item in missed.items()}


def open_maps(recipe: Recipe, options: Options, *, progress: Progress | None = None) -> MapStore:
    """The maps of a recipe; makes them first where it says how."""
    if options.mock is not None:
        devices = find_devices(options.precision)
        if devices.is_first:
            make_mock_maps(recipe.path(options.maps), options.mock, progress=progress)
        devices.wait()
    return MapStore(recipe.path(options.maps))


def build(recipe: Recipe, *, progress: Progress | None = None) -> CNNTraining:
    """The problem of a recipe with ``kind = "galaxy-cnn"``, on the maps of :func:`open_maps`."""
    options = read_options(recipe)
    return CNNTraining(options, recipe.train.seed if recipe.train else 1, open_maps(recipe, options, progress=progress))


def train_cnn(recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """Train the network of a recipe; as :func:`supermage.models.training.train`, which calls this for its kind.

    A checkpoint of another recipe or of other maps is refused as soon as the maps' columns are there, before any map is read.
    """
    progress = progress or SilentProgress()
    if recipe.train is None:
        raise RecipeError("training needs a recipe with a [train] section, got none")
    options, checkpoint = read_options(recipe), recipe.path("products") / "checkpoint.safetensors"
    with open_maps(recipe, options, progress=progress) as store:
        fingerprint = fingerprint_of(recipe, store.identity)
        stored = read_checkpoint(checkpoint, fingerprint)
        progress.start("reading maps", None)
        problem = CNNTraining(options, recipe.train.seed, store)
        progress.done(problem.prepared)
        problem.run(checkpoint, fingerprint, stored, progress=progress)
        artefact = problem.finish(recipe.path(recipe.train.output), checkpoint.parent, progress=progress)
    checkpoint.unlink(missing_ok=True)
    problem.devices.close()
    return artefact
