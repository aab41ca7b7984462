"""Recipes: TOML files that say what a command does. A recipe is checked whole before any work begins.

Paths inside a recipe are relative to the recipe's folder. Numbers carry their unit in the key's description; an unknown key is an
error that names the nearest right one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from supermage.errors import RecipeError, nearest_name

PARAMETER_NAMES = ("scale_length", "log10_mbh", "inclination", "qintr", "alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb",
                   "PA", "line_broadening", "systemic_velocity", "x", "y", "Flux")

HALO_NAMES = ("halo_log10_m200", "halo_log10_c")


def _in_hertz(least: float) -> AfterValidator:
    def check(value: float) -> float:
        if not value >= least:
            raise ValueError(f"a frequency must be in Hz and at least {least:g} here, got {value}: GHz or MHz passed for Hz?")
        return value
    return AfterValidator(check)


Hertz = Annotated[float, _in_hertz(1e6), Field(description="Hz")]
ChannelWidth = Annotated[float, _in_hertz(100.0), Field(description="Hz")]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, values are frozen."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GalaxySection(Section):
    """The galaxy: name, angular-diameter distance (Mpc), line and its rest frequency (Hz)."""

    name: str
    distance: Positive
    line: str = "CO(2-1)"
    rest_frequency: Hertz = 230.538e9


class Antennas(Section):
    """One failing antenna of a simulated observation: its number, and the fraction of the block after which it is silent."""

    failing: int | None = 7
    fails_after: Annotated[float, Field(ge=0, le=1)] = 0.7


class SimulateSection(Section):
    """A mock measurement set: array, blocks, channels, noise and the true parameters (names and units of Table 1)."""

    output: str
    array: str = "alma.cycle6.4"
    right_ascension: str = "12h48m35.9s"
    declination: str = "-05d48m03s"
    dates: Annotated[tuple[str, ...], Field(min_length=1)] = ("2018-11-20", "2019-04-02")
    minutes: Positive = 5.0
    integration: Positive = 10.0
    channels: Annotated[int, Field(ge=4)] = 64
    channel_width: ChannelWidth = 15.625e6
    noise: Annotated[float, Field(ge=0, description="Jy per channel and block, natural weighting")] = 6e-4
    averaging: Literal[1, 2, 4] = 1
    flagged_edge: Annotated[int, Field(ge=0)] = 4
    antennas: Antennas = Antennas()
    seed: int = 1
    truth: dict[str, float]

    @field_validator("truth")
    @classmethod
    def _truth_is_complete(cls, truth: dict[str, float]) -> dict[str, float]:
        for name in truth:
            if name not in PARAMETER_NAMES:
                raise ValueError(f"unknown parameter '{name}'{nearest_name(name, PARAMETER_NAMES)}")
        missing = [name for name in PARAMETER_NAMES if name not in truth]
        if missing:
            raise ValueError(f"truth must give every parameter, {', '.join(missing)} missing")
        return truth

    @model_validator(mode="after")
    def _some_channels_stay(self) -> SimulateSection:
        if 2 * self.flagged_edge >= self.channels:
            raise ValueError(f"flagged_edge must leave channels between the edges, got {self.flagged_edge} of {self.channels} on each side")
        return self


class CalibrateStep(Section):
    """One casatasks call: the task's name and its arguments."""

    task: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class CalibrateSection(Section):
    """casatasks steps, run in order in one subprocess inside ``work`` with their log kept there."""

    work: str = "products"
    log: str = "calibrate.log"
    input: str
    output: str
    steps: Annotated[tuple[CalibrateStep, ...], Field(min_length=1)]


class GridSection(Section):
    """The image grid: pixels along a side and their width (arcsec)."""

    n_pixel: int
    pixel_scale: Positive

    @field_validator("n_pixel")
    @classmethod
    def _even(cls, n_pixel: int) -> int:
        if n_pixel < 8 or n_pixel % 2:
            raise ValueError(f"must be even and at least 8, got {n_pixel}")
        return n_pixel


class ReduceSection(Section):
    """Measurement set to gridded visibilities."""

    measurement_set: str
    output: str
    grid: GridSection
    field: str | None = None
    spectral_window: int | None = None
    velocity_range: tuple[float, float] = Field(description="km/s, in the frame and convention below")
    frame: Literal["LSRK", "BARY", "TOPO"] = "LSRK"
    convention: Literal["radio", "optical"] = "radio"
    averaging: int | None = Field(None, description="online channel averaging N; read from the set when absent")
    hanning: bool | None = Field(None, description="Hanning-smoothed by the correlator; read from the set when absent")
    dish_diameter: float | None = Field(None, description="m; read from the ANTENNA table when absent")
    primary_beam_factor: Positive = 1.13
    chunk_rows: Annotated[int, Field(gt=0)] = 2000

    @field_validator("velocity_range")
    @classmethod
    def _ascending(cls, velocity_range: tuple[float, float]) -> tuple[float, float]:
        if not velocity_range[0] < velocity_range[1]:
            raise ValueError(f"the first velocity must be below the second, got {velocity_range[0]} >= {velocity_range[1]}")
        return velocity_range


class Prior(Section):
    """A uniform prior, or a fixed value when ``fixed`` is given."""

    lower: float | None = None
    upper: float | None = None
    fixed: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Prior:
        if self.fixed is not None and (self.lower is not None or self.upper is not None):
            raise ValueError("a prior needs lower and upper, or fixed, got both")
        if self.fixed is None:
            if self.lower is None or self.upper is None:
                raise ValueError("a prior needs lower and upper, or fixed")
            if not self.lower < self.upper:
                raise ValueError(f"lower must be below upper, got {self.lower} >= {self.upper}")
        return self


class ModelSection(Section):
    """What is fitted: mass model, likelihood, and numerical choices of the forward model."""

    emulator: str = "nuker-mge"
    halo: Literal["none", "nfw"] = "none"
    likelihood: Literal["student_t", "paper"] = "student_t"
    continuum: bool = True
    precision: Literal["float32", "float64"] = "float32"
    subpixels: Annotated[int, Field(ge=1)] = 2
    centre_pixels: Annotated[int, Field(ge=0)] = 6
    centre_subpixels: Annotated[int, Field(ge=1)] = 12


class SamplerSection(Section):
    """Starts, warm-up and draws. ``kernel`` names a kernel of ``supermage.inference.kernels``."""

    kernel: str = "mala"
    chains: Annotated[int, Field(ge=2)] = 4
    processes: Annotated[int, Field(ge=1)] = 2
    starts: Annotated[int, Field(ge=1)] = 200
    optima: Annotated[int, Field(ge=1)] = 4
    warmup: tuple[int, ...] = (200, 300, 500)
    draws: Annotated[int, Field(ge=1)] = 2000
    segment: Annotated[int, Field(ge=1)] = 250
    ridge_frac: Annotated[float, Field(ge=0)] = 1e-6
    ridge_min: Annotated[float, Field(ge=0)] = 1e-10
    target_acceptance: Annotated[float, Field(gt=0, lt=1)] = 0.574
    overdispersion: Positive = 3.0
    seed: int = 1
    start: dict[str, float] | None = Field(None, description="a start of the user's own, inside the priors")


class FitSection(Section):
    """Gridded visibilities to posterior."""

    visibilities: str
    output: str
    priors: dict[str, Prior] = Field(default_factory=dict)
    model: ModelSection = ModelSection()
    sampler: SamplerSection = SamplerSection()
    truth: str | None = Field(None, description="JSON of true values, written by `supermage simulate`")

    @model_validator(mode="after")
    def _names_are_known(self) -> FitSection:
        known = (*PARAMETER_NAMES, *(HALO_NAMES if self.model.halo == "nfw" else ()))
        for table, names in (("priors", self.priors), ("sampler.start", self.sampler.start or {})):
            for name in names:
                if name in HALO_NAMES and name not in known:
                    raise ValueError(f"{table} may name a halo's parameters only with model.halo = 'nfw', got '{name}'")
                if name not in known:
                    raise ValueError(f"{table} must name parameters of the model, got '{name}'{nearest_name(name, known)}")
        for name, value in (self.sampler.start or {}).items():
            prior = self.priors.get(name)
            if prior is not None and prior.lower is not None and prior.upper is not None and not prior.lower <= value <= prior.upper:
                raise ValueError(f"a start must lie inside the priors, {name} in [{prior.lower}, {prior.upper}], got {value}")
        return self


class TrainSection(Section):
    """Training of a model; the keys that one kind of model needs are checked by that kind."""

    kind: str
    output: str = "artefact"
    seed: int = 1
    options: dict[str, Any] = Field(default_factory=dict)


class Recipe(Section):
    """A whole recipe. Which sections must be present depends on the command."""

    folder: Path = Path()
    galaxy: GalaxySection | None = None
    simulate: SimulateSection | None = None
    calibrate: CalibrateSection | None = None
    reduce: ReduceSection | None = None
    fit: FitSection | None = None
    train: TrainSection | None = None

    def path(self, relative: str) -> Path:
        """Resolve a path that stands in the recipe."""
        return (self.folder / relative).resolve()


def load_recipe(path: str | Path, *, needs: tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    path
        A TOML file.
    needs
        Sections that the command requires, such as ``("galaxy", "fit")``.

    Raises
    ------
    RecipeError
        If the file is missing or not TOML, a key is unknown, or a value breaks its rule.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"a recipe must be a readable TOML file, got {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"a recipe must be valid TOML, got {path}: {error}") from None
    if "folder" in table:
        raise RecipeError(f"{path}: unknown key 'folder'; paths are relative to the recipe's own folder")
    try:
        recipe = Recipe.model_validate({**table, "folder": path.parent})
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_problem(error)}") from None
    for section in needs:
        if getattr(recipe, section) is None:
            raise RecipeError(f"{path}: this command needs a [{section}] section, got none")
    return recipe


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = problem["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest_name(str(location[-1]), known) or f"; known here: {', '.join(known)}"
        return f"unknown key '{where}'{hint}"
    if problem["type"] == "missing":
        return f"missing key '{where}'"
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return f"{where}: must be a table, got {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    got = problem.get("input")
    shown = "" if isinstance(got, dict | BaseModel) or ", got " in message else f", got {got!r}"
    return f"{where}: {message}{shown}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the table at a location; lists and tables with free keys (priors) lead to what they hold."""
    model: type[BaseModel] = Recipe
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [name for name in model.model_fields if name != "folder"]
