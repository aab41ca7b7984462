"""What may differ between execution blocks: the flux scale, and the position of the whole source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy

import torch
from jaxtyping import Complex
from torch import Tensor

from supermage.constants import ARCSEC
from supermage.data_reduction.gridded import GriddedVisibilities

Theta = Mapping[str, Tensor]


class BlockNuisances:
    """Applies each execution block's flux scale and offset to the model's visibilities.

    ``V_k -> f_k V_k exp(-2 pi i (u dx_k + v dy_k))`` with ``flux_scale_k``, ``offset_x_k`` and ``offset_y_k`` of block k = 1, 2, ... where
    theta has them; u and v are the mean positions of the visibilities in each cell, in wavelengths of the channel.

    Parameters
    ----------
    gridded
        Says where the cells are.
    dtype
        Of the phases.
    """

    def __init__(self, gridded: GriddedVisibilities, *, dtype: torch.dtype = torch.float32) -> None:
        self._blocks = gridded.n_block
        self._u, self._v = (torch.from_numpy(axis * (2.0 * math.pi * ARCSEC)).to(dtype) for axis in gridded.uv_wavelengths())

    def to(self, device: torch.device | str) -> BlockNuisances:
        """The same on another device."""
        other = copy(self)
        other._u, other._v = self._u.to(device), self._v.to(device)
        return other

    def __call__(self, theta: Theta, visibilities: Complex[Tensor, "block chan cell"]) -> Complex[Tensor, "block chan cell"]:
        """The visibilities, Jy, as each block would show them."""
        if not any(f"{name}_1" in theta for name in ("flux_scale", "offset_x")):
            return visibilities
        parts = []
        for k in range(self._blocks):
            part = visibilities[k]
            if f"flux_scale_{k + 1}" in theta:
                part = part * theta[f"flux_scale_{k + 1}"].to(self._u.dtype)
            if f"offset_x_{k + 1}" in theta:
                east, north = (theta[f"offset_{axis}_{k + 1}"].to(self._u.dtype) for axis in ("x", "y"))
                angle = self._u[k] * east + self._v[k] * north
                part = part * torch.complex(torch.cos(angle), -torch.sin(angle))
            parts.append(part)
        return torch.stack(parts)
