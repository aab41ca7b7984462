"""What a figure of the report is: a name, words, and a function that draws it."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from supermage.plots.style import journal_style
from supermage.report.case import Case


@dataclass(frozen=True)
class FigureSpec:
    """One figure.

    Attributes
    ----------
    name
        As ``supermage report POSTERIOR.nc --figure NAME`` calls it, and of its files.
    title
        A few words.
    alt
        What is to be seen, for those who cannot see it.
    caption
        ``case -> text`` of the caption.
    unit
        Units of its axes, in words.
    draw
        ``case -> Figure`` at journal width.
    applies
        Whether a posterior has it.
    needs
        ``case -> words``: what it needs and what was got, where it does not apply.
    takes
        Which of the options ``parameter`` and ``reference`` change it.
    """

    name: str
    title: str
    alt: str
    caption: Callable[[Case], str]
    unit: str
    draw: Callable[[Case], Figure]
    applies: Callable[[Case], bool] = lambda case: True
    needs: Callable[[Case], str] = lambda case: ""
    takes: tuple[str, ...] = ()

    def command(self, case: Case) -> str:
        """The command that redraws it."""
        words = ["supermage", "report", str(case.record.path), "--figure", self.name]
        words += [] if case.output is None else ["--output", str(case.output)]
        for name in case.chosen if "parameter" in self.takes else ():
            words += ["--parameter", name]
        for name, value in case.reference.items() if "reference" in self.takes else ():
            words += ["--reference", f"{name}={value}"]
        return shlex.join(words)

    def save(self, case: Case, folder: Path) -> tuple[Path, Path]:
        """Draw and write ``NAME.png`` (300 dpi) and ``NAME.pdf``."""
        paths = folder / f"{self.name}.png", folder / f"{self.name}.pdf"
        with journal_style():
            figure = self.draw(case)
            for path in paths:
                stream = io.BytesIO()
                metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": "supermage"}
                figure.savefig(stream, format=path.suffix[1:], dpi=300, metadata=metadata)
                path.write_bytes(stream.getvalue())
                figure.set_layout_engine("none")  # laid out once, it stays
            figure.clear()
        return paths
