"""Bad input through the command line: one line that says the rule and what was got, exit code 1, nothing half-written.

Mistakes in a recipe have their lines in test_recipe.py; here stand those that only a command can notice, and some of the others.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from supermage import cli
from supermage.data_reduction.casa import import_casatools
from supermage.inference.run import Run
from tests.data_reduction.factories import make_gridded
from tests.report.factories import make_fit

DATA = Path(__file__).parent / "data"
REST, MOCK_REST = 111.464e9, 230.538e9
Table = dict[str, Any]
Edit = Callable[[Path], object]


def toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def write_recipe(folder: Path, **sections: Table) -> Path:
    path = folder / "recipe.toml"
    lines = (f"[{section}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items()) for section, table in sections.items())
    path.write_text("".join(lines), encoding="utf-8")
    return path


def galaxy(rest_frequency: float, **changes: Any) -> Table:
    return {"name": "a galaxy", "distance": 11.4, "rest_frequency": rest_frequency, **changes}


def reduce_recipe(folder: Path, **changes: Any) -> Path:
    section = {"measurement_set": "a.ms", "output": "out/visibilities.nc", "velocity_range": [6.0, 17.0], "frame": "TOPO",
               "grid": {"n_pixel": 32, "pixel_scale": 0.5}}
    return write_recipe(folder, galaxy=galaxy(REST), reduce={**section, **changes})


def fit_recipe(folder: Path, *, rest_frequency: float = MOCK_REST, sampler: Table | None = None, **changes: Any) -> Path:
    section = {"visibilities": "visibilities.nc", "output": "out/posterior.nc", "model": {"emulator": "nuker-mge-solve"},
               "sampler": {"processes": 1, "chains": 2, **(sampler or {})}}
    return write_recipe(folder, galaxy=galaxy(rest_frequency), fit={**section, **changes})


def simulate_recipe(folder: Path, truth: Table | None = None, **changes: Any) -> Path:
    true = {"scale_length": 0.5, "log10_mbh": 8.1, "inclination": 76.0, "qintr": 0.6, "alpha": 2.0, "gamma_minus_beta": -1.2, "gamma": 0.8,
            "break_r": 1.5, "intensity_rb": 4.35, "PA": 67.0, "line_broadening": 10.0, "systemic_velocity": 1241.0, "x": 0.0, "y": 0.0,
            "Flux": 2.0, **(truth or {})}
    section = {"output": "out/mock.ms", "minutes": 0.2, "channels": 8, "flagged_edge": 1, "dates": ["2018-11-20"],
               "truth": true}
    return write_recipe(folder, galaxy=galaxy(MOCK_REST), simulate={**section, **changes})


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder (not casacore's locks, nor empty folders)."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "table.lock"}


@contextmanager
def files_of_at_most(size: int | None) -> Iterator[None]:
    """Writing beyond so many bytes fails as on a full disk."""
    if size is None:
        yield
        return
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must refuse its input; returns its one line. Progress and warnings that came before it are no errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, full_at: int | None = None) -> str:
        monkeypatch.delenv("SUPERMAGE_TRACEBACK", raising=False)
        before = contents(tmp_path)
        capfd.readouterr()
        with files_of_at_most(full_at), pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if not re.match(r"supermage: warning: |[\w ,:.-]+: (started|done in|\d+(/\d+)?,)", line)]
        assert left.value.code == 1, err
        assert len(lines) == 1, err
        assert lines[0].startswith("supermage: ")
        assert "internal error" not in lines[0]
        assert out == ""
        assert contents(tmp_path) == before
        return lines[0].removeprefix("supermage: ").replace(str(tmp_path), "<here>")

    return run


def same(line: str, wanted: str) -> None:
    """Compare a line with what was wanted, in which ``...`` stands for anything."""
    assert re.fullmatch(".*".join(map(re.escape, wanted.split("..."))), line), line


# Measurement sets

@pytest.fixture(scope="session")
def alma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-baseline")
    with tarfile.open(DATA / "alma-x5707-one-baseline.ms.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    path = next(folder.glob("*.ms"))
    for table in path.iterdir():
        if table.is_dir() and table.name not in {"ANTENNA", "DATA_DESCRIPTION", "FIELD", "OBSERVATION", "POLARIZATION", "SPECTRAL_WINDOW"}:
            shutil.rmtree(table)
    return path


def column(name: str, change: Callable[[Any], Any], table: str = "") -> Edit:
    """An edit of one column of a table."""
    def edit(path: Path) -> None:
        tool = import_casatools().table()
        tool.open(str(path / table), nomodify=False)
        tool.putcol(name, change(tool.getcol(name)))
        tool.close()
    return edit


def one(value: float) -> Callable[[Any], Any]:
    """Change one element."""
    def change(array: Any) -> Any:
        array[(*(0 for _ in array.shape[1:]), 3)] = value
        return array
    return change


def halved(name: str) -> Edit:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size // 2)


def halved_data(path: Path) -> None:
    largest = max(path.glob("table.f*_TSM*"), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def pointings(path: Path) -> None:
    column("NAME", lambda names: np.array(["M 1", "M 1", "other"]), "FIELD")(path)
    column("FIELD_ID", lambda number: np.arange(number.size) % 2)(path)


UNWRITABLE = "an output must lie in a folder that can be written, got /proc/none/v.nc (No such file or directory)"


BLOCK = "2018-03-16T05:38 observation 0 window 0"


@pytest.mark.parametrize(("edit", "changes", "line"), [
    (shutil.rmtree, {}, "a measurement set must exist, got <here>/a.ms"),
    (lambda path: shutil.rmtree(path) or path.write_text("x"), {}, "a measurement set must be a folder, got the file <here>/a.ms"),
    (lambda path: (path / "table.dat").unlink(), {}, "a measurement set must hold table.dat, got <here>/a.ms without it: ..."),
    (lambda path: shutil.rmtree(path / "SPECTRAL_WINDOW"), {}, "a measurement set must hold the table SPECTRAL_WINDOW, got ..."),
    (halved("table.dat"), {}, "a measurement set must be whole and readable, got <here>/a.ms (..."),
    (halved("ANTENNA/table.f0"), {}, "a measurement set must be whole and readable, got <here>/a.ms (..."),
    (halved_data, {}, "a measurement set must be whole and readable, got <here>/a.ms (..."),
    (column("FLAG", lambda flag: flag | True), {},
     f"a block must hold unflagged data inside the grid, got none of 720 visibilities in {BLOCK} (720 flagged, ..."),
    (column("WEIGHT", lambda weight: 0 * weight), {}, "a block must hold unflagged data ... (0 flagged, 720 without a usable weight, ..."),
    (column("DATA", lambda data: data * np.nan), {},
     f"unflagged visibilities must be finite, got 720 NaN or infinite in 40 rows of {BLOCK};..."),
    (column("UVW", one(np.nan)), {},
     f"baselines (UVW) of unflagged visibilities must be finite, got 1 NaN or infinite in 40 rows of {BLOCK}"),
    (column("TIME", one(np.nan)), {}, "times of a measurement set must be finite, got 1 NaN or infinite in <here>/a.ms"),
    (column("CHAN_FREQ", lambda hertz: hertz / 1e9, "SPECTRAL_WINDOW"), {},
     "channel frequencies must be in Hz and above 1 MHz, got 111.457 in window 0 of <here>/a.ms: GHz passed for Hz?"),
    (pointings, {}, "a field must have one phase centre: mosaics are not supported, got 2 pointings of 'M 1' in <here>/a.ms"),
    (pointings, {"field": "M 1"}, "a field must have one phase centre: mosaics are not supported, got 2 pointings of 'M 1' in <here>/a.ms"),
    (column("DATA_DESC_ID", lambda number: number + 7), {}, "rows must point into the table DATA_DESCRIPTION, ... got 7 in <here>/a.ms"),
    (column("FIELD_ID", lambda number: number + 7), {}, "rows must point into the table FIELD, ..."),
    (column("ANTENNA2", lambda number: number + 70), {}, "rows must point into the table ANTENNA, ..."),
    (None, {"velocity_range": [5000.0, 5100.0]},
     f"the velocity range must lie inside the band, got 5000 to 5100 km/s (TOPO, radio) for {BLOCK}, whose channels cover 4.2 to 18.6..."),
    (None, {"velocity_range": [6.0, 500.0]}, "the velocity range must lie inside the band, got 6 to 500 km/s..."),
    (None, {"field": "GAMA56762"}, "the field must be one of GAMA567624, got 'GAMA56762'; did you mean 'GAMA567624'?"),
    (None, {"dish_diameter": -12.0}, "<here>/recipe.toml: reduce.dish_diameter: input should be greater than or equal to 1, got -12.0"),
    (None, {"grid": {"n_pixel": 8, "pixel_scale": 100.0}},
     "a block must hold unflagged data inside the grid, got none ... 720 beyond the grid)"),
    (None, {"output": "."}, "an output must be a file, got the folder <here>"),
    (None, {"output": "recipe.toml/v.nc"}, "an output must lie in a folder, got <here>/recipe.toml/v.nc below the file <here>/recipe.toml"),
    (None, {"output": "/proc/none/v.nc"}, UNWRITABLE),
    (None, {}, "the visibilities must lie in at least 10 cells of the grid, got 1; a cell is ... m wide: enlarge reduce.grid.n_pixel..."),
])
def test_reduce_refuses(refused: Callable[..., str], alma: Path, tmp_path: Path, edit: Edit | None, changes: Table, line: str) -> None:
    shutil.copytree(alma, tmp_path / "a.ms")
    if edit is not None:
        edit(tmp_path / "a.ms")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "visibilities.nc").write_text("an earlier file")
    same(refused("reduce", reduce_recipe(tmp_path, **changes)), line)


def test_reduce_on_a_full_disk_keeps_the_earlier_file(refused: Callable[..., str], alma: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.reduce.LEAST_CELLS", 1)
    shutil.copytree(alma, tmp_path / "a.ms")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "visibilities.nc").write_text("an earlier file")
    same(refused("reduce", reduce_recipe(tmp_path), full_at=2000),
         "gridded visibilities must go to a folder that can be written and has room, got <here>/out/visibilities.nc (...)...")


# Recipes

@pytest.mark.parametrize(("content", "line"), [
    (None, "a recipe must be a readable TOML file, got recipe.toml (No such file or directory)"),
    ("folder", "a recipe must be a readable TOML file, got recipe.toml (Is a directory)"),
    (b"<html>", "a recipe must be valid TOML, got recipe.toml: Invalid statement (at line 1, column 1)"),
    (b"\x89HDF\r\n", "a recipe must be valid TOML, got recipe.toml: ...can't decode..."),
    (b"", "recipe.toml: this command needs a [galaxy] section, got none"),
    (b"[galaxy]\nname = 'x'\ndistance = 1.0\n", "recipe.toml: this command needs a [fit] section, got none"),
    (b"[galaxy]\nname = 'x'\ndistance = -1.0\n", "recipe.toml: galaxy.distance: input should be greater than 0, got -1.0"),
    (b"[galaxy]\nname = 'x'\ndistance = 1.0\nrest_frequency = 230.538\n",
     "recipe.toml: galaxy.rest_frequency: a frequency must be in Hz and at least 1e+06 here, got 230.538: GHz or MHz passed for Hz?"),
])
def test_what_is_no_recipe(refused: Callable[..., str], tmp_path: Path, content: bytes | str | None, line: str) -> None:
    path = tmp_path / "recipe.toml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    same(refused("fit", "recipe.toml"), line)


# Fits

@pytest.fixture(scope="session")
def gridded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gridded(n_channel=12, n_cell=40).save(tmp_path_factory.mktemp("gridded") / "visibilities.nc")


def prior(name: str, lower: float, upper: float) -> Table:
    return {"priors": {name: {"lower": lower, "upper": upper}}}


@pytest.mark.parametrize(("changes", "line"), [
    ({"sampler": {"kernel": "persistent-mla"}},
     "fit.sampler.kernel must be one of mala, hmc, persistent-mala, barker, mala-paper, surrogate-hmc, "
     "got 'persistent-mla'; did you mean 'persistent-mala'?"),
    ({"model": {"emulator": "nuker-mgee"}}, "a model must be one of nuker-mge, ..., got 'nuker-mgee'; did you mean 'nuker-mge'?"),
    ({"model": {"likelihood": "student"}}, "...input should be 'moderated_t', 'student_t', 'gaussian' or 'paper', got 'student'; "
                                          "did you mean 'student_t'?"),
    ({"visibilites": "x"}, "<here>/recipe.toml: unknown key 'fit.visibilites'; did you mean 'visibilities'?"),
    (prior("alpha", 3.0, 2.0), "<here>/recipe.toml: fit.priors.alpha: lower must be below upper, got 3.0 >= 2.0"),
    (prior("alpha", 0.0999, 10.0), "the priors must stay inside the emulator's range: alpha must lie in [0.1, 10], ..., got 0.0999"),
    (prior("alpha", 0.0, 10.0), "the priors must stay inside the emulator's range: alpha must lie in [0.1, 10], ..., got 0"),
    (prior("gamma_minus_beta", -3.01, -0.3),
     "the priors must stay inside the emulator's range: beta - gamma must lie in [0.3, 3], ..., got 3.01"),
    (prior("gamma", 0.001, 1.21), "the priors must stay inside the emulator's range: gamma must lie in [0.001, 1.2], ..., got 1.21"),
    (prior("break_r", 0.41, 60.0), "the priors ... emulator's range: break_radius must lie in [2, 2000] pc, ..., got 3316.125579"),
    (prior("inclination", 10.0, 120.0), "fit.priors.inclination must lie in [0, 90] deg, got 120"),
    (prior("qintr", 0.5, 2.0), "fit.priors.qintr must lie in [0.05, 1], the range of the tabulated circular velocity, got 2"),
    ({"priors": {"scale_length": {"fixed": 0.0}}}, "fit.priors.scale_length must be above 0 (a scale length of 0 is no disc), got 0"),
    ({"sampler": {"start": {"scale_length": 0.0}}}, "scale_length of a start must be above 0 (a scale length of 0 is no disc), got 0"),
    (prior("log10_mbh", 1e7, 1e9), "fit.priors.log10_mbh must lie in [0, 12] dex(Msun), got 1e+07: is this log10?"),
    (prior("scale_length", -2.0, 1.0), "fit.priors.scale_length must be at least 0 arcsec, got -2"),
    (prior("x", 3.0, 4.0), "the centre must lie inside the image, -1.92 to 1.92 arcsec, got x of 3 to 4 arcsec"),
    (prior("y", -9.0, -2.0), "the centre must lie inside the image, -1.92 to 1.92 arcsec, got y of -9 to -2 arcsec"),
    ({"priors": {"x": {"fixed": 500.0}}}, "the centre must lie inside the image, -1.92 to 1.92 arcsec, got x of 500 to 500 arcsec"),
    ({"output": "/proc/none/v.nc"}, UNWRITABLE),
    (prior("systemic_velocity", 50000.0, 60000.0),
     "the line must lie inside the band, ... km/s, got systemic velocities of 50000 to 60000 km/s"),
    ({"rest_frequency": 345.796e9}, "galaxy.rest_frequency must be that of the reduced data, 2.30538e+11 Hz, got 3.45796e+11 Hz"),
    ({"sampler": {"start": {"inclination": 95.0}}}, "a start must lie inside the prior of 'inclination', [72, 89], got 95"),
    ({"sampler": {"start": {"alpha": 3.0}}, **prior("alpha", 1.0, 2.0)}, "... a start must lie inside the priors, alpha in ..., got 3.0"),
    ({"sampler": {"chains": 1}}, "<here>/recipe.toml: fit.sampler.chains: input should be greater than or equal to 2, got 1"),
    ({"sampler": {"warmup": [-3]}}, "<here>/recipe.toml: fit.sampler.warmup[0]: input should be greater than or equal to 1, got -3"),
    ({"sampler": {"seed": -3}}, "<here>/recipe.toml: fit.sampler.seed: input should be greater than or equal to 0, got -3"),
    ({"truth": "none.json"}, "fit.truth must be a JSON file of true values, got <here>/none.json (No such file or directory)"),
    ({"truth": "recipe.toml"}, "fit.truth must be a JSON file of true values, got <here>/recipe.toml (Expecting value: ...)"),
    ({"output": "."}, "an output must be a file, got the folder <here>"),
    ({"output": "recipe.toml/p.nc"}, "an output must lie in a folder, got <here>/recipe.toml/p.nc below the file <here>/recipe.toml"),
])
def test_fit_refuses(refused: Callable[..., str], gridded_file: Path, tmp_path: Path, changes: Table, line: str) -> None:
    shutil.copy(gridded_file, tmp_path)
    same(refused("fit", fit_recipe(tmp_path, **changes)), line)


@pytest.mark.parametrize(("content", "line"), [
    ('{"parameters": {"alfa": 1.0}}', "fit.truth must name parameters of the model, got 'alfa' in ...; did you mean 'alpha'?"),
    ('{"parameters": {"alpha": "two"}}', "fit.truth must hold finite numbers, got alpha = 'two' in <here>/truth.json"),
    ('{"parameters": {"alpha": NaN}}', "fit.truth must hold finite numbers, got alpha = nan in <here>/truth.json"),
    ("[1, 2]", "fit.truth must hold 'parameters', got <here>/truth.json without"),
])
def test_truth_that_is_none(refused: Callable[..., str], tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "truth.json").write_text(content, encoding="utf-8")
    same(refused("fit", fit_recipe(tmp_path, truth="truth.json")), line)


def hdf(change: Callable[[Any], object]) -> Edit:
    def edit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)
    return edit


def set_first(name: str, value: float) -> Edit:
    return hdf(lambda file: file[name].__setitem__((0, 0, 0), value))


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


WHOLE = "gridded visibilities must be a whole file written by `supermage reduce`, got <here>/visibilities.nc (...)"


@pytest.mark.parametrize(("edit", "line"), [
    (Path.unlink, "gridded visibilities must be an existing netCDF file, got <here>/visibilities.nc"),
    (lambda path: path.unlink() or path.mkdir(), "gridded visibilities must be an existing netCDF file, got <here>/visibilities.nc"),
    (lambda path: path.write_text("SIMPLE  = T"), WHOLE), (lambda path: path.write_text(""), WHOLE), (halve, WHOLE),
    (hdf(lambda file: file.attrs.__delitem__("format")), WHOLE), (hdf(lambda file: file.__delitem__("frequency")), WHOLE),
    (set_first("mean_real", np.nan), "...mean of gridded visibilities must be finite, got NaN or infinity..."),
    (set_first("mean_real", 0.5), "gridded visibilities must be as they were written, got <here>/visibilities.nc with another checksum"),
    (hdf(lambda file: file["frequency"].__setitem__(..., 230.5 + 0.01 * np.arange(12.0))),
     "...frequencies must be in Hz and above 1 MHz, got 230.5: GHz passed for Hz?"),
])
def test_visibilities_that_cannot_be_fitted(refused: Callable[..., str], gridded_file: Path, tmp_path: Path, edit: Edit, line: str) -> None:
    edit(Path(shutil.copy(gridded_file, tmp_path)))
    same(refused("fit", fit_recipe(tmp_path)), line)


class Begun(Exception):  # noqa: N818 - no error
    """The fit has begun: nothing was wrong."""


def begin(monkeypatch: pytest.MonkeyPatch, result: Callable[[], Any]) -> None:
    """Put something quick in place of a fit's starts."""
    monkeypatch.setattr("supermage.inference.fit.begin", lambda *_, **__: result())


def raise_begun() -> None:
    raise Begun


PARSEC = 206264.80624709636 / 11.4e6
EDGES = {"alpha": (0.1, 10.0), "gamma_minus_beta": (-3.0, -0.3), "gamma": (0.001, 1.2), "break_r": (2.0 * PARSEC, 2000.0 * PARSEC)}


@pytest.mark.parametrize("rounding", [0.0, 1e-12])
def test_edges_are_no_bad_input(gridded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounding: float) -> None:
    shutil.copy(gridded_file, tmp_path)
    priors = {name: {"lower": low - abs(low) * rounding, "upper": high + abs(high) * rounding} for name, (low, high) in EDGES.items()}
    priors |= {"inclination": {"lower": 0.0, "upper": 90.0}, "scale_length": {"lower": 0.0, "upper": 10.0}}
    recipe = fit_recipe(tmp_path, priors=priors, sampler={"start": {"inclination": 90.0, "PA": 359.9, "qintr": 0.1}})
    begin(monkeypatch, raise_begun)
    monkeypatch.setenv("SUPERMAGE_TRACEBACK", "1")
    with pytest.raises(Begun):
        cli.main(["fit", str(recipe)])


@pytest.fixture(scope="session")
def interrupted(gridded_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with visibilities and the checkpoint of a fit that was interrupted right after its starts."""
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copy(gridded_file, folder)

    def interrupt(*_: Any, **__: Any) -> None:
        raise Begun

    with pytest.MonkeyPatch.context() as patched:
        run_without_model(patched)
        patched.setattr("supermage.inference.fit.advance", interrupt)
        patched.setenv("SUPERMAGE_TRACEBACK", "1")
        with pytest.raises(Begun):
            cli.main(["fit", str(fit_recipe(folder))])
    assert (folder / "out" / "posterior.checkpoint" / "newest.ckpt").is_file()
    return folder


def run_without_model(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Run, "arrays", lambda _: {"z": np.zeros(1000)})
    patched.setattr(Run, "notes", lambda _: {})
    begin(patched, lambda: Run.__new__(Run))


@pytest.fixture
def checkpointed(interrupted: Path, tmp_path: Path) -> Path:
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    return tmp_path


OTHERS = "a checkpoint must belong to this recipe, ..., got <here>/out/posterior.checkpoint/newest.ckpt of another: --fresh starts anew"


@pytest.mark.parametrize("changes", [{"sampler": {"seed": 2}}, prior("alpha", 1.0, 2.0), {"model": {"emulator": "nuker-mge"}}])
def test_checkpoint_of_another_recipe(refused: Callable[..., str], checkpointed: Path, changes: Table) -> None:
    same(refused("fit", fit_recipe(checkpointed, **changes)), OTHERS)


def test_checkpoint_of_other_data(refused: Callable[..., str], checkpointed: Path) -> None:
    make_gridded(seed=2, n_channel=12, n_cell=40).save(checkpointed / "visibilities.nc")
    same(refused("fit", fit_recipe(checkpointed)), OTHERS)


def test_damaged_checkpoint(refused: Callable[..., str], checkpointed: Path) -> None:
    halve(checkpointed / "out" / "posterior.checkpoint" / "newest.ckpt")
    same(refused("fit", fit_recipe(checkpointed)), "a checkpoint must be whole, got damaged files in <here>/out/posterior.checkpoint: ...")


def test_a_fresh_fit_that_cannot_begin_keeps_the_checkpoint(refused: Callable[..., str], checkpointed: Path) -> None:
    same(refused("fit", "--fresh", fit_recipe(checkpointed, model={"emulator": "none"})), "a model must be one of ..., got 'none'...")


def test_fit_on_a_full_disk_keeps_the_earlier_files(refused: Callable[..., str], checkpointed: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    run_without_model(monkeypatch)
    (checkpointed / "out" / "posterior.nc").write_text("an earlier file")
    (checkpointed / "out" / "posterior.checkpoint" / "newest.ckpt").unlink()
    same(refused("fit", fit_recipe(checkpointed), full_at=4000),
         "a checkpoint must be writable, got <here>/out/posterior.checkpoint/newest.ckpt: File too large")


# Reports

@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = make_gridded(n_channel=12, n_cell=60)
    return make_fit(tmp_path_factory.mktemp("fitted"), gridded=data, drift=1.5, draws=60, converged=0).parent


FOREIGN = "a posterior must be a netCDF file that ArviZ opens, got posterior.nc (...)"


@pytest.mark.parametrize(("edit", "line"), [
    (Path.unlink, "a posterior must be a netCDF file, got posterior.nc, which is not there"),
    (lambda path: path.write_text("x"), FOREIGN), (lambda path: path.write_text(""), FOREIGN), (halve, FOREIGN),
    (lambda path: shutil.copy(path.with_name("visibilities.nc"), path),
     "a reduction's report needs gridded visibilities that `supermage reduce` wrote, got posterior.nc without an account"),
    (hdf(lambda file: file.__delitem__("posterior/log10_mbh")), "a report needs a posterior ..., got posterior.nc without log10_mbh"),
    (hdf(lambda file: file["posterior/alpha"].attrs.__delitem__("prior_lower")),
     "a report needs a posterior ... without the prior of alpha"),
    (hdf(lambda file: file["posterior/alpha"].__setitem__((0, 0), np.nan)),
     "draws of a posterior must be finite, got NaN ... in alpha of posterior.nc"),
    (lambda path: path.with_name("visibilities.nc").unlink(), "gridded visibilities must be an existing netCDF file, got ..."),
    (lambda path: halve(path.with_name("visibilities.nc")), "gridded visibilities must be a whole file ..., got ...visibilities.nc (...)"),
    (lambda path: make_gridded().save(path.with_name("visibilities.nc")),
     "a report needs the data that were fitted (checksum ...), got ...: reduced anew since?"),
])
def test_report_refuses(refused: Callable[..., str], fitted: Path, tmp_path: Path, edit: Edit, line: str) -> None:
    path = here(fitted, tmp_path)
    edit(path)
    same(refused("report", "posterior.nc"), line)


def here(fitted: Path, folder: Path) -> Path:
    """Copy a fit; its visibilities are those beside it."""
    for name in ("visibilities.nc", "posterior.nc"):
        shutil.copy(fitted / name, folder)
    with h5py.File(folder / "posterior.nc", "r+") as file:
        for group in (file, file["posterior"]):
            group.attrs["visibilities"] = str(folder / "visibilities.nc")
            group.attrs["recipe_folder"] = str(folder)
    return folder / "posterior.nc"


@pytest.mark.parametrize(("words", "full_at", "line"), [
    (("-o", "posterior.nc"), None, "a report must go to a new folder, an empty one or an earlier report, got posterior.nc"),
    (("-o", "mine"), None, "a report must go to a new folder, an empty one or an earlier report, got mine"),
    (("-o", "posterior.nc/report"), None, "a report must go to a folder that can be written and has room, got posterior.nc/report (...)"),
    (("--figure", "cornr"), None, "a figure must be one of mass, ..., got 'cornr'; did you mean 'corner'?"),
    ((), 3000, "a report must go to a folder that can be written and has room, got ... (File too large)"),
])
def test_report_that_has_no_place(refused: Callable[..., str], fitted: Path, tmp_path: Path, words: tuple[str, ...], full_at: int | None,
                                  line: str) -> None:
    here(fitted, tmp_path)
    for folder, name in (("mine", "thesis.tex"), ("report", "summary.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("earlier")
    same(refused("report", "posterior.nc", *words, full_at=full_at), line)


def test_a_fit_that_does_not_converge_exits_2_and_its_report_says_so_first(
        capsys: pytest.CaptureFixture[str], fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supermage.inference.posterior import open_posterior
    from supermage.report import build, mass

    posterior = open_posterior(here(fitted, tmp_path))
    monkeypatch.setattr("supermage.inference.fit.fit", lambda *_, **__: posterior)
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", str(fit_recipe(tmp_path))])
    assert left.value.code == 2
    *cautions, line = capsys.readouterr().err.splitlines()
    assert all(caution.startswith("supermage: warning: ") for caution in cautions)
    same(line, "supermage: the fit did not converge: worst R-hat ... (...; required below 1.05); ...; its posterior is kept, and ...")

    def only_the_lines(case: Any, work: Path, _: Any) -> None:
        (work / build.MARKER).write_text("\n".join(mass.summary_lines(case.record, case.verdict)), encoding="utf-8")

    monkeypatch.setattr(build, "_write", only_the_lines)
    with pytest.raises(SystemExit) as left:
        cli.main(["report", str(tmp_path / "posterior.nc")])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("verdict: NOT CONVERGED")


# Simulations, training, calibration

@pytest.mark.parametrize(("changes", "line"), [
    ({"array": "alma.cycle6.44"}, "simulate.array must name a file of ..., got 'alma.cycle6.44'; did you mean 'alma.cycle6.4'?"),
    ({"dates": ["2018-13-20"]}, "simulate.dates must read like '2018-11-20', got '2018-13-20'"),
    ({"right_ascension": "abc"}, "simulate.right_ascension and declination must read like ..., got 'abc' and '-05d48m03s'"),
    ({"declination": "+88d00m00s"}, "the field must stand at least 15 deg high, got ... deg on 2018-11-20"),
    ({"truth": {"systemic_velocity": 1e6}}, "simulate.truth.systemic_velocity must be below the speed of light, 299792 km/s, got 1e+06"),
    ({"truth": {"qintr": 2.0}}, "<here>/recipe.toml: simulate.truth: qintr must lie in [0.05, 1], ..., got 2"),
    ({"truth": {"log10_mbh": 1.3e8}}, "...simulate.truth: log10_mbh must lie in [0, 12] dex(Msun), got 1.3e+08: is this log10?"),
    ({"truth": {"Flux": -2.0}}, "...simulate.truth: Flux must be at least 0 Jy km / s, got -2"),
    ({"truth": {"break_r": -1.5}}, "...simulate.truth: break_r must be above 0 arcsec, got -1.5"),
    ({"truth": {"x": 500.0}}, "simulate.truth.x must lie in the primary beam, at most its full width of 25... arcsec from ..., got 500"),
    ({"truth": {"scale_length": 500.0}},
     "simulate.truth.scale_length must be at most the primary beam's full width, 25... arcsec, got 500"),
    ({"output": "/proc/none/v.nc"}, "an output must lie in a folder that can be written, got /proc/none/v.nc.truth.json (...)"),
    ({"channel_width": 1e12}, "simulate.channel_width must leave every channel above 0 Hz, got 1e+12 Hz for 8 channels around ... Hz"),
    ({"output": "recipe.toml"}, "a measurement set must not replace a file, got <here>/recipe.toml"),
    ({"output": "."}, "a measurement set may replace only another one, got the folder <here>"),
])
def test_simulate_refuses(refused: Callable[..., str], tmp_path: Path, changes: Table, line: str) -> None:
    same(refused("simulate", simulate_recipe(tmp_path, **changes)), line)


def test_simulate_on_a_full_disk_keeps_the_earlier_set(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out" / "mock.ms").mkdir(parents=True)
    (tmp_path / "out" / "mock.ms" / "table.dat").write_text("an earlier set")
    same(refused("simulate", simulate_recipe(tmp_path), full_at=2000),
         "casatools could not write the mock measurement set ...: ...write error...")


@pytest.mark.parametrize(("command", "section", "line"), [
    ("train", {"kind": "nuker-mgee"}, "train.kind must be one of nuker-mge, ..., got 'nuker-mgee'; did you mean 'nuker-mge'?"),
    ("train", {"kind": "nuker-mge", "options": {"stepz": 3}}, "train.options: unknown key 'stepz'; did you mean 'steps'?"),
    ("train", {"kind": "nuker-mge", "output": "/proc/none"},
     "an output must lie in a folder that can be written, got /proc/none/model.json (No such file or directory)"),
    ("train", {"kind": "nuker-mge", "options": {"hidden": -1}}, "train.options.hidden: input should be greater than or equal to 1, got -1"),
    ("calibrate", {"input": "none.fits", "output": "o.ms", "steps": [{"task": "split"}]},
     "calibrate.input must exist, got <here>/none.fits"),
    ("calibrate", {"input": "recipe.toml", "output": ".", "steps": [{"task": "split"}]},
     "a measurement set may replace only another one, got the folder <here>"),
])
def test_train_and_calibrate_refuse(refused: Callable[..., str], tmp_path: Path, command: str, section: Table, line: str) -> None:
    same(refused(command, write_recipe(tmp_path, **{command: section})), line)


def test_control_c_leaves_nothing_half_written(gridded_file: Path, tmp_path: Path) -> None:
    shutil.copy(gridded_file, tmp_path)
    path = fit_recipe(tmp_path, sampler={"starts": 2000})
    before = contents(tmp_path)
    # a shell that runs the tests in the background has its children ignore the interrupt
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; from supermage.cli import main; main(['fit', {str(path)!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        first = next(line for line in process.stderr if not line.startswith(("supermage: warning: ", "execution: ")))
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        last = process.stderr.read().splitlines()
    assert first == "scan of starts: started, 2000 steps\n"
    assert process.returncode == 130
    assert last == ["supermage: interrupted; run the same command again to resume"]
    # the way that the run chose, kept for the next: see docs/sampler.md
    assert set(contents(tmp_path)) - set(before) == {"out/posterior.checkpoint/newest.ckpt"}
    assert before.items() <= contents(tmp_path).items()
