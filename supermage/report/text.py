"""Symbols and units as mathtext, LaTeX and HTML, and numbers rounded by their error."""

from __future__ import annotations

import html
import math
import re

from supermage.report.record import Sampled

_UNITS = {
    # as astropy writes it: (LaTeX and mathtext, HTML)
    "arcsec": (r"\mathrm{arcsec}", "arcsec"),
    "deg": (r"\mathrm{deg}", "deg"),
    "km / s": (r"\mathrm{km\,s^{-1}}", "km s<sup>−1</sup>"),
    "Jy km / s": (r"\mathrm{Jy\,km\,s^{-1}}", "Jy km s<sup>−1</sup>"),
    "Msun / pc2": (r"M_\odot\,\mathrm{pc^{-2}}", "<i>M</i><sub>☉</sub> pc<sup>−2</sup>"),
    "Msun": (r"M_\odot", "<i>M</i><sub>☉</sub>"),
}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "sigma": "σ", "Sigma": "Σ", "bullet": "BH", "odot": "☉", "theta": "θ"}
_FUNCTIONS = {"log", "ln", "exp", "sin", "cos"}


def bare_unit(parameter: Sampled) -> str:
    """Unit without ``dex()``, and without a unit that the symbol divides by already."""
    match = re.fullmatch(r"dex\((.*)\)", parameter.unit.strip())
    if match is None:
        return parameter.unit.strip()
    inner = match.group(1).strip()
    return "" if inner == "Msun" and r"M_\odot" in parameter.symbol else inner


def math_symbol(parameter: Sampled) -> str:
    """Symbol as mathtext or LaTeX, dollars included; black holes carry BH as their index."""
    return in_dollars(parameter.symbol)


def in_dollars(symbol: str) -> str:
    """A symbol between dollars, whether it brought them or not."""
    return "$" + symbol.strip("$").replace(r"M_\bullet", r"M_\mathrm{BH}") + "$"


def short_symbol(parameter: Sampled) -> str:
    """Symbol as mathtext for a narrow panel."""
    return math_symbol(parameter).replace(r"/M_\odot", "").replace(r"\log_{10}", r"\log")


def math_unit(parameter: Sampled) -> str:
    """Unit as mathtext or LaTeX, dollars included, or an empty string."""
    unit = bare_unit(parameter)
    return "$" + _UNITS[unit][0] + "$" if unit in _UNITS else unit


def axis_label(parameter: Sampled, *, offset: float = 0.0, between: str = " ") -> str:
    """Symbol, minus a constant that was taken from the values, and unit for an axis; ``between`` may break the line."""
    unit = math_unit(parameter)
    symbol = math_symbol(parameter) + (f" $-$ {offset:g}" if offset > 0 else f" $+$ {-offset:g}" if offset < 0 else "")
    return f"{symbol}{between}({unit})" if unit else symbol


def html_unit(parameter: Sampled) -> str:
    """Unit as HTML."""
    unit = bare_unit(parameter)
    return _UNITS[unit][1] if unit in _UNITS else html.escape(unit)


def html_symbol(parameter: Sampled) -> str:
    """Symbol as HTML: the few LaTeX commands that parameters use."""
    return latex_to_html(parameter.symbol)


def latex_to_html(latex: str) -> str:
    """Turn simple LaTeX (indices, exponents, upright text, Greek letters) into HTML."""
    text = latex.replace(r"M_\bullet", r"M_\mathrm{BH}")
    out: list[str] = []
    position = 0
    pattern = re.compile(r"([_^])|\\mathrm\{([^{}]*)\}|\{([^{}]*)\}|\\([A-Za-z]+)\s?|(-)|(\s+)|([A-Za-z])|(.)", re.DOTALL)
    index: str | None = None
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            break
        position = match.end()
        mark, upright, group, command, minus, space, letter, other = match.groups()
        if mark:
            index = "sub" if mark == "_" else "sup"
            continue
        if space:
            continue
        if command in _FUNCTIONS:
            piece = command
        elif command:
            piece = _GREEK.get(command, html.escape(command))
        elif upright is not None:
            piece = html.escape(upright)
        elif group is not None:
            piece = latex_to_html(group)
        elif minus:
            piece = " − " if out and index is None else "−"
        elif letter:
            piece = f"<i>{letter}</i>"
        else:
            piece = html.escape(other)
        out.append(f"<{index}>{piece}</{index}>" if index else piece)
        if (command in _FUNCTIONS and not text[position:].startswith("_")) or (index and len(out) > 1 and out[-2] in _FUNCTIONS):
            out.append(" ")
        index = None
    return "".join(out)


def decimals_of(error: float) -> int:
    """Decimals that leave an error two significant digits; negative where it exceeds 100, 3 where it is zero or not finite."""
    if not math.isfinite(error) or error <= 0:
        return 3
    decimals = 1 - math.floor(math.log10(error))
    # An error of 0.0996 rounds to 0.10, not 0.100.
    return decimals - 1 if float(f"{error:.1e}") >= 10.0 ** (2 - decimals) else decimals


def fixed_point(value: float, decimals: int) -> str:
    """A number with so many decimals, rounded to tens or hundreds where negative; never "-0.0"."""
    text = f"{round(value, decimals):.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def bound(value: float) -> str:
    """A bound of a prior: four significant digits."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def minus(text: str) -> str:
    """Typographic minus signs."""
    return text.replace("-", "−")


def in_scientific(value: float, error: float) -> tuple[str, str, int]:
    """Mantissas of a value and its error, and their common power of ten, rounded by the error."""
    power = math.floor(math.log10(abs(value))) if value else 0
    decimals = min(max(decimals_of(error / 10.0**power), 0), 3)
    return fixed_point(value / 10.0**power, decimals), fixed_point(error / 10.0**power, decimals), power
