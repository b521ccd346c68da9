"""Blobs in an object store when that, or the disk of the cloud itself, is full."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable

import pytest
from object_stores import FaultyObjects

from triparty.cloud import blobs as blobs_module
from triparty.cloud.accounts import Principal

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
BLOBS = ("memory",)
FULL = 507


def url_of(data: bytes) -> str:
    return f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class AnsweredError(Exception):
    """As botocore's errors are."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def refusing(code: str, *, translated: bool) -> Callable[..., None]:
    """As the server's answer, or as what the driver makes of it."""

    def refuse(*_: object, **__: object) -> None:
        error = AnsweredError(code)
        if translated:
            raise OSError(errno.EIO, code) from error
        raise error

    return refuse


@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize(
    ("code", "status"),
    [("XMinioStorageFull", FULL), ("QuotaExceeded", FULL), ("SlowDown", 503)],
)
def test_a_full_object_store(cloud, developer, slug, monkeypatch, code, status, translated):
    """What was sent is kept on the cloud's disk, and goes to the store when it has room."""
    assert developer.publish(FILES).status_code == 201
    data = os.urandom(5000)
    with monkeypatch.context() as patch:
        patch.setattr(FaultyObjects, "put_file", refusing(code, translated=translated))
        refused = developer.put(data)
        assert refused.status_code == status
        assert (slug(refused) == "storage-full") == (status == FULL)
        assert developer.request("GET", url_of(data)).status_code == 404
        for content in FILES.values():
            assert developer.request("GET", url_of(content)).content == content
    cloud.restart()
    held = developer.request("HEAD", url_of(data))
    assert (held.status_code, held.headers["Range"]) == (308, "bytes=0-4999")
    end = {"Content-Range": "bytes 5000-4999/5000"}
    assert developer.request("PUT", url_of(data), headers=end).status_code == 201
    assert developer.request("GET", url_of(data)).content == data


@pytest.mark.parametrize("step", ["fsync", "open"])
def test_no_room_on_the_disk_before_the_object_store(developer, slug, monkeypatch, step):
    assert developer.publish(FILES).status_code == 201
    data = os.urandom(100)
    with monkeypatch.context() as patch:
        patch.setattr(blobs_module.os, step, no_room)
        refused = developer.put(data)
    assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
    assert developer.request("GET", url_of(data)).status_code == 404
    assert developer.put(data).status_code == 201
    assert developer.request("GET", url_of(data)).content == data


def test_no_room_to_lay_a_model_out(cloud, developer, device, slug, monkeypatch):
    developer.publish(FILES)
    developer.grant(device)
    folders = cloud.data / "models"
    principal = Principal(device.id, "device", developer.id, frozenset({"infer"}))
    with monkeypatch.context() as patch:
        patch.setattr(FaultyObjects, "get_file", no_room)
        refused = device.request("POST", "/v1/models/tiny/sessions", json={})
        assert (refused.status_code, slug(refused)) == (FULL, "storage-full")
        assert not [path for path in folders.rglob("*") if path.is_file()]
    laid_out = cloud.app.state.catalog.model_for(principal, "tiny").folder
    assert {path.name: path.read_bytes() for path in laid_out.iterdir()} == FILES
