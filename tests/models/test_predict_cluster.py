"""A catalogue's pieces on a Dask cluster: what goes wrong there is one line, and soon."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supermage.errors import DataError, DomainError
from supermage.models import predict_cluster
from supermage.models.predict import predict_catalogue
from supermage.models.predict_cluster import Cluster
from supermage.progress import SilentProgress
from tests.models.test_predict import catalogue, read

distributed = pytest.importorskip("distributed")

pytestmark = [pytest.mark.filterwarnings("ignore::supermage.models.out_of_distribution.OutOfDistributionWarning"),
              pytest.mark.filterwarnings("ignore::supermage.models.catalogue_ranges.RangeWarning")]  # fmt: skip


class Notes(SilentProgress):
    """What was told, and what to do about it."""

    def __init__(self, then: Any = None) -> None:
        self.told: list[str] = []
        self.then = then

    def start(self, what: str, total: int | None) -> None:
        self.told.append(what)
        if self.then is not None and "waiting" in what:
            self.then()


@pytest.fixture
def empty() -> Iterator[Any]:
    """A scheduler without workers, in this process."""
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def test_no_worker_comes(empty: Any) -> None:
    notes = Notes()
    with pytest.raises(DataError, match=rf"^a Dask cluster must have workers, got none at {empty.scheduler_address} for 0.3 s$"):
        Cluster(empty.scheduler_address, wait=0.3, progress=notes).__enter__()
    assert notes.told == [f"waiting for workers at {empty.scheduler_address}"]
    assert not logging.getLogger("distributed").disabled


def test_a_worker_comes_late_and_all_go(empty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_cluster, "POLL", 0.3)
    with Cluster(empty.scheduler_address, wait=20.0, progress=Notes(lambda: empty.scale(1))) as cluster:
        assert cluster.cores == 1 and cluster.result(cluster.submit(nap, 0.6)) == "slept"
        with pytest.raises(DataError, match="must be able to run this version of supermage, got TypeError"):
            cluster.result(cluster.submit(nap, "long"))
        with pytest.raises(DomainError, match="mine"):
            cluster.result(cluster.submit(refuse))
        assert logging.getLogger("distributed").disabled
        empty.scale(0)
        cluster.wait = 1.0
        with pytest.raises(DataError, match="must have workers, got none"):
            cluster.result(cluster.submit(nap, 0.0))


def refuse() -> None:
    raise DomainError("mine")


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_a_cluster_that_ends(empty: Any, end: str) -> None:
    empty.scale(1)
    with Cluster(empty.scheduler_address, wait=20.0, progress=Notes()) as cluster:
        future = cluster.submit(nap, 3.0)
        if end == "cancelled":
            future.cancel(force=True)
        else:
            empty.close()
        with pytest.raises(DataError, match=rf"^the Dask cluster at {empty.scheduler_address} must last until .*, got ") as caught:
            cluster.result(future)
    assert "\n" not in str(caught.value)


def test_workers_that_die_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def result() -> None:
        raise distributed.KilledWorker("predict_as-1", SimpleNamespace(address="tcp://10.0.0.7:1"), 3)

    cluster = Cluster("tcp://nowhere:1", progress=Notes())
    monkeypatch.setattr(cluster, "_wait_for", lambda future: None)
    with pytest.raises(DataError, match=r"must last until all is predicted, got KilledWorker: .*predict_as-1"):
        cluster.result(SimpleNamespace(result=result))


@pytest.mark.parametrize(("got", "said"), [("0.0.7", "0.0.7"), (ModuleNotFoundError("supermage"), "none")])
def test_a_worker_without_the_package(got: Any, said: str) -> None:
    cluster = Cluster("tcp://nowhere:1", progress=Notes())
    cluster._client = SimpleNamespace(run=lambda function, name, on_error: {"tcp://a:1": function(name), "tcp://b:1": got})
    with pytest.raises(DataError, match=rf"^the worker at tcp://b:1 must have supermage {version('supermage')}, got {said}$"):
        cluster._check_package()


def test_no_scheduler_answers(tmp_path: Path) -> None:
    catalogue(tmp_path / "in.ecsv")
    with pytest.raises(DataError, match="a Dask scheduler must answer at nonsense://x"):
        predict_catalogue(tmp_path / "in.ecsv", "tng-gbdt", tmp_path / "out.ecsv", dask="nonsense://x")


def test_a_cluster_predicts_the_same(tmp_path: Path) -> None:
    """A scheduler and two workers in processes of their own: the rows, their order and every number are those of this process."""
    catalogue(tmp_path / "in.ecsv")
    predict_catalogue(tmp_path / "in.ecsv", "tng-gbdt", tmp_path / "here.ecsv", rows=4)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        done = predict_catalogue(tmp_path / "in.ecsv", "tng-gbdt", tmp_path / "there.ecsv", rows=4, dask=cluster.scheduler_address)
    here, there = read(tmp_path / "here.ecsv"), read(tmp_path / "there.ecsv")
    assert done.rows == 25 and here.colnames == there.colnames
    for name in here.colnames:
        assert str(here[name].tolist()) == str(there[name].tolist()), name
