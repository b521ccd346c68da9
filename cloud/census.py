"""What a cloud holds at this moment, in numbers: for `/metrics` and for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import distinct, func, select

from triparty.cloud.blob_room import Usage
from triparty.cloud.blobs import BlobStore
from triparty.cloud.database import Database
from triparty.cloud.tables import ArtifactRow, InviteRow, PrincipalRow
from triparty.common.artifacts import Kind

ROLES = ("operator", "developer", "device")


@dataclass(frozen=True)
class Census:
    """Counts of what is stored.

    Attributes:
        principals: not revoked, by role.
        artifacts: by kind.
        models: names of models, each counted once.
        invites: open ones.
        blobs: what all blobs take.
    """

    principals: Mapping[str, int]
    artifacts: Mapping[str, int]
    models: int
    invites: int
    blobs: Usage


def take_census(store: Database, blobs: BlobStore, *, now: datetime) -> Census:
    """Counts; blocks on the database and, the first time, on the blobs of each developer."""
    alive = PrincipalRow.revoked.is_(None)
    by_role = select(PrincipalRow.role, func.count()).where(alive).group_by(PrincipalRow.role)
    by_kind = select(ArtifactRow.kind, func.count()).group_by(ArtifactRow.kind)
    models = select(func.count(distinct(ArtifactRow.developer + "/" + ArtifactRow.name)))
    invites = select(func.count()).where(InviteRow.used.is_(None), InviteRow.expires > now)
    developers = select(PrincipalRow.id).where(PrincipalRow.role == "developer")
    with store.reading() as session:
        roles = {row[0]: row[1] for row in session.execute(by_role)}
        kinds = {row[0]: row[1] for row in session.execute(by_kind)}
        names = session.scalar(models.where(ArtifactRow.kind == "model")) or 0
        open_invites = session.scalar(invites) or 0
        owners = list(session.scalars(developers))
    return Census(
        principals={role: roles.get(role, 0) for role in ROLES},
        artifacts={kind.value: kinds.get(kind.value, 0) for kind in Kind},
        models=names,
        invites=open_invites,
        blobs=blobs.usage(owners),
    )
