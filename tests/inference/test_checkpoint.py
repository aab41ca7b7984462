"""Checkpoints: what survives truncation and a full disk, and what is refused."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supermage.errors import CheckpointError
from supermage.inference import checkpoint
from supermage.inference.chains import Workers
from supermage.inference.checkpoint import CheckpointStore, fingerprint, write_atomically
from tests.inference import orphan

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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def run_script(script: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True, **options)


def assert_one_line(error: pytest.ExceptionInfo[CheckpointError]) -> None:
    assert "\n" not in str(error.value)


def assert_refused(store: CheckpointStore, holder: int) -> None:
    with pytest.raises(CheckpointError, match=r"must be alone with its checkpoint, got another one running in") as error, store.alone():
        pass
    assert_one_line(error)
    assert str(error.value).endswith(f"{store.folder} (process {holder} on {os.uname().nodename})")


def test_two_generations(store: CheckpointStore) -> None:
    assert store.load() is None
    for number in (1, 2, 3):
        store.save(arrays(number), {"number": number})
        assert_holds(store, number)
    store.newest.unlink()
    assert_holds(store, 2)
    assert names(store.folder) == ["previous.ckpt"]


def test_the_first_of_a_new_run_takes_the_place_of_both(store: CheckpointStore) -> None:
    for number in (1, 2):
        store.save(arrays(number), {"number": number})
    store.save(arrays(3), {"number": 3}, first=True)
    assert_holds(store, 3)
    assert names(store.folder) == ["newest.ckpt"]


def test_a_first_one_that_cannot_be_written_keeps_an_earlier_run_and_no_bare_plan(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint.os, "fsync", full)
            with pytest.raises(CheckpointError, match="must be writable"):
                store.save(arrays(3), {"number": 3}, first=True)

    for number in (1, 2):
        store.save(arrays(number), {"number": number})
    fail()
    assert_holds(store, 2)
    assert names(store.folder) == ["newest.ckpt", "previous.ckpt"]
    store.save({}, {"plan": 1}, first=True)
    fail()
    assert names(store.folder) == []


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
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))}
    done = run_script(script, store.folder, store.fingerprint, **limit)
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


def test_what_killed_processes_left_is_swept(store: CheckpointStore) -> None:
    """Theirs and this process' own, in the folder of checkpoints and beside any file; not what a living one writes, nor other files."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    store.save(arrays(1), {"number": 1})
    beside = store.folder.parent / "posterior [1].nc"
    stays = [f".newest.ckpt.{os.getppid()}.tmp", f".another.{gone.pid}.tmp.txt", ".newest.ckpt.x.tmp"]
    for name in [f".newest.ckpt.{gone.pid}.tmp", f".previous.{gone.pid}.tmp", f".previous.ckpt.{os.getpid()}.tmp", *stays]:
        (store.folder / name).write_bytes(b"half")
    for name in (f".{beside.name}.{gone.pid}.tmp", f".{beside.name}.{os.getppid()}.tmp", f".other.nc.{gone.pid}.tmp"):
        (store.folder.parent / name).write_bytes(b"half")
    store.save(arrays(2), {"number": 2})
    write_atomically(beside, b"whole")
    assert names(store.folder) == sorted([*stays, "newest.ckpt", "previous.ckpt"])
    assert names(beside.parent) == sorted([f".{beside.name}.{os.getppid()}.tmp", f".other.nc.{gone.pid}.tmp", "checkpoint", beside.name])
    assert_holds(store, 2)


def test_two_generations_in_one_file_leave_no_link(store: CheckpointStore) -> None:
    """After a kill between the two renames both names are one file, and a rename from one to the other does nothing."""
    store.save(arrays(1), {"number": 1})
    os.link(store.newest, store.previous)
    store.save(arrays(2), {"number": 2})
    assert names(store.folder) == ["newest.ckpt", "previous.ckpt"]
    assert_holds(store, 2)


def test_a_second_run_is_refused_while_the_first_lasts(store: CheckpointStore) -> None:
    with store.alone() as found:
        assert found is None
        assert_refused(store, os.getpid())
        store.save(arrays(1), {"number": 1})
    assert names(store.folder) == ["newest.ckpt"]
    with store.alone(resume=False) as found:
        assert found is None
    with store.alone() as found:
        assert found is not None and found[1] == {"number": 1}


def test_a_run_that_saves_nothing_leaves_nothing(store: CheckpointStore) -> None:
    with pytest.raises(ValueError, match="refused"), store.alone():
        raise ValueError("refused")
    assert not store.folder.exists()


def test_a_lock_whose_file_was_taken_away_is_tried_again(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a run that ends between this one's opening the file and locking it."""
    real, taken = checkpoint.fcntl.flock, []

    def flock(lock: int, how: int) -> None:
        real(lock, how)
        if not taken:
            taken.append((store.folder / "lock").unlink())

    monkeypatch.setattr(checkpoint.fcntl, "flock", flock)
    with store.alone():
        monkeypatch.undo()
        assert_refused(store, os.getpid())


def test_another_runs_lock_is_left_alone(store: CheckpointStore) -> None:
    """Where the folder was removed under a run, and another one has begun in it."""
    with store.alone():
        (store.folder / "lock").unlink()
        (store.folder / "lock").write_text("another's")
    assert names(store.folder) == ["lock"]


@pytest.mark.parametrize("call", ["flock", "open"])
def test_without_locks_a_run_goes_on(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(checkpoint.fcntl if call == "flock" else checkpoint.os, call, unsupported)
    with store.alone(), store.alone():
        monkeypatch.undo()
        store.save(arrays(1), {"number": 1})
    assert_holds(store, 1)


HOLDER = """
import multiprocessing, sys; from pathlib import Path
from supermage.inference.checkpoint import CheckpointStore
with CheckpointStore(Path(sys.argv[1]), "mark").alone():
    wait = "import os, time; print(os.getpid(), flush=True); time.sleep(120.0)"
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(wait,))
    process.start()
    process.join()
"""


def test_the_processes_of_a_killed_run_do_not_hold_its_lock(store: CheckpointStore) -> None:
    """They are spawned, as here, and may outlive it: its lock is free all the same."""
    workers = Workers(orphan.factory, 2, fit=orphan.factory())
    assert workers._pool is not None and workers._pool._mp_context.get_start_method() == "spawn"  # type: ignore[attr-defined]
    workers.close()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(store.folder)], env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        process = int(run.stdout.readline())
        try:
            assert_refused(store, run.pid)
            run.kill()
            run.wait()
            assert names(store.folder) == ["lock"]
            with store.alone():
                pass
        finally:
            os.kill(process, signal.SIGKILL)
    assert not store.folder.exists()
