"""PostgreSQL's own tools: a consistent dump of a database, and one made of a dump.

Passwords go to the tools by their environment: arguments can be seen by every user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, inspect, text

from triparty.common.errors import StateError

_REMEDY = "install PostgreSQL's client tools of the server's version or a newer one"


@contextmanager
def exported_snapshot(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """A view of the database for the length of a block, and its name for others to share."""
    reader = engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    with reader.connect() as connection:
        name = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        yield connection, str(name)


def check_tool(name: str) -> str:
    """Where a tool is.

    Raises:
        StateError: not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise StateError(f"'{name}' is not on the PATH: {_REMEDY}")
    return found


def dump(url: URL, target: Path, *, snapshot: str) -> None:
    """Writes a dump, in pg_dump's custom format, of what a snapshot shows; mode 0600.

    Raises:
        StateError: pg_dump is absent, or fails.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _run(
        url,
        "pg_dump",
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        f"--snapshot={snapshot}",
        f"--file={target}",
    )
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def undump(url: URL, source: Path) -> None:
    """Fills an empty database from a dump: all of it, or nothing.

    Raises:
        StateError: pg_restore is absent, or fails.
    """
    _run(
        url,
        "pg_restore",
        "--no-owner",
        "--no-privileges",
        "--single-transaction",
        "--exit-on-error",
        str(source),
    )


def is_empty(engine: Engine) -> bool:
    """Whether a database has no tables."""
    return not inspect(engine).get_table_names()


def _run(url: URL, tool: str, *arguments: str) -> None:
    command = [check_tool(tool), "--no-password", f"--dbname={_conninfo(url)}", *arguments]
    environment = dict(os.environ)
    if url.password:
        environment["PGPASSWORD"] = str(url.password)
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise StateError(f"{tool} failed: {said[-1] if said else done.returncode}; {_REMEDY}")


def _conninfo(url: URL) -> str:
    """A SQLAlchemy URL in libpq's words, without the password."""
    named = {"user": url.username, "host": url.host, "port": url.port, "dbname": url.database}
    query = {key: value for key, value in url.query.items() if isinstance(value, str)}
    words = {key: str(value) for key, value in named.items() if value} | query
    return " ".join(f"{key}='{_quoted(value)}'" for key, value in words.items())


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
