"""Room comes back, and nothing that an artifact needs ever goes: on both databases."""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from object_stores import BLOB_KINDS

from triparty.cloud import cleaning
from triparty.common.artifacts import sign_manifest

DATABASES = ("sqlite", "postgresql")
BLOBS = BLOB_KINDS
WEEK = timedelta(days=7, hours=1)  # of a machine that may be slow


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_here(developer, data: bytes) -> bool:
    key = (developer.id, sha(data))
    blobs = developer.cloud.app.state.blobs
    return any((b.key.developer, b.key.sha256) == key for b in blobs.verified.listed())


def utc_now() -> datetime:
    """What blobs carry: the machine's time."""
    return datetime.now(UTC)


@pytest.fixture
def later(cloud):
    """Lets a week pass."""
    cloud.now = utc_now()

    def pass_by() -> None:
        cloud.now += WEEK

    return pass_by


def clean(cloud) -> dict:
    answer = cloud.request("POST", "/v1/clean", cloud.operator)
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture
def publisher(later, cloud):
    return cloud.developer()


@pytest.mark.object_server
def test_only_what_no_artifact_names_goes(cloud, publisher, later):
    other = cloud.developer("other")
    for developer in (publisher, other):
        developer.put(b"nobody's")
    publisher.publish({"config.json": b"needed"})
    other.put(b"needed")  # the same bytes, named by the other's artifact only
    header = {"Content-Range": "bytes 0-0/900"}
    publisher.request("PUT", f"/v1/blobs/{'0' * 64}", content=b"x", headers=header)
    assert clean(cloud) == {"uploads": 0, "blobs": 0, "bytes": 0}  # not old enough
    later()
    assert clean(cloud) == {"uploads": 1, "blobs": 3, "bytes": 2 * 8 + 6}
    assert is_here(publisher, b"needed")
    assert not is_here(other, b"needed")
    assert publisher.request("GET", f"/v1/blobs/{sha(b'needed')}").content == b"needed"
    assert publisher.request("HEAD", f"/v1/blobs/{'0' * 64}").status_code == 404
    assert clean(cloud) == {"uploads": 0, "blobs": 0, "bytes": 0}


def test_room_comes_back_at_once(make_cloud, slug):
    cloud = make_cloud(max_store_bytes=1000)
    cloud.now = utc_now()
    developer = cloud.developer()
    assert developer.put(b"a" * 900).status_code == 201
    assert slug(developer.put(b"b" * 900)) == "limit"
    cloud.now += WEEK
    assert clean(cloud)["bytes"] == 900
    assert developer.put(b"b" * 900).status_code == 201


def test_what_an_uploader_was_told_is_here_stays(cloud, publisher, later):
    publisher.put(b"old")
    later()
    assert publisher.request("HEAD", f"/v1/blobs/{sha(b'old')}").status_code == 200
    assert clean(cloud)["blobs"] == 0
    later()
    assert publisher.put(b"old").status_code == 201
    assert clean(cloud)["blobs"] == 0
    later()
    assert clean(cloud)["blobs"] == 1


def test_blobs_of_a_developer_unknown_to_the_database_stay(cloud, publisher, later):
    stranger = "ed25519:" + "a" * 64
    blobs = cloud.app.state.blobs
    upload = blobs.begin(stranger, sha(b"x"), start=0, total=1)
    upload.write(b"x")
    upload.finish()
    upload.close()
    later()
    assert clean(cloud)["blobs"] == 0


def test_only_the_operator_cleans(cloud, publisher, slug):
    refused = publisher.request("POST", "/v1/clean")
    assert (refused.status_code, slug(refused)) == (403, "forbidden")


@pytest.mark.parametrize("first", ["publish", "clean"])
def test_publishing_and_cleaning_exclude_each_other(
    cloud, publisher, later, monkeypatch, first
):
    """One of the two holds the developer's row; the other one waits and sees its result."""
    publisher.put(b"old")
    later()
    signed = sign_manifest(publisher.manifest({"config.json": b"old"}), publisher.publishing)
    store, blobs = cloud.app.state.database, cloud.app.state.blobs
    before_s = cloud.now.timestamp()
    inside, go_on = threading.Event(), threading.Event()
    owner, method = {
        "publish": ("triparty.cloud.publishing", "_check_blobs"),
        "clean": ("triparty.cloud.cleaning", "_unnamed"),
    }[first]
    module = importlib.import_module(owner)
    real = getattr(module, method)

    def slow(*args):
        found = real(*args)
        inside.set()
        go_on.wait(30)
        return found

    monkeypatch.setattr(module, method, slow)
    results = {}

    def publish() -> None:
        results["publish"] = publisher.post(signed).status_code

    def remove() -> None:
        # What was vouched for is left out of the question: only the row protects.
        monkeypatch.setattr(blobs, "_vouched_s", {})
        results["clean"] = cleaning.clean(store, blobs, before_s=before_s).blobs

    calls = [publish, remove] if first == "publish" else [remove, publish]
    threads = [threading.Thread(target=call) for call in calls]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive()  # it waits
    go_on.set()
    for thread in threads:
        thread.join(60)
    if first == "publish":
        assert results == {"publish": 201, "clean": 0}
        assert is_here(publisher, b"old")
    else:
        assert results == {"publish": 409, "clean": 1}  # blob-missing: upload it again
        assert publisher.put(b"old").status_code == 201
        assert publisher.post(signed).status_code == 201


def test_many_of_both(cloud, publisher, later):
    """Whatever is published has its blobs, however often it is cleaned meanwhile."""
    ended = threading.Event()
    store, blobs = cloud.app.state.database, cloud.app.state.blobs

    def keep_cleaning() -> None:
        while not ended.is_set():
            blobs._vouched_s.clear()
            cleaning.clean(store, blobs, before_s=cloud.now.timestamp() + 3600)

    thread = threading.Thread(target=keep_cleaning)
    thread.start()
    published = []
    try:
        for version in range(1, 13):
            data = os.urandom(10)
            publisher.put(data)
            manifest = publisher.manifest({"config.json": data}, version=version)
            answer = publisher.post(sign_manifest(manifest, publisher.publishing))
            assert answer.status_code in (201, 409)
            published += [data] if answer.status_code == 201 else []
    finally:
        ended.set()
        thread.join(60)
    assert all(is_here(publisher, data) for data in published)
