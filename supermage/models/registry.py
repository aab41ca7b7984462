"""Models by name: the checkout's ``models/<name>/`` first, then the copy inside the installed package, or any path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supermage.errors import ModelFileError, nearest_name


def _nuker_solve(folder: Path | None) -> Any:
    from supermage.models.nuker_mge import NukerSolve

    return NukerSolve()


def _nuker_emulator(folder: Path | None) -> Any:
    from supermage.models.nuker_emulator import load_emulator

    if folder is None:
        raise ModelFileError("the model 'nuker-mge' must have a folder of weights, got none")
    return load_emulator(folder)


def _nuker_step(folder: Path | None) -> Any:
    from supermage.models.nuker_mge import NukerStep

    return NukerStep(_nuker_emulator(folder))


LOADERS: dict[str, Callable[[Path | None], Any]] = {
    "nuker-mge": _nuker_emulator,
    "nuker-mge-step": _nuker_step,
    "nuker-mge-solve": _nuker_solve,
}
"""Model -> function of its artefact folder."""

COMPARED = {
    "nuker-mge-paper": "it serves for comparison and no fit uses it; `supermage train models/nuker-mge-paper/recipe.toml` trains it and "
    "writes its errors to models/nuker-mge-paper/card.md",
}
"""Models that are trained to be measured, and what to say to who asks for one."""

FOLDERS: dict[str, str | None] = {"nuker-mge-step": "nuker-mge", "nuker-mge-solve": None}
"""Models that use another's artefact, or none."""


def artefact_folder(name: str) -> Path:
    """Folder that holds a named model's artefact.

    Raises
    ------
    ModelFileError
        If neither the checkout nor the installed package has it.
    """
    package = Path(__file__).resolve().parent.parent
    candidates = (package.parent / "models" / name / "artefact", package / "_models" / name / "artefact")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise ModelFileError(f"the model '{name}' must have its files in {candidates[0]} or {candidates[1]}, got neither")


def load_model(name_or_path: str | Path) -> Any:
    """Load a trained model, frozen.

    Parameters
    ----------
    name_or_path
        A name such as ``"nuker-mge"`` or ``"nuker-mge-solve"``, or the folder of an artefact (or its parent).

    Raises
    ------
    ModelFileError
        If the name is unknown, or the files are missing, altered or of another version.
    """
    name, folder = _find(name_or_path)
    if name in COMPARED:
        raise ModelFileError(f"{folder}: a model must be of a kind that fits use ({', '.join(LOADERS)}), got {name!r}: {COMPARED[name]}")
    if name not in LOADERS:
        raise ModelFileError(f"{folder}: a model must be of a known kind ({', '.join(LOADERS)}), got {name!r}")
    return LOADERS[name](folder)


def _find(name_or_path: str | Path) -> tuple[str, Path | None]:
    """Kind of a model and the folder of its artefact, or None if it has none."""
    name = str(name_or_path)
    if name in COMPARED:
        raise ModelFileError(f"a model must be one of {', '.join(LOADERS)} or a folder, got {name!r}: {COMPARED[name]}")
    if isinstance(name_or_path, str) and name in LOADERS:
        folder_name = FOLDERS.get(name, name)
        return name, None if folder_name is None else artefact_folder(folder_name)
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise ModelFileError(f"a model must be one of {', '.join(LOADERS)} or a folder, got {name!r}{nearest_name(name, LOADERS)}")
    folder = folder / "artefact" if (folder / "artefact").is_dir() else folder
    return _kind(folder), folder


def describe(name_or_path: str | Path) -> str:
    """Name, version and weights of a model in one line, as posteriors record it: ``nuker-mge version 1, weights 0123456789ab``.

    Raises
    ------
    ModelFileError
        As :func:`load_model`.
    """
    name, folder = _find(name_or_path)
    if folder is None:
        return f"{name}, no weights"
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return f"{name} version {description['version']}, weights {description['sha256'][:12]}"
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"a model's folder must hold a readable model.json, got {folder}") from None


def _kind(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"a model's folder must hold a readable model.json, got {folder}") from None
