"""The figure of a prior on the stars' mass."""

from __future__ import annotations

from matplotlib.figure import Figure

from supermage.plots.stellar_mass import held_masses, stellar_mass
from supermage.plots.style import COLUMN, PAGE, new_figure
from supermage.report.case import Case
from supermage.report.figure import FigureSpec
from supermage.report.record import MASS


def draw_mass_prior(case: Case) -> Figure:
    """The stars' mass by prior, data and both; the black hole's with the prior and without it, where it was free."""
    facts, stored = case.mass_prior, case.record.mass_prior
    assert facts is not None and stored is not None
    rows = [(name, mass.median, mass.span.low, mass.span.high)
            for name, mass in (("with prior", facts.with_prior), ("without", facts.without_prior)) if mass is not None]  # fmt: skip
    figure = new_figure(PAGE if rows else COLUMN, 2.2)
    axes = figure.subplots(1, 2 if rows else 1, squeeze=False)[0]
    stellar_mass(axes[0], stored.log_mass.ravel(), prior=facts.prior_alone, data=facts.tension.data, truth=facts.truth)
    if rows:
        held_masses(axes[1], rows, truth=case.record[MASS].truth)
    return figure


def _caption(case: Case) -> str:
    facts = case.mass_prior
    assert facts is not None
    data = "" if facts.tension.data is None else ", what the data alone say (dotted)"
    without = "" if facts.without_prior is None else f" and without it ({facts.without_prior.how})"
    right = "" if facts.with_prior is None else f" Right: the black hole's mass with the prior{without}, median and 68 %."
    left = "" if facts.prior is None else ", as the bounds of intensity_rb leave it"
    return (f"Stars' mass inside {facts.notes['aperture']}: the prior (dashed{left}){data}, each as a normal of its mean and width, and "
            f"the posterior (filled).{right}")  # fmt: skip


MASS_PRIOR_FIGURES = (
    FigureSpec(
        "stellar-mass",
        "Prior on the stars' mass",
        "Curves of prior and data over the posterior of the stars' mass; beside it the black hole's mass with and without the prior.",
        _caption,
        "log10 of solar masses",
        draw_mass_prior,
        applies=lambda case: case.record.mass_prior is not None,
        needs=lambda case: "a fit with [fit.mass_prior], got one without",
    ),
)
