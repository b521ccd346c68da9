"""The files of an artifact on disk: describing a folder, and comparing it with a manifest.

Folders are walked without following a link; files are hashed as streams, several at a time,
because hashing releases Python's lock.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from triparty.common.entries import LIMIT_BYTES, FileEntry, check_files, check_suffix
from triparty.common.errors import (
    DigestError,
    FileTypeError,
    ManifestError,
    PathError,
    SizeError,
)
from triparty.common.files import sha256_file

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
_HASHING_THREADS = 4


def walk_files(folder: Path, *, skip: Iterable[str] = ()) -> Iterator[tuple[str, int]]:
    """The files below a folder as (relative POSIX path, size in bytes), sorted by path.

    Args:
        folder: where to look; may itself be reached through a link.
        skip: relative paths to leave out.

    Raises:
        PathError: a symbolic link; what it points to may lie outside.
        FileTypeError: a device, socket or pipe.
        ManifestError: no such folder.
    """
    if not folder.is_dir():
        raise ManifestError(f"no folder {folder}")
    found: list[tuple[str, int]] = []
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISLNK(status.st_mode):
                raise PathError(f"{path} is a symbolic link: put the file itself there")
            if stat.S_ISREG(status.st_mode):
                found.append((relative, status.st_size))
            elif not stat.S_ISDIR(status.st_mode):
                raise FileTypeError(f"{path} is no ordinary file: remove it")
    left_out = set(skip)
    return iter(sorted(item for item in found if item[0] not in left_out))


def hash_files(folder: Path, paths: Iterable[str]) -> list[str]:
    """The SHA-256 of each file in lower-case hex, in the order of `paths`."""
    with ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(sha256_file, [folder / path for path in paths]))


def describe_files(
    folder: Path, suffixes: frozenset[str], *, limit_bytes: int = LIMIT_BYTES
) -> tuple[FileEntry, ...]:
    """The entries of all files below a folder, its own manifest left out.

    Args:
        folder: the files; nothing else may lie there.
        suffixes: which suffixes are allowed.
        limit_bytes: most bytes that all files together may have.

    Raises:
        FileTypeError: a file that artifacts never hold; the message says what to do.
        PathError: a symbolic link, or a name that manifests cannot carry.
        SizeError: more than `limit_bytes`.
        ManifestError: no files.
    """
    found = list(walk_files(folder, skip=(MANIFEST_FILE, SIGNATURE_FILE)))
    for path, _ in found:  # before hours of hashing
        check_suffix(path, suffixes)
    if (total := sum(size for _, size in found)) > limit_bytes:
        raise SizeError(f"{folder} has {total} bytes, limit {limit_bytes}")
    digests = hash_files(folder, [path for path, _ in found])
    entries = zip(found, digests, strict=True)
    files = tuple(FileEntry(path, digest, size) for (path, size), digest in entries)
    check_files(files, suffixes)
    return files


def check_folder(folder: Path, files: tuple[FileEntry, ...]) -> None:
    """Returns only if the folder holds exactly these files, its own manifest left out.

    Raises:
        DigestError: a file is missing, extra, or has another size or hash.
        PathError: a symbolic link.
    """
    expected = {entry.path: entry for entry in files}
    found = dict(walk_files(folder, skip=(MANIFEST_FILE, SIGNATURE_FILE)))
    if missing := expected.keys() - found.keys():
        raise DigestError(f"{folder / min(missing)} is missing: fetch the artifact again")
    if extra := found.keys() - expected.keys():
        raise DigestError(f"{folder / min(extra)} is not in the manifest: remove it")
    for path, size in found.items():
        if size != expected[path].size:
            raise DigestError(
                f"{folder / path} has {size} bytes, expected {expected[path].size}"
            )
    for path, digest in zip(found, hash_files(folder, found), strict=True):
        if digest != expected[path].sha256:
            raise DigestError(
                f"{folder / path} has SHA-256 {digest}, expected {expected[path].sha256}"
            )
