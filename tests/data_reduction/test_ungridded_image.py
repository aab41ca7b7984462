"""The dirty cube of the visibilities themselves against CASA's tclean, a direct sum, and the noise it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from supermage.data_reduction import ungridded_image
from supermage.data_reduction.calibrate import run_casatasks
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.data_reduction.ungridded_image import BlockImage, DirtyImager, combine_blocks
from supermage.errors import DataError
from supermage.recipe import Recipe
from tests.data_reduction import test_simulate
from tests.data_reduction.factories import make_gridded
from tests.data_reduction.test_gridding import make_chunk

PIXELS, SCALE = 64, 0.12


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Recipe of a mock that is simulated already: one block, an off-centre disc, a failing antenna."""
    folder = tmp_path_factory.mktemp("image")
    truth = {**test_simulate.TRUTH, "x": 0.8, "y": -0.5, "Flux": 20.0}
    recipe = test_simulate.recipe(folder, array="alma.cycle6.4", dates=("2018-11-20",), minutes=0.5, noise=1e-3, truth=truth)
    simulate(recipe)
    return Recipe.model_validate({
        **recipe.model_dump(), "reduce": {
            "measurement_set": "products/mock.ms", "output": "products/visibilities.nc", "image": "products/dirty.fits",
            "grid": {"n_pixel": PIXELS, "pixel_scale": SCALE}, "velocity_range": (1130.0, 1350.0), "reweigh": False}})  # fmt: skip


def test_equals_tclean_within_one_per_cent(observed: Recipe, tmp_path: Path) -> None:
    """Every channel, the whole image but for its westernmost column; 0.4 % was measured, near the edges, tclean's own aliasing."""
    gridded = reduce(observed)
    frequency = gridded.frequency[0]
    run_casatasks([{"task": "tclean", "arguments": {
        "vis": str(observed.path("products/mock.ms")), "imagename": "cube", "specmode": "cubedata", "nchan": len(frequency),
        "start": f"{frequency[0]:.3f}Hz", "width": f"{frequency[1] - frequency[0]:.3f}Hz", "imsize": [PIXELS, PIXELS],
        "cell": f"{SCALE}arcsec", "niter": 0, "weighting": "natural", "datacolumn": "data", "interpolation": "nearest",
        "restoration": False}}], tmp_path, tmp_path / "log")  # fmt: skip
    image = import_casatools().image()
    image.open(str(tmp_path / "cube.residual"))
    expected = image.getchunk()[:, :, 0, :].transpose(2, 1, 0)
    image.close()
    got = fits.getdata(observed.path("products/dirty.fits"))
    assert got.shape == expected.shape
    # ours has the phase centre in pixel n / 2 - 1 from the left, tclean in n / 2
    assert np.abs(got[:, :, :-1] - expected[:, :, 1:]).max() < 0.01 * np.abs(expected).max()
    centre = np.unravel_index(np.argmax(expected.sum(axis=0)), expected.shape[1:])
    assert abs(centre[1] - (PIXELS // 2 - 0.8 / SCALE)) < 3 and abs(centre[0] - (PIXELS // 2 - 0.5 / SCALE)) < 3


def test_sums_are_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks, transformed in parts, against a plain sum; a flagged hand takes its row away."""
    monkeypatch.setattr(ungridded_image, "MOST_BUFFERED", 70)
    rng = np.random.default_rng(1)
    grid, frequency = UVGrid(16, 0.5, 230e9), np.array([229.9e9, 230.1e9])
    chunks = [make_chunk(rng, rows=rows, n_channel=2) for rows in (20, 31, 5)]
    imager = DirtyImager(grid, frequency)
    for chunk in chunks:
        imager.add(chunk)
    found = imager.finish()
    east, north = np.meshgrid(grid.axis, grid.axis)
    for channel, nu in enumerate(frequency):
        image, total = np.zeros((16, 16)), 0.0
        for chunk in chunks:
            for row in range(chunk.uvw.shape[0]):
                weights = chunk.weight[row, channel].astype(float)
                if (weights == 0).any():
                    continue
                u, v = chunk.uvw[row, :2] * nu / 299792458.0 * np.pi / 648000.0
                image += weights.mean() * (chunk.data[row, channel].mean() * np.exp(2j * np.pi * (u * east + v * north))).real
                total += weights.mean()
        np.testing.assert_allclose(found.image[channel], image, atol=1e-5 * np.abs(image).max())
        assert found.weight[channel] == pytest.approx(total, rel=1e-6)
    assert found.beam[8, 8] == pytest.approx(found.weight.sum(), rel=1e-6)


def test_noise_is_that_of_the_image() -> None:
    """3000 visibilities of unequal hands, 30 images: rms within 10 % (5 standard errors of 30 x 60 independent values)."""
    rng = np.random.default_rng(2)
    grid, frequency = UVGrid(32, 0.5, 230e9), np.array([230e9])
    values = []
    for _ in range(30):
        chunk = make_chunk(rng, rows=3000, n_channel=1, extent=0.45 * 32 * grid.cell_size)
        noise = (rng.standard_normal((3000, 1, 2, 2)) @ [1.0, 1.0j]) / np.sqrt(np.where(chunk.weight > 0, chunk.weight, 1.0))
        imager = DirtyImager(grid, frequency)
        imager.add(type(chunk)(**{**chunk.__dict__, "data": np.where(chunk.weight > 0, noise, 0.0).astype(np.complex64)}))
        one = imager.finish()
        values.append(one.image[0] / np.sqrt(one.variance[0]))
    assert np.std(values) == pytest.approx(1.0, abs=0.1)


def test_blocks_are_weighed_by_their_noise_and_placed_by_frequency() -> None:
    """Two blocks, the second shifted by a channel and with four times the variance: sums by hand."""
    n, channels = 8, 4
    rng = np.random.default_rng(3)
    gridded = make_gridded(n_channel=channels, n_cell=30)
    frequency = gridded.frequency.copy()
    frequency[1] = frequency[0] * gridded.topo_to_frame[0] / gridded.topo_to_frame[1] + gridded.channel_width[0]
    gridded = gridded.replace(frequency=frequency, provenance={"blocks": [{"noise_scale": 1.0}, {"noise_scale": 4.0}]})
    blocks = [BlockImage(rng.normal(size=(channels, n, n)), np.eye(n) * 3.0 + 1.0, np.full(channels, 2.0 + k), np.full(channels, 0.5))
              for k in range(2)]  # fmt: skip
    found = combine_blocks(blocks, gridded)
    first, second = (block.image for block in blocks)
    np.testing.assert_allclose(found.data[0], first[0] / 2.0)
    np.testing.assert_allclose(found.data[1], (first[1] + second[0] / 4.0) / (2.0 + 0.75))
    # the second block's last channel lies beyond the first's band and is nearest to its last
    np.testing.assert_allclose(found.data[3], (first[3] + (second[2] + second[3]) / 4.0) / (2.0 + 1.5))
    assert found.noise[1] == pytest.approx(np.sqrt(0.5 + 0.125) / 2.75)


def test_no_visibility_with_both_hands_is_one_line() -> None:
    gridded = make_gridded(n_channel=2, n_cell=30, n_block=1).replace(provenance={"blocks": [{"noise_scale": 1.0}]})
    empty = BlockImage(np.zeros((2, 8, 8)), np.zeros((8, 8)), np.zeros(2), np.zeros(2))
    with pytest.raises(DataError, match="both hands unflagged, got none"):
        combine_blocks([empty], gridded)
