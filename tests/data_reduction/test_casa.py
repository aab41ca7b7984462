"""casatools starts offline, writes nothing at home and leaves the command line alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supermage.data_reduction import casa
from supermage.errors import SupermageError

START = """
import sys
from supermage.data_reduction.casa import import_casatools
tools = import_casatools()
assert sys.argv[1:] == ["--help", "RECIPE"], sys.argv
assert import_casatools() is tools
table = tools.table()
try:
    table.open("nowhere")
except RuntimeError:
    print("started")
"""


def test_it_starts_with_an_empty_home_and_a_foreign_command_line(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(casa.__file__).parents[2]), "http_proxy": "http://127.0.0.1:9",
                   "https_proxy": "http://127.0.0.1:9"}
    result = subprocess.run([sys.executable, "-c", START, "--help", "RECIPE"], capture_output=True, text=True, check=False, cwd=here,
                            env=environment, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "started\n", "")
    assert list(home.iterdir()) == list(here.iterdir()) == []


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "casadata", None)
    with pytest.raises(SupermageError, match="measurement sets need the packages casatools and casadata") as caught:
        casa.casadata_folder()
    assert "\n" not in str(caught.value)


def test_environment_of_a_subprocess(tmp_path: Path) -> None:
    environment = casa.casatasks_environment(tmp_path / "work")
    site = Path(environment["CASASITECONFIG"])
    settings: dict[str, object] = {}
    exec(site.read_text(), settings)
    assert settings["measurespath"] == str(casa.casadata_folder())
    assert settings["measures_auto_update"] is settings["data_auto_update"] is False
    assert environment["HOME"] == str((tmp_path / "work").resolve())
