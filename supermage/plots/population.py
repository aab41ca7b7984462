"""One population of galaxies beside another: relations with stellar mass, and distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from numpy.typing import NDArray

from supermage.plots.style import CHAINS, DATA

FloatArray = NDArray[np.float64]

FEWEST = 10
"""Galaxies that a bin needs before its median is drawn."""

MASS_EDGES = np.array([9.0, 9.3, 9.6, 9.9, 10.2, 10.5, 10.8, 11.1, 11.4, 11.8])
"""Edges of bins in log10 M*, Msun."""


class Binned(NamedTuple):
    """Medians and the central 68 % of a quantity, by bin; NaN where a bin holds fewer than `FEWEST`."""

    centre: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray
    number: NDArray[np.int64]


LABELS = {
    "log_stars": r"$\log_{10}(M_*/M_\odot)$",
    "log_size": r"$\log_{10}(R_\mathrm{hsm}/\mathrm{kpc})$",
    "log_total": r"$\log_{10}(M_\mathrm{tot}(<R_\mathrm{hsm})/M_\odot)$",
    "dark_share": r"$f_\mathrm{DM}(<R_\mathrm{hsm})$",
    "colour": r"$g-r$",
    "log_light": r"$\log_{10}(M_*/L_r)\ [M_\odot/L_\odot]$",
    "log_dispersion": r"$\log_{10}(\sigma_\mathrm{3D}/\sqrt{3}\ [\mathrm{km/s}])$",
    "log_spin": r"$\log_{10}(j\ [\mathrm{kpc\,km/s}])$",
    "disc_share": r"disc fraction",
    "log_black_hole": r"$\log_{10}(M_\mathrm{BH}/M_\odot)$",
}
"""What `quantities` returns, with the symbols and units for axes."""


def quantities(table: Table) -> dict[str, FloatArray]:
    """Quantities of `LABELS` from a catalogue's canonical columns, (row,); NaN where a column is masked or a logarithm has no number.

    M*/L_r counts all stars and M_r as the table has it, with the Sun at 4.65 (AB).
    """

    def column(name: str) -> FloatArray:
        return np.ma.filled(np.ma.asarray(table[name]).astype(np.float64), np.nan)

    def log(value: FloatArray) -> FloatArray:
        return np.log10(np.where(value > 0, value, np.nan))

    stars = log(column("m_star_total"))
    return {
        "log_stars": stars,
        "log_size": log(column("r_hsm")),
        "log_total": log(column("m_tot_1rhsm")),
        "dark_share": column("m_dm_1rhsm") / column("m_tot_1rhsm"),
        "colour": column("g_r"),
        "log_light": stars + 0.4 * (column("M_r") - 4.65),
        "log_dispersion": log(column("sigma_3d1")),
        "log_spin": log(column("spin")),
        "disc_share": column("f_disk_2d"),
        "log_black_hole": log(column("m_bh_1rhsm")),
    }


def binned(x: NDArray[np.floating], y: NDArray[np.floating], edges: NDArray[np.floating]) -> Binned:
    """Median and 16 - 84 % range of y in bins of x; pairs that lack either are passed over."""
    both = np.isfinite(x) & np.isfinite(y)
    place = np.digitize(x[both], edges) - 1
    found = np.full((3, len(edges) - 1), np.nan)
    number = np.bincount(place[(place >= 0) & (place < len(edges) - 1)], minlength=len(edges) - 1)
    for i in np.flatnonzero(number >= FEWEST):
        found[:, i] = np.quantile(y[both][place == i], [0.5, 0.16, 0.84])
    centre = 0.5 * (np.asarray(edges[1:], dtype=np.float64) + edges[:-1])
    return Binned(centre, found[0], found[1], found[2], number.astype(np.int64))


def relation(
    axes: Axes,
    ours: tuple[NDArray[np.floating], NDArray[np.floating]],
    reference: tuple[NDArray[np.floating], NDArray[np.floating]],
    *,
    names: tuple[str, str],
    labels: tuple[str, str],
    edges: NDArray[np.floating] = MASS_EDGES,
) -> Axes:
    """Draw a relation of two populations: points and a band of medians with 68 % of ours, medians with bars of 68 % of the reference.

    Parameters
    ----------
    ours, reference
        x and y of each population, shape (galaxy,).
    names, labels
        Of ours and the reference, for the legend; of x and y, symbol and unit.
    edges
        Of the bins in x.
    """
    x, y = ours
    axes.plot(x, y, ".", color=CHAINS[4], markersize=1.2, markeredgewidth=0, alpha=0.35, rasterized=True, zorder=0)
    mine, other = (binned(*pair, edges) for pair in (ours, reference))
    axes.fill_between(mine.centre, mine.low, mine.high, color=CHAINS[0], alpha=0.3, linewidth=0)
    axes.plot(mine.centre, mine.median, color=CHAINS[0], label=names[0])
    bars = np.stack([other.median - other.low, other.high - other.median])
    axes.errorbar(other.centre, other.median, yerr=bars, fmt="o", color=DATA, markersize=3, elinewidth=0.8, label=names[1])
    spread = np.concatenate([part[np.isfinite(part)] for part in (mine.low, mine.high, other.low, other.high)])
    if len(spread):
        margin = 0.3 * max(float(np.ptp(spread)), 1e-6)
        axes.set_ylim(spread.min() - margin, spread.max() + margin)
    axes.set(xlim=(edges[0], edges[-1]), xlabel=labels[0], ylabel=labels[1])
    return axes


def distribution(
    axes: Axes, ours: NDArray[np.floating], reference: NDArray[np.floating], *, names: tuple[str, str], label: str, bins: int = 30
) -> Axes:
    """Draw the normalised histograms of one quantity in two populations over the range that holds 99 % of both."""
    mine, other = (values[np.isfinite(values)] for values in (ours, reference))
    low, high = np.quantile(np.concatenate([np.quantile(part, [0.005, 0.995]) for part in (mine, other)]), [0.0, 1.0])
    edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    for values, name, colour, filled in ((mine, names[0], CHAINS[0], True), (other, names[1], DATA, False)):
        density, _ = np.histogram(values, bins=edges)
        axes.stairs(density / len(values) / np.diff(edges), edges, fill=filled, color=colour, alpha=0.4 if filled else 1.0, label=name)
    axes.set(xlabel=label, ylabel="share of galaxies per unit", xlim=(edges[0], edges[-1]))
    return axes
