"""A full disk: 507, nothing acknowledged is lost, and the service goes on with room."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from triparty.cloud import blobs as blobs_module
from triparty.cloud import catalog as catalog_module
from triparty.cloud.accounts import Principal
from triparty.cloud.full_storage import is_storage_full

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
MORE = {"config.json": b"{}", "model.safetensors": b"heavier weights"}
FULL = 507


def no_room(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """How many bytes blobs may still take."""

    room = 1 << 40


class BoundedFile(FileIO):
    """Writes what there is room for, as the kernel does, then fails."""

    def write(self, data: Any) -> int:
        if not Disk.room:
            no_room()
        written = super().write(data[: Disk.room])
        Disk.room -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> type[Disk]:
    monkeypatch.setattr(blobs_module, "FileIO", BoundedFile)
    monkeypatch.setattr(Disk, "room", 1 << 40)
    return Disk


def url_of(sha256: str) -> str:
    return f"/v1/blobs/{sha256}"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_no_room_for_a_blob(developer, disk, slug) -> None:
    assert developer.publish(FILES).status_code == 201
    data = os.urandom(5000)
    disk.room = 3000
    refused = developer.put(data)
    assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
    held = developer.request("HEAD", url_of(sha(data)))
    assert (held.status_code, held.headers["Range"]) == (308, "bytes=0-2999")
    assert developer.request("GET", url_of(sha(data))).status_code == 404
    for name in FILES.values():
        assert developer.request("GET", url_of(sha(name))).content == name
    disk.room = 1 << 40
    rest = {"Content-Range": "bytes 3000-4999/5000"}
    path = url_of(sha(data))
    done = developer.request("PUT", path, content=data[3000:], headers=rest)
    assert done.status_code == 201
    assert developer.request("GET", path).content == data


@pytest.mark.parametrize("step", ["fsync", "replace", "mkdir", "open"])
def test_no_room_at_a_step_of_an_upload(developer, slug, monkeypatch, step) -> None:
    assert developer.publish(FILES).status_code == 201
    data = os.urandom(100)
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, step, no_room)
        refused = developer.put(data)
    assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
    assert developer.request("GET", url_of(sha(data))).status_code == 404
    assert developer.put(data).status_code == 201
    assert developer.request("GET", url_of(sha(data))).content == data


def test_what_was_not_synced_does_not_count(developer, monkeypatch) -> None:
    """After a failed sync the next one may claim success over lost bytes."""
    data = os.urandom(100)
    half = {"Content-Range": "bytes 0-49/100"}
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, "fsync", no_room)
        refused = developer.request("PUT", url_of(sha(data)), content=data[:50], headers=half)
    assert refused.status_code == FULL
    assert developer.request("HEAD", url_of(sha(data))).status_code == 404


def test_an_upload_that_failed_gives_its_room_back(make_cloud, monkeypatch) -> None:
    developer = make_cloud(max_store_bytes=100).developer()
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, "fsync", no_room)
        assert developer.put(b"a" * 90).status_code == FULL
    assert developer.put(b"b" * 90).status_code == 201


@pytest.fixture
def full_database(cloud) -> Iterator[Callable[[], None]]:
    """Makes the database take no further page, or any number again."""
    engine = cloud.app.state.database.engine
    most = 1 << 30

    def bound(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}").close()

    def fill(*, is_full: bool = True) -> None:
        nonlocal most
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        most = pages if is_full else 1 << 30

    event.listen(engine, "checkout", bound)
    yield fill
    event.remove(engine, "checkout", bound)


def test_no_room_in_the_database(cloud, developer, device, slug, full_database) -> None:
    assert developer.publish(FILES).status_code == 201
    assert developer.put_latest(sequence=1).status_code == 204
    before = developer.request("GET", "/v1/artifacts").json()
    full_database()
    published = 0
    for version in range(2, 40):  # until the free space of the last pages is used up
        answer = developer.publish(MORE, version=version)
        if answer.status_code != 201:
            break
        published += 1
    assert (answer.status_code, slug(answer)) == (FULL, "storage-full")
    shown = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(shown) == 1 + published
    assert before["artifacts"][0] in shown
    assert developer.request("GET", "/v1/latest").status_code == 200
    full_database(is_full=False)
    assert developer.publish(MORE, version=version).status_code == 201
    assert developer.put_latest(sequence=2).status_code == 204
    cloud.restart()
    shown = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(shown) == 2 + published


def test_no_room_to_lay_a_model_out(developer, device, slug, monkeypatch, cloud) -> None:
    developer.publish(FILES)
    developer.grant(device)
    folders = cloud.data / "models"

    def other_file_system(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    with monkeypatch.context() as patch:
        patch.setattr(catalog_module.os, "link", other_file_system)
        patch.setattr(catalog_module.shutil, "copyfile", no_room)
        refused = device.request("POST", "/v1/models/tiny/sessions", json={})
        assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
        assert not [path for path in folders.rglob("*") if path.is_file()]
    scopes = frozenset({"infer"})
    again = Principal(device.id, "device", developer.id, scopes)
    laid_out = cloud.app.state.catalog.model_for(again, "tiny").folder
    assert {path.name: path.read_bytes() for path in laid_out.iterdir()} == FILES


def test_other_failures_are_not_a_full_disk(developer, slug, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, "fsync", broken)
        refused = developer.put(b"data")
    assert refused.status_code == 500
    driver = sqlite3.OperationalError("database is locked")
    driver.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert not is_storage_full(OperationalError("", {}, driver))
    assert not is_storage_full(ValueError())


def test_postgresql_says_it_by_its_code() -> None:
    class DiskFullError(Exception):
        sqlstate = "53100"

    assert is_storage_full(OperationalError("", {}, DiskFullError()))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "cloud0"  # of the first that `make_cloud` makes
    folder.mkdir()
    size = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a file system")
    mounted = subprocess.run(["mount", *size], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_real_full_disk(tiny_disk: Path, make_cloud, slug) -> None:
    cloud = make_cloud()
    assert cloud.data == tiny_disk
    developer = cloud.developer()
    device = developer.device()
    assert developer.publish(FILES).status_code == 201
    kept = os.urandom(200_000)
    assert developer.put(kept).status_code == 201
    refused = developer.put(os.urandom(3 << 20))
    assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
    last = 1
    while (answer := developer.publish(FILES, version=last + 1)).status_code == 201:
        last += 1
    assert (answer.status_code, slug(answer)) == (FULL, "storage-full")
    assert developer.request("GET", url_of(sha(kept))).content == kept
    shown = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(shown) == last
    cloud.stop()
    (held,) = tiny_disk.glob("blobs/*/partial/*")
    held.unlink()  # the operator makes room
    cloud.start()
    assert developer.publish(FILES, version=last + 1).status_code == 201
    assert developer.grant(device).status_code == 201
    assert developer.put(os.urandom(500_000)).status_code == 201
    shown = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(shown) == last + 2
    assert developer.request("GET", url_of(sha(kept))).content == kept
