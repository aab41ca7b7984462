"""Maps of generated galaxies: what they hold, made in parts that survive an interruption, the same whatever the order of work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from supermage.errors import DataError
from supermage.models import mock_maps
from supermage.models.map_store import MapStore
from supermage.models.mock_maps import MockMaps, make_mock_maps, population
from supermage.models.predict import predict_catalogue
from supermage.models.registry import load_model
from supermage.progress import SilentProgress

SMALL = MockMaps(galaxies=5, seed=3, n_star=400, n_dm=800, n_gas=100, image_pixels=16, map_pixels=16, part=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mock_maps(tmp_path_factory.mktemp("mock") / "maps", SMALL)


def test_three_rows_a_galaxy_with_the_rows_masses(folder: Path) -> None:
    """Masses within spheres are those of the population's row to the noise of the particles; the light in the image is the galaxy's."""
    rows = population(SMALL)
    with MapStore(folder) as store:
        assert store.n_rows == 15 and store.mock and "neither observed nor simulated" in store.source
        assert store.pixels == {"r_light": 16, "g_r": 16, "mean_velocity": 16, "dispersion": 16}
        assert store.column("galaxy_id").tolist() == np.repeat(rows["galaxy_id"], 3).tolist()
        assert store.column("group_id").tolist() == np.repeat(rows["group_id"], 3).tolist()
        assert store.column("projection").tolist() == [0, 1, 2] * 5
        assert store.column("log_mstar") == pytest.approx(np.log10(np.repeat(rows["m_star_1rhsm"], 3)), abs=0.01)
        assert store.column("log_mtot") == pytest.approx(np.log10(np.repeat(rows["m_tot_1rhsm"], 3)), abs=0.05)
        assert (store.column("log_mstar_2d") > store.column("log_mstar")).all()
        light = np.log10(store.read(np.arange(15), ("r_light",))["r_light"].sum((1, 2)))
        inside = store.column("log_mstar_2d") - store.column("log_ml_2d")
        assert ((light > inside + 0.1) & (light < inside + 0.5)).all()
        motion = store.read(np.arange(15), ("dispersion",))["dispersion"]
        assert np.isfinite(motion).all() and motion.max() > 10.0
        assert store.provenance["n_star"] == 400
    assert (rows["m_star_30kpc"] > 5e9).all()


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts(SilentProgress):
        parts = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.parts += n
            if self.parts == 1:
                raise KeyboardInterrupt

    target = tmp_path / "maps"
    with pytest.raises(KeyboardInterrupt):
        make_mock_maps(target, SMALL, progress=Interrupts())
    with pytest.raises(DataError, match=r"must be complete, got .* with 1 parts and no maps.json"):
        MapStore(target)
    (target / "part-00001.nc").write_bytes(b"half a file")
    made = []
    whole = mock_maps.make_part
    monkeypatch.setattr(mock_maps, "make_part", lambda path, request, number: (made.append(number), whole(path, request, number)))
    make_mock_maps(target, SMALL)
    make_mock_maps(target, SMALL)
    assert made == [1, 2]
    with MapStore(folder) as expected, MapStore(target) as got:
        for name in expected.pixels:
            assert np.array_equal(expected.read(np.arange(15), (name,))[name], got.read(np.arange(15), (name,))[name])


def test_another_request_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="continued as they were begun, with n_star = 400, got 500") as caught:
        make_mock_maps(folder, SMALL.model_copy(update={"n_star": 500}))
    assert "\n" not in str(caught.value)
    make_mock_maps(folder, SMALL.model_copy(update={"processes": 2}))
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(DataError, match="must be readable, got a damaged file"):
        make_mock_maps(tmp_path, SMALL)


@pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning")
def test_the_shipped_network_weighs_generated_galaxies(tmp_path: Path) -> None:
    """Four galaxies of a seed that it has not seen, from three sides: card's scatter 0.065 and 0.115 dex; labelled as mock everywhere."""
    request = MockMaps(galaxies=4, seed=77, n_star=8000, n_dm=16000, n_gas=2000)
    with MapStore(make_mock_maps(tmp_path / "maps", request)) as store:
        truth = {name: store.column(name) for name in ("log_mstar", "log_mtot")}
    done = predict_catalogue(tmp_path / "maps", "mock-cnn", tmp_path / "masses.ecsv")
    assert (done.rows, done.empty) == (12, 0)
    table = Table.read(tmp_path / "masses.ecsv", format="ascii.ecsv")
    for name, scatter in (("log_mstar", 0.065), ("log_mtot", 0.115)):
        missed = np.asarray(table[f"predicted_{name}"]) - truth[name]
        assert np.sqrt(np.mean(missed**2)) < 2.0 * scatter
        inside = (np.asarray(table[f"{name}_lower_95"]) < truth[name]) & (truth[name] < np.asarray(table[f"{name}_upper_95"]))
        assert inside.sum() >= 9
    assert "neither observed nor simulated" in str(table.meta["mock"]) and load_model("mock-cnn").mock
