"""What the galaxy model asks of its parameters, wherever their numbers can be looked at: not inside `torch.func.vmap`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from supermage.errors import DomainError
from supermage.physical import QINTR_TABLE

Theta = Mapping[str, Tensor]

DISC = ("scale_length", "Flux", "line_broadening", "systemic_velocity", "PA", "inclination", "x", "y")
STARS = ("alpha", "gamma_minus_beta", "gamma", "break_r", "intensity_rb", "qintr", "inclination")
HALO = ("halo_log10_m200", "halo_log10_c")
UNITS = {"scale_length": "arcsec", "break_r": "arcsec", "x": "arcsec", "y": "arcsec", "inclination": "deg", "PA": "deg",
         "line_broadening": "km / s", "systemic_velocity": "km / s", "Flux": "Jy km / s"}  # fmt: skip
"""Units of the parameters that have one, as astropy reads them."""
EDGE_ROUNDING = 5e-7
"""Relative distance beyond an edge that is forgiven: the rounding of single precision."""


def names_of(component: str, theta: Theta, halo: str) -> tuple[str, ...]:
    """Parameters that a component of the mass, or ``"total"``, is made of."""
    names: tuple[str, ...] = ()
    if component in ("total", "stars"):
        names += STARS
    if component in ("total", "black_hole"):
        names += ("log10_mbh",)
    if component in ("total", "halo") and halo == "nfw":
        names += HALO
    if component in ("total", "gas") and "gas_log10_mass" in theta:
        names += ("scale_length",)
    return names


def check_parameters(theta: Theta, names: Iterable[str], *, emulator: Any, scale: float) -> None:
    """Refuse parameters that are missing, no single number, not finite, or outside the disc's, the kernel's or the emulator's range.

    Parameters
    ----------
    theta
        Parameters by name.
    names
        Those that are asked for; what else theta holds need only be finite.
    emulator
        Its ``box``, where it has one, bounds alpha, gamma and beta - gamma of the mass, and the break radius in pc.
    scale
        pc / arcsec.

    Raises
    ------
    DomainError
        Naming the parameter, its rule and what was got.
    """
    names = tuple(names)
    missing = [name for name in names if name not in theta]
    if missing:
        raise DomainError(f"theta must hold every parameter of the model, got none named {', '.join(dict.fromkeys(missing))}")
    shaped = next((name for name, value in theta.items() if value.ndim), None)
    if shaped is not None:
        raise DomainError(f"a parameter must be a single number, got {shaped} of shape {tuple(theta[shaped].shape)}")
    number = numbers(theta)
    if number is None:
        return
    for name, value in number.items():
        if not math.isfinite(value):
            raise DomainError(f"{name} must be finite, got {value}")
    _check_disc({name: number[name] for name in names})
    if "alpha" in names:
        _check_stars(number, getattr(emulator, "box", {}), scale)


def numbers(theta: Theta) -> dict[str, float] | None:
    """The numbers in 0-d tensors, or None under vmap or on a device without numbers, where there are none to look at."""
    try:
        return dict(zip(theta, torch.stack([value.detach() for value in theta.values()]).tolist(), strict=True))
    except RuntimeError:
        return None


def _check_disc(number: dict[str, float]) -> None:
    if not number.get("scale_length", 1.0) > 0:
        raise DomainError(f"scale_length must be positive (arcsec; 0 is no disc), got {number['scale_length']}")
    if not 0 <= number.get("inclination", 0.0) < 90:
        raise DomainError(f"inclination must lie in [0, 90) deg, got {number['inclination']}")


def _check_stars(number: dict[str, float], box: Mapping[str, tuple[float, float]], scale: float) -> None:
    gradient = number.get("ml_gradient", 0.0)
    sides = {"qintr": (number["qintr"], *QINTR_TABLE)}
    got = {"alpha": number["alpha"], "gamma": number["gamma"] + gradient, "beta - gamma": -number["gamma_minus_beta"],
           "break_radius": number["break_r"] * scale}  # fmt: skip
    sides |= {name: (got[name], *edges) for name, edges in box.items()}
    for name, (value, low, high) in sides.items():
        if not low * (1.0 - EDGE_ROUNDING) <= value <= high * (1.0 + EDGE_ROUNDING):
            what = "gamma + ml_gradient" if name == "gamma" and gradient else name
            unit = " pc" if name == "break_radius" else ""
            raise DomainError(f"{what} must lie in [{low:g}, {high:g}]{unit}, the range the model was made for, got {value:.10g}")
