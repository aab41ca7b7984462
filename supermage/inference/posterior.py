"""Posterior: the result of a fit, a netCDF file that ArviZ opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, nearest_name
from supermage.inference.checkpoint import write_atomically
from supermage.inference.parameters import PARAMETERS, Parameter

if TYPE_CHECKING:
    import pandas as pd

    from supermage.inference.diagnostics import Diagnosis

FloatArray = NDArray[np.float64]


class Posterior:
    """Draws of a fit with their units, priors and origin.

    Parameters
    ----------
    data
        ArviZ' InferenceData (1.x: DataTree) with groups ``posterior`` (one variable a parameter, dimensions chain and draw) and
        ``sample_stats``.
    path
        Where it lies, if it does.

    Raises
    ------
    DataError
        If there is no posterior group.
    """

    def __init__(self, data: Any, *, path: Path | None = None) -> None:
        from supermage.inference import arviz_access

        groups = arviz_access.group_names(data)
        if "posterior" not in groups:
            raise DataError(f"a posterior file needs the group 'posterior', got {', '.join(groups) or 'none'}")
        self._data = data
        self.path = path

    @property
    def attributes(self) -> dict[str, Any]:
        """Recipe (JSON), data checksum, seed, versions, gradients spent and more, as stored."""
        return dict(self._data.attrs)

    @property
    def names(self) -> tuple[str, ...]:
        """Sampled parameters."""
        return tuple(str(name) for name in self._data["posterior"].data_vars)

    @property
    def truth(self) -> dict[str, float]:
        """True values of a mock, or empty."""
        text = str(self._data.attrs.get("truth", ""))
        return {str(k): float(v) for k, v in json.loads(text).get("parameters", {}).items()} if text else {}

    @property
    def mass_prior(self) -> dict[str, Any]:
        """The prior on the stars' mass, see `supermage.inference.mass_prior.StellarMassPrior.notes`, or empty.

        Its draws are in ``sample_stats``: ``log_stellar_mass``, ``log_mass_prior`` and ``mass_prior_score``.
        """
        return dict(json.loads(str(self._data.attrs.get("mass_prior", "{}"))))

    @property
    def fixed(self) -> dict[str, float]:
        """Parameters that were held, with their values."""
        return {str(k): float(v) for k, v in json.loads(str(self._data.attrs.get("fixed", "{}"))).items()}

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The sampled parameters with the bounds of the priors used."""
        return tuple(self._parameter(name) for name in self.names)

    def draws(self, name: str) -> FloatArray:
        """Draws of one parameter, shape (chain, draw).

        Raises
        ------
        DataError
            If the fit did not sample it.
        """
        if name not in self.names:
            raise DataError(f"a posterior holds {', '.join(self.names)}, got '{name}'{nearest_name(name, self.names)}")
        return np.asarray(self._data["posterior"][name].values, dtype=float)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """R-hat, effective sample sizes, edges and widths of every parameter."""
        from supermage.inference import arviz_access
        from supermage.inference.diagnostics import diagnose

        stats = self._data["sample_stats"] if "sample_stats" in arviz_access.group_names(self._data) else {}
        acceptance = np.asarray(stats["acceptance_rate"].values) if "acceptance_rate" in stats else None
        circular = tuple(json.loads(str(self._data.attrs.get("circular", "[]"))))
        superchains = json.loads(str(self._data.attrs.get("superchains", "[]"))) or None
        return diagnose({name: self.draws(name) for name in self.names}, self.parameters, circular=circular, acceptance=acceptance,
                        superchains=superchains)

    @property
    def converged(self) -> bool:
        """Whether worst R-hat and smallest effective sample size pass."""
        return self.diagnosis.converged

    def to_arviz(self) -> Any:
        """ArviZ' InferenceData, a DataTree with ArviZ 1.x."""
        return self._data

    def summary(self) -> pd.DataFrame:
        """A row a parameter: unit, mean, sd, median, 68 and 95 % interval, prior, posterior over prior width, R-hat, ESS, MCSE, truth.

        Angles on a whole circle lie within half a turn of their circular mean, and the truth of a mock within half a turn of that.
        """
        import pandas as pd

        from supermage.inference.diagnostics import unwrap_angle

        circular = tuple(json.loads(str(self._data.attrs.get("circular", "[]"))))
        rows = {}
        for p in self.parameters:
            values = unwrap_angle(self.draws(p.name)) if p.name in circular else self.draws(p.name)
            low95, low68, median, high68, high95 = np.quantile(values, [0.025, 0.16, 0.5, 0.84, 0.975])
            d = self.diagnosis.parameters[p.name]
            rows[p.name] = {
                "unit": p.unit,
                "mean": values.mean(),
                "sd": values.std(ddof=1),
                "median": median,
                "low_68": low68,
                "high_68": high68,
                "low_95": low95,
                "high_95": high95,
                "prior_lower": p.lower,
                "prior_upper": p.upper,
                "width_ratio": d.width_ratio,
                "rhat": d.rhat,
                "ess_bulk": d.ess_bulk,
                "ess_tail": d.ess_tail,
                "mcse_mean": d.mcse_mean,
            }
            if self.truth:
                truth = self.truth.get(p.name, np.nan)
                rows[p.name]["truth"] = median + (truth - median + 180.0) % 360.0 - 180.0 if p.name in circular else truth
        return pd.DataFrame.from_dict(rows, orient="index")

    def save(self, path: str | Path) -> Path:
        """Write netCDF, whole or not at all.

        Raises
        ------
        DataError
            If it cannot be written; the previous file survives.
        """
        from supermage.inference import arviz_access

        path = Path(path)
        try:
            write_atomically(path, arviz_access.as_netcdf(self._data))
        except OSError as error:
            raise DataError(f"a posterior must be writable, got {path}: {error.strerror or error}; an earlier file is kept") from None
        self.path = path
        return path

    def _parameter(self, name: str) -> Parameter:
        attributes = self._data["posterior"][name].attrs
        if "prior_lower" not in attributes:
            raise DataError(f"a posterior's parameters must come with their priors, got '{name}' without: only `supermage fit` writes them")
        known = PARAMETERS.get(name)
        return Parameter(
            name,
            str(attributes.get("unit", known.unit if known else "")),
            str(attributes.get("symbol", name)),
            float(attributes["prior_lower"]),
            float(attributes["prior_upper"]),
            str(attributes.get("description", "")),
            (float(attributes["prior_mean"]), float(attributes["prior_deviation"])) if "prior_mean" in attributes else None,
        )


def make_posterior(
    draws: Mapping[str, FloatArray],
    stats: Mapping[str, FloatArray],
    parameters: tuple[Parameter, ...],
    *,
    warmup: Mapping[str, FloatArray] | None = None,
    attributes: Mapping[str, Any],
) -> Posterior:
    """Assemble a `Posterior` from (chain, draw) arrays.

    Parameters
    ----------
    draws
        Parameters by name.
    stats
        ``lp``, ``acceptance_rate``, ``step_size``.
    parameters
        Units, symbols and priors.
    warmup
        Warm-up draws by name.
    attributes
        What is stored beside: numbers and strings.
    """
    from supermage.inference import arviz_access

    groups: dict[str, Mapping[str, FloatArray]] = {"posterior": draws, "sample_stats": stats}
    if warmup:
        groups["warmup_posterior"] = warmup
    data = arviz_access.from_dict(groups, attributes=attributes)
    for group in ("posterior", "warmup_posterior"):
        if group in arviz_access.group_names(data):
            for p in parameters:
                data[group][p.name].attrs.update(
                    unit=p.unit,
                    units=p.unit,
                    symbol=p.symbol,
                    prior_lower=p.lower,
                    prior_upper=p.upper,
                    **({} if p.normal is None else {"prior_mean": p.normal[0], "prior_deviation": p.normal[1]}),
                    description=p.description,
                    long_name=p.description,
                )
            data[group].attrs.update(attributes)
    return Posterior(data)


def open_posterior(path: str | Path) -> Posterior:
    """Open a fit's netCDF file.

    Raises
    ------
    DataError
        If it is missing, damaged, or no posterior.
    """
    from supermage.inference import arviz_access

    path = Path(path)
    if not path.is_file():
        checkpoint = path.with_name(f"{path.stem}.checkpoint")
        hint = f"; its fit has a checkpoint in {checkpoint.name}: the same `supermage fit` goes on" if checkpoint.is_dir() else ""
        raise DataError(f"a posterior must be a netCDF file, got {path}, which is not there{hint}")
    try:
        data = arviz_access.read(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"a posterior must be a netCDF file that ArviZ opens, got {path} ({why})") from None
    return Posterior(data, path=path)
