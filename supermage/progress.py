"""Progress of long work: a bar on a terminal, plain timed lines in a log, nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, Protocol, cast, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar


@runtime_checkable
class LogStream(Protocol):
    """Where progress is written: standard error, an open text file, a string buffer."""

    def write(self, text: str, /) -> object:
        """Write text."""

    def flush(self) -> None:
        """Pass on what was written."""

    def isatty(self) -> bool:
        """Whether a person watches."""
        ...


@runtime_checkable
class Progress(Protocol):
    """What long work tells: that a stage starts, how far it is, that it is done. One stage at a time."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps, or of unknown length."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps; ``note`` says what they brought."""

    def done(self, note: str = "") -> None:
        """End the stage."""


class SilentProgress:
    """Says nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count steps."""

    def done(self, note: str = "") -> None:
        """End the stage."""


class LineProgress:
    """Plain lines for a log: at the start of a stage, every ``interval`` seconds with rate and time left, and at its end.

    Parameters
    ----------
    stream
        Where the lines go.
    interval
        Least time between two lines of a stage, s.
    clock
        Monotonic time, s.
    """

    def __init__(self, stream: LogStream, *, interval: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._what = ""
        self._total: int | None = None
        self._count = 0
        self._began = self._spoke = clock()

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps, or of unknown length."""
        self._what, self._total, self._count = what, total, 0
        self._began = self._spoke = self._clock()
        self._say("started" if total is None else f"started, {total} steps")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps and say so if the last line is old enough."""
        self._count += n
        now = self._clock()
        if now - self._spoke >= self._interval:
            self._spoke = now
            self._say("; ".join(part for part in (self._state(now), note) if part))

    def done(self, note: str = "") -> None:
        """End the stage."""
        spent = duration(self._clock() - self._began)
        self._say("; ".join(part for part in (f"done in {spent}", note) if part))

    def _state(self, now: float) -> str:
        spent = now - self._began
        rate = self._count / spent if spent > 0 else 0.0
        of_total = f"/{self._total}" if self._total is not None else ""
        parts = [f"{self._count}{of_total}", f"{rate:.3g}/s"]
        if self._total is not None and rate > 0:
            parts.append(f"{duration(max(self._total - self._count, 0) / rate)} left")
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        print(f"{self._what}: {text}", file=self._stream, flush=True)


class BarProgress:
    """A bar on a terminal, with steps, time spent and time left.

    Parameters
    ----------
    console
        The terminal, as ``rich`` sees it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichBar | None = None
        self._what = ""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps, or of unknown length."""
        self._close()
        self._what = what
        self._bar = RichBar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
                            TextColumn("{task.fields[note]}"), console=self._console, transient=True)
        self._bar.add_task(what, total=total, note="")
        self._bar.start()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more steps; a note stays until the next one."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, advance=n, note=note or task.fields["note"])

    def done(self, note: str = "") -> None:
        """End the stage: the bar gives way to one line."""
        spent = self._bar.tasks[0].elapsed if self._bar is not None else None
        self._close()
        parts = [f"done in {duration(spent)}" if spent is not None else "done", note]
        self._console.print(f"{self._what}: " + "; ".join(part for part in parts if part), markup=False, highlight=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def make_progress(stream: LogStream | None = None) -> Progress:
    """Progress for a stream (standard error by default): a bar if it is a terminal, plain lines otherwise."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        return BarProgress(Console(file=cast(IO[str], stream)))
    return LineProgress(stream)


def duration(seconds: float) -> str:
    """Time in words: ``"8 s"``, ``"3 min 20 s"``, ``"2 h 05 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
