"""What is damaged: rows of the database, blobs that are missing or altered; whose they are.

Nothing here repairs anything: a blob comes back when its developer publishes again, or from a
backup; so does a database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from triparty.cloud.blobs import BlobKey, BlobStore, VerifiedBlobs
from triparty.cloud.database import Database
from triparty.cloud.tables import ArtifactRow, Table
from triparty.common.artifacts import Manifest
from triparty.common.errors import ArtifactError, UnavailableError


class BlobState(StrEnum):
    """What became of a blob."""

    WHOLE = "whole"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True)
class Artifact:
    """An artifact, as people know it."""

    developer: str
    kind: str
    name: str
    version: int
    recipient: str

    def __str__(self) -> str:
        """One line for the operator."""
        receiver = f" for {self.recipient}" if self.recipient else ""
        return f"{self.kind} '{self.name}' version {self.version}{receiver} of {self.developer}"


@dataclass(frozen=True)
class Damage:
    """A blob, or a row of the database, that an artifact needs and that is not what it was.

    Attributes:
        artifact: which one.
        state: `missing` or `altered`.
        blob: SHA-256 of the blob; None for the artifact's own row.
        path: the file's path inside the artifact; None for the row.
    """

    artifact: Artifact
    state: BlobState
    blob: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        """One line for the operator, with the remedy."""
        what = f"blob {self.blob} ({self.path})" if self.blob else "row in the database"
        return (
            f"{self.artifact}: {what} is {self.state}; its developer has to publish again, or "
            "bring it back from a backup"
        )


def unreadable_tables(database: Database) -> list[str]:
    """The tables that cannot be read to their end."""
    found = []
    for table in Table.metadata.sorted_tables:
        try:
            with database.reading() as session:
                for _ in session.execute(select(table)):
                    pass
        except UnavailableError:
            if not database.is_damaged:
                raise
            found.append(table.name)
    return found


def find_damage(
    database: Database,
    blobs: BlobStore,
    *,
    reads_all: bool,
    on_artifact: Callable[[], None] = lambda: None,
) -> Iterator[Damage]:
    """Looks at every artifact and the blobs that it is made of.

    Args:
        database: which artifacts there are.
        blobs: where their files are.
        reads_all: hash every blob; False looks at what is there, and at its size.
        on_artifact: called before every artifact.

    Raises:
        UnavailableError: the list of artifacts itself is damaged, or a store does not answer.
    """
    artifacts = _artifacts(database)  # before the blobs: each of them was there then
    sizes = None if reads_all else {blob.key: blob.size for blob in blobs.verified.listed()}
    seen: dict[BlobKey, BlobState] = {}
    for number, artifact in artifacts:
        on_artifact()
        manifest = _manifest(database, number)
        if manifest is None:
            yield Damage(artifact, BlobState.ALTERED)
            continue
        for file in manifest.files:
            key = BlobKey(artifact.developer, file.sha256)
            if key not in seen:
                seen[key] = (
                    check_blob(blobs.verified, key, file.size)
                    if sizes is None
                    else _state(sizes.get(key), file.size)
                )
            if seen[key] is not BlobState.WHOLE:
                yield Damage(artifact, seen[key], file.sha256, file.path)


def check_blob(blobs: VerifiedBlobs, key: BlobKey, size: int) -> BlobState:
    """What became of a blob; reads all of it.

    Args:
        blobs: the store.
        key: the blob.
        size: in bytes, as its manifest says.
    """
    state = _state(blobs.size(key), size)
    if state is not BlobState.WHOLE:
        return state
    digest = hashlib.sha256()
    for piece in blobs.read(key, 0, size):
        digest.update(piece)
    return BlobState.WHOLE if digest.hexdigest() == key.sha256 else BlobState.ALTERED


def _state(found: int | None, size: int) -> BlobState:
    if found is None:
        return BlobState.MISSING
    return BlobState.WHOLE if found == size else BlobState.ALTERED


def _artifacts(database: Database) -> list[tuple[int, Artifact]]:
    """All artifacts; SQLite finds them in one index, whatever became of their rows."""
    columns = (
        ArtifactRow.number,
        ArtifactRow.developer,
        ArtifactRow.kind,
        ArtifactRow.name,
        ArtifactRow.version,
        ArtifactRow.recipient,
    )
    with database.reading() as session:
        rows = session.execute(select(*columns)).all()
    return [(row.number, _artifact(row)) for row in rows]


def _artifact(row: Row[int, str, str, str, int, str]) -> Artifact:
    return Artifact(row.developer, row.kind, row.name, row.version, row.recipient)


def _manifest(database: Database, number: int) -> Manifest | None:
    """The manifest of an artifact's row; None if the row cannot be read."""
    try:
        with database.reading() as session:
            return _parsed(session, number)
    except ArtifactError:
        return None
    except UnavailableError:
        if not database.is_damaged:
            raise
        return None


def _parsed(session: Session, number: int) -> Manifest:
    row = session.execute(
        select(ArtifactRow.manifest, ArtifactRow.artifact).where(ArtifactRow.number == number)
    ).one()
    if hashlib.sha256(row.manifest).hexdigest() != row.artifact:
        raise ArtifactError("the manifest is not the one that was published")
    return Manifest.from_bytes(row.manifest)
