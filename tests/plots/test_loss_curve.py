import numpy as np
import pytest

from supermage.plots.loss_curve import loss_curve
from supermage.plots.style import journal_style, new_figure


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(3.35, 2.5).subplots()


def test_every_part_is_a_curve_from_the_first_step_on(axes):
    curves = {"train": [4.0, 2.0, 1.0], "test": [5.0, 3.0, 2.0]}
    assert loss_curve(axes, curves, label="MSE (dex$^2$)") is axes
    for line, losses in zip(axes.lines, curves.values(), strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == losses
    assert axes.get_legend_handles_labels()[1] == ["training", "test"]
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "MSE (dex$^2$)")
    assert axes.lines[0].get_color() != axes.lines[1].get_color()


def test_the_step_that_is_kept_is_marked(axes):
    loss_curve(axes, {"train": np.ones(5), "validation": np.ones(5), "other": np.ones(3)}, label="loss", step="epoch", best=4)
    assert axes.lines[-1].get_xdata() == [4, 4]
    assert axes.get_legend_handles_labels()[1] == ["training", "validation", "other", "best epoch, 4"]
    assert len({line.get_color() for line in axes.lines}) == 4
