import numpy as np
import pytest
from scipy.special import i0, i1, k0, k1

from supermage.errors import DomainError
from supermage.models.mock_dynamics import DiscField, Galaxy
from supermage.models.mock_mass import GRAVITY, MassModel, hernquist
from tests.models.test_mock_mass import model

THIN = DiscField(5e10, 3.0, 0.05)
THICK = DiscField(5e10, 3.0, 0.9)


def bare(**changes: float) -> Galaxy:
    """Next to no mass but what is named."""
    return Galaxy(model(**({"disc_mass": 1e-3, "bulge_mass": 1e-3, "gas_mass": 1e-3, "hot_mass": 1e-3, "halo_mass": 1e-3,
                            "black_hole_mass": 0.0} | changes)))  # fmt: skip


def test_a_thin_discs_circular_velocity_is_freemans():
    """Freeman (1970), eq. 12. A height of h / 60 makes it 2 % slower at 0.7 h, less outside."""
    radius = np.array([2.0, 3.0, 6.6, 15.0, 36.0])
    y = radius / 6.0
    exact = GRAVITY * 5e10 / 3.0 * 2 * y**2 * (i0(y) * k0(y) - i1(y) * k1(y))
    outward, _ = THIN.gradient(radius, np.zeros(5))
    assert radius * outward == pytest.approx(exact, rel=0.025)
    assert (radius * outward)[2:] == pytest.approx(exact[2:], rel=0.01)


def test_a_thick_discs_potential_on_its_axis_is_a_sum_of_layers():
    """Of a razor-thin disc ``Phi(0, z) = -G M/h^2 int R e^(-R/h) / sqrt(R^2 + z^2) dR``, averaged over sech^2."""
    above = np.array([0.3, 2.0, 9.0])

    node, weight = np.polynomial.laguerre.laggauss(80)

    def layer(z: float) -> float:
        return weight @ (node / np.hypot(node, z))

    rank = (np.arange(200) + 0.5) / 200
    for z, found in zip(above / 3.0, THICK.potential(np.zeros(3), above), strict=True):
        exact = np.mean([layer(abs(z - 0.3 * np.arctanh(2 * u - 1))) for u in rank])
        assert found == pytest.approx(-GRAVITY * 5e10 / 3.0 * exact, rel=5e-3)


@pytest.mark.parametrize("disc", [THIN, THICK])
def test_forces_are_slopes_of_the_potential(disc):
    radius, above = np.array([1.0, 4.0, 9.0, 9.0, 60.0]), np.array([0.4, -0.9, 2.0, -6.0, 25.0])
    outward, upward = disc.gradient(radius, above)
    step = 0.08
    across = (disc.potential(radius * (1 + step), above) - disc.potential(radius * (1 - step), above)) / (2 * step * radius)
    along = (disc.potential(radius, above * (1 + step)) - disc.potential(radius, above * (1 - step))) / (2 * step * above)
    assert outward == pytest.approx(across, rel=0.03) and upward == pytest.approx(along, rel=0.03)


def test_far_away_a_disc_is_a_point():
    radius, above = np.array([30.0, 90.0]), np.array([40.0, 120.0])
    outward, upward = THICK.gradient(radius, above)
    distance = np.hypot(radius, above)
    assert THICK.potential(radius, above) == pytest.approx(-GRAVITY * 5e10 / distance, rel=0.01)
    assert outward / radius == pytest.approx(GRAVITY * 5e10 / distance**3, rel=0.02)
    assert upward / above == pytest.approx(GRAVITY * 5e10 / distance**3, rel=0.02)
    with pytest.raises(DomainError, match="mass, scale and height must be positive, got -1, 3, 1"):
        DiscField(-1.0, 3.0, 1.0)


def test_a_hernquist_bulges_dispersion_is_hernquists():
    """Hernquist (1990), eq. 10."""
    galaxy = bare(bulge_mass=1e11, bulge_scale=2.0, bulge_edge=1e4)
    x = np.array([0.05, 0.3, 1.0, 4.0, 20.0])
    exact = GRAVITY * 1e11 / 24.0 * (12 * x * (1 + x) ** 3 * np.log1p(1 / x) - x / (1 + x) * (25 + 52 * x + 42 * x**2 + 12 * x**3))
    squared = galaxy.sphere_dispersion(lambda r: hernquist(r / 2.0, 1e4))
    assert np.interp(2.0 * x, galaxy.radius, squared) == pytest.approx(exact, rel=0.01)


def test_the_potential_of_spheres_is_theirs():
    galaxy = bare(bulge_mass=1e11, bulge_scale=2.0, bulge_edge=1e4, black_hole_mass=1e9)
    position = np.array([[0.3, 0.2, -0.1], [4.0, -3.0, 12.0], [3e4, 0.0, 1e4]])
    distance = np.linalg.norm(position, axis=1)
    exact = -GRAVITY * (1e11 / (distance + 2.0) + 1e9 / distance)
    assert galaxy.potential(position) == pytest.approx(exact, rel=2e-3)
    assert galaxy.escape_speed(position) == pytest.approx(np.sqrt(-2 * exact), rel=1e-3)
    pull = GRAVITY * (1e11 * (distance / (distance + 2.0)) ** 2 + 1e9) / distance**3
    assert galaxy.acceleration(position)[:2] == pytest.approx(-position[:2] * pull[:2, None], rel=2e-3)


def test_a_disc_keeps_its_thickness_and_balances():
    """In a disc alone ``sigma_z^2 = pi G Sigma z0`` within the part that its radial forces add; the drift is positive everywhere."""
    motion = bare(disc_mass=4e10, disc_height=0.3).disc_motion(3.0, 0.3, heating=1.2)
    middle = (motion.radius > 3.0) & (motion.radius < 9.0)
    own = np.pi * GRAVITY * 4e10 / (2 * np.pi * 9.0) * np.exp(-motion.radius / 3.0) * 0.3
    assert motion.upward[middle] == pytest.approx(own[middle], rel=0.1)
    assert motion.outward[middle] == pytest.approx(1.44 * motion.upward[middle])
    assert (motion.rotation <= motion.circular).all() and (motion.rotation[middle] > 0.5 * motion.circular[middle]).all()
    assert (motion.around <= motion.outward).all()


def test_a_disc_in_a_halo_satisfies_the_radial_jeans_equation():
    """``d(Sigma sigma_R^2)/dR + Sigma (sigma_R^2 - <v_phi^2>)/R + Sigma v_c^2/R = 0``, by finite differences of the result."""
    motion = Galaxy(model()).disc_motion(3.0, 0.9, heating=1.2)
    density = np.exp(-motion.radius / 3.0)
    pressure = np.gradient(density * motion.outward, motion.radius)
    rest = pressure + density * (motion.outward - motion.rotation - motion.around + motion.circular) / motion.radius
    middle = (motion.radius > 2.0) & (motion.radius < 20.0)
    assert np.abs(rest / (density * motion.circular / motion.radius))[middle].max() < 0.01


def test_one_galaxy_at_a_time():
    two = MassModel(**{name: np.repeat(value, 2) for name, value in vars(model()).items()})
    with pytest.raises(DomainError, match="one galaxy at a time has a potential, got 2"):
        Galaxy(two)
