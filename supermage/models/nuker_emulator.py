"""The frozen neural emulator ``nuker-mge``: a small network from (alpha, gamma, beta - gamma) to weights of scale-free Gaussians."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from supermage.errors import ModelFileError
from supermage.forward.nuker import log_nuker
from supermage.models.mge_rows import gaussian_designs
from supermage.models.nuker_mge import NukerMGE

WEIGHTS_FILE, DESCRIPTION_FILE = "weights.safetensors", "model.json"
FEATURES = 6


def features(
    alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch feature"]:
    """The network's inputs, about -1.5 .. 1.5: each parameter plainly and as a logarithm, as the profile changes fast at small ones."""
    difference = beta - gamma
    columns = (
        torch.log10(alpha),
        (alpha - 5.05) / 4.95,
        (gamma - 0.6) / 0.6,
        (torch.log10(gamma + 0.004) + 1.1) / 1.2,
        (difference - 1.65) / 1.35,
        torch.log10(difference),
    )
    return 1.5 * torch.stack(columns, dim=-1)


def weight_scale(
    log_width: Float[Tensor, "gauss"],
    spacing: Float[Tensor, "gauss"],
    alpha: Float[Tensor, "*batch"],
    beta: Float[Tensor, "*batch"],
    gamma: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch gauss"]:
    """Rough size of each weight: what the network's outputs are multiplied with.

    A power law of slope s needs ``w = spacing 2^(1 - s / 2) / Gamma(s / 2) Sigma(sigma)``, nearly proportional to s; inside a sharp
    break the break's own projected density, proportional to sigma, takes the place of the local slope.
    """
    column = [item.unsqueeze(-1) for item in (alpha, beta, gamma)]
    softness = column[0] / (1.0 + column[0] ** 8) ** 0.125
    slope = column[2] + (column[1] - column[2]) * torch.sigmoid(softness * log_width)
    return spacing * slope * torch.exp(log_nuker(log_width, *column))


class NukerEmulator(NukerMGE):
    """A multilayer perceptron with SiLU units; its outputs times :func:`weight_scale` are the Gaussians' weights.

    Parameters
    ----------
    width_ratio
        ``sigma_j / r_b``, shape (gauss,).
    hidden, depth
        Units of a hidden layer, and how many hidden layers.

    Notes
    -----
    Computed in float64 whatever the arguments' precision: signed weights cancel. Ours differs from Yantovski-Barth et al., sec. 2.1.2,
    in the scale-free widths and in the training, which asks for the enclosed mass too.
    """

    name = "nuker-mge"
    log_width: Tensor
    spacing: Tensor

    def __init__(self, width_ratio: Float[Tensor, "gauss"], *, hidden: int = 128, depth: int = 3) -> None:
        super().__init__()
        width = torch.as_tensor(width_ratio, dtype=torch.float64)
        log_width = torch.log(width)
        self.register_buffer("width_ratio", width)
        self.register_buffer("log_width", log_width, persistent=False)
        self.register_buffer("spacing", torch.gradient(log_width)[0], persistent=False)
        sizes = [FEATURES, *[hidden] * depth, width.numel()]
        self.layers = nn.ParameterList(
            nn.Parameter(torch.zeros(rows + 1, columns, dtype=torch.float64)) for rows, columns in pairwise(sizes)
        )

    def raw(self, inputs: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch gauss"]:
        """The network alone. The last row of each layer's matrix is its bias."""
        *hidden, last = self.layers
        for layer in hidden:
            inputs = nn.functional.silu(inputs @ layer[:-1] + layer[-1])
        return inputs @ last[:-1] + last[-1]

    def weights(
        self, alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "*batch"], gamma: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch gauss"]:
        """Peak surface density of each Gaussian for ``Sigma_b = 1``, in the arguments' precision."""
        dtype = torch.promote_types(torch.promote_types(alpha.dtype, beta.dtype), gamma.dtype)
        shape = torch.broadcast_tensors(*(item.to(torch.float64) for item in (alpha, beta, gamma)))
        scaled = self.raw(features(*shape)) * weight_scale(self.log_width, self.spacing, *shape)
        return scaled.to(dtype)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_emulator(folder: Path) -> NukerEmulator:
    """Load the frozen emulator and check its golden profiles.

    Raises
    ------
    ModelFileError
        If a file is missing, altered, of another version, or the network no longer gives its golden profiles.
    """
    description = _description(folder)
    path = folder / WEIGHTS_FILE
    try:
        got = file_hash(path)
    except OSError as error:
        raise ModelFileError(f"{path}: the emulator's weights must be readable, got {error.strerror}") from None
    if got != description["sha256"]:
        raise ModelFileError(f"{path}: the weights must have the hash in {DESCRIPTION_FILE}, got {got[:12]}: altered or incomplete")
    try:
        tensors = load_file(path)
        model = NukerEmulator(tensors["width_ratio"], hidden=int(description["hidden"]), depth=int(description["depth"]))
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError, ValueError):
        raise ModelFileError(f"{path}: the weights must fit the network that {DESCRIPTION_FILE} describes, got other tensors") from None
    model.requires_grad_(False).eval()
    check_golden(model, description["golden"], str(folder))
    return model


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = description["kind"], description["version"]
        for key in ("sha256", "hidden", "depth", "golden"):
            description[key]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError(f"{path}: an emulator must come with a complete {DESCRIPTION_FILE}, got none or a damaged one") from None
    if kind != NukerEmulator.name or version != NukerEmulator.version:
        raise ModelFileError(f"{path}: must be '{NukerEmulator.name}' version {NukerEmulator.version}, got '{kind}' version {version}")
    return description


def check_golden(model: NukerMGE, golden: dict[str, Any], source: str) -> None:
    """Compare surface density and enclosed mass with golden profiles from the Abel reference.

    Raises
    ------
    ModelFileError
        If a profile is missed by more than the golden set's own tolerance.
    """
    radius = torch.tensor(golden["radius"], dtype=torch.float64)
    shape = torch.tensor(golden["shape"], dtype=torch.float64)
    expected = torch.tensor(golden["density"], dtype=torch.float64), torch.tensor(golden["enclosed_mass"], dtype=torch.float64)
    got = density_and_mass(model, radius, *shape.unbind(-1))
    worst = max(float((mine / truth - 1.0).abs().max()) for mine, truth in zip(got, expected, strict=True))
    if not worst <= golden["tolerance"]:
        raise ModelFileError(f"{source}: golden profiles must be met within {golden['tolerance']:g}, got {worst:.3g}")


def density_and_mass(model: NukerMGE, radius: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Surface density and mass inside spheres of the model's MGE, scale-free, shapes (batch, radius)."""
    density, mass = gaussian_designs(model.width_ratio, radius, radius)
    weights = model.weights(alpha, beta, gamma)
    return weights @ density.T, weights @ mass.T
