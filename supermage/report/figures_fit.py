"""Figures of the fit itself: mass, profiles, residual statistics, corner plots, chains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from supermage.plots.chi_squared import chi_squared
from supermage.plots.corner import corner
from supermage.plots.marginal import marginal
from supermage.plots.mass_interval import mass_interval
from supermage.plots.noise import noise_histogram
from supermage.plots.profile import Curve, label_few_decades, mark_radii, outer_level, profile
from supermage.plots.rank import rank
from supermage.plots.style import BLACK_HOLE, COLUMN, GAS, HALO, PAGE, STARS, TOTAL, new_figure
from supermage.plots.trace import trace
from supermage.report.case import Case
from supermage.report.figure import FigureSpec
from supermage.report.record import MASS, Sampled
from supermage.report.text import axis_label, bound, math_symbol, short_symbol

MAIN_PARAMETERS = ("log10_mbh", "inclination", "PA", "intensity_rb", "gamma", "gamma_minus_beta", "break_r", "halo_log10_m200")
CORNER_DRAWS = 20_000
MOST_LABELLED = 8
"""Parameters of a corner plot whose ticks are labelled."""
SMALL_DRAWS = 8_000
LARGE = 100.0
MARGIN = 0.1
LEGEND_ROOM = 0.12
"""Of the logarithm of the axis, added above the curves."""
NAMES = {"total": "total", "black_hole": "black hole", "stars": "stars", "halo": "halo", "gas": "gas"}
COLOURS = {"total": TOTAL, "black_hole": BLACK_HOLE, "stars": STARS, "halo": HALO, "gas": GAS}
STYLES = {"total": "-", "black_hole": "--", "stars": "-.", "halo": ":", "gas": ":"}


def draw_mass(case: Case) -> Figure:
    """Posterior of the mass over its prior."""
    mass = case.record[MASS]
    figure = new_figure(COLUMN, 1.9)
    mass_interval(figure.subplots(), mass.draws.ravel(), prior=(mass.lower, mass.upper), tail_ess=mass.mixing.ess_tail, truth=mass.truth)
    return figure


def draw_marginals(case: Case) -> Figure:
    """Every parameter's posterior over its prior."""
    parameters = case.record.parameters
    columns = 5
    rows = -(-len(parameters) // columns)
    figure = new_figure(PAGE, 1.15 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel, parameter in zip(axes.flat, parameters, strict=False):
        prior, truth = (parameter.lower, parameter.upper), parameter.beside_draws(parameter.truth)
        marginal(panel, parameter.draws.ravel(), prior=prior, label=axis_label(parameter), truth=truth, turn=parameter.turn)
    for panel in list(axes.flat)[len(parameters) :]:
        panel.remove()
    return figure


def _draw_profile(case: Case, kind: str) -> Figure:
    profiles = case.profiles
    mass = kind == "mass"
    change = profiles.mass if mass else (lambda velocity: velocity)
    curves = tuple(Curve(NAMES[name], change(draws), COLOURS[name], STYLES[name]) for name, draws in profiles.velocity.items())
    truth = {NAMES[name]: change(curve) for name, curve in profiles.true_velocity.items()} or None
    figure = new_figure(COLUMN, 3.1)
    axes = figure.subplots()
    profile(
        axes,
        profiles.radius,
        curves,
        tail_ess=case.record.tail_ess,
        truth=truth,
        label=r"$v_\mathrm{c}^2 R/G$ ($M_\odot$)" if mass else "Circular velocity (km/s)",
    )
    bottom, top = axes.get_ylim()
    axes.set_ylim(top=top * (top / bottom) ** LEGEND_ROOM)
    if not mass:
        label_few_decades(axes)
    mark_radii(axes, beam=case.cubes.beam_width, emulator=case.emulator_range, pc_per_arcsec=case.pc_per_arcsec)
    axes.legend(loc="upper left" if mass else "upper right", ncols=2, handlelength=1.8)
    return figure


def draw_velocity(case: Case) -> Figure:
    """Circular velocity of every component."""
    return _draw_profile(case, "velocity")


def draw_mass_profile(case: Case) -> Figure:
    """Dynamical mass of every component."""
    return _draw_profile(case, "mass")


def draw_surface_density(case: Case) -> Figure:
    """Surface density of the stars, and the black hole's mass spread over the circle."""
    profiles = case.profiles
    truth = None if profiles.true_surface_density is None else {"stars": profiles.true_surface_density}
    curves = (
        Curve("stars", profiles.surface_density, STARS, "-."),
        Curve(r"black hole, $M/\pi R^2$", profiles.black_hole_surface_density(), BLACK_HOLE, "--"),
    )
    figure = new_figure(COLUMN, 3.1)
    axes = figure.subplots()
    profile(
        axes, profiles.radius, curves, tail_ess=case.record.tail_ess, truth=truth, label=r"Surface density ($M_\odot\,\mathrm{pc^{-2}}$)"
    )
    mark_radii(axes, beam=case.cubes.beam_width, emulator=case.emulator_range, pc_per_arcsec=case.pc_per_arcsec)
    axes.legend(loc="upper right")
    return figure


def draw_residual_channel(case: Case) -> Figure:
    """Chi^2 against channel."""
    bins = case.residuals.by_channel
    figure = new_figure(COLUMN, 2.3)
    chi_squared(figure.subplots(), bins.position, bins.value, bins.count, label=f"{case.gridded.frame} velocity (km/s)",
                draws=case.predictive.by_channel)
    return figure


def draw_residual_baseline(case: Case) -> Figure:
    """Chi^2 against baseline length."""
    bins = case.residuals.by_baseline
    figure = new_figure(COLUMN, 2.3)
    chi_squared(figure.subplots(), bins.position, bins.value, bins.count, label=r"Baseline length ($10^3$ wavelengths)",
                draws=case.predictive.by_baseline)
    return figure


def draw_noise(case: Case) -> Figure:
    """Histogram of the whitened residuals."""
    figure = new_figure(COLUMN, 2.5)
    noise_histogram(figure.subplots(), case.residuals.whitened)
    return figure


def axis_offset(parameter: Sampled) -> float:
    """Constant to take from a parameter whose values differ only after their third digit, so that its tick labels stay short."""
    draws = parameter.draws
    return float(round(np.median(draws))) if abs(np.median(draws)) >= LARGE and np.ptp(draws) < LARGE else 0.0


def axis_range(parameter: Sampled) -> tuple[float, float]:
    """Range of the draws and, within the prior, of the truth, with a tenth more at each end that is no bound of the prior."""
    low, high = float(parameter.draws.min()), float(parameter.draws.max())
    if parameter.truth is not None and (parameter.circular or parameter.lower <= parameter.truth <= parameter.upper):
        low, high = min(low, parameter.truth), max(high, parameter.truth)
    margin = MARGIN * (high - low)
    if parameter.circular:
        return low - margin, high + margin
    return max(low - margin, parameter.lower), min(high + margin, parameter.upper)


def _draw_corner(case: Case, parameters: tuple[Sampled, ...], *, small: bool) -> Figure:
    n = len(parameters)
    parameters = tuple(replace(p, truth=p.beside_draws(case.reference.get(p.name, p.truth))) for p in parameters)
    figure = new_figure(PAGE, PAGE, constrained=False)
    axes = figure.subplots(n, n, squeeze=False)
    draws = np.stack([p.draws.ravel() for p in parameters], axis=1)
    draws = draws[:: max(1, len(draws) // (SMALL_DRAWS if small else CORNER_DRAWS))]
    offset = np.array([0.0 if small else axis_offset(p) for p in parameters])
    shifted = list(zip(parameters, offset, strict=True))
    corner(
        axes,
        draws - offset,
        labels=[short_symbol(p) if small else axis_label(p, offset=o, between="\n") for p, o in shifted],
        truth=[None if p.truth is None else p.truth - o for p, o in shifted] if case.record.truth or case.reference else None,
        ranges=[(low - o, high - o) for (low, high), (_, o) in zip(map(axis_range, parameters), shifted, strict=True)],
        small=small,
    )
    edge = 0.05 if small else 0.095
    figure.subplots_adjust(left=edge, right=0.99, bottom=edge, top=0.985, wspace=0.06, hspace=0.06)
    return figure


def main_parameters(case: Case) -> tuple[Sampled, ...]:
    """Those of the main corner plot that were sampled."""
    return tuple(case.record[name] for name in MAIN_PARAMETERS if name in case.record)


def corner_parameters(case: Case) -> tuple[Sampled, ...]:
    """Those that were chosen, or the main ones."""
    return tuple(case.record[name] for name in case.chosen) or main_parameters(case)


def _corner_lines(case: Case, parameters: tuple[Sampled, ...]) -> str:
    """What the lines of a corner plot of these parameters are."""
    compared = [p for p in parameters if p.name in case.reference]
    true = any(p.truth is not None for p in parameters if p.name not in case.reference)
    if not compared:
        return " Lines: truth." if true else ""
    values = ", ".join(f"{p.name} = {case.reference[p.name]}" for p in compared)
    outside = [p for p in compared if not p.circular and not p.lower <= case.reference[p.name] <= p.upper]
    return f" Lines: reference values ({values}{'), else the truth.' if true else ').'}" + "".join(
        f" That of {p.name} lies outside its prior, {bound(p.lower)} to {bound(p.upper)}." for p in outside
    )


def _corner_caption(case: Case) -> str:
    parameters = corner_parameters(case)
    contours = "; contours hold 68 and 95 %." if len(parameters) > 1 else "."
    return f"Posterior of {', '.join(case.chosen) or 'the main parameters'}{contours}" + _corner_lines(case, parameters)


def draw_corner(case: Case) -> Figure:
    """Corner plot of the main parameters, or of those that were chosen."""
    parameters = corner_parameters(case)
    return _draw_corner(case, parameters, small=len(parameters) > MOST_LABELLED)


def draw_corner_full(case: Case) -> Figure:
    """Corner plot of all parameters."""
    return _draw_corner(case, case.record.parameters, small=True)


def _draw_chains(case: Case, kind: str) -> Figure:
    parameters = tuple(case.record[name] for name in case.chosen) or case.record.parameters
    columns = min(3, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = new_figure(PAGE, 1.05 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for panel, parameter in zip(axes.flat, parameters, strict=False):
        (trace if kind == "trace" else rank)(
            panel, parameter.draws, label=axis_label(parameter) if kind == "trace" else math_symbol(parameter)
        )
    for panel in list(axes.flat)[len(parameters) :]:
        panel.remove()
    figure.supxlabel("Draw" if kind == "trace" else "Rank among all draws (fraction)")
    return figure


def draw_traces(case: Case) -> Figure:
    """Traces of all parameters."""
    return _draw_chains(case, "trace")


def draw_ranks(case: Case) -> Figure:
    """Rank histograms of all parameters."""
    return _draw_chains(case, "rank")


def _band_words(case: Case) -> str:
    level, _ = outer_level(case.record.tail_ess)
    if level > 0.99:
        return "Bands: 68 % and 3 sigma (99.73 %)."
    return (
        f"Bands: 68 % and 95 % (3 sigma is shown only where the tail effective sample size exceeds 4000; here {case.record.tail_ess:.0f})."
    )


def _radius_words(case: Case) -> str:
    low, high = case.emulator_range
    radius = case.profiles.radius
    words = f"{_band_words(case)} Dashed vertical line: half the beam; smaller radii are not resolved."
    if radius[0] < low or radius[-1] > high:
        words += (
            f" Hatched: radii beyond {low:.3g} to {high:.3g} arcsec (2 pc to 10 kpc), over which the emulator's errors are not measured."
        )
    return words + (" Dots: truth." if case.record.true_theta() else "")


MASS_FIGURES = (
    FigureSpec(
        "mass",
        "Black-hole mass",
        "Two horizontal boxes: the prior and the narrower or equal posterior of the black-hole mass.",
        lambda case: (
            "Black-hole mass: 68 % (box), median (bar), "
            + ("3 sigma" if outer_level(case.record[MASS].mixing.ess_tail)[0] > 0.99 else "95 %")
            + " (whiskers), against its prior"
            + (" and the truth of the mock." if case.record[MASS].truth is not None else ".")
        ),
        "log10 of solar masses",
        draw_mass,
        applies=lambda case: case.record.mass is not None,
        needs=lambda case: f"a fit that sampled its parameter, got one that held {MASS} = {case.record.fixed[MASS]:g}",
    ),
)
TABLE_FIGURES = (
    FigureSpec(
        "marginals",
        "Posteriors over priors",
        "One small panel a parameter: histogram of the posterior over the flat prior.",
        lambda case: (
            "Posterior (blue) over the whole uniform prior (grey) of every parameter; where the posterior is below 5 % of the prior's "
            "width, the posterior alone, with the prior in words" + ("; dashed: truth of the mock." if case.record.truth else ".")
            + (" An angle is counted on across north." if any(p.circular for p in case.record.parameters) else "")
        ),
        "as on each axis",
        draw_marginals,
    ),
)
RESIDUAL_FIGURES = (
    FigureSpec(
        "residual-channel",
        "Residuals by channel",
        "Chi-squared per datum against velocity, with the band that noise alone gives.",
        lambda case: "Chi-squared per datum of the whitened residual of the best draw in every channel. Grey: 95 % under pure noise.",
        "km/s; none",
        draw_residual_channel,
    ),
    FigureSpec(
        "residual-baseline",
        "Residuals by baseline length",
        "Chi-squared per datum against baseline length, with the band that noise gives.",
        lambda case: "The same in bins of baseline length that hold equally many cells.",
        "kilo-wavelengths; none",
        draw_residual_baseline,
    ),
    FigureSpec(
        "noise",
        "Noise check",
        "Histogram of whitened residuals on a logarithmic scale beside a unit normal.",
        lambda case: (
            f"The {case.residuals.whitened.size} whitened residuals (channel correlation, estimated noise scale and continuum allowed for) "
            "against a unit normal."
        ),
        "standard deviations; data per bin",
        draw_noise,
    ),
)
PROFILE_FIGURES = (
    FigureSpec(
        "velocity",
        "Circular velocity",
        "Circular velocity against radius: total, black hole and stars, with credible bands.",
        lambda case: "Circular velocity, split into its parts. " + _radius_words(case),
        "arcsec and pc; km/s",
        draw_velocity,
    ),
    FigureSpec(
        "mass-profile",
        "Mass profile",
        "Dynamical mass against radius: total, black hole and stars, with credible bands.",
        lambda case: "Dynamical mass v²R/G of every part: the enclosed mass where it is spherical. " + _radius_words(case),
        "arcsec and pc; solar masses",
        draw_mass_profile,
    ),
    FigureSpec(
        "surface-density",
        "Surface density",
        "Surface density of the stars against radius, and the black-hole mass over the circle's area.",
        lambda case: (
            "Projected Nuker profile of the stars along the major axis. The black hole's mass over the circle's area shows where it "
            "outweighs them. " + _radius_words(case)
        ),
        "arcsec and pc; solar masses per square parsec",
        draw_surface_density,
    ),
)
CORNER_FIGURES = (
    FigureSpec(
        "corner",
        "Corner plot",
        "Corner plot: marginal histograms and pairwise contours of a few parameters.",
        _corner_caption,
        "as on each axis",
        draw_corner,
        takes=("parameter", "reference"),
    ),
    FigureSpec(
        "corner-full",
        "All parameters",
        "Corner plot of all parameters.",
        lambda case: (
            "Posterior of all parameters; contours hold 68 and 95 %; ranges are those of the draws, widened by a tenth within the prior."
            + _corner_lines(case, case.record.parameters)
        ),
        "as in the parameter table",
        draw_corner_full,
        takes=("reference",),
    ),
)
CHAIN_FIGURES = (
    FigureSpec(
        "traces",
        "Traces",
        "Every chain's draws in order, one panel a parameter, one colour a chain.",
        lambda case: "Draws in order, one colour a chain.",
        "as on each axis",
        draw_traces,
        takes=("parameter",),
    ),
    FigureSpec(
        "ranks",
        "Rank histograms",
        "Histogram of each chain's ranks, one panel a parameter.",
        lambda case: "Ranks of each chain's draws among all draws, relative to their expectation of 1: flat where the chains agree.",
        "fraction; none",
        draw_ranks,
        takes=("parameter",),
    ),
)
