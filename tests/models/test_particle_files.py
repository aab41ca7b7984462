"""Particle files: every unit and factor on small files of known content, the centre, and real files of each layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from supermage.errors import DataError
from supermage.models.particle_files import centred, find_centre, read_particles, shrinking_sphere
from supermage.models.particles import Kind, Particles

Change = Callable[[h5py.File], None]
H, A = 0.6774, 0.8
N = 40


def write(path: Path, change: Change | None = None, *, attributes: bool = True) -> Path:
    """A TNG cutout of stars, gas, dark matter and a black hole about (10000, 20000, 30000) ckpc/h that moves at 300 km sqrt(a)/s."""
    rng = np.random.default_rng(1)
    scaling = {"Coordinates": (3.085678e21, 1, -1), "Velocities": (1e5, 0.5, 0), "Masses": (1.989e43, 0, -1), "Potential": (1e10, -1, 0),
               "GFM_InitialMass": (1.989e43, 0, -1), "StarFormationRate": (6.30276e25, 0, 0)}  # fmt: skip
    with h5py.File(path, "w") as file:
        header = file.create_group("Header")
        header.attrs.update(Redshift=1 / A - 1, HubbleParam=H, Omega0=0.3089, OmegaLambda=0.6911, BoxSize=75000.0,
                            MassTable=np.array([0, 5e-4, 0, 0, 0, 0]), Time=A)  # fmt: skip
        for number in (0, 1, 4, 5):
            n = 1 if number == 5 else N
            group = file.create_group(f"PartType{number}")
            group["Coordinates"] = rng.normal([10000.0, 20000.0, 30000.0], 3.0, (n, 3))
            group["Velocities"] = rng.normal([300.0, 0.0, 0.0], 50.0, (n, 3))
            group["Potential"] = -rng.uniform(1e4, 1e5, n)
            if number != 1:
                group["Masses"] = rng.uniform(1e-4, 2e-4, n)
        stars, gas = file["PartType4"], file["PartType0"]
        stars["GFM_StellarFormationTime"] = np.linspace(0.1, 0.79, N)
        stars["GFM_Metallicity"], stars["GFM_InitialMass"] = np.full(N, 0.01), stars["Masses"][()] * 1.7
        stars["GFM_StellarPhotometrics"] = np.arange(8 * N).reshape(N, 8) / 100.0
        gas["GFM_Metallicity"], gas["StarFormationRate"] = np.full(N, 0.02), np.where(np.arange(N) < 10, 0.5, 0.0)
        gas["NeutralHydrogenAbundance"] = np.full(N, 0.25)
        gas["GFM_Metals"] = np.tile([0.7, 0.28, 0.02], (N, 1))
        if attributes:
            for group in (file[name] for name in file if name.startswith("Part")):
                for name in group:
                    to_cgs, a, h = scaling.get(name, (0.0, 0, 0))
                    group[name].attrs.update(to_cgs=to_cgs, a_scaling=a, h_scaling=h)
        if change is not None:
            change(file)
    return path


@pytest.mark.parametrize("attributes", [True, False])
def test_every_factor_of_tng(tmp_path: Path, attributes: bool) -> None:
    """kpc, km/s, Msun without h, a and sqrt(a), with the datasets' attributes and without."""
    path = write(tmp_path / "cutout.hdf5", attributes=attributes)
    particles = read_particles(path, centre=np.array([10000.0, 20000.0, 30000.0]) * A / H, velocity=np.array([300.0, 0, 0]) * A**0.5)
    with h5py.File(path) as file:
        for kind, number in (("stars", 4), ("gas", 0), ("dark_matter", 1), ("black_holes", 5)):
            group, got = file[f"PartType{number}"], particles.kinds[kind]
            np.testing.assert_allclose(got.position, (group["Coordinates"][()] - [10000, 20000, 30000]) * A / H, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(got.velocity, (group["Velocities"][()] - [300, 0, 0]) * A**0.5, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(got.potential, group["Potential"][()] / A, rtol=1e-12)
            mass = np.full(N, 5e-4) if number == 1 else group["Masses"][()]
            np.testing.assert_allclose(got.mass, mass * 1e10 / H, rtol=1e-9)
        np.testing.assert_allclose(particles.stars.initial_mass, file["PartType4/Masses"][()] * 1.7e10 / H, rtol=1e-9)
        np.testing.assert_allclose(particles.stars.magnitude["r"], file["PartType4/GFM_StellarPhotometrics"][:, 5])
        np.testing.assert_allclose(particles.gas.sfr[:10], 0.5, rtol=1e-4)
        hydrogen = np.where(np.arange(N) < 10, 0.7, 0.7 * 0.25)
        np.testing.assert_allclose(particles.gas.neutral_hydrogen, particles.gas.mass * hydrogen, rtol=1e-12)
    assert list(particles.stars.magnitude) == ["U", "B", "V", "K", "g", "r", "i", "z"]


def test_ages_are_those_of_the_files_cosmology(tmp_path: Path) -> None:
    particles = read_particles(write(tmp_path / "cutout.hdf5"))
    cosmology = FlatLambdaCDM(H0=67.74, Om0=0.3089)
    formation = np.linspace(0.1, 0.79, N)
    exact = (cosmology.age(1 / A - 1) - cosmology.age(1 / formation - 1)).to_value("Gyr")
    np.testing.assert_allclose(particles.stars.age, exact, atol=1e-6)


def test_wind_is_gas(tmp_path: Path) -> None:
    """Formation times that are not positive: no stars; their mass goes to the gas and hides nothing."""

    def blow(file: h5py.File) -> None:
        file["PartType4/GFM_StellarFormationTime"][:7] = -0.3
        file["PartType4/GFM_StellarFormationTime"][7] = 0.0

    whole, windy = read_particles(write(tmp_path / "still.hdf5")), read_particles(write(tmp_path / "windy.hdf5", blow))
    assert len(windy.stars) == N - 8 and len(windy.gas) == N + 8
    assert windy.gas.mass.sum() + windy.stars.mass.sum() == pytest.approx(whole.gas.mass.sum() + whole.stars.mass.sum())
    assert windy.gas.neutral_hydrogen.sum() == pytest.approx(whole.gas.neutral_hydrogen.sum())
    assert windy.stars.magnitude["U"].shape == (N - 8,) and windy.stars.age.max() < 13.0
    assert windy.gas.potential.shape == windy.gas.metallicity.shape == windy.gas.sfr.shape == (N + 8,)


def test_neutral_hydrogen_without_the_simulations_own(tmp_path: Path) -> None:
    def electrons(file: h5py.File) -> None:
        del file["PartType0/NeutralHydrogenAbundance"], file["PartType0/GFM_Metals"]
        file["PartType0/ElectronAbundance"] = np.where(np.arange(N) < 20, 0.4, 1.16)

    gas = read_particles(write(tmp_path / "cutout.hdf5", electrons)).gas
    share = gas.neutral_hydrogen / gas.mass / 0.76
    np.testing.assert_allclose(share, np.where(np.arange(N) < 10, 1.0, np.where(np.arange(N) < 20, 0.6, 0.0)), atol=1e-12)


def test_a_galaxy_on_the_edge_of_the_box_is_brought_together(tmp_path: Path) -> None:
    """Moved by most of a box, so that it straddles the edges: the same galaxy."""

    def move(file: h5py.File) -> None:
        for name in ("PartType0", "PartType1", "PartType4", "PartType5"):
            file[name]["Coordinates"][...] = (file[name]["Coordinates"][()] + [65001.0, 54999.0, 44999.5]) % 75000.0

    whole, split = read_particles(write(tmp_path / "whole.hdf5")), read_particles(write(tmp_path / "split.hdf5", move))
    for kind in whole.kinds:
        np.testing.assert_allclose(split.kinds[kind].position, whole.kinds[kind].position, atol=1e-8)


def test_the_centre_is_the_deepest_particle_of_the_galaxy(tmp_path: Path) -> None:
    """Of any kind; not of a neighbour that the file holds too."""

    def deepen(file: h5py.File) -> None:
        file["PartType1/Potential"][3] = -3e5
        file["PartType1/Coordinates"][3] = [10001.0, 20000.0, 30000.0]
        file["PartType1/Potential"][5] = -9e5
        file["PartType1/Coordinates"][5] = [10400.0, 20000.0, 30000.0]

    particles = read_particles(write(tmp_path / "cutout.hdf5", deepen))
    assert particles.dark_matter.position[3].tolist() == [0.0, 0.0, 0.0]


def test_without_potential_the_centre_is_where_the_stars_shrink_to() -> None:
    """A Plummer-like ball and a tenth as many stars in a clump far off, which would draw the mean by 9 kpc."""
    rng = np.random.default_rng(2)
    ball, clump = rng.normal(0, 1, (3000, 3)), rng.normal([100.0, 0, 0], 0.5, (300, 3))
    position = np.concatenate([ball, clump]) + np.array([5.0, -7.0, 2.0])
    assert shrinking_sphere(position, np.ones(3300)) == pytest.approx([5.0, -7.0, 2.0], abs=0.3)  # error of 100 stars 0.05
    galaxy = Particles(Kind(position, np.zeros((3300, 3)), np.ones(3300)))
    np.testing.assert_allclose(find_centre(galaxy), shrinking_sphere(position, np.ones(3300)))


def test_the_velocity_is_that_of_the_stars_near_the_centre() -> None:
    position = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 9.0, 0], [0, -9.0, 0]])
    velocity = np.array([[10.0, 0, 0], [40.0, 0, 0], [900.0, 0, 0], [900.0, 0, 0]])
    galaxy = Particles(Kind(position, velocity, np.array([2.0, 1.0, 1.0, 1.0])))
    moved = centred(galaxy, centre=np.zeros(3), velocity_radius=1.0)
    assert moved.stars.velocity[0, 0] == pytest.approx(10.0 - 20.0)
    assert centred(galaxy, centre=np.zeros(3), velocity=np.zeros(3)).stars.velocity[0, 0] == 10.0
    with pytest.raises(DataError, match=r"stars near its centre, got none within 0\.1 kpc"):
        centred(galaxy, centre=np.zeros(3), velocity_radius=0.1)


def write_eagle(path: Path, change: Change | None = None) -> Path:
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file.create_group("Header").attrs.update(Redshift=np.array([0.25]), HubbleParam=np.array([0.6777]), Omega0=np.array([0.307]),
                                                 OmegaLambda=np.array([0.693]), BoxSize=np.array([67.77]),
                                                 MassTable=np.array([0, 6.57e-4, 0, 0, 0, 0]))  # fmt: skip
        for number in (0, 1, 4):
            group = file.create_group(f"PartType{number}")
            group["Coordinates"] = 15.0 + rng.normal(0, 0.002, (N, 3))
            group["Velocity"] = rng.normal(0, 50, (N, 3))
            group["Coordinates"].attrs.update({"CGSConversionFactor": 3.085678e24, "aexp-scale-exponent": 1.0, "h-scale-exponent": -1.0})
            group["Velocity"].attrs.update({"CGSConversionFactor": 1e5, "aexp-scale-exponent": 0.5, "h-scale-exponent": 0.0})
            if number != 1:
                group["Mass"] = np.full(N, 1e-4)
                group["Mass"].attrs.update({"CGSConversionFactor": 1.989e43, "aexp-scale-exponent": 0.0, "h-scale-exponent": -1.0})
                group["SmoothedMetallicity"] = np.full(N, 0.02)
        file["PartType4/StellarFormationTime"] = np.full(N, 0.5)
        file["PartType0/StarFormationRate"] = np.where(np.arange(N) < 5, 0.01, 0.0)
        file.create_group("PartType0/SmoothedElementAbundance")["Hydrogen"] = np.full(N, 0.65)
        if change is not None:
            change(file)
    return path


def test_every_factor_of_eagle(tmp_path: Path) -> None:
    particles = read_particles(write_eagle(tmp_path / "eagle.hdf5"), centre=np.full(3, 15000.0 * 0.8 / 0.6777), velocity=np.zeros(3))
    rng = np.random.default_rng(3)
    np.testing.assert_allclose(particles.gas.position, rng.normal(0, 0.002, (N, 3)) * 800.0 / 0.6777, atol=1e-7)
    np.testing.assert_allclose(particles.gas.velocity, rng.normal(0, 50, (N, 3)) * 0.8**0.5, rtol=1e-9)
    np.testing.assert_allclose(particles.stars.mass, 1e6 / 0.6777, rtol=1e-9)
    np.testing.assert_allclose(particles.dark_matter.mass, 6.57e6 / 0.6777, rtol=1e-9)
    cosmology = FlatLambdaCDM(H0=67.77, Om0=0.307)
    np.testing.assert_allclose(particles.stars.age, (cosmology.age(0.25) - cosmology.age(1.0)).to_value("Gyr"), rtol=1e-6)
    np.testing.assert_allclose(particles.gas.neutral_hydrogen, np.where(np.arange(N) < 5, 0.65, 0.0) * particles.gas.mass)
    assert particles.source == "EAGLE eagle.hdf5"


def remove(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def put(name: str, value: np.ndarray) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


WRONG = [
    (remove("PartType4"), "a galaxy needs stars, got no PartType4 beside Header, PartType0, PartType1, PartType5"),
    (remove("PartType4/Coordinates"), "PartType4 needs Coordinates, got Illustris/TNG without it"),
    (remove("PartType0/Velocities"), "PartType0 needs Velocities"),
    (remove("PartType4/Masses"), "PartType4 needs Masses"),
    (remove("Header"), "Header needs .* got none named Redshift, HubbleParam"),
    (put("PartType4/Masses", np.full(N, np.nan)), "finite numbers, got 40 others in mass"),
    (put("PartType0/Coordinates", np.zeros((3, 3))), r"positions and velocities of shape \(n, 3\)"),
    (put("PartType0/StarFormationRate", np.zeros(3)), "PartType0 needs one value for each of its 40 particles"),
    (put("PartType4/GFM_StellarFormationTime", np.ones(3)), "one formation time for each star, got 3 for 40"),
    (put("PartType4/GFM_StellarPhotometrics", np.ones((N, 5))), "needs the bands U B V K g r i z, got shape"),
    (put("PartType4/GFM_StellarFormationTime", np.full(N, -1.0)), "a galaxy needs stars, got none"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_file_that_lacks_something(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_particles(write(tmp_path / "cutout.hdf5", change))
    assert "\n" not in str(caught.value) and "cutout.hdf5" in str(caught.value)


def test_kinds_of_no_particles_are_left_out(tmp_path: Path) -> None:
    def empty(file: h5py.File) -> None:
        del file["PartType1"], file["PartType0"], file["PartType5"]
        file["PartType0/Coordinates"] = np.empty((0, 3))
        file.create_group("PartType5")

    particles = read_particles(write(tmp_path / "cutout.hdf5", empty))
    assert {name: len(kind) for name, kind in particles.kinds.items()} == {"stars": N, "dark_matter": 0, "gas": 0, "black_holes": 0}

    def hollow(file: h5py.File) -> None:
        del file["PartType4"]
        file["PartType4/Coordinates"] = np.empty((0, 3))

    with pytest.raises(DataError, match="needs stars, got an empty PartType4"):
        read_particles(write(tmp_path / "cutout.hdf5", hollow))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="need an HDF5 file, got none at"):
        read_particles(tmp_path / "absent.hdf5")
    whole = write(tmp_path / "cutout.hdf5").read_bytes()
    for size in (len(whole) // 2, 700, 5):
        (tmp_path / "part.hdf5").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a whole HDF5 file, got .*part\.hdf5") as caught:
            read_particles(tmp_path / "part.hdf5")
        assert "\n" not in str(caught.value)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["spectrum"] = np.ones(3)
    with pytest.raises(DataError, match="or a table 'stars', got spectrum"):
        read_particles(tmp_path / "other.hdf5")


@pytest.mark.parametrize("compound", [True, False])
def test_plain_tables(tmp_path: Path, compound: bool) -> None:
    """One dataset of rows, or a group of columns."""
    rng = np.random.default_rng(4)
    columns = ("m", "x", "y", "z", "vx", "vy", "vz", "potential")
    values = rng.normal(size=(9, 8))
    values[:, 0] = np.abs(values[:, 0])
    with h5py.File(tmp_path / "table.h5", "w") as file:
        if compound:
            rows = np.empty(9, dtype=[(name, "f8") for name in columns])
            for name, column in zip(columns, values.T, strict=True):
                rows[name] = column
            file["stars"] = rows
        else:
            for name, column in zip(columns, values.T, strict=True):
                file[f"stars/{name}"] = column
        file.attrs["id"] = 17
    particles = read_particles(tmp_path / "table.h5", centre=np.zeros(3), velocity=np.zeros(3), group_id=3)
    assert particles.galaxy_id == 17 and particles.group_id == 3 and not len(particles.gas)
    np.testing.assert_array_equal(particles.stars.position, values[:, 1:4])
    np.testing.assert_array_equal(particles.stars.velocity, values[:, 4:7])
    np.testing.assert_array_equal(particles.stars.potential, values[:, 7])
    with h5py.File(tmp_path / "less.h5", "w") as file:
        file["stars"] = np.ones(3, dtype=[("m", "f8"), ("x", "f8")])
    with pytest.raises(DataError, match="got none named y, z, vx, vy, vz"):
        read_particles(tmp_path / "less.h5")


@pytest.mark.reference
def test_a_full_tng_galaxy_agrees_with_its_catalogue_row(reference_data: Path) -> None:
    """Masses within one and two half-mass radii of subhalo 394242: kpc and Msun, without h. Gas to the last digit that is stored."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(reference_data / "galaxies" / "tng100-1-z0-subhalos.parquet", filters=[("SubfindID", "==", 394242)])
    row = {name: table[name][0].as_py() for name in table.column_names}
    path = reference_data / "galaxies" / "tng100-subhalo-394242.h5"
    particles = read_particles(path, centre=np.zeros(3))
    assert particles.galaxy_id == 394242 and len(particles.stars) == 32_067
    for kind, name, tolerance in (("stars", "star", 1e-3), ("gas", "gas", 1e-6), ("dark_matter", "dm", 5e-3)):
        radius = np.linalg.norm(particles.kinds[kind].position, axis=1)
        for times in (1, 2):
            mass = particles.kinds[kind].mass[radius < times * row["r_hsm"]].sum()
            assert mass == pytest.approx(row[f"m_{name}_{times}rhsm"], rel=tolerance)
    by_itself = read_particles(path)
    assert np.linalg.norm(by_itself.dark_matter.position[0] - particles.dark_matter.position[0]) < 0.74  # its softening, kpc
    near = np.linalg.norm(by_itself.stars.position, axis=1) < by_itself.half_mass_radius()
    assert np.average(by_itself.stars.velocity[near], axis=0, weights=by_itself.stars.mass[near]) == pytest.approx(np.zeros(3), abs=1e-9)


@pytest.mark.reference
def test_real_snapshots(reference_data: Path) -> None:
    """Masses of single particles are the simulations' resolutions; ages end before the snapshot's cosmic age."""
    tng = read_particles(reference_data / "galaxies" / "simspin-illustris-tng.hdf5")
    assert len(tng.stars) == 1996 and len(tng.gas) == 104 and tng.source.startswith("Illustris/TNG")
    assert np.median(tng.gas.mass) == pytest.approx(1.4e6, rel=0.3) and 0.0 <= tng.stars.age.min() < tng.stars.age.max() < 10.3
    eagle = read_particles(reference_data / "galaxies" / "simspin-eagle.hdf5")
    assert len(eagle.stars) == 2000 and len(eagle.gas) == 100 and eagle.source.startswith("EAGLE")
    assert eagle.stars.initial_mass.min() == pytest.approx(1.81e6, rel=0.02) and eagle.stars.age.max() < 10.6
    assert 0.5 < eagle.half_mass_radius() < 5.0 and eagle.gas.neutral_hydrogen.sum() < 0.76 * eagle.gas.mass.sum()
