"""Verified blobs in an object store, through fsspec.

An object store has no rename, but an object appears only when its upload ends, so a blob has
its name whole or not at all. Credentials are the driver's own business (its environment
variables, or fsspec's configuration); nothing of them is kept or logged here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triparty.cloud.blobs import BlobKey, StoredBlob, developer_folder, key_of
from triparty.cloud.disk_blobs import DAMAGED
from triparty.cloud.full_storage import is_storage_full, storage_full
from triparty.common.errors import (
    NotFoundError,
    SettingsError,
    TripartyError,
    UnavailableError,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

EXTRAS = {"s3": "s3", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Stores whose objects appear whole, and what is installed for each."""
PIECE_BYTES = 8 << 20
_log = logging.getLogger(__name__)


class ObjectBlobs:
    """Blobs as objects under a prefix."""

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        """Uses an fsspec file system that keeps no listings.

        Args:
            filesystem: one whose objects appear whole.
            root: bucket and prefix.
        """
        self._filesystem = filesystem
        self._root = root.rstrip("/")

    def size(self, key: BlobKey) -> int | None:
        """Bytes of a blob; None: not here."""
        with _answering():
            try:
                return int(self._filesystem.info(self._path(key))["size"])
            except FileNotFoundError:
                return None

    def put(self, key: BlobKey, file: Path) -> None:
        """Uploads a file, and asks the store how much it has of it."""
        size = file.stat().st_size
        with _answering():
            self._filesystem.put_file(str(file), self._path(key))
        stored = self.size(key)
        if stored != size:
            self.remove(key)
            raise UnavailableError(f"the blob store has {stored} of {size} bytes: try again")

    def read(self, key: BlobKey, start: int, length: int) -> Iterator[bytes]:
        """A range of a blob's bytes, 8 MiB at a time."""
        end = start + length
        while start < end:
            stop = min(end, start + PIECE_BYTES)
            with _answering():
                piece = self._filesystem.cat_file(self._path(key), start=start, end=stop)
            if not piece:
                return
            start += len(piece)
            yield piece

    def fetch(self, key: BlobKey, target: Path) -> None:
        """Downloads a blob."""
        with _answering():
            try:
                self._filesystem.get_file(self._path(key), str(target))
            except FileNotFoundError as error:
                raise NotFoundError("no such blob") from error

    def remove(self, key: BlobKey) -> None:
        """Removes a blob, if it is here."""
        with _answering():
            try:
                self._filesystem.rm_file(self._path(key))
            except FileNotFoundError:
                return

    def set_aside(self, key: BlobKey) -> None:
        """Copies a damaged blob to `DEVELOPER/damaged`, then removes it."""
        aside = f"{self._root}/{key.folder}/{DAMAGED}/{key.sha256}"
        with _answering():
            self._filesystem.cp_file(self._path(key), aside)
            self._filesystem.rm_file(self._path(key))

    def listed(self, developer: str | None = None) -> Iterator[StoredBlob]:
        """All blobs, or those of one developer."""
        folder = self._root if developer is None else self._folder(developer)
        with _answering():
            try:
                found = self._filesystem.find(folder, detail=True)
            except FileNotFoundError:
                return
        for name, entry in found.items():
            *_, folder, start, sha256 = name.split("/")
            key = key_of(folder, sha256)
            if key is not None and start == sha256[:2]:
                yield StoredBlob(key, int(entry["size"]), _modified_s(entry))

    def _folder(self, developer: str) -> str:
        return f"{self._root}/{developer_folder(developer)}"

    def _path(self, key: BlobKey) -> str:
        return f"{self._root}/{key.name}"


def open_object_blobs(url: str) -> ObjectBlobs:
    """The blobs of an object store's URL, such as `s3://BUCKET/PREFIX`.

    Raises:
        SettingsError: no such store here, or its driver is not installed.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    scheme, _, rest = url.partition("://")
    if scheme not in EXTRAS:
        raise SettingsError(
            f"blobs '{scheme}://...' cannot be used: expected a folder, a file:// URL, or an "
            f"object store: {', '.join(f'{name}://' for name in EXTRAS)}"
        )
    if "@" in rest.partition("/")[0]:
        raise SettingsError(
            "blobs: no credentials in the URL: put them where the store's driver looks for "
            "them, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    try:
        filesystem, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        package = EXTRAS[scheme]
        wanted = f"triparty[{package}]" if package == "s3" else package
        raise SettingsError(
            f"blobs '{scheme}://...' need a driver: pip install '{wanted}'"
        ) from error
    return ObjectBlobs(filesystem, root)


def _modified_s(entry: dict[str, Any]) -> float:
    """When an object was stored, as its driver names it; unknown: never long ago."""
    for name in ("LastModified", "last_modified", "mtime", "created"):
        time = entry.get(name)
        if isinstance(time, datetime):
            return time.timestamp()
        if isinstance(time, float):
            return time
    return math.inf


@contextmanager
def _answering() -> Iterator[None]:
    """Turns a store's failure into 503, or 507; what drivers raise has no class in common."""
    try:
        yield
    except TripartyError:
        raise
    except Exception as error:
        if is_storage_full(error):
            _log.exception("no room for a blob")
            raise storage_full() from error
        _log.exception("the blob store does not answer")
        raise UnavailableError("the blob store does not answer") from error
