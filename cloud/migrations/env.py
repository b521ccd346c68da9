"""Alembic's entry: migrates the connection that `triparty.cloud.database` hands over."""

from alembic import context

from triparty.cloud.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata
)
with context.begin_transaction():
    context.run_migrations()
