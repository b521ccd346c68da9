"""What is current, and what has been seen before.

A publishing key signs a short-lived *latest* statement, so that a party that has seen nothing
yet cannot be given a model older than a statement that still counts. `Seen` remembers the
highest versions a party has accepted. Both judge by (developer, kind, name) and version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, Self, TypeVar

from triparty.common.delegation import Delegation, SignedDocument, verify_signed
from triparty.common.documents import (
    Members,
    check_integer,
    check_name,
    format_time,
    read_document,
    whole_seconds,
    write_document,
)
from triparty.common.errors import (
    ArtifactError,
    ExpiredError,
    ManifestError,
    RevokedError,
    RollbackError,
    SignerError,
    StateError,
)
from triparty.common.signing import PrivateKey, check_key_id

_LATEST = "triparty.latest"
_SEEN = "triparty.seen"
_REVOKED = re.compile(r"(.{1,130})@[1-9][0-9]{0,15}")


class Release(Protocol):
    """What rollback and revocation are judged by; every manifest has it."""

    @property
    def developer(self) -> str:
        """Root key id."""

    @property
    def kind(self) -> str:
        """Kind of artifact."""

    @property
    def name(self) -> str:
        """Name within the kind."""

    @property
    def version(self) -> int:
        """Version; rises."""


@dataclass(frozen=True)
class Latest:
    """A developer's short-lived word on what is current and what is revoked.

    Attributes:
        developer: root key id.
        sequence: rises with every statement, from 1.
        created: when it was signed.
        expires: when it stops counting; days, not months.
        versions: current version of each `kind/name`.
        revoked: `kind/name@version` that must no longer be used, sorted.
        signer: key id of the publishing key.
    """

    developer: str
    sequence: int
    created: datetime
    expires: datetime
    versions: Mapping[str, int] = field(hash=False)
    revoked: tuple[str, ...]
    signer: str

    def __post_init__(self) -> None:
        """Refuses a statement that contradicts itself."""
        object.__setattr__(self, "created", whole_seconds(self.created))
        object.__setattr__(self, "expires", whole_seconds(self.expires))
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))
        check_key_id(self.developer)
        check_key_id(self.signer)
        check_integer(self.sequence, where="latest: 'sequence'", minimum=1)
        if self.expires <= self.created:
            raise ManifestError("a latest statement expires after it is created")
        for release, version in self.versions.items():
            _check_release(release)
            check_integer(version, where=f"latest: {release!r}", minimum=1)
        if list(self.revoked) != sorted(set(self.revoked)):
            raise ManifestError("latest: 'revoked' must be sorted, each once")
        for item in self.revoked:
            _check_revoked(item)

    def check(self, release: Release) -> None:
        """Returns only if this statement neither revokes nor supersedes the release.

        Raises:
            SignerError: the release is another developer's.
            RevokedError: it is revoked.
            RollbackError: a newer version is current.
        """
        if release.developer != self.developer:
            raise SignerError(
                f"a latest statement of {self.developer} says nothing of {release.developer}"
            )
        name = f"{release.kind}/{release.name}"
        if f"{name}@{release.version}" in self.revoked:
            raise RevokedError(f"{name} version {release.version} is revoked by its developer")
        current = self.versions.get(name, 0)
        if release.version < current:
            raise RollbackError(f"{name} is version {release.version}, current is {current}")

    def to_bytes(self) -> bytes:
        """The exact bytes that the publishing key signs."""
        return write_document(
            _LATEST,
            {
                "developer": self.developer,
                "sequence": self.sequence,
                "created": format_time(self.created),
                "expires": format_time(self.expires),
                "versions": dict(self.versions),
                "revoked": list(self.revoked),
                "signer": self.signer,
            },
        )

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Reads a statement; `verify_latest` is what decides whether to believe it."""
        names = ("developer", "sequence", "created", "expires", "versions", "revoked", "signer")
        members = read_document(payload, _LATEST, names)
        versions = members.mapping("versions")
        revoked = members.items("revoked")
        return cls(
            developer=members.text("developer"),
            sequence=members.integer("sequence", minimum=1),
            created=members.time("created"),
            expires=members.time("expires"),
            versions={
                name: check_integer(version, where="latest: 'versions'", minimum=1)
                for name, version in versions.items()
            },
            revoked=tuple(_check_revoked(item) for item in revoked),
            signer=members.text("signer"),
        )


def _check_release(text: str) -> None:
    kind, _, name = text.partition("/")
    check_name(kind, what="kind")
    check_name(name)


def _check_revoked(item: object) -> str:
    match = _REVOKED.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        raise ManifestError(f"latest: expected kind/name@version, got {item!r:.90}")
    _check_release(match[1])
    return match[0]


def sign_latest(latest: Latest, publishing: PrivateKey) -> SignedDocument:
    """The statement, signed by its publishing key.

    Raises:
        SignerError: `publishing` is not the key that the statement names.
    """
    if publishing.public.key_id != latest.signer:
        raise SignerError("a latest statement is signed by the key that it names")
    payload = latest.to_bytes()
    return SignedDocument(payload, publishing.sign("latest", payload))


def verify_latest(
    signed: SignedDocument, delegation: Delegation, *, seen_sequence: int = 0, now: datetime
) -> Latest:
    """The statement, if it is the developer's, fresh, and not superseded.

    Args:
        signed: as received.
        delegation: a verified delegation.
        seen_sequence: highest sequence accepted before.
        now: time of the check.

    Raises:
        SignatureError: no publishing key signed these bytes.
        SignerError: the statement names another developer or signer.
        ExpiredError: it, or the key that signed it, has expired.
        RollbackError: older than `seen_sequence`.
    """
    latest = verify_signed(signed, "latest", Latest.from_bytes, delegation=delegation, now=now)
    if latest.expires <= now:
        raise ExpiredError(
            f"the latest statement expired at {format_time(latest.expires)}: "
            "the developer must sign a new one"
        )
    if latest.sequence < seen_sequence:
        raise RollbackError(
            f"the latest statement is number {latest.sequence}, already seen {seen_sequence}"
        )
    return latest


_Key = tuple[str, str, str]
_K = TypeVar("_K")


@dataclass(frozen=True)
class Seen:
    """The highest versions that a party has accepted; a value: `raised` makes a new one.

    Attributes:
        versions: highest version of each (developer, kind, name).
        sequences: highest latest statement of each developer.
        delegations: highest delegation of each developer.
    """

    versions: Mapping[_Key, int] = field(default_factory=dict, hash=False)
    sequences: Mapping[str, int] = field(default_factory=dict, hash=False)
    delegations: Mapping[str, int] = field(default_factory=dict, hash=False)

    def check(self, release: Release) -> None:
        """Returns only if nothing newer of the same developer, kind and name was seen.

        Raises:
            RollbackError: something newer was.
        """
        seen = self.versions.get(_key(release), 0)
        if release.version < seen:
            raise RollbackError(
                f"{release.kind} {release.name!r} is version {release.version}; "
                f"version {seen} was already accepted here"
            )

    def raised(self, release: Release) -> Seen:
        """With this release accepted. Law: `seen.raised(x).check(x)` returns."""
        return replace(self, versions=_raised(self.versions, _key(release), release.version))

    def sequence(self, developer: str) -> int:
        """The highest latest statement accepted from a developer; 0 for none."""
        return self.sequences.get(developer, 0)

    def raised_latest(self, latest: Latest) -> Seen:
        """With this latest statement accepted."""
        sequences = _raised(self.sequences, latest.developer, latest.sequence)
        return replace(self, sequences=sequences)

    def delegation_version(self, developer: str) -> int:
        """The highest delegation accepted from a developer; 0 for none."""
        return self.delegations.get(developer, 0)

    def raised_delegation(self, delegation: Delegation) -> Seen:
        """With this delegation accepted."""
        delegations = _raised(self.delegations, delegation.developer, delegation.version)
        return replace(self, delegations=delegations)

    def to_json(self) -> str:
        """As text for a file; law: `Seen.from_json(seen.to_json()) == seen`."""
        versions = {" ".join(key): version for key, version in self.versions.items()}
        members = {
            "versions": versions,
            "sequences": dict(self.sequences),
            "delegations": dict(self.delegations),
        }
        return write_document(_SEEN, members).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            StateError: it was not; starting over would give up the protection from rollback.
        """
        try:
            names = ("versions", "sequences", "delegations")
            members = read_document(text.encode(), _SEEN, names)
            return cls(
                versions={_split(k): v for k, v in _counts(members, "versions").items()},
                sequences=_counts(members, "sequences"),
                delegations=_counts(members, "delegations"),
            )
        except (ArtifactError, UnicodeEncodeError) as error:
            raise StateError(
                f"the record of accepted versions is damaged: {error}; restore it or enrol anew"
            ) from error


def _key(release: Release) -> _Key:
    return release.developer, str(release.kind), release.name


def _split(text: str) -> _Key:
    developer, _, release = text.partition(" ")
    kind, _, name = release.partition(" ")
    return check_key_id(developer), check_name(kind, what="kind"), check_name(name)


def _counts(members: Members, name: str) -> dict[str, int]:
    where = f"seen: {name!r}"
    counts = members.mapping(name)
    return {key: check_integer(value, where=where) for key, value in counts.items()}


def _raised(counts: Mapping[_K, int], key: _K, value: int) -> dict[_K, int]:
    return {**counts, key: max(value, counts.get(key, 0))}
