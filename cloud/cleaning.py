"""Room that nobody needs: uploads that were given up, and blobs that no artifact names.

A blob is removed inside a transaction that holds its developer's row, as publishing does from
before it looks for the blobs until the artifact is there. So no artifact can name a blob that
is removed at the same time, on either database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from triparty.cloud.blobs import BlobStore, StoredBlob
from triparty.cloud.database import Database
from triparty.cloud.tables import ArtifactBlobRow, ArtifactRow, StatementRow

BATCH = 32
"""Blobs in one transaction: others wait to write meanwhile."""


@dataclass(frozen=True)
class Cleaned:
    """What was removed.

    Attributes:
        uploads: unfinished uploads.
        blobs: blobs that no artifact names.
        bytes: of those blobs.
    """

    uploads: int
    blobs: int
    bytes: int


def clean(
    database: Database,
    blobs: BlobStore,
    *,
    before_s: float,
    has_ended: Callable[[], bool] = lambda: False,
) -> Cleaned:
    """Removes what belongs to no artifact and was last wanted before a time.

    Blobs of a developer whom the database does not know stay: it may be an older one.

    Args:
        database: which artifacts there are.
        blobs: the store of the cloud that is running: it knows the uploads under way.
        before_s: seconds since 1970.
        has_ended: asked between transactions: whether to leave the rest.

    Raises:
        UnavailableError: a store does not answer, or the database is damaged.
    """
    uploads = blobs.drop_stale(before_s=before_s)
    removed: list[StoredBlob] = []
    for developer, old in _by_developer(blobs.verified.listed(), before_s).items():
        for first in range(0, len(old), BATCH):
            if has_ended():
                break
            with database.writing() as session:
                unnamed = _unnamed(session, developer, old[first : first + BATCH])
                removed += [
                    blob for blob in unnamed if blobs.remove_unwanted(blob, before_s=before_s)
                ]
    return Cleaned(uploads, len(removed), sum(blob.size for blob in removed))


def _by_developer(listed: Iterable[StoredBlob], before_s: float) -> dict[str, list[StoredBlob]]:
    found: dict[str, list[StoredBlob]] = defaultdict(list)
    for blob in listed:
        if blob.modified_s < before_s:
            found[blob.key.developer].append(blob)
    return found


def _unnamed(session: Session, developer: str, blobs: Sequence[StoredBlob]) -> list[StoredBlob]:
    """Those that no artifact of the developer names; its row is locked from here on."""
    if session.get(StatementRow, developer, with_for_update=True) is None:
        return []
    query = (
        select(ArtifactBlobRow.sha256)
        .join(ArtifactRow, ArtifactRow.number == ArtifactBlobRow.artifact)
        .where(
            ArtifactRow.developer == developer,
            ArtifactBlobRow.sha256.in_([blob.key.sha256 for blob in blobs]),
        )
    )
    named = set(session.scalars(query))
    return [blob for blob in blobs if blob.key.sha256 not in named]
