"""Measured errors of a map from Nuker profiles to Gaussians, against the direct deprojection."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from supermage.forward.deprojection import NukerDeprojection
from supermage.forward.velocity import ScaleFreeCurve, gaussian_kernel
from supermage.models.nuker_mge import BOX, NukerMGE

AXIS_RATIOS = (1.0, 0.3, 0.1)
DENSITY_RANGE, VELOCITY_RANGE, RESOLVED_FROM = (2.0, 10_000.0), (2.0, 5_000.0), 5.0
VELOCITY_FLOOR = 0.05
CHUNK = 100

Array = NDArray[np.float64]
Expansion = Callable[[float, float, float, float], tuple[torch.Tensor, torch.Tensor]]


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
        2 pc - 10 kpc. Velocity: 2 pc - 5 kpc (and beyond 5 pc), divided by the larger of v and 5 % of the curve's maximum. Gradients:
        of ln(surface density) and of ln(velocity) for q = 1, by alpha, beta - gamma and gamma, each divided by its largest exact value
        over the same radii; the worst of the three.
        ``not_positive``: profiles whose density or v^2 is not positive somewhere in these ranges.
    """
    curve = ScaleFreeCurve(model.width_ratio)

    def rows(shapes: Array) -> list[dict[str, float]]:
        weights, slopes = weights_and_slopes(model, shapes)
        curves = {q: curve.velocity_squared(weights, torch.full((len(shapes),), q, dtype=torch.float64)) for q in AXIS_RATIOS}
        found = []
        for k, shape in enumerate(shapes):
            log_radius = torch.from_numpy(np.log(velocity_radii() / shape[3]))
            squared = {q: curve.interpolate(values[k], log_radius).numpy() for q, values in curves.items()}
            errors = profile_errors(shape, model.width_ratio, weights[k], squared)
            found.append(errors | gradient_errors(model, shape, weights[k], slopes[k], curve))
        return found

    return _tables(rows, profiles, seed)


def measure_physical(expansion: Expansion, *, profiles: int = 2000, seed: int = 20260) -> dict[str, Any]:
    """As :func:`measure`, without the gradients, for a function from (alpha, beta, gamma, break radius) to widths (pc) and peaks."""

    def rows(shapes: Array) -> list[dict[str, float]]:
        found = []
        for shape in shapes:
            sigma, weights = expansion(*(float(item) for item in shape))
            ratio = sigma / shape[3]
            x = torch.from_numpy(velocity_radii() / shape[3])[:, None]
            strength = 4.0 * np.pi / np.sqrt(2.0 * np.pi) * weights / ratio
            kernels = {q: gaussian_kernel(x / ratio, torch.tensor(q, dtype=torch.float64)) for q in AXIS_RATIOS}
            squared = {q: (x[:, 0] ** 2 * (kernel @ strength)).numpy() for q, kernel in kernels.items()}
            found.append(profile_errors(shape, ratio, weights, squared))
        return found

    return _tables(rows, profiles, seed)


def _tables(rows: Callable[[Array], list[dict[str, float]]], profiles: int, seed: int) -> dict[str, Any]:
    table: dict[str, Any] = {"profiles": profiles, "seed": seed}
    for group, shapes in draw_profiles(profiles, seed).items():
        found = rows(shapes)
        quantities = [key for key in found[0] if key != "not_positive"]
        entry: dict[str, Any] = {key: _summary(np.array([row[key] for row in found]), shapes) for key in quantities}
        entry["not_positive"] = int(sum(row["not_positive"] for row in found))
        table[group] = entry
    return table


def velocity_radii() -> Array:
    """Radii (pc) at which velocities are compared."""
    return np.geomspace(*VELOCITY_RANGE, 120)


def profile_errors(shape: Array, width_ratio: torch.Tensor, weights: torch.Tensor, squared: dict[float, Array]) -> dict[str, float]:
    """Errors of one profile: keys as in :func:`measure`.

    Parameters
    ----------
    shape
        alpha, beta, gamma, break radius (pc).
    width_ratio, weights
        Widths in break radii, and peaks for ``Sigma_b = 1``.
    squared
        Axis ratio -> ``v^2 / (G Sigma_b r_b q')`` at :func:`velocity_radii`.
    """
    alpha, beta, gamma, scale = (float(item) for item in shape)
    log_ratio = np.log(np.geomspace(*DENSITY_RANGE, 240) / scale)
    truth = np.exp(log_profile(alpha, beta, gamma, log_ratio))
    ratio = torch.from_numpy(np.exp(log_ratio))
    got = (torch.exp(-0.5 * (ratio[:, None] / width_ratio) ** 2) @ weights).numpy()
    errors = {"surface_density": float(np.abs(got / truth - 1.0).max())}
    positive = bool((got > 0).all())
    radius = velocity_radii()
    for q, values in squared.items():
        velocity = np.sqrt(_exact_force(alpha, beta, gamma, scale, q, len(radius)))
        positive = positive and bool((values > 0).all())
        error = np.abs(np.sqrt(np.maximum(values, 0.0)) - velocity) / np.maximum(velocity, VELOCITY_FLOOR * velocity.max())
        errors[f"velocity_q{q:g}"] = float(error.max())
        errors[f"velocity_q{q:g}_beyond_5pc"] = float(error[radius >= RESOLVED_FROM].max())
    return {**errors, "not_positive": float(not positive)}


@lru_cache(maxsize=4096)
def _exact_force(alpha: float, beta: float, gamma: float, scale: float, axis_ratio: float, number: int) -> Array:
    """By direct deprojection, at so many radii of the velocities' range; kept, since several models are held against the same profiles."""
    return np.asarray(NukerDeprojection(alpha, beta, gamma).force(np.geomspace(*VELOCITY_RANGE, number) / scale, axis_ratio))


def weights_and_slopes(model: NukerMGE, shapes: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (profile, gauss), and by automatic differentiation their slopes along alpha, beta - gamma and gamma (profile, gauss, 3)."""
    point = torch.from_numpy(np.stack([shapes[:, 0], shapes[:, 1] - shapes[:, 2], shapes[:, 2]], axis=1))

    def weights(item: torch.Tensor) -> torch.Tensor:
        return model.weights(item[..., 0], item[..., 2] + item[..., 1], item[..., 2])

    with torch.no_grad():
        slopes = torch.func.vmap(torch.func.jacfwd(weights), chunk_size=CHUNK)(point)
        return weights(point), slopes


def gradient_errors(model: NukerMGE, shape: Array, weights: torch.Tensor, slopes: torch.Tensor, curve: ScaleFreeCurve) -> dict[str, float]:
    """Errors of one profile's gradients: keys as in :func:`measure`."""
    alpha, beta, gamma, scale = (float(item) for item in shape)
    log_density, log_velocity = (np.log(np.geomspace(*limits, 60) / scale) for limits in (DENSITY_RANGE, VELOCITY_RANGE))
    design = torch.exp(-0.5 * (torch.from_numpy(np.exp(log_density))[:, None] / model.width_ratio) ** 2)
    curves = curve.velocity_squared(torch.cat([weights[None], slopes.T]), torch.ones(4, dtype=torch.float64))
    force = curve.interpolate(curves, torch.from_numpy(log_velocity).expand(4, -1))
    got = {"density": (design @ slopes).numpy().T / (design @ weights).numpy(), "velocity": (0.5 * force[1:] / force[0]).numpy()}
    worst = dict.fromkeys(got, 0.0)
    for axis, value in enumerate((alpha, beta - gamma, gamma)):
        step = 1e-4 * max(value, 0.05)
        above, below = ([alpha, beta - gamma, gamma] for _ in range(2))
        above[axis], below[axis] = value + step, value - step
        sides = [(item[0], item[2] + item[1], item[2]) for item in (above, below)]
        exact = {
            "density": (log_profile(*sides[0], log_density) - log_profile(*sides[1], log_density)) / (2.0 * step),
            "velocity": np.log(np.divide(*(_exact_force(*side, scale, 1.0, len(log_velocity)) for side in sides))) / (4.0 * step),
        }
        for name, truth in exact.items():
            worst[name] = max(worst[name], float(np.abs(got[name][axis] - truth).max() / np.abs(truth).max()))
    return {f"gradient_{name}": value for name, value in worst.items()}


def log_profile(alpha: float, beta: float, gamma: float, log_ratio: Array) -> Array:
    """Natural logarithm of the Nuker profile in units of its value at the break, in numpy."""
    return np.asarray((beta - gamma) / alpha * (np.log(2.0) - np.logaddexp(0.0, alpha * log_ratio)) - gamma * log_ratio)


def _summary(errors: Array, shapes: Array) -> dict[str, Any]:
    worst = shapes[int(errors.argmax())]
    return {
        "median": float(np.median(errors)),
        "99%": float(np.quantile(errors, 0.99)),
        "max": float(errors.max()),
        "worst": dict(zip(("alpha", "beta", "gamma", "break_radius"), (float(f"{item:.4g}") for item in worst), strict=True)),
    }
