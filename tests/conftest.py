"""What every test shares: checked array shapes, an empty home that must stay empty, quiet libraries, the reference data."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException
from hypothesis import settings
from jaxtyping import _import_hook, install_import_hook, jaxtyped


def _is_left_unchecked(node: ast.AST) -> bool:
    """Numba compiles the function that it is given: a checked wrapper is none. (The hook asks this for ``no_type_check`` only.)"""
    node = node.func if isinstance(node, ast.Call) else node
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in {"no_type_check", "njit", "jit", "vectorize", "guvectorize"}


_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's types when it is called; an int passes for a float, as PEP 484 says.

    What cannot be checked on a single function (``Self``, protocols that are not for the run time) stays unchecked.
    """
    try:
        return _beartype(function)
    except BeartypeDecorHintException:
        return function


CHECKED_CALLS, ONE_IN = 100, 53
"""Calls of a function whose types are checked, and the share of the others: a check costs more than many a function in a loop."""


def _jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """jaxtyping's decorator, which after its first calls lets most others of a function pass unchecked; a class is checked always."""

    def decorate(function: Any) -> Any:
        checked = jaxtyped(function, typechecker=typechecker)
        if isinstance(function, type):
            return checked
        calls = itertools.count()

        @functools.wraps(function)
        def now_and_then(*arguments: Any, **keywords: Any) -> Any:
            call = next(calls)
            return (checked if call < CHECKED_CALLS or call % ONE_IN == 0 else function)(*arguments, **keywords)

        return now_and_then

    return decorate


# Before anything of supermage is imported: shapes and types of every annotated function are checked while the tests run.
# The hook wants the checker's name.
_checker = ModuleType("supermage_type_checker")
_checker.check = _check_types  # type: ignore[attr-defined]
sys.modules[_checker.__name__] = _checker
_import_hook._is_no_type_check = _is_left_unchecked
jaxtyping.jaxtyped = _jaxtyped
install_import_hook("supermage", f"{_checker.__name__}.check")

# Seeded, and no verdict by the clock: a loaded machine is no failure.
settings.register_profile("supermage", deadline=None, derandomize=True)
settings.load_profile("supermage")

_OWN_HOME = "SUPERMAGE_TEST_HOME"


def _move_home() -> None:
    """Give this process, its workers and its children an empty home; caches that libraries keep go elsewhere."""
    if _OWN_HOME in os.environ:
        return
    base = Path(tempfile.mkdtemp(prefix="supermage-tests-"))
    home = base / "home"
    home.mkdir()
    os.environ[_OWN_HOME] = os.environ["HOME"] = str(home)
    os.environ.pop("XDG_CONFIG_HOME", None)
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        os.environ.setdefault(name, str(base / "cache"))


_move_home()
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _reference_folder() -> Path:
    chosen = os.environ.get("SUPERMAGE_REFERENCE_DATA")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the reference data; tests that use it carry ``@pytest.mark.reference``."""
    return _reference_folder()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the reference data, leave out the tests that need them."""
    forgotten = [item.nodeid for item in items
                 if "reference_data" in getattr(item, "fixturenames", ()) and item.get_closest_marker("reference") is None]
    if forgotten:
        raise pytest.UsageError(f"tests that use reference_data need @pytest.mark.reference: {', '.join(forgotten)}")
    if _reference_folder().is_dir():
        return
    without = [item for item in items if item.get_closest_marker("reference") is not None]
    if without:
        items[:] = [item for item in items if item.get_closest_marker("reference") is None]
        config.hook.pytest_deselected(items=without)
        config.stash[_LEFT_OUT] = len(without)
    _tell_controller(config)


_LEFT_OUT = pytest.StashKey[int]()


def _tell_controller(config: pytest.Config) -> None:
    """Under xdist the workers collect, the controller reports."""
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output["left_out"] = config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over a worker's count of deselected tests (every worker collects all)."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    count = getattr(node, "workeroutput", {}).get("left_out", 0)
    if count:
        config.stash[_LEFT_OUT] = count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for the tests that were left out, one for a home that was written to."""
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(f"{count} tests deselected: no reference data in {_reference_folder()} (SUPERMAGE_REFERENCE_DATA)")
    for line in _written_to_home():
        terminalreporter.write_line(f"ERROR written to the home directory: {line}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if anything was written to the home directory."""
    if not hasattr(session.config, "workerinput") and _written_to_home():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home made for this run."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(Path(os.environ[_OWN_HOME]).parent, ignore_errors=True)


def _written_to_home() -> list[str]:
    home = Path(os.environ[_OWN_HOME])
    return sorted(str(path.relative_to(home)) for path in home.rglob("*")) if home.is_dir() else []
