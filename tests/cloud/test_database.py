"""The schema, and transactions."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from triparty.cloud.accounts import add_operator
from triparty.cloud.database import Database
from triparty.cloud.tables import InviteRow, PrincipalRow, Table
from triparty.common.errors import SettingsError, StateError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(database_url):
    store = Database(database_url)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path):
    store = Database(f"sqlite:///{tmp_path / 'one.db'}")
    yield store
    store.close()


def test_the_migrations_make_the_tables(store):
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        assert context.get_current_revision() == "0003"


def test_sqlite_is_set_up(sqlite_store):
    with sqlite_store.engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        }
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 15_000


def test_opening_twice_keeps_the_content(store, database_url):
    with store.writing() as session:
        add_operator(session, now=NOW)
    second = Database(database_url)
    with second.reading() as session:
        assert session.get_one(PrincipalRow, "operator").created == NOW
    second.close()


def test_a_failed_transaction_leaves_nothing(store):
    def fail() -> None:
        with store.writing() as session:
            add_operator(session, now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.reading() as session:
        assert session.get(PrincipalRow, "operator") is None


def test_listeners_hear_of_every_write(store):
    heard = []
    store.after_writing(lambda: heard.append(1))
    with store.writing() as session:
        add_operator(session, now=NOW)
        assert not heard
    with store.reading() as session:
        session.get(PrincipalRow, "operator")
    assert heard == [1]


def test_foreign_keys_hold(store):
    orphan = InviteRow(
        login_hash="0" * 64, role="device", inviter="nobody", label="", created=NOW, expires=NOW
    )
    with pytest.raises(IntegrityError) as caught, store.writing() as session:
        session.add(orphan)
    assert "nobody" not in str(caught.value)  # parameters stay out of messages


def test_writers_wait_for_each_other(store):
    with store.writing() as session:
        add_operator(session, now=NOW)

    def rename(number: int) -> None:
        for _ in range(20):
            with store.writing() as session:
                row = session.get_one(PrincipalRow, "operator", with_for_update=True)
                row.name = str(int(row.name if row.name.isdecimal() else 0) + 1)

    threads = [threading.Thread(target=rename, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as session:
        assert session.get_one(PrincipalRow, "operator").name == "80"


def test_urls_that_cannot_be_used(tmp_path):
    for url in ("nonsense", "nosuch://x"):
        with pytest.raises(SettingsError):
            Database(url)
    with pytest.raises(StateError) as caught:
        Database(f"sqlite:///{tmp_path / 'absent' / 'cloud.db'}")
    assert "cloud.db" in caught.value.message


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError):
        Database(f"sqlite:///{tmp_path / 'x.db'}")
