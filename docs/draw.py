"""Draw the two pictures of the documentation: `python docs/draw.py` writes docs/images/*.svg.

The disc and its colours come from the same formulae as in the conventions page, not from the package.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Arc, Ellipse, FancyArrowPatch, FancyBboxPatch

IMAGES = Path(__file__).parent / "images"
RED, BLUE, INK, GREY = "#b2182b", "#2166ac", "#222222", "#777777"
mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "supermage", "svg.fonttype": "path"})


def arrow(axes, start, end, *, colour=INK, style="-|>", width=1.2, curve=0.0):
    """An arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=11, color=colour, linewidth=width, shrinkA=0, shrinkB=0,
                                   connectionstyle=f"arc3,rad={curve}"))


def sky(axes, position_angle=67.0, inclination=60.0):
    """The disc as seen on the sky: east to the left, angles from north through east."""
    pa, q = np.radians(position_angle), np.cos(np.radians(inclination))
    side = np.linspace(-1.35, 1.35, 541)
    east, north = np.meshgrid(side, side)
    major = east * np.sin(pa) + north * np.cos(pa)
    minor = (east * np.cos(pa) - north * np.sin(pa)) / q
    radius = np.hypot(major, minor)
    velocity = np.where(radius <= 1, major / np.maximum(radius, 0.12) * np.tanh(4 * radius), np.nan)
    axes.imshow(velocity, origin="lower", extent=(-1.35, 1.35, -1.35, 1.35), cmap="RdBu_r", vmin=-1.3, vmax=1.3, alpha=0.75)
    axes.add_patch(Ellipse((0, 0), 2, 2 * q, angle=90 - position_angle, fill=False, color=INK, linewidth=1))
    tip = np.array([np.sin(pa), np.cos(pa)])
    arrow(axes, (0, 0), (0, 1.25))
    arrow(axes, (0, 0), (1.25, 0))
    arrow(axes, (0, 0), tuple(1.22 * tip), colour=RED, width=1.8)
    axes.plot([0, -1.1 * tip[0]], [0, -1.1 * tip[1]], color=BLUE, linewidth=1.2, linestyle="--")
    axes.add_patch(Arc((0, 0), 1.0, 1.0, theta1=90 - position_angle, theta2=90, color=INK, linewidth=1.2))
    # The axis of east runs to the left: seen so, the angle grows anticlockwise.
    axes.text(0.19, 0.30, "PA", ha="center", va="center", weight="bold")
    axes.text(0, 1.30, "north, y, m", ha="center", va="bottom")
    axes.text(1.31, 0, "east\nx, l", ha="right", va="center")
    axes.text(*(1.27 * tip + [0.0, 0.06]), "receding", color=RED, ha="right", va="bottom")
    axes.text(*(-1.16 * tip), "approaching", color=BLUE, ha="left", va="top")
    axes.set(xlim=(1.75, -1.75), ylim=(-1.5, 1.6), aspect="equal")
    axes.set_title("On the sky", fontsize=10)
    axes.axis("off")


def side_view(axes, inclination=60.0):
    """The disc from the side: the inclination is that of its axis to the line of sight."""
    tilt = np.radians(inclination)
    axes.text(-1.72, -0.1, "observer", ha="left", va="top")
    arrow(axes, (0, 0), (-1.7, 0))
    along = np.array([-np.sin(tilt), np.cos(tilt)])
    axis = np.array([-np.cos(tilt), -np.sin(tilt)])
    axes.plot(*zip(-1.05 * along, 1.05 * along, strict=True), color=INK, linewidth=4, solid_capstyle="round")
    arrow(axes, (0, 0), tuple(1.15 * axis), colour=GREY)
    axes.text(*(1.22 * axis), "axis of the disc", ha="center", va="top", color=GREY)
    axes.add_patch(Arc((0, 0), 1.0, 1.0, theta1=180, theta2=180 + inclination, color=INK, linewidth=1.2))
    axes.text(-0.62, -0.32, "i", weight="bold", ha="center", va="center", style="italic")
    axes.text(0.25, -1.0, "i = 0: face-on\ni = 90: edge-on", ha="left", va="center")
    axes.text(*(1.14 * along), "gas disc", ha="center", va="bottom")
    axes.set(xlim=(-1.8, 1.4), ylim=(-1.5, 1.6), aspect="equal")
    axes.set_title("From the side", fontsize=10)
    axes.axis("off")


def draw_angles():
    """The angles of the conventions page."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.6), width_ratios=(1.1, 1))
    sky(left)
    side_view(right)
    figure.tight_layout()
    return figure


BOXES = {  # name: (x, y, width, words, command or module)
    "ms": (0.0, 2.0, 1.75, "measurement set", "supermage simulate\nsupermage calibrate"),
    "grid": (2.45, 2.0, 1.75, "gridded visibilities", "supermage reduce\n(data_reduction)"),
    "like": (4.9, 1.0, 1.6, "likelihood", "inference/model.py"),
    "post": (7.1, 1.0, 1.6, "posterior", "supermage fit\n(inference)"),
    "report": (9.3, 1.0, 1.6, "report", "supermage report\n(plots, report)"),
    "par": (0.0, 0.0, 1.75, "15 parameters", "priors of the recipe"),
    "mass": (2.35, 0.0, 1.95, "Nuker, MGE, velocity", "models, forward"),
    "cube": (4.9, -0.65, 1.6, "disc, visibilities", "forward"),
}
WAYS = [("ms", "grid"), ("grid", "like"), ("par", "mass"), ("mass", "cube"), ("cube", "like"), ("like", "post"), ("post", "report")]


def draw_way():
    """The way of the data through the package."""
    figure, axes = plt.subplots(figsize=(9.2, 3.4))
    height = 0.62
    for x, y, width, words, where in BOXES.values():
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.06", facecolor="#f2f5fa", edgecolor=INK, linewidth=1))
        axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", weight="bold", fontsize=8.5)
        axes.text(x + width / 2, y - 0.13, where, ha="center", va="top", fontsize=7.5, color=GREY)
    for start, end in WAYS:
        x, y, width, *_ = BOXES[start]
        x2, y2, width2, *_ = BOXES[end]
        if abs(x + width / 2 - x2 - width2 / 2) < 0.5:
            arrow(axes, (x + width / 2, y + height + 0.08), (x2 + width2 / 2, y2 - 0.32))
        else:
            arrow(axes, (x + width + 0.09, y + height / 2), (x2 - 0.09, y2 + height / 2 + (0.12 if y > y2 else 0)))
    axes.set(xlim=(-0.2, 11.1), ylim=(-1.25, 2.85))
    axes.axis("off")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, make in (("angles", draw_angles), ("way", draw_way)):
        picture = make()
        picture.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
