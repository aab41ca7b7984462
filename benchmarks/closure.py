"""Does the fit find the truth of a mock whose sky it does not share? An observation with little noise, and the fit's best point beside it.

    python benchmarks/closure.py [--noise 2e-5] [--seed 7] [--json closure.json]

The demo's galaxy is simulated by `supermage simulate` (spheroid integral, half a million nodes, exact transform), reduced, and climbed
from the truth by Levenberg-Marquardt. Printed as JSON: each parameter's difference from the truth in units of its Laplace error, and twice
the gain in log likelihood, which is a chi-squared of as many degrees of freedom as there are parameters if the model is right to well
within the noise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from scipy.stats import chi2

from supermage.data_reduction.gridded import open_visibilities
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.simulate import simulate
from supermage.inference.model import Chart, PosteriorTarget, build_model
from supermage.inference.start import levenberg_marquardt
from supermage.progress import make_progress
from supermage.recipe import load_recipe

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data_reduction/mock-ngc4697/recipe.toml"
FIT = ROOT / "inference/mock-ngc4697/recipe.toml"


def closure(noise: float, seed: int, folder: Path) -> dict[str, object]:
    """Simulate, reduce, climb; the result as it is printed."""
    recipe = load_recipe(DATA)
    assert recipe.simulate is not None and recipe.reduce is not None
    mock, grid = str(folder / "mock.ms"), str(folder / "visibilities.nc")
    recipe = recipe.model_copy(
        update={
            "simulate": recipe.simulate.model_copy(update={"noise": noise, "seed": seed, "output": mock}),
            "reduce": recipe.reduce.model_copy(update={"measurement_set": mock, "output": grid}),
        }
    )
    simulate(recipe, progress=make_progress())
    reduce(recipe, progress=make_progress())
    fit = build_model(load_recipe(FIT), open_visibilities(Path(grid)))
    truth = {name: float(value) for name, value in json.loads(Path(mock + ".truth.json").read_text())["parameters"].items()}
    target = PosteriorTarget(fit, fit.coordinates(Chart(cut=truth["PA"])))
    coordinates = target.coordinates
    best = levenberg_marquardt(target, coordinates.from_theta(truth), max_iterations=40)
    found = coordinates.to_theta(best.z)[0]
    jacobian = torch.func.jacrev(lambda z: coordinates.vector(coordinates.to_theta(z)[0]))(best.z)
    error = (jacobian @ torch.linalg.inv(best.precision) @ jacobian.mT).diagonal().sqrt()
    at_truth = fit.log_likelihood({name: torch.tensor(value, dtype=torch.float64) for name, value in truth.items()})
    gain = 2.0 * float(fit.log_likelihood(found) - at_truth)
    return {
        "noise": noise,
        "seed": seed,
        "chi2_gain": gain,
        "degrees_of_freedom": len(fit.names),
        "probability": float(chi2.sf(gain, len(fit.names))),
        "parameters": {
            name: {"truth": truth[name], "best": value, "error": e, "sigma": (value - truth[name]) / e}
            for name, value, e in zip(fit.names, coordinates.vector(found).tolist(), error.tolist(), strict=True)
        },
    }


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, default=2e-5, help="Jy per channel and block")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(closure(given.noise, given.seed, Path(folder)), indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
