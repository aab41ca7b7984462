"""casatools without a network and without a home directory; casatasks' environment for a subprocess."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from supermage.errors import SupermageError

_SETTINGS = ("measures_auto_update", "data_auto_update", "log2term", "iplog", "user_site")


def casadata_folder() -> Path:
    """Folder of the reference data in the package casadata.

    Raises
    ------
    SupermageError
        If casadata is not installed.
    """
    return Path(_import("casadata").datapath)


@cache
def import_casatools() -> ModuleType:
    """Import casatools offline: measures from casadata, no updates, no log file, no cache at home, the command line left alone.

    Raises
    ------
    SupermageError
        If casatools is not installed or does not start.
    """
    argv = sys.argv
    sys.argv = argv[:1]
    try:
        config = _import("casaconfig.config")
        for name, value in _configuration().items():
            setattr(config, name, value)
        tools = _import("casatools")
    finally:
        sys.argv = argv
    # Its errors come as exceptions: the copies on stderr would break "one line".
    sink = tools.logsink(os.devnull)
    sink.setglobal(True)
    sink.filter("SEVERE")
    sink.filterMsg("Exception Reported")
    return tools


def casatasks_environment(folder: Path) -> dict[str, str]:
    """Environment variables with which a subprocess can ``import casatasks`` offline; its configuration is written to ``folder``.

    The subprocess should also cut ``sys.argv`` to its first item and run inside ``folder``.

    Raises
    ------
    SupermageError
        If casadata is not installed.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "casasiteconfig.py"
    settings = {**_configuration(), "cachedir": str(folder), "logfile": os.devnull}
    site.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()), encoding="utf-8")
    return {**os.environ, "CASASITECONFIG": str(site), "HOME": str(folder), "MPLCONFIGDIR": str(folder / "matplotlib"),
            "OMP_NUM_THREADS": "1"}


def _configuration() -> dict[str, Any]:
    data = str(casadata_folder())
    off = dict.fromkeys(_SETTINGS, False)
    return {**off, "measurespath": data, "datapath": [data], "logfile": os.devnull, "cachedir": tempfile.gettempdir(), "nogui": True,
            "nologger": True, "agg": True, "casaconfig_verbose": 0}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SupermageError("measurement sets need the packages casatools and casadata (Linux or macOS, Python 3.11 - 3.13), "
                             f"got no '{name}' ({error})") from None
