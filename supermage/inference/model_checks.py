"""What a fit refuses before hours are spent: lines outside the band, centres outside the image, priors outside the emulator's range."""

from __future__ import annotations

import math
from typing import Any

import torch

from supermage.constants import pc_per_arcsec
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DomainError, RecipeError
from supermage.inference.priors import Priors


def check_line(rest_frequency: float, gridded: GriddedVisibilities, priors: Priors) -> None:
    """Refuse another line than was reduced, and one whose every systemic velocity lies outside the band."""
    if not math.isclose(rest_frequency, gridded.rest_frequency, rel_tol=1e-8):
        reduced = gridded.rest_frequency
        raise RecipeError(f"galaxy.rest_frequency must be that of the reduced data, {reduced:.9g} Hz, got {rest_frequency:.9g} Hz")
    velocity = gridded.velocity
    low, high = float(velocity.min()), float(velocity.max())
    edges = priors.edges
    if "systemic_velocity" in edges and not (edges["systemic_velocity"][0] <= high and low <= edges["systemic_velocity"][1]):
        raise RecipeError(f"the line must lie inside the band, {low:.1f} to {high:.1f} km/s, got systemic velocities of "
                          f"{edges['systemic_velocity'][0]:g} to {edges['systemic_velocity'][1]:g} km/s")


def check_centre(field_of_view: float, priors: Priors) -> None:
    """Refuse centres that all lie outside the image."""
    half, edges = 0.5 * field_of_view, priors.edges
    for name in ("x", "y"):
        low, high = edges.get(name, (0.0, 0.0))
        if low > half or high < -half:
            raise RecipeError(f"the centre must lie inside the image, {-half:g} to {half:g} arcsec, "
                              f"got {name} of {low:g} to {high:g} arcsec")


def check_emulator_range(emulator: Any, priors: Priors, distance: float) -> None:
    """Refuse priors whose corners the emulator was not trained for, before hours are spent."""
    edges = priors.edges
    for side in (0, 1):
        gradient = edges.get("ml_gradient", (0.0, 0.0))[side]
        gamma = edges["gamma"][side] + gradient
        beta = gamma - edges["gamma_minus_beta"][side]
        radius = edges["break_r"][side] * pc_per_arcsec(distance)
        try:
            emulator.check_domain(*(torch.tensor(v, dtype=torch.float64) for v in (edges["alpha"][side], beta, gamma, radius)))
        except DomainError as error:
            words, narrow = str(error), ""
            if gradient and words.startswith("gamma must"):
                words, narrow = f"gamma + ml_gradient{words.removeprefix('gamma')}", ": narrow the prior of gamma or of ml_gradient"
            raise RecipeError(f"the priors must stay inside the emulator's range: {words}{narrow}") from None
