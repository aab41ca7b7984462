"""The two small real measurement sets, unpacked; copies of the ALMA one to spoil."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supermage.data_reduction.casa import import_casatools

_DATA = Path(__file__).parents[1] / "data"


def _unpack(name: str, folder: Path) -> Path:
    with tarfile.open(_DATA / f"{name}.ms.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*.ms"))


@pytest.fixture(scope="session")
def alma_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ALMA baseline, Hanning-smoothed channels."""
    return _unpack("alma-x5707-one-baseline", tmp_path_factory.mktemp("alma"))


@pytest.fixture(scope="session")
def evla_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spectral windows with different channel counts."""
    return _unpack("evla-two-spectral-windows", tmp_path_factory.mktemp("evla"))


@pytest.fixture
def spoil(alma_set: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the ALMA set; ``spoil(edit, table="")`` hands an open, writable table of the copy to ``edit``."""

    def make(edit: Callable[[Any], object] | None = None, *, table: str = "") -> Path:
        copy = tmp_path / "copy.ms"
        if not copy.exists():
            shutil.copytree(alma_set, copy)
        if edit is not None:
            tb = import_casatools().table()
            tb.open(str(copy / table) if table else str(copy), nomodify=False)
            try:
                edit(tb)
            finally:
                tb.close()
        return copy

    return make
