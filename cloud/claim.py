"""One cloud a database: what an upload has sent so far is known to one process only.

The claim ends with the process, however that ends: SQLite's is a lock on a file beside it,
PostgreSQL's an advisory lock of a connection. A connection that breaks takes its lock along;
it is taken again as soon as the server answers.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from triparty.cloud.database import open_engine, reason
from triparty.cloud.schema import sqlite_file
from triparty.common.errors import StateError
from triparty.common.files import PRIVATE_MODE

LOOK_EVERY_S = 5.0
_KEY = 0x747269636C6F7564  # "tricloud", as PostgreSQL's advisory locks are numbered
_log = logging.getLogger(__name__)


@contextmanager
def claimed(url: str) -> Iterator[None]:
    """Keeps other clouds off a database while the block runs.

    Args:
        url: SQLAlchemy URL.

    Raises:
        StateError: another cloud serves the database, or it cannot be reached.
    """
    engine = open_engine(url)
    try:
        file = sqlite_file(engine)
        if engine.dialect.name == "postgresql":
            with _Claim(engine):
                yield
        elif file is not None:
            with _locked_file(file.with_name(f"{file.name}.lock")):
                yield
        else:
            yield
    finally:
        engine.dispose()


@contextmanager
def _locked_file(lock: Path) -> Iterator[None]:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
    except OSError as error:
        raise StateError(f"cannot open the database: {lock}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError("another 'triparty cloud serve' uses this database") from error
        yield
    finally:
        os.close(descriptor)


class _Claim:
    """An advisory lock, watched by a thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        try:
            if not self._take():
                raise StateError("another 'triparty cloud serve' uses this database")
        except SQLAlchemyError as error:
            raise StateError(f"cannot open the database: {reason(error)}") from error
        self._watcher.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        if self._connection is not None:
            # Asked for, because a closed connection keeps its locks until the server sees it.
            with suppress(SQLAlchemyError):
                self._connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _KEY})
        self._let_go()

    def _take(self) -> bool:
        """Whether the lock is ours now."""
        self._connection = self._engine.connect()
        lock = text("SELECT pg_try_advisory_lock(:key)")
        if self._connection.execute(lock, {"key": _KEY}).scalar():
            return True
        self._let_go()
        return False

    def _let_go(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # it may be broken already
                self._connection.invalidate()  # closed, not pooled: the lock goes with it
                self._connection.close()
            self._connection = None

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                if self._connection is not None:
                    self._connection.execute(text("SELECT 1"))
                elif not self._take():
                    _log.critical("another cloud serves this database: stop one of the two")
            except SQLAlchemyError:
                _log.warning("the database does not answer: its claim is taken again later")
                self._let_go()
