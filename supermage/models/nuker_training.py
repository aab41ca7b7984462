"""Training of the emulator ``nuker-mge``: samples, loss, preconditioned output, artefact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from supermage.forward.deprojection import NukerDeprojection
from supermage.models.card import write_card
from supermage.models.mge_rows import MGERows
from supermage.models.nuker_emulator import DESCRIPTION_FILE, WEIGHTS_FILE, NukerEmulator, check_golden, features, file_hash, weight_scale
from supermage.models.nuker_errors import measure
from supermage.models.nuker_mge import BOX, NukerSolve, NukerStep
from supermage.models.training import Schedule, options_of, to_json, write_atomically
from supermage.progress import Progress
from supermage.recipe import Recipe

GOLDEN_SHAPES = ((2.0, 2.0, 0.8), (0.1, 0.301, 0.001), (0.1, 4.2, 1.2), (10.0, 3.001, 0.001), (10.0, 4.2, 1.2), (1.0, 1.5, 0.3))
GOLDEN_RADII = (0.03, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0, 2e3)
GOLDEN_TOLERANCE = 0.03

TEACHER_RIDGE = 1e-5
"""Of the solves that give the network's outputs their scale: larger than the reference's, for weights that change smoothly."""

CHUNK = 500


class Options(Schedule):
    """``[train.options]`` of the emulator.

    ``samples`` profiles are drawn once; ``edge`` is the chance that a parameter sits on an edge of the box; ``norm`` is the power
    mean over a profile's rows (2: root mean square; larger: nearer to the worst radius); ``slope`` is what a relative error of a
    gradient counts beside one of a value; ``teachers`` exact solves give the output's preconditioner.
    """

    hidden: Annotated[int, Field(ge=1)] = 128
    depth: Annotated[int, Field(ge=1)] = 3
    samples: Annotated[int, Field(ge=1)] = 30_000
    batch: Annotated[int, Field(ge=1)] = 256
    edge: Annotated[float, Field(ge=0, le=1)] = 0.15
    norm: Annotated[float, Field(gt=0)] = 6.0
    slope: Annotated[float, Field(ge=0)] = 0.15
    teachers: Annotated[int, Field(ge=1)] = 4000
    card_profiles: Annotated[int, Field(ge=1)] = 2000


class Profiles(NamedTuple):
    """Training profiles: inputs, scale of the outputs, the rows' weights divided by their targets, and the weights; then derivatives.

    ``d_inputs``, ``d_scale`` and ``d_target`` are derivatives of inputs, scale and ln(target) by alpha, beta - gamma and gamma.
    """

    inputs: Float[Tensor, "profile feature"]
    scale: Float[Tensor, "profile gauss"]
    over_target: Float[Tensor, "profile row"]
    row_weight: Float[Tensor, "profile row"]
    d_inputs: Float[Tensor, "profile 3 feature"]
    d_scale: Float[Tensor, "profile 3 gauss"]
    d_target: Float[Tensor, "profile 3 row"]
    sensitivity: Float[Tensor, "profile 3"]

    def along(self, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The derivatives by one parameter, and how much the profile changes with it."""
        return self.d_inputs[:, axis], self.d_scale[:, axis], self.d_target[:, axis], self.sensitivity[:, axis]


def draw_shapes(count: int, generator: torch.Generator, *, edge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Random (alpha, beta, gamma): alpha uniform or log-uniform in equal parts, the rest uniform; each on an edge by chance ``edge``."""
    unit = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    at_edge = torch.rand(count, 3, generator=generator) < edge
    unit = torch.where(at_edge, (torch.rand(count, 3, generator=generator) > 0.5).to(torch.float64), unit)
    low, high = BOX["alpha"]
    logarithmic = low * (high / low) ** unit[:, 0]
    alpha = torch.where(torch.rand(count, generator=generator) > 0.5, logarithmic, low + (high - low) * unit[:, 0])
    gamma, difference = (
        BOX[key][0] + (BOX[key][1] - BOX[key][0]) * unit[:, column] for column, key in ((1, "gamma"), (2, "beta - gamma"))
    )
    return alpha, gamma + difference, gamma


class NukerTraining:
    """The problem: relative surface density and relative enclosed mass of the network's Gaussians against the Nuker profile.

    A row of enclosed mass counts as half its relative error (that is the error in velocity), less where the velocity is far below the
    curve's maximum; rows inside 2 pc of the largest break radius count less. The network's outputs are combined by a fixed matrix, folded
    into the last layer at the end, in which the exact solves have unit variance and the mean metric of the rows is diagonal.
    """

    def __init__(self, options: Options, seed: int) -> None:
        self.schedule = self.options = options
        self.seed = seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator = torch.Generator().manual_seed(seed)
        self.solve = NukerSolve(ridge=TEACHER_RIDGE).to(self.device)
        self.emulator = NukerEmulator(self.solve.width_ratio, hidden=options.hidden, depth=options.depth).to(self.device)
        self.rows: MGERows = self.solve.rows
        shapes = self._draw(options.samples, generator)
        self.profiles = self._tabulate(shapes)
        self.held_out = self._tabulate(self._draw(1000, generator))
        self.mean, self.basis = self._output_basis(shapes)
        self.parameters = self._initial(generator)

    def loss(self, step: int) -> Tensor:
        """Power mean over the rows, squared, averaged over a batch that depends on the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = torch.randint(0, self.options.samples, (self.options.batch,), generator=generator).to(self.device)
        value, slope = self._rows(Profiles(*(item[chosen] for item in self.profiles)), step % 3)
        half = 0.5 * self.options.norm
        rows = torch.cat([value, self.options.slope * slope], dim=-1)
        return ((rows**2) ** half).mean(-1).pow(1.0 / half).mean()

    @torch.no_grad()
    def note(self) -> str:
        """Median, 99 % and largest weighted error of held-out profiles, and the same of their gradients."""
        parts = [self._rows(self.held_out, axis) for axis in range(3)]
        value, slope = parts[0][0].abs().amax(-1), torch.stack([part[1].abs().amax(-1) for part in parts]).amax(0)
        return "; ".join(f"{name} median {worst.median():.1e}, 99 % {worst.quantile(0.99):.1e}, max {worst.max():.1e}"
                         for name, worst in (("error", value), ("of gradients", slope)))  # fmt: skip

    def finish(self, output: Path, *, progress: Progress) -> Path:
        """Fold the basis into the last layer, write weights and description, measure the errors and write the card."""
        emulator = self.frozen()
        golden = golden_profiles()
        check_golden(emulator, golden, "the trained network")
        tensors = {key: value.detach().cpu().contiguous() for key, value in emulator.state_dict().items()}
        write_atomically(output / WEIGHTS_FILE, save(tensors, metadata={"model": f"{emulator.name} version {emulator.version}"}))
        description = {"kind": emulator.name, "version": emulator.version, "sha256": file_hash(output / WEIGHTS_FILE),
                       "hidden": self.options.hidden, "depth": self.options.depth, "seed": self.seed,
                       "training": self.options.model_dump(), "golden": golden}
        write_atomically(output / DESCRIPTION_FILE, to_json(description))
        progress.start("measuring the errors", None)
        tables = {name: measure(model, profiles=self.options.card_profiles) for name, model in
                  (("nuker-mge", emulator), ("nuker-mge-step", NukerStep(emulator)), ("nuker-mge-solve", NukerSolve()))}
        write_card(output.parent / "card.md", description, tables)
        progress.done(f"wrote {output}")
        return output

    @torch.no_grad()
    def frozen(self) -> NukerEmulator:
        """The emulator with the trained layers, on the CPU."""
        *hidden, last = [item.detach().cpu() for item in self.parameters]
        folded = last @ self.basis.cpu()
        folded[-1] += self.mean.cpu()
        emulator = NukerEmulator(self.solve.width_ratio.cpu(), hidden=self.options.hidden, depth=self.options.depth)
        for layer, value in zip(emulator.layers, [*hidden, folded], strict=True):
            layer.copy_(value)
        return emulator.requires_grad_(False).eval()

    def _rows(self, profiles: Profiles, axis: int) -> tuple[Tensor, Tensor]:
        """Weighted relative error of every row, and that of its derivative by one parameter (forward mode, by hand)."""
        *hidden, last = self.parameters
        d_inputs, d_scale, d_target, sensitivity = profiles.along(axis)
        state, slope = profiles.inputs, d_inputs
        for layer in hidden:
            before = torch.addmm(layer[-1], state, layer[:-1])
            gate = torch.sigmoid(before)
            state, slope = before * gate, (slope @ layer[:-1]) * (gate + before * gate * (1.0 - gate))
        unknown = self.mean + torch.addmm(last[-1], state, last[:-1]) @ self.basis
        changing = (slope @ last[:-1]) @ self.basis
        value = ((unknown * profiles.scale) @ self.rows.design.T) * profiles.over_target
        change = ((changing * profiles.scale + unknown * d_scale) @ self.rows.design.T) * profiles.over_target
        return value - profiles.row_weight, (change - value * d_target) / sensitivity.unsqueeze(-1)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        alpha, beta, gamma = draw_shapes(count, generator, edge=self.options.edge)
        return alpha.to(self.device), beta.to(self.device), gamma.to(self.device)

    @torch.no_grad()
    def _tabulate(self, shapes: tuple[Tensor, Tensor, Tensor]) -> Profiles:
        parts = [self._tabulated(*part) for part in zip(*(item.split(CHUNK) for item in shapes), strict=True)]
        return Profiles(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _tabulated(self, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Profiles:
        def tables(alpha: Tensor, difference: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            shape = (alpha, gamma + difference, gamma)
            scale = weight_scale(self.emulator.log_width, self.emulator.spacing, *shape)
            return features(*shape), scale, torch.log(self.rows.targets(*shape))

        point = (alpha, beta - gamma, gamma)
        inputs, scale, log_target = tables(*point)
        derivatives = []
        for axis in range(3):
            tangent = tuple(torch.full_like(item, float(k == axis)) for k, item in enumerate(point))
            derivatives.append(torch.func.jvp(tables, point, tangent)[1])
        d_inputs, d_scale, d_target = (torch.stack(column, dim=1) for column in zip(*derivatives, strict=True))
        targets = torch.exp(log_target)
        row_weight = self._row_weight(targets)
        # of the rows beyond the break, the only ones that count for the smallest break radius
        radius = torch.cat([torch.exp(self.rows.log_density_radius), self.rows.mass_radius])
        sensitivity = torch.where(radius >= 1.0, d_target.abs(), 0.0).amax(-1)
        return Profiles(inputs, scale, row_weight / targets, row_weight, d_inputs, d_scale, d_target, sensitivity)

    def _row_weight(self, targets: Tensor) -> Tensor:
        radius = self.rows.mass_radius
        density_weight = torch.where(self.rows.log_density_radius < math.log(1e-3), 0.2, 1.0).to(targets)
        velocity = torch.sqrt(targets[:, density_weight.numel() :] / radius)
        top = velocity[:, (radius >= 1e-3) & (radius <= 2.5)].amax(1, keepdim=True)
        mass_weight = 0.5 * (velocity / (0.05 * top)).clamp(0.1, 1.0) * torch.where(radius < 1e-3, 0.3, 1.0)
        return torch.cat([density_weight.expand(targets.shape[0], -1), mass_weight], dim=1)

    @torch.no_grad()
    def _output_basis(self, shapes: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean of the exact solves, and the matrix from unit-variance, uncorrelated outputs to unknowns."""
        count = min(self.options.teachers, self.options.samples)
        metric = 1e-6 * torch.eye(self.profiles.scale.shape[1], dtype=torch.float64, device=self.device)
        unknown = []
        for first in range(0, count, CHUNK):
            part = slice(first, min(first + CHUNK, count))
            scale = self.profiles.scale[part]
            unknown.append(self.solve.weights(*(item[part] for item in shapes)) / scale)
            rows = self.rows.design * scale.unsqueeze(1) * self.profiles.over_target[part].unsqueeze(2)
            metric = metric + torch.einsum("nij,nik->jk", rows, rows) / count
        exact = torch.cat(unknown)
        mean = exact.mean(0)
        root = torch.linalg.cholesky(metric).T
        spread, axes = torch.linalg.eigh(torch.cov(((exact - mean) @ root.T).T))
        size = spread.clamp(min=1e-12).sqrt()
        return mean, torch.linalg.solve_triangular(root, axes * size, upper=True).T.flip(0).contiguous()

    def _initial(self, generator: torch.Generator) -> list[Tensor]:
        layers = []
        for number, layer in enumerate(self.emulator.layers):
            rows, columns = layer.shape
            last = number == len(self.emulator.layers) - 1
            value = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * ((0.1 if last else 1.0) / math.sqrt(rows - 1))
            value[-1] = 0.0 if last else 0.5 * torch.randn(columns, generator=generator, dtype=torch.float64)
            layers.append(value.to(self.device).requires_grad_())
        return layers


def golden_profiles() -> dict[str, object]:
    """Surface density and enclosed mass of a few profiles by Abel inversion, kept beside the weights and checked at load."""
    radius = np.array(GOLDEN_RADII)
    density, mass = [], []
    for alpha, beta, gamma in GOLDEN_SHAPES:
        soft = np.logaddexp(0.0, alpha * np.log(radius))
        density.append(np.exp((beta - gamma) / alpha * (math.log(2.0) - soft) - gamma * np.log(radius)).tolist())
        mass.append(NukerDeprojection(alpha, beta, gamma).enclosed_mass(radius).tolist())
    return {"radius": list(GOLDEN_RADII), "shape": [list(item) for item in GOLDEN_SHAPES], "density": density, "enclosed_mass": mass,
            "tolerance": GOLDEN_TOLERANCE}


def build(recipe: Recipe) -> NukerTraining:
    """The problem of a recipe with ``kind = "nuker-mge"``."""
    seed = recipe.train.seed if recipe.train else 1
    return NukerTraining(options_of(recipe, Options), seed)
