"""The parameters of a fit: name, unit, symbol and prior range in one line each (Yantovski-Barth et al., Table 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One parameter of the galaxy model.

    Attributes
    ----------
    name, unit, symbol
        Its name in recipes and files, its unit, and how it is set in LaTeX.
    lower, upper
        Bounds of the default uniform prior, in ``unit``.
    description
        What it is.
    """

    name: str
    unit: str
    symbol: str
    lower: float
    upper: float
    description: str


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
