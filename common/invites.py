"""Invite codes, and the confirmation by which an inviter recognises the keys that answer.

An invite carries a 256-bit secret that is split in two with HKDF (RFC 5869). The *login*
half goes to the cloud, which lets its bearer in once. The *confirm* half never does: the
invited party tags its public keys with it, and the inviter checks the tag before trusting
them. A cloud that swaps keys at enrolment cannot make the tag.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from triparty.common.documents import Members, canonical, check_digest, parse
from triparty.common.errors import ArtifactError, InviteError, ManifestError, SealError
from triparty.common.signing import (
    check_key_id,
    from_base64url,
    length_prefixed,
    to_base64url,
)

PREFIX = "tpi1_"
SECRET_BYTES = 32
MAX_CODE_CHARS = 4096
_LOGIN: Final = b"triparty invite login v1"
_CONFIRM: Final = b"triparty invite confirm v1"


@dataclass(frozen=True)
class Invite:
    """What one party hands another, outside the cloud's sight, so that it may enrol once.

    Attributes:
        url: the cloud's address, http or https.
        pin: SHA-256 in hex of the cloud's DER certificate; None trusts the system's store.
        root: fingerprint of the developer's root key; devices alone have one.
        role: who is invited.
        secret: 32 random bytes; not in `repr`.
    """

    url: str
    pin: str | None
    root: str | None
    role: Literal["developer", "device"]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuses an invite that nobody could use safely."""
        try:
            _check(self)
        except (ManifestError, ValueError) as error:
            raise InviteError(f"this invite cannot be used: {error}") from error

    def to_code(self) -> str:
        """The invite as one word to copy; it is a secret."""
        members = {
            "url": self.url,
            "pin": self.pin,
            "root": self.root,
            "role": self.role,
            "secret": to_base64url(self.secret),
        }
        return PREFIX + to_base64url(canonical(members))

    @classmethod
    def from_code(cls, code: str) -> Self:
        """The invite of a code; white space around it is ignored.

        Law: `Invite.from_code(invite.to_code()) == invite`.

        Raises:
            InviteError: the code is incomplete, altered, or made by a newer triparty. The
                message never repeats the code.
        """
        code = code.strip()
        if not code.startswith(PREFIX) or len(code) > MAX_CODE_CHARS:
            raise InviteError(f"an invite code begins with {PREFIX!r}: copy the whole code")
        try:
            value = parse(from_base64url(code.removeprefix(PREFIX)))
            members = Members(
                value, where="invite", names=("url", "pin", "root", "role", "secret")
            )
            return cls(
                url=members.text("url"),
                pin=members.optional_text("pin"),
                root=members.optional_text("root"),
                role=_role(members.text("role")),
                secret=from_base64url(members.text("secret")),
            )
        except ArtifactError as error:
            raise InviteError("this invite code is damaged: copy the whole code") from error

    @property
    def login(self) -> bytes:
        """The half that the cloud receives at enrolment: 32 bytes."""
        return _derive(self.secret, _LOGIN)

    @property
    def login_hash(self) -> str:
        """SHA-256 of the login half in hex; what the cloud stores, and the invite's id."""
        return hashlib.sha256(self.login).hexdigest()

    @property
    def confirm_key(self) -> bytes:
        """The half that the cloud never sees: 32 bytes."""
        return _derive(self.secret, _CONFIRM)


def _role(text: str) -> Literal["developer", "device"]:
    if text == "developer":
        return "developer"
    if text == "device":
        return "device"
    raise ManifestError(f"expected role developer or device, got {text!r:.40}")


def _check(invite: Invite) -> None:
    _check_url(invite.url)
    role = _role(invite.role)
    if invite.pin is not None:
        check_digest(invite.pin, what="pin")
    if invite.root is not None:
        check_key_id(invite.root)
    if (role == "device") != (invite.root is not None):
        raise ManifestError("a device's invite names a root key, a developer's does not")
    if len(invite.secret) != SECRET_BYTES:
        raise ManifestError(f"its secret must have {SECRET_BYTES} bytes")


def _check_url(url: str) -> None:
    parts = urlsplit(url)  # ValueError for a malformed address or port
    strange = any(ord(char) <= 32 or ord(char) >= 127 for char in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or strange:
        raise ManifestError(f"expected an http or https address, got {url!r:.120}")
    if parts.username is not None or parts.query or parts.fragment or parts.port == 0:
        raise ManifestError("the cloud's address has no user, port 0, query or fragment")


def _derive(secret: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=label).derive(secret)


def confirmation(confirm_key: bytes, *, identity: bytes, sealing: bytes) -> bytes:
    """The tag by which an inviter recognises the keys of the party it invited.

    Args:
        confirm_key: the invite's confirm half.
        identity: raw Ed25519 public key.
        sealing: raw X25519 public key; empty for a developer, who has none.

    Returns:
        HMAC-SHA256 (RFC 2104) of both keys, length-prefixed; 32 bytes.
    """
    return hmac.digest(confirm_key, length_prefixed(identity, sealing), "sha256")


def check_confirmation(
    confirm_key: bytes, *, identity: bytes, sealing: bytes, tag: bytes
) -> None:
    """Returns only if the invited party tagged exactly these keys; constant time.

    Raises:
        SealError: it did not: the keys, or the tag, were changed on the way.
    """
    expected = confirmation(confirm_key, identity=identity, sealing=sealing)
    if not hmac.compare_digest(expected, tag):
        raise SealError(
            "the enrolled keys are not those the invited party made: "
            "something between you changed them; revoke the device and invite it anew"
        )
