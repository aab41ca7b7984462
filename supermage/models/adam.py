"""Adam as a pure step over named tensors, so that a checkpoint is the state and nothing else.

Source: Kingma & Ba 2015 (arXiv:1412.6980), with their default constants.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Tensor]

_MOMENTUM, _MEMORY, _EPSILON = 0.9, 0.999, 1e-8


def adam_init(matrices: list[Float[Tensor, "_ _"]]) -> State:
    """State for a list of matrices, all zero."""
    return {f"{key}{number}": torch.zeros_like(matrix) for number, matrix in enumerate(matrices) for key in ("m", "v")}


@torch.no_grad()
def adam_step(
    matrices: list[Float[Tensor, "_ _"]], gradients: tuple[Tensor, ...], state: State, *, step: int, learning_rate: float
) -> None:
    """Update matrices and state in place; ``step`` counts from 0."""
    for number, (matrix, gradient) in enumerate(zip(matrices, gradients, strict=True)):
        m, v = state[f"m{number}"], state[f"v{number}"]
        m.lerp_(gradient, 1.0 - _MOMENTUM)
        v.mul_(_MEMORY).addcmul_(gradient, gradient, value=1.0 - _MEMORY)
        spread = torch.sqrt(v / (1.0 - _MEMORY ** (step + 1)))
        matrix -= learning_rate / (1.0 - _MOMENTUM ** (step + 1)) * m / (spread + _EPSILON)
