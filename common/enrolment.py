"""The proof of possession with which a party enrols.

Whoever enrols signs, with the key that becomes its identity (a developer's root key, a device's
identity key), where it enrols, with which invite and with which keys. So the bearer of an
invite cannot enrol as somebody else, and the owner of a known key can enrol again, with a new
invite, when its token is lost.

The signature counts once: it names an invite, which works once. It counts at one cloud: it
names the cloud's address, so that a hostile cloud cannot pass it on to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from triparty.common.documents import check_digest, write_document
from triparty.common.errors import SignerError
from triparty.common.signing import PrivateKey, PublicKey, to_base64url

PURPOSE = "enrolment"
_TYPE = "triparty.enrolment"


@dataclass(frozen=True)
class Enrolment:
    """What is signed.

    Attributes:
        cloud: address that the invite names, without a trailing slash.
        role: who enrols.
        login_hash: SHA-256 of the invite's login half, hex.
        identity: the key that signs.
        sealing: raw X25519 key; a device has one.
    """

    cloud: str
    role: Literal["developer", "device"]
    login_hash: str
    identity: PublicKey
    sealing: bytes | None = None

    def __post_init__(self) -> None:
        """Refuses an invite's hash of another form."""
        check_digest(self.login_hash, what="login_hash")

    def to_bytes(self) -> bytes:
        """The exact bytes that the identity key signs."""
        return write_document(
            _TYPE,
            {
                "cloud": self.cloud,
                "role": self.role,
                "login_hash": self.login_hash,
                "identity": self.identity.to_text(),
                "sealing": None if self.sealing is None else to_base64url(self.sealing),
            },
        )


def prove_enrolment(enrolment: Enrolment, key: PrivateKey) -> bytes:
    """The 64-byte proof that `key` wants this enrolment.

    Raises:
        SignerError: `key` is not the identity that enrols.
    """
    if key.public != enrolment.identity:
        raise SignerError("an enrolment is proved with the identity key that it names")
    return key.sign(PURPOSE, enrolment.to_bytes())


def verify_enrolment(enrolment: Enrolment, proof: bytes) -> None:
    """Returns only if the identity key proved exactly this enrolment.

    Raises:
        SignatureError: it did not.
    """
    enrolment.identity.verify(PURPOSE, enrolment.to_bytes(), proof)
