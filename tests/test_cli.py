"""The command line: exit codes, one line for each error, help with an example."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from supermage import cli
from supermage.errors import DataError

COMMANDS = ("simulate", "calibrate", "reduce", "fit", "train", "predict", "report")
RECIPE = """
[galaxy]
name = "a galaxy"
distance = 11.4
[fit]
visibilities = "visibilities.nc"
output = "products/posterior.nc"
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    captured = capsys.readouterr()
    code = left.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that a fit accepts."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def fit_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a function of the test's own in place of the fit."""
    def put(function: Callable[..., Any]) -> None:
        module = ModuleType("supermage.inference.fit")
        module.fit = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supermage.inference.fit", module)
    return put


def raises(error: BaseException) -> Callable[..., Any]:
    """A function that fails."""
    def function(*_: Any, **__: Any) -> None:
        raise error
    return function


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert f"Example: supermage {command} " in " ".join(out.split())


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "..." not in out.partition("Commands:")[2]


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 1
    assert "Usage: supermage" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, "supermage 0.1.0\n")


@pytest.mark.parametrize(("words", "part"), [
    (("fti", "x.toml"),
     "a command must be one of simulate, calibrate, reduce, fit, train, predict, report, got 'fti'; did you mean 'fit'?"),
    (("zzz",), "got 'zzz'"),
    (("fit",), "Missing argument 'RECIPE.toml'"),
    (("fit", "a.toml", "b.toml"), "b.toml"),
    (("fit", "--fresj", "x.toml"), "unknown option --fresj; did you mean --fresh?"),
    (("--versoin",), "unknown option --versoin; did you mean --version?"),
    (("fit", "none.toml"), "a recipe must be a readable TOML file, got none.toml (No such file or directory)"),
    (("report", "x.nc", "--output"), "--output"),
    (("predict", "x.csv", "--model", "tng-gbdt", "--set", "r_hsm=wide"), "--set must be NAME=VALUE with a finite number, got 'r_hsm=wide'"),
    (("predict", "x.csv", "--model", "tng-shared", "--set", "apertur_ratio=1"), "got 'apertur_ratio'; did you mean 'aperture_ratio'?"),
])
def test_usage_errors_are_one_line_and_exit_1(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("supermage: ")
    assert part in err


@pytest.mark.parametrize(("error", "code", "line"), [
    (DataError("visibilities must be finite, got NaN"), 1, "supermage: visibilities must be finite, got NaN"),
    (OSError(errno.ENOSPC, "No space left on device", "out.nc"), 1,
     "supermage: files must be readable and the disk writable, got: No space left on device (out.nc)"),
    (OSError("truncated"), 1, "supermage: files must be readable and the disk writable, got: truncated"),
    (MemoryError(), 1, "supermage: out of memory: use fewer pixels, channels or chains"),
    (KeyboardInterrupt(), 130, "supermage: interrupted; run the same command again to resume"),
    (TypeError("two\nlines"), 1, "supermage: internal error, TypeError: two lines (SUPERMAGE_TRACEBACK=1 shows where)"),
])
def test_errors_of_the_work_are_one_line(capsys: pytest.CaptureFixture[str], fit_does: Callable[[Callable[..., Any]], None], recipe: Path,
                                         error: BaseException, code: int, line: str) -> None:
    fit_does(raises(error))
    got, out, err = run(capsys, "fit", str(recipe))
    assert (got, out) == (code, "")
    assert err.strip().splitlines()[-1] == line
    assert "Traceback" not in err


@pytest.mark.parametrize(("command", "line"), [
    ("reduce", "interrupted; run the same command to start again"), ("simulate", "interrupted; run the same command to start again"),
    ("report", "interrupted; run the same command to start again"), ("train", "interrupted; run the same command again to resume")])
def test_only_what_resumes_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, line: str) -> None:
    monkeypatch.setattr(cli, "_call", raises(KeyboardInterrupt()))
    assert run(capsys, command, "x.toml") == (130, "", f"supermage: {line}\n")


def test_traceback_on_demand(fit_does: Callable[[Callable[..., Any]], None], recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMAGE_TRACEBACK", "1")
    fit_does(raises(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["fit", str(recipe)])


@pytest.mark.parametrize(("converged", "code"), [(True, 0), (False, 2)])
def test_a_fit_that_did_not_converge_exits_2(capsys: pytest.CaptureFixture[str], fit_does: Callable[[Callable[..., Any]], None],
                                             recipe: Path, converged: bool, code: int) -> None:
    diagnosis = SimpleNamespace(failures=("worst R-hat 1.234 (gamma; required below 1.05)", "chains in 2 modes: 1, 2; 3"),
                                worst_rhat=1.0042, smallest_ess=899.7)
    fit_does(lambda *_, **__: SimpleNamespace(converged=converged, diagnosis=diagnosis))
    got, out, err = run(capsys, "fit", str(recipe))
    assert got == code
    assert f"posterior: {recipe.parent / 'products/posterior.nc'}" in out
    line = "did not converge: worst R-hat 1.234 (gamma; required below 1.05); chains in 2 modes: 1, 2; 3; its posterior is kept"
    assert (line in err) != converged and ("draw on with --until-converged, or raise draws" in err) != converged
    assert ("converged: worst R-hat 1.004, smallest effective sample size 900" in out) == converged


@pytest.mark.parametrize(("words", "resume"), [((), True), (("--fresh",), False)])
def test_a_fit_resumes_unless_told_otherwise(fit_does: Callable[[Callable[..., Any]], None], recipe: Path, words: tuple[str, ...],
                                             resume: bool) -> None:
    seen: dict[str, Any] = {}
    fit_does(lambda checked, **options: seen.update(options) or SimpleNamespace(
        converged=True, diagnosis=SimpleNamespace(worst_rhat=1.0, smallest_ess=900.0)))
    with pytest.raises(SystemExit):
        cli.main(["fit", str(recipe), *words])
    assert seen["resume"] is resume


def test_sigterm_is_an_interruption(capsys: pytest.CaptureFixture[str], fit_does: Callable[[Callable[..., Any]], None],
                                    recipe: Path) -> None:
    kept = []

    def work(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            kept.append("draws")
            raise

    fit_does(work)
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = run(capsys, "fit", str(recipe))
    assert (code, out) == (143, "")
    assert kept == ["draws"]
    assert err.strip().splitlines()[-1] == "supermage: interrupted; run the same command again to resume"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_recipe_is_checked_before_any_work(capsys: pytest.CaptureFixture[str], fit_does: Callable[[Callable[..., Any]], None],
                                             recipe: Path) -> None:
    fit_does(raises(AssertionError("work was begun")))
    recipe.write_text(RECIPE + "[fit.sampler]\ndrawz = 3\n", encoding="utf-8")
    code, _, err = run(capsys, "fit", str(recipe))
    assert code == 1
    assert "unknown key 'fit.sampler.drawz'; did you mean 'draws'?" in err


@pytest.mark.parametrize("command", ["simulate", "calibrate", "reduce", "train"])
def test_a_recipe_for_another_command_is_refused(capsys: pytest.CaptureFixture[str], recipe: Path, command: str) -> None:
    code, _, err = run(capsys, command, str(recipe))
    assert code == 1
    assert f"this command needs a [{command}] section, got none" in err


def test_a_reader_who_leaves_early_gets_no_traceback(recipe: Path) -> None:
    program = "import sys; from supermage.cli import main; main(['--help'])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_caches_stay_out_of_the_home_directory() -> None:
    program = "import os; from supermage import cli; cli._keep_caches_out_of_home(); print(os.environ['MPLCONFIGDIR'])"
    def folder(environment: dict[str, str]) -> str:
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout.strip()

    environment = {key: value for key, value in os.environ.items() if key not in {"MPLCONFIGDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"}}
    assert not Path(folder(environment)).is_relative_to(Path.home())
    assert folder(environment | {"MPLCONFIGDIR": "/chosen"}) == "/chosen"


def test_the_command_line_starts_quickly() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'casatools', 'pyro'}"
    program = f"import sys, supermage, supermage.cli; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_training_of_a_network_draws_its_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.models.toy_maps import toy_store

    maps = toy_store(tmp_path / "maps.nc", 90)
    options = f'maps = "{maps}"\nwidth = 2\nimage_pixels = 32\nbatch = 16\nepochs = 2'
    (tmp_path / "recipe.toml").write_text(f'[train]\nkind = "galaxy-cnn"\n[train.options]\n{options}\n', encoding="utf-8")
    code, said, _ = run(capsys, "train", str(tmp_path / "recipe.toml"))
    assert code == 0 and f"losses: {tmp_path / 'products' / 'loss.png'}" in said
    assert (tmp_path / "products" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "products/loss.png" in (tmp_path / "card.md").read_text()
