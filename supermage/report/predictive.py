"""Posterior-predictive check: would data made by the model deviate from it as much as these do?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.report.residuals import Residuals, residuals_of

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Predictive:
    """Residuals of several posterior draws, and how often pure noise about each would exceed them.

    Attributes
    ----------
    by_channel, by_baseline
        Chi^2 per datum in the bins of `Residuals`, shape (draw, bin).
    p_total
        Probability that chi^2 of replicated data is larger, averaged over the draws: the posterior predictive p-value of a realised
        discrepancy (Gelman, Meng & Stern 1996). Near 0: the model leaves something; near 1: the noise is overestimated.
    p_channel, p_baseline
        The same of the most deviant bin, either way, after the mean is scaled to 1.
    """

    by_channel: FloatArray
    by_baseline: FloatArray
    p_total: float
    p_channel: float
    p_baseline: float

    @property
    def n_draws(self) -> int:
        """Draws that were looked at."""
        return len(self.by_channel)


def predictive_of(
    gridded: GriddedVisibilities,
    visibilities: Callable[[dict[str, float]], NDArray[np.complex128]],
    draws: Sequence[dict[str, float]],
    *,
    continuum: bool,
    order: int = 0,
) -> Predictive:
    """Whiten data minus model for every draw.

    Parameters
    ----------
    gridded
        The data.
    visibilities
        Model visibilities of one draw, Jy, shape (block, chan, cell).
    draws
        Parameters of each draw.
    continuum, order
        As in `residuals_of`.
    """
    each = [residuals_of(gridded, visibilities(theta), continuum=continuum, order=order) for theta in draws]
    return Predictive(
        by_channel=np.stack([one.by_channel.value for one in each]),
        by_baseline=np.stack([one.by_baseline.value for one in each]),
        p_total=_mean(lambda one: float(norm.sf(one.sigma)), each),
        p_channel=_mean(lambda one: 2.0 * float(norm.sf(abs(one.by_channel.worst_sigma()))), each),
        p_baseline=_mean(lambda one: 2.0 * float(norm.sf(abs(one.by_baseline.worst_sigma()))), each),
    )


def _mean(p_value: Callable[[Residuals], float], each: Sequence[Residuals]) -> float:
    return float(np.mean([p_value(one) for one in each]))
