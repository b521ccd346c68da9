"""The database of results and events: SQLite in a file, or PostgreSQL by URL.

It tells what cameras saw: a file is made for its owner alone.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError

from triparty.common.errors import SettingsError, StateError
from triparty.common.files import PRIVATE_MODE
from triparty.device.events.kinds import kind_of_stored
from triparty.device.events.tables import EVENTS, METADATA, SCHEMA_VERSION, VERSION

BUSY_S: Final = 2.0
ANSWER_S: Final = 5
"""How long PostgreSQL may take to connect, and to answer."""
_MORE_OF_RESULTS: Final = ((1, "filtered"), (3, "predicted"))
"""Columns of results that came after a version."""


def database_url(
    place: str | Path, *, folder: Path = Path(), password: str | None = None
) -> URL:
    """The URL of a database.

    Args:
        place: a path of a SQLite file, or `postgresql+psycopg://...`.
        folder: relative paths are relative to it.
        password: of PostgreSQL's user, if it is not in the URL.

    Raises:
        SettingsError: another kind of URL.
    """
    if isinstance(place, Path) or "://" not in place:
        return URL.create("sqlite", database=str(folder / Path(place).expanduser()))
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise SettingsError("the database URL cannot be read") from error
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise SettingsError(
            f"a database of kind '{url.drivername}': expected the path of a SQLite file, or "
            "postgresql+psycopg://USER@HOST/DATABASE"
        )
    return url if password is None else url.set(password=password)


def journal_path(url: URL, folder: Path) -> Path:
    """Where events wait that a database cannot take.

    Args:
        url: of the database: the file is beside a SQLite file.
        folder: where it is if the database is elsewhere.
    """
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}-waiting")
    return folder / "events-waiting"


def open_engine(url: URL) -> Engine:
    """The engine of a database; a SQLite file is made, for its owner alone, if it is absent.

    Raises:
        SettingsError: PostgreSQL's driver is not installed.
        OSError: the file cannot be made.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE))
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=url.get_backend_name() != "sqlite",
            connect_args=_connect_args(url),
        )
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the database needs {error.name}: pip install 'triparty[postgresql]'"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def open_database(url: URL) -> Engine:
    """The engine of a database whose tables are those of this version.

    Raises:
        SettingsError: PostgreSQL's driver is not installed.
        StateError: it cannot be opened, or is of another kind or of a newer version.
    """
    try:
        engine = open_engine(url)
    except OSError as error:
        raise StateError(f"{_shown(url)} cannot be made: {error.strerror}") from error
    try:
        with engine.execution_options(writes=True).begin() as connection:
            _upgrade(connection, _shown(url))
    except OperationalError as error:
        engine.dispose()
        raise StateError(f"{_shown(url)} does not answer: {reason(error)}") from error
    except DatabaseError as error:
        engine.dispose()
        raise StateError(f"{_shown(url)} is no database of results: {reason(error)}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def reason(error: SQLAlchemyError) -> str:
    """What the driver said, on one line; statements and parameters are not in it."""
    said = getattr(error, "orig", None) or error
    return f"{type(said).__name__}: {' '.join(str(said).split())}"


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_S, "check_same_thread": False}
    return {
        "connect_timeout": ANSWER_S,
        "tcp_user_timeout": ANSWER_S * 1000,
        "options": f"-c statement_timeout={ANSWER_S * 1000}",
    }


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: the driver's comes too late
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(connection: Connection, shown: str) -> None:
    version = _version(connection)
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{shown} is of version {version}; this triparty reads {SCHEMA_VERSION}: "
            "move it away, or use the newer triparty"
        )
    if version == SCHEMA_VERSION:
        return
    for last_without, column in _MORE_OF_RESULTS:
        if 0 < version <= last_without:
            connection.exec_driver_sql(
                f"ALTER TABLE results ADD COLUMN {column} TEXT NOT NULL DEFAULT '{{}}'"
            )
    if version in (1, 2):
        _rebuild_events(connection)
    METADATA.create_all(connection)
    connection.execute(insert(VERSION).values(version=SCHEMA_VERSION))
    if connection.dialect.name == "sqlite":  # so that older versions refuse it
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: Connection) -> int:
    """Of the tables that are there; 0 for none."""
    if inspect(connection).has_table(VERSION.name):
        return int(connection.scalar(select(func.max(VERSION.c.version))) or 0)
    if connection.dialect.name == "sqlite":
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return 0


def _rebuild_events(connection: Connection) -> None:
    """Events of version 2 become those of version 3, under their ids."""
    connection.exec_driver_sql("ALTER TABLE events RENAME TO events_before")
    connection.exec_driver_sql("DROP INDEX IF EXISTS events_by_wall")
    EVENTS.create(connection)
    columns = "id, wall, camera, time, task, before, after, clip"
    found = connection.exec_driver_sql(f"SELECT {columns} FROM events_before")  # noqa: S608
    for row in found.mappings():
        kind = kind_of_stored(json.loads(row["before"]), json.loads(row["after"]))
        more = {"key": secrets.token_hex(16), "kind": kind, "measured": True}
        connection.execute(insert(EVENTS).values(**row, **more))
    connection.exec_driver_sql("DROP TABLE events_before")
