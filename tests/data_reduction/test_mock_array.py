from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import pytest

from supermage.constants import ARCSEC, SPEED_OF_LIGHT, SPEED_OF_LIGHT_M_S
from supermage.data_reduction.casa import casadata_folder, import_casatools
from supermage.data_reduction.mock_array import plan_blocks, read_array, write_empty_set
from supermage.data_reduction.sky import transform
from supermage.data_reduction.spectral import frame_factor
from supermage.errors import RecipeError
from supermage.recipe import Antennas, GalaxySection, SimulateSection

from .test_sky import TRUTH

GALAXY = GalaxySection(name="mock", distance=11.4)


def section(**changes: object) -> SimulateSection:
    settings = {"output": "mock.ms", "array": "alma.cycle0.compact", "minutes": 0.5, "channels": 4, "flagged_edge": 1, "truth": TRUTH,
                "antennas": Antennas(failing=3)}
    return SimulateSection(**{**settings, **changes})


def test_array_is_read() -> None:
    antennas = read_array("alma.cycle6.4", casadata_folder())
    assert len(antennas.names) == 43
    assert set(antennas.diameter) == {12.0}
    apart = np.linalg.norm(antennas.position[:, None] - antennas.position[None], axis=-1)
    assert 700 < apart.max() < 800


@pytest.mark.parametrize(("name", "words"), [("alma.cycle6.44", "did you mean 'alma.cycle6.4"), ("vla.x", "must name a file")])
def test_wrong_array_is_named(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_array(name, casadata_folder())


@pytest.mark.parametrize(("change", "words"), [({"dates": ("2018-13-01",)}, "dates"), ({"right_ascension": "north"}, "right_ascension")])
def test_wrong_date_or_place_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        plan_blocks(section(**change), GALAXY)


def test_blocks_are_near_transit_with_the_line_in_the_middle() -> None:
    """Hour angles from the textbook's sidereal time; the frame from astropy, which shares nothing with casacore but the Earth."""
    site = np.array([2225061.3, -5440061.9, -2481681.2])
    ascension, declination = 192.1495833, -5.8008333
    blocks = plan_blocks(section(channels=64, channel_width=15.625e6), GALAXY)
    assert len(blocks) == 2
    for block, date, hour_angle in zip(blocks, ("2018-11-20", "2019-04-02"), (-20.0, 20.0), strict=True):
        day = datetime.date(1858, 11, 17) + datetime.timedelta(days=int(block.middle // 86400))
        assert day.isoformat() == date
        sidereal = 280.46061837 + 360.98564736629 * (block.middle / 86400 + 2400000.5 - 2451545.0) - 67.7549
        assert ((sidereal - ascension + 180) % 360 - 180) * 4 == pytest.approx(hour_angle, abs=1.5)
        factor = frame_factor(block.middle, site, (ascension, declination), stored="TOPO", wanted="LSRK")
        assert SPEED_OF_LIGHT * (block.topo_to_lsrk / factor - 1) == pytest.approx(0.0, abs=1e-3)
        assert np.all(np.diff(block.frequency) == 15.625e6)
        line = GALAXY.rest_frequency * (1 - TRUTH["systemic_velocity"] / SPEED_OF_LIGHT)
        assert abs(np.mean(block.frequency) * block.topo_to_lsrk - line) < 0.1 * 15.625e6
    assert blocks[0].frequency[0] != blocks[1].frequency[0]


def test_casa_predicts_what_our_transform_does(tmp_path: Path) -> None:
    """A point source 1" east and 2" north: casatools' own predict, which decides the sign, the axes and w."""
    mock = section()
    antennas, blocks = read_array(mock.array, casadata_folder()), plan_blocks(mock, GALAXY)
    path = tmp_path / "point.ms"
    write_empty_set(path, mock, GALAXY, antennas, blocks)
    tools = import_casatools()
    place = tools.measures().direction("J2000", mock.right_ascension, mock.declination)
    ra, dec, east, north = place["m0"]["value"], place["m1"]["value"], 1.0 * ARCSEC, 2.0 * ARCSEC
    towards = math.sqrt(1 - east**2 - north**2)
    declination = math.asin(north * math.cos(dec) + towards * math.sin(dec))
    ascension = ra + math.atan2(east, towards * math.cos(dec) - north * math.sin(dec))
    components = tools.componentlist()
    components.addcomponent(flux=1.0, fluxunit="Jy", dir=["J2000", f"{ascension}rad", f"{declination}rad"], shape="point",
                            freq=["TOPO", "230GHz"], spectrumtype="constant")
    components.rename(str(tmp_path / "point.cl"))
    components.done()
    simulator = tools.simulator()
    simulator.openfromms(str(path))
    simulator.setvp(dovp=False)
    simulator.predict(complist=str(tmp_path / "point.cl"))
    simulator.close()
    table = tools.table()
    table.open(str(path))
    data, uvw, number = table.getcol("DATA"), table.getcol("UVW").T, table.getcol("OBSERVATION_ID")
    table.close()
    for k, block in enumerate(blocks):
        for channel, hertz in enumerate(block.frequency):
            got = transform(np.array([1.0]), np.array([2.0]), np.array([1.0]), uvw[number == k] * hertz / SPEED_OF_LIGHT_M_S)
            np.testing.assert_allclose(got, data[0, channel, number == k], atol=1e-5)
            np.testing.assert_allclose(got, data[1, channel, number == k], atol=1e-5)
    # The sign is told apart: the conjugate is far off.
    assert np.abs(got - data[0, -1, number == 1].conj()).max() > 0.1


def test_empty_set_says_what_a_real_one_does(tmp_path: Path) -> None:
    mock = section(channels=8, averaging=2)
    blocks = plan_blocks(mock, GALAXY)
    path = tmp_path / "empty.ms"
    write_empty_set(path, mock, GALAXY, read_array(mock.array, casadata_folder()), blocks)
    table = import_casatools().table()
    table.open(str(path))
    assert "CORRECTED_DATA" not in table.colnames()
    time, number = table.getcol("TIME"), table.getcol("OBSERVATION_ID")
    table.close()
    for k, block in enumerate(blocks):
        assert time[number == k].min() == pytest.approx(block.start + 5.0, abs=0.01)
        assert np.unique(time[number == k]).size == 3
    table.open(str(path / "SPECTRAL_WINDOW"))
    assert table.nrows() == 2
    assert set(table.getcol("MEAS_FREQ_REF")) == {5}
    np.testing.assert_allclose(table.getcol("CHAN_FREQ").T, [block.frequency for block in blocks], rtol=1e-13)
    np.testing.assert_allclose(table.getcol("RESOLUTION"), 1.156 * 15.625e6)
    table.close()
    table.open(str(path / "OBSERVATION"))
    assert table.nrows() == 2
    assert set(table.getcol("TELESCOPE_NAME")) == {"ALMA"}
    table.close()
