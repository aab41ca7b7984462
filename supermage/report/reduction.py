"""The report of a reduction: one page that says whether the gridded visibilities and their noise can be trusted, and why."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from supermage import __version__
from supermage.data_reduction.account import GIVEN, account, cautions, weights_in_words
from supermage.data_reduction.gridded import open_visibilities
from supermage.data_reduction.images import blank, moment_maps, write_fits
from supermage.data_reduction.set_notes import EFFICIENCY
from supermage.errors import DataError, DomainError, nearest_name
from supermage.progress import Progress, SilentProgress
from supermage.report import html
from supermage.report.build import MARKER, build_in_place, unwritable
from supermage.report.reduction_figures import COVERAGE, FIGURES, NOISE, SIGNAL, Reduction, ReductionFigure

RIGHT_WEIGHTS = 0.1
"""Departure of the variance from 1 / weight up to which the set's weights count as right."""

CLIP = 4.0
"""Moment maps take voxels above so many times the noise."""


def reduction_report(
    path: str | Path, *, output: str | Path | None = None, figure: str | None = None, progress: Progress | None = None
) -> Path:
    """Write the report of a reduction.

    Parameters
    ----------
    path
        What ``supermage reduce`` wrote.
    output
        Folder of the report (default: ``<stem>-report`` beside it); an earlier report there is replaced.
    figure
        Redraw only this figure, into ``figures/`` of that folder.
    progress
        Told of every figure.

    Returns
    -------
    Path
        ``index.html``, or the PNG of the one figure.

    Raises
    ------
    DataError
        If the file is missing or foreign, or the folder cannot be written.
    DomainError
        If the figure is unknown, or needs what this reduction could not measure.
    """
    path, progress = Path(path), progress or SilentProgress()
    reduction = Reduction(path, open_visibilities(path))
    if not reduction.blocks:
        raise DataError(f"a reduction's report needs gridded visibilities that `supermage reduce` wrote, got {path} without an account")
    folder = path.with_name(f"{path.stem}-report") if output is None else Path(output)
    if figure is not None:
        return _redraw(reduction, figure, folder)
    return build_in_place(folder, lambda work: _write(reduction, work, progress))


def _redraw(reduction: Reduction, name: str, folder: Path) -> Path:
    known = {spec.name: spec for spec in FIGURES}
    if name not in known:
        raise DomainError(f"a figure must be one of {', '.join(known)}, got '{name}'{nearest_name(name, known)}")
    if not known[name].applies(reduction):
        raise DomainError(f"the figure '{name}' needs what this reduction could not measure, got {reduction.path}")
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        known[name].save(reduction, folder / "figures")
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder / "figures" / f"{name}.png"


def verdict(reduction: Reduction) -> tuple[str, list[str]]:
    """Headline and reasons: READY, or READY WITH CAUTIONS where something is doubtful."""
    gridded, facts = reduction.gridded, reduction.gridded.provenance
    doubts = [line[0].upper() + line[1:] + "." for line in cautions(gridded)]
    blocks = reduction.blocks
    scales = [float(block["noise_scale"]) for block in blocks]
    reasons = [_weight_words(scales), _spread_words(weights_in_words(gridded), blocks)]
    source = "" if facts.get("regridded") else f" ({facts['channel_response']})"
    response = f"The channels' noise is taken to be correlated as by {gridded.response.words}{source}"
    found = facts.get("channel_correlation")
    measured = "" if found is None else (f"; neighbours were measured to correlate by {found['measured'][1]:.3f} +- "
                                         f"{found['standard_error'][1]:.2g}, {found['expected'][1]:.3f} expected")  # fmt: skip
    reasons.append(f"{response}{measured}.")
    if facts.get("history") and not facts.get("regridded"):
        reasons.append(f"The set's history: {'; '.join(facts['history'])}.")
    order = facts.get("continuum_order")
    if order is not None:
        reasons.append(f"A continuum of order {order} was subtracted before: fits marginalise it, and it is harmless.")
    left_out = facts.get("left_out") or []
    if left_out:
        reasons.append(f"Left out, for want of the line: {', '.join(left_out)}.")
    return ("READY WITH CAUTIONS" if doubts else "READY"), doubts + reasons


def _weight_words(scales: list[float]) -> str:
    spread = f"{min(scales):.3g}" if max(scales) - min(scales) < 5e-3 * max(scales) else f"{min(scales):.3g} to {max(scales):.3g}"
    right = all(abs(scale - 1.0) <= RIGHT_WEIGHTS for scale in scales)
    told = f"the set's weights are inverse variances to {100 * RIGHT_WEIGHTS:.0f} %" if right else (
        "the set's weights are not inverse variances: the noise was measured and took their place")  # fmt: skip
    return f"The variance is {spread} times 1 / weight: {told}."


def _spread_words(weights: str, blocks: list[dict[str, object]]) -> str:
    cells = 100.0 * max(float(str(block["spread_of_cells"])) for block in blocks)
    return (f"{weights[0].upper()}{weights[1:]}. Between cells sigma scatters by {cells:.2g} % in the end, which the moderated noise "
            "allows for.")


def _write(reduction: Reduction, work: Path, progress: Progress) -> None:
    drawn = [spec for spec in FIGURES if spec.applies(reduction)]
    progress.start("report", len(drawn) + 2)
    (work / "figures").mkdir()
    for spec in drawn:
        spec.save(reduction, work / "figures")
        progress.advance(note=spec.name)
    downloads = _write_files(reduction, work)
    progress.advance(note="FITS")
    headline, reasons = verdict(reduction)
    facts = reduction.gridded.provenance
    name = f"{facts['field']} ({facts['measurement_set']})"
    told = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    blocks = f"{reduction.gridded.n_block} execution block{'s' if reduction.gridded.n_block > 1 else ''}"
    style = "detected" if headline == "READY" else "upper-limit"
    lead = (
        f'<p class="note"><strong>{html.escape(headline)}</strong></p>\n<h1>Reduction of {html.escape(name)}</h1>\n<p class="note">'
        f"{html.escape(facts['telescope'])}, {blocks} of {reduction.gridded.n_channel} channels. Made "
        f"by supermage {__version__} from {html.escape(str(reduction.path))}.</p>"
    )
    sections = [
        ("verdict", "Verdict", f'<div class="verdict {style}"><p class="headline">{headline}</p><ul>{told}</ul></div>'),
        ("observed", "What was observed", _blocks(reduction) + _figures(reduction, COVERAGE, work)),
        ("noise", "Noise", _noise(reduction) + _figures(reduction, NOISE, work)),
        ("signal", "Signal", _figures(reduction, SIGNAL, work)),
        ("flags", "What was not used", _losses(reduction)),
        ("provenance", "Provenance", _provenance(reduction)),
        ("downloads", "Downloads", "<ul>" + "".join(
            f'<li><a href="{html.escape(str(file))}">{html.escape(title)}</a></li>' for title, file in downloads.items()) + "</ul>"),
    ]  # fmt: skip
    (work / "index.html").write_text(html.page(f"Reduction of {name}: {headline}", lead, sections), encoding="utf-8")
    lines = [headline, *account(reduction.gridded), *reasons]
    (work / MARKER).write_text("\n".join(lines) + "\n", encoding="utf-8")
    progress.advance()
    progress.done(headline)


def _figures(reduction: Reduction, specs: tuple[ReductionFigure, ...], work: Path) -> str:
    parts = []
    for spec in specs:
        if spec.applies(reduction):
            png = (work / "figures" / f"{spec.name}.png").read_bytes()
            command = f"supermage report {shlex.quote(str(reduction.path))} --figure {spec.name}"
            parts.append(f"<h3>{html.escape(spec.title)}</h3>\n" + html.figure(
                png, name=spec.name, alt=spec.alt, caption=spec.caption(reduction), unit=spec.unit, command=command, wide=spec.wide))
    return "\n".join(parts)


def _blocks(reduction: Reduction) -> str:
    gridded = reduction.gridded
    rows = []
    for number, block in enumerate(reduction.blocks):
        velocity = gridded.velocity[number]
        rows.append([
            html.escape(str(block["name"])), ", ".join(block["hands"]), f"{block['rows']}", f"{block['gridded']}",
            f"{(block['stop_mjd'] - block['start_mjd']) * 1440.0:.1f}", f"{velocity.min():.1f} - {velocity.max():.1f}",
            f"{(gridded.topo_to_frame[number] - 1.0) * 299792.458:+.2f}"])  # fmt: skip
    head = ["Execution block", "Hands", "Rows", "Visibilities used", "Minutes", "Velocities (km/s)",
            f"TOPO to {gridded.frame} (km/s)"]  # fmt: skip
    return html.table(head, rows)


def _noise(reduction: Reduction) -> str:
    gridded = reduction.gridded
    rows = []
    for number, block in enumerate(reduction.blocks):
        weight = gridded.weight[number].sum(axis=1)
        image = 1e3 / math.sqrt(float(np.median(weight[weight > 0]))) if (weight > 0).any() else math.inf
        rows.append([
            html.escape(str(block["name"])), html.escape(str(block["noise_estimator"])), f"{block['noise_scale']:.3f}",
            _percent(block.get("spread_of_baselines")), _percent(block.get("spread_in_time")), _percent(block["spread_of_cells"]),
            "-" if float(block["spread_of_cells"]) == 0 else f"{block['prior_degrees']:.0f}", f"{image:.3g}"])  # fmt: skip
    head = ["Execution block", "Noise measured by", "Variance x weight", "Between baselines", "In time", "Between cells",
            "Prior degrees of freedom", "Noise of an image's channel (mJy/beam)"]  # fmt: skip
    noisy = [f"{html.escape(str(block['name']))}: " + ", ".join(f"{a}-{b} ({sigma:.2f})" for a, b, sigma in block["noisiest_baselines"][:6])
             for block in reduction.blocks if block.get("spread_of_baselines")]  # fmt: skip
    words = "".join(f'<p class="note">Noisiest baselines (antennas, sigma against the weights), {line}.</p>' for line in noisy)
    words = f'<p class="note">{html.escape(_radiometer_words(reduction.blocks))}</p>' + words
    return html.table(head, rows, caption="Spreads are of sigma against the set's own weights, as they came.") + words


def _radiometer_words(blocks: list[dict[str, Any]]) -> str:
    known = [block for block in blocks if block.get("radiometer_sigma")]
    if not known:
        return "The set does not know its system temperatures (SYSCAL): what noise the radiometer equation would make is not known."
    each = "; ".join(f"{1e3 * float(block['radiometer_sigma']):.3g} mJy expected at {float(block['system_temperature']):.0f} K, "
                     f"{1e3 * float(block['sigma']):.3g} mJy measured" for block in known)  # fmt: skip
    return (f"Noise of a visibility (real part, one hand) by the radiometer equation, for an efficiency of {EFFICIENCY:g} and the median "
            f"system temperature: {each}.")


def _percent(value: object) -> str:
    return "-" if value is None else f"{100.0 * float(str(value)):.2g} %"


def _losses(reduction: Reduction) -> str:
    rows = []
    for block in reduction.blocks:
        total = max(int(block["visibilities"]), 1)
        worst = ", ".join(f"{antenna} ({100 * share:.0f} %)" for antenna, share in block["unused_by_antenna"][:6] if share > 0)
        rows.append([html.escape(str(block["name"])), *(f"{100.0 * int(block[key]) / total:.2f} %" for key in
                                                        ("flagged", "unweighted", "beyond_grid")),
                     f"{block['autocorrelations']}", html.escape(worst or "none")])  # fmt: skip
    head = ["Execution block", "Flagged in the set", "Zero, negative or NaN weight", "Beyond the grid", "Autocorrelations (rows)",
            "Antennas that lost most"]  # fmt: skip
    reasons = reduction.gridded.provenance.get("flag_reasons")
    why = "The set records no flag commands (FLAG_CMD), so that their reasons are not known." if not reasons else (
        "Reasons of the set's flag commands (FLAG_CMD): " + ", ".join(f"{reason} ({number})" for reason, number in reasons.items()) + ".")
    return html.table(head, rows) + html.paragraph(why, style="note") + html.paragraph(
        "Flags and weights are the measurement set's own; nothing was flagged here. Shares are of the visibilities of the parallel hands "
        "in the chosen channels.", style="note")  # fmt: skip


def _provenance(reduction: Reduction) -> str:
    gridded, facts = reduction.gridded, reduction.gridded.provenance
    rows = [
        ("measurement set", f"{facts['measurement_set']}, field {facts['field']}, column {facts['data_column']}"),
        ("frequencies stored in", str(facts["stored_frame"])), ("velocities in", f"{gridded.frame}, {gridded.convention}"),
        ("rest frequency", f"{gridded.rest_frequency / 1e9:.9g} GHz"),
        ("phase centre (ICRS)", f"{gridded.phase_centre[0]:.6f}, {gridded.phase_centre[1]:+.6f} deg"),
        ("channel response", f"{gridded.response.words}{' (given in the recipe)' if facts['channel_response'] == GIVEN else ''}"),
        ("grid", f"{gridded.grid.n_pixel} pixels of {gridded.grid.pixel_scale:g} arcsec, cells of {gridded.grid.cell_size:.4g} m, "
                 f"{gridded.window}"),
        ("dish, primary beam", f"{gridded.dish_diameter:g} m, {gridded.primary_beam_factor:g} wavelengths / diameter"),
        ("checksum (sha256)", gridded.checksum),
    ]  # fmt: skip
    account_of_all = html.folded("The whole account", f"<pre>{html.escape(json.dumps(dict(facts), indent=1))}</pre>")
    return html.facts(rows) + account_of_all


def _write_files(reduction: Reduction, work: Path) -> dict[str, Path]:
    """Dirty cube, beam and moment maps as FITS; titles and paths relative to the page."""
    cube, gridded = reduction.cube, reduction.gridded
    noise = float(np.median(cube.noise[np.isfinite(cube.noise)]))
    files = {"The verdict in a few lines, text": Path(MARKER)}
    for title, name, image, unit, frequency in (
        ("Dirty cube", "dirty-cube", blank(reduction.raw.data, cube.noise), "Jy/beam", cube.frequency),
        ("Dirty cube without the flat continuum of each cell", "dirty-cube-line", blank(cube.data, cube.noise), "Jy/beam", cube.frequency),
        ("Synthesised beam", "beam", cube.beam_image, "", None),
        *((f"Moment {number} of the line, voxels above {CLIP:g} sigma", f"moment-{number}", image, unit, None)
          for number, (image, unit) in enumerate(zip(moment_maps(cube.data, reduction.velocity, threshold=CLIP * noise),
                                                     ("Jy/beam km/s", "km/s", "km/s")))),
    ):  # fmt: skip
        write_fits(work / f"{name}.fits", image, gridded, unit=unit, beam=cube.beam, frequency=frequency)
        files[f"{title}, FITS"] = Path(f"{name}.fits")
    return files
