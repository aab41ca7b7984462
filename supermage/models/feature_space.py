"""The space in which densities are predicted: features derived from a catalogue's columns, standardised, gaps filled and flagged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name

FloatArray = NDArray[np.float64]

CLIP = 6.0
"""Standard deviations beyond which the network sees no further; what lies there is told by the out-of-distribution score."""

RIDGE = 1e-3
"""Added to the diagonal of the correlation matrix that gaps are filled by."""


@dataclass(frozen=True)
class Feature:
    """One feature: a function of columns.

    Attributes
    ----------
    columns
        Canonical names.
    function
        Of the columns' values in their order; NaN in, NaN out.
    """

    columns: tuple[str, ...]
    function: Callable[..., FloatArray]


def _log(name: str, floor: float) -> Feature:
    """Logarithm of a column, with a floor that zero stands at."""
    return Feature((name,), lambda value: np.log10(np.maximum(value, floor)))


def _plain(name: str) -> Feature:
    return Feature((name,), lambda value: np.asarray(value, dtype=np.float64))


def _colour(blue: str, red: str) -> Feature:
    return Feature((blue, red), lambda first, second: first - second)


FEATURES: Mapping[str, Feature] = {
    "M_r": _plain("M_r"),
    "M_K": _plain("M_K"),
    "U_B": _colour("M_U", "M_B"),
    "B_V": _colour("M_B", "M_V"),
    "V_K": _colour("M_V", "M_K"),
    "g_r": _plain("g_r"),
    "r_i": _colour("M_r", "M_i"),
    "i_z": _colour("M_i", "M_z"),
    "log_sfr": _log("sfr", 1e-4),
    "log_sigma": _log("sigma_3d1", 1.0),
    "log_spin": _log("spin", 0.1),
    "log_r_hsm": _log("r_hsm", 0.01),
    "f_disk_2d": _plain("f_disk_2d"),
    "f_disk_1d": _plain("f_disk_1d"),
    "log_bulge_index": _log("bulge_index", 0.1),
    "n_sersic": _log("n_sersic", 0.1),
    "c_a": _plain("c_a"),
    "log_sigma_v": _log("sigma_v", 1.0),
    "lambda_r": _plain("lambda_r"),
    "b_t": _plain("b_t"),
    "f_cold": _plain("f_cold"),
    "f_hot": _plain("f_hot"),
    "log_m_star": _log("m_star_total", 1e5),
    "log_r50": _log("r50_3d", 0.01),
    "log_m_gas": _log("m_gas_total", 1e6),
    "log_aperture": _log("aperture_ratio", 1e-3),
    **{f"predicted_{name}": _plain(f"predicted_{name}") for name in ("log_mstar", "log_mtot", "log_ml", "log_mdm", "log_fstar", "log_fdm")},
}
"""Features by name. ``predicted_...`` are outputs of another estimator, such as a network on images, taken as features."""

PRESETS: Mapping[str, tuple[str, ...]] = {
    "group catalogue": ("M_r", "M_K", "U_B", "B_V", "V_K", "g_r", "r_i", "i_z", "log_sfr", "log_sigma", "log_spin", "log_r_hsm",
    "f_disk_2d",
                        "f_disk_1d", "log_bulge_index"),
    "paper": ("M_r", "g_r", "log_sfr", "n_sersic", "c_a", "log_sigma_v", "lambda_r", "b_t", "f_cold", "f_hot"),
    "shared": ("log_m_star", "log_r50", "log_m_gas", "log_aperture"),
}  # fmt: skip
"""Sets of features by name: of TNG's group catalogue, of Chu et al. (Table 1), of what simulations share."""


def feature_names(asked: str | Iterable[str]) -> tuple[str, ...]:
    """The features of a preset, or the names given, if they are known.

    Raises
    ------
    DataError
        If a name is unknown, or there is none.
    """
    if isinstance(asked, str):
        if asked not in PRESETS:
            known = ", ".join(PRESETS)
            raise DataError(f"features must be one of {known}, or a list of names, got {asked!r}{nearest_name(asked, PRESETS)}")
        return PRESETS[asked]
    names = tuple(asked)
    for name in names:
        if name not in FEATURES:
            raise DataError(f"a feature must be one of {', '.join(FEATURES)}, got {name!r}{nearest_name(name, FEATURES)}")
    if not names:
        raise DataError("features must name at least one, got none")
    return names


def columns_of(names: Iterable[str]) -> tuple[str, ...]:
    """Columns that features are made of, each once, in order."""
    return tuple(dict.fromkeys(column for name in names for column in FEATURES[name].columns))


def derive(names: Iterable[str], columns: Mapping[str, FloatArray]) -> FloatArray:
    """Features of every row, NaN where a column that they need is missing; shape (row, feature).

    Parameters
    ----------
    names
        Features.
    columns
        Column by canonical name, NaN where missing; one that is not there counts as missing throughout.
    """
    rows = len(next(iter(columns.values())))
    missing = np.full(rows, np.nan)
    parts = [FEATURES[name].function(*(columns.get(column, missing) for column in FEATURES[name].columns)) for name in names]
    return np.stack(parts, axis=1)


@dataclass(frozen=True)
class FeatureSpace:
    """Standardisation of features, and how gaps are filled: by the mean given what is there, under the training set's correlations.

    Attributes
    ----------
    names
        Features in order.
    mean, spread
        Of the training set, shape (feature,).
    correlation
        Of the standardised training set, shape (feature, feature), positive definite.
    """

    names: tuple[str, ...]
    mean: FloatArray
    spread: FloatArray
    correlation: FloatArray

    def standardise(self, features: FloatArray) -> FloatArray:
        """Distances from the mean in spreads, NaN where missing; shape (row, feature)."""
        return (features - self.mean) / self.spread

    def inputs(self, standard: FloatArray) -> FloatArray:
        """What the network sees: clipped values with the gaps filled, then one flag (1 missing) for each feature; shape (row, 2 feature).

        Parameters
        ----------
        standard
            As of :meth:`standardise`.
        """
        missing = np.isnan(standard)
        filled = standard.copy()
        for pattern, rows in patterns_of(missing):
            if pattern.all():
                filled[rows] = 0.0
            elif pattern.any():
                seen = ~pattern
                slope = np.linalg.solve(self.correlation[np.ix_(seen, seen)], self.correlation[np.ix_(seen, pattern)])
                filled[np.ix_(rows, pattern)] = standard[np.ix_(rows, seen)] @ slope
        return np.concatenate([np.clip(filled, -CLIP, CLIP), missing.astype(np.float64)], axis=1)


def patterns_of(missing: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """Every pattern of gaps that occurs, with its rows."""
    if not missing.any():
        return [(np.zeros(missing.shape[1], dtype=bool), np.arange(len(missing)))]
    packed = np.packbits(missing, axis=1)
    _, first, group = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(group.ravel()))[:-1])
    return [(missing[index], part) for index, part in zip(first, rows, strict=True)]


def fit_feature_space(names: tuple[str, ...], features: FloatArray) -> FeatureSpace:
    """Standardisation and correlations of a training set.

    Parameters
    ----------
    names
        Features.
    features
        Shape (row, feature), NaN where missing.

    Raises
    ------
    DataError
        If a feature is constant or missing in all rows.
    """
    counts = np.isfinite(features).sum(axis=0)
    if (counts < 2).any():
        rarest = names[int(np.argmin(counts))]
        raise DataError(f"a training set must have every feature in two rows at least, got {rarest} in {counts.min()}")
    mean, spread = np.nanmean(features, axis=0), np.nanstd(features, axis=0)
    if not (spread > 0).all():
        raise DataError(f"a feature must vary in the training set, got {names[int(np.argmin(spread))]} constant")
    standard = np.clip((features - mean) / spread, -CLIP, CLIP)
    return FeatureSpace(names, mean, spread, _correlation(standard))


def _correlation(standard: FloatArray) -> FloatArray:
    """Correlations from the pairs that are there, made positive definite."""
    there = np.isfinite(standard)
    filled = np.where(there, standard, 0.0)
    matrix = (filled.T @ filled) / np.maximum(there.T.astype(np.float64) @ there.astype(np.float64), 1.0)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    matrix = (vectors * np.maximum(values, RIDGE)) @ vectors.T
    scale = np.sqrt(np.diag(matrix))
    return matrix / np.outer(scale, scale) + RIDGE * np.eye(len(matrix))
