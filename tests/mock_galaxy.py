"""The demo's galaxy, off the phase centre, so that no test can pass by symmetry."""

from __future__ import annotations

import tomllib
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "data_reduction/mock-ngc4697/recipe.toml"

TRUTH: dict[str, float] = {**tomllib.loads(RECIPE.read_text(encoding="utf-8"))["simulate"]["truth"], "x": 0.1, "y": -0.05}
