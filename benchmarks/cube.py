"""How far the cube and the visibilities of the demo's galaxy are converged, as JSON: ``python benchmarks/cube.py [--points 24 72]``.

The cube is held against a plain sum over 24 x 24 points in every pixel, and over 72 x 72 (24 are not enough nearly edge-on, which the last
comparison shows; at 89 deg 96 and 288), written here: the flux in a wrong voxel, and the largest error of a voxel in units of the peak.
The visibilities (which do not come from a cube) against nodes twice as dense along each axis and a disc 1.5 times as large. Cases: the
demo, nearly edge-on, narrow lines, off centre, and black holes whose sphere of influence is a fraction of a pixel.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import numpy as np
import torch
from forward import SIZES, build, truth
from numpy.typing import NDArray
from scipy.special import erf

from supermage.constants import SPEED_OF_LIGHT
from supermage.forward.galaxy_model import GalaxyModel

SIZE = "demo 64x64x40, 2 blocks"
CASES: dict[str, dict[str, float]] = {
    "demo": {},
    "inclination 85 deg": {"inclination": 85.0},
    "inclination 89 deg": {"inclination": 89.0},
    "line 3 km/s wide": {"line_broadening": 3.0},
    "off centre": {"x": 0.437, "y": -0.291, "PA": 131.0},
    "small disc": {"scale_length": 0.15},
    "sphere of influence 2 pixels": {"sphere": 2.0},
    "sphere of influence 1 pixel": {"sphere": 1.0},
    "sphere of influence half a pixel": {"sphere": 0.5},
}


FINER = {"inclination 89 deg": 4}
"""Factor on the points of the references, where the disc is thinner than they resolve."""


def with_sphere(model: GalaxyModel, theta: dict[str, float], pixels: float) -> dict[str, float]:
    """The parameters with the black hole that pulls as much as the stars at so many pixels from the centre."""
    where = torch.tensor([pixels * model.grid.pixel_scale], dtype=torch.float64)
    stars, hole = (float(model.circular_velocity(tensors(theta), where, part)) for part in ("stars", "black_hole"))
    return {**theta, "log10_mbh": theta["log10_mbh"] + 2.0 * math.log10(stars / hole)}


def tensors(theta: dict[str, float]) -> dict[str, torch.Tensor]:
    """Parameters as float64 scalars."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in theta.items()}


def plain_cube(model: GalaxyModel, theta: dict[str, float], points: int) -> NDArray[np.float64]:
    """The cube (block, chan, y, x), Jy per pixel, as a plain sum over points of equal weight, in numpy, one line of points at a time.

    Points beyond 16 scale lengths, where 2e-6 of the flux is, are left out: nearly edge-on they are nearly all.
    """
    axis, step = model.grid.axis, model.grid.pixel_scale / points
    offset = model.grid.pixel_scale * ((np.arange(points) + 0.5) / points - 0.5)
    fine = (axis[:, None] + offset).ravel()
    angle, tilt = math.radians(theta["PA"]), math.radians(theta["inclination"])
    seen = 1.0 - theta["systemic_velocity"] / SPEED_OF_LIGHT  # radio convention
    peak = theta["Flux"] * step**2 / (2 * math.pi * theta["scale_length"] ** 2 * math.cos(tilt))
    cube = np.zeros((*model.channels.matrix.shape[:2], axis.size, axis.size))
    for row, centre in enumerate(axis):
        below = np.zeros((*model.channels.edges.shape, axis.size))
        for north in centre + offset:
            along = (fine - theta["x"]) * math.sin(angle) + (north - theta["y"]) * math.cos(angle)
            across = ((north - theta["y"]) * math.sin(angle) - (fine - theta["x"]) * math.cos(angle)) / math.cos(tilt)
            radius = np.maximum(np.hypot(along, across), 1e-6)
            kept = np.flatnonzero(radius < 16.0 * theta["scale_length"])
            if not kept.size:
                continue
            radius, pixel = radius[kept], kept // points
            speed = model.circular_velocity(tensors(theta), torch.from_numpy(radius)).numpy()
            velocity = theta["systemic_velocity"] + seen * speed * math.sin(tilt) * along[kept] / radius
            flux = peak * np.exp(-radius / theta["scale_length"])
            beam = model.beam_deviation
            if beam is not None:
                flux *= np.exp(-(fine[kept] ** 2 + north**2) / (2 * beam**2))
            where, first = np.unique(pixel, return_index=True)
            for block, edges in enumerate(model.channels.edges):
                line = 0.5 * flux * erf((edges[:, None] - velocity) / (math.sqrt(2.0) * seen * theta["line_broadening"]))
                below[block][:, where] += np.add.reduceat(line, first, axis=1)
        cube[:, :, row] = model.channels.matrix @ below
    return cube


def compare(cube: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, float]:
    """Share of the flux in wrong voxels, and the worst voxel in units of the peak, in per cent."""
    difference = np.abs(cube - reference)
    return {
        "flux_in_wrong_voxels_percent": float(50.0 * difference.sum() / np.abs(reference).sum()),
        "worst_voxel_percent_of_peak": float(100.0 * difference.max() / np.abs(reference).max()),
    }


def measure(name: str, points: list[int]) -> dict[str, Any]:
    """Figures of one case."""
    model, changes = build(SIZES[SIZE], "nuker-mge"), dict(CASES[name])
    points = [FINER.get(name, 1) * number for number in points]
    sphere = changes.pop("sphere", None)
    theta = {**truth(), **changes}
    if sphere is not None:
        theta = with_sphere(model, theta, sphere)
    began = time.perf_counter()
    with torch.no_grad():
        cube = model.cube(tensors(theta)).double().numpy()
        seconds = time.perf_counter() - began
        references = {number: plain_cube(model, theta, number) for number in points}
    figures = {f"against {number} x {number}": compare(cube, reference) for number, reference in references.items()}
    figures["the first reference against the last"] = compare(*(references[number] for number in (points[0], points[-1])))
    return {
        "log10_mbh": round(theta["log10_mbh"], 3),
        **figures,
        "seconds": round(seconds, 3),
        "visibilities_rms_error_percent": 100.0 * model.discretisation_error(tensors(theta)),
    }


def main() -> None:
    """Print every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[24, 72], help="points along a pixel's side in the references")
    points = parser.parse_args().points
    print(json.dumps({name: measure(name, points) for name in CASES}, indent=1))


if __name__ == "__main__":
    main()
