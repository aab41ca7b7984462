"""Gradient-boosted decision trees (LightGBM, Ke et al. 2017) on features of galaxies, with the settings of Chu et al., Table 3."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, DomainError, ModelFileError, nearest_name
from supermage.models.training import to_json, write_atomically

FloatArray = NDArray[np.float64]

SETTINGS: dict[str, Any] = {
    "objective": "regression",
    "num_leaves": 5,
    "min_data_in_leaf": 20,
    "max_depth": -1,
    "metric": ["l1", "l2"],
}
"""Chu et al., Table 3: the mean square error is minimised, the depth has no limit, mean absolute and square errors are watched. All else is
LightGBM's default."""

ROUNDS = 500
"""Trees, one a boosting iteration (Table 3)."""

METRICS = {"l1": "mae", "l2": "mse"}
"""LightGBM's name of a metric -> ours."""

TEXT_FILE, DESCRIPTION_FILE = "model.txt", "model.json"
KIND, VERSION = "gbdt", "1"
TEXT_START = "tree\nversion=v4\n"
"""First two lines of LightGBM's text in the version that is read; LightGBM itself reads any other without a word."""

_NAME = re.compile(r"[A-Za-z0-9_]+")
_KEYS = ("sha256", "target", "features", "missing", "rows", "rounds", "seed", "source", "curves")


@dataclass(frozen=True)
class GBDT:
    """Trees that predict one number from a galaxy's features.

    Attributes
    ----------
    text
        The trees, as LightGBM writes them.
    features
        Names of the features, in the order of training.
    missing
        Features of which training rows lacked some. Of the others a missing value has no meaning to the trees.
    target
        What is predicted, e.g. ``log_mstar``.
    rows, rounds, seed
        Of the training: number of rows, of trees, and the seed.
    source
        What it was trained on, in a few words; ``mock`` in those of generated galaxies.
    curves
        Errors by iteration, ``{"train": {"mae": [...], "mse": [...]}}``, and the same of ``"test"`` where there was a test set.
    """

    text: str = field(repr=False)
    features: tuple[str, ...]
    missing: tuple[str, ...]
    target: str
    rows: int
    rounds: int
    seed: int
    source: str = ""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict, repr=False)

    def predict(self, features: FloatArray, names: Sequence[str], *, num_threads: int = 1) -> FloatArray:
        """Predict the target.

        Parameters
        ----------
        features
            Shape (row, feature); NaN where missing.
        names
            Names of the columns, in their order, whatever it is; those that the trees do not know are passed over.
        num_threads
            Threads; the numbers do not depend on it.

        Returns
        -------
        FloatArray
            Shape (row,); NaN for a row that :meth:`unpredictable` marks.

        Raises
        ------
        DataError
            If a feature is absent, named twice or infinite.
        """
        ordered = self._in_order(features, names)
        if not len(ordered):
            return np.empty(0)
        predicted = np.asarray(self._booster.predict(ordered, num_threads=num_threads), dtype=np.float64)
        predicted[self._lacks(ordered)] = np.nan
        return predicted

    def unpredictable(self, features: FloatArray, names: Sequence[str]) -> NDArray[np.bool_]:
        """Rows that lack a feature which no training row lacked: LightGBM would read the gap as zero. Arguments as :meth:`predict`."""
        return self._lacks(self._in_order(features, names))

    def gain(self) -> dict[str, float]:
        """Share of each feature in the total gain of all splits (importance type gain), in the order of training; they sum to 1."""
        gain = np.asarray(self._booster.feature_importance(importance_type="gain"), dtype=np.float64)
        return {name: float(share) for name, share in zip(self.features, gain / max(gain.sum(), 1e-300), strict=True)}

    def description(self) -> dict[str, Any]:
        """All but the trees, as JSON keeps it, with the text's hash."""
        import lightgbm

        return {
            "kind": KIND, "version": VERSION, "sha256": hashlib.sha256(self.text.encode()).hexdigest(), "lightgbm": lightgbm.__version__,
            "target": self.target, "features": list(self.features), "missing": list(self.missing), "rows": self.rows,
            "rounds": self.rounds, "seed": self.seed, "settings": SETTINGS, "source": self.source, "curves": self.curves,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write ``model.txt`` (LightGBM's text) and ``model.json``, each atomically."""
        write_atomically(folder / TEXT_FILE, self.text.encode())
        write_atomically(folder / DESCRIPTION_FILE, to_json(self.description()))

    @cached_property
    def _booster(self) -> Any:
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def _in_order(self, features: FloatArray, names: Sequence[str]) -> FloatArray:
        names = tuple(names)
        _check_matrix(features, names)
        column = {name: number for number, name in enumerate(names)}
        for name in self.features:
            if name not in column:
                raise DataError(f"features must include {name}, got none of that name{nearest_name(name, names)}")
        return np.ascontiguousarray(features[:, [column[name] for name in self.features]])

    def _lacks(self, ordered: FloatArray) -> NDArray[np.bool_]:
        needed = np.array([name not in self.missing for name in self.features])
        return np.asarray(np.isnan(ordered[:, needed]).any(axis=1))


def train_gbdt(
    features: FloatArray,
    target: FloatArray,
    *,
    names: Sequence[str],
    target_name: str,
    test: tuple[FloatArray, FloatArray] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
    num_threads: int = 1,
    source: str = "",
) -> GBDT:
    """Train trees with :data:`SETTINGS`: the same text from the same rows and seed.

    Parameters
    ----------
    features
        Shape (row, feature); NaN where missing.
    target
        Shape (row,), finite.
    names
        Names of the features, in their order.
    target_name
        What is predicted.
    test
        Features and target of rows that only the loss curves use.
    rounds
        Trees.
    seed
        Of LightGBM, which with these settings draws only the rows that bin edges are found on, beyond 200 000 of them.
    num_threads
        Threads of LightGBM.
    source
        What the rows are, in a few words.

    Raises
    ------
    DataError
        If there are fewer rows than two leaves need, a target is not finite, a feature is infinite, or names are odd.
    DomainError
        If the number of trees is not positive.
    """
    import lightgbm

    names = tuple(names)
    _check_training(features, target, names, "training")
    if len(target) < 2 * SETTINGS["min_data_in_leaf"]:
        raise DataError(f"training needs at least {2 * SETTINGS['min_data_in_leaf']} rows, got {len(target)}")
    if rounds < 1:
        raise DomainError(f"rounds must be positive, got {rounds}")
    rows = lightgbm.Dataset(features, target, feature_name=list(names), params={"verbosity": -1})
    watched = {"train": rows}
    if test is not None:
        _check_training(*test, names, "testing")
        watched["test"] = rows.create_valid(*test)
    recorded: dict[str, dict[str, list[float]]] = {}
    chosen = {**SETTINGS, "seed": seed, "num_threads": num_threads, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    booster = lightgbm.train(
        chosen, rows, rounds, valid_sets=list(watched.values()), valid_names=list(watched), callbacks=[lightgbm.record_evaluation(recorded)]
    )
    return GBDT(
        text=_without_parameters(booster.model_to_string(num_iteration=-1)),
        features=names,
        missing=tuple(names[column] for column in np.flatnonzero(np.isnan(features).any(axis=0))),
        target=target_name,
        rows=len(target),
        rounds=rounds,
        seed=seed,
        source=source,
        curves={part: {METRICS[metric]: list(curve) for metric, curve in recorded[part].items()} for part in watched},
    )


def load_gbdt(folder: Path) -> GBDT:
    """Load trees that :meth:`GBDT.save` wrote.

    Raises
    ------
    ModelFileError
        If a file is missing, altered or of another version.
    """
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        text = (folder / TEXT_FILE).read_bytes()
        if not isinstance(description, dict):
            raise ValueError
    except (OSError, ValueError):
        raise ModelFileError(f"{folder}: trees need a readable {TEXT_FILE} and {DESCRIPTION_FILE}, got none or a damaged one") from None
    return gbdt_of_text(text, description, source=str(folder))


def gbdt_of_text(text: bytes, description: dict[str, Any], *, source: str) -> GBDT:
    """Trees from their text and description, both checked.

    Parameters
    ----------
    text
        As LightGBM writes it.
    description
        As :meth:`GBDT.description` gives it.
    source
        Where they come from, for errors.

    Raises
    ------
    ModelFileError
        If the text is altered, of another version of LightGBM, or does not fit the description.
    """
    if any(key not in description for key in ("kind", "version", *_KEYS)):
        raise ModelFileError(f"{source}: trees must come with a complete {DESCRIPTION_FILE}, got a damaged one")
    if (description["kind"], description["version"]) != (KIND, VERSION):
        got = f"'{description['kind']}' version {description['version']}"
        raise ModelFileError(f"{source}: trees must be '{KIND}' version {VERSION}, got {got}")
    digest = hashlib.sha256(text).hexdigest()
    if digest != description["sha256"]:
        raise ModelFileError(f"{source}: trees must have the hash of their description, got {digest[:12]}: altered or incomplete")
    if not text.startswith(TEXT_START.encode()):
        got = text[:40].decode(errors="replace").replace("\n", " ")
        raise ModelFileError(f"{source}: trees must be LightGBM's text, version 4, got one that begins {got!r}")
    try:
        features, missing = tuple(description["features"]), tuple(description["missing"])
    except TypeError:
        raise ModelFileError(f"{source}: trees must come with lists of features and of those that may be missing, got others") from None
    if f"\nfeature_names={' '.join(map(str, features))}\n".encode() not in text:
        raise ModelFileError(f"{source}: trees must have the features of their description, got others")
    plain = {key: description[key] for key in ("target", "rows", "rounds", "seed", "source", "curves")}
    return GBDT(text=text.decode(), features=features, missing=missing, **plain)


def _without_parameters(text: str) -> str:
    """The text without the list of parameters, which names the number of threads: the same trees have the same text."""
    return re.sub(r"\nparameters:.*?\nend of parameters\n", "\n", text, flags=re.DOTALL)


def _check_matrix(features: FloatArray, names: Sequence[str]) -> None:
    if features.ndim != 2 or features.shape[1] != len(names):
        raise DataError(f"features must have one column for each of {len(names)} names, got shape {features.shape}")
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if list(names).count(name) > 1)
        raise DataError(f"features must have different names, got {', '.join(twice)} more than once")
    infinite = np.isinf(features)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise DataError(f"features must be finite, or NaN where missing, got {features[row, column]} for {names[column]} in row {row}")


def _check_training(features: FloatArray, target: FloatArray, names: Sequence[str], purpose: str) -> None:
    _check_matrix(features, names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise DataError(f"names of features must be of letters, digits and underscores, got {name!r}")
    if target.shape != (len(features),):
        raise DataError(f"{purpose} needs one target for each of {len(features)} rows, got shape {target.shape}")
    if not np.isfinite(target).all():
        raise DataError(f"{purpose} needs finite targets, got {np.count_nonzero(~np.isfinite(target))} others")
