"""Latent coordinates of galaxy masses, in which every order among masses holds by construction, and the targets as functions of them.

With M*, Mdm and Mtot the stellar, dark and total mass inside one sphere, and the rest gas and black holes:

- u1 = log10 M*
- u2 = log10(Mtot / M* - 1)
- u3 = log10((Mtot - M* - Mdm) / Mdm)

so that M* <= Mtot and M* + Mdm <= Mtot whatever real numbers the coordinates are. With ``l(u) = log10(1 + 10^u)``: log Mtot = u1 + l(u2),
log f* = -l(u2), log Mdm = u1 + u2 - l(u3), log fdm = u2 - l(u2) - l(u3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from supermage.errors import DomainError, nearest_name

STELLAR = ("log_mstar", "log_ml")
TOTAL = ("log_mtot", "log_fstar")
DARK = ("log_mdm", "log_fdm")
NAMES = ("log_mstar", "log_mtot", "log_mdm", "log_fstar", "log_fdm", "log_ml")
"""Targets: logarithms to base 10 of masses (Msun), of fractions, and of the stellar mass-to-light ratio (Msun/Lsun)."""

DEFAULT = ("log_mstar", "log_mtot")

EXCESS_FLOOR = 1e-2
"""Mtot / M* - 1 below which a galaxy's u2 is drawn at random, log-uniform over a decade down: log Mtot does not feel it (0.004 dex)."""

REST_FLOOR = 1e6
"""Msun: gas and black holes below the mass of one gas cell of TNG100; u3 is drawn at random over a decade down."""

_LN10 = math.log(10.0)


def log_sum(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``l(u) = log10(1 + 10^u)``, without overflow."""
    return torch.logaddexp(_LN10 * value, torch.zeros((), dtype=value.dtype)) / _LN10


def log_difference(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Inverse of :func:`log_sum`, for values above zero: ``log10(10^v - 1)``."""
    return value + torch.log10(-torch.expm1(-_LN10 * value))


def log_slope(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Natural logarithm of the derivative of :func:`log_difference`."""
    return -torch.log(-torch.expm1(-_LN10 * value))


def check_targets(names: Sequence[str], latents: int) -> tuple[str, ...]:
    """The names as a tuple, if they are targets and have a joint density.

    Parameters
    ----------
    names
        Targets.
    latents
        Latent coordinates that the model has: 1 (no total mass), 2 (no dark matter) or 3.

    Raises
    ------
    DomainError
        If there is none, one is unknown, the model does not know one, or one is a function of the others.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    known = {1: STELLAR, 2: (*STELLAR, *TOTAL)}.get(latents, NAMES)
    if not names:
        raise DomainError(f"targets must name at least one of {', '.join(known)}, got none")
    for name in names:
        if name not in known:
            raise DomainError(f"targets must be among {', '.join(known)}, got {name!r}{nearest_name(name, known)}")
    rows = np.array([_DIRECTION[name] for name in names])
    if np.linalg.matrix_rank(rows) < len(names):
        raise DomainError(f"targets must not be functions of one another, got {', '.join(names)}; ask for them one by one")
    return names


_DIRECTION = {"log_mstar": (1, 0, 0), "log_ml": (1, 0, 0), "log_mtot": (0, 1, 0), "log_mdm": (0, 0, 1),
              "log_fstar": (1, -1, 0), "log_fdm": (0, -1, 1)}  # fmt: skip


def target_of_latents(name: str, latents: Float[Tensor, "*batch latent"], log_light: Float[Tensor, "..."]) -> Float[Tensor, "*batch"]:
    """A target from latent coordinates; ``log_light`` is log10 of the light of the same sphere, Lsun (what M*/L divides by)."""
    stellar = latents[..., 0]
    if name == "log_mstar":
        return stellar
    if name == "log_ml":
        return stellar - log_light
    if name == "log_mtot":
        return stellar + log_sum(latents[..., 1])
    if name == "log_fstar":
        return -log_sum(latents[..., 1])
    dark = latents[..., 1] - log_sum(latents[..., 2])
    return stellar + dark if name == "log_mdm" else dark - log_sum(latents[..., 1])


@dataclass(frozen=True)
class Chart:
    """Latent coordinates that some targets fix, with the Jacobian.

    Attributes
    ----------
    latents
        Which coordinates, in order.
    value
        Their values, shape (*batch, len(latents)); where ``inside`` is False, some harmless number.
    log_jacobian
        Natural logarithm of the absolute determinant of d latents / d targets, shape (*batch,).
    inside
        Where the targets can be: Mtot > M*, and so on; shape (*batch,).
    """

    latents: tuple[int, ...]
    value: Tensor
    log_jacobian: Tensor
    inside: Tensor


def chart_of_targets(names: Sequence[str], value: Float[Tensor, "*batch target"], log_light: Float[Tensor, "..."]) -> Chart | None:
    """The latent coordinates of a point in the targets' space; None where the targets do not fix theirs and an integral is needed.

    Parameters
    ----------
    names
        Targets, independent of one another.
    value
        Their values.
    log_light
        As in :func:`target_of_latents`.
    """
    given = dict(zip(names, value.unbind(-1), strict=True))
    if "log_ml" in given:
        given["log_mstar"] = given.pop("log_ml") + log_light
    stellar, total, fraction = (given.get(name) for name in ("log_mstar", "log_mtot", "log_fstar"))
    if total is None and "log_mdm" in given and "log_fdm" in given:
        total = given["log_mdm"] - given["log_fdm"]
    if fraction is None and stellar is not None and total is not None:
        fraction = stellar - total
    if stellar is None and fraction is not None and total is not None:
        stellar = total + fraction
    dark = given.get("log_fdm")
    if dark is None and "log_mdm" in given and stellar is not None and fraction is not None:
        dark = given["log_mdm"] - (stellar - fraction)
    if fraction is None:
        return None if len(given) > 1 or stellar is None else Chart((0,), value_of(stellar), torch.zeros_like(stellar), _finite(stellar))
    if "log_mdm" in given and stellar is None:
        return None
    return _chart(stellar, fraction, dark)


def chart_of_pair(names: Sequence[str], value: Float[Tensor, "*batch target"], rest: Tensor, log_light: Float[Tensor, "..."]) -> Chart:
    """All three coordinates of a pair of targets, one of them of dark matter, at a given u3.

    Parameters
    ----------
    names, value, log_light
        As in :func:`chart_of_targets`.
    rest
        u3, shape (*batch,).
    """
    given = dict(zip(names, value.unbind(-1), strict=True))
    if "log_ml" in given:
        given["log_mstar"] = given.pop("log_ml") + log_light
    share = -log_sum(rest)
    stellar, total, outside = given.get("log_mstar"), given.get("log_mtot"), None
    if "log_fdm" in given:
        outside = given["log_fdm"] - share  # log of the fraction that is not stars
        total = given["log_mdm"] - given["log_fdm"] if "log_mdm" in given else total
    elif total is not None:
        outside = given["log_mdm"] - share - total
    elif "log_fstar" in given:
        safe = torch.where(given["log_fstar"] < 0, given["log_fstar"], -torch.ones_like(given["log_fstar"]))
        outside = torch.where(given["log_fstar"] < 0, torch.log10(-torch.expm1(_LN10 * safe)), torch.ones_like(safe))
    if outside is None:  # M* and Mdm
        excess = given["log_mdm"] - share - given["log_mstar"]
        return Chart((0, 1, 2), value_of(given["log_mstar"], excess, rest), torch.zeros_like(excess), _finite(excess))
    inside = _finite(outside) & (outside < 0)
    outside = torch.where(inside, outside, -torch.ones_like(outside))
    stars = torch.log10(-torch.expm1(_LN10 * outside))
    log_jacobian = -_LN10 * (outside if "log_fstar" in given else stars)
    excess = outside - stars
    if stellar is None:
        stellar = total + stars if total is not None else given["log_mdm"] - share - excess
    return Chart((0, 1, 2), value_of(*torch.broadcast_tensors(stellar, excess, rest)), log_jacobian, inside)


def value_of(*coordinates: Tensor) -> Tensor:
    """Coordinates side by side on a last axis."""
    return torch.stack(coordinates, dim=-1)


def _chart(stellar: Tensor | None, fraction: Tensor, dark: Tensor | None) -> Chart:
    """From log M* (or not), log f* and log fdm (or not)."""
    inside = _finite(fraction) & (fraction < 0)
    safe = torch.where(inside, fraction, -torch.ones_like(fraction))
    latents, columns, log_jacobian = [1], [log_difference(-safe)], log_slope(-safe)
    if stellar is not None:
        inside = inside & _finite(stellar)
        latents, columns = [0, *latents], [stellar, *columns]
    if dark is not None:
        excess = torch.log10(-torch.expm1(_LN10 * safe)) - dark
        inside = inside & (excess > 0)
        excess = torch.where(excess > 0, excess, torch.ones_like(excess))
        latents, columns, log_jacobian = [*latents, 2], [*columns, log_difference(excess)], log_jacobian + log_slope(excess)
    return Chart(tuple(latents), value_of(*torch.broadcast_tensors(*columns)), log_jacobian, inside)


def _finite(value: Tensor) -> Tensor:
    return torch.isfinite(value)


def latents_of_masses(
    stellar: NDArray[np.float64], total: NDArray[np.float64], dark: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """Latent coordinates of known masses.

    Parameters
    ----------
    stellar, total, dark
        Msun, shape (row,), stellar positive. A total below the stellar mass, as rounding makes it, counts as no excess.
    seed
        Of what is drawn below :data:`EXCESS_FLOOR` and :data:`REST_FLOOR`.

    Returns
    -------
    NDArray
        Shape (row, 3); u3 is NaN where there is no dark matter.

    Raises
    ------
    DomainError
        If a stellar mass is not positive.
    """
    if not (stellar > 0).all():
        raise DomainError(f"stellar masses must be positive, got {np.count_nonzero(~(stellar > 0))} others")
    generator = np.random.default_rng(seed)
    below = 10.0 ** -generator.uniform(0.0, 1.0, (2, len(stellar)))
    excess, rest = total / stellar - 1.0, total - stellar - dark
    excess = np.where(excess < EXCESS_FLOOR, EXCESS_FLOOR * below[0], excess)
    rest = np.where(rest < REST_FLOOR, REST_FLOOR * below[1], rest)
    ratio = np.full(len(stellar), np.nan)
    ratio[dark > 0] = np.log10(rest[dark > 0] / dark[dark > 0])
    return np.stack([np.log10(stellar), np.log10(excess), ratio], axis=1)
