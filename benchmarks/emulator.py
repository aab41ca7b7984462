"""Errors and speed of the shipped emulator, alone and with one exact step, and of the exact solve, as JSON.

python benchmarks/emulator.py [profiles] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from supermage.models.nuker_errors import measure
from supermage.models.nuker_mge import NukerMGE
from supermage.models.registry import load_model


def milliseconds(model: NukerMGE, *, repeats: int = 200) -> dict[str, float]:
    """Time of one call of ``weights``, and of one with its gradient, on one thread."""
    torch.set_num_threads(1)
    shape = [torch.tensor(item, dtype=torch.float64, requires_grad=True) for item in (2.0, 2.0, 0.8)]

    def timed(call: object) -> float:
        assert callable(call)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(repeats // 5):
                call()
            best = min(best, (time.perf_counter() - start) / (repeats // 5))
        return 1e3 * best

    with torch.no_grad():
        forward = timed(lambda: model.weights(*shape))
    return {"weights_ms": forward, "weights_and_gradient_ms": timed(lambda: torch.autograd.grad(model.weights(*shape).sum(), shape))}


GOALS = {"surface_density": "0.03, 0.3, 1 %", "velocity": "0.01, 0.1, 0.5 %", "gradient": "-, 1.5 %, -"}
"""Median, 99 % and largest error aimed at, by what a quantity's name starts with."""


def rows(name: str, errors: dict[str, Any]) -> list[str]:
    """A model's rows of the table in docs/forward.md: median and 99 % of the random profiles, the largest of all."""
    out = []
    for quantity, figures in errors["random"].items():
        if quantity == "not_positive" or quantity.endswith("beyond_5pc"):
            continue
        goal = next(words for start, words in GOALS.items() if quantity.startswith(start))
        largest = max(errors[group][quantity]["max"] for group in ("random", "corners", "faces"))
        numbers = (f"{100.0 * item:.2g} %" for item in (figures["median"], figures["99%"], largest))
        out.append(f"| `{name}` | {quantity.replace('_', ' ')} | {goal} | {' | '.join(numbers)} |")
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", type=int, nargs="?", default=2000, help="random profiles")
    parser.add_argument("--markdown", action="store_true", help="print the rows of docs/forward.md instead")
    given = parser.parse_args()
    result, lines = {}, []
    for name in ("nuker-mge", "nuker-mge-step", "nuker-mge-solve"):
        start = time.perf_counter()
        model = load_model(name)
        load = time.perf_counter() - start
        result[name] = {"load_s": load, **milliseconds(model), "errors": measure(model, profiles=given.profiles)}
        lines += rows(name, result[name]["errors"])
    print("\n".join(lines) if given.markdown else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
