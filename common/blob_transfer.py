"""Blobs on their way: uploads and downloads that go on where they were cut.

Both ends name a blob by its SHA-256. An upload asks how much the cloud holds and sends the
rest piece by piece; a download hashes while it writes, asks for the missing range after a
cut, also one that ended the process, and its file appears only when size and hash are right.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import BinaryIO

from triparty.common.connection import Answer, Connection
from triparty.common.errors import (
    CloudError,
    DigestError,
    SizeError,
    StateError,
    TransportError,
    TripartyError,
    UnreachableError,
)
from triparty.common.files import CHUNK_BYTES, PRIVATE_MODE, sync_folder

PIECE_BYTES = 8 << 20
MOST_PIECE_BYTES = 64 << 20
"""The cloud syncs its disk after each piece: where they go quickly, they grow up to this."""
_QUICK_S = 2.0
_SENT_BYTES = 256 << 10
MOST_STALLS = 4
_LEAST_PROGRESS_BYTES = 64 << 10  # less than this above the best so far is a stall
_HELD = re.compile(r"bytes=0-(\d{1,18})", re.ASCII)
_PART = re.compile(r"bytes (\d{1,18})-\d{1,18}/\d{1,18}", re.ASCII)

OnBytes = Callable[[int], None]


def upload_blob(
    connection: Connection, file: Path, *, sha256: str, size: int, on_bytes: OnBytes
) -> None:
    """Sends a file, unless the cloud has it; goes on where an earlier upload was cut.

    Args:
        connection: with a developer's token.
        file: what to send.
        sha256: of the file.
        size: of the file, in bytes.
        on_bytes: told how many more bytes the cloud holds.

    Raises:
        DigestError: the file is no longer the one that was hashed.
        StateError: it became shorter.
        TripartyError: the cloud refuses it.
    """
    path = f"/v1/blobs/{sha256}"
    held = connection.request("HEAD", path, accept=(200, 308, 404))
    if held.status == 200:
        on_bytes(size)
        return
    at = min(_held(held), size)
    on_bytes(at)
    stalls, piece_bytes = 0, PIECE_BYTES
    with file.open("rb") as stream:
        while True:
            stream.seek(at)
            wanted = min(piece_bytes, size - at)
            piece = list(_chunks(stream, wanted))
            if sum(map(len, piece)) < wanted:
                raise StateError(f"{file} became shorter while it was uploaded: try again")
            begun_s = time.monotonic()
            answer = connection.request(
                "PUT",
                path,
                content=piece,
                headers={
                    "Content-Range": _range(at, wanted, size),
                    "Content-Length": str(wanted),
                },
                accept=(201, 308, 409),
            )
            if answer.status == 201:
                on_bytes(size - at)
                return
            now = min(_held(answer), size)
            stalls += now <= at  # never forgotten: a cloud could give and take for ever
            if stalls > MOST_STALLS:
                raise _refusal(answer)
            on_bytes(now - at)
            at = now
            if time.monotonic() < begun_s + _QUICK_S:
                piece_bytes = min(2 * piece_bytes, MOST_PIECE_BYTES)


def _chunks(stream: BinaryIO, count: int) -> Iterator[bytes]:
    """The next bytes of a file, in small parts: a socket copies what it did not take yet."""
    while count and (chunk := stream.read(min(_SENT_BYTES, count))):
        count -= len(chunk)
        yield chunk


def _refusal(answer: Answer) -> TripartyError:
    if answer.status == 409:
        return answer.error()
    return CloudError("the cloud takes no more of a blob and does not say why")


def _held(answer: Answer) -> int:
    """How many bytes the cloud says it holds of an unfinished blob."""
    match = _HELD.fullmatch(answer.headers.get("Range", ""))
    return int(match[1]) + 1 if match else 0


def _range(start: int, length: int, size: int) -> str:
    return f"bytes {start}-{start + length - 1}/{size}" if size else "bytes */0"


def download_blob(
    connection: Connection, target: Path, *, sha256: str, size: int, on_bytes: OnBytes
) -> None:
    """Fetches a blob into a private file that appears only if size and hash are right.

    Cut, or killed, the same call goes on with what is here.

    Args:
        connection: with a token that may see the blob.
        target: the file.
        sha256: expected hash.
        size: expected size in bytes; not a byte more is written.
        on_bytes: told how many more bytes are here.

    Raises:
        DigestError: the bytes are others.
        SizeError: more bytes than expected.
        UnreachableError: cut too often.
        TripartyError: the cloud refuses it.
    """
    with _resumed(target, sha256) as sink:
        download = _Download(connection, f"/v1/blobs/{sha256}", size, sink, on_bytes)
        stalls, best = 0, download.held
        while not download.is_complete:
            cut: UnreachableError | None = None
            try:
                download.go_on()
            except UnreachableError as error:
                cut = error
            if download.is_complete:
                break
            if download.held - best < _LEAST_PROGRESS_BYTES:
                stalls += 1
            else:
                stalls, best = 0, download.held
            if stalls > MOST_STALLS:
                raise cut or DigestError(f"the blob ends after {download.held} of {size} bytes")
        if download.digest.hexdigest() != sha256:
            raise DigestError(
                f"expected a blob with SHA-256 {sha256}, got {download.digest.hexdigest()}"
            )


@contextmanager
def _resumed(target: Path, sha256: str) -> Iterator[BinaryIO]:
    """The file of an unfinished download, which takes its name when the block ends well.

    It stays where the cloud was not reached or the process died: the next download of the same
    blob to the same place goes on from it. One of another blob is removed.
    """
    partial = target.with_name(f".{target.name}.{sha256}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for other in target.parent.glob(f".{escape(target.name)}.*.part"):
        if other != partial:
            other.unlink()
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(partial, flags, PRIVATE_MODE), "r+b") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(partial, target)
    except TransportError:
        if not partial.stat().st_size:
            partial.unlink()
        raise
    except Exception:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


class _Download:
    """The bytes of one blob so far."""

    def __init__(
        self, connection: Connection, path: str, size: int, sink: BinaryIO, on_bytes: OnBytes
    ) -> None:
        self._connection, self._path, self._sink = connection, path, sink
        self._size, self._on_bytes = size, on_bytes
        self.held = 0
        self.digest = hashlib.sha256()
        self._take_up()

    @property
    def is_complete(self) -> bool:
        return self.held == self._size

    def go_on(self) -> None:
        """Reads one answer, from where the last one ended, to its end or its cut."""
        headers = {"Range": f"bytes={self.held}-"} if self.held else {}
        with self._connection.stream(self._path, headers=headers, accept=(200, 206)) as opened:
            answer, pieces = opened
            self._begin(answer)
            for piece in pieces:
                if self.held + len(piece) > self._size:
                    raise SizeError(f"the blob has more than the expected {self._size} bytes")
                self._sink.write(piece)
                self.digest.update(piece)
                self.held += len(piece)
                self._on_bytes(len(piece))

    def _take_up(self) -> None:
        """Counts and hashes what an earlier download left, unless it is too much."""
        if os.fstat(self._sink.fileno()).st_size > self._size:
            self._sink.truncate()
        while chunk := self._sink.read(CHUNK_BYTES):
            self.digest.update(chunk)
            self.held += len(chunk)
        self._on_bytes(self.held)

    def _begin(self, answer: Answer) -> None:
        if answer.status == 206:
            match = _PART.fullmatch(answer.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self.held:
                raise CloudError("the cloud answered with another range than was asked for")
            return
        # The whole blob again (RFC 9110, section 14.2: a server may ignore Range).
        self._on_bytes(-self.held)
        self._sink.seek(0)
        self._sink.truncate()
        self.held, self.digest = 0, hashlib.sha256()
