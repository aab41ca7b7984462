import json

import pytest
from matplotlib.axes import Axes

from supermage.plots import training
from supermage.plots.training import draw_losses

HISTORY = {"training": [1.0, 0.5, 0.2], "validation": [1.1, 0.7, 0.8], "best_epoch": 2}


@pytest.fixture
def drawn(monkeypatch):
    """Axes that were drawn on."""
    found: list[Axes] = []
    whole = training.loss_curve
    monkeypatch.setattr(training, "loss_curve", lambda axes, *given, **options: (found.append(axes), whole(axes, *given, **options))[1])
    return found


def test_losses_of_an_artefact_are_drawn(tmp_path, drawn):
    (tmp_path / "model.json").write_text(json.dumps({"history": HISTORY, "mock": True, "source": "x"}))
    path = tmp_path / "products" / "loss.png"
    assert draw_losses(tmp_path, path) == path
    assert path.read_bytes().startswith(b"\x89PNG") and [item.name for item in path.parent.iterdir()] == ["loss.png"]
    (axes,) = drawn
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [HISTORY["training"], HISTORY["validation"]]
    assert axes.lines[2].get_xdata() == [2, 2] and axes.get_xlabel() == "epoch" and axes.get_title() == "generated galaxies"


def test_an_artefact_without_losses_has_no_figure(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"kind": "mass-prior"}))
    assert draw_losses(tmp_path, tmp_path / "loss.png") is None
    assert not (tmp_path / "loss.png").exists()


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "model.json").write_text(json.dumps({"history": HISTORY}))
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        draw_losses(tmp_path, path)
    assert path.read_bytes() == b"old" and not list(tmp_path.glob(".*.part"))
