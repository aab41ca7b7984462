"""A prior on the stars' mass in the report's words, and what it adds to the verdict."""

from __future__ import annotations

import dataclasses
import math

from supermage.inference.priors import SEEN_DATA
from supermage.report import html
from supermage.report.mass_prior import Held, MassPriorFacts
from supermage.report.tension import Tension
from supermage.report.verdict import CLAIMS, Status, Verdict

SHIFTED = 0.5
"""Shift of the black hole's log10 mass by the prior, over its error without it, from which on the prior is said to move it."""

WINGS = 1.15
"""Difference over the root of the summed squared widths, over the tension, from which on it is told too."""

DARK = (
    "Stars and black hole (and the gas itself, where the recipe has it) are all that pulls the gas here, while the prior is on the stars "
    "alone: without a halo in the recipe dark matter is read as stars. Inside R_hsm TNG100's galaxies have more total than stellar mass, "
    "by 0.29 dex at 10^10.5 solar masses (68 %: 0.20 to 0.40)."
)
"""What a fit without a halo leaves out."""


def judge_mass_prior(verdict: Verdict, facts: MassPriorFacts) -> Verdict:
    """The verdict with what the prior on the stars' mass adds: its reasons, and no claim where prior and data contradict each other."""
    reasons = (*verdict.reasons, *prior_sentences(facts))
    status, headline = verdict.status, verdict.headline
    if facts.status == "contradict":
        words = f"prior on the stars' mass and data contradict each other ({_sigma(facts.tension)})"
        if status in CLAIMS:
            status, headline = Status.DO_NOT_TRUST, f"DO NOT TRUST: {words}."
        else:
            headline += f" The {words}."
    elif facts.status == "tension":
        headline += f" The prior on the stars' mass and the data are in tension ({_sigma(facts.tension)})."
    if facts.notes.get("seen_data"):
        headline += " The prior on the stars' mass has seen the fitted data."
    return dataclasses.replace(verdict, status=status, headline=headline, reasons=reasons, measured=status is Status.DETECTED)


def prior_sentences(facts: MassPriorFacts) -> tuple[str, ...]:
    """What the prior is, how it fits the data, what it does to the black hole, and how it gets to the gas."""
    found = (_what(facts), _tension_words(facts), _black_hole_words(facts), facts.other_differs and f"{facts.other_differs}.",
             _reach_words(facts), "" if facts.halo else DARK, *_warnings(facts))  # fmt: skip
    return tuple(words for words in found if words)


def _what(facts: MassPriorFacts) -> str:
    notes = facts.notes
    left = "" if facts.prior is None else f", whose bounds leave {facts.prior[0]:.3f} ± {facts.prior[1]:.3f} of it"
    return (
        f"Prior on the stars' mass: log10 M* = {notes['centre']:.3f} ± {notes['width']:.3f} inside {notes['aperture']} "
        f"({notes['source']}), in place of a uniform prior of intensity_rb{left}; with the data it is {facts.posterior.median:.3f} ± "
        f"{facts.posterior.half:.3f}."
    )


def _sigma(tension: Tension) -> str:
    return f"{'at least ' if tension.at_least else ''}{tension.sigma:.1f} standard deviations"


def _tension_words(facts: MassPriorFacts) -> str:
    tension = facts.tension
    if facts.status == "untold":
        return (
            "How far prior and data are apart is not told by these draws: the data narrow the prior by less than the draws can tell, and "
            "can neither confirm nor refute it here. The same fit without [fit.mass_prior] may tell it."
        )
    how = f" ({tension.how})" if tension.how else ""
    data = "" if tension.data is None else f": the data alone say log10 M* = {tension.data[0]:.2f} ± {tension.data[1]:.2f}{how}"
    sigma = _sigma(tension) if tension.error < 0.05 else f"{tension.sigma:.1f} ± {tension.error:.1f} standard deviations"
    if facts.status == "agree":
        return f"Prior and data agree within {sigma}{data}."
    what = "contradict each other" if facts.status == "contradict" else "are in tension"
    return f"Prior and data {what}: they are {sigma} apart (probability {tension.probability:.1g}){data}.{_wings(tension)}"


def _wings(tension: Tension) -> str:
    """Of a prior broader in its wings than a normal one."""
    if tension.apart is None or not tension.apart > WINGS * tension.sigma:
        return ""
    return (
        f" They are {tension.apart:.1f} times the root of their summed squared widths apart; by its wings, broader than a normal one's, "
        "the prior allows more."
    )


def _black_hole_words(facts: MassPriorFacts) -> str:
    with_prior, without = facts.with_prior, facts.without_prior
    if with_prior is None:
        return ""
    if without is None:
        return f"Black hole with this prior: {_number(with_prior)}. Without it: {facts.refused}"
    shift = with_prior.median - without.median
    share = abs(shift) / without.half if without.half > 0 else math.inf
    made = " The prior moves the mass by more than half its error." if not share < SHIFTED else ""
    return (
        f"Black hole with this prior: {_number(with_prior)}; without it: {_number(without)} ({without.how}); shift {shift:+.3f} dex, "
        f"{share:.1f} of the error without it.{made}"
    )


def _number(mass: Held) -> str:
    return f"log10 M = {mass.median:.3f} (68 %: {mass.span.low:.3f} to {mass.span.high:.3f})"


def _reach_words(facts: MassPriorFacts) -> str:
    reach = facts.reach
    middle, low, high = (100.0 * value for value in reach.share)
    slope, shallow, steep = reach.slope
    return (
        f"The aperture's radius is {reach.aperture / reach.gas:.3g} times the gas' flux-weighted mean radius, {reach.gas:.3g} kpc, inside "
        f"which lie {middle:.2g} % of its mass (68 %: {low:.2g} to {high:.2g}): the profile's outer slope, {slope:.2f} ({shallow:.2f} to "
        f"{steep:.2f}), carries the prior inwards, and an error of the slope is one of the mass under the gas."
    )


def _warnings(facts: MassPriorFacts) -> tuple[str, ...]:
    notes, found = facts.notes, []
    if notes.get("seen_data"):
        found.append(f"WARNING: {SEEN_DATA}.")
    if notes.get("out_of_distribution"):
        found.append("WARNING: the galaxy is unlike those that the estimator of the stars' mass was trained on; its prior was widened.")
    left = 1.0 - float(notes.get("accepted", 1.0))
    if left > 0.005:
        found.append(f"{100.0 * left:.2g} % of the prior's draws leave the prior of intensity_rb and are excluded: the profile's shape "
                     "feels the prior on the stars' mass too.")  # fmt: skip
    if not facts.prior_told:
        found.append("The file, of an earlier version, does not tell what they leave of the prior: the data are held against the prior as "
                     "the recipe gives it, and part of what is called the data's may be those bounds'.")  # fmt: skip
    return tuple(found)


def mass_prior_section(facts: MassPriorFacts) -> str:
    """The report's section, HTML."""
    rows = [["Prior alone", "{:.3f} ± {:.3f}".format(*facts.prior_alone), "–"]]
    if facts.tension.data is not None:
        mean, spread = facts.tension.data
        rows.append(["Data alone", f"{mean:.3f} ± {spread:.3f}", _cell(facts.without_prior)])
    elif facts.without_prior is not None:
        rows.append(["Data alone", "–", _cell(facts.without_prior)])
    rows.append(["Data and prior", f"{facts.posterior.median:.3f} ± {facts.posterior.half:.3f}", _cell(facts.with_prior)])
    head = ["", "log<sub>10</sub> of the stars' mass in the aperture, <i>M</i><sub>☉</sub>",
            "log<sub>10</sub> of the black hole's mass, <i>M</i><sub>☉</sub>"]  # fmt: skip
    return "".join(html.paragraph(words) for words in prior_sentences(facts)) + html.table(head, rows)


def _cell(mass: Held | None) -> str:
    return "–" if mass is None else f"{mass.median:.3f} ({mass.span.low:.3f} to {mass.span.high:.3f})"


def summary_words(facts: MassPriorFacts) -> tuple[str, ...]:
    """Lines of the summary: the prior with its tension, and the black hole with and without it."""
    return tuple(words for words in (_what(facts), _tension_words(facts), _black_hole_words(facts)) if words)
