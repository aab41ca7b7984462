"""Reading measurement sets: real ones against a direct look into their tables, spoilt ones against one clear line."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.measurement_set import MeasurementSet
from supermage.errors import DataError

Spoil = Callable[..., Path]


def _columns(path: Path, *names: str) -> dict[str, Any]:
    table = import_casatools().table()
    table.open(str(path))
    try:
        return {name: table.getcol(name) for name in names}
    finally:
        table.close()


def _read(path: Path, **options: Any) -> list[Any]:
    with MeasurementSet(path, **options) as source:
        return [chunk for block in source.blocks for chunk in source.chunks(block, rows=7)]


def test_alma_set_is_read_as_its_tables_say(alma_set: Path) -> None:
    stored = _columns(alma_set, "DATA", "WEIGHT", "UVW", "TIME", "ANTENNA1", "ANTENNA2")
    with MeasurementSet(alma_set) as source:
        assert (source.field_name, source.telescope, source.dish_diameters, source.data_column) == ("GAMA567624", "ALMA", (12.0,), "DATA")
        np.testing.assert_allclose(source.phase_centre, (np.degrees(-2.57332218) + 360.0, np.degrees(-0.01009725)), atol=1e-6)
        (block,) = source.blocks
        assert block.hands == ("XX", "YY")
        assert (block.window.frame, block.window.n_channel, block.rows) == ("TOPO", 11, 40)
        assert block.window.resolution == pytest.approx(2 * block.window.width)
        assert block.name.startswith("2018-03-16T05:38")
        assert np.linalg.norm(source.observatory) == pytest.approx(6.379e6, rel=1e-3)
        chunks = list(source.chunks(block, rows=7))
    assert [chunk.time.size for chunk in chunks] == [7, 7, 7, 7, 7, 5]
    data = np.concatenate([chunk.data for chunk in chunks])
    np.testing.assert_array_equal(data, np.conj(stored["DATA"]).transpose(2, 1, 0))
    weight = np.concatenate([chunk.weight for chunk in chunks])
    np.testing.assert_allclose(weight, np.broadcast_to(stored["WEIGHT"].T[:, None, :], weight.shape))
    np.testing.assert_array_equal(np.concatenate([chunk.uvw for chunk in chunks]), stored["UVW"].T)
    np.testing.assert_array_equal(np.concatenate([chunk.time for chunk in chunks]), stored["TIME"])


def test_evla_windows_with_different_channel_counts_are_read(evla_set: Path) -> None:
    table = import_casatools().table()
    with MeasurementSet(evla_set) as source:
        assert source.field_name == "J0102+5824"
        assert [block.window.n_channel for block in source.blocks] == [2, 4]
        assert [(block.hands, block.rows) for block in source.blocks] == [(("RR", "LL"), 10)] * 2
        for block in source.blocks:
            data = np.concatenate([chunk.data for chunk in source.chunks(block, rows=3)])
            table.open(str(evla_set))
            part = table.query(f"DATA_DESC_ID=={block.data_description}")
            np.testing.assert_array_equal(data, np.conj(part.getcol("DATA")).transpose(2, 1, 0))
            part.close()
            table.close()
            table.open(str(evla_set / "SPECTRAL_WINDOW"))
            np.testing.assert_array_equal(block.window.frequency, table.getcell("CHAN_FREQ", block.window.number))
            table.close()
    with MeasurementSet(evla_set, spectral_window=1, field="J0102+5824") as source:
        assert [block.window.number for block in source.blocks] == [1]


def test_some_channels_of_a_window_in_ascending_frequency(alma_set: Path, spoil: Spoil) -> None:
    with MeasurementSet(alma_set) as source:
        whole = np.concatenate([chunk.data for chunk in source.chunks(source.blocks[0])])
        part = np.concatenate([chunk.data for chunk in source.chunks(source.blocks[0], channels=slice(2, 6))])
    np.testing.assert_array_equal(part, whole[:, 2:6])

    def reverse(tb: Any) -> None:
        tb.putcell("CHAN_FREQ", 0, tb.getcell("CHAN_FREQ", 0)[::-1])
        tb.putcell("CHAN_WIDTH", 0, -tb.getcell("CHAN_WIDTH", 0))

    with MeasurementSet(spoil(reverse, table="SPECTRAL_WINDOW")) as source:
        block = source.blocks[0]
        assert block.window.descending
        assert np.all(np.diff(block.window.ascending_frequency) > 0)
        assert block.window.width > 0
        flipped = np.concatenate([chunk.data for chunk in source.chunks(block, channels=slice(2, 6))])
        weight = np.concatenate([chunk.weight for chunk in source.chunks(block, channels=slice(2, 6))])
    np.testing.assert_array_equal(flipped, whole[:, ::-1][:, 2:6])
    assert weight.shape == flipped.shape


def test_flags_rows_weights_and_autocorrelations(spoil: Spoil) -> None:
    def edit(tb: Any) -> None:
        flag = tb.getcol("FLAG")
        flag[0, 3, 5] = True
        tb.putcol("FLAG", flag)
        rows = tb.getcol("FLAG_ROW")
        rows[6] = True
        tb.putcol("FLAG_ROW", rows)
        weight = tb.getcol("WEIGHT")
        weight[0, 8], weight[1, 9], weight[0, 10], weight[1, 11] = 0.0, -1.0, np.nan, np.inf
        tb.putcol("WEIGHT", weight)
        second = tb.getcol("ANTENNA2")
        second[20] = 0
        tb.putcol("ANTENNA2", second)
        data = tb.getcol("DATA")
        data[0, 3, 5] = data[:, :, 6] = data[0, :, 8] = np.nan
        tb.putcol("DATA", data)

    path = spoil(edit)
    chunks = _read(path)
    weight = np.concatenate([chunk.weight for chunk in chunks])
    assert weight.shape[0] == 39
    wanted = np.ones(weight.shape, dtype=bool)
    wanted[5, 3, 0] = wanted[6] = wanted[8, :, 0] = wanted[9, :, 1] = wanted[10, :, 0] = wanted[11, :, 1] = False
    np.testing.assert_array_equal(weight > 0, wanted)
    assert np.all(np.isfinite(weight))
    assert np.all(np.isfinite(np.concatenate([chunk.data for chunk in chunks])))
    assert sum(chunk.flagged for chunk in chunks) == 1 + 22
    assert sum(chunk.unweighted for chunk in chunks) == 4 * 11
    with MeasurementSet(path) as source:
        assert source.blocks[0].autocorrelations == 1


def test_weight_spectrum_goes_before_weight_and_sigma_stands_in(spoil: Spoil) -> None:
    def add_spectrum(tb: Any) -> None:
        description = tb.getcoldesc("SIGMA")
        description.pop("comment", None)
        tb.addcols({"WEIGHT_SPECTRUM": {**description, "dataManagerType": "StandardStMan", "dataManagerGroup": "WS", "ndim": 2}})
        tb.putcol("WEIGHT_SPECTRUM", np.arange(1.0, 2 * 11 * 40 + 1).reshape(2, 11, 40))

    path = spoil(add_spectrum)
    weight = np.concatenate([chunk.weight for chunk in _read(path)])
    np.testing.assert_array_equal(weight, np.arange(1.0, 881.0).reshape(2, 11, 40).transpose(2, 1, 0))

    def sigma_only(tb: Any) -> None:
        tb.removecols(["WEIGHT", "WEIGHT_SPECTRUM"])
        tb.putcol("SIGMA", np.full((2, 40), 0.5))

    weight = np.concatenate([chunk.weight for chunk in _read(spoil(sigma_only))])
    np.testing.assert_allclose(weight, 4.0)


def test_a_set_without_sigma_is_read(spoil: Spoil) -> None:
    assert len(_read(spoil(lambda tb: tb.removecols("SIGMA")))) == 6


def test_two_dates_are_two_blocks(spoil: Spoil) -> None:
    def later(tb: Any) -> None:
        time = tb.getcol("TIME")
        time[25:] += 3 * 86400.0
        tb.putcol("TIME", time)

    with MeasurementSet(spoil(later)) as source:
        assert [block.rows for block in source.blocks] == [25, 15]
        assert [block.name[:10] for block in source.blocks] == ["2018-03-16", "2018-03-19"]
        assert sum(chunk.time.size for chunk in source.chunks(source.blocks[1])) == 15


def test_one_hand_is_enough_and_cross_hands_are_dropped(spoil: Spoil) -> None:
    path = spoil(lambda tb: tb.putcell("CORR_TYPE", 0, np.array([9, 10])), table="POLARIZATION")
    with MeasurementSet(path) as source:
        assert source.blocks[0].hands == ("XX",)
        assert next(iter(source.chunks(source.blocks[0]))).data.shape == (40, 11, 1)


def _cross_only(tb: Any) -> None:
    tb.putcell("CORR_TYPE", 0, np.array([10, 11]))


def _two_pointings(tb: Any) -> None:
    tb.putcell("NAME", 1, "GAMA567624")


def _half_the_rows(tb: Any) -> None:
    field = tb.getcol("FIELD_ID")
    field[20:] = 1
    tb.putcol("FIELD_ID", field)


def _nan(tb: Any) -> None:
    data = tb.getcol("DATA")
    data[0, 3, 5] = np.nan
    tb.putcol("DATA", data)


@pytest.mark.parametrize(("edits", "options", "words"), [
    ([(_cross_only, "POLARIZATION")], {}, "a data description must hold a parallel hand .RR, LL, XX, YY., got XY, YX"),
    ([(_two_pointings, "FIELD"), (_half_the_rows, "")], {"field": "GAMA567624"}, "mosaics are not supported, got 2 pointings of 'GAMA5"),
    ([(_half_the_rows, "")], {}, "several fields needs a choice by name, got none for GAMA567624, J1410.0203"),
    ([(_nan, "")], {}, "unflagged visibilities must be finite, got 1 NaN"),
    ([], {"field": "GAMA56762"}, "the field must be one of GAMA567624, got 'GAMA56762'; did you mean 'GAMA567624'"),
    ([], {"field": "J1410+0203"}, "field 'J1410.0203' must hold rows, got none"),
    ([], {"spectral_window": 3}, "the spectral window must be one of 0 for field 'GAMA567624', got 3"),
    ([(lambda tb: tb.removecols("DATA"), "")], {}, "must hold DATA or CORRECTED_DATA, got neither"),
    ([(lambda tb: tb.removecols(["WEIGHT", "SIGMA"]), "")], {}, "must hold weights"),
    ([(lambda tb: tb.putcol("ANTENNA2", tb.getcol("ANTENNA1")), "")], {}, "must hold cross-correlations, got none"),
])
def test_spoilt_contents_are_one_clear_line(spoil: Spoil, edits: list[tuple[Any, str]], options: dict[str, Any], words: str,
                                           capfd: pytest.CaptureFixture[str]) -> None:
    path = spoil()
    for edit, table in edits:
        spoil(edit, table=table)
    with pytest.raises(DataError, match=words) as caught:
        _read(path, **options)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("damage", "words"), [
    ("missing", "must exist"), ("file", "must be a folder"), ("no table.dat", "without it: truncated, or not a measurement set"),
    ("no ANTENNA", "must hold the table ANTENNA"), ("short table.dat", "whole and readable"), ("short data", "whole and readable"),
    ("short index", "whole and readable"), ("short ANTENNA", "whole and readable")])
def test_damaged_files_are_one_clear_line(spoil: Spoil, damage: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = spoil()

    def cut(name: str) -> None:
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[: len(whole) // 2])

    if damage in ("missing", "file"):
        shutil.rmtree(path)
    if damage == "file":
        path.write_text("not a folder")
    if damage.startswith("no "):
        target = path / damage.removeprefix("no ")
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    if damage.startswith("short"):
        largest = max(path.glob("table.f*_TSM*"), key=lambda file: file.stat().st_size).name
        cut({"table.dat": "table.dat", "data": largest, "index": "table.f5", "ANTENNA": "ANTENNA/table.dat"}[damage.removeprefix("short ")])
    with pytest.raises(DataError, match=words) as caught:
        _read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_an_empty_set_is_one_clear_line(alma_set: Path, tmp_path: Path) -> None:
    table = import_casatools().table()
    table.open(str(alma_set))
    description = table.getdesc()
    table.close()
    table.create(str(tmp_path / "empty.ms"), description, nrow=0)
    table.close()
    for folder in alma_set.iterdir():
        if folder.is_dir() and not (tmp_path / "empty.ms" / folder.name).exists():
            shutil.copytree(folder, tmp_path / "empty.ms" / folder.name)
    with pytest.raises(DataError, match=r"must hold rows, got none in .*empty\.ms"):
        MeasurementSet(tmp_path / "empty.ms")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_set(spoil: Spoil) -> None:
    """Left to itself, casacore keeps the tiles of some of the channels that it has read, up to a tenth of the machine's memory."""
    copies = 8000

    def repeat(tb: Any) -> None:
        n_row, columns = tb.nrows(), ("DATA", "FLAG", "WEIGHT", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "FIELD_ID", "DATA_DESC_ID")
        kept = {name: tb.getcol(name) for name in columns}
        description = {"DATA": tb.getcoldesc("DATA")}
        tb.removecols("DATA")
        tb.addcols(description, {"TYPE": "TiledShapeStMan", "NAME": "narrow", "SPEC": {"DEFAULTTILESHAPE": [2, 8, 100]}})
        tb.putcol("DATA", kept["DATA"])
        tb.addrows(n_row * copies)
        for first in range(0, copies, 500):
            for name, column in kept.items():
                tb.putcol(name, np.concatenate([column] * 500, axis=-1), n_row * (1 + first), n_row * 500)

    with MeasurementSet(spoil(repeat)) as source:
        block = source.blocks[0]
        assert block.rows == 40 * (copies + 1)
        chunks = source.chunks(block, channels=slice(1, 10))
        next(chunks)
        before, size = resident(), 0
        for chunk in chunks:
            size += chunk.data.nbytes
    assert size > 45e6
    assert resident() - before < 0.6 * size


def test_chunks_are_smaller_where_there_are_many_channels(alma_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.sources.CHUNK_BYTES", 8 * 2 * 11 * 12)
    with MeasurementSet(alma_set) as source:
        assert [chunk.time.size for chunk in source.chunks(source.blocks[0])] == [12, 12, 12, 4]
        assert [chunk.time.size for chunk in source.chunks(source.blocks[0], channels=slice(0, 5))] == [26, 14]


def test_reading_changes_nothing(alma_set: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in alma_set.rglob("*") if file.is_file()}

    before = state()
    _read(alma_set)
    assert state() == before
