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
from supermage.models.catalogue_ranges import RangeWarning
from supermage.models.mass_estimator import load_mass_estimator
from supermage.models.mass_training import MassTraining, Options
from supermage.models.mock_population import MOCK
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.predict import default_output, located, predict_as, predict_catalogue, version_of
from supermage.models.training import run_steps
from supermage.progress import SilentProgress
from tests.models.mass_mixtures import OPTIONS, sample

pytestmark = [pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning"),
              pytest.mark.filterwarnings("ignore::supermage.models.catalogue_ranges.RangeWarning")]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("predict")
    problem = MassTraining(sample(), Options(**{**OPTIONS, "steps": 20}), 1, "by-rule")
    run_steps(problem, base / "checkpoint.safetensors", "", None, progress=SilentProgress())
    return problem.finish(base / "artefact", progress=SilentProgress())


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.LOADERS, "mass-prior", load_mass_estimator)
    module._read.cache_clear()


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
    missing = ["" if item is np.ma.masked else str(item) for item in got["missing"]]
    assert missing[:6] == ["", "", "", "M_r", "log_sigma", "log_r_hsm"] and set(missing[6:]) == {""}
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


def test_every_missing_feature_is_named(tmp_path: Path, folder: Path) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    given["g_r"][4] = given["r_hsm"][4] = np.nan
    given.write(tmp_path / "in.ecsv", overwrite=True)
    predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "out.parquet")
    got = read_raw(tmp_path / "out.parquet")
    assert got["missing"][4] == "g_r log_sigma log_r_hsm"
    assert [len(str(item).split()) for item in got["missing"]] == got["gaps"].tolist()


@pytest.mark.parametrize("ending", ["ecsv", "parquet", "fits"])
def test_numbers_outside_a_range_are_warned_of_once_a_column(tmp_path: Path, folder: Path, ending: str) -> None:
    """Of the whole file, however many pieces it comes in; a column within its range has no warning."""
    given = catalogue(tmp_path / "in.ecsv")
    given["sigma_3d1"][8:19] = np.asarray(given["sigma_3d1"][8:19]) * 1e3 + 1e4
    given.write(tmp_path / f"in.{ending}", overwrite=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RangeWarning)
        predict_catalogue(tmp_path / f"in.{ending}", folder, tmp_path / "out.ecsv", rows=7)
    said = [str(item.message) for item in caught if item.category is RangeWarning]
    assert said == ["column sigma_3d1: 12 of 25 values outside 1 .. 3000 km / s, taken as missing"]
    assert [row for row, item in enumerate(read(tmp_path / "out.ecsv")["missing"]) if item == "log_sigma"] == [4, *range(8, 19)]


@pytest.mark.parametrize("ending", ["ecsv", "parquet", "fits", "csv"])
def test_progress_has_an_end(tmp_path: Path, folder: Path, ending: str) -> None:
    catalogue(tmp_path / "in.ecsv")
    Table.read(tmp_path / "in.ecsv").write(tmp_path / f"in.{ending}", overwrite=True)
    told: list[tuple[str, int | None]] = []

    class Notes(SilentProgress):
        def start(self, what: str, total: int | None) -> None:
            told.append((what.split(maxsplit=1)[0], total))

    given_units = {"M_r": "mag", "g_r": "mag", "sigma_3d1": "km/s", "r_hsm": "kpc"} if ending == "csv" else None
    predict_catalogue(tmp_path / f"in.{ending}", folder, tmp_path / "out.ecsv", rows=7, units=given_units, progress=Notes())
    assert told == [("reading", None), ("predicting", 25)]


def test_a_constant_is_a_column_with_one_number(tmp_path: Path, folder: Path) -> None:
    given = catalogue(tmp_path / "in.ecsv")
    del given["r_hsm"]
    given.write(tmp_path / "less.ecsv")
    given["r_hsm"] = 3.0
    given["r_hsm"].unit = "kpc"
    given.write(tmp_path / "more.ecsv")
    predict_catalogue(tmp_path / "less.ecsv", folder, tmp_path / "a.ecsv", rows=7, constants={"r_hsm": 3})
    predict_catalogue(tmp_path / "more.ecsv", folder, tmp_path / "b.ecsv")
    one, other = read(tmp_path / "a.ecsv"), read(tmp_path / "b.ecsv")
    assert one["r_hsm"].unit == units.kpc and set(one["r_hsm"]) == {3.0}
    known = np.delete(np.arange(25), 3)
    assert np.allclose(one["log_mtot_median"][known], other["log_mtot_median"][known], atol=1e-7)
    wrong = {"columns that the catalogue lacks, got r_hsm": {"r_hsm": 3.0}, "got 'r_hms'; did you mean 'r_hsm'": {"r_hms": 3.0},
             "must lie in 0.01 .. 1000 kpc, got nan": {"r_hsm": np.nan}, "that by-rule reads .M_r, g_r": {"M_K": -20.0}}  # fmt: skip
    for message, constants in wrong.items():
        with pytest.raises((DataError, DomainError), match=message) as caught:
            predict_catalogue(tmp_path / "more.ecsv", folder, tmp_path / "c.ecsv", constants=constants)
        assert "\n" not in str(caught.value) and not (tmp_path / "c.ecsv").exists()


def test_the_sphere_of_a_catalogue_without_one(tmp_path: Path) -> None:
    table = Table({"m_star_total": [3e10, 1e11], "r50_3d": [3.0, 6.0], "m_gas_total": [1e9, 1e10]}, units=["Msun", "kpc", "Msun"])
    table.write(tmp_path / "in.ecsv")
    with pytest.raises(DataError, match=r"must have aperture_ratio for tng-shared, got m_star_total, .*--set aperture_ratio=NUMBER"):
        predict_catalogue(tmp_path / "in.ecsv", "tng-shared", tmp_path / "out.ecsv")
    assert predict_catalogue(tmp_path / "in.ecsv", "tng-shared", tmp_path / "out.ecsv", constants={"aperture_ratio": 1.0}).empty == 0


def test_targets_that_are_functions_of_one_another(tmp_path: Path, folder: Path) -> None:
    """Each is written by itself, as if it were asked for alone."""
    catalogue(tmp_path / "in.ecsv")
    names = ("log_mstar", "log_mtot", "log_mdm", "log_fstar", "log_mtot")
    predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "all.ecsv", targets=names)
    got = read(tmp_path / "all.ecsv")
    assert sum(name.endswith("_median") for name in got.colnames) == 4
    predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "one.ecsv", targets="log_fstar")
    assert got["log_fstar_median"].tolist() == read(tmp_path / "one.ecsv")["log_fstar_median"].tolist()
    with pytest.raises(DomainError, match=r"at least one of log_mstar, .* got none"):
        predict_catalogue(tmp_path / "in.ecsv", folder, tmp_path / "none.ecsv", targets=())


def test_a_folder_is_known_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "tng-gbdt").mkdir()
    monkeypatch.chdir(tmp_path)
    assert located("mine") == located(Path("mine")) == str(tmp_path / "mine")
    assert (located("tng-gbdt"), located(Path("tng-gbdt")), located("nowhere")) == ("tng-gbdt", str(tmp_path / "tng-gbdt"), "nowhere")


def test_a_worker_with_another_model_says_so(tmp_path: Path, folder: Path) -> None:
    table = catalogue(tmp_path / "in.ecsv")
    needed = version_of(load_mass_estimator(folder))
    assert len(predict_as(table, str(folder), ("log_mtot",), needed)) == 25
    with pytest.raises(ModelFileError, match=r"the worker on .* must have by-rule version 7, got by-rule version 1, .*of supermage "):
        predict_as(table, str(folder), ("log_mtot",), "by-rule version 7")
    with pytest.raises(ModelFileError, match=r"the worker on .* must be able to load by-rule.*, got: a model must be one of"):
        predict_as(table, str(tmp_path / "nowhere"), ("log_mtot",), needed)


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
        yield SimpleNamespace(mock=mock, n_rows=25)

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
