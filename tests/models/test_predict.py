"""Predictions of whole catalogues: the same rows out, in pieces or at once, in every format; wrong rows stay, empty, with a reason."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units
from astropy.table import Table

from supermage.errors import DataError, DomainError, ModelFileError
from supermage.models import cnn_prior, map_store, registry
from supermage.models import predict as module
from supermage.models.catalogue_files import read_raw
from supermage.models.mass_estimator import load_mass_estimator
from supermage.models.mass_training import MassTraining, Options
from supermage.models.mock_population import MOCK
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.predict import default_output, predict_catalogue
from supermage.models.training import run_steps
from supermage.progress import SilentProgress
from tests.models.mass_mixtures import OPTIONS, sample

pytestmark = pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("predict")
    problem = MassTraining(sample(), Options(**{**OPTIONS, "steps": 20}), 1, "by-rule")
    run_steps(problem, base / "checkpoint.safetensors", "", None, progress=SilentProgress())
    return problem.finish(base / "artefact", progress=SilentProgress())


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.LOADERS, "mass-prior", load_mass_estimator)
    module._loaded.cache_clear()


def catalogue(path: Path, rows: int = 25) -> Table:
    columns = sample(60, seed=9).columns
    table = Table({"galaxy_id": np.arange(100, 100 + rows), "note": [f"galaxy {number}" for number in range(rows)]})
    for name, unit in {"M_r": "mag", "g_r": "mag", "sigma_3d1": "km / s", "r_hsm": "kpc"}.items():
        table[name] = columns[name][:rows]
        table[name].unit = unit
    table["M_r"][3] = np.nan
    table["sigma_3d1"][4] = -99.0
    table["r_hsm"][5] = np.nan
    table.write(path, overwrite=True)
    return table


def read(path: Path) -> Table:
    return Table.read(path, format={".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}.get(path.suffix))


@pytest.mark.parametrize("ending", ["ecsv", "parquet", "fits", "csv"])
def test_same_rows_out(tmp_path: Path, folder: Path, ending: str) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    done = predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / f"out.{ending}", rows=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = read(tmp_path / f"out.{ending}")
    assert (done.rows, done.empty) == (25, 1) and len(got) == 25
    assert list(got["galaxy_id"]) == list(given["galaxy_id"]) and [str(item) for item in got["note"]] == list(given["note"])
    filled = {name: np.ma.filled(np.ma.asarray(got[name], dtype=float), np.nan) for name in got.colnames if name.startswith("log_")}
    assert len(filled) == 10
    for name in ("log_mstar", "log_mtot"):
        ordered = np.stack([filled[f"{name}_{part}"] for part in ("lower_95", "lower_68", "median", "upper_68", "upper_95")])
        assert np.isnan(ordered[:, 3]).all() and np.isfinite(np.delete(ordered, 3, axis=1)).all()
        assert (np.diff(np.delete(ordered, 3, axis=1), axis=0) > 0).all()
    assert "M_r missing" in str(got["reason"][3])
    assert sum(item not in ("", "--", "None") for item in map(str, got["reason"])) == 1
    assert list(got["gaps"])[:6] == [0, 0, 0, 1, 1, 1]
    assert "by-rule version 1, weights" in str(got["model"][0])
    if ending == "csv":
        beside = json.loads((tmp_path / "out.csv.json").read_text())
        assert beside["columns"]["log_mstar_median"]["unit"] == "dex(solMass)"
        assert beside["provenance"]["input"] == "in.ecsv"
    else:
        said = "unit of log_mstar_median: dex(solMass)" in str(got.meta) if ending == "fits" else got["log_mstar_median"].unit
        assert said == (True if ending == "fits" else units.Unit("dex(Msun)"))
        assert "by-rule version 1" in str(got.meta) and "in.ecsv" in str(got.meta)
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_pieces_do_not_matter_and_quantiles_are_the_marginals(tmp_path: Path, folder: Path) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    for rows in (4, 100):
        predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / f"out{rows}.ecsv", rows=rows, targets=("log_mtot", "log_fdm"))
    one, other = read(tmp_path / "out4.ecsv"), read(tmp_path / "out100.ecsv")
    known = np.delete(np.arange(25), 3)
    prior = load_mass_estimator(folder).predict(given[known])
    for name in ("log_mtot", "log_fdm"):
        exact = prior.marginal(name).quantiles((0.025, 0.5, 0.84)).numpy()
        for place, part in enumerate(("lower_95", "median", "upper_68")):
            assert np.allclose(one[f"{name}_{part}"][known], other[f"{name}_{part}"][known], atol=1e-7)
            assert np.allclose(one[f"{name}_{part}"][known], exact[:, place], atol=2e-3)


def test_columns_and_units_of_the_user(tmp_path: Path, folder: Path) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    given.rename_column("M_r", "rmag")
    given["r_hsm"] = np.asarray(given["r_hsm"]) * 1000.0
    given.write(tmp_path / "theirs.csv", format="ascii.csv")
    given_units = {"M_r": "mag", "g_r": "mag", "sigma_3d1": "km/s", "r_hsm": "pc"}
    predict_catalogue(tmp_path / "theirs.csv", folder, tmp_path / "b.ecsv", columns={"M_r": "rmag"}, units=given_units)
    predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "a.ecsv")
    one, other = read(tmp_path / "a.ecsv"), read(tmp_path / "b.ecsv")
    known = np.delete(np.arange(25), 3)
    assert np.allclose(one["log_mtot_median"][known], other["log_mtot_median"][known], atol=1e-6)


def test_far_rows_are_counted_and_warned_of(tmp_path: Path, folder: Path) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    given["sigma_3d1"][0] = 2900.0
    given.write(tmp_path / "in.ecsv", overwrite=True)
    with pytest.warns(OutOfDistributionWarning, match=r"\d of 25 rows lie outside"):
        done = predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "out.ecsv")
    assert done.outside >= 1
    assert read(tmp_path / "out.ecsv")["out_of_distribution"][0] > 2.0


def test_mass_to_light_where_the_light_is_missing(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that needs M_r or the colour: the row without M_r has its masses, and the reason why it has no M*/L."""
    found = replace(load_mass_estimator(folder), needs=("M_r", "g_r"))
    monkeypatch.setattr(module, "_loaded", lambda model: found)
    catalogue(tmp_path / "in.ecsv")
    done = predict_catalogue(tmp_path / "in.ecsv", "changed", tmp_path / "out.ecsv", targets=("log_mtot", "log_ml"))
    got = read(tmp_path / "out.ecsv")
    assert done.empty == 0 and got["reason"][3] == "log_ml: M_r missing" and np.isfinite(got["log_mtot_median"][3])
    assert np.ma.getmaskarray(np.ma.asarray(got["log_ml_median"])).tolist() == [row == 3 for row in range(25)]
    done = predict_catalogue(tmp_path / "in.ecsv", "changed", tmp_path / "out.ecsv", targets=("log_ml",))
    assert done.empty == 1
    found = replace(found, aperture="2rhsm")
    with pytest.raises(DomainError, match="log_ml needs a model with M_r and the sphere of 1 R_hsm"):
        predict_catalogue(tmp_path / "in.ecsv", "changed", tmp_path / "out.ecsv", targets=("log_ml",))


def test_types_that_change_on_the_way(tmp_path: Path, folder: Path) -> None:
    """A CSV column whole in the first piece and real or a text later, and one of several numbers a row."""
    given = catalogue(tmp_path / "in.ecsv")
    given["count"] = [str(number) if number < 20 else f"{number}.5" for number in range(25)]
    given["code"] = [f"0{number}" if number < 10 else f"x{number}" for number in range(25)]
    given.write(tmp_path / "in.csv", format="ascii.csv")
    given_units = {"M_r": "mag", "g_r": "mag", "sigma_3d1": "km/s", "r_hsm": "kpc"}
    predict_catalogue(tmp_path / "in.csv", folder, tmp_path / "out.parquet", rows=6, units=given_units)
    got = read_raw(tmp_path / "out.parquet")
    assert got["count"].tolist() == [float(item) for item in given["count"]] and got["code"].tolist() == given["code"].tolist()
    given["pair"] = np.arange(50.0).reshape(25, 2)
    given.write(tmp_path / "in.ecsv", overwrite=True)
    predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "pair.parquet", rows=6)
    assert [list(item) for item in read_raw(tmp_path / "pair.parquet")["pair"]] == given["pair"].tolist()


@pytest.mark.parametrize("what", ["taken name", "no feature", "several numbers"])
def test_what_cannot_be_done_is_told_before_anything_is_predicted(tmp_path: Path, folder: Path, what: str) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    if what == "taken name":
        given["log_mstar_median"] = given["reason"] = 1.0
    elif what == "no feature":
        del given["M_r"]
    else:
        given["pair"] = np.ones((25, 2))
    given.write(tmp_path / "in.ecsv", overwrite=True)
    began: list[str] = []

    class Notes(SilentProgress):
        def start(self, what: str, total: int | None) -> None:
            began.append(what)

    words = {"taken name": "got log_mstar_median, reason; rename", "no feature": "must have M_r for by-rule, got galaxy_id, note, g_r",
             "several numbers": "column 'pair' must be of a kind that a table ending in .csv keeps"}  # fmt: skip
    with pytest.raises(DataError, match=words[what]):
        predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "out.csv", progress=Notes())
    assert began == ["reading"] and [path.name for path in tmp_path.iterdir()] == ["in.ecsv"]


@pytest.mark.parametrize("ending", ["parquet", "ecsv", "fits", "csv"])
def test_masses_of_generated_galaxies_say_so(tmp_path: Path, folder: Path, ending: str) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    given.meta["mock"] = MOCK
    given.write(tmp_path / "in.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict_catalogue(tmp_path / "in.fits", folder, tmp_path / f"out.{ending}")
    if ending == "csv":
        assert json.loads((tmp_path / "out.csv.json").read_text())["provenance"]["mock"] == MOCK
    else:
        assert read_raw(tmp_path / f"out.{ending}").meta["mock"] == MOCK


@pytest.mark.parametrize("mock", [True, False])
def test_masses_of_generated_maps_say_so(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, mock: bool) -> None:
    """Of a network's pieces, whose store says what the maps are."""

    @contextmanager
    def store(path: Path) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(mock=mock)

    given = catalogue(tmp_path / "in.ecsv")
    monkeypatch.setattr(map_store, "MapStore", store)
    monkeypatch.setattr(cnn_prior, "pieces_of_store", lambda network, store: iter([given[:9], given[9:]]))
    monkeypatch.setattr(module, "network_of", lambda model: object() if model == "network" else None)
    monkeypatch.setattr(module, "estimator_of", lambda model: load_mass_estimator(folder))
    predict_catalogue(tmp_path / "maps", "network", tmp_path / "out.ecsv")
    assert read(tmp_path / "out.ecsv").meta.get("mock") == (MOCK if mock else None)
    with pytest.raises(DataError, match="maps have their own names"):
        predict_catalogue(tmp_path / "maps", "network", tmp_path / "out.ecsv", units={"M_r": "mag"})


def test_default_outputs_differ() -> None:
    names = ("in.fits", "in.parquet", "in.csv", "in.ecsv", "in.vot", "in.fits.gz", "groups")
    got = [default_output(Path("folder") / name) for name in names]
    assert [path.name for path in got] == ["in.masses.fits", "in.masses.parquet", "in.masses.csv", "in.masses.ecsv", "in.vot.masses.ecsv",
                                           "in.fits.gz.masses.ecsv", "groups.masses.ecsv"]  # fmt: skip
    assert {path.parent.name for path in got} == {"folder"} and len(set(got)) == len(names)


WRONG = ["no unit", "luminosities", "empty", "taken name", "same file", "ending", "target", "no model", "other model"]


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path: Path, folder: Path, what: str) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    output, model, options = tmp_path / "out.ecsv", str(folder), {}
    if what == "no unit":
        given["r_hsm"].unit = None
    elif what == "luminosities":
        given["M_r"] = 10.0 ** (-0.4 * (np.asarray(given["M_r"]) - 4.65))
        given["M_r"].unit = "mag"
    elif what == "empty":
        given = given[:0]
    elif what == "taken name":
        given["log_mstar_median"] = 1.0
    given.write(tmp_path / "in.ecsv", overwrite=True)
    if what == "same file":
        output = tmp_path / "in.ecsv"
    elif what == "ending":
        output = tmp_path / "out.xyz"
    elif what == "target":
        options = {"targets": ("log_mass",)}
    elif what == "no model":
        model = str(tmp_path / "nowhere")
    elif what == "other model":
        model = "nuker-mge-solve"
    with pytest.raises((DataError, DomainError, ModelFileError)) as caught:
        predict_catalogue(tmp_path / "in.ecsv", model, output, **options)
    assert "\n" not in str(caught.value)
    assert "got" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ecsv"]


def test_a_failure_leaves_an_earlier_output_alone(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path / "in.ecsv")
    (tmp_path / "out.ecsv").write_text("earlier")

    def fails(*arguments: object) -> Table:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "predict_table", fails)
    with pytest.raises(OSError, match="No space"):
        predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "out.ecsv")
    assert (tmp_path / "out.ecsv").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_no_scheduler_answers(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    catalogue(tmp_path / "in.ecsv")
    with pytest.raises(DataError, match="a Dask scheduler must answer at nonsense://x"):
        predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "out.ecsv", dask="nonsense://x")


def test_a_cluster_predicts_the_same(tmp_path: Path) -> None:
    """A scheduler and two workers in processes of their own: the rows, their order and every number are those of this process."""
    distributed = pytest.importorskip("distributed")
    catalogue(tmp_path / "in.ecsv")
    predict_catalogue(tmp_path / "in.ecsv", "tng-gbdt", tmp_path / "here.ecsv", rows=4)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        done = predict_catalogue(tmp_path / "in.ecsv", "tng-gbdt", tmp_path / "there.ecsv", rows=4, dask=cluster.scheduler_address)
    here, there = read(tmp_path / "here.ecsv"), read(tmp_path / "there.ecsv")
    assert done.rows == 25 and here.colnames == there.colnames
    for name in here.colnames:
        assert str(here[name].tolist()) == str(there[name].tolist()), name
