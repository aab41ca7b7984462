"""What trees split by: each feature's share of the total gain, as bars (Chu et al., insets of Figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from supermage.plots.style import CHAINS

SYMBOLS: dict[str, str] = {
    "M_r": r"$M_r$",
    "sfr": "SFR",
    "n_sersic": r"$n_\mathrm{Ser}$",
    "c_a": r"$c/a$",
    "sigma_v": r"$\sigma_v$",
    "lambda_r": r"$\lambda$",
    "b_t": r"$B/T$",
    "f_cold": r"$f_\mathrm{cold}$",
    "f_hot": r"$f_\mathrm{hot}$",
    "sigma_3d1": r"$\sigma_\mathrm{3D}$",
    "spin": "spin",
    "r_hsm": r"$R_\mathrm{hsm}$",
    "f_disk_2d": r"$f_\mathrm{disc,2}$",
    "f_disk_1d": r"$f_\mathrm{disc,1}$",
    "bulge_index": r"$n_\mathrm{bulge}$",
    "log_mstar": r"$\log M_*$",
    "log_mtot": r"$\log M_\mathrm{tot}$",
    "log_mdm": r"$\log M_\mathrm{DM}$",
    "log_fstar": r"$\log f_*$",
    "log_fdm": r"$\log f_\mathrm{DM}$",
    "log_ml": r"$\log M_*/L$",
}
"""Symbols of features and targets by their canonical names."""


def symbol(name: str) -> str:
    """Symbol of a feature or target; colours such as ``g_r`` become differences of bands, and what has none keeps its name."""
    if name in SYMBOLS:
        return SYMBOLS[name]
    parts = name.split("_")
    if len(parts) == 2 and all(len(part) == 1 for part in parts):
        return f"$M_{parts[1]}$" if parts[0] == "M" else f"${parts[0]}-{parts[1]}$"
    return name.replace("_", " ")


def feature_gain(axes: Axes, shares: Mapping[str, float], *, most: int = 10, colour: str = CHAINS[0], size: float = 7.0) -> Axes:
    """Draw horizontal bars, the largest share on top.

    Parameters
    ----------
    shares
        Feature -> share of the total gain, 0 .. 1.
    most
        Bars that are drawn; what the others hold together is one more, "rest".
    colour
        Of the bars.
    size
        Of the letters, points.
    """
    ordered = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    bars = [(symbol(name), share) for name, share in ordered[:most]]
    if len(ordered) > most:
        bars.append((f"{len(ordered) - most} others", sum(share for _, share in ordered[most:])))
    places = range(len(bars))
    axes.barh(places, [100.0 * share for _, share in bars], height=0.7, color=colour, linewidth=0)
    axes.set_yticks(places, [name for name, _ in bars])
    axes.invert_yaxis()
    longest = 100.0 * max(share for _, share in bars)
    for place, (_, share) in zip(places, bars, strict=True):
        words = f"{100.0 * share:.0f} %" if share >= 0.005 else "<1 %"
        axes.annotate(words, (100.0 * share, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=size)
    axes.set(xlim=(0, 1.3 * max(longest, 1.0)), xlabel="share of gain (%)")
    axes.xaxis.label.set_fontsize(size)
    axes.tick_params(axis="y", length=0, labelsize=size)
    axes.tick_params(axis="x", labelsize=size)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(top=False, right=False)
    return axes
