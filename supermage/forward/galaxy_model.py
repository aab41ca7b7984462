"""GalaxyModel: from the 15 parameters to visibilities, and to a cube for pictures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S, pc_per_arcsec
from supermage.data_reduction.grid import UVGrid
from supermage.errors import DomainError
from supermage.forward.channels import ChannelResponse, apparent_over_true
from supermage.forward.cube import SkySampler, channel_flux
from supermage.forward.disc import DiscNodes, disc_nodes, gas_disc, unresolved_variance
from supermage.forward.mass_model import MassModel, ShapeModel, SharedCurve
from supermage.forward.mge import floored_root, safe_root
from supermage.forward.nuker import Amount, as_float_tensor, as_radius
from supermage.forward.operators import CellGather, LineFlux
from supermage.forward.picture import draw
from supermage.forward.primary_beam import beam_at_nodes, beam_slope
from supermage.forward.rotation import between_knots, rotation_knots
from supermage.forward.theta import DISC, STARS, UNITS, check_parameters, names_of, numbers
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
_ROUNDING = 1e-9
LARGER_DISC = 1.5

SMALL = 100_000
"""Nodes times channels of a model whose chains are carried in one pass on a CPU; the demo's 236 000 are three times slower that way."""

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
    disc_extent
        Radius in the disc plane, in fields of view, at which the disc ends; it is tapered from 0.85 of that on.

    Notes
    -----
    Parameters are a mapping of the names of Table 1 to 0-d tensors: see :data:`supermage.recipe.PARAMETER_NAMES`. A ``gas_index`` among
    them makes the gas a stretched exponential; others change the mass, see :class:`MassModel`. Line-of-sight velocity is
    ``systemic + s v_c sin i cos(azimuth)`` in the chosen convention, with the redshift's stretch s of
    :func:`supermage.forward.channels.apparent_over_true`, by which the line is widened too.
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
    knots: Tensor
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
        disc_extent: float = 0.7,
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
        self.disc_radius = disc_extent * grid.field_of_view
        longest = max(geometry.longest, 1.0 / grid.field_of_view)
        nodes = disc_nodes(self.disc_radius, 1.0 / longest, density=node_density)
        self._store_nodes(nodes)
        self.register_buffer("knots", rotation_knots(longest, self.disc_radius), persistent=False)
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
        self, theta: Theta, radius_arcsec: Amount, component: str = "total"
    ) -> Float[Tensor, "*radius"]:
        """Circular velocity, km/s, at radii in the disc, arcsec; of one component, or of all together: see :class:`MassModel`.

        Zero for a component that is not there; NaN where v^2 is negative, so that no circular orbit exists.

        Raises
        ------
        DomainError
            If the component is unknown, a parameter of it is missing or outside its range, or a radius is negative or not finite.
        """
        radius = _radii(radius_arcsec)
        theta = self._checked(theta, names_of(component, theta, self.mass_model.halo))
        return safe_root(self.mass_model(theta, component)(torch.log(radius * self.scale)))

    def one_curve(self) -> contextlib.AbstractContextManager[SharedCurve]:
        """See :meth:`MassModel.one_curve`."""
        return self.mass_model.one_curve()

    def surface_density(self, theta: Theta, radius_arcsec: Amount) -> Float[Tensor, "*radius"]:
        """Surface density of the stars, Msun/pc^2, at radii along the major axis, arcsec."""
        return self.mass_model.surface_density(self._checked(theta, STARS), _radii(radius_arcsec))

    def _checked(self, theta: Theta, names: tuple[str, ...]) -> dict[str, Tensor]:
        double = {name: as_float_tensor(value, UNITS.get(name, "")).to(torch.float64) for name, value in theta.items()}
        check_parameters(double, names, emulator=self.mass_model.emulator, scale=self.scale)
        return double

    def projected_speed(self, theta: Theta) -> Float[Tensor, "knot"]:
        """Rotation along the line of sight on the major axis, ``v_c sin i``, km/s, at :attr:`knots` (radii, arcsec).

        With the parameters that are not in :data:`supermage.forward.rotation.ROTATION_ONLY` it says all that visibilities depend on.
        """
        theta = self._checked(theta, names_of("total", theta, self.mass_model.halo))
        speed = floored_root(self.mass_model(theta)(torch.log(self.knots * self.scale)))
        return speed * torch.sin(torch.deg2rad(theta["inclination"]))

    def visibilities(
        self, theta: Theta, *, rows: int | None = None, speed_change: Float[Tensor, "knot"] | None = None
    ) -> Complex[Tensor, "block chan cell"]:
        """Model visibilities, Jy: the mean over each cell's visibilities, in the half plane and sign of the gridded data.

        ``rows`` says how much of the uv plane's table to reckon, where ``torch.func.vmap`` hides the inclination: see :meth:`table_rows`.
        ``speed_change``, km/s, is added to :meth:`projected_speed`.

        Raises
        ------
        DomainError
            If a parameter is missing, not finite or outside its range (a scale length of 0 is no disc, an inclination of 90 deg has no
            surface), or there are fewer rows than the inclination calls for.
        """
        theta = self._checked(theta, self._names(theta))
        inclination, angle = torch.deg2rad(theta["inclination"]), torch.deg2rad(theta["PA"])
        line = self._line(theta, inclination, angle, speed_change)
        table = self.transform(line, self._enough(rows, theta["inclination"]))
        basis = cell_basis(self.position, self.transform.step, angle, inclination, (table.shape[1], table.shape[2]))
        centre = (theta["x"], theta["y"])
        phase = TWO_PI * (self.position[..., 0] * centre[0] + self.position[..., 1] * centre[1])
        slope = self._beam_slope(centre, inclination, angle)
        weights = cell_weights(basis, self.spread, centre, slope)
        result = self._gather(table, weights, basis, phase)
        if self.channels_differ:
            result = result + self._single_channels(table, basis, phase, centre)
        return torch.view_as_complex(result.contiguous())

    def visibilities_of_chains(
        self, theta: Theta, *, curve: Float[Tensor, "chain knot"] | None = None
    ) -> Complex[Tensor, "chain block chan cell"]:
        """Model visibilities, Jy, of several chains' parameters, each of shape (chain,), whose stars' curves may be at hand.

        One vmapped pass on a graphics card, and on a CPU where a chain's arrays are small, so that calling costs more than reckoning: half
        the time a chain at 20 channels and 32 x 32 pixels. Else one after the other: one chain's arrays stay in the cache, all do not.
        """
        names, points = tuple(theta), torch.stack([torch.as_tensor(value) for value in theta.values()], dim=-1)

        def single(point: Tensor, curve: Tensor | None, rows: int | None = None) -> Tensor:
            one = dict(zip(names, point.unbind(), strict=True))
            with self.one_curve() as shared:
                if curve is not None:
                    shared.keep(one, curve)
                return self.visibilities(one, rows=rows)

        if points.device.type == "cpu" and self.edges.shape[0] * (self.edges.shape[1] - 1) * self.log_radius.numel() > SMALL:
            return torch.stack([single(point, None if curve is None else curve[chain]) for chain, point in enumerate(points)])
        every = partial(single, rows=self.table_rows(theta["inclination"]))
        return torch.func.vmap(every, in_dims=(0, None if curve is None else 0))(points, curve)

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
        flattest = numbers({"inclination": torch.as_tensor(inclination).min()})
        if flattest is None:
            return self.transform.rows
        height = self.longest * abs(math.cos(math.radians(flattest["inclination"]))) / self.transform.step
        return min(self.transform.rows, math.ceil(height + _ROUNDING) + SUPPORT)

    def _enough(self, rows: int | None, inclination: Tensor) -> int:
        if rows is None:
            return self.table_rows(inclination)
        needed = SUPPORT if numbers({"inclination": inclination}) is None else self.table_rows(inclination)
        if not needed <= rows <= self.transform.rows:
            raise DomainError(f"rows must lie in [{needed}, {self.transform.rows}] for this inclination, got {rows}")
        return rows

    def _names(self, theta: Theta) -> tuple[str, ...]:
        return (*DISC, *names_of("total", theta, self.mass_model.halo))

    def _line(
        self, theta: Theta, inclination: Tensor, angle: Tensor, speed_change: Tensor | None
    ) -> Float[Tensor, "block chan y column"]:  # fmt: skip
        squared = self.mass_model(theta)(self.log_radius).to(self.dtype)
        seen = apparent_over_true(theta["systemic_velocity"], self.channels.convention)
        velocity = floored_root(squared) * ((seen * torch.sin(inclination)).to(self.dtype) * self.node_cosine)
        if speed_change is not None:
            change = between_knots(speed_change, self.log_radius, torch.log(self.knots * self.scale))
            velocity = velocity + (seen * change).to(self.dtype) * self.node_cosine
        deviation = torch.sqrt((seen * theta["line_broadening"]).to(self.dtype) ** 2 + unresolved_variance(velocity))
        flux = gas_disc(self.node_radius, theta) * self.node_area
        sides = flux.unsqueeze(1) * self._beam(theta, inclination, angle)
        systemic = (theta["systemic_velocity"] - self.reference_velocity).to(self.dtype)
        both = torch.stack([systemic + velocity, systemic - velocity], dim=1)
        line = self.in_channels(both, deviation.unsqueeze(1).expand_as(both), sides.expand_as(both))
        return line.flatten(-2)

    def in_channels(self, velocity: Tensor, deviation: Tensor, flux: Tensor) -> Float[Tensor, "block chan *node"]:
        """Lines integrated over the channels; compiled in float32 on a CPU."""
        lines = (velocity.flatten(), deviation.flatten(), flux.flatten())
        if self.edges.device.type == "cpu" and self.dtype == torch.float32:
            result = LineFlux.apply(lines[0], math.sqrt(0.5) / lines[1], lines[2], self.edges, self.first, self.taps)
        else:
            result = channel_flux(self.edges, self.response, *lines)
        return result.unflatten(-1, velocity.shape)

    def _beam(self, theta: Theta, inclination: Tensor, angle: Tensor) -> Tensor:
        if self.beam_deviation is None:
            return torch.ones((), dtype=self.dtype, device=self.edges.device)
        return beam_at_nodes(self.beam_deviation, (self.node_along, self.node_across), (theta["x"], theta["y"]), angle, inclination)

    def _beam_slope(self, centre: tuple[Tensor, Tensor], inclination: Tensor, angle: Tensor) -> Tensor | None:
        return None if self.beam_deviation is None else beam_slope(self.beam_deviation, centre, angle, inclination)

    def cube(self, theta: Theta, *, primary_beam: bool = True) -> Float[Tensor, "block chan y x"]:
        """Image of every channel, Jy per pixel, integrated over pixels by sampling, at the true centre.

        Points lie as close as the velocity calls for; what it changes between neighbouring ones widens the line, so that lines join up.

        Raises
        ------
        DomainError
            As :meth:`visibilities`.
        """
        return draw(self, self._checked(theta, self._names(theta)), primary_beam=primary_beam)

    def refined(self, factor: float = 2.0) -> GalaxyModel:
        """The same model with so many times the nodes along each axis of the disc, and half as large a disc again."""
        larger = {"node_density": factor, "disc_extent": LARGER_DISC}
        return GalaxyModel(self.grid, **{**self._settings, **{name: by * self._settings[name] for name, by in larger.items()}})

    def discretisation_error(self, theta: Theta) -> float:
        """Rms difference, relative to the rms signal, from a model with twice the nodes along each axis and a disc 1.5 times as large."""
        with torch.no_grad():
            here, there = (model.visibilities(theta).to(torch.complex128) for model in (self, self.refined()))
        return float(torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(there))


def _radii(radius_arcsec: Amount) -> Tensor:
    return as_radius(radius_arcsec, "arcsec").to(torch.float64)
