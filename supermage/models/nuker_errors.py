"""Measured errors of a map from Nuker profiles to Gaussians, against the direct deprojection."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.forward.deprojection import NukerDeprojection
from supermage.forward.velocity import ScaleFreeCurve
from supermage.models.nuker_mge import BOX, NukerMGE

AXIS_RATIOS = (1.0, 0.3, 0.1)
DENSITY_RANGE, VELOCITY_RANGE, RESOLVED_FROM = (2.0, 10_000.0), (2.0, 5_000.0), 5.0
VELOCITY_FLOOR = 0.05

Array = NDArray[np.float64]


def corners() -> Array:
    """The sixteen corners of the box: alpha, beta, gamma, break radius."""
    edges = itertools.product(*(BOX[key] for key in ("alpha", "gamma", "beta - gamma", "break_radius")))
    return np.array([(alpha, gamma + difference, gamma, scale) for alpha, gamma, difference, scale in edges])


def draw_profiles(count: int, seed: int) -> dict[str, Array]:
    """Test profiles (alpha, beta, gamma, break radius): uniform in the box (log-uniform in the break radius), its corners, and its faces.

    On the faces each of the four parameters sits on an edge with probability one half.
    """
    generator = np.random.default_rng(seed)
    lower, upper = np.array([BOX[key] for key in ("alpha", "gamma", "beta - gamma", "break_radius")]).T
    lower[3], upper[3] = np.log(lower[3]), np.log(upper[3])

    def profiles(unit: Array) -> Array:
        alpha, gamma, difference, log_scale = (lower + (upper - lower) * unit).T
        return np.stack([alpha, gamma + difference, gamma, np.exp(log_scale)], axis=1)

    faces = generator.random((count // 4, 4))
    faces = np.where(generator.random(faces.shape) < 0.5, np.round(faces), faces)
    return {"random": profiles(generator.random((count, 4))), "corners": corners(), "faces": profiles(faces)}


def measure(model: NukerMGE, *, profiles: int = 2000, seed: int = 20260) -> dict[str, Any]:
    """Errors of a model over the box, each the maximum over radii.

    Parameters
    ----------
    model
        The emulator or the exact solve.
    profiles
        Random profiles; 16 corners and a quarter as many profiles on the faces are added.
    seed
        Of the random profiles.

    Returns
    -------
    dict
        For each group of profiles and each quantity: median, 99 %, maximum and the worst parameters. Surface density: relative,
        2 pc - 10 kpc. Velocity: 2 pc - 5 kpc (and beyond 5 pc), divided by the larger of v and 5 % of the curve's maximum.
        ``not_positive``: profiles whose density or v^2 is not positive somewhere in these ranges.
    """
    curve = ScaleFreeCurve(model.width_ratio)
    table: dict[str, Any] = {"profiles": profiles, "seed": seed}
    for group, shapes in draw_profiles(profiles, seed).items():
        weights = model.weights(*torch.from_numpy(shapes[:, :3]).T)
        curves = {q: curve.velocity_squared(weights, torch.full((len(shapes),), q, dtype=torch.float64)) for q in AXIS_RATIOS}
        rows = [profile_errors(model, shape, weights[k], curve, {q: f[k] for q, f in curves.items()}) for k, shape in enumerate(shapes)]
        quantities = [key for key in rows[0] if key != "not_positive"]
        entry: dict[str, Any] = {key: _summary(np.array([row[key] for row in rows]), shapes) for key in quantities}
        entry["not_positive"] = int(sum(row["not_positive"] for row in rows))
        table[group] = entry
    return table


def profile_errors(
    model: NukerMGE, shape: Array, weights: torch.Tensor, curve: ScaleFreeCurve, force: dict[float, torch.Tensor]
) -> dict[str, float]:
    """Errors of one profile: keys as in :func:`measure`."""
    alpha, beta, gamma, scale = (float(item) for item in shape)
    log_ratio = np.log(np.geomspace(*DENSITY_RANGE, 240) / scale)
    soft = np.logaddexp(0.0, alpha * log_ratio)
    truth = np.exp((beta - gamma) / alpha * (np.log(2.0) - soft) - gamma * log_ratio)
    ratio = torch.from_numpy(np.exp(log_ratio))
    got = (torch.exp(-0.5 * (ratio[:, None] / model.width_ratio) ** 2) @ weights).numpy()
    errors = {"surface_density": float(np.abs(got / truth - 1.0).max())}
    positive = bool((got > 0).all())
    radius = np.geomspace(*VELOCITY_RANGE, 120)
    log_radius = torch.from_numpy(np.log(radius / scale))
    reference = NukerDeprojection(alpha, beta, gamma)
    for q, values in force.items():
        squared = curve.interpolate(values, log_radius).numpy()
        velocity = np.sqrt(reference.force(radius / scale, q))
        positive = positive and bool((squared > 0).all())
        error = np.abs(np.sqrt(np.maximum(squared, 0.0)) - velocity) / np.maximum(velocity, VELOCITY_FLOOR * velocity.max())
        errors[f"velocity_q{q:g}"] = float(error.max())
        errors[f"velocity_q{q:g}_beyond_5pc"] = float(error[radius >= RESOLVED_FROM].max())
    return {**errors, "not_positive": float(not positive)}


def _summary(errors: Array, shapes: Array) -> dict[str, Any]:
    worst = shapes[int(errors.argmax())]
    return {
        "median": float(np.median(errors)),
        "99%": float(np.quantile(errors, 0.99)),
        "max": float(errors.max()),
        "worst": dict(zip(("alpha", "beta", "gamma", "break_radius"), (float(f"{item:.4g}") for item in worst), strict=True)),
    }
