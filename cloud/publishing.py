"""What a developer makes visible, and to whom.

An artifact becomes visible in one transaction, after its signature was verified with the
developer's delegation, its version rises, and every blob is here. The cloud trusts nobody's
word for it; neither do the devices, which verify everything again.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, true, update
from sqlalchemy.orm import Session

from triparty.cloud.accounts import Principal
from triparty.cloud.blobs import BlobStore
from triparty.cloud.tables import (
    ArtifactBlobRow,
    ArtifactRow,
    PrincipalRow,
    SpentRow,
    StatementRow,
)
from triparty.common.artifacts import Kind, Manifest, verify_manifest
from triparty.common.errors import (
    BlobMissingError,
    DigestError,
    LimitError,
    NotFoundError,
    RecipientError,
    RevokedError,
    RollbackError,
)
from triparty.common.trust import (
    Delegation,
    Latest,
    SignedDocument,
    verify_delegation,
    verify_latest,
)

DEVICE_KINDS = ("model-edge", "gate", "filter", "link", "plan")
"""What every device of a developer sees; a bundle is for its recipient, a model for no one."""


def visible_to(principal: Principal) -> ColumnElement[bool]:
    """The artifacts that a principal may see."""
    mine = ArtifactRow.developer == principal.developer
    if principal.role == "developer":
        return mine
    addressed = (ArtifactRow.kind == "bundle") & (ArtifactRow.recipient == principal.id)
    return (
        mine & ArtifactRow.revoked.is_(False) & (addressed | ArtifactRow.kind.in_(DEVICE_KINDS))
    )


def visible_artifacts(
    session: Session, principal: Principal, *, kind: str | None = None, name: str | None = None
) -> list[ArtifactRow]:
    """What a principal sees, newest version first."""
    wanted = (ArtifactRow.kind == kind if kind else true()) & (
        ArtifactRow.name == name if name else true()
    )
    query = select(ArtifactRow).where(visible_to(principal), wanted)
    newest_first = (ArtifactRow.version.desc(), ArtifactRow.number.desc())
    return list(session.scalars(query.order_by(*newest_first)))


def check_blob_visible(session: Session, principal: Principal, sha256: str) -> None:
    """Returns only if the blob belongs to an artifact that the principal sees.

    Raises:
        NotFoundError: it does not; nothing says whether the blob exists.
    """
    query = (
        select(ArtifactRow.number)
        .join(ArtifactBlobRow, ArtifactBlobRow.artifact == ArtifactRow.number)
        .where(ArtifactBlobRow.sha256 == sha256, visible_to(principal))
        .limit(1)
    )
    if session.scalar(query) is None:
        raise NotFoundError("no such blob")


def statements_of(session: Session, developer: str) -> StatementRow:
    """A developer's statements; on PostgreSQL locked until the transaction ends."""
    row = session.get(StatementRow, developer, with_for_update=True)
    if row is None:
        raise NotFoundError("this developer has published nothing")
    return row


def publish(
    session: Session,
    developer: Principal,
    signed: SignedDocument,
    *,
    blobs: BlobStore,
    limit: int,
    now: datetime,
) -> str:
    """Makes an artifact visible; the same one again changes nothing.

    Args:
        session: the transaction.
        developer: who publishes.
        signed: the manifest and its signature.
        blobs: where the files are.
        limit: most artifacts of one developer.
        now: the time.

    Returns:
        The artifact's id: the SHA-256 of its manifest.

    Raises:
        ArtifactError: a manifest that must not be used.
        BlobMissingError: upload `extra["missing"]` first.
        LimitError: the developer has `limit` artifacts.
    """
    statements = statements_of(session, developer.id)
    manifest = verify_manifest(signed, delegation=_delegation(statements, now), now=now)
    artifact = hashlib.sha256(signed.payload).hexdigest()
    _check_recipient(session, developer, manifest)
    if _newest(session, developer, manifest, artifact):
        return artifact
    _check_not_revoked(statements, manifest)
    _check_not_spent(session, manifest)
    _check_blobs(developer, manifest, blobs)
    mine = select(func.count()).where(ArtifactRow.developer == developer.id)
    if (session.scalar(mine) or 0) >= limit:
        raise LimitError(f"you have {limit} artifacts on this cloud", retry_after_s=3600)
    row = ArtifactRow(
        artifact=artifact,
        developer=developer.id,
        kind=manifest.kind.value,
        name=manifest.name,
        version=manifest.version,
        epoch=manifest.epoch,
        recipient=manifest.recipient or "",
        manifest=signed.payload,
        signature=signed.signature,
        created=manifest.created,
        expires=manifest.expires,
    )
    session.add(row)
    session.flush()
    hashes = {file.sha256 for file in manifest.files}
    session.add_all(ArtifactBlobRow(artifact=row.number, sha256=sha256) for sha256 in hashes)
    return artifact


def _delegation(statements: StatementRow, now: datetime) -> Delegation:
    signed = SignedDocument(statements.delegation, statements.delegation_signature)
    return verify_delegation(signed, root_fingerprint=statements.developer, now=now)


def _check_recipient(session: Session, developer: Principal, manifest: Manifest) -> None:
    if manifest.kind is not Kind.BUNDLE:
        return
    device = session.get(PrincipalRow, manifest.recipient)
    if device is None or device.role != "device" or device.developer != developer.id:
        raise RecipientError(f"the bundle is for {manifest.recipient}, not a device of yours")
    if device.revoked is not None:
        raise RecipientError(f"the bundle is for {manifest.recipient}, which you revoked")


def _newest(session: Session, developer: Principal, manifest: Manifest, artifact: str) -> bool:
    """Whether this very artifact is the newest of its line, or a one-time one that is there.

    Raises:
        RollbackError: the line is at this version or past it. One-time bundles come in any
            order, each version once.
    """
    line = (
        (ArtifactRow.developer == developer.id)
        & (ArtifactRow.kind == manifest.kind.value)
        & (ArtifactRow.name == manifest.name)
        & (ArtifactRow.recipient == (manifest.recipient or ""))
    )
    if manifest.once:
        line &= ArtifactRow.version == manifest.version
    newest = session.scalars(
        select(ArtifactRow).where(line).order_by(ArtifactRow.version.desc()).limit(1)
    ).one_or_none()
    if newest is None or newest.version < manifest.version:
        return False
    if newest.artifact == artifact:
        return True
    raise RollbackError(
        f"{manifest.kind} '{manifest.name}' is at version {newest.version} already, got "
        f"version {manifest.version}: publish with a higher one"
    )


def _check_not_revoked(statements: StatementRow, manifest: Manifest) -> None:
    revoked = json.loads(statements.latest)["revoked"] if statements.latest else []
    if _revocation(manifest.kind.value, manifest.name, manifest.version) in revoked:
        raise RevokedError(
            f"{manifest.kind} '{manifest.name}' version {manifest.version} is revoked by "
            "your latest statement"
        )


def _check_not_spent(session: Session, manifest: Manifest) -> None:
    key = (manifest.developer, manifest.name, manifest.version)
    if manifest.once and session.get(SpentRow, key) is not None:
        raise RollbackError(
            f"version {manifest.version} of '{manifest.name}' was used: publish a higher one"
        )


def _check_blobs(developer: Principal, manifest: Manifest, blobs: BlobStore) -> None:
    missing = []
    for file in manifest.files:
        held = blobs.held(developer.id, file.sha256)
        if held is None or not held.is_complete:
            missing.append(file.sha256)
        elif held.size != file.size:
            raise DigestError(f"'{file.path}' has {held.size} bytes, not {file.size}")
    if missing:
        raise BlobMissingError(
            f"{len(missing)} of {len(manifest.files)} blobs are not uploaded",
            missing=sorted(set(missing)),
        )


def put_statements(
    session: Session,
    developer: Principal,
    delegation: SignedDocument,
    latest: SignedDocument,
    *,
    now: datetime,
) -> frozenset[tuple[str, int]]:
    """Replaces a developer's statements; what the latest one revokes is invisible from now.

    Returns:
        Name and version of each model that is out of use, or whose bundles are.

    Raises:
        ArtifactError: a forged, expired or older statement.
    """
    row = statements_of(session, developer.id)
    checked = verify_delegation(
        delegation,
        root_fingerprint=developer.id,
        seen_version=row.delegation_version,
        now=now,
    )
    if checked.version == row.delegation_version and delegation.payload != row.delegation:
        raise RollbackError(f"another delegation has version {checked.version}: raise it")
    statement = verify_latest(latest, checked, seen_sequence=row.latest_sequence, now=now)
    if statement.sequence == row.latest_sequence and latest.payload != row.latest:
        raise RollbackError(f"another statement has sequence {statement.sequence}: raise it")
    _check_versions_rise(row, statement, checked)
    row.delegation, row.delegation_signature = delegation.payload, delegation.signature
    row.delegation_version = checked.version
    row.latest, row.latest_signature = latest.payload, latest.signature
    row.latest_sequence = statement.sequence
    _mark_revoked(session, developer, frozenset(statement.revoked))
    return frozenset(
        (release.partition("/")[2], int(version))
        for release, _, version in (item.rpartition("@") for item in statement.revoked)
        if release.startswith(("model/", "bundle/"))
    )


def _check_versions_rise(row: StatementRow, statement: Latest, delegation: Delegation) -> None:
    """Refuses to take a name back, unless the key that raised it was forgotten since."""
    if row.latest is None:
        return
    before = Latest.from_bytes(row.latest)
    if before.signer not in {key.public.key_id for key in delegation.keys}:
        return
    for name, version in before.versions.items():
        if statement.versions.get(name, 0) < version:
            raise RollbackError(
                f"{name} is at version {version}, got a statement with "
                f"{statement.versions.get(name, 'none')}: sign one that is not older"
            )


def _mark_revoked(session: Session, developer: Principal, revoked: frozenset[str]) -> None:
    lines = select(
        ArtifactRow.number, ArtifactRow.kind, ArtifactRow.name, ArtifactRow.version
    ).where(ArtifactRow.developer == developer.id)
    numbers = [
        row.number
        for row in session.execute(lines)
        if _revocation(row.kind, row.name, row.version) in revoked
    ]
    mine = update(ArtifactRow).where(ArtifactRow.developer == developer.id)
    session.execute(mine.values(revoked=False))
    for number in numbers:
        session.execute(mine.where(ArtifactRow.number == number).values(revoked=True))


def _revocation(kind: str, name: str, version: int) -> str:
    return f"{kind}/{name}@{version}"
