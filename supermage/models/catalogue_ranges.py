"""Ranges of a catalogue's columns: how many numbers of each lie where they cannot be meant, over any number of pieces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.columns import COLUMNS, Column

SMALLEST_MASS = 1e4
"""Msun: no mass of a simulated or observed galaxy lies between zero and this; numbers that do are in another unit."""


class RangeWarning(UserWarning):
    """Numbers of a column lie outside its range and were taken as missing."""


def outside(value: NDArray[np.float64], column: Column) -> NDArray[np.bool_]:
    """Finite, and where the quantity cannot be."""
    return np.isfinite(value) & ~((value >= column.lower) & (value <= column.upper))


def range_text(column: Column) -> str:
    """A column's range with its unit."""
    return f"{column.lower:g} .. {column.upper:g} {column.unit}".rstrip()


@dataclass
class Seen:
    """What is known of a column.

    Attributes
    ----------
    finite, outside
        Finite numbers, and those of them outside the column's range.
    odd
        Those outside, and masses that are in another unit.
    example
        The first of them.
    """

    finite: int = 0
    outside: int = 0
    odd: int = 0
    example: float = 0.0


class Ranges:
    """Counts of a catalogue, filled piece by piece.

    Attributes
    ----------
    rows
        Of all pieces.
    columns
        Canonical name -> what is known of the column.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, Seen] = {}

    def add(self, name: str, value: NDArray[np.float64]) -> None:
        """Count a column's numbers in one piece."""
        wrong = odd = outside(value, COLUMNS[name])
        if COLUMNS[name].unit == "Msun":
            odd = wrong | ((value > 0.0) & (value < SMALLEST_MASS))
        seen = self.columns.setdefault(name, Seen())
        if odd.any() and not seen.odd:
            seen.example = float(value[odd][0])
        seen.finite += int(np.isfinite(value).sum())
        seen.outside += int(wrong.sum())
        seen.odd += int(odd.sum())

    def check(self) -> None:
        """Refuse a column of which most cannot be meant.

        Raises
        ------
        DataError
            Naming the column.
        """
        for name, seen in self.columns.items():
            if 2 * seen.odd > seen.finite:
                column = COLUMNS[name]
                small = column.unit == "Msun" and seen.example >= column.lower
                allowed = f"above {SMALLEST_MASS:g} Msun" if small else f"in {range_text(column)}"
                got = f"{seen.odd} of {seen.finite} outside, the first {seen.example:g}; is it another quantity or unit?"
                raise DataError(f"column '{name}' ({column.description}) needs values {allowed}, got {got}")

    def warn(self) -> None:
        """Warn once of each column with numbers outside its range.

        Warns
        -----
        RangeWarning
            With how many of a column's numbers were taken as missing.
        """
        for name, seen in self.columns.items():
            if seen.outside:
                text = f"column {name}: {seen.outside} of {seen.finite} values outside {range_text(COLUMNS[name])}, taken as missing"
                warnings.warn(text, RangeWarning, stacklevel=3)
