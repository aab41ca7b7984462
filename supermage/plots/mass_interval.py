"""Credible intervals of the black-hole mass as a box plot (Yantovski-Barth et al., Figure 2)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.profile import outer_level
from supermage.plots.style import BLACK_HOLE, MUTED, TRUTH


def mass_interval(
    axes: Axes, log_mass: NDArray[np.floating], *, prior: tuple[float, float], tail_ess: float, truth: float | None = None
) -> Axes:
    """Draw the posterior of log10 M and its prior as boxes (68 %) with whiskers (3 sigma, or 95 % where too few draws lie in the tails)."""
    level, name = outer_level(tail_ess)
    rows = [("prior", np.array(prior[0]) + np.linspace(0, 1, 2001) * (prior[1] - prior[0]), MUTED), ("posterior", log_mass, BLACK_HOLE)]
    boxes = []
    for title, sample, _ in rows:
        low, q16, q50, q84, high = np.quantile(sample, [0.5 - level / 2, 0.16, 0.5, 0.84, 0.5 + level / 2])
        boxes.append({"label": title, "whislo": low, "q1": q16, "med": q50, "q3": q84, "whishi": high})
    drawn = axes.bxp(
        boxes, orientation="horizontal", showfliers=False, patch_artist=True, widths=0.5, medianprops={"color": "black", "linewidth": 1.0}
    )
    for patch, (_, _, colour) in zip(drawn["boxes"], rows, strict=True):
        patch.set(facecolor=colour, alpha=0.45)
    if truth is not None:
        axes.axvline(truth, color=TRUTH, linewidth=1.2, linestyle="--", label="truth")
        axes.legend(loc="upper right")
    span = prior[1] - prior[0]
    axes.set(xlabel=r"$\log_{10}(M_\mathrm{BH}/M_\odot)$", xlim=(prior[0] - 0.02 * span, prior[1] + 0.02 * span), ylim=(0.4, 2.9))
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"box 68 %, whiskers {name}", loc="left")
    return axes
