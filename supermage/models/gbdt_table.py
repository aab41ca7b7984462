"""Rows of Chu et al., Table 6, and what they are measured with: scatter of log10 of predicted over true values, on rows left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name
from supermage.models.columns import PAPER_FEATURES
from supermage.models.gbdt import GBDT, ROUNDS, train_gbdt
from supermage.models.splits import check_no_leak

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes
    ----------
    section
        Of the paper.
    inputs
        Key of a table of feature sets.
    target
        Canonical name of what is predicted.
    paper_mean, paper_scatter
        The paper's mean and 1 sigma of log10 of predicted over true values, dex.
    """

    section: str
    inputs: str
    target: str
    paper_mean: float
    paper_scatter: float


TABLE_6 = (
    TableRow("5.2", "default", "log_mstar", 0.00, 0.05),
    TableRow("5.2", "default without magnitude", "log_mstar", 0.00, 0.08),
    TableRow("5.2", "default", "log_mdm", 0.00, 0.13),
    TableRow("5.2", "default without magnitude", "log_mdm", 0.00, 0.15),
    TableRow("5.2", "default", "log_mtot", 0.00, 0.08),
    TableRow("5.2", "default without magnitude", "log_mtot", 0.00, 0.11),
    TableRow("5.3", "default", "log_fstar", 0.01, 0.08),
    TableRow("5.3", "default", "log_fdm", 0.00, 0.06),
    TableRow("5.3", "default", "log_ml", 0.00, 0.06),
    TableRow("4.1", "luminosity and dispersion", "log_mstar", 0.00, 0.05),
)
"""Table 6, and the tree on luminosity and dispersion alone (section 4.1, which states no mean)."""

PAPER_POWER_LAW_SCATTER = 0.16
"""Scatter of the power law between luminosity and stellar mass, dex (section 4.1)."""

BANDS = "UBgVrizK"
"""Bands of a group catalogue by wavelength."""

COLOURS = tuple(f"{blue}_{red}" for blue, red in pairwise(BANDS))
"""Colours of neighbouring bands: together with one magnitude they hold all eight."""

_REST = ("sfr", "sigma_3d1", "spin", "f_disk_2d", "f_disk_1d", "bulge_index")

PAPER_SETS: dict[str, tuple[str, ...]] = {
    "default": tuple(PAPER_FEATURES),
    "default without magnitude": tuple(name for name in PAPER_FEATURES if name != "M_r"),
    "luminosity and dispersion": ("M_r", "sigma_v"),
}
"""Features of each kind of inputs, those of Table 1."""

GROUP_CATALOGUE_SETS: dict[str, tuple[str, ...]] = {
    "default": ("M_r", *COLOURS, *_REST),
    "default without magnitude": (*COLOURS, *_REST),
    "luminosity and dispersion": ("M_r", "sigma_3d1"),
    "one colour": ("M_r", "g_r", *_REST),
    "default and radius": ("M_r", *COLOURS, *_REST, "r_hsm"),
}
"""The same of what a group catalogue holds: no mass, no metallicity and no maximum of the circular velocity among them."""


@dataclass(frozen=True)
class Scatter:
    """Mean and standard deviation of log10 of predicted over true values, dex, and the number of rows."""

    mean: float
    scatter: float
    rows: int


@dataclass(frozen=True)
class Outcome:
    """Trees, the rows that they were tested on, what they predict there, and how well."""

    model: GBDT
    test: IndexArray
    predicted: FloatArray
    scatter: Scatter


def scatter_of(predicted: FloatArray, true: FloatArray) -> Scatter:
    """Mean and 1 sigma of ``predicted - true``, both log10, over the rows that have both.

    Raises
    ------
    DataError
        If shapes differ, or fewer than two rows have both.
    """
    if predicted.shape != true.shape:
        raise DataError(f"a scatter needs one prediction for each true value, got shapes {predicted.shape} and {true.shape}")
    residual = (predicted - true)[np.isfinite(predicted) & np.isfinite(true)]
    if len(residual) < 2:
        raise DataError(f"a scatter needs at least two rows with prediction and true value, got {len(residual)}")
    return Scatter(mean=float(residual.mean()), scatter=float(residual.std()), rows=len(residual))


def with_colours(columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The columns, with the colours of neighbouring bands, and g - r, wherever both magnitudes (``M_<band>``) are there."""
    added = dict(columns)
    for name in (*COLOURS, "g_r"):
        blue, red = (f"M_{band}" for band in name.split("_"))
        if name not in added and blue in added and red in added:
            added[name] = added[blue] - added[red]
    return added


def matrix_of(columns: Mapping[str, FloatArray], names: Sequence[str]) -> FloatArray:
    """Columns side by side, shape (row, feature), float64.

    Raises
    ------
    DataError
        If one is absent.
    """
    for name in names:
        if name not in columns:
            raise DataError(f"features must include {name}, got none of that name{nearest_name(name, columns)}")
    return np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)


def left_out_in_turn(parts: Sequence[IndexArray]) -> list[tuple[IndexArray, IndexArray]]:
    """Cross-validation: each part in turn the test set, the others together the training set."""
    return [(np.concatenate([part for other, part in enumerate(parts) if other != number]), parts[number]) for number in range(len(parts))]


def measure(
    columns: Mapping[str, FloatArray],
    names: Sequence[str],
    target: FloatArray,
    splits: Sequence[tuple[IndexArray, IndexArray]],
    *,
    group: NDArray[Any] | None,
    target_name: str,
    seed: int = 0,
    num_threads: int = 1,
    source: str = "",
    rounds: int = ROUNDS,
) -> list[Outcome]:
    """Train and test trees once for each split.

    Parameters
    ----------
    columns
        Features by name, each of shape (row,), NaN where missing.
    names
        Which of them enter.
    target
        log10 of the true values, shape (row,); rows where it is not finite take no part.
    splits
        Training and test rows.
    group
        Group of every row (`supermage.models.splits.groups_of`), of which none may stand on both sides; None only where that is what is
        measured.
    target_name
        Canonical name of the target.
    seed, num_threads, source, rounds
        As :func:`supermage.models.gbdt.train_gbdt`.

    Raises
    ------
    DataError
        If a feature is absent, too few rows are left, or a group stands on both sides.
    """
    if group is not None:
        for parts in splits:
            check_no_leak(group, parts)
    features, usable = matrix_of(columns, names), np.isfinite(target)
    outcomes = []
    for train, test in splits:
        train, test = train[usable[train]], test[usable[test]]
        model = train_gbdt(
            features[train], target[train], names=names, target_name=target_name, test=(features[test], target[test]), seed=seed,
            num_threads=num_threads, source=source, rounds=rounds,
        )  # fmt: skip
        predicted = model.predict(features[test], names, num_threads=num_threads)
        outcomes.append(Outcome(model, test, predicted, scatter_of(predicted, target[test])))
    return outcomes


def correlation_matrix(columns: Mapping[str, FloatArray], names: Sequence[str]) -> FloatArray:
    """Pearson's correlation coefficient of every pair, over the rows that have both; NaN where one of them does not vary.

    Returns
    -------
    FloatArray
        Shape (name, name), in the order of ``names``.

    Raises
    ------
    DataError
        If a column is absent.
    """
    values = matrix_of(columns, names)
    matrix = np.full((len(names), len(names)), np.nan)
    for i in range(len(names)):
        for j in range(i + 1):
            both = values[:, [i, j]][np.isfinite(values[:, [i, j]]).all(axis=1)]
            if len(both) > 1 and (np.ptp(both, axis=0) > 0).all():
                first, second = (both - both.mean(axis=0)).T
                matrix[i, j] = matrix[j, i] = float(first @ second / np.sqrt(first @ first) / np.sqrt(second @ second))
    return matrix
