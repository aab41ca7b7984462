"""Training of a model from its recipe: seeded, resumable, with progress shown. What is trained is a :class:`Problem` of its own module."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from supermage.errors import CheckpointError, RecipeError, nearest_name
from supermage.models.adam import adam_init, adam_step
from supermage.models.soap import soap_init, soap_step
from supermage.progress import Progress, SilentProgress
from supermage.recipe import Recipe, Section

CHECKPOINT_SECONDS = 30.0
WATCHED = 70
"""Times in a training that the losses of a problem with a function ``watch`` are looked at."""
HISTORY = "history"
"""Of these losses in a checkpoint."""

Checked = TypeVar("Checked", bound=Section)


class Schedule(Section):
    """Keys of ``[train.options]`` that every kind shares; ``decay`` lets the learning rate fall as a cosine."""

    optimiser: Literal["soap", "adam"] = "soap"
    steps: Annotated[int, Field(ge=1)] = 20_000
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    decay: bool = True
    warmup: Annotated[int, Field(ge=0)] = 200
    refresh: Annotated[int, Field(ge=1)] = 20


class Problem(Protocol):
    """What a trained kind provides."""

    schedule: Schedule
    parameters: list[Tensor]

    def loss(self, step: int) -> Tensor:
        """Loss of one batch, which depends on the recipe's seed and the step alone."""
        ...

    def note(self) -> str:
        """A few words on how good the model is now."""
        ...

    def finish(self, output: Path, *, progress: Progress) -> Path:
        """Write the artefact (atomically) and its card; return the artefact's folder."""
        ...

    # Further, if there: ``watch() -> (training, validation)``, losses for a curve, which come back as ``history``; ``prepared``, what is to
    # be said of the data; ``identity``, their hash.


PROBLEMS: dict[str, str] = {
    "nuker-mge": "supermage.models.nuker_training:build",
    "nuker-mge-paper": "supermage.models.paper_emulator:build",
    "mass-prior": "supermage.models.mass_training:build",
}
"""Kind of ``[train]`` -> ``module:function`` that builds its problem from the recipe."""

TRAINERS: dict[str, str] = {
    "galaxy-cnn": "supermage.models.cnn_training:train_cnn",
    "gbdt": "supermage.models.gbdt_training:train_trees",
}
"""Kinds that train in a way of their own (epochs, several devices; trees) -> ``module:function`` of recipe and progress."""


def train(recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """Train the model of a recipe and write its artefact and card.

    Continues from ``products/checkpoint.safetensors`` beside the recipe if there is one of the same recipe; the result is the same as of an
    uninterrupted run.

    Parameters
    ----------
    recipe
        With a ``[train]`` section.
    progress
        Where progress is shown; nowhere by default.

    Returns
    -------
    Path
        The artefact's folder.

    Raises
    ------
    RecipeError
        If the section is missing, or its kind or an option is unknown.
    CheckpointError
        If the checkpoint is damaged or belongs to another recipe.
    """
    progress = progress or SilentProgress()
    if recipe.train is None:
        raise RecipeError("training needs a recipe with a [train] section, got none")
    kind = recipe.train.kind
    known = (*PROBLEMS, *TRAINERS)
    if kind not in known:
        raise RecipeError(f"train.kind must be one of {', '.join(known)}, got '{kind}'{nearest_name(kind, known)}")
    module, function = (PROBLEMS | TRAINERS)[kind].split(":")
    of_kind = getattr(importlib.import_module(module), function)
    if kind in TRAINERS:
        return Path(of_kind(recipe, progress=progress))
    build: Callable[[Recipe], Problem] = of_kind
    checkpoint = recipe.path("products") / "checkpoint.safetensors"
    progress.start(f"preparing {kind}", None)
    problem = build(recipe)
    progress.done(str(getattr(problem, "prepared", "")))
    fingerprint = fingerprint_of(recipe, str(getattr(problem, "identity", "")))
    stored = read_checkpoint(checkpoint, fingerprint)
    run_steps(problem, checkpoint, fingerprint, stored, progress=progress)
    artefact = problem.finish(recipe.path(recipe.train.output), progress=progress)
    checkpoint.unlink(missing_ok=True)
    return artefact


def fingerprint_of(recipe: Recipe, data: str = "") -> str:
    """What a checkpoint belongs to: the recipe's ``[train]`` and the data that it is trained on, told by their hash."""
    said = recipe.train.model_dump_json() if recipe.train else ""
    return hashlib.sha256((said + data).encode()).hexdigest()


def options_of(recipe: Recipe, section: type[Checked], defaults: Mapping[str, Any] | None = None) -> Checked:
    """The checked ``[train.options]`` of a recipe, over ``defaults``.

    Raises
    ------
    RecipeError
        Naming the first wrong key.
    """
    try:
        return section.model_validate({**(defaults or {}), **(recipe.train.options if recipe.train else {})})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise RecipeError(f"train.options: unknown key '{key}'{nearest_name(key, section.model_fields)}") from None
        if problem["type"] == "missing":
            raise RecipeError(f"train.options: missing key '{key}'") from None
        message = problem["msg"].removeprefix("Value error, ")
        raise RecipeError(f"train.options.{key}: {message[0].lower()}{message[1:]}, got {problem['input']!r}") from None


def run_steps(
    problem: Problem, checkpoint: Path, fingerprint: str, stored: tuple[int, dict[str, Tensor]] | None, *, progress: Progress
) -> None:
    """Take the schedule's steps, from the stored state if there is one, with a checkpoint every half minute."""
    schedule, parameters = problem.schedule, problem.parameters
    state, first = (soap_init if schedule.optimiser == "soap" else adam_init)(parameters), 0
    watch = getattr(problem, "watch", None)
    every = -(-schedule.steps // WATCHED)
    if watch is not None:
        state[HISTORY] = torch.full((2, -(-schedule.steps // every)), torch.nan, dtype=torch.float64)
    if stored is not None:
        first = stored[0]
        _restore(parameters, state, stored[1])
    progress.start("training", schedule.steps)
    progress.advance(first)
    last = time.monotonic()
    for step in range(first, schedule.steps):
        gradients = torch.autograd.grad(problem.loss(step), parameters)
        rate = _learning_rate(schedule, step)
        if schedule.optimiser == "soap":
            soap_step(parameters, gradients, state, step=step, learning_rate=rate, refresh=schedule.refresh)
        else:
            adam_step(parameters, gradients, state, step=step, learning_rate=rate)
        if watch is not None and ((step + 1) % every == 0 or step == schedule.steps - 1):
            state[HISTORY][:, step // every] = torch.as_tensor(watch(), dtype=torch.float64)
        note = ""
        if time.monotonic() - last > CHECKPOINT_SECONDS or step == schedule.steps - 1:
            write_checkpoint(checkpoint, fingerprint, step + 1, parameters, state)
            note = problem.note()
            last = time.monotonic()
        progress.advance(1, note)
    if watch is not None:
        training, validation = (item.tolist() for item in state[HISTORY])
        problem.history = {"every": every, "training": training, "validation": validation}  # type: ignore[attr-defined]
    progress.done(problem.note())


def _learning_rate(schedule: Schedule, step: int) -> float:
    """Linear warm-up, then a cosine down to a thousandth, or a constant."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / schedule.steps))
    rise = min(1.0, (step + 1) / max(schedule.warmup, 1))
    return schedule.learning_rate * rise * (0.999 * cosine + 0.001 if schedule.decay else 1.0)


def write_checkpoint(path: Path, fingerprint: str, step: int, parameters: list[Tensor], state: dict[str, Tensor]) -> None:
    """Write parameters and optimiser state, atomically."""
    tensors = {f"parameter{number}": tensor.detach().contiguous().cpu() for number, tensor in enumerate(parameters)}
    tensors.update({f"state.{key}": tensor.contiguous().cpu() for key, tensor in state.items()})
    write_atomically(path, save(tensors, metadata={"fingerprint": fingerprint, "step": str(step)}))


def read_checkpoint(path: Path, fingerprint: str) -> tuple[int, dict[str, Tensor]] | None:
    """Number of steps done and the stored tensors; None if there is no checkpoint.

    Raises
    ------
    CheckpointError
        If the file is damaged or belongs to another recipe or other data.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        step = int(metadata["step"])
    except (SafetensorError, OSError, KeyError, ValueError):
        raise CheckpointError(f"{path}: a checkpoint must be complete, got a damaged one; remove it to start anew") from None
    if metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(f"{path}: a checkpoint must belong to this recipe and its data, got another's; remove it to start anew")
    return step, tensors


def _restore(parameters: list[Tensor], state: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    try:
        with torch.no_grad():
            for number, tensor in enumerate(parameters):
                tensor.copy_(tensors[f"parameter{number}"])
            for key, tensor in state.items():
                tensor.copy_(tensors[f"state.{key}"])
    except (KeyError, RuntimeError):
        raise CheckpointError("a checkpoint must fit the network of this recipe, got other tensors; remove it to start anew") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name in the same folder, then rename it: a full disk leaves the previous file alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> bytes:
    """JSON, sorted and indented, ending in a newline."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
