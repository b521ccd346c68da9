"""Which one-time instances were used.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "spent",
        sa.Column("developer", sa.String(80), sa.ForeignKey("principals.id"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("principal", sa.String(80), nullable=False),
        sa.Column("used", sa.DateTime(timezone=True), nullable=False),
    )
