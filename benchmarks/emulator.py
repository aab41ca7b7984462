"""Errors and speed of the shipped emulator and of the exact solve, as JSON: ``python benchmarks/emulator.py [profiles]``."""

from __future__ import annotations

import json
import sys
import time

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


def main() -> None:
    """Print the table."""
    profiles = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    result = {}
    for name in ("nuker-mge", "nuker-mge-solve"):
        start = time.perf_counter()
        model = load_model(name)
        load = time.perf_counter() - start
        result[name] = {"load_s": load, **milliseconds(model), "errors": measure(model, profiles=profiles)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
