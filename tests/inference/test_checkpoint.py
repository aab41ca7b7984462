"""Checkpoints: what survives truncation and a full disk, and what is refused."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from supermage.errors import CheckpointError
from supermage.inference import checkpoint
from supermage.inference.checkpoint import CheckpointStore, fingerprint, write_atomically

ROOT = Path(__file__).resolve().parents[2]


def arrays(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"a": rng.standard_normal((3, 4)), "chain0.generator": rng.integers(0, 255, 16).astype(np.uint8)}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoint", fingerprint({"recipe": 1}))


def assert_holds(store: CheckpointStore, number: int) -> None:
    found = store.load()
    assert found is not None
    assert found[1] == {"number": number}
    assert set(found[0]) == set(arrays(number))
    for name, array in arrays(number).items():
        assert np.array_equal(found[0][name], array) and found[0][name].dtype == array.dtype


def truncate(path: Path, share: float = 0.7) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def assert_one_line(error: pytest.ExceptionInfo[CheckpointError]) -> None:
    assert "\n" not in str(error.value)


def test_two_generations(store: CheckpointStore) -> None:
    assert store.load() is None
    for number in (1, 2, 3):
        store.save(arrays(number), {"number": number})
        assert_holds(store, number)
    store.newest.unlink()
    assert_holds(store, 2)
    assert sorted(path.name for path in store.folder.iterdir()) == ["previous.ckpt"]
    store.clear()
    assert store.load() is None


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_newest_gives_way_to_the_previous(store: CheckpointStore, share: float) -> None:
    for number in (1, 2):
        store.save(arrays(number), {"number": number})
    truncate(store.newest, share)
    assert_holds(store, 1)
    # and does not push it out when the next one is written, nor when that fails
    store.save(arrays(3), {"number": 3})
    assert_holds(store, 3)
    store.newest.unlink()
    assert_holds(store, 1)


def test_a_single_changed_byte_is_seen(store: CheckpointStore) -> None:
    for number in (1, 2):
        store.save(arrays(number), {"number": number})
    content = bytearray(store.newest.read_bytes())
    content[len(content) // 2] ^= 1
    store.newest.write_bytes(bytes(content))
    assert_holds(store, 1)


def test_both_truncated_is_one_line(store: CheckpointStore) -> None:
    for number in (1, 2):
        store.save(arrays(number), {"number": number})
    truncate(store.newest)
    truncate(store.previous)
    with pytest.raises(CheckpointError, match="must be whole, got damaged files") as error:
        store.load()
    assert_one_line(error)


def test_another_ones_checkpoint_is_refused(store: CheckpointStore) -> None:
    store.save(arrays(1), {"number": 1})
    other = CheckpointStore(store.folder, fingerprint({"recipe": 2}))
    with pytest.raises(CheckpointError, match="must belong to this recipe, data and version") as error:
        other.load()
    assert_one_line(error)


def test_fingerprint_knows_values_not_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint({"a": 1}) != fingerprint({"b": 1})


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_full_disk_leaves_the_previous_file(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store.save(arrays(1), {"number": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, call, full)
        with pytest.raises(CheckpointError, match=r"must be writable, got .*newest\.ckpt: No space left on device") as error:
            store.save(arrays(2), {"number": 2})
    assert_one_line(error)
    assert_holds(store, 1)
    assert not list(store.folder.glob(".*"))  # nothing half written is left behind


def test_a_limit_on_file_size_leaves_the_previous_file(store: CheckpointStore) -> None:
    """The kernel's own refusal, in a process that may write 4 kB."""
    store.save(arrays(1), {"number": 1})
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from supermage.errors import CheckpointError\n"
        "from supermage.inference.checkpoint import CheckpointStore\n"
        "try: CheckpointStore(Path(sys.argv[1]), sys.argv[2]).save({'a': np.zeros(10_000)}, {})\n"
        "except CheckpointError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.folder), store.fingerprint],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.count("\n") == 1 and "must be writable" in done.stdout and "File too large" in done.stdout
    assert_holds(store, 1)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="must be writable"):
        CheckpointStore(tmp_path / "file" / "checkpoint", "x").save(arrays(1), {})


def test_write_atomically_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
