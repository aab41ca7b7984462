"""Posterior-predictive p-values: uniform for noise of the stated size, near 0 or 1 for what is not; a draw counts as one."""

import numpy as np
import pytest
from scipy import stats

from supermage.report.predictive import predictive_of
from supermage.report.residuals import residuals_of
from tests.data_reduction.factories import point_source
from tests.report.test_residuals import noise_only


def of_nothing(gridded, draws=2):
    return predictive_of(gridded, lambda theta: np.zeros_like(gridded.mean), [{}] * draws, continuum=False)


def test_uniform_under_pure_noise():
    """40 data sets; Kolmogorov-Smirnov at 1e-4 for each of three: false alarms 3e-4."""
    found = [of_nothing(noise_only(seed, n_cell=60, n_channel=16)) for seed in range(40)]
    for name in ("p_total", "p_channel", "p_baseline"):
        values = [getattr(one, name) for one in found]
        # tails of few-bin maxima are approximate: the total is held to uniform, the worst bins to not being piled up
        assert stats.kstest(values, "uniform").pvalue > 1e-4, name


@pytest.mark.parametrize(("factor", "low", "high"), [(1.2, 0.0, 1e-6), (0.8, 1.0 - 1e-6, 1.0)])
def test_noise_of_another_size(factor, low, high):
    assert low <= of_nothing(noise_only(3, factor=factor)).p_total <= high


def test_a_channel_that_the_model_leaves():
    gridded = noise_only(4)
    line = np.zeros_like(gridded.mean)
    line[:, 12] = point_source(gridded, 0.1, 0.2, 6e-3)[:, 12]
    found = predictive_of(gridded, lambda theta: theta["flux"] * line, [{"flux": 0.0}, {"flux": 1.0}], continuum=False)
    assert found.n_draws == 2
    good, bad = (residuals_of(gridded, flux * line, continuum=False) for flux in (0.0, 1.0))
    assert np.array_equal(found.by_channel, [good.by_channel.value, bad.by_channel.value])
    assert np.array_equal(found.by_baseline, [good.by_baseline.value, bad.by_baseline.value])
    # the mean over the draws: half of what the good one says
    assert found.p_channel == pytest.approx(stats.norm.sf(abs(good.by_channel.worst_sigma())), abs=1e-4)
    assert found.p_total == pytest.approx(0.5 * (stats.norm.sf(good.sigma) + stats.norm.sf(bad.sigma)))
