"""Backups of a cloud on PostgreSQL, by PostgreSQL's own tools; blobs in a folder or in S3."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer, find_programs
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from triparty.cloud import pg_tools
from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.backup import BackedUp, back_up, restore
from triparty.cloud.settings import load_settings
from triparty.common.cli import app
from triparty.common.errors import StateError

DATABASES = ("postgresql",)
FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools of the server's version."""
    monkeypatch.setenv("PATH", f"{find_programs()}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def backup(cloud, tmp_path: Path) -> Any:
    """Adds a snapshot to a folder of backups."""

    def add(**options: Any) -> BackedUp:
        cloud.now += timedelta(minutes=1)
        settings = cloud.app.state.settings
        return back_up(
            cloud.data,
            tmp_path / "backups",
            database_url=settings.database_url,
            blobs=cloud.app.state.blobs,
            now=cloud.now,
            **options,
        )

    return add


def answers(cloud, developer, device) -> list[Any]:
    """What the parties read."""
    asked = [
        (developer.token, "/v1/artifacts"),
        (developer.token, "/v1/devices"),
        (developer.token, "/v1/latest"),
        (device.token, "/v1/artifacts"),
        (device.token, "/v1/latest"),
    ]
    found = [cloud.request("GET", path, token) for token, path in asked]
    assert {answer.status_code for answer in found} == {200}
    return [answer.json() for answer in found]


@pytest.mark.parametrize("blob_kind", ["disk", "s3"], indirect=True)
@pytest.mark.parametrize("place", ["folder", "store"])
def test_a_restored_cloud_answers_as_before(
    cloud, developer, device, backup, tmp_path, empty_database, blobs_url, place
):
    developer.publish(FILES)
    developer.grant(device)
    developer.put_latest()
    done = backup()
    assert (done.blobs, done.copied, done.damaged) == (3, 3, ())
    before = answers(cloud, developer, device)
    blobs = f"{blobs_url or tmp_path}/elsewhere" if place == "store" else None
    restored = tmp_path / "restored"
    restore(tmp_path / "backups", restored, database_url=empty_database, blobs=blobs)
    settings = load_settings(restored)
    assert (settings.database, settings.blobs) == (empty_database, blobs)
    assert not list(restored.glob("cloud.d*"))
    assert (place == "folder") == bool(list(restored.glob("blobs/*/??/*")))
    again = type(cloud)(restored, cloud.operator)
    again.now = cloud.now
    again.start()
    try:
        assert answers(again, developer, device) == before
        principal = Principal(device.id, "device", developer.id, SCOPES["device"])
        model = again.app.state.catalog.model_for(principal, "tiny")
        assert {f.name: f.read_bytes() for f in model.folder.iterdir()} == FILES
        developer.cloud = again
        assert developer.publish({"config.json": b"{ }"}, version=2).status_code == 201
    finally:
        again.stop()


def test_the_dump_and_the_blobs_are_of_one_moment(
    cloud, developer, backup, tmp_path, postgres, monkeypatch
):
    """What is published between the dump and the list of blobs is in neither."""
    developer.publish(FILES)
    real = pg_tools.dump

    def dump(*args, **options):
        real(*args, **options)
        assert developer.publish({"late.json": b"[1]"}, version=2).status_code == 201

    monkeypatch.setattr(pg_tools, "dump", dump)
    assert backup().blobs == 2
    monkeypatch.undo()

    def publish() -> None:
        for version in range(3, 30):
            answer = developer.publish({"f.json": os.urandom(20)}, version=version)
            assert answer.status_code == 201

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        done = [backup() for _ in range(3)]
    finally:
        thread.join()
    for number, one in enumerate(done):
        assert not one.damaged
        name = postgres.new_database()
        restore(
            tmp_path / "backups",
            tmp_path / f"r{number}",
            snapshot=one.snapshot.name,
            database_url=postgres.url(name),
        )
        artifacts = postgres.ask("SELECT count(*) FROM artifacts", database=name)
        blobs = postgres.ask("SELECT count(DISTINCT sha256) FROM artifact_blobs", database=name)
        assert (one.blobs, artifacts > 0) == (blobs, True)
        postgres.drop_database(name)


def test_without_the_tools(cloud, backup, tmp_path, empty_database, monkeypatch):
    good = backup()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StateError, match=r"'pg_dump' is not on the PATH: install"):
        backup()
    with pytest.raises(StateError, match=r"'pg_restore' is not on the PATH: install"):
        restore(tmp_path / "backups", tmp_path / "r", database_url=empty_database)
    assert not (tmp_path / "r").exists()
    assert [p.name for p in (tmp_path / "backups/snapshots").iterdir()] == [good.snapshot.name]


def test_a_tool_that_fails(backup, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pg_dump").write_text("#!/bin/sh\necho half; echo no luck >&2; exit 3\n")
    (tools / "pg_dump").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(StateError, match="pg_dump failed: no luck"):
        backup()
    assert not list((tmp_path / "backups/snapshots").iterdir())


def test_where_it_cannot_go(cloud, backup, tmp_path, empty_database):
    backup()
    url = cloud.app.state.settings.database_url
    for given, said in (
        (None, "--database"),
        ("sqlite:///x.db", "into one only"),
        (url, "has tables already"),
        (f"{empty_database}&port=1", "cannot open"),
    ):
        with pytest.raises(StateError, match=said):
            restore(tmp_path / "backups", tmp_path / "r", database_url=given)
        assert not (tmp_path / "r").exists()


def test_an_altered_dump_is_refused(backup, tmp_path, empty_database, postgres):
    file = backup().snapshot / "cloud.dump"
    assert file.stat().st_mode & 0o777 == 0o600
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StateError, match="altered"):
        restore(tmp_path / "backups", tmp_path / "r", database_url=empty_database)
    name = make_url(empty_database).database
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.ask(tables, database=name) == 0
    assert not (tmp_path / "r").exists()


def test_by_command(cloud, developer, tmp_path, empty_database):
    developer.publish(FILES)
    run = CliRunner().invoke
    made = run(
        app, ["cloud", "backup", str(tmp_path / "b"), "--data", str(cloud.data), "--json"]
    )
    assert made.exit_code == 0, made.output
    words = ["cloud", "restore", str(tmp_path / "b"), "--data", str(tmp_path / "r")]
    refused = run(app, words)
    assert refused.exit_code == 1
    assert "createdb" in str(refused.exception)
    assert run(app, [*words, "--database", empty_database]).exit_code == 0
    checked = run(app, ["cloud", "check", "--all", "--data", str(tmp_path / "r")])
    assert checked.exit_code == 0, checked.output


def test_a_password_is_not_an_argument(tmp_path, monkeypatch):
    """Other users see the arguments of a process."""
    (tmp_path / "pg_restore").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/seen; echo "$PGPASSWORD" > {tmp_path}/secret\n'
    )
    (tmp_path / "pg_restore").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    url = make_url("postgresql+psycopg://us'er:hunter2@host:77/base?sslmode=require")
    pg_tools.undump(url, tmp_path / "dump")
    seen = (tmp_path / "seen").read_text()
    assert "hunter2" not in seen
    for word in (r"user='us\'er'", "host='host'", "port='77'", "dbname='base'", "sslmode="):
        assert word in seen
    assert (tmp_path / "secret").read_text() == "hunter2\n"
