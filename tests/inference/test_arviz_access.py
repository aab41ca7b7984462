"""ArviZ 0.23 and 1.x: the same file and the same numbers, whether an InferenceData or a DataTree holds the draws."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray

from supermage.inference.arviz_access import as_netcdf, ess, from_dict, group_names, read, rhat, write

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

NAMES = ("posterior", "sample_stats", "warmup_posterior")
ATTRIBUTES = {"seed": 7, "kernel": "mala"}


def groups() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {"posterior": {"x": rng.standard_normal((2, 30, 3)), "Flux": rng.standard_normal((2, 30))},
            "sample_stats": {"lp": rng.standard_normal((2, 30))}, "warmup_posterior": {"x": rng.standard_normal((2, 5, 3))}}


def test_what_is_made_is_what_the_installed_arviz_has() -> None:
    data = from_dict(groups(), attributes=ATTRIBUTES)
    assert type(data).__name__ == ("InferenceData" if arviz.__version__.startswith("0.") else "DataTree")
    assert group_names(data) == NAMES and dict(data.attrs) == ATTRIBUTES
    for name, members in groups().items():
        assert not data[name].attrs
        for key, values in members.items():
            assert data[name][key].dims == ("chain", "draw", "x_dim_0")[: values.ndim] and np.array_equal(data[name][key].values, values)


def test_a_data_tree_makes_the_same_file(tmp_path: Path) -> None:
    data, path, again = from_dict(groups(), attributes=ATTRIBUTES), tmp_path / "a.nc", tmp_path / "b.nc"
    write(data, path)
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        assert group_names(tree) == NAMES
        again.write_bytes(as_netcdf(tree))
    for group in ("/", *NAMES):
        one, two = (xarray.load_dataset(file, group=group, engine="h5netcdf") for file in (path, again))
        assert one.identical(two), group
        assert all(two[name].encoding["zlib"] for name in two.data_vars)


@pytest.mark.parametrize("opener", ["installed", "1.x"])
def test_what_is_read_lies_in_memory(opener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nc"
    write(from_dict(groups(), attributes=ATTRIBUTES), path)
    if opener == "1.x":
        monkeypatch.setattr(arviz, "from_netcdf", xarray.open_datatree)  # ArviZ 1.x says no more
    data = read(path)
    path.write_bytes(b"")
    assert isinstance(data, xarray.DataTree) == (opener == "1.x" or not arviz.__version__.startswith("0."))
    assert group_names(data) == NAMES and dict(data.attrs) == ATTRIBUTES
    for name, members in groups().items():
        assert all(np.array_equal(data[name][key].values, values) for key, values in members.items())


def test_tails_are_the_same_quantiles_in_every_arviz() -> None:
    x = np.cumsum(np.random.default_rng(3).standard_normal((4, 200)), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high, other = (float(arviz.ess(x, method="quantile", prob=prob)) for prob in (0.05, 0.95, 0.055))
    assert ess(x, method="tail") == pytest.approx(min(low, high), rel=1e-9)
    assert ess(x, method="tail") == pytest.approx(14.35996962648849, rel=1e-9)
    assert abs(other - low) > 1e-3


def test_numbers_without_meaning_are_nan() -> None:
    rng = np.random.default_rng(3)
    assert all(math.isnan(rhat(x)) for x in (np.ones((4, 50)), rng.standard_normal((4, 3)), rng.standard_normal((1, 50))))
    for method in ("bulk", "tail", "mean"):
        assert math.isnan(ess(rng.standard_normal((4, 3)), method=method)), method
        assert ess(np.ones((4, 50)), method=method) == 200.0, method
