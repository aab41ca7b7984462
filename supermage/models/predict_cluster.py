"""Work of a catalogue's pieces on the workers of a Dask cluster: what a cluster does wrong is one line."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from importlib.metadata import version
from types import TracebackType
from typing import Any

from supermage.errors import DataError, SupermageError
from supermage.progress import Progress

WAIT = 600.0
"""Seconds without any worker after which a cluster is given up."""

POLL = 2.0
"""Seconds between two looks at the workers."""

LOUD = ("distributed", "tornado", "asyncio")
"""Packages whose logs repeat, with tracebacks, what an error here says in one line."""


class Cluster:
    """Workers of a Dask scheduler: use as a context, which ends with the connection closed and what is under way dropped.

    Parameters
    ----------
    address
        Of the scheduler.
    wait
        Seconds without any worker, at the start or later, after which it is given up.
    progress
        Where waiting is shown.

    Raises
    ------
    DataError
        If the extra ``cluster`` is not installed, no scheduler answers, no worker comes in time, or one lacks this version of supermage.
    """

    def __init__(self, address: str, *, wait: float = WAIT, progress: Progress) -> None:
        self.address = address
        self.wait = wait
        self._progress = progress
        self._client: Any = None
        self._silenced: list[logging.Logger] = []

    def __enter__(self) -> Cluster:
        try:
            from distributed import Client
        except ImportError:
            got = "got no package distributed"
            raise DataError(f"a Dask cluster needs the extra 'cluster' (pip install 'supermage[cluster]'), {got}") from None
        self._silence()
        try:
            self._client = Client(self.address, timeout="10s", set_as_default=False)
            self._wait_for_workers()
            self._check_package()
        except (OSError, ValueError) as error:
            self._close()
            raise DataError(f"a Dask scheduler must answer at {self.address}, got: {_said(error)}") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @property
    def cores(self) -> int:
        """Of all workers."""
        return sum(self._client.ncores().values())

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A future of a function, which the workers must be able to import."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            return self._client.submit(function, *arguments, pure=False)

    def result(self, future: Any) -> Any:
        """What a future comes to.

        Raises
        ------
        DataError
            If the cluster is lost: cancelled, its scheduler or worker after worker killed, or no worker left for too long; or if its
            workers cannot run the function.
        SupermageError
            As of the function.
        """
        try:
            self._wait_for(future)
            return future.result()
        except SupermageError:
            raise
        except asyncio.CancelledError as error:  # no Exception
            raise DataError(self._lost(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever a worker raises comes through here
            raise DataError(self._lost(error)) from None

    def _wait_for_workers(self) -> None:
        if self._client.ncores():
            return
        self._progress.start(f"waiting for workers at {self.address}", None)
        since = time.monotonic()
        while not (workers := self._client.ncores()):
            self._check_wait(since)
            time.sleep(min(POLL, 0.2 + self.wait / 10))
        self._progress.done(f"{len(workers)} there")

    def _check_package(self) -> None:
        """Of the workers that are there: one without the package would die of the first piece, and the next, and say nothing."""
        needed = version("supermage")
        for address, got in self._client.run(version, "supermage", on_error="return").items():
            if got != needed:
                raise DataError(f"the worker at {address} must have supermage {needed}, got {got if isinstance(got, str) else 'none'}")

    def _wait_for(self, future: Any) -> None:
        """Until it is done; without workers it never would be."""
        from distributed import wait

        since = time.monotonic()
        while True:
            with suppress(TimeoutError), self._client.as_current():
                wait([future], timeout=POLL)
                return
            if self._client.ncores():
                since = time.monotonic()
            else:
                self._check_wait(since)
                self._progress.advance(0, f"waiting for workers at {self.address}")

    def _check_wait(self, since: float) -> None:
        if time.monotonic() - since > self.wait:
            raise DataError(f"a Dask cluster must have workers, got none at {self.address} for {self.wait:g} s")

    def _lost(self, error: BaseException) -> str:
        from distributed import KilledWorker

        got = f"got {type(error).__name__}: {_said(error)}"
        if isinstance(error, CancelledError | asyncio.CancelledError | OSError | KilledWorker):
            return f"the Dask cluster at {self.address} must last until all is predicted, {got}"
        return f"the workers at {self.address} must be able to run this version of supermage, {got}"

    def _silence(self) -> None:
        known = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in LOUD]
        self._silenced = [logger for logger in known if not logger.disabled]
        for logger in self._silenced:
            logger.disabled = True

    def _close(self) -> None:
        if self._client is not None:
            with suppress(Exception):  # of a cluster that is lost
                self._client.close(timeout=5)
        for logger in self._silenced:
            logger.disabled = False


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
