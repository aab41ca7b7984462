"""The black-hole mass in words, never sold as more than the verdict allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from supermage.report.record import MASS, Record, Sampled
from supermage.report.statistics import interval, upper_limit
from supermage.report.tables import LEVELS
from supermage.report.text import bound, decimals_of, fixed_point, in_scientific
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
    """Word the mass: a measurement, a limit, what the chains hold without any claim, or what it was held at."""
    distance = f"Distance: {record.distance:g} Mpc."
    mass, truth = record.mass, record.truth.get(MASS)
    true = "" if truth is None else f"Truth of this mock: log10 M = {truth:.3f} (M = {_power(truth)} Msun)"
    if mass is None:
        held = record.fixed[MASS]
        claim = f"The mass was held fixed at log10 M = {held:.3f} (M = {_power(held)} Msun); nothing is measured"
        return MassStatement(claim, (distance, *((f"{true}.",) if true else ())))
    draws_only = "draws so far, not a result: " if verdict.status is Status.NOT_CONVERGED else ""
    lines = (draws_only + _intervals(mass), f"{distance} {DISTANCE_SENTENCE}", *((f"{true}, {_where(mass)}.",) if true else ()))
    return MassStatement(_claim(mass, verdict), lines)


def _power(log_mass: float) -> str:
    """A mass as a number times a power of ten."""
    mantissa, _, exponent = f"{10**log_mass:.2e}".partition("e")
    return f"{mantissa} × 10^{int(exponent)}"


def _claim(mass: Sampled, verdict: Verdict) -> str:
    if verdict.status is Status.DETECTED:
        return f"M = {_linear(mass.draws)}"
    if verdict.status is Status.UPPER_LIMIT:
        logarithmic, linear = upper_limit(mass.draws)
        return (
            f"log10 M < {logarithmic:.2f} (95 %, prior uniform in log10 M from {bound(mass.lower)}); < {linear:.2f} (95 %, prior uniform "
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


def _intervals(mass: Sampled) -> str:
    log_mass = mass.draws
    inner, outer = interval(log_mass, 0.68), interval(log_mass, 0.95)
    decimals = min(max(decimals_of(0.5 * inner.width), 0), 4)
    numbers = [fixed_point(v, decimals) for v in (float(np.median(log_mass)), inner.low, inner.high, outer.low, outer.high)]
    return (
        f"log10(M/Msun) = {numbers[0]}; 68 %: {numbers[1]} to {numbers[2]}; 95 %: {numbers[3]} to {numbers[4]}; prior: "
        f"{bound(mass.lower)} to {bound(mass.upper)}"
    )


def summary_lines(record: Record, verdict: Verdict) -> tuple[str, ...]:
    """The result in a few lines of plain text: verdict, mass with its intervals, truth of a mock."""
    statement = mass_statement(record, verdict)
    return (f"verdict: {verdict.headline}", f"black-hole mass: {statement.headline}", *statement.lines)
