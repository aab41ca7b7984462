"""Errors of a model while it is trained, by iteration or epoch (Chu et al., Figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import BLACK_HOLE, CHAINS, MUTED, STARS

COLOURS = {"train": STARS, "test": BLACK_HOLE, "validation": BLACK_HOLE}
NAMES = {"train": "training"}


def loss_curve(
    axes: Axes,
    curves: Mapping[str, Sequence[float] | NDArray[np.floating]],
    *,
    label: str,
    step: str = "iteration",
    best: int | None = None,
    logarithmic: bool = True,
) -> Axes:
    """Draw one curve for each part of the data.

    Parameters
    ----------
    curves
        Part (``train``, ``validation``, ``test``) -> its loss after every step, from the first one.
    label
        Name and unit of the loss.
    step
        What a step is.
    best
        Number of the step (from 1) whose model is kept.
    logarithmic
        Scale of the losses; those that may be negative need a linear one.
    """
    for number, (part, losses) in enumerate(curves.items()):
        values = np.asarray(losses, dtype=np.float64)
        colour = COLOURS.get(part, CHAINS[(2 + number) % len(CHAINS)])
        axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=NAMES.get(part, part))
    if best is not None:
        axes.axvline(best, color=MUTED, linewidth=0.7, linestyle="--", label=f"best {step}, {best}")
    longest = max(len(losses) for losses in curves.values())
    axes.set(xlabel=step, ylabel=label, yscale="log" if logarithmic else "linear", xlim=(0, longest))
    axes.legend(loc="upper right")
    return axes
