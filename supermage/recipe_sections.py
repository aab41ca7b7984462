"""The tables of a recipe and their keys. The line below a key says what it is and its unit; the documentation shows the same lines."""

from __future__ import annotations

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
