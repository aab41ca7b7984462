"""Black-hole masses from interferometer data of rotating gas, without an optical image.

An independent implementation of Yantovski-Barth et al., "Neural Deprojection of Galaxy Stellar Mass Profiles"; not the package of this
name on PyPI. The public names below are imported when they are first used, so that ``import supermage`` itself is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supermage.data_reduction.gridded import open_visibilities as open_visibilities
    from supermage.forward.mge import MGE as MGE
    from supermage.forward.nuker import Nuker as Nuker
    from supermage.inference.kernels import MALA as MALA
    from supermage.inference.posterior import open_posterior as open_posterior
    from supermage.inference.sampling import sample as sample
    from supermage.models.registry import load_model as load_model

try:
    __version__ = version("supermage")
except PackageNotFoundError:
    __version__ = "0+unknown"

_HOME = {
    "MALA": "supermage.inference.kernels",
    "MGE": "supermage.forward.mge",
    "Nuker": "supermage.forward.nuker",
    "load_model": "supermage.models.registry",
    "open_posterior": "supermage.inference.posterior",
    "open_visibilities": "supermage.data_reduction.gridded",
    "sample": "supermage.inference.sampling",
}

__all__ = ["MALA", "MGE", "Nuker", "__version__", "load_model", "open_posterior", "open_visibilities", "sample"]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'supermage' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
