"""Files that are whole or absent: atomic writes, private writes, paths that stay inside.

Everything durable goes through a temporary name in the same folder, `fsync`, and a rename
(POSIX `rename` replaces atomically), then `fsync` of the folder, so that after a crash a
reader finds the old content or the new, never half of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from triparty.common.errors import PathError

PRIVATE_MODE = 0o600
CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Opens a file that appears under `path` only when the block ends without an error.

    Args:
        path: final name; its folder is made if absent.
        mode: permissions from the first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with atomic_file(path, mode=mode) as stream:
        stream.write(data)


def write_private(path: Path, data: bytes) -> None:
    """Writes a secret, whole or not at all, readable by its owner alone (mode 0600)."""
    write_atomic(path, data, mode=PRIVATE_MODE)


def make_private_folder(path: Path) -> None:
    """Makes a folder that only its owner may enter (mode 0700)."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lets one process at a time into a block. Not to be nested.

    Args:
        folder: exists; gets a file `.lock`.
        wait: for who is inside already; else that is an error.

    Raises:
        BlockingIOError: another process is inside, or has just removed the folder.
    """
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
    try:
        # The lock ends with the process, however that ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not wait and not _is_at(descriptor, path):
            raise BlockingIOError(f"{folder} was removed by who was inside")
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(folder: Path, target: Path) -> None:
    """Renames a folder to `target`, in the place of what may be there.

    POSIX cannot rename a folder over one that holds files: the old one steps aside for the
    moment between two renames, and comes back if the second fails.
    """
    if not target.exists():
        os.rename(folder, target)
        return
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.old")
    os.rename(target, aside)
    try:
        os.rename(folder, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file in lower-case hex; reads 1 MiB at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def safe_relative(name: str) -> PurePosixPath:
    """The path of a file inside an artifact, if it stays inside.

    Args:
        name: as written in a manifest: POSIX, relative.

    Raises:
        PathError: absolute, empty, with `..`, `.`, a backslash, a colon or a control
            character, or longer than 255 characters.
    """
    path = PurePosixPath(name)
    bad = (
        not path.parts
        or len(name) > 255
        or path.is_absolute()
        or str(path) != name
        or any(part in ("..", ".") for part in path.parts)
        or any(char in "\\:" or ord(char) < 32 or ord(char) == 127 for char in name)
    )
    if bad:
        raise PathError(f"path {name!r} is not a plain relative path inside the artifact")
    return path
