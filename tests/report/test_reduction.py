"""The report of a reduction: a mock from set to page, its verdict in words, its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from supermage import cli
from supermage.data_reduction.gridded import GriddedVisibilities, open_visibilities
from supermage.data_reduction.gridded_file import is_gridded
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.errors import DataError, DomainError
from supermage.recipe import Recipe
from supermage.report.reduction import reduction_report, verdict
from supermage.report.reduction_figures import FIGURES, Reduction
from tests.data_reduction import test_simulate
from tests.data_reduction.factories import make_gridded


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mock of two blocks, reduced: Hanning channels, a failing antenna, a bright line."""
    folder = tmp_path_factory.mktemp("reduction")
    truth = {**test_simulate.TRUTH, "Flux": 60.0}
    recipe = test_simulate.recipe(folder, array="alma.cycle6.3", minutes=0.5, noise=1e-3, truth=truth)
    simulate(recipe)
    recipe = Recipe.model_validate({
        **recipe.model_dump(), "reduce": {
            "measurement_set": "products/mock.ms", "output": "products/visibilities.nc", "grid": {"n_pixel": 64, "pixel_scale": 0.12},
            "velocity_range": (1075.0, 1410.0)}})  # fmt: skip
    reduce(recipe)
    return recipe.path("products/visibilities.nc")


def test_the_whole_page(reduced: Path, tmp_path: Path) -> None:
    page = reduction_report(reduced, output=tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    drawn = {path.stem for path in (tmp_path / "report/figures").glob("*.png")}
    assert drawn == {spec.name for spec in FIGURES} - {"noise-in-time"}  # half a minute is one stretch of time
    assert "<script" not in text and "http" not in text.replace("http-equiv", "") and text.count("data:image/png") == len(drawn)
    for words in ("READY", "2018-11-20", "difference of hands", "Hanning, averaging 1", "0.667 expected", "Antennas that lost most"):
        assert words in text
    with fits.open(tmp_path / "report/dirty-cube-line.fits") as units:
        assert units[0].header["SPECSYS"] == "LSRK" and units[0].data.shape[1:] == (64, 64)
    flux, mean = (fits.getdata(tmp_path / f"report/moment-{k}.fits") for k in (0, 1))
    assert np.nanargmax(flux) // 64 in range(28, 37) and np.nanmedian(mean) == pytest.approx(1241.0, abs=60.0)
    assert (tmp_path / "report/summary.txt").read_text(encoding="utf-8").startswith("READY")


def test_the_command_tells_the_two_kinds_apart(reduced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_gridded(reduced) and not is_gridded(tmp_path / "nothing.nc")
    with pytest.raises(SystemExit) as left:
        cli.main(["report", str(reduced), "--output", str(tmp_path / "one"), "--figure", "coverage"])
    assert left.value.code == 0 and (tmp_path / "one/figures/coverage.png").is_file()
    assert "coverage.png" in capsys.readouterr().out


def _with(gridded: GriddedVisibilities, **block: object) -> Reduction:
    facts = {**gridded.provenance, "blocks": [{**one, **block} for one in gridded.provenance["blocks"]]}
    return Reduction(Path("x.nc"), gridded.replace(provenance=facts))


def test_the_verdict_says_what_was_found(reduced: Path) -> None:
    gridded = open_visibilities(reduced)
    headline, reasons = verdict(Reduction(Path("x.nc"), gridded))
    assert headline == "READY" and "inverse variances to 10 %" in " ".join(reasons)
    exact = gridded.replace(provenance={**gridded.provenance, "resolution_over_width": 1.0, "channel_correlation": None})
    headline, reasons = verdict(Reduction(Path("x.nc"), exact))
    assert headline == "READY WITH CAUTIONS" and reasons[0].startswith("RESOLUTION equals the channel width exactly")
    words = " ".join(verdict(_with(gridded, noise_scale=3.0, spread_of_baselines=0.2, weights_corrected=True))[1])
    assert "not inverse variances: the noise was measured" in words and "by 20 % between baselines" in words and "; corrected" in words
    words = " ".join(verdict(_with(gridded, spread_of_baselines=None, spread_in_time=None))[1])
    assert "not to be judged" in words
    told = gridded.replace(provenance={**gridded.provenance, "history": ["mstransform regridded"], "continuum_order": 1})
    words = " ".join(verdict(Reduction(Path("x.nc"), told))[1])
    assert "mstransform regridded" in words and "order 1 was subtracted" in words


def test_what_cannot_be_reported_is_one_line(reduced: Path, tmp_path: Path) -> None:
    make_gridded().save(tmp_path / "bare.nc")
    with pytest.raises(DataError, match="without an account"):
        reduction_report(tmp_path / "bare.nc")
    with pytest.raises(DomainError, match="did you mean 'coverage'"):
        reduction_report(reduced, output=tmp_path / "r", figure="covrage")
    with pytest.raises(DomainError, match="could not measure"):
        reduction_report(reduced, output=tmp_path / "r", figure="noise-in-time")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="a report must go to a new folder"):
        reduction_report(reduced, output=tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("empty", [[4], [0, 1], [0, 1, 2, 3, 5, 6, 7]])
def test_channels_without_data(reduced: Path, tmp_path: Path, empty: list[int]) -> None:
    """The middle one, the edge, all but one: the page is drawn, and the FITS has NaN there."""
    gridded = open_visibilities(reduced)
    error = gridded.standard_error.copy()
    error[:, empty] = np.inf
    mean = np.where(np.isfinite(error), gridded.mean, 0.0)
    gridded.replace(standard_error=error, mean=mean).save(tmp_path / "holes.nc")
    reduction_report(tmp_path / "holes.nc", output=tmp_path / "report")
    data = fits.getdata(tmp_path / "report/dirty-cube.fits")
    assert [int(k) for k in np.flatnonzero(np.isnan(data).all(axis=(1, 2)))] == empty
