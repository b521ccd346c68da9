"""Artifacts: folders of files behind a signed manifest.

A manifest names kind, name, version, epoch, recipient and every file with its SHA-256 and
size; the signature covers its exact bytes. Consumers verify the bytes, then parse them, then
compare the files. `entries` says what files there may be, `folders` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from triparty.common.documents import (
    MAX_DOCUMENT_BYTES,
    check_integer,
    check_name,
    format_time,
    read_document,
    whole_seconds,
    write_document,
)
from triparty.common.entries import (
    DEVELOPER_KINDS,
    LIMIT_BYTES,
    SUFFIXES,
    FileEntry,
    Kind,
    check_files,
)
from triparty.common.errors import (
    ExpiredError,
    ManifestError,
    RecipientError,
    SignerError,
    SizeError,
)
from triparty.common.files import write_atomic
from triparty.common.folders import MANIFEST_FILE, SIGNATURE_FILE, check_folder, describe_files
from triparty.common.signing import SIGNATURE_BYTES, PrivateKey, check_key_id
from triparty.common.trust import Delegation, Latest, Seen, SignedDocument, verify_signed

__all__ = [
    "LIMIT_BYTES",
    "MANIFEST_FILE",
    "SIGNATURE_FILE",
    "FileEntry",
    "Kind",
    "Manifest",
    "describe_folder",
    "read_signed",
    "sign_manifest",
    "verify_folder",
    "verify_manifest",
    "write_artifact",
]

_MANIFEST: Final = "triparty.manifest"
_ONCE: Final = "once"


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, and the hash and size of every file in it.

    Attributes:
        kind: what it is.
        name: name within kind and developer.
        version: rises with every publication, from 1.
        epoch: key generation; 0 where there are no keys.
        developer: root key id.
        signer: key id of the key that signs the manifest.
        files: sorted by path.
        created: when it was made.
        expires: when it stops being used.
        recipient: key id of the one device that a bundle is for; None for other kinds.
        once: whether a model, and the bundle of it, is for one session alone.
    """

    kind: Kind
    name: str
    version: int
    epoch: int
    developer: str
    signer: str
    files: tuple[FileEntry, ...]
    created: datetime
    expires: datetime
    recipient: str | None = None
    once: bool = False

    def __post_init__(self) -> None:
        """Refuses a manifest that nobody could accept."""
        object.__setattr__(self, "created", whole_seconds(self.created))
        object.__setattr__(self, "expires", whole_seconds(self.expires))
        check_name(self.name)
        check_integer(self.version, where="manifest: 'version'", minimum=1)
        check_integer(self.epoch, where="manifest: 'epoch'")
        check_key_id(self.developer)
        check_key_id(self.signer)
        if self.expires <= self.created:
            raise ManifestError("a manifest expires after it is created")
        if (self.kind is Kind.BUNDLE) != (self.recipient is not None):
            raise ManifestError("a bundle names its recipient, and no other kind does")
        if self.recipient is not None:
            check_key_id(self.recipient)
        if self.once and self.kind not in (Kind.MODEL, Kind.BUNDLE):
            raise ManifestError("only a model and its bundle are for one session")
        check_files(self.files, SUFFIXES[self.kind])

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def to_bytes(self) -> bytes:
        """The exact bytes that are signed; law: `Manifest.from_bytes(m.to_bytes()) == m`."""
        return write_document(
            _MANIFEST,
            {
                "kind": self.kind.value,
                "name": self.name,
                "version": self.version,
                "epoch": self.epoch,
                "developer": self.developer,
                "signer": self.signer,
                "files": [entry.to_json() for entry in self.files],
                "created": format_time(self.created),
                "expires": format_time(self.expires),
                "recipient": self.recipient,
                **({_ONCE: True} if self.once else {}),
            },
        )

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Reads a manifest; `verify_manifest` is what decides whether to believe it.

        Raises:
            ManifestError: not canonical JSON, or not a manifest.
            FormatVersionError: made by a newer triparty.
            PathError: a path that leaves the folder.
            FileTypeError: a file that this kind never holds.
        """
        names = cls.__dataclass_fields__.keys() - {_ONCE}
        members = read_document(payload, _MANIFEST, names, optional=(_ONCE,))
        return cls(
            kind=_kind(members.text("kind")),
            name=members.text("name"),
            version=members.integer("version", minimum=1),
            epoch=members.integer("epoch"),
            developer=members.text("developer"),
            signer=members.text("signer"),
            files=tuple(FileEntry.from_json(item) for item in members.items("files")),
            created=members.time("created"),
            expires=members.time("expires"),
            recipient=members.optional_text("recipient"),
            once=members.is_true(_ONCE),
        )


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError as error:
        raise ManifestError(f"unknown kind of artifact {text!r:.80}") from error


def sign_manifest(manifest: Manifest, key: PrivateKey) -> SignedDocument:
    """The manifest, signed by the key that it names.

    Raises:
        SignerError: `key` is another one.
    """
    if key.public.key_id != manifest.signer:
        raise SignerError("a manifest is signed by the key that it names as signer")
    payload = manifest.to_bytes()
    return SignedDocument(payload, key.sign("manifest", payload))


def verify_manifest(
    signed: SignedDocument,
    *,
    delegation: Delegation,
    now: datetime,
    kind: Kind | None = None,
    name: str | None = None,
    recipient: str | None = None,
    seen: Seen | None = None,
    latest: Latest | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Manifest:
    """The manifest, if its developer signed it and this party may use it now.

    Args:
        signed: as received.
        delegation: a verified delegation of the pinned root key.
        now: time of the check.
        kind: kind that was asked for; None accepts any.
        name: name that was asked for; None accepts any.
        recipient: this device's key id; None, for the cloud, accepts any device's bundle.
        seen: what this party has accepted before; None checks no rollback.
        latest: a verified latest statement; None checks no revocation.
        limit_bytes: most bytes that all files together may have.

    Raises:
        SignatureError: no publishing key signed these bytes.
        ExpiredError: the manifest, or the key that signed it, has expired.
        ManifestError: a good signature over something that is no manifest, or not the one
            that was asked for.
        FormatVersionError: made by a newer triparty.
        SignerError: another developer's, or a kind that developers do not sign.
        PathError, FileTypeError: a file that must not be written.
        RecipientError: a bundle for another device.
        SizeError: larger than the limit.
        RollbackError: older than what was seen or is current.
        RevokedError: revoked by its developer.
    """
    # 1. A valid publishing key signed these bytes; 2. they are parsed, which checks format,
    #    paths and file types; 3. they name that key and the developer.
    manifest = verify_signed(
        signed, "manifest", Manifest.from_bytes, delegation=delegation, now=now
    )
    # 4. A developer may sign this kind.
    if manifest.kind not in DEVELOPER_KINDS:
        raise SignerError(f"a {manifest.kind} is signed by the device that made it")
    # 5. It is still valid.
    if manifest.expires <= now:
        raise ExpiredError(
            f"{manifest.kind} {manifest.name!r} expired at {format_time(manifest.expires)}: "
            "the developer must publish it again"
        )
    # 6. It is what was asked for, 7. by this device, 8. and not too large.
    _check_request(manifest, kind, name)
    _check_recipient(manifest, recipient)
    if manifest.size > limit_bytes:
        raise SizeError(
            f"{manifest.kind} {manifest.name!r} has {manifest.size} bytes, limit {limit_bytes}"
        )
    # 9. It is not revoked or superseded, 10. nor older than what was seen.
    if latest is not None:
        latest.check(manifest)
    if seen is not None:
        seen.check(manifest)
    return manifest


def _check_request(manifest: Manifest, kind: Kind | None, name: str | None) -> None:
    if kind is not None and manifest.kind is not kind:
        raise ManifestError(f"asked for a {kind}, got a {manifest.kind}")
    if name is not None and manifest.name != name:
        raise ManifestError(f"asked for {manifest.kind} {name!r:.80}, got {manifest.name!r}")


def _check_recipient(manifest: Manifest, recipient: str | None) -> None:
    if manifest.recipient is not None and recipient not in (None, manifest.recipient):
        raise RecipientError(
            f"the bundle {manifest.name!r} is for device {manifest.recipient}, "
            f"this is {recipient}"
        )


def describe_folder(
    folder: Path, *, kind: Kind, limit_bytes: int = LIMIT_BYTES
) -> tuple[FileEntry, ...]:
    """The entries of a folder that is to become an artifact; see `describe_files`."""
    return describe_files(folder, SUFFIXES[kind], limit_bytes=limit_bytes)


def verify_folder(manifest: Manifest, folder: Path) -> None:
    """Returns only if the folder holds the manifest's files and nothing else.

    The manifest and its signature may lie beside them.

    Raises:
        DigestError: a file is missing, extra, or has another size or hash.
        PathError: a symbolic link.
    """
    check_folder(folder, manifest.files)


def write_artifact(signed: SignedDocument, folder: Path) -> None:
    """Puts the manifest and its signature beside the files."""
    write_atomic(folder / SIGNATURE_FILE, signed.signature)
    write_atomic(folder / MANIFEST_FILE, signed.payload)


def read_signed(folder: Path) -> SignedDocument:
    """The manifest and signature in a folder, unverified.

    Raises:
        ManifestError: they are not there.
        SizeError: the manifest is larger than any manifest.
        SignatureError: the signature does not have its length.
    """
    payload = _read_bounded(folder / MANIFEST_FILE, MAX_DOCUMENT_BYTES)
    return SignedDocument(payload, _read_bounded(folder / SIGNATURE_FILE, SIGNATURE_BYTES + 1))


def _read_bounded(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise SizeError(f"{path} has more than {limit_bytes} bytes")
    return data
