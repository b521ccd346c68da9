"""Ed25519 keys and domain-separated signatures.

What is signed is never bare JSON but a length-prefixed encoding of domain, purpose and
payload, after DSSE's pre-authentication encoding
(https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md), so that a signature
made for one purpose means nothing for another. Unlike some DSSE implementations the lengths
count bytes, not characters.

Law: `key.public.verify(p, m, key.sign(p, m))` returns, and raises for every other `p` or `m`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from triparty.common.errors import ManifestError, SignatureError, StateError
from triparty.common.keyfiles import (
    load_private_key_pem,
    private_key_pem,
    read_private,
    save_private_key,
)

DOMAIN = b"triparty/v1"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
_KEY_ID = re.compile(r"ed25519:[0-9a-f]{64}")


def length_prefixed(*parts: bytes) -> bytes:
    """The parts one after another, each behind its length in bytes as u64 little-endian.

    Law: different sequences of parts have different encodings.
    """
    return b"".join(struct.pack("<Q", len(part)) + part for part in parts)


def signing_input(purpose: str, payload: bytes) -> bytes:
    """The bytes that a signature covers: domain, purpose and payload, length-prefixed.

    Args:
        purpose: what the signature is for: "manifest", "delegation" or "latest".
        payload: the exact bytes of the document.
    """
    return length_prefixed(DOMAIN, purpose.encode(), payload)


def to_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes of base64url text without padding.

    Law: `to_base64url(from_base64url(text)) == text`; two texts never mean the same bytes.

    Raises:
        ManifestError: padding, another alphabet, or bits left over.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ManifestError("expected base64url text without padding") from error
    if to_base64url(data) != text:
        raise ManifestError("expected base64url text without padding or left-over bits")
    return data


def check_key_id(text: str) -> str:
    """The text, if it is a key id: `ed25519:` and 64 lower-case hex digits.

    Raises:
        ManifestError: it is not.
    """
    if not _KEY_ID.fullmatch(text):
        raise ManifestError(f"expected a key id (ed25519: and 64 hex digits), got {text!r:.90}")
    return text


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key (RFC 8032).

    Attributes:
        raw: its 32 bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        """Refuses a key of the wrong length."""
        if len(self.raw) != KEY_BYTES:
            raise ManifestError(
                f"an Ed25519 public key has {KEY_BYTES} bytes, got {len(self.raw)}"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key written as base64url without padding.

        Raises:
            ManifestError: the text is not such a key.
        """
        return cls(from_base64url(text))

    def to_text(self) -> str:
        """The key as base64url without padding."""
        return to_base64url(self.raw)

    @property
    def key_id(self) -> str:
        """`ed25519:` + SHA-256 of the raw key in hex; of a root key, its fingerprint."""
        return "ed25519:" + hashlib.sha256(self.raw).hexdigest()

    def verify(self, purpose: str, payload: bytes, signature: bytes) -> None:
        """Returns only if this key signed these bytes for this purpose.

        Raises:
            SignatureError: it did not.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(signature, signing_input(purpose, payload))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the {purpose}'s bytes are not what key {self.key_id} signed"
            ) from error


@dataclass(frozen=True)
class PrivateKey:
    """An Ed25519 private key; its `repr` shows the public half alone."""

    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a 32-byte seed; for tests and golden files, whose keys are public."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, purpose: str, payload: bytes) -> bytes:
        """The 64-byte signature of these bytes for this purpose."""
        return self._key.sign(signing_input(purpose, payload))

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
        if not isinstance(key, Ed25519PrivateKey):
            raise StateError(f"{name} is no Ed25519 signing key")
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
