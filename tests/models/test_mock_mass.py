from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from supermage.errors import DomainError
from supermage.models.mock_mass import (
    BARYON_FRACTION,
    GRAVITY,
    HUBBLE,
    MassModel,
    disc_in_sphere,
    half_mass_scale,
    hernquist,
    nfw,
    thin_disc,
    virial_radius,
)


def model(**changes: float) -> MassModel:
    numbers = {"disc_mass": 3e10, "disc_scale": 3.0, "disc_height": 0.9, "bulge_mass": 1e10, "bulge_scale": 0.8, "bulge_edge": 20.0,
               "gas_mass": 5e9, "gas_scale": 5.0, "hot_mass": 2e10, "halo_mass": 1.2e12, "concentration": 8.0, "halo_edge": 200.0,
               "response": 1.0, "black_hole_mass": 5e7} | changes  # fmt: skip
    return MassModel(**{name: np.array([value]) for name, value in numbers.items()})


@pytest.mark.parametrize("height", [0.06, 0.3, 0.77])
@pytest.mark.parametrize("x", [0.01, 0.3, 1.7, 5.0, 12.0])
def test_thick_discs_mass_within_spheres(x, height):
    def shell(radius: float) -> float:
        return radius * np.exp(-radius) * np.tanh(np.sqrt(x**2 - radius**2) / height)

    exact = integrate.quad(shell, 0.0, x, epsabs=0.0, epsrel=1e-9, limit=400)[0]
    assert disc_in_sphere(np.array([x]), np.array([height]))[0] == pytest.approx(exact, rel=3e-4)


def test_thick_disc_far_inside_and_beyond_the_table():
    """Near the centre the density is 1 / (4 pi h) e^-R: a mass x^3 / (3 h) to first order."""
    height = np.array([0.3])
    assert disc_in_sphere(np.array([1e-5]), height)[0] == pytest.approx(1e-15 / 0.9, rel=2e-3)
    assert disc_in_sphere(np.array([1e4]), height)[0] == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(DomainError, match=r"height must lie in \[0.05, 0.8\] scale lengths, got 0.9"):
        disc_in_sphere(np.array([1.0]), np.array([0.9]))


def test_spheres_are_integrals_of_their_densities():
    sphere = integrate.quad(lambda r: 4 * np.pi * r**2 / (2 * np.pi * r * (1 + r) ** 3), 0.0, 1.7)[0]
    assert hernquist(np.array([1.7]))[0] == pytest.approx(sphere)
    assert hernquist(np.array([0.5, 4.0, 9.0]), 4.0) == pytest.approx(np.array([(1 / 3) ** 2 / 0.64, 1.0, 1.0]))
    for x in (1e-5, 9.9e-4, 1.01e-3, 0.1, 10.0):
        exact = integrate.quad(lambda r: r / (1 + r) ** 2, 0.0, x, epsabs=0.0)[0]
        assert nfw(np.array([x]))[0] == pytest.approx(exact, rel=1e-8)
    assert thin_disc(np.array([2.0]))[0] == pytest.approx(integrate.quad(lambda r: r * np.exp(-r), 0, 2)[0])


def test_virial_radius_holds_200_times_the_critical_density():
    radius = virial_radius(np.array([1e12]))[0]
    density = 1e12 / (4 / 3 * np.pi * radius**3)
    assert density * 8 * np.pi * GRAVITY / 3 == pytest.approx(200 * (HUBBLE / 1000) ** 2)


def test_the_halo_without_an_answer_is_nfw_and_with_one_follows_cautun():
    radius = np.array([[1.0, 8.0, 60.0]])
    still, moved = model(response=0.0), model()
    whole = 1.2e12 * nfw(radius * 8.0 / still.halo_radius[0]) / nfw(np.array([8.0]))
    assert still.dark_matter(radius) == pytest.approx((1 - BARYON_FRACTION) * whole)
    eta = (still.stars(radius) + still.cold_gas(radius) + still.hot_gas(radius)) / (BARYON_FRACTION * whole)
    assert moved.dark_matter(radius) / still.dark_matter(radius) == pytest.approx(0.45 + 0.38 * (eta + 1.16) ** 0.53)
    assert moved.dark_matter(radius)[0, 0] > 1.5 * still.dark_matter(radius)[0, 0]
    assert model(response=1.5).dark_matter(radius)[0, 0] > moved.dark_matter(radius)[0, 0]


def test_tides_cut_the_halo_and_the_hot_gas():
    cut = model(halo_edge=30.0)
    inside, outside = np.array([[10.0, 30.0]]), np.array([[31.0, 500.0]])
    assert np.array_equal(cut.dark_matter(inside), model().dark_matter(inside))
    for part in (cut.dark_matter, cut.hot_gas):
        assert part(outside) == pytest.approx(np.full((1, 2), part(np.array([[30.0]]))[0, 0]))


def test_components_add_up():
    galaxy, radius = model(), np.array([[0.1, 3.0, 100.0]])
    parts = galaxy.components(radius)
    assert galaxy.total(radius) == pytest.approx(sum(parts.values()) + 5e7)
    assert galaxy.stars(radius) == pytest.approx(parts["disc"] + parts["bulge"])
    assert galaxy.stars(np.array([[1e4]])) == pytest.approx(4e10, rel=1e-5)


@settings(max_examples=60)
@given(
    stars=st.floats(8.0, 12.0), share=st.floats(0.02, 0.98), size=st.floats(-0.5, 1.5), halo=st.floats(10.0, 14.5),
    concentration=st.floats(2.0, 40.0), response=st.floats(0.0, 1.8), height=st.floats(0.06, 0.75),
)  # fmt: skip
def test_no_mass_falls_outwards(stars, share, size, halo, concentration, response, height):
    scale = 10.0**size
    galaxy = model(disc_mass=share * 10**stars, bulge_mass=(1 - share) * 10**stars, disc_scale=scale, disc_height=height * scale,
                   bulge_scale=0.3 * scale, gas_scale=2 * scale, halo_mass=10**halo, concentration=concentration, response=response,
                   halo_edge=float(virial_radius(np.array([10**halo]))[0]))  # fmt: skip
    radius = np.geomspace(1e-3 * scale, 1e3 * scale, 300)[None]
    for name, mass in galaxy.components(radius).items():
        assert (np.diff(mass[0]) >= -1e-9 * mass[0, -1]).all(), name


@settings(max_examples=40)
@given(share=st.floats(0.02, 0.98), height=st.floats(0.06, 0.75), bulge=st.floats(0.05, 5.0), edge=st.floats(3.0, 50.0))
def test_half_of_the_stars_lie_within_the_half_mass_radius(share, height, bulge, edge):
    arguments = [np.array([value]) for value in (share, height, bulge, edge)]
    x = half_mass_scale(*arguments)
    inside = share * disc_in_sphere(x, arguments[1]) + (1 - share) * hernquist(x / bulge, edge)
    assert inside[0] == pytest.approx(0.5, abs=1e-6)


def test_parts_and_columns_of_a_model():
    two = MassModel(**{item.name: np.repeat(getattr(model(), item.name), 2) for item in fields(MassModel)})
    assert len(two) == 2 and len(two[:1]) == 1
    columns = {f"mock_{item.name}": getattr(two, item.name) for item in fields(MassModel)}
    assert np.array_equal(MassModel.from_columns(columns).disc_mass, two.disc_mass)


@pytest.mark.parametrize(("change", "rule"), [({"disc_mass": -1.0}, "disc_mass must be finite and not negative"),
                                              ({"halo_mass": np.nan}, "halo_mass must be finite"),
                                              ({"response": 1.9}, "response of a halo must be at most 1.8")])  # fmt: skip
def test_masses_that_cannot_be(change, rule):
    with pytest.raises(DomainError, match=rule):
        model(**change)


def test_a_model_has_one_dimension():
    with pytest.raises(DomainError, match="one dimension"):
        replace(model(), disc_mass=np.ones((1, 1)))
