"""Errors of the circular velocity, as JSON: ``python benchmarks/velocity.py``.

The kernel of one Gaussian against mpmath (25 digits) for R / sigma from 1e-3 to 1e4 and intrinsic axis ratios from 0.05 to 1, in float64
and float32; whole expansions with widths 1e7 apart against sums of mpmath's kernels, at inclinations up to 90 deg, in both precisions; the
table that fits use against the exact kernel. All are relative errors of v^2.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import mpmath
import numpy as np
import torch

from supermage.constants import GRAVITATIONAL_CONSTANT
from supermage.forward.mge import MGE
from supermage.forward.velocity import ScaleFreeCurve, gaussian_kernel
from supermage.models.nuker_errors import draw_profiles
from supermage.models.registry import load_model

AXIS_RATIOS = (0.05, 0.1, 0.2, 0.4, 0.7, 0.95, 0.999, 1.0)
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


def exact_kernel(ratio: float, axis_ratio: float) -> float:
    """``int_0^1 T^2 exp(-T^2 x^2 / 2) / sqrt(1 - (1 - q^2) T^2) dT`` by mpmath's adaptive quadrature."""
    with mpmath.workdps(25):
        x, eccentricity = mpmath.mpf(ratio), 1 - mpmath.mpf(axis_ratio) ** 2
        cuts = sorted({mpmath.mpf(min(1.0, cut)) for cut in (1 / ratio, 3 / ratio, 6 / ratio, 10 / ratio, 0.9, 0.99, 0.999, 1.0)})
        return float(mpmath.quad(lambda t: t**2 * mpmath.exp(-(t**2) * x**2 / 2) / mpmath.sqrt(1 - eccentricity * t**2), [0, *cuts]))


def kernel() -> dict[str, float]:
    """Largest relative error of the kernel in each precision."""
    worst = dict.fromkeys(PRECISIONS, 0.0)
    for ratio in np.geomspace(1e-3, 1e4, 29):
        for axis_ratio in AXIS_RATIOS:
            truth = exact_kernel(float(ratio), axis_ratio)
            for name, dtype in PRECISIONS.items():
                got = gaussian_kernel(torch.tensor(ratio, dtype=dtype), torch.tensor(axis_ratio, dtype=dtype)).item()
                worst[name] = max(worst[name], abs(got / truth - 1.0))
    return worst


def expansions() -> dict[str, float]:
    """Largest relative error of v^2 of random positive expansions."""
    worst = dict.fromkeys(PRECISIONS, 0.0)
    rng = np.random.default_rng(1)
    for inclination in (50.0, 76.0, 90.0):
        sigma = np.geomspace(1e-2, 1e5, 6)
        peak = 10.0 ** rng.uniform(-1, 1, 6) / sigma
        angle = math.radians(inclination)
        intrinsic = rng.uniform(0.05, 1.0, 6)
        observed = np.sqrt((intrinsic * math.sin(angle)) ** 2 + math.cos(angle) ** 2)
        radius = np.geomspace(1e-5, 1e7, 25)
        kernels = np.array([[exact_kernel(float(r / s), float(q)) for s, q in zip(sigma, intrinsic, strict=True)] for r in radius])
        strength = peak * observed / (sigma * math.sqrt(2.0 * math.pi))
        truth = 4.0 * math.pi * GRAVITATIONAL_CONSTANT * radius**2 * (kernels @ strength)
        for name, dtype in PRECISIONS.items():
            mge = MGE(*(torch.tensor(item, dtype=dtype) for item in (peak, sigma, observed)))
            got = mge.circular_velocity(torch.tensor(radius, dtype=dtype), inclination=torch.tensor(inclination, dtype=dtype)).double() ** 2
            worst[name] = max(worst[name], float(np.abs(got.numpy() / truth - 1.0).max()))
    return worst


def table() -> dict[str, float]:
    """Largest relative error of the tabulated curve over the box, its corners and faces, from 1e-3 to 2500 break radii."""
    model, profiles = load_model("nuker-mge"), draw_profiles(200, 7)
    curve, worst = ScaleFreeCurve(model.width_ratio), 0.0
    radius = torch.exp(torch.cat([torch.linspace(-6.9, 7.8, 300), torch.linspace(-1.5, 1.5, 600)]).double())
    shapes = torch.from_numpy(np.concatenate([profiles[group][:, :3] for group in ("corners", "random", "faces")]))
    weights = model.weights(*shapes.T)
    for axis_ratio in AXIS_RATIOS:
        q = torch.tensor(axis_ratio, dtype=torch.float64)
        exact = 4.0 * math.pi * radius**2 * ((weights / model.width_ratio) @ gaussian_kernel(radius[:, None] / model.width_ratio, q).mT)
        tabulated = curve.velocity_squared(weights, q.expand(len(weights)))
        got = curve.interpolate(tabulated, torch.log(radius).expand(len(weights), -1)) * math.sqrt(2.0 * math.pi)
        worst = max(worst, float((got / exact - 1.0).abs().max()))
    return {"float64": worst}


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures: dict[str, Any] = {"kernel": kernel(), "expansions": expansions(), "table used in fits": table()}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
