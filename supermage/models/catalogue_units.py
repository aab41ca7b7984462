"""Units of catalogue columns: how people write them, and the way from their numbers to the canonical unit."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from astropy import units
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.columns import Column

AB_WORDS = ("mag(ab)", "abmag", "ab mag", "mag ab", "mag_ab", "ab")
VEGA_WORDS = ("mag(vega)", "vegamag", "vega mag", "mag vega", "mag_vega", "vega")
VEGA_BANDS = ("M_U", "M_B", "M_V", "M_K")

_LOGARITHM = re.compile(r"^\s*(?:log10|log|dex)\s*[\[(]\s*(.*?)\s*[\])]\s*$|^\s*\[\s*(.*?)\s*\]\s*$")
_COMOVING = re.compile(r"(?<![A-Za-z])c[kMG]pc|comoving", re.IGNORECASE)
_HUBBLE = re.compile(r"littleh|h70|(?<![A-Za-z])h(?![A-Za-z])|(?<![A-Za-z])c[kMG]pc|comoving")


def unit_text(unit: object) -> str:
    """What a column or a user calls its unit; empty where there is none."""
    return "" if unit is None else str(unit).strip()


def missing_units(columns: Sequence[Column], labels: Sequence[str]) -> str:
    """What an error says of columns without a unit: all of them, and the options that name the canonical ones."""
    options = " ".join(f"--unit {shlex.quote(f'{column.name}={column.unit}')}" for column in columns)
    one = len(columns) == 1
    who = f"column {labels[0]} needs a unit ({columns[0].unit})" if one else f"columns {', '.join(labels)} need units"
    return f"{who}, got none; name {'it' if one else 'them'} in units, e.g. {options}"


def to_canonical(value: NDArray[np.float64], text: str, column: Column, label: str) -> NDArray[np.float64]:
    """Numbers in the canonical unit of a column.

    Parameters
    ----------
    value
        Numbers as they stand in the catalogue, shape (row,).
    text
        Their unit: anything that astropy parses, ``dex(Msun)``, ``log10(Msun)`` or ``[Msun]`` for logarithms, ``mag``, ``mag(AB)`` or
        ``mag(Vega)`` for magnitudes; empty for none.
    column
        What is asked for.
    label
        How an error calls the column.

    Returns
    -------
    NDArray
        float64, shape (row,).

    Raises
    ------
    DataError
        If the unit is missing, unknown, or of another kind; a pure number needs none. Magnitudes need ``mag`` said, for they cannot be told
        from luminosities otherwise, and magnitudes in U, B, V, K are Vega, all others AB: the other system, if named, is refused.
    """
    if column.unit == "mag":
        _need_magnitudes(text, column, label)
        return value * 1e-3 if text.lower() == "mmag" else value
    if not text:
        if column.unit == "":
            return value
        raise DataError(missing_units([column], [label.removeprefix("column ")]))
    target = units.Unit(column.unit)
    unit, logarithmic = _parse(text, column, label)
    if not unit.is_equivalent(target):
        raise DataError(f"{label} needs {column.unit or 'a pure number'} or what converts to it, got '{text}'{_hint(text, column)}")
    with np.errstate(over="ignore"):
        return np.asarray((10.0**value if logarithmic else value) * unit.to(target), dtype=np.float64)


def _need_magnitudes(text: str, column: Column, label: str) -> None:
    """Say which magnitudes a column needs, unless the text names them."""
    system = "Vega" if column.name in VEGA_BANDS else "AB"
    word = text.lower()
    if word in ("mag", "mmag") or word in (VEGA_WORDS if system == "Vega" else AB_WORDS):
        return
    if not text:
        raise DataError(missing_units([column], [label.removeprefix("column ")]))
    got = f"{text}: another system" if word in AB_WORDS + VEGA_WORDS else f"'{text}'"
    raise DataError(f"{label} needs {system} magnitudes (mag), got {got}")


def _parse(text: str, column: Column, label: str) -> tuple[Any, bool]:
    """A linear unit, and whether the numbers are its logarithms."""
    match = _LOGARITHM.match(text)
    inner = text if match is None else next(group for group in match.groups() if group is not None)
    try:
        unit = _unit(inner)
    except (ValueError, TypeError):
        needed = f"{column.unit or 'a pure number'} or what converts to it"
        raise DataError(f"{label} needs {needed}, got unknown unit '{text}'{_hint(text, column)}") from None
    if match is None and unit == units.dex and column.unit == "":
        return units.dimensionless_unscaled, True
    return unit, match is not None


@lru_cache(maxsize=256)
def _unit(text: str) -> Any:
    """A unit without remarks on its spelling; remembered, for filters of warnings are the process's and threads predict side by side."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", units.UnitsWarning)
        return units.Unit(text)


def _hint(text: str, column: Column) -> str:
    """What to do about the Hubble parameter and comoving lengths, which no unit of astropy carries alone, in the column's own unit."""
    if _HUBBLE.search(text):
        first, unit = "; take h and the scale factor out first", column.unit
        if _COMOVING.search(text):
            return f"{first}: comoving kpc / h at h = 0.6774 and z = 1 are written '0.73812 kpc', comoving kpc '0.5 kpc'"
        if not unit:
            return first
        theirs, ours = ("1e10 Msun", "1.4762e10 Msun") if unit == "Msun" else (unit, f"1.4762 {unit}")
        return f"{first}: '{theirs} / h' at h = 0.6774 is written '{ours}' (h alone is the hour)"
    if text == "dex":
        return "; say of what: 'dex(Msun)'"
    return ""
