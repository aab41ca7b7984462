"""Checkpoints: whole or not at all, two generations, with a checksum and the fingerprint of what they belong to."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from supermage.errors import CheckpointError

MAGIC = b"supermage checkpoint 1\n"

TRIES = 10
"""Times that a lock is tried again whose file a run took away as it ended."""

Arrays = dict[str, NDArray[Any]]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 of anything that JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it: after a crash or on a full disk the old file is still there.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent, f".{glob.escape(path.name)}.*.tmp")
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class CheckpointStore:
    """A folder with the newest checkpoint and the one before it; a lock lies beside them while a run is at work.

    Attributes
    ----------
    folder
        Where they lie.
    fingerprint
        Of recipe, priors, data and version; another one's checkpoint is refused.
    """

    folder: Path
    fingerprint: str

    @property
    def newest(self) -> Path:
        """The newest checkpoint's file."""
        return self.folder / "newest.ckpt"

    @property
    def previous(self) -> Path:
        """The file of the one before."""
        return self.folder / "previous.ckpt"

    @contextlib.contextmanager
    def alone(self, *, resume: bool = True) -> Iterator[tuple[Arrays, dict[str, Any]] | None]:
        """Keep other runs out while this one lasts, however it ends; gives what `load` finds, None without ``resume``.

        Where the file system knows no locks, nothing is kept out.

        Raises
        ------
        CheckpointError
            If another run is at work here, or as `load` does.
        """
        path = self.folder / "lock"
        lock = _lock(path)
        try:
            yield self.load() if resume else None
        finally:
            if lock is not None:
                _unlock(path, lock)

    def save(self, arrays: Arrays, notes: Mapping[str, Any], *, first: bool = False) -> None:
        """Write a checkpoint; the newest one so far becomes the previous. The first of a new run takes the place of both.

        Raises
        ------
        CheckpointError
            If it cannot be written; what was there before survives.
        """
        buffer = io.BytesIO()
        header = json.dumps({"fingerprint": self.fingerprint, "notes": dict(notes)}).encode()
        members: dict[str, Any] = {"header": np.frombuffer(header, dtype=np.uint8), **arrays}
        np.savez(buffer, **members)
        body = buffer.getvalue()
        content = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        try:
            _sweep(self.folder, ".*.tmp")
            # a damaged newest one must not push out the whole one before it
            if not first and _is_whole(self.newest):
                self._keep_newest()
            write_atomically(self.newest, content)
            if first:
                self.previous.unlink(missing_ok=True)
        except OSError as error:
            if first:
                self._forget_plan()
            raise CheckpointError(f"a checkpoint must be writable, got {self.newest}: {error.strerror}") from None

    def _keep_newest(self) -> None:
        # a hard link first: there is no moment without a whole file
        link = _temporary(self.previous)
        try:
            os.link(self.newest, link)
            link.replace(self.previous)
        finally:
            # where both are one file, as after a kill between the two renames, the rename does nothing
            link.unlink(missing_ok=True)

    def _forget_plan(self) -> None:
        """Leave nothing of a run that could not begin; an earlier one's checkpoint, which holds arrays, stays."""
        found = _read(self.newest)
        if found is not None and not found[0]:
            with contextlib.suppress(OSError):
                self.newest.unlink()

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The newest whole checkpoint, or None where there is none.

        Raises
        ------
        CheckpointError
            If it belongs to another recipe, data set or version, or both generations are damaged.
        """
        found = [path for path in (self.newest, self.previous) if path.exists()]
        for path in found:
            content = _read(path)
            if content is None:
                continue
            arrays, header = content
            if header["fingerprint"] != self.fingerprint:
                raise CheckpointError(
                    f"a checkpoint must belong to this recipe, data and version, got {path} of another: --fresh starts anew"
                )
            return arrays, header["notes"]
        if found:
            raise CheckpointError(f"a checkpoint must be whole, got damaged files in {self.folder}: --fresh starts anew")
        return None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sweep(folder: Path, pattern: str) -> None:
    """Remove temporaries of processes that were killed; one that another process may still be writing stays."""
    for path in folder.glob(pattern):
        number = path.name.split(".")[-2]
        if number.isdecimal() and (int(number) == os.getpid() or not _is_alive(int(number))):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _lock(path: Path) -> int | None:
    """Descriptor of a lock that the kernel takes back when this process ends, even by kill -9; None where there can be none.

    The processes of a fit do not inherit it: they are spawned, and Python's descriptors are closed on exec.
    """
    for _ in range(TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with contextlib.ExitStack() as unless_taken:
                unless_taken.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _lies_at(path, lock):
                    unless_taken.pop_all()
                    _sign(lock)
                    return lock
        except FileNotFoundError:
            continue
        except BlockingIOError:
            rule = "a fit must be alone with its checkpoint"
            raise CheckpointError(f"{rule}, got another one running in {path.parent} (process {_holder(path)})") from None
        except OSError:
            return None
    return None


def _unlock(path: Path, lock: int) -> None:
    with contextlib.suppress(OSError):
        # while it is still held: nobody else can have locked this file
        if _lies_at(path, lock):
            path.unlink()
            path.parent.rmdir()
    # a copy of the descriptor in a process that the caller forked would hold the lock for longer
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _lies_at(path: Path, lock: int) -> bool:
    return os.path.samestat(path.stat(), os.fstat(lock))


def _sign(lock: int) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:100] or "unknown"
    except OSError:
        return "unknown"


def _body(path: Path) -> bytes | None:
    """What a file holds, if its checksum says that it is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, _, body = content.removeprefix(MAGIC).partition(b"\n")
    return body if content.startswith(MAGIC) and hashlib.sha256(body).hexdigest().encode() == digest else None


def _is_whole(path: Path) -> bool:
    return _body(path) is not None


def _read(path: Path) -> tuple[Arrays, dict[str, Any]] | None:
    body = _body(path)
    if body is None:
        return None
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays.pop("header").tobytes().decode())
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
