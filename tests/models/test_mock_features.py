from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate

from supermage.models import dust
from supermage.models.features import features_of, intrinsic_features
from supermage.models.mock_features import BAND_SCATTER, DUST_SLOPE, WAVELENGTH, dimming, motions, other_bands, sersic_index
from supermage.models.mock_galaxy import make_galaxy
from supermage.models.mock_mass import GRAVITY, MassModel
from supermage.models.mock_population import draw_population
from supermage.models.mock_relations import Relations
from supermage.models.stellar_light import luminosities
from tests.models.test_mock_mass import model


def test_the_dispersion_of_all_particles_is_the_virial_theorems():
    """A bare Hernquist sphere has ``<v^2> = G M / 6 a``, whatever its orbits (Hernquist 1990, eq. 31)."""
    tiny = 1e-6
    sphere = model(disc_mass=tiny, gas_mass=tiny, hot_mass=tiny, halo_mass=tiny, black_hole_mass=0.0, bulge_mass=1e11, bulge_scale=2.0,
                   bulge_edge=1e3, halo_edge=2000.0)  # fmt: skip
    found = motions(sphere, np.array([2.0 * 2.414]), np.array([[0.5]]))
    assert found.sigma_3d1[0] == pytest.approx(np.sqrt(GRAVITY * 1e11 / 6 / 2.0 / 3), rel=0.03)
    assert found.b_t[0] == pytest.approx(1.0, abs=0.04) and found.lambda_r[0, 0] < 1e-3


def test_rows_say_what_is_measured_on_their_particles():
    """The features of five galaxies in three projections against `features_of` on 20 000 stars."""
    table = draw_population(5, 21, relations=Relations(log_mass_range=(9.5, 12.0), schechter_slope=-0.8), projections=3)
    close = {"sigma_v": (0.06, 0.0), "b_t": (0.0, 0.08), "f_cold": (0.0, 0.1), "f_hot": (0.0, 0.07), "lambda_r": (0.0, 0.16),
             "M_r": (0.0, 1e-3), "g_r": (0.0, 1e-3), "c_a": (0.6, 0.0)}  # fmt: skip
    for galaxy in range(5):
        particles = make_galaxy(table[3 * galaxy], n_star=20_000, n_dm=5000, n_gas=500, seed=2)
        light, shared = luminosities(particles.stars), intrinsic_features(particles)
        for axis in range(3):
            row = table[3 * galaxy + axis]
            measured = features_of(particles, axis, luminosity_r=light["r"], luminosity_g=light["g"], intrinsic=shared)
            for name, (relative, absolute) in close.items():
                assert row[name] == pytest.approx(measured[name], rel=relative, abs=absolute), name


def test_discs_seen_edge_on_turn_and_are_hotter_along_the_line_of_sight():
    disc = model(bulge_mass=1e9)
    found = motions(disc, np.array([5.0]), np.array([[0.0, 0.5, 1.0]]))
    assert (np.diff(found.lambda_r[0]) < 0).all() and (np.diff(found.sigma_v[0]) < 0).all() and found.lambda_r[0, 2] < 0.01
    bulge = motions(model(disc_mass=1e9, bulge_mass=4e10), np.array([5.0]), np.array([[0.0, 0.5, 1.0]]))
    assert (
        bulge.b_t[0] > found.b_t[0]
        and bulge.f_cold[0] < found.f_cold[0]
        and bulge.f_hot[0] > found.f_hot[0]
        and bulge.c_a[0] > found.c_a[0]
    )


def test_sersic_indices_grow_with_the_bulge():
    share = np.linspace(0.05, 1.0, 20)
    index = sersic_index(share, np.full(20, 30.0))
    assert (np.diff(index) < 0).all() and index[-1] == pytest.approx(0.89, abs=0.01) and index[0] > 2


def test_dust_dims_and_reddens_more_edge_on_and_never_without_gas():
    cosine = np.linspace(0.0, 1.0, 30)[None]
    dim = dimming(np.array([[20.0]]), np.array([[0.02]]), cosine)
    assert (np.diff(dim["r"]) < 0).all() and dim["r"][0, -1] > 0.02
    assert list(dim) == list("UBgVrizK") and all((dim[a] > dim[b]).all() for a, b in pairwise(dim)) and (dim["K"] > 0).all()
    none = dimming(np.array([[0.0]]), np.array([[0.02]]), cosine)
    assert max(np.abs(value).max() for value in none.values()) < 1e-6
    for band, longer in (("r", 1.0), ("K", 21900.0 / 6231.0)):
        tau = 0.2 * 2 * (0.02 / 0.0127) ** 1.6 / 1.11 * longer**-0.7
        slab = integrate.quad(lambda depth: np.exp(-depth), 0.0, tau)[0] / tau
        assert dim[band][0, -1] == pytest.approx(-2.5 * 0.43 * np.log10(slab)), band


def test_the_dust_goes_with_the_wavelength_as_in_front_of_particles():
    assert dust.STANDARD_LAW.slope == DUST_SLOPE
    assert all(WAVELENGTH[band] == value for band, value in dust.WAVELENGTH.items())


def test_other_bands_have_the_colours_of_galaxies():
    """Vega less AB of the Sun is -0.09 in B and 1.85 in K (Willmer 2018): B - K of an old galaxy lies near 4."""
    rng = np.random.default_rng(1)
    magnitude, colour = np.full(2000, -20.0), np.linspace(0.3, 0.8, 2000)
    bands = other_bands(magnitude, colour, np.full(2000, 0.02), rng)
    assert set(bands) == {"U", "B", "V", "K", "i", "z"}
    red = colour > 0.7
    assert 3.5 < np.mean(bands["B"] - bands["K"], where=red) < 4.5
    assert 0.7 < np.mean(bands["B"] - bands["V"], where=red) < 1.0
    order = ["B", "V", "i", "z", "K"]
    assert all((bands[a][red] > bands[b][red]).all() for a, b in pairwise(order))
    assert np.corrcoef(bands["V"] - bands["K"], colour)[0, 1] > 0.8


def test_bands_scatter_together():
    """Whitened residuals are 6 independent normals: 21 second moments of 4000 rows within 5 of their errors (1e-5 by chance)."""
    colour = np.full(4000, 0.6)
    bands = other_bands(np.zeros(4000), colour, np.full(4000, 0.02), np.random.default_rng(2))
    residual = np.stack(list(bands.values()), axis=1)
    white = np.linalg.solve(BAND_SCATTER, (residual - residual.mean(axis=0)).T)
    error = np.where(np.eye(6) > 0, np.sqrt(2.0), 1.0) / np.sqrt(4000)
    assert (np.abs(np.cov(white) - np.eye(6)) < 5 * error).all()
    assert np.std(bands["i"] - bands["z"]) < 0.7 * np.hypot(np.std(bands["i"]), np.std(bands["z"]))


def test_motions_of_many_are_motions_of_each():
    table = draw_population(6, 4)
    many = MassModel.from_columns(table)
    size, cosine = np.asarray(table["r_hsm"]), np.abs(np.asarray(table["mock_axis_x"]))[:, None]
    whole = motions(many, size, cosine)
    for i in range(6):
        one = motions(many[i : i + 1], size[i : i + 1], cosine[i : i + 1])
        assert one.sigma_v[0] == pytest.approx(whole.sigma_v[i]) and one.c_a[0] == pytest.approx(whole.c_a[i])
