"""Dirty images: a point source where it is, the beam, moments, and a FITS header that astropy's WCS agrees with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.constants import ARCSEC
from supermage.data_reduction.images import Beam, dirty_cube, fit_gaussian_beam, moment_maps, write_fits
from supermage.errors import DataError
from tests.data_reduction.factories import make_gridded, point_source


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (0.48, -0.36), (-0.72, 0.96)])
def test_a_point_source_lies_east_at_larger_x(east: float, north: float) -> None:
    gridded = make_gridded(noise=False, n_channel=4)
    image = dirty_cube(gridded, point_source(gridded, east, north, flux=3.0))
    n, scale = gridded.grid.n_pixel, gridded.grid.pixel_scale
    for plane in image.data:
        y, x = np.unravel_index(np.argmax(plane), plane.shape)
        assert (x, y) == (n // 2 + round(east / scale), n // 2 + round(north / scale))
        assert plane.max() == pytest.approx(3.0, rel=1e-6)
    assert image.beam_image[n // 2, n // 2] == pytest.approx(1.0, rel=1e-6)


def test_every_pixel_is_that_of_the_direct_sum() -> None:
    gridded = make_gridded(n_block=1, n_channel=3, n_cell=40)
    image = dirty_cube(gridded, fit_beam=False)
    u, v = gridded.uv_wavelengths()
    axis = gridded.grid.axis * ARCSEC
    phase = np.exp(2j * np.pi * (u[0, 1][:, None, None] * axis[None, None, :] + v[0, 1][:, None, None] * axis[None, :, None]))
    w = gridded.weight[0, 1]
    direct = np.einsum("k,kyx->yx", w * gridded.mean[0, 1], phase).real / w.sum()
    np.testing.assert_allclose(image.data[1], direct, atol=1e-6 * np.abs(direct).max())


def test_noise_of_the_image_is_as_expected() -> None:
    """40 seeds, centre pixel: the rms lies within 45 % (4 sigma) of the prediction but for 1 run in 10 000."""
    values = [dirty_cube(make_gridded(seed=seed, n_channel=2), fit_beam=False) for seed in range(40)]
    z = np.array([one.data[0, 16, 16] / one.noise[0] for one in values])
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.45)
    assert values[0].noise[0] == pytest.approx(6e-4 / np.sqrt(2), rel=0.05)


def test_empty_cells_do_not_enter() -> None:
    gridded = make_gridded()
    dirt = np.where(np.isfinite(gridded.standard_error), gridded.mean, 1e9)
    np.testing.assert_array_equal(dirty_cube(gridded, dirt).data, dirty_cube(gridded).data)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 1.0), st.floats(0.4, 0.95), st.floats(1.0, 179.0))
def test_beam_fit_recovers_a_gaussian(major: float, ratio: float, angle: float) -> None:
    axis = (np.arange(64) - 32) * 0.1
    x, y = np.meshgrid(axis, axis)
    a = np.radians(angle)
    along, across = x * np.sin(a) + y * np.cos(a), x * np.cos(a) - y * np.sin(a)
    image = np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / (ratio * major)) ** 2))
    beam = fit_gaussian_beam(image, 0.1)
    assert beam.major == pytest.approx(major, rel=1e-4)
    assert beam.minor == pytest.approx(ratio * major, rel=1e-4)
    assert abs((beam.position_angle - angle + 90) % 180 - 90) < 0.1


def test_moments_of_a_known_line() -> None:
    velocity = np.linspace(900.0, 1500.0, 121)
    line = np.exp(-0.5 * ((velocity - 1240.0) / 40.0) ** 2)
    cube = line[:, None, None] * np.array([[1.0, 2.0], [0.0, 5.0]])
    zeroth, first, second = moment_maps(cube, velocity)
    np.testing.assert_allclose(zeroth, np.array([[1, 2], [0, 5]]) * 40 * np.sqrt(2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(first[[0, 0, 1], [0, 1, 1]], 1240.0)
    np.testing.assert_allclose(second[[0, 0, 1], [0, 1, 1]], 40.0, rtol=1e-3)
    assert np.isnan(first[1, 0])
    assert np.isnan(moment_maps(cube, velocity, threshold=10.0)[1]).all()


def test_fits_header_places_the_source_on_the_sky(tmp_path: Path) -> None:
    gridded = make_gridded(noise=False, n_channel=4)
    image = dirty_cube(gridded, point_source(gridded, 0.72, -0.36))
    path = write_fits(tmp_path / "cube.fits", image.data, gridded, beam=image.beam, frequency=image.frequency)
    assert os.listdir(tmp_path) == ["cube.fits"]
    with fits.open(path) as hdus:
        header, data = hdus[0].header, hdus[0].data
    wcs = WCS(header)
    _, y, x = np.unravel_index(np.argmax(data), data.shape)
    place = wcs.celestial.pixel_to_world(x, y)
    centre = SkyCoord(*gridded.phase_centre, unit="deg")
    east, north = centre.spherical_offsets_to(place)
    assert east.to_value(units.arcsec) == pytest.approx(0.72, abs=1e-4)
    assert north.to_value(units.arcsec) == pytest.approx(-0.36, abs=1e-4)
    assert wcs.spectral.pixel_to_world(2).to_value("Hz") == pytest.approx(gridded.frame_frequency[0, 2], rel=1e-12)
    assert (header["SPECSYS"], header["RESTFRQ"], header["BUNIT"]) == ("LSRK", 230.538e9, "Jy/beam")
    assert header["RADESYS"] == "ICRS"
    assert "EQUINOX" not in header
    assert header["BMAJ"] * 3600 == pytest.approx(image.beam.major)
    assert header["BMAJ"] >= header["BMIN"] > 0


def test_a_map_without_a_spectral_axis(tmp_path: Path) -> None:
    gridded = make_gridded()
    path = write_fits(tmp_path / "map.fits", np.ones((32, 32)), gridded, unit="Jy/beam.km/s", beam=Beam(1.0, 0.5, 30.0))
    assert fits.getheader(path)["NAXIS"] == 2
    assert "CTYPE3" not in fits.getheader(path)


def test_wrong_shapes_and_places_are_refused(tmp_path: Path) -> None:
    gridded = make_gridded()
    with pytest.raises(DataError, match=r"must have the shape of the data \(2, 8, 120\), got \(3,\)"):
        dirty_cube(gridded, np.zeros(3, dtype=complex))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="a FITS file must go to a folder"):
        write_fits(tmp_path / "file" / "map.fits", np.ones((4, 4)), gridded)
