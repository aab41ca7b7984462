"""What a measurement set notes of its own noise and flags: system temperatures (SYSCAL) and flag commands (FLAG_CMD)."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.measurement_set_tables import casacore_errors
from supermage.data_reduction.response import SpectralResponse

BOLTZMANN = 1.380649e-23
JANSKY = 1e-26
EFFICIENCY = 0.7
"""Of aperture and correlator together, assumed: ALMA's lies between 0.6 and 0.75."""

_ROWS = 2000


def _rows_of(path: Path, name: str) -> Any:
    """The open subtable, or None where there is none or it is empty; the caller closes it."""
    if not (path / name / "table.dat").is_file():
        return None
    table = import_casatools().table()
    with casacore_errors(path):
        table.open(str(path / name), lockoptions={"option": "usernoread"}, nomodify=True)
    if table.nrows():
        return table
    table.close()
    return None


def flag_reasons(path: Path) -> dict[str, int] | None:
    """Applied flag commands by their reason, the most frequent first; None where the set records none."""
    table = _rows_of(path, "FLAG_CMD")
    if table is None:
        return None
    try:
        with casacore_errors(path):
            applied, reasons = table.getcol("APPLIED"), table.getcol("REASON")
    finally:
        table.close()
    counted = Counter(str(reason) or "no reason given" for reason, done in zip(reasons, applied) if done)
    return dict(counted.most_common()) or None


def system_temperature(path: Path, window: int) -> float | None:
    """Median system temperature of a spectral window over antennas, receptors and time, K; None where SYSCAL does not say."""
    table = _rows_of(path, "SYSCAL")
    if table is None:
        return None
    try:
        with casacore_errors(path):
            column = next((name for name in ("TSYS_SPECTRUM", "TSYS") if name in table.colnames() and table.iscelldefined(name, 0)), None)
            rows = np.flatnonzero(table.getcol("SPECTRAL_WINDOW_ID") == window)[:_ROWS]
            values = [] if column is None else [np.median(table.getcell(column, int(row))) for row in rows]
    finally:
        table.close()
    good = [value for value in values if np.isfinite(value) and value > 0]
    return float(np.median(good)) if good else None


def integration_time(table: Any) -> float:
    """Median EXPOSURE of the first rows of a main table, s (INTERVAL where there is none)."""
    column = "EXPOSURE" if "EXPOSURE" in table.colnames() else "INTERVAL"
    return float(np.median(table.getcol(column, startrow=0, nrow=min(table.nrows(), _ROWS))))


def radiometer_sigma(temperature: float, *, dish_diameter: float, width: float, seconds: float, response: SpectralResponse) -> float:
    """Standard deviation of the real part of one visibility of one hand, Jy: ``sqrt(2) k T / (eta A sqrt(bandwidth t))``.

    Parameters
    ----------
    temperature
        System temperature, K.
    dish_diameter
        m.
    width
        Channel width, Hz.
    seconds
        Integration time.
    response
        Whose smoothing widens the channel's noise bandwidth.
    """
    area = math.pi / 4.0 * dish_diameter**2
    native = width / response.spacing
    white = math.sqrt(2.0) * BOLTZMANN * temperature / (EFFICIENCY * area * math.sqrt(native * seconds)) / JANSKY
    return white * math.sqrt(float(np.sum(response.taps**2)))
