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


def _mass_prior(folder: Path | None) -> Any:
    from supermage.models.mass_estimator import load_mass_estimator

    return load_mass_estimator(folder)


def _galaxy_cnn(folder: Path | None) -> Any:
    from supermage.models.cnn import load_cnn

    if folder is None:
        raise ModelFileError("a 'galaxy-cnn' must have a folder of weights, got none")
    return load_cnn(folder)


def _gbdt(folder: Path | None) -> Any:
    from supermage.models.gbdt import load_gbdt

    if folder is None:
        raise ModelFileError("a 'gbdt' must have a folder with its trees, got none")
    return load_gbdt(folder)


LOADERS: dict[str, Callable[[Path | None], Any]] = {
    "nuker-mge": _nuker_emulator,
    "nuker-mge-step": _nuker_step,
    "nuker-mge-solve": _nuker_solve,
    "mass-prior": _mass_prior,
    "galaxy-cnn": _galaxy_cnn,
    "gbdt": _gbdt,
}
"""Kind of model -> function of its artefact folder."""

MODELS: dict[str, str] = {
    "nuker-mge": "nuker-mge",
    "nuker-mge-step": "nuker-mge-step",
    "nuker-mge-solve": "nuker-mge-solve",
    "tng-gbdt": "mass-prior",
    "tng-shared": "mass-prior",
    "mock-cnn": "galaxy-cnn",
}
"""Name of a model -> its kind."""

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
        A name such as ``"nuker-mge"``, ``"nuker-mge-solve"`` or ``"tng-gbdt"``, or the folder of an artefact (or its parent).

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
        raise ModelFileError(f"a model must be one of {', '.join(MODELS)} or a folder, got {name!r}: {COMPARED[name]}")
    if isinstance(name_or_path, str) and name in MODELS:
        folder_name = FOLDERS.get(name, name)
        return MODELS[name], None if folder_name is None else artefact_folder(folder_name)
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise ModelFileError(f"a model must be one of {', '.join(MODELS)} or a folder, got {name!r}{nearest_name(name, MODELS)}")
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
        return f"{description.get('name', name)} version {description['version']}, weights {description['sha256'][:12]}"
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"a model's folder must hold a readable model.json, got {folder}") from None


def stamp(name_or_path: str | Path) -> str:
    """What changes where a model is trained anew: the times of its descriptions.

    Raises
    ------
    ModelFileError
        As :func:`load_model`.
    """
    _, folder = _find(name_or_path)
    files = [] if folder is None else [path for path in (folder / "model.json", folder / "prior" / "model.json") if path.is_file()]
    return " ".join(str(path.stat().st_mtime_ns) for path in files)


def _kind(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"a model's folder must hold a readable model.json, got {folder}") from None
