"""What the database has of models, developers, devices and jobs, for the operator's eyes.

Names and dates alone: no manifest, no key, no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from triparty.cloud.tables import ArtifactRow, JobRow, PrincipalRow

MOST: Final = 200
"""Rows of one list; the newest are shown."""
_owner = aliased(PrincipalRow)


@dataclass(frozen=True)
class ModelVersion:
    """A published version of a model.

    Attributes:
        developer: name of whose it is.
        name: of the model.
        version: of it.
        epoch: the key generation.
        bundles: devices that may use it.
        created: when it was signed.
        expires: when it goes out of use.
        is_revoked: whether it is out of use.
    """

    developer: str
    name: str
    version: int
    epoch: int
    bundles: int
    created: datetime
    expires: datetime
    is_revoked: bool


@dataclass(frozen=True)
class Holder:
    """A developer or a device.

    Attributes:
        id: of it.
        name: that it gave itself.
        of: name of a device's developer; empty for a developer.
        devices: of a developer, not revoked.
        created: when it enrolled.
        revoked: when it was revoked.
    """

    id: str
    name: str
    of: str
    devices: int
    created: datetime
    revoked: datetime | None


@dataclass(frozen=True)
class Training:
    """A job, without anything of what it is about.

    Attributes:
        developer: name of whose device asked.
        device: its name.
        state: of the job.
        rows: samples.
        size: of its data in bytes.
        cpu_s: that it took.
        created: when it was asked for.
    """

    developer: str
    device: str
    state: str
    rows: int
    size: int
    cpu_s: float
    created: datetime


def models(session: Session) -> Sequence[ModelVersion]:
    """The newest versions of models."""
    bundle = aliased(ArtifactRow)
    bundles = (
        select(func.count(func.distinct(bundle.recipient)))
        .where(
            bundle.kind == "bundle",
            bundle.developer == ArtifactRow.developer,
            bundle.name == ArtifactRow.name,
            bundle.epoch == ArtifactRow.epoch,
            bundle.revoked.is_(False),
        )
        .scalar_subquery()
    )
    query = (
        select(ArtifactRow, PrincipalRow.name, bundles)
        .join(PrincipalRow, PrincipalRow.id == ArtifactRow.developer)
        .where(ArtifactRow.kind == "model")
        .order_by(ArtifactRow.number.desc())
        .limit(MOST)
    )
    return [
        ModelVersion(
            developer,
            row.name,
            row.version,
            row.epoch,
            count,
            row.created,
            row.expires,
            row.revoked,
        )
        for row, developer, count in session.execute(query)
    ]


def developers(session: Session) -> Sequence[Holder]:
    """The newest developers."""
    device = aliased(PrincipalRow)
    devices = (
        select(func.count())
        .where(device.developer == PrincipalRow.id, device.role == "device")
        .where(device.revoked.is_(None))
        .scalar_subquery()
    )
    query = (
        select(PrincipalRow, devices)
        .where(PrincipalRow.role == "developer")
        .order_by(PrincipalRow.created.desc())
        .limit(MOST)
    )
    return [
        Holder(row.id, row.name, "", count, row.created, row.revoked)
        for row, count in session.execute(query)
    ]


def devices(session: Session) -> Sequence[Holder]:
    """The newest devices of all developers."""
    query = (
        select(PrincipalRow, _owner.name)
        .join(_owner, _owner.id == PrincipalRow.developer)
        .where(PrincipalRow.role == "device")
        .order_by(PrincipalRow.created.desc())
        .limit(MOST)
    )
    return [
        Holder(row.id, row.name, owner, 0, row.created, row.revoked)
        for row, owner in session.execute(query)
    ]


def jobs(session: Session) -> Sequence[Training]:
    """The newest jobs of all devices."""
    query = (
        select(JobRow, PrincipalRow.name, _owner.name)
        .join(PrincipalRow, PrincipalRow.id == JobRow.principal)
        .join(_owner, _owner.id == JobRow.developer)
        .order_by(JobRow.number.desc())
        .limit(MOST)
    )
    return [
        Training(owner, device, row.state, row.rows, row.size, row.cpu_ms / 1000, row.created)
        for row, device, owner in session.execute(query)
    ]
