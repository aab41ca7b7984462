import numpy as np
import pytest
from scipy import stats

from supermage.errors import DataError
from supermage.models.power_law import fit_power_law, log_luminosity


def test_a_law_without_scatter_is_found_again():
    magnitude = np.linspace(-24.0, -17.0, 20)
    law = fit_power_law(magnitude, 10.3 + 1.2 * -0.4 * (magnitude + 20.0))
    assert law.slope == pytest.approx(1.2)
    assert law.log_mass_at_pivot == pytest.approx(10.3)
    assert law.predict(np.array([-20.0, -22.5, np.nan])) == pytest.approx([10.3, 11.5, np.nan], nan_ok=True)


def test_ten_times_the_light_is_two_and_a_half_magnitudes_brighter():
    assert np.diff(log_luminosity(np.array([-20.0, -22.5]))) == pytest.approx(1.0)


def test_the_fit_is_the_regression_of_scipy():
    rng = np.random.default_rng(2)
    magnitude = rng.uniform(-24.0, -17.0, 500)
    mass = 10.0 - 0.45 * (magnitude + 20.0) + rng.normal(0.0, 0.2, 500)
    law, reference = fit_power_law(magnitude, mass), stats.linregress(log_luminosity(magnitude), mass)
    assert (law.slope, law.log_mass_at_pivot) == pytest.approx((reference.slope, reference.intercept))
    assert law.predict(magnitude) - mass == pytest.approx(reference.intercept + reference.slope * log_luminosity(magnitude) - mass)


@pytest.mark.parametrize(
    ("magnitude", "mass", "words"),
    [
        (np.array([-20.0, -21.0]), np.array([10.0]), r"one mass for each magnitude, got shapes \(2,\) and \(1,\)"),
        (np.array([-20.0, np.nan]), np.array([10.0, 10.5]), "finite magnitudes and masses, got 1 rows without"),
        (np.array([-20.0, -21.0]), np.array([10.0, -np.inf]), "finite magnitudes and masses, got 1 rows without"),
        (np.array([-20.0, -20.0]), np.array([10.0, 10.5]), "at least two different magnitudes, got 1"),
        (np.array([]), np.array([]), "at least two different magnitudes, got 0"),
    ],
)
def test_what_no_law_can_be_fitted_to_is_refused(magnitude, mass, words):
    with pytest.raises(DataError, match=words):
        fit_power_law(magnitude, mass)
