"""Group catalogues in native layout: every field, unit and piece, against small files with known values."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from supermage.errors import DataError
from supermage.models.catalogue import check_features, read_catalogue, read_catalogue_chunks
from supermage.models.group_catalogue import is_group_catalogue, read_group_catalogue

H, A = 0.6774, 0.5


def tng_fields(n: int, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    mass = rng.uniform(0.5, 20.0, (n, 6))
    mass[:, 2:4] = 0.0
    return {
        "SubhaloMassType": mass,
        "SubhaloMass": mass.sum(axis=1),
        "SubhaloMassInHalfRadType": mass * 0.25,
        "SubhaloMassInRadType": mass * 0.6,
        "SubhaloHalfmassRadType": rng.uniform(2.0, 9.0, (n, 6)),
        "SubhaloVelDisp": rng.uniform(50.0, 200.0, n),
        "SubhaloSpin": rng.normal(0.0, 300.0, (n, 3)),
        "SubhaloSFR": rng.uniform(0.0, 5.0, n),
        "SubhaloStellarPhotometrics": np.linspace(-18.0, -23.0, 8) + rng.normal(0.0, 0.1, (n, 8)),
        "SubhaloFlag": np.arange(n) % 3 != 1,
        "SubhaloGrNr": np.arange(n) // 2,
    }


def write_tng(folder: Path, sizes: tuple[int, ...] = (3, 0, 5), scale: float = A) -> dict[str, np.ndarray[Any, Any]]:
    """A catalogue in pieces, single precision as TNG's, one piece without subhaloes; float64 values returned."""
    n = sum(sizes)
    fields = tng_fields(n, np.random.default_rng(5))
    edges = np.concatenate([[0], np.cumsum(sizes)])
    first = np.arange(0, n, 2)
    for number, (start, stop) in enumerate(pairwise(edges)):
        with h5py.File(folder / f"fof_subhalo_tab_099.{number}.hdf5", "w") as file:
            header = file.create_group("Header").attrs
            header["HubbleParam"], header["Time"], header["NumFiles"] = H, scale, len(sizes)
            file.create_group("Group")["GroupFirstSub"] = first if number == 0 else first[:0]
            subhalo = file.create_group("Subhalo")
            for name, value in fields.items() if stop > start else ():
                kind = np.float32 if value.dtype.kind == "f" else value.dtype
                subhalo[name] = value[start:stop].astype(kind)
    return fields


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_group_catalogue(path, **options)
    assert "\n" not in str(caught.value) and "got" in str(caught.value)
    return str(caught.value)


def test_units_of_tng(tmp_path: Path) -> None:
    fields = write_tng(tmp_path)
    table = read_group_catalogue(tmp_path)
    mass, inner, outer = fields["SubhaloMassType"], fields["SubhaloMassInHalfRadType"], fields["SubhaloMassInRadType"]
    expected = {
        "m_subhalo": mass.sum(axis=1) * 1e10 / H,
        "m_star_total": mass[:, 4] * 1e10 / H,
        "m_gas_total": mass[:, 0] * 1e10 / H,
        "m_gas_1rhsm": inner[:, 0] * 1e10 / H,
        "m_dm_1rhsm": inner[:, 1] * 1e10 / H,
        "m_star_1rhsm": inner[:, 4] * 1e10 / H,
        "m_bh_1rhsm": inner[:, 5] * 1e10 / H,
        "m_tot_1rhsm": inner.sum(axis=1) * 1e10 / H,
        "m_star_2rhsm": outer[:, 4] * 1e10 / H,
        "m_tot_2rhsm": outer.sum(axis=1) * 1e10 / H,
        "r_hsm": fields["SubhaloHalfmassRadType"][:, 4] * A / H,
        "r50_3d": fields["SubhaloHalfmassRadType"][:, 4] * A / H,
        "sigma_3d1": fields["SubhaloVelDisp"],
        "spin": np.sqrt((fields["SubhaloSpin"] ** 2).sum(axis=1)) / H,
        "sfr": fields["SubhaloSFR"],
        "g_r": fields["SubhaloStellarPhotometrics"][:, 4] - fields["SubhaloStellarPhotometrics"][:, 5],
        **{f"M_{band}": fields["SubhaloStellarPhotometrics"][:, k] for k, band in enumerate("UBVKgriz")},
    }
    for name, value in expected.items():
        assert np.allclose(table[name], value, rtol=2e-6, atol=3e-6), name
    assert table["m_star_1rhsm"].unit == "Msun" and table["r_hsm"].unit == "kpc" and table["spin"].unit == "kpc km / s"
    assert table["galaxy_id"].tolist() == list(range(8)) and table["group_id"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert table["central"].tolist() == [True, False] * 4
    assert table["flag"].tolist() == [k % 3 != 1 for k in range(8)]
    assert "m_star_30kpc" not in table.colnames


def test_half_and_twice_the_radius_are_not_exchanged(tmp_path: Path) -> None:
    write_tng(tmp_path)
    table = read_group_catalogue(tmp_path)
    assert (table["m_star_1rhsm"] < table["m_star_2rhsm"]).all() and (table["m_star_2rhsm"] < table["m_star_total"]).all()


def test_any_piece_stands_for_all_and_a_missing_one_is_named(tmp_path: Path) -> None:
    write_tng(tmp_path, (2,) * 11)
    (tmp_path / "other.0.hdf5").write_bytes(b"")
    table = read_group_catalogue(tmp_path / "fof_subhalo_tab_099.7.hdf5")
    assert table["galaxy_id"].tolist() == list(range(22))  # by number, not by name: 10 comes after 9
    assert np.allclose(table["group_id"], np.arange(22) // 2)
    (tmp_path / "fof_subhalo_tab_099.10.hdf5").unlink()
    assert "number 10" in refused(tmp_path)


def test_the_general_reader_knows_them(tmp_path: Path) -> None:
    write_tng(tmp_path)
    table = read_catalogue(tmp_path / "fof_subhalo_tab_099.0.hdf5")
    assert len(table) == len(read_catalogue(tmp_path)) == 8
    assert [len(piece) for piece in read_catalogue_chunks(tmp_path, rows=5)] == [5, 3]
    assert np.array_equal(check_features(table, ["sigma_3d1", "M_r"])[:, 0], table["sigma_3d1"])


def test_galaxies_without_stars(tmp_path: Path) -> None:
    """Most subhaloes of a box have none; their magnitudes are 1e30 in the file."""
    write_tng(tmp_path, (6,))
    with h5py.File(tmp_path / "fof_subhalo_tab_099.0.hdf5", "r+") as file:
        for name, value in (("SubhaloMassType", 0.0), ("SubhaloStellarPhotometrics", 1e30), ("SubhaloHalfmassRadType", 0.0)):
            content = file["Subhalo"][name][()]
            if name == "SubhaloStellarPhotometrics":
                content[1:] = value
            else:
                content[1:, 4] = value
            file["Subhalo"][name][()] = content
    table = read_catalogue(tmp_path)
    lost = ("M_r", "g_r", "r_hsm", "r50_3d", "m_star_total", "m_tot_1rhsm")
    assert all(table[name].mask.tolist() == [False] + [True] * 5 for name in lost)
    assert not table["m_subhalo"].mask.any() and not table["m_gas_total"].mask.any()
    assert np.isfinite(check_features(table, ["M_r", "g_r"])).all(axis=1).tolist() == [True] + [False] * 5
    assert len(read_group_catalogue(tmp_path, least_stellar_mass=1.0)) == 1


def test_only_massive_galaxies_are_kept_with_their_numbers(tmp_path: Path) -> None:
    fields = write_tng(tmp_path)
    bound = float(np.median(fields["SubhaloMassType"][:, 4])) * 1e10 / H
    table = read_group_catalogue(tmp_path, least_stellar_mass=bound)
    rows = np.flatnonzero(fields["SubhaloMassType"][:, 4] * 1e10 / H >= bound)
    assert table["galaxy_id"].tolist() == rows.tolist() and len(rows) == 4
    assert table["central"].tolist() == [k % 2 == 0 for k in rows]
    assert "of 8 subhaloes" in refused(tmp_path, least_stellar_mass=1e15)


def test_masses_within_30_kpc_from_elsewhere(tmp_path: Path) -> None:
    fields = write_tng(tmp_path)
    supplement = tmp_path / "apertures.h5"
    with h5py.File(supplement, "w") as file:
        file["Snapshot_99/Mass30"] = fields["SubhaloMassType"][:, 4] * 0.9
    expected = fields["SubhaloMassType"][:, 4] * 0.9e10 / H
    bound = float(np.median(expected)) / 0.9
    table = read_group_catalogue(tmp_path, mass_30kpc=(supplement, "Snapshot_99/Mass30"), least_stellar_mass=bound)
    assert np.allclose(table["m_star_30kpc"], expected[expected / 0.9 >= bound], rtol=1e-12)
    assert np.allclose(read_group_catalogue(tmp_path, mass_30kpc=expected)["m_star_30kpc"], expected)
    assert "one for each of 8" in refused(tmp_path, mass_30kpc=expected[:5])
    assert "data set 'Mass'" in refused(tmp_path, mass_30kpc=(supplement, "Mass"))


def test_a_single_file_with_few_fields(tmp_path: Path) -> None:
    path = tmp_path / "fof_subhalo_tab_099.hdf5"
    with h5py.File(path, "w") as file:
        header = file.create_group("Header").attrs
        header["HubbleParam"], header["Time"] = H, 1.0
        file["Subhalo/SubhaloVelDisp"] = np.array([100.0, 150.0])
    assert read_group_catalogue(path).colnames == ["galaxy_id", "sigma_3d1"]


def test_what_is_no_group_catalogue(tmp_path: Path) -> None:
    assert not is_group_catalogue(tmp_path)
    assert "a folder without any" in refused(tmp_path)
    assert "nothing of that name" in refused(tmp_path / "none.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1.0
    assert "Header and Subhalo" in refused(tmp_path / "other.hdf5")
    write_tng(tmp_path, (3,))
    path = tmp_path / "fof_subhalo_tab_099.0.hdf5"
    with h5py.File(path, "r+") as file:
        del file["Header"].attrs["HubbleParam"]
    assert "native layout" in refused(path)
    with h5py.File(path, "r+") as file:
        file["Header"].attrs["HubbleParam"] = H
        del file["Subhalo/SubhaloSFR"]
        file["Subhalo/SubhaloSFR"] = np.ones(2)
    assert "one value a subhalo" in refused(path)
    path.write_bytes(path.read_bytes()[:1000])
    refused(path)


def test_a_folder_of_several_snapshots_is_refused(tmp_path: Path) -> None:
    """Which one came first was chance; a file of one of them says which."""
    write_tng(tmp_path, (3, 2))
    for item in list(tmp_path.iterdir()):
        item.with_name(item.name.replace("099", "067")).write_bytes(item.read_bytes())
    said = refused(tmp_path)
    assert "one group catalogue" in said and said.endswith("got fof_subhalo_tab_067.*.hdf5, fof_subhalo_tab_099.*.hdf5")
    with pytest.raises(DataError, match=r"067\.\*\.hdf5, fof_subhalo_tab_099"):
        read_catalogue(tmp_path)
    assert len(read_catalogue(tmp_path / "fof_subhalo_tab_067.1.hdf5")) == 5


def test_files_of_groups_alone_are_no_choice(tmp_path: Path) -> None:
    """EAGLE has its groups a second time, in files that sort before and after those of the subhaloes; other files may lie there too."""
    write_eagle(tmp_path / "eagle_subfind_tab_028.0.hdf5")
    for name in ("a_group_tab_028.0.hdf5", "group_tab_028.0.hdf5", "a_group_tab_027.0.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_group("Header").attrs["HubbleParam"] = H
            file.create_group("FOF")
    with h5py.File(tmp_path / "aaa.hdf5", "w") as file:
        file["x"] = 1.0
    assert is_group_catalogue(tmp_path) and len(read_catalogue(tmp_path)) == 4
    (tmp_path / "eagle_subfind_tab_028.0.hdf5").unlink()
    assert "a_group_tab_027.*.hdf5, a_group_tab_028.*.hdf5, group_tab_028.*.hdf5" in refused(tmp_path)


EAGLE_SCALE = np.array([1.0, 2.0, 4.0, 8.0])
"""kpc: scales of Hernquist's profile, of all kinds of particles alike but for their masses."""

EAGLE_MASS = np.array([1.0, 20.0, 0.0, 0.0, 5.0, 0.01]) * np.array([[1.0], [2.0], [4.0], [40.0]])
"""1e10 Msun: of the whole subhalo, (subhalo, type)."""

SPHERES = (1, 3, 5, 10, 20, 30, 40, 50, 70, 100)
EAGLE_H = 0.6777


def hernquist(radius: float | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Share of the mass within a radius of each subhalo."""
    return np.asarray((radius / (radius + EAGLE_SCALE)) ** 2)


def write_eagle(path: Path, *, spheres: tuple[int, ...] = SPHERES) -> None:
    """Four Hernquist galaxies at z = 1, in EAGLE's units: 1e10 Msun/h, Mpc/h that are said to be comoving and are not."""
    mass, radius = EAGLE_MASS, EAGLE_SCALE * (1.0 + np.sqrt(2.0))
    fields = {f"ApertureMeasurements/Mass/{item:03d}kpc": mass * hernquist(float(item))[:, None] for item in spheres}
    fields |= {"Mass": mass.sum(axis=1), "MassTwiceHalfMassRad": mass * hernquist(2.0 * radius)[:, None]}
    with h5py.File(path, "w") as file:
        header = file.create_group("Header").attrs
        header["HubbleParam"], header["ExpansionFactor"] = EAGLE_H, A
        file.create_group("FOF")
        rows = [(name, value * EAGLE_H, 1.98848e43, 0.0) for name, value in fields.items()]
        for name, value, cgs, power_a in [*rows, ("HalfMassRad", radius[:, None] * np.ones(6) * EAGLE_H / 1e3, 3.085678e24, 1.0)]:
            file[f"Subhalo/{name}"] = value
            attrs = file[f"Subhalo/{name}"].attrs
            attrs["CGSConversionFactor"], attrs["aexp-scale-exponent"], attrs["h-scale-exponent"] = cgs, power_a, -1.0
        file["Subhalo/GroupNumber"], file["Subhalo/SubGroupNumber"] = np.array([1, 1, 2, 3]), np.array([0, 1, 0, 0])
        file["Subhalo/StarFormationRate"] = np.full(4, 1.5)
        file["Subhalo/StellarVelDisp"], file["Subhalo/Stars/Spin"] = np.full(4, 150.0), np.ones((4, 3))


def test_units_of_eagle(tmp_path: Path) -> None:
    path = tmp_path / "eagle_subfind_tab_020_z001p000.0.hdf5"
    write_eagle(path)
    table = read_catalogue(path)
    inner = EAGLE_MASS * hernquist(30.0)[:, None] * 1e10
    assert np.allclose(table["m_star_30kpc"], inner[:, 4], rtol=1e-4) and np.allclose(table["m_star_total"], table["m_star_30kpc"])
    assert np.allclose(table["m_gas_total"], inner[:, 0], rtol=1e-4)
    assert np.allclose(table["m_subhalo"], EAGLE_MASS.sum(axis=1) * 1e10, rtol=1e-4)
    assert np.allclose(table["r_hsm"], EAGLE_SCALE * (1.0 + np.sqrt(2.0)), rtol=1e-5)
    assert table["central"].tolist() == [True, False, True, True] and table["group_id"].tolist() == [1, 1, 2, 3]
    assert table["sfr"].tolist() == [1.5] * 4
    assert not {"sigma_3d1", "spin", "sigma_v"} & set(table.colnames)  # what is there is of stars alone


def test_half_of_eagles_stars_within_30_kpc(tmp_path: Path) -> None:
    """The catalogue's own half-mass radius is of all stars: of Hernquist galaxies of 19 kpc it is larger by three quarters."""
    path = tmp_path / "eagle_subfind_tab_020_z001p000.0.hdf5"
    write_eagle(path)
    table = read_catalogue(path)
    share = np.sqrt(0.5 * hernquist(30.0))
    expected = EAGLE_SCALE * share / (1.0 - share)
    assert np.allclose(table["r50_3d"], expected, rtol=0.01) and table["r_hsm"][3] > 1.7 * expected[3]
    assert "within 30 kpc" in table["r50_3d"].description and table["r50_3d"].unit == "kpc"
    assert np.allclose(table["m_star_1rhsm"], 0.5e10 * EAGLE_MASS[:, 4], rtol=0.01)
    twice = 1e10 * EAGLE_MASS * hernquist(2.0 * EAGLE_SCALE * (1.0 + np.sqrt(2.0)))[:, None]
    for kind, number in (("star", 4), ("dm", 1), ("gas", 0), ("bh", 5)):
        assert np.allclose(table[f"m_{kind}_2rhsm"], twice[:, number], rtol=0.01), kind
    assert np.allclose(table["m_tot_2rhsm"], twice.sum(axis=1), rtol=0.01)


def test_without_a_growth_curve_the_radius_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "eagle_subfind_tab_020_z001p000.0.hdf5"
    for spheres in ((), (30,), (30, 50), (3, 10)):
        write_eagle(path, spheres=spheres)
        table = read_catalogue(path)
        assert table["r50_3d"].mask.all() and "too few of ApertureMeasurements/Mass" in table["r50_3d"].description
        assert not table["r_hsm"].mask.any() and ("m_star_total" in table.colnames) == (30 in spheres)
    write_eagle(path, spheres=(30,))
    table = read_catalogue(path)
    assert np.allclose(table["m_star_2rhsm"], 1e10 * EAGLE_MASS[:, 4] * hernquist(2.0 * EAGLE_SCALE * (1.0 + np.sqrt(2.0))), rtol=1e-4)
    assert "m_dm_2rhsm" not in table.colnames


def test_what_tngs_radius_is_of_is_said(tmp_path: Path) -> None:
    write_tng(tmp_path)
    table = read_catalogue(tmp_path)
    assert all("whole subhalo" in table[name].description for name in ("r50_3d", "m_star_total", "m_gas_total"))
