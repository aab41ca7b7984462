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


def draw_losses(artefact: Path, path: Path) -> Path | None:
    """Draw the losses of every epoch that an artefact's description keeps; the file is written atomically.

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
    if "history" not in about:
        return None
    history: Mapping[str, Any] = about["history"]
    mock = "generated galaxies" if about.get("mock") else about.get("source", "")
    image = io.BytesIO()
    with journal_style():
        figure = new_figure(COLUMN, 2.5)
        curves = {"train": history["training"], "validation": history["validation"]}
        loss_curve(figure.subplots(), curves, label=LABEL, step="epoch", best=history["best_epoch"]).set_title(mock)
        figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())
    return path
