"""The whole forward model against the ungridded oracle, in both modes of differentiation, and its refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from supermage.constants import ARCSEC, CO_2_1_FREQUENCY, GRAVITATIONAL_CONSTANT, SPEED_OF_LIGHT_M_S, pc_per_arcsec
from supermage.data_reduction import sky
from supermage.errors import DomainError
from supermage.forward.direct import direct_visibilities, transform
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
    assert relative(mock.model.visibilities(parameters).numpy(), oracle(mock, parameters, rings=160, azimuths=768)) < 4e-3


def test_uneven_flags_are_followed(make_mock: Make, theta: Theta) -> None:
    flagged = make_mock(flagged=True)
    assert flagged.model.channels_differ
    assert relative(flagged.model.visibilities(theta()).numpy(), oracle(flagged, theta(), rings=160, azimuths=768)) < 4e-3


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


def test_chains_together_are_each_alone(make_mock: Make, theta: Theta) -> None:
    model = make_mock(channels=5, width=120e6, n_pixel=16, pixel_scale=0.48, reach=5.0).model
    chains = {name: value + torch.tensor([0.0, 1e-3], dtype=torch.float64) for name, value in theta().items()}
    together = model.visibilities_of_chains(chains)
    assert together.shape[0] == 2 and model.table_rows(chains["inclination"]) < model.transform.rows
    for number in range(2):
        alone = {name: value[number] for name, value in chains.items()}
        assert torch.equal(together[number], model.visibilities(alone))
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
    assert float(model.circular_velocity(theta(), radius, "gas").max()) < 0.02


def test_a_gradient_of_mass_to_light_steepens_the_mass(mock, make_mock: Make, theta: Theta) -> None:
    """A profile of constant slope 1.1 becomes one of slope 1.3, times 2^0.1 Gamma(0.65) / Gamma(0.55) (closed form)."""
    shape = {"gamma": 0.9, "gamma_minus_beta": -0.4, "alpha": 0.1}
    radius = torch.logspace(-1.0, 0.7, 7, dtype=torch.float64)
    flat, steep = ({**theta(**shape), **extra} for extra in ({}, {"ml_gradient": torch.tensor(0.2, dtype=torch.float64)}))
    ratio = (mock.model.surface_density(steep, radius) / mock.model.surface_density(flat, radius)).numpy()
    expected = 2.0**0.1 * math.gamma(0.65) / math.gamma(0.55) * (radius.numpy() / 1.5) ** -0.2
    assert ratio == pytest.approx(expected, rel=0.03)
    exact = make_mock(emulator=NukerSolve(), channels=4, width=150e6, reach=4.0).model
    assert exact.surface_density(theta(), radius).numpy() == pytest.approx(
        Nuker(2.0, 2.0, 0.8, 1.5, 10**4.35).surface_density_at(radius).numpy(), rel=1e-5
    )
    speed = [mock.model.circular_velocity(item, radius, "stars") for item in (flat, steep)]
    assert bool((speed[1] > speed[0])[:2].all())


def test_the_independent_sky_of_the_simulator(make_mock: Make, theta: Theta) -> None:
    truth = {name: float(value) for name, value in theta().items()}
    mock = make_mock(emulator=NukerSolve(), channels=8, width=80e6, spread=0.5, blocks=1)
    nodes = sky.disc_nodes(truth, 11.4, radii=160, azimuths=512)
    nu = mock.model.channels.frequency[0]
    line = sky.channel_flux(nodes, nu, width=80e6, to_frame=1 + 2e-5, rest_frequency=CO_2_1_FREQUENCY, line_broadening=10.0)
    line = line * sky.primary_beam(nodes.east, nodes.north, float(nu.mean()), 12.0)
    uvw = np.stack([mock.u[0], mock.v[0], np.zeros_like(mock.u[0])], axis=-1)
    single = np.stack([sky.transform(nodes.east, nodes.north, line[k], uvw * f / SPEED_OF_LIGHT_M_S) for k, f in enumerate(nu)])
    assert relative(mock.model.visibilities(theta()).numpy(), np.conj(mock.averaged(single[None]))) < 4e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [({"distance": -1.0}, "distance must be positive"), ({"halo": "isothermal"}, "'none' or 'nfw'"),
     ({"dish_diameter": 0.0}, "dish_diameter"), ({"rest_frequency": 230.538}, "GHz passed for Hz"),
     ({"convention": "optic"}, "'radio' or 'optical'")],
)
def test_bad_settings_are_refused(make_mock: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(DomainError, match=message):
        make_mock(channels=4, width=150e6, reach=4.0, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"scale_length": 0.0}, "scale_length must be positive"), ({"inclination": 90.0}, r"inclination must lie in \[0, 90\)")],
)
def test_bad_parameters_are_refused(mock, theta: Theta, changes: dict[str, float], message: str) -> None:
    for method in (mock.model.visibilities, mock.model.cube):
        with pytest.raises(DomainError, match=message):
            method(theta(**changes))


def test_unknown_component_is_refused(mock, theta: Theta) -> None:
    with pytest.raises(DomainError, match="component must be one of"):
        mock.model.circular_velocity(theta(), torch.tensor([1.0]), "dust")
