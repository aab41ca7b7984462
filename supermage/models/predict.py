"""Masses of a whole catalogue or store of maps: the same rows out, with medians, intervals and scores; in pieces, here or by Dask."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from astropy.table import MaskedColumn, Table

from supermage.errors import DataError, DomainError, ModelFileError
from supermage.models.catalogue import read_catalogue_chunks, reasons, some_of
from supermage.models.columns import COLUMNS, TARGETS
from supermage.models.mass_coordinates import DEFAULT
from supermage.models.mass_estimator import MassEstimator
from supermage.models.mass_quantiles import fast_quantiles
from supermage.models.out_of_distribution import OutOfDistributionWarning
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
    rows: int = CHUNK,
    dask: str | None = None,
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
        at the edge of the training set), ``gaps`` (features that were missing), ``reason`` (why a row is empty, or, as in
        ``log_ml: M_r missing``, one of its targets) and ``model``. An output of generated galaxies says so (``mock`` in its metadata).
    targets
        Names, see :data:`supermage.models.columns.TARGETS`; ``log_ml`` only of models that know the light of their sphere.
    columns, units
        Canonical name -> name in the file, and -> unit, where they differ.
    rows
        Rows of a piece; every core has two under way, which is what memory is needed for.
    dask
        Address of a Dask scheduler whose workers predict; they need the package and the model under the same name.
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
        in every row, has columns with the names of the output's, or the output cannot be written.
    ModelFileError
        If the model's files are missing, altered or of another version, or it predicts no masses.
    DomainError
        If a target is unknown or none of the model's, or a number is not positive.
    """
    progress = progress or SilentProgress()
    if rows < 1:
        raise DomainError(f"rows predicted at once must be at least 1, got {rows}")
    path, output = Path(path), Path(output)
    if output.resolve() == path.resolve():
        raise DataError(f"the output must be another file than the catalogue, got {output} for both")
    estimator = estimator_of(str(model))
    targets = estimator.check_targets(targets)
    writer = TableWriter(output)
    count = np.zeros(3, dtype=np.int64)
    with ExitStack() as stack:
        progress.start("reading", None)
        if network_of(str(model)) is None:
            names = [name for name in estimator.columns if name in COLUMNS]
            pieces = read_catalogue_chunks(path, rows=rows, columns=columns, units=units, names=names)
        else:
            pieces = _of_maps(path, str(model), stack, renamed=bool(columns or units))
        first = next(pieces)
        check_free(first, targets)
        estimator.features(first)
        writer.check(first)
        stack.enter_context(writer)
        progress.done()
        progress.start(f"predicting with {estimator.source}", None)
        for table in _predicted(_chain(first, pieces), str(model), targets, dask):
            table.meta.pop("checked", None)
            table.meta.update(input=path.name, **provenance(estimator))
            writer.add(table)
            outside = _filled(table["out_of_distribution"]) > 1.0
            empty = np.all([np.ma.getmaskarray(table[f"{name}_median"]) for name in targets], axis=0)
            count += np.array([len(table), empty.sum(), outside.sum()])
            progress.advance(len(table))
    result = Predicted(output, *(int(item) for item in count))
    progress.done(str(result))
    if result.outside:
        text = f"{result.outside} of {result.rows} rows lie outside the training set; their densities are widened towards the population"
        warnings.warn(text, OutOfDistributionWarning, stacklevel=2)
    return result


def provenance(estimator: MassEstimator) -> dict[str, str]:
    """What a table of predictions says about itself."""
    from importlib.metadata import version

    return {"model": estimator.source, "aperture": estimator.aperture, "training": str(estimator.about.get("source", "")),
            "program": f"supermage {version('supermage')}", "intervals": "central 68 and 95 % of the marginal densities"}  # fmt: skip


def _of_maps(path: Path, model: str, stack: ExitStack, *, renamed: bool) -> Iterator[Table]:
    """Pieces of a store of maps, closed with the stack."""
    from supermage.models.cnn_prior import pieces_of_store
    from supermage.models.map_store import MapStore
    from supermage.models.mock_population import MOCK

    if renamed:
        raise DataError("maps have their own names and units, got names or units of columns")
    network, store = network_of(model), stack.enter_context(MapStore(path))
    assert network is not None
    for table in pieces_of_store(network, store):
        if store.mock:
            table.meta["mock"] = MOCK
        yield table


@lru_cache(maxsize=2)
def _loaded(model: str) -> Any:
    """The model of a name or folder, loaded once a process."""
    from supermage.models.registry import load_model

    return load_model(model)


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
    result["reason"] = reason.astype(str)
    result["model"] = np.full(len(table), estimator.source)
    return result


def check_free(table: Table, targets: Sequence[str]) -> None:
    """Refuse a catalogue that has columns with the names of the output's.

    Raises
    ------
    DataError
        Naming the columns.
    """
    added = [*(f"{name}_{ending}" for name in targets for ending in QUANTILES), "out_of_distribution", "gaps", "reason", "model"]
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


def _predicted(pieces: Iterator[Table], model: str, targets: Sequence[str], dask: str | None) -> Iterator[Table]:
    """Predicted pieces in their order."""
    if dask is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            yield from _in_order(pieces, lambda piece: pool.submit(predict_table, piece, model, targets), 2 * workers)
        return
    try:
        from distributed import Client
    except ImportError:
        raise DataError("a Dask cluster needs the extra 'cluster' (pip install 'supermage[cluster]'), got no package distributed") from None
    try:
        client = Client(dask, timeout="10s")
    except (OSError, ValueError) as error:
        raise DataError(f"a Dask scheduler must answer at {dask}, got: {' '.join(str(error).split())[:120]}") from None
    with client:
        most = 2 * max(1, sum(client.ncores().values()))
        yield from _in_order(pieces, lambda piece: client.submit(predict_table, piece, model, tuple(targets), pure=False), most)


def _in_order(pieces: Iterator[Table], submit: Callable[[Table], Any], most: int) -> Iterator[Table]:
    """Results of submitted pieces in the pieces' order, so many under way at once; what is under way is dropped where nobody asks on."""
    waiting: deque[Any] = deque()
    try:
        for piece in pieces:
            waiting.append(submit(piece))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for item in waiting:
            item.cancel()
