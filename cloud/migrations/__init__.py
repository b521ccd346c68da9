"""Schema migrations (Alembic), run when a database is opened."""
