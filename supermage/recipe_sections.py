"""The tables of a recipe and their keys. The line below a key says what it is and its unit; the documentation shows the same lines."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from supermage.errors import nearest_name
from supermage.physical import broken_rule

PARAMETER_NAMES = ("scale_length", "log10_mbh", "inclination", "qintr", "alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb",
                   "PA", "line_broadening", "systemic_velocity", "x", "y", "Flux")

OPTIONAL_NAMES: dict[str, tuple[str, str]] = {
    "halo_log10_m200": ("halo", "nfw"),
    "halo_log10_c": ("halo", "nfw"),
    "gas_index": ("gas", "stretched"),
    "gas_log10_mass": ("self_gravity", "exponential"),
    "ml_gradient": ("mass_to_light", "gradient"),
}
"""Parameters beyond Table 1: the key of ``[fit.model]`` that adds each, and its value."""


def _in_hertz(least: float) -> AfterValidator:
    def check(value: float) -> float:
        if not value >= least:
            raise ValueError(f"a frequency must be in Hz and at least {least:g} here, got {value}: GHz or MHz passed for Hz?")
        return value
    return AfterValidator(check)


Hertz = Annotated[float, _in_hertz(1e6)]
ChannelWidth = Annotated[float, _in_hertz(100.0)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # products with it must still be seeds of torch, and fit into a netCDF integer

MOST_PIXELS = 8192


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, values are frozen."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class GalaxySection(Section):
    """The galaxy: name, angular-diameter distance (Mpc), line and its rest frequency (Hz)."""

    name: str
    """Name, as reports show it."""
    distance: Positive
    """Angular-diameter distance, Mpc."""
    line: str = "CO(2-1)"
    """Name of the spectral line."""
    rest_frequency: Hertz = 230.538e9
    """Rest frequency of the line, Hz."""


class Antennas(Section):
    """One failing antenna of a simulated observation: its number, and the fraction of the block after which it is silent."""

    failing: int | None = 7
    """Number of the failing antenna."""
    fails_after: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Fraction of each block after which it is silent; 1: it does not fail."""


class SimulateSection(Section):
    """A mock measurement set: array, blocks, channels, noise and the true parameters (names and units of Table 1)."""

    output: str
    """Measurement set to write; the truth is written beside it."""
    array: str = "alma.cycle6.4"
    """Antenna configuration, one of CASA's."""
    right_ascension: str = "12h48m35.9s"
    """Phase centre, J2000."""
    declination: str = "-05d48m03s"
    """Phase centre, J2000."""
    dates: Annotated[tuple[str, ...], Field(min_length=1)] = ("2018-11-20", "2019-04-02")
    """One execution block on each date."""
    minutes: Positive = 5.0
    """Length of a block, min."""
    integration: Positive = 10.0
    """Length of an integration, s."""
    channels: Annotated[int, Field(ge=4)] = 64
    """Number of channels."""
    channel_width: ChannelWidth = 15.625e6
    """Width of a channel, Hz."""
    noise: Annotated[float, Field(ge=0)] = 6e-4
    """Noise per channel and block at natural weighting, Jy."""
    averaging: Literal[1, 2, 4] = 1
    """Online averaging N of the correlator, in channels."""
    flagged_edge: Annotated[int, Field(ge=0)] = 4
    """Channels flagged on each side of the band."""
    antennas: Antennas = Antennas()
    """The failing antenna."""
    seed: Seed = 1
    """Seed of the noise."""
    truth: dict[str, float]
    """Every parameter of Table 1, in its units."""

    @field_validator("truth")
    @classmethod
    def _truth_is_complete(cls, truth: dict[str, float]) -> dict[str, float]:
        for name in truth:
            if name not in PARAMETER_NAMES:
                raise ValueError(f"unknown parameter '{name}'{nearest_name(name, PARAMETER_NAMES)}")
        missing = [name for name in PARAMETER_NAMES if name not in truth]
        if missing:
            raise ValueError(f"truth must give every parameter, {', '.join(missing)} missing")
        for name, value in truth.items():
            if (broken := broken_rule(name, value)) is not None:
                raise ValueError(f"{name} {broken}")
        return truth

    @model_validator(mode="after")
    def _some_channels_stay(self) -> SimulateSection:
        if 2 * self.flagged_edge >= self.channels:
            raise ValueError(f"flagged_edge must leave channels between the edges, got {self.flagged_edge} of {self.channels} on each side")
        return self


class CalibrateStep(Section):
    """One casatasks call: the task's name and its arguments."""

    task: str
    """Name of the casatasks task."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its arguments; `{input}`, `{output}` and `{casadata}` stand for the paths."""


class CalibrateSection(Section):
    """casatasks steps, run in order in one subprocess inside ``work`` with their log kept there."""

    work: str = "products"
    """Folder in which the tasks run."""
    log: str = "calibrate.log"
    """File in it that keeps their log."""
    input: str
    """Raw data."""
    output: str
    """Calibrated measurement set."""
    steps: Annotated[tuple[CalibrateStep, ...], Field(min_length=1)]
    """The tasks, in order."""


class GridSection(Section):
    """The image grid: pixels along a side and their width (arcsec)."""

    n_pixel: int
    """Pixels along a side, even, at most 8192."""
    pixel_scale: Positive
    """Width of a pixel, arcsec."""
    window: Literal["pillbox", "kaiser-bessel"] = "pillbox"
    """How visibilities are averaged in a cell; kaiser-bessel is the paper's way, for the likelihoods gaussian and paper only."""

    @field_validator("n_pixel")
    @classmethod
    def _even(cls, n_pixel: int) -> int:
        if n_pixel < 8 or n_pixel % 2:
            raise ValueError(f"must be even and at least 8, got {n_pixel}")
        if n_pixel > MOST_PIXELS:
            raise ValueError(f"must be at most {MOST_PIXELS}, got {n_pixel}")
        return n_pixel


class ReduceSection(Section):
    """Measurement set to gridded visibilities."""

    measurement_set: str
    """Calibrated measurement set, or UVFITS file."""
    output: str
    """Gridded visibilities to write (netCDF)."""
    grid: GridSection
    """The image grid, which decides the uv cells."""
    image: str | None = None
    """Dirty cube to write (FITS), made of the visibilities themselves as tclean with niter = 0 would; none when absent."""
    field: str | int | None = None
    """Name of the field; needed where the set has several."""
    spectral_window: int | None = None
    """Number of the spectral window; absent: those that hold the line."""
    velocity_range: tuple[float, float]
    """First and last velocity to keep, km/s, in the frame and convention below."""
    frame: Literal["LSRK", "BARY", "TOPO"] = "LSRK"
    """Velocity frame."""
    convention: Literal["radio", "optical"] = "radio"
    """Velocity convention."""
    averaging: Annotated[int, Field(ge=1)] | None = None
    """Online channel averaging N; read from the set when absent."""
    hanning: bool | None = None
    """Whether the correlator Hanning-smoothed; read from the set when absent."""
    dish_diameter: Annotated[float, Field(ge=1, le=100)] | None = None
    """Dish diameter, m; read from the ANTENNA table when absent."""
    primary_beam_factor: Annotated[float, Field(ge=0.5, le=2)] = 1.13
    """FWHM of the primary beam in wavelengths over dish diameter; 1.13 is ALMA's."""
    reweigh: bool = True
    """Whether weights that are wrong by over 5 % between baselines or in time are corrected, in a second pass over the set."""
    chunk_rows: Annotated[int, Field(gt=0)] = 2000
    """Rows read at a time."""

    @field_validator("velocity_range")
    @classmethod
    def _ascending(cls, velocity_range: tuple[float, float]) -> tuple[float, float]:
        if not velocity_range[0] < velocity_range[1]:
            raise ValueError(f"the first velocity must be below the second, got {velocity_range[0]} >= {velocity_range[1]}")
        return velocity_range


class Prior(Section):
    """A uniform prior, or a fixed value when ``fixed`` is given."""

    lower: float | None = None
    """Lower bound, in the parameter's unit."""
    upper: float | None = None
    """Upper bound, in the parameter's unit."""
    fixed: float | None = None
    """Value that is held, in place of the bounds."""

    @model_validator(mode="after")
    def _bounds(self) -> Prior:
        if self.fixed is not None and (self.lower is not None or self.upper is not None):
            raise ValueError("a prior needs lower and upper, or fixed, got both")
        if self.fixed is None and (self.lower is None or self.upper is None):
            raise ValueError("a prior needs lower and upper, or fixed")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower must be below upper, got {self.lower} >= {self.upper}")
        return self


BLOCK_KEYS = {"flux_scale": "block_flux", "offset_x": "block_position", "offset_y": "block_position"}
"""Key of ``[fit.model]`` that frees each parameter of an execution block."""

BLOCK_PARAMETER = re.compile(rf"({'|'.join(BLOCK_KEYS)})_[1-9][0-9]*")
"""Names of the parameters of execution blocks, counted from 1."""


class ModelSection(Section):
    """What is fitted: mass model, gas profile, likelihood, and the precision of the forward model."""

    emulator: str = "nuker-mge"
    """Name or path of the stellar mass model, see `supermage.load_model`."""
    halo: Literal["none", "nfw"] = "none"
    """Dark halo added to the mass model."""
    gas: Literal["exponential", "stretched"] = "exponential"
    """Gas profile: the paper's exponential, or exp(-(R/h)^n) with the parameter ``gas_index`` n."""
    self_gravity: Literal["none", "exponential"] = "none"
    """Whether the gas pulls too: as the exponential disc it is, with the parameter ``gas_log10_mass``."""
    mass_to_light: Literal["constant", "gradient"] = "constant"
    """With a gradient the stars' mass profile is R^-``ml_gradient`` times the Nuker profile, which then is that of the light."""
    likelihood: Literal["moderated_t", "student_t", "gaussian", "paper"] = "moderated_t"
    """Student's t of the cells' moderated noise or of each cell's own, the Gaussian of the block's noise, or the paper's with sigma x 2."""
    continuum: bool = True
    """Whether a flat continuum is marginalised in every cell."""
    continuum_order: Annotated[int, Field(ge=0, le=3)] = 0
    """Order of the polynomial along the channels that is marginalised as continuum; at least that of a subtraction in the set's history."""
    block_flux: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Standard deviation of a flux scale of each execution block (0.05 is 5 %); 0: blocks agree."""
    block_position: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of an offset of each execution block east and north, arcsec; 0: blocks agree."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the forward model; chi-squared is always summed in double precision."""

    @model_validator(mode="after")
    def _gas_pulls_as_it_shines(self) -> ModelSection:
        if self.self_gravity == "exponential" and self.gas != "exponential":
            raise ValueError(f"self_gravity = 'exponential' needs gas = 'exponential', got '{self.gas}'")
        return self


class SamplerSection(Section):
    """Starts, warm-up and draws."""

    kernel: str = "persistent-mala"
    """Name of the kernel: ``persistent-mala``, ``mala``, ``hmc``, ``surrogate-hmc``, ``barker`` or ``mala-paper``."""
    chains: Annotated[int, Field(ge=2)] = 4
    """Independent chains."""
    execution: Literal["auto", "loop", "processes", "vmap", "gpu"] = "auto"
    """How chains are carried: one after the other, in processes, in one vmapped pass (``gpu``: on a CUDA device), or as ``processes`` or a
    timing probe says."""
    processes: Annotated[int, Field(ge=1)] | None = None
    """Processes that share the chains; where not given as many as there are cores, if the probe finds that they pay."""
    starts: Annotated[int, Field(ge=1)] = 200
    """Random starts of the search for optima."""
    optima: Annotated[int, Field(ge=1)] = 4
    """Optima around which chains start."""
    warmup: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (200, 300, 300)
    """Steps in each warm-up stage; the metric is renewed after each."""
    draws: Annotated[int, Field(ge=4)] = 4000
    """Draws kept of each chain; raised, the same command continues a fit that ended."""
    most_draws: Annotated[int, Field(ge=4)] = 64000
    """Draws of each chain at which ``supermage fit --until-converged`` gives up."""
    segment: Annotated[int, Field(ge=1)] = 250
    """Draws between checkpoints."""
    metric_points: Annotated[int, Field(ge=1)] = 32
    """Positions of the chains over which the Fisher matrix is averaged to a metric."""
    ridge_frac: Annotated[float, Field(ge=0)] = 1e-6
    """Ridge of the metric as a share of its diagonal's median (Yantovski-Barth et al., Appendix C.1)."""
    ridge_min: Annotated[float, Field(ge=0)] = 1e-10
    """Least ridge."""
    burn_in: str = "barker"
    """Name of the kernel of the first warm-up stage, which brings the chains from far starts."""
    step_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2)
    """Step sizes that ``mala-paper`` tries in the last warm-up stage (ours: the paper gives no numbers)."""
    target_acceptance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Acceptance that the step size is tuned to; where not given the kernel's own: 0.574 (mala), 0.8 (hmc;
    surrogate-hmc, of its expansion), 0.95 (persistent-mala)."""
    overdispersion: Positive = 3.0
    """Spread of the starts in widths of the Laplace approximation."""
    seed: Seed = 1
    """Seed of everything random."""
    start: dict[str, float] | None = None
    """A start of the user's own, inside the priors."""

    @model_validator(mode="after")
    def _every_step_size_is_tried(self) -> SamplerSection:
        if self.kernel == "mala-paper" and self.warmup[-1] < len(self.step_sizes):
            raise ValueError(f"the last warm-up stage needs a step for each of {len(self.step_sizes)} step sizes, got {self.warmup[-1]}")
        return self


class MassPriorSection(Section):
    """A prior on log10 of the stars' mass inside an aperture: an estimator's for a galaxy of a catalogue, or a normal one."""

    model: str | None = None
    """Estimator, such as `tng-gbdt`, or its folder; absent: ``mean``, ``width`` and ``radius`` say the prior."""
    catalogue: str | None = None
    """Table that holds the galaxy, with the columns that the estimator asks for; in any format that astropy reads."""
    galaxy_id: int | str | None = None
    """The galaxy in the column `galaxy_id`; not needed where the table has one row."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The table's own names for the columns that it calls otherwise, by ours."""
    units: dict[str, str] = Field(default_factory=dict)
    """Units of the columns that come without, by our names."""
    mean: float | None = None
    """Mean of a normal prior, log10 of solar masses."""
    width: Positive | None = None
    """Its standard deviation, dex."""
    radius: Positive | None = None
    """Radius of the aperture, a sphere, kpc; absent: the estimator's aperture, for the table's `r_hsm`."""
    seen_data: bool = False
    """Whether what the prior comes from has seen the data that are fitted, which then count twice: fit and report warn."""


class FitSection(Section):
    """Gridded visibilities to posterior."""

    visibilities: str
    """Gridded visibilities."""
    output: str
    """Posterior to write (netCDF)."""
    priors: dict[str, Prior] = Field(default_factory=dict)
    """Priors by parameter; those of Table 1 otherwise."""
    model: ModelSection = ModelSection()
    """What is fitted."""
    sampler: SamplerSection = SamplerSection()
    """How it is sampled."""
    mass_prior: MassPriorSection | None = None
    """A prior on the stars' mass, in place of the uniform one of ``intensity_rb``."""
    truth: str | None = None
    """JSON of true values, written by `supermage simulate`; the report shows them."""

    @model_validator(mode="after")
    def _names_are_known(self) -> FitSection:
        known = (*PARAMETER_NAMES, *(name for name, (key, choice) in OPTIONAL_NAMES.items() if getattr(self.model, key) == choice))
        for table, names in (("priors", self.priors), ("sampler.start", self.sampler.start or {})):
            for name in names:
                if (of_block := BLOCK_PARAMETER.fullmatch(name)) is not None:
                    self._check_block_parameter(table, name, BLOCK_KEYS[of_block[1]])
                    continue
                if name in OPTIONAL_NAMES and name not in known:
                    key, choice = OPTIONAL_NAMES[name]
                    raise ValueError(f"{table} may name parameters of model.{key} = '{choice}' only with it, got '{name}'")
                if name not in known:
                    raise ValueError(f"{table} must name parameters of the model, got '{name}'{nearest_name(name, known)}")
        for name, value in (self.sampler.start or {}).items():
            prior = self.priors.get(name)
            if prior is not None and prior.lower is not None and prior.upper is not None and not prior.lower <= value <= prior.upper:
                raise ValueError(f"a start must lie inside the priors, {name} in [{prior.lower}, {prior.upper}], got {value}")
        return self

    def _check_block_parameter(self, table: str, name: str, key: str) -> None:
        if not getattr(self.model, key) > 0:
            raise ValueError(f"{table} may name '{name}' only with model.{key} above 0, got {key} = {getattr(self.model, key):g}")
        if table == "priors" and self.priors[name].fixed is None:
            raise ValueError(f"the prior of '{name}' is normal with model.{key} as its deviation: it can only be fixed, got bounds")


class TrainSection(Section):
    """Training of a model; the keys that one kind of model needs are checked by that kind."""

    kind: str
    """Kind of model."""
    output: str = "artefact"
    """Folder of the weights."""
    seed: Seed = 1
    """Seed of everything random."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keys of this kind of model."""
