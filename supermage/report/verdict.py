"""The verdict in words: pure functions of a few numbers. `supermage.report.rules` says in prose what they decide, and in which order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

R_HAT_LIMIT = 1.05
ESS_LIMIT = 100.0
UNRESOLVED_WIDTH = 0.8
UNRESOLVED_SPAN = 1.0
PRIOR_DOMINATED = 0.7
WEAKLY_CONSTRAINED = 0.4
EDGE_REACHED = 1.0 / 20.0
EDGE_PILED_UP = 1.0
CHI2_SIGMA = 5.0
CHI2_OFFSET = 0.10
BIN_SIGMA = 5.0
PIXEL_EXCESS = 1.5
RESOLVED_BEAMS = 1.2
MARGINAL_BEAMS = 0.8
BLIND_BEAMS = 0.5
NOISE_SIGMA = 5.0
NOISE_OFFSET = 0.10
LAG_OFFSET = 0.05
LEAST_LAG = -0.3
"""Noise of neighbouring channels is never correlated by less; what looks so is a source that the model leaves."""
LEAST_INSIDE = 0.996
"""An exponential disc has so much of its flux inside where its scale length is a twelfth of the field of view."""


class Status(StrEnum):
    """What a run says about its black hole."""

    DETECTED = "detected"
    UPPER_LIMIT = "upper limit"
    UNRESOLVED = "unresolved"
    HELD_FIXED = "held fixed"
    NOT_CONVERGED = "not converged"
    DO_NOT_TRUST = "do not trust"


@dataclass(frozen=True)
class MassFacts:
    """What the draws say of log10 M.

    Attributes
    ----------
    width_ratio
        Posterior over prior width, see `statistics.width_ratio`.
    span
        Width of the 68 % interval, dex.
    lower_edge, upper_edge
        Density at the prior's edges over the prior's, see `statistics.edge_density`.
    sphere_of_influence
        Median radius at which black hole and stars pull alike, arcsec.
    beam
        Width of the synthesised beam, arcsec.
    at_most
        Whether the sphere of influence is smaller than the smallest radius looked at, which then stands in its place.
    sphere_range
        68 % interval of that radius, arcsec, or None where it is not known.
    """

    width_ratio: float
    span: float
    lower_edge: float
    upper_edge: float
    sphere_of_influence: float
    beam: float
    at_most: bool = False
    sphere_range: tuple[float, float] | None = None

    @property
    def beams_across(self) -> float:
        """Diameter of the sphere of influence in beams."""
        return 2.0 * self.sphere_of_influence / self.beam


@dataclass(frozen=True)
class HeldMass:
    """A mass that the fit held fixed: its ``log10_mass`` in solar masses."""

    log10_mass: float


@dataclass(frozen=True)
class NoiseFacts:
    """The noise itself, from differences along the channels of data minus model.

    Attributes
    ----------
    rms, rms_error
        Of third differences over what is stated, 1 where the stated noise is right, and its standard error.
    lag_one, lag_one_error
        Correlation of neighbouring channels from first differences, the standard errors taken as right, and its standard error.
    lag_one_expected
        What the recipe's ``hanning`` and ``averaging`` make it.
    """

    rms: float
    rms_error: float
    lag_one: float
    lag_one_error: float
    lag_one_expected: float

    @property
    def scale_is_wrong(self) -> bool:
        """Whether the noise is off by more than 10 %, significantly."""
        return not abs(self.rms - 1.0) <= NOISE_OFFSET and not abs(self.rms - 1.0) <= NOISE_SIGMA * self.rms_error

    @property
    def correlation_is_wrong(self) -> bool:
        """Whether the correlation is off by more than 0.05, significantly, and not as a wrong scale alone would have it."""
        scaled = 1.0 - self.rms**2 * (1.0 - self.lag_one_expected)
        return all(
            not abs(self.lag_one - expected) <= max(LAG_OFFSET, NOISE_SIGMA * self.lag_one_error)
            for expected in (self.lag_one_expected, scaled)
        )


@dataclass(frozen=True)
class ResidualFacts:
    """What the residuals say of model and noise.

    Attributes
    ----------
    chi2_per_datum, chi2_sigma
        Chi^2 per datum, 1 for pure noise, and its distance from 1 in standard deviations.
    worst_channel_sigma, worst_baseline_sigma
        Most deviant bin after scaling chi^2 per datum to 1 overall, in standard deviations, corrected for the number of bins by the
        threshold.
    peak, peak_expected
        Brightest residual pixel, in units of the image noise, and the level that noise alone passes in 1 of 100 cubes.
    noise
        The noise itself, or None where it cannot be checked (fewer than four channels in a row).
    """

    chi2_per_datum: float
    chi2_sigma: float
    worst_channel_sigma: float
    worst_baseline_sigma: float
    peak: float
    peak_expected: float
    noise: NoiseFacts | None = None


@dataclass(frozen=True)
class ConvergenceFacts:
    """The worst convergence numbers and whose they are.

    ``nested_r_hat`` compares the starts; ``declared`` is what the fit itself wrote, ``complete`` whether it ended, ``modes`` the chains
    by the mode that they lie in.
    """

    worst_r_hat: float
    worst_r_hat_name: str
    smallest_ess: float
    smallest_ess_name: str
    declared: bool = True
    complete: bool = True
    modes: tuple[tuple[int, ...], ...] = ()
    nested_r_hat: float = 1.0
    nested_r_hat_name: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict: one status for the run, one for the black hole, a headline and the reasons."""

    status: Status
    black_hole: Status
    headline: str
    reasons: tuple[str, ...]
    measured: bool = field(default=False)


def has_converged(facts: ConvergenceFacts) -> bool:
    """Whether the chains agree. NaN counts as not converged."""
    agree = facts.worst_r_hat < R_HAT_LIMIT and facts.nested_r_hat < R_HAT_LIMIT
    return facts.declared and agree and facts.smallest_ess > ESS_LIMIT


def structured_residuals(facts: ResidualFacts) -> tuple[str, ...]:
    """The ways in which the residuals are not noise, in words; empty if they are."""
    found = []
    if not abs(facts.chi2_sigma) <= CHI2_SIGMA and not abs(facts.chi2_per_datum - 1) <= CHI2_OFFSET:
        found.append(f"chi-squared per datum is {facts.chi2_per_datum:.3f}, {abs(facts.chi2_sigma):.0f} standard deviations from 1")
    for name, sigma in (("channel", facts.worst_channel_sigma), ("baseline length", facts.worst_baseline_sigma)):
        if not abs(sigma) <= BIN_SIGMA:
            found.append(f"chi-squared against {name} departs from the mean by {abs(sigma):.1f} standard deviations in its worst bin")
    if not facts.peak <= PIXEL_EXCESS * facts.peak_expected:
        found.append(
            f"the brightest residual pixel reaches {facts.peak:.1f} times the image noise (noise alone: below {facts.peak_expected:.1f})"
        )
    return (*found, *_noise_words(facts.noise))


def _noise_words(noise: NoiseFacts | None) -> tuple[str, ...]:
    found = []
    if noise is not None and noise.correlation_is_wrong:
        if noise.lag_one >= LEAST_LAG:
            found.append(
                f"neighbouring channels are correlated by {noise.lag_one:.2f} where {noise.lag_one_expected:.2f} is assumed: "
                "set hanning or averaging under [reduce]"
            )
        else:
            ratio = math.sqrt((1.0 - noise.lag_one) / (1.0 - noise.lag_one_expected))
            found.append(f"neighbouring channels differ by {ratio:.1f} times what their noise allows")
    if noise is not None and noise.scale_is_wrong:
        found.append(f"the noise is {noise.rms:.2f} of what is stated (third differences along the channels)")
    return tuple(found)


def black_hole_status(facts: MassFacts) -> Status:
    """What the draws of log10 M alone would say. A number that is not finite decides against a detection."""
    reaches_down = not facts.lower_edge <= EDGE_REACHED
    if not facts.width_ratio <= UNRESOLVED_WIDTH:
        return Status.UNRESOLVED
    # A limit on heavy black holes needs neither: below it the mass may be anything, and its sphere of influence as small as it likes.
    if not reaches_down and (not facts.span <= UNRESOLVED_SPAN or not facts.beams_across >= BLIND_BEAMS):
        return Status.UNRESOLVED
    if not facts.upper_edge <= EDGE_PILED_UP:
        return Status.DO_NOT_TRUST
    return Status.UPPER_LIMIT if reaches_down else Status.DETECTED


def prior_dominated(width_ratios: dict[str, float]) -> tuple[str, ...]:
    """Names of the parameters whose posterior is wider than 0.7 of their prior."""
    return tuple(name for name, ratio in width_ratios.items() if not ratio <= PRIOR_DOMINATED)


def judge(
    mass: MassFacts | HeldMass,
    residuals: ResidualFacts,
    convergence: ConvergenceFacts,
    width_ratios: dict[str, float],
    *,
    disc_inside: float = 1.0,
) -> Verdict:
    """Apply the rules in their order.

    Parameters
    ----------
    mass, residuals, convergence
        The numbers; of a mass that was held fixed, its value.
    width_ratios
        Posterior over prior width of every other parameter, by its name in recipes.
    disc_inside
        Fraction of the gas disc's flux that lies inside the image.
    """
    black_hole = Status.HELD_FIXED if isinstance(mass, HeldMass) else black_hole_status(mass)
    structure = structured_residuals(residuals)
    if not has_converged(convergence):
        status = Status.NOT_CONVERGED
    elif structure and black_hole in CLAIMS:
        status = Status.DO_NOT_TRUST
    else:
        status = black_hole
    reasons = (
        _convergence_words(convergence),
        *((_held_words(mass),) if isinstance(mass, HeldMass) else _mass_words(mass, black_hole)),
        _prior_words(width_ratios),
        _residual_words(residuals, structure),
        *_disc_words(disc_inside),
    )
    return Verdict(
        status=status,
        black_hole=black_hole,
        headline=_headline(status, black_hole, bool(structure)) + ("" if convergence.complete else f" {INTERRUPTED}"),
        reasons=reasons,
        measured=status is Status.DETECTED,
    )


CLAIMS = (Status.DETECTED, Status.UPPER_LIMIT)
"""What puts a number on the mass."""

INTERRUPTED = "The fit was interrupted before its end."

_HEADLINES = {
    Status.DETECTED: "DETECTED: the data weigh the black hole.",
    Status.UPPER_LIMIT: "UPPER LIMIT: the data exclude heavier black holes, and do not ask for one.",
    Status.UNRESOLVED: "UNRESOLVED: the data do not weigh the black hole; no mass is claimed.",
    Status.HELD_FIXED: "HELD FIXED: the black-hole mass was an assumption of the fit; nothing is measured of it.",
}

_AFTERTHOUGHT = {
    Status.DETECTED: " Its errors would call the black hole detected; they do not include this.",
    Status.UPPER_LIMIT: " The black hole is not detected in any case.",
}


def _headline(status: Status, black_hole: Status, structured: bool) -> str:
    if status is Status.NOT_CONVERGED:
        return "NOT CONVERGED: the chains have not forgotten where they started; no number below is a result."
    if status is Status.DO_NOT_TRUST and structured:
        return f"DO NOT TRUST: the model does not describe the data down to their noise.{_AFTERTHOUGHT.get(black_hole, '')}"
    if status is Status.DO_NOT_TRUST:
        return "DO NOT TRUST: the mass piles up on the upper edge of its prior, which therefore decides it."
    return _HEADLINES[status] + (" The residuals are structured: do not trust the other parameters' errors." if structured else "")


def _convergence_words(facts: ConvergenceFacts) -> str:
    numbers = (
        f"worst R-hat {facts.worst_r_hat:.3f} ({facts.worst_r_hat_name}; required below {R_HAT_LIMIT}), smallest effective sample size "
        f"{facts.smallest_ess:.0f} ({facts.smallest_ess_name}; required above {ESS_LIMIT:.0f})"
    )
    if facts.nested_r_hat_name:
        numbers += f", nested R-hat over the starts {facts.nested_r_hat:.3f} ({facts.nested_r_hat_name}; required below {R_HAT_LIMIT})"
    end = "" if facts.complete else f" {INTERRUPTED}"
    if has_converged(facts):
        return f"The chains agree: {numbers}.{end}"
    declared = "" if facts.declared else " The fit itself recorded that it did not converge."
    return f"The chains do not agree well enough: {numbers}.{mode_words(facts.modes)}{declared}{end}"


def mode_words(modes: tuple[tuple[int, ...], ...]) -> str:
    """A sentence on chains that lie in different modes, counted from 1; nothing where there is one mode."""
    if len(modes) < 2:
        return ""
    groups = [", ".join(str(chain + 1) for chain in group) for group in modes]
    return f" They lie in {len(modes)} modes that they do not cross between: chains {'; '.join(groups)}."


def _sphere_words(facts: MassFacts) -> str:
    across = facts.beams_across
    least = "at most " if facts.at_most else ""
    between = ""
    if facts.sphere_range is not None:
        low, high = (2.0 * radius / facts.beam for radius in facts.sphere_range)
        between = f" (68 %: {low:.2f} to {high:.2f})"
    sphere = (
        f"Sphere of influence against beam: its radius is {least}{facts.sphere_of_influence:.3f} arcsec, "
        f"so it is {least}{across:.2f} beams across{between}; the beam is {facts.beam:.2f} arcsec wide. "
    )
    if across >= RESOLVED_BEAMS:
        return sphere + "It is resolved."
    if across >= MARGINAL_BEAMS:
        return sphere + "It is marginally resolved."
    if across >= BLIND_BEAMS:
        return sphere + "It is smaller than the beam: the mass leans on the model of the stars at radii that the data do not resolve."
    return sphere + "It is not resolved: whatever is said of the mass rests on the model of the stars at unseen radii."


def _held_words(mass: HeldMass) -> str:
    return f"The mass was held fixed at log10 M = {mass.log10_mass:.3f}: every number of this fit is conditional on it."


def _mass_words(facts: MassFacts, status: Status) -> tuple[str, ...]:
    width = (
        f"The posterior of the logarithm of the mass has {facts.width_ratio:.2f} of its prior's width "
        f"(68 % interval {facts.span:.2f} dex wide)"
    )
    if not facts.width_ratio <= UNRESOLVED_WIDTH:
        width += ", as wide as the prior: the data teach nothing about it."
    elif status is Status.UPPER_LIMIT:
        width += f", and reaches the prior's lower edge with {facts.lower_edge:.2f} of the prior's density there: an upper limit, no more."
    elif status is Status.DO_NOT_TRUST:
        width += ", and is cut off by the prior's upper edge."
    elif status is Status.UNRESOLVED and not facts.span <= UNRESOLVED_SPAN:
        width += ": narrower than its prior, yet uncertain by more than a factor of ten."
    else:
        width += ", and is clear of its lower edge."
    if status is Status.UNRESOLVED and facts.width_ratio <= UNRESOLVED_WIDTH and not facts.upper_edge <= EDGE_PILED_UP:
        width += " It is cut off by the prior's upper edge."
    return _sphere_words(facts), width


def _prior_words(ratios: dict[str, float]) -> str:
    dominated = prior_dominated(ratios)
    weak = tuple(name for name, ratio in ratios.items() if WEAKLY_CONSTRAINED < ratio <= PRIOR_DOMINATED)
    words = (
        f"Prior-dominated (posterior wider than {PRIOR_DOMINATED} of the prior): {_listed(dominated, ratios)}."
        if dominated
        else "No parameter is dominated by its prior."
    )
    return words + (f" Weakly constrained (wider than {WEAKLY_CONSTRAINED}): {_listed(weak, ratios)}." if weak else "")


def _listed(names: tuple[str, ...], ratios: dict[str, float]) -> str:
    return ", ".join(f"{name} ({ratios[name]:.2f})" for name in names)


def _disc_words(inside: float) -> tuple[str, ...]:
    if inside >= LEAST_INSIDE:
        return ()
    return (f"The disc leaves the image, which holds {100 * inside:.1f} % of the gas disc's flux: use more pixels.",)


def _residual_words(facts: ResidualFacts, structure: tuple[str, ...]) -> str:
    if structure:
        return "Structured residuals: " + "; ".join(structure) + "."
    return (
        f"The residuals look like noise: chi-squared per datum {facts.chi2_per_datum:.3f} ({facts.chi2_sigma:+.1f} standard deviations); "
        f"worst bin {facts.worst_channel_sigma:+.1f} by channel and {facts.worst_baseline_sigma:+.1f} by baseline length; "
        f"brightest residual pixel "
        f"{facts.peak:.1f} times the image noise."
    )
