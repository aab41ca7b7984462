"""The netCDF file behind GriddedVisibilities: self-describing, written atomically, verified when opened."""

from __future__ import annotations

import io
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np

from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DataError, DomainError

FORMAT = "supermage gridded visibilities"
FORMAT_VERSION = 2

_CELL = ("block", "channel", "cell")
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cell_u": (("cell",), "1", "index of the uv cell along u, units of cell_size"),
    "cell_v": (("cell",), "1", "index of the uv cell along v, units of cell_size"),
    "mean_real": (_CELL, "Jy", "weighted mean of the visibilities, real part"),
    "mean_imaginary": (_CELL, "Jy", "weighted mean of the visibilities, imaginary part"),
    "standard_error": (_CELL, "Jy", "standard error of the real part and of the imaginary part, infinite where empty"),
    "degrees_of_freedom": (_CELL, "1", "degrees of freedom of the standard error"),
    "cell_scale": (("block", "cell"), "1", "noise variance of the cell, by itself, over the block's"),
    "cell_degrees": (("block", "cell"), "1", "degrees of freedom of the cell's own noise variance, 0 where not measured"),
    "moderated_scale": (("block", "cell"), "1", "moderated noise variance of the cell over the block's"),
    "count": (_CELL, "1", "number of visibilities"),
    "offset_mean": ((*_CELL, "axis"), "m", "weighted mean offset of the visibilities from the centre of the cell, (u, v)"),
    "offset_second": ((*_CELL, "moment"), "m2", "weighted mean product of the offsets, (uu, uv, vv)"),
    "frequency": (("block", "channel"), "Hz", "native channel centre"),
    "channel_width": (("block",), "Hz", "channel width"),
    "topo_to_frame": (("block",), "1", "frequency in the frame over native frequency"),
}
_ATTRIBUTES = ("n_pixel", "pixel_scale", "reference_frequency", "hanning", "averaging", "right_ascension", "declination", "dish_diameter",
               "primary_beam_factor", "rest_frequency", "frame", "convention")
_UNITS = {"pixel_scale": "arcsec", "reference_frequency": "Hz", "right_ascension": "deg", "declination": "deg", "dish_diameter": "m",
          "rest_frequency": "Hz"}


def write_gridded(gridded: GriddedVisibilities, path: str | Path) -> Path:
    """Write ``gridded`` to ``path``: first beside it, then moved over it in one step.

    Raises
    ------
    DataError
        If the folder is missing or read-only or the disk is full; what stood at ``path`` is untouched.
    """
    path = Path(path)
    # HDF5 crashes the process when the disk fills under it: it writes to memory, Python writes to disk.
    image = io.BytesIO()
    _write(gridded, image)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            with temporary.open("wb") as file:
                file.write(image.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"gridded visibilities must go to a folder that can be written and has room, got {path} ({error.strerror}); "
                        "an earlier file is kept") from None
    return path


def _sweep(path: Path) -> None:
    """Take away what a process that was killed in the middle of writing ``path`` has left."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        number = part.name.split(".")[-2]
        if number.isdigit() and not Path(f"/proc/{number}").exists() and Path("/proc").exists():
            part.unlink(missing_ok=True)


def _write(gridded: GriddedVisibilities, target: io.BytesIO) -> None:
    arrays = {name: getattr(gridded, name, None) for name in _VARIABLES}
    arrays["mean_real"], arrays["mean_imaginary"] = gridded.mean.real, gridded.mean.imag
    block, chan = gridded.frequency.shape
    with h5netcdf.File(target, "w") as file:
        file.dimensions = {"block": block, "channel": chan, "cell": gridded.n_cell, "axis": 2, "moment": 3}
        for name, (dimensions, unit, long_name) in _VARIABLES.items():
            data = np.ascontiguousarray(arrays[name])
            variable = file.create_variable(name, dimensions, data.dtype, compression="gzip", compression_opts=1, shuffle=True)
            variable[...] = data
            variable.attrs["units"], variable.attrs["long_name"] = unit, long_name
        scalars = gridded._scalars()
        for name in _ATTRIBUTES:
            file.attrs[name] = scalars[name]
        file.attrs["units"] = json.dumps(_UNITS)
        file.attrs["block_names"] = json.dumps(scalars["block_names"])
        file.attrs["response_steps"] = json.dumps(gridded.response_steps)
        file.attrs["provenance"] = json.dumps(dict(gridded.provenance))
        file.attrs["versions"] = json.dumps(_versions())
        file.attrs["checksum"] = gridded.checksum
        file.attrs["Conventions"] = "CF-1.11"
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION


def _versions() -> dict[str, str]:
    found = {}
    for package in ("supermage", "numpy", "astropy", "casatools", "numba", "h5netcdf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_gridded(path: str | Path) -> GriddedVisibilities:
    """Read and verify what `write_gridded` wrote; errors as `open_visibilities` says."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"gridded visibilities must be an existing netCDF file, got {path}")
    try:
        gridded, checksum = _read(path)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, DomainError) as error:
        if isinstance(error, DomainError):
            raise DataError(f"{path}: {error}") from None
        raise DataError("gridded visibilities must be a whole file written by `supermage reduce`, "
                        f"got {path} ({_first_line(error)})") from None
    if gridded.checksum != checksum:
        raise DataError(f"gridded visibilities must be as they were written, got {path} with another checksum")
    return gridded


def is_gridded(path: str | Path) -> bool:
    """Whether a file says of itself that it holds gridded visibilities; it may yet be damaged."""
    try:
        with h5netcdf.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError):
        return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _read(path: Path) -> tuple[GriddedVisibilities, str]:
    with h5netcdf.File(path, "r") as file:
        attributes: dict[str, Any] = dict(file.attrs)
        if attributes.get("format") != FORMAT:
            raise ValueError("no such format attribute")
        if int(attributes["format_version"]) > FORMAT_VERSION:
            raise ValueError(f"format version {attributes['format_version']}, this program knows {FORMAT_VERSION}")
        arrays = {name: np.asarray(file.variables[name][...]) for name in _VARIABLES}
    grid = UVGrid(int(attributes["n_pixel"]), float(attributes["pixel_scale"]), float(attributes["reference_frequency"]))
    mean = arrays.pop("mean_real") + 1j * arrays.pop("mean_imaginary")
    gridded = GriddedVisibilities(
        grid=grid, mean=mean, **arrays, hanning=bool(attributes["hanning"]), averaging=int(attributes["averaging"]),
        block_names=tuple(json.loads(attributes["block_names"])),
        response_steps=tuple((str(kind), amount) for kind, amount in json.loads(attributes.get("response_steps", "[]"))),
        phase_centre=(float(attributes["right_ascension"]), float(attributes["declination"])),
        dish_diameter=float(attributes["dish_diameter"]), primary_beam_factor=float(attributes["primary_beam_factor"]),
        rest_frequency=float(attributes["rest_frequency"]), frame=str(attributes["frame"]), convention=str(attributes["convention"]),
        provenance=json.loads(attributes["provenance"]))
    return gridded, str(attributes["checksum"])
