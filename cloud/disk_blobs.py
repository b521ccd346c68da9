"""Verified blobs in a folder: a rename gives a blob its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from triparty.cloud.blobs import BlobKey, StoredBlob, developer_folder, key_of
from triparty.cloud.full_storage import is_storage_full
from triparty.common.errors import NotFoundError, UnavailableError
from triparty.common.files import CHUNK_BYTES, make_private_folder, sync_folder

DAMAGED = "damaged"


class DiskBlobs:
    """A folder of blobs; uploads arrive on the same file system."""

    def __init__(self, folder: Path) -> None:
        """Uses `folder`, made if absent, mode 0700."""
        make_private_folder(folder)
        self._folder = folder

    def path(self, key: BlobKey) -> Path:
        """Where a blob is."""
        return self._folder / key.name

    def size(self, key: BlobKey) -> int | None:
        """Bytes of a blob; None: not here."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, key: BlobKey, file: Path) -> None:
        """Renames a synced file of the same file system."""
        final = self.path(key)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, final)
            for folder in list(final.parents)[:3]:  # up to the store's own
                sync_folder(folder)
        except OSError as error:
            if is_storage_full(error):
                raise
            raise UnavailableError(f"cannot store the blob: {error.strerror}") from error

    def read(self, key: BlobKey, start: int, length: int) -> Iterator[bytes]:
        """A range of a blob's bytes, 1 MiB at a time."""
        return read_range(self.path(key), start, length)

    def fetch(self, key: BlobKey, target: Path) -> None:
        """A hard link; a copy where there are no links."""
        source = self.path(key)
        if not source.is_file():
            raise NotFoundError("no such blob")
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)

    def remove(self, key: BlobKey) -> None:
        """Removes a blob, if it is here."""
        self.path(key).unlink(missing_ok=True)

    def set_aside(self, key: BlobKey) -> None:
        """Moves a damaged blob to `DEVELOPER/damaged`."""
        aside = self._folder / key.folder / DAMAGED / key.sha256
        aside.parent.mkdir(exist_ok=True)
        os.replace(self.path(key), aside)

    def listed(self, developer: str | None = None) -> Iterator[StoredBlob]:
        """All blobs, or those of one developer."""
        folder = "*" if developer is None else developer_folder(developer)
        for path in self._folder.glob(f"{folder}/??/*"):
            key = key_of(path.parent.parent.name, path.name)
            try:
                status = path.stat()
            except FileNotFoundError:  # removed a moment ago
                continue
            if key is not None:
                yield StoredBlob(key, status.st_size, status.st_mtime)


def read_range(file: Path, start: int, length: int) -> Iterator[bytes]:
    """A range of a file's bytes, 1 MiB at a time."""
    with file.open("rb") as stream:
        stream.seek(start)
        while length > 0 and (piece := stream.read(min(CHUNK_BYTES, length))):
            length -= len(piece)
            yield piece
