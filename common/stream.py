"""Authenticated encryption of a byte stream in chunks, in constant memory.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance, CRYPTO 2015, section 7) over AES-256-GCM: each chunk's
nonce is 7 zero bytes, the chunk's number (u32, big-endian) and 1 for the last chunk, else 0.
A chunk that is moved, repeated, left out or changed does not open, nor does a stream that
ends early, since its end is not flagged as one. The key must be new for every stream: that is
why the nonce's prefix may be constant.

Law: what a `ChunkReader` reads is what the `ChunkWriter` was given.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from triparty.common.errors import SealError

CHUNK_BYTES = 1 << 20
TAG_BYTES = 16
MAX_CHUNKS = 2**32
_NONCE = struct.Struct(">7xIB")


def _nonce(number: int, *, is_last: bool) -> bytes:
    if number >= MAX_CHUNKS:
        raise SealError(f"a sealed stream has at most {MAX_CHUNKS} chunks")
    return _NONCE.pack(number, is_last)


class ChunkWriter:
    """Encrypts what is written to it; `finish` writes the last chunk."""

    def __init__(self, key: bytes, sink: BinaryIO) -> None:
        """Starts a stream.

        Args:
            key: 32 bytes, used for this stream alone.
            sink: receives the chunks.
        """
        self._cipher = AESGCM(key)
        self._sink = sink
        self._pending = bytearray()
        self._number = 0

    def write(self, data: bytes) -> None:
        """Adds bytes to the stream; full chunks go out as soon as more follows them."""
        self._pending += data
        while len(self._pending) > CHUNK_BYTES:  # a full last chunk waits for `finish`
            self._emit(bytes(self._pending[:CHUNK_BYTES]), is_last=False)
            del self._pending[:CHUNK_BYTES]

    def finish(self) -> None:
        """Ends the stream; without it nothing that was written opens."""
        self._emit(bytes(self._pending), is_last=True)
        self._pending.clear()

    def _emit(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._number, is_last=is_last)
        self._sink.write(self._cipher.encrypt(nonce, chunk, None))
        self._number += 1


class ChunkReader:
    """Decrypts a stream; returns no byte before its chunk has been authenticated."""

    def __init__(self, key: bytes, source: BinaryIO) -> None:
        """Starts at the first chunk.

        Args:
            key: the writer's 32 bytes.
            source: the chunks, and nothing after them.
        """
        self._cipher = AESGCM(key)
        self._source = source
        self._chunk = memoryview(b"")
        self._number = 0
        self._ahead = source.read(CHUNK_BYTES + TAG_BYTES)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the stream's end.

        Raises:
            SealError: a chunk was changed, moved or left out, or the stream ends early.
        """
        if not self._chunk and (self._ahead or self._number == 0):
            self._chunk = memoryview(self._open_chunk())
        data = bytes(self._chunk[:size])
        self._chunk = self._chunk[size:]
        return data

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes.

        Raises:
            SealError: as `read`, or the stream has fewer.
        """
        parts: list[bytes] = []
        while size > 0:
            part = self.read(size)
            if not part:
                raise SealError("the sealed content is shorter than it says")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _open_chunk(self) -> bytes:
        sealed, self._ahead = self._ahead, self._source.read(CHUNK_BYTES + TAG_BYTES)
        nonce = _nonce(self._number, is_last=not self._ahead)
        self._number += 1
        try:
            return self._cipher.decrypt(nonce, sealed, None)
        except InvalidTag as error:
            raise SealError(
                f"chunk {self._number} of the sealed bundle was changed, moved or cut: "
                "fetch the bundle again"
            ) from error
