"""Every figure of the report by its name."""

from __future__ import annotations

from supermage.errors import DomainError, nearest_name
from supermage.report.figure import FigureSpec
from supermage.report.figures_fit import CHAIN_FIGURES, CORNER_FIGURES, MASS_FIGURES, PROFILE_FIGURES, RESIDUAL_FIGURES, TABLE_FIGURES
from supermage.report.figures_mass_prior import MASS_PRIOR_FIGURES
from supermage.report.figures_sky import SKY_FIGURES

FIGURES: dict[str, FigureSpec] = {
    spec.name: spec
    for spec in (*MASS_FIGURES, *MASS_PRIOR_FIGURES, *TABLE_FIGURES, *SKY_FIGURES, *RESIDUAL_FIGURES, *PROFILE_FIGURES, *CORNER_FIGURES,
                 *CHAIN_FIGURES)
}


def find_figure(name: str) -> FigureSpec:
    """Look a figure up.

    Raises
    ------
    DomainError
        If there is none of that name; the nearest one is named.
    """
    if name not in FIGURES:
        raise DomainError(f"a figure must be one of {', '.join(FIGURES)}, got '{name}'{nearest_name(name, FIGURES)}")
    return FIGURES[name]
