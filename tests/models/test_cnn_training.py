"""Training of the network: learns, resumes to the same bits, keeps parts apart, takes the paper's schedule, refuses wrong recipes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from supermage.errors import CheckpointError, DataError, DomainError, RecipeError
from supermage.models import cnn_training
from supermage.models.cnn import load_cnn
from supermage.models.cnn_training import PRESETS, build, learning_rate, read_options, train_cnn
from supermage.models.devices import Devices
from supermage.models.map_store import MapStore, write_maps
from supermage.models.training import write_checkpoint
from supermage.progress import SilentProgress
from supermage.recipe import Recipe, TrainSection
from tests.models.toy_maps import toy_galaxies, toy_recipe, toy_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_store(tmp_path_factory.mktemp("maps") / "maps.nc", 120)


class Interrupts(SilentProgress):
    """Stops the training after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, n: int = 1, note: str = "") -> None:
        self.left -= n
        if self.left <= 0:
            raise KeyboardInterrupt


def test_interrupted_training_ends_with_the_same_bits(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the middle of an epoch, and again right after one: weights, statistics, losses and the best epoch are the same."""
    whole = train_cnn(toy_recipe(tmp_path / "whole", store))
    monkeypatch.setattr(cnn_training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(cnn_training, "SPENT_ON_CHECKPOINTS", 1e9)
    parts = toy_recipe(tmp_path / "parts", store)
    per_epoch = build(parts).per_epoch
    assert per_epoch >= 3
    for steps in (per_epoch - 1, 2 * per_epoch):
        with pytest.raises(KeyboardInterrupt):
            train_cnn(parts, progress=Interrupts(steps))
        assert not (tmp_path / "parts" / "artefact").exists()
        assert (tmp_path / "parts" / "products" / "checkpoint.safetensors").exists()
    artefact = train_cnn(parts)
    for name in ("weights.safetensors", "model.json"):
        assert (artefact / name).read_bytes() == (whole / name).read_bytes()
    assert not (tmp_path / "parts" / "products" / "checkpoint.safetensors").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_checkpoint_without_the_statistics_of_batches_would_be_noticed(store: Path, tmp_path: Path) -> None:
    """The mutation: after a step, everything restored but the running means and variances gives other predictions."""
    first, second = build(toy_recipe(tmp_path, store)), build(toy_recipe(tmp_path, store))
    for step in range(3):
        first._step(step, *first.batch(step))
    tensors = {"parameter0": first.parameters, **{f"state.{key}": value for key, value in first.state.items()}}
    rows = first.parts["validation"]
    second.restore(tensors)
    assert torch.equal(first.standardised(rows), second.standardised(rows))
    second.statistics.copy_(build(toy_recipe(tmp_path, store)).statistics)
    assert not torch.equal(first.standardised(rows), second.standardised(rows))
    with pytest.raises(CheckpointError, match="must fit the network of this recipe, got other tensors"):
        second.restore({key: value for key, value in tensors.items() if key != "state.statistics"})


def test_it_learns_and_says_so(store: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, store, inputs=["r_light", "g_r"], targets=["log_mstar"], epochs=12, learning_rate=2e-2)
    artefact = train_cnn(recipe)
    about = json.loads((artefact / "model.json").read_text())
    history = about["history"]
    assert len(history["training"]) == len(history["validation"]) == 12
    assert history["training"][-1] < 0.4 * history["training"][0]
    assert history["best_epoch"] == 1 + int(np.argmin(history["validation"]))
    cnn = load_cnn(artefact)
    maps, columns = toy_galaxies(60, seed=99)
    error = cnn.estimate(maps)["log_mstar"] - columns["log_mstar"]
    assert error.std() < 0.5 * columns["log_mstar"].std()
    assert about["mock"] is True and about["leaking_split"] is False and about["source"] == "toy galaxies of the tests"
    assert sum(about["rows"].values()) == 120 == sum(about["scatter"][part]["log_mstar"]["rows"] for part in about["rows"])
    card = (tmp_path / "card.md").read_text()
    assert card.startswith(f"# {tmp_path.name}: masses") and "Trained on generated galaxies" in card and about["sha256"] in card
    assert f"| test | `log_mstar` | {about['rows']['test']} |" in card


def test_every_step_is_within_the_repeatable_kernels(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, inside, steps = build(toy_recipe(tmp_path, store, epochs=1)), [False], []

    @contextmanager
    def repeatable(devices: Devices) -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    whole = problem._step
    monkeypatch.setattr(Devices, "repeatable", repeatable)
    monkeypatch.setattr(problem, "_step", lambda *given: (steps.append(inside[0]), whole(*given)))
    problem.run(tmp_path / "checkpoint", "", None, progress=SilentProgress())
    assert steps == [True] * problem.steps and not inside[0]


def test_the_best_epoch_is_kept(store: Path, tmp_path: Path) -> None:
    """Of weights and statistics: validation by the loaded network gives the lowest loss of the history."""
    recipe = toy_recipe(tmp_path, store, learning_rate=3e-2, decay="none", epochs=4)
    problem = build(recipe)
    problem.run(tmp_path / "checkpoint", "", None, progress=SilentProgress())
    rows = problem.parts["validation"]
    loss = float(((problem.standardised(rows) - problem.batches.targets[rows]) ** 2).double().mean())
    history = problem.state["history"][1]
    assert loss == pytest.approx(float(history.min()), rel=1e-6)
    assert float(history.max()) > 1.01 * float(history.min())


def test_scaling_and_standardisation_are_of_the_training_part_alone(store: Path, tmp_path: Path) -> None:
    problem = build(toy_recipe(tmp_path, store))
    rows = problem.parts["training"]
    with MapStore(store) as maps:
        speed, truth = maps.read(rows, ("mean_velocity",))["mean_velocity"], maps.column("log_mtot")[rows]
        everything = maps.read(np.arange(120), ("mean_velocity",))["mean_velocity"]
    assert problem.scaling["mean_velocity"].lower == pytest.approx(float(speed.min()), rel=1e-6)
    assert problem.scaling["mean_velocity"].upper == pytest.approx(float(speed.max()), rel=1e-6)
    assert (problem.target_mean[1], problem.target_deviation[1]) == pytest.approx((truth.mean(), truth.std()), rel=1e-12)
    inputs = problem.batches.maps(rows)
    for item in inputs.values():
        assert (float(item.min()), float(item.max())) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert everything.max() > 0.0
    assert problem.batches.targets[rows].double().mean(0) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_parts_keep_groups_together_and_the_papers_split_does_not(store: Path, tmp_path: Path) -> None:
    parts = build(toy_recipe(tmp_path, store)).parts
    with MapStore(store) as maps:
        group, galaxy = maps.column("group_id"), maps.column("galaxy_id")
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(120))
    for name, rows in parts.items():
        others = np.concatenate([other for key, other in parts.items() if key != name])
        assert len(rows) and not set(group[rows]) & set(group[others])
    leaking = build(toy_recipe(tmp_path, store, split="paper"))
    assert set(galaxy[leaking.parts["training"]]) & set(galaxy[leaking.parts["test"]])
    assert len(leaking.parts["calibration"]) == 0
    counts = " / ".join(str(len(leaking.parts[name])) for name in ("training", "validation", "test"))
    assert leaking.split == f"LEAKING, as the paper: every projection on its own, seed 1: {counts} rows of 40 galaxies"


def test_cuts_leave_rows_out_and_are_counted(tmp_path: Path) -> None:
    """By hand: 60 rows of indices 1 - 4, one missing; the limits drop the largest 12, and keep or drop the missing one as they say."""
    maps, columns = toy_galaxies(60, seed=2)
    columns["n_sersic"], columns["b_t"] = np.linspace(1.0, 4.0, 60), np.linspace(0.0, 1.0, 60)
    columns["n_sersic"][5] = np.nan
    columns["log_mtot"][59] = np.nan
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="toy", mock=True)
    bound = float(columns["n_sersic"][47])
    for ending, missing in (("", {5}), (" or missing", set())):
        problem = build(toy_recipe(tmp_path, path, cuts=[f"n_sersic <= {bound:.17g}{ending}", "b_t >= 0.02"]))
        assert set(np.concatenate(list(problem.parts.values())).tolist()) == set(range(2, 48)) - missing
        assert not problem.left_out
        assert problem.cuts[0].startswith(f"not n_sersic <= {bound:g}: 12 of 60 rows left out, 1 without a value")
        assert problem.cuts[1].startswith("not b_t >= 0.02: 2 of ")
        assert problem.prepared.startswith(f"{problem.cuts[0]}; {problem.cuts[1]}; training ")


def test_a_checkpoint_belongs_to_the_maps(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe over other maps of the same name is refused before a map is read; with the old maps it goes on."""
    path = tmp_path / "maps.nc"
    path.write_bytes(store.read_bytes())
    monkeypatch.setattr(cnn_training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_cnn(toy_recipe(tmp_path, path), progress=Interrupts(4))
    toy_store(path, 120, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(MapStore, "read", lambda *given: pytest.fail("maps must not be read"))
        with pytest.raises(CheckpointError, match="must belong to this recipe and its data, got another's"):
            train_cnn(toy_recipe(tmp_path, path))
    path.write_bytes(store.read_bytes())
    assert (train_cnn(toy_recipe(tmp_path, path)) / "weights.safetensors").is_file()


def test_images_that_do_not_divide_are_trained_on(tmp_path: Path) -> None:
    """Maps of 40 pixels for a network of 32: what maps of cutouts (300) are to the small preset (96)."""
    problem = build(toy_recipe(tmp_path, toy_store(tmp_path / "maps.nc", 60, image=40)))
    assert problem.batches.maps(problem.parts["training"])["r_light"].shape[1:] == (32, 32)


def test_batches_from_disk_are_those_from_memory(store: Path, tmp_path: Path) -> None:
    held, read = build(toy_recipe(tmp_path, store)), build(toy_recipe(tmp_path, store, memory=0))
    assert held.batches.held and not read.batches.held
    for step in (0, 3):
        for one, other in zip(held.batch(step)[0].values(), read.batch(step)[0].values(), strict=True):
            assert torch.equal(one, other)


def test_an_epoch_is_every_row_once_in_an_order_of_its_own(store: Path, tmp_path: Path) -> None:
    problem = build(toy_recipe(tmp_path, store, turn=False))
    orders = []
    for epoch in range(2):
        targets = torch.cat([problem.batch(epoch * problem.per_epoch + number)[1] for number in range(problem.per_epoch)])
        orders.append(targets)
    expected = problem.batches.targets[problem.parts["training"]]
    assert not torch.equal(orders[0], orders[1])
    for order in orders:
        assert torch.equal(order.sort(dim=0).values, expected.sort(dim=0).values)


def test_turns_keep_pixels_and_turn_all_maps_of_a_galaxy_alike(store: Path, tmp_path: Path) -> None:
    problem = build(toy_recipe(tmp_path, store))
    rows = problem.parts["training"]
    plain, turned = problem.batches.maps(rows), problem.batches.turned(rows, 5)
    for name, item in plain.items():
        assert torch.equal(item.flatten(1).sort().values, turned[name].flatten(1).sort().values)
    ways = set()
    for row in range(len(rows)):
        fits = [{(flip, turn) for flip in (False, True) for turn in range(4)
                 if torch.equal(torch.rot90(item[row].flip(1) if flip else item[row], turn), turned[name][row])}
                for name, item in plain.items()]  # fmt: skip
        shared = set.intersection(*fits)
        assert shared
        ways |= shared
    assert len(ways) == 8


def test_the_papers_schedule_is_in_radians() -> None:
    """cos(199 / 200) = 0.544: not cos of degrees (1.000), not a fall to zero."""
    options = read_options(Recipe(train=TrainSection(kind="galaxy-cnn", options={"maps": "maps.nc", "preset": "paper"})))
    assert (options.batch, options.epochs, options.width, options.image_pixels, options.stretch) == (40, 200, 64, 300, "linear")
    assert learning_rate(options, 0) == 1e-4
    assert learning_rate(options, 199) == pytest.approx(1e-4 * 0.5445, rel=1e-4)
    small = options.model_copy(update=PRESETS["small"])
    assert learning_rate(small, 15) == pytest.approx(0.5 * small.learning_rate)
    assert learning_rate(small, 29) < 0.01 * small.learning_rate


def test_a_step_is_adam_on_the_mean_squared_error(store: Path, tmp_path: Path) -> None:
    """Against torch's own Adam and loss."""
    problem = build(toy_recipe(tmp_path, store, turn=False, decay="none"))
    other = build(toy_recipe(tmp_path, store, turn=False, decay="none"))
    optimiser = torch.optim.Adam(other.network.parameters(), lr=5e-3)
    other.network.train()
    for step in range(3):
        problem._step(step, *problem.batch(step))
        maps, targets, _ = other.batch(step)
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(other.network(maps), targets).backward()
        optimiser.step()
    assert torch.allclose(problem.parameters, other.parameters, rtol=1e-4, atol=2e-6)
    assert torch.allclose(problem.statistics, other.statistics, rtol=1e-4, atol=1e-6)


def test_half_precision_is_near_and_weights_stay_whole(store: Path, tmp_path: Path) -> None:
    whole, half = build(toy_recipe(tmp_path, store)), build(toy_recipe(tmp_path, store, precision="bfloat16"))
    assert half.devices.half and not whole.devices.half
    for problem in (whole, half):
        problem._step(0, *problem.batch(0))
    assert half.parameters.dtype == half.statistics.dtype == torch.float32
    assert not torch.equal(half.statistics, whole.statistics)
    assert torch.allclose(half.statistics, whole.statistics, rtol=0.05, atol=0.02)


def test_rows_that_teach_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    maps, columns = toy_galaxies(60, seed=2)
    maps["r_light"][7] = 0.0
    columns["log_mtot"][[3, 4]] = np.nan
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="toy", mock=True)
    problem = build(toy_recipe(tmp_path, path))
    assert problem.left_out == {"r_light: no light": 1, "log_mtot unknown": 2}
    assert problem.prepared.startswith("2 rows left out (log_mtot unknown); 1 rows left out (r_light: no light); training ")
    assert not {3, 4, 7} & set(np.concatenate(list(problem.parts.values())).tolist())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bach": 3}, RecipeError, "train.options: unknown key 'bach'; did you mean 'batch'"),
        ({"batch": "many"}, RecipeError, "train.options.batch: .*got 'many'"),
        ({"inputs": []}, RecipeError, "train.options.inputs: "),
        ({"inputs": ["r_image"]}, RecipeError, r"train.options.inputs.0: input should be 'r_light'.*got 'r_image'"),
        ({"targets": ["log_mstr"]}, RecipeError, "a target must be one of .*did you mean 'log_mstar'"),
        ({"fractions": [0.5, 0.5, 0.5, 0.5]}, RecipeError, "must be above 0 and sum to 1"),
        ({"preset": "large"}, RecipeError, "train.options.preset: "),
        ({"image_pixels": 40}, RecipeError, "must be at most the 32 pixels of the maps, got 40"),
        ({"cuts": ["n_sersic < many"]}, RecipeError, "train.options.cuts: a cut must read like 'm_star_30kpc > 5e9'.*n_sersic < many"),
        ({"cuts": ["m_subhalo < 1e14"]}, DataError, "must come with the column 'm_subhalo', got none"),
        ({"cuts": ["n_sersic > 90"]}, DataError, "cuts must leave at least one galaxy, got none: 'n_sersic > 90'"),
        ({"targets": ["log_mtot_2d"]}, DataError, "must come with the column 'log_mtot_2d', got none"),
        ({"maps": "nothing.nc"}, DataError, "must be a netCDF file or a folder of parts, got"),
    ],
)
def test_wrong_recipes_are_refused(store: Path, tmp_path: Path, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        train_cnn(toy_recipe(tmp_path, **{"maps": store, **options}))
    assert "\n" not in str(caught.value)


def test_wrong_checkpoints_targets_and_losses_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="missing key 'maps'"):
        read_options(Recipe(train=TrainSection(kind="galaxy-cnn")))
    with pytest.raises(RecipeError, match=r"needs a recipe with a \[train\] section"):
        train_cnn(Recipe(folder=tmp_path))
    write_checkpoint(tmp_path / "products" / "checkpoint.safetensors", "another", 3, [torch.zeros(2)], {})
    with pytest.raises(CheckpointError, match="must belong to this recipe and its data, got another's"):
        train_cnn(toy_recipe(tmp_path, store))
    maps, columns = toy_galaxies(60, seed=2)
    columns["log_mstar"] = np.full(60, 10.0)
    path = write_maps(tmp_path / "maps.nc", maps, columns, source="toy", mock=True)
    with pytest.raises(DomainError, match="must vary over the training set, got one value of log_mstar"):
        build(toy_recipe(tmp_path, path))
    problem = build(toy_recipe(tmp_path, store))
    problem.parameters.fill_(math.inf)
    with pytest.raises(DomainError, match=r"must keep a finite loss, got none at step 1: lower train.options.learning_rate"):
        problem._step(0, *problem.batch(0))
