"""Masses of a whole catalogue or store of maps: the same rows out, with medians, intervals and scores; in pieces, here or by Dask."""

from __future__ import annotations

import os
import platform
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

from supermage.errors import DataError, DomainError, ModelFileError, SupermageError
from supermage.models.catalogue import read_catalogue_chunks, reasons, some_of
from supermage.models.catalogue_ranges import Ranges
from supermage.models.columns import COLUMNS, MOCK, TARGETS
from supermage.models.constant_columns import check_constants, check_required, with_constants
from supermage.models.feature_space import patterns_of
from supermage.models.mass_coordinates import DEFAULT
from supermage.models.mass_estimator import MassEstimator
from supermage.models.mass_quantiles import fast_quantiles
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.predict_cluster import WAIT, Cluster
from supermage.models.prediction_files import WRITERS, TableWriter
from supermage.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from supermage.models.cnn import CNN

CHUNK = 10_000
"""Rows of a piece: what a thread predicts at once, in some 60 MB."""

QUANTILES = {"median": 0.5, "lower_68": 0.16, "upper_68": 0.84, "lower_95": 0.025, "upper_95": 0.975}
"""Ending of an output column -> probability."""

UNITS = {"log_mstar": "dex(Msun)", "log_mtot": "dex(Msun)", "log_mdm": "dex(Msun)", "log_ml": "dex(Msun / Lsun)"}
"""Units of targets; fractions have none but dex."""


@dataclass(frozen=True)
class Predicted:
    """What came of a catalogue.

    Attributes
    ----------
    output
        The table.
    rows, empty, outside
        Rows, those without a prediction of any target (column ``reason`` says why), and those outside the training set.
    """

    output: Path
    rows: int
    empty: int
    outside: int

    def __str__(self) -> str:
        return f"{self.output}: {self.rows} rows, {self.empty} without a prediction, {self.outside} outside the training set"


def predict_catalogue(
    path: str | Path,
    model: str | Path,
    output: str | Path,
    *,
    targets: Sequence[str] = DEFAULT,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
    rows: int = CHUNK,
    dask: str | None = None,
    wait: float = WAIT,
    progress: Progress | None = None,
) -> Predicted:
    """Predict the masses of every row of a catalogue.

    Parameters
    ----------
    path
        Catalogue, see :func:`supermage.models.catalogue.read_catalogue`; for a model of images maps, see
        :class:`supermage.models.map_store.MapStore`: out come identities, the network's point predictions (``predicted_...``), magnitude
        and colour of the image, and what is said below.
    model
        Name of a model, or its folder.
    output
        Table to write, atomically: ``.parquet``, ``.csv`` (units and provenance beside it), ``.ecsv`` or ``.fits``. The catalogue's rows in
        their order, with all their columns, and for each target its median and central 68 and 95 % intervals; ``out_of_distribution`` (1
        at the edge of the training set), ``gaps`` and ``missing`` (how many features were missing, and which, joined by a space),
        ``reason`` (why a row is empty, or, as in ``log_ml: M_r missing``, one of its targets) and ``model``. An output of generated
        galaxies says so (``mock`` in its metadata).
    targets
        Names, see :data:`supermage.models.columns.TARGETS`; ``log_ml`` only of models that know the light of their sphere. Each is
        predicted alone: they may be functions of one another.
    columns, units
        Canonical name -> name in the file, and -> unit, where they differ.
    constants
        Canonical name -> number in the canonical unit that all rows have, of columns that the catalogue lacks: ``aperture_ratio=1``.
    rows
        Rows of a piece; every core has two under way, which is what memory is needed for.
    dask
        Address of a Dask scheduler whose workers predict; they need the package and the model under the same name or path.
    wait
        Seconds that workers of that scheduler are waited for.
    progress
        Where progress is shown; nowhere by default.

    Returns
    -------
    Predicted
        Numbers of rows.

    Raises
    ------
    DataError
        If the catalogue cannot be used (see :func:`supermage.models.catalogue.read_catalogue`), lacks the columns that the model needs
        in every row, has columns with the names of the output's or of constants, or the output cannot be written; if the Dask cluster is
        lost, or has no workers for too long.
    ModelFileError
        If the model's files are missing, altered or of another version, here or on a worker, or it predicts no masses.
    DomainError
        If a target is unknown or none of the model's, a constant is no column of the model's or outside its range, or a number is not
        positive.

    Warns
    -----
    OutOfDistributionWarning
        Of rows outside the training set.
    RangeWarning
        Once for each column that the model reads, of numbers that were taken as missing because they cannot be meant.
    """
    progress = progress or SilentProgress()
    if rows < 1:
        raise DomainError(f"rows predicted at once must be at least 1, got {rows}")
    path, output, model = Path(path), Path(output), located(model)
    if output.resolve() == path.resolve():
        raise DataError(f"the output must be another file than the catalogue, got {output} for both")
    estimator = estimator_of(model)
    targets = _known(targets, estimator)
    constants = check_constants(constants or {}, estimator)
    writer, ranges = TableWriter(output), Ranges()
    count = np.zeros(3, dtype=np.int64)
    with ExitStack() as stack:
        progress.start("reading", None)
        if network_of(model) is None:
            names = [name for name in estimator.columns if name in COLUMNS]
            pieces = read_catalogue_chunks(path, rows=rows, columns=columns, units=units, names=names, ranges=ranges)
        else:
            pieces = _of_maps(path, model, stack, ranges, renamed=bool(columns or units or constants))
        pieces = with_constants(pieces, constants)
        first = next(pieces)
        check_free(first, targets)
        check_required(first, estimator)
        estimator.features(first)
        writer.check(first)
        stack.enter_context(writer)
        progress.done(f"{ranges.rows} rows")
        cluster = None if dask is None else stack.enter_context(Cluster(dask, wait=wait, progress=progress))
        progress.start(f"predicting with {estimator.source}", ranges.rows)
        for table in _predicted(_chain(first, pieces), model, targets, cluster):
            table.meta.pop("checked", None)
            table.meta.update(input=path.name, **provenance(estimator))
            writer.add(table)
            outside = _filled(table["out_of_distribution"]) > 1.0
            empty = np.all([np.ma.getmaskarray(table[f"{name}_median"]) for name in targets], axis=0)
            count += np.array([len(table), empty.sum(), outside.sum()])
            progress.advance(len(table))
    result = Predicted(output, *(int(item) for item in count))
    progress.done(str(result))
    ranges.warn()
    if result.outside:
        text = f"{result.outside} of {result.rows} rows lie outside the training set; their densities are widened towards the population"
        warnings.warn(text, OutOfDistributionWarning, stacklevel=2)
    return result


def located(model: str | Path) -> str:
    """The name of a model as it is, or its folder's whole path, which means the same in another process."""
    from supermage.models.registry import MODELS

    known = isinstance(model, str) and model in MODELS
    return str(Path(model).resolve()) if not known and Path(model).is_dir() else str(model)


def _known(targets: Sequence[str], estimator: MassEstimator) -> tuple[str, ...]:
    """Each target once, if the model can predict it; together they need no density, for each is written by itself."""
    names = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
    if not names:
        raise DomainError(f"targets must name at least one of {', '.join(TARGETS)}, got none")
    for name in names:
        estimator.check_targets((name,))
    return names


def provenance(estimator: MassEstimator) -> dict[str, str]:
    """What a table of predictions says about itself."""
    from importlib.metadata import version

    return {"model": estimator.source, "aperture": estimator.aperture, "training": str(estimator.about.get("source", "")),
            **({"mock": MOCK} if estimator.about.get("mock") else {}),
            "program": f"supermage {version('supermage')}", "intervals": "central 68 and 95 % of the marginal densities"}  # fmt: skip


def _of_maps(path: Path, model: str, stack: ExitStack, ranges: Ranges, *, renamed: bool) -> Iterator[Table]:
    """Pieces of a store of maps, closed with the stack."""
    from supermage.models.cnn_prior import pieces_of_store
    from supermage.models.map_store import MapStore

    if renamed:
        raise DataError("maps have their own names and units, got names, units or constants of columns")
    network, store = network_of(model), stack.enter_context(MapStore(path))
    assert network is not None
    ranges.rows = store.n_rows
    for table in pieces_of_store(network, store):
        if store.mock:
            table.meta["mock"] = MOCK
        yield table


@lru_cache(maxsize=2)
def _read(model: str, stamp: str) -> Any:
    from supermage.models.registry import load_model

    return load_model(model)


def _loaded(model: str) -> Any:
    """The model of a name or folder, loaded once a process and again where it was trained anew."""
    from supermage.models.registry import stamp

    return _read(model, stamp(model))


def network_of(model: str) -> CNN | None:
    """The network of a name or folder; None where the model is one of catalogues."""
    from supermage.models.cnn import CNN

    loaded = _loaded(model)
    return loaded if isinstance(loaded, CNN) else None


def estimator_of(model: str) -> MassEstimator:
    """The estimator of a name or folder; of a network, the density on its predictions.

    Raises
    ------
    ModelFileError
        If its files are missing, altered or of another version, or it is no model of masses, or a network without a density.
    """
    network, loaded = network_of(model), _loaded(model)
    if network is not None and network.density is None:
        raise ModelFileError(f"predictions need a network with a density, got {model!r} without: [train.options.prior] trains one")
    found = loaded if network is None else network.density
    if not isinstance(found, MassEstimator):
        raise ModelFileError(f"predictions need a model of masses, got {model!r}, a {type(loaded).__name__}")
    return found


def predict_as(table: Table, model: str, targets: Sequence[str], needed: str) -> Table:
    """As :func:`predict_table`, on a worker of a cluster, if it has the model of :func:`version_of`.

    Raises
    ------
    ModelFileError
        If it cannot load the model, or has another.
    """
    where = f"the worker on {platform.node()}"
    try:
        got = version_of(estimator_of(model))
    except SupermageError as error:
        raise ModelFileError(f"{where} must be able to load {needed}, got: {error}") from None
    if got != needed:
        raise ModelFileError(f"{where} must have {needed}, got {got}")
    return predict_table(table, model, targets)


def version_of(estimator: MassEstimator) -> str:
    """What a worker of a cluster must have, too."""
    return f"{estimator.source}, of {provenance(estimator)['program']}"


def predict_table(table: Table, model: str, targets: Sequence[str] = DEFAULT) -> Table:
    """The columns that :func:`predict_catalogue` adds, on a copy of a canonical table.

    Raises
    ------
    DataError
        If a column has the name of one that is added.
    """
    estimator = estimator_of(model)
    standard, light = estimator.features(table)
    result = table.copy()
    told = result.meta.pop("reasons", None)
    reason = np.array(estimator.reasons_of(table, standard) if told is None else told)
    known = reason == ""
    check_free(table, targets)
    score = np.full(len(table), np.nan)
    values = np.full((len(table), len(targets), len(QUANTILES)), np.nan)
    if known.any():
        prior = estimator.prior_of(standard[known], torch.from_numpy(light[known]), num_threads=1)
        score[known] = prior.out_of_distribution.numpy()
        for number, name in enumerate(targets):
            values[known, number] = fast_quantiles(prior, name, list(QUANTILES.values()))
    if "log_ml" in targets and (dark := np.flatnonzero(known & np.isnan(light))).size:
        why = reasons(table, ["M_r"]) if "M_r" in table.colnames else ["no column M_r"] * len(table)
        reason = reason.astype(object)
        reason[dark] = [f"log_ml: {why[row]}" for row in dark]
    for number, name in enumerate(targets):
        for place, ending in enumerate(QUANTILES):
            said = f"{TARGETS[name]}: {ending.replace('_', ' ')}"
            result[f"{name}_{ending}"] = _masked(values[:, number, place], UNITS.get(name, "dex"), said)
    result["out_of_distribution"] = _masked(score, None, "distance from the training set, 1 at its edge")
    result["gaps"] = np.isnan(standard).sum(axis=1).astype(np.int32)
    result["missing"] = _missing(standard, estimator.space.names)
    result["reason"] = reason.astype(str)
    result["model"] = np.full(len(table), estimator.source)
    return result


def _missing(standard: NDArray[np.float64], names: Sequence[str]) -> NDArray[Any]:
    """Names of the features that a row lacks, joined by a space; shape (row,)."""
    patterns = patterns_of(np.isnan(standard))
    texts = [" ".join(name for name, gone in zip(names, pattern, strict=True) if gone) for pattern, _ in patterns]
    result = np.empty(len(standard), dtype=f"U{max(1, *map(len, texts))}")
    for text, (_, rows) in zip(texts, patterns, strict=True):
        result[rows] = text
    return result


def check_free(table: Table, targets: Sequence[str]) -> None:
    """Refuse a catalogue that has columns with the names of the output's.

    Raises
    ------
    DataError
        Naming the columns.
    """
    added = [*(f"{name}_{ending}" for name in targets for ending in QUANTILES), "out_of_distribution", "gaps", "missing", "reason", "model"]
    if taken := [name for name in added if name in table.colnames]:
        raise DataError(f"the catalogue must have none of the columns that the output adds, got {some_of(taken)}; rename or leave them out")


def default_output(path: Path) -> Path:
    """Where the masses of a catalogue go if nothing else is said.

    ``galaxies.fits`` goes to ``galaxies.masses.fits``; a catalogue of a format that is not written, to ECSV under its whole name,
    ``galaxies.vot`` to ``galaxies.vot.masses.ecsv``, so that two catalogues do not write one file.
    """
    if path.suffix in WRITERS:
        return path.with_name(f"{path.stem}.masses{path.suffix}")
    return path.with_name(f"{path.name}.masses.ecsv")


def _masked(value: np.ndarray[Any, np.dtype[np.float64]], unit: str | None, description: str) -> MaskedColumn:
    return MaskedColumn(value, mask=~np.isfinite(value), unit=unit, description=description)


def _filled(column: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)


def _chain(first: Table, rest: Iterable[Table]) -> Iterator[Table]:
    yield first
    yield from rest


def _predicted(pieces: Iterator[Table], model: str, targets: Sequence[str], cluster: Cluster | None) -> Iterator[Table]:
    """Predicted pieces in their order."""
    if cluster is not None:
        needed = version_of(estimator_of(model))
        most = 2 * max(1, cluster.cores)
        yield from _in_order(pieces, lambda piece: cluster.submit(predict_as, piece, model, targets, needed), cluster.result, most)
        return
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        yield from _in_order(pieces, lambda piece: pool.submit(predict_table, piece, model, targets), Future.result, 2 * workers)


def _in_order(pieces: Iterator[Table], submit: Callable[[Table], Any], result: Callable[[Any], Table], most: int) -> Iterator[Table]:
    """Results of submitted pieces in the pieces' order, so many under way at once; what is under way is dropped where nobody asks on."""
    waiting: deque[Any] = deque()
    try:
        for piece in pieces:
            waiting.append(submit(piece))
            if len(waiting) >= most:
                yield result(waiting.popleft())
        while waiting:
            yield result(waiting.popleft())
    finally:
        for item in waiting:
            item.cancel()
