"""Figures of data, model and residual: moment maps, channel maps, position-velocity diagram."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from supermage.forward.channels import apparent_over_true
from supermage.plots.beam import beam_words
from supermage.plots.moments import Moments, emission_mask, main_body, moments
from supermage.plots.position_velocity import major_axis_slice, position_velocity
from supermage.plots.sky_map import sky_map
from supermage.plots.style import DIVERGING_MAP, INTENSITY_MAP, PAGE, WIDTH_MAP, new_figure
from supermage.report.case import Case
from supermage.report.figure import FigureSpec

FloatArray = NDArray[np.float64]
GROUPS = 8
FLUX_SIGMAS = 3.0
Place = Literal["both", "x", "y", "none"]


@cache
def _corner(rows: int, columns: int, row: int, column: int) -> Place:
    """Which axes of a panel are named: only the outer ones."""
    bottom, left = row == rows - 1, column == 0
    return "both" if bottom and left else "x" if bottom else "y" if left else "none"


def half_width(case: Case) -> float:
    """Half the field worth showing around the galaxy: where the model's flux is above 15 % of its peak, and one and a half beams more."""
    cubes = case.cubes
    east, north = centre(case)
    flux = cubes.model.sum(axis=0)
    y, x = np.nonzero(main_body(flux, 0.15 * float(flux.max())))
    reach = max(np.abs(cubes.axis[x] - east).max(), np.abs(cubes.axis[y] - north).max()) + 1.5 * cubes.beam.major
    return float(min(reach, cubes.axis[-1]))


def centre(case: Case) -> tuple[float, float]:
    """The galaxy's centre in the best draw, arcsec east and north of the phase centre."""
    return case.best_theta["x"], case.best_theta["y"]


def typical_noise(case: Case) -> float:
    """Noise of a channel, Jy/beam: the median over those that hold data."""
    noise = case.cubes.noise
    return float(np.median(noise[np.isfinite(noise)]))


def moment_pair(case: Case) -> tuple[Moments, Moments, float]:
    """Moments of data and model under the model's mask, and the noise of the integrated flux, Jy/beam km/s."""
    cubes = case.cubes
    noise = typical_noise(case)
    mask = emission_mask(cubes.model, noise=noise)
    error = noise * cubes.width * float(np.sqrt(max(mask.sum(axis=0).max(), 1)))
    maps = [moments(cube, cubes.velocity, mask, width=cubes.width, floor=FLUX_SIGMAS * error) for cube in (cubes.data, cubes.model)]
    return maps[0], maps[1], error


def _largest(difference: FloatArray) -> float:
    """Scale of a map of differences: its 98th percentile, so that one pixel at the rim does not set it."""
    size = np.abs(difference[np.isfinite(difference) & (difference != 0)])
    return float(np.quantile(size, 0.98)) if size.size else 0.0


def _residual_limit(case: Case, residual: NDArray[np.floating[Any]]) -> float:
    """Colour scale of residuals (mJy/beam): their largest value, and at least three times the noise of a channel."""
    return max(float(np.abs(residual).max()), 3e3 * typical_noise(case))


def draw_moments(case: Case) -> Figure:
    """Three rows of moments, columns data, model, data minus model."""
    data, model, error = moment_pair(case)
    cubes = case.cubes
    figure = new_figure(PAGE, 6.2)
    axes = figure.subplots(3, 3)
    reach = half_width(case)
    peak = float(max(data.flux.max(), model.flux.max()))
    systemic = case.best_theta["systemic_velocity"]
    speed = float(np.nanmax(np.abs(model.velocity - systemic), initial=1.0))
    widest = float(np.nanmax([*model.dispersion.ravel(), *data.dispersion.ravel()], initial=1.0))

    def least(difference: FloatArray) -> float:
        return max(0.5 * cubes.width, _largest(difference))

    kinds = (
        ("flux", "Flux (Jy/beam km/s)", INTENSITY_MAP, (0.0, peak), max(5 * error, _largest(data.flux - model.flux))),
        ("velocity", "Velocity (km/s)", DIVERGING_MAP, (systemic - speed, systemic + speed), least(data.velocity - model.velocity)),
        ("dispersion", "Dispersion (km/s)", WIDTH_MAP, (0.0, widest), least(data.dispersion - model.dispersion)),
    )
    for row, (name, unit, colours, limits, spread) in enumerate(kinds):
        first, second = getattr(data, name), getattr(model, name)
        common = np.where(np.isfinite(first) & np.isfinite(second), 1.0, np.nan)
        panels = (
            (first, limits, colours, None, "Data"),
            (second, limits, colours, unit, "Model"),
            (first - second if name == "flux" else (first - second) * common, (-spread, spread), DIVERGING_MAP, unit, "Data − model"),
        )
        for column, (image, span, colour_map, label, title) in enumerate(panels):
            sky_map(
                axes[row, column],
                image,
                cubes.axis,
                limits=span,
                unit=label,
                colour_map=colour_map,
                half_width=reach,
                centre=centre(case),
                beam=cubes.beam if row == 0 else None,
                label=_corner(3, 3, row, column),
                title=title if row == 0 else "",
                contours=(),
            )
    return figure


def channel_groups(case: Case) -> list[NDArray[np.int64]]:
    """Up to eight groups of equally many neighbouring channels about the model's line."""
    light = np.abs(case.cubes.model).max(axis=(1, 2))
    bright = np.flatnonzero(light > 0.1 * light.max())
    return equal_groups(int(bright.min()), int(bright.max()), light.size)


def equal_groups(first: int, last: int, n_channel: int) -> list[NDArray[np.int64]]:
    """Up to eight equal groups about the channels from ``first`` to ``last``; what is left over lies at the edges, without and within."""
    span = last - first + 1
    size = -(-span // GROUPS)
    count = min(-(-span // size), n_channel // size)
    start = min(max(first - (count * size - span) // 2, 0), n_channel - count * size)
    return list(np.arange(start, start + count * size).reshape(count, size))


def draw_channels(case: Case) -> Figure:
    """Rows data, model, residual; columns velocity."""
    cubes = case.cubes
    groups = channel_groups(case)
    stacks = [np.array([cube[g].mean(axis=0) for g in groups]) * 1e3 for cube in (cubes.data, cubes.model, cubes.residual)]
    limit = float(np.abs(stacks[0]).max())
    limits = (limit, limit, min(limit, _residual_limit(case, stacks[2])))
    figure = new_figure(PAGE, 0.8 + 3 * 5.2 / max(len(groups), 4))
    axes = figure.subplots(3, len(groups), squeeze=False)
    reach = half_width(case)
    for row, (name, stack) in enumerate(zip(("Data", "Model", "Residual"), stacks, strict=True)):
        for column, image in enumerate(stack):
            panel = axes[row, column]
            sky_map(
                panel,
                image,
                cubes.axis,
                limits=(-limits[row], limits[row]),
                ticks=3,
                colour_map=DIVERGING_MAP,
                half_width=reach,
                centre=centre(case),
                beam=cubes.beam if column == 0 and row == 0 else None,
                label="none",
                title=f"{cubes.velocity[groups[column]].mean():.0f} km/s" if row == 0 else "",
            )
            if column == 0:
                panel.annotate(
                    name,
                    (0.0, 0.5),
                    xytext=(-32.0, 0.0),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    rotation=90,
                    ha="right",
                    va="center",
                )
            if row == 2 and column == 0:
                panel.tick_params(labelbottom=True, labelleft=True)
                panel.set_xlabel("East (arcsec)")
                panel.set_ylabel("North (arcsec)", labelpad=0.0)
    for rows in (slice(0, 2), slice(2, 3)):
        figure.colorbar(
            axes[rows, 0][0].images[0], ax=axes[rows], label="mJy/beam", fraction=0.02, pad=0.01, aspect=20 if rows.stop == 2 else 9
        )
    return figure


def draw_position_velocity(case: Case) -> Figure:
    """Data with the model's contours, and the residual."""
    cubes, theta = case.cubes, case.best_theta
    reach = min(half_width(case), float(cubes.axis[-1]) - max(abs(theta["x"]), abs(theta["y"])))
    cut = {
        name: major_axis_slice(
            cube * 1e3, cubes.axis, position_angle=theta["PA"], centre=(theta["x"], theta["y"]), width=cubes.beam_width, reach=reach
        )
        for name, cube in (("data", cubes.data), ("model", cubes.model), ("residual", cubes.residual))
    }
    offset = cut["data"][0]
    peak = float(cut["model"][1].max())
    limit = max(float(np.abs(cut["data"][1]).max()), peak)
    spread = min(limit, _residual_limit(case, cut["residual"][1]))
    noise = 1e3 * typical_noise(case)
    seen = apparent_over_true(theta["systemic_velocity"], case.gridded.convention) * np.sin(np.radians(theta["inclination"]))
    curve = (case.profiles.radius, np.median(case.profiles.velocity["total"], axis=0) * seen)
    figure = new_figure(PAGE, 2.9)
    left, right = figure.subplots(1, 2, sharey=True)
    frame = f"{case.gridded.frame} velocity, {case.gridded.convention} (km/s)"
    levels = peak * np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    for axes, name in ((left, "data"), (right, "residual")):
        position_velocity(
            axes,
            offset,
            cubes.velocity,
            cut[name][1],
            limits=(-spread, spread) if name == "residual" else (-FLUX_SIGMAS * noise, limit),
            unit="mJy/beam",
            residual=name == "residual",
            contours=cut["model"][1] if name == "data" else None,
            levels=levels,
            systemic_velocity=theta["systemic_velocity"],
            curve=curve if name == "data" else None,
            beam=cubes.beam_width,
            velocity_label=frame,
            named=name == "data",
            title="Data, contours: model" if name == "data" else "Residual",
        )
    return figure


def _channels(count: int) -> str:
    return "one channel" if count == 1 else f"{count} neighbouring channels"


def _beam_words(case: Case) -> str:
    return f"The synthesised beam ({beam_words(case.cubes.beam)}) is drawn lower left."


SKY_FIGURES = (
    FigureSpec(
        "moments",
        "Moment maps",
        "Nine maps: integrated flux, mean velocity and velocity dispersion of data, model and their difference.",
        lambda case: (
            "Integrated flux, mean velocity and velocity dispersion of the dirty images (natural weights) of data, best draw, and their "
            "difference, both within the same mask (the main body of the model, above 10 % of its peak and above half the noise of a "
            "channel); velocity and dispersion where the flux exceeds "
            f"{FLUX_SIGMAS:.0f} times its noise. The dispersion includes beam smearing. " + _beam_words(case)
        ),
        "arcsec; Jy/beam km/s, km/s, km/s",
        draw_moments,
    ),
    FigureSpec(
        "channels",
        "Channel maps",
        "Small maps of the line in steps of velocity, one row each for data, model and residual.",
        lambda case: (
            f"Dirty images, each the mean of {_channels(len(channel_groups(case)[0]))} "
            f"({len(channel_groups(case)[0]) * case.cubes.width:.0f} km/s): data, best draw, residual (on its own colour scale). "
            + _beam_words(case)
        ),
        "arcsec, km/s; mJy/beam",
        draw_channels,
    ),
    FigureSpec(
        "position-velocity",
        "Position-velocity diagram",
        "Velocity against offset along the major axis: data with model contours, and the residual.",
        lambda case: (
            "Cut through the dirty images along the receding major axis (positive offsets recede), averaged over one beam. Contours: "
            "best draw at 10 to 90 % of its peak. Dotted: median projected circular velocity. The bar is one beam long. "
            f"The data's colour scale begins at -{FLUX_SIGMAS:.0f} times the noise of a channel."
        ),
        "arcsec, km/s; mJy/beam",
        draw_position_velocity,
    ),
)
