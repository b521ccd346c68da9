"""Where results and events go: JSON lines, and a database that forgets what is old.

Both tell what cameras saw: files are made for their owner alone.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from triparty.common.errors import StateError
from triparty.common.files import PRIVATE_MODE

SCHEMA_VERSION = 2
COMMIT_S = 1.0
BUSY_MS = 2000
_SCHEMA = """
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    wall REAL NOT NULL,       -- seconds since 1970
    camera TEXT NOT NULL,
    time REAL NOT NULL,       -- seconds on the stream's clock
    answers TEXT NOT NULL,    -- JSON: by task
    seen TEXT NOT NULL,       -- JSON: by model
    filtered TEXT NOT NULL DEFAULT '{}'  -- JSON: by model that was not run, what stands for it
);
CREATE INDEX results_by_wall ON results (wall);
CREATE INDEX results_by_camera ON results (camera, wall);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    wall REAL NOT NULL,
    camera TEXT NOT NULL,
    time REAL NOT NULL,
    task TEXT NOT NULL,
    before TEXT NOT NULL,     -- JSON
    after TEXT NOT NULL,      -- JSON
    clip TEXT                 -- name of a file in the folder of clips
);
CREATE INDEX events_by_wall ON events (wall);
"""
_FROM_1 = "ALTER TABLE results ADD COLUMN filtered TEXT NOT NULL DEFAULT '{}'"

Document = Mapping[str, Any]


class Sink(Protocol):
    """Takes documents: results, events, states. Called from one thread."""

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Takes some.

        Args:
            documents: each with `type`.
            now: seconds since 1970.

        Raises:
            OSError: it cannot be written now; later it may.
            sqlite3.Error: the same.
        """

    def close(self) -> None:
        """Writes what was not written yet."""


class Lines:
    """JSON lines, one document each, flushed at once.

    Args:
        path: of the file, which is appended to; None for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        """Opens the file, for its owner alone."""
        self._own = path is not None
        self._stream: IO[str] = sys.stdout if path is None else _private_stream(path)

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Writes lines."""
        self._stream.writelines(json.dumps(document) + "\n" for document in documents)
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._own:
            self._stream.close()


class Database:
    """SQLite with a write-ahead log, so that readers never wait.

    Args:
        path: of the database; made if absent, mode 0600.
        keep_s: rows older than this are deleted.

    Raises:
        StateError: the file is no database of this kind.
    """

    def __init__(self, path: Path, *, keep_s: float) -> None:
        """Opens it."""
        self._path, self._keep_s = path, keep_s
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE))
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._committed = self._pruned = float("-inf")
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise StateError(f"{path} is no database of results: {error}") from error

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Inserts results and events; commits at most once a second."""
        for document in documents:
            if document["type"] == "result":
                self._connection.execute(
                    "INSERT INTO results (wall, camera, time, answers, seen, filtered) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        *(document[key] for key in ("wall", "camera", "time")),
                        *(json.dumps(document[key]) for key in ("answers", "seen")),
                        json.dumps(document.get("filtered", {})),
                    ),
                )
            elif document["type"] == "event":
                self._connection.execute(
                    "INSERT INTO events (wall, camera, time, task, before, after, clip) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(document[key] for key in ("wall", "camera", "time", "task")),
                        *(json.dumps(document[key]) for key in ("before", "after")),
                        document.get("clip"),
                    ),
                )
        if now - self._committed >= COMMIT_S:
            self._commit(now)

    def close(self) -> None:
        """Commits and closes."""
        self._connection.commit()
        self._connection.close()

    def _commit(self, now: float) -> None:
        if now - self._pruned >= max(COMMIT_S, self._keep_s / 1000):
            for table in ("results", "events"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE wall < ?",  # noqa: S608  of two constants
                    (now - self._keep_s,),
                )
            self._pruned = now
        self._connection.commit()
        self._committed = now

    def _prepare(self) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(_SCHEMA)
        elif version == 1:
            self._connection.execute(_FROM_1)
        if version in (0, 1):
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.commit()
        elif version != SCHEMA_VERSION:
            raise StateError(
                f"{self._path} is of version {version}; this triparty reads {SCHEMA_VERSION}: "
                "move it away"
            )


def _private_stream(path: Path) -> IO[str]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_MODE)
    return os.fdopen(descriptor, "a", encoding="utf-8")
