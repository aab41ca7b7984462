"""Figures 5 - 9 of `benchmarks/cnn.py`: the panels are the rows' errors about the truth, and a run writes every file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from supermage.models.cnn_table import error_of, row_of
from tests.models.toy_maps import toy_galaxies, toy_store


@pytest.fixture
def cnn(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "cnn.py"
    spec = importlib.util.spec_from_file_location("benchmark_cnn", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_cnn", module)
    spec.loader.exec_module(module)
    return module


def test_every_panel_is_a_row_with_a_label(cnn: ModuleType) -> None:
    for grid in cnn.FIGURES.values():
        for key in (key for keys in grid for key in keys if key != cnn.POWER_LAW):
            assert "$" in cnn.panel_of(row_of(key), np.zeros(2), np.zeros(2)).label
    assert cnn.label_of("log_mstar_2d_2rhsm") == r"$\log_{10}(M_*/M_\odot)$, circle of 2 $R_\mathrm{hsm}$"


def test_dark_matter_fractions_are_linear_and_of_early_types_alone(cnn: ModuleType) -> None:
    _, columns = toy_galaxies(30, seed=1)
    row, guess = row_of("joint-fdm-early"), {"log_mstar": columns["log_mstar"], "log_mtot": columns["log_mtot"] + 0.1}
    panel = cnn.panel_of(row, error_of(row, guess, lambda name: columns[name]), columns["log_fdm"])
    early = (columns["n_sersic"] > 2) & (columns["b_t"] > 0.5)
    assert 0 < early.sum() < 30 and np.array_equal(np.isfinite(panel.predicted), early)
    assert panel.predicted[early] == pytest.approx(1 - 10 ** (guess["log_mstar"] - guess["log_mtot"])[early])
    assert panel.true == pytest.approx(10 ** columns["log_fdm"]) and panel.unit == ""


def test_rows_make_up_the_papers_figures_and_the_rest_stands_alone(cnn: ModuleType, tmp_path: Path) -> None:
    true = np.linspace(9, 11, 150)
    good, none = cnn.Panel(true, true + 0.1, "m"), cnn.Panel(true, np.full(150, np.nan), "m")
    cnn.draw(tmp_path, {"joint-mstar": good, "joint-fdm-early": none, "r-mstar": good}, "toy")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["figure_8.png", "row_r-mstar.png"]


def test_a_run_draws_losses_panels_and_the_power_law(
    cnn: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, drawn = toy_store(tmp_path / "maps.nc", 90, image=90), {}
    monkeypatch.setattr(cnn, "draw", lambda folder, panels, source: drawn.update(panels, source=source))
    given = ["--rows", "r+v-mstar", "--maps", str(maps), "--work", str(tmp_path), "--figures", str(tmp_path / "figures"), "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["cnn.py", *given])
    cnn.main()
    (entry,) = json.loads(capsys.readouterr().out)
    panel, law = drawn["r+v-mstar"], drawn[cnn.POWER_LAW]
    assert drawn["source"] == "generated galaxies" and (tmp_path / "figures" / "loss_r+v-mstar.png").exists()
    assert np.array_equal(panel.true, law.true) and len(panel.true) == entry["rows"]["test"]
    assert (panel.predicted - panel.true).std() == pytest.approx(entry["ours"]["sigma"])
    # toy galaxies: stellar mass is light times 10^(1.1 (g - r - 0.6)), which a power law does not know
    assert 0.05 < (law.predicted - law.true).std() < 0.2
