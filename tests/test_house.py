"""The house itself: packaging, pinned versions, and that every check acts on a breach."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import supermage
from supermage.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def command(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments; never fails by itself."""
    return subprocess.run([sys.executable, *words], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


# -- rules of the house ------------------------------------------------------------------------------------------------------------------

def script(name: str) -> ModuleType:
    """A script of the checks, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """The script that checks imports and sizes."""
    return script("house")


BREACHES = [
    ("data_reduction/x.py", "from supermage.forward.nuker import Nuker", "must not import supermage.forward.nuker"),
    ("data_reduction/x.py", "def f():\n    from supermage.inference import model", "must not import supermage.inference.model"),
    ("data_reduction/grid.py", "import supermage.recipe_sections\nimport supermage.cli", "must not import supermage.cli"),
    ("forward/x.py", "from supermage.data_reduction import gridded", "must not import supermage.data_reduction.gridded"),
    ("forward/x.py", "from supermage.models.registry import load_model", "must not import supermage.models.registry"),
    ("models/x.py", "from supermage.inference.model import build_model", "must not import supermage.inference.model"),
    ("inference/x.py", "import supermage.plots.corner", "must not import supermage.plots.corner"),
    ("inference/x.py", "import supermage.forward.nuker\nimport supermage.data_reduction.gridded",
     "only supermage.inference.model may know both"),
    ("plots/x.py", "from supermage.report import build", "must not import supermage.report.build"),
    ("report/x.py", "from supermage.cli import app", "must not import supermage.cli"),
    ("errors.py", "import supermage.recipe", "must not import supermage.recipe"),
    ("forward/x.py", "from . import mge", "must not import supermage.<relative import>"),
    ("forward/x.py", "import jampy.mge", "jampy must not be imported"),
    ("data_reduction/x.py", "import casatools", "must be imported inside the function"),
    ("forward/x.py", "def f():\n" + "    x = 1\n" * 61, "a function must have at most 60 lines"),
    ("forward/x.py", "x = 1\n" * 401, "a file must have at most 400 lines"),
]


@pytest.mark.parametrize(("path", "code", "message"), BREACHES, ids=[f"{b[0]}: {b[2]}"[:70] for b in BREACHES])
def test_house_check_finds_a_breach(house: ModuleType, tmp_path: Path, path: str, code: str, message: str,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "supermage" / path
    file.parent.mkdir(parents=True)
    file.write_text(code, encoding="utf-8")
    assert house.main(tmp_path) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(("path", "code"), [
    ("inference/model.py", "import supermage.forward.nuker\nimport supermage.data_reduction.gridded"),
    ("forward/x.py", "from supermage.data_reduction.grid import UVGrid\nfrom supermage.errors import DomainError"),
    ("data_reduction/x.py", "from supermage.data_reduction import noise\nfrom supermage.progress import Progress\n"
     "def f():\n    import casatools"),
    ("report/x.py", "from supermage import __version__\n"
     "from supermage.data_reduction.images import dirty_cube\nimport supermage.forward.mge"),
    ("__init__.py", "from supermage.inference.kernels import MALA as MALA"),
])
def test_house_check_lets_the_rest_pass(house: ModuleType, tmp_path: Path, path: str, code: str) -> None:
    file = tmp_path / "supermage" / path
    file.parent.mkdir(parents=True)
    file.write_text(code, encoding="utf-8")
    assert house.main(tmp_path) == 0


def test_the_layers_exist(house: ModuleType) -> None:
    for name in house.LAYERS:
        path = ROOT / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_the_house_obeys_its_rules(house: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.main(ROOT) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("code", "rule"), [
    ("import os\n", "F401"), ("def public():\n    return 1\n", "D103"), ("print(1)\n", "T201"), ("def f(x=[]):\n    pass\n", "B006"),
    ("try:\n    pass\nexcept Exception:\n    pass\n", "BLE001")])
def test_the_linter_acts(tmp_path: Path, code: str, rule: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(code, encoding="utf-8")
    found = command("-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise", str(file))
    assert found.returncode == 1
    assert rule in found.stdout


def test_the_type_checker_acts(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f(x: int) -> str:\n    return x\n\n\ndef g(x):\n    return f(x)\n", encoding="utf-8")
    found = command("-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"), str(file))
    assert "[return-value]" in found.stdout
    assert "[no-untyped-def]" in found.stdout


PIXEL = base64.b64encode(b"\x89PNG...").decode("ascii")
REPORT = f"""<html><body><p>DETECTED: the sphere of influence is seen; R-hat and prior are fine. M is proportional to D;
the distance's error is not included.</p><h1>Black hole</h1><h2>Verdict</h2><h2>Black-hole mass</h2><h2>Parameters</h2>
<h2>Data, model, residual</h2><h2>Residuals and noise</h2><h2>Velocity and mass profiles</h2><h2>Posterior</h2><h2>Convergence</h2>
<h2>Recipe, versions, data</h2><img src="data:image/png;base64,{PIXEL}" alt="a map">
<a href="a.png">PNG</a><a href="a.pdf">PDF</a><a href="t.tex">T</a><a href="r.bib">B</a><a href="d.fits">F</a></body></html>"""


@pytest.mark.parametrize(("old", "new", "fault"), [
    ("", "", None),
    ("<h1>", '<script src="https://example.org/x.js"></script><h1>', "the page must be self-contained, got <script>"),
    ("DETECTED", "We think", "the page must begin with the verdict"),
    ("<h2>Convergence</h2>", "", "a section on 'convergence' must follow"),
    ("</body>", "", "tags must be closed in their order"),
    ('src="data:image/png;base64,', 'src="figures/a.png', "figures must be embedded PNG"),
    (' alt="a map"', "", "figures must be described in words"),
    ('"a.pdf"', '"b.pdf"', "links must lead to files, got b.pdf"),
    ('<a href="a.pdf">PDF</a>', "", "every figure must be there as .pdf, got 0 of 1"),
    ('<a href="r.bib">B</a>', "", "the page must link to a .bib file"),
    ("distance's error is not included", "", "the page must say 'M is proportional to D"),
])
def test_a_report_is_opened_with_care(tmp_path: Path, old: str, new: str, fault: str | None) -> None:
    for name in ("a.png", "a.pdf", "t.tex", "r.bib", "d.fits"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "index.html").write_text(REPORT.replace(old, new) if old else REPORT, encoding="utf-8")
    found = script("open_report").faults(tmp_path)
    assert found == [] if fault is None else any(line.startswith(fault) for line in found), found


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    assert script("open_report").main(tmp_path) == 1


# -- what the documentation must not hold ------------------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"^[A-Z]{5,}[0-9]?$")


def placeholders(text: str) -> list[str]:
    """Lines and cells of tables that are nothing but a word in capitals: what somebody meant to fill in."""
    parts = [part.strip() for line in text.splitlines() for part in line.strip().strip("|").split("|")]
    return [part for part in parts if PLACEHOLDER.match(part)]


@pytest.mark.parametrize(("text", "found"), [
    ("a\n\nKERNELS\n", ["KERNELS"]), ("| a | FIGURES2 |\n", ["FIGURES2"]), ("  NUMBERS  ", ["NUMBERS"]),
    ("| LSRK | MALA |\nthe RESOLUTION of it\n", []), ("`KERNELS`", [])])
def test_placeholders_are_found(text: str, found: list[str]) -> None:
    assert placeholders(text) == found


def test_no_page_holds_a_placeholder() -> None:
    left_out = {"products", "_build"}
    pages = [page for page in ROOT.rglob("*.md")
             if not any(part in left_out or part.startswith(".") for part in page.relative_to(ROOT).parts)]
    assert len(pages) > 10
    found = {str(page.relative_to(ROOT)): placeholders(page.read_text(encoding="utf-8")) for page in pages}
    assert {page: words for page, words in found.items() if words} == {}


def test_the_readme_shows_what_the_demo_prints() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- demo output -->(.*)<!-- end of demo output -->", text, flags=re.DOTALL)
    assert block is not None
    lines = re.search(r"```\n(.*?)```", block[1], flags=re.DOTALL)
    assert lines is not None
    for start in ("verdict: ", "black-hole mass: ", "report: "):
        assert any(line.startswith(start) for line in lines[1].splitlines()), start
    for name in re.findall(r"(?:\]\(|src=\")(docs/images/[^)\"]+)", block[1]):
        assert (ROOT / name).is_file(), name


# -- the tests' own harness --------------------------------------------------------------------------------------------------------------

def run_tests(folder: Path, code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test file of its own under this suite's conftest and settings."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_it.py").write_text(code, encoding="utf-8")
    settings = {key: value for key, value in PROJECT["tool"]["pytest"]["ini_options"].items() if key not in {"testpaths", "addopts"}}
    text = ["[tool.pytest.ini_options]", f"addopts = {PROJECT['tool']['pytest']['ini_options']['addopts']}"]
    text += [f"{key} = {value if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else repr(value)}"
             for key, value in settings.items()]
    (folder / "pyproject.toml").write_text("\n".join(text), encoding="utf-8")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "SUPERMAGE_"))} | environment
    quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    words = [sys.executable, "-m", "pytest", *quick, *options]
    return subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, check=False)


REFERENCE_TESTS = "import pytest\n\n@pytest.mark.reference\ndef test_a(reference_data):\n    pass\n\ndef test_b():\n    pass\n"


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_without_the_reference_data_their_tests_are_deselected_and_counted(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_tests(tmp_path, REFERENCE_TESTS, *options, SUPERMAGE_REFERENCE_DATA=str(tmp_path / "none"))
    assert done.returncode == 0, done.stdout
    assert f"1 tests deselected: no reference data in {tmp_path / 'none'}" in done.stdout
    assert "1 passed" in done.stdout


def test_with_the_reference_data_every_test_runs(tmp_path: Path) -> None:
    done = run_tests(tmp_path, REFERENCE_TESTS, SUPERMAGE_REFERENCE_DATA=str(tmp_path))
    assert "2 passed" in done.stdout
    assert "deselected" not in done.stdout


def test_reference_data_without_the_mark_are_an_error(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "def test_a(reference_data):\n    pass\n")
    assert done.returncode != 0
    assert "need @pytest.mark.reference" in done.stdout + done.stderr


def test_writing_to_the_home_directory_fails_the_run(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "from pathlib import Path\n\ndef test_a():\n    (Path.home() / 'rubbish').touch()\n")
    assert done.returncode == 1
    assert "ERROR written to the home directory: rubbish" in done.stdout


STRICT = """
import warnings
import pytest
from supermage.progress import duration

def test_warning():
    warnings.warn("old", DeprecationWarning)

@pytest.mark.xfail
def test_unexpected_pass():
    pass

def test_wrong_type():
    duration("long")
"""


def test_the_harness_is_strict(tmp_path: Path) -> None:
    done = run_tests(tmp_path, STRICT)
    assert "3 failed" in done.stdout
    for part in ("DeprecationWarning: old", "XPASS(strict)", "TypeCheckError"):
        assert part in done.stdout


def test_an_unknown_mark_is_an_error(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "import pytest\n\n@pytest.mark.referense\ndef test_a():\n    pass\n")
    assert done.returncode != 0
    assert "'referense' not found in `markers`" in done.stdout


def test_ci_fails_without_the_reference_data(tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(ROOT / ".ci" / "run")], env=os.environ | {"SUPERMAGE_REFERENCE_DATA": str(tmp_path / "none")},
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "needs the reference data" in done.stderr


@pytest.mark.reference
def test_the_reference_folder_holds_what_the_tests_use(reference_data: Path) -> None:
    for name in ("mge", "posteriordb", "alma-x5707-one-baseline.ms.tar.gz", "evla-two-spectral-windows.ms.tar.gz"):
        assert (reference_data / name).exists(), name


# -- packaging ---------------------------------------------------------------------------------------------------------------------------

def test_one_version_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = PROJECT["project"]["version"]
    assert supermage.__version__ == version
    assert f"\nversion: {version}\n" in citation
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_requirement_is_pinned() -> None:
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE))
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=~! ;]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - set(pins) == set()
    assert pins["torch"] == "2.13.0"
    assert pins["casatools"] == pins["casatasks"]


def test_the_short_demo_differs_from_the_demo_in_length_only() -> None:
    whole = load_recipe(ROOT / "inference" / "mock-ngc4697" / "recipe.toml").fit
    short = load_recipe(ROOT / "inference" / "mock-ngc4697" / "short.toml").fit
    assert whole is not None and short is not None
    assert short.output != whole.output
    assert short.model_copy(update={"output": whole.output, "sampler": whole.sampler}) == whole


def pip(verb: str, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run pip without a network; it asks other tools for their versions, which write to the home directory."""
    return command("-m", "pip", verb, "--quiet", "--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check", *words,
                   HOME=str(home))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--no-build-isolation", "-w", str(folder), str(ROOT), home=folder)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_the_models_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"supermage", f"supermage-{supermage.__version__}.dist-info"}
    assert "supermage/py.typed" in names
    assert "supermage/_models/nuker-mge/card.md" in names
    assert any(name.startswith("supermage/_models/nuker-mge/artefact/") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".toml"))]


def test_an_installed_wheel_loads_its_model_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    installed = pip("install", "--target", str(site), str(wheel), home=tmp_path)
    assert installed.returncode == 0, installed.stderr
    program = ("import supermage, math; print(supermage.__file__); emulator = supermage.load_model('nuker-mge'); "
               "mge = emulator(2.0, 2.0, 0.8, 100.0, 1000.0, 0.7); print(float(mge.surface_density_at(100.0)))")
    done = command("-c", program, cwd=empty, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    file, density = done.stdout.split()
    assert Path(file).is_relative_to(site)
    assert float(density) == pytest.approx(1000.0, rel=0.05)
    assert list(empty.iterdir()) == []


# -- public names ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", supermage.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(supermage, name) is not None
    assert name in dir(supermage)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nuker_mge'"):
        _ = supermage.nuker_mge
