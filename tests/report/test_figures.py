import numpy as np
import pytest

from supermage.report.figures_sky import equal_groups


@pytest.mark.parametrize(
    ("first", "last", "n_channel", "size", "groups"),
    [(10, 37, 48, 4, 7), (5, 33, 40, 4, 8), (0, 36, 37, 5, 7), (3, 3, 10, 1, 1), (2, 6, 10, 1, 5), (0, 7, 8, 1, 8), (30, 38, 40, 2, 5)],
)
def test_groups_of_channels_are_equal_and_centred_on_the_line(first, last, n_channel, size, groups):
    found = equal_groups(first, last, n_channel)
    assert [len(group) for group in found] == [size] * groups
    channels = np.concatenate(found)
    assert np.array_equal(channels, np.arange(channels[0], channels[-1] + 1))
    assert channels[0] >= 0
    assert channels[-1] < n_channel
    # Off the line's centre by half a channel at most, unless the band ends.
    if channels[0] > 0 and channels[-1] < n_channel - 1:
        assert abs(channels.mean() - (first + last) / 2) <= 0.5
