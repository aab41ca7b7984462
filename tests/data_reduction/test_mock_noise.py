from __future__ import annotations

import numpy as np
import pytest

from supermage.data_reduction.mock_noise import baseline_sigma, correlated_noise, system_temperature


@pytest.mark.parametrize(("averaging", "lag"), [(1, 0.667), (2, 0.300), (4, 0.115)])
def test_noise_has_unit_width_and_the_correlators_lag(averaging: int, lag: float) -> None:
    noise = correlated_noise(np.random.default_rng(3), 4000, 30, averaging=averaging)
    assert noise.shape == (4000, 2, 30)
    for part in (noise.real, noise.imag):
        assert part.std() == pytest.approx(1.0, abs=0.01)
        assert np.mean(part[..., 1:] * part[..., :-1]) == pytest.approx(lag, abs=0.01)
    assert abs(np.mean(noise.real * noise.imag)) < 0.03
    assert abs(np.mean(noise[:, 0] * noise[:, 1].conj())) < 0.03


def test_noise_two_channels_apart() -> None:
    noise = correlated_noise(np.random.default_rng(4), 4000, 30).real
    assert np.mean(noise[..., 2:] * noise[..., :-2]) == pytest.approx(1 / 6, abs=0.01)
    assert abs(np.mean(noise[..., 3:] * noise[..., :-3])) < 0.01


def test_baselines_follow_the_radiometer_equation() -> None:
    temperature = system_temperature(np.random.default_rng(5), 2000)
    assert np.log(temperature).std() == pytest.approx(0.2, rel=0.05)
    assert np.median(temperature) == pytest.approx(1.0, abs=0.02)
    sigma = baseline_sigma(np.array([[1.0, 4.0], [9.0, 1.0]]), np.array([0, 0]), np.array([1, 0]))
    np.testing.assert_allclose(sigma, [[3.0, 2.0], [1.0, 4.0]])
