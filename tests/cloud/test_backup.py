"""Backups are consistent, whole or absent; what is restored answers as before."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest

from triparty.cloud import backup as module
from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.backup import back_up, restore
from triparty.cloud.settings import load_settings
from triparty.common.errors import StateError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


class Backups:
    """A folder of backups of one cloud."""

    def __init__(self, cloud, folder):
        self.cloud = cloud
        self.folder = folder
        self.now = NOW

    def add(self, **options):
        self.now += timedelta(minutes=1)
        return back_up(
            self.cloud.data,
            self.folder,
            database_url=self.cloud.app.state.settings.database_url,
            blobs=self.cloud.app.state.blobs,
            now=self.now,
            **options,
        )

    def restored(self, data, **options):
        """The same parties before a cloud made of the backup."""
        restore(self.folder, data, **options)
        again = type(self.cloud)(data, self.cloud.operator)
        again.now = self.cloud.now
        return again.start()


@pytest.fixture
def backups(cloud, tmp_path):
    return Backups(cloud, tmp_path / "backups")


@pytest.fixture
def restored(backups, tmp_path):
    """Restores into new folders; stops what it started."""
    running = []

    def make(**options):
        running.append(backups.restored(tmp_path / f"restored{len(running)}", **options))
        return running[-1]

    yield make
    for cloud in running:
        cloud.stop()


def answers(cloud, developer, device):
    """What the parties read."""
    asked = [
        (developer.token, "/v1/artifacts"),
        (developer.token, "/v1/devices"),
        (developer.token, "/v1/latest"),
        (device.token, "/v1/artifacts"),
        (device.token, "/v1/latest"),
        (cloud.operator, "/v1/status"),
    ]
    found = [cloud.request("GET", path, token) for token, path in asked]
    assert {answer.status_code for answer in found} == {200}
    return [answer.json() for answer in found]


def test_a_restored_cloud_answers_as_before(cloud, developer, device, backups, restored):
    developer.publish(FILES)
    developer.grant(device)
    developer.put_latest()
    developer.put(b"of no artifact")
    done = backups.add()
    assert (done.blobs, done.copied, done.damaged) == (3, 3, ())
    before = answers(cloud, developer, device)
    again = restored()
    for status in (before[5], (after := answers(again, developer, device))[5]):
        del status["blob_bytes"]  # the blob of no artifact was not kept
    assert after == before
    principal = Principal(device.id, "device", developer.id, SCOPES["device"])
    model = again.app.state.catalog.model_for(principal, "tiny")
    assert {f.name: f.read_bytes() for f in model.folder.iterdir()} == FILES
    sealed = developer.manifest({"x.json": b"sealed to " + device.id.encode()}).files[0].sha256
    blob = again.request("GET", f"/v1/blobs/{sealed}", device.token)
    assert blob.content == b"sealed to " + device.id.encode()
    developer.cloud = again
    assert developer.publish({"config.json": b"{ }"}, version=2).status_code == 201


def test_nobody_else_reads_a_backup(cloud, developer, backups):
    developer.publish(FILES)
    snapshot = backups.add().snapshot
    assert stat.S_IMODE(backups.folder.stat().st_mode) == 0o700
    for file in snapshot.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_the_second_backup_copies_what_is_new(cloud, developer, backups, restored):
    developer.publish(FILES)
    first = backups.add()
    developer.publish({"config.json": b"{}", "more.json": b"[]"}, version=2)
    second = backups.add()
    assert (second.blobs, second.copied) == (3, 1)
    versions = [
        len(answer.json()["artifacts"])
        for answer in (
            restored(snapshot=first.snapshot.name).request(
                "GET", "/v1/artifacts", developer.token
            ),
            restored().request("GET", "/v1/artifacts", developer.token),
        )
    ]
    assert versions == [1, 2]


def test_a_backup_shares_no_bytes_with_the_cloud(cloud, developer, backups):
    developer.publish(FILES)
    backups.add()
    for file in (*backups.folder.glob("blobs/*/??/*"), *cloud.data.glob("blobs/*/??/*")):
        assert file.stat().st_nlink == 1


def test_publishing_goes_on_during_backups(cloud, developer, backups, tmp_path):
    """Every snapshot holds all blobs of all its artifacts."""
    ended = threading.Event()
    published = []

    def publish() -> None:
        while not ended.is_set():
            version = len(published) + 1
            assert developer.publish({"f.json": os.urandom(20)}, version=version).is_success
            published.append(version)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        done = [backups.add() for _ in range(5)]
    finally:
        ended.set()
        thread.join()
    assert all(not one.damaged for one in done)
    for number, one in enumerate(done):
        restore(backups.folder, tmp_path / f"r{number}", snapshot=one.snapshot.name)


@pytest.mark.parametrize("step", ["copy_sqlite", "_copy_files", "copy_blob", "write_private"])
def test_a_cut_backup_is_none(cloud, developer, backups, tmp_path, monkeypatch, step):
    developer.publish(FILES)
    first = backups.add()
    developer.publish({"config.json": b"{ }"}, version=2)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, cut)
        patch.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # as after SIGKILL
        with pytest.raises(KeyboardInterrupt):
            backups.add()
    assert restore(backups.folder, tmp_path / "restored") == first.snapshot
    assert not backups.add().damaged
    assert restore(backups.folder, tmp_path / "again") != first.snapshot


def test_there_is_no_backup(tmp_path):
    for name in (None, "20260102T030405Z"):
        with pytest.raises(StateError, match="no whole snapshot"):
            restore(tmp_path, tmp_path / "data", snapshot=name)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("what", ["cloud.db", "blob", "gone", "backup.json", "format"])
def test_an_altered_backup_is_refused(cloud, developer, backups, tmp_path, what):
    developer.publish(FILES)
    snapshot = backups.add().snapshot
    blob = next(backups.folder.glob("blobs/*/??/*"))
    document = snapshot / "backup.json"
    if what == "blob":
        blob.write_bytes(bytes(blob.stat().st_size))
    elif what == "gone":
        blob.unlink()
    elif what == "format":
        document.write_text(json.dumps(json.loads(document.read_text()) | {"format": 2}))
    elif what == "backup.json":
        document.write_text("{")
    else:
        content = bytearray((snapshot / what).read_bytes())
        content[-1] ^= 1
        (snapshot / what).write_bytes(content)
    with pytest.raises(StateError):
        restore(backups.folder, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_altered_blob_of_a_backup_is_replaced(cloud, developer, backups, tmp_path):
    developer.publish(FILES)
    backups.add()
    blob = next(backups.folder.glob("blobs/*/??/*"))
    blob.write_bytes(bytes(blob.stat().st_size))
    assert backups.add().copied == 0  # its size is right
    assert backups.add(reads_all=True).copied == 1
    restore(backups.folder, tmp_path / "data")


def test_what_the_cloud_lost_is_named_and_the_rest_saved(cloud, developer, backups, restored):
    developer.publish(FILES)
    developer.publish({"other.json": b"[]"}, name="other")
    lost = next(p for p in cloud.data.glob("blobs/*/??/*") if p.read_bytes() == b"weights")
    lost.write_bytes(b"WEIGHTS")
    done = backups.add()
    assert [key.sha256 for key in done.damaged] == [lost.name]
    again = restored()
    listed = again.request("GET", "/v1/artifacts", developer.token).json()["artifacts"]
    assert len(listed) == 2
    assert again.request("GET", f"/v1/blobs/{lost.name}", developer.token).status_code == 404


def test_a_damaged_database_is_not_backed_up(cloud, developer, backups):
    developer.publish(FILES)
    good = backups.add()
    cloud.stop()
    file = cloud.data / "cloud.db"
    content = bytearray(file.read_bytes())
    at = content.index(b'"name":"tiny"') // 4096 * 4096
    content[at : at + 4096] = b"\xde" * 4096
    file.write_bytes(content)
    cloud.start()
    with pytest.raises(StateError, match="damaged"):
        backups.add()
    assert [p.name for p in (backups.folder / "snapshots").iterdir()] == [good.snapshot.name]


def test_a_restored_cloud_lives_in_its_folder(make_cloud, tmp_path, monkeypatch):
    cloud = make_cloud()
    (cloud.data / "cloud.toml").write_text(
        (cloud.data / "cloud.toml").read_text()
        + f'database = "sqlite:///{cloud.data}/cloud.db"\n'
        + f'blobs = "{cloud.data}/blobs"\nmax_sessions = 7\ntoken_days = 1.5\n'
    )
    backups = Backups(cloud, tmp_path / "backups")
    backups.add()
    restore(backups.folder, tmp_path / "data")
    settings = load_settings(tmp_path / "data")
    assert (settings.database, settings.blobs) == (None, None)
    assert (settings.max_sessions, settings.token_days) == (7, 1.5)


def test_a_folder_in_use_is_left_alone(cloud, backups, tmp_path):
    backups.add()
    for data in (cloud.data, tmp_path):
        with pytest.raises(StateError, match="not empty"):
            restore(backups.folder, data)
    (tmp_path / "empty").mkdir()
    restore(backups.folder, tmp_path / "empty")
