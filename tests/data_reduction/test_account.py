"""The lines that a reduction ends with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage import cli
from supermage.data_reduction.account import account, beam_width, cautions
from supermage.data_reduction.images import dirty_cube
from supermage.data_reduction.reduce import reduce
from tests.data_reduction.factories import make_gridded
from tests.data_reduction.test_reduce import make_recipe

BLOCK = {"visibilities": 1000, "flagged": 30, "unweighted": 1, "beyond_grid": 200,
         "noise_scale": 1.0, "noise_estimator": "difference of hands", "spread_of_baselines": 0.021, "spread_in_time": 0.0,
         "weights_corrected": False}


def facts(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"channel_response": "RESOLUTION is 2.000 channel widths", "resolution_over_width": 2.0, "left_out": [],
            "blocks": [{**BLOCK, **block} for block in blocks], **changes}


def test_three_lines_say_what_was_assumed_and_found() -> None:
    gridded = make_gridded(n_channel=12, n_cell=40).replace(hanning=True, averaging=1)
    lines = account(gridded.replace(provenance=facts({}, {"noise_scale": 4.0, "flagged": 70}, left_out=["another"])))
    assert lines == [
        "channels: Hanning, averaging 1 (RESOLUTION is 2.000 channel widths); 12 in 2 blocks, 1 more without the line",
        "noise: variance 1 to 4 times 1/weight, by difference of hands; "
        "5 % flagged, 0.1 % left out for want of a weight, 20 % beyond the grid",
        "weights: sigma departs from them by 2.1 % between baselines and 0 % in time"]
    for changes, words in (({"weights_corrected": True, "spread_in_time": 0.2}, "20 % in time; corrected"),
                           ({"spread_in_time": 0.2}, "20 % in time; left as they are"),
                           ({"spread_of_baselines": None}, "from them by 0 % in time"),
                           ({"spread_of_baselines": None, "spread_in_time": None}, "not to be judged")):
        assert words in account(gridded.replace(provenance=facts(changes)))[2]
    assert "variance 1.02 times 1/weight" in account(gridded.replace(provenance=facts({"noise_scale": 1.0201})))[1]


@pytest.fixture
def _one_baseline_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.reduce.LEAST_CELLS", 1)


EXACT = "RESOLUTION equals the channel width exactly"
READ, GIVEN = "RESOLUTION is so many channel widths", "given in the recipe"


@pytest.mark.parametrize(("ratio", "words", "hanning", "averaging", "start"), [
    (1.0, READ, False, 1, EXACT), (1.0003, READ, False, 1, ""), (2.0, READ, True, 1, ""), (1.0, GIVEN, True, 1, ""),
    (0.0, GIVEN, True, 1, ""),
    (2.0, GIVEN, True, 1, ""), (1.156, GIVEN, True, 2, ""), (1.005, GIVEN, True, 4, ""), (1.207, GIVEN, False, 1, ""),
    (2.0, GIVEN, False, 1, "the recipe's no smoothing, averaging 1, would resolve 1.21 channel widths, but RESOLUTION is 2.00: "),
    (2.0, GIVEN, True, 2, "the recipe's Hanning, averaging 2, would resolve 1.16 channel widths, but RESOLUTION is 2.00: "),
    (1.156, GIVEN, True, 1, "the recipe's Hanning, averaging 1, would resolve 2.00 channel widths, but RESOLUTION is 1.16: ")])
def test_a_channel_response_that_is_doubtful_is_said(ratio: float, words: str, hanning: bool, averaging: int, start: str) -> None:
    gridded = make_gridded(n_channel=12, n_cell=40, pixel_scale=0.01, hanning=hanning, averaging=averaging)
    lines = [line for line in cautions(gridded.replace(provenance=facts({}, channel_response=words, resolution_over_width=ratio)))
             if "a pixel" not in line]
    assert len(lines) == bool(start)
    assert all(line.startswith(start) and "\n" not in line for line in lines)


def correlation(measured: float, error: float, expected: float) -> dict[str, Any]:
    return {"channel_correlation": {"measured": [1.0, measured], "standard_error": [0.0, error], "expected": [1.0, expected],
                                    "products": 1000, "estimator": "difference of hands"}}


def test_the_noise_of_neighbours_is_held_against_the_response() -> None:
    gridded = make_gridded(n_channel=12, n_cell=40)
    line = account(gridded.replace(provenance=facts({}, **correlation(0.661, 0.0042, 2 / 3))))[0]
    assert line.endswith("; 12 in 1 block; neighbours' noise correlates by 0.661 +- 0.0042, 0.667 expected")


@pytest.mark.parametrize(("changes", "start"), [
    (correlation(0.66, 0.01, 0.667), ""), (correlation(0.6, 0.02, 0.667), ""), (correlation(0.62, 0.001, 0.667), ""),
    (correlation(0.6, 0.01, 0.667), "neighbouring channels' noise correlates by 0.600 +- 0.01, but the channel response makes it 0.667: "),
    ({"channel_correlation": None}, ""),
    ({"regridded": True, "history": ["regridded to channels in LSRK (cvel)"], **correlation(0.66, 0.01, 0.667)},
     "the channels may not be the correlator's own (regridded to channels in LSRK (cvel)): their response was taken to be "
     "Hanning, averaging 1, which was fitted to the noise; "),
    ({"regridded": True, "history": ["a", "b"], "channel_correlation": None, "resolution_over_width": 1.0},
     "the channels may not be the correlator's own (a; b): their response was taken to be Hanning, averaging 1, which could not "),
    ({"regridded": True, "history": ["a"], "channel_response": GIVEN}, ""),
    ({"resolution_over_width": 1.0, **correlation(0.01, 0.001, 0.0)}, ""), ({"resolution_over_width": 1.0}, EXACT),
    ({"resolution_over_width": 1.0, **correlation(0.01, 0.03, 0.0)}, EXACT)])
def test_what_the_noise_says_of_the_response(changes: dict[str, Any], start: str) -> None:
    gridded = make_gridded(n_channel=12, n_cell=40, pixel_scale=0.01)
    lines = [line for line in cautions(gridded.replace(provenance=facts({}, **changes))) if "a pixel" not in line]
    assert len(lines) == bool(start)
    assert all(line.startswith(start) and "\n" not in line for line in lines)


@pytest.mark.parametrize(("n_pixel", "share"), [(32, 0.0), (128, 0.0), (128, 0.8)])
def test_the_beam_is_that_of_the_image(n_pixel: int, share: float) -> None:
    """Whatever the weights: the same cells in an image of finer pixels."""
    gridded = make_gridded(n_channel=4, n_cell=300, n_pixel=n_pixel)
    heavy = gridded.cell_u**2 + gridded.cell_v**2 < (0.2 * n_pixel) ** 2
    gridded = gridded.replace(standard_error=gridded.standard_error * np.where(heavy, 1.0 - share, 1.0))
    fine = gridded.replace(grid=dataclasses.replace(gridded.grid, n_pixel=8 * n_pixel, pixel_scale=gridded.grid.pixel_scale / 8))
    metres = gridded.grid.cell_size / fine.grid.cell_size
    assert metres == pytest.approx(1.0)
    assert beam_width(gridded) == pytest.approx(dirty_cube(fine).beam.minor, rel=0.02)
    assert beam_width(fine) == pytest.approx(beam_width(gridded))


def test_pixels_too_wide_for_the_beam_are_said() -> None:
    gridded = make_gridded(n_channel=4, n_cell=300, n_pixel=64).replace(provenance=facts({}))
    beam, scale = beam_width(gridded), gridded.grid.pixel_scale
    assert cautions(gridded) == (
        f"a pixel should be at most a third of the beam, {beam:.3g} / 3 = {beam / 3:.3g} arcsec, but reduce.grid.pixel_scale is {scale:g}",)
    few = int(np.ceil(5 * scale / beam))
    assert cautions(gridded.replace(grid=dataclasses.replace(gridded.grid, n_pixel=64 * few, pixel_scale=scale / few))) == ()


def test_one_cell_at_the_origin_has_no_beam() -> None:
    gridded = make_gridded(n_block=1, n_channel=4, n_cell=1)
    nowhere = gridded.replace(cell_u=0 * gridded.cell_u, cell_v=0 * gridded.cell_v, offset_mean=0 * gridded.offset_mean)
    assert beam_width(nowhere) == np.inf


@pytest.mark.usefixtures("_one_baseline_is_enough")
def test_the_alma_set(alma_set: Path, tmp_path: Path) -> None:
    gridded = reduce(make_recipe(tmp_path, alma_set))
    first, second, third = account(gridded)
    assert first.startswith("channels: Hanning, averaging 1 (RESOLUTION is 2.000 channel widths); ")
    assert second.startswith("noise: variance ") and second.endswith(" % beyond the grid")
    assert third.startswith("weights: sigma departs from them by ")
    (line,) = cautions(gridded)
    assert line.startswith("a pixel should be at most a third of the beam, ") and line.endswith(", but reduce.grid.pixel_scale is 1")


@pytest.mark.usefixtures("_one_baseline_is_enough")
def test_the_command_says_it(alma_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.account.cautions", lambda _: ("doubtful", "odd"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'''[galaxy]
name = "a galaxy"
distance = 100.0
rest_frequency = 115.2712018e9
[reduce]
measurement_set = "{alma_set}"
output = "out.nc"
velocity_range = [9931.5, 9944.0]
grid = {{n_pixel = 64, pixel_scale = 1.0}}
''', encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        cli.main(["reduce", str(recipe)])
    assert left.value.code == 0
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["channels", "noise", "weights", "gridded visibilities"]
    assert "supermage: warning: doubtful\nsupermage: warning: odd\n" in err
