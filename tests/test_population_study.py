"""The documented population study: errors by draws, held against what the generated galaxies are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

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
    assert "mock" in found["made_with"].lower()
    assert found["galaxies"] == 300 and found["not_predicted"] == 0
    assert sum(found["mass_function"]["median"]) * 0.25 * 1e5 == pytest.approx(300 - found["outside_the_training_set"], rel=0.5)
    study.draw(found, tmp_path / "masses.png")
    assert (tmp_path / "masses.png").stat().st_size > 5000
