"""Dirty images of data, model and residual on one velocity axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from supermage.data_reduction.gridded import GriddedVisibilities
from supermage.data_reduction.images import Beam, dirty_cube
from supermage.data_reduction.spectral import velocity_of_frequency
from supermage.plots.beam import beam_width

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
FALSE_ALARM = 0.01


@dataclass(frozen=True)
class SkyCubes:
    """Dirty cubes.

    Attributes
    ----------
    axis
        Pixel centres, arcsec, shape (n,), east and north positive.
    velocity
        km/s, ascending, shape (chan,).
    data, model, residual
        Jy/beam, shape (chan, y, x), x growing east; a flat continuum has been taken from the data where the fit allowed for one.
    frequency
        Of the same channels, in the data's frame, Hz.
    beam
        Gaussian that fits the main lobe of the dirty beam.
    noise
        Noise of one channel that the standard errors predict, Jy/beam, shape (chan,).
    beam_image
        Synthesised beam, peak 1, shape (y, x).
    """

    axis: FloatArray
    velocity: FloatArray
    frequency: FloatArray
    data: FloatArray
    model: FloatArray
    residual: FloatArray
    beam: Beam
    noise: FloatArray
    beam_image: FloatArray

    @property
    def beam_width(self) -> float:
        """Geometric mean of the beam's widths, arcsec."""
        return beam_width(self.beam)

    @property
    def width(self) -> float:
        """Channel width, km/s."""
        return float(np.median(np.diff(self.velocity)))

    def peak(self) -> tuple[float, float]:
        """Brightest residual pixel over the noise, and the level that noise alone passes in 1 of 100 such cubes."""
        area = math.pi / (4 * math.log(2)) * self.beam.major * self.beam.minor
        field = (self.axis[-1] - self.axis[0]) ** 2
        trials = max(len(self.velocity) * field / area, 1.0) * 2.0  # about two independent values a beam
        peak = float(np.max(np.abs(self.residual) / self.noise[:, None, None]))
        return peak, float(norm.isf(FALSE_ALARM / (2.0 * trials)))


def sky_cubes(gridded: GriddedVisibilities, model: ComplexArray, continuum: ComplexArray) -> SkyCubes:
    """Image data, model and residual with natural weights.

    Parameters
    ----------
    gridded
        The data.
    model
        Jy, shape (block, chan, cell).
    continuum
        Continuum to take from the data, Jy, shape (block, chan, cell).
    """
    good = np.isfinite(gridded.standard_error)
    image = dirty_cube(gridded, np.where(good, gridded.mean - continuum, 0.0))
    modelled = dirty_cube(gridded, np.where(good, model, 0.0), fit_beam=False).data
    velocity = velocity_of_frequency(image.frequency, gridded.rest_frequency, gridded.convention)
    order = np.argsort(velocity)
    data, modelled = image.data[order], modelled[order]
    return SkyCubes(
        axis=gridded.grid.axis,
        velocity=velocity[order],
        frequency=image.frequency[order],
        data=data,
        model=modelled,
        residual=data - modelled,
        beam=image.beam,
        noise=image.noise[order],
        beam_image=image.beam_image,
    )
