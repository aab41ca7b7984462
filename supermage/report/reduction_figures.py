"""Figures of a reduction: what was observed, how noisy it is, and what the weights and the channels' response are worth."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from supermage.data_reduction.gridded import PILLBOX, GriddedVisibilities
from supermage.data_reduction.images import DirtyCube, dirty_cube
from supermage.plots.sky_map import sky_map
from supermage.plots.style import CHAINS, COLUMN, MUTED, PAGE, journal_style, new_figure

FloatArray = NDArray[np.float64]
BINS = 14


@dataclass(frozen=True, eq=False)
class Reduction:
    """Gridded visibilities with what their figures share."""

    path: Path
    gridded: GriddedVisibilities

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """Account of every execution block."""
        return list(self.gridded.provenance.get("blocks", []))

    @cached_property
    def cube(self) -> DirtyCube:
        """Dirty cube without the flat continuum of every cell."""
        gridded = self.gridded
        weight = gridded.weight
        total = weight.sum(axis=1, keepdims=True)
        flat = (weight * gridded.mean).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
        return dirty_cube(gridded, np.where(np.isfinite(gridded.standard_error), gridded.mean - flat, 0.0))

    @cached_property
    def raw(self) -> DirtyCube:
        """Dirty cube of the data as they are."""
        return dirty_cube(self.gridded)

    @cached_property
    def velocity(self) -> FloatArray:
        """Velocity of the first block's channels, km/s."""
        return np.asarray(self.gridded.velocity[0])

    @cached_property
    def distance(self) -> FloatArray:
        """Mean uv distance of every cell, kilowavelengths, shape (block, cell)."""
        u, v = self.gridded.uv_wavelengths()
        return np.asarray(np.hypot(u, v).mean(axis=1) / 1e3)


@dataclass(frozen=True)
class ReductionFigure:
    """A figure of the reduction's report: its name, words, and what draws it."""

    name: str
    title: str
    alt: str
    caption: Callable[[Reduction], str]
    unit: str
    draw: Callable[[Reduction], Figure]
    applies: Callable[[Reduction], bool] = lambda reduction: True
    wide: bool = False

    def save(self, reduction: Reduction, folder: Path) -> None:
        """Draw and write ``NAME.png`` (300 dpi) and ``NAME.pdf``."""
        with journal_style():
            figure = self.draw(reduction)
            for suffix in ("png", "pdf"):
                stream = io.BytesIO()
                metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": "supermage"}
                figure.savefig(stream, format=suffix, dpi=300, metadata=metadata)
                (folder / f"{self.name}.{suffix}").write_bytes(stream.getvalue())
                figure.set_layout_engine("none")


def draw_coverage(reduction: Reduction) -> Figure:
    """Visibilities in every cell of the uv plane, conjugates shown too."""
    gridded = reduction.gridded
    figure = new_figure(COLUMN, 3.0)
    axes = figure.subplots()
    half = gridded.grid.n_pixel // 2
    plane = np.zeros((2 * half + 1, 2 * half + 1))
    count = gridded.count.max(axis=1).sum(axis=0)
    plane[gridded.cell_v + half, gridded.cell_u + half] = count
    plane[half - gridded.cell_v, half - gridded.cell_u] = count
    edge = (half + 0.5) * gridded.grid.cell_size_wavelengths / 1e3
    picture = axes.imshow(np.where(plane > 0, plane, np.nan), extent=(-edge, edge, -edge, edge), norm=LogNorm(vmin=1), cmap="viridis",
                          rasterized=True)  # fmt: skip
    reach = 1.05 * float(np.quantile(reduction.distance, 1.0))
    reach = min(edge, reach)
    axes.set(xlim=(reach, -reach), ylim=(-reach, reach), xlabel=r"$u$ (k$\lambda$)", ylabel=r"$v$ (k$\lambda$)")
    figure.colorbar(picture, ax=axes, label="visibilities in the cell", fraction=0.046, pad=0.02)
    return figure


def draw_occupancy(reduction: Reduction) -> Figure:
    """How many cells hold how many visibilities."""
    figure = new_figure(COLUMN, 2.2)
    axes = figure.subplots()
    for number, block in enumerate(reduction.gridded.count):
        count = block.max(axis=0)
        edges = np.geomspace(0.8, 1.3 * max(float(count.max()), 10.0), 25)
        axes.hist(count[count > 0], bins=list(edges), histtype="step", color=CHAINS[number % len(CHAINS)], label=f"block {number + 1}")
    axes.axvline(5, color=MUTED, linewidth=0.6, linestyle="--")
    axes.text(5.3, 0.97, "5", color=MUTED, va="top", transform=axes.get_xaxis_transform())
    axes.set(xscale="log", xlabel="visibilities in a cell", ylabel="cells")
    axes.legend(loc="upper right")
    return figure


def draw_scales(reduction: Reduction) -> Figure:
    """The cells' own noise over the block's, against what its degrees of freedom alone would scatter."""
    figure = new_figure(COLUMN, 2.4)
    axes = figure.subplots()
    gridded = reduction.gridded
    known = gridded.cell_degrees > 0
    own, degrees = gridded.cell_scale[known], gridded.cell_degrees[known]
    low, high = np.quantile(np.sqrt(own), [0.005, 0.995])
    reach = 1.3 * max(1.0 - low, high - 1.0, 0.05)
    grid = np.linspace(max(0.0, 1.0 - reach), 1.0 + reach, 60)
    axes.hist(np.sqrt(own), bins=list(grid), density=True, histtype="step", color=CHAINS[0], label="each cell's own")
    moderated = np.sqrt(gridded.moderated_scale[known])
    if np.ptp(moderated) > 0.5 * (grid[1] - grid[0]):
        axes.hist(moderated, bins=list(grid), density=True, histtype="step", color=CHAINS[1], label="moderated")
    else:
        axes.axvline(float(moderated.mean()), color=CHAINS[1], linewidth=1.0, label="moderated: one for all")
    expected = np.mean([2.0 * x * nu * stats.chi2.pdf(nu * x**2, nu) for x, nu in ((grid, nu) for nu in _typical(degrees))], axis=0)
    axes.plot(grid, expected, color=MUTED, linewidth=0.8, label="if all were one")
    axes.set(xlabel=r"$\sigma$ of a cell over that of the block", ylabel="density")
    _legend_above(axes)
    return figure


def _legend_above(axes: Axes, lines: int = 3) -> None:
    """A legend in room made for it above the data."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + (0.04 + 0.09 * lines) * (high - low))
    axes.legend(loc="upper right")


def _typical(degrees: FloatArray) -> FloatArray:
    return np.quantile(degrees, np.linspace(0.02, 0.98, 49))


def draw_channels(reduction: Reduction) -> Figure:
    """Noise, and share of visibilities that were not used, against channel velocity."""
    figure = new_figure(COLUMN, 3.0)
    upper, lower = figure.subplots(2, sharex=True)
    for number, block in enumerate(reduction.blocks):
        velocity = reduction.gridded.velocity[number]
        colour = CHAINS[number % len(CHAINS)]
        upper.step(velocity, np.sqrt(block["noise_by_channel"]), where="mid", color=colour, label=f"block {number + 1}")
        lower.step(velocity, 100.0 * np.array(block["unused_by_channel"]), where="mid", color=colour)
    upper.axhline(1.0, color=MUTED, linewidth=0.6)
    upper.set(ylabel=r"$\sigma$ over the block's")
    upper.legend(loc="best")
    lower.set(xlabel=_velocity_label(reduction), ylabel="not used (%)", ylim=(0.0, None))
    return figure


def _velocity_label(reduction: Reduction) -> str:
    return f"velocity (km/s, {reduction.gridded.frame}, {reduction.gridded.convention})"


def draw_time(reduction: Reduction) -> Figure:
    """Noise against the weights in stretches of a twelfth of the block."""
    blocks = [block for block in reduction.blocks if block.get("noise_in_time")]
    figure = new_figure(COLUMN, 2.0)
    axes = figure.subplots()
    for number, block in enumerate(blocks):
        time, sigma = np.array(block["noise_in_time"]).T
        minutes = (time - block["start_mjd"]) * 1440.0
        colour = CHAINS[number % len(CHAINS)]
        pauses = np.flatnonzero(np.diff(minutes) > 1.5 * np.diff(minutes).min(initial=np.inf)) + 1
        for part, (when, what) in enumerate(zip(np.split(minutes, pauses), np.split(sigma, pauses))):
            axes.plot(when, what, marker="o", markersize=2.5, linewidth=0.6, color=colour, label=None if part else f"block {number + 1}")
    axes.axhline(1.0, color=MUTED, linewidth=0.6)
    low, high = axes.get_ylim()
    axes.set(xlabel="minutes since the block's start", ylabel=r"$\sigma$ against the weights", ylim=(min(low, 0.9), max(high, 1.1)))
    axes.legend(loc="best")
    return figure


def draw_correlation(reduction: Reduction) -> Figure:
    """Noise correlation of channels against their distance, measured and expected."""
    found = reduction.gridded.provenance["channel_correlation"]
    measured, error, expected = (np.array(found[key]) for key in ("measured", "standard_error", "expected"))
    lag = np.arange(measured.size)
    figure = new_figure(COLUMN, 2.0)
    axes = figure.subplots()
    axes.axhline(0.0, color=MUTED, linewidth=0.6)
    axes.plot(lag, expected, color=CHAINS[1], marker="_", markersize=9, linestyle="", label="channel response")
    axes.errorbar(lag, measured, 2.0 * error, color=CHAINS[0], marker="o", markersize=2.5, linestyle="", linewidth=0.8,
                  label=r"measured, $2\sigma$")  # fmt: skip
    axes.set(xlabel="channels apart", ylabel="noise correlation")
    axes.legend(loc="upper right")
    return figure


def draw_amplitude(reduction: Reduction) -> Figure:
    """Weighted mean amplitude of continuum and line against uv distance, with what noise alone would give."""
    gridded = reduction.gridded
    weight = gridded.weight
    total = weight.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    flat = (weight * gridded.mean).sum(axis=1) / safe
    line = np.where(weight > 0, gridded.mean - flat[:, None, :], 0.0)
    filled = total > 0
    distance = reduction.distance[filled]
    edges = np.quantile(distance, np.linspace(0.0, 1.0, BINS + 1))
    bins = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, BINS - 1)
    # variance of a mean over the channels that a cell has, correlated, over that of independent ones
    correlation = gridded.response.correlation(gridded.n_channel, floor=0.0)
    root = np.sqrt(weight)
    factor = (np.einsum("bck,cd,bdk->bk", root, correlation, root) / safe)[filled]
    noise = np.sqrt(2.0 * factor / safe[filled])
    power = ((np.abs(line) ** 2 * weight).sum(axis=1) / safe)[filled] - 2.0 * ((weight > 0).sum(axis=1)[filled] - factor) / safe[filled]
    figure = new_figure(COLUMN, 2.4)
    axes = figure.subplots()
    middle = [float(distance[bins == k].mean()) if (bins == k).any() else np.nan for k in range(BINS)]
    curves = (np.abs(flat[filled]) ** 2 - noise**2, "continuum", CHAINS[1]), (power, "line, rms over channels", CHAINS[0])
    for values, label, colour in curves:
        mean = [float(np.average(values[bins == k], weights=total[filled][bins == k])) if (bins == k).any() else np.nan
                for k in range(BINS)]  # fmt: skip
        axes.plot(middle, 1e3 * np.sqrt(np.maximum(mean, 0.0)), marker="o", markersize=2.5, linewidth=0.6, color=colour, label=label)
    level = [1e3 * float(np.sqrt(np.mean(noise[bins == k] ** 2) / max((bins == k).sum(), 1) ** 0.5)) if (bins == k).any() else np.nan
             for k in range(BINS)]  # fmt: skip
    axes.plot(middle, level, color=MUTED, linestyle="--", linewidth=0.8, label="noise of a bin (continuum)")
    axes.set(xlabel=r"uv distance (k$\lambda$)", ylabel="amplitude, noise taken off (mJy)", ylim=(0.0, None))
    axes.legend(loc="upper right")
    return figure


def draw_images(reduction: Reduction) -> Figure:
    """Dirty maps: all channels together, the brightest channel less the continuum, and the spectrum at its peak."""
    cube, raw = reduction.cube, reduction.raw
    noise = np.where(np.isfinite(cube.noise), cube.noise, 0.0)
    figure = new_figure(PAGE, 2.3)
    left, middle, right = figure.subplots(1, 3)
    axis = reduction.gridded.grid.axis
    weights = np.where(noise > 0, 1.0 / np.where(noise > 0, noise, 1.0) ** 2, 0.0)
    together = 1e3 * np.tensordot(weights, raw.data, 1) / weights.sum()
    sky_map(left, together, axis, limits=(float(together.min()), float(together.max())), unit="mJy/beam", beam=cube.beam,
            title="all channels")  # fmt: skip
    channel, y, x = np.unravel_index(int(np.argmax(cube.data)), cube.data.shape)
    image = 1e3 * cube.data[channel]
    sky_map(middle, image, axis, limits=(float(image.min()), float(image.max())), unit="mJy/beam", beam=cube.beam, label="x",
            title=f"line at {reduction.velocity[channel]:.0f} km/s")  # fmt: skip
    right.fill_between(reduction.velocity, -2e3 * noise, 2e3 * noise, color="0.88", linewidth=0, step="mid", label=r"$\pm 2\sigma$")
    right.step(reduction.velocity, 1e3 * cube.data[:, y, x], where="mid", color=CHAINS[0], linewidth=0.8)
    right.set(xlabel=_velocity_label(reduction), ylabel="mJy/beam", title=f"at {axis[x]:+.2f}, {axis[y]:+.2f} arcsec")
    _legend_above(right, lines=1)
    return figure


def _has(key: str) -> Callable[[Reduction], bool]:
    return lambda reduction: any(block.get(key) for block in reduction.blocks)


COVERAGE = (
    ReductionFigure(
        "coverage", "uv coverage", "Map of the uv plane, coloured by visibilities in each cell.",
        lambda r: f"Cells of {r.gridded.grid.cell_size:.3g} m that hold visibilities, all blocks together (both hands counted), and their "
        f"conjugates: {r.gridded.n_cell} cells in the half plane.", "kilowavelengths", draw_coverage),
    ReductionFigure(
        "occupancy", "Visibilities in a cell", "Histogram of the number of visibilities in a cell.",
        lambda r: "Dashed: the five below which the published rule widens its window. The moderated noise needs no such rule.", "numbers",
        draw_occupancy),
)  # fmt: skip
NOISE = (
    ReductionFigure(
        "scales", "Noise of the cells", "Histogram of the cells' noise over the block's, with the expected scatter.",
        lambda r: "Each cell's own standard deviation over the block's, the moderated one that fits use, and (grey) what would be seen if "
        "all cells had one noise and the scatter were that of its degrees of freedom alone.", "ratio", draw_scales,
        lambda r: r.gridded.window == PILLBOX and bool((r.gridded.cell_degrees > 0).any())),
    ReductionFigure(
        "channel-noise", "Noise and losses along the band", "Noise and share of unused visibilities against velocity.",
        lambda r: "Above: noise of each channel over the block's, 1 where it is not known to 10 %. Below: visibilities flagged or without "
        "a usable weight.", "ratio; per cent", draw_channels, _has("noise_by_channel")),
    ReductionFigure(
        "noise-in-time", "Noise in time", "Noise against the weights in time.",
        lambda r: "Noise over what the set's own weights promise, in stretches of a twelfth of the block (30 s to 10 minutes), "
        "mean 1 for each block.", "minutes; ratio",
        draw_time, lambda r: any(len(block.get("noise_in_time") or ()) > 1 for block in r.blocks)),
    ReductionFigure(
        "correlation", "Noise correlation of the channels", "Correlation of the noise against channel distance, measured and expected.",
        lambda r: f"Measured in differences that hold no source, and that of the assumed response: {r.gridded.response.words}.",
        "channels; correlation", draw_correlation, lambda r: r.gridded.provenance.get("channel_correlation") is not None),
)  # fmt: skip
SIGNAL = (
    ReductionFigure(
        "amplitude", "Amplitude against baseline", "Amplitude of continuum and line against uv distance.",
        lambda r: "Root of the weighted mean square with the noise's own part taken off, in bins of equally many cells; nought where "
        "the noise accounts for everything.", "kilowavelengths; mJy", draw_amplitude),
    ReductionFigure(
        "images", "Dirty images", "Dirty maps of all channels and of the brightest line channel, and a spectrum.",
        lambda r: f"Natural weighting, beam {r.cube.beam.major:.2f} x {r.cube.beam.minor:.2f} arcsec. Left: mean of all channels (continuum"
        " and line). Middle: the brightest channel without each cell's flat continuum. Right: the spectrum at its brightest pixel; "
        "a line that fills most of the band is partly taken for continuum.", "arcsec; mJy/beam; km/s", draw_images, wide=True),
)  # fmt: skip
FIGURES = (*COVERAGE, *NOISE, *SIGNAL)
