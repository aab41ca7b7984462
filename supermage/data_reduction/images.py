"""Dirty images of gridded visibilities, their beam and moments, and FITS files that viewers place right."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ducc0
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.optimize import least_squares

from supermage.constants import ARCSEC
from supermage.data_reduction.grid import UVGrid
from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

_ACCURACY = 1e-7
_SPECSYS = {"LSRK": "LSRK", "BARY": "BARYCENT", "TOPO": "TOPOCENT"}


@dataclass(frozen=True)
class Beam:
    """A Gaussian beam: full widths at half maximum (arcsec) and position angle of the major axis (deg east of north)."""

    major: float
    minor: float
    position_angle: float


def blank(cube: FloatArray, noise: FloatArray) -> FloatArray:
    """The cube with NaN in channels that hold no data, as FITS has it."""
    return np.where(np.isfinite(noise)[:, None, None], cube, np.nan)


@dataclass(frozen=True, eq=False)
class DirtyCube:
    """A dirty cube in natural weighting; x grows eastwards, y northwards.

    Attributes
    ----------
    data
        Jy/beam, shape (chan, y, x); 0 where a channel holds no data.
    beam_image
        Synthesised beam, peak 1 at the centre pixel, shape (y, x).
    beam
        Gaussian fitted to the main lobe.
    frequency
        Channel centres in ``frame``, ascending, Hz, shape (chan,).
    noise
        Root mean square noise expected of each channel, Jy/beam, infinite where it holds no data, shape (chan,).
    pixel_scale
        arcsec.
    """

    data: FloatArray
    beam_image: FloatArray
    beam: Beam
    frequency: FloatArray
    noise: FloatArray
    pixel_scale: float


def dirty_cube(gridded: GriddedVisibilities, values: NDArray[np.complex128] | None = None, *, fit_beam: bool = True) -> DirtyCube:
    """Image gridded visibilities with weights 1 / standard error^2, all execution blocks together.

    The transform is direct (non-uniform), at the mean position of the visibilities in each cell and at each channel's own frequency.
    A block contributes to the channel of the first block that is nearest in the frame. What is imaged are means over cells: towards the
    edge of the field a source fades, as in any gridded image before its grid correction; model and residual fade alike.

    Parameters
    ----------
    gridded
        The data.
    values
        Other visibilities of the shape of ``gridded.mean`` to image in their place, such as a model or residuals, Jy.
    fit_beam
        Whether to fit the beam (else its sizes are 0).

    Raises
    ------
    DataError
        If ``values`` has another shape.
    """
    values = gridded.mean if values is None else np.asarray(values, dtype=np.complex128)
    if values.shape != gridded.mean.shape:
        raise DataError(f"visibilities to image must have the shape of the data {gridded.mean.shape}, got {values.shape}")
    n = gridded.grid.n_pixel
    frequency = gridded.frame_frequency
    u, v = gridded.uv_wavelengths()
    weight = gridded.weight
    cube, beams = np.zeros((gridded.n_channel, n, n)), np.zeros((gridded.n_channel, n, n))
    total = np.zeros(gridded.n_channel)
    for block in range(gridded.n_block):
        for channel in range(gridded.n_channel):
            target = int(np.argmin(np.abs(frequency[0] - frequency[block, channel])))
            used = weight[block, channel] > 0
            w = weight[block, channel, used]
            places = np.stack([v[block, channel, used], u[block, channel, used]], axis=1)
            cube[target] += transform_to_image(places, w * values[block, channel, used], gridded.grid)
            beams[target] += transform_to_image(places, w.astype(complex), gridded.grid)
            total[target] += w.sum()
    scale = np.where(total > 0, total, 1.0)
    beam_image = beams.sum(axis=0) / total.sum()
    beam = fit_gaussian_beam(beam_image, gridded.grid.pixel_scale) if fit_beam else Beam(0.0, 0.0, 0.0)
    noise = np.where(total > 0, 1.0 / np.sqrt(scale), np.inf)
    return DirtyCube(data=cube / scale[:, None, None], beam_image=beam_image, beam=beam, frequency=frequency[0], noise=noise,
                     pixel_scale=gridded.grid.pixel_scale)


def transform_to_image(places: FloatArray, values: NDArray[np.complex128], grid: UVGrid) -> FloatArray:
    """``Re sum values exp(+2 pi i (u l + v m))`` on the image grid, shape (y, x); places are (v, u) in wavelengths."""
    n, step = grid.n_pixel, grid.pixel_scale * ARCSEC
    if not values.size:
        return np.zeros((n, n))
    image = ducc0.nufft.nu2u(points=np.ascontiguousarray(values), coord=np.ascontiguousarray(places * step), forward=False,
                             epsilon=_ACCURACY, periodicity=1.0, out=np.empty((n, n), dtype=np.complex128), fft_order=False)
    return image.real


def fit_gaussian_beam(image: FloatArray, pixel_scale: float) -> Beam:
    """Fit a centred elliptical Gaussian to the main lobe of a beam (pixels above 0.35 that hang together with the peak).

    Parameters
    ----------
    image
        Beam with its peak at pixel (n / 2, n / 2), shape (y, x).
    pixel_scale
        arcsec.
    """
    n_y, n_x = image.shape
    peak = image[n_y // 2, n_x // 2]
    parts, _ = label(image > 0.35 * peak)
    y, x = np.nonzero(parts == parts[n_y // 2, n_x // 2])
    target = image[y, x] / peak
    east, north = (x - n_x // 2) * pixel_scale, (y - n_y // 2) * pixel_scale

    def residual(matrix: FloatArray) -> FloatArray:
        return np.exp(-(matrix[0] * east**2 + 2 * matrix[1] * east * north + matrix[2] * north**2)) - target

    start = np.log(2.0) * np.array([1.0, 0.0, 1.0]) / max(pixel_scale**2, np.mean(east**2 + north**2))
    a, b, c = least_squares(residual, start, x_scale=start[0]).x
    values, vectors = np.linalg.eigh(np.array([[a, b], [b, c]]))
    width = 2.0 * np.sqrt(np.log(2.0) / np.maximum(values, 1e-12))
    angle = float(np.degrees(np.arctan2(vectors[0, 0], vectors[1, 0]))) % 180.0
    return Beam(major=float(width[0]), minor=float(width[1]), position_angle=angle)


def moment_maps(cube: FloatArray, velocity: FloatArray, *, threshold: float = 0.0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Moments 0 (cube unit times km/s), 1 and 2 (km/s; NaN where nothing lies above the threshold).

    Parameters
    ----------
    cube
        Shape (chan, y, x).
    velocity
        Channel centres, km/s, shape (chan,).
    threshold
        Voxels at or below it are left out; with 0, moment 0 takes every voxel.
    """
    width = float(np.mean(np.abs(np.diff(velocity))))
    kept = np.where(cube > threshold, cube, 0.0)
    total = kept.sum(axis=0)
    safe = np.where(total > 0, total, np.nan)
    first = np.einsum("cyx,c->yx", kept, velocity) / safe
    second = np.sqrt(np.einsum("cyx,cyx->yx", kept, (velocity[:, None, None] - np.nan_to_num(first)) ** 2) / safe)
    zeroth = (cube if threshold <= 0 else kept).sum(axis=0) * width
    return zeroth, first, second


def write_fits(path: str | Path, image: FloatArray, gridded: GriddedVisibilities, *, unit: str = "Jy/beam", beam: Beam | None = None,
               frequency: FloatArray | None = None) -> Path:
    """Write an image (y, x) or cube (chan, y, x) as FITS, atomically; the x axis is flipped so that right ascension grows to the left.

    Parameters
    ----------
    path
        Target; an earlier file is replaced.
    image
        As `DirtyCube` holds it.
    gridded
        Says where and in which frame.
    unit
        FITS unit of the values.
    beam
        Written as BMAJ, BMIN, BPA.
    frequency
        Of the channels in ``gridded.frame``, Hz; the first block's when absent. Needed to be evenly spaced.

    Raises
    ------
    DataError
        If the folder cannot be written or the disk is full.
    """
    from astropy.io import fits

    path = Path(path)
    header = _header(gridded, unit, beam)
    if image.ndim == 3:
        channels = gridded.frame_frequency[0] if frequency is None else frequency
        header.update({"CTYPE3": "FREQ", "CUNIT3": "Hz", "CRPIX3": 1.0, "CRVAL3": float(channels[0]),
                       "CDELT3": float((channels[-1] - channels[0]) / max(channels.size - 1, 1)), "RESTFRQ": gridded.rest_frequency,
                       "SPECSYS": _SPECSYS[gridded.frame]})
    target = io.BytesIO()
    fits.PrimaryHDU(np.ascontiguousarray(image[..., ::-1], dtype=np.float32), header=header).writeto(target)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(target.getbuffer())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"a FITS file must go to a folder that can be written and has room, got {path} ({error.strerror})") from None
    return path


def _header(gridded: GriddedVisibilities, unit: str, beam: Beam | None) -> Any:
    from astropy.io import fits

    n, step = gridded.grid.n_pixel, gridded.grid.pixel_scale / 3600.0
    header = fits.Header()
    header.update({
        "BUNIT": unit, "BTYPE": "Intensity", "RADESYS": "ICRS",
        "CTYPE1": "RA---SIN", "CUNIT1": "deg", "CRPIX1": float(n // 2), "CRVAL1": gridded.phase_centre[0], "CDELT1": -step,
        "CTYPE2": "DEC--SIN", "CUNIT2": "deg", "CRPIX2": float(n // 2 + 1), "CRVAL2": gridded.phase_centre[1], "CDELT2": step})
    if beam is not None:
        header.update({"BMAJ": beam.major / 3600.0, "BMIN": beam.minor / 3600.0, "BPA": beam.position_angle})
    header["ORIGIN"] = "supermage"
    return header
