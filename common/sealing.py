"""Bundles that one device alone can open. Closed to the cloud.

A sealed file is, little-endian:

    TPS1 | u32 length | HPKE ciphertext of a random 32-byte content key | chunks

HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) binds the
content key to device, model, version and epoch through its `info`. The chunks (`stream`) carry
u32 length | JSON index `[{path, sha256, size}]` | the files' bytes, in the index's order.

HPKE's base mode says nothing about the sender: a bundle is believed because the developer
signed the manifest that names this file's hash.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from triparty.common.documents import MAX_DOCUMENT_BYTES, canonical, parse
from triparty.common.entries import CHECKPOINT_SUFFIXES, FileEntry, check_files
from triparty.common.errors import DigestError, ManifestError, SealError, StateError
from triparty.common.files import (
    CHUNK_BYTES,
    PRIVATE_MODE,
    atomic_file,
    replace_folder,
    sync_folder,
)
from triparty.common.folders import describe_files
from triparty.common.keyfiles import (
    load_private_key_pem,
    private_key_pem,
    read_private,
    save_private_key,
)
from triparty.common.signing import length_prefixed, to_base64url
from triparty.common.stream import ChunkReader, ChunkWriter

MAGIC = b"TPS1"
SEALED_FILE = "bundle.sealed"
KEY_BYTES = 32
_SEALED_KEY_BYTES = 32 + KEY_BYTES + 16  # encapsulated key, content key, tag
_HEADER = struct.Struct("<4sI")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class SealingKey:
    """A device's X25519 key (RFC 7748); its `repr` shows nothing of it."""

    _key: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """The key of 32 raw bytes; for tests and golden files, whose keys are public."""
        return cls(X25519PrivateKey.from_private_bytes(raw))

    @property
    def public(self) -> bytes:
        """The public half: 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def public_text(self) -> str:
        """The public half as base64url without padding."""
        return to_base64url(self.public)

    def to_pem(self, *, passphrase: str | None = None) -> bytes:
        """The key as `from_pem` reads it; see `private_key_pem`."""
        return private_key_pem(self._key, passphrase=passphrase)

    @classmethod
    def from_pem(cls, data: bytes, *, passphrase: str | None = None, name: str = "") -> Self:
        """The key that `to_pem` wrote; see `load_private_key_pem`.

        Raises:
            StateError: damaged, not such a key, or a wrong passphrase.
        """
        key = load_private_key_pem(data, passphrase=passphrase, name=name)
        if not isinstance(key, X25519PrivateKey):
            raise StateError(f"{name} is no X25519 sealing key")
        return cls(key)

    def save(self, path: Path, *, passphrase: str | None = None) -> None:
        """Writes the key to a new file; see `save_private_key`."""
        save_private_key(self._key, path, passphrase=passphrase)

    @classmethod
    def load(cls, path: Path, *, passphrase: str | None = None) -> Self:
        """Reads a key that `save` wrote; see `read_private`.

        Raises:
            StateError: absent, readable by others, not such a key, or a wrong passphrase.
        """
        return cls.from_pem(read_private(path), passphrase=passphrase, name=str(path))

    def decrypt(self, sealed_key: bytes, info: bytes) -> bytes:
        """The content key that was sealed to this key with this `info`.

        Raises:
            SealError: it was sealed to another key or for another use, or was changed.
        """
        try:
            return _suite().decrypt(sealed_key, self._key, info)
        except (InvalidTag, ValueError) as error:
            raise SealError(
                "this bundle is not sealed to this device for this model, version and epoch: "
                "ask the developer to grant the model again"
            ) from error


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def sealing_info(*, device: str, model: str, version: int, epoch: int) -> bytes:
    """The HPKE `info` of a bundle: what it may be opened for, length-prefixed."""
    numbers = (struct.pack("<Q", version), struct.pack("<Q", epoch))
    return length_prefixed(b"triparty bundle v1", device.encode(), model.encode(), *numbers)


def seal_folder(
    folder: Path,
    target: Path,
    *,
    recipient: bytes,
    device: str,
    model: str,
    version: int,
    epoch: int,
) -> None:
    """Seals all files of a folder into one file that appears whole or not at all.

    Args:
        folder: what the device is to receive: checkpoint files, no links.
        target: the sealed file.
        recipient: the device's raw X25519 public key, confirmed at enrolment.
        device: the device's key id.
        model: name of the model.
        version: version of the bundle.
        epoch: key generation.

    Raises:
        SealError: `recipient` is no usable key.
        StateError: a file changed while it was read.
        FileTypeError, PathError, SizeError, ManifestError: see `describe_files`.
    """
    entries = describe_files(folder, CHECKPOINT_SUFFIXES)
    info = sealing_info(device=device, model=model, version=version, epoch=epoch)
    content_key = secrets.token_bytes(KEY_BYTES)
    try:
        public = X25519PublicKey.from_public_bytes(recipient)
        sealed_key = _suite().encrypt(content_key, public, info)
    except ValueError as error:  # wrong length, or a point of small order
        raise SealError("the device's sealing key is no usable X25519 key") from error
    with atomic_file(target) as sink:
        sink.write(_HEADER.pack(MAGIC, len(sealed_key)) + sealed_key)
        write_content(folder, entries, content_key, sink)


def write_content(
    folder: Path, entries: tuple[FileEntry, ...], content_key: bytes, sink: BinaryIO
) -> None:
    """Writes index and files as encrypted chunks; the same inputs give the same bytes.

    Raises:
        StateError: a file is not what its entry says.
    """
    writer = ChunkWriter(content_key, sink)
    index = canonical([entry.to_json() for entry in entries])
    writer.write(_LENGTH.pack(len(index)) + index)
    for entry in entries:
        digest = hashlib.sha256()
        with (folder / entry.path).open("rb") as source:
            while data := source.read(CHUNK_BYTES):
                digest.update(data)
                writer.write(data)
        if digest.hexdigest() != entry.sha256:
            raise StateError(f"{folder / entry.path} changed while it was sealed: try again")
    writer.finish()


def open_sealed(
    source: Path,
    target_folder: Path,
    key: SealingKey,
    *,
    device: str,
    model: str,
    version: int,
    epoch: int,
) -> None:
    """Opens a sealed bundle into a folder that appears whole or not at all.

    Verify the sealed file against its signed manifest first: opening proves who it is for,
    not who made it.

    Args:
        source: the sealed file.
        target_folder: mode 0700, its files 0600; replaced if it exists.
        key: this device's key.
        device: this device's key id.
        model: name of the model.
        version: version of the bundle.
        epoch: key generation.

    Raises:
        SealError: sealed to another key or for another use, changed, or cut.
        DigestError: the content is not what its index says.
        PathError, FileTypeError, ManifestError: an index that must not be followed.
    """
    info = sealing_info(device=device, model=model, version=version, epoch=epoch)
    try:
        stream = source.open("rb")
    except OSError as error:
        raise SealError(f"cannot read the bundle {source}: {error.strerror}") from error
    with stream, _new_folder(target_folder) as folder:
        # 1. The content key opens with this key, for this use, 2. the index says what
        #    follows, 3. each file is what the index says, 4. nothing follows the last.
        reader = ChunkReader(key.decrypt(_read_sealed_key(stream), info), stream)
        for entry in _read_index(reader, limit_bytes=source.stat().st_size):
            _write_file(reader, folder, entry)
        if reader.read(1):
            raise SealError("the sealed bundle goes on after its last file")


def _read_sealed_key(stream: BinaryIO) -> bytes:
    header = stream.read(_HEADER.size)
    if header != _HEADER.pack(MAGIC, _SEALED_KEY_BYTES):
        raise SealError(f"not a sealed bundle: expected a file that begins with {MAGIC!r}")
    return stream.read(_SEALED_KEY_BYTES)


def _read_index(reader: ChunkReader, *, limit_bytes: int) -> tuple[FileEntry, ...]:
    (length,) = _LENGTH.unpack(reader.read_exactly(_LENGTH.size))
    if length > min(limit_bytes, MAX_DOCUMENT_BYTES):
        raise SealError(f"the bundle's index has {length} bytes, more than any index")
    items = parse(reader.read_exactly(length))
    if not isinstance(items, list):
        raise ManifestError("the bundle's index is no list")
    entries = tuple(FileEntry.from_json(item) for item in items)
    check_files(entries, CHECKPOINT_SUFFIXES)
    if sum(entry.size for entry in entries) > limit_bytes:
        raise SealError("the bundle's index names more bytes than the bundle has")
    return entries


def _write_file(reader: ChunkReader, folder: Path, entry: FileEntry) -> None:
    path = folder / entry.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    digest, left = hashlib.sha256(), entry.size
    with os.fdopen(descriptor, "wb") as sink:
        while left:
            data = reader.read_exactly(min(left, CHUNK_BYTES))
            digest.update(data)
            sink.write(data)
            left -= len(data)
        sink.flush()
        os.fsync(sink.fileno())
    if digest.hexdigest() != entry.sha256:
        raise DigestError(f"{entry.path!r} in the bundle is not what its index says")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that takes the target's name only when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    folder.mkdir(mode=0o700)
    try:
        yield folder
        for path in (folder, *(child for child in folder.rglob("*") if child.is_dir())):
            sync_folder(path)
        replace_folder(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sync_folder(target.parent)
