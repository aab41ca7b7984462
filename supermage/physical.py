"""Where the parameters of a galaxy have a meaning, whatever the data: for the bounds of priors and for the truth of a mock alike."""

from __future__ import annotations

import math
from typing import NamedTuple


class Range(NamedTuple):
    """Where a parameter has a meaning, in its unit; the edges belong to it."""

    low: float
    high: float
    unit: str = ""


QINTR_TABLE = (0.05, 1.0)
"""Axis ratios that the tabulated kernel of the circular velocity holds for, see `supermage.forward.velocity`."""

PHYSICAL = {
    "scale_length": Range(0.0, math.inf, "arcsec"),
    "log10_mbh": Range(0.0, 12.0, "dex(Msun)"),
    "inclination": Range(0.0, 90.0, "deg"),
    "qintr": Range(*QINTR_TABLE),
    "alpha": Range(0.0, 100.0),
    "gamma_minus_beta": Range(-20.0, 0.0),
    "gamma": Range(0.0, 1.9),  # from 2 on the mass diverges, and close to it no table of radii reaches far enough in
    "break_r": Range(0.0, math.inf, "arcsec"),
    "intensity_rb": Range(-5.0, 12.0, "dex(Msun / pc2)"),
    "line_broadening": Range(0.0, math.inf, "km / s"),
    "Flux": Range(0.0, math.inf, "Jy km / s"),
    "gas_index": Range(0.0, math.inf),
    "halo_log10_m200": Range(5.0, 16.0, "dex(Msun)"),
    "halo_log10_c": Range(-1.0, 3.0),
    "gas_log10_mass": Range(0.0, 13.0, "dex(Msun)"),
    "ml_gradient": Range(-1.0, 1.0),
}
"""What a parameter may be at most; the emulator has a range of its own."""

NOT_ZERO = ("scale_length", "inclination", "alpha", "break_r", "line_broadening")
"""A prior may begin at 0, but a galaxy cannot be there."""

LEAST_LOG10 = {"log10_mbh": 6.0, "intensity_rb": 1.0, "halo_log10_m200": 8.0, "halo_log10_c": 0.3, "gas_log10_mass": 5.0}
"""Logarithms, with the least that is likely: a larger number whose logarithm is likely was meant to be one."""


def broken_rule(name: str, value: float, *, is_bound: bool = False) -> str | None:
    """The rule that a value breaks, with its unit, and what was got; None where it breaks none.

    Parameters
    ----------
    name
        A parameter; one without a range in `PHYSICAL` breaks no rule.
    value
        In the parameter's unit.
    is_bound
        Whether the value is the bound of a prior, which may lie on an edge that a galaxy cannot have.
    """
    if name not in PHYSICAL:
        return None
    low, high, unit = PHYSICAL[name]
    unit = f" {unit}" if unit else ""
    if low <= value <= high and (is_bound or value != 0 or name not in NOT_ZERO):
        return None
    if not is_bound and name in NOT_ZERO:
        rule = f"must be above 0{unit}" if math.isinf(high) else f"must lie in (0, {high:g}]{unit}"
    else:
        rule = f"must be at least {low:g}{unit}" if math.isinf(high) else f"must lie in [{low:g}, {high:g}]{unit}"
    why = ", the range of the tabulated circular velocity" if name == "qintr" else ""
    hint = ": is this log10?" if name in LEAST_LOG10 and value > high and LEAST_LOG10[name] <= math.log10(value) <= high else ""
    return f"{rule}{why}, got {value:g}{hint}"
