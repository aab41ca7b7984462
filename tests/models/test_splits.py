"""Splits: nothing of a group on two sides, the same side for a group whatever stands beside it, fractions as promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from supermage.errors import DataError
from supermage.models.splits import PAPER_SIZES, PAPER_TREE_SIZES, STRATUM, check_no_leak, groups_of, paper_split, split_by_group
from supermage.models.tng_rows import read_tng_rows

GROUPS = st.lists(st.integers(0, 400), min_size=1, max_size=200)
THIRDS = (0.5, 0.3, 0.2)


@settings(max_examples=40)
@given(GROUPS, st.integers(0, 2**31))
def test_no_group_leaks_and_no_row_is_lost(groups: list[int], seed: int) -> None:
    group = np.array([*groups, *range(STRATUM * 50, STRATUM * 53)])
    split = split_by_group(group, THIRDS, seed)
    assert not split.leaks and np.array_equal(np.sort(np.concatenate(list(split))), np.arange(len(group)))
    sides = [set(group[rows].tolist()) for rows in split]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    check_no_leak(group, split)
    assert sum(split.fractions) == pytest.approx(1.0)


@settings(max_examples=25)
@given(GROUPS, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_group_stays_on_its_side_whatever_stands_beside_it(groups: list[int], seed: int, random: object) -> None:
    """Rows in another order, some taken away, numbers as floats: the sides stay."""
    group = np.array([*groups, *range(1008, 1056)])
    side = {int(name): part for part, rows in enumerate(split_by_group(group, THIRDS, seed)) for name in group[rows]}
    shuffled = group.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    some = np.concatenate([shuffled[: len(shuffled) // 2], np.arange(1008, 1056)]).astype(np.float64)
    for part, rows in enumerate(split_by_group(some, THIRDS, seed)):
        assert all(side[int(name)] == part for name in some[rows])


def test_seeds_differ_and_repeat() -> None:
    group = np.arange(1000)
    one, other, again = (split_by_group(group, (0.7, 0.3), seed) for seed in (1, 2, 1))
    assert np.array_equal(one[0], again[0]) and not np.array_equal(one[0], other[0])
    overlap = len(np.intersect1d(one[1], other[1]))
    assert abs(overlap - 90) < 5 * np.sqrt(90 * 0.7)  # independent: 0.3^2, five sigma and more


def test_the_sides_are_fixed_for_all_time() -> None:
    """A changed rule would mix training and test sets of models that exist."""
    assert split_by_group(np.arange(40), (0.6, 0.4), 7)[1].tolist() == FIXED


FIXED = [1, 3, 9, 10, 11, 14, 17, 20, 23, 26, 30, 31, 35, 38, 39]


def test_every_group_is_as_likely_everywhere() -> None:
    """Over 400 seeds the side of single groups is binomial, and of pairs independent between blocks; false alarm below 1e-4 altogether."""
    group = np.array([0, 3, STRATUM - 1, 5 * STRATUM + 2, 123456789, *range(2000, 2048)])
    sides = np.array([np.isin(np.arange(5), split_by_group(group, (0.75, 0.25), seed)[1]) for seed in range(400)])
    for k in range(5):
        assert stats.binomtest(int(sides[:, k].sum()), 400, 0.25).pvalue > 1e-5
    assert stats.binomtest(int((sides[:, 0] & sides[:, 3]).sum()), 400, 0.0625).pvalue > 1e-5


def test_consecutive_groups_are_dealt_out_evenly() -> None:
    """In each whole block a quarter, not a binomial number: rich groups, which simulations number first, fall on all sides."""
    group = np.arange(20 * STRATUM)
    for seed in range(5):
        test = split_by_group(group, (0.75, 0.25), seed)[1]
        assert np.bincount(test // STRATUM, minlength=20).tolist() == [STRATUM // 4] * 20


def test_names_are_groups_too() -> None:
    group = np.array([f"cluster {k // 3}" for k in range(300)])
    split = split_by_group(group, (0.5, 0.5), 3)
    check_no_leak(group, split)
    assert 0.3 < split.fractions[0] < 0.7


def test_what_cannot_be_split() -> None:
    group = np.arange(50)
    for fractions in ((0.5, 0.4), (1.2, -0.2), (0.0, 1.0), ()):
        with pytest.raises(DataError, match="sum to 1, got"):
            split_by_group(group, fractions, 0)
    with pytest.raises(DataError, match="got -1"):
        split_by_group(group, (0.5, 0.5), -1)
    with pytest.raises(DataError, match="got none of 1 in part"):
        split_by_group(np.zeros(50, dtype=int), (0.5, 0.5), 0)
    for wrong in (np.array([1.5, 2.0]), np.array([np.nan, 1.0]), np.array([True, False]), np.zeros((2, 2)), np.empty(0)):
        with pytest.raises(DataError, match="got"):
            split_by_group(wrong, (0.5, 0.5), 0)
    with pytest.raises(DataError, match="1 rows without"):
        split_by_group(np.ma.masked_equal(group, 7), (0.5, 0.5), 0)


def test_a_leak_names_its_first_group() -> None:
    group = np.array([9, 4, 4, 7, 7, 9])
    check_no_leak(group, [np.array([0, 5]), np.array([1, 2]), np.array([], dtype=np.int64), np.array([3, 4])])
    with pytest.raises(DataError, match="got group 4 in parts 0 and 2"):
        check_no_leak(group, [np.array([0, 1, 3]), np.array([5])[:0], np.array([5, 2, 4])])
    with pytest.raises(DataError, match="got 6"):
        check_no_leak(group, [np.array([6])])


def test_the_papers_split_leaks_and_says_so() -> None:
    split = paper_split(9370, 3)
    assert split.leaks and "LEAKING" in split.description
    assert tuple(len(part) for part in split) == PAPER_SIZES and sum(PAPER_SIZES) == sum(PAPER_TREE_SIZES) == 28110
    assert np.array_equal(np.sort(np.concatenate(list(split))), np.arange(28110))
    with pytest.raises(DataError, match="a group must stand in one part"):
        check_no_leak(np.arange(28110) // 3, split)
    assert tuple(len(part) for part in paper_split(9370, 3, PAPER_TREE_SIZES, seed=5)) == PAPER_TREE_SIZES
    small = paper_split(100, 3, seed=2)
    assert [len(part) for part in small] == [171, 42, 87] and np.array_equal(small[0], paper_split(100, 3, seed=2)[0])
    for arguments in ((0, 3), (5, 0), (1, 2), (9, 3, (0, 5))):
        with pytest.raises(DataError, match="got"):
            paper_split(*arguments)


def test_galaxies_without_a_group_are_their_own() -> None:
    table = Table({"group_id": MaskedColumn([5, 5, 0, 0], mask=[False, False, True, True]), "galaxy_id": [1, 2, 5, 5]})
    assert groups_of(table).tolist() == [5, 5, -6, -6]
    assert groups_of(table["galaxy_id",]).tolist() == [-2, -3, -6, -6]
    with pytest.raises(DataError, match="got neither"):
        groups_of(Table({"x": [1]}))
    with pytest.raises(DataError, match="got none in row 2"):
        groups_of(table["group_id",])


@pytest.mark.reference
def test_fractions_on_the_reference_rows(reference_data: Path) -> None:
    """Ten seeds: standard deviation 0.018, so 0.07 is four of them (false alarm 2e-3 for all, and the seeds are fixed)."""
    group = groups_of(read_tng_rows(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet"))
    for seed in range(10):
        assert np.abs(np.array(split_by_group(group, (0.6, 0.15, 0.25), seed).fractions) - (0.6, 0.15, 0.25)).max() < 0.07
