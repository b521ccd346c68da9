"""Delegations: which keys may publish for a developer.

The root key stays offline and signs a delegation that names the publishing keys, so that a
publishing key can be replaced without enrolling anybody again: the root and targets roles of
The Update Framework (https://theupdateframework.github.io/specification/latest/), reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, TypeVar

from triparty.common.documents import (
    Members,
    check_integer,
    format_time,
    parse,
    read_document,
    whole_seconds,
    write_document,
)
from triparty.common.errors import (
    ExpiredError,
    ManifestError,
    RollbackError,
    SignatureError,
    SignerError,
)
from triparty.common.signing import SIGNATURE_BYTES, PrivateKey, PublicKey

MAX_PUBLISHING_KEYS = 16
_DELEGATION = "triparty.delegation"


@dataclass(frozen=True)
class SignedDocument:
    """The exact bytes of a manifest, delegation or latest statement, and their signature.

    Nothing in `payload` may be believed before one of the `verify_` functions returned.
    """

    payload: bytes
    signature: bytes

    def __post_init__(self) -> None:
        """Refuses a signature of the wrong length."""
        if len(self.signature) != SIGNATURE_BYTES:
            raise SignatureError(
                f"a signature has {SIGNATURE_BYTES} bytes, got {len(self.signature)}"
            )


@dataclass(frozen=True)
class PublishingKey:
    """A key that may sign for a developer until it expires."""

    public: PublicKey
    expires: datetime

    def __post_init__(self) -> None:
        """Keeps whole seconds, as the document does."""
        object.__setattr__(self, "expires", whole_seconds(self.expires))


@dataclass(frozen=True)
class Delegation:
    """The root key's word on which keys publish for it.

    Attributes:
        root: the developer's root key.
        keys: publishing keys, the current one and its successors or predecessors.
        version: rises with every delegation, from 1.
        created: when it was signed.
    """

    root: PublicKey
    keys: tuple[PublishingKey, ...]
    version: int
    created: datetime

    def __post_init__(self) -> None:
        """Refuses a delegation to nobody, to one key twice, or to the root itself."""
        object.__setattr__(self, "created", whole_seconds(self.created))
        check_integer(self.version, where="delegation: 'version'", minimum=1)
        raw = {key.public.raw for key in self.keys}
        if not 1 <= len(self.keys) <= MAX_PUBLISHING_KEYS or len(raw) != len(self.keys):
            raise ManifestError(
                f"a delegation names 1 to {MAX_PUBLISHING_KEYS} different keys, "
                f"got {len(self.keys)}"
            )
        if self.root.raw in raw:
            raise ManifestError("a root key does not publish: delegate to another key")

    @property
    def developer(self) -> str:
        """The developer's id everywhere: the root key's id, also called its fingerprint."""
        return self.root.key_id

    def to_bytes(self) -> bytes:
        """The exact bytes that the root key signs."""
        keys = [
            {"key": key.public.to_text(), "expires": format_time(key.expires)}
            for key in self.keys
        ]
        return write_document(
            _DELEGATION,
            {
                "root": self.root.to_text(),
                "keys": keys,
                "version": self.version,
                "created": format_time(self.created),
            },
        )

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Reads a delegation; `verify_delegation` is what decides whether to believe it."""
        names = ("root", "keys", "version", "created")
        members = read_document(payload, _DELEGATION, names)
        keys = [
            Members(item, where="delegation: 'keys'", names=("key", "expires"))
            for item in members.items("keys")
        ]
        return cls(
            root=PublicKey.from_text(members.text("root")),
            keys=tuple(
                PublishingKey(PublicKey.from_text(key.text("key")), key.time("expires"))
                for key in keys
            ),
            version=members.integer("version", minimum=1),
            created=members.time("created"),
        )


def sign_delegation(delegation: Delegation, root: PrivateKey) -> SignedDocument:
    """The delegation, signed by its root key.

    Raises:
        SignerError: `root` is not the key that the delegation names.
    """
    if root.public != delegation.root:
        raise SignerError("a delegation is signed by the root key that it names")
    payload = delegation.to_bytes()
    return SignedDocument(payload, root.sign("delegation", payload))


def verify_delegation(
    signed: SignedDocument, *, root_fingerprint: str, seen_version: int = 0, now: datetime
) -> Delegation:
    """The delegation, if the pinned root key signed it and it is not superseded.

    The root key travels in the document, since a fingerprint alone verifies nothing: that one
    member is read before the signature is checked, and counts for nothing unless its hash is
    the pinned fingerprint.

    Args:
        signed: as received.
        root_fingerprint: key id of the root key, pinned at enrolment.
        seen_version: highest version accepted before.
        now: time of the check.

    Raises:
        SignerError: another root key.
        SignatureError: the bytes are not what the root key signed.
        ManifestError: a good signature over something that is no delegation.
        RollbackError: older than `seen_version`.
        ExpiredError: every publishing key has expired.
    """
    # 1. The root key is the pinned one.
    root = _claimed_root(signed.payload)
    if root.key_id != root_fingerprint:
        raise SignerError(
            f"the delegation is by root key {root.key_id}, expected {root_fingerprint}"
        )
    # 2. It signed these bytes; 3. only now are they interpreted.
    root.verify("delegation", signed.payload, signed.signature)
    delegation = Delegation.from_bytes(signed.payload)
    # 4. Not older than what was seen.
    if delegation.version < seen_version:
        raise RollbackError(
            f"the delegation is version {delegation.version}, already seen {seen_version}"
        )
    # 5. Somebody can still publish.
    if all(key.expires <= now for key in delegation.keys):
        raise ExpiredError(
            "every publishing key of the delegation has expired: "
            "the developer must run 'triparty developer renew-key'"
        )
    return delegation


def _claimed_root(payload: bytes) -> PublicKey:
    value = parse(payload)
    text = value.get("root") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise ManifestError("a delegation is an object with a member 'root'")
    return PublicKey.from_text(text)


class _Attributed(Protocol):
    @property
    def developer(self) -> str: ...
    @property
    def signer(self) -> str: ...


_Document = TypeVar("_Document", bound=_Attributed)


def verify_signed(
    signed: SignedDocument,
    purpose: str,
    read: Callable[[bytes], _Document],
    *,
    delegation: Delegation,
    now: datetime,
) -> _Document:
    """The document in a signed envelope, if a publishing key of the developer signed it.

    Args:
        signed: as received.
        purpose: what the signature must be for.
        read: parses the bytes, once they are verified.
        delegation: a verified delegation.
        now: time of the check.

    Raises:
        SignatureError: no publishing key signed these bytes for this purpose.
        ExpiredError: the key that did has expired.
        SignerError: the document names another developer or signer.
    """
    # 1. A publishing key signed these bytes. The signer's name is inside them, so each key
    #    of the delegation is tried; they are few.
    key = _signer(signed, purpose, delegation)
    # 2. That key is still valid.
    if key.expires <= now:
        raise ExpiredError(
            f"the publishing key {key.public.key_id} expired at {format_time(key.expires)}: "
            "the developer must publish with a new one"
        )
    # 3. Only now are the bytes interpreted; 4. they name the key and the developer.
    document = read(signed.payload)
    if document.signer != key.public.key_id:
        raise SignerError(
            f"the {purpose} names signer {document.signer}, signed by {key.public.key_id}"
        )
    if document.developer != delegation.developer:
        raise SignerError(
            f"the {purpose} names developer {document.developer}, "
            f"expected {delegation.developer}"
        )
    return document


def _signer(signed: SignedDocument, purpose: str, delegation: Delegation) -> PublishingKey:
    for key in delegation.keys:
        try:
            key.public.verify(purpose, signed.payload, signed.signature)
        except SignatureError:
            continue
        return key
    raise SignatureError(
        f"the {purpose} is not signed by a publishing key of {delegation.developer}"
    )
