"""Checkpoints: whole or not at all, two generations, with a checksum and the fingerprint of what they belong to."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from supermage.errors import CheckpointError

MAGIC = b"supermage checkpoint 1\n"

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """A folder with the newest checkpoint and the one before it.

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

    def save(self, arrays: Arrays, notes: Mapping[str, Any]) -> None:
        """Write a checkpoint; the newest one so far becomes the previous.

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
            # a damaged newest one must not push out the whole one before it
            if _is_whole(self.newest):
                # a hard link first: there is no moment without a whole file
                link = self.folder / f".previous.{os.getpid()}.tmp"
                link.unlink(missing_ok=True)
                os.link(self.newest, link)
                link.replace(self.previous)
            write_atomically(self.newest, content)
        except OSError as error:
            raise CheckpointError(f"a checkpoint must be writable, got {self.newest}: {error.strerror}") from None

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

    def clear(self) -> None:
        """Remove both generations."""
        for path in (self.newest, self.previous):
            path.unlink(missing_ok=True)


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
