"""The parameter table: every number rounded by its error, as rows of text, and as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from supermage.inference.parameters import PARAMETERS
from supermage.report.record import Record, Sampled
from supermage.report.statistics import interval
from supermage.report.text import bound, decimals_of, fixed_point, in_dollars, math_symbol, math_unit

LEVELS = (0.68, 0.95, 0.997)
"""Central intervals that the truth of a mock is looked for in."""


@dataclass(frozen=True)
class Row:
    """One line of the table; every entry is text with ASCII minus signs."""

    name: str
    median: str
    mean: str
    plus: str
    minus: str
    low95: str
    high95: str
    prior: str
    edges: str
    width_ratio: str
    r_hat: str
    ess_bulk: str
    ess_tail: str
    truth: str
    truth_inside: str


def row(parameter: Sampled) -> Row:
    """Summarise one parameter; angles on the whole circle are folded back into [0, 360)."""
    inner, outer = interval(parameter.draws, 0.68), interval(parameter.draws, 0.95)
    median, mean = float(np.median(parameter.draws)), float(parameter.draws.mean())
    plus, minus = inner.high - median, median - inner.low
    decimals = decimals_of(min(plus, minus) if min(plus, minus) > 0 else max(plus, minus))
    mixing = parameter.mixing

    def place(value: float) -> str:
        return fixed_point(value % 360.0 if parameter.circular else value, decimals)

    return Row(
        name=parameter.name,
        median=place(median),
        mean=place(mean),
        plus=fixed_point(plus, decimals),
        minus=fixed_point(minus, decimals),
        low95=place(outer.low),
        high95=place(outer.high),
        prior=prior_words(parameter),
        edges="circle" if parameter.circular else parameter.touched or "none",
        width_ratio=f"{parameter.width_ratio:.2f}",
        r_hat=f"{mixing.r_hat:.3f}",
        ess_bulk=f"{mixing.ess_bulk:.0f}",
        ess_tail=f"{mixing.ess_tail:.0f}",
        truth="" if parameter.truth is None else place(parameter.truth),
        truth_inside=_where(parameter),
    )


def prior_words(parameter: Sampled, *, latex: bool = False) -> str:
    """Bounds of a uniform prior, or mean and standard deviation of a normal one."""
    if parameter.normal is None:
        low, high = bound(parameter.lower), bound(parameter.upper)
        return f"${low}$ to ${high}$" if latex else f"{low} to {high}"
    mean, deviation = (f"{value:g}" for value in parameter.normal)
    return rf"${mean} \pm {deviation}$" if latex else f"{mean} +- {deviation} (normal)"


def _where(parameter: Sampled) -> str:
    """The narrowest of the intervals that holds the truth, and the widest that does not."""
    if parameter.truth is None:
        return ""
    missed = ""
    for level in LEVELS:
        if parameter.inside(level):
            return f"in {100 * level:g} %" + (f", not {missed} %" if missed else "")
        missed = f"{100 * level:g}"
    return f"not in {missed} %"


def latex_table(record: Record, *, claimed: bool) -> str:
    """Write the table in LaTeX (a ``table`` with ``tabular``, no packages needed).

    Parameters
    ----------
    record
        The posterior.
    claimed
        Whether the black-hole mass may be called measured; if not, the caption says so.
    """
    galaxy = record.recipe.galaxy
    mock = bool(record.truth)
    held = ", ".join(f"{_fixed_symbol(name)} $= {value:g}$" for name, value in record.fixed.items())
    head = ["Parameter", "Unit", "Prior", "Median", r"95\,\%", "Width", r"$\hat R$", "ESS"] + (["Truth"] if mock else [])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{Posterior of {_escape(galaxy.name if galaxy else 'the galaxy')} for $D = {record.distance:g}$ Mpc: median with 68\,\% "
        r"interval, 95\,\% interval, posterior over prior width. Masses scale as $D$; its error is not included."
        + ("" if claimed else " The black-hole mass is not a measurement.")
        + (f" Held fixed: {held}." if held else "")
        + ("" if record.mass_prior is None else _mass_prior(record.mass_prior.notes))
        + "}",
        rf"\begin{{tabular}}{{ll{'c' * (len(head) - 2)}}}",
        r"\hline",
        " & ".join(head) + r" \\",
        r"\hline",
    ]
    for parameter in record.parameters:
        item = row(parameter)
        cells = [
            math_symbol(parameter),
            math_unit(parameter) or "--",
            prior_words(parameter, latex=True),
            f"${item.median}^{{+{item.plus}}}_{{-{item.minus}}}$",
            f"${item.low95}$ to ${item.high95}$",
            item.width_ratio,
            item.r_hat,
            f"{min(float(item.ess_bulk), float(item.ess_tail)):.0f}",
        ]
        lines.append(" & ".join(cells + ([f"${item.truth}$" if item.truth else "--"] if mock else [])) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def _mass_prior(notes: Mapping[str, Any]) -> str:
    """What stands for the uniform prior of ``intensity_rb``, for the caption."""
    known = rf"\log_{{10}} M_\star/M_\odot = {notes['centre']:.3f} \pm {notes['width']:.3f}"
    where = _escape(str(notes["aperture"]))
    return f" {_fixed_symbol('intensity_rb')} has the prior of the stars' mass, ${known}$ inside {where}, between its bounds."


def _fixed_symbol(name: str) -> str:
    known = PARAMETERS.get(name)
    return _escape(name) if known is None else in_dollars(known.symbol)


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)


_SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
