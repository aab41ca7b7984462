"""Names of array shapes. ``Cube`` and friends are checked by jaxtyping + beartype in the tests.

Axes: ``block`` execution blocks, ``chan`` channels of a block, ``cell`` occupied uv cells of the half plane,
``y`` north, ``x`` east (index grows eastwards; only FITS files are flipped), ``gauss`` components of an MGE,
``radius`` radii, ``param`` sampled parameters, ``chain`` chains.
"""

from __future__ import annotations

from jaxtyping import Complex, Float, Int
from torch import Tensor

Scalar = Float[Tensor, ""]
Weights = Float[Tensor, "*batch gauss"]
Radii = Float[Tensor, "*batch radius"]
Image = Float[Tensor, "y x"]
Cube = Float[Tensor, "block chan y x"]
Visibilities = Complex[Tensor, "block chan cell"]
CellReal = Float[Tensor, "block chan cell"]
CellIndex = Int[Tensor, "cell"]
BlockChannel = Float[Tensor, "block chan"]
Parameters = Float[Tensor, "param"]
Metric = Float[Tensor, "param param"]
Chains = Float[Tensor, "chain param"]

__all__ = ["BlockChannel", "CellIndex", "CellReal", "Chains", "Cube", "Image", "Metric", "Parameters",
           "Radii", "Scalar", "Visibilities", "Weights"]
