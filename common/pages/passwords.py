"""The password of a page: scrypt's hash of it, in a file for its owner alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triparty.common.errors import SettingsError, StateError
from triparty.common.files import write_private

LEAST_CHARACTERS: Final = 12
MOST_CHARACTERS: Final = 256
COST: Final = 1 << 15
BLOCK: Final = 8
_SALT_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_MEMORY: Final = 256 << 20
_LINE: Final = re.compile(r"scrypt\$(\d{1,8})\$(\d{1,3})\$([0-9a-f]{32})\$([0-9a-f]{64})")


@dataclass(frozen=True)
class PasswordHash:
    """What is kept of a password.

    Attributes:
        cost: scrypt's N.
        block: scrypt's r.
        salt: 16 random bytes.
        digest: 32 bytes.
    """

    cost: int
    block: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str, *, cost: int = COST) -> PasswordHash:
        """The hash of a password, under a fresh salt.

        Raises:
            SettingsError: too short, or longer than anybody types.
        """
        if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
            raise SettingsError(
                f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters, "
                f"got {len(password)}"
            )
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(cost, BLOCK, salt, _digest(password, cost, BLOCK, salt))

    @classmethod
    def read(cls, file: Path) -> PasswordHash:
        """The hash in a file.

        Raises:
            StateError: there is none, or the file is none of ours.
        """
        try:
            found = _LINE.fullmatch(file.read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"cannot read the password's hash in {file}: {error}") from error
        if found is None:
            raise StateError(
                f"{file} holds no hash of a password: delete it, and set the password again"
            )
        cost, block, salt, digest = found.groups()
        return cls(int(cost), int(block), bytes.fromhex(salt), bytes.fromhex(digest))

    def write(self, file: Path) -> None:
        """Keeps it in a file, mode 0600."""
        line = f"scrypt${self.cost}${self.block}${self.salt.hex()}${self.digest.hex()}\n"
        write_private(file, line.encode())

    def fits(self, password: str) -> bool:
        """Whether it is the hash of this password; takes a tenth of a second and 32 MiB."""
        if len(password) > MOST_CHARACTERS:
            return False
        made = _digest(password, self.cost, self.block, self.salt)
        return hmac.compare_digest(made, self.digest)


def new_password() -> str:
    """A password that nobody guesses: 118 random bits, in groups that are copied by hand."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
    groups = ["".join(secrets.choice(letters) for _ in range(6)) for _ in range(4)]
    return "-".join(groups)


def _digest(password: str, cost: int, block: int, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=cost,
        r=block,
        p=1,
        maxmem=_MEMORY,
        dklen=_DIGEST_BYTES,
    )
