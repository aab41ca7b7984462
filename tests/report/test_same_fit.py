"""What differs between two posteriors of the same data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from supermage.report.record import Record, read_record
from supermage.report.same_fit import difference
from tests.report.factories import make_fit

QUICK = {"emulator": "nuker-mge"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return read_record(make_fit(tmp_path_factory.mktemp("fit"), draws=20, model=QUICK))


def test_the_same_fit_has_no_difference(record: Record, tmp_path: Path) -> None:
    other = read_record(make_fit(tmp_path, draws=30, seed=2, model={**QUICK, "precision": "float64"}))
    assert difference(record, other) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {**QUICK, "gas": "stretched"}}, "fit.model.gas is stretched there, exponential here"),
        ({"model": {**QUICK, "likelihood": "gaussian"}}, "fit.model.likelihood is gaussian there, moderated_t here"),
        ({"fixed": {"gamma": 0.5}}, "gamma is not sampled there, sampled here"),
    ],
)
def test_another_model_is_told(record: Record, tmp_path: Path, change: dict, said: str) -> None:
    assert said in difference(record, read_record(make_fit(tmp_path, draws=20, **{"model": QUICK, **change})))


def test_priors_fixed_values_distance_and_emulator_are_told(record: Record) -> None:
    wider = tuple(dataclasses.replace(p, upper=85.0) if p.name == "inclination" else p for p in record.parameters)
    assert difference(record, dataclasses.replace(record, parameters=wider)) == "the prior of inclination is 72 to 85 there, 72 to 89 here"
    one, other = (dataclasses.replace(record, fixed={"gas_index": value}) for value in (1.0, 2.0))
    assert difference(one, other) == "the fixed gas_index is 2 there, 1 here"
    further = dataclasses.replace(record, facts={**record.facts, "distance": 12.0, "emulator": "nuker-mge 2"})
    assert difference(record, further) == (
        "the distance is 12 Mpc there, 11.4 Mpc here; the emulator is nuker-mge 2 there, nuker-mge-solve here"
    )
    narrow = tuple(dataclasses.replace(p, lower=p.lower + 1e-3) for p in record.parameters)
    told = difference(record, dataclasses.replace(record, parameters=narrow))
    assert told.endswith(f"and {len(narrow) - 3} more") and "\n" not in told
    # what a file does not tell is not held against it
    silent = {key: value for key, value in record.facts.items() if key != "emulator"}
    assert difference(record, dataclasses.replace(record, facts=silent)) == ""
