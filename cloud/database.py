"""The SQL database: SQLite in WAL mode by default, PostgreSQL by URL.

The schema is brought up to date when the database is opened (`schema.py`). On SQLite a write
begins with the write lock, so that no transaction fails half-way because another one wrote; on
PostgreSQL, rows are locked by those who count or compare before they write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from triparty.cloud.full_storage import is_storage_full, storage_full
from triparty.cloud.schema import check_current, upgrade
from triparty.common.errors import (
    RequestError,
    SettingsError,
    StateError,
    UnavailableError,
)

BUSY_TIMEOUT_S = 15
CONNECT_TIMEOUT_S = 10
_log = logging.getLogger(__name__)
_WRITES = "triparty_writes"


class Database:
    """Transactions on the cloud's tables."""

    def __init__(self, url: str, *, upgrades: bool = True) -> None:
        """Opens the database.

        Args:
            url: SQLAlchemy URL.
            upgrades: bring the schema to this version's; False for whoever looks in beside a
                running cloud.

        Raises:
            SettingsError: not a database URL, or its driver is not installed.
            StateError: the database cannot be opened or upgraded.
        """
        self._is_damaged = False
        self._listeners: list[Callable[[], None]] = []
        self._engine = open_engine(url)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._reader = self._engine.execution_options(**_one_view(self._engine))
        try:
            if upgrades:
                upgrade(self._writer)
            else:
                check_current(self._engine)
        except SQLAlchemyError as error:
            self.close()
            remedy = "; 'triparty cloud restore' makes a new folder from a backup"
            raise StateError(
                f"cannot open the database {make_url(url).render_as_string()}: "
                f"{reason(error)}{remedy if type(error) is DatabaseError else ''}"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> Engine:
        """For schema checks."""
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view of the database.

        Raises:
            UnavailableError: the database does not answer, or a page of it is damaged.
            RequestError: text or a number that the database cannot hold.
        """
        with self._translated(), Session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: everything in the block happens, or nothing does.

        Raises:
            UnavailableError, RequestError: as `reading`; a database with a damaged page is
                not written.
            IntegrityError: somebody else made a row of the same key meanwhile.
        """
        if self._is_damaged:
            raise UnavailableError(
                "the cloud's database is damaged and only read; its operator has to repair it"
            )
        try:
            with (
                self._translated(),
                Session(self._writer, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        finally:
            for listener in self._listeners:
                listener()

    def after_writing(self, listener: Callable[[], None]) -> None:
        """Has `listener` called at the end of every transaction of `writing`."""
        self._listeners.append(listener)

    @property
    def is_damaged(self) -> bool:
        """Whether a damaged page was met since the start: nothing is written then."""
        return self._is_damaged

    def inspect(self) -> list[str]:
        """What SQLite finds wrong with its file, in its words; empty for other databases.

        Reads the whole file once, about a second for each GiB.

        Raises:
            UnavailableError: the database does not answer.
        """
        if self._engine.dialect.name != "sqlite":
            return []
        try:
            with self._engine.connect() as connection:
                said = [row[0] for row in connection.execute(text("PRAGMA quick_check(20)"))]
        except OperationalError as error:
            raise UnavailableError("the database does not answer") from error
        except DatabaseError as error:
            said = [reason(error)]
        found = [line for text in said for line in str(text).splitlines() if line != "ok"]
        self._is_damaged |= bool(found)
        return found

    def check(self) -> None:
        """Raises `UnavailableError` if the database does not answer."""
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns what is the database's fault into the errors that clients know."""
        try:
            yield
        except (IntegrityError, ProgrammingError):
            raise
        except DataError as error:
            raise RequestError("the request holds a value that cannot be stored") from error
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            if is_storage_full(error):
                _log.exception("no room for the database")
                raise storage_full() from error
            _log.exception("the database does not answer")
            raise UnavailableError("the database does not answer") from error
        except (InternalError, DatabaseError) as error:
            self._is_damaged = True
            _log.exception("the database is damaged: 'triparty cloud check' says where")
            raise UnavailableError(
                "the cloud's database is damaged here; its operator has to repair it"
            ) from error


def open_engine(url: str) -> Engine:
    """The engine of a URL, with what each kind of database needs set up.

    Raises:
        SettingsError: not a database URL, or its driver is not installed.
    """
    try:
        kind = make_url(url).get_backend_name()
        engine = create_engine(
            url,
            hide_parameters=True,  # or a token's hash gets into a traceback
            pool_size=16,
            max_overflow=32,
            pool_pre_ping=kind != "sqlite",
            connect_args=_connect_args(kind),
        )
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the database URL needs {error.name}: for PostgreSQL write "
            "postgresql+psycopg://... and pip install 'triparty[postgresql]'"
        ) from error
    except (ArgumentError, TypeError) as error:
        raise SettingsError(f"the database URL cannot be used: {error}") from error
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "handle_error", _drop_detail)
    return engine


def reason(error: SQLAlchemyError) -> str:
    """What the driver said, on one line; statements and parameters are not in it."""
    said = getattr(error, "orig", None)
    return f"{type(error).__name__}: {' '.join(str(said).split())}" if said else repr(error)


def _connect_args(kind: str) -> dict[str, Any]:
    if kind == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S}
    return {"connect_timeout": CONNECT_TIMEOUT_S} if kind == "postgresql" else {}


def _one_view(engine: Engine) -> dict[str, Any]:
    """Options with which all statements of a transaction see the same; SQLite's always do."""
    if engine.dialect.name == "postgresql":
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {}


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: the driver's comes too late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _drop_detail(context: ExceptionContext) -> None:
    """Keeps PostgreSQL's DETAIL, which repeats the row, out of messages."""
    shown = getattr(getattr(context.original_exception, "diag", None), "message_primary", None)
    if shown and context.sqlalchemy_exception:
        context.original_exception.args = (shown,)
        context.sqlalchemy_exception.args = (f"({type(context.original_exception)}) {shown}",)
