"""Blobs: resumable, verified, apart."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from object_stores import BLOB_KINDS

from triparty.cloud.blob_room import BlobQuota, Usage
from triparty.cloud.blob_stores import open_blob_store
from triparty.cloud.blobs import BlobStore
from triparty.cloud.settings import CloudSettings
from triparty.common.errors import (
    ConflictError,
    DigestError,
    NotFoundError,
    RequestError,
    UnavailableError,
)

BLOBS = BLOB_KINDS
DEVELOPER = "ed25519:" + "a" * 64


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path, blobs_url: str | None) -> BlobStore:
    settings = CloudSettings(
        data=tmp_path, blobs=blobs_url, max_blob_bytes=1 << 20, max_store_bytes=4 << 20
    )
    return open_blob_store(settings)


def content(store: BlobStore, sha256: str) -> bytes:
    return b"".join(store.read(DEVELOPER, sha256, 0, store.size(DEVELOPER, sha256)))


@pytest.fixture
def data() -> bytes:
    return os.urandom(10_000)


@pytest.fixture
def url(data) -> str:
    return f"/v1/blobs/{sha(data)}"


def part(data: bytes, first: int, last: int) -> dict:
    return {
        "content": data[first : last + 1],
        "headers": {"Content-Range": f"bytes {first}-{last}/{len(data)}"},
    }


@pytest.mark.object_server
def test_whole_blob(developer, data, url):
    assert developer.request("HEAD", url).status_code == 404
    answer = developer.put(data)
    assert answer.status_code == 201
    assert answer.json() == {"sha256": sha(data), "size": len(data)}
    head = developer.request("HEAD", url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "10000")
    assert developer.request("GET", url).content == data
    assert developer.put(data).status_code == 201  # again: nothing to do


def test_an_empty_blob(developer):
    assert developer.put(b"").status_code == 201
    url = f"/v1/blobs/{sha(b'')}"
    assert developer.request("GET", url).content == b""
    again = developer.request("PUT", url, headers={"Content-Range": "bytes */0"})
    assert again.status_code == 201


@pytest.mark.object_server
def test_resumed_after_a_cut(cloud, developer, data, url):
    first = developer.request("PUT", url, **part(data, 0, 3999))
    assert (first.status_code, first.headers["Range"]) == (308, "bytes=0-3999")
    cloud.restart()
    head = developer.request("HEAD", url)
    assert (head.status_code, head.headers["Range"]) == (308, "bytes=0-3999")
    assert developer.request("GET", url).status_code == 404  # half a blob is no blob
    second = developer.request("PUT", url, **part(data, 4000, 9998))
    assert second.status_code == 308
    assert developer.request("PUT", url, **part(data, 9999, 9999)).status_code == 201
    assert developer.request("GET", url).content == data


@pytest.mark.parametrize("first", [0, 3999, 4001, 9999])
def test_only_the_next_byte_goes_on(developer, data, url, slug, first):
    developer.request("PUT", url, **part(data, 0, 3999))
    refused = developer.request("PUT", url, **part(data, first, 9999))
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    assert refused.headers["Range"] == "bytes=0-3999"


def test_everything_held_but_not_verified(cloud, developer, data, url):
    """What a cloud that dies between the last byte and the hash leaves behind."""
    developer.request("PUT", url, **part(data, 0, 3999))
    (partial,) = cloud.data.glob("blobs/*/partial/*")
    partial.write_bytes(data)
    cloud.restart()
    assert developer.request("HEAD", url).headers["Range"] == "bytes=0-9999"
    assert developer.request("GET", url).status_code == 404
    header = {"Content-Range": "bytes 10000-9999/10000"}
    assert developer.request("PUT", url, headers=header).status_code == 201
    assert developer.request("GET", url).content == data


def test_more_held_than_the_blob_has(developer, data, url):
    developer.request("PUT", url, **part(data + b"more", 0, 10_001))
    refused = developer.request("PUT", url, headers={"Content-Range": "bytes 10000-9999/10000"})
    assert refused.status_code == 409
    assert "Range" not in refused.headers
    assert developer.request("PUT", url, **part(data, 0, 9999)).status_code == 201


def test_without_a_range_an_upload_starts_over(developer, data, url):
    developer.request("PUT", url, **part(b"x" * 10_000, 0, 3999))
    assert developer.put(data).status_code == 201


@pytest.mark.object_server
def test_a_wrong_hash_is_dropped(developer, data, url, slug):
    refused = developer.request("PUT", url, content=data[::-1])
    assert (refused.status_code, slug(refused)) == (422, "digest")
    assert developer.request("HEAD", url).status_code == 404
    assert developer.put(data).status_code == 201


@pytest.mark.object_server
def test_a_wrong_tail_is_dropped(developer, data, url, slug):
    developer.request("PUT", url, **part(data, 0, 3999))
    assert slug(developer.request("PUT", url, **part(data[::-1], 4000, 9999))) == "digest"
    assert developer.request("HEAD", url).status_code == 404


@pytest.mark.parametrize(
    "header",
    [
        "bytes 0-9/5",
        "bytes 5-4/10",
        "bytes -1-4/10",
        "0-4/10",
        "bytes 0-4/*",
        "bytes 0-4/5,0-1/5",
    ],
)
def test_nonsense_ranges(developer, url, slug, header):
    refused = developer.request("PUT", url, content=b"12345", headers={"Content-Range": header})
    assert (refused.status_code, slug(refused)) == (400, "request")


def test_a_body_longer_than_its_range(developer, url, slug):
    def pieces():
        yield b"12345"
        yield b"6"

    async def stream():
        for piece in pieces():
            yield piece

    header = {"Content-Range": "bytes 0-4/10"}
    refused = developer.request("PUT", url, content=stream(), headers=header)
    assert slug(refused) == "request"
    assert developer.request("HEAD", url).status_code in (308, 404)


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=9990-", 206, slice(9990, None)),
        ("bytes=-10", 206, slice(9990, None)),
        ("bytes=100-99999", 206, slice(100, None)),
        ("bytes=0-", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("rows=1-2", 200, slice(None)),
    ],
)
def test_ranges_on_download(developer, data, url, header, status, expected):
    developer.put(data)
    answer = developer.request("GET", url, headers={"Range": header})
    assert answer.status_code == status
    assert answer.content == data[expected]
    assert answer.headers["Content-Length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "header", ["bytes=10000-", "bytes=20000-30000", "bytes=-0", "bytes=5-4"]
)
def test_ranges_outside(developer, data, url, header):
    developer.put(data)
    refused = developer.request("GET", url, headers={"Range": header})
    assert refused.status_code == 416
    assert refused.headers["Content-Range"] == "bytes */10000"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../cloud.toml",
        "%2e%2e%2fcloud.db",
        "A" * 64,
        "0" * 63,
        "0" * 64 + "%0a",
        "%00" * 64,
    ],
)
def test_path_tricks(developer, name):
    for method in ("HEAD", "GET", "PUT"):
        assert developer.request(method, f"/v1/blobs/{name}").status_code in (400, 404, 405)


@pytest.mark.object_server
def test_developers_are_apart(cloud, developer, data, url):
    """The same hash of another developer is neither readable nor said to exist."""
    developer.put(data)
    other = cloud.developer("other")
    assert other.request("HEAD", url).status_code == 404
    assert other.request("GET", url).json() == other.request("GET", url[:-1] + "0").json()
    other.request("PUT", url, **part(data, 0, 99))
    assert other.request("HEAD", url).headers["Range"] == "bytes=0-99"
    assert developer.request("GET", url).content == data


def test_a_device_reads_only_what_it_sees(developer, device, data, url):
    developer.put(data)
    assert device.request("GET", url).status_code == 404
    assert device.request("HEAD", url).status_code == 404
    assert developer.publish({"model.safetensors": data}).status_code == 201
    assert device.request("GET", url).status_code == 404  # a model is for no device
    assert developer.grant(device).status_code == 201
    sealed = b"sealed to " + device.id.encode()
    assert device.request("GET", f"/v1/blobs/{sha(sealed)}").content == sealed
    assert developer.device("b").request("GET", f"/v1/blobs/{sha(sealed)}").status_code == 404


def test_limits(make_cloud, slug):
    cloud = make_cloud(max_blob_bytes=1000, max_store_bytes=1500)
    developer = cloud.developer()
    assert slug(developer.put(b"a" * 1001)) == "too-large"
    header = {"Content-Range": "bytes 0-0/1001"}
    refused = developer.request("PUT", f"/v1/blobs/{'0' * 64}", content=b"a", headers=header)
    assert (refused.status_code, slug(refused)) == (413, "too-large")
    assert developer.put(b"a" * 1000).status_code == 201
    refused = developer.put(b"b" * 501)
    assert (refused.status_code, slug(refused)) == (429, "limit")
    cloud.restart()
    assert slug(developer.put(b"b" * 501)) == "limit"
    header = {"Content-Range": "bytes 0-0/400"}
    developer.request("PUT", f"/v1/blobs/{'0' * 64}", content=b"a", headers=header)
    assert slug(developer.put(b"b" * 101)) == "limit"  # the unfinished one is promised 400
    assert developer.put(b"b" * 100).status_code == 201
    assert cloud.developer("other").put(b"a" * 1000).status_code == 201


def held_piece(developer, number: int, total: int = 2):
    """One byte of an upload that does not end."""
    url = f"/v1/blobs/{number:064x}"
    header = {"Content-Range": f"bytes 0-0/{total}"}
    return developer.request("PUT", url, content=b"a", headers=header)


def test_the_number_of_blobs_is_limited(make_cloud, slug):
    """Empty ones take names and inodes too; the others of the cloud are not touched."""
    cloud = make_cloud(max_blobs=3)
    developer, other = cloud.developer(), cloud.developer("other")
    for data in (b"", b"a"):
        assert developer.put(data).status_code == 201
    assert held_piece(developer, 1).status_code == 308
    refused = developer.put(b"b")
    assert (refused.status_code, slug(refused)) == (429, "limit")
    assert refused.json()["limit"] == 3
    assert "3 blobs" in refused.json()["detail"]
    assert slug(held_piece(developer, 2)) == "limit"
    assert developer.put(b"a").status_code == 201  # it is here
    assert held_piece(developer, 1).status_code == 409  # its own place is its own
    assert other.put(b"b").status_code == 201
    cloud.restart()
    assert slug(developer.put(b"b")) == "limit"
    blobs = cloud.app.state.blobs
    assert blobs.drop_stale(before_s=float("inf")) == 1
    assert developer.put(b"b").status_code == 201
    assert slug(developer.put(b"c")) == "limit"
    for blob in list(blobs.verified.listed(developer.id)):
        blobs.remove_unwanted(blob, before_s=float("inf"))
    assert [developer.put(data).status_code for data in (b"", b"c", b"d")] == [201] * 3
    assert slug(developer.put(b"e")) == "limit"


def test_the_number_of_unfinished_uploads_is_limited(make_cloud, slug):
    cloud = make_cloud(max_uploads=2)
    developer, other = cloud.developer(), cloud.developer("other")
    assert [held_piece(developer, n).status_code for n in (1, 2)] == [308] * 2
    refused = held_piece(developer, 3)
    assert (refused.status_code, slug(refused), refused.json()["limit"]) == (429, "limit", 2)
    assert held_piece(other, 3).status_code == 308
    cloud.restart()
    assert slug(held_piece(developer, 3)) == "limit"
    go_on = {"Content-Range": "bytes 1-1/2"}
    ended = developer.request("PUT", f"/v1/blobs/{1:064x}", content=b"b", headers=go_on)
    assert slug(ended) == "digest"  # it ended, if not well
    assert held_piece(developer, 3).status_code == 308
    assert not list(cloud.data.glob(f"blobs/*/partial/{4:064x}"))


def test_an_upload_that_failed_leaves_the_next_one_its_room(store, monkeypatch):
    """The next one may begin after the failed one lost its file, before it says so."""
    data = os.urandom(1000)
    older = store.begin(DEVELOPER, sha(data), start=0, total=1000)
    older.write(data[:10])
    newer = []
    real = store.settle

    def settle(*args, **options):
        newer.append(store.begin(DEVELOPER, sha(data), start=None, total=1000))
        real(*args, **options)

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr(store, "settle", settle)
        patch.setattr("os.fsync", failing)
        with pytest.raises(OSError, match="the disk fails"):
            older.finish()
    assert store.usage([DEVELOPER]).uploads == 1
    newer[0].write(data)
    assert newer[0].finish().is_complete
    assert store.usage([DEVELOPER]) == Usage(bytes=1000, uploads=0)


def test_a_blob_removed_while_its_developer_is_measured(store, monkeypatch):
    """Whoever counts late does not count what went meanwhile."""
    upload = store.begin(DEVELOPER, sha(b"ab"), start=0, total=2)
    upload.write(b"ab")
    upload.finish()
    upload.close()
    store.__init__(
        store._folder, store.verified, max_blob_bytes=10, quota=BlobQuota(100, 100, 100)
    )  # as after a restart
    real = type(store.verified).listed
    (blob,) = real(store.verified)

    def listed(self, developer=None):
        found = list(real(self, developer))
        monkeypatch.setattr(type(store.verified), "listed", real)
        assert store.remove_unwanted(blob, before_s=float("inf"))
        return found

    monkeypatch.setattr(type(store.verified), "listed", listed)
    assert store.usage([DEVELOPER]).bytes == 0


def test_pieces_are_hashed_as_they_come(store, monkeypatch):
    """The end of a large blob costs as much as its last piece; nothing is read again."""
    data = os.urandom(1000)
    monkeypatch.setattr("triparty.cloud.blobs.sha256_file", None)
    for first in range(0, 1000, 250):
        upload = store.begin(DEVELOPER, sha(data), start=first, total=1000)
        upload.write(data[first : first + 250])
        upload.finish()
        upload.close()
    assert content(store, sha(data)) == data


def test_what_others_wrote_to_an_upload_is_found(store, tmp_path):
    data = os.urandom(1000)
    upload = store.begin(DEVELOPER, sha(data), start=0, total=1000)
    upload.write(data)
    (partial,) = tmp_path.glob("blobs/*/partial/*")
    with partial.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DigestError):
        upload.finish()


def test_a_newer_upload_takes_over(store):
    data = os.urandom(1000)
    older = store.begin(DEVELOPER, sha(data), start=0, total=1000)
    older.write(data[:300])
    with pytest.raises(ConflictError):
        store.begin(DEVELOPER, sha(data), start=0, total=1000)
    newer = store.begin(DEVELOPER, sha(data), start=300, total=1000)
    with pytest.raises(ConflictError):
        older.write(b"x")
    older.close()
    newer.write(data[300:])
    assert newer.finish().is_complete
    assert content(store, sha(data)) == data
    assert store.begin(DEVELOPER, sha(data), start=0, total=1000) is None


@pytest.mark.object_server
def test_a_stopped_upload_cannot_publish(store):
    data = os.urandom(1000)
    older = store.begin(DEVELOPER, sha(data), start=0, total=1000)
    older.write(data)
    newer = store.begin(DEVELOPER, sha(data), start=None, total=1000)
    with pytest.raises((ConflictError, OSError)):
        older.finish()
    newer.close()
    with pytest.raises(NotFoundError):
        store.size(DEVELOPER, sha(data))


@pytest.mark.object_server
def test_many_writers_of_one_blob(store):
    data = os.urandom(50_000)
    errors: list[Exception] = []

    def send() -> None:
        try:
            upload = store.begin(DEVELOPER, sha(data), start=None, total=len(data))
            if upload is None:
                return
            with contextlib.closing(upload):
                for at in range(0, len(data), 5000):
                    upload.write(data[at : at + 5000])
                upload.finish()
        except (ConflictError, DigestError, UnavailableError) as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [e for e in errors if isinstance(e, DigestError)]
    assert content(store, sha(data)) == data


@pytest.mark.object_server
def test_stale_uploads_are_dropped(store, tmp_path):
    upload = store.begin(DEVELOPER, sha(b"ab"), start=0, total=2)
    upload.write(b"a")
    upload.close()
    begun = next(tmp_path.glob("blobs/*/partial/*")).stat().st_mtime
    assert store.drop_stale(before_s=begun - 1) == 0
    assert store.held(DEVELOPER, sha(b"ab")).size == 1
    assert store.drop_stale(before_s=begun + 1) == 1
    assert store.held(DEVELOPER, sha(b"ab")) is None


@pytest.mark.parametrize("name", ["../x", "", "0" * 64 + "\n", "0" * 63 + "/"])
def test_the_store_itself_refuses_other_names(store, name):
    with pytest.raises(RequestError):
        store.held(DEVELOPER, name)
    for developer in ("operator", "../..", "ed25519:../" + "a" * 61):
        with pytest.raises(NotFoundError):
            store.held(developer, "0" * 64)
