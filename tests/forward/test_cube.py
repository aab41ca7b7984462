"""Channel integration against scipy; the cube's flux, centre, sense of rotation and convergence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate

from supermage.forward.cube import SkySampler, channel_flux

Theta = Callable[..., dict[str, torch.Tensor]]


def test_channels_hold_the_mean_of_the_gaussian() -> None:
    edges = np.array([[-30.0, -10.0, 10.0, 30.0]])
    matrix = np.zeros((1, 3, 4))
    for channel in range(3):
        matrix[0, channel, channel : channel + 2] = [-1 / 20, 1 / 20]
    velocity, deviation, flux = np.array([0.0, 7.0, 200.0]), np.array([8.0, 12.0, 5.0]), np.array([1.0, 2.5, 3.0])
    got = channel_flux(*(torch.tensor(item) for item in (edges, matrix, velocity, deviation, flux)))
    for node in range(3):
        def profile(v: float, n: int = node) -> float:
            return flux[n] * np.exp(-0.5 * ((v - velocity[n]) / deviation[n]) ** 2) / deviation[n] / np.sqrt(2 * np.pi)

        expected = [integrate.quad(profile, low, low + 20)[0] / 20 for low in (-30, -10, 10)]
        assert got[0, :, node].numpy() == pytest.approx(expected, abs=1e-9)
    assert float(got[0, :, 2].abs().max()) < 1e-12, "flux outside the band must be lost, not clamped into the edge channels"


def test_sampler_integrates_over_pixels() -> None:
    """A blob against the product of error functions, with few points where it is flat and many where it is steep."""
    axis = (np.arange(16) - 8) * 0.5
    sampler = SkySampler(axis, least=4)
    east0, north0, width = 0.3, -0.6, 0.25

    def log_brightness(east: torch.Tensor, north: torch.Tensor) -> torch.Tensor:
        return -((east - east0) ** 2 + (north - north0) ** 2).clamp(max=1.0) / (2 * width**2)

    def emission(east: torch.Tensor, north: torch.Tensor, step: float) -> torch.Tensor:
        return (torch.exp(-((east - east0) ** 2 + (north - north0) ** 2) / (2 * width**2)) * step**2)[None, None]

    counts = sampler.counts(lambda east, north: torch.zeros_like(east), log_brightness, 10.0)
    assert counts.min() == 4
    assert counts.max() > 12
    image = sampler.integrate(emission, counts, torch.zeros((), dtype=torch.float64))[0, 0].numpy()
    edge = np.append(axis - 0.25, axis[-1] + 0.25)
    from scipy.special import erf

    def part(centre: float) -> np.ndarray:
        return np.diff(erf((edge - centre) / (np.sqrt(2) * width))) * width * np.sqrt(np.pi / 2)

    assert image == pytest.approx(np.outer(part(north0), part(east0)), abs=2e-4)


def test_flux_centre_and_sense_of_rotation(make_mock: Callable, theta: Theta) -> None:
    model = make_mock(n_pixel=64, pixel_scale=0.12, channels=40, width=15.625e6, blocks=1, reach=10.0).model
    parameters = theta(x=0.4, y=-0.3, inclination=60.0, PA=30.0, scale_length=0.4)
    cube = model.cube(parameters, primary_beam=False)[0].numpy()
    edges = model.channels.edges[0]
    width = np.abs(np.diff(edges)).mean()
    assert cube.sum() * width == pytest.approx(2.0, rel=0.02)
    axis = model.grid.axis
    image = cube.sum(0)
    assert (image.sum(0) * axis).sum() / image.sum() == pytest.approx(0.4, abs=0.01)
    assert (image.sum(1) * axis).sum() / image.sum() == pytest.approx(-0.3, abs=0.01)
    velocity = 0.5 * (edges[1:-2] + edges[2:-1])
    red = cube[velocity > 1291].sum(0)
    receding = ((red.sum(0) * axis).sum() / red.sum() - 0.4, (red.sum(1) * axis).sum() / red.sum() + 0.3)
    assert np.degrees(np.arctan2(receding[0], receding[1])) == pytest.approx(30.0, abs=1.0)
    beam = model.cube(parameters)[0].numpy()
    assert 0.95 < beam.sum() / cube.sum() < 0.999


CONVERGED = [{}, {"inclination": 85.0, "line_broadening": 4.0}, {"log10_mbh": 7.3}, {"scale_length": 0.15},
             {"scale_length": 2.0, "line_broadening": 4.0, "log10_mbh": 8.8}]


@pytest.mark.parametrize("changes", CONVERGED)
def test_cube_is_converged(make_mock: Callable, theta: Theta, changes: dict[str, float]) -> None:
    """Less than 0.1 % of the flux in a wrong voxel and none off by 1 % of the peak, against 64 x 64 points everywhere."""
    options = {"n_pixel": 32, "pixel_scale": 0.12, "channels": 16, "width": 31.25e6, "blocks": 1, "reach": 10.0}
    reference = make_mock(**options, subpixels=64).model.cube(theta(**changes))
    cube = make_mock(**options).model.cube(theta(**changes))
    assert float((cube - reference).abs().sum() / 2 / reference.sum()) < 1e-3
    assert float((cube - reference).abs().max() / reference.max()) < 0.01


def test_cube_of_a_thin_sliver_is_converged(make_mock: Callable, theta: Theta) -> None:
    """Nearly edge-on the minor axis is a small part of a pixel: against 200 x 200 points everywhere."""
    options = {"n_pixel": 8, "pixel_scale": 0.12, "channels": 8, "width": 60e6, "blocks": 1, "reach": 4.0}
    parameters = theta(inclination=88.5, x=0.03, y=-0.05)
    reference = make_mock(**options, subpixels=200).model.cube(parameters)
    cube = make_mock(**options).model.cube(parameters)
    assert float((cube - reference).abs().sum() / 2 / reference.sum()) < 1e-3
    assert float((cube - reference).abs().max() / reference.max()) < 0.01
