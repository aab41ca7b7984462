"""The posterior file: there and back, opened by ArviZ, whole or not at all; its summary against numpy."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray

from supermage.errors import DataError
from supermage.inference import arviz_access, checkpoint
from supermage.inference.parameters import PARAMETERS
from supermage.inference.posterior import Posterior, make_posterior, open_posterior

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

ROOT = Path(__file__).resolve().parents[2]
USED = tuple(PARAMETERS[name] for name in ("log10_mbh", "PA", "Flux"))
TRUTH = {"log10_mbh": 8.1, "PA": 358.0, "Flux": 2.0, "alpha": 2.0}


def draws(seed: int = 1, n: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "log10_mbh": 8.0 + 0.1 * rng.standard_normal((4, n)),
        "PA": (359.0 + 4.0 * rng.standard_normal((4, n))) % 360.0,
        "Flux": 2.0 + 0.05 * rng.standard_normal((4, n)),
    }


def posterior(seed: int = 1, n: int = 300, **attributes: object) -> Posterior:
    stats = {"lp": np.zeros((4, n)), "acceptance_rate": np.full((4, n), 0.6), "step_size": np.full((4, n), 0.3)}
    known = {"circular": json.dumps(["PA"]), "truth": json.dumps({"parameters": TRUTH}), "fixed": json.dumps({"alpha": 2.0}), "seed": 7}
    return make_posterior(draws(seed, n), stats, USED, warmup=draws(9, 20), attributes={**known, **attributes})


@pytest.fixture(params=["installed", "1.x"])
def arviz_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ArviZ that opens files: ``from_netcdf`` of 1.x is xarray's ``open_datatree`` by another name."""
    if request.param == "1.x":
        monkeypatch.setattr(arviz, "from_netcdf", xarray.open_datatree)
    return request.param


def test_there_and_back(tmp_path: Path, arviz_of: str) -> None:
    made = posterior()
    path = made.save(tmp_path / "deep" / "posterior.nc")
    assert made.path == path and [p.name for p in path.parent.iterdir()] == ["posterior.nc"]
    found = open_posterior(path)
    assert found.names == ("log10_mbh", "PA", "Flux")
    for name, values in draws().items():
        assert np.array_equal(found.draws(name), values)
    assert found.parameters == USED
    assert found.truth == TRUTH and found.fixed == {"alpha": 2.0} and found.attributes["seed"] == 7
    assert found.converged == made.converged and found.diagnosis.acceptance == pytest.approx((0.6,) * 4)
    assert found.summary().equals(made.summary())
    assert isinstance(found.to_arviz(), xarray.DataTree) or arviz_of == "installed"
    again = open_posterior(found.save(tmp_path / "again.nc"))
    assert again.summary().equals(made.summary()) and again.parameters == USED and again.attributes == found.attributes


def test_arviz_opens_it(tmp_path: Path) -> None:
    path = posterior().save(tmp_path / "posterior.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = arviz.from_netcdf(str(path))
        table = arviz.summary(data, var_names=["log10_mbh"], kind="stats", round_to="none")
        rhat, ess = (float(number(data)["log10_mbh"]) for number in (arviz.rhat, arviz.ess))
    assert arviz_access.group_names(data) == ("posterior", "sample_stats", "warmup_posterior")
    assert data["posterior"]["Flux"].dims == ("chain", "draw")
    assert data["posterior"]["Flux"].attrs["unit"] == "Jy km / s" and data["posterior"]["Flux"].attrs["prior_upper"] == 50.0
    assert data["warmup_posterior"]["Flux"].shape == (4, 20)
    row = posterior().summary().loc["log10_mbh"]
    assert (float(table["mean"].iloc[0]), rhat, ess) == pytest.approx((row["mean"], row["rhat"], row["ess_bulk"]))
    data.close()


def test_summary_is_that_of_numpy() -> None:
    table, known = posterior().summary(), draws()
    for name in ("log10_mbh", "Flux"):
        flat = known[name].reshape(-1)
        row = table.loc[name]
        assert row["mean"] == pytest.approx(flat.mean()) and row["sd"] == pytest.approx(np.std(flat, ddof=1))
        for column, share in (("median", 0.5), ("low_68", 0.16), ("high_68", 0.84), ("low_95", 0.025), ("high_95", 0.975)):
            assert row[column] == pytest.approx(np.quantile(flat, share)), column
        assert row["truth"] == TRUTH[name]
        parameter = PARAMETERS[name]
        assert (row["unit"], row["prior_lower"], row["prior_upper"]) == (parameter.unit, parameter.lower, parameter.upper)
        assert row["width_ratio"] == pytest.approx(flat.std() / ((parameter.upper - parameter.lower) / math.sqrt(12.0)))


def test_position_angle_across_north_has_a_circular_mean() -> None:
    row, angle = posterior().summary().loc["PA"], np.radians(draws()["PA"])
    circular = math.degrees(math.atan2(np.sin(angle).mean(), np.cos(angle).mean())) % 360.0
    assert row["mean"] == pytest.approx(circular, abs=0.05)
    assert row["sd"] == pytest.approx(4.0, rel=0.1)
    assert row["low_68"] < row["median"] < row["high_68"] and row["high_68"] - row["low_68"] == pytest.approx(8.0, rel=0.1)
    # not told that it is a circle, the same numbers mean nothing
    assert posterior(circular="[]").summary().loc["PA", "sd"] > 100


def test_without_a_truth_there_is_no_such_column() -> None:
    assert "truth" not in posterior(truth="").summary()
    assert posterior(truth="").truth == {}


def test_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = posterior(seed=1).save(tmp_path / "posterior.nc")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(DataError, match=r"must be writable, got .*: No space left on device") as error:
            posterior(seed=2).save(path)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    assert np.array_equal(open_posterior(path).draws("Flux"), draws(1)["Flux"])


def test_a_limit_on_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel's own refusal, in a process that may write 20 kB: HDF5 on such a disk would crash."""
    path = posterior(seed=1).save(tmp_path / "posterior.nc")
    script = (
        "import sys; from supermage.errors import SupermageError\n"
        "from tests.inference.test_posterior import posterior\n"
        "try: posterior(seed=2, n=2000).save(sys.argv[1])\n"
        "except SupermageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and "must be writable" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    assert np.array_equal(open_posterior(path).draws("Flux"), draws(1)["Flux"])


@pytest.mark.usefixtures("arviz_of")
def test_what_is_no_posterior(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which is not there"):
        open_posterior(tmp_path / "missing.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(DataError, match="that ArviZ opens") as error:
        open_posterior(tmp_path / "text.nc")
    assert "\n" not in str(error.value)
    whole = posterior().save(tmp_path / "whole.nc").read_bytes()
    (tmp_path / "half.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="that ArviZ opens"):
        open_posterior(tmp_path / "half.nc")
    (tmp_path / "prior.nc").write_bytes(arviz_access.as_netcdf(arviz_access.from_dict({"prior": draws()}, attributes={})))
    with pytest.raises(DataError, match="needs the group 'posterior', got prior"):
        open_posterior(tmp_path / "prior.nc")


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(DataError, match="got 'flux'; did you mean 'Flux'"):
        posterior().draws("flux")


def test_an_angles_truth_stands_beside_its_interval() -> None:
    """Draws about 359 deg and a truth of 1 deg: 361, inside; MCSE is the deviation over the root of the effective sample size."""
    made = posterior(truth=json.dumps({"parameters": {**TRUTH, "PA": 1.0}}))
    row = made.summary().loc["PA"]
    assert row["truth"] == pytest.approx(361.0)
    assert row["low_68"] < 361.0 < row["high_68"]
    flux = made.summary().loc["Flux"]
    assert flux["mcse_mean"] == pytest.approx(flux["sd"] / math.sqrt(1200), rel=0.3)


def test_draws_without_priors_have_no_summary(tmp_path: Path) -> None:
    data = arviz_access.from_dict({"posterior": {"x": np.zeros((2, 10))}}, attributes={})
    with pytest.raises(DataError, match=r"^a posterior's parameters must come with their priors, got 'x' without"):
        Posterior(data).summary()
