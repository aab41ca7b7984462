"""The sections of the report, in their order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from supermage.report import html, rules, verdict
from supermage.report.case import Case
from supermage.report.figure import FigureSpec
from supermage.report.figures_fit import CHAIN_FIGURES, CORNER_FIGURES, MASS_FIGURES, PROFILE_FIGURES, RESIDUAL_FIGURES, TABLE_FIGURES
from supermage.report.figures_mass_prior import MASS_PRIOR_FIGURES
from supermage.report.figures_sky import SKY_FIGURES
from supermage.report.mass import mass_statement
from supermage.report.mass_prior_words import mass_prior_section
from supermage.report.record import Sampled
from supermage.report.tables import Row, row
from supermage.report.text import html_symbol, html_unit, minus

PNG = Callable[[str], bytes]
GRADIENTS = "Kernel gradients (starts and metrics not counted)"
LARGEST_SHIFT = 0.3
"""Shift of a parameter by the model's discretisation, in standard errors, above which it is no longer small beside the noise."""
WIDE = {"marginals", "moments", "channels", "position-velocity", "corner", "corner-full", "traces", "ranks", "stellar-mass"}


def sections(case: Case, png: PNG, downloads: dict[str, Path]) -> list[tuple[str, str, str]]:
    """Every section as (identity, title, content).

    Parameters
    ----------
    case
        The posterior.
    png
        Bytes of a figure by its name.
    downloads
        Files of the report by their title; the LaTeX table is ``table``, the BibTeX ``bibtex``.
    """
    return [
        ("verdict", "Verdict", _verdict(case)),
        ("mass", "Black-hole mass", _mass(case) + _figures(case, png, MASS_FIGURES)),
        *_mass_prior(case, png),
        ("parameters", "Parameters", _parameters(case) + _figures(case, png, TABLE_FIGURES)),
        ("data", "Data, model, residual", _figures(case, png, SKY_FIGURES)),
        ("residuals", "Residuals and noise", _residuals(case) + _figures(case, png, RESIDUAL_FIGURES)),
        ("profiles", "Velocity and mass profiles", _figures(case, png, PROFILE_FIGURES)),
        (
            "posterior",
            "Posterior",
            _figures(case, png, CORNER_FIGURES[:1]) + html.folded("All parameters", _figures(case, png, CORNER_FIGURES[1:])),
        ),
        ("convergence", "Convergence", _convergence(case) + _figures(case, png, CHAIN_FIGURES)),
        ("provenance", "Recipe, versions, data", _provenance(case)),
        ("downloads", "Downloads", _downloads(downloads)),
    ]


def _mass_prior(case: Case, png: PNG) -> Iterator[tuple[str, str, str]]:
    if case.mass_prior is not None:
        yield "mass-prior", "Prior on the stars' mass", mass_prior_section(case.mass_prior) + _figures(case, png, MASS_PRIOR_FIGURES)


def lead(case: Case) -> str:
    """What stands above everything: the headline of the verdict, then what was fitted."""
    galaxy = case.record.recipe.galaxy
    name = galaxy.name if galaxy else case.record.path.stem
    mock = " (mock data)" if case.record.truth and "mock" not in name.lower() else ""
    line = f", {galaxy.line}" if galaxy else ""
    return (
        f'<p class="note"><strong>{html.escape(case.verdict.headline)}</strong></p>\n<h1>Black hole of {html.escape(name)}{mock}</h1>\n'
        f'<p class="note">Gas dynamics{html.escape(line)}, distance {case.record.distance:g} Mpc; beam {case.cubes.beam_width:.2f} arcsec. '
        "Made by supermage from the posterior and the gridded visibilities named below.</p>"
    )


def _figures(case: Case, png: PNG, specs: tuple[FigureSpec, ...]) -> str:
    return "\n".join(
        f"<h3>{html.escape(spec.title)}</h3>\n"
        + html.figure(
            png(spec.name),
            name=spec.name,
            alt=spec.alt,
            caption=spec.caption(case),
            unit=spec.unit,
            command=spec.command(case),
            wide=spec.name in WIDE,
        )
        for spec in specs
        if spec.applies(case)
    )


def _verdict(case: Case) -> str:
    found = case.verdict
    style = found.status.value.replace(" ", "-")
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in found.reasons)
    order = "".join(f"<dt>{html.escape(status.value)}</dt><dd>{html.escape(words)}</dd>" for status, words in rules.RULES.items())
    told = html.folded(
        "The rules behind these words",
        f"{html.paragraph(rules.ORDER)}<dl>{order}</dl>" + "".join(html.paragraph(words) for words in rules.DEFINITIONS),
    )
    return f'<div class="verdict {style}"><p class="headline">{html.escape(found.headline)}</p><ul>{reasons}</ul></div>\n{told}'


def _mass(case: Case) -> str:
    statement = mass_statement(case.record, case.verdict)
    lines = "".join(
        html.paragraph(_powers(line)).replace("&lt;sup&gt;", "<sup>").replace("&lt;/sup&gt;", "</sup>") for line in statement.lines
    )
    claim = (
        html.paragraph(_powers(statement.headline) + ".", style="mass").replace("&lt;sup&gt;", "<sup>").replace("&lt;/sup&gt;", "</sup>")
    )
    return claim.replace("Msun", "M<sub>☉</sub>") + lines.replace("Msun", "M<sub>☉</sub>").replace("log10", "log<sub>10</sub>")


def _powers(text: str) -> str:
    """Write 10^8 with a raised exponent."""
    head, *rest = text.split("10^")
    out = head
    for part in rest:
        digits = len(part) - len(part.lstrip("0123456789-"))
        out += f"10<sup>{part[:digits]}</sup>{part[digits:]}"
    return out


def _parameters(case: Case) -> str:
    mock = bool(case.record.truth)
    head = ["Parameter", "Unit", "Median", "Mean", "95 %", "Prior", "Edges touched", "Posterior / prior width", "R-hat", "ESS"]
    rows = [_parameter_row(p, row(p), mock) for p in case.record.parameters]
    fixed = "".join(html.paragraph(f"Held fixed: {n} = {v:g}.") for n, v in case.record.fixed.items())
    note = html.paragraph(
        "Median with 68 % interval; numbers are rounded by their error. Edges touched: bounds of the prior that the posterior runs into. "
        f"Shaded: prior-dominated (posterior wider than {verdict.PRIOR_DOMINATED} of the prior). "
        "Angles: mean and intervals about the mean direction.",
        style="note",
    )
    if case.mass_prior is not None:
        fixed += html.paragraph("intensity_rb has no uniform prior but that of the stars' mass, between the bounds that the table gives.")
    return html.table(head + (["Truth (inside)"] if mock else []), rows) + note + fixed


def _parameter_row(parameter: Sampled, item: Row, mock: bool) -> list[str]:
    ratio = "prior-dominated" if parameter.width_ratio > verdict.PRIOR_DOMINATED else ""
    good = parameter.mixing.r_hat < verdict.R_HAT_LIMIT
    median = f'{minus(item.median)}<span class="pm"><span>+{item.plus}</span><span>−{item.minus}</span></span>'
    cells = [
        f'<td title="{html.escape(parameter.description)}">{html_symbol(parameter)} <code>{parameter.name}</code></td>',
        f'<td class="left">{html_unit(parameter)}</td>',
        median,
        minus(item.mean),
        minus(f"{item.low95} to {item.high95}"),
        minus(item.prior),
        item.edges,
        f'<td class="{ratio}">{item.width_ratio}</td>',
        f'<td class="{"" if good else "bad"}">{item.r_hat}</td>',
        _ess_cell(parameter.mixing.ess),
    ]
    return cells + ([f"{minus(item.truth)}<br>{item.truth_inside}" if item.truth else ""] if mock else [])


def _ess_cell(value: float) -> str:
    return f'<td class="{"" if value > verdict.ESS_LIMIT else "bad"}">{value:.0f}</td>'


def _residuals(case: Case) -> str:
    r = case.residuals
    peak, expected = case.cubes.peak()
    words = [
        f"Chi-squared of the best draw over what noise alone gives: {r.chi2_per_datum:.4f} for {r.n_data:.0f} real numbers, "
        f"{r.sigma:+.1f} standard deviations from 1. "
        f"Brightest residual pixel: {peak:.1f} times the image noise (noise alone stays below {expected:.1f} in 99 of 100 cubes)."
    ]
    check = case.predictive
    words.append(
        f"Posterior predictive ({check.n_draws} draws): data made by the model would have a larger chi-squared with a probability of "
        f"{check.p_total:.2g}, a more deviant channel with {check.p_channel:.2g}, a more deviant baseline with {check.p_baseline:.2g}. "
        "Below 0.01 the model leaves something in the data; of chi-squared, above 0.99 the noise is overestimated."
    )
    noise = case.noise
    if noise is not None:
        words.append(
            f"Noise check (differences along the channels of data minus model): {noise.rms:.3f} ± {noise.rms_error:.3f} times the stated "
            f"standard error; correlation of neighbouring channels {noise.lag_one:.3f} ± {noise.lag_one_error:.3f}, "
            f"assumed {noise.lag_one_expected:.3f}."
        )
    relative, chi2 = case.discretisation
    words.append(
        "Discretisation of the model at the best draw (against twice the nodes along each axis of the disc, and a disc 1.5 times "
        "as large): "
        f"{100.0 * relative:.2g} % of the signal; it moves no parameter by more than {math.sqrt(chi2):.2g} of its standard error."
        + ("" if math.sqrt(chi2) < LARGEST_SHIFT else " This is not small: the intervals above may feel it.")
    )
    return "".join(html.paragraph(w) for w in words)


def _convergence(case: Case) -> str:
    facts = verdict_facts(case)
    rows = []
    for p in case.record.parameters:
        m = p.mixing
        good = m.r_hat < verdict.R_HAT_LIMIT and m.ess > verdict.ESS_LIMIT
        rows.append(
            [
                f"<code>{p.name}</code>",
                f"{m.r_hat:.4f}",
                f"{m.ess_bulk:.0f}",
                f"{m.ess_tail:.0f}",
                f"{m.mcse:.2g} {p.unit}".strip(),
                f'<td class="{"" if good else "bad"}">{"yes" if good else "no"}</td>',
            ]
        )
    columns = ["Parameter", "R-hat", "ESS bulk", "ESS tail", "Monte-Carlo error of the mean", "Passes"]
    return html.paragraph(facts) + html.table(columns, rows)


def verdict_facts(case: Case) -> str:
    """Chains, draws, acceptance and step in a sentence."""
    chains, draws = case.record.parameters[0].draws.shape
    words = f"{chains} chains of {draws} draws."
    for name, text in (("acceptance", "Acceptance by chain"), ("step_size", "Step size"), ("gradients", GRADIENTS)):
        if name in case.record.facts:
            words += f" {text}: {case.record.facts[name]}."
    back = int(case.record.facts.get("chains_brought_back", 0))
    if back > 0:
        words += (
            f" {back} {'chain was' if back == 1 else 'chains were'} brought back in warm-up from modes that hold less than e^-30 "
            "of the probability."
        )
    return (
        words
        + f" Required: R-hat below {verdict.R_HAT_LIMIT}, effective sample size above {verdict.ESS_LIMIT:.0f} (rank-normalised, split)."
    )


def _provenance(case: Case) -> str:
    record, gridded = case.record, case.gridded
    known = [
        ("Posterior", record.path),
        ("Command", record.facts.get("command", "")),
        ("Recipe's folder", record.facts.get("recipe_folder", "")),
        ("Gridded visibilities", record.facts.get("visibilities", "")),
        ("Data checksum", gridded.checksum),
        ("Execution blocks", ", ".join(gridded.block_names)),
        ("Cells, channels", f"{gridded.n_cell}, {gridded.n_channel}"),
        ("Velocities", f"{gridded.frame}, {gridded.convention} convention, rest frequency {gridded.rest_frequency:.0f} Hz"),
        ("Emulator", record.facts.get("emulator", "")),
        ("Seed", record.facts.get("seed", "")),
        (GRADIENTS, record.facts.get("gradients", "")),
        ("Wall time", _seconds(record.facts.get("wall_seconds"))),
        ("Versions", _flat(record.facts.get("versions", ""))),
    ]
    # The recipe carries the folder that it was read from; beside it nothing of the machine is wanted.
    recipe = json.dumps(_without_defaults(record.recipe.model_dump(mode="json", exclude_none=True, exclude={"folder"})), indent=2)
    origin = json.dumps(dict(gridded.provenance), indent=2, default=str)
    return (
        html.facts((name, str(value)) for name, value in known if str(value))
        + html.folded("Recipe", f"<pre>{html.escape(recipe)}</pre>")
        + html.folded("Where the data come from", f"<pre>{html.escape(origin)}</pre>")
    )


def _without_defaults(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value not in ({}, [], None)}


def _seconds(value: Any) -> str:
    return "" if value is None else f"{float(value):.0f} s"


def _flat(text: Any) -> str:
    try:
        table = json.loads(str(text))
    except ValueError:
        return str(text)
    return ", ".join(f"{name} {version}" for name, version in table.items()) if isinstance(table, dict) else str(text)


def _downloads(files: dict[str, Path]) -> str:
    links = [f'<li><a href="{html.escape(path.as_posix())}">{html.escape(title)}</a></li>' for title, path in files.items()]
    return (
        html.paragraph("In the folder of this page, with every figure as PNG and PDF under figures/.", style="note")
        + f"<ul>{''.join(links)}</ul>"
    )
