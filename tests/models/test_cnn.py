"""The estimator: scaling that keeps luminosity and velocity, re-binning, rows that cannot be predicted, files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supermage.errors import DataError, ModelFileError
from supermage.models.cnn import CNN, Scaling, load_cnn, overlaps, rebin_images, stack_maps, unusable
from supermage.models.map_store import Maps
from supermage.models.nuker_emulator import file_hash
from supermage.models.resnet import MultiBranchResNet
from tests.models.toy_maps import IMAGE, KINEMATIC, toy_galaxies

INPUTS = ("r_light", "g_r", "mean_velocity", "dispersion")


def network(stretch: str = "linear", *, width: int = 2) -> CNN:
    """Not trained, with scaling constants as of a training set."""
    scaling = {"r_light": Scaling(IMAGE, 0.0, 1e9 if stretch == "linear" else 4.0, 0.0, stretch, 1e5), "g_r": Scaling(IMAGE, 0.0, 1.0, 0.6),
               "mean_velocity": Scaling(KINEMATIC, -400.0, 400.0, 0.0), "dispersion": Scaling(KINEMATIC, 0.0, 300.0, 0.0)}  # fmt: skip
    return CNN(MultiBranchResNet(INPUTS, 2, width=width, seed=3), scaling, ("log_mstar", "log_mtot"), np.array([10.0, 10.5]),
               np.array([0.5, 0.4]), {"mock": True, "source": "toy galaxies"})  # fmt: skip


def brighter(maps: Maps, name: str, factor: float) -> Maps:
    return {**maps, name: (maps[name] * np.float32(factor)).astype(np.float32)}


def by_own_range(self: Scaling, maps: np.ndarray) -> np.ndarray:
    """The mistake: each image scaled to 0 .. 1 by itself."""
    stretched = self.stretched(maps)
    lower, upper = stretched.min((1, 2), keepdims=True), stretched.max((1, 2), keepdims=True)
    return ((stretched - lower) / np.maximum(upper - lower, np.float32(1e-30))).astype(np.float32)


@pytest.mark.parametrize("stretch", ["linear", "log"])
@pytest.mark.parametrize("name", ["r_light", "mean_velocity", "dispersion"])
def test_light_and_speed_reach_the_network(name: str, stretch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two galaxies that differ by a factor alone come out unlike; scaled image by image they would come out alike."""
    maps, _ = toy_galaxies(3, seed=1)

    def difference() -> float:
        cnn = network(stretch, width=8)
        return float(np.abs(cnn.features(brighter(maps, name, 3.0)) - cnn.features(maps)).max())

    assert difference() > 5e-4
    if name != "r_light" or stretch == "linear":
        monkeypatch.setattr(Scaling, "scaled", by_own_range)
        assert difference() < 1e-4


def test_scaling_is_one_for_all_rows() -> None:
    maps, _ = toy_galaxies(9, seed=2)
    together = network().prepare(maps)
    for row in (0, 5):
        alone = network().prepare({name: item[row : row + 1] for name, item in maps.items()})
        for name, item in together.items():
            assert torch.equal(item[row : row + 1], alone[name])
    assert torch.allclose(together["dispersion"], torch.from_numpy(maps["dispersion"]) / 300.0, rtol=1e-6)
    assert torch.allclose(together["mean_velocity"], (torch.from_numpy(maps["mean_velocity"]) + 400.0) / 800.0, rtol=1e-5)
    log = network("log").prepare(maps)["r_light"].double()
    assert torch.allclose(log, torch.log10(1.0 + torch.from_numpy(maps["r_light"]).double() / 1e5) / 4.0, rtol=1e-5)


def test_empty_pixels_are_filled() -> None:
    maps, _ = toy_galaxies(2, seed=2)
    maps["g_r"][0, :3] = np.nan
    maps["r_light"][1, 4] = np.nan
    got = network("log").prepare(maps)
    assert torch.allclose(got["g_r"][0, :3], torch.tensor(0.6))
    assert torch.equal(got["r_light"][1, 4], torch.zeros(IMAGE))


@given(seed=st.integers(0, 1000), pixels=st.sampled_from([1, 2, 4, 6, 12]))
@settings(max_examples=25)
def test_rebinning_keeps_the_light_of_both_bands(seed: int, pixels: int) -> None:
    generator = np.random.default_rng(seed)
    drawn = {"r_light": generator.exponential(size=(3, 12, 12)), "g_r": generator.normal(0.6, 0.3, (3, 12, 12)),
             "dispersion": generator.normal(size=(3, 5, 5))}  # fmt: skip
    maps = {name: item.astype(np.float32) for name, item in drawn.items()}
    maps["r_light"][0, :6] = 0.0
    maps["g_r"][0, :6] = np.nan

    def light(of: Maps) -> tuple[float, float]:
        red = of["r_light"].astype(np.float64)
        blue = np.where(red > 0, red * 10.0 ** (-0.4 * np.where(red > 0, of["g_r"], 0.0)), 0.0)
        return float(red.sum()), float(blue.sum())

    got = rebin_images(maps, pixels)
    assert got["r_light"].shape == got["g_r"].shape == (3, pixels, pixels)
    assert light(got) == pytest.approx(light(maps), rel=1e-5)
    assert np.array_equal(got["dispersion"], maps["dispersion"])
    assert np.array_equal(np.isnan(got["g_r"]), got["r_light"] == 0.0)
    corner = maps["r_light"][1, : 12 // pixels, : 12 // pixels].sum(dtype=np.float64)
    assert float(got["r_light"][1, 0, 0]) == pytest.approx(corner, rel=1e-6)


def light_of_bands(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Light in r of every row, and the same behind the colours."""
    red = maps["r_light"].astype(np.float64)
    blue = np.where(red > 0, red * 10.0 ** (-0.4 * np.where(red > 0, maps["g_r"], 0.0)), 0.0)
    return red.sum((1, 2)), blue.sum((1, 2))


@given(seed=st.integers(0, 1000), size=st.integers(2, 31), data=st.data())
@settings(max_examples=40)
def test_rebinning_by_area_keeps_the_light_of_both_bands(seed: int, size: int, data: st.DataObject) -> None:
    pixels = data.draw(st.integers(1, size))
    generator = np.random.default_rng(seed)
    maps = {"r_light": 10.0 ** generator.uniform(4.0, 9.0, (3, size, size)).astype(np.float32),
            "g_r": generator.normal(0.6, 0.3, (3, size, size)).astype(np.float32)}  # fmt: skip
    got = rebin_images(maps, pixels)
    assert got["r_light"].shape == got["g_r"].shape == (3, pixels, pixels) and got["r_light"].dtype == np.float32
    for before, after in zip(light_of_bands(maps), light_of_bands(got), strict=True):
        assert after == pytest.approx(before, rel=3e-7 * 3)


@given(seed=st.integers(0, 1000), pixels=st.integers(1, 9), block=st.integers(1, 6))
@settings(max_examples=25)
def test_overlaps_of_a_divisor_are_whole_blocks(seed: int, pixels: int, block: int) -> None:
    """The matrix by which any number is re-binned, against sums over blocks, which is what a divisor gets."""
    image = np.random.default_rng(seed).exponential(size=(2, pixels * block, pixels * block)).astype(np.float32)
    first = range(0, pixels * block, block)
    blocks = np.add.reduceat(np.add.reduceat(image.astype(np.float64), first, 1), first, 2)
    weight = overlaps(pixels * block, pixels)
    assert weight @ image.astype(np.float64) @ weight.T == pytest.approx(blocks, rel=1e-13)
    if block > 1:
        assert rebin_images({"r_light": image}, pixels)["r_light"] == pytest.approx(blocks, rel=1e-7)


@given(size=st.integers(2, 40), data=st.data())
@settings(max_examples=40)
def test_a_constant_surface_brightness_and_colour_stay(size: int, data: st.DataObject) -> None:
    pixels = data.draw(st.integers(1, size))
    maps = {"r_light": np.full((1, size, size), 5e6, dtype=np.float32), "g_r": np.full((1, size, size), 0.7, dtype=np.float32)}
    got = rebin_images(maps, pixels)
    assert got["r_light"] == pytest.approx(np.full((1, pixels, pixels), 5e6 * (size / pixels) ** 2), rel=2e-7)
    assert got["g_r"] == pytest.approx(np.full((1, pixels, pixels), 0.7), abs=1e-6)


def test_three_pixels_become_two_by_the_area_that_they_share() -> None:
    """Worked by hand: each side's middle pixel is halved."""
    image = np.arange(1.0, 10.0, dtype=np.float32).reshape(1, 3, 3)
    upper, lower = [1 + 1 + 2 + 1.25, 1 + 3 + 1.25 + 3], [2 + 1.25 + 7 + 4, 1.25 + 3 + 4 + 9]
    assert rebin_images({"r_light": image}, 2)["r_light"][0].tolist() == [upper, lower]


def test_images_of_more_pixels_are_rebinned_before_the_network() -> None:
    fine, _ = toy_galaxies(4, seed=5, image=2 * IMAGE)
    cnn = network()
    assert np.array_equal(cnn.features(fine), cnn.features(rebin_images(fine, IMAGE)))
    assert np.isfinite(cnn.estimate(toy_galaxies(3, seed=5, image=50)[0])["log_mstar"]).all()
    with pytest.raises(DataError, match="to fewer pixels than their 24, got 32"):
        cnn.estimate(toy_galaxies(3, seed=5, image=24)[0])
    with pytest.raises(DataError, match="to fewer pixels than their 64, got 0"):
        rebin_images(fine, 0)
    with pytest.raises(DataError, match="dispersion must have 16 x 16 pixels, got 20 x 20"):
        cnn.estimate({**fine, "dispersion": np.ones((4, 20, 20), dtype=np.float32)})
    with pytest.raises(DataError, match="needs the maps r_light, g_r, mean_velocity, dispersion, got no dispersion"):
        cnn.estimate({name: item for name, item in fine.items() if name != "dispersion"})
    with pytest.raises(DataError, match=r"shape \(row, pixel, pixel\), got \(32, 32\) for g_r"):
        cnn.estimate({**fine, "g_r": np.ones((32, 32), dtype=np.float32)})
    with pytest.raises(DataError, match="beside the r image, whose light weights them, got no r_light"):
        rebin_images({"g_r": fine["g_r"]}, IMAGE)


def test_rows_that_cannot_be_predicted_stay_and_say_why() -> None:
    maps, _ = toy_galaxies(5, seed=6)
    cnn = network()
    whole = cnn.estimate(maps)
    maps["r_light"][1] = 0.0
    maps["dispersion"][2] = np.nan
    maps["mean_velocity"][3, 0, 0] = np.inf
    assert unusable(maps, INPUTS) == ["", "r_light: no light", "dispersion: no pixel with a value", "mean_velocity: infinite pixels", ""]
    assert unusable(maps, ("g_r",)) == [""] * 5
    for name, values in cnn.estimate(maps).items():
        assert np.isnan(values[1:4]).all()
        assert values[[0, 4]] == pytest.approx(whole[name][[0, 4]], rel=1e-6)


def test_predictions_are_the_standardised_features() -> None:
    maps, _ = toy_galaxies(70, seed=7)
    cnn = network()
    features = cnn.features(maps, penultimate=True)
    assert features.shape == (70, 2 + 4 * 16)
    got = cnn.estimate(maps)
    assert list(got) == ["log_mstar", "log_mtot"]
    assert got["log_mtot"] == pytest.approx(10.5 + 0.4 * features[:, 1], abs=1e-12)
    join = cnn.network.join
    assert features[:, :2] == pytest.approx(features[:, 2:] @ join.weight.double().numpy().T + join.bias.double().numpy(), abs=1e-4)


def test_maps_of_galaxies_are_stacked() -> None:
    """Light per pixel, not per area; a colour only where there is light."""
    maps, _ = toy_galaxies(2, seed=8)
    galaxies = [SimpleNamespace(**{name: item[row] for name, item in maps.items()}) for row in range(2)]
    galaxies[0].r_light[0] = 0.0
    got = stack_maps(galaxies)
    assert np.isnan(got["g_r"][0, 0]).all() and np.isfinite(got["g_r"][0, 1:]).all()
    assert np.array_equal(got["dispersion"], maps["dispersion"])


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    return network().save(tmp_path / "artefact")


def change(folder: Path, **entries: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_saved_and_loaded_is_the_same(artefact: Path) -> None:
    maps, _ = toy_galaxies(4, seed=9)
    loaded = load_cnn(artefact)
    assert np.array_equal(loaded.features(maps, penultimate=True), network().features(maps, penultimate=True))
    assert loaded.mock and loaded.inputs == INPUTS and loaded.targets == ("log_mstar", "log_mtot")
    assert not any(item.requires_grad for item in loaded.network.parameters())
    assert {item.name for item in artefact.iterdir()} == {"weights.safetensors", "model.json"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"version": "0"}, "must be 'galaxy-cnn' version 1, got 'galaxy-cnn' version 0"),
        ({"kind": "nuker-mge"}, "must be 'galaxy-cnn' version 1, got 'nuker-mge' version 1"),
        ({"width": 3}, "must fit the network"),
        ({"inputs": ["r_light"]}, "must fit the network"),
        ({"targets": ["log_mstar"]}, "must fit the network"),
        ({"scaling": {"r_light": {"pixels": 3}}}, "must fit the network"),
    ],
)
def test_another_version_kind_or_network(artefact: Path, entries: dict[str, object], message: str) -> None:
    change(artefact, **entries)
    with pytest.raises(ModelFileError) as caught:
        load_cnn(artefact)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_altered_or_missing_files(artefact: Path) -> None:
    path = artefact / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"must have the hash in model.json, got \w{12}: altered or incomplete"):
        load_cnn(artefact)
    path.write_bytes(content[:-1000])
    change(artefact, sha256=file_hash(path))
    with pytest.raises(ModelFileError, match="must fit the network"):
        load_cnn(artefact)
    path.unlink()
    with pytest.raises(ModelFileError, match="weights must be readable, got No such file"):
        load_cnn(artefact)
    (artefact / "model.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"complete model.json, got none or a damaged one"):
        load_cnn(artefact)
