"""A real PostgreSQL server of the tests' own, on a socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

START_LIMIT_S = 60
STOP_LIMIT_S = 30
# Nothing of a test has to outlive the machine.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")

INITIAL = ("-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, newest version first; None where there is none."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")  # Debian keeps them off PATH
    newest_first = sorted(versions, key=lambda file: int(file.parts[-3]), reverse=True)
    return newest_first[0].parent if newest_first else None


class PostgresServer:
    """A running server; the tests make databases in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://tests@/{database}?host={self.folder}"

    def new_database(self, *, like: str = "template0", place: str = "pg_default") -> str:
        """Makes a database, empty or a copy of another one; returns its name."""
        name = f"cloud_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {like} TABLESPACE {place}")
        return name

    def drop_database(self, name: str) -> None:
        """Removes a database, whoever is still connected to it."""
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def disconnect_all(self, name: str) -> None:
        """Breaks every connection to a database."""
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
        self.run(f"{others}'{name}'")

    def run(self, statement: str) -> None:
        """Runs a statement outside any transaction."""
        with self._connected("postgres") as connection:
            connection.execute(statement.encode())

    def ask(self, query: str, *, database: str) -> Any:
        """The one value that a query finds."""
        with self._connected(database) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def _connected(self, database: str) -> psycopg.Connection[Any]:
        where = f"host={self.folder} user=tests dbname={database}"
        return psycopg.connect(where, autocommit=True)


@contextmanager
def running_postgres(programs: Path) -> Iterator[PostgresServer]:
    """Starts a server and stops it at the end; PostgreSQL refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="tpg"))  # short: a socket's path has 107 bytes
    identity = _unprivileged()
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    data, log = folder / "data", folder / "log"
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, *INITIAL],
            check=True,
            capture_output=True,
            timeout=START_LIMIT_S,
            cwd=folder,
            **identity,
        )
        options = [word for option in FAST for word in ("-c", option)]
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-h", "", *options],
                stdout=stream,
                stderr=stream,
                cwd=folder,
                **identity,
            )
        try:
            _wait_until_ready(server, folder, log)
            yield PostgresServer(folder)
        finally:
            server.send_signal(signal.SIGINT)  # "fast": ends the sessions
            try:
                server.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(STOP_LIMIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> Mapping[str, int]:
    """Under root, whom to run the server as: the package's own user, or nobody."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _wait_until_ready(server: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            psycopg.connect(f"host={folder} user=tests dbname=postgres").close()
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.05)
        else:
            return
