"""Which coordinates to lengthen where the data speak, learnt from Fisher matrices along the chains.

The demo's break radius is the example: inside 1.5" the gas pins it, outside nothing does, and a step that suits the inside needs a thousand
gradients to cross the outside. What counts is how far the local Fisher matrices are from their mean, both ways: too stiff makes steps
small, too soft makes the way long. Stretching a coordinate scales a row and a column of them, so that learning costs no model evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import optimize, special
from torch import Tensor

from supermage.inference.chains import Workers
from supermage.inference.metric import factor_of_precision
from supermage.inference.model import Chart
from supermage.inference.pivots import carry_fishers, carry_positions
from supermage.inference.stretches import Widening

VARIES = 3.0
"""A coordinate is tried where the matrices' diagonal entries (90 % over 10 %) differ by more."""

WORTH_WIDENING = 0.9
"""Share of the unevenness that a widening must leave to be taken."""

LEAST_POINTS = 12
"""Matrices below which nothing is learnt."""

MOST_GAIN, MOST_RATE, MOST_KNEE = 20.0, 8.0, 3.0
"""Bounds of what is learnt."""

Matrix = Float[Tensor, "param param"]


@dataclass(frozen=True)
class WideningChoice:
    """A chart, Fisher matrices plus prior in it at every point, and `unevenness` with the widenings before and with these."""

    chart: Chart
    fishers: list[Matrix]
    unevenness: tuple[float, float]


def unevenness(fishers: Float[Tensor, "point param param"]) -> float:
    """Mean over the points of the squared distance between matrix and mean: the sum of log^2 of the whitened matrix' eigenvalues."""
    root = factor_of_precision(fishers.mean(dim=0))
    values = torch.linalg.eigvalsh(root.mT @ fishers @ root).clamp(min=1e-300)
    return float(torch.log(values).square().sum(dim=-1).mean())


def widen(
    fishers: Float[Tensor, "point param param"], z: Float[Tensor, "point"], index: int, widening: Widening
) -> Float[Tensor, "point param param"]:
    """Fisher matrices plus unit prior at points, after coordinate ``index``, there z, has been widened."""
    slope = widening.slope(z)
    scale = torch.ones(fishers.shape[:2], dtype=fishers.dtype)
    scale[:, index] = 1.0 / slope
    likelihood = fishers.clone()
    likelihood[:, index, index] -= 1.0
    widened = scale[:, :, None] * likelihood * scale[:, None, :]
    widened[:, index, index] += slope**-2
    return widened


def choose_widening(workers: Workers, chart: Chart, points: list[Tensor], fishers: list[Matrix]) -> WideningChoice:
    """Learn which coordinates to widen, and how, from Fisher matrices at points of the posterior.

    Parameters
    ----------
    workers
        The fit.
    chart
        The chart in which points and matrices are given; its widenings are learnt anew, the rest stays.
    points
        Positions of the chains.
    fishers
        Fisher matrix plus prior there.
    """
    here = unevenness(torch.stack(fishers))
    unchanged = WideningChoice(chart, fishers, (here, here))
    if len(points) < LEAST_POINTS or not math.isfinite(here):
        return unchanged
    bare = replace(chart, widened=())
    if chart.widened:
        ((fishers,),) = workers.map(carry_fishers, [(chart, [bare], points, fishers)])
        (points,) = workers.map(carry_positions, [(chart, bare, points)])
    coordinates = workers.problem.fit.coordinates(bare)
    every, z = torch.stack(fishers), torch.stack(points)
    diagonal = torch.diagonal(every, dim1=-2, dim2=-1).numpy()
    low, high = np.quantile(diagonal, [0.1, 0.9], axis=0)
    kept = set(coordinates.priors.circular) | ({"log10_mbh"} if chart.stretch is not None else set())
    tried = [i for i, name in enumerate(coordinates.names) if name in coordinates.plain and name not in kept and high[i] > VARIES * low[i]]
    widened: dict[str, tuple[float, float, float]] = {}
    before = unevenness(every)
    for i in sorted(tried, key=lambda i: low[i] / high[i]):
        widening, left = _best(every, z[:, i], i)
        if left < WORTH_WIDENING * before:
            every, before = widen(every, z[:, i], i, widening), left
            widened[coordinates.names[i]] = (widening.gain, widening.rate, widening.knee)
    if not before < WORTH_WIDENING * here and chart.widened:
        return unchanged
    new = replace(bare, widened=tuple((name, *numbers) for name, numbers in sorted(widened.items())))
    return WideningChoice(new, list(every), (here, before))


def _best(fishers: Float[Tensor, "point param param"], z: Float[Tensor, "point"], index: int) -> tuple[Widening, float]:
    """The widening of one coordinate that leaves the least unevenness, and that."""

    def left(numbers: NDArray[np.float64], sign: float) -> float:
        return unevenness(widen(fishers, z, index, _of(numbers, sign)))

    start = np.array([-1.0, 0.0, float(z.median()) / MOST_KNEE])
    options = {"maxiter": 150, "xatol": 0.01, "fatol": 1e-3}
    found = [(sign, optimize.minimize(left, start, args=(sign,), method="Nelder-Mead", options=options)) for sign in (1.0, -1.0)]
    sign, result = min(found, key=lambda pair: float(pair[1].fun))
    return _of(result.x, sign), float(result.fun)


def _of(numbers: NDArray[np.float64], sign: float) -> Widening:
    """The widening of three unbounded numbers, inside its bounds."""
    gain, rate = special.expit(numbers[0]) * MOST_GAIN, special.expit(numbers[1]) * MOST_RATE
    return Widening(float(gain), sign * max(float(rate), 1e-3), float(MOST_KNEE * np.tanh(numbers[2])))
