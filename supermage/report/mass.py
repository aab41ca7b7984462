"""The black-hole mass in words, never sold as more than the verdict allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from supermage.report.record import Record, Sampled
from supermage.report.statistics import interval, upper_limit
from supermage.report.tables import LEVELS
from supermage.report.text import decimals_of, fixed_point, in_scientific
from supermage.report.verdict import Status, Verdict

DISTANCE_SENTENCE = "M is proportional to D; the distance's error is not included."


@dataclass(frozen=True)
class MassStatement:
    """The mass as the report words it.

    Attributes
    ----------
    headline
        One line, the claim.
    lines
        Intervals, distance and truth.
    """

    headline: str
    lines: tuple[str, ...]


def mass_statement(record: Record, verdict: Verdict) -> MassStatement:
    """Word the mass: a measurement, a limit, or what the chains hold without any claim."""
    lines = [_intervals(record), f"Distance: {record.distance:g} Mpc. {DISTANCE_SENTENCE}"]
    truth = record.mass.truth
    if truth is not None:
        linear = f"M = {10 ** (truth % 1):.2f} × 10^{math.floor(truth)} Msun"
        lines.append(f"Truth of this mock: log10 M = {truth:.3f} ({linear}), {_where(record.mass)}.")
    return MassStatement(_claim(record, verdict), tuple(lines))


def _claim(record: Record, verdict: Verdict) -> str:
    log_mass = record.mass.draws
    if verdict.status is Status.DETECTED:
        return f"M = {_linear(log_mass)}"
    if verdict.status is Status.UPPER_LIMIT:
        logarithmic, linear = upper_limit(log_mass)
        return (
            f"log10 M < {logarithmic:.2f} (95 %, prior uniform in log10 M from {record.mass.lower:g}); < {linear:.2f} (95 %, prior uniform "
            "in M). An upper limit, not a measurement"
        )
    return {
        Status.UNRESOLVED: "No mass is claimed: the interval below is the prior's as much as the data's",
        Status.NOT_CONVERGED: "No mass is claimed: the chains have not converged",
        Status.DO_NOT_TRUST: "No mass is claimed: see the verdict",
    }[verdict.status]


def _linear(log_mass: np.ndarray) -> str:
    """Median, 68 % and 95 % intervals of M itself."""
    inner, outer = interval(log_mass, 0.68), interval(log_mass, 0.95)
    median = float(np.median(log_mass))
    middle, low, high = 10**median, 10**inner.low, 10**inner.high
    value, _, power = in_scientific(middle, high - middle)
    decimals, unit = len(value.partition(".")[2]), 10.0**power
    plus, minus, least, most = (
        fixed_point(number / unit, decimals) for number in (high - middle, middle - low, 10**outer.low, 10**outer.high)
    )
    return f"{value} (+{plus} −{minus}) × 10^{power} Msun (68 %), {least} to {most} × 10^{power} Msun (95 %)"


def _where(mass: Sampled) -> str:
    """The narrowest interval that holds the truth, and the widest that does not."""
    missed = ""
    for level in LEVELS:
        if mass.inside(level):
            return f"inside the {100 * level:g} % interval" + (f", outside the {missed} %" if missed else "")
        missed = f"{100 * level:g}"
    return f"outside the {missed} % interval"


def _intervals(record: Record) -> str:
    log_mass = record.mass.draws
    inner, outer = interval(log_mass, 0.68), interval(log_mass, 0.95)
    decimals = min(max(decimals_of(0.5 * inner.width), 0), 4)
    numbers = [fixed_point(v, decimals) for v in (float(np.median(log_mass)), inner.low, inner.high, outer.low, outer.high)]
    return (
        f"log10(M/Msun) = {numbers[0]}; 68 %: {numbers[1]} to {numbers[2]}; 95 %: {numbers[3]} to {numbers[4]}; prior: "
        f"{record.mass.lower:.4g} to {record.mass.upper:.4g}"
    )


def summary_lines(record: Record, verdict: Verdict) -> tuple[str, ...]:
    """The result in a few lines of plain text: verdict, mass with its intervals, truth of a mock."""
    statement = mass_statement(record, verdict)
    return (f"verdict: {verdict.headline}", f"black-hole mass: {statement.headline}", *statement.lines)
