"""Columns with one number in all rows, for what a catalogue lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError, DomainError, nearest_name
from supermage.models.catalogue import absent, some_of
from supermage.models.catalogue_ranges import range_text
from supermage.models.columns import COLUMNS
from supermage.models.feature_space import columns_of
from supermage.models.mass_estimator import MassEstimator


def check_constants(constants: Mapping[str, float], estimator: MassEstimator) -> dict[str, float]:
    """Canonical names and numbers, if the model reads them.

    Raises
    ------
    DomainError
        If it does not, or a number is outside its column's range.
    """
    names = [name for name in estimator.columns if name in COLUMNS]
    for name, value in constants.items():
        if name not in names:
            who = f"constants must name columns that {estimator.name} reads ({', '.join(names)})"
            raise DomainError(f"{who}, got '{name}'{nearest_name(name, names)}")
        if not COLUMNS[name].lower <= value <= COLUMNS[name].upper:
            raise DomainError(f"the constant {name} must lie in {range_text(COLUMNS[name])}, got {value:g}")
    return {name: float(value) for name, value in constants.items()}


def with_constants(pieces: Iterable[Table], constants: Mapping[str, float]) -> Iterator[Table]:
    """A catalogue's pieces with further columns, in their canonical units.

    Raises
    ------
    DataError
        If the catalogue has one of them.
    """
    for table in pieces:
        for name, value in constants.items():
            if name in table.colnames:
                raise DataError(f"constants must name columns that the catalogue lacks, got {name}, which it has")
            said = f"{COLUMNS[name].description}; the same in all rows"
            table[name] = MaskedColumn(np.full(len(table), value), unit=COLUMNS[name].unit or None, description=said)
        yield table


def check_required(table: Table, estimator: MassEstimator) -> None:
    """Refuse a catalogue without a column that every row must have.

    Raises
    ------
    DataError
        Saying how all rows get one number.
    """
    if lacking := absent(table, columns_of(estimator.required)):
        how = "; one number for all rows: " + " ".join(f"--set {name}=NUMBER" for name in lacking)
        raise DataError(f"a catalogue must have {' and '.join(lacking)} for {estimator.name}, got {some_of(table.colnames)}{how}")
