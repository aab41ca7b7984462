"""GriddedVisibilities: checks, checksum, and a file that is whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray

from supermage.data_reduction.gridded import open_visibilities
from supermage.errors import DataError
from tests.data_reduction.factories import make_gridded


def test_save_and_open_give_the_same_arrays(tmp_path: Path) -> None:
    gridded = make_gridded()
    path = gridded.save(tmp_path / "deep" / "visibilities.nc")
    back = open_visibilities(path)
    for name in ("cell_u", "cell_v", "mean", "standard_error", "degrees_of_freedom", "count", "offset_mean", "offset_second", "frequency",
                 "channel_width", "topo_to_frame"):
        np.testing.assert_array_equal(getattr(back, name), getattr(gridded, name))
        assert getattr(back, name).dtype == getattr(gridded, name).dtype
    assert back.grid == gridded.grid
    assert back.provenance == gridded.provenance
    assert back.checksum == gridded.checksum
    assert (back.phase_centre, back.frame, back.hanning, back.block_names) == ((192.1496, -5.8008), "LSRK", True, ("block 0", "block 1"))
    assert os.listdir(path.parent) == ["visibilities.nc"]


def test_the_file_is_plain_netcdf_with_units(tmp_path: Path) -> None:
    path = make_gridded().save(tmp_path / "v.nc")
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        assert data["mean_real"].dims == ("block", "channel", "cell")
        assert data["mean_real"].attrs["units"] == "Jy"
        assert data["frequency"].attrs["units"] == "Hz"
        assert len(data.attrs["checksum"]) == 64
        assert "numpy" in data.attrs["versions"]


def test_checksum_follows_every_array_and_the_geometry() -> None:
    gridded = make_gridded()
    seen = {gridded.checksum, make_gridded(seed=2).checksum, gridded.replace(rest_frequency=230.5e9).checksum,
            gridded.replace(frame="BARY").checksum, gridded.replace(topo_to_frame=gridded.topo_to_frame * (1 + 1e-12)).checksum}
    assert len(seen) == 5
    assert gridded.replace(provenance={"other": "words"}).checksum == gridded.checksum


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "empty", "altered", "other netcdf"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = make_gridded().save(tmp_path / "v.nc")
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "altered":
        import h5py

        with h5py.File(path, "r+") as file:
            file["mean_real"][0, 0, 0] += 1.0
    else:
        xarray.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(DataError) as caught:
        open_visibilities(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    import h5py

    path = make_gridded().save(tmp_path / "v.nc")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(DataError, match="format version 99"):
        open_visibilities(path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from supermage.errors import DataError
from tests.data_reduction.factories import make_gridded
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    make_gridded(seed=5, n_channel=32).save(Path(sys.argv[1]))
except DataError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_previous_file(tmp_path: Path) -> None:
    gridded = make_gridded()
    path = gridded.save(tmp_path / "v.nc")
    result = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120, check=False,
                            cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert "an earlier file is kept" in result.stdout
    assert open_visibilities(path).checksum == gridded.checksum
    assert os.listdir(tmp_path) == ["v.nc"]


@pytest.mark.parametrize(("change", "words"), [
    ({"mean": "nan"}, "mean of gridded visibilities must be finite"),
    ({"standard_error": "zero"}, "standard_error"),
    ({"standard_error": "inf"}, "unflagged data"),
    ({"rest_frequency": 230.538}, "GHz passed for Hz"),
    ({"frequency": "flip"}, "ascend"),
    ({"block_names": ("one",)}, "one name a block"),
    ({"topo_to_frame": "short"}, "shape"),
])
def test_inconsistent_arrays_are_refused(change: dict[str, object], words: str) -> None:
    gridded = make_gridded()
    (name, value), = change.items()
    array = getattr(gridded, name)
    made = {"nan": lambda: np.where(np.arange(array.size).reshape(array.shape) == 7, np.nan, array), "zero": lambda: np.zeros_like(array),
            "inf": lambda: np.full(array.shape, np.inf), "flip": lambda: array[:, ::-1], "short": lambda: array[:1]}
    with pytest.raises(DataError, match=words):
        gridded.replace(**{name: made[value]() if isinstance(value, str) else value})


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """The part of a process that is no more goes with the next writing; that of one that lives stays."""
    dead, living = tmp_path / ".g.nc.999999999.part", tmp_path / f".g.nc.{os.getppid()}.part"
    dead.write_bytes(b"half"), living.write_bytes(b"half")
    make_gridded().save(tmp_path / "g.nc")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "g.nc"])
