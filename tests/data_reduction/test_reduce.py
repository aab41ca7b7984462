"""Measurement set to gridded visibilities, on the real sets and on one with a known sky."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.gridded import open_visibilities
from supermage.data_reduction.measurement_set_tables import read_fields
from supermage.data_reduction.reduce import reduce
from supermage.errors import DataError, RecipeError
from supermage.recipe import Recipe

Spoil = Callable[..., Path]
CO = 115.271202e9


def make_recipe(folder: Path, path: Path, *, rest_frequency: float = CO, velocity_range: tuple[float, float] = (9931.5, 9944.0),
                **changes: Any) -> Recipe:
    return Recipe.model_validate({
        "folder": folder, "galaxy": {"name": "test", "distance": 100.0, "rest_frequency": rest_frequency},
        "reduce": {"measurement_set": str(path), "output": "out/visibilities.nc", "grid": {"n_pixel": 64, "pixel_scale": 1.0},
                   "velocity_range": velocity_range, **changes}})


@pytest.fixture(autouse=True)
def _one_baseline_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real sets hold no more than one."""
    monkeypatch.setattr("supermage.data_reduction.reduce.LEAST_CELLS", 1)


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps = 0
        self.total = 0

    def start(self, what: str, total: int | None) -> None:
        self.lines.append(what)
        self.total += total or 0

    def advance(self, n: int = 1, note: str = "") -> None:
        self.steps += n

    def done(self, note: str = "") -> None:
        self.lines.append(note)


def test_alma_set_end_to_end(alma_set: Path, tmp_path: Path) -> None:
    progress = Recorder()
    gridded = reduce(make_recipe(tmp_path, alma_set), progress=progress)
    assert (progress.steps, progress.total) == (40, 40)
    assert (gridded.hanning, gridded.averaging, gridded.dish_diameter, gridded.frame) == (True, 1, 12.0, "LSRK")
    assert np.all(np.diff(gridded.frequency[0]) > 0)
    assert gridded.velocity.min() >= 9931.5
    assert gridded.velocity.max() <= 9944.0
    back = open_visibilities(tmp_path / "out" / "visibilities.nc")
    assert back.checksum == gridded.checksum
    account = back.provenance["blocks"][0]
    assert account["gridded"] == 40 * gridded.n_channel * 2 == gridded.count.sum()
    assert account["noise_estimator"] == "difference of hands"
    assert 0.8 < account["noise_scale"] < 1.4
    table = import_casatools().table()
    table.open(str(alma_set))
    data, weight, uvw = table.getcol("DATA"), table.getcol("WEIGHT"), table.getcol("UVW")
    table.close()
    flip = uvw[0] < 0
    folded = np.where(flip, data, np.conj(data))[:, [int(np.argmin(np.abs(f - _frequencies(alma_set)))) for f in gridded.frequency[0]]]
    whole = np.einsum("pcr,pr->c", folded, weight) / weight.sum()
    assert gridded.n_cell == 1
    np.testing.assert_allclose(gridded.mean[0, :, 0], whole, rtol=1e-5)


def _frequencies(path: Path) -> np.ndarray:
    table = import_casatools().table()
    table.open(str(path / "SPECTRAL_WINDOW"))
    try:
        return table.getcell("CHAN_FREQ", 0)
    finally:
        table.close()


def test_measured_noise_of_the_alma_baseline_is_hanning_correlated(alma_set: Path) -> None:
    """0.66 at lag one, as the response says (800 differences: within 0.1)."""
    from supermage.data_reduction.measurement_set import MeasurementSet

    with MeasurementSet(alma_set) as source:
        chunk = next(iter(source.chunks(source.blocks[0])))
    difference = chunk.data[..., 0] - chunk.data[..., 1]
    difference = difference - difference.mean(axis=0)
    lag = np.mean((difference[:, 1:] * difference[:, :-1].conj()).real) / np.mean(np.abs(difference) ** 2)
    assert abs(lag - 2 / 3) < 0.1


def test_evla_windows_reduce_one_at_a_time(evla_set: Path, tmp_path: Path) -> None:
    for window, rest, n_channel in ((0, 1.0307e9, 2), (1, 1.21706e9, 4)):
        recipe = make_recipe(tmp_path, evla_set, rest_frequency=rest, frame="TOPO", spectral_window=window)
        gridded = _reduce_whole_band(recipe, rest)
        assert gridded.n_channel == n_channel
        assert not gridded.hanning
        assert gridded.dish_diameter == 25.0


def _reduce_whole_band(recipe: Recipe, rest: float) -> Any:
    from supermage.data_reduction.measurement_set import MeasurementSet
    from supermage.data_reduction.spectral import Band

    section = recipe.reduce
    assert section is not None
    with MeasurementSet(recipe.path(section.measurement_set), spectral_window=section.spectral_window) as source:
        window = source.blocks[0].window
    low, high = Band("", window.ascending_frequency, window.width, 1.0).edges(rest, "radio")
    return reduce(recipe.model_copy(update={"reduce": section.model_copy(update={"velocity_range": (low, high)})}))


def test_a_known_point_source_goes_through(spoil: Spoil, tmp_path: Path) -> None:
    """CASA's sign on the way in, the in-house sign on the way out: a source at (+1", +2")."""
    east, north = 1.0 * ARCSEC, 2.0 * ARCSEC

    def edit(tb: Any) -> None:
        n_row = tb.nrows()
        uv = np.random.default_rng(1).uniform(-80, 80, (3, n_row))
        tb.putcol("UVW", uv)
        turns = (uv[0] * east + uv[1] * north)[None, :] * frequency[:, None] / SPEED_OF_LIGHT_M_S
        noise = 1e-4 * np.random.default_rng(2).standard_normal((2, 11, n_row))
        tb.putcol("DATA", 2.0 * np.exp(2j * np.pi * turns)[None] + noise)

    frequency = _frequencies(spoil())
    gridded = reduce(make_recipe(tmp_path, spoil(edit)))
    u, v = gridded.uv_wavelengths()
    model = 2.0 * np.exp(-2j * np.pi * (u * east + v * north))
    filled = np.isfinite(gridded.standard_error)
    assert gridded.n_cell > 20
    assert np.abs(gridded.mean - model)[filled].max() < 2e-3


def test_two_dates_become_two_blocks_with_their_own_frames(spoil: Spoil, tmp_path: Path) -> None:
    def later(tb: Any) -> None:
        time = tb.getcol("TIME")
        time[25:] += 90 * 86400.0
        tb.putcol("TIME", time)

    gridded = reduce(make_recipe(tmp_path, spoil(later), velocity_range=(9907.0, 9919.0), frame="TOPO"))
    assert gridded.n_block == 2
    np.testing.assert_array_equal(gridded.topo_to_frame, 1.0)
    assert [int(gridded.count[block].sum()) for block in range(2)] == [25 * 2 * gridded.n_channel, 15 * 2 * gridded.n_channel]


def test_the_papers_gridding_end_to_end(alma_set: Path, tmp_path: Path) -> None:
    plain = reduce(make_recipe(tmp_path, alma_set))
    gridded = reduce(make_recipe(tmp_path, alma_set, grid={"n_pixel": 64, "pixel_scale": 1.0, "window": "kaiser-bessel"}))
    assert (plain.window, gridded.window) == ("pillbox", "kaiser-bessel")
    assert open_visibilities(tmp_path / "out" / "visibilities.nc").window == "kaiser-bessel"
    filled = np.isfinite(gridded.standard_error)
    assert gridded.count[filled].min() >= 5 and set(zip(gridded.cell_u, gridded.cell_v)) <= set(zip(plain.cell_u, plain.cell_v))
    # each cell and channel its own sample variance: more scattered than the pooled one
    spread = [np.std(np.log(one.standard_error * np.sqrt(one.count)), where=np.isfinite(one.standard_error)) for one in (plain, gridded)]
    assert spread[1] > 2 * spread[0]


def test_the_recipe_overrides_what_the_set_says(alma_set: Path, tmp_path: Path) -> None:
    gridded = reduce(make_recipe(tmp_path, alma_set, hanning=True, averaging=2, dish_diameter=7.0))
    assert (gridded.hanning, gridded.averaging, gridded.dish_diameter) == (True, 2, 7.0)
    assert gridded.provenance["channel_response"] == "given in the recipe"


def _mixed_dishes(tb: Any) -> None:
    tb.putcol("DISH_DIAMETER", np.array([12.0, 7.0]))


@pytest.mark.parametrize(("edit", "table", "changes", "words"), [
    (None, "", {"velocity_range": (1000.0, 1200.0)}, "velocity range must lie inside the band, got 1000 to 1200 km/s"),
    (None, "", {"rest_frequency": 230.538e9}, "inside the band"),
    (lambda tb: tb.putcol("FLAG", np.ones((2, 11, 40), dtype=bool)), "", {}, r"must hold unflagged data inside the grid, got none of \d+"),
    (lambda tb: tb.putcol("WEIGHT", np.zeros((2, 40))), "", {}, "0 flagged, 800 without a usable weight"),
    (lambda tb: tb.putcol("UVW", tb.getcol("UVW") * 1e3), "", {}, "unflagged data inside the grid"),
    (_mixed_dishes, "ANTENNA", {}, "one known diameter unless reduce.dish_diameter says otherwise, got 7 m, 12 m"),
    (lambda tb: tb.putcol("DATA", tb.getcol("DATA") * np.nan), "", {}, "unflagged visibilities must be finite"),
])
def test_bad_input_is_one_line_and_writes_nothing(spoil: Spoil, tmp_path: Path, edit: Any, table: str, changes: dict[str, Any],
                                                  words: str) -> None:
    path = spoil(edit, table=table)
    with pytest.raises(DataError, match=words) as caught:
        reduce(make_recipe(tmp_path, path, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_grid_that_nearly_all_visibilities_miss(spoil: Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_but_two_far_away(tb: Any) -> None:
        uvw = tb.getcol("UVW")
        uvw[:, 2:] *= 1e4
        tb.putcol("UVW", uvw)

    path = spoil(all_but_two_far_away)
    assert reduce(make_recipe(tmp_path, path)).n_cell >= 1
    monkeypatch.setattr("supermage.data_reduction.reduce.LEAST_SHARE", 0.06)
    with pytest.raises(DataError, match=r"^the grid must hold at least 6 % of the unflagged visibilities, got \d+ of \d+; baselines "
                                        r"beyond \d+ m are outside: reduce.grid.pixel_scale is too large$"):
        reduce(make_recipe(tmp_path, path))


def test_a_grid_that_knows_too_few_cells_apart(alma_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"^the visibilities must lie in at least 10 cells of the grid, got 1; a cell is [\d.]+ m wide: "):
        reduce(make_recipe(tmp_path, alma_set))


def test_an_earlier_file_survives_a_failure(alma_set: Path, tmp_path: Path) -> None:
    before = reduce(make_recipe(tmp_path, alma_set)).checksum
    with pytest.raises(DataError):
        reduce(make_recipe(tmp_path, tmp_path / "nothing.ms"))

    class Interrupt(Recorder):
        def advance(self, n: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reduce(make_recipe(tmp_path, alma_set), progress=Interrupt())
    assert open_visibilities(tmp_path / "out" / "visibilities.nc").checksum == before
    assert os.listdir(tmp_path / "out") == ["visibilities.nc"]


@pytest.mark.parametrize(("moment", "earlier"), [("gridding.BlockGridder.finish", True), ("gridded_file.os.replace", False)])
def test_a_killed_reduction_leaves_no_half_file(alma_set: Path, tmp_path: Path, moment: str, earlier: bool) -> None:
    """SIGKILL, which nothing can catch: when all rows are gridded, and when the file is written but not yet in its place."""
    output, recipe = tmp_path / "out" / "visibilities.nc", make_recipe(tmp_path, alma_set)
    before = reduce(recipe).checksum if earlier else ""
    script = f"""
import os, signal
from supermage.data_reduction import gridded_file, gridding, reduce
from supermage.recipe import Recipe
reduce.LEAST_CELLS = 1
{moment} = lambda *arguments, **named: os.kill(os.getpid(), signal.SIGKILL)
reduce.reduce(Recipe.model_validate_json({recipe.model_dump_json(exclude_none=True)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert output.exists() == earlier
    if earlier:
        assert open_visibilities(output).checksum == before
    assert reduce(recipe).checksum == open_visibilities(output).checksum


def test_a_set_cut_short_while_reading_is_one_line(alma_set: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.ms"
    shutil.copytree(alma_set, path)
    largest = max(path.glob("table.f*_TSM*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    with pytest.raises(DataError, match="whole and readable"):
        reduce(make_recipe(tmp_path, path))


def test_sections_are_needed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[galaxy\] and \[reduce\]"):
        reduce(Recipe(folder=tmp_path))


def test_a_folder_that_cannot_be_written(alma_set: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(RecipeError, match=r"an output must lie in a folder, got .*out/visibilities.nc below the file"):
        reduce(make_recipe(tmp_path, alma_set))


def test_image_and_output_must_differ(alma_set: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="must be two files"):
        reduce(make_recipe(tmp_path, alma_set, image="out/visibilities.nc"))
    assert not (tmp_path / "out").exists()


def test_windows_of_two_widths_are_refused(alma_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each block would keep as many channels as the one that has fewest over the line, wherever that ends."""
    monkeypatch.setattr("supermage.data_reduction.reduce.SAME_WIDTH", -0.5)
    with pytest.raises(DataError, match="must have channels of one width, got"):
        reduce(make_recipe(tmp_path, alma_set))


def test_a_field_by_its_number(alma_set: Path, tmp_path: Path) -> None:
    (number,) = (field.number for field in read_fields(alma_set) if field.name == "GAMA567624")
    assert reduce(make_recipe(tmp_path, alma_set, field=number)).provenance["field"] == "GAMA567624"
