"""Cuts on catalogues, counted: what each removed, and what it could not judge."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name
from supermage.models.catalogue import canonical, column_values
from supermage.models.columns import COLUMNS

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq,
}  # fmt: skip
_TEXT = re.compile(r"^\s*(\w+)\s*(>=|<=|==|>|<)\s*([-+.\deE]+)(\s+or\s+missing)?\s*$")


@dataclass(frozen=True)
class Cut:
    """Rows stay where ``column relation bound`` holds.

    Attributes
    ----------
    column
        A canonical column, or another column of the table.
    relation
        One of ``>``, ``>=``, ``<``, ``<=``, ``==``.
    bound
        In the column's canonical unit.
    missing
        What becomes of rows without a value: a selection ("masses above") drops them, for they do not show what it asks for; an exclusion
        ("indices beyond 100 are failed fits") keeps them.
    """

    column: str
    relation: str
    bound: float
    missing: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if self.relation not in _COMPARE:
            raise DataError(f"a cut's relation must be one of {', '.join(_COMPARE)}, got '{self.relation}'")
        if not np.isfinite(self.bound):
            raise DataError(f"a cut's bound must be finite, got {self.bound}")

    def __str__(self) -> str:
        unit = COLUMNS[self.column].unit if self.column in COLUMNS else ""
        return f"{self.column} {self.relation} {self.bound:g} {unit}".rstrip()

    @classmethod
    def parse(cls, text: str, *, missing: Literal["drop", "keep"] = "drop") -> Cut:
        """The cut that a text like ``"m_star_30kpc > 5e9"`` says; with ``or missing`` after it rows without a value stay.

        Raises
        ------
        DataError
            If it is no column, relation and number.
        """
        match = _TEXT.match(text)
        try:
            column, relation, bound, kept = match.groups() if match else ("", "", "", "")
            return cls(column, relation, float(bound), "keep" if kept else missing)
        except ValueError:
            raise DataError(f"a cut must read like 'm_star_30kpc > 5e9' or 'b_t <= 1 or missing', got '{text}'") from None


@dataclass(frozen=True)
class CutCount:
    """What a cut did to the rows that earlier cuts had left.

    Attributes
    ----------
    cut
        The cut.
    before, after
        Rows before and after it.
    removed
        Rows whose value broke it.
    missing
        Rows without a value, dropped or kept as the cut says.
    skipped
        True where the table has no such column and the cut was left out.
    """

    cut: Cut
    before: int
    after: int
    removed: int
    missing: int
    skipped: bool = False

    def __str__(self) -> str:
        if self.skipped:
            return f"not {self.cut}: no such column, not applied"
        what = "without a value too" if self.cut.missing == "drop" else "without a value stay"
        return f"not {self.cut}: {self.removed} of {self.before} rows left out, {self.missing} {what}"


PAPER_CUTS = (Cut("m_star_30kpc", ">", 5e9), Cut("m_subhalo", "<", 1e14))
"""Sample of Chu et al., section 2.1: resolved, and no cluster."""

PAPER_EXCLUSIONS = (Cut("n_sersic", "<=", 100.0, missing="keep"), Cut("b_t", "<=", 1.0, missing="keep"))
"""Failed fits, section 2.3, for LightGBM: beyond either bound, "about 3 %" (the sentence could also be read as beyond both)."""


def apply_cuts(table: Table, cuts: Sequence[Cut], *, absent: Literal["error", "skip"] = "error") -> tuple[Table, list[CutCount]]:
    """Apply cuts one after the other.

    Parameters
    ----------
    table
        A canonical catalogue, or one with units on its columns; it is left alone.
    cuts
        For instance :data:`PAPER_CUTS`.
    absent
        What to do where a cut's column is not there: raise, or leave the cut out and say so in its count.

    Returns
    -------
    tuple
        The rows that stay, in their order, and a count for each cut.

    Raises
    ------
    DataError
        If a column is absent (unless skipped), or no row is left; and as :func:`supermage.models.catalogue.canonical`.
    """
    keep: NDArray[np.bool_] = np.ones(len(table), dtype=bool)
    counts: list[CutCount] = []
    judged = canonical(table, names=[cut.column for cut in cuts if cut.column in COLUMNS])
    for cut in cuts:
        before = int(keep.sum())
        if cut.column not in judged.colnames:
            if absent == "error":
                raise DataError(f"the cut '{cut}' needs its column, got none{nearest_name(cut.column, table.colnames)}")
            counts.append(CutCount(cut, before, before, 0, 0, skipped=True))
            continue
        value = column_values(judged, cut.column)
        missing = keep & np.isnan(value)
        broken = keep & ~missing & ~_COMPARE[cut.relation](value, cut.bound)
        keep = keep & ~broken & (~missing if cut.missing == "drop" else True)
        counts.append(CutCount(cut, before, int(keep.sum()), int(broken.sum()), int(missing.sum())))
    if not keep.any():
        last = next(count for count in counts if not count.after)
        raise DataError(f"cuts must leave at least one galaxy, got none: '{last.cut}' removed the last {last.before}")
    return table[keep], counts


def counts_text(counts: Sequence[CutCount]) -> str:
    """A table of counts to print: one line a cut."""
    head = ("cut", "before", "removed", "missing", "after")
    rows = [(str(count.cut), f"{count.before}", *_cells(count), f"{count.after}") for count in counts]
    widths = [max(len(row[number]) for row in [head, *rows]) for number in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in enumerate(zip(row, widths)))
                     for row in [head, *rows])  # fmt: skip


def _cells(count: CutCount) -> tuple[str, str]:
    if count.skipped:
        return "skipped", "no column"
    return f"{count.removed}", f"{count.missing} {'dropped' if count.cut.missing == 'drop' else 'kept'}" if count.missing else "0"
