"""Maps on disk: what is written is read, by any rows; what is not whole or not right is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from astropy import units
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.errors import DataError
from supermage.models.map_store import MAPS, MapStore, finish_parts, write_maps


def galaxies(first: int, count: int, *, image: int = 20, kinematic: int = 16) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(first)
    maps = {name: generator.normal(size=(count, *[image if kind.is_image else kinematic] * 2)).astype(np.float32)
            for name, kind in MAPS.items()}
    rows = np.arange(first, first + count)
    columns = {"galaxy_id": rows // 3, "group_id": rows // 6, "projection": rows % 3, "log_mstar": 10.0 + rows / 100,
               "log_mstar_2d_2rhsm": 11.0 + rows / 100, "b_t": rows / 1000}
    return maps, columns


def folder_of(path: Path, counts: tuple[int, ...]) -> tuple[Path, dict[str, np.ndarray]]:
    first, names, every = 0, [], []
    for count in counts:
        maps, columns = galaxies(first, count)
        names.append(f"part-{first}.nc")
        write_maps(path / names[-1], maps, columns, source="random numbers", mock=True)
        every.append(maps)
        first += count
    return finish_parts(path, names), {name: np.concatenate([item[name] for item in every]) for name in MAPS}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    return folder_of(tmp_path_factory.mktemp("maps"), (4, 7, 3))


@settings(max_examples=30)
@given(rows=st.lists(st.integers(0, 13), max_size=30))
def test_rows_in_any_order(parts: tuple[Path, dict[str, np.ndarray]], rows: list[int]) -> None:
    folder, every = parts
    with MapStore(folder) as store:
        got = store.read(np.array(rows, dtype=np.int64), ("dispersion", "r_light"))
    assert list(got) == ["dispersion", "r_light"]
    for name, values in got.items():
        assert np.array_equal(values, every[name][rows])


def test_columns_and_header(parts: tuple[Path, dict[str, np.ndarray]]) -> None:
    with MapStore(parts[0]) as store:
        assert (store.n_rows, store.mock, store.source) == (14, True, "random numbers")
        assert store.pixels == {"r_light": 20, "g_r": 20, "mean_velocity": 16, "dispersion": 16}
        assert store.column("galaxy_id").tolist() == [row // 3 for row in range(14)]
        assert store.column("galaxy_id").dtype == np.int64
        assert store.column("log_mstar") == pytest.approx(10.0 + np.arange(14) / 100, abs=1e-14)
        assert set(store.columns) == {"galaxy_id", "group_id", "projection", "log_mstar", "log_mstar_2d_2rhsm", "b_t"}
        with pytest.raises(DataError, match="must come with the column 'log_mstr', got none; did you mean 'log_mstar'"):
            store.column("log_mstr")
        with pytest.raises(DataError, match=r"rows must lie in 0 \.\. 13, got 2 \.\. 14"):
            store.read(np.array([2, 14]), ("g_r",))


def test_others_can_read_the_file(tmp_path: Path) -> None:
    """xarray shows dimensions, units and words; astropy knows the units."""
    maps, columns = galaxies(0, 3)
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="random numbers", mock=False)
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        assert data["r_light"].dims == ("row", "image_y", "image_x")
        assert data["dispersion"].dims == ("row", "map_y", "map_x")
        assert data["log_mstar_2d_2rhsm"].attrs["long_name"] == "log10 of the stellar mass, Msun, circle of 2 R_hsm"
        assert np.array_equal(data["g_r"].values, maps["g_r"])
        for item in data.values():
            units.Unit(item.attrs["units"])
    with MapStore(path) as store:
        assert not store.mock


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps, columns: maps.update(r_img=maps["r_light"]), "did you mean 'r_light'"),
        (lambda maps, columns: maps.update(g_r=maps["g_r"][:, :10]), r"must have the shape \(row, pixel, pixel\).*got \(3, 10, 20\)"),
        (lambda maps, columns: maps.update(g_r=maps["g_r"][:2]), "got \\(2, 20, 20\\) for g_r"),
        (lambda maps, columns: columns.update(b_t=np.zeros(2)), "one number for each of 3 maps, got shape \\(2,\\) for b_t"),
        (lambda maps, columns: columns.pop("group_id"), "got no group_id: splits go by them"),
        (lambda maps, columns: columns.update(log_mster=np.zeros(3)), "canonical name, got 'log_mster'; did you mean 'log_mstar'"),
        (lambda maps, columns: maps.clear(), "at least one kind of map, got none"),
    ],
)
def test_wrong_maps_are_refused(tmp_path: Path, change: object, message: str) -> None:
    maps, columns = galaxies(0, 3)
    change(maps, columns)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        write_maps(tmp_path / "maps.nc", maps, columns, source="", mock=True)
    assert not list(tmp_path.iterdir())


def test_no_galaxies_are_refused(tmp_path: Path) -> None:
    maps, columns = galaxies(0, 1)
    with pytest.raises(DataError, match="at least one galaxy, got none"):
        write_maps(tmp_path / "maps.nc", {name: item[:0] for name, item in maps.items()},
                   {name: item[:0] for name, item in columns.items()}, source="", mock=True)


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path / "maps", (2, 2))
    part = folder / "part-2.nc"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"must be whole files of galaxy maps, got .*maps ") as caught:
        MapStore(folder)
    assert "\n" not in str(caught.value)
    part.unlink()
    with pytest.raises(DataError, match="must be whole files"):
        MapStore(folder)
    (folder / "maps.json").unlink()
    with pytest.raises(DataError, match=r"must be complete, got .* with 1 parts and no maps.json"):
        MapStore(folder)
    with pytest.raises(DataError, match="a netCDF file or a folder of parts, got"):
        MapStore(tmp_path / "nothing")


def test_parts_must_be_alike(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path / "maps", (2,))
    maps, columns = galaxies(2, 2, image=24)
    write_maps(folder / "other.nc", maps, columns, source="", mock=True)
    finish_parts(folder, ["part-0.nc", "other.nc"])
    with pytest.raises(DataError, match="parts must have the same maps"):
        MapStore(folder)


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, columns = galaxies(0, 2)
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="first", mock=True)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"has room, got .*No space left on device"):
        write_maps(path, maps, columns, source="second", mock=True)
    monkeypatch.undo()
    with MapStore(path) as store:
        assert store.source == "first"
