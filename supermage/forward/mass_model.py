"""MassModel: squared circular velocity of stars, black hole, dark halo and gas, and of each alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.errors import DomainError
from supermage.forward.velocity import ScaleFreeCurve, exponential_disc_velocity_squared, nfw_velocity_squared

COMPONENTS = ("total", "black_hole", "stars", "halo", "gas")
LOG_10 = math.log(10.0)


@runtime_checkable
class ShapeModel(Protocol):
    """What an emulator offers: Gaussians of fixed widths (in break radii) and their weights for a profile of unit density at the break."""

    width_ratio: Tensor

    def weights(self, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        """Peak surface densities, shape (..., gauss)."""
        ...


@dataclass
class SharedCurve:
    """The stars' scale-free curve that was reckoned last, and the tensors of shape and axis ratio that it is of."""

    shape: tuple[Tensor | None, ...] = ()
    curve: Tensor | None = None

    @staticmethod
    def _shape_of(theta: Mapping[str, Tensor]) -> tuple[Tensor | None, ...]:
        return (theta["alpha"], theta["gamma_minus_beta"], theta["gamma"], theta.get("ml_gradient"), theta["qintr"])

    def of(self, theta: Mapping[str, Tensor]) -> Tensor | None:
        """The curve, if it is of these very tensors."""
        asked = self._shape_of(theta)
        return self.curve if len(self.shape) == len(asked) and all(a is b for a, b in zip(self.shape, asked, strict=True)) else None

    def keep(self, theta: Mapping[str, Tensor], curve: Tensor) -> None:
        """Remember a curve as that of these tensors."""
        self.shape, self.curve = self._shape_of(theta), curve


class MassModel(nn.Module):
    """What pulls the gas: a Nuker spheroid, a point mass, and, if there are parameters for them, a halo, the gas, a gradient in M/L.

    Parameters
    ----------
    emulator
        See :class:`ShapeModel`.
    scale
        pc / arcsec.
    halo
        ``"none"`` or ``"nfw"`` (parameters ``halo_log10_m200``, ``halo_log10_c``).

    Notes
    -----
    Parameters are float64 0-d tensors named as in Table 1. Two more are optional. ``gas_log10_mass``: the exponential gas disc pulls.
    ``ml_gradient`` (kappa): the mass-to-light ratio falls as ``R^-kappa``. A Nuker profile times ``(R / r_b)^-kappa`` is the Nuker
    profile of slopes ``gamma + kappa`` and ``beta + kappa`` with the same density at the break, exactly: that is the mass.

    Raises
    ------
    DomainError
        If the halo is of another kind.
    """

    emulator: ShapeModel

    def __init__(self, emulator: ShapeModel, scale: float, *, halo: str = "none") -> None:
        super().__init__()
        if halo not in ("none", "nfw"):
            raise DomainError(f"halo must be 'none' or 'nfw', got {halo!r}")
        self.emulator, self.scale, self.halo = emulator, scale, halo
        self.curve = ScaleFreeCurve(emulator.width_ratio)
        self._shared: SharedCurve | None = None

    def forward(self, theta: Mapping[str, Tensor], component: str = "total") -> Callable[[Tensor], Tensor]:
        """Squared circular velocity, (km/s)^2, of one component or of all as a function of ln(R / pc), any shape.

        Raises
        ------
        DomainError
            If the component is unknown.
        """
        if component not in COMPONENTS:
            raise DomainError(f"component must be one of {', '.join(COMPONENTS)}, got {component!r}")
        parts: list[Callable[[Tensor], Tensor]] = []
        if component in ("total", "stars"):
            parts.append(self._stars(theta))
        if component in ("total", "black_hole"):
            parts.append(lambda log_radius: GRAVITATIONAL_CONSTANT * torch.exp(theta["log10_mbh"] * LOG_10 - log_radius))
        if component in ("total", "halo") and self.halo == "nfw":
            mass, concentration = 10.0 ** theta["halo_log10_m200"], 10.0 ** theta["halo_log10_c"]
            parts.append(lambda log_radius: nfw_velocity_squared(torch.exp(log_radius), mass, concentration))
        if component in ("total", "gas") and "gas_log10_mass" in theta:
            gas, scale_length = 10.0 ** theta["gas_log10_mass"], theta["scale_length"] * self.scale
            parts.append(lambda log_radius: exponential_disc_velocity_squared(torch.exp(log_radius), gas, scale_length))
        return lambda log_radius: sum((part(log_radius) for part in parts), start=torch.zeros_like(log_radius))

    def surface_density(self, theta: Mapping[str, Tensor], radius_arcsec: Float[Tensor, "*radius"]) -> Float[Tensor, "*radius"]:
        """Surface density of the stars, Msun/pc^2, at radii along the major axis, arcsec."""
        ratio = radius_arcsec / theta["break_r"]
        gaussians = torch.exp(-0.5 * (ratio.unsqueeze(-1) / self.emulator.width_ratio) ** 2)
        return 10.0 ** theta["intensity_rb"] * (gaussians @ self._weights(theta))

    def _weights(self, theta: Mapping[str, Tensor]) -> Float[Tensor, "gauss"]:
        steeper = theta["gamma"] + theta["ml_gradient"] if "ml_gradient" in theta else theta["gamma"]
        return self.emulator.weights(theta["alpha"], steeper - theta["gamma_minus_beta"], steeper).to(torch.float64)

    @contextlib.contextmanager
    def one_curve(self) -> Iterator[SharedCurve]:
        """Inside, the stars' scale-free curve is reckoned once for one and the same tensors of shape and axis ratio, and shared.

        For code that asks twice within one gradient. Not for two gradients: the first backward pass frees what the second would need.
        """
        before, self._shared = self._shared, SharedCurve()
        try:
            yield self._shared
        finally:
            self._shared = before

    def _scale_free(self, theta: Mapping[str, Tensor]) -> Tensor:
        shared = self._shared or SharedCurve()
        curve = shared.of(theta)
        if curve is None:
            curve = self.curve.velocity_squared(self._weights(theta), theta["qintr"])
            shared.keep(theta, curve)
        return curve

    def _stars(self, theta: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        inclination = torch.deg2rad(theta["inclination"])
        intrinsic = theta["qintr"]
        observed = torch.sqrt((intrinsic * torch.sin(inclination)) ** 2 + torch.cos(inclination) ** 2)
        break_radius = theta["break_r"] * self.scale
        strength = GRAVITATIONAL_CONSTANT * 10.0 ** theta["intensity_rb"] * break_radius * observed
        curve = strength * self._scale_free(theta)
        log_break = torch.log(break_radius)
        return lambda log_radius: self.curve.interpolate(curve, (log_radius - log_break).flatten()).reshape(log_radius.shape)
