"""Are predicted masses calibrated: the table of the test part, and that of another simulation; prints JSON.

    python benchmarks/mass_prior.py [--data ../shared/data/galaxies] [--gbdt tng-gbdt] [--shared tng-shared]

- `calibration`: `tng-gbdt` on TNG rows of groups that neither training nor recalibration has seen: coverage, uniformity (two-sample KS,
  Holm over the targets), CRPS, worst third by mass; `targets_met` holds them against what is asked for.
- `out_of_distribution`: `tng-shared`, trained on TNG, on EAGLE's centrals: log10 of the dark-matter fraction within the half-light radius
  R_e. Stars and gas are counted within 30 kpc and R50 holds half of those stars, in both. TNG's masses are known within 1 and 2 R_hsm and a
  few more radii and interpolated to R_e / R50 of each EAGLE galaxy: where R_e < R50 (`inside_r50`) TNG's profiles are extrapolated.
  EAGLE's R_e is of r-band light of all star particles of the subhalo. Widths of 95 % intervals are in f_dm: mean over galaxies, beside
  three populations': the training set's own density, which the model falls back on; TNG's spread within spheres of the same R / R50; and
  EAGLE's own. The criterion, a mean width of 0.8 of the population's at most, goes by the second and narrowest: what TNG says of a sphere
  of which nothing but R / R50 is known. The test is not blind: `discrepancy`, the 0.1 dex that dark masses are moved by in training, was
  chosen after 95 % intervals without it had covered 0.80 of these EAGLE galaxies, so that it shows what widening does, and not what
  coverage to expect on a third simulation.
- `shifted`: how a score tells test rows with wrong numbers: magnitudes 2 mag off, dispersions 3 times too large, ...: share above 1.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supermage.models.eagle_catalogue import read_eagle_centrals
from supermage.models.mass_estimator import MassEstimator, load_mass_estimator
from supermage.models.mass_quantiles import fast_quantiles
from supermage.models.mass_sample import read_shared_sample
from supermage.models.mass_scores import probabilities, score_table
from supermage.models.mass_training import MassTraining, Options, read_sample
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.registry import artefact_folder

ROWS, EAGLE = "tng100-1-z0-subhalos.parquet", "eagle-reference-centrals.txt"
NOT_BLIND = "chosen after seeing 95 % coverage of 0.80 on these EAGLE galaxies without it: their test is not blind"
CRITERION = "TNG, same sphere"
"""The population whose width the mean width is held against."""

ASKED = {"coverage": {"0.50": 0.04, "0.68": 0.04, "0.95": 0.025}, "pit_p_holm": 0.01, "worst_tercile": 0.58,
         "crps": {"log_mstar": 0.022, "log_mtot": 0.027}, "eagle_coverage": 0.93, "eagle_width_ratio": 0.8}  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/galaxies")
    parser.add_argument("--gbdt", default="tng-gbdt")
    parser.add_argument("--shared", default="tng-shared")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    result: dict[str, Any] = {}
    estimator = load_mass_estimator(artefact_folder(arguments.gbdt))
    problem = rebuilt(estimator, arguments.data)
    table = score_table(problem.prior_of_part(estimator, "test"), problem.truth("test"), calibration_rows=len(problem.parts["calibration"]))
    result["calibration"] = {"model": estimator.source, "table": table, "targets_met": targets_met(table)}
    result["shifted"] = shifted(estimator, problem)
    result["out_of_distribution"] = eagle_table(load_mass_estimator(artefact_folder(arguments.shared)), arguments.data)
    print(json.dumps(result, indent=1))


def rebuilt(estimator: MassEstimator, data: Path) -> MassTraining:
    """The sample and split that a model was trained with."""
    options = Options(**{**estimator.about["training"], "rounds": 1, "rows": str(data / ROWS)})
    seed = int(estimator.about["seed"])
    return MassTraining(read_sample(data / ROWS, options, seed), options, seed, estimator.name)


def targets_met(table: dict[str, Any]) -> dict[str, bool]:
    """What is asked for, one verdict a line."""
    main_targets = [table[name] for name in ("log_mstar", "log_mtot")]
    verdict = {f"coverage {level}": all(abs(entry["coverage"][level] - float(level)) <= most for entry in main_targets)
               for level, most in ASKED["coverage"].items()}  # fmt: skip
    verdict["uniform"] = all(entry["pit_p_holm"] > ASKED["pit_p_holm"] for entry in table.values())
    verdict["worst tercile"] = all(min(entry["tercile_coverage"]) >= ASKED["worst_tercile"] for entry in main_targets)
    return verdict | {f"crps {name}": table[name]["crps"] <= most for name, most in ASKED["crps"].items()}


def shifted(estimator: MassEstimator, problem: MassTraining) -> dict[str, float]:
    """Share of test rows with a score above 1, as they are and with one kind of number made wrong."""
    standard = problem.standard[problem.parts["test"]]
    space = estimator.space
    wrong: dict[str, dict[str, float]] = {
        "as they are": {},
        "magnitudes 2 mag too bright": {"M_r": -2.0, "M_K": -2.0},
        "dispersion 3 times": {"log_sigma": np.log10(3.0)},
        "g - r redder by 0.5": {"g_r": 0.5},
        "R_hsm 3 times": {"log_r_hsm": np.log10(3.0)},
        "spin 30 times": {"log_spin": np.log10(30.0)},
    }
    result = {}
    for what, offsets in wrong.items():
        moved = standard.copy()
        for name, offset in offsets.items():
            moved[:, space.names.index(name)] += offset / space.spread[space.names.index(name)]
        result[what] = float((estimator.region.score(moved) > 1.0).mean())
    return result


def eagle_table(estimator: MassEstimator, data: Path) -> dict[str, Any]:
    """Coverage and widths on EAGLE's centrals."""
    table = read_eagle_centrals(data / EAGLE)
    ratio = np.asarray(table["r_e"]) / np.asarray(table["r50_3d"])
    table["aperture_ratio"] = ratio
    fraction = np.asarray(table["f_dm_re"], dtype=np.float64)
    truth = np.log10(fraction)
    prior = estimator.predict(table, targets=("log_fdm",))
    pit = probabilities(prior, "log_fdm", truth)
    low, high = (10.0 ** fast_quantiles(prior, "log_fdm", (0.025, 0.975))).T
    everything = estimator.density.mixture(*_one_row(estimator), torch.ones(1, dtype=torch.float64))
    population = type(prior)(everything, ("log_fdm",), aperture="ratio")
    own = np.diff(10.0 ** fast_quantiles(population, "log_fdm", (0.025, 0.975)))[0, 0]
    same = same_sphere_width(data, ratio)
    eagle = float(np.diff(np.quantile(fraction, (0.025, 0.975)))[0])
    score = prior.out_of_distribution.numpy()
    parts = {"all": ratio > 0.0, "inside_r50": ratio < 1.0, "beyond_r50": ratio >= 1.0, "ratio_in_training": (ratio > 0.15) & (ratio < 6)}
    levels = (0.5, 0.68, 0.95)
    coverage = {name: {f"{level:.2f}": float((np.abs(pit[part] - 0.5) <= 0.5 * level).mean()) for level in levels}
                for name, part in parts.items()}  # fmt: skip
    width = float((high - low).mean())
    populations = {"training density": float(own), CRITERION: same, "EAGLE": eagle}
    ratios = {name: width / value for name, value in populations.items()}
    return {
        "model": estimator.source,
        "rows": len(truth),
        "discrepancy_dex": estimator.about["training"]["discrepancy"],
        "discrepancy_was": NOT_BLIND,
        "score_above_1": float((score > 1.0).mean()),
        "coverage": coverage,
        "bias_dex": float(np.median(fast_quantiles(prior, "log_fdm", (0.5,))[:, 0] - truth)),
        "mean_width_95": width,
        "population_width_95": populations,
        "width_ratio": ratios,
        "criterion": CRITERION,
        "targets_met": {"coverage 0.95": coverage["all"]["0.95"] >= ASKED["eagle_coverage"],
                        "width ratio": ratios[CRITERION] <= ASKED["eagle_width_ratio"]},
    }  # fmt: skip


def _one_row(estimator: MassEstimator) -> tuple[torch.Tensor, torch.Tensor]:
    shape = estimator.density.shape
    return torch.zeros(1, shape.inputs, dtype=torch.float64), torch.zeros(1, shape.latents, dtype=torch.float64)


def same_sphere_width(data: Path, ratio: np.ndarray) -> float:
    """Mean over EAGLE's spheres of the 95 % range of f_dm among TNG galaxies above 1e10 Msun, within similar spheres."""
    sample = read_shared_sample(data / ROWS, copies=20, seed=11, discrepancy=0.0, least_stellar_mass=1e10)
    fraction, log_ratio = sample.dark / sample.total, np.log10(sample.columns["aperture_ratio"])
    widths = []
    for value in np.clip(np.log10(ratio), log_ratio.min() + 0.06, log_ratio.max() - 0.06):
        near = np.abs(log_ratio - value) < 0.06
        widths.append(np.diff(np.quantile(fraction[near], (0.025, 0.975)))[0])
    return float(np.mean(widths))


if __name__ == "__main__":
    main()
