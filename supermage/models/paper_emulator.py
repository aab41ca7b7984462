"""The emulator of Yantovski-Barth et al. by their own recipe, kept to be trained and measured beside ours; fits do not use it.

64 Gaussians on a fixed grid of widths, a symexp output, the mean squared error of the surface density, Adam with a rate of 1e-5 on a
grid of 50^4 profiles. The paper does not print layers, batch, radii or how the output starts: those are ours and are said below.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor, nn

from supermage.forward.nuker import log_nuker
from supermage.models.card import write_paper_card
from supermage.models.nuker_emulator import DESCRIPTION_FILE, WEIGHTS_FILE, file_hash
from supermage.models.nuker_errors import measure_physical
from supermage.models.nuker_mge import BOX
from supermage.models.training import Schedule, options_of, to_json, write_atomically
from supermage.progress import Progress
from supermage.recipe import Recipe

GRID = 50
SIGMA = (1.0, 1e4)
RADII = (2.0, 1e4)
SMALLEST = 1e-12
FIRST_OUTPUT = 12.0
"""Where the outputs start: symexp(12) is a weight of 1. From 0, steps of 1e-5 would take a million to get there."""


class Options(Schedule):
    """``[train.options]``: the paper's optimiser and rate; layers, batch and radii are ours."""

    optimiser: Literal["soap", "adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    decay: bool = False
    warmup: Annotated[int, Field(ge=0)] = 0
    hidden: Annotated[int, Field(ge=1)] = 256
    depth: Annotated[int, Field(ge=1)] = 3
    gaussians: Annotated[int, Field(ge=1)] = 64
    radii: Annotated[int, Field(ge=2)] = 100
    batch: Annotated[int, Field(ge=1)] = 512
    card_profiles: Annotated[int, Field(ge=1)] = 2000


def symexp(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``sgn(x) 1e-12 (10^|x| - 1)``: eq. 3 of the paper."""
    return torch.sign(value) * SMALLEST * torch.expm1(math.log(10.0) * value.abs())


def log_uniform(lower: float, upper: float, count: int) -> Float[Tensor, "count"]:
    """Log-uniform grid, ends included, float64."""
    return torch.logspace(math.log10(lower), math.log10(upper), count, dtype=torch.float64)


class PaperEmulator(nn.Module):
    """A perceptron from (alpha, gamma, beta - gamma, break radius), each scaled to 0 - 1, to the peaks of 64 Gaussians in pc.

    Parameters
    ----------
    hidden, depth, gaussians
        Units of a hidden layer, hidden layers (SiLU), Gaussians.
    """

    sigma: Tensor

    def __init__(self, *, hidden: int = 256, depth: int = 3, gaussians: int = 64) -> None:
        super().__init__()
        self.register_buffer("sigma", log_uniform(*SIGMA, gaussians))
        sizes = [4, *[hidden] * depth, gaussians]
        self.layers = nn.ParameterList(
            nn.Parameter(torch.zeros(rows + 1, columns, dtype=torch.float64)) for rows, columns in pairwise(sizes)
        )

    def weights(self, unit: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch gauss"]:
        """Peaks for ``Sigma_b = 1``; inputs are the parameters as fractions of their ranges in the box."""
        *hidden, last = self.layers
        for layer in hidden:
            unit = nn.functional.silu(unit @ layer[:-1] + layer[-1])
        return symexp(unit @ last[:-1] + last[-1])


def unit_box(alpha: Tensor, beta: Tensor, gamma: Tensor, break_radius: Tensor) -> Float[Tensor, "*batch 4"]:
    """Parameters as fractions of their ranges, in the network's order."""
    values = {"alpha": alpha, "gamma": gamma, "beta - gamma": beta - gamma, "break_radius": break_radius}
    return torch.stack([(values[key] - low) / (high - low) for key, (low, high) in BOX.items()], dim=-1)


class PaperTraining:
    """The problem: mean squared error of the surface density, on profiles of the grid drawn at random."""

    def __init__(self, options: Options, seed: int) -> None:
        self.schedule = self.options = options
        self.seed = seed
        self.emulator = PaperEmulator(hidden=options.hidden, depth=options.depth, gaussians=options.gaussians)
        generator = torch.Generator().manual_seed(seed)
        self.parameters: list[Tensor] = []
        for number, layer in enumerate(self.emulator.layers):
            value = torch.randn(layer.shape, generator=generator, dtype=torch.float64) / math.sqrt(layer.shape[0] - 1)
            value[-1] = FIRST_OUTPUT if number == len(self.emulator.layers) - 1 else 0.0
            self.parameters.append(value.requires_grad_())
        radius = log_uniform(*RADII, options.radii)
        self.log_radius = torch.log(radius)
        self.design = torch.exp(-0.5 * (radius[:, None] / self.emulator.sigma) ** 2)

    def loss(self, step: int) -> Tensor:
        """Mean squared error of a batch that depends on the seed and the step alone."""
        got, truth = self._profiles(torch.Generator().manual_seed(self.seed * 1_000_003 + step), self.options.batch)
        return ((got - truth) ** 2).mean()

    @torch.no_grad()
    def note(self) -> str:
        """Median over profiles of the largest relative error of the surface density."""
        got, truth = self._profiles(torch.Generator().manual_seed(self.seed), 500)
        return f"largest relative error of a profile, median {(got / truth - 1.0).abs().amax(-1).median():.2g}"

    def finish(self, output: Path, *, progress: Progress) -> Path:
        """Write the weights, their description and a card of measured errors."""
        emulator = self.frozen()
        tensors = {key: value.detach().contiguous() for key, value in emulator.state_dict().items()}
        write_atomically(output / WEIGHTS_FILE, save(tensors, metadata={"model": "nuker-mge-paper"}))
        description = {"kind": "nuker-mge-paper", "version": "1", "sha256": file_hash(output / WEIGHTS_FILE), "seed": self.seed,
                       "hidden": self.options.hidden, "depth": self.options.depth, "training": self.options.model_dump()}
        write_atomically(output / DESCRIPTION_FILE, to_json(description))
        progress.start("measuring the errors", None)
        table = measure_physical(expansion_of(emulator), profiles=self.options.card_profiles)
        write_paper_card(output.parent / "card.md", description, table)
        progress.done(f"wrote {output}")
        return output

    @torch.no_grad()
    def frozen(self) -> PaperEmulator:
        """The emulator with the trained layers."""
        options = self.options
        emulator = PaperEmulator(hidden=options.hidden, depth=options.depth, gaussians=options.gaussians)
        for layer, value in zip(emulator.layers, self.parameters, strict=True):
            layer.copy_(value)
        return emulator.requires_grad_(False).eval()

    def _profiles(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        unit = torch.randint(0, GRID, (count, 4), generator=generator).to(torch.float64) / (GRID - 1)
        alpha, gamma, difference, scale = (low + (high - low) * unit[:, k, None] for k, (low, high) in enumerate(BOX.values()))
        truth = torch.exp(log_nuker(self.log_radius - torch.log(scale), alpha, gamma + difference, gamma))
        *hidden, last = self.parameters
        for layer in hidden:
            unit = nn.functional.silu(torch.addmm(layer[-1], unit, layer[:-1]))
        return symexp(torch.addmm(last[-1], unit, last[:-1])) @ self.design.T, truth


def expansion_of(emulator: PaperEmulator) -> Any:
    """Function of one profile (alpha, beta, gamma, break radius in pc) that gives widths (pc) and peaks for ``Sigma_b = 1``."""

    def expansion(alpha: float, beta: float, gamma: float, break_radius: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            point = unit_box(*(torch.tensor(item, dtype=torch.float64) for item in (alpha, beta, gamma, break_radius)))
            return emulator.sigma, emulator.weights(point)

    return expansion


def load_paper_emulator(folder: Path) -> PaperEmulator:
    """Load what training wrote."""
    tensors = load_file(folder / WEIGHTS_FILE)
    layers = [tensors[f"layers.{number}"] for number in range(len(tensors) - 1)]
    emulator = PaperEmulator(hidden=layers[0].shape[1], depth=len(layers) - 1, gaussians=layers[-1].shape[1])
    emulator.load_state_dict(tensors)
    return emulator.requires_grad_(False).eval()


def build(recipe: Recipe) -> PaperTraining:
    """The problem of a recipe with ``kind = "nuker-mge-paper"``."""
    return PaperTraining(options_of(recipe, Options), recipe.train.seed if recipe.train else 1)
