"""Seconds a galaxy, as JSON: ``python benchmarks/galaxy_maps.py [--stars 100000] [--galaxies 5]``.

Mock galaxies of so many star particles, twice as many of dark matter and a fifth of gas, on one core: smoothing radii (shared by all
projections), dust, images and maps of one projection, `make_maps` as a whole, three projections, and the features of Table 1.
Times are the processor's over all threads, not the clock's. The first galaxy, in which the loops are compiled, is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from supermage.models.dust import observed_luminosities
from supermage.models.features import features_of
from supermage.models.maps import make_maps, three_projections
from supermage.models.mock_galaxy import make_galaxy
from supermage.models.mock_population import draw_population
from supermage.models.particles import Particles
from supermage.models.smoothing import smoothing_radii


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and what the work returns."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def one_galaxy(particles: Particles) -> dict[str, float]:
    """Seconds of each part."""
    seconds = {}
    seconds["smoothing radii"], radii = timed(lambda: smoothing_radii(particles.stars.position))
    seconds["light and dust, one projection"], light = timed(lambda: observed_luminosities(particles, 2))
    seconds["maps, one projection, radii known"], _ = timed(lambda: make_maps(particles, 2, smoothing=radii))
    seconds["maps, one projection"], _ = timed(lambda: make_maps(particles, 2))
    seconds["maps, three projections"], _ = timed(lambda: three_projections(particles))
    seconds["features, one projection"], _ = timed(lambda: features_of(particles, 2, luminosity_r=light["r"], luminosity_g=light["g"]))
    seconds["maps and features, one projection"] = seconds["maps, one projection"] + seconds["features, one projection"]
    return seconds


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=100_000)
    parser.add_argument("--galaxies", type=int, default=5)
    options = parser.parse_args()
    rows = draw_population(options.galaxies + 1, seed=1)
    numbers = {"n_star": options.stars, "n_dm": 2 * options.stars, "n_gas": options.stars // 5}
    measured = [one_galaxy(make_galaxy(row, **numbers, seed=1)) for row in rows]
    medians = {name: round(float(np.median([galaxy[name] for galaxy in measured[1:]])), 3) for name in measured[0]}
    print(json.dumps({"stars": options.stars, "galaxies": options.galaxies, "seconds": medians}, indent=1))


if __name__ == "__main__":
    main()
