"""Build the report of a posterior: the page, its figures, tables and FITS files, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from supermage import __version__
from supermage.data_reduction.images import blank, write_fits
from supermage.errors import DataError, DomainError
from supermage.progress import Progress, SilentProgress
from supermage.report import html
from supermage.report.case import Case
from supermage.report.citations import bibtex
from supermage.report.figures import FIGURES, find_figure
from supermage.report.figures_sky import moment_pair
from supermage.report.mass import summary_lines
from supermage.report.mass_prior_words import summary_words
from supermage.report.profiles import components
from supermage.report.record import read_record
from supermage.report.sections import lead, sections
from supermage.report.tables import latex_table
from supermage.report.verdict import Status

MARKER = "summary.txt"
"""Every report holds this file; a folder without it is not ours to replace."""


def report(
    posterior_path: str | Path, *, output: str | Path | None = None, figure: str | None = None, progress: Progress | None = None,
    parameters: Sequence[str] = (), reference: Mapping[str, float] | None = None,
) -> Path:  # fmt: skip
    """Write the report of a posterior.

    Parameters
    ----------
    posterior_path
        What ``supermage fit`` wrote; the gridded visibilities must be where the fit found them.
    output
        Folder of the report (default: ``report`` beside the posterior); an earlier report there is replaced.
    figure
        Redraw only this figure, into ``figures/`` of that folder.
    progress
        Told of every figure.
    parameters
        Those of the corner plot, in order, in place of the main ones; of traces and ranks too.
    reference
        Values to mark in the corner plots, by parameter, in place of a mock's truth: those of another paper, for instance, inside the
        prior or not.

    Returns
    -------
    path
        ``index.html``, or the PNG of the one figure.

    Raises
    ------
    DataError
        If the posterior or its data are missing, foreign or do not belong together, or the folder cannot be written.
    DomainError
        If the figure is unknown, of a parameter that was held fixed, or takes no parameters or references where some are given; or a
        parameter was not sampled, or a reference is not finite.
    """
    posterior_path = Path(posterior_path)
    spec = None if figure is None else find_figure(figure)
    case = Case(read_record(posterior_path), output=None if output is None else Path(output), chosen=parameters, reference=reference)
    for option, given in (("parameter", parameters), ("reference", reference)):
        if spec is not None and given and option not in spec.takes:
            takers = ", ".join(name for name, other in FIGURES.items() if option in other.takes)
            raise DomainError(f"a {option} is for the figures {takers}, got '{spec.name}'")
    folder = posterior_path.parent / "report" if output is None else Path(output)
    return build(case, folder, progress=progress) if spec is None else redraw(case, spec.name, folder)


def redraw(case: Case, name: str, folder: Path) -> Path:
    """Draw one figure into ``folder/figures``; returns the PNG's path."""
    spec = find_figure(name)
    if not spec.applies(case):
        raise DomainError(f"the figure '{name}' needs {spec.needs(case)}")
    target = folder / "figures"
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".") as work:
            for path in spec.save(case, Path(work)):
                os.replace(path, target / path.name)
    except OSError as error:
        raise unwritable(folder, error) from None
    return target / f"{name}.png"


def build(case: Case, folder: Path, *, progress: Progress | None = None) -> Path:
    """Build the whole report in a temporary folder beside ``folder``, then put it in its place."""
    told = progress or SilentProgress()
    return build_in_place(folder, lambda work: _write(case, work, told))


def build_in_place(folder: Path, write: Callable[[Path], None]) -> Path:
    """Have a page written in a temporary folder beside ``folder``, then put it in its place; returns ``index.html``."""
    if not replaceable(folder):
        raise DataError(f"a report must go to a new folder, an empty one or an earlier report, got {folder}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        work.chmod(0o755)
        write(work)
        put_in_place(work, folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "index.html"


def replaceable(folder: Path) -> bool:
    """Whether a report may take this place: nothing, an empty folder, an earlier report, or one with single figures only."""
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / MARKER).is_file() or {path.name for path in folder.iterdir()} <= {"figures"})


def _write(case: Case, work: Path, progress: Progress) -> None:
    drawn = [spec for spec in FIGURES.values() if spec.applies(case)]
    progress.start("report", len(drawn) + 2)
    (work / "figures").mkdir()
    downloads = _write_files(case, work)
    progress.advance(note="tables and cubes")
    for spec in drawn:
        spec.save(case, work / "figures")
        progress.advance(note=spec.name)

    def png(name: str) -> bytes:
        return (work / "figures" / f"{name}.png").read_bytes()

    galaxy = case.record.recipe.galaxy
    title = f"Black hole of {galaxy.name if galaxy else case.record.path.stem}: {case.verdict.status.value}"
    (work / "index.html").write_text(html.page(title, lead(case), sections(case, png, downloads)), encoding="utf-8")
    lines = summary_lines(case.record, case.verdict) + (() if case.mass_prior is None else summary_words(case.mass_prior))
    (work / MARKER).write_text("\n".join(lines) + "\n", encoding="utf-8")
    progress.advance()
    progress.done(case.verdict.status.value)


def _write_files(case: Case, work: Path) -> dict[str, Path]:
    """Write tables and cubes; their titles and their paths relative to the page."""
    cubes = case.cubes
    kernel = str(case.record.facts.get("kernel") or (case.record.recipe.fit.sampler.kernel if case.record.recipe.fit else ""))
    (work / "parameters.tex").write_text(latex_table(case.record, claimed=case.verdict.status is Status.DETECTED), encoding="utf-8")
    (work / "references.bib").write_text(bibtex(components=components(case.best_theta), kernel=kernel), encoding="utf-8")
    files = {
        "Parameter table, LaTeX": Path("parameters.tex"),
        "References of what was used, BibTeX": Path("references.bib"),
        "The result in a few lines, text": Path(MARKER),
    }
    ascending = cubes.frequency.argsort()
    for name in ("data", "model", "residual"):
        cube = blank(getattr(cubes, name), cubes.noise)[ascending]
        write_fits(work / f"{name}.fits", cube, case.gridded, beam=cubes.beam, frequency=cubes.frequency[ascending])
        _describe(work / f"{name}.fits", case)
        files[f"Dirty cube of the {name}, FITS"] = Path(f"{name}.fits")
    return files | _write_maps(case, work)


def _write_maps(case: Case, work: Path) -> dict[str, Path]:
    """Synthesised beam, and moment maps of data and model under the model's mask, as FITS."""
    data, model, _ = moment_pair(case)
    maps = {"beam": ("Synthesised beam", case.cubes.beam_image, "")}
    for name, found in (("data", data), ("model", model)):
        for number, (kind, unit) in enumerate((("flux", "Jy/beam km/s"), ("velocity", "km/s"), ("dispersion", "km/s"))):
            maps[f"{name}-moment-{number}"] = (f"Moment {number} of the {name} ({kind})", getattr(found, kind), unit)
    for name, (_, image, unit) in maps.items():
        write_fits(work / f"{name}.fits", image, case.gridded, unit=unit, beam=case.cubes.beam)
        _describe(work / f"{name}.fits", case)
    return {f"{title}, FITS": Path(f"{name}.fits") for name, (title, _, _) in maps.items()}


def _describe(path: Path, case: Case) -> None:
    """Say in a FITS header what is shown, when it was written, and from which data."""
    from astropy.io import fits

    galaxy = case.record.recipe.galaxy
    with fits.open(path, mode="update", memmap=False) as units:
        header = units[0].header
        header["OBJECT"] = (galaxy.name if galaxy else case.record.path.stem).encode("ascii", "replace").decode()
        header["DATE"] = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "UTC, of writing")
        header["ORIGIN"] = "supermage"
        header.add_history(f"{path.stem}, of dirty cubes, written by supermage {__version__}")
        header.add_history(f"gridded visibilities, sha256 {case.gridded.checksum}")


def put_in_place(work: Path, folder: Path) -> None:
    """Swap: the earlier report is moved aside, and comes back if the new one cannot take its place."""
    aside = folder.with_name(f".{folder.name}.earlier.{os.getpid()}")
    if folder.exists():
        os.replace(folder, aside)
    try:
        os.replace(work, folder)
    except OSError:
        if aside.exists():
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> DataError:
    """What is said where a report cannot be written."""
    return DataError(f"a report must go to a folder that can be written and has room, got {folder} ({error.strerror or error})")
