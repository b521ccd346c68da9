"""Upgrades: from the first release with its rows, whole or not at all, never downwards."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, text

from triparty.cloud import schema
from triparty.cloud import tables as current
from triparty.cloud.accounts import SCOPES, Principal, authenticate, hash_token
from triparty.cloud.database import Database, open_engine
from triparty.cloud.publishing import visible_artifacts
from triparty.cloud.schema import copy_sqlite, revision_of
from triparty.common.errors import StateError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEVELOPER, DEVICE = "ed25519:" + "a" * 64, "ed25519:" + "b" * 64
TOKEN = "tpt_" + "A" * 43
NEXT = '''"""A step that only this test knows."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column, and fails where it is told to."""
    op.add_column("tokens", sa.Column("note", sa.String(8)))
    op.execute("UPDATE tokens SET note = 'moved'")
    {failure}
'''
OPEN = """
import sys
from pathlib import Path
from triparty.cloud import database, schema

schema.MIGRATIONS = Path(sys.argv[1])
database.Database(sys.argv[2])
"""


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def first_release(url: str) -> None:
    """A database as the first release made it, with a row in every table."""
    with opened(url) as connection, connection.begin():
        config = schema._config()
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        fill(connection)


def fill(connection: Connection) -> None:
    def add(into: str, /, **values: object) -> None:
        table = Table(into, MetaData(), autoload_with=connection)
        connection.execute(table.insert().values(values))

    add("principals", id="operator", role="operator", name="operator", created=NOW)
    for who, role in ((DEVELOPER, "developer"), (DEVICE, "device")):
        add("principals", id=who, role=role, developer=DEVELOPER, name="ü", created=NOW)
    add(
        "tokens",
        hash=hash_token(TOKEN),
        principal=DEVELOPER,
        scopes="invite publish pull",
        created=NOW,
        expires=NOW.replace(year=2030),
    )
    add(
        "invites",
        login_hash="c" * 64,
        role="device",
        inviter=DEVELOPER,
        label="x",
        created=NOW,
        expires=NOW,
    )
    statement = {"delegation": b"\x00d", "delegation_signature": b"s", "delegation_version": 3}
    add("statements", developer=DEVELOPER, latest=b"l", latest_sequence=7, **statement)
    add(
        "artifacts",
        artifact="d" * 64,
        developer=DEVELOPER,
        kind="model",
        name="tiny",
        version=2**40,
        epoch=1,
        recipient="",
        manifest=b"{}",
        signature=b"s",
        created=NOW,
        expires=NOW,
        revoked=False,
    )
    number = connection.execute(text("SELECT number FROM artifacts")).scalar()
    add("artifact_blobs", artifact=number, sha256="e" * 64)


def rows_of(url: str) -> dict[str, list[str]]:
    """Every row of every table of the first release."""
    tables = ("principals", "tokens", "invites", "statements", "artifacts", "artifact_blobs")
    with opened(url) as connection:
        return {
            name: sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}"))))
            for name in tables
        }


def schema_of(url: str) -> str | None:
    with opened(url) as connection:
        return revision_of(connection)


@pytest.fixture
def next_version(tmp_path, monkeypatch):
    """Adds a step to the migrations; returns what takes its place with another ending."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = ScriptDirectory(str(folder)).get_current_head()

    def write(failure: str = "pass") -> None:
        shutil.rmtree(folder / "versions" / "__pycache__", ignore_errors=True)
        file = folder / "versions" / "9999_next.py"
        file.write_text(NEXT.format(head=head, failure=failure))

    write()
    monkeypatch.setattr(schema, "MIGRATIONS", folder)
    return write


def test_the_first_release_upgrades_with_its_rows(database_url):
    first_release(database_url)
    store = Database(database_url)
    with store.reading() as session:
        known = authenticate(session, TOKEN, now=NOW)
        assert known.principal.id == DEVELOPER
        developer = Principal(DEVELOPER, "developer", DEVELOPER, SCOPES["developer"])
        (artifact,) = visible_artifacts(session, developer)
        assert (artifact.name, artifact.version, artifact.created) == ("tiny", 2**40, NOW)
        assert artifact.manifest == b"{}"
        assert session.get_one(current.PrincipalRow, DEVICE).name == "ü"
        assert session.get_one(current.InviteRow, "c" * 64).used is None
        assert session.get_one(current.StatementRow, DEVELOPER).latest_sequence == 7
        blob = session.get_one(current.ArtifactBlobRow, (artifact.number, "e" * 64))
        assert blob.sha256 == "e" * 64
    store.close()


def test_an_upgraded_schema_is_the_tables(database_url):
    first_release(database_url)
    store = Database(database_url)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, current.Table.metadata) == []
    store.close()


def test_a_newer_database_is_refused(database_url, next_version, monkeypatch):
    Database(database_url).close()
    monkeypatch.undo()
    before = rows_of(database_url)
    for upgrades in (True, False):
        with pytest.raises(StateError, match=r"newer triparty.*restore a backup"):
            Database(database_url, upgrades=upgrades)
    assert rows_of(database_url) == before
    assert schema_of(database_url) == "9999"


def test_who_looks_in_upgrades_nothing(database_url, next_version):
    first_release(database_url)
    with pytest.raises(StateError, match="restart the cloud"):
        Database(database_url, upgrades=False)
    assert schema_of(database_url) == "0001"


def test_an_upgrade_that_fails_changes_nothing_and_is_tried_again(database_url, next_version):
    first_release(database_url)
    before = rows_of(database_url)
    next_version("raise ZeroDivisionError")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            Database(database_url)
        assert rows_of(database_url) == before  # no column, no row
        assert schema_of(database_url) == "0001"
    next_version()
    Database(database_url).close()
    assert schema_of(database_url) == "9999"
    assert "moved" in rows_of(database_url)["tokens"][0]


def test_a_process_that_dies_inside_an_upgrade(database_url, next_version):
    first_release(database_url)
    before = rows_of(database_url)
    next_version("import os; os._exit(9)")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, schema.MIGRATIONS, database_url], timeout=120, check=False
    )
    assert done.returncode == 9
    assert rows_of(database_url) == before
    next_version()
    Database(database_url).close()
    assert "moved" in rows_of(database_url)["tokens"][0]


def test_a_sqlite_file_is_copied_before_its_upgrade(tmp_path, next_version):
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    first_release(url)
    before = rows_of(url)
    Database(url).close()
    copy = tmp_path / "cloud.db.schema-0001"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert rows_of(f"sqlite:///{copy}") == before
    assert schema_of(f"sqlite:///{copy}") == "0001"
    modified = copy.stat().st_mtime_ns
    Database(url).close()  # nothing to upgrade: nothing to copy
    assert copy.stat().st_mtime_ns == modified
    assert not list(tmp_path.glob("*.part"))


def test_a_new_database_is_not_copied(tmp_path):
    Database(f"sqlite:///{tmp_path / 'cloud.db'}").close()
    assert not list(tmp_path.glob("*.schema-*"))


def test_a_copy_holds_what_was_committed_while_others_write(tmp_path):
    file = tmp_path / "cloud.db"
    first_release(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE principals SET name = 'committed'")
        writer.commit()
        writer.execute("UPDATE principals SET name = 'not yet'")
        copy_sqlite(file, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert {name for (name,) in copy.execute("SELECT name FROM principals")} == {
            "committed"
        }


def test_migrations_in_a_strange_folder(tmp_path, monkeypatch):
    folder: Path = tmp_path / "100%(x)s"
    shutil.copytree(schema.MIGRATIONS, folder)
    monkeypatch.setattr(schema, "MIGRATIONS", folder)
    Database(f"sqlite:///{tmp_path / 'cloud.db'}").close()
