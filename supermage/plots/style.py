"""Journal style: widths, an 8-point font, colours that survive colour blindness and a grey printer. Nothing is changed globally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMN = 3.35
"""Width of one journal column, inches."""

PAGE = 7.0
"""Width of a journal page, inches."""

BLACK_HOLE = "#0072B2"
STARS = "#D55E00"
HALO = "#009E73"
GAS = "#CC79A7"
TOTAL = "#000000"
DATA = "#000000"
MODEL = "#D55E00"
TRUTH = "#CC3377"
MUTED = "#6B6B6B"
CHAINS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D", "#A6761D")
"""Colours after Okabe and Ito (2008); one a chain, then over again."""

INTENSITY_MAP = "cividis"
DIVERGING_MAP = "coolwarm"
WIDTH_MAP = "viridis"

_SETTINGS: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "figure.titlesize": 8.0,
    "figure.labelsize": 8.0,
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "patch.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.unicode_minus": True,
}


@contextmanager
def journal_style() -> Iterator[None]:
    """Apply the style to whatever is drawn, and saved, inside the block."""
    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Make an empty figure (inches) that no global list holds, so that nothing needs closing."""
    figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure
