"""From a Nuker profile to the weights of Gaussians with fixed widths in units of the break radius: what is common; the exact solve."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from supermage.errors import DomainError
from supermage.forward.mge import MGE
from supermage.forward.nuker import SURFACE_DENSITY, Amount, as_float_tensor, broadcast_shape, require
from supermage.models.mge_rows import MGERows, density_radii, graded_widths, mass_radii

BOX: dict[str, tuple[float, float]] = {
    "alpha": (0.1, 10.0),
    "gamma": (0.001, 1.2),
    "beta - gamma": (0.3, 3.0),
    "break_radius": (2.0, 2000.0),
}
"""The training box of Yantovski-Barth et al., Appendix A; break radius in pc. Edges belong to it."""

EDGE_TOLERANCE = 1e-9


def clamp_to_box(name: str, value: Float[Tensor, "..."], *, scale: float = 0.0) -> Float[Tensor, "..."]:
    """Values inside one side of :data:`BOX`, rounding at the edges removed.

    Parameters
    ----------
    name
        A key of :data:`BOX`.
    scale
        Size of the numbers whose difference ``value`` is: their rounding is forgiven too.

    Raises
    ------
    DomainError
        If a value lies outside by more than a relative 1e-9 (or the rounding of its own precision).
    """
    lower, upper = BOX[name]
    rounding = 4.0 * torch.finfo(value.dtype).eps
    slack_lower, slack_upper = (max(EDGE_TOLERANCE * edge, rounding * max(edge, scale)) for edge in (lower, upper))
    inside = (value >= lower - slack_lower) & (value <= upper + slack_upper)
    unit = " pc" if name == "break_radius" else ""
    require(inside, f"{name} must lie in [{lower:g}, {upper:g}]{unit}, the range the model was made for", value)
    return value.clamp(lower, upper)


class NukerMGE(nn.Module, ABC):
    """What every map from Nuker to MGE offers. The form is scale-free: weights depend on alpha, beta and gamma alone.

    Attributes
    ----------
    name
        The name that :func:`supermage.load_model` knows, recorded with every posterior.
    width_ratio
        ``sigma_j / r_b``, shape (gauss,), float64.
    box
        :data:`BOX`.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    box: ClassVar[dict[str, tuple[float, float]]] = BOX
    width_ratio: Tensor

    @abstractmethod
    def weights(
        self, alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch gauss"]:
        """Peak surface density of each Gaussian for ``Sigma_b = 1``. Differentiable; no check of the domain."""

    def check_domain(
        self, alpha: Amount, beta: Amount, gamma: Amount, break_radius: Amount | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha, beta, gamma inside the box, with rounding at its edges (relative 1e-9) removed.

        Parameters
        ----------
        alpha, beta, gamma
            Shape of the profile; ``beta - gamma`` is what is bounded.
        break_radius
            pc; looked at only if given.

        Raises
        ------
        DomainError
            Naming the parameter, its range and what was got.
        """
        alpha, beta, gamma = (as_float_tensor(item) for item in (alpha, beta, gamma))
        if break_radius is not None:
            clamp_to_box("break_radius", as_float_tensor(break_radius, "pc"))
        safe_alpha, safe_gamma = clamp_to_box("alpha", alpha), clamp_to_box("gamma", gamma)
        difference = clamp_to_box("beta - gamma", beta - gamma, scale=sum(BOX[key][1] for key in ("gamma", "beta - gamma")))
        return safe_alpha, safe_gamma + difference, safe_gamma

    def forward(
        self,
        alpha: Amount,
        beta: Amount,
        gamma: Amount,
        break_radius: Amount,
        surface_density: Amount,
        observed_axis_ratio: Amount,
    ) -> MGE:
        """The MGE of a Nuker profile.

        Parameters
        ----------
        alpha, beta, gamma
            Sharpness, outer and inner slope; :data:`BOX` bounds alpha, gamma and ``beta - gamma``.
        break_radius
            pc.
        surface_density
            Msun/pc^2 at the break.
        observed_axis_ratio
            q' in (0, 1], the same for every Gaussian.

        Returns
        -------
        MGE
            Shapes (..., gauss), the leading axes being those of the broadcast arguments; float64 whatever the arguments' precision, as
            signed weights cancel.

        Raises
        ------
        DomainError
            If a parameter lies outside the box, or is not finite, or shapes do not go together.
        """
        named = {"alpha": alpha, "beta": beta, "gamma": gamma, "break_radius": break_radius, "surface_density": surface_density,
                 "observed_axis_ratio": observed_axis_ratio}  # fmt: skip
        units = {"break_radius": "pc", "surface_density": SURFACE_DENSITY}
        tensors = {name: as_float_tensor(value, units.get(name, "")) for name, value in named.items()}
        common = broadcast_shape(**{name: item.shape for name, item in tensors.items()})
        shape = [item.to(torch.float64) for item in self.check_domain(*(tensors[name] for name in list(named)[:4]))]
        scale, density, flattening = (item.to(torch.float64).expand(common).unsqueeze(-1) for item in list(tensors.values())[3:])
        require(torch.isfinite(density) & (density > 0), "surface_density must be positive and finite (Msun/pc^2)", density)
        peak = density * self.weights(*torch.broadcast_tensors(*shape))
        return MGE(peak, scale * self.width_ratio, flattening.expand(peak.shape))


class NukerSolve(NukerMGE):
    """Weights by a ridged least-squares solve (QR) on surface density and enclosed mass: exact, differentiable, no training.

    Parameters
    ----------
    ridge
        Size of the rows that hold ``w_j / Sigma(sigma_j)`` down; its square is the ridge of the normal equations.

    Raises
    ------
    DomainError
        If the ridge is not positive.
    """

    name = "nuker-mge-solve"

    def __init__(self, *, ridge: float = 1e-7) -> None:
        super().__init__()
        if not (ridge > 0 and math.isfinite(ridge)):
            raise DomainError(f"ridge must be positive, got {ridge}")
        self.register_buffer("width_ratio", graded_widths(), persistent=False)
        self.rows = MGERows(self.width_ratio, density_radii(), mass_radii())
        self.ridge = ridge

    def weights(
        self, alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch gauss"]:
        """Peak surface density of each Gaussian for ``Sigma_b = 1``; solved in float64, returned in the arguments' precision."""
        dtype, shape = _in_double(alpha, beta, gamma)
        rows, scale = self.rows.relative(*shape)
        return (ridged_solution(rows, torch.ones_like(rows[..., 0]), self.ridge) * scale).to(dtype)


class NukerStep(NukerMGE):
    """A network followed by one exact step: the ridged least-squares solve of what the network leaves over.

    Parameters
    ----------
    start
        The network.
    ridge
        Size of the rows that hold the step (in units of the profile at each width) down.

    Raises
    ------
    DomainError
        If the ridge is not positive.
    """

    name = "nuker-mge-step"

    def __init__(self, start: NukerMGE, *, ridge: float = 1e-6) -> None:
        super().__init__()
        if not (ridge > 0 and math.isfinite(ridge)):
            raise DomainError(f"ridge must be positive, got {ridge}")
        self.start, self.ridge = start, ridge
        self.register_buffer("width_ratio", start.width_ratio, persistent=False)
        self.rows = MGERows(self.width_ratio, density_radii(), mass_radii())

    def weights(
        self, alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch gauss"]:
        """Peak surface density of each Gaussian for ``Sigma_b = 1``, in the arguments' precision."""
        dtype, shape = _in_double(alpha, beta, gamma)
        first = self.start.weights(*shape)
        rows, scale = self.rows.relative(*shape)
        left = 1.0 - (rows @ (first / scale).unsqueeze(-1)).squeeze(-1)
        return (first + ridged_solution(rows, left, self.ridge) * scale).to(dtype)


def ridged_solution(
    rows: Float[Tensor, "*batch row gauss"], right: Float[Tensor, "*batch row"], ridge: float
) -> Float[Tensor, "*batch gauss"]:
    """Solution u of least ``|rows u - right|^2 + ridge^2 |u|^2``, by QR of the rows with the ridge below them."""
    below = ridge * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    orthogonal, triangle = torch.linalg.qr(torch.cat([rows, below.expand(*rows.shape[:-2], *below.shape)], dim=-2))
    projected = (right.unsqueeze(-2) @ orthogonal[..., : rows.shape[-2], :]).squeeze(-2)
    return torch.linalg.solve_triangular(triangle, projected.unsqueeze(-1), upper=True).squeeze(-1)


def _in_double(alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[torch.dtype, list[Tensor]]:
    """The common precision of the arguments, and the arguments broadcast in float64."""
    dtype = torch.promote_types(torch.promote_types(alpha.dtype, beta.dtype), gamma.dtype)
    return dtype, list(torch.broadcast_tensors(*(item.to(torch.float64) for item in (alpha, beta, gamma))))
