"""The commands of `benchmarks/`: each can be imported, and says what it does when asked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from supermage.models.map_store import write_maps
from tests.models.toy_maps import toy_galaxies

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = sorted(FOLDER.glob("*.py"))


def load(path: Path, patch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module; one may import another from its own folder."""
    patch.syspath_prepend(str(FOLDER))
    name = f"benchmark_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_benchmark_says_what_it_does(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(path, monkeypatch)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    try:
        code = module.main()
    except SystemExit as stopped:
        code = stopped.code
    assert not code
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_no_benchmark_hides_a_package(path: Path) -> None:
    """Run as a script, its folder comes first: a `coverage.py` there would be imported in place of the package that numba asks for."""
    ours = (FOLDER, FOLDER.parent / "tests")
    assert PathFinder.find_spec(path.stem, [folder for folder in sys.path if Path(folder).resolve() not in ours]) is None


def test_the_demos_galaxy_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cube and the visibilities are measured on, by the names that they import."""
    cube = load(FOLDER / "cube.py", monkeypatch)
    assert set(cube.truth()) == set(load(FOLDER / "visibilities.py", monkeypatch).truth())
    assert set(cube.CASES["off centre"]) <= set(cube.truth())


def test_the_emulators_rows_are_those_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"median": 1e-5, "99%": 2e-4, "max": 1e-3}
    group = {key: numbers for key in ("surface_density", "velocity_q1", "velocity_q1_beyond_5pc", "gradient_density")}
    errors = {"profiles": 1, "random": {**group, "not_positive": 0}, "corners": group, "faces": {key: {"max": 2e-3} for key in group}}
    got = load(FOLDER / "emulator.py", monkeypatch).rows("nuker-mge", errors)
    assert got[0] == "| `nuker-mge` | surface density | 0.03, 0.3, 1 % | 0.001 % | 0.02 % | 0.2 % |"
    assert [row.split(" | ")[1] for row in got] == ["surface density", "velocity q1", "gradient density"]
    page = (FOLDER.parent / "docs/forward.md").read_text(encoding="utf-8")
    assert all(" | ".join(row.split(" | ")[:3]) in page for row in got)


def trials(names: Iterable[str], number: int, *, narrow: float, seed: int = 0) -> list[dict[str, Any]]:
    """Ranks of truths in posteriors whose errors are `narrow` times what they should be: normal about the truth, every parameter alike."""
    rng = np.random.default_rng(seed)

    def rank() -> float:
        return float(stats.norm.cdf(rng.standard_normal() / narrow))

    return [{"rank": {name: rank() for name in names}, "tarp": rank(), "converged": True, "seconds": 1.0,
             "width_ratio": dict.fromkeys(names, 0.2)} for _ in range(number)]  # fmt: skip


def test_coverage_is_judged_by_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Honest ranks pass (15 KS tests and one of TARP at 1e-4, coverage in its 99 % band; seeded); errors too small by half do not."""
    module = load(FOLDER / "mass_coverage.py", monkeypatch)
    judge, names = module.judge, tuple(module.PRIORS)
    honest = judge(trials(names, 100, narrow=1.0))
    for level, share in honest["coverage"].items():
        assert share["band_99"][0] <= share["share"] <= share["band_99"][1], level
    assert min(*honest["ks_p"].values(), honest["tarp_p"]) > 1e-4
    false = judge(trials(names, 100, narrow=0.5))
    assert all(share["share"] < share["band_99"][0] for share in false["coverage"].values())
    assert max(*false["ks_p"].values(), false["tarp_p"]) < 1e-2
    wide = judge(trials(names, 100, narrow=2.0))
    assert wide["coverage"]["68%"]["share"] > wide["coverage"]["68%"]["band_99"][1] and wide["tarp_p"] < 1e-2


def test_maps_without_what_a_row_needs_are_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Early types need a Sersic index: the row is refused by name, and nothing is trained."""
    maps, columns = toy_galaxies(30, seed=1)
    del columns["n_sersic"]
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="toy", mock=True)
    module = load(FOLDER / "cnn.py", monkeypatch)
    monkeypatch.setattr(module, "train_cnn", lambda *given, **options: pytest.fail("must not train"))
    monkeypatch.setattr(sys, "argv", ["cnn.py", "--rows", "joint-fdm-early", "--maps", str(path), "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="the row joint-fdm-early of Table 4 needs the column n_sersic, got none"):
        module.main()
    assert not (tmp_path / "work").exists()
