"""Where the clouds of a test keep rows and blobs: databases and buckets of their own."""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from object_stores import S3Server
from postgres_server import PostgresServer
from sqlalchemy.engine import make_url

from triparty.cloud.blob_stores import open_blob_store
from triparty.cloud.blobs import VerifiedBlobs
from triparty.cloud.initialise import config_text, initialise
from triparty.cloud.settings import CONFIG_FILE, load_settings


@dataclass
class CloudStorage:
    """SQLite and a folder, unless a server is given."""

    postgres: PostgresServer | None = None
    bucket: str | None = None
    _databases: list[str] = field(default_factory=list)

    def new_cloud(self, data: Path) -> str:
        """Makes a cloud's folder; returns its operator token."""
        database = self._new_database() if self.postgres else None
        token = initialise(data, database=database, now=datetime.now(UTC)).token
        self._configure(data, blobs=self._new_blobs())
        return token

    def part(self, data: Path) -> None:
        """Gives the copy of a stopped cloud's folder a copy of its rows, and no blobs."""
        settings = load_settings(data)
        database = settings.database
        if database is not None:
            database = self._new_database(like=str(make_url(database).database))
        self._configure(data, database=database, blobs=self._new_blobs())

    def drop(self, data: Path) -> None:
        """Removes the database of a cloud that will not be started again."""
        database = load_settings(data).database
        if self.postgres and database:
            self.postgres.drop_database(str(make_url(database).database))

    def _new_database(self, *, like: str = "template0") -> str:
        assert self.postgres
        self._databases.append(self.postgres.new_database(like=like))
        return self.postgres.url(self._databases[-1])

    def _new_blobs(self) -> str | None:
        return self.bucket and f"{self.bucket}/{secrets.token_hex(6)}"

    def _configure(self, data: Path, **values: str | None) -> None:
        file = data / CONFIG_FILE
        found = tomllib.loads(file.read_text())
        file.write_text(config_text(found | values))

    def close(self) -> None:
        """Drops all databases."""
        for name in self._databases:
            assert self.postgres
            self.postgres.drop_database(name)


def verified_blobs(data: Path) -> VerifiedBlobs:
    """The blobs of a cloud, past the cloud."""
    return open_blob_store(load_settings(data)).verified


@contextmanager
def cloud_storage(kind: str, request: pytest.FixtureRequest) -> Iterator[CloudStorage]:
    """The storage of a kind such as `sqlite+disk` or `postgresql+s3`."""
    database, _, blobs = kind.partition("+")
    postgres = request.getfixturevalue("postgres") if database == "postgresql" else None
    with pytest.MonkeyPatch.context() as patch:
        bucket = None
        if blobs == "s3":
            server: S3Server = request.getfixturevalue("s3")
            bucket = server.new_bucket(patch)
        storage = CloudStorage(postgres, bucket)
        try:
            yield storage
        finally:
            storage.close()
