"""The documented population study: errors by draws, held against what the generated galaxies are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from astropy.table import Table

from supermage.errors import DataError, DomainError

PATH = Path(__file__).parents[1] / "docs/population_study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("population_study", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mass_function_and_relation_of_known_masses(study: ModuleType) -> None:
    """Masses known to 0.01 dex: counts are the sample's own, with Poisson errors; the line is the one that they were made on."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(9.6, 11.4, 4000)
    total = 10.9 + 0.8 * (truth - 10.5) + rng.normal(0.0, 0.1, 4000)
    draws = np.stack([truth, total], axis=-1) + rng.normal(0.0, 0.01, (300, 4000, 2))
    function = study.mass_function(draws, 1e4, rng)
    whole = slice(1, 7)  # bins that lie inside the range
    expected = 4000 / 1.8 / 1e4
    median, lower, upper = (np.array(function[name])[whole] for name in ("median", "lower", "upper"))
    # 6 bins of 555 galaxies, each within 4 of its Poisson errors: false alarms 4e-4
    assert np.all(np.abs(median / expected - 1.0) < 4.0 / np.sqrt(555))
    assert np.allclose((upper - lower) / 2.0 / median, 1.0 / np.sqrt(555), rtol=0.35)
    found = study.relation(draws, rng)
    for name, value in (("intercept", 10.9), ("slope", 0.8), ("scatter", np.hypot(0.1, np.hypot(0.01, 0.008)))):
        assert abs(found[name]["value"] - value) < 5.0 * found[name]["error"], name
    assert found["intercept"]["error"] == pytest.approx(0.1 / np.sqrt(4000), rel=0.3)


def test_the_study_of_generated_galaxies_says_what_it_is(study: ModuleType, tmp_path: Path) -> None:
    found = study.study(study.draw_population(300, 2), model="tng-gbdt", volume=1e5, draws=50)
    assert "mock" in found["made_with"].lower() and found["is_mock"]
    assert found["galaxies"] == 300 and found["not_predicted"] == 0 and found["weight"] == 1.0
    study.draw(found, tmp_path / "masses.png")
    assert (tmp_path / "masses.png").stat().st_size > 5000


def test_no_galaxy_of_the_volume_is_lost(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows unlike the training set stay, widened; rows without a magnitude are made up for by the others' weight."""
    monkeypatch.setattr(study, "EDGES", np.array([6.0, 14.0]))
    table = study.draw_population(300, 2)
    odd, dark = np.arange(300) < 100, np.arange(300) >= 180
    table["g_r"][odd] += 1.5
    for name in ("M_r", "M_K"):
        table[name] = np.where(dark, np.nan, table[name])
        table[name].unit = "mag"
    found = study.study(table, model="tng-gbdt", volume=1e5, draws=50)
    assert found["outside_the_training_set"] >= 100 and found["not_predicted"] == 120 and found["weight"] == pytest.approx(300 / 180)
    (density,) = found["mass_function"]["median"]
    # the median of 50 Poisson bootstraps of 180, 1.3 % known; 5 times that
    assert density * 8.0 * 1e5 == pytest.approx(300, rel=0.065)


def test_what_cannot_be_studied_is_refused(study: ModuleType) -> None:
    table = study.draw_population(40, 2)
    with pytest.raises(DataError, match=r"^a study needs at least one galaxy, got none$"):
        study.study(table[:0], model="tng-gbdt", volume=1e5)
    with pytest.raises(DomainError, match="a volume must be positive, Mpc\\^3, got 0"):
        study.study(table, model="tng-gbdt", volume=0.0)
    for name in ("M_r", "M_K"):
        table[name] = np.where(np.arange(40) < 21, np.nan, table[name])
        table[name].unit = "mag"
    with pytest.raises(DataError, match=r"predictions of half of the galaxies or more, got none for 21 of 40 \(needs M_r or M_K"):
        study.study(table, model="tng-gbdt", volume=1e5)
    with pytest.raises(DataError, match="a study needs a model of catalogues, such as tng-gbdt, got nuker-mge"):
        study.study(table, model="nuker-mge", volume=1e5)


def test_generated_galaxies_are_known_by_meta_and_columns(study: ModuleType) -> None:
    table = study.draw_population(2, 1)
    assert study.mock_note(table) == study.MOCK
    table.meta = {}
    assert study.mock_note(table) == study.MOCK
    plain = table["M_r", "g_r"]
    assert study.mock_note(plain) == ""
    plain.meta["MOCK"] = "made of card"
    assert study.mock_note(plain) == "made of card"


def test_a_catalogue_with_its_own_names_and_no_units(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = study.draw_population(50, 2)
    Table({"rmag": np.asarray(table["M_r"]), "colour": np.asarray(table["g_r"])}).write(tmp_path / "mine.csv")
    named = ["--column", "M_r=rmag", "--column", "g_r=colour", "--unit", "M_r=mag", "--unit", "g_r=mag"]
    study.main([str(tmp_path / "mine.csv"), *named, "--figure", str(tmp_path / "masses.png")])
    found = json.loads(capsys.readouterr().out)
    assert found["galaxies"] == 50 and not found["is_mock"] and (tmp_path / "masses.png").exists()
    wrong = {"unit": [str(tmp_path / "mine.csv"), *named[:4]], "at least one galaxy, got 0": ["--mock", "0"],
             "must be NAME=VALUE, got 'M_r'": ["a.csv", "--unit", "M_r"], "give a catalogue, or --mock N": []}  # fmt: skip
    for message, words in wrong.items():
        with pytest.raises(SystemExit):
            study.main(words)
        assert message in capsys.readouterr().err


def test_few_galaxies_make_no_relation(study: ModuleType) -> None:
    table = study.draw_population(40, 2)
    with pytest.raises(DataError, match=r"^a relation needs at least 3 galaxies with predictions, got 2$"):
        study.study(table[:2], model="tng-gbdt", volume=1e5, draws=20)
    found = study.study(table[:3], model="tng-gbdt", volume=1e5, draws=20)
    assert all(np.isfinite(item["value"]) for item in found["mtot_of_mstar"].values())


def test_an_empty_bin_is_no_measurement(study: ModuleType, tmp_path: Path) -> None:
    """Galaxies in one bin only: its neighbours hold nothing, in JSON null, and the figure leaves them out."""
    draws = np.stack([np.full((20, 30), 10.6), np.full((20, 30), 11.0)], axis=-1)
    function = study.mass_function(draws, 1e4, np.random.default_rng(0))
    there = [value is not None for value in function["median"]]
    assert there == [edge == 10.5 for edge in study.EDGES[:-1]] == [value is not None for value in function["upper"]]
    assert function["median"][there.index(True)] * 0.25 * 1e4 == pytest.approx(30, rel=0.3) and "null" in json.dumps(function)
    study.draw({"mass_function": function, "is_mock": False}, tmp_path / "masses.pdf")


@pytest.mark.parametrize(("name", "message"), [("masses.xyz", "must end in one of "), ("masses", "must end in one of "),
                                               ("nowhere/masses.png", "in a folder that is there")])
def test_a_figure_that_cannot_be_is_told_first(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(study, "study", lambda *arguments, **options: pytest.fail("worked before it looked"))
    with pytest.raises(SystemExit):
        study.main(["--mock", "20", "--figure", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert message in said and name in said and said.count("\n") == 1


def test_numbers_are_printed_before_the_figure_is_drawn(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study, "draw", fails)
    with pytest.raises(SystemExit):
        study.main(["--mock", "20", "--figure", str(tmp_path / "masses.png")])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["galaxies"] == 20
    assert printed.err.startswith(f"population_study: {tmp_path / 'masses.png'}: a figure") and "No space left" in printed.err
