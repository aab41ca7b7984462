"""supermage.sample against the eight reference posteriors of posteriordb; prints JSON.

    python benchmarks/posteriordb.py [--kernels mala persistent-mala hmc] [--draws 1000] [--warmup 800] [--posteriors arK blr]

For each posterior and kernel: the worst deviation of a mean and of a mean square about the reference mean, in standard errors of both
sides, the worst R-hat, the smallest effective sample size, gradients a chain, and seconds. ``--stan-scale`` leaves out the change of
coordinates in which gp_pois_regr is sampled. Densities and draws are those of the tests (``SUPERMAGE_REFERENCE_DATA``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supermage.inference.langevin import KERNELS
from supermage.inference.sampling import sample
from tests.inference.reference_posteriors import POSTERIORS, REAL, Posterior, compare, load

DATA = Path(os.environ.get("SUPERMAGE_REFERENCE_DATA") or Path(__file__).resolve().parents[2] / "shared/data") / "posteriordb"


def run(posterior: Posterior, kernel: str, given: argparse.Namespace) -> dict[str, Any]:
    """One kernel's figures on one posterior."""
    share = 4 if kernel == "hmc" else 1
    began = time.monotonic()
    data = sample(
        posterior.sampled_density, posterior.starts(given.chains, given.seed), kernel=kernel,
        draws=max(1, given.draws // share), warmup=given.warmup // share, seed=given.seed,
    )  # fmt: skip
    seconds = time.monotonic() - began
    found = compare(posterior, torch.from_numpy(data["posterior"]["x"].values))
    return {
        "worst_mean": round(float(np.abs(found.mean).max()), 2),
        "worst_spread": round(float(np.abs(found.spread).max()), 2),
        "worst_rhat": round(found.rhat, 4),
        "smallest_ess": round(found.ess, 1),
        "gradients": data.attrs["gradients"] // given.chains,
        "draw_gradients": data.attrs["draw_gradients"] // given.chains,
        "step_size": float(data["sample_stats"]["step_size"][0, 0]),
        "acceptance": round(float(data["sample_stats"]["acceptance_rate"].mean()), 3),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Print the figures of every posterior and kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posteriors", nargs="+", choices=POSTERIORS, default=list(POSTERIORS))
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=["mala", "persistent-mala", "hmc"])
    parser.add_argument("--draws", type=int, default=1000, help="steps a chain; a quarter of them, and of the warm-up, for hmc")
    parser.add_argument("--warmup", type=int, default=800)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stan-scale", action="store_true", help="sample on the scale of the Stan files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name in given.posteriors:
        posterior = load(DATA, name)
        if given.stan_scale:
            posterior = dataclasses.replace(posterior, chart=REAL.constrain)
        figures[name] = {kernel: run(posterior, kernel, given) for kernel in given.kernels}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
