"""UVGrid: the one geometry object, shared by gridding, images and the forward model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.errors import DomainError


@dataclass(frozen=True)
class UVGrid:
    """A square image and the uv cells that its discrete Fourier transform reaches.

    Cells are squares in *metres*, so that a visibility falls in the same cell in every channel. Cell ``(iu, iv)`` has its centre at
    ``(iu, iv) * cell_size``; at the reference frequency that is exactly the Fourier frequency ``iu / (n_pixel * pixel_scale)``.

    Parameters
    ----------
    n_pixel
        Pixels along each side, even.
    pixel_scale
        Width of a pixel, arcsec.
    reference_frequency
        Frequency at which cells and Fourier frequencies coincide, Hz.

    Raises
    ------
    DomainError
        If a number is not positive, ``n_pixel`` is odd, or the frequency is so low that GHz must have been meant.
    """

    n_pixel: int
    pixel_scale: float
    reference_frequency: float

    def __post_init__(self) -> None:
        if self.n_pixel < 8 or self.n_pixel % 2:
            raise DomainError(f"n_pixel must be even and at least 8, got {self.n_pixel}")
        if not self.pixel_scale > 0:
            raise DomainError(f"pixel_scale must be positive (arcsec), got {self.pixel_scale}")
        if not self.reference_frequency > 1e6:
            raise DomainError(f"reference_frequency must be in Hz and above 1 MHz, got {self.reference_frequency}: GHz passed for Hz?")

    @property
    def cell_size_wavelengths(self) -> float:
        """Width of a cell at the reference frequency, in wavelengths."""
        return 1.0 / (self.n_pixel * self.pixel_scale * ARCSEC)

    @property
    def cell_size(self) -> float:
        """Width of a cell, metres."""
        return self.cell_size_wavelengths * SPEED_OF_LIGHT_M_S / self.reference_frequency

    @property
    def field_of_view(self) -> float:
        """Width of the image, arcsec."""
        return self.n_pixel * self.pixel_scale

    @property
    def axis(self) -> NDArray[np.float64]:
        """Pixel centres along an image axis, arcsec, shape (n_pixel,); index ``n_pixel / 2`` is the phase centre, east and north up."""
        return np.asarray((np.arange(self.n_pixel) - self.n_pixel // 2) * self.pixel_scale, dtype=np.float64)
