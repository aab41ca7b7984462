"""Maps of particle cutouts: the galaxies' own maps and masses, what is left out and why, runs that are interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table

from supermage.errors import DataError, DomainError
from supermage.models import cutout_maps
from supermage.models.cnn_data import Inputs, usable_rows
from supermage.models.cutout_maps import maps_of_cutouts
from supermage.models.dust import observed_luminosities
from supermage.models.features import features_of
from supermage.models.map_store import MapStore
from supermage.models.maps import make_maps
from supermage.models.particle_files import read_particles
from supermage.models.targets_of_particles import masses_of_particles
from supermage.progress import SilentProgress
from tests.models.analytic_galaxies import plummer

SMALL = {"source": "galaxies of the tests", "image_pixels": 24, "map_pixels": 12, "part": 2}


def write(path: Path, seed: int, *, photometry: bool = True, stars: int = 300) -> Path:
    """A TNG cutout of stars in a Plummer sphere and of dark matter in a wider one, in the file's units at h = 0.7."""
    with h5py.File(path, "w") as file:
        header = file.create_group("Header")
        header.attrs.update(Redshift=0.0, HubbleParam=0.7, Omega0=0.3, OmegaLambda=0.7, BoxSize=75000.0, MassTable=np.zeros(6))
        for number, kind in ((1, plummer(400, seed + 50, scale=9.0)), (4, plummer(stars, seed))):
            group = file.create_group(f"PartType{number}")
            group["Coordinates"] = (kind.position + 5000.0) * 0.7
            group["Velocities"], group["Masses"] = kind.velocity, kind.mass * 0.7e-10
        if photometry:
            file["PartType4/GFM_StellarPhotometrics"] = np.random.default_rng(seed).uniform(-9.0, -8.0, (stars, 8))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five galaxies; the third has no stars, the fourth no light."""
    folder = tmp_path_factory.mktemp("cutouts")
    paths = [write(folder / f"cutout_{number}.hdf5", number, photometry=number != 3) for number in range(5)]
    with h5py.File(paths[2], "a") as file:
        del file["PartType4"]
    return paths


def table() -> Table:
    rows = Table({"galaxy_id": [10, 11, 12, 13, 14], "group_id": [7, 7, 8, 8, 9]})
    rows["n_sersic"] = [1.0, 2.0, 3.0, 4.0, 5.0]
    rows["r_hsm"] = [4.0, np.nan, 4.0, 4.0, 5.0]
    rows["r_hsm"].unit = "kpc"
    return rows


def test_maps_and_targets_are_the_galaxies(files: list[Path], tmp_path: Path) -> None:
    """Row by row those of the particles; the table's radius where it has one, its columns and numbers beside."""
    made = maps_of_cutouts(files, table(), tmp_path / "maps", licence="CC BY 4.0", **SMALL)
    assert made.galaxies == 3 and list(made.left_out) == [str(files[2]), str(files[3])]
    assert "a galaxy needs stars, got no PartType4" in made.left_out[str(files[2])]
    assert "light needs magnitudes or ages of the stars, got neither" in made.left_out[str(files[3])]
    with MapStore(made.folder) as store:
        assert not store.mock and store.source == "galaxies of the tests" and store.provenance["licence"] == "CC BY 4.0"
        assert store.column("galaxy_id").tolist() == [10] * 3 + [11] * 3 + [14] * 3
        assert store.column("group_id").tolist() == [7] * 6 + [9] * 3 and store.column("projection").tolist() == [0, 1, 2] * 3
        assert store.column("n_sersic").tolist() == [1.0] * 3 + [2.0] * 3 + [5.0] * 3
        maps, masses = store.read(np.arange(9), tuple(store.pixels)), store.column("log_mtot_2d_2rhsm")
    for row, (path, radius) in enumerate((path, radius) for path, radius in zip([files[0], files[1], files[4]], (4.0, None, 5.0))
                                         for _ in range(3)):  # fmt: skip
        particles, axis = read_particles(path), row % 3
        expected = make_maps(particles, axis, image_pixels=24, map_pixels=12, half_mass_radius=radius)
        assert np.array_equal(maps["r_light"][row], expected.r_light) and np.array_equal(maps["dispersion"][row], expected.dispersion)
        total = masses_of_particles(particles, axis, half_mass_radius=radius)["m_tot_2d_2rhsm"]
        assert masses[row] == pytest.approx(np.log10(total), abs=1e-12)


def test_what_early_types_are_chosen_by_is_measured_where_the_table_has_it_not(files: list[Path], tmp_path: Path) -> None:
    """As the features of the particles; the table's own Sersic index stays. Without a table both are measured."""
    alone = maps_of_cutouts(files[:2], [1, 2], tmp_path / "alone", **SMALL)
    beside = maps_of_cutouts(files[:2], table()[:2], tmp_path / "beside", **SMALL)
    with MapStore(alone.folder) as first, MapStore(beside.folder) as second:
        for row in range(6):
            particles = read_particles(files[row // 3])
            light = observed_luminosities(particles, row % 3)
            for store, radius in ((first, None), (second, 4.0 if row < 3 else None)):
                found = features_of(particles, row % 3, luminosity_r=light["r"], luminosity_g=light["g"], half_mass_radius=radius)
                assert store.column("b_t")[row] == pytest.approx(found["b_t"], rel=1e-12)
                if store is first:
                    assert store.column("n_sersic")[row] == pytest.approx(found["n_sersic"], rel=1e-9)
        assert second.column("n_sersic").tolist() == [1.0] * 3 + [2.0] * 3


def test_galaxies_without_dark_matter_are_counted_and_not_trained_on(files: list[Path], tmp_path: Path) -> None:
    """Their maps are kept, their total mass and bulge fraction are unknown, and a training that needs the mass says that it leaves them."""
    halo = tmp_path / "no_halo.hdf5"
    halo.write_bytes(files[0].read_bytes())
    with h5py.File(halo, "a") as file:
        del file["PartType1"]
    told: list[str] = []

    class Tells(SilentProgress):
        def done(self, note: str = "") -> None:
            told.append(note)

    made = maps_of_cutouts([*files[:2], halo, files[3]], [1, 2, 3, 4], tmp_path / "maps", progress=Tells(), **SMALL)
    assert (made.galaxies, made.without_dark_matter, len(made.left_out)) == (3, 1, 1)
    assert "3 galaxies, each from three sides; 1 of them without dark matter in their file: total mass unknown; 1 left out" in told[-1]
    with MapStore(made.folder) as store:
        unknown = np.repeat([False, False, True], 3)
        for name in ("log_mtot", "log_fdm", "b_t"):
            assert np.isnan(store.column(name)).tolist() == unknown.tolist()
        assert np.isfinite(store.column("log_mstar")).all() and np.isfinite(store.column("n_sersic")).all()
        inputs = Inputs(("r_light", "dispersion"), 16, "log")
        assert usable_rows(store, inputs, ("log_mstar",))[1] == {}
        rows, left_out = usable_rows(store, inputs, ("log_mstar", "log_mtot"))
        assert rows.tolist() == [0, 1, 2, 3, 4, 5] and left_out == {"log_mtot unknown": 3}


def test_groups_alone_are_enough_and_stars_of_one_ratio_can_be_asked_for(files: list[Path], tmp_path: Path) -> None:
    made = maps_of_cutouts(files[3:], [4, -1], tmp_path / "maps", one_ratio=True, **SMALL)
    assert made.galaxies == 2 and not made.left_out
    with MapStore(made.folder) as store:
        assert store.column("galaxy_id").tolist() == [0, 0, 0, 1, 1, 1] and store.column("group_id").tolist() == [4, 4, 4, -1, -1, -1]
        assert store.provenance["one_ratio"] is True


def test_an_interrupted_run_goes_on_and_reports_all_that_was_left_out(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupts(SilentProgress):
        parts, said = 0, ""

        def advance(self, n: int = 1, note: str = "") -> None:
            self.parts += n
            if self.parts == 2:
                raise KeyboardInterrupt

        def done(self, note: str = "") -> None:
            self.said = note

    folder = tmp_path / "maps"
    with pytest.raises(KeyboardInterrupt):
        maps_of_cutouts(files, table(), folder, progress=Interrupts(), **SMALL)
    with pytest.raises(DataError, match=r"must be complete, got .* with 1 parts and no maps.json"):
        MapStore(folder)
    (folder / "part-00000.nc").write_bytes(b"half a file")
    numbers, whole = [], cutout_maps.make_part
    monkeypatch.setattr(cutout_maps, "make_part", lambda path, request, number: (numbers.append(number), whole(path, request, number)))
    last = Interrupts()
    last.parts = -9
    for _ in range(2):
        made = maps_of_cutouts(files, table(), folder, progress=last, **SMALL)
        assert made.galaxies == 3 and len(made.left_out) == 2
    assert numbers == [0, 2]
    assert last.said.startswith("3 galaxies, each from three sides; 2 left out (1: ") and str(files[2]) not in last.said
    assert json.loads((folder / "maps.json").read_text())["parts"] == ["part-00000.nc", "part-00002.nc"]
    assert not list(tmp_path.rglob("*.part"))


def test_several_processes_make_the_same(files: list[Path], tmp_path: Path) -> None:
    one = maps_of_cutouts(files[:2], [1, 2], tmp_path / "one", **{**SMALL, "part": 1})
    two = maps_of_cutouts(files[:2], [1, 2], tmp_path / "two", processes=2, **{**SMALL, "part": 1})
    with MapStore(one.folder) as first, MapStore(two.folder) as second:
        for name in first.pixels:
            assert np.array_equal(first.read(np.arange(6), (name,))[name], second.read(np.arange(6), (name,))[name])


def test_wrong_requests_are_refused(files: list[Path], tmp_path: Path) -> None:
    nameless, ghosts = table(), table()
    nameless["galaxy_id"] = ["a", "b", "c", "d", "e"]
    ghosts["galaxy_id"] = [-1, 1, 2, 3, 4]
    cases = [
        ([], [], DataError, "at least one cutout, got none"),
        (files, [1, 2], DataError, r"one whole number of a group each, got shape \(2,\) of int64 for 5"),
        (files[:2], [1.0, 2.0], DataError, "got shape .* of float64"),
        (files[:2], table(), DataError, "one row of the table each, got 5 rows for 2 files"),
        (files, nameless, DataError, "a column galaxy_id of whole numbers, got str"),
        (files, ghosts, DataError, "a galaxy_id each, got 1 rows without"),
        ([files[0], files[0]], [1, 2], DataError, "must have a file of its own, got 2 with"),
        ([files[2]], [1], DataError, "a galaxy that can be used, got none in 1 files: .*needs stars"),
        ([tmp_path / "gone.hdf5"], [1], DataError, "got none in 1 files: particles need an HDF5 file, got none at"),
    ]  # fmt: skip
    for number, (paths, groups, error, message) in enumerate(cases):
        with pytest.raises(error, match=message) as caught:
            maps_of_cutouts(paths, groups, tmp_path / f"maps{number}", **SMALL)
        assert "\n" not in str(caught.value)
    with pytest.raises(DomainError, match="part must be at least 1, got 0"):
        maps_of_cutouts(files, table(), tmp_path / "maps", **{**SMALL, "part": 0})
    maps_of_cutouts(files[:1], [1], tmp_path / "begun", **SMALL)
    with pytest.raises(DataError, match="continued as they were begun, with image_pixels = 24, got 48"):
        maps_of_cutouts(files[:1], [1], tmp_path / "begun", **{**SMALL, "image_pixels": 48})
    with pytest.raises(DataError, match="continued as they were begun, with files_and_numbers = "):
        maps_of_cutouts(files[1:2], [1], tmp_path / "begun", **SMALL)


@pytest.mark.reference
def test_a_full_tng_galaxy_becomes_maps_with_its_catalogues_masses(reference_data: Path, tmp_path: Path) -> None:
    """Subhalo 394242 with its catalogue row: masses within one and two half-mass radii are the row's."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet", filters=[("SubfindID", "==", 394242)])
    row = {name: rows[name][0].as_py() for name in rows.column_names}
    one = Table({"galaxy_id": [394242], "group_id": [int(row["GrNr"])], "r_hsm": [row["r_hsm"]]}, units={"r_hsm": "kpc"})
    file = reference_data / "galaxies" / "tng100-subhalo-394242.h5"
    made = maps_of_cutouts([file], one, tmp_path / "maps", source="TNG100-1", one_ratio=True, image_pixels=96)
    with MapStore(made.folder) as store:
        assert store.n_rows == 3 and store.pixels["r_light"] == 96 and store.pixels["dispersion"] == 48
        for name, column in (("log_mstar", "m_star_1rhsm"), ("log_mstar_2rhsm", "m_star_2rhsm"), ("log_mdm", "m_dm_1rhsm")):
            assert store.column(name) == pytest.approx(np.log10(row[column]), abs=0.01)
        light = store.read(np.arange(3), ("r_light",))["r_light"].sum((1, 2), dtype=np.float64)
        assert (10.0 ** store.column("log_mstar_2d_2rhsm") < 2.0 * light * 1.001).all()
