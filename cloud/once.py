"""One-time instances: each opens one session, and is deleted when that ends.

Who comes first has the instance: the row that says so has a unique key. What is kept of a used
one is that row alone. A cloud that died before it deleted one does so at its next start.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from triparty.cloud.accounts import Principal
from triparty.cloud.blobs import BlobKey, BlobStore, StoredBlob, developer_folder
from triparty.cloud.database import Database
from triparty.cloud.tables import ArtifactBlobRow, ArtifactRow, SpentRow, StatementRow
from triparty.common.artifacts import Manifest
from triparty.common.errors import SpentError

_OF_ONE_KEY = (".safetensors", ".sealed")
_log = logging.getLogger(__name__)


def spent_error(name: str, version: int) -> SpentError:
    """What a second use of a one-time instance is answered with."""
    return SpentError(
        f"version {version} of '{name}' was for one session, which it had: take the next one "
        "('triparty device pull'), or ask the developer for more ('triparty developer grant')"
    )


def was_spent_by(session: Session, principal: Principal, name: str, version: int) -> bool:
    """Whether a principal used a one-time instance; others' uses nobody is told of."""
    row = session.get(SpentRow, (principal.developer, name, version))
    return row is not None and row.principal == principal.id


def spend(
    database: Database,
    principal: str,
    developer: str,
    name: str,
    version: int,
    *,
    now: datetime,
) -> None:
    """Notes the one use of an instance; blocks on the database.

    Raises:
        SpentError: it was used before.
    """
    row = SpentRow(
        developer=developer, name=name, version=version, principal=principal, used=now
    )
    try:
        with database.writing() as session:
            if session.get(SpentRow, (developer, name, version)) is not None:
                raise spent_error(name, version)
            session.add(row)
            session.flush()
    except IntegrityError as error:
        raise spent_error(name, version) from error


def remove_spent(
    database: Database,
    blobs: BlobStore,
    folder: Path,
    *,
    only: tuple[str, str, int] | None = None,
) -> None:
    """Deletes the model and the bundle of used instances; blocks.

    Args:
        database: which artifacts there are, and which were used.
        blobs: of this cloud.
        folder: in which models are laid out.
        only: developer, name and version of one whose session has ended; None: all, when no
            session is open.
    """
    for developer, name, version in [only] if only else _left(database):
        shutil.rmtree(
            folder / developer_folder(developer) / name / str(version), ignore_errors=True
        )
        with database.writing() as session:
            session.get(StatementRow, developer, with_for_update=True)
            of_it = (
                (ArtifactRow.developer == developer)
                & (ArtifactRow.name == name)
                & (ArtifactRow.version == version)
                & ArtifactRow.kind.in_(("model", "bundle"))
            )
            rows = list(session.scalars(select(ArtifactRow).where(of_it)))
            weights = {
                file.sha256
                for row in rows
                for file in Manifest.from_bytes(row.manifest).files
                if file.path.endswith(_OF_ONE_KEY)
            }
            numbers = [row.number for row in rows]
            mine = ArtifactBlobRow.artifact.in_(numbers)
            session.execute(delete(ArtifactBlobRow).where(mine))
            session.execute(delete(ArtifactRow).where(ArtifactRow.number.in_(numbers)))
            _remove(session, blobs, developer, weights)
        _log.info("one-time instance deleted", extra={"model": name, "version": version})


def _left(database: Database) -> list[tuple[str, str, int]]:
    """The used instances of which there still are artifacts."""
    of_it = (
        (ArtifactRow.developer == SpentRow.developer)
        & (ArtifactRow.name == SpentRow.name)
        & (ArtifactRow.version == SpentRow.version)
        & ArtifactRow.kind.in_(("model", "bundle"))
    )
    query = select(SpentRow.developer, SpentRow.name, SpentRow.version).join(ArtifactRow, of_it)
    with database.reading() as session:
        return [(row[0], row[1], row[2]) for row in session.execute(query.distinct())]


def _remove(session: Session, blobs: BlobStore, developer: str, hashes: Iterable[str]) -> None:
    """Removes blobs that no other artifact names; small files are left to the hourly upkeep."""
    for sha256 in hashes:
        named = (
            select(ArtifactBlobRow.artifact)
            .join(ArtifactRow, ArtifactRow.number == ArtifactBlobRow.artifact)
            .where(ArtifactRow.developer == developer, ArtifactBlobRow.sha256 == sha256)
        )
        if session.scalar(named.limit(1)) is None:
            key = BlobKey(developer, sha256)
            size = blobs.verified.size(key)
            if size is not None:
                blobs.remove_unwanted(StoredBlob(key, size, 0.0), before_s=math.inf)
