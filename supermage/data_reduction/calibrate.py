"""Calibration with casatasks: a recipe's steps, in one subprocess, with their log kept."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from supermage.data_reduction import casa_runner
from supermage.data_reduction.casa import casadata_folder, casatasks_environment
from supermage.data_reduction.folders import check_replaceable, replace_folder
from supermage.errors import DataError, RecipeError, SupermageError, nearest_name
from supermage.progress import Progress, SilentProgress
from supermage.recipe import CalibrateSection, Recipe

Step = dict[str, Any]


def calibrate(recipe: Recipe, *, progress: Progress | None = None) -> Path:
    """Run a recipe's casatasks steps and return the measurement set that they make.

    The steps run in order in one subprocess, offline, inside a temporary folder of ``work``: plain file names are local to it.
    ``{input}``, ``{output}`` and ``{casadata}`` in any text argument, and ``{casadata}`` in ``input``, stand for paths. Only the output
    is kept, and only if every step ran; the log is kept always.

    Raises
    ------
    RecipeError
        If there is no calibrate section, a task is unknown to casatasks, or an argument uses an unknown ``{name}``.
    DataError
        If the input is missing, a step fails (named, with the log's place), or the steps do not make the output.
    """
    if recipe.calibrate is None:
        raise RecipeError("calibrating needs a [calibrate] section")
    section = recipe.calibrate
    _check_tasks(section)
    source = _input(recipe, section)
    output, work = recipe.path(section.output), recipe.path(section.work)
    check_replaceable(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".calibrate.", dir=work) as name:
            folder = Path(name)
            draft = folder / output.name
            places = {"input": str(source), "output": str(draft), "casadata": str(casadata_folder())}
            steps = [{"task": step.task, "arguments": _filled(step.arguments, places, step.task)} for step in section.steps]
            run_casatasks(steps, folder, work / section.log, progress=progress)
            if not draft.exists():
                raise DataError(f"the steps must make {{output}}, got no {output.name}; log: {work / section.log}")
            replace_folder(draft, output)
    except OSError as error:
        raise DataError(f"the calibrated set {output} could not be written: {error.strerror or error}") from None
    return output


def run_casatasks(steps: list[Step], folder: Path, log: Path, *, progress: Progress | None = None) -> None:
    """Run casatasks calls in a subprocess whose working directory is ``folder``, and write everything that they say to ``log``.

    Parameters
    ----------
    steps
        ``{"task": name, "arguments": {...}}``, run in order up to the first that fails.

    Raises
    ------
    DataError
        If a call fails or the subprocess dies; one line that names the step and the log.
    """
    progress = SilentProgress() if progress is None else progress
    progress.start("casatasks", len(steps))
    current, reason, read = "starting casatasks", "the process died", 0
    command = [sys.executable, casa_runner.__file__]
    environment = casatasks_environment(folder)
    with log.open("w", encoding="utf-8") as kept, subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace") as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(steps))
            process.stdin.close()
            for line in process.stdout:
                marked = line.startswith(casa_runner.MARK)
                if marked:
                    read = _append(folder / casa_runner.LOG, kept, read)
                kept.write(line)
                kept.flush()
                kind, _, rest = line.removeprefix(f"{casa_runner.MARK} ").rstrip().partition(" ") if marked else ("", "", "")
                if kind == "start":
                    number, _, call = rest.partition(" ")
                    current = f"step {number} of {len(steps)} ({call.partition('(')[0]})"
                elif kind == "done":
                    progress.advance(note=current)
                elif kind == "failed":
                    reason = rest
        except BaseException:
            process.kill()
            raise
        _append(folder / casa_runner.LOG, kept, read)
    if process.returncode != 0:
        raise DataError(f"calibration failed at {current}: {reason}; log: {log}")
    progress.done()


def _append(source: Path, kept: TextIO, start: int) -> int:
    """Copy what casatasks has logged since byte ``start``; returns where it ends."""
    if not source.exists():
        return start
    with source.open("rb") as file:
        file.seek(start)
        new = file.read()
    kept.write(new.decode("utf-8", errors="replace"))
    return start + len(new)


def _check_tasks(section: CalibrateSection) -> None:
    spec = importlib.util.find_spec("casatasks")
    if spec is None or not spec.submodule_search_locations:
        raise SupermageError("calibration needs the package casatasks, got none; pip install 'supermage[casa]'")
    known = {path.stem for folder in spec.submodule_search_locations for path in Path(folder).glob("[a-z]*.py")}
    for step in section.steps:
        if step.task not in known:
            raise RecipeError(f"calibrate.steps: a task must be one of casatasks, got '{step.task}'{nearest_name(step.task, known)}")


def _input(recipe: Recipe, section: CalibrateSection) -> Path:
    source = recipe.path(section.input.replace("{casadata}", str(casadata_folder())))
    if not source.exists():
        raise DataError(f"calibrate.input must exist, got {source}")
    return source


def _filled(value: Any, places: Mapping[str, str], task: str) -> Any:
    """Fill ``{name}`` in every text of an argument, however nested."""
    if isinstance(value, str):
        try:
            return value.format_map(places)
        except (KeyError, ValueError, IndexError):
            raise RecipeError(f"calibrate.steps: {task} may use {', '.join(f'{{{name}}}' for name in places)}, got '{value}'") from None
    if isinstance(value, dict):
        return {key: _filled(item, places, task) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, places, task) for item in value]
    return value
