"""What a set notes of its noise and flags: subtables written by hand, and the radiometer equation against ALMA's own sensitivity."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.measurement_set import MeasurementSet
from supermage.data_reduction.response import SpectralResponse
from supermage.data_reduction.set_notes import EFFICIENCY, flag_reasons, radiometer_sigma, system_temperature

Spoil = Callable[..., Path]


def _write(path: Path, name: str, columns: dict[str, tuple[str, int | None, list[Any]]]) -> None:
    """A subtable; each column a type, its dimensions (None: scalar) and its values."""
    description = {
        key: {"valueType": kind, "dataManagerType": "StandardStMan", "dataManagerGroup": "one", "option": 0, "maxlen": 0, "comment": "",
              "keywords": {}, **({} if dimensions is None else {"ndim": dimensions})}
        for key, (kind, dimensions, _) in columns.items()}  # fmt: skip
    table = import_casatools().table()
    rows = len(next(iter(columns.values()))[2])
    table.create(str(path / name), description, nrow=rows)
    for key, (_, dimensions, values) in columns.items():
        for row, value in enumerate(values):
            table.putcell(key, row, value if dimensions is None else np.asarray(value))
    table.close()


def _bare(path: Path) -> Path:
    """The set without the two subtables."""
    import shutil

    for name in ("SYSCAL", "FLAG_CMD"):
        shutil.rmtree(path / name, ignore_errors=True)
    return path


def test_notes_of_a_set(spoil: Spoil) -> None:
    path = _bare(spoil())
    assert flag_reasons(path) is None and system_temperature(path, 0) is None
    _write(path, "FLAG_CMD", {"APPLIED": ("boolean", None, [True, True, False, True]),
                              "REASON": ("string", None, ["shadow", "edge", "edge", "shadow"])})  # fmt: skip
    _write(path, "SYSCAL", {"SPECTRAL_WINDOW_ID": ("int", None, [0, 0, 1, 0]),
                            "TSYS": ("float", 1, [[90.0, 110.0], [100.0, 100.0], [500.0, 500.0], [np.nan, 0.0]])})  # fmt: skip
    assert flag_reasons(path) == {"shadow": 2, "edge": 1}
    assert system_temperature(path, 0) == pytest.approx(100.0) and system_temperature(path, 1) == pytest.approx(500.0)
    assert system_temperature(path, 7) is None
    with MeasurementSet(path) as source:
        notes = source.notes(0)
    assert notes["system_temperature"] == pytest.approx(100.0) and notes["seconds"] == pytest.approx(6.048, rel=1e-3)


def test_spectra_of_system_temperatures_go_first(spoil: Spoil) -> None:
    path = _bare(spoil())
    _write(path, "SYSCAL", {"SPECTRAL_WINDOW_ID": ("int", None, [0, 0]), "TSYS": ("float", 1, [[1.0, 1.0], [1.0, 1.0]]),
                            "TSYS_SPECTRUM": ("float", 2, [np.full((2, 4), 80.0), np.full((2, 4), 120.0)])})  # fmt: skip
    assert system_temperature(path, 0) == pytest.approx(100.0)


def test_radiometer_equation() -> None:
    """An array of N antennas has a point-source noise of sigma / sqrt(N (N - 1)) in Stokes I of two hands: 2 k T / (eta A sqrt(...)).

    White channels of 1 MHz and 60 s, T = 100 K, 12 m: the textbook's 2 k T / (eta A sqrt(n_p N (N - 1) bandwidth t)) with n_p = 2.
    """
    sigma = radiometer_sigma(100.0, dish_diameter=12.0, width=1e6, seconds=60.0, response=SpectralResponse(hanning=False))
    n = 43
    baselines = n * (n - 1) / 2
    image = sigma / math.sqrt(2 * baselines)  # real parts of all baselines and both hands, naturally weighted
    textbook = 2 * 1.380649e-23 * 100.0 / (EFFICIENCY * math.pi * 36.0 * math.sqrt(2 * n * (n - 1) * 1e6 * 60.0)) / 1e-26
    assert image == pytest.approx(textbook, rel=1e-12)
    hanning = radiometer_sigma(100.0, dish_diameter=12.0, width=1e6, seconds=60.0, response=SpectralResponse(hanning=True))
    assert hanning / sigma == pytest.approx(math.sqrt(0.375))
    averaged = radiometer_sigma(100.0, dish_diameter=12.0, width=1e6, seconds=60.0, response=SpectralResponse(hanning=False, averaging=4))
    assert averaged == pytest.approx(sigma)
