"""NGC 5921 from a CLEANed cube, to hold the fit to the visibilities against.

The calibrated set is cleaned with casatasks (continuum subtracted in the visibilities, multi-scale tclean), and the galaxy's numbers are
read off its moment maps: systemic velocity, centre, position angle and inclination from a tilted disc fitted to the velocity field, smeared
by the beam; the flux from the sum over the masked cube, corrected for the primary beam.

    python benchmarks/ngc5921.py data_reduction/ngc5921/products/ngc5921.ms --work products/clean
    python benchmarks/ngc5921.py ... --posterior inference/ngc5921/products/posterior.nc --json table.json
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import least_squares

from supermage.constants import HI_FREQUENCY, SPEED_OF_LIGHT
from supermage.data_reduction.calibrate import run_casatasks
from supermage.progress import make_progress

Array = NDArray[np.float64]

CELL = 10.0
SIDE = 256
LINE_FREE = "0:4~9;50~58"
TARGETS = {"systemic_velocity": 8.0, "centre": 0.3, "PA": 8.0, "inclination": 12.0, "Flux": 0.10}
"""Largest differences allowed: km/s, beams, deg, deg, fraction."""
LITERATURE_VELOCITY = 1480.0
"""Heliocentric, optical. In LSRK and the radio convention, which cube and fit use, it is ``lsrk_radio(1480) = 1486.7``."""
TOWARDS_APEX = 14.0
"""The Sun's 20 km/s towards its conventional apex (18h, +30 deg, 1900), seen in the galaxy's direction, km/s."""


@dataclass(frozen=True)
class Cube:
    """A CLEANed cube (chan, y, x) in Jy/beam, x growing EAST: as it is, and corrected for the primary beam; velocity (chan,) km/s."""

    image: Array
    corrected: Array
    velocity: Array
    beam: tuple[float, float, float]

    @property
    def axis(self) -> Array:
        """Offsets of the pixels from the phase centre, arcsec."""
        return (np.arange(SIDE, dtype=np.float64) - SIDE // 2) * CELL

    @property
    def channel_width(self) -> float:
        """Width of a channel, km/s."""
        return float(abs(self.velocity[1] - self.velocity[0]))

    @property
    def pixels_per_beam(self) -> float:
        """Area of the beam in pixels."""
        return math.pi * self.beam[0] * self.beam[1] / (4 * math.log(2)) / CELL**2


def lsrk_radio(heliocentric: float) -> float:
    """Velocity (km/s, LSRK, radio convention) of a heliocentric velocity in the optical convention."""
    redshift = (1 + heliocentric / SPEED_OF_LIGHT) * (1 + TOWARDS_APEX / SPEED_OF_LIGHT) - 1
    return SPEED_OF_LIGHT * (1 - 1 / (1 + redshift))


def clean(measurement_set: Path, work: Path) -> Cube:
    """Subtract the continuum, clean, and read the cube; what tclean leaves is kept in ``work`` and used again."""
    if not (work / "image.fits").exists():
        work.mkdir(parents=True, exist_ok=True)
        tclean = {"vis": "line.ms", "imagename": "cube", "specmode": "cube", "start": 4, "nchan": 55, "width": 1, "imsize": [SIDE, SIDE],
                  "cell": [f"{CELL}arcsec"], "weighting": "briggs", "robust": 0.5, "deconvolver": "multiscale", "scales": [0, 6, 15],
                  "niter": 20000, "threshold": "3mJy", "usemask": "auto-multithresh", "pbcor": True, "pblimit": 0.1,
                  "restoringbeam": "common", "perchanweightdensity": False, "interpolation": "nearest"}
        steps: list[dict[str, Any]] = [
            {"task": "uvcontsub",
             "arguments": {"vis": str(measurement_set.resolve()), "outputvis": "line.ms", "fitspec": LINE_FREE, "fitorder": 0}},
            {"task": "tclean", "arguments": tclean},
            {"task": "exportfits", "arguments": {"imagename": "cube.image.pbcor", "fitsimage": "corrected.fits", "dropstokes": True}},
            {"task": "exportfits", "arguments": {"imagename": "cube.image", "fitsimage": "image.fits", "dropstokes": True}},
        ]
        run_casatasks(steps, work, work / "clean.log", progress=make_progress())
    image, header = fits.getdata(work / "image.fits", header=True)
    corrected = fits.getdata(work / "corrected.fits")
    channel = np.arange(image.shape[0]) + 1 - header["CRPIX3"]
    velocity = SPEED_OF_LIGHT * (1 - (header["CRVAL3"] + header["CDELT3"] * channel) / HI_FREQUENCY)
    beam = (3600 * header["BMAJ"], 3600 * header["BMIN"], float(header["BPA"]))
    # FITS: pixel CRPIX (from 1) is the phase centre and x grows west; flipped, the centre stays at SIDE / 2.
    east = [np.roll(np.nan_to_num(cube.astype(float))[:, :, ::-1], 1, axis=2) for cube in (image, corrected)]
    return Cube(east[0], east[1], velocity, beam)


def line_mask(cube: Cube) -> NDArray[np.bool_]:
    """Where the line is: the largest region above 4 sigma in the smoothed cube, grown by two pixels or channels."""
    smooth = ndimage.gaussian_filter(cube.image, (1, 4, 4))
    label, count = ndimage.label(smooth > 4 * np.std(smooth[-6:]))
    size = ndimage.sum(smooth > 0, label, range(1, count + 1))
    return ndimage.binary_dilation(label == 1 + int(np.argmax(size)), iterations=2)


def moments(cube: Cube, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Integrated intensity (Jy/beam km/s) and its mean velocity (km/s; nan where there is no line)."""
    line = np.where(mask, cube.corrected, 0.0)
    intensity = line.sum(axis=0) * cube.channel_width
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (line * cube.velocity[:, None, None]).sum(axis=0) / line.sum(axis=0)
    return intensity, mean


def velocity_field_fit(cube: Cube, intensity: Array, mean: Array, *, level: float = 0.1) -> dict[str, float]:
    """Fit a thin disc with an arctangent rotation curve to the mean velocities, smeared by beam and intensity."""
    inside = np.isfinite(mean) & (intensity > level * np.max(intensity))
    flux = np.where(inside, np.maximum(intensity, 0.0), 0.0)
    sigma = math.sqrt(cube.beam[0] * cube.beam[1]) / CELL / math.sqrt(8 * math.log(2))
    below = ndimage.gaussian_filter(flux, sigma)
    x, y = np.meshgrid(cube.axis, cube.axis)
    weight = np.sqrt(flux[inside] / flux.max())

    def residual(p: Array) -> Array:
        smeared = ndimage.gaussian_filter(flux * _disc_velocity(p, x, y), sigma) / np.maximum(below, 1e-12)
        return (smeared - mean)[inside] * weight

    centre = [float(np.sum(flux * axis) / flux.sum()) for axis in (x, y)]
    gradient = [float(np.sum((flux * (mean - np.sum(flux[inside] * mean[inside]) / flux.sum()) * axis)[inside])) for axis in (x, y)]
    start = np.array([*centre, math.atan2(*gradient), math.radians(40), np.sum(flux[inside] * mean[inside]) / flux.sum(), 150.0, 40.0])
    best = least_squares(residual, start, loss="soft_l1", f_scale=5.0, x_scale=[10, 10, 0.1, 0.1, 5, 20, 20],
                         bounds=([-400, -400, -10, 0.1, 1000, 10, 1], [400, 400, 10, 1.5, 2000, 600, 400]))
    east, north, angle, tilt, systemic, asymptote, turn = best.x
    return {"x": float(east), "y": float(north), "PA": math.degrees(angle) % 360, "inclination": math.degrees(tilt),
            "systemic_velocity": float(systemic), "asymptotic_velocity": float(asymptote), "turn_over": float(turn),
            "rms_velocity_residual": float(np.sqrt(np.mean((residual(best.x) / weight) ** 2)))}


def _disc_velocity(p: Array, x: Array, y: Array) -> Array:
    east, north, angle, tilt, systemic, asymptote, turn = p
    major = (x - east) * math.sin(angle) + (y - north) * math.cos(angle)
    minor = ((x - east) * math.cos(angle) - (y - north) * math.sin(angle)) / math.cos(tilt)
    radius = np.hypot(major, minor) + 1e-9
    velocity: Array = systemic + asymptote * 2 / math.pi * np.arctan(radius / turn) * math.sin(tilt) * major / radius
    return velocity


def shape_inclination(cube: Cube, intensity: Array) -> dict[str, float]:
    """Inclination and axis of the integrated intensity's second moments, the beam's taken off: a check that no velocity enters."""
    flux = np.where(intensity > 0.1 * intensity.max(), intensity, 0.0)
    x, y = np.meshgrid(cube.axis, cube.axis)
    mean = [np.sum(flux * axis) / flux.sum() for axis in (x, y)]
    moment = np.array([[np.sum(flux * (a - ma) * (b - mb)) / flux.sum() for b, mb in ((x, mean[0]), (y, mean[1]))]
                       for a, ma in ((x, mean[0]), (y, mean[1]))])
    major, minor, angle = cube.beam[0] ** 2, cube.beam[1] ** 2, math.radians(cube.beam[2])
    axis = np.array([math.sin(angle), math.cos(angle)])
    moment -= (minor * np.eye(2) + (major - minor) * np.outer(axis, axis)) / (8 * math.log(2))
    value, vector = np.linalg.eigh(moment)
    return {"inclination_of_shape": math.degrees(math.acos(math.sqrt(value[0] / value[1]))),
            "axis_of_shape": math.degrees(math.atan2(vector[0, 1], vector[1, 1])) % 180,
            "x_of_shape": float(mean[0]), "y_of_shape": float(mean[1])}


def measure(cube: Cube) -> dict[str, Any]:
    """Read the galaxy's numbers off the cube."""
    mask = line_mask(cube)
    intensity, mean = moments(cube, mask)
    spectrum = np.where(mask, cube.corrected, 0.0).sum(axis=(1, 2)) / cube.pixels_per_beam
    sky = ndimage.binary_dilation(mask.any(axis=0), iterations=3)
    whole = np.where(sky, cube.corrected, 0.0).sum(axis=(1, 2)) / cube.pixels_per_beam
    half = np.flatnonzero(spectrum > 0.5 * spectrum.max())
    return {"beam": [round(value, 2) for value in cube.beam], "noise_mjy_per_beam": float(1e3 * np.std(cube.image[-6:])),
            **velocity_field_fit(cube, intensity, mean), **shape_inclination(cube, intensity),
            "Flux": float(spectrum.sum() * cube.channel_width), "flux_in_aperture": float(whole.sum() * cube.channel_width),
            "middle_of_profile": float(0.5 * (cube.velocity[half[0]] + cube.velocity[half[-1]])),
            "width_of_profile": float(abs(cube.velocity[half[0]] - cube.velocity[half[-1]]))}


def compare(cleaned: dict[str, Any], posterior_path: Path) -> list[dict[str, Any]]:
    """Set the posterior's means beside the CLEANed cube's numbers, with the difference and the largest one allowed."""
    from supermage import open_posterior

    summary = open_posterior(posterior_path).to_arviz().posterior
    value = {name: float(summary[name].mean()) for name in summary.data_vars}
    spread = {name: float(summary[name].std()) for name in summary.data_vars}
    rows = []
    for name in ("systemic_velocity", "PA", "inclination", "Flux"):
        difference = value[name] - cleaned[name]
        if name == "PA":
            difference = (difference + 180) % 360 - 180
        rows.append({"quantity": name, "fit": value[name], "sigma": spread[name], "clean": cleaned[name],
                     "difference": difference / cleaned[name] if name == "Flux" else difference, "allowed": TARGETS[name]})
    beam = math.sqrt(cleaned["beam"][0] * cleaned["beam"][1])
    apart = math.hypot(value["x"] - cleaned["x"], value["y"] - cleaned["y"]) / beam
    rows.append({"quantity": "centre", "fit": [value["x"], value["y"]], "sigma": [spread["x"], spread["y"]],
                 "clean": [cleaned["x"], cleaned["y"]], "difference": apart, "allowed": TARGETS["centre"]})
    rows.append({"quantity": "systemic_velocity (literature)", "fit": value["systemic_velocity"], "sigma": spread["systemic_velocity"],
                 "literature": lsrk_radio(LITERATURE_VELOCITY), "difference": value["systemic_velocity"] - lsrk_radio(LITERATURE_VELOCITY),
                 "allowed": None})
    for row in rows:
        row["agrees"] = None if row["allowed"] is None else bool(abs(row["difference"]) <= row["allowed"])
    return rows


def main() -> None:
    """Print JSON: the CLEANed cube's numbers and, given a posterior, the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement_set", type=Path, nargs="?", default=Path("data_reduction/ngc5921/products/ngc5921.ms"))
    parser.add_argument("--work", type=Path, default=Path("data_reduction/ngc5921/products/clean"))
    parser.add_argument("--posterior", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"clean": measure(clean(options.measurement_set, options.work))}
    if options.posterior is not None:
        result["comparison"] = compare(result["clean"], options.posterior)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
