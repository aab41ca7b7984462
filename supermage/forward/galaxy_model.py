"""GalaxyModel: from the 15 parameters to visibilities, and to a cube for pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S, pc_per_arcsec
from supermage.data_reduction.grid import UVGrid
from supermage.errors import DomainError
from supermage.forward.channels import ChannelResponse
from supermage.forward.cube import SkySampler, channel_flux
from supermage.forward.disc import DiscNodes, disc_nodes, gas_disc, line_of_sight_velocity, sky_to_disc, unresolved_variance
from supermage.forward.mass_model import MassModel, ShapeModel
from supermage.forward.operators import CellGather, LineFlux
from supermage.forward.visibilities import (
    SUPPORT,
    TWO_PI,
    CellBasis,
    CellGeometry,
    DiscTransform,
    cell_basis,
    cell_geometry,
    cell_weights,
    derivative_weights,
    interpolate,
)

Theta = Mapping[str, Tensor]
_LEAST_SQUARE = 1e-4
_FWHM = math.sqrt(8.0 * math.log(2.0))


class GalaxyModel(nn.Module):
    """Forward model of a thin, rotating, exponential gas disc around a Nuker spheroid and a black hole.

    Parameters
    ----------
    grid
        Geometry of image and cells.
    frequency
        TOPO channel centres, Hz, shape (block, chan), evenly spaced in each block.
    topo_to_frame
        Factor from TOPO to the velocity frame, shape (block,).
    rest_frequency, convention
        Hz; ``"radio"`` or ``"optical"``.
    hanning, averaging, taps
        Correlator settings: Hanning-smoothed or not, native channels averaged online; or the taps that stand for both (`ChannelResponse`).
    cell_u, cell_v
        Occupied cells of the half plane, shape (cell,).
    offset_mean, offset_second
        In-cell moments of the visibilities' offsets, m and m^2, shapes (block, chan, cell, 2) and (block, chan, cell, 3).
    distance
        Angular-diameter distance, Mpc.
    emulator
        See :class:`ShapeModel`.
    dish_diameter, primary_beam_factor
        Dish diameter, m (None: no primary beam), and FWHM in lambda / D. The beam is taken at the mean frequency.
    dtype
        Of the heavy arithmetic, float32 or float64.
    subpixels
        Points along a pixel's side in :meth:`cube`, the image for pictures; None: as many as each pixel needs.
    halo
        ``"none"`` or ``"nfw"`` (parameters ``halo_log10_m200``, ``halo_log10_c``).
    node_density
        Factor on the number of quadrature nodes along each axis of the disc.

    Notes
    -----
    Parameters are a mapping of the names of Table 1 to 0-d tensors: see :data:`supermage.recipe.PARAMETER_NAMES`. A ``gas_index`` among
    them makes the gas a stretched exponential; others change the mass, see :class:`MassModel`. Line-of-sight velocity is
    ``systemic + v_c sin i cos(azimuth)`` in the chosen convention. The disc ends at 0.7 fields of view.
    Source: Yantovski-Barth et al., section 2.3 and Table 1; ours integrates in the disc plane instead of on sky pixels.

    Raises
    ------
    DomainError
        If shapes or numbers break their rules.
    """

    node_radius: Tensor
    node_area: Tensor
    node_cosine: Tensor
    node_along: Tensor
    node_across: Tensor
    log_radius: Tensor
    edges: Tensor
    response: Tensor
    taps: Tensor
    first: Tensor
    stretch: Tensor
    position: Tensor
    spread: Tensor
    shift: Tensor
    extra_spread: Tensor

    def __init__(
        self,
        grid: UVGrid,
        *,
        frequency: NDArray[np.float64],
        topo_to_frame: NDArray[np.float64],
        rest_frequency: float,
        convention: str,
        hanning: bool,
        averaging: int,
        cell_u: NDArray[np.integer[Any]],
        cell_v: NDArray[np.integer[Any]],
        offset_mean: NDArray[np.float64],
        offset_second: NDArray[np.float64],
        distance: float,
        emulator: ShapeModel,
        dish_diameter: float | None,
        primary_beam_factor: float,
        taps: NDArray[np.float64] | None = None,
        dtype: torch.dtype = torch.float32,
        subpixels: int | None = None,
        halo: str = "none",
        node_density: float = 1.0,
    ) -> None:
        super().__init__()
        self._settings: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "grid", "__class__")}
        if not distance > 0:
            raise DomainError(f"distance must be positive (Mpc), got {distance}")
        self.grid, self.dtype = grid, dtype
        self.scale = pc_per_arcsec(distance)
        self.mass_model = MassModel(emulator, self.scale, halo=halo)
        frequency = np.asarray(frequency, dtype=np.float64)
        self.channels = ChannelResponse(frequency, topo_to_frame, rest_frequency, convention, hanning=hanning, averaging=averaging,
                                        taps=taps)
        self.reference_velocity = float(self.channels.edges.mean())
        self._store("edges", self.channels.edges - self.reference_velocity, dtype)
        self._store("response", self.channels.matrix, dtype)
        self._store("taps", self.channels.taps, dtype)
        self.register_buffer("first", torch.tensor(self.channels.first), persistent=False)
        stretch = frequency / grid.reference_frequency
        geometry = cell_geometry(
            np.stack([cell_u, cell_v], axis=-1).astype(np.int64),
            np.asarray(offset_mean, dtype=np.float64),
            np.asarray(offset_second, dtype=np.float64),
            cell_size=grid.cell_size,
            reference_frequency=grid.reference_frequency,
        )
        self._store_cells(geometry, stretch)
        self.disc_radius = 0.7 * grid.field_of_view
        longest = max(geometry.longest, 1.0 / grid.field_of_view)
        nodes = disc_nodes(self.disc_radius, 1.0 / longest, density=node_density)
        self._store_nodes(nodes)
        self.transform = DiscTransform(nodes, longest, stretch, dtype=dtype)
        self.longest = longest
        self.beam_deviation = self._beam_deviation(dish_diameter, primary_beam_factor, float(frequency.mean()))
        self.sampler = SkySampler(grid.axis) if subpixels is None else SkySampler(grid.axis, least=subpixels, most=subpixels)

    def _store(self, name: str, value: NDArray[np.float64], dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.tensor(np.asarray(value), dtype=dtype), persistent=False)

    def _store_nodes(self, nodes: DiscNodes) -> None:
        self._store("node_along", nodes.along, self.dtype)
        self._store("node_across", nodes.across, self.dtype)
        self._store("node_radius", nodes.radius, self.dtype)
        self._store("node_cosine", nodes.along / nodes.radius, self.dtype)
        self._store("node_area", 2.0 * nodes.area, self.dtype)
        self._store("log_radius", np.log(nodes.radius * self.scale), torch.float64)

    def _store_cells(self, geometry: CellGeometry, stretch: NDArray[np.float64]) -> None:
        self._store("stretch", stretch, torch.float64)
        self._store("position", geometry.position, torch.float64)
        self._store("spread", geometry.spread, torch.float64)
        self.channels_differ = geometry.shift is not None
        if geometry.shift is not None and geometry.extra_spread is not None:
            self._store("shift", geometry.shift, self.dtype)
            self._store("extra_spread", geometry.extra_spread, self.dtype)

    @staticmethod
    def _beam_deviation(dish_diameter: float | None, factor: float, frequency: float) -> float | None:
        if dish_diameter is None:
            return None
        if not (dish_diameter > 0 and factor > 0):
            raise DomainError(f"dish_diameter (m) and primary_beam_factor must be positive, got {dish_diameter} and {factor}")
        return factor * SPEED_OF_LIGHT_M_S / frequency / dish_diameter / ARCSEC / _FWHM

    def circular_velocity(
        self, theta: Theta, radius_arcsec: Float[Tensor, "*radius"], component: str = "total"
    ) -> Float[Tensor, "*radius"]:
        """Circular velocity, km/s, at radii in the disc, arcsec; of one component, or of all together: see :class:`MassModel`."""
        log_radius = torch.log(torch.as_tensor(radius_arcsec, dtype=torch.float64) * self.scale)
        return _root(self.mass_model(_double(theta), component)(log_radius))

    def surface_density(self, theta: Theta, radius_arcsec: Float[Tensor, "*radius"]) -> Float[Tensor, "*radius"]:
        """Surface density of the stars, Msun/pc^2, at radii along the major axis, arcsec."""
        return self.mass_model.surface_density(_double(theta), torch.as_tensor(radius_arcsec, dtype=torch.float64))

    def visibilities(self, theta: Theta, *, rows: int | None = None) -> Complex[Tensor, "block chan cell"]:
        """Model visibilities, Jy: the mean over each cell's visibilities, in the half plane and sign of the gridded data.

        ``rows`` says how much of the uv plane's table to reckon, where ``torch.func.vmap`` hides the inclination: see :meth:`table_rows`.

        Raises
        ------
        DomainError
            If the scale length is not positive (there is no disc) or the inclination lies outside [0, 90) deg.
        """
        theta = _double(theta)
        inclination, angle = torch.deg2rad(theta["inclination"]), torch.deg2rad(theta["PA"])
        _check(theta)
        line = self._line(theta, inclination, angle)
        table = self.transform(line, self.table_rows(theta["inclination"]) if rows is None else rows)
        basis = cell_basis(self.position, self.transform.step, angle, inclination)
        centre = (theta["x"], theta["y"])
        phase = TWO_PI * (self.position[..., 0] * centre[0] + self.position[..., 1] * centre[1])
        slope = self._beam_slope(centre, inclination, angle)
        weights = cell_weights(basis, self.spread, centre, slope)
        result = self._gather(table, weights, basis, phase)
        if self.channels_differ:
            result = result + self._single_channels(table, basis, phase, centre)
        return torch.view_as_complex(result.contiguous())

    def visibilities_of_chains(self, theta: Theta) -> Complex[Tensor, "chain block chan cell"]:
        """Model visibilities, Jy, of several chains' parameters, each of shape (chain,).

        One vmapped pass on a graphics card. On a CPU one chain after the other: one chain's arrays stay in the cache, those of all do not.
        """
        names, points = tuple(theta), torch.stack([torch.as_tensor(value) for value in theta.values()], dim=-1)

        def single(point: Tensor, rows: int | None = None) -> Tensor:
            return self.visibilities(dict(zip(names, point.unbind(), strict=True)), rows=rows)

        if points.device.type == "cpu":
            return torch.stack([single(point) for point in points])
        return torch.func.vmap(partial(single, rows=self.table_rows(theta["inclination"])))(points)

    def _gather(self, table: Tensor, weights: tuple[Tensor, Tensor], basis: CellBasis, phase: Tensor) -> Tensor:
        cast_weights = (weights[0].to(self.dtype), weights[1].to(self.dtype))
        if table.device.type == "cpu":
            return CellGather.apply(table, *cast_weights, phase, basis.index, basis.sign.to(self.dtype), self.stretch)
        return interpolate(table, cast_weights, basis, phase, self.stretch)

    def _single_channels(self, table: Tensor, basis: CellBasis, phase: Tensor, centre: tuple[Tensor, Tensor]) -> Tensor:
        """What channels whose moments differ from the cell's common ones add, to second order."""
        extra = self.extra_spread.unsqueeze(-2)
        terms: tuple[tuple[tuple[int, ...], Tensor], ...] = (
            ((0,), self.shift[..., :1]),
            ((1,), self.shift[..., 1:]),
            ((0, 0), 0.5 * extra[..., 0]),
            ((0, 1), extra[..., 1]),
            ((1, 1), 0.5 * extra[..., 2]),
        )
        parts = [factor * self._gather(table, derivative_weights(basis, centre, order), basis, phase) for order, factor in terms]
        return parts[0] + parts[1] + parts[2] + parts[3] + parts[4]

    def table_rows(self, inclination: Float[Tensor, "*batch"]) -> int:
        """Rows of the table of the uv plane that inclinations (deg) call for, the most of all; every row where they cannot be looked at."""
        flattest = _value(torch.as_tensor(inclination).min())
        if flattest is None:
            return self.transform.rows
        return min(self.transform.rows, math.ceil(self.longest * abs(math.cos(math.radians(flattest))) / self.transform.step) + SUPPORT)

    def _line(self, theta: Theta, inclination: Tensor, angle: Tensor) -> Float[Tensor, "block chan y column"]:
        squared = self.mass_model(theta)(self.log_radius).to(self.dtype)
        velocity = _root(squared) * (torch.sin(inclination).to(self.dtype) * self.node_cosine)
        deviation = torch.sqrt(theta["line_broadening"].to(self.dtype) ** 2 + unresolved_variance(velocity))
        flux = gas_disc(self.node_radius, theta) * self.node_area
        sides = flux.unsqueeze(1) * self._beam(theta, inclination, angle)
        systemic = (theta["systemic_velocity"] - self.reference_velocity).to(self.dtype)
        both = torch.stack([systemic + velocity, systemic - velocity], dim=1)
        line = self._in_channels(both, deviation.unsqueeze(1).expand_as(both), sides.expand_as(both))
        return line.flatten(-2)

    def _in_channels(self, velocity: Tensor, deviation: Tensor, flux: Tensor) -> Float[Tensor, "block chan *node"]:
        """Lines integrated over the channels; compiled in float32 on a CPU."""
        lines = (velocity.flatten(), deviation.flatten(), flux.flatten())
        if self.edges.device.type == "cpu" and self.dtype == torch.float32:
            result = LineFlux.apply(lines[0], math.sqrt(0.5) / lines[1], lines[2], self.edges, self.first, self.taps)
        else:
            result = channel_flux(self.edges, self.response, *lines)
        return result.unflatten(-1, velocity.shape)

    def _beam(self, theta: Theta, inclination: Tensor, angle: Tensor) -> Tensor:
        """Primary beam at the nodes, even part in the minor-axis coordinate, shape (y, side, x)."""
        if self.beam_deviation is None:
            return torch.ones((), dtype=self.dtype, device=self.edges.device)
        along, across = _project(theta["x"], theta["y"], angle)
        variance = self.beam_deviation**2
        x = torch.stack([self.node_along, -self.node_along]) + along.to(self.dtype)
        y = self.node_across * torch.cos(inclination).to(self.dtype)
        across = across.to(self.dtype)
        major = torch.exp(-(x**2) / (2 * variance))
        minor = torch.exp(-(y**2 + across**2) / (2 * variance)) * torch.cosh(y * across / variance)
        return minor[:, None, None] * major

    def _beam_slope(self, centre: tuple[Tensor, Tensor], inclination: Tensor, angle: Tensor) -> Tensor | None:
        if self.beam_deviation is None:
            return None
        return _project(centre[0], centre[1], angle)[1] * torch.cos(inclination) / (TWO_PI * self.beam_deviation**2)

    def cube(self, theta: Theta, *, primary_beam: bool = True) -> Float[Tensor, "block chan y x"]:
        """Image of every channel, Jy per pixel, integrated over pixels by sampling, at the true centre.

        Points lie as close as the velocity calls for; what it changes between neighbouring ones widens the line, so that lines join up.

        Raises
        ------
        DomainError
            As :meth:`visibilities`.
        """
        theta = _double(theta)
        _check(theta)
        inclination, angle = torch.deg2rad(theta["inclination"]), torch.deg2rad(theta["PA"])
        squared = self.mass_model(theta)
        floor = _LEAST_SQUARE * self.grid.pixel_scale**2

        def in_disc(east: Tensor, north: Tensor) -> tuple[Tensor, Tensor]:
            along, across = sky_to_disc(east - theta["x"], north - theta["y"], angle, inclination)
            return along, torch.sqrt(along**2 + across**2 + floor)

        def velocity(east: Tensor, north: Tensor) -> Tensor:
            along, radius = in_disc(east, north)
            return line_of_sight_velocity(_root(squared(torch.log(radius * self.scale))), along, radius, inclination)

        def emission(east: Tensor, north: Tensor, step: float) -> Tensor:
            flux = gas_disc(in_disc(east, north)[1], theta) * step**2 / torch.cos(inclination)
            if primary_beam and self.beam_deviation is not None:
                flux = flux * torch.exp(-(east**2 + north**2) / (2 * self.beam_deviation**2))
            centre, half = velocity(east, north), 0.5 * step
            rise_east = velocity(east + half, north) - velocity(east - half, north)
            rise_north = velocity(east, north + half) - velocity(east, north - half)
            deviation = torch.sqrt(theta["line_broadening"] ** 2 + (rise_east**2 + rise_north**2) / 12.0)
            centre = theta["systemic_velocity"] - self.reference_velocity + centre
            return self._in_channels(centre.to(self.dtype), deviation.to(self.dtype), flux.to(self.dtype))

        with torch.no_grad():
            channel = float(np.abs(np.diff(self.channels.edges)).min())
            width = math.hypot(float(theta["line_broadening"]), 0.5 * channel)
            counts = self.sampler.counts(velocity, lambda east, north: torch.log(gas_disc(in_disc(east, north)[1], theta) + 1e-30), width)
        return self.sampler.integrate(emission, counts, self.edges)

    def refined(self, factor: float = 2.0) -> GalaxyModel:
        """The same model with so many times the nodes along each axis of the disc."""
        return GalaxyModel(self.grid, **{**self._settings, "node_density": factor * cast(float, self._settings["node_density"])})

    def discretisation_error(self, theta: Theta) -> float:
        """Rms difference, relative to the rms signal, from a model with twice the nodes along each axis."""
        with torch.no_grad():
            here, there = (model.visibilities(theta).to(torch.complex128) for model in (self, self.refined()))
        return float(torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(there))


def _double(theta: Theta) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(torch.float64) for name, value in theta.items()}


def _root(squared: Tensor) -> Tensor:
    """Square root, with a floor that keeps its gradient finite where signed Gaussians push outwards."""
    return torch.sqrt(squared.clamp(min=_LEAST_SQUARE))


def _project(east: Tensor, north: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    sine, cosine = torch.sin(angle), torch.cos(angle)
    return east * sine + north * cosine, north * sine - east * cosine


def _value(item: Tensor) -> float | None:
    """The number in a 0-d tensor, or None under vmap, where there is none to look at."""
    try:
        return float(item.detach().item())
    except RuntimeError:
        return None


def _check(theta: Theta) -> None:
    scale_length, inclination = _value(theta["scale_length"]), _value(theta["inclination"])
    if scale_length is not None and not scale_length > 0:
        raise DomainError(f"scale_length must be positive (arcsec; 0 is no disc), got {scale_length}")
    if inclination is not None and not 0 <= inclination < 90:
        raise DomainError(f"inclination must lie in [0, 90) deg, got {inclination}")
