"""Training jobs, and what they used.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("principal", sa.String(80), sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("developer", sa.String(80), sa.ForeignKey("principals.id"), nullable=False),
        sa.Column("folder", sa.String(32), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cpu_ms", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.LargeBinary),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended", sa.DateTime(timezone=True)),
    )
    op.create_index("job_of_principal", "jobs", ["principal", "job"], unique=True)
    op.create_index("ix_jobs_developer", "jobs", ["developer"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "job_usage",
        sa.Column("principal", sa.String(80), sa.ForeignKey("principals.id"), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cpu_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Removes the tables."""
    op.drop_table("job_usage")
    op.drop_table("jobs")
