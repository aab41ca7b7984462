"""How good predicted densities are on galaxies with known masses: coverage, uniformity, continuous ranked probability score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.models.mass_coordinates import target_of_latents
from supermage.models.mass_prior import MassPrior

FloatArray = NDArray[np.float64]

LEVELS = (0.50, 0.68, 0.95)
DRAWS = 1000
CHUNK = 100
"""Rows whose distribution functions are evaluated at once."""


def true_targets(stellar: FloatArray, total: FloatArray, dark: FloatArray, log_light: FloatArray) -> dict[str, FloatArray]:
    """Targets of known masses (Msun); NaN where a logarithm has none (no dark matter, no light)."""
    with np.errstate(divide="ignore"):
        star, both, dm = np.log10(stellar), np.log10(total), np.where(dark > 0, np.log10(dark), np.nan)
    return {"log_mstar": star, "log_mtot": both, "log_mdm": dm, "log_fstar": star - both, "log_fdm": dm - both, "log_ml": star - log_light}


def probabilities(prior: MassPrior, name: str, truth: FloatArray) -> FloatArray:
    """Probability integral transforms: the predicted distribution function at the truth, shape (row,); NaN where there is no truth."""
    result = np.full(len(truth), np.nan)
    with torch.no_grad():
        for first in range(0, len(truth), CHUNK):
            rows = slice(first, first + CHUNK)
            result[rows] = prior[rows].marginal(name).cdf(torch.from_numpy(truth[rows].copy())).numpy()
    return result


def score_table(prior: MassPrior, truth: dict[str, FloatArray], *, calibration_rows: int, seed: int = 0) -> dict[str, Any]:
    """The calibration table of predicted densities.

    Parameters
    ----------
    prior
        Batch shape (row,).
    truth
        Target -> true values, NaN where there is none.
    calibration_rows
        Rows of the recalibration, for the effective number of the two-sample test: ``n = n_cal n_test / (n_cal + n_test)``.
    seed
        Of the draws behind the scores.

    Returns
    -------
    dict
        For each target: ``rows``, ``coverage`` of central intervals by level, ``tercile_coverage`` (68 %, by true value, lowest first),
        ``pit_distance`` (largest distance of the distribution of probabilities from uniform), ``pit_p``, ``pit_p_holm`` (over all targets),
        ``crps`` (dex), ``bias`` and ``scatter`` (dex; mean and standard deviation of median minus truth), ``width_95`` (mean, dex).
    """
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        latents = prior.mixture.draw_quickly((DRAWS,))
        draws = {name: np.sort(_draws(prior, name, latents), axis=0) for name in truth}
    table = {name: _scores(draws[name], truth[name], probabilities(prior, name, truth[name]), calibration_rows) for name in truth}
    _add_holm(table)
    return table


def _draws(prior: MassPrior, name: str, latents: torch.Tensor) -> FloatArray:
    return target_of_latents(name, latents, prior.log_light).numpy()


def _scores(draws: FloatArray, truth: FloatArray, pit: FloatArray, calibration_rows: int) -> dict[str, Any]:
    there = np.isfinite(truth) & np.isfinite(pit)
    draws, truth, pit = draws[:, there], truth[there], pit[there]
    count = len(truth)
    edges = np.quantile(truth, (1 / 3, 2 / 3))
    tercile = np.searchsorted(edges, truth)
    inside = {level: np.abs(pit - 0.5) <= 0.5 * level for level in LEVELS}
    distance = float(ks_distance(pit))
    effective = count * calibration_rows / (count + calibration_rows)
    median = np.median(draws, axis=0)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return {
        "rows": count,
        "coverage": {f"{level:.2f}": float(inside[level].mean()) for level in LEVELS},
        "tercile_coverage": [float(inside[0.68][tercile == number].mean()) for number in range(3)],
        "pit_distance": distance,
        "pit_p": kolmogorov_p(distance, effective),
        "crps": float(crps(draws, truth).mean()),
        "bias": float((median - truth).mean()),
        "scatter": float((median - truth).std()),
        "width_95": float((high - low).mean()),
    }


def _add_holm(table: dict[str, Any]) -> None:
    """p-values times the number of hypotheses not yet rejected (Holm 1979), never falling."""
    largest = 0.0
    for number, name in enumerate(sorted(table, key=lambda item: table[item]["pit_p"])):
        largest = max(largest, min(1.0, (len(table) - number) * table[name]["pit_p"]))
        table[name]["pit_p_holm"] = largest


def ks_distance(values: FloatArray) -> float:
    """Largest distance between the empirical distribution function of values in 0 - 1 and the uniform one."""
    ordered, n = np.sort(values), len(values)
    return float(max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max()))


def kolmogorov_p(distance: float, effective: float) -> float:
    """Probability of a larger Kolmogorov distance at an effective number of rows, by the limiting distribution."""
    from scipy import special

    return float(special.kolmogorov(math.sqrt(effective) * distance))


def crps(draws: FloatArray, truth: FloatArray) -> FloatArray:
    """Continuous ranked probability score of sorted draws (draw, row), the unbiased estimate; shape (row,), in the draws' unit."""
    n = len(draws)
    weight = (2.0 * np.arange(1, n + 1) - n - 1.0) / (n * (n - 1.0))
    return np.asarray(np.abs(draws - truth).mean(axis=0) - weight @ draws)
