from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from supermage.data_reduction.calibrate import calibrate
from supermage.data_reduction.casa import import_casatools
from supermage.errors import DataError, RecipeError
from supermage.recipe import CalibrateSection, Recipe, load_recipe

RECIPE = Path(__file__).parents[2] / "data_reduction" / "ngc5921" / "recipe.toml"
IMPORT = {"task": "importuvfits", "arguments": {"fitsfile": "{input}", "vis": "{output}"}}


def recipe(folder: Path, *steps: dict[str, object], source: str = "{casadata}/demo/NGC5921.fits") -> Recipe:
    section = CalibrateSection.model_validate({"work": "products", "input": source, "output": "products/set.ms", "steps": steps})
    return Recipe(folder=folder, calibrate=section)


class Told:
    """Keeps what a progress is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, what: str, total: int | None) -> None:
        self.notes.append(f"{what} {total}")

    def advance(self, n: int = 1, note: str = "") -> None:
        self.notes.append(note)

    def done(self, note: str = "") -> None:
        self.notes.append("done")


def test_the_tutorials_galaxy_is_calibrated(tmp_path: Path) -> None:
    """NGC 5921, whole: the phase calibrator's flux, the target alone, its HI line with two horns above a flat continuum."""
    made = load_recipe(RECIPE).model_copy(update={"folder": tmp_path})
    told = Told()
    path = calibrate(made, progress=told)
    assert path == tmp_path / "products" / "ngc5921.ms"
    assert told.notes[0] == "casatasks 9" and told.notes[-1] == "done" and "gaincal" in told.notes[4]
    assert sorted(item.name for item in path.parent.iterdir()) == ["calibrate.log", "ngc5921.ms"]
    log = (tmp_path / "products" / "calibrate.log").read_text()
    flux = float(log.split("Flux density for 1445+09900002_0")[1].split(" is: ")[1].split()[0])
    assert flux == pytest.approx(2.5, abs=0.1)
    table = import_casatools().table()
    table.open(str(path))
    data, flag = table.getcol("DATA"), table.getcol("FLAG")
    autocorrelation = table.getcol("ANTENNA1") == table.getcol("ANTENNA2")
    table.close()
    assert data.shape == (2, 63, 12852)
    assert flag[:, :, autocorrelation].all() and not flag[:, :, ~autocorrelation].any()
    spectrum = data[:, :, ~autocorrelation].real.mean(axis=(0, 2))
    empty = np.r_[5:10, 50:58]
    assert spectrum[14:46].mean() > spectrum[empty].mean() + 0.01
    assert np.std(spectrum[empty]) < 0.003
    assert min(spectrum[14:18].max(), spectrum[41:46].max()) > spectrum[38:40].mean()


def test_failing_step_is_named_and_the_earlier_set_stays(tmp_path: Path) -> None:
    products = tmp_path / "products"
    (products / "set.ms").mkdir(parents=True)
    (products / "set.ms" / "mark").write_text("old")
    (products / "set.ms" / "table.dat").touch()
    wrong = {"task": "split", "arguments": {"vis": "{output}", "outputvis": "other.ms", "field": "NGC9999", "datacolumn": "data"}}
    with pytest.raises(DataError, match=r"step 2 of 2 \(split\).*calibrate\.log") as caught:
        calibrate(recipe(tmp_path, IMPORT, wrong))
    assert "\n" not in str(caught.value)
    assert sorted(item.name for item in products.iterdir()) == ["calibrate.log", "set.ms"]
    assert (products / "set.ms" / "mark").read_text() == "old"
    log = (products / "calibrate.log").read_text()
    assert "importuvfits" in log and "NGC9999" in log


def test_output_must_be_made(tmp_path: Path) -> None:
    elsewhere = {"task": "importuvfits", "arguments": {"fitsfile": "{input}", "vis": "elsewhere.ms"}}
    with pytest.raises(DataError, match=r"must make \{output\}, got no set\.ms"):
        calibrate(recipe(tmp_path, elsewhere))
    assert [item.name for item in (tmp_path / "products").iterdir()] == ["calibrate.log"]


@pytest.mark.parametrize(("step", "words"), [
    ({"task": "importuvfit", "arguments": {}}, "did you mean 'importuvfits'"),
    ({"task": "importuvfits", "arguments": {"fitsfile": "{in}", "vis": "{output}"}}, r"importuvfits may use \{input\}")])
def test_wrong_recipe_costs_no_work(tmp_path: Path, step: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        calibrate(recipe(tmp_path, step))
    assert not list(tmp_path.rglob("*.ms"))


def test_input_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calibrate\.input must exist, got .*none\.fits"):
        calibrate(recipe(tmp_path, IMPORT, source="none.fits"))
    assert not list(tmp_path.iterdir())


def test_section_is_needed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="calibrate"):
        calibrate(Recipe(folder=tmp_path))
