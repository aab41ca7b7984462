"""The only door to ArviZ, 0.23 or 1.x, which has a DataTree in place of InferenceData and other defaults."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import H5NetCDFStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

FloatArray = NDArray[np.float64]

_TREES = int(arviz.__version__.split(".")[0]) >= 1

TAILS = (0.05, 0.95)
"""Quantiles whose smaller effective sample size is that of the tails (Vehtari et al. 2021): 1.x has no or another default."""


def rhat(draws: FloatArray) -> float:
    """Rank-normalised split R-hat of (chain, draw) values (Vehtari et al. 2021); NaN for constant or too few draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(arviz.rhat(np.asarray(draws), method="rank"))


def ess(draws: FloatArray, *, method: str = "bulk") -> float:
    """Effective sample size of (chain, draw) values, ``bulk``, ``tail`` or ``mean``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(arviz.ess(np.asarray(draws), method=method, prob=TAILS if method == "tail" else None))


def group_names(data: Any) -> tuple[str, ...]:
    """Groups of an InferenceData or a DataTree."""
    return tuple(data.children if isinstance(data, xarray.DataTree) else data.groups())


def from_dict(groups: Mapping[str, Mapping[str, NDArray[Any]]], *, attributes: Mapping[str, Any]) -> Any:
    """InferenceData (ArviZ 1.x: DataTree) from groups such as ``posterior`` and ``sample_stats`` of (chain, draw, ...) arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members: dict[str, Any] = {name: dict(group) for name, group in groups.items()}
        data = arviz.from_dict(members, save_warmup=True) if _TREES else arviz.from_dict(**members, save_warmup=True)
    for group in group_names(data):
        # creation time and inference library would make two equal runs differ
        data[group].attrs.clear()
    data.attrs.clear()
    data.attrs.update(attributes)
    return data


def read(path: Path) -> Any:
    """InferenceData (ArviZ 1.x: DataTree) of a netCDF file, read whole into memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = arviz.from_netcdf(str(path), engine="h5netcdf")
        for part in [data] if isinstance(data, xarray.DataTree) else [data[group] for group in data.groups()]:
            part.load()
            part.close()
    return data


def as_netcdf(data: Any) -> bytes:
    """InferenceData or DataTree as the content of a netCDF file.

    Made in memory: where the disk is full, HDF5 may end the process in place of an error.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with h5netcdf.File(buffer, "w") as file:
            xarray.Dataset(attrs=data.attrs).dump_to_store(H5NetCDFStore(file))
            for group in group_names(data):
                table = data[group].to_dataset() if isinstance(data, xarray.DataTree) else data[group]
                table.dump_to_store(H5NetCDFStore(file.create_group(group)), encoding={name: {"zlib": True} for name in table.data_vars})
    return buffer.getvalue()


def write(data: Any, path: Path) -> None:
    """Write InferenceData or DataTree as netCDF."""
    path.write_bytes(as_netcdf(data))
