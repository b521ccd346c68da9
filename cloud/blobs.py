"""Blobs: content-addressed, one namespace a developer, resumable.

```
FOLDER/DEVELOPER/partial/abcdef... an upload that has not ended; never served
VERIFIED/DEVELOPER/ab/abcdef...    a verified blob: its name is its SHA-256
```

An upload arrives on this machine's disk. A blob goes to the store of verified blobs (a folder
of the same disk, or an object store) only after its bytes were synced and hashed, and gets its
name there at once, so whatever has a name is whole, whenever the process dies.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from triparty.cloud.blob_room import BlobQuota, BlobRoom, Usage
from triparty.cloud.full_storage import is_storage_full
from triparty.common.errors import (
    ConflictError,
    DigestError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from triparty.common.files import PRIVATE_MODE, make_private_folder, sha256_file, sync_folder

TAKEN_OVER = "a newer upload of this blob took over"
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
class BlobKey:
    """A blob of a developer; the only maker of blob names.

    Attributes:
        developer: whose it is.
        sha256: its id.
    """

    developer: str
    sha256: str

    def __post_init__(self) -> None:
        """Refuses what is no name."""
        if not _SHA256.fullmatch(self.sha256):
            raise RequestError("a blob's id is its SHA-256: 64 lower-case hex digits")

    @property
    def folder(self) -> str:
        """The developer's folder."""
        return developer_folder(self.developer)

    @property
    def name(self) -> str:
        """Relative to a store: `DEVELOPER/ab/abcdef...`."""
        return f"{self.folder}/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class StoredBlob:
    """A verified blob as a store lists it.

    Attributes:
        key: its name.
        size: in bytes.
        modified_s: when it got its name, in seconds since 1970.
    """

    key: BlobKey
    size: int
    modified_s: float


class VerifiedBlobs(Protocol):
    """Where verified blobs are kept: a folder, or an object store.

    Every call may block, and raises `UnavailableError` if the store does not answer.
    """

    def size(self, key: BlobKey) -> int | None:
        """Bytes of a blob; None: not here."""

    def put(self, key: BlobKey, file: Path) -> None:
        """Takes a verified file over; the blob has its name whole or not at all."""

    def read(self, key: BlobKey, start: int, length: int) -> Iterator[bytes]:
        """A range of a blob's bytes, a piece at a time."""

    def fetch(self, key: BlobKey, target: Path) -> None:
        """Makes a file of a blob; raises `NotFoundError` if it is not here."""

    def remove(self, key: BlobKey) -> None:
        """Removes a blob, if it is here."""

    def set_aside(self, key: BlobKey) -> None:
        """Takes a damaged blob's name away and keeps its bytes under `damaged`."""

    def listed(self, developer: str | None = None) -> Iterator[StoredBlob]:
        """All blobs, or those of one developer."""


def developer_folder(developer: str) -> str:
    """The folder name of a developer: the hex part of its id.

    Raises:
        NotFoundError: not a developer's id (the operator has no blobs).
    """
    matched = _DEVELOPER.fullmatch(developer)
    if matched is None:
        raise NotFoundError("no such blob")
    return matched.group(1)


def key_of(folder: str, sha256: str) -> BlobKey | None:
    """The blob that a store keeps as `FOLDER/../SHA256`; None for other things."""
    if not (_SHA256.fullmatch(folder) and _SHA256.fullmatch(sha256)):
        return None
    return BlobKey(f"ed25519:{folder}", sha256)


class Upload:
    """The writing end of one blob; a newer upload of the same blob stops it."""

    def __init__(
        self,
        store: BlobStore,
        key: BlobKey,
        stream: FileIO,
        total: int,
        digest: hashlib._Hash | None,
    ) -> None:
        """Made by `BlobStore.begin`; `digest` is of what is held, None if nobody knows it."""
        self._store = store
        self._key = key
        self._stream = stream
        self._lock = threading.Lock()
        self._stopped = False
        self._is_finishing = False
        self.total = total
        self.held = stream.tell()
        self.digest = digest

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
                    if self.digest:
                        self.digest.update(rest[:written])
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
            UnavailableError: the store takes nothing now; what was sent is kept.
            OSError: the disk fails; what it would not sync is dropped.
        """
        is_whole = self.held == self.total
        if os.fstat(self._stream.fileno()).st_size != self.held:
            self.digest = None  # somebody else wrote to the file: the hash shall tell
        self._sync(is_whole=is_whole)
        if not is_whole:
            return Held(self.held, is_complete=False)
        partial = self._store.partial(self._key)
        try:
            actual = self.digest.hexdigest() if self.digest else sha256_file(partial)
        except FileNotFoundError as error:
            raise ConflictError(TAKEN_OVER) from error
        with self._lock:
            self._check_mine()
            self._is_finishing = True  # from here on nobody takes over
        try:
            if actual != self._key.sha256:
                partial.unlink()
                self._store.settle(self._key, self)
                raise DigestError(
                    f"expected a blob with SHA-256 {self._key.sha256}, got {actual}: "
                    "upload it again"
                )
            self._store.verified.put(self._key, partial)
            partial.unlink(missing_ok=True)
            self._store.settle(self._key, self, stored=self.total)
        finally:
            self._is_finishing = False
        return Held(self.total, is_complete=True)

    def _sync(self, *, is_whole: bool) -> None:
        """Makes the bytes durable, and the name of those that wait for more."""
        try:
            os.fsync(self._stream.fileno())
            if not is_whole:
                self._store.sync_names(self._key)
        except OSError:
            # Nobody knows now what the disk holds, and the next sync would not tell.
            with self._lock:
                self._check_mine()
                self._store.partial(self._key).unlink(missing_ok=True)
            self._store.settle(self._key, self)
            raise
        finally:
            self._stream.close()

    def close(self) -> None:
        """Lets go; what was written stays for the next upload to go on from."""
        self._stream.close()
        self._store.let_go(self._key, self)

    def stop(self) -> None:
        """Makes every later write fail; waits for one that is under way.

        Raises:
            UnavailableError: the blob is on its way to the store: too late.
        """
        with self._lock:
            if self._is_finishing:
                raise UnavailableError("the blob is being stored: ask again", retry_after_s=2)
            self._stopped = True

    def _check_mine(self) -> None:
        if self._stopped:
            raise ConflictError(TAKEN_OVER)


class BlobStore:
    """All blobs of a cloud: uploads under way, and the verified ones."""

    def __init__(
        self,
        folder: Path,
        verified: VerifiedBlobs,
        *,
        max_blob_bytes: int,
        quota: BlobQuota,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Opens the store.

        Args:
            folder: of unfinished uploads; made if absent, mode 0700.
            verified: where whole blobs go.
            max_blob_bytes: largest blob.
            quota: of one developer.
            clock_s: the time, in seconds since 1970.
        """
        make_private_folder(folder)
        self.verified = verified
        sync_folder(folder.parent)
        self._folder = folder
        self._max_blob = max_blob_bytes
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._uploads: dict[BlobKey, Upload] = {}  # under way
        self._digests: dict[BlobKey, tuple[int, hashlib._Hash]] = {}  # of so many bytes held
        self._settled = 0  # uploads that ended
        self._going: set[BlobKey] = set()  # blobs that are being removed
        self._vouched_s: dict[BlobKey, float] = {}  # when an uploader was told "it is here"
        self._room = BlobRoom(
            quota,
            sent=lambda key: _size(self.partial(key)),
            is_under_way=self._uploads.__contains__,
            clock_s=clock_s,
        )

    def partial(self, key: BlobKey) -> Path:
        """Where an unfinished blob is."""
        return self._folder / key.folder / "partial" / key.sha256

    def held(self, developer: str, sha256: str) -> Held | None:
        """How much of a blob is here, durably; None: nothing.

        Raises:
            OSError: the disk fails.
        """
        key = BlobKey(developer, sha256)
        return self._held_whole(key) or self._held_partly(key)

    def _held_whole(self, key: BlobKey) -> Held | None:
        now_s = self._clock_s()
        with self._lock:
            is_going = key in self._going
            before_s = self._vouched_s.get(key)
            if not is_going:
                self._vouched_s[key] = now_s  # from here on it is not removed
        size = None if is_going else self.verified.size(key)
        if size is not None:
            return Held(size, is_complete=True)
        with self._lock:  # it was no promise, unless its upload ended meanwhile
            if before_s is None and self._vouched_s.get(key) == now_s:
                del self._vouched_s[key]
        return None

    def _held_partly(self, key: BlobKey) -> Held | None:
        try:
            with self.partial(key).open("rb") as stream:
                held = os.fstat(stream.fileno()).st_size
                os.fsync(stream.fileno())
        except FileNotFoundError:
            return None
        except OSError:
            self._drop_unsynced(key)
            raise
        self.sync_names(key)
        return Held(held, is_complete=False)

    def _drop_unsynced(self, key: BlobKey) -> None:
        """Nobody knows what the disk holds of an upload, and its next sync would not tell."""
        with self._lock:
            if key not in self._uploads:  # else whoever writes meets the error too
                self._drop(key)

    def _drop(self, key: BlobKey) -> None:
        self.partial(key).unlink(missing_ok=True)
        self._room.end(key)
        self._digests.pop(key, None)

    def sync_names(self, key: BlobKey) -> None:
        """Makes the name of an unfinished blob durable."""
        for folder in list(self.partial(key).parents)[:3]:  # up to the store's own
            sync_folder(folder)

    def size(self, developer: str, sha256: str) -> int:
        """Bytes of a verified blob.

        Raises:
            NotFoundError: not here, or not all of it.
        """
        size = self.verified.size(BlobKey(developer, sha256))
        if size is None:
            raise NotFoundError("no such blob")
        return size

    def read(self, developer: str, sha256: str, start: int, length: int) -> Iterator[bytes]:
        """A range of a verified blob's bytes, a piece at a time."""
        return self.verified.read(BlobKey(developer, sha256), start, length)

    def fetch(self, developer: str, sha256: str, target: Path) -> None:
        """Makes a file of a verified blob; it may share the store's bytes.

        Raises:
            NotFoundError: not here, or not all of it.
        """
        self.verified.fetch(BlobKey(developer, sha256), target)

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
            UnavailableError: the store does not answer, or an older upload has just sent
                everything.
        """
        key = BlobKey(developer, sha256)
        if total > self._max_blob:
            raise TooLargeError(f"a blob has at most {self._max_blob} bytes, got {total}")
        self._measure(developer)
        settled = self._settled
        if self._held_whole(key):
            return None
        with self._lock:
            if key in self._going:
                raise UnavailableError("the blob is being removed: ask again", retry_after_s=2)
            if settled != self._settled and self.verified.size(key) is not None:
                return None  # an older upload ended since we looked
            self._room.check(key, total)
            if older := self._uploads.get(key):
                older.stop()  # from here on the partial file is ours
                del self._uploads[key]
                self._keep_digest(key, older)
            partial = self.partial(key)
            if _size(partial) > total:  # of a blob of another size, so of no use for this one
                partial.unlink(missing_ok=True)
            held = _size(partial)
            if start is None or start == held:
                return self._go_on(key, total, restart=start is None)
        self._held_partly(key)
        raise ConflictError(f"{held} bytes of the blob are held, not {start}", held=held)

    def _go_on(self, key: BlobKey, total: int, *, restart: bool) -> Upload:
        stream = self._open(key, restart=restart)
        held = stream.tell()
        hashed, digest = self._digests.pop(key, (0, hashlib.sha256()))
        is_known = hashed == held and bool(held)
        upload = Upload(
            self,
            key,
            stream,
            total,
            digest if is_known else None if held else hashlib.sha256(),
        )
        self._uploads[key] = upload
        self._room.promise(key, total)
        return upload

    def settle(self, key: BlobKey, upload: Upload, *, stored: int | None = None) -> None:
        """Ends an upload's claim on its developer's room; `stored` bytes became a blob."""
        with self._lock:
            self._settled += 1
            if self._uploads.get(key) is upload:  # a newer one has a claim of its own
                self._room.end(key)
            if stored is not None:
                self._vouched_s[key] = self._clock_s()
                self._room.add(key, stored)

    def let_go(self, key: BlobKey, upload: Upload) -> None:
        """Nobody sends to the upload now; its promise of room runs out from here on."""
        with self._lock:
            if self._uploads.get(key) is upload:
                del self._uploads[key]
                self._room.pause(key)
                self._keep_digest(key, upload)

    def _keep_digest(self, key: BlobKey, upload: Upload) -> None:
        """For whoever goes on with an upload."""
        if upload.digest and 0 < upload.held < upload.total:
            self._digests[key] = upload.held, upload.digest

    def usage(self, developers: Iterable[str]) -> Usage:
        """What the blobs of some developers take; each is measured when first asked for."""
        chosen = set(developers)
        for developer in chosen:
            self._measure(developer)
        with self._lock:
            return self._room.usage(chosen)

    def drop_stale(self, *, before_s: float) -> int:
        """Removes uploads that nobody went on with since a time; returns how many."""
        dropped = 0
        for partial in self._folder.glob("*/partial/*"):
            key = key_of(partial.parent.parent.name, partial.name)
            with self._lock:
                is_under_way = key in self._uploads
                if not is_under_way and _modified_s(partial) <= before_s:
                    dropped += 1
                    if key is None:
                        partial.unlink(missing_ok=True)
                    else:
                        self._drop(key)
        return dropped

    def remove_unwanted(self, blob: StoredBlob, *, before_s: float) -> bool:
        """Removes a verified blob that no artifact needs; returns whether it did.

        Args:
            blob: as listed.
            before_s: it stays if it was stored, or somebody was told that it is here, at this
                time or later; in seconds since 1970.
        """
        self._measure(blob.key.developer)
        with self._lock:
            wanted_s = max(blob.modified_s, self._vouched_s.get(blob.key, 0.0))
            if wanted_s >= before_s or blob.key in self._uploads:
                return False
            self._going.add(blob.key)
        try:
            self.verified.remove(blob.key)
            self._forget(blob.key, blob.size)
        finally:
            with self._lock:
                self._going.discard(blob.key)
        return True

    def set_aside(self, key: BlobKey) -> None:
        """Takes a damaged blob out of the way, so that it can be uploaded again."""
        self._measure(key.developer)
        size = self.verified.size(key)
        if size is not None:
            self.verified.set_aside(key)
            self._forget(key, size)

    def _forget(self, key: BlobKey, size: int) -> None:
        with self._lock:
            self._vouched_s.pop(key, None)
            self._room.remove(key, size)

    def _open(self, key: BlobKey, *, restart: bool) -> FileIO:
        path = self.partial(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if restart:
            path.unlink(missing_ok=True)  # never truncated: an older writer may have it open
        stream = FileIO(
            path, "ab", opener=lambda name, flags: os.open(name, flags, PRIVATE_MODE)
        )
        stream.seek(0, os.SEEK_END)
        return stream

    def _measure(self, developer: str) -> None:
        """Counts what a developer has, once a start; the lock is not held while that takes."""
        if self._room.is_measured(developer):
            return
        sizes = [blob.size for blob in self.verified.listed(developer)]
        with self._lock:
            partials = (self._folder / developer_folder(developer)).glob("partial/*")
            keys = (key_of(partial.parent.parent.name, partial.name) for partial in partials)
            self._room.measured(developer, sizes, (key for key in keys if key))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # nothing sent, or it became a blob a moment ago
        return 0


def _modified_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # it became a blob a moment ago
        return math.inf
