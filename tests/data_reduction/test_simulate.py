from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.data_reduction import simulate as module
from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.simulate import simulate
from supermage.data_reduction.sky import channel_flux, disc_nodes
from supermage.errors import DataError, RecipeError, SupermageError
from supermage.recipe import GalaxySection, Recipe, SimulateSection

from . import test_sky

# Broad lines and a light black hole need few nodes.
TRUTH = test_sky.TRUTH | {"line_broadening": 40.0, "log10_mbh": 6.5}
CHANNELS, EDGE, FAILING = 12, 2, 3


def recipe(folder: Path, **changes: object) -> Recipe:
    settings: dict[str, object] = {
        "output": "products/mock.ms", "array": "alma.cycle0.compact", "dates": ("2018-11-20", "2019-04-02"), "minutes": 1.0,
        "integration": 10.0, "channels": CHANNELS, "channel_width": 31.25e6, "noise": 2e-3, "flagged_edge": EDGE,
        "antennas": {"failing": FAILING, "fails_after": 0.5}, "seed": 4, "truth": TRUTH}
    return Recipe(folder=folder, galaxy=GalaxySection(name="mock", distance=11.4), simulate=SimulateSection(**{**settings, **changes}))


def columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of the MAIN table, rows first."""
    table = import_casatools().table()
    table.open(str(path))
    names = ("DATA", "FLAG", "FLAG_ROW", "WEIGHT", "SIGMA", "UVW", "OBSERVATION_ID", "DATA_DESC_ID", "ANTENNA1", "ANTENNA2", "TIME")
    found = {name: np.moveaxis(table.getcol(name), -1, 0) for name in names}
    table.close()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = simulate(recipe(tmp_path_factory.mktemp("mock")))
    return path, columns(path)


def test_two_blocks_each_with_its_window(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, main = made
    assert path.name == "mock.ms"
    rows = 16 * 15 // 2 * 6
    for k in (0, 1):
        assert np.sum(main["OBSERVATION_ID"] == k) == rows
        assert set(main["DATA_DESC_ID"][main["OBSERVATION_ID"] == k]) == {k}
    assert main["DATA"].shape == (2 * rows, 2, CHANNELS)


def test_edges_and_the_failing_antenna_are_flagged(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    main = made[1]
    assert main["FLAG"][:, :, :EDGE].all() and main["FLAG"][:, :, -EDGE:].all()
    member = (main["ANTENNA1"] == FAILING) | (main["ANTENNA2"] == FAILING)
    late = np.zeros(member.size, dtype=bool)
    for k in (0, 1):
        block = main["OBSERVATION_ID"] == k
        late[block] = main["TIME"][block] > np.median(np.unique(main["TIME"][block]))
    np.testing.assert_array_equal(main["FLAG_ROW"], member & late)
    assert main["FLAG"][main["FLAG_ROW"]].all()
    assert not main["FLAG"][~main["FLAG_ROW"], :, EDGE:-EDGE].any()
    # Garbage that nobody could overlook.
    assert np.abs(main["DATA"][main["FLAG_ROW"]]).mean() > 100 * np.abs(main["DATA"][~main["FLAG_ROW"]]).mean()


def test_weights_are_what_the_noise_is(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    main = made[1]
    np.testing.assert_allclose(main["WEIGHT"], main["SIGMA"] ** -2.0, rtol=1e-5)
    for k in (0, 1):
        good = (main["OBSERVATION_ID"] == k) & ~main["FLAG_ROW"]
        weight, data = main["WEIGHT"][good], main["DATA"][good]
        assert weight.sum() ** -0.5 == pytest.approx(2e-3, rel=1e-5)
        sky_free = (data[:, 0] - data[:, 1]) / np.sqrt(1 / weight[:, :1] + 1 / weight[:, 1:])
        for part in (sky_free.real, sky_free.imag):
            assert part.std() == pytest.approx(1.0, abs=0.04)
            assert np.mean(part[:, 1:] * part[:, :-1]) == pytest.approx(2 / 3, abs=0.05)
        # Antennas differ: the noise of each baseline is its own.
        heavy = weight.sum(axis=1) > np.median(weight.sum(axis=1))
        assert sky_free[heavy].std() == pytest.approx(sky_free[~heavy].std(), rel=0.08)
        assert np.std(np.log(main["SIGMA"][good])) > 0.08
    # The same seed does not mean the same noise in both blocks.
    one, two = (main["DATA"][main["OBSERVATION_ID"] == k][:, 0] - main["DATA"][main["OBSERVATION_ID"] == k][:, 1] for k in (0, 1))
    both = ~main["FLAG_ROW"][main["OBSERVATION_ID"] == 0] & ~main["FLAG_ROW"][main["OBSERVATION_ID"] == 1]
    assert abs(np.corrcoef(one[both].real.ravel(), two[both].real.ravel())[0, 1]) < 0.05


def test_signal_is_the_direct_sum_over_the_disc(tmp_path: Path) -> None:
    path = simulate(recipe(tmp_path, noise=0.0, channels=6, channel_width=62.5e6, flagged_edge=0, minutes=0.5, averaging=2))
    main, truth = columns(path), json.loads((tmp_path / "products" / "mock.ms.truth.json").read_text())
    nodes = disc_nodes(TRUTH, 11.4)
    l_cos, m_cos = nodes.east * ARCSEC, nodes.north * ARCSEC
    for k, block in enumerate(truth["blocks"]):
        frequency = np.linspace(block["first_channel"], block["last_channel"], 6)
        flux = channel_flux(nodes, frequency, width=62.5e6, to_frame=block["topo_to_lsrk"], rest_frequency=230.538e9,
                            line_broadening=40.0 * (1 - 1241.0 / 299792.458), averaging=2)
        rows = np.flatnonzero(main["OBSERVATION_ID"] == k)[:: 60]
        for channel in (2, 4):
            beam = np.exp(-math.log(2) * (nodes.east**2 + nodes.north**2)
                          / (0.5 * 1.13 * SPEED_OF_LIGHT_M_S / frequency[channel] / 12.0 / ARCSEC) ** 2)
            u, v, w = main["UVW"][rows].T[:, :, None] * frequency[channel] / SPEED_OF_LIGHT_M_S
            phase = u * l_cos + v * m_cos + w * (np.sqrt(1 - l_cos**2 - m_cos**2) - 1)
            expected = np.exp(2j * math.pi * phase) @ (flux[channel] * beam)
            for polarisation in (0, 1):
                np.testing.assert_allclose(main["DATA"][rows, polarisation, channel], expected, atol=1e-6 * np.abs(flux[channel]).sum())


def test_truth_is_written_beside_the_set(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    path = made[0]
    truth = json.loads(path.with_name("mock.ms.truth.json").read_text())
    assert truth["parameters"] == TRUTH
    assert truth["distance"] == 11.4
    assert len(truth["blocks"]) == 2
    assert sorted(item.name for item in path.parent.iterdir()) == ["mock.ms", "mock.ms.truth.json"]


def test_same_seed_same_set_other_seed_other_noise(made: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    again = columns(simulate(recipe(tmp_path)))
    np.testing.assert_array_equal(again["DATA"], made[1]["DATA"])
    other = columns(simulate(recipe(tmp_path, seed=5, channels=4, flagged_edge=0, minutes=0.5)))
    assert not np.isclose(other["SIGMA"][0, 0] / other["SIGMA"][1, 0], again["SIGMA"][0, 0] / again["SIGMA"][1, 0], rtol=1e-3)


def test_failure_leaves_the_earlier_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "products" / "mock.ms"
    path.mkdir(parents=True)
    (path / "mark").write_text("old")
    (path / "table.dat").touch()

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_fill", full_disk)
    with pytest.raises(DataError, match="No space left on device") as caught:
        simulate(recipe(tmp_path))
    assert "\n" not in str(caught.value)
    assert (path / "mark").read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("change", "words"), [
    ({"antennas": {"failing": 99}}, "failing"), ({"array": "alma.cycle0"}, "simulate.array"),
    ({"truth": TRUTH | {"scale_length": 40.0}}, r"scale_length must be at most the primary beam's full width, 25.\d arcsec, got 40$"),
    ({"truth": TRUTH | {"x": -30.0}}, r"truth.x must lie in the primary beam, .* 25.\d arcsec from the phase centre, got -30$"),
    ({"output": "/proc/none/mock.ms"}, "output must lie in a folder that can be written"),
    ({"declination": "+60d00m00s"}, "15 deg high")])
def test_what_cannot_be_observed_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(SupermageError, match=words):
        simulate(recipe(tmp_path, **change))
    assert not (tmp_path / "products" / "mock.ms").exists()


def test_sections_are_needed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="simulate"):
        simulate(Recipe(folder=tmp_path))
