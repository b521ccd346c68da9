"""Private keys as PEM, optionally under a passphrase; on disk: mode 0600, never overwritten.

The format is PKCS #8 PEM (RFC 5958). A passphrase is stretched with scrypt (RFC 7914) before
it encrypts the PEM, because the file format's own derivation, as `cryptography` writes it, is
PBKDF2 with 2048 rounds. The salt stands in a line before the PEM block, where RFC 7468,
section 2, allows explanatory text.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from triparty.common.errors import StateError
from triparty.common.files import write_private

SALT_BYTES = 16
# OWASP's password storage cheat sheet: 2^15, 8, 3 takes 32 MiB, which a gateway has.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 3
_SALT_LINE: Final = b"Triparty-Scrypt-Salt: "
_MAX_FILE_BYTES = 64 * 1024


def save_private_key(
    key: Ed25519PrivateKey | X25519PrivateKey, path: Path, *, passphrase: str | None
) -> None:
    """Writes a private key, readable by its owner alone from the first byte on.

    Args:
        key: the key.
        path: a file that does not exist yet: a key is never overwritten.
        passphrase: encrypts the file; None leaves it to the file's mode.

    Raises:
        StateError: the file exists, or the passphrase is empty.
    """
    if path.exists():
        raise StateError(f"{path} exists; a key is never overwritten: move it away first")
    write_private(path, private_key_pem(key, passphrase=passphrase))


def private_key_pem(
    key: Ed25519PrivateKey | X25519PrivateKey, *, passphrase: str | None
) -> bytes:
    """A private key as `load_private_key_pem` reads it; ASCII.

    Raises:
        StateError: the passphrase is empty.
    """
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not passphrase:
        raise StateError("an empty passphrase protects nothing: give one, or none at all")
    salt = os.urandom(SALT_BYTES)
    encryption = BestAvailableEncryption(_stretched(passphrase, salt))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return _SALT_LINE + salt.hex().encode() + b"\n" + pem


def load_private_key_pem(data: bytes, *, passphrase: str | None, name: str) -> object:
    """The private key that `private_key_pem` wrote.

    Args:
        data: what it wrote.
        passphrase: under which it did, if under one.
        name: of the key, for messages.

    Raises:
        StateError: damaged, or a wrong passphrase.
    """
    is_encrypted = data.startswith(_SALT_LINE)
    if is_encrypted and passphrase is None:
        raise StateError(f"the key {name} needs its passphrase")
    if not is_encrypted and passphrase is not None:
        raise StateError(f"the key {name} is not encrypted: give no passphrase")
    try:
        if not is_encrypted or passphrase is None:
            return load_pem_private_key(data, None)
        line, _, pem = data.partition(b"\n")
        salt = bytes.fromhex(line.removeprefix(_SALT_LINE).decode())
        return load_pem_private_key(pem, _stretched(passphrase, salt))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(f"the key {name} is damaged or its passphrase is wrong") from error


def _stretched(passphrase: str, salt: bytes) -> bytes:
    kdf = Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return kdf.derive(passphrase.encode()).hex().encode()


def read_private(path: Path) -> bytes:
    """The bytes of a small file that only its owner can read.

    Raises:
        StateError: absent, or readable by others.
    """
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            data = stream.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise StateError(f"cannot read the key {path}: {error.strerror}") from error
    if mode & 0o077:
        raise StateError(f"the key {path} has mode {mode:04o}, expected 0600: chmod 600 {path}")
    return data
