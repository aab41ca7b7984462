"""The parameters of a fit: name, unit, symbol and prior range in one line each (Yantovski-Barth et al., Table 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One parameter of the galaxy model.

    Attributes
    ----------
    name, unit, symbol
        Its name in recipes and files, its unit, and how it is set in LaTeX.
    lower, upper
        Bounds of the default uniform prior, in ``unit``; for a normal prior four standard deviations about its mean.
    description
        What it is.
    normal
        Mean and standard deviation where the prior is normal.
    """

    name: str
    unit: str
    symbol: str
    lower: float
    upper: float
    description: str
    normal: tuple[float, float] | None = None

    @property
    def log_prior_width(self) -> float:
        """Log of the width of the uniform prior, or what plays its part for a normal one: the standard deviation."""
        return math.log(self.upper - self.lower if self.normal is None else self.normal[1])


TABLE_1 = (
    Parameter("scale_length", "arcsec", r"h", 0.0, 10.0, "scale length of the gas disc"),
    Parameter("log10_mbh", "dex(Msun)", r"\log_{10} M_\bullet/M_\odot", 6.0, 9.79934, "log10 of the black-hole mass"),
    Parameter("inclination", "deg", r"i", 72.0, 89.0, "inclination, 0 face-on"),
    Parameter("qintr", "", r"q", 0.1, 1.0, "intrinsic axis ratio of the stars"),
    Parameter("alpha", "", r"\alpha", 0.1, 10.0, "sharpness of the Nuker break"),
    Parameter("gamma_minus_beta", "", r"\gamma-\beta", -3.0, -0.3, "inner minus outer slope of the Nuker profile"),
    Parameter("gamma", "", r"\gamma", 0.001, 1.2, "inner slope of the Nuker profile"),
    Parameter("break_r", "arcsec", r"r_\mathrm{b}", 0.41, 5.0, "break radius of the Nuker profile"),
    Parameter(
        "intensity_rb", "dex(Msun / pc2)", r"\log_{10} \Sigma_\mathrm{b}", 1.0, 5.0, "log10 of the surface density at the break radius"
    ),
    Parameter("PA", "deg", r"\mathrm{PA}", 0.0, 359.9, "position angle of the receding major axis, east of north"),
    Parameter("line_broadening", "km / s", r"\sigma", 0.1, 30.0, "Gaussian width of the line"),
    Parameter("systemic_velocity", "km / s", r"v_\mathrm{sys}", 1220.0, 1260.0, "systemic velocity"),
    Parameter("x", "arcsec", r"x", -1.0, 1.0, "centre, east of the phase centre"),
    Parameter("y", "arcsec", r"y", -1.0, 1.0, "centre, north of the phase centre"),
    Parameter("Flux", "Jy km / s", r"F", 1.0, 50.0, "integrated flux of the line"),
)
"""The paper's parameters with NGC 4697's uniform priors. ``intensity_rb`` from 1 to 5 can only be a logarithm."""

NFW_HALO = (
    Parameter(
        "halo_log10_m200", "dex(Msun)", r"\log_{10} M_{200}/M_\odot", 8.0, 14.0, "log10 of the halo's mass within 200 critical densities"
    ),
    Parameter("halo_log10_c", "", r"\log_{10} c_{200}", 0.3, 1.7, "log10 of the halo's concentration"),
)
"""Added by ``halo = "nfw"``. Not in the paper; the ranges hold every halo between dwarfs and clusters."""

GAS_INDEX = Parameter("gas_index", "", r"n_\mathrm{gas}", 0.3, 15.0, "index n of the gas profile exp(-(R/h)^n)")
"""Added by ``gas = "stretched"``. Not in the paper; 1 is its exponential, large values a flat disc with an edge."""

GAS_MASS = Parameter("gas_log10_mass", "dex(Msun)", r"\log_{10} M_\mathrm{gas}/M_\odot", 5.0, 11.0, "log10 of the gas disc's mass")
"""Added by ``self_gravity = "exponential"``. Not in the paper."""

ML_GRADIENT = Parameter("ml_gradient", "", r"\kappa", -0.5, 0.5, "the stars' mass-to-light ratio falls as R^-kappa")
"""Added by ``mass_to_light = "gradient"``. Not in the paper; to be used with a Nuker profile of the light."""

OPTIONAL = (*NFW_HALO, GAS_INDEX, GAS_MASS, ML_GRADIENT)
"""Parameters that a key of ``[fit.model]`` adds, see `supermage.recipe_sections.OPTIONAL_NAMES`."""

PARAMETERS = {parameter.name: parameter for parameter in (*TABLE_1, *OPTIONAL)}
"""Every parameter by name."""

WITHIN = 4.0
"""Standard deviations about the mean of a normal prior that count as its bounds."""


def block_parameters(blocks: int, *, flux: float, position: float) -> tuple[Parameter, ...]:
    """What may differ between execution blocks, each with a normal prior: the flux scale and the position of the whole source.

    Parameters
    ----------
    blocks
        Number of execution blocks.
    flux
        Standard deviation of each block's flux scale about 1; 0 for none. ALMA states 5 % (band 3) to 10 %.
    position
        Standard deviation of each block's offsets east and north, arcsec; 0 for none.
    """
    made = []
    for k in range(1, blocks + 1):
        if flux > 0:
            made.append(_normal(f"flux_scale_{k}", "", f"f_{k}", 1.0, flux, f"flux scale of execution block {k}"))
        if position > 0:
            for axis, towards in (("x", "east"), ("y", "north")):
                made.append(_normal(f"offset_{axis}_{k}", "arcsec", rf"\Delta {axis}_{k}", 0.0, position,
                                    f"offset of execution block {k}, {towards}"))  # fmt: skip
    return tuple(made)


def _normal(name: str, unit: str, symbol: str, mean: float, deviation: float, description: str) -> Parameter:
    return Parameter(name, unit, symbol, mean - WITHIN * deviation, mean + WITHIN * deviation, description, (mean, deviation))
