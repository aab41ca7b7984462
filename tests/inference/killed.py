"""A fit killed at one moment after the other, each going on from what the one before it left; run by test_fit.

One process for all: it loads everything once, and each fit is a fork of it, made before torch has any threads.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from supermage.inference.fit import fit
from supermage.inference.model import GalaxyFit
from supermage.recipe import Recipe
from tests.inference.toy import ToyFactory, toy_recipe

MODEL, STEPS, NEWEST, PREVIOUS = "a model", "steps", "newest.ckpt", "previous.ckpt"
STAGE = "warm-up, stage {} of 3"
FIRST, SECOND = (f".{name}.<pid>.tmp" for name in (NEWEST, PREVIOUS))

MOMENTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("scan of starts", STEPS), (NEWEST,)),
    (("climbs", f"to {NEWEST}"), (FIRST, NEWEST)),
    ((STAGE.format(1), "ended"), (NEWEST,)),
    ((STAGE.format(1), "ended", f"at {NEWEST}"), (NEWEST, PREVIOUS)),
    ((STAGE.format(2), STEPS, MODEL, MODEL), (NEWEST, PREVIOUS)),
    ((STAGE.format(3), STEPS, STEPS, MODEL), (NEWEST, PREVIOUS)),
    ((f"to {NEWEST}",), (FIRST, NEWEST, PREVIOUS)),
    (("draws", *[MODEL] * 40), (NEWEST, PREVIOUS)),
    (("draws", STEPS, STEPS, "linked"), (NEWEST, PREVIOUS, SECOND)),
    (("draws", STEPS, STEPS, f"at {PREVIOUS}"), (NEWEST, PREVIOUS)),
    (("draws", STEPS, STEPS, f"to {NEWEST}"), (FIRST, NEWEST, PREVIOUS)),
    (("draws", "ended", "to posterior.nc"), (NEWEST, PREVIOUS, ".posterior.nc.<pid>.tmp")),
)
"""Events up to the one at which a fit is killed, and what it leaves beside the lock: two generations, and what was being written."""


class Killer:
    """Progress that waits for the events of a moment in turn, and kills its process at the last."""

    def __init__(self, moment: tuple[str, ...]) -> None:
        self.left = list(moment)

    def event(self, what: str) -> None:
        """Something happens."""
        if self.left and what == self.left[0]:
            self.left.pop(0)
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

    def start(self, what: str, total: int | None) -> None:
        """A stage begins."""
        self.event(what)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Steps are done, or known from before."""
        self.event(STEPS)

    def done(self, note: str = "") -> None:
        """A stage ends."""
        self.event("ended")

    def watch_files(self) -> None:
        """Make events of links and renames: before a rename "to", after it "at"."""
        replace, link = Path.replace, os.link

        def replaced(path: Path, target: Path) -> Path:
            self.event(f"to {target.name}")
            found = replace(path, target)
            self.event(f"at {target.name}")
            return found

        def linked(*arguments: Any) -> None:
            link(*arguments)
            self.event("linked")

        Path.replace, os.link = replaced, linked  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class WatchedFactory:
    """Makes the toy's model; each visibilities computed are an event."""

    recipe: Recipe
    killer: Killer

    def __call__(self) -> GalaxyFit:
        """The model."""
        galaxy = ToyFactory(self.recipe)()
        quick = galaxy.galaxy_model.visibilities

        def watched(theta: Mapping[str, Tensor]) -> Tensor:
            self.killer.event(MODEL)
            return quick(theta)

        galaxy.galaxy_model.visibilities = watched  # type: ignore[method-assign]
        return galaxy


def run(folder: Path, moment: tuple[str, ...]) -> None:
    """One fit, to its end should it come to it."""
    killer, recipe = Killer(moment), toy_recipe(folder)
    killer.watch_files()
    fit(recipe, factory=WatchedFactory(recipe, killer), progress=killer)


def main(folder: Path) -> None:
    """Print how each fit ended and what it left, as JSON."""
    # what a first derivative and a posterior load
    for name in ("torch._dynamo", "supermage.inference.arviz_access"):
        importlib.import_module(name)
    for moment, _ in MOMENTS:
        child = os.fork()
        if child == 0:
            try:
                run(folder, moment)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        left = [path.name for where in (folder / "posterior.checkpoint", folder) for path in where.iterdir() if path.suffix != ".nc"]
        names = sorted(name.replace(f".{child}.", ".<pid>.") for name in left if name not in ("posterior.checkpoint", "lock"))
        print(json.dumps([os.waitstatus_to_exitcode(status), names]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
