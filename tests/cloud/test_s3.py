"""A whole cloud whose blobs are in an S3 server: what its parties and operator need."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.backup import back_up, restore
from triparty.common.cli import app

BLOBS = ("s3",)
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 50_000}
SEALED = b"sealed to "


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def granted(developer, device) -> Principal:
    assert developer.publish(FILES).status_code == 201
    assert developer.grant(device).status_code == 201
    return Principal(device.id, "device", developer.id, SCOPES["device"])


@pytest.fixture
def bucket(cloud):
    """The objects, past the cloud."""
    root = cloud.app.state.settings.blobs
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)

    class Bucket:
        def names(self) -> set[str]:
            return {name.rpartition("/")[2] for name in filesystem.find(root)}

        def path(self, data: bytes) -> str:
            return next(n for n in filesystem.find(root) if n.endswith(sha(data)))

        def alter(self, data: bytes, to: bytes) -> None:
            filesystem.pipe_file(self.path(data), to)

        def remove(self, data: bytes) -> None:
            filesystem.rm_file(self.path(data))

    return Bucket()


def test_published_pulled_and_served(cloud, developer, device, granted, bucket) -> None:
    assert bucket.names() == {sha(d) for d in (*FILES.values(), SEALED + device.id.encode())}
    assert not list(cloud.data.glob("blobs/*/partial/*"))
    sealed = f"/v1/blobs/{sha(SEALED + device.id.encode())}"
    head = device.request("HEAD", sealed)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(10 + len(device.id)))
    part = device.request("GET", sealed, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, SEALED[2:6])
    assert device.request("GET", f"/v1/blobs/{sha(b'{}')}").status_code == 404
    model = cloud.app.state.catalog.model_for(granted, "tiny")
    assert {file.name: file.read_bytes() for file in model.folder.iterdir()} == FILES


def test_a_restarted_cloud_finds_its_objects(cloud, developer, device, granted) -> None:
    shutil.rmtree(cloud.data / "models")
    cloud.restart()
    for data in FILES.values():
        assert developer.request("GET", f"/v1/blobs/{sha(data)}").content == data
        assert developer.put(data).status_code == 201
    assert cloud.app.state.catalog.model_for(granted, "tiny").version == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["missing", "altered"])
def test_what_became_of_an_object_is_named(cloud, granted, bucket, change) -> None:
    """By the operator's command, in a process that opens the store by itself."""
    damaged = FILES["model.safetensors"]
    arguments = ["cloud", "check", "--all", "--data", str(cloud.data), "--json"]
    arguments += ["--blobs", cloud.app.state.settings.blobs]
    run: Callable[..., object] = CliRunner().invoke
    assert run(app, arguments).exit_code == 0
    if change == "missing":
        bucket.remove(damaged)
    else:
        bucket.alter(damaged, damaged[:-1] + b"S")
    found = run(app, [*arguments, "--set-aside"])
    assert found.exit_code == 1
    (line,) = json.loads(found.stdout.splitlines()[0])["damage"]
    assert change in line
    assert sha(damaged) in line
    developer = granted.developer
    assert cloud.app.state.blobs.held(developer, sha(damaged)) is None


@pytest.mark.slow
def test_an_altered_object_is_uploaded_again(cloud, developer, granted, bucket) -> None:
    bucket.alter(FILES["model.safetensors"], b"x" * len(FILES["model.safetensors"]))
    with pytest.raises(Exception, match="damaged"):
        cloud.app.state.catalog.model_for(granted, "tiny")
    assert developer.put(FILES["model.safetensors"]).status_code == 201
    assert cloud.app.state.catalog.model_for(granted, "tiny").version == 1


@pytest.mark.slow
def test_objects_of_no_artifact_are_removed(cloud, developer, granted, bucket) -> None:
    needed = bucket.names()
    assert developer.put(b"of no artifact").status_code == 201
    assert bucket.names() == needed | {sha(b"of no artifact")}
    cloud.now = datetime.now(UTC) + timedelta(days=8)
    token = cloud.fresh_operator()
    cleaned = cloud.request("POST", "/v1/clean", token)
    assert cleaned.json() == {"uploads": 0, "blobs": 1, "bytes": 14}
    assert bucket.names() == needed


@pytest.mark.slow
@pytest.mark.parametrize("lost", [True, False])
def test_backed_up_and_restored(cloud, developer, device, tmp_path: Path, lost: bool) -> None:
    """Also when the bucket is gone with the cloud."""
    assert developer.publish(FILES).status_code == 201
    assert developer.grant(device).status_code == 201
    settings = cloud.app.state.settings
    done = back_up(
        cloud.data,
        tmp_path / "backups",
        database_url=settings.database_url,
        blobs=cloud.app.state.blobs,
        now=cloud.now,
    )
    assert (done.blobs, done.copied, done.damaged) == (3, 3, ())
    root = settings.blobs
    if lost:
        fsspec.filesystem("s3", skip_instance_cache=True).rm(root, recursive=True)
    restore(tmp_path / "backups", tmp_path / "restored")
    cloud.stop()
    again = type(cloud)(tmp_path / "restored", cloud.operator).start()
    try:
        again.now = cloud.now
        for data in FILES.values():
            answer = again.request("GET", f"/v1/blobs/{sha(data)}", developer.token)
            assert answer.content == data
    finally:
        again.stop()
        cloud.start()
