"""What a network is trained on: parts of a store without leakage, scaling constants of the training set, batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from torch import Tensor

from supermage.models.cnn import Scaling, Stretch, prepare, rebin_images, unusable
from supermage.models.columns import COLUMNS
from supermage.models.cuts import Cut, apply_cuts
from supermage.models.map_store import MAPS, Maps, MapStore
from supermage.models.splits import paper_split, split_by_group

CHUNK = 256
SOFT = 0.01
"""Of the logarithmic stretch: this part of the light of a pixel, averaged over an image and in the median of the images."""

PARTS = ("training", "validation", "calibration", "test")

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Which maps a network sees, and how.

    Attributes
    ----------
    names
        Kinds of map.
    image_pixels
        Along a side of the images.
    stretch
        Of the r image; the others are scaled linearly.
    """

    names: tuple[str, ...]
    image_pixels: int
    stretch: Stretch

    @property
    def stored(self) -> tuple[str, ...]:
        """Maps to read: colours are re-binned with the r image's light."""
        return self.names if "r_light" in self.names or "g_r" not in self.names else ("r_light", *self.names)

    def read(self, store: MapStore, rows: Rows) -> Maps:
        """Maps of some rows, images re-binned."""
        return rebin_images(store.read(rows, self.stored), self.image_pixels)


def cut_rows(store: MapStore, cuts: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows that cuts leave, and one line for each cut: what it removed.

    Parameters
    ----------
    store
        Maps with the columns that the cuts ask for.
    cuts
        Texts like ``"m_star_30kpc > 5e9"``, see :meth:`supermage.models.cuts.Cut.parse`; in canonical units.

    Raises
    ------
    DataError
        If a text cannot be read, its column is missing, or no row is left.
    """
    rows, asked = np.arange(store.n_rows), [Cut.parse(text) for text in cuts]
    if not asked:
        return rows, []
    table = Table({"row": rows})
    for name in dict.fromkeys(cut.column for cut in asked):
        table[name] = store.column(name)
        table[name].unit = COLUMNS[name].unit or None if name in COLUMNS else None
    kept, counts = apply_cuts(table, asked)
    return np.asarray(kept["row"]), [str(count) for count in counts]


def usable_rows(store: MapStore, inputs: Inputs, targets: Sequence[str], rows: Rows | None = None) -> tuple[Rows, dict[str, int]]:
    """Rows that a network can learn from, and how many were left out for which reason.

    Parameters
    ----------
    store, inputs, targets
        The maps, which of them are used, and the names of what is predicted.
    rows
        Rows to choose from; all by default.
    """
    rows = np.arange(store.n_rows) if rows is None else rows
    reasons = np.array([reason for part in _chunks(rows) for reason in unusable(inputs.read(store, part), inputs.names)], dtype=object)
    for name in targets:
        reasons[~np.isfinite(store.column(name)[rows]) & (reasons == "")] = f"{name} unknown"
    left_out = {str(reason): int(np.count_nonzero(reasons == reason)) for reason in np.unique(reasons) if reason}
    return rows[reasons == ""], left_out


def split_rows(
    store: MapStore, usable: Rows, fractions: Sequence[float], seed: int, *, leaking: bool = False
) -> tuple[dict[str, Rows], str]:
    """Rows of each of :data:`PARTS`, and words for it; galaxies of one group, and projections of one galaxy, lie in the same part.

    Parameters
    ----------
    store
        The maps.
    usable
        Rows to divide.
    fractions
        Of the parts, each above 0, summing to 1.
    seed
        Of the division.
    leaking
        Divide rows as if each were a galaxy of its own, in the paper's sizes, without a calibration part: projections of one galaxy lie on
        both sides.

    Raises
    ------
    DataError
        If a part is empty.
    """
    if leaking:
        split = paper_split(len(usable), 1, seed=seed)
        names: tuple[str, ...] = ("training", "validation", "test")
        counts, galaxies = " / ".join(str(len(part)) for part in split), len(np.unique(store.column("galaxy_id")[usable]))
        said = f"LEAKING, as the paper: every projection on its own, seed {seed}: {counts} rows of {galaxies} galaxies"
    else:
        galaxy, group = store.column("galaxy_id")[usable], store.column("group_id")[usable]
        split = split_by_group(np.where(group < 0, -1 - galaxy, group), fractions, seed)
        names, said = PARTS, split.description
    parts = {name: usable[rows] for name, rows in zip(names, split, strict=True)}
    return {name: parts.get(name, usable[:0]) for name in PARTS}, said


def scaling_of(store: MapStore, rows: Rows, inputs: Inputs) -> dict[str, Scaling]:
    """Scaling constants over the training rows: one set for all images.

    Empty pixels count as no light and no motion, and as the mean colour.
    """
    sums, counts, light = dict.fromkeys(inputs.names, 0.0), dict.fromkeys(inputs.names, 0), []
    for chunk in _chunks(rows):
        maps = inputs.read(store, chunk)
        for name in inputs.names:
            finite = np.isfinite(maps[name])
            sums[name] += float(maps[name][finite].sum(dtype=np.float64))
            counts[name] += int(np.count_nonzero(finite))
        if "r_light" in inputs.names:
            light.append(np.nanmean(maps["r_light"], axis=(1, 2), dtype=np.float64))
    soft = SOFT * float(np.median(np.concatenate(light))) if light else 1.0
    plain = {name: Scaling(inputs.image_pixels if MAPS[name].is_image else store.pixels[name], 0.0, 1.0,
                           sums[name] / max(counts[name], 1) if name == "g_r" else 0.0,
                           inputs.stretch if name == "r_light" else "linear", soft if name == "r_light" else 1.0)
             for name in inputs.names}  # fmt: skip
    ends = {name: (np.inf, -np.inf) for name in inputs.names}
    for chunk in _chunks(rows):
        for name, values in inputs.read(store, chunk).items():
            if name in plain:
                stretched = plain[name].stretched(values)
                ends[name] = (min(ends[name][0], float(stretched.min())), max(ends[name][1], float(stretched.max())))
    return {name: Scaling(item.pixels, *ends[name], item.fill, item.stretch, item.soft) for name, item in plain.items()}


def _chunks(rows: Rows) -> Iterator[Rows]:
    for first in range(0, len(rows), CHUNK):
        yield rows[first : first + CHUNK]


class Batches:
    """Scaled maps and standardised targets of chosen rows: from memory where they fit, else from the disk.

    Parameters
    ----------
    store
        The maps.
    inputs
        Which of them.
    scaling
        Their constants.
    targets
        Standardised targets of all rows of the store, shape (row, target).
    memory
        Bytes that may be held.
    rows
        Rows that will be asked for.
    """

    def __init__(self, store: MapStore, inputs: Inputs, scaling: Mapping[str, Scaling], targets: NDArray[np.float32], *, memory: float,
                 rows: Rows) -> None:  # fmt: skip
        self.store, self.inputs, self.scaling = store, inputs, scaling
        self.targets = torch.from_numpy(targets)
        needed = 4.0 * len(rows) * sum(item.pixels**2 for item in scaling.values())
        self.held: dict[str, Tensor] = {}
        if needed <= memory:
            self.place = np.full(store.n_rows, -1, dtype=np.int64)
            self.place[rows] = np.arange(len(rows))
            self.held = {name: torch.empty(len(rows), item.pixels, item.pixels) for name, item in scaling.items()}
            for first, chunk in zip(range(0, len(rows), CHUNK), _chunks(rows), strict=True):
                for name, values in prepare(inputs.read(store, chunk), scaling).items():
                    self.held[name][first : first + CHUNK] = values

    def maps(self, rows: Rows) -> dict[str, Tensor]:
        """Scaled maps, name -> shape (row, pixel, pixel), on the CPU."""
        if self.held:
            index = torch.from_numpy(self.place[rows])
            return {name: values[index] for name, values in self.held.items()}
        return prepare(self.inputs.read(self.store, rows), self.scaling)

    def turned(self, rows: Rows, seed: int) -> dict[str, Tensor]:
        """Scaled maps, each galaxy turned by a random multiple of 90 degrees or mirrored, all of its maps alike."""
        generator = torch.Generator().manual_seed(seed)
        coins = torch.rand(3, len(rows), 1, 1, generator=generator) < 0.5
        maps = self.maps(rows)
        for name, values in maps.items():
            values = torch.where(coins[0], values.transpose(1, 2), values)
            values = torch.where(coins[1], values.flip(1), values)
            maps[name] = torch.where(coins[2], values.flip(2), values)
        return maps
