"""Measurement sets are folders: put a finished one in the place of another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from supermage.errors import DataError


def check_replaceable(path: Path) -> None:
    """Refuse to put a measurement set where something else is.

    Raises
    ------
    DataError
        If there is a file, or a folder that is neither empty nor a measurement set.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise DataError(f"a measurement set must not replace a file, got {path}")
    if any(path.iterdir()) and not (path / "table.dat").is_file():
        raise DataError(f"a measurement set may replace only another one, got the folder {path}")


def replace_folder(new: Path, old: Path) -> None:
    """Put a folder where another may be, on the same file system; the other is removed only once the new one stands."""
    aside = new.with_name(f"{new.name}.replaced")
    if old.exists():
        os.replace(old, aside)
    try:
        os.replace(new, old)
    except OSError:
        if aside.exists():
            os.replace(aside, old)
        raise
    shutil.rmtree(aside, ignore_errors=True)
