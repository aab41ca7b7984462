"""Measurement sets are folders: put a finished one in the place of another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


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
