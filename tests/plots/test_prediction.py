import numpy as np
import pytest

from supermage.plots.prediction import SHARES, prediction
from supermage.plots.style import journal_style, new_figure

RNG = np.random.default_rng(7)
TRUE = RNG.uniform(9.0, 12.0, 3000)
PREDICTED = TRUE + RNG.normal(0.02, 0.05, 3000)


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(3.35, 3.35).subplots()


def test_points_stand_about_the_line_of_equality_with_the_same_axes(axes):
    assert prediction(axes, TRUE, PREDICTED, label=r"$\log M_*$") is axes
    points, line = axes.lines[:2]
    assert np.array_equal(points.get_xydata(), np.stack([TRUE, PREDICTED], axis=1))
    assert np.array_equal(line.get_xdata(), line.get_ydata())
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < min(TRUE.min(), PREDICTED.min()) < max(TRUE.max(), PREDICTED.max()) < axes.get_xlim()[1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (r"true $\log M_*$", r"predicted $\log M_*$")


def test_the_inset_says_mean_and_scatter(axes):
    prediction(axes, TRUE, PREDICTED, label="m")
    (inset,) = axes.child_axes
    left = PREDICTED - TRUE
    assert inset.get_title() == f"{left.mean():.2f} ± {left.std():.3f} dex"
    assert [line.get_xdata()[0] for line in inset.lines] == pytest.approx([left.mean() - left.std(), left.mean() + left.std()])
    assert sum(bar.get_height() for bar in inset.patches) == 3000


def test_a_small_negative_mean_is_no_negative_zero(axes):
    prediction(axes, TRUE, TRUE - 0.001, label="m")
    assert axes.child_axes[0].get_title() == "0.00 ± 0.000 dex"
    other = new_figure(3, 3).subplots()
    prediction(other, TRUE, TRUE - 0.1, label="m")
    assert other.child_axes[0].get_title() == "−0.10 ± 0.000 dex"


def test_contours_hold_the_shares_that_they_are_drawn_for(axes):
    """Counted point by point; 4 sigma of a binomial, and 0.03 for the smoothing."""
    from matplotlib.path import Path

    prediction(axes, TRUE, PREDICTED, label="m")
    (contours,) = axes.collections
    points = np.stack([TRUE, PREDICTED], axis=1)
    for path, share in zip(contours.get_paths(), SHARES, strict=True):
        inside = sum(Path(ring).contains_points(points).astype(int) for ring in path.to_polygons())
        # a ring within a ring is a hole
        assert abs(np.mean(inside % 2) - share) < 0.03 + 4 * np.sqrt(share * (1 - share) / 3000)


def test_rows_without_a_number_are_passed_over(axes):
    true, predicted = TRUE[:50].copy(), PREDICTED[:50].copy()
    true[:5], predicted[3:10] = np.nan, np.nan
    prediction(axes, true, predicted, label="m")
    assert len(axes.lines[0].get_xdata()) == 40
    assert not axes.collections


def test_bars_of_the_gain_are_an_inset_of_their_own(axes):
    prediction(axes, TRUE, PREDICTED, label="m", gain={"M_r": 0.9, "sfr": 0.1})
    assert len(axes.child_axes) == 2
    bars = next(inset for inset in axes.child_axes if inset.get_title() == "share of gain")
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([90.0, 10.0])


def test_a_perfect_prediction_is_drawn(axes):
    prediction(axes, TRUE, TRUE, label="m")
    axes.figure.canvas.draw()
    assert axes.child_axes[0].get_title() == "0.00 ± 0.000 dex"
