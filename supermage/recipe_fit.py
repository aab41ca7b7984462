"""The table ``[fit]`` of a recipe and the tables in it; keys and their lines as in `supermage.recipe_sections`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from supermage.errors import nearest_name
from supermage.recipe_sections import OPTIONAL_NAMES, PARAMETER_NAMES, Positive, Section, Seed


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
    """A prior on log10 of the stars' mass inside an aperture: an estimator's for a galaxy of a catalogue or of maps, or a normal one."""

    model: str | None = None
    """Estimator, such as `tng-gbdt`, or its folder; absent: ``mean``, ``width`` and ``radius`` say the prior."""
    catalogue: str | None = None
    """Table that holds the galaxy, with the columns that the estimator asks for; in any format that astropy reads."""
    maps: str | None = None
    """In place of the table, for a network such as `mock-cnn`: file or folder of maps that holds the galaxy."""
    galaxy_id: int | str | None = None
    """The galaxy in the column `galaxy_id`; not needed where the table has one row, or the maps one galaxy."""
    projection: int | None = None
    """Which of the galaxy's maps; not needed where it is seen from one side."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The table's own names for the columns that it calls otherwise, by ours."""
    units: dict[str, str] = Field(default_factory=dict)
    """Units of the columns that come without, by our names."""
    mean: Annotated[float, Field(ge=3, le=15)] | None = None
    """Mean of a normal prior, log10 of solar masses (10.5, not 3e10)."""
    width: Annotated[float, Field(gt=0, le=5)] | None = None
    """Its standard deviation, dex."""
    radius: Positive | None = None
    """Radius of the aperture, a sphere, kpc; of an estimator's only where table or maps have no `r_hsm`."""
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
