"""The rules behind the verdict, in prose; the report prints them, and the functions in `supermage.report.verdict` obey them."""

from __future__ import annotations

from supermage.report.mass_prior import CONTRADICT, IN_TENSION
from supermage.report.statistics import EDGE
from supermage.report.verdict import (
    BIN_SIGMA,
    BLIND_BEAMS,
    CHI2_OFFSET,
    CHI2_SIGMA,
    EDGE_REACHED,
    ESS_LIMIT,
    LAG_OFFSET,
    LEAST_INSIDE,
    MARGINAL_BEAMS,
    NOISE_OFFSET,
    NOISE_SIGMA,
    PIXEL_EXCESS,
    R_HAT_LIMIT,
    RESOLVED_BEAMS,
    UNRESOLVED_SPAN,
    UNRESOLVED_WIDTH,
    Status,
)

ORDER = "The verdict is the first of these that holds:"

RULES: dict[Status, str] = {
    Status.NOT_CONVERGED: (
        f"A parameter has R-hat, or nested R-hat over the starts, of {R_HAT_LIMIT:g} or more, or an effective sample size (bulk or tail) "
        f"of {ESS_LIMIT:g} or less, or the fit itself recorded that it did not converge. No number on the page is a result."
    ),
    Status.HELD_FIXED: "The recipe held the mass fixed, so nothing is measured of it. Structured residuals are said beside it.",
    Status.UNRESOLVED: (
        f"The 68 % interval of the logarithm of the mass is wider than {UNRESOLVED_WIDTH:g} of its prior's. Or the posterior does not "
        f"reach down to the lower edge of its prior, and its 68 % interval spans more than {UNRESOLVED_SPAN:g} dex or the sphere of "
        f"influence (median diameter) is less than {BLIND_BEAMS:g} beams across. No mass is claimed, and structured residuals are said "
        "beside it."
    ),
    Status.DO_NOT_TRUST: (
        "A mass or an upper limit would be claimed, but the residuals are structured, or the noise is not what is stated, or the mass "
        "piles up on the upper edge of its prior with more than the prior's density there, or a prior on the stars' mass and the data "
        f"contradict each other: they are {CONTRADICT:g} standard deviations apart or more."
    ),
    Status.UPPER_LIMIT: (
        f"The posterior reaches down to the lower edge of its prior, with more than {EDGE_REACHED:g} of the prior's density in the lowest "
        f"{100 * EDGE:g} % of its range: heavier black holes are excluded, none is asked for. The sphere of influence need not be resolved "
        "for this, since that of a light black hole never is."
    ),
    Status.DETECTED: "Otherwise: the data weigh the black hole.",
}
"""What each verdict means, in the order in which they are decided."""

DEFINITIONS = (
    "Residuals are structured if, after an overall noise factor is scaled out, chi-squared in a bin of channel or of baseline length "
    f"departs from the mean by more than {BIN_SIGMA:g} standard deviations; or if the brightest residual pixel is more than "
    f"{PIXEL_EXCESS:g} times as bright as noise alone makes it in one cube of a hundred; or if chi-squared per datum is off by more than "
    f"{100 * CHI2_OFFSET:g} % and by more than {CHI2_SIGMA:g} standard deviations. Chi-squared is always relative to what noise alone "
    "gives.",
    "The noise is not what is stated if, from differences along the channels of data minus model, its scale is off by more than "
    f"{100 * NOISE_OFFSET:g} %, or the correlation of neighbouring channels by more than {LAG_OFFSET:g}, each at {NOISE_SIGMA:g} standard "
    "deviations. A correlation that a wrong scale alone explains does not count.",
    f"The sphere of influence is called resolved from {RESOLVED_BEAMS:g} beams across (median diameter) and marginally resolved from "
    f"{MARGINAL_BEAMS:g}; below that the words say that the mass leans on the model of the stars. It decides only as said above.",
    f"A prior on the stars' mass and the data are called in tension from {IN_TENSION:g} standard deviations on: those at which a normal "
    "variable is as far out as 0 is for the difference of a mass drawn from the prior and one that the data alone allow, which for normal "
    "ones is their difference over the root of their summed variances. The data alone are the same fit without the prior where there is "
    "one, else the draws weighted by one over the prior, else a normal likelihood fitted to how they moved and narrowed it. Tension is "
    "said in the headline, as is a prior that has seen the fitted data.",
    f"A fit that was interrupted before its end, and a gas disc with more than {100 * (1 - LEAST_INSIDE):g} % of its flux beyond the "
    "image, are said, and decide nothing.",
)
"""What the rules' words mean."""
