import numpy as np
import pytest
from matplotlib.axes import Axes

from supermage.data_reduction.images import Beam
from supermage.plots.beam import beam_width, draw_beam
from supermage.plots.chi_squared import chi_squared
from supermage.plots.corner import corner
from supermage.plots.marginal import marginal
from supermage.plots.mass_interval import mass_interval
from supermage.plots.moments import emission_mask, moments
from supermage.plots.noise import noise_histogram
from supermage.plots.position_velocity import major_axis_slice, position_velocity
from supermage.plots.profile import Curve, band, mark_radii, outer_level, profile
from supermage.plots.rank import rank
from supermage.plots.sky_map import sky_map
from supermage.plots.style import journal_style, new_figure
from supermage.plots.trace import trace

AXIS = (np.arange(32) - 16) * 0.1
RNG = np.random.default_rng(1)
DRAWS = RNG.normal(8.0, 0.2, size=(4, 300))
RADIUS = np.geomspace(0.01, 2, 20)
CURVES = (Curve("stars", RNG.uniform(50, 100, size=(30, 20)), "#D55E00"),)

CASES = {
    "beam": lambda a: draw_beam(a, Beam(0.5, 0.3, 30.0)),
    "chi_squared": lambda a: chi_squared(a, np.arange(5.0), np.ones(5), np.full(5, 100.0), label="x"),
    "marginal": lambda a: marginal(a, DRAWS.ravel(), prior=(6.0, 9.8), label="m", truth=8.0),
    "mass_interval": lambda a: mass_interval(a, DRAWS.ravel(), prior=(6.0, 9.8), tail_ess=100.0, truth=8.0),
    "noise": lambda a: noise_histogram(a, RNG.normal(size=1000)),
    "profile": lambda a: mark_radii(
        profile(a, RADIUS, CURVES, label="v", tail_ess=100.0), beam=0.5, emulator=(0.05, 100.0), pc_per_arcsec=55.0
    ),
    "rank": lambda a: rank(a, DRAWS, label="m"),
    "trace": lambda a: trace(a, DRAWS, label="m"),
    "sky_map": lambda a: sky_map(
        a, RNG.normal(size=(32, 32)), AXIS, limits=(-1, 1), unit="Jy/beam", beam=Beam(0.5, 0.3, 30.0), contours=(1.0,)
    ),
    "position_velocity": lambda a: position_velocity(
        a,
        np.arange(5.0),
        np.arange(4.0),
        np.ones((4, 5)),
        limits=(-0.5, 2.0),
        unit="Jy",
        systemic_velocity=1.0,
        curve=(np.arange(1.0, 3.0), np.ones(2)),
        beam=0.5,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_function_takes_and_returns_axes(name):
    with journal_style():
        figure = new_figure(3.35, 2.5)
        axes = figure.subplots()
        assert isinstance(axes, Axes)
        assert CASES[name](axes) is axes
        figure.canvas.draw()


def test_corner_takes_and_returns_an_array_of_axes():
    figure = new_figure(7, 7, constrained=False)
    axes = figure.subplots(2, 2)
    assert corner(axes, RNG.normal(size=(500, 2)), labels=["a", "b"], truth=[0.0, None]) is axes


def test_corner_keeps_to_the_ranges_and_its_ticks_off_their_ends():
    figure = new_figure(7, 7, constrained=False)
    axes = figure.subplots(2, 2)
    draws = np.stack([RNG.uniform(0, 1, 4000), RNG.normal(1240.0, 1.0, 4000)], axis=1)
    ranges = [(0.0, 1.0), (1236.0, 1244.0)]
    corner(axes, draws, labels=["a", "b"], ranges=ranges)
    panel = axes[1, 0]
    for axis, limits, span in ((panel.xaxis, panel.get_xlim(), ranges[0]), (panel.yaxis, panel.get_ylim(), ranges[1])):
        assert limits == span
        ticks = np.asarray(axis.get_majorticklocs())
        margin = (span[1] - span[0]) / 10
        assert 1 <= len(ticks) <= 4
        assert ticks.min() > span[0] + margin
        assert ticks.max() < span[1] - margin


@pytest.mark.parametrize(("value", "limits"), [(12.0, (0.0, 12.6)), (-3.0, (-3.65, 10.0)), (5.0, (0.0, 10.0)), (None, (0.0, 10.0))])
def test_corner_widens_an_axis_to_a_truth_beyond_it_but_not_its_contours(value, limits):
    axes = new_figure(7, 7, constrained=False).subplots(3, 3)
    draws = RNG.uniform(0.0, 10.0, size=(4000, 3))
    corner(axes, draws, labels=["a", "b", "c"], ranges=[(0.0, 10.0)] * 3, truth=[None, value, None])
    assert axes[1, 1].get_xlim() == axes[2, 1].get_xlim() == axes[1, 0].get_ylim() == pytest.approx(limits)
    assert axes[2, 1].get_ylim() == axes[2, 0].get_xlim() == axes[0, 0].get_xlim() == (0.0, 10.0)
    corners = np.concatenate([patch.get_xy() for patch in axes[1, 1].patches])
    assert corners[:, 0].min() == pytest.approx(0.0)
    assert corners[:, 0].max() == pytest.approx(10.0)


def test_corner_of_one_parameter_reaches_its_truth():
    axes = new_figure(3, 3, constrained=False).subplots(1, 1, squeeze=False)
    corner(axes, RNG.uniform(0.0, 10.0, size=(4000, 1)), labels=["a"], ranges=[(0.0, 10.0)], truth=[12.0])
    assert axes[0, 0].get_xlim() == pytest.approx((0.0, 12.6))


@pytest.mark.parametrize("width", [2.0, 60.0])
def test_the_prior_of_an_angle_around_north_is_drawn_where_its_posterior_is(width):
    axes = new_figure(3, 3).subplots()
    marginal(axes, np.clip(RNG.normal(360.0, width, 4000), 180, 540), prior=(0.0, 360.0), label="PA", truth=361.0, turn=(180.0, 540.0))
    grey = axes.collections[0].get_paths()[0].get_extents()
    assert (grey.x0, grey.x1, grey.y1) == pytest.approx((180.0, 540.0, 1 / 360.0))
    assert len(axes.lines) == 1  # the truth: a circle has no edges
    low, high = axes.get_xlim()
    assert low < 361.0 < high
    assert [text.get_text() for text in axes.texts] == (["prior 0 to 360"] if width == 2.0 else [])


def test_a_narrow_posterior_is_shown_alone_with_its_prior_in_words():
    draws = RNG.normal(8.0, 0.01, 4000)
    narrow, wide = new_figure(3, 3).subplots(), new_figure(3, 3).subplots()
    marginal(narrow, draws, prior=(6.0, 9.8), label="m", truth=8.0)
    marginal(wide, 8.0 + 20 * (draws - 8.0), prior=(6.0, 9.8), label="m")
    assert 7.9 < narrow.get_xlim()[0] < draws.min()
    assert draws.max() < narrow.get_xlim()[1] < 8.1
    assert [text.get_text() for text in narrow.texts] == ["prior 6 to 9.8"]
    assert wide.get_xlim()[0] <= 6.0
    assert not wide.texts


def test_profiles_name_their_bands_and_stay_in_the_frame():
    axes = new_figure(3, 3).subplots()
    profile(axes, RADIUS, CURVES, label="v", tail_ess=5000.0)
    assert axes.get_legend_handles_labels()[1] == ["stars", "68 %", r"3$\sigma$"]
    assert axes.get_yscale() == "log"
    low, high = band(CURVES[0].draws, 0.9973)
    assert axes.get_ylim()[0] < low.min()
    assert axes.get_ylim()[1] > high.max()


def test_colours_of_a_position_velocity_diagram_span_what_was_asked():
    axes = new_figure(3, 3).subplots()
    CASES["position_velocity"](axes)
    assert axes.collections[0].get_clim() == (-0.5, 2.0)


def test_style_changes_nothing_outside():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with journal_style():
        assert mpl.rcParams["font.size"] == 8.0
    assert dict(mpl.rcParams) == before


def test_east_is_left_and_north_is_up():
    axes = new_figure(3, 3).subplots()
    sky_map(axes, np.zeros((32, 32)), AXIS, limits=(0, 1))
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert axes.get_ylim()[0] < axes.get_ylim()[1]


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 150.0])
def test_drawn_beam_has_its_position_angle(angle):
    axes = new_figure(3, 3).subplots()
    axes.set(xlim=(2, -2), ylim=(-2, 2))
    draw_beam(axes, Beam(1.0, 0.2, angle))
    patch = axes.patches[0]
    # the end of the major axis, in data coordinates (east, north)
    tip = np.array([np.cos(np.radians(patch.angle)), np.sin(np.radians(patch.angle))])
    expected = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    assert abs(tip @ expected) == pytest.approx(1.0)
    assert beam_width(Beam(4.0, 1.0, 0.0)) == 2.0


@pytest.mark.parametrize("angle", [0.0, 67.0, 135.0, 270.0])
def test_slice_runs_towards_the_receding_side(angle):
    east, north = np.meshgrid(AXIS, AXIS)
    along = (east - 0.1) * np.sin(np.radians(angle)) + (north + 0.2) * np.cos(np.radians(angle))
    offset, cut = major_axis_slice(along[None], AXIS, position_angle=angle, centre=(0.1, -0.2), width=0.3, reach=0.8)
    assert cut[0] == pytest.approx(offset, abs=1e-6)


def test_moments_of_gaussian_lines():
    velocity = np.arange(-300.0, 301.0, 10.0)
    centre = np.linspace(-50, 50, 32)[None, :] * np.ones((32, 1))
    cube = 0.01 * np.exp(-0.5 * ((velocity[:, None, None] - centre) / 40.0) ** 2)
    found = moments(cube, velocity, np.ones(cube.shape, dtype=bool), width=10.0, floor=0.0)
    assert found.velocity == pytest.approx(centre, abs=0.1)
    assert found.dispersion == pytest.approx(np.full_like(centre, 40.0), abs=0.1)
    assert found.flux == pytest.approx(np.full_like(centre, 0.01 * 40 * np.sqrt(2 * np.pi)), rel=1e-3)
    assert np.isnan(moments(cube, velocity, np.ones(cube.shape, dtype=bool), width=10.0, floor=10.0).velocity).all()
    assert emission_mask(cube, noise=0.0, fraction=0.5).mean() == pytest.approx(2 * 40 * np.sqrt(2 * np.log(2)) / 610, rel=0.1)


def test_three_sigma_needs_four_thousand():
    assert outer_level(4000.0)[0] == 0.95
    assert outer_level(4001.0)[0] == pytest.approx(0.9973)
    low, high = band(np.linspace(0, 1, 1001)[:, None], 0.95)
    assert (low[0], high[0]) == pytest.approx((0.025, 0.975))
