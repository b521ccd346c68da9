"""The SQL database: SQLite in WAL mode by default, PostgreSQL by URL.

The schema is brought up to date when the database is opened (Alembic). A write begins with
the write lock, so that on SQLite no transaction fails half-way because another one wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from triparty.common.errors import SettingsError, StateError, UnavailableError

BUSY_TIMEOUT_S = 15
_WRITES = "triparty_writes"


class Database:
    """Transactions on the cloud's tables."""

    def __init__(self, url: str) -> None:
        """Opens the database and migrates it to this version's schema.

        Args:
            url: SQLAlchemy URL.

        Raises:
            SettingsError: not a database URL, or its driver is not installed.
            StateError: the database cannot be opened or migrated.
        """
        self._listeners: list[Callable[[], None]] = []
        self._engine = _open(url)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        try:
            with self._writer.begin() as connection:
                migrate(connection)
        except SQLAlchemyError as error:
            raise StateError(
                f"cannot open the database {make_url(url).render_as_string()}: "
                f"{type(error).__name__}"
            ) from error

    @property
    def engine(self) -> Engine:
        """For schema checks."""
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view of the database."""
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: everything in the block happens, or nothing does."""
        try:
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                yield session
        finally:
            for listener in self._listeners:
                listener()

    def after_writing(self, listener: Callable[[], None]) -> None:
        """Has `listener` called at the end of every transaction of `writing`."""
        self._listeners.append(listener)

    def check(self) -> None:
        """Raises `UnavailableError` if the database does not answer."""
        try:
            with self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            raise UnavailableError("the database does not answer") from error

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()


def _open(url: str) -> Engine:
    try:
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        engine = create_engine(
            url,
            hide_parameters=True,  # or a token's hash gets into a traceback
            pool_size=16,
            max_overflow=32,
            pool_pre_ping=not is_sqlite,
            connect_args={"timeout": BUSY_TIMEOUT_S} if is_sqlite else {},
        )
    except (ArgumentError, ModuleNotFoundError, TypeError) as error:
        raise SettingsError(f"the database URL cannot be used: {error}") from error
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: the driver's comes too late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(connection: Connection) -> None:
    """Brings the schema to this version's, in the connection's transaction."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
