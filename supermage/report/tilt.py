"""A known density times a normal likelihood, fitted to draws: ``p(m) exp(a m - b m^2 / 2)``, an exponential family of two parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

RAYS, STEPS = 24, 3
"""Directions from the best parameters, and points along each, by which a region of them is known."""

KOLMOGOROV = 1.63
"""Kolmogorov and Smirnov's distance times the root of the number at 1 %."""

_FAR = 40
"""Doublings, and halvings, of the search for a region's edge."""


@dataclass(frozen=True, eq=False)
class Tilt:
    """The fit, in ``u = (m - centre) / scale``, in which the draws have mean 0 and variance 1.

    Attributes
    ----------
    nodes, base
        u, and the known density's logarithm with the rule of integration, shape (node,).
    best
        Factors of u and u^2 of highest likelihood.
    root
        Of the covariance of both by one draw, a lower triangle.
    centre, scale
        Of u.
    independent
        Effective number of draws.
    """

    nodes: FloatArray
    base: FloatArray
    best: FloatArray
    root: FloatArray
    centre: float
    scale: float
    independent: float

    @classmethod
    def of_draws(cls, mass: FloatArray, nodes: FloatArray, log_density: FloatArray, independent: float) -> Tilt | None:
        """Fit; None where the draws are not so distributed, by Kolmogorov and Smirnov at 1 %.

        Parameters
        ----------
        mass
            Draws, shape (draw,), of the density between its first node and its last.
        nodes, log_density
            Ascending, and the known density's logarithm there, shape (node,).
        independent
            Effective number of draws.
        """
        centre, scale = float(mass.mean()), float(mass.std())
        u, base = (nodes - centre) / scale, log_density + np.log(trapezoid(nodes))
        found = _maximum(u, base)
        if found is None:
            return None
        best, covariance = found
        share = _share(u, base, best)
        if distance(np.interp(mass, nodes, np.cumsum(share) - 0.5 * share)) > KOLMOGOROV / math.sqrt(independent):
            return None
        return cls(u, base, best, np.asarray(np.linalg.cholesky(covariance), dtype=np.float64), centre, scale, independent)

    @property
    def data(self) -> tuple[float, float]:
        """Mean and standard deviation of the likelihood; it is none unless the parameters' region is closed."""
        return self._data(self.best)

    @cached_property
    def closed(self) -> bool:
        """Whether within 3 standard errors every likelihood is a normal one, not flat or rising to both sides."""
        return all(point[1] < 0.0 for point in self._points(3.0))

    def region(self, errors: float) -> list[tuple[float, float]]:
        """Means and standard deviations of the normal likelihoods within so many standard errors, by the ratio of likelihoods."""
        return [self._data(point) for point in self._points(errors) if point[1] < 0.0]

    def _data(self, point: FloatArray) -> tuple[float, float]:
        curvature = max(-2.0 * float(point[1]), 1e-12)
        return self.centre + self.scale * float(point[0]) / curvature, self.scale / math.sqrt(curvature)

    def _points(self, errors: float) -> list[FloatArray]:
        allowed, lowest = 0.5 * errors**2 / self.independent, _cost(self.nodes, self.base, self.best)
        found = [self.best]
        for turn in np.linspace(0.0, 2.0 * math.pi, RAYS, endpoint=False):
            ray = self.root @ np.array([math.cos(turn), math.sin(turn)])
            low, high = 0.0, errors / math.sqrt(self.independent)
            for _ in range(_FAR):
                if _cost(self.nodes, self.base, self.best + high * ray) - lowest > allowed:
                    break
                low, high = high, 2.0 * high
            for _ in range(12):
                middle = 0.5 * (low + high)
                within = _cost(self.nodes, self.base, self.best + middle * ray) - lowest <= allowed
                low, high = (middle, high) if within else (low, middle)
            found += [self.best + step / STEPS * high * ray for step in range(1, STEPS + 1)]
        return found


def trapezoid(nodes: FloatArray) -> FloatArray:
    """Weights of the trapezoid rule."""
    step = np.diff(nodes)
    return 0.5 * (np.concatenate([[0.0], step]) + np.concatenate([step, [0.0]]))


def distance(share: FloatArray) -> float:
    """Kolmogorov and Smirnov's, of probabilities from uniform ones."""
    ordered = np.sort(share.ravel())
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def _cost(u: FloatArray, base: FloatArray, tilt: FloatArray) -> float:
    """Negative mean log likelihood of draws with mean 0 and variance 1."""
    value = base + tilt[0] * u + tilt[1] * u**2
    top = value.max()
    return float(top + math.log(np.exp(value - top).sum()) - tilt[1])


def _share(u: FloatArray, base: FloatArray, tilt: FloatArray) -> FloatArray:
    value = base + tilt[0] * u + tilt[1] * u**2
    share = np.exp(value - value.max())
    return np.asarray(share / share.sum())


def _maximum(u: FloatArray, base: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Best factors by Newton's steps, halved where they overshoot, and the covariance of one draw; None where they do not converge."""
    powers, target, best = np.stack([u, u**2]), np.array([0.0, 1.0]), np.zeros(2)
    for _ in range(100):
        share = _share(u, base, best)
        mean = powers @ share
        information = (powers * share) @ powers.T - np.outer(mean, mean)
        if not float(np.linalg.det(information)) > 0.0:
            return None
        if float(np.abs(target - mean).max()) < 1e-8:
            return best, np.asarray(np.linalg.inv(information), dtype=np.float64)
        step, length, here = np.linalg.solve(information, target - mean), 1.0, _cost(u, base, best)
        while length > 1e-8 and not _cost(u, base, best + length * step) <= here:
            length *= 0.5
        best = best + length * step
    return None
