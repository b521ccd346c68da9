"""The first schema.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "principals",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("developer", sa.String(80), sa.ForeignKey("principals.id")),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("identity", sa.String(64)),
        sa.Column("sealing", sa.String(64)),
        sa.Column("confirmation", sa.String(64)),
        sa.Column("invite", sa.String(64)),
        _time("created"),
        _time("revoked", nullable=True),
    )
    op.create_index("ix_principals_role", "principals", ["role"])
    op.create_index("ix_principals_developer", "principals", ["developer"])
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("principal", sa.String(80), sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("scopes", sa.String(80), nullable=False),
        _time("created"),
        _time("expires"),
        _time("revoked", nullable=True),
    )
    op.create_index("ix_tokens_principal", "tokens", ["principal"])
    op.create_table(
        "invites",
        sa.Column("login_hash", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("inviter", sa.String(80), sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        _time("created"),
        _time("expires"),
        _time("used", nullable=True),
    )
    op.create_index("ix_invites_inviter", "invites", ["inviter"])
    _make_artifact_tables()


def _make_artifact_tables() -> None:
    owner = sa.ForeignKey("principals.id")
    op.create_table(
        "statements",
        sa.Column("developer", sa.String(80), owner, primary_key=True),
        sa.Column("delegation", sa.LargeBinary, nullable=False),
        sa.Column("delegation_signature", sa.LargeBinary, nullable=False),
        sa.Column("latest", sa.LargeBinary),
        sa.Column("latest_signature", sa.LargeBinary),
        sa.Column("delegation_version", sa.BigInteger, nullable=False),
        sa.Column("latest_sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("artifact", sa.String(64), nullable=False),
        sa.Column("developer", sa.String(80), sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("recipient", sa.String(80), nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        _time("created"),
        _time("expires"),
        sa.Column("revoked", sa.Boolean, nullable=False),
    )
    line = ["developer", "kind", "name", "recipient", "version"]
    op.create_index("artifact_line", "artifacts", line, unique=True)
    op.create_table(
        "artifact_blobs",
        sa.Column(
            "artifact",
            sa.Integer,
            sa.ForeignKey("artifacts.number", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("sha256", sa.String(64), primary_key=True),
    )
    op.create_index("ix_artifact_blobs_sha256", "artifact_blobs", ["sha256"])


def downgrade() -> None:
    """Removes the tables."""
    for table in (
        "artifact_blobs",
        "artifacts",
        "statements",
        "invites",
        "tokens",
        "principals",
    ):
        op.drop_table(table)
