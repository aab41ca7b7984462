import numpy as np
import pytest

from supermage.report.noise import noise_facts
from tests.data_reduction.factories import make_gridded
from tests.report.test_residuals import noise_only


def zero(gridded):
    return np.zeros_like(gridded.mean)


def test_right_noise_passes_and_its_errors_are_right():
    scales, lags = [], []
    for seed in range(40):
        gridded = noise_only(seed)
        facts = noise_facts(gridded, zero(gridded))
        assert not facts.scale_is_wrong
        assert not facts.correlation_is_wrong
        scales.append((facts.rms - 1.0) / facts.rms_error)
        lags.append((facts.lag_one - facts.lag_one_expected) / facts.lag_one_error)
    for z in (scales, lags):
        assert abs(np.mean(z)) < 4 / np.sqrt(40)
        assert 0.7 < np.std(z) < 1.4


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_wrong_scale_is_no_wrong_correlation(factor):
    gridded = noise_only(3, factor=factor)
    facts = noise_facts(gridded, zero(gridded))
    assert facts.rms == pytest.approx(factor, rel=0.03)
    assert facts.scale_is_wrong
    assert not facts.correlation_is_wrong


def test_hanning_smoothing_that_is_not_stated_is_found():
    gridded = noise_only(5).replace(hanning=False)
    facts = noise_facts(gridded, zero(gridded))
    assert facts.lag_one == pytest.approx(2 / 3, abs=0.03)
    assert facts.rms == pytest.approx(np.sqrt(0.1), rel=0.05)
    assert facts.scale_is_wrong
    assert facts.correlation_is_wrong


def test_the_source_is_taken_away_first():
    gridded = noise_only(6)
    ramp = 30 * np.nanmedian(np.where(np.isfinite(gridded.standard_error), gridded.standard_error, np.nan))
    source = ramp * np.arange(gridded.n_channel)[None, :, None] * np.ones(gridded.mean.shape, dtype=complex)
    bright = gridded.replace(mean=np.where(np.isfinite(gridded.standard_error), gridded.mean + source, 0.0))
    facts = noise_facts(bright, source)
    assert not facts.correlation_is_wrong
    assert noise_facts(bright, zero(bright)).correlation_is_wrong


def test_the_scale_of_noise_known_from_few_visibilities_is_allowed_for():
    gridded, freedom = noise_only(7, n_cell=600), 8
    scale = np.sqrt(np.random.default_rng(1).chisquare(freedom, size=(gridded.n_block, 1, gridded.n_cell)) / freedom)
    facts = noise_facts(
        gridded.replace(standard_error=gridded.standard_error * scale, degrees_of_freedom=np.full(gridded.mean.shape, float(freedom))),
        zero(gridded),
    )
    assert facts.rms == pytest.approx(1.0, abs=5 * facts.rms_error)
    assert facts.rms_error < 0.04


def test_three_channels_cannot_be_checked():
    gridded = make_gridded(n_channel=3)
    assert noise_facts(gridded, zero(gridded)) is None
