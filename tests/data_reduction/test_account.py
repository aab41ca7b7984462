"""The lines that a reduction ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supermage import cli
from supermage.data_reduction.account import account, caution
from supermage.data_reduction.reduce import reduce
from tests.data_reduction.factories import make_gridded
from tests.data_reduction.test_reduce import make_recipe

BLOCK = {"visibilities": 1000, "flagged": 30, "unweighted": 1, "beyond_grid": 200,
         "noise_scale": 1.0, "noise_estimator": "difference of hands"}


def facts(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"channel_response": "RESOLUTION is 2.000 channel widths", "resolution_over_width": 2.0, "left_out": [],
            "blocks": [{**BLOCK, **block} for block in blocks], **changes}


def test_two_lines_say_what_was_assumed_and_found() -> None:
    gridded = make_gridded(n_channel=12, n_cell=40).replace(hanning=True, averaging=1)
    lines = account(gridded.replace(provenance=facts({}, {"noise_scale": 4.0, "flagged": 70}, left_out=["another"])))
    assert lines == [
        "channels: Hanning, averaging 1 (RESOLUTION is 2.000 channel widths); 12 in 2 blocks, 1 more without the line",
        "noise: variance 1 to 4 times 1/weight, by difference of hands; "
        "5 % flagged, 0.1 % left out for want of a weight, 20 % beyond the grid"]
    assert "variance 1.02 times 1/weight" in account(gridded.replace(provenance=facts({"noise_scale": 1.0201})))[1]


@pytest.mark.parametrize(("ratio", "words", "warned"), [
    (1.0, "RESOLUTION is 1.000 channel widths", True), (1.0003, "RESOLUTION is 1.000 channel widths", False),
    (1.0, "given in the recipe", False), (2.0, "RESOLUTION is 2.000 channel widths", False)])
def test_a_resolution_of_exactly_one_channel_is_doubted(ratio: float, words: str, warned: bool) -> None:
    gridded = make_gridded(n_channel=12, n_cell=40)
    line = caution(gridded.replace(provenance=facts({}, channel_response=words, resolution_over_width=ratio)))
    assert (line is not None) == warned
    assert line is None or "\n" not in line


def test_the_alma_set(alma_set: Path, tmp_path: Path) -> None:
    gridded = reduce(make_recipe(tmp_path, alma_set))
    first, second = account(gridded)
    assert first.startswith("channels: Hanning, averaging 1 (RESOLUTION is 2.000 channel widths); ")
    assert second.startswith("noise: variance ") and second.endswith(" % beyond the grid")
    assert caution(gridded) is None


def test_the_command_says_it(alma_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.account.caution", lambda _: "doubtful")
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
    assert [line.split(":")[0] for line in out.splitlines()] == ["channels", "noise", "gridded visibilities"]
    assert "supermage: warning: doubtful\n" in err
