"""Features of particle cutouts: the galaxies' own, masses of the generator, what is left out and why, the table that training reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table, vstack

from supermage.errors import DataError, DomainError
from supermage.models import cutout_features
from supermage.models.catalogue import read_catalogue
from supermage.models.catalogue_files import read_raw
from supermage.models.columns import PAPER_FEATURES
from supermage.models.cutout_features import features_of_cutouts
from supermage.models.dust import observed_luminosities
from supermage.models.features import measure_features
from supermage.models.mass_sample import read_own_sample
from supermage.models.mock_galaxy import make_galaxy
from supermage.models.mock_maps import MockMaps, population
from supermage.models.particle_files import PHOTOMETRIC_BANDS, read_particles
from supermage.models.particles import Particles
from supermage.models.prediction_files import TableWriter
from supermage.models.training import train
from supermage.progress import SilentProgress
from supermage.recipe import Recipe, TrainSection

SOURCE = "galaxies of the tests"


def write_cutout(path: Path, particles: Particles) -> Path:
    """A galaxy as a TNG cutout at h = 0.7: positions off the box's corner, magnitudes, the gas's metals and star formation."""
    with h5py.File(path, "w") as file:
        header = file.create_group("Header")
        header.attrs.update(Redshift=0.0, HubbleParam=0.7, Omega0=0.3, OmegaLambda=0.7, BoxSize=75000.0, MassTable=np.zeros(6))
        for number, kind in ((0, particles.gas), (1, particles.dark_matter), (4, particles.stars)):
            if len(kind):
                group = file.create_group(f"PartType{number}")
                group["Coordinates"], group["Velocities"] = (kind.position + 9000.0) * 0.7, kind.velocity
                group["Masses"] = kind.mass * 0.7e-10
                if kind.metallicity.size:
                    group["GFM_Metallicity"] = kind.metallicity
                if kind.sfr.size:
                    group["StarFormationRate"] = kind.sfr
        blank = np.zeros(len(particles.stars))
        file["PartType4/GFM_StellarPhotometrics"] = np.stack([particles.stars.magnitude.get(band, blank) for band in PHOTOMETRIC_BANDS], 1)
    return path


def write_galaxies(folder: Path, count: int) -> tuple[list[Path], Table]:
    """Cutouts of generated galaxies, and their rows."""
    rows = population(MockMaps(galaxies=count, seed=3))
    folder.mkdir(exist_ok=True)
    drawn = [make_galaxy(row, n_star=700, n_dm=1200, n_gas=100) for row in rows]
    return [write_cutout(folder / f"cutout_{particles.galaxy_id}.hdf5", particles) for particles in drawn], rows


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Table]:
    return write_galaxies(tmp_path_factory.mktemp("cutouts") / "files", 5)


def own(rows: Table) -> Table:
    """What a user knows: numbers, a stellar mass within 30 kpc, a magnitude of another origin and a word."""
    table = rows["galaxy_id", "group_id", "m_star_30kpc", "M_r"]
    table["morphology"] = [f"type {number}" for number in range(len(table))]
    return table


@pytest.mark.parametrize("ending", ["ecsv", "parquet"])
def test_rows_are_the_galaxies(galaxies: tuple[list[Path], Table], tmp_path: Path, ending: str) -> None:
    """Features as measured one by one; masses and sizes those of the generator's formulas; the user's columns beside."""
    files, rows = galaxies
    made = features_of_cutouts(files, own(rows), tmp_path / f"table.{ending}", source=SOURCE, licence="CC BY 4.0", mock=True, part=2)
    assert made.galaxies == 5 and not made.left_out
    table = read_catalogue(made.path)
    assert np.asarray(table["galaxy_id"]).tolist() == np.repeat(rows["galaxy_id"], 3).tolist()
    assert np.asarray(table["projection"]).tolist() == [0, 1, 2] * 5
    for row in table[:6]:
        particles = read_particles(files[list(rows["galaxy_id"]).index(row["galaxy_id"])])
        light = observed_luminosities(particles, int(row["projection"]))
        found = measure_features(particles, int(row["projection"]), luminosity_r=light["r"], luminosity_g=light["g"])
        assert {name: float(row[name]) for name in PAPER_FEATURES} == pytest.approx(found.values, rel=1e-12)
        assert "sfr is the gas's present rate" in row["notes"]
    for name, unit, error in (("m_star_1rhsm", "Msun", 0.03), ("m_dm_2rhsm", "Msun", 0.3), ("r_hsm", "kpc", 0.05)):
        assert table[name].unit == unit
        assert np.log10(np.asarray(table[name])) == pytest.approx(np.log10(np.repeat(rows[name], 3)), abs=error)
    assert (np.asarray(table["m_star_2d_1rhsm"]) > np.asarray(table["m_star_1rhsm"])).all() and table["m_star_2d_1rhsm"].unit == "Msun"
    assert np.asarray(table["m_star_30kpc"]) == pytest.approx(np.repeat(rows["m_star_30kpc"], 3))
    assert np.asarray(table["original_M_r"]) == pytest.approx(np.repeat(rows["M_r"], 3)) and table["original_M_r"].unit == "mag"
    assert list(table["morphology"][2:4]) == ["type 0", "type 1"]
    assert table.meta["source"] == SOURCE and table.meta["licence"] == "CC BY 4.0"
    assert "neither observed nor simulated" in table.meta["mock"]


def test_galaxies_that_cannot_be_used_are_left_out_with_their_reason(galaxies: tuple[list[Path], Table], tmp_path: Path) -> None:
    files, _ = galaxies
    broken = [tmp_path / f"{name}.hdf5" for name in ("starless", "darkless", "lightless", "damaged")]
    for path, missing in zip(broken, ("PartType4", "PartType1", "PartType4/GFM_StellarPhotometrics", ""), strict=True):
        path.write_bytes(files[0].read_bytes() if missing else b"no HDF5")
        if missing:
            with h5py.File(path, "a") as file:
                del file[missing]
    told: list[str] = []

    class Tells(SilentProgress):
        def done(self, note: str = "") -> None:
            told.append(note)

    made = features_of_cutouts([*broken, *files[:2]], [5, 6, 7, 8, -1, 9], tmp_path / "table.ecsv", source=SOURCE, part=4, progress=Tells())
    assert made.galaxies == 2
    reasons = ("a galaxy needs stars, got no PartType4", "need dark matter, got none", "light needs magnitudes", "a whole HDF5 file")
    for path, reason in zip(broken, reasons, strict=True):
        assert reason in made.left_out[str(path)]
    assert told[-1].startswith("2 galaxies, each from three sides, in ") and "4 left out (1: " in told[-1]
    table = read_catalogue(made.path)
    # the one alone in its group has a number that no other has, for a masked group is not trained on
    assert np.asarray(table["group_id"]).tolist() == [10, 10, 10, 9, 9, 9] and "mock" not in table.meta
    assert len(read_own_sample(made.path)) == 6
    with pytest.raises(DataError, match="a galaxy that can be used, got none in 4 files: "):
        features_of_cutouts(broken, [5, 6, 7, 8], tmp_path / "none.ecsv", source=SOURCE)
    assert not (tmp_path / "none.ecsv").exists()


def test_an_interrupted_run_goes_on(galaxies: tuple[list[Path], Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts(SilentProgress):
        parts = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.parts += n
            if self.parts == 2:
                raise KeyboardInterrupt

    files, rows = galaxies
    path = tmp_path / "table.ecsv"
    with pytest.raises(KeyboardInterrupt):
        features_of_cutouts(files, own(rows), path, source=SOURCE, part=2, progress=Interrupts())
    assert not path.exists()
    (tmp_path / "table.ecsv.parts" / "part-00000.ecsv").write_text("half a table")
    numbers, whole = [], cutout_features.make_part
    monkeypatch.setattr(cutout_features, "make_part", lambda path, request, number: (numbers.append(number), whole(path, request, number)))
    for _ in range(2):
        assert features_of_cutouts(files, own(rows), path, source=SOURCE, part=2).galaxies == 5
    assert numbers == [0, 2] and json.loads((tmp_path / "table.ecsv.parts" / "part-00002.json").read_text())["galaxies"] == 1
    at_once = features_of_cutouts(files, own(rows), tmp_path / "at-once.ecsv", source=SOURCE, part=5)
    assert at_once.path.read_text() == path.read_text()
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(DataError, match="continued as they were begun, with aperture = 2, got 1"):
        features_of_cutouts(files, own(rows), path, source=SOURCE, part=2, aperture=1)


def test_wrong_requests_are_refused(galaxies: tuple[list[Path], Table], tmp_path: Path) -> None:
    files, rows = galaxies
    given: dict[str, Any] = {"source": SOURCE}
    for options, message in (({"aperture": 3}, "aperture must be 1 or 2 R_hsm, got 3"), ({"part": 0}, "part must be at least 1, got 0")):
        with pytest.raises(DomainError, match=message):
            features_of_cutouts(files, own(rows), tmp_path / "table.ecsv", **given, **options)
    with pytest.raises(DataError, match=r"ending in .parquet, .csv, .ecsv, .fits, got 'table.txt'"):
        features_of_cutouts(files, own(rows), tmp_path / "table.txt", **given)
    with pytest.raises(DataError, match="one row of the table each, got 5 rows for 4 files"):
        features_of_cutouts(files[:4], own(rows), tmp_path / "table.ecsv", **given)
    assert not list(tmp_path.iterdir())


def test_training_reads_the_table(galaxies: tuple[list[Path], Table], tmp_path: Path) -> None:
    """A density on the paper's features: the file as it is for the sample, and forty blurred copies of its rows for a training of steps."""
    files, rows = galaxies
    made = features_of_cutouts(files, own(rows), tmp_path / "table.parquet", source=SOURCE, mock=True)
    cuts = ["m_star_30kpc > 5e9", "n_sersic <= 100 or missing"]
    sample = read_own_sample(made.path, cuts=cuts)
    assert len(sample) == 15 and "neither observed nor simulated" in sample.source
    table, blur = vstack([read_raw(made.path)] * 40, metadata_conflicts="silent"), np.random.default_rng(1)
    table["galaxy_id"] = table["group_id"] = np.arange(600) // 3
    for name in (*PAPER_FEATURES, *(f"m_{kind}_1rhsm" for kind in ("star", "tot", "dm"))):
        table[name] = table[name] * (1.0 + 0.01 * blur.standard_normal(600))
    with TableWriter(tmp_path / "more.ecsv") as writer:
        writer.add(table)
    options = {"sample": "catalogue", "features": "paper", "rows": "more.ecsv", "cuts": cuts, "steps": 5, "rounds": 5, "members": 1,
               "hidden": 4}  # fmt: skip
    artefact = train(Recipe(folder=tmp_path, train=TrainSection(kind="mass-prior", output="artefact", options=options)))
    about = json.loads((artefact / "model.json").read_text())
    assert sum(about["rows"].values()) == 600 and about["source"].startswith("more.ecsv: Mock galaxies")
