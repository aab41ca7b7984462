"""Images and kinematic maps of a galaxy's stars, as Chu et al. (2023, section 2.2) make them from particles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError, DomainError
from supermage.models.dust import observed_luminosities
from supermage.models.particles import FloatArray, Particles
from supermage.models.smoothing import rebinned, smoothed_images, smoothing_radii
from supermage.models.stellar_light import SOLAR_MAGNITUDE

Image = NDArray[np.float32]

REACH = 3.0
"""Half-width of images and maps in half-mass radii."""

IMAGE_PIXELS, MAP_PIXELS = 300, 48
REBINNED_PIXELS = (150, 60)
"""Of the paper's tests of resolution."""

NO_COLOUR = 0.0
"""Value of the colour map where no light is."""


@dataclass(frozen=True, eq=False)
class GalaxyMaps:
    """One galaxy seen along one axis of its box.

    Arrays are (y, x), the first pixel at the lowest of both. Seen along axis k, x is axis k + 1 and y axis k + 2 (modulo 3): with the line
    of sight, which points away from the observer, they are right-handed, as east, north and away are on the sky. East increases with
    the column: drawn with north up and the first column on the left, the sky is seen mirrored, as in every array of this package.

    Attributes
    ----------
    r_image
        Surface brightness in r, Lsun/pc^2 of that band; 0 where no light is.
    g_r
        Colour g - r, AB mag; `NO_COLOUR` where no light is.
    mean_velocity, dispersion
        First and second central moment of the velocity along the line of sight, km/s, weighted by r light (or mass) of the particles in
        each pixel; positive away from the observer; 0 where no star is. One star alone has no dispersion.
    half_width
        Of images and maps, kpc.
    occupied
        Pixels of the maps that hold stars.
    axis
        Axis of the line of sight.
    source
        Where the particles come from.
    """

    r_image: Image
    g_r: Image
    mean_velocity: Image
    dispersion: Image
    half_width: float
    occupied: NDArray[np.bool_]
    axis: int = 0
    source: str = ""

    @property
    def g_image(self) -> Image:
        """Surface brightness in g, Lsun/pc^2 of that band."""
        ratio = 10.0 ** (-0.4 * (self.g_r.astype(np.float64) - SOLAR_MAGNITUDE["g"] + SOLAR_MAGNITUDE["r"]))
        return (self.r_image * ratio).astype(np.float32)

    @property
    def pixel_area(self) -> float:
        """Of the image, pc^2."""
        return (2e3 * self.half_width / len(self.r_image)) ** 2

    @property
    def r_light(self) -> Image:
        """What `r_image` holds in each pixel, Lsun."""
        return (self.r_image * self.pixel_area).astype(np.float32)

    def rebinned(self, pixels: int) -> GalaxyMaps:
        """The same galaxy with an image and a colour of fewer pixels, light conserved in both bands; the maps stay.

        Raises
        ------
        DomainError
            A number that does not divide the image's.
        """
        red, green = (rebinned(image.astype(np.float64), pixels) * (pixels / len(image)) ** 2 for image in (self.r_image, self.g_image))
        return replace(self, r_image=red.astype(np.float32), g_r=_colour(green, red))


def make_maps(
    particles: Particles,
    axis: int,
    *,
    image_pixels: int = IMAGE_PIXELS,
    map_pixels: int = MAP_PIXELS,
    dust: bool = True,
    weighting: Literal["light", "mass"] = "light",
    half_mass_radius: float | None = None,
    smoothing: FloatArray | None = None,
) -> GalaxyMaps:
    """Images and maps within 3 half-mass radii of the centre, along one axis of the box.

    Images: dust-attenuated luminosities smoothed by the cubic spline that reaches to the 32nd neighbour (`smoothed_images`). Maps: nearest
    grid point, every star that projects into the field, however far along the line of sight.

    Parameters
    ----------
    particles
        A galaxy about its centre and at rest, as `read_particles` gives it.
    axis
        Axis of the line of sight, 0, 1 or 2; the observer sits at its negative end.
    image_pixels, map_pixels
        On a side.
    dust
        Whether the galaxy's gas hides its light.
    weighting
        Of the velocities: by the r light that is seen, or by mass. (The paper does not say; its single dispersion is light-weighted.)
    half_mass_radius
        kpc, where the file's stars are not all of the galaxy; by default that of its stars.
    smoothing
        What `smoothing_radii` says of the stars' positions, where several projections share it; kpc.

    Raises
    ------
    DomainError
        Another axis or weighting, no pixels, a radius that is not positive.
    DataError
        No star inside the field.
    """
    if axis not in (0, 1, 2) or weighting not in ("light", "mass"):
        raise DomainError(f"maps need an axis 0, 1 or 2 and weights 'light' or 'mass', got {axis} and {weighting!r}")
    radius = particles.half_mass_radius() if half_mass_radius is None else half_mass_radius
    if image_pixels < 1 or map_pixels < 1 or not radius > 0.0:
        got = f"{image_pixels} and {map_pixels} pixels, {radius:g} kpc"
        raise DomainError(f"maps need pixels and a positive half-mass radius, got {got}")
    half_width = REACH * radius
    stars = particles.stars
    sky = np.ascontiguousarray(stars.position[:, [(axis + 1) % 3, (axis + 2) % 3]])
    reach = smoothing_radii(stars.position) if smoothing is None else smoothing
    if reach.shape != stars.mass.shape:
        raise DomainError(f"smoothing needs a radius for each of {len(stars)} stars, got shape {reach.shape}")
    light = _light(particles, axis, dust)
    area = (2e3 * half_width / image_pixels) ** 2
    green, red = smoothed_images(sky, np.stack([light["g"], light["r"]]), reach, half_width=half_width, pixels=image_pixels) / area
    weight = light["r"] if weighting == "light" else stars.mass
    velocity = np.ascontiguousarray(stars.velocity[:, axis])
    mean, dispersion, occupied = moments(sky, velocity, weight, half_width=half_width, pixels=map_pixels)
    if not occupied.any():
        raise DataError(f"maps need stars within {half_width:g} kpc of the centre, got none")
    return GalaxyMaps(red.astype(np.float32), _colour(green, red), mean.astype(np.float32), dispersion.astype(np.float32), half_width,
                      occupied, axis, particles.source)  # fmt: skip


def three_projections(
    particles: Particles,
    *,
    image_pixels: int = IMAGE_PIXELS,
    map_pixels: int = MAP_PIXELS,
    dust: bool = True,
    weighting: Literal["light", "mass"] = "light",
    half_mass_radius: float | None = None,
) -> tuple[GalaxyMaps, GalaxyMaps, GalaxyMaps]:
    """The galaxy along each axis of its box; see `make_maps`. They are one galaxy: no split may part them."""
    radius = particles.half_mass_radius() if half_mass_radius is None else half_mass_radius
    smoothing = smoothing_radii(particles.stars.position)
    first, second, third = (
        make_maps(particles, axis, image_pixels=image_pixels, map_pixels=map_pixels, dust=dust, weighting=weighting,
                  half_mass_radius=radius, smoothing=smoothing)
        for axis in range(3)
    )  # fmt: skip
    return first, second, third


def moments(
    sky: FloatArray, velocity: FloatArray, weight: FloatArray, *, half_width: float, pixels: int
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Weighted mean and dispersion of the velocities in each pixel, and which pixels hold weight, each of shape (y, x).

    Parameters
    ----------
    sky
        x and y, shape (particle, 2), in the unit of ``half_width``.
    velocity, weight
        Shape (particle,).
    """
    total, mean, square = _moments(np.floor((sky + half_width) * (pixels / (2.0 * half_width))), velocity, weight, pixels)
    occupied = total > 0.0
    variance = np.divide(square, total, out=np.zeros_like(total), where=occupied)
    return mean, np.sqrt(np.maximum(variance, 0.0)), occupied  # rounding leaves some below 0


@numba.njit(nogil=True)
def _moments(place: FloatArray, velocity: FloatArray, weight: FloatArray, pixels: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights, means and weighted squares about the means, updated particle by particle (West 1979): nothing cancels."""
    total, mean, square = np.zeros((pixels, pixels)), np.zeros((pixels, pixels)), np.zeros((pixels, pixels))
    for index in range(len(velocity)):
        x, y = place[index, 0], place[index, 1]
        if weight[index] > 0.0 and 0.0 <= x < pixels and 0.0 <= y < pixels:
            column, row = int(x), int(y)
            total[row, column] += weight[index]
            offset = velocity[index] - mean[row, column]
            mean[row, column] += offset * weight[index] / total[row, column]
            square[row, column] += weight[index] * offset * (velocity[index] - mean[row, column])
    return total, mean, square


def _light(particles: Particles, axis: int, dust: bool) -> dict[str, FloatArray]:
    return observed_luminosities(particles, axis) if dust else observed_luminosities(particles, axis, law=None)


def _colour(green: FloatArray, red: FloatArray) -> Image:
    """Colour of luminosities per area, each in Lsun of its band."""
    seen = (green > 0.0) & (red > 0.0)
    ratio = np.divide(green, red, out=np.ones_like(red), where=seen)
    colour = SOLAR_MAGNITUDE["g"] - SOLAR_MAGNITUDE["r"] - 2.5 * np.log10(ratio)
    return np.where(seen, colour, NO_COLOUR).astype(np.float32)
