"""Losses of a training, from what its artefact keeps of them, as a figure (Chu et al., Figure 5)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supermage.models.nuker_emulator import DESCRIPTION_FILE
from supermage.models.training import write_atomically
from supermage.plots.loss_curve import loss_curve
from supermage.plots.style import COLUMN, journal_style, new_figure

LABEL = "mean squared error, standardised"
DENSITY = "negative log density of a row"


def draw_losses(artefact: Path, path: Path) -> Path | None:
    """Draw the losses that an artefact's description keeps, of every epoch or of every so many steps; the file is written atomically.

    Parameters
    ----------
    artefact
        Folder with ``model.json``.
    path
        The figure, PNG.

    Returns
    -------
    Path or None
        ``path``; None where the description keeps no losses, and nothing is drawn.
    """
    about: dict[str, Any] = json.loads((artefact / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    history: Mapping[str, Any] = about.get("history", {})
    trees: Mapping[str, Any] = about.get("curves", {})
    if not history and not trees:
        return None
    mock = "generated galaxies" if about.get("mock") else about.get("source", "")
    image = io.BytesIO()
    with journal_style():
        figure = new_figure(COLUMN, 2.5)
        curves = {name: history[key] for name, key in (("train", "training"), ("validation", "validation")) if key in history}
        if trees:
            losses = {part: errors["mse"] for part, errors in trees.items()}
            loss_curve(figure.subplots(), losses, label="mean squared error (dex$^2$)").set_title(mock)
        elif "every" in history:
            of = f"x {history['every']} steps"
            loss_curve(figure.subplots(), curves, label=DENSITY, step=of, logarithmic=False).set_title(mock)
        else:
            loss_curve(figure.subplots(), curves, label=LABEL, step="epoch", best=history["best_epoch"]).set_title(mock)
        figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())
    return path
