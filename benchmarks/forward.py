"""Speed, memory and accuracy of the forward model and the likelihood, one thread unless told otherwise; prints JSON.

python benchmarks/forward.py [--emulator nuker-mge] [--threads 1] [--device cpu] [--repeat 15] [--output forward.json]

Per size, in float32 with primary beam and Hanning response: seconds for the visibilities, for the whole likelihood (whitened along
channels, continuum marginalised, Student's t) with its gradient by all 15 parameters, for that of four chains together (a chain), for the
Jacobian, and for the emulator alone; peak memory of a process of its own; the discretisation error (against twice the nodes along each
axis) and that of single precision, as relative rms and as chi^2 at 0.6 mJy a channel and block.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supermage.constants import CO_2_1_FREQUENCY, SPEED_OF_LIGHT
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.forward.galaxy_model import GalaxyModel
from supermage.inference.likelihood import VisibilityNoise
from supermage.models.registry import load_model
from supermage.recipe import load_recipe

DEMO = Path(__file__).parents[1] / "data_reduction/mock-ngc4697/recipe.toml"
OFF_CENTRE = {"x": 0.1, "y": -0.07}
SIZES: dict[str, dict[str, Any]] = {
    "demo 64x64x40, 2 blocks": {"n_pixel": 64, "pixel_scale": 0.12, "channels": 40, "width": 15.625e6, "blocks": 2, "reach": 22},
    "64x64x40, 2 blocks, all cells": {"n_pixel": 64, "pixel_scale": 0.12, "channels": 40, "width": 15.625e6, "blocks": 2, "reach": 31},
    "64x64x64, 1 block": {"n_pixel": 64, "pixel_scale": 0.12, "channels": 64, "width": 10e6, "blocks": 1, "reach": 22},
    "128x128x64, 1 block": {"n_pixel": 128, "pixel_scale": 0.06, "channels": 64, "width": 10e6, "blocks": 1, "reach": 44},
    "128x128x128, 1 block": {"n_pixel": 128, "pixel_scale": 0.06, "channels": 128, "width": 5e6, "blocks": 1, "reach": 44},
    "256x256x64, 1 block": {"n_pixel": 256, "pixel_scale": 0.03, "channels": 64, "width": 10e6, "blocks": 1, "reach": 88},
}
NOISE = 6e-4
CHAINS = 4


def build(size: dict[str, Any], emulator: str, **options: Any) -> GalaxyModel:
    """Model of the demo's galaxy on every cell within ``reach`` of the origin, with random in-cell moments."""
    grid = UVGrid(size["n_pixel"], size["pixel_scale"], 229.58e9)
    rng = np.random.default_rng(1)
    half = size["n_pixel"] // 2
    iu, iv = np.meshgrid(np.arange(half + 1), np.arange(-half, half), indexing="ij")
    inside = (np.hypot(iu, iv) < size["reach"]) & ((iu > 0) | (iv >= 0))
    shape = (size["blocks"], size["channels"], int(inside.sum()))
    mean = np.broadcast_to(rng.uniform(-0.2, 0.2, (shape[0], 1, shape[2], 2)), (*shape, 2)) * grid.cell_size
    square = np.stack([mean[..., 0] ** 2, mean[..., 0] * mean[..., 1], mean[..., 1] ** 2], axis=-1)
    second = square + np.array([0.06, 0.0, 0.06]) * grid.cell_size**2
    frequency = CO_2_1_FREQUENCY * (1 - 1241 / SPEED_OF_LIGHT) + size["width"] * (np.arange(shape[1]) - 0.5 * shape[1])
    return GalaxyModel(
        grid, frequency=np.stack([frequency + 0.3 * block * size["width"] for block in range(shape[0])]), topo_to_frame=np.ones(shape[0]),
        rest_frequency=CO_2_1_FREQUENCY, convention="radio", hanning=True, averaging=1, cell_u=iu[inside], cell_v=iv[inside],
        offset_mean=mean, offset_second=second, distance=11.4, emulator=load_model(emulator), dish_diameter=12.0, primary_beam_factor=1.13,
        **options,
    )  # fmt: skip


def truth() -> dict[str, float]:
    """The demo's galaxy, moved off the phase centre."""
    section = load_recipe(DEMO, needs=("simulate",)).simulate
    assert section is not None
    return {**section.truth, **OFF_CENTRE}


def best(function: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Median wall seconds, least wall seconds and median processor seconds of repeated calls, after two to warm up.

    On a busy machine the processor seconds say more than the wall's.
    """
    function(), function()
    wall, busy = [], []
    for _ in range(repeat):
        start, started = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - started)
    return {"median_s": round(statistics.median(wall), 5), "least_s": round(min(wall), 5), "cpu_s": round(statistics.median(busy), 5)}


def observe(model: GalaxyModel, signal: torch.Tensor) -> GriddedVisibilities:
    """Gridded visibilities of a signal with noise."""
    settings = model._settings
    cell = signal.shape[-1]
    rng = np.random.default_rng(1)
    error = NOISE * math.sqrt(cell)
    mean = signal.numpy() + error * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return GriddedVisibilities(
        grid=model.grid, mean=mean.astype(np.complex128), standard_error=np.full(signal.shape, error),
        degrees_of_freedom=np.full(signal.shape, 200.0), count=np.full(signal.shape, 20, dtype=np.int32),
        block_names=tuple(str(k) for k in range(len(signal))), phase_centre=(192.15, -5.8),
        channel_width=np.abs(np.diff(settings["frequency"], axis=1)[:, 0]), provenance={"source": "benchmark"},
        **{name: np.asarray(settings[name]).astype(np.int32) for name in ("cell_u", "cell_v")},
        **{name: settings[name] for name in ("offset_mean", "offset_second", "frequency", "topo_to_frame", "hanning", "averaging",
                                             "dish_diameter", "primary_beam_factor", "rest_frequency")},
    )  # fmt: skip


def chi_squared(difference: torch.Tensor) -> float:
    """Chi^2 of a difference (block, chan, cell) if the weight of all cells together gives the noise per channel and block."""
    return float(difference.to(torch.complex128).abs().square().mean(-1).sum() / NOISE**2)


def measure(name: str, emulator: str, threads: int, repeat: int, device: str) -> dict[str, Any]:
    """All figures of one size. Each timed function ends on the CPU, which waits for a graphics card."""
    torch.set_num_threads(threads)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    model = build(SIZES[name], emulator).to(device)
    theta = {key: torch.tensor(value, dtype=torch.float64, device=device) for key, value in truth().items()}
    vector = torch.stack(list(theta.values()))
    with torch.no_grad():
        signal = model.visibilities(theta)
    noise = VisibilityNoise(observe(model, signal.cpu())).to(device)

    def residual(point: torch.Tensor) -> torch.Tensor:
        return noise.residual(model.visibilities(dict(zip(theta, point.unbind()))))

    def log_likelihood(point: torch.Tensor) -> torch.Tensor:
        return noise.log_likelihood_of(residual(point))

    def gradient() -> torch.Tensor:
        leaf = vector.clone().requires_grad_()
        log_likelihood(leaf).backward()
        return leaf.grad.cpu()

    def batched() -> torch.Tensor:
        leaf = vector.expand(CHAINS, -1).clone().requires_grad_()
        together = model.visibilities_of_chains(dict(zip(theta, leaf.unbind(-1))))
        torch.func.vmap(lambda one: noise.log_likelihood_of(noise.residual(one)))(together).sum().backward()
        return leaf.grad.cpu()

    def jacobian() -> torch.Tensor:
        def along(tangent: torch.Tensor) -> torch.Tensor:
            return torch.func.jvp(residual, (vector,), (tangent,))[1]

        return torch.func.vmap(along, chunk_size=5)(torch.eye(len(theta), dtype=torch.float64, device=device)).cpu()

    shape = [theta[key] for key in ("alpha", "gamma_minus_beta", "gamma")]
    with torch.no_grad():
        value = best(lambda: model.visibilities(theta).cpu(), repeat)
        weights = best(lambda: model.mass_model.emulator.weights(shape[0], shape[2] - shape[1], shape[2]).cpu(), repeat)
    single = best(gradient, repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    a_chain = {key: round(item / CHAINS, 5) for key, item in best(batched, 3).items()}
    timed = {"value": value, "value_and_gradient": single, "value_and_gradient_a_chain_of_four": a_chain, "jacobian_15": best(jacobian, 3),
             "emulator_value": weights}
    peak_of_all = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with torch.no_grad():
        signal, theta = signal.cpu(), {key: value.cpu() for key, value in theta.items()}
        exact = build(SIZES[name], emulator, dtype=torch.float64).visibilities(theta)
        finer = build(SIZES[name], emulator, dtype=torch.float64, node_density=2.0).visibilities(theta)
    norm = torch.linalg.vector_norm(exact)
    cpu = {key: timing["cpu_s"] for key, timing in timed.items()}
    return {
        "cells": signal.shape[-1], "nodes": 2 * model.node_radius.numel(), **timed, "peak_memory_mib": round(peak),
        "peak_memory_with_jacobian_mib": round(peak_of_all), "memory_before_mib": round(idle),
        "gradient_per_value": round(cpu["value_and_gradient"] / cpu["value"], 2),
        "jacobian_per_gradient": round(cpu["jacobian_15"] / cpu["value_and_gradient"], 2),
        "signal_chi2": round(chi_squared(signal), 1),
        "discretisation": {"relative": float(torch.linalg.vector_norm(exact - finer) / norm), "chi2": chi_squared(exact - finer)},
        "single_precision": {"relative": float(torch.linalg.vector_norm(signal - exact) / norm), "chi2": chi_squared(signal - exact)},
    }  # fmt: skip


def main() -> None:
    """Measure every size in a process of its own and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", default="nuker-mge")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": options.threads,
                              "device": options.device, "emulator": options.emulator, "sizes": {}}
    context = multiprocessing.get_context("spawn")
    for name in SIZES:
        with context.Pool(1) as pool:
            result["sizes"][name] = pool.apply(measure, (name, options.emulator, options.threads, options.repeat, options.device))
    names = ("64x64x64, 1 block", "128x128x64, 1 block", "128x128x128, 1 block")
    first, large, double = (result["sizes"][name]["value_and_gradient"]["cpu_s"] for name in names)
    result["scaling"] = {
        "four times the pixels": round(large / first, 2),
        "twice the channels": round(double / large, 2),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
