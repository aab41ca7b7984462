"""Maps and targets of many galaxies on disk: self-describing netCDF in parts, each written atomically, read in batches by row."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name
from supermage.models.columns import COLUMNS, IDENTITY, TARGETS
from supermage.models.training import to_json, write_atomically

FORMAT, FORMAT_VERSION = "supermage galaxy maps", 1
MANIFEST = "maps.json"

Maps = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class MapKind:
    """One kind of map.

    Attributes
    ----------
    unit, description
        Unit as astropy reads it, and what it is.
    is_image
        Whether it has the pixels of the images; else those of the kinematic maps.
    """

    unit: str
    description: str
    is_image: bool


MAPS = {
    "r_light": MapKind("Lsun", "r luminosity of a pixel, behind dust", True),
    "g_r": MapKind("mag", "colour g - r, behind dust", True),
    "mean_velocity": MapKind("km / s", "mean velocity along the line of sight", False),
    "dispersion": MapKind("km / s", "dispersion along the line of sight", False),
}
"""Kinds of maps by name. The image holds light per pixel: light per area would not tell the luminosity, as maps end at 3 R_hsm."""


def write_maps(path: str | Path, maps: Mapping[str, NDArray[Any]], columns: Mapping[str, NDArray[Any]], *, source: str, mock: bool,
               provenance: Mapping[str, Any] | None = None) -> Path:  # fmt: skip
    """Write maps and columns of some galaxies to one netCDF file, atomically.

    Parameters
    ----------
    path
        The file.
    maps
        Kind of map -> array of shape (row, pixel, pixel), in the units of :data:`MAPS`; NaN where a pixel holds nothing.
    columns
        Name -> array of shape (row,): ``galaxy_id``, ``group_id`` and ``projection``, targets (log10) and any other canonical column.
    source
        Where they come from, in a few words.
    mock
        Whether a generator made them.
    provenance
        Whatever else tells how they were made; kept as JSON.

    Raises
    ------
    DataError
        If shapes do not fit, a name is unknown, an identity is missing, or the folder cannot be written.
    """
    import h5netcdf

    path = Path(path)
    rows, pixels = _check(maps, columns)
    # HDF5 crashes the process when the disk fills under it: it writes to memory, Python writes to disk.
    image = io.BytesIO()
    with h5netcdf.File(image, "w") as file:
        file.dimensions = {"row": rows, **{f"{name}_{axis}": size for name, size in pixels.items() for axis in "yx"}}
        for name, values in maps.items():
            kind = MAPS[name]
            grid = "image" if kind.is_image else "map"
            size = pixels[grid]
            variable = file.create_variable(name, ("row", f"{grid}_y", f"{grid}_x"), np.float32, chunks=(1, size, size),
                                            compression="gzip", compression_opts=1, shuffle=True)  # fmt: skip
            variable[...] = np.asarray(values, dtype=np.float32)
            variable.attrs["units"], variable.attrs["long_name"] = kind.unit, kind.description
        for name, values in columns.items():
            whole = name in IDENTITY
            variable = file.create_variable(name, ("row",), np.int64 if whole else np.float64)
            variable[...] = np.asarray(values, dtype=np.int64 if whole else np.float64)
            variable.attrs["units"], variable.attrs["long_name"] = _unit_and_description(name)
        file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
        file.attrs["source"], file.attrs["mock"] = source, int(mock)
        file.attrs["provenance"] = json.dumps(dict(provenance or {}), sort_keys=True)
        file.attrs["Conventions"] = "CF-1.11"
    try:
        write_atomically(path, image.getvalue())
    except OSError as error:
        raise DataError(f"maps must go to a folder that can be written and has room, got {path} ({error.strerror})") from None
    return path


def finish_parts(folder: str | Path, names: Sequence[str]) -> Path:
    """Say that a folder's parts are complete: only then does it open.

    Parameters
    ----------
    folder
        Folder of files that :func:`write_maps` wrote.
    names
        Names of the files, in the order of their rows.
    """
    folder = Path(folder)
    write_atomically(folder / MANIFEST, to_json({"format": FORMAT, "format_version": FORMAT_VERSION, "parts": list(names)}))
    return folder


def _check(maps: Mapping[str, NDArray[Any]], columns: Mapping[str, NDArray[Any]]) -> tuple[int, dict[str, int]]:
    for name in maps:
        if name not in MAPS:
            raise DataError(f"a map must be one of {', '.join(MAPS)}, got '{name}'{nearest_name(name, MAPS)}")
    if not maps:
        raise DataError("a file of maps must hold at least one kind of map, got none")
    rows = len(next(iter(maps.values())))
    pixels: dict[str, int] = {}
    for name, values in maps.items():
        grid = "image" if MAPS[name].is_image else "map"
        size = pixels.setdefault(grid, values.shape[-1])
        if values.shape != (rows, size, size):
            raise DataError(f"maps must have the shape (row, pixel, pixel), alike in all of a kind, got {values.shape} for {name}")
    for name, values in columns.items():
        if values.shape != (rows,):
            raise DataError(f"a column must have one number for each of {rows} maps, got shape {values.shape} for {name}")
    for name in IDENTITY:
        if name not in columns:
            raise DataError(f"maps must come with {', '.join(IDENTITY)}, got no {name}: splits go by them")
    if (np.asarray(columns["galaxy_id"]) < 0).any():
        raise DataError(f"maps must come with the number of their galaxy, from 0, got {np.min(columns['galaxy_id'])}")
    if not rows:
        raise DataError("a file of maps must hold at least one galaxy, got none")
    return rows, pixels


def _unit_and_description(name: str) -> tuple[str, str]:
    if name in COLUMNS:
        return COLUMNS[name].unit, COLUMNS[name].description
    base = name.removesuffix("_2rhsm").removesuffix("_2d")
    if base not in TARGETS:
        raise DataError(f"a column must have a canonical name, got '{name}'{nearest_name(name, [*COLUMNS, *TARGETS])}")
    where = f"{'circle' if '_2d' in name else 'sphere'} of {2 if name.endswith('_2rhsm') else 1} R_hsm"
    return "1", f"{TARGETS[base]}, {where}"


class MapStore:
    """Maps and targets of galaxies: one file of :func:`write_maps`, or a folder of such parts with a manifest.

    Use it in a ``with`` statement, or call :meth:`close`.

    Parameters
    ----------
    path
        File or folder.

    Attributes
    ----------
    n_rows
        Rows: galaxies times projections.
    pixels
        Kind of map -> pixels along a side.
    source, mock
        As written.

    Raises
    ------
    DataError
        If there is no such file, a part is missing, damaged or unlike the others, or a folder is not complete.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = Path(path)
        self._files: list[Any] = []
        try:
            self._paths = self._parts()
            for part in self._paths:
                self._files.append(h5py.File(part, "r"))
            self._read_headers()
        except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
            self.close()
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"maps must be whole files of galaxy maps, got {self.path} ({said})") from None
        except DataError:
            self.close()
            raise

    def _parts(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise DataError(f"maps must be a netCDF file or a folder of parts, got {self.path}")
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            there = len(list(self.path.glob("*.nc")))
            raise DataError(f"a folder of maps must be complete, got {self.path} with {there} parts and no {MANIFEST}: make the maps again "
                            "to go on")  # fmt: skip
        return [self.path / name for name in json.loads(manifest.read_text(encoding="utf-8"))["parts"]]

    def _read_headers(self) -> None:
        for part, file in zip(self._paths, self._files, strict=True):
            if file.attrs["format"] != FORMAT or _number(file.attrs["format_version"]) != FORMAT_VERSION:
                got = f"{file.attrs['format']} {_number(file.attrs['format_version'])}"
                raise DataError(f"{part}: must be {FORMAT} version {FORMAT_VERSION}, got {got}")
        first = self._files[0]
        self.pixels = {name: int(first[name].shape[-1]) for name in MAPS if name in first}
        self.columns = tuple(name for name in first if name not in MAPS and "long_name" in first[name].attrs)
        for part, file in zip(self._paths, self._files, strict=True):
            if {name: int(file[name].shape[-1]) for name in MAPS if name in file} != self.pixels:
                raise DataError(f"{part}: parts must have the same maps, got others than in {self._paths[0]}")
            if not set(self.columns) <= set(file):
                raise DataError(f"{part}: parts must have the same columns, got others than in {self._paths[0]}")
        self._last = np.cumsum([len(file["galaxy_id"]) for file in self._files])
        self.n_rows = int(self._last[-1])
        self.source = str(first.attrs["source"])
        self.mock = any(bool(_number(file.attrs["mock"])) for file in self._files)
        self.provenance: dict[str, Any] = json.loads(first.attrs["provenance"])

    def column(self, name: str) -> NDArray[Any]:
        """A column by name, shape (row,): int64 of identities, float64 of all others.

        Raises
        ------
        DataError
            If there is none of that name.
        """
        if name not in self.columns:
            raise DataError(f"{self.path}: the maps must come with the column '{name}', got none{nearest_name(name, self.columns)}")
        return np.concatenate([file[name][...] for file in self._files])

    @property
    def identity(self) -> str:
        """What tells these maps from others without reading them: a hash of source, provenance, pixels and all columns, row by row."""
        said = hashlib.sha256(json.dumps([self.source, self.mock, self.provenance, self.pixels], sort_keys=True).encode())
        for name in sorted(self.columns):
            said.update(name.encode() + np.ascontiguousarray(self.column(name)).tobytes())
        return said.hexdigest()

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> Maps:
        """Maps of some rows, in the order of ``rows``.

        Parameters
        ----------
        rows
            Their numbers, shape (n,); in any order, also repeated.
        names
            Kinds of map.

        Returns
        -------
        dict
            Name -> float32 array of shape (n, pixel, pixel).

        Raises
        ------
        DataError
            If the file lacks a kind of map or a row, or cannot be read.
        """
        for name in names:
            if name not in self.pixels:
                raise DataError(f"{self.path}: must hold the maps {', '.join(names)}, got {', '.join(self.pixels)} only")
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n_rows):
            raise DataError(f"{self.path}: rows must lie in 0 .. {self.n_rows - 1}, got {rows.min()} .. {rows.max()}")
        part = np.searchsorted(self._last, rows, side="right")
        out = {name: np.empty((len(rows), self.pixels[name], self.pixels[name]), dtype=np.float32) for name in names}
        try:
            for number in np.unique(part):
                file, here = self._files[number], np.flatnonzero(part == number)
                inside = rows[here] - (self._last[number - 1] if number else 0)
                for name in names:
                    whole = file[name][...] if 2 * len(here) > len(file[name]) else None
                    for place, row in zip(here, inside, strict=True):
                        out[name][place] = file[name][int(row)] if whole is None else whole[row]
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: maps must be readable, got {str(error).splitlines()[0]}") from None
        return out

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files = []

    def __enter__(self) -> MapStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _number(attribute: Any) -> int:
    """A whole number of a file's attributes: netCDF has them as arrays of one."""
    return int(np.ravel(attribute)[0])
