"""Progress: a bar on a terminal, timed lines in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from supermage.progress import BarProgress, LineProgress, Progress, SilentProgress, duration, make_progress


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_give_count_rate_and_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, interval=10.0, clock=clock)
    progress.start("draws", 100)
    clock.now += 5
    progress.advance(10, note="too early")
    clock.now += 5
    progress.advance(10, note="acceptance 0.57")
    clock.now += 50
    progress.done("written")
    assert stream.getvalue().splitlines() == [
        "draws: started, 100 steps", "draws: 20/100, 2/s, 40 s left; acceptance 0.57", "draws: done in 1 min 00 s; written"]


def test_lines_of_unknown_length_promise_no_end() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, interval=1.0, clock=clock)
    progress.start("rows", None)
    clock.now += 2
    progress.advance(5)
    assert stream.getvalue().splitlines() == ["rows: started", "rows: 5, 2.5/s"]


def test_a_second_stage_counts_anew() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(stream, interval=1.0, clock=clock)
    for what in ("one", "two"):
        progress.start(what, 4)
        clock.now += 2
        progress.advance(2)
        progress.done()
    assert "two: 2/4, 1/s, 2 s left" in stream.getvalue()


def test_bar_ends_in_one_line() -> None:
    stream = Terminal()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100))
    progress.start("draws", 3)
    progress.advance(3, note="R-hat 1.01")
    progress.done("[all] written")
    assert "draws: done in 0 s; [all] written" in stream.getvalue()


def test_bar_without_a_stage_is_harmless() -> None:
    stream = Terminal()
    progress = BarProgress(Console(file=stream, force_terminal=True))
    progress.advance()
    progress.done()
    assert "done" in stream.getvalue()


def test_the_stream_decides() -> None:
    assert isinstance(make_progress(Terminal()), BarProgress)
    assert isinstance(make_progress(io.StringIO()), LineProgress)


@pytest.mark.parametrize("progress", [SilentProgress(), LineProgress(io.StringIO()), BarProgress(Console(file=io.StringIO()))])
def test_every_progress_obeys_the_protocol(progress: Progress) -> None:
    assert isinstance(progress, Progress)
    progress.start("x", None)
    progress.advance()
    progress.advance(2, note="n")
    progress.done()


@pytest.mark.parametrize(("seconds", "words"), [
    (0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"), (7500, "2 h 05 min")])
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
