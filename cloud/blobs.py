"""Blobs on disk: content-addressed, one namespace a developer, resumable.

```
FOLDER/DEVELOPER/ab/abcdef...      a verified blob: its name is its SHA-256
FOLDER/DEVELOPER/partial/abcdef... an upload that has not ended; never served
```

A blob gets its name only after its bytes were synced to disk and hashed, so whatever has a
name is whole, whenever the process dies.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from triparty.cloud.full_storage import is_storage_full
from triparty.common.errors import (
    ConflictError,
    DigestError,
    LimitError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from triparty.common.files import (
    CHUNK_BYTES,
    PRIVATE_MODE,
    make_private_folder,
    sha256_file,
    sync_folder,
)

STALE_UPLOAD_S = 7 * 86400
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVELOPER = re.compile(r"ed25519:([0-9a-f]{64})")


@dataclass(frozen=True)
class Held:
    """How much of a blob is here.

    Attributes:
        size: bytes held.
        is_complete: all of them, and verified.
    """

    size: int
    is_complete: bool


@dataclass(frozen=True)
class _Key:
    """A blob of a developer; the only maker of blob paths."""

    developer: str
    sha256: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise RequestError("a blob's id is its SHA-256: 64 lower-case hex digits")

    @property
    def folder(self) -> str:
        return developer_folder(self.developer)


def developer_folder(developer: str) -> str:
    """The folder name of a developer: the hex part of its id.

    Raises:
        NotFoundError: not a developer's id (the operator has no blobs).
    """
    matched = _DEVELOPER.fullmatch(developer)
    if matched is None:
        raise NotFoundError("no such blob")
    return matched.group(1)


class Upload:
    """The writing end of one blob; a newer upload of the same blob stops it."""

    def __init__(self, store: BlobStore, key: _Key, stream: FileIO, total: int) -> None:
        """Made by `BlobStore.begin`."""
        self._store = store
        self._key = key
        self._stream = stream
        self._lock = threading.Lock()
        self._stopped = False
        self.total = total
        self.held = stream.tell()

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Raises:
            ConflictError: a newer upload took over.
            RequestError: more bytes than announced.
            UnavailableError: the disk fails.
            OSError: there is no room on it; what is held stays.
        """
        if self.held + len(data) > self.total:
            raise RequestError(f"the body is longer than the announced {self.total} bytes")
        with self._lock:
            self._check_mine()
            rest = memoryview(data)
            try:
                while rest:
                    written = self._stream.write(rest)
                    self.held += written
                    rest = rest[written:]
            except OSError as error:
                if is_storage_full(error):
                    raise
                raise UnavailableError(f"cannot store the blob: {error.strerror}") from error

    def finish(self) -> Held:
        """Makes what was written durable; a whole blob is verified and becomes visible.

        Raises:
            DigestError: the bytes have another hash; they are dropped.
            ConflictError: a newer upload took over.
            OSError: the disk fails; what it would not sync is dropped.
        """
        self._sync()
        if self.held < self.total:
            return Held(self.held, is_complete=False)
        partial, final = self._store.partial(self._key), self._store.final(self._key)
        actual = sha256_file(partial)
        with self._lock:
            self._check_mine()
            if actual == self._key.sha256:
                final.parent.mkdir(exist_ok=True)
                os.replace(partial, final)
                for folder in list(final.parents)[:3]:  # up to the store's own
                    sync_folder(folder)
            else:
                partial.unlink()
        if actual != self._key.sha256:
            self._store.release(self._key, stored=0)
            raise DigestError(
                f"expected a blob with SHA-256 {self._key.sha256}, got {actual}: "
                "upload it again"
            )
        self._store.release(self._key, stored=self.total)
        return Held(self.total, is_complete=True)

    def _sync(self) -> None:
        try:
            os.fsync(self._stream.fileno())
        except OSError:
            # Nobody knows now what the disk holds, and the next sync would not tell.
            with self._lock:
                self._check_mine()
                self._store.partial(self._key).unlink(missing_ok=True)
            self._store.release(self._key, stored=0)
            raise
        finally:
            self._stream.close()

    def close(self) -> None:
        """Lets go; what was written stays for the next upload to go on from."""
        self._stream.close()

    def stop(self) -> None:
        """Makes every later write fail; waits for one that is under way."""
        with self._lock:
            self._stopped = True

    def _check_mine(self) -> None:
        if self._stopped:
            raise ConflictError("a newer upload of this blob took over")


class BlobStore:
    """All blobs of a cloud."""

    def __init__(self, folder: Path, *, max_blob_bytes: int, max_store_bytes: int) -> None:
        """Opens the store.

        Args:
            folder: made if absent, mode 0700.
            max_blob_bytes: largest blob.
            max_store_bytes: most bytes of one developer, unfinished uploads included.
        """
        make_private_folder(folder)
        sync_folder(folder.parent)
        self._folder = folder
        self._max_blob = max_blob_bytes
        self._max_store = max_store_bytes
        self._lock = threading.Lock()
        self._uploads: dict[_Key, Upload] = {}
        self._stored: dict[str, int] = {}  # bytes of verified blobs, by developer
        self._promised: dict[_Key, int] = {}  # bytes of uploads that have not ended

    def final(self, key: _Key) -> Path:
        """Where a verified blob is."""
        return self._folder / key.folder / key.sha256[:2] / key.sha256

    def partial(self, key: _Key) -> Path:
        """Where an unfinished blob is."""
        return self._folder / key.folder / "partial" / key.sha256

    def held(self, developer: str, sha256: str) -> Held | None:
        """How much of a blob is here; None: nothing."""
        key = _Key(developer, sha256)
        for path, is_complete in ((self.final(key), True), (self.partial(key), False)):
            try:
                return Held(path.stat().st_size, is_complete)
            except FileNotFoundError:
                continue
        return None

    def path(self, developer: str, sha256: str) -> Path:
        """The file of a verified blob.

        Raises:
            NotFoundError: not here, or not all of it.
        """
        path = self.final(_Key(developer, sha256))
        if not path.is_file():
            raise NotFoundError("no such blob")
        return path

    def begin(
        self, developer: str, sha256: str, *, start: int | None, total: int
    ) -> Upload | None:
        """Begins or goes on with an upload.

        Args:
            developer: whose blob.
            sha256: its id.
            start: where the bytes go on: how many are held; None drops what is held.
            total: size of the whole blob.

        Returns:
            None if the whole blob is here already.

        Raises:
            ConflictError: `start` is not the number of bytes held (`extra["held"]`).
            TooLargeError: over the limit of a blob.
            LimitError: over the limit of the developer.
        """
        key = _Key(developer, sha256)
        if total > self._max_blob:
            raise TooLargeError(f"a blob has at most {self._max_blob} bytes, got {total}")
        with self._lock:
            before = self.held(developer, sha256)
            if before and before.is_complete:
                return None
            self._check_room(key, total)
            if older := self._uploads.pop(key, None):
                older.stop()  # from here on the partial file is ours
                before = self.held(developer, sha256)
            held = before.size if before else 0
            if held > total:  # of a blob of another size, so of no use for this one
                self.partial(key).unlink()
                held = 0
            if start is not None and start != held:
                raise ConflictError(
                    f"{held} bytes of the blob are held, not {start}", held=held
                )
            upload = Upload(self, key, self._open(key, restart=start is None), total)
            self._uploads[key] = upload
            self._promised[key] = total
            return upload

    def release(self, key: _Key, *, stored: int) -> None:
        """Ends an upload's claim on its developer's room; `stored` bytes became a blob."""
        with self._lock:
            self._uploads.pop(key, None)
            self._promised.pop(key, None)
            if key.developer in self._stored:
                self._stored[key.developer] += stored

    def drop_stale(self, *, now_s: float) -> None:
        """Removes uploads that nobody went on with for a week."""
        for partial in self._folder.glob("*/partial/*"):
            if partial.stat().st_mtime < now_s - STALE_UPLOAD_S:
                partial.unlink()

    def _open(self, key: _Key, *, restart: bool) -> FileIO:
        path = self.partial(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if restart:
            path.unlink(missing_ok=True)  # never truncated: an older writer may have it open
        stream = FileIO(
            path, "ab", opener=lambda name, flags: os.open(name, flags, PRIVATE_MODE)
        )
        stream.seek(0, os.SEEK_END)
        return stream

    def _check_room(self, key: _Key, total: int) -> None:
        if key.developer not in self._stored:
            self._measure(key.developer)
        others = sum(
            size
            for other, size in self._promised.items()
            if other.developer == key.developer and other != key
        )
        if self._stored[key.developer] + others + total > self._max_store:
            raise LimitError(
                f"this blob would take you over your {self._max_store} bytes on this cloud; "
                "ask its operator for more room",
                retry_after_s=3600,
            )

    def _measure(self, developer: str) -> None:
        root = self._folder / developer_folder(developer)
        self._stored[developer] = sum(
            blob.stat().st_size for blob in root.glob("*/*") if blob.parent.name != "partial"
        )
        for partial in root.glob("partial/*"):
            self._promised.setdefault(_Key(developer, partial.name), partial.stat().st_size)


def read_range(path: Path, start: int, length: int) -> Iterator[bytes]:
    """The bytes of a file from `start` on, a piece at a time."""
    with path.open("rb") as stream:
        stream.seek(start)
        while length > 0 and (piece := stream.read(min(CHUNK_BYTES, length))):
            length -= len(piece)
            yield piece
