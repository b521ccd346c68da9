"""A full PostgreSQL: 507, nothing acknowledged is lost, and the service goes on with room."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer

from triparty.common.errors import StorageFullError

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
FULL = 507
TABLESPACE = "tiny"


def url_of(data: bytes) -> str:
    return f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def tiny_tablespace(postgres: PostgresServer) -> Iterator[Path]:
    """A PostgreSQL tablespace on a file system of its own, of a few megabytes."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a file system")
    folder = postgres.folder / TABLESPACE
    folder.mkdir()
    size = ["-t", "tmpfs", "-o", "size=13m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *size], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    try:
        owner = postgres.folder.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        postgres.run(f"CREATE TABLESPACE {TABLESPACE} LOCATION '{folder}'")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def new_database(
    postgres: PostgresServer, tiny_tablespace: Path
) -> Iterator[Callable[[], str]]:
    """The database of a new cloud is there."""
    name = postgres.new_database(place=TABLESPACE)
    yield lambda: postgres.url(name)
    postgres.drop_database(name)
    postgres.run(f"DROP TABLESPACE {TABLESPACE}")


def test_a_real_full_postgresql(tiny_tablespace: Path, cloud, developer, device, slug) -> None:
    """Nothing acknowledged is lost, what is stored is read, and with room it goes on."""
    ballast = tiny_tablespace / "ballast"
    assert developer.publish(FILES).status_code == 201
    assert developer.put_latest(sequence=1).status_code == 204
    room = os.statvfs(tiny_tablespace)
    ballast.write_bytes(bytes(room.f_bavail * room.f_bsize))
    last = 1
    while (answer := developer.publish(FILES, version=last + 1)).status_code == 201:
        last += 1
        assert last < 1000
    assert (answer.status_code, slug(answer)) == (FULL, "storage-full")
    assert len(developer.request("GET", "/v1/artifacts").json()["artifacts"]) == last
    assert developer.request("GET", "/v1/latest").status_code == 200
    for content in FILES.values():
        assert developer.request("GET", url_of(content)).content == content
    with pytest.raises(StorageFullError), cloud.app.state.database.writing() as session:
        session.connection().exec_driver_sql("CREATE TABLE t AS SELECT 1 AS x")
    ballast.unlink()
    assert developer.publish(FILES, version=last + 1).status_code == 201
    assert developer.grant(device).status_code == 201
    assert developer.put_latest(sequence=2).status_code == 204
    cloud.restart()
    shown = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(shown) == last + 2
