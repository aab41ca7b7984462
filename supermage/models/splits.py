"""Splits of a catalogue into parts: by friends-of-friends group, so that no system stands on two sides, or as the paper has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from supermage.errors import DataError

IndexArray = NDArray[np.int64]

PAPER_SIZES = (16000, 4000, 8110)
"""Training, validation and test samples of the networks of Chu et al., section 2.2: 9370 galaxies in three projections."""

PAPER_TREE_SIZES = (18833, 9277)
"""Training and test samples of their LightGBM models, section 3.2."""

STRATUM = 16
"""Consecutive group numbers that are dealt out evenly: simulations number groups by mass, so each part gets its share of rich ones."""


@dataclass(frozen=True)
class Split:
    """Parts of a catalogue: unpacks into arrays of row numbers.

    Attributes
    ----------
    parts
        Row numbers of each part, ascending.
    leaks
        True where galaxies of one system may stand in several parts, so that scatter measured with it flatters.
    description
        What it is, with the fractions of rows that came out.
    """

    parts: tuple[IndexArray, ...]
    leaks: bool
    description: str

    def __iter__(self) -> Iterator[IndexArray]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> IndexArray:
        return self.parts[number]

    @property
    def fractions(self) -> tuple[float, ...]:
        """Share of each part in the rows."""
        total = sum(len(part) for part in self.parts)
        return tuple(len(part) / total for part in self.parts)


def split_by_group(group: NDArray[Any], fractions: Sequence[float], seed: int) -> Split:
    """Split rows so that each group, with all its galaxies and all their projections, falls into one part.

    The part of a group follows from its number and the seed alone: it is the same whichever rows are present, in whatever order, after
    whatever cuts. The price is that fractions of rows are met on average only: their standard deviation is about
    ``sqrt(f (1 - f) sum n^2) / sum n`` with n the groups' sizes, and half of that where the groups' numbers follow their mass, as in TNG
    and EAGLE (0.018 on the 5377 reference rows of TNG); :attr:`Split.fractions` says what came out.

    Parameters
    ----------
    group
        Number (or name) of each row's group, shape (row,); see :func:`groups_of`.
    fractions
        Wanted share of each part, each above 0, summing to 1.
    seed
        Not negative.

    Returns
    -------
    Split
        With ``leaks`` False.

    Raises
    ------
    DataError
        If the fractions are not such, a group is missing, or a part is left empty, as with fewer groups than parts.
    """
    share = np.asarray(fractions, dtype=np.float64)
    if share.ndim != 1 or not len(share) or not (share > 0.0).all() or abs(share.sum() - 1.0) > 1e-9:
        raise DataError(f"fractions of a split must each be above 0 and sum to 1, got {list(fractions)}")
    if seed < 0:
        raise DataError(f"the seed of a split must not be negative, got {seed}")
    names, row_group = np.unique(_known(group), return_inverse=True)
    part_of_group = np.searchsorted(np.cumsum(share)[:-1], _places(names, seed), side="right")
    part = part_of_group[row_group]
    parts = tuple(np.flatnonzero(part == number) for number in range(len(share)))
    for number, rows in enumerate(parts):
        if not len(rows):
            got = f"none of {len(names)} in part {number}; take another seed or fewer parts"
            raise DataError(f"every part of a split must get a group, got {got}")
    check_no_leak(group, parts)
    reached = " / ".join(f"{len(rows) / len(part):.3f}" for rows in parts)
    wanted = " / ".join(f"{item:g}" for item in share)
    return Split(parts, False, f"by friends-of-friends group, seed {seed}: {len(names)} groups, {reached} of the rows ({wanted} wanted)")


def paper_split(n_galaxies: int, n_projections: int = 3, sizes: Sequence[int] = PAPER_SIZES, seed: int = 0) -> Split:
    """The paper's split: every projection an independent galaxy, shuffled. It leaks, and is here to measure by how much.

    Two projections of one galaxy, or a central and its satellites, may stand on both sides; with one projection the latter still do.

    Parameters
    ----------
    n_galaxies, n_projections
        Rows are numbered ``galaxy * n_projections + projection``.
    sizes
        Rows of each part, scaled to the rows at hand where they sum to another number.
    seed
        Not negative.

    Returns
    -------
    Split
        With ``leaks`` True.

    Raises
    ------
    DataError
        If a number is not positive, or a part would be empty.
    """
    if min(n_galaxies, n_projections, *sizes) < 1 or seed < 0:
        got = f"{n_galaxies}, {n_projections}, {list(sizes)}, seed {seed}"
        raise DataError(f"a split needs positive numbers and a seed not negative, got {got}")
    rows = n_galaxies * n_projections
    edges = np.rint(np.cumsum(sizes) * (rows / sum(sizes))).astype(np.int64)
    shuffled = np.random.default_rng(seed).permutation(rows).astype(np.int64)
    parts = tuple(np.sort(part) for part in np.split(shuffled, edges[:-1]))
    if min(len(part) for part in parts) == 0:
        raise DataError(f"every part of a split must get a row, got {rows} rows for parts of {list(sizes)}")
    counts = " / ".join(str(len(part)) for part in parts)
    return Split(parts, True, f"LEAKING, as the paper: each of {n_projections} projections on its own, seed {seed}: {counts} rows")


def check_no_leak(group: NDArray[Any], parts: Iterable[IndexArray]) -> None:
    """Make sure that no group has rows in two parts.

    Parameters
    ----------
    group
        Number of each row's group, shape (row,).
    parts
        Row numbers of each part, or a :class:`Split`.

    Raises
    ------
    DataError
        Naming the first group, in the order of numbers, that stands in two parts; or if a row does not exist.
    """
    names, row_group = np.unique(_known(group), return_inverse=True)
    seen = np.full(len(names), -1)
    for number, rows in enumerate(parts):
        if len(rows) and (rows.min() < 0 or rows.max() >= len(row_group)):
            got = rows.max() if rows.min() >= 0 else rows.min()
            raise DataError(f"a part must hold rows of the catalogue's {len(row_group)}, got {got}")
        mine = np.unique(row_group[rows])
        shared = mine[seen[mine] >= 0]
        if len(shared):
            first = shared[0]
            raise DataError(f"a group must stand in one part of a split, got group {names[first]} in parts {seen[first]} and {number}")
        seen[mine] = number


def groups_of(table: Table) -> NDArray[Any]:
    """What a catalogue's rows are to be split by: the group, or the galaxy itself where no group is known.

    Parameters
    ----------
    table
        A canonical catalogue with ``group_id``, ``galaxy_id`` or both. Projections share both.

    Returns
    -------
    NDArray
        One number (or name) a row; a galaxy without a group gets ``-1 - galaxy_id``, which no group has.

    Raises
    ------
    DataError
        If a row has neither. Satellites of a group that is not known cannot be kept together.
    """
    known = [name for name in ("group_id", "galaxy_id") if name in table.colnames]
    if not known:
        raise DataError("a split by group needs the column group_id, or at least galaxy_id, got neither")
    value = np.ma.asarray(table[known[0]])
    result, missing = np.array(value.filled(value.dtype.type(0))), np.ma.getmaskarray(value)
    if known[0] == "galaxy_id":
        result = -1 - result if result.dtype.kind == "i" else result
    elif missing.any() and len(known) > 1:
        galaxy = np.ma.asarray(table["galaxy_id"])
        if result.dtype.kind != "i" or galaxy.dtype.kind != "i":
            raise DataError(f"a split by group needs every row's group where they are texts, got {int(missing.sum())} rows without")
        result = np.where(missing, -1 - galaxy.filled(0), result)
        missing = missing & np.ma.getmaskarray(galaxy)
    if missing.any():
        raise DataError(f"a split by group needs a group or galaxy number for every row, got none in row {int(np.flatnonzero(missing)[0])}")
    return result


def _known(group: NDArray[Any]) -> NDArray[Any]:
    """Numbers or names without gaps; whole floats count as numbers."""
    if np.ma.is_masked(group):
        raise DataError(f"a split by group needs the group of every row, got {int(np.ma.getmaskarray(group).sum())} rows without")
    value = np.asarray(group)
    if value.ndim != 1 or not len(value):
        raise DataError(f"a split needs one group a row, got shape {value.shape}")
    if value.dtype.kind == "f":
        if not np.isfinite(value).all() or (value != np.floor(value)).any():
            raise DataError("a split by group needs whole numbers or names, got fractions or NaN")
        value = value.astype(np.int64)
    if value.dtype.kind not in "iuUS":
        raise DataError(f"a split by group needs whole numbers or names, got {value.dtype.name}")
    return value


def _places(names: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Where in [0, 1) each group lies: uniform over seeds; consecutive numbers are spread evenly, each block in an order of its own."""
    if names.dtype.kind in "US":
        return np.array([_uniform(seed, name) for name in names.tolist()])
    block = [int(name) // STRATUM for name in names.tolist()]
    orders = {number: _order(seed, number) for number in set(block)}
    jitter = np.array([_uniform(seed, name) for name in names.tolist()])
    place = np.array([orders[number][int(name) % STRATUM] for number, name in zip(block, names.tolist())], dtype=np.float64)
    return (place + jitter) / STRATUM


def _order(seed: int, block: int) -> list[int]:
    """A permutation of a block's places."""
    keys = [_uniform(seed, f"{block}.{place}") for place in range(STRATUM)]
    return [int(item) for item in np.argsort(np.argsort(keys))]


def _uniform(seed: int, name: object) -> float:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53
