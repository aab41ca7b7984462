"""Quantiles of many rows: those of the marginals, a piece at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from supermage.models.mass_prior import MassPrior

ROWS = 2000
"""Rows of a piece."""


def fast_quantiles(prior: MassPrior, name: str, points: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles of a target, shape (row, point), by the marginals' own distribution functions.

    Parameters
    ----------
    prior
        Densities of batch shape (row,).
    name
        Target.
    points
        Probabilities.
    """
    pieces = [prior[begin : begin + ROWS].marginal(name).quantiles(points).numpy() for begin in range(0, len(prior), ROWS)]
    return np.concatenate(pieces) if pieces else np.empty((0, len(points)))
