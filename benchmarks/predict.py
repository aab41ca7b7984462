"""How fast a catalogue is predicted, and in how much memory; prints JSON.

    python benchmarks/predict.py [--rows 1000000] [--model tng-gbdt] [--format parquet] [--folder DIR]

A catalogue of random rows (a normal with the mean and the covariance of the model's training set, one row in ten with a gap, one in a
thousand without magnitudes) is written, then predicted by `predict_catalogue` in a process of its own, whose largest resident memory
is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.table import Table

from supermage.models.columns import COLUMNS
from supermage.models.mass_estimator import MassEstimator, load_mass_estimator
from supermage.models.predict import estimator_of, predict_catalogue
from supermage.models.prediction_files import TableWriter
from supermage.models.registry import artefact_folder

PIECE = 50_000


def main() -> None:
    """Write the catalogue, predict it in a child, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="tng-gbdt")
    parser.add_argument("--format", default="parquet", choices=["parquet", "csv", "ecsv", "fits"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.model, *arguments.child)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, output = Path(folder) / f"in.{arguments.format}", Path(folder) / f"out.{arguments.format}"
        write_catalogue(load_mass_estimator(artefact_folder(arguments.model)), source, arguments.rows)
        began = time.perf_counter()
        command = [sys.executable, __file__, "--model", arguments.model, "--child", str(source), str(output)]
        got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        got |= {"rows": arguments.rows, "format": arguments.format, "seconds_with_start": time.perf_counter() - began,
                "cores": len(os.sched_getaffinity(0)), "output_megabytes": output.stat().st_size / 1e6}  # fmt: skip
    print(json.dumps(got, indent=1))


def child(model: str, source: Path, output: Path) -> None:
    """Predict, print seconds and memory."""
    import warnings

    warnings.simplefilter("ignore")
    estimator_of(model)
    began, spent = time.perf_counter(), time.process_time()
    done = predict_catalogue(source, model, output)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "core_seconds": time.process_time() - spent, "rows_a_second": done.rows / seconds,
                      "empty": done.empty, "outside": done.outside,
                      "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))  # fmt: skip


def write_catalogue(estimator: MassEstimator, path: Path, rows: int) -> None:
    """Random rows in the model's columns, in pieces."""
    generator = np.random.default_rng(0)
    space = estimator.space
    factor = np.linalg.cholesky(estimator.region.covariance)
    with TableWriter(path) as writer:
        for first in range(0, rows, PIECE):
            count = min(PIECE, rows - first)
            values = space.mean + space.spread * (estimator.region.mean + generator.standard_normal((count, len(factor))) @ factor.T)
            features = dict(zip(space.names, values.T, strict=True))
            writer.add(catalogue_of(features, first, generator))


def catalogue_of(features: dict[str, np.ndarray], first: int, generator: np.random.Generator) -> Table:
    """Columns that have these features of a group catalogue."""
    red = features["M_r"]
    columns = {"M_r": red, "M_K": features["M_K"], "g_r": features["g_r"], "M_i": red - features["r_i"]}
    columns["M_z"] = columns["M_i"] - features["i_z"]
    columns["M_V"] = features["M_K"] + features["V_K"]
    columns["M_B"] = columns["M_V"] + features["B_V"]
    columns["M_U"] = columns["M_B"] + features["U_B"]
    named = {"sfr": "log_sfr", "sigma_3d1": "log_sigma", "spin": "log_spin", "r_hsm": "log_r_hsm", "bulge_index": "log_bulge_index"}
    columns |= {name: 10.0 ** features[feature] for name, feature in named.items()}
    columns |= {name: np.clip(features[name], 0.0, 1.0) for name in ("f_disk_2d", "f_disk_1d")}
    gap = generator.random(len(red))
    columns["spin"][gap < 0.1] = np.nan
    for name in ("M_r", "M_K", "g_r", "M_i", "M_z", "M_V", "M_B", "M_U"):
        columns[name][gap > 0.999] = np.nan
    table = Table({"galaxy_id": first + np.arange(len(red))} | columns)
    for name in columns:
        table[name].unit = COLUMNS[name].unit or None
    return table


if __name__ == "__main__":
    main()
