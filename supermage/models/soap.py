"""SOAP: Adam in the eigenbasis of Shampoo's two-sided preconditioner, for a handful of matrices.

Source: Vyas et al. 2024 (arXiv:2409.11321). Written as a pure step over named tensors, so that a checkpoint is the state and nothing else.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Tensor]

_MOMENTUM, _MEMORY, _EPSILON = 0.95, 0.99, 1e-12


def soap_init(matrices: list[Float[Tensor, "_ _"]]) -> State:
    """State for a list of matrices, all zero; the first step only fills the preconditioners."""
    state: State = {}
    for number, matrix in enumerate(matrices):
        rows, columns = matrix.shape
        for key, shape in (("m", (rows, columns)), ("v", (rows, columns)), ("left", (rows, rows)), ("right", (columns, columns)),
                           ("basis_left", (rows, rows)), ("basis_right", (columns, columns))):
            state[f"{key}{number}"] = torch.zeros(shape, dtype=matrix.dtype, device=matrix.device)
    return state


@torch.no_grad()
def soap_step(
    matrices: list[Float[Tensor, "_ _"]],
    gradients: tuple[Tensor, ...],
    state: State,
    *,
    step: int,
    learning_rate: float,
    refresh: int = 20,
) -> None:
    """Update matrices and state in place.

    Parameters
    ----------
    matrices, gradients
        What is trained, and the gradients of the loss.
    state
        From :func:`soap_init`.
    step
        Number of this step, from 0.
    learning_rate
        Size of a step in Adam's sense.
    refresh
        Steps between two updates of the eigenbases (one power iteration and a QR each).
    """
    for number, (matrix, gradient) in enumerate(zip(matrices, gradients, strict=True)):
        m, v, left, right, basis_left, basis_right = (
            state[f"{key}{number}"] for key in ("m", "v", "left", "right", "basis_left", "basis_right")
        )
        left.lerp_(gradient @ gradient.T, 1.0 - _MEMORY)
        right.lerp_(gradient.T @ gradient, 1.0 - _MEMORY)
        if step == 0:
            basis_left.copy_(torch.linalg.eigh(left)[1])
            basis_right.copy_(torch.linalg.eigh(right)[1])
            continue
        if step % refresh == 0:
            basis_left.copy_(torch.linalg.qr(left @ basis_left)[0])
            basis_right.copy_(torch.linalg.qr(right @ basis_right)[0])
        m.lerp_(gradient, 1.0 - _MOMENTUM)
        turned = basis_left.T @ gradient @ basis_right
        v.mul_(_MEMORY).addcmul_(turned, turned, value=1.0 - _MEMORY)
        mean = basis_left.T @ m @ basis_right / (1.0 - _MOMENTUM**step)
        spread = torch.sqrt(v / (1.0 - _MEMORY**step))
        matrix -= learning_rate * (basis_left @ (mean / (spread + _EPSILON)) @ basis_right.T)
