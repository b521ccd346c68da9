"""The tables of the cloud's database.

Everything hangs off a developer; a query that forgets the developer is the bug to look for.
Secrets are not here: of a token and of an invite there is only a SHA-256.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID = String(80)  # "ed25519:" and 64 hex digits, or "operator"
HASH = String(64)  # SHA-256, lower-case hex


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database, always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of the tables."""


class PrincipalRow(Table):
    """Who may ask: the operator, developers, devices.

    The primary key makes an identity key unique over all roles and developers.
    """

    __tablename__ = "principals"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    role: Mapped[str] = mapped_column(String(16), index=True)
    developer: Mapped[str | None] = mapped_column(ForeignKey("principals.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    identity: Mapped[str | None] = mapped_column(String(64))
    sealing: Mapped[str | None] = mapped_column(String(64))
    confirmation: Mapped[str | None] = mapped_column(String(64))
    invite: Mapped[str | None] = mapped_column(HASH)
    created: Mapped[datetime] = mapped_column(UtcTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcTime)


class TokenRow(Table):
    """A token, as its hash."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(HASH, primary_key=True)
    principal: Mapped[str] = mapped_column(ForeignKey("principals.id"), index=True)
    scopes: Mapped[str] = mapped_column(String(80))
    created: Mapped[datetime] = mapped_column(UtcTime)
    expires: Mapped[datetime] = mapped_column(UtcTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcTime)


class InviteRow(Table):
    """An invite, as the hash of its login half."""

    __tablename__ = "invites"

    login_hash: Mapped[str] = mapped_column(HASH, primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    inviter: Mapped[str] = mapped_column(ForeignKey("principals.id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcTime)
    expires: Mapped[datetime] = mapped_column(UtcTime)
    used: Mapped[datetime | None] = mapped_column(UtcTime)


class StatementRow(Table):
    """A developer's newest delegation and `latest` statement, as signed."""

    __tablename__ = "statements"

    developer: Mapped[str] = mapped_column(ForeignKey("principals.id"), primary_key=True)
    delegation: Mapped[bytes] = mapped_column(LargeBinary)
    delegation_signature: Mapped[bytes] = mapped_column(LargeBinary)
    latest: Mapped[bytes | None] = mapped_column(LargeBinary)
    latest_signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    delegation_version: Mapped[int] = mapped_column(BigInteger)
    latest_sequence: Mapped[int] = mapped_column(BigInteger, default=0)


class ArtifactRow(Table):
    """A visible artifact: its manifest was verified and all its blobs are here."""

    __tablename__ = "artifacts"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    artifact: Mapped[str] = mapped_column(HASH)
    developer: Mapped[str] = mapped_column(ForeignKey("principals.id"))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[int] = mapped_column(BigInteger)
    recipient: Mapped[str] = mapped_column(ID, default="")  # "" when for no one in particular
    manifest: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    created: Mapped[datetime] = mapped_column(UtcTime)
    expires: Mapped[datetime] = mapped_column(UtcTime)
    revoked: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (
        Index(
            "artifact_line", "developer", "kind", "name", "recipient", "version", unique=True
        ),
    )


class SpentRow(Table):
    """A one-time instance of a model that had its session; its artifacts go when that ends."""

    __tablename__ = "spent"

    developer: Mapped[str] = mapped_column(ForeignKey("principals.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    principal: Mapped[str] = mapped_column(ID)
    used: Mapped[datetime] = mapped_column(UtcTime)


class ArtifactBlobRow(Table):
    """Which blobs an artifact is made of."""

    __tablename__ = "artifact_blobs"

    artifact: Mapped[int] = mapped_column(
        ForeignKey("artifacts.number", ondelete="CASCADE"), primary_key=True
    )
    sha256: Mapped[str] = mapped_column(HASH, primary_key=True, index=True)


class JobRow(Table):
    """A training that a device asked for, until its result was fetched or is too old."""

    __tablename__ = "jobs"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job: Mapped[str] = mapped_column(String(32))  # drawn by the device
    principal: Mapped[str] = mapped_column(ForeignKey("principals.id"))
    developer: Mapped[str] = mapped_column(ForeignKey("principals.id"), index=True)
    folder: Mapped[str] = mapped_column(String(32))
    request: Mapped[str] = mapped_column(HASH)  # SHA-256 of what was asked
    dataset: Mapped[str] = mapped_column(HASH)
    task: Mapped[str] = mapped_column(Text)  # JSON
    rows: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), index=True)
    progress: Mapped[str] = mapped_column(Text, default="{}")  # JSON
    problem: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    cpu_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    manifest: Mapped[bytes | None] = mapped_column(LargeBinary)  # of the result
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    created: Mapped[datetime] = mapped_column(UtcTime)
    ended: Mapped[datetime | None] = mapped_column(UtcTime)

    __table_args__ = (Index("job_of_principal", "principal", "job", unique=True),)


class JobUsageRow(Table):
    """CPU time that a principal's trainings took on a day; it outlives the jobs."""

    __tablename__ = "job_usage"

    principal: Mapped[str] = mapped_column(ForeignKey("principals.id"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # since 1970
    cpu_ms: Mapped[int] = mapped_column(BigInteger)
