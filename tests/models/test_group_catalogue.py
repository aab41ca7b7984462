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


def test_units_of_eagle(tmp_path: Path) -> None:
    n, h, a = 4, 0.6777, 0.5
    rng = np.random.default_rng(9)
    mass, radius, twice = rng.uniform(1.0, 30.0, (n, 6)), rng.uniform(2e-3, 9e-3, (n, 6)), rng.uniform(0.1, 2.0, (n, 6))
    path = tmp_path / "eagle_subfind_tab_028_z000p000.0.hdf5"
    with h5py.File(path, "w") as file:
        header = file.create_group("Header").attrs
        header["HubbleParam"], header["ExpansionFactor"] = h, a
        file.create_group("FOF")
        for name, value, cgs, power_a, power_h in (
            ("ApertureMeasurements/Mass/030kpc", mass, 1.989e43, 0.0, -1.0),
            ("MassTwiceHalfMassRad", twice, 1.989e43, 0.0, -1.0),
            ("HalfMassRad", radius, 3.085678e24, 1.0, -1.0),
            ("Mass", mass.sum(axis=1), 1.989e43, 0.0, -1.0),
        ):
            file[f"Subhalo/{name}"] = value
            data = file[f"Subhalo/{name}"]
            data.attrs["CGSConversionFactor"], data.attrs["aexp-scale-exponent"], data.attrs["h-scale-exponent"] = cgs, power_a, power_h
        file["Subhalo/GroupNumber"], file["Subhalo/SubGroupNumber"] = np.array([1, 1, 2, 3]), np.array([0, 1, 0, 0])
        file["Subhalo/StarFormationRate"] = np.full(n, 1.5)
    table = read_catalogue(path)
    assert np.allclose(table["m_star_30kpc"], mass[:, 4] * 1e10 / h, rtol=5e-4)  # the solar mass of each side
    assert np.allclose(table["m_star_total"], table["m_star_30kpc"]) and np.allclose(table["m_gas_total"], mass[:, 0] * 1e10 / h, rtol=5e-4)
    assert np.allclose(table["m_dm_2rhsm"], twice[:, 1] * 1e10 / h, rtol=5e-4)
    assert np.allclose(table["m_tot_2rhsm"], twice[:, [0, 1, 4, 5]].sum(axis=1) * 1e10 / h, rtol=5e-4)
    assert np.allclose(table["r50_3d"], radius[:, 4] * 1e3 * a / h, rtol=1e-5)
    assert table["central"].tolist() == [True, False, True, True] and table["group_id"].tolist() == [1, 1, 2, 3]
    assert table["sfr"].tolist() == [1.5] * 4
