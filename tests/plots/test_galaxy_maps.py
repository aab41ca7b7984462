import numpy as np
import pytest

from supermage.plots.galaxy_maps import galaxy_maps
from supermage.plots.style import journal_style, new_figure


def disc():
    """A rotating disc with an empty corner."""
    y, x = np.mgrid[-3:3:48j, -3:3:48j]
    radius = np.hypot(x, y)
    light, velocity, dispersion = np.exp(-radius), 150.0 * x / np.maximum(radius, 0.1), 100.0 * np.exp(-radius / 3.0)
    light[:5, :5] = dispersion[:5, :5] = velocity[:5, :5] = 0.0
    return light, 0.7 - 0.1 * radius, velocity, dispersion


@pytest.fixture
def axes():
    with journal_style():
        yield new_figure(7, 2.5).subplots(1, 4)


def blank(panel):
    image = panel.images[0].get_array()
    return np.ma.getmaskarray(image) | np.isnan(np.ma.getdata(image))


def test_four_panels_span_the_field_and_leave_blank_what_is_empty(axes):
    assert galaxy_maps(axes, *disc(), half_width=3.0) is axes
    for panel in axes:
        assert panel.images[0].get_extent() == [-3.0, 3.0, -3.0, 3.0]
        assert panel.images[0].origin == "lower"
        expected = np.zeros((48, 48), dtype=bool)
        expected[:5, :5] = True
        assert np.array_equal(blank(panel), expected)


def test_the_image_is_the_logarithm_of_light_over_peak(axes):
    light, *others = disc()
    galaxy_maps(axes, 1e7 * light, *others)
    image = np.ma.getdata(axes[0].images[0].get_array())
    assert np.nanmax(image) == pytest.approx(0.0)
    assert axes[0].images[0].get_clim() == (-4.0, 0.0)
    assert image[24, 40] == pytest.approx(np.log10(light[24, 40] / light.max()))


def test_velocities_are_symmetric_about_zero_with_the_receding_side_red(axes):
    light, colour, velocity, dispersion = disc()
    galaxy_maps(axes, light, colour, velocity + 20.0, dispersion)
    low, high = axes[2].images[0].get_clim()
    assert low == -high
    assert high == pytest.approx(np.quantile((velocity + 20.0)[dispersion > 0], 0.98))
    red, _, blue, _ = axes[2].images[0].cmap(0.99)
    assert red > blue


def test_a_single_star_has_a_velocity_and_no_dispersion(axes):
    light, colour, velocity, dispersion = disc()
    occupied = dispersion > 0
    dispersion[24, 24] = 0.0
    galaxy_maps(axes, light, colour, velocity, dispersion, occupied=occupied)
    assert not blank(axes[2])[24, 24]
    assert blank(axes[3])[24, 24]


def test_maps_without_stars_are_drawn_empty(axes):
    light, colour, velocity, dispersion = disc()
    galaxy_maps(axes, light, colour, velocity, np.zeros_like(dispersion))
    assert blank(axes[3]).all()
    assert [text.get_text() for text in axes[3].texts] == ["none"]
    axes[0].figure.canvas.draw()


def test_one_colour_everywhere_is_said(axes):
    light, _, velocity, dispersion = disc()
    galaxy_maps(axes, light, np.full_like(light, 0.7), velocity, dispersion)
    assert [text.get_text() for text in axes[1].texts] == ["0.7 everywhere"]
    assert not axes[3].texts
