"""Loading models: names, paths, and every way in which the files can be wrong."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

import supermage
from supermage.errors import ModelFileError
from supermage.models import registry
from supermage.models.nuker_emulator import NukerEmulator, file_hash

ARTEFACT = Path(__file__).parents[2] / "models" / "nuker-mge" / "artefact"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ARTEFACT, tmp_path / "copy" / "artefact"))


def change(folder: Path, **entries: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_names_and_paths_load_the_same_frozen_network(copied: Path) -> None:
    shape = [torch.tensor(item, dtype=torch.float64) for item in (2.0, 2.0, 0.8)]
    by_name = supermage.load_model("nuker-mge")
    assert isinstance(by_name, NukerEmulator)
    assert not any(item.requires_grad for item in by_name.parameters())
    for path in (copied, copied.parent, str(copied)):
        assert torch.equal(supermage.load_model(path).weights(*shape), by_name.weights(*shape))


def test_every_model_obeys_the_contract() -> None:
    for name in registry.LOADERS:
        if name.startswith("nuker-mge"):
            model = supermage.load_model(name)
            assert model.name == name
            mge = model(2.0, 2.0, 0.8, 50.0, 1e3, 0.7)
            assert isinstance(mge, supermage.MGE)
            assert mge.sigma.shape == mge.surface_density.shape == model.width_ratio.shape


def test_loading_is_quick_and_small() -> None:
    supermage.load_model("nuker-mge")
    best = min(_load_seconds() for _ in range(3))
    assert best < 0.5  # below 0.1 s without the tests' type checks
    assert sum(item.stat().st_size for item in ARTEFACT.iterdir()) < 1_000_000


def _load_seconds() -> float:
    start = time.perf_counter()
    supermage.load_model("nuker-mge")
    return time.perf_counter() - start


def test_the_installed_copy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "supermage"
    (package / "models").mkdir(parents=True)
    shutil.copytree(ARTEFACT, package / "_models" / "nuker-mge" / "artefact")
    monkeypatch.setattr(registry, "__file__", str(package / "models" / "registry.py"))
    assert registry.artefact_folder("nuker-mge") == package / "_models" / "nuker-mge" / "artefact"
    (tmp_path / "site" / "models" / "nuker-mge").mkdir(parents=True)
    shutil.copytree(ARTEFACT, tmp_path / "site" / "models" / "nuker-mge" / "artefact")
    assert registry.artefact_folder("nuker-mge") == tmp_path / "site" / "models" / "nuker-mge" / "artefact"


def one_line(caught: pytest.ExceptionInfo[ModelFileError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert "got" in text
    return text


def test_describe_names_the_weights(copied: Path) -> None:
    weights = json.loads((copied / "model.json").read_text())["sha256"][:12]
    assert registry.describe(copied) == registry.describe("nuker-mge") == f"nuker-mge version 1, weights {weights}"
    assert registry.describe("nuker-mge-step") == f"nuker-mge-step version 1, weights {weights}"
    assert registry.describe("nuker-mge-solve") == "nuker-mge-solve, no weights"
    with pytest.raises(ModelFileError, match="a model must be one of"):
        registry.describe(copied / "nothing")


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model("nuker-mg")
    assert "did you mean 'nuker-mge'?" in one_line(caught)


def test_the_papers_emulator_is_for_comparison(copied: Path) -> None:
    change(copied, kind="nuker-mge-paper")
    for asked in ("nuker-mge-paper", copied):
        with pytest.raises(ModelFileError) as caught:
            supermage.load_model(asked)
        text = one_line(caught)
        assert "for comparison" in text and "supermage train models/nuker-mge-paper/recipe.toml" in text and "did you mean" not in text


def test_missing_files(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "weights.safetensors").unlink()
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "weights must be readable" in one_line(caught)
    (copied / "model.json").unlink()
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "model.json" in one_line(caught)
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "site" / "supermage" / "models" / "registry.py"))
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model("nuker-mge")
    assert "got neither" in one_line(caught)


def test_altered_weights(copied: Path) -> None:
    path = copied / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "must have the hash" in one_line(caught)


def test_truncated_weights_with_a_matching_hash(copied: Path) -> None:
    path = copied / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    change(copied, sha256=file_hash(path))
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "must fit the network" in one_line(caught)


@pytest.mark.parametrize(
    ("entry", "message"), [({"version": "0"}, "version 0"), ({"kind": "other"}, "known kind"), ({"hidden": 7}, "fit the network")]
)
def test_another_version_kind_or_network(copied: Path, entry: dict[str, object], message: str) -> None:
    change(copied, **entry)
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert message in one_line(caught)


def test_golden_profiles_are_checked(copied: Path) -> None:
    golden = json.loads((copied / "model.json").read_text())["golden"]
    golden["density"][0][0] *= 1.2
    change(copied, golden=golden)
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "golden profiles must be met" in one_line(caught)


def test_damaged_description(copied: Path) -> None:
    (copied / "model.json").write_text("{")
    with pytest.raises(ModelFileError) as caught:
        supermage.load_model(copied)
    assert "model.json" in one_line(caught)
