"""The command line.

Exit codes: 0 what was promised is there; 1 wrong input; 2 a fit that did not converge; 130 interrupted; 143 interrupted by SIGTERM.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from supermage.errors import ConvergenceFailure, DomainError, SupermageError

INTERRUPTED, TERMINATED = 130, 143
SUMMARY = "summary.txt"
RESUMING = ("fit", "train")
"""Commands that keep what they have done so far."""

app = typer.Typer(name="supermage", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  suggest_commands=False,
                  context_settings={"help_option_names": ["-h", "--help"]})

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="The recipe; paths inside it are relative to its folder.")]


def _show_version(wanted: bool) -> bool:
    if wanted:
        from supermage import __version__
        print(f"supermage {__version__}")  # noqa: T201
        raise typer.Exit
    return wanted


VersionOption = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")]


@app.callback(help="""Black-hole masses from interferometer data of rotating gas, without an optical image.

A session, from mock data to a report:

\b
  supermage simulate data_reduction/mock-ngc4697/recipe.toml
  supermage reduce data_reduction/mock-ngc4697/recipe.toml
  supermage fit inference/mock-ngc4697/recipe.toml
  supermage report inference/mock-ngc4697/products/posterior.nc
""")
def _root(*, version: VersionOption = False) -> None:
    pass


@app.command()
def simulate(recipe: RecipeArgument) -> None:
    """Make a mock ALMA measurement set, its truth beside it.

    Example: supermage simulate data_reduction/mock-ngc4697/recipe.toml
    """
    from supermage.progress import make_progress
    from supermage.recipe import load_recipe
    checked = load_recipe(recipe, needs=("galaxy", "simulate"))
    from supermage.data_reduction.simulate import simulate as run
    _say(f"measurement set: {run(checked, progress=make_progress())}")


@app.command()
def calibrate(recipe: RecipeArgument) -> None:
    """Calibrate with a recipe's casatasks steps.

    They run in order in a subprocess; their log is kept.

    Example: supermage calibrate data_reduction/ngc5921/recipe.toml
    """
    from supermage.progress import make_progress
    from supermage.recipe import load_recipe
    checked = load_recipe(recipe, needs=("calibrate",))
    from supermage.data_reduction.calibrate import calibrate as run
    _say(f"calibrated measurement set: {run(checked, progress=make_progress())}")


@app.command()
def reduce(recipe: RecipeArgument) -> None:
    """Grid a calibrated measurement set, with its noise.

    Example: supermage reduce data_reduction/mock-ngc4697/recipe.toml
    """
    from supermage.progress import make_progress
    from supermage.recipe import load_recipe
    checked = load_recipe(recipe, needs=("galaxy", "reduce"))
    from supermage.data_reduction.reduce import reduce as run
    gridded = run(checked, progress=make_progress())
    from supermage.data_reduction.account import account, cautions
    _say("\n".join(account(gridded)))
    for caution in cautions(gridded):
        _fail(f"warning: {caution}")
    section = checked.reduce
    if section is not None:
        _say(f"gridded visibilities: {checked.path(section.output)}")


@app.command()
def fit(recipe: RecipeArgument, *,
        fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming from a checkpoint.")] = False,
        until_converged: Annotated[bool, typer.Option("--until-converged", help="Draw on until chains agree (limit: most_draws).")] = False,
        ) -> None:
    """Sample the posterior of a galaxy's parameters.

    An interrupted fit resumes; one that ended goes on where the recipe asks for more draws. Exit code 2: it ran to its end and did not
    converge.

    Example: supermage fit inference/mock-ngc4697/recipe.toml
    """
    from supermage.progress import make_progress
    from supermage.recipe import load_recipe
    checked = load_recipe(recipe, needs=("galaxy", "fit"))
    from supermage.inference.fit import fit as run
    from supermage.inference.priors import build_priors, cautions
    section, galaxy = checked.fit, checked.galaxy
    if section is not None and galaxy is not None:
        for caution in cautions(build_priors(section), galaxy.distance):
            _fail(f"warning: {caution}")
    posterior = run(checked, resume=not fresh, until_converged=until_converged, progress=make_progress())
    if section is not None:
        _say(f"posterior: {checked.path(section.output)}")
    found = posterior.diagnosis
    if not posterior.converged:
        further = "draw on with --until-converged, or raise draws" if not until_converged else "most_draws was reached: raise it to go on"
        raise ConvergenceFailure(f"the fit did not converge: {'; '.join(found.failures)}; its posterior is kept, and its report says so "
                                 f"in the first line; {further}")
    _say(f"converged: worst R-hat {found.worst_rhat:.3f}, smallest effective sample size {found.smallest_ess:.0f}")


@app.command()
def train(recipe: RecipeArgument) -> None:
    """Train a model; write its weights and its model card.

    A network's losses are drawn beside them.

    Example: supermage train models/nuker-mge/recipe.toml
    """
    from supermage.progress import make_progress
    from supermage.recipe import load_recipe
    checked = load_recipe(recipe, needs=("train",))
    if checked.train is not None:
        for written in ("products/checkpoint.safetensors", f"{checked.train.output}/model.json"):
            checked.output(written)
    from supermage.models.training import train as run
    artefact = run(checked, progress=make_progress())
    _say(f"model: {artefact}")
    from supermage.plots.training import draw_losses
    if (figure := draw_losses(artefact, checked.path("products") / "loss.png")) is not None:
        _say(f"losses: {figure}")


@app.command()
def predict(catalogue: Annotated[Path, typer.Argument(metavar="CATALOGUE", help="Galaxies: FITS, VOTable, ECSV, CSV, Parquet; or maps.")],
            *, model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Name or folder of a model of masses.")],
            output: Annotated[Path | None, typer.Option("--output", "-o", help="Table to write (default: CATALOGUE.masses.*).")] = None,
            target: Annotated[list[str] | None, typer.Option("--target", metavar="NAME", help="What to predict; repeat.")] = None,
            column: Annotated[list[str] | None, typer.Option("--column", metavar="NAME=THEIRS",
                                                             help="A column's name in the catalogue; repeat.")] = None,
            unit: Annotated[list[str] | None, typer.Option("--unit", metavar="NAME=UNIT",
                                                           help="A column's unit, where the catalogue states none; repeat.")] = None,
            constant: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=NUMBER",
                                                               help="A column that is not there, one number in all rows; repeat.")] = None,
            dask: Annotated[str | None, typer.Option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster.")] = None,
            wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for that cluster's workers.")] = 600.0,
            ) -> None:
    """Predict galaxy masses, with intervals.

    The same rows come out with medians, 68 and 95 % intervals, how far each lies outside the training set, and which features it lacks; a
    row that cannot be predicted is kept, empty, with the reason. By default in.fits goes to in.masses.fits (Parquet, CSV, ECSV alike),
    anything else to ECSV, its ending kept: in.vot to in.vot.masses.ecsv.

    Example: supermage predict galaxies.parquet --model tng-gbdt --unit M_r=mag
    """
    from supermage.models.mass_coordinates import DEFAULT
    from supermage.models.predict import default_output, predict_catalogue
    from supermage.progress import make_progress
    columns, units = (dict(_pair(word, option) for word in words or ()) for option, words in (("--column", column), ("--unit", unit)))
    chosen = output if output is not None else default_output(catalogue)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = predict_catalogue(catalogue, model, chosen, targets=tuple(target or DEFAULT), columns=columns, units=units,
                                  constants=dict(_number(word, "--set") for word in constant or ()), dask=dask, wait=wait,
                                  progress=make_progress())
    for caution in dict.fromkeys(str(item.message) for item in caught):
        _fail(f"warning: {caution}")
    _say(f"masses: {found}")


def _pair(word: str, option: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``."""
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise DomainError(f"{option} must be NAME=VALUE, got '{word}'")
    return name, value


@app.command()
def report(file: Annotated[Path, typer.Argument(metavar="FILE.nc", help="What `supermage fit` or `supermage reduce` wrote.")], *,
           output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the report (default: beside the file).")] = None,
           figure: Annotated[str | None, typer.Option("--figure", metavar="NAME", help="Redraw this one figure only.")] = None,
           parameter: Annotated[list[str] | None, typer.Option("--parameter", metavar="NAME",
                                                               help="One of the corner plot's; repeat.")] = None,
           reference: Annotated[list[str] | None, typer.Option("--reference", metavar="NAME=VALUE",
                                                               help="A value to mark in the corner plots; repeat.")] = None) -> None:
    """Write the report of a posterior, or of a reduction.

    One self-contained HTML page, its figures, tables and FITS files; prints the mass or the noise, the verdict and the page's path.

    Example: supermage report inference/mock-ngc4697/products/posterior.nc
    """
    from supermage.data_reduction.gridded_file import is_gridded
    from supermage.progress import make_progress
    if is_gridded(file):
        if parameter or reference:
            raise DomainError("--parameter and --reference need a posterior, got gridded visibilities")
        from supermage.report.reduction import reduction_report
        path = reduction_report(file, output=output, figure=figure, progress=make_progress())
    else:
        from supermage.report.build import report as run
        path = run(file, output=output, figure=figure, progress=make_progress(), parameters=parameter or (),
                   reference=dict(_number(word, "--reference") for word in reference or ()))
    summary = path.parent / SUMMARY
    if figure is None and summary.is_file():
        _say(summary.read_text(encoding="utf-8").rstrip())
    _say(f"{'report' if figure is None else 'figure'}: {path}")


def _number(word: str, option: str) -> tuple[str, float]:
    """Name and value of ``NAME=NUMBER``."""
    name, _, value = word.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (name and math.isfinite(number)):
        raise DomainError(f"{option} must be NAME=VALUE with a finite number, got '{word}'")
    return name, number


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[list[int]]:
    """Let SIGTERM interrupt as Ctrl-C does, so that the work saves what it has; gives the list of those that came."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error is one line on standard error."""
    _keep_caches_out_of_home()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _sigterm_interrupts() as came:
            code = _run(words or ["--help"])
        code = TERMINATED if came and code == INTERRUPTED else code
        code = code if words else 1
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    if os.environ.get("SUPERMAGE_TRACEBACK"):
        return _call(arguments)
    try:
        code = _call(arguments)
    except ConvergenceFailure as error:
        return _fail(str(error), 2)
    except SupermageError as error:
        return _fail(str(error))
    except TyperException as error:
        return _fail(_usage(error, arguments))
    except (KeyboardInterrupt, Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        return _fail(f"files must be readable and the disk writable, got: {what}" + (f" ({error.filename})" if error.filename else ""))
    except MemoryError:
        return _fail("out of memory: use fewer pixels, channels or chains")
    except Exception as error:  # noqa: BLE001 - the last resort: nobody should meet a traceback for a wrong input
        return _fail(f"internal error, {type(error).__name__}: {error} (SUPERMAGE_TRACEBACK=1 shows where)")
    return _fail(_interrupted(arguments), code) if code == INTERRUPTED else code


def _call(arguments: list[str]) -> int:
    return int(typer.main.get_command(app).main(arguments, prog_name="supermage", standalone_mode=False) or 0)


def _interrupted(arguments: list[str]) -> str:
    """What to do after an interruption; the command is the first word that is no option."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    return f"interrupted; run the same command {'again to resume' if command in RESUMING else 'to start again'}"


def _usage(error: TyperException, arguments: list[str]) -> str:
    """Put a usage error in one line that names the nearest command or option."""
    commands = list(getattr(typer.main.get_command(app), "commands", {}))
    possible = list(getattr(error, "possibilities", None) or [])
    if possible:
        return f"unknown option {getattr(error, 'option_name', '')}; did you mean {possible[0]}?"
    message = error.format_message()
    if "No such command" in message:
        got = next((word for word in arguments if not word.startswith("-")), "")
        near = difflib.get_close_matches(got, commands, n=1, cutoff=0.5)
        return f"a command must be one of {', '.join(commands)}, got '{got}'" + (f"; did you mean '{near[0]}'?" if near else "")
    return message


def _fail(message: str, code: int = 1) -> int:
    print("supermage: " + " ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201
    return code


def _say(message: Any) -> None:
    print(message, flush=True)  # noqa: T201


def _keep_caches_out_of_home() -> None:
    """Point caches of the libraries that would write to the home directory at the system's temporary folder, unless the user chose."""
    folder = Path(tempfile.gettempdir()) / f"supermage-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
    except OSError:
        return
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ.setdefault(name, str(folder))


if __name__ == "__main__":
    main()
