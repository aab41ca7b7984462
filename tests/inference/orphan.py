"""A parent that starts two processes of a fit, tells their numbers, and waits to be killed; run by test_chains."""

from __future__ import annotations

import os
import time

from supermage.inference.chains import Problem, Workers
from supermage.inference.model import GalaxyFit
from tests.inference.toy import toy_data, toy_fit


def factory() -> GalaxyFit:
    """A small toy."""
    return toy_fit(toy_data(n_cell=4, n_channel=4))


def number(problem: Problem, wait: float) -> int:
    """The process' number, late enough that the other process takes the next call."""
    time.sleep(wait)
    return os.getpid()


def main() -> None:
    """Start, tell, wait."""
    workers = Workers(factory, 2)
    print(*sorted(set(workers.map(number, [(1.0,), (1.0,)]))), flush=True)
    time.sleep(120.0)


if __name__ == "__main__":
    main()
