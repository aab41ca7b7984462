"""Scores of predicted densities: exact on predictions whose quality is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from supermage.models.mass_scores import crps, kolmogorov_p, ks_distance, probabilities, score_table, true_targets
from tests.models.mass_mixtures import prior


def test_crps_of_a_normal_has_its_closed_form() -> None:
    """Gneiting & Raftery 2007, eq. 21; the estimate's error at 4000 draws is 1e-2, five times that is allowed."""
    draws = np.sort(np.random.default_rng(0).standard_normal((4000, 3)), axis=0)
    truth = np.array([0.0, 1.0, -2.5])
    expected = truth * (2 * stats.norm.cdf(truth) - 1) + 2 * stats.norm.pdf(truth) - 1 / np.sqrt(np.pi)
    assert crps(draws, truth) == pytest.approx(expected, abs=0.05)


def test_kolmogorov_distance_and_probability_are_scipys() -> None:
    values = np.random.default_rng(1).random(60) ** 1.2
    assert ks_distance(values) == pytest.approx(stats.kstest(values, "uniform").statistic)
    assert kolmogorov_p(0.08, 450.0) == pytest.approx(stats.kstwobign.sf(0.08 * np.sqrt(450.0)))


def drawn_truth(rows: int) -> dict[str, np.ndarray]:
    torch.manual_seed(2)
    star, total = prior(rows).rsample().numpy().T
    return {"log_mstar": star, "log_mtot": total, "log_fstar": star - total}


def test_truths_drawn_from_the_prediction_are_calibrated() -> None:
    """Coverage within four binomial deviations at each of three levels and three targets, uniform: false alarm below 2e-3."""
    rows = 400
    table = score_table(prior(rows), drawn_truth(rows), calibration_rows=10**9)
    for entry in table.values():
        for level, share in entry["coverage"].items():
            wanted = float(level)
            assert abs(share - wanted) < 4.0 * np.sqrt(wanted * (1 - wanted) / rows)
        assert entry["pit_p_holm"] > 1e-3 and entry["pit_p_holm"] >= entry["pit_p"]


def test_a_wrong_prediction_is_found() -> None:
    rows = 300
    truth = drawn_truth(rows)
    table = score_table(prior(rows), {"log_mstar": truth["log_mstar"] + 0.05}, calibration_rows=10**9)
    assert table["log_mstar"]["pit_p_holm"] < 1e-6
    assert table["log_mstar"]["bias"] < -0.03


def test_holm_multiplies_by_what_is_left() -> None:
    rows = 60
    table = score_table(prior(rows), drawn_truth(rows), calibration_rows=100)
    ordered = sorted(table.values(), key=lambda entry: entry["pit_p"])
    assert ordered[0]["pit_p_holm"] == pytest.approx(min(1.0, 3 * ordered[0]["pit_p"]))


def test_truth_of_masses() -> None:
    got = true_targets(np.array([1e10]), np.array([4e10]), np.array([0.0]), np.array([9.0]))
    assert got["log_fstar"][0] == pytest.approx(np.log10(0.25)) and got["log_ml"][0] == pytest.approx(1.0)
    assert np.isnan(got["log_mdm"][0]) and np.isnan(got["log_fdm"][0])
    assert np.isnan(probabilities(prior(1), "log_mdm", got["log_mdm"])[0])
