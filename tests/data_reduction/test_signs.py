"""Signs and geometry, once more from the outside: a point source that CASA itself predicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from scipy.optimize import least_squares

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.calibrate import run_casatasks
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.measurement_set import MeasurementSet
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.recipe import Recipe
from tests.data_reduction import test_simulate

EAST, NORTH, FLUX = 1.0, 2.0, 1.5


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A set whose DATA are what CASA's `ft` predicts of a point source at (+1", +2"), its weights as they were."""
    folder = tmp_path_factory.mktemp("signs")
    recipe = test_simulate.recipe(folder, array="alma.cycle6.3", dates=("2018-11-20",), minutes=1.0, noise=1e-3)
    simulate(recipe)
    path = recipe.path("products/mock.ms")
    tools = import_casatools()
    assert recipe.simulate is not None
    centre = SkyCoord(recipe.simulate.right_ascension, recipe.simulate.declination, frame="fk5")
    here = centre.spherical_offsets_by(EAST * units.arcsec, NORTH * units.arcsec)
    components = tools.componentlist()
    components.addcomponent(flux=FLUX, fluxunit="Jy", shape="point", dir=["J2000", f"{here.ra.rad}rad", f"{here.dec.rad}rad"],
                            spectrumtype="constant")  # fmt: skip
    components.rename(str(folder / "source.cl"))
    components.close()
    run_casatasks([{"task": "ft", "arguments": {"vis": str(path), "complist": str(folder / "source.cl"), "usescratch": True}}],
                  folder, folder / "log")  # fmt: skip
    table = tools.table()
    table.open(str(path), nomodify=False)
    rng = np.random.default_rng(1)
    model = table.getcol("MODEL_DATA")
    # a little noise, without which there is none to measure
    table.putcol("DATA", model + 1e-6 * (rng.standard_normal((*model.shape, 2)) @ [1.0, 1.0j]))
    table.close()
    return Recipe.model_validate({
        **recipe.model_dump(), "reduce": {
            "measurement_set": "products/mock.ms", "output": "products/visibilities.nc", "grid": {"n_pixel": 96, "pixel_scale": 0.12},
            "velocity_range": (1000.0, 1400.0)}})  # fmt: skip


def test_every_visibility_is_that_of_the_source(predicted: Recipe) -> None:
    with MeasurementSet(predicted.path("products/mock.ms")) as source:
        (block,) = source.blocks
        for chunk in source.chunks(block):
            per_metre = block.window.ascending_frequency / SPEED_OF_LIGHT_M_S
            angle = 2.0 * np.pi * ARCSEC * (chunk.uvw[:, 0] * EAST + chunk.uvw[:, 1] * NORTH)[:, None] * per_metre
            used = chunk.weight > 0
            expected = (FLUX * np.exp(-1j * angle))[..., None] * np.ones(2)
            assert np.abs(chunk.data - expected)[used].max() < 1e-4 * FLUX


def test_the_gridded_source_is_found_to_a_ten_thousandth(predicted: Recipe) -> None:
    """Flux and place from the cells' means, with the second-order Taylor terms of the in-cell moments."""
    gridded = reduce(predicted)
    per_metre = gridded.frequency[:, :, None] / SPEED_OF_LIGHT_M_S * ARCSEC * 2.0 * np.pi
    u, v = ((cell * gridded.grid.cell_size + gridded.offset_mean[..., axis]) * per_metre
            for axis, cell in enumerate((gridded.cell_u, gridded.cell_v)))  # fmt: skip
    mean, second = gridded.offset_mean, gridded.offset_second
    spread = [(second[..., k] - mean[..., i] * mean[..., j]) * per_metre**2 for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 1)))]
    good = np.isfinite(gridded.standard_error)

    def residual(point: np.ndarray) -> np.ndarray:
        flux, x, y = point
        fading = 1.0 - 0.5 * (spread[0] * x * x + 2.0 * spread[1] * x * y + spread[2] * y * y)
        difference = (gridded.mean - flux * fading * np.exp(-1j * (u * x + v * y)))[good]
        return np.concatenate([difference.real, difference.imag])

    flux, x, y = least_squares(residual, [1.0, 0.9, 2.1]).x
    assert (x, y) == (pytest.approx(EAST, abs=1e-4), pytest.approx(NORTH, abs=1e-4))
    assert flux == pytest.approx(FLUX, rel=2e-3)


def test_a_set_that_was_conjugated_is_not_the_same(predicted: Recipe, tmp_path: Path) -> None:
    """The mutation: conjugated data put the source on the other side."""
    copy = tmp_path / "copy.ms"
    shutil.copytree(predicted.path("products/mock.ms"), copy)
    table = import_casatools().table()
    table.open(str(copy), nomodify=False)
    table.putcol("DATA", np.conj(table.getcol("DATA")))
    table.close()
    with MeasurementSet(copy) as source:
        (block,) = source.blocks
        chunk = next(source.chunks(block))
    angle = 2.0 * np.pi * ARCSEC * (chunk.uvw[:, 0] * EAST + chunk.uvw[:, 1] * NORTH)[:, None] * block.window.ascending_frequency
    used = chunk.weight > 0
    right, wrong = ((FLUX * np.exp(sign * 1j * angle / SPEED_OF_LIGHT_M_S))[..., None] * np.ones(2) for sign in (-1, 1))
    assert np.abs(chunk.data - right)[used].max() > FLUX and np.abs(chunk.data - wrong)[used].max() < 1e-4 * FLUX
