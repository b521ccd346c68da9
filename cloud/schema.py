"""The schema of the database: found, refused or brought up to this version's (Alembic).

All steps of an upgrade run in one transaction, on SQLite and on PostgreSQL: a process that dies
between two of them leaves the database as it was, and the next start begins again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from triparty.common.errors import StateError
from triparty.common.files import PRIVATE_MODE, sync_folder

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7472697061727479  # "triparty", as PostgreSQL's advisory locks are numbered


def upgrade(writer: Engine) -> None:
    """Brings the schema to this version's; an older SQLite file is copied first.

    Args:
        writer: an engine whose transactions begin with the write lock.

    Raises:
        StateError: the database was written by a newer triparty.
    """
    with writer.connect() as connection:
        before = revision_of(connection)
    check_known(before)
    if before == _script().get_current_head():
        return
    file = sqlite_file(writer)
    if before is not None and file is not None:
        copy_sqlite(file, file.with_name(f"{file.name}.schema-{before}"))
    with writer.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = _config()
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def check_current(engine: Engine) -> None:
    """Returns only if the schema is this version's.

    Raises:
        StateError: it is older or newer.
    """
    with engine.connect() as connection:
        found = revision_of(connection)
    check_known(found)
    head = _script().get_current_head()
    if found != head:
        raise StateError(
            f"the database has schema {found}, this triparty works with {head}: restart the "
            "cloud with this version, it upgrades its database"
        )


def check_known(revision: str | None) -> None:
    """Returns only for a schema that this version can work with or upgrade.

    Raises:
        StateError: a schema of a newer triparty.
    """
    script = _script()
    known = {step.revision for step in script.walk_revisions()}
    if revision is not None and revision not in known:
        raise StateError(
            f"the database has schema {revision}, made by a newer triparty; this one knows "
            f"schemas up to {script.get_current_head()}: install the newer version again, or "
            "restore a backup that was made before the upgrade"
        )


def revision_of(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def sqlite_file(engine: Engine) -> Path | None:
    """The file of a SQLite database; None for other engines and for one in memory."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or ":memory:" in name:
        return None
    return Path(name)


def copy_sqlite(file: Path, target: Path) -> None:
    """Copies a SQLite database, consistent while others write; `target` appears whole.

    Args:
        file: the database.
        target: replaced if it exists; mode 0600.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE))
    try:
        with (
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
