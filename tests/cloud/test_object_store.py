"""Blobs in an object store that fails, loses objects and changes them."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

import httpx
import pytest
from object_stores import FaultyObjects

from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.blob_room import PROMISE_S
from triparty.cloud.object_blobs import open_object_blobs
from triparty.common.errors import SettingsError, UnavailableError

BLOBS = ("memory",)
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/extra.json": b"[]"}


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def data() -> bytes:
    return os.urandom(100_000)


@pytest.fixture
def url(data):
    return f"/v1/blobs/{sha_of(data)}"


def check_503(answer: httpx.Response, slug) -> None:
    assert (answer.status_code, slug(answer)) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "StoreDown" not in answer.text


@pytest.mark.parametrize("late", [False, True])
def test_a_store_that_takes_nothing_loses_nothing(cloud, developer, data, url, slug, late):
    with FaultyObjects.failing_at("put_file", late=late):
        check_503(developer.put(data), slug)
    head = developer.request("HEAD", url)
    if late:  # the object is there, only its answer was lost
        assert head.status_code == 200
    else:
        assert (head.status_code, head.headers["Range"]) == (308, "bytes=0-99999")
        assert not FaultyObjects.names()
    cloud.restart()
    header = {"Content-Range": "bytes 100000-99999/100000"}
    assert developer.request("PUT", url, headers=header).status_code == 201
    assert developer.request("GET", url).content == data


@pytest.mark.parametrize("operation", ["info", "find"])
def test_a_store_that_does_not_answer(developer, data, url, slug, operation):
    with FaultyObjects.failing_at(operation):
        check_503(developer.put(data), slug)
    assert developer.put(data).status_code == 201
    with FaultyObjects.failing_at("info"):
        check_503(developer.request("GET", url), slug)
        assert developer.request("HEAD", url).status_code == 503
    assert developer.request("GET", url).content == data


def test_an_object_is_visible_whole_or_not_at_all(cloud, developer, data, url, monkeypatch):
    """Nobody reads the blob while it is on its way to the store."""
    seen = []
    real = FaultyObjects.put_file

    def put(self, *args, **kwargs):
        seen.append(developer.request("HEAD", url).status_code)
        seen.append(developer.request("GET", url).status_code)
        again = developer.request("PUT", url, content=data)
        seen.append((again.status_code, again.headers.get("Retry-After")))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(FaultyObjects, "put_file", put)
    assert developer.put(data).status_code == 201
    assert seen == [308, 404, (503, "2")]
    assert not list(cloud.data.glob("blobs/*/partial/*"))


def test_killed_between_the_store_and_the_disk(cloud, developer, data, url, monkeypatch):
    """The object is there, the upload's file too: the next upload is done at once."""
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: 1 / 0)
    header = {"Content-Range": "bytes 0-99999/100000"}
    assert developer.request("PUT", url, content=data, headers=header).status_code == 500
    monkeypatch.undo()
    assert list(cloud.data.glob("blobs/*/partial/*"))
    assert developer.put(data).status_code == 201
    assert developer.request("GET", url).content == data


def granted(developer, device) -> Principal:
    assert developer.publish(FILES).status_code == 201
    assert developer.grant(device).status_code == 201
    return Principal(device.id, "device", developer.id, SCOPES["device"])


def test_a_model_is_downloaded_for_the_engine(cloud, developer, device, slug):
    principal = granted(developer, device)
    with FaultyObjects.failing_at("get_file"), pytest.raises(UnavailableError, match="answer"):
        cloud.app.state.catalog.model_for(principal, "tiny")
    model = cloud.app.state.catalog.model_for(principal, "tiny")
    found = {
        str(path.relative_to(model.folder)): path.read_bytes()
        for path in model.folder.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert not list(model.folder.parent.glob(".*"))


def name_of(data: bytes) -> str:
    return next(name for name in FaultyObjects.names() if name.endswith(sha_of(data)))


@pytest.mark.parametrize("change", [None, b"WEIGHTS", b"weigh"])
def test_what_became_of_an_object_is_named(cloud, developer, device, change, caplog):
    principal = granted(developer, device)
    FaultyObjects.change(name_of(b"weights"), change)
    with pytest.raises(UnavailableError, match=r"'tiny'.*publish it again"):
        cloud.app.state.catalog.model_for(principal, "tiny")
    (record,) = [r for r in caplog.records if "a blob is" in r.message]
    assert ("missing" if change is None else "altered") in record.message
    assert (record.model, record.version, record.kind) == ("tiny", 1, "model")
    assert record.blob == sha_of(b"weights")
    assert developer.put(b"weights").status_code == 201  # what was altered is out of the way
    assert cloud.app.state.catalog.model_for(principal, "tiny").version == 1


def test_a_lost_object_cannot_be_published(developer, slug):
    developer.put(b"{}")
    FaultyObjects.change(name_of(b"{}"), None)
    assert developer.request("GET", f"/v1/blobs/{sha_of(b'{}')}").status_code == 404
    assert developer.put(b"{}").status_code == 201


def test_credentials_stay_out():
    with pytest.raises(SettingsError) as caught:
        open_object_blobs("s3://key:hunter2@bucket/x")
    assert "hunter2" not in caught.value.message
    for url in ("ftp://x", "memory://x", "github://x", "S3://x"):
        with pytest.raises(SettingsError, match="expected a folder"):
            open_object_blobs(url)


def test_a_driver_that_is_not_installed():
    with pytest.raises(SettingsError, match="adlfs"):
        open_object_blobs("az://container/x")


def test_announced_room_is_given_back(make_cloud, slug):
    cloud = make_cloud(max_store_bytes=1000)
    developer = cloud.developer()
    header = {"Content-Range": "bytes 0-9/900"}
    url = f"/v1/blobs/{'0' * 64}"
    assert developer.request("PUT", url, content=b"x" * 10, headers=header).status_code == 308
    assert slug(developer.put(b"a" * 500)) == "limit"
    cloud.now += timedelta(seconds=PROMISE_S)
    assert developer.put(b"a" * 500).status_code == 201
    assert slug(developer.put(b"b" * 491)) == "limit"  # the ten bytes held count
    assert developer.put(b"b" * 490).status_code == 201
    go_on = {"Content-Range": "bytes 10-19/900"}
    refused = developer.request("PUT", url, content=b"x" * 10, headers=go_on)
    assert slug(refused) == "limit"  # it asks for its room anew


def test_an_object_that_came_out_short_is_no_blob(
    cloud, developer, data, url, slug, monkeypatch
):
    """A driver that loses bytes without an error: what was sent is kept, and goes again."""
    real = FaultyObjects.put_file

    def put_half(self, source, target, **kwargs):
        self.pipe_file(target, data[:50])

    with monkeypatch.context() as patch:
        patch.setattr(FaultyObjects, "put_file", put_half)
        check_503(developer.put(data), slug)
    assert FaultyObjects.put_file is real
    assert not FaultyObjects.names()
    header = {"Content-Range": "bytes 100000-99999/100000"}
    assert developer.request("PUT", url, headers=header).status_code == 201
    assert developer.request("GET", url).content == data
