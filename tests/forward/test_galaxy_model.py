"""The whole forward model against the ungridded oracle, in both modes of differentiation, and its refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from astropy import units
from scipy.special import ndtr

from supermage.constants import ARCSEC, CO_2_1_FREQUENCY, GRAVITATIONAL_CONSTANT, SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S, pc_per_arcsec
from supermage.data_reduction import sky
from supermage.errors import DomainError
from supermage.forward import galaxy_model
from supermage.forward.deprojection import nuker_circular_velocity
from supermage.forward.direct import direct_visibilities, transform
from supermage.forward.galaxy_model import GalaxyModel
from supermage.forward.mge import MGE
from supermage.forward.nuker import Nuker
from supermage.forward.velocity import exponential_disc_velocity_squared, nfw_velocity_squared
from supermage.models.nuker_mge import NukerSolve
from tests.mock_galaxy import TRUTH

Theta = Callable[..., dict[str, torch.Tensor]]
Make = Callable[..., object]
NAMES = ("scale_length", "log10_mbh", "inclination", "qintr", "alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb", "PA",
         "line_broadening", "systemic_velocity", "x", "y", "Flux")


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def oracle(mock: object, theta: dict[str, torch.Tensor], **sampling: int) -> np.ndarray:
    return mock.averaged(direct_visibilities(mock.model, theta, mock.u, mock.v, **sampling))


def test_oracle_is_a_plain_sum() -> None:
    rng = np.random.default_rng(1)
    position, values, u, v = rng.normal(size=(50, 2)), rng.normal(size=(2, 50)), rng.normal(size=30) * 500, rng.normal(size=30) * 500
    nu = np.array([230e9, 231e9])
    got = transform(position, values, u, v, nu)
    for channel in range(2):
        phase = np.outer(u, position[:, 0]) + np.outer(v, position[:, 1])
        expected = np.exp(-2j * np.pi * phase * ARCSEC * nu[channel] / SPEED_OF_LIGHT_M_S) @ values[channel]
        assert relative(got[channel], expected) < 1e-7


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PA": 203.0, "inclination": 85.0},
        {"PA": 311.0, "inclination": 35.0, "x": -0.4, "y": 0.3},
        {"log10_mbh": 9.5, "line_broadening": 2.0},
    ],
)
def test_visibilities_within_four_parts_in_a_thousand_of_the_direct_transform(mock, theta: Theta, changes: dict[str, float]) -> None:
    parameters = theta(**changes)
    assert relative(mock.model.visibilities(parameters).numpy(), oracle(mock, parameters)) < 4e-3


def test_uneven_flags_are_followed(make_mock: Make, theta: Theta) -> None:
    flagged = make_mock(flagged=True)
    assert flagged.model.channels_differ
    assert relative(flagged.model.visibilities(theta()).numpy(), oracle(flagged, theta(), rings=160, azimuths=768)) < 4e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_moments_of_single_channels_count_as_in_every_channel(make_mock: Make, theta: Theta, axis: int) -> None:
    """A second moment (uu, uv, vv) that one channel alone has adds what the Taylor series has: half the curvature, or the whole twist."""
    bare = make_mock(channels=6, width=100e6, n_pixel=16, pixel_scale=0.48, reach=6.0, spread=0.0, blocks=1).model
    size = bare.grid.cell_size
    second = np.broadcast_to(np.array([1e-4, 0.0, 1e-4]) * size**2, bare._settings["offset_second"].shape).copy()
    plain = GalaxyModel(bare.grid, **{**bare._settings, "offset_second": second.copy()})
    second[:, 3, :, axis] += 0.02 * size**2
    uneven = GalaxyModel(bare.grid, **{**bare._settings, "offset_second": second})
    assert uneven.channels_differ
    parameters = theta(x=0.3, y=-0.4)

    def at(u: float, v: float) -> np.ndarray:
        """Visibilities of channel 3 with every cell moved, in cells."""
        moved = np.broadcast_to(np.array([u, v]) * size, plain._settings["offset_mean"].shape).copy()
        products = np.stack([moved[..., 0] ** 2, moved[..., 0] * moved[..., 1], moved[..., 1] ** 2], axis=-1)
        model = GalaxyModel(plain.grid, **{**plain._settings, "offset_mean": moved, "offset_second": products})
        return model.visibilities(parameters).numpy()[:, 3]

    h = 0.2
    if axis == 1:
        curvature = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4.0 * h**2)
    else:
        step = (h, 0.0) if axis == 0 else (0.0, h)
        curvature = 0.5 * (at(*step) - 2.0 * at(0.0, 0.0) + at(-step[0], -step[1])) / h**2
    here = uneven.visibilities(parameters).numpy()
    added = here[:, 3] - plain.visibilities(parameters).numpy()[:, 3]
    assert relative(added, 0.02 * curvature) < 0.1
    others = [0, 1, 2, 4, 5]
    assert relative(here[:, others], plain.visibilities(parameters).numpy()[:, others]) < 1e-6


MUTATIONS = ["sign of u", "east and north swapped", "receding side", "conjugate", "no beam", "beam twice", "no offset"]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations_are_caught(make_mock: Make, theta: Theta, mutation: str) -> None:
    beam = {"dish_diameter": 40.0} if "beam" in mutation else {}
    mock = make_mock(channels=8, width=80e6, spread=0.3, **beam)
    truth = direct_visibilities(mock.model, theta(), mock.u, mock.v, rings=120, azimuths=512)
    assert relative(mock.model.visibilities(theta()).numpy(), mock.averaged(truth)) < 4e-3
    if mutation in ("sign of u", "east and north swapped"):
        u, v = (-mock.u, mock.v) if mutation == "sign of u" else (mock.v, mock.u)
        wrong = mock.averaged(direct_visibilities(mock.model, theta(), u, v, rings=120, azimuths=512))
    elif mutation == "receding side":
        wrong = mock.model.visibilities(theta(PA=67.0 + 180.0)).numpy()
    elif mutation == "conjugate":
        wrong = np.conj(mock.averaged(truth))
    elif mutation == "no offset":
        wrong = mock.model.visibilities(theta(x=0.0, y=0.0)).numpy()
    else:
        other = make_mock(channels=8, width=80e6, spread=0.3, dish_diameter=None if mutation == "no beam" else 40.0 * np.sqrt(2))
        wrong = other.model.visibilities(theta()).numpy()
    assert relative(wrong, mock.averaged(truth)) > 1e-2


def test_off_centre_galaxy_in_a_steep_beam(make_mock: Make, theta: Theta) -> None:
    mock = make_mock(channels=8, width=80e6, spread=0.3, dish_diameter=50.0)
    parameters = theta(x=0.9, y=-0.8)
    assert relative(mock.model.visibilities(parameters).numpy(), oracle(mock, parameters, rings=120, azimuths=512)) < 3e-3


def test_both_half_planes_are_one(mock, theta: Theta) -> None:
    here = direct_visibilities(mock.model, theta(), mock.u, mock.v, rings=40, azimuths=64)
    there = direct_visibilities(mock.model, theta(), -mock.u, -mock.v, rings=40, azimuths=64)
    assert relative(np.conj(there), here) < 1e-6


def test_total_flux_and_flux_out_of_band(mock, make_mock: Make, theta: Theta) -> None:
    def total(model) -> float:
        edges = model.channels.edges[0]
        origin = np.flatnonzero((np.asarray(model._settings["cell_u"]) == 0) & (np.asarray(model._settings["cell_v"]) == 0))[0]
        return float(np.abs(model.visibilities(theta()).numpy()[0, :, origin].sum()) * np.abs(np.diff(edges)).mean())

    wide = make_mock(dish_diameter=None, spread=0.0)
    assert total(wide.model) == pytest.approx(2.0, rel=0.01)
    narrow = make_mock(dish_diameter=None, spread=0.0, width=13e6)
    assert total(narrow.model) < 0.8


@pytest.mark.parametrize(("dish", "factor", "width"), [(12.0, 1.13, 25.36), (12.0, 1.2, 26.93), (25.0, 1.13, 12.17)])
def test_width_of_the_primary_beam(make_mock: Make, theta: Theta, dish: float, factor: float, width: float) -> None:
    """FWHM of 1.13 lambda / D: 25.4 arcsec for 12 m at 229.6 GHz; a small disc half a width away has half its flux in every model."""
    options = {"channels": 4, "width": 150e6, "n_pixel": 16, "pixel_scale": 0.48, "reach": 4.0, "blocks": 1, "spread": 0.0}
    with_beam = make_mock(**options, dish_diameter=dish, primary_beam_factor=factor).model
    assert with_beam.beam_deviation * 2.0 * math.sqrt(2.0 * math.log(2.0)) == pytest.approx(width, rel=2e-3)
    without = make_mock(**options, dish_diameter=None).model
    parameters = theta(scale_length=0.1, x=0.3 * width, y=-0.4 * width)
    got, whole = with_beam.visibilities(parameters).abs().sum(), without.visibilities(parameters).abs().sum()
    assert float(got / whole) == pytest.approx(0.5, abs=2e-3)


def test_cube_and_visibilities_are_one_model(make_mock: Make, theta: Theta) -> None:
    mock = make_mock(n_pixel=128, pixel_scale=0.06, channels=20, width=31.25e6, blocks=1, spread=0.0, dish_diameter=30.0)
    model = mock.model
    parameters = theta(scale_length=0.4, x=0.25, y=-0.15)
    cube = model.cube(parameters).numpy()
    axis = model.grid.axis * ARCSEC
    u, v = (np.asarray(model._settings[name]) * model.grid.cell_size for name in ("cell_u", "cell_v"))
    for channel in (6, 10, 14):
        wavelength = SPEED_OF_LIGHT_M_S / model.channels.frequency[0, channel]
        east, north = (np.exp(-2j * np.pi * np.outer(item, axis) / wavelength) for item in (u, v))
        width = model.grid.pixel_scale * ARCSEC / wavelength
        expected = np.einsum("ny,yx,nx->n", north, cube[0, channel], east) / (np.sinc(u * width) * np.sinc(v * width))
        assert relative(model.visibilities(parameters).numpy()[0, channel], expected) < 1e-2


def test_derivatives_forward_reverse_and_numerical(make_mock: Make, theta: Theta) -> None:
    model = make_mock(channels=5, width=120e6, n_pixel=16, pixel_scale=0.48, reach=5.0).model
    base = torch.stack(list(theta().values()))

    def flat(vector: torch.Tensor) -> torch.Tensor:
        return 1e3 * torch.view_as_real(model.visibilities(dict(zip(NAMES, vector.unbind())))).flatten()

    jacobian = torch.func.jacfwd(flat)(base)
    step = 1e-4
    for column in range(15):
        tangent = torch.zeros(15, dtype=torch.float64)
        tangent[column] = 1.0
        numerical = (flat(base + step * tangent) - flat(base - step * tangent)) / (2 * step)
        assert float((numerical - jacobian[:, column]).norm()) < 1e-5 * float(jacobian[:, column].norm()) + 1e-7
    weight = torch.randn(jacobian.shape[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaf = base.clone().requires_grad_()
    (flat(leaf) * weight).sum().backward()
    assert leaf.grad.numpy() == pytest.approx((weight @ jacobian).numpy(), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_chains_can_be_batched(make_mock: Make, theta: Theta, dtype: torch.dtype) -> None:
    model = make_mock(channels=5, width=120e6, n_pixel=16, pixel_scale=0.48, reach=5.0, dtype=dtype).model
    base = torch.stack(list(theta().values()))
    chains = base + 1e-3 * torch.randn(3, 15, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def energy(vector: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(model.visibilities(dict(zip(NAMES, vector.unbind())))).double().square().sum()

    together = torch.func.vmap(torch.func.grad(energy))(chains)
    for chain, gradient in zip(chains, together):
        assert gradient.numpy() == pytest.approx(torch.func.grad(energy)(chain).numpy(), rel=1e-3, abs=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("small", [0, 10**9])
def test_chains_together_are_each_alone(make_mock: Make, theta: Theta, monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    """One after the other, and in one vmapped pass."""
    monkeypatch.setattr(galaxy_model, "SMALL", small)
    model = make_mock(channels=5, width=120e6, n_pixel=16, pixel_scale=0.48, reach=5.0).model
    chains = {name: value + torch.tensor([0.0, 1e-3], dtype=torch.float64) for name, value in theta().items()}
    together = model.visibilities_of_chains(chains)
    assert together.shape[0] == 2 and model.table_rows(chains["inclination"]) < model.transform.rows
    for number in range(2):
        alone = {name: value[number] for name, value in chains.items()}
        assert torch.allclose(together[number], model.visibilities(alone), rtol=1e-12, atol=1e-14)
        every_row = model.visibilities(alone, rows=model.transform.rows)
        assert torch.allclose(every_row, together[number], rtol=1e-12, atol=1e-14)


def test_single_precision_is_enough(make_mock: Make, theta: Theta) -> None:
    single, double = (make_mock(dtype=dtype).model for dtype in (torch.float32, torch.float64))
    assert single.visibilities(theta()).dtype == torch.complex64
    assert relative(single.visibilities(theta()).numpy(), double.visibilities(theta()).numpy()) < 5e-6

    def gradient(model) -> torch.Tensor:
        leaves = {name: value.requires_grad_() for name, value in theta().items()}
        torch.view_as_real(model.visibilities(leaves)).double().square().sum().backward()
        return torch.stack([leaf.grad for leaf in leaves.values()])

    scale = gradient(double).abs().clamp(min=1e-4)
    assert float(((gradient(single) - gradient(double)) / scale).abs().max()) < 1e-3


CORNERS = [{}, {"inclination": 89.0, "line_broadening": 0.1, "log10_mbh": 9.79}, {"scale_length": 1e-6},
           {"scale_length": 10.0, "break_r": 0.41}, {"x": -1.0, "y": 1.0, "PA": 0.0},
           {"alpha": 0.1, "gamma": 1.2, "gamma_minus_beta": -3.0, "qintr": 0.1, "intensity_rb": 1.0}]


@pytest.mark.parametrize("changes", CORNERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_is_finite_inside_the_priors(make_mock: Make, theta: Theta, changes: dict[str, float], dtype: torch.dtype) -> None:
    model = make_mock(channels=6, width=100e6, n_pixel=16, pixel_scale=0.48, reach=6.0, dtype=dtype).model
    leaves = {name: value.requires_grad_() for name, value in theta(**changes).items()}
    visibilities = torch.view_as_real(model.visibilities(leaves))
    assert bool(torch.isfinite(visibilities).all())
    visibilities.square().sum().backward()
    assert all(bool(torch.isfinite(leaf.grad)) for leaf in leaves.values())


def test_discretisation_error_is_that_of_the_direct_transform(make_mock: Make, theta: Theta) -> None:
    """Coarse nodes, whose error is far above that of the table: the reported number is the error, to a fifth."""
    mock = make_mock(channels=8, width=80e6, spread=0.0, node_density=0.4)
    error = relative(mock.model.visibilities(theta()).numpy(), oracle(mock, theta()))
    assert error > 3e-3
    assert mock.model.discretisation_error(theta()) == pytest.approx(error, rel=0.2)


def test_discretisation_error_is_reported_and_small(make_mock: Make, theta: Theta) -> None:
    model = make_mock(dtype=torch.float32).model
    assert model.refined().node_radius.numel() > 3.5 * model.node_radius.numel()
    assert 1e-6 < model.discretisation_error(theta()) < 4e-3
    assert model.discretisation_error(theta(inclination=88.0)) < 4e-3


def test_velocity_components_add_up(mock, theta: Theta) -> None:
    model, radius = mock.model, torch.tensor([0.05, 0.5, 3.0], dtype=torch.float64)
    parts = [model.circular_velocity(theta(), radius, component) for component in ("black_hole", "stars")]
    assert (parts[0] ** 2 + parts[1] ** 2).numpy() == pytest.approx((model.circular_velocity(theta(), radius) ** 2).numpy())
    parsec = radius * pc_per_arcsec(11.4)
    assert (parts[0] ** 2).numpy() == pytest.approx((GRAVITATIONAL_CONSTANT * 10 ** TRUTH["log10_mbh"] / parsec).numpy())
    i, q = np.radians(76.0), 0.6
    weights = model.mass_model.emulator.weights(*(torch.tensor(item, dtype=torch.float64) for item in (2.0, 2.0, 0.8)))
    width = model.mass_model.emulator.width_ratio
    mge = MGE(weights * 10**4.35, width * 1.5 * pc_per_arcsec(11.4), float(np.hypot(q * np.sin(i), np.cos(i))))
    assert parts[1].numpy() == pytest.approx(mge.circular_velocity(parsec, inclination=76.0).numpy(), rel=1e-5)


def test_halo(make_mock: Make, theta: Theta) -> None:
    model = make_mock(halo="nfw", channels=4, width=150e6, reach=4.0).model
    parameters = {**theta(), "halo_log10_m200": torch.tensor(12.0), "halo_log10_c": torch.tensor(1.0)}
    radius = torch.tensor([1.0, 3.0], dtype=torch.float64)
    mass, concentration = (torch.tensor(item, dtype=torch.float64) for item in (1e12, 10.0))
    expected = nfw_velocity_squared(radius * pc_per_arcsec(11.4), mass, concentration)
    assert (model.circular_velocity(parameters, radius, "halo") ** 2).numpy() == pytest.approx(expected.numpy(), rel=1e-6)
    assert bool((model.circular_velocity(parameters, radius) > model.circular_velocity(parameters, radius, "stars")).all())
    assert bool(torch.isfinite(torch.view_as_real(model.visibilities(parameters))).all())


def test_gas_that_pulls(mock, theta: Theta) -> None:
    """Its own component, and part of the total; without the parameter there is none."""
    model, radius = mock.model, torch.tensor([0.1, 0.5, 3.0], dtype=torch.float64)
    parameters = {**theta(), "gas_log10_mass": torch.tensor(9.0, dtype=torch.float64)}
    mass, scale_length = (torch.tensor(item, dtype=torch.float64) for item in (1e9, 0.5 * pc_per_arcsec(11.4)))
    gas = exponential_disc_velocity_squared(radius * pc_per_arcsec(11.4), mass, scale_length)
    assert (model.circular_velocity(parameters, radius, "gas") ** 2).numpy() == pytest.approx(gas.numpy(), rel=1e-9)
    rise = model.circular_velocity(parameters, radius) ** 2 - model.circular_velocity(theta(), radius) ** 2
    assert rise.numpy() == pytest.approx(gas.numpy(), rel=1e-6)
    assert float(model.circular_velocity(theta(), radius, "gas").max()) == 0


@pytest.mark.parametrize("kappa", [-0.3, 0.2, 0.5])
def test_a_gradient_of_mass_to_light_is_a_power_of_the_radius(make_mock: Make, theta: Theta, kappa: float) -> None:
    """Density of the light times (R / r_b)^-kappa, and the velocity of that by direct deprojection; slopes small and large."""
    model = make_mock(emulator=NukerSolve(), channels=4, width=150e6, reach=4.0).model
    scale, q = pc_per_arcsec(11.4), 0.6
    radius = torch.logspace(-1.0, 0.7, 12, dtype=torch.float64)
    for alpha, gamma, difference in ((2.0, 0.31, 1.4), (0.5, 0.6, 0.4), (8.0, 0.32, 3.0)):
        parameters = theta(alpha=alpha, gamma=gamma, gamma_minus_beta=-difference, qintr=q)
        parameters["ml_gradient"] = torch.tensor(kappa, dtype=torch.float64)
        light = Nuker(alpha, gamma + difference, gamma, 1.5 * scale, 10**4.35).surface_density_at(radius * scale)
        mass = model.surface_density(parameters, radius)
        assert mass.numpy() == pytest.approx((light * (radius / 1.5) ** -kappa).numpy(), rel=1e-3)
        profile = Nuker(alpha, gamma + difference + kappa, gamma + kappa, 1.5 * scale, 10**4.35)
        exact = nuker_circular_velocity(radius.numpy() * scale, profile, intrinsic_axis_ratio=q, inclination=76.0)
        assert model.circular_velocity(parameters, radius, "stars").numpy() == pytest.approx(exact, rel=1e-3)


DOPPLER = ("radio", "optical")


@pytest.mark.parametrize("convention", DOPPLER)
def test_rotation_is_stretched_by_the_redshift(make_mock: Make, theta: Theta, convention: str) -> None:
    """Spectrum of the whole disc at 15000 km/s: twice the cube's width by hand, from the frequencies of the light in the galaxy."""
    systemic, width = 15000.0, 20e6
    ratio = 1.0 - systemic / SPEED_OF_LIGHT if convention == "radio" else 1.0 / (1.0 + systemic / SPEED_OF_LIGHT)
    frequency = CO_2_1_FREQUENCY * ratio + width * (np.arange(40) - 20.0)
    model = make_mock(channels=40, blocks=1, spread=0.0, dish_diameter=None, hanning=False, convention=convention,
                      frequency=frequency[None], topo_to_frame=np.ones(1)).model
    parameters = theta(systemic_velocity=systemic, inclination=60.0, x=0.0, y=0.0)
    origin = np.flatnonzero((np.asarray(model._settings["cell_u"]) == 0) & (np.asarray(model._settings["cell_v"]) == 0))[0]
    got = model.visibilities(parameters).numpy()[0, :, origin].real
    cube = model.cube(parameters)[0].sum((-2, -1)).numpy()
    # light of frequency nu_0 (1 - v / c) in the galaxy arrives at that over 1 + z: a line's own width too
    radius, azimuth = (np.asarray(item) for item in np.meshgrid(np.geomspace(1e-3, 6.0, 400), (np.arange(256) + 0.5) * np.pi / 128))
    speed = model.circular_velocity(parameters, torch.from_numpy(radius)).numpy() * math.sin(math.radians(60.0)) * np.cos(azimuth)
    edges = np.append(frequency, frequency[-1] + width) - 0.5 * width
    inside = SPEED_OF_LIGHT * (1.0 - edges / (CO_2_1_FREQUENCY * ratio))
    share = radius**2 * np.exp(-radius / 0.5)
    below = np.array([(share * ndtr((item - speed) / 10.0)).sum() for item in inside]) / share.sum()
    expected = -np.diff(below) / np.abs(np.diff(model.channels.edges[0])) * 2.0
    assert relative(got, expected) < 5e-3
    assert relative(cube, expected) < 2e-2
    moved = -np.diff([(share * ndtr((item - 0.95 * speed) / 9.5)).sum() for item in inside]) / share.sum()
    assert relative(moved / np.abs(np.diff(model.channels.edges[0])) * 2.0, expected) > 5e-2
    direct = direct_visibilities(model, parameters, np.zeros(1), np.zeros(1))[0, :, 0].real
    assert relative(direct, expected) < 5e-3


@pytest.mark.parametrize("systemic", [1241.0, 15000.0])
def test_the_independent_sky_of_the_simulator(make_mock: Make, theta: Theta, systemic: float) -> None:
    """Off the centre of the narrow beam of a 40 m dish."""
    theta_here = theta(systemic_velocity=systemic, x=1.2, y=-0.9)
    truth = {name: float(value) for name, value in theta_here.items()}
    nu = CO_2_1_FREQUENCY * (1 - systemic / SPEED_OF_LIGHT) / (1 + 2e-5) + 80e6 * (np.arange(8) - 4.0)
    mock = make_mock(emulator=NukerSolve(), channels=8, width=80e6, spread=0.5, blocks=1, frequency=nu[None], dish_diameter=40.0)
    nodes = sky.disc_nodes(truth, 11.4, radii=160, azimuths=512)
    broadening = float(sky.in_the_band(truth, np.array(10.0)))
    line = sky.channel_flux(nodes, nu, width=80e6, to_frame=1 + 2e-5, rest_frequency=CO_2_1_FREQUENCY, line_broadening=broadening)
    line = line * sky.primary_beam(nodes.east, nodes.north, float(nu.mean()), 40.0)
    uvw = np.stack([mock.u[0], mock.v[0], np.zeros_like(mock.u[0])], axis=-1)
    single = np.stack([sky.transform(nodes.east, nodes.north, line[k], uvw * f / SPEED_OF_LIGHT_M_S) for k, f in enumerate(nu)])
    assert relative(mock.model.visibilities(theta_here).numpy(), np.conj(mock.averaged(single[None]))) < 4e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [({"distance": -1.0}, "distance must be positive"), ({"halo": "isothermal"}, "'none' or 'nfw'"),
     ({"dish_diameter": 0.0}, "dish_diameter"), ({"rest_frequency": 230.538}, "GHz passed for Hz"),
     ({"convention": "optic"}, "'radio' or 'optical'")],
)
def test_bad_settings_are_refused(make_mock: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(DomainError, match=message):
        make_mock(channels=4, width=150e6, reach=4.0, **options)


BAD = [
    ({"scale_length": 0.0}, "scale_length must be positive"),
    ({"inclination": 90.0}, r"inclination must lie in \[0, 90\)"),
    ({"PA": math.nan}, "PA must be finite, got nan"),
    ({"x": math.inf}, "x must be finite, got inf"),
    ({"qintr": 1.01}, r"qintr must lie in \[0.05, 1\]"),
    ({"qintr": 0.0}, r"qintr must lie in \[0.05, 1\]"),
    ({"alpha": 10.1}, r"alpha must lie in \[0.1, 10\], the range the model was made for, got 10.1"),
    ({"gamma": 1.3}, r"^gamma must lie in \[0.001, 1.2\]"),
    ({"gamma": 0.9, "ml_gradient": 0.4}, r"gamma \+ ml_gradient must lie in \[0.001, 1.2\], the range the model was made for, got 1.3"),
    ({"gamma_minus_beta": -0.2}, r"beta - gamma must lie in \[0.3, 3\]"),
    ({"break_r": 50.0}, r"break_radius must lie in \[2, 2000\] pc"),
]


@pytest.fixture(scope="module")
def boxed(make_mock: Make) -> object:
    return make_mock(emulator=NukerSolve(), channels=4, width=150e6, n_pixel=16, pixel_scale=0.48, reach=4.0).model


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_parameters_are_refused(boxed, theta: Theta, changes: dict[str, float], message: str) -> None:
    for method in (boxed.visibilities, boxed.cube):
        with pytest.raises(DomainError, match=message) as caught:
            method(theta(**changes))
        assert "\n" not in str(caught.value)


def test_missing_parameters_are_named(boxed, theta: Theta) -> None:
    few = {name: value for name, value in theta().items() if name not in ("PA", "gamma")}
    with pytest.raises(DomainError, match=r"theta must hold every parameter of the model, got none named PA, gamma$"):
        boxed.visibilities(few)
    with pytest.raises(DomainError, match=r"got none named gamma$"):
        boxed.circular_velocity(few, 1.0)
    hole = {"log10_mbh": torch.tensor(8.0)}
    assert float(boxed.circular_velocity(hole, 1.0, "black_hole")) > 0
    with pytest.raises(DomainError, match=r"single number, got PA of shape \(2,\)"):
        boxed.visibilities({**theta(), "PA": torch.zeros(2)})


def test_edges_of_the_box_belong_to_it(boxed, theta: Theta) -> None:
    edge = theta(alpha=10.0, gamma=1.2, gamma_minus_beta=-3.0, qintr=1.0)
    single = {name: value.float() for name, value in edge.items()}
    for parameters in (edge, single):
        assert bool(torch.isfinite(boxed.circular_velocity(parameters, 1.0)))


def test_radii_are_checked_and_may_be_plain_numbers(boxed, theta: Theta) -> None:
    one, several = boxed.circular_velocity(theta(), 0.5), boxed.circular_velocity(theta(), [0.5, 2.0])
    assert one.shape == () and several.shape == (2,) and float(one) == pytest.approx(float(several[0]))
    for radius in (-1.0, math.nan, math.inf):
        for method in (boxed.circular_velocity, boxed.surface_density):
            with pytest.raises(DomainError, match=r"radius must be finite and not negative \(arcsec\), got"):
                method(theta(), radius)


def test_quantities_are_converted_or_refused(boxed, theta: Theta) -> None:
    with_units = {**theta(), "break_r": 1500.0 * units.mas, "inclination": math.radians(76.0) * units.rad, "log10_mbh": 8.0}
    got = boxed.circular_velocity.__wrapped__(boxed, with_units, 0.5 * units.arcsec)
    assert float(got) == pytest.approx(float(boxed.circular_velocity(theta(log10_mbh=8.0), 0.5)), rel=1e-12)
    with pytest.raises(DomainError, match=r"a quantity must convert to arcsec, got 5.0 pc$"):
        boxed.circular_velocity(theta(), 5.0 * units.pc)


class Outwards:
    """Gaussians whose inner parts push."""

    width_ratio = torch.tensor([0.05, 1.0], dtype=torch.float64)

    def weights(self, alpha: torch.Tensor, beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return torch.tensor([-50.0, 1.0], dtype=torch.float64)


def test_what_is_absent_is_zero_and_what_pushes_has_no_circular_velocity(make_mock: Make, boxed, theta: Theta) -> None:
    radius = torch.tensor([0.05, 0.5], dtype=torch.float64)
    assert boxed.circular_velocity(theta(), radius, "gas").tolist() == [0.0, 0.0]
    assert boxed.circular_velocity(theta(), radius, "halo").tolist() == [0.0, 0.0]
    pushing = make_mock(emulator=Outwards(), channels=4, width=150e6, n_pixel=16, pixel_scale=0.48, reach=4.0).model
    stars = pushing.circular_velocity(theta(), torch.tensor([0.05, 30.0], dtype=torch.float64), "stars")
    assert bool(torch.isnan(stars[0])) and float(stars[1]) > 0


def test_rows_that_do_not_reach_are_refused(boxed, theta: Theta) -> None:
    needed = boxed.table_rows(theta()["inclination"])
    boxed.visibilities(theta(), rows=needed)
    for rows in (needed - 1, boxed.transform.rows + 1, 2):
        with pytest.raises(DomainError, match=rf"rows must lie in \[{needed}, .*got {rows}"):
            boxed.visibilities(theta(), rows=rows)


def test_numbers_that_cannot_be_looked_at_never_leave_the_table(boxed, theta: Theta) -> None:
    """Under vmap nothing is refused: a position angle that is no number gives no number, and too few rows none where they end."""
    def run(angle: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        return torch.view_as_real(boxed.visibilities({**theta(), "PA": angle}, rows=rows))

    angles = torch.tensor([67.0, math.nan], dtype=torch.float64)
    good, bad = torch.func.vmap(run)(angles)
    assert torch.allclose(good, run(angles[0])) and bool(torch.isnan(bad).all())
    tilted = torch.tensor([76.0, 30.0])
    few = torch.func.vmap(lambda tilt: torch.view_as_real(boxed.visibilities({**theta(), "inclination": tilt}, rows=4)))(tilted)
    inner = boxed.position.norm(dim=-1) == boxed.position.norm(dim=-1).min()
    assert bool(torch.isnan(few).any()) and bool(torch.isfinite(few[0].movedim(1, -1)[inner.nonzero()[0, 0]]).any())


@pytest.mark.parametrize("scale_length", [0.3, 0.9, 1.5])
def test_a_disc_cut_off_is_part_of_the_discretisation_error(make_mock: Make, theta: Theta, scale_length: float) -> None:
    """Against a disc three times as large, which holds all the flux there is."""
    model = make_mock(channels=6, width=100e6, n_pixel=16, pixel_scale=0.48, reach=6.0, dish_diameter=None).model
    parameters = theta(scale_length=scale_length)
    whole = GalaxyModel(model.grid, **{**model._settings, "disc_extent": 2.1}).visibilities(parameters).numpy()
    cut = relative(model.visibilities(parameters).numpy(), whole)
    reported, finer = model.discretisation_error(parameters), GalaxyModel(model.grid, **{**model._settings, "node_density": 2.0})
    nodes = relative(model.visibilities(parameters).numpy(), finer.visibilities(parameters).numpy())
    assert reported == pytest.approx(math.hypot(nodes, cut), rel=0.35)
    if scale_length > 1.0:
        assert reported > 2.0 * nodes


def test_unknown_component_is_refused(mock, theta: Theta) -> None:
    with pytest.raises(DomainError, match="component must be one of"):
        mock.model.circular_velocity(theta(), torch.tensor([1.0]), "dust")
