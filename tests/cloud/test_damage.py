"""What is damaged is found and named after a restart; the healthy rest is served."""

from __future__ import annotations

import hashlib
import re

import pytest

from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.database import Database
from triparty.cloud.inspection import find_damage, unreadable_tables
from triparty.common.artifacts import sign_manifest
from triparty.common.errors import StateError, UnavailableError

PAGE = 4096


def blob_file(cloud, data: bytes):
    (found,) = cloud.data.glob(f"blobs/*/??/{hashlib.sha256(data).hexdigest()}")
    return found


def publish_many(developer, count: int) -> None:
    """So many bundles' worth of rows that the table has many pages."""
    files = dict.fromkeys((f"file{n}.json" for n in range(6)), b"{}")
    developer.put(b"{}")
    for number in range(count):
        manifest = developer.manifest(files, name=f"m{number:03}")
        signed = sign_manifest(manifest, developer.publishing)
        assert developer.post(signed).status_code == 201


def damage_page_with(cloud, name: str) -> None:
    """Overwrites the page of the database that holds an artifact's manifest."""
    file = cloud.data / "cloud.db"
    content = bytearray(file.read_bytes())
    at = content.index(f'"name":"{name}"'.encode()) // PAGE * PAGE
    content[at : at + PAGE] = b"\xde\xad\xbe\xef" * (PAGE // 4)
    file.write_bytes(content)


@pytest.fixture
def damaged(cloud):
    """A cloud of two developers, restarted after a page of the artifacts was overwritten."""
    developer, other = cloud.developer(), cloud.developer("other")
    device = other.device()
    other.publish({"config.json": b"{}"})
    other.grant(device)
    publish_many(developer, 30)
    cloud.stop()
    damage_page_with(cloud, "m015")
    cloud.start()
    return cloud, developer, other, device


def test_a_damaged_page_is_found_and_named(damaged, caplog):
    cloud, developer, _, _ = damaged
    store, blobs = cloud.app.state.database, cloud.app.state.blobs
    assert store.is_damaged
    assert any(
        "database is damaged" in record.message for record in caplog.get_records("setup")
    )
    assert unreadable_tables(store) == ["artifacts"]
    found = {damage.artifact.name for damage in find_damage(store, blobs, reads_all=True)}
    assert "m015" in found
    assert len(found) < 10  # the others are whole
    assert {damage.artifact.developer for damage in found_rows(store, blobs)} == {developer.id}
    (line,) = [str(d) for d in found_rows(store, blobs) if d.artifact.name == "m015"]
    assert re.search(r"model 'm015' version 1 of ed25519:.*row.*altered.*publish again", line)


def found_rows(store, blobs):
    return [damage for damage in find_damage(store, blobs, reads_all=False) if not damage.blob]


def test_the_healthy_rest_is_served_and_nothing_is_written(damaged, slug):
    cloud, developer, other, device = damaged
    assert device.request("GET", "/v1/artifacts").json()["artifacts"]
    principal = Principal(device.id, "device", other.id, SCOPES["device"])
    assert cloud.app.state.catalog.model_for(principal, "tiny").version == 1
    whole = developer.request("GET", "/v1/artifacts?name=m000")
    assert len(whole.json()["artifacts"]) == 1
    broken = developer.request("GET", "/v1/artifacts")
    assert (broken.status_code, slug(broken)) == (503, "unavailable")
    before = (cloud.data / "cloud.db").read_bytes()
    for refused in (
        other.publish({"config.json": b"{ }"}, version=2),
        other.request("POST", "/v1/tokens/rotate"),
    ):
        assert (refused.status_code, slug(refused)) == (503, "unavailable")
    assert (cloud.data / "cloud.db").read_bytes() == before


def test_a_changed_byte_of_a_manifest_is_found(cloud, developer):
    """SQLite has no checksums: the page is well formed."""
    publish_many(developer, 3)
    cloud.stop()
    file = cloud.data / "cloud.db"
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"name":"m001"', b'"name":"m00x"'))
    cloud.start()
    store = cloud.app.state.database
    assert not store.is_damaged
    (damage,) = find_damage(store, cloud.app.state.blobs, reads_all=False)
    assert (damage.artifact.name, damage.blob) == ("m001", None)


def test_a_file_without_a_head(cloud, developer):
    file = cloud.data / "copy.db"
    file.write_bytes(b"x" * PAGE + (cloud.data / "cloud.db").read_bytes()[PAGE:])
    with pytest.raises(StateError, match="cannot open the database"):
        Database(f"sqlite:///{file}")


@pytest.mark.parametrize(
    ("change", "all_found", "by_size"),
    [(None, "missing", "missing"), (b"{}{}", "altered", "altered"), (b"[]", "altered", None)],
)
def test_blobs_are_found_and_named(cloud, developer, caplog, change, all_found, by_size):
    developer.publish({"config.json": b"{}", "model.safetensors": b"weights"})
    developer.publish({"a.json": b"{}"}, name="second")  # the same blob
    developer.publish({"a.json": b"[1]"}, name="whole")
    cloud.stop()
    file = blob_file(cloud, b"{}")
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change)
    cloud.start()
    state = cloud.app.state
    for reads_all, expected in ((True, all_found), (False, by_size)):
        found = list(find_damage(state.database, state.blobs, reads_all=reads_all))
        named = {(d.artifact.name, d.path, str(d.state)) for d in found}
        wanted = {("tiny", "config.json"), ("second", "a.json")}
        assert named == ({(*one, expected) for one in wanted} if expected else set())
    state.upkeep.inspect_blobs()
    logged = [record.message for record in caplog.records if "publish again" in record.message]
    assert bool(logged) is (by_size is not None)
    assert developer.request("GET", "/v1/artifacts").status_code == 200


def test_an_altered_blob_of_a_model_makes_room_for_an_upload(cloud, developer, device):
    developer.publish({"config.json": b"{}"})
    developer.grant(device)
    principal = Principal(device.id, "device", developer.id, SCOPES["device"])
    blob_file(cloud, b"{}").write_bytes(b"[]")
    with pytest.raises(UnavailableError):
        cloud.app.state.catalog.model_for(principal, "tiny")
    assert developer.put(b"{}").status_code == 201
    assert cloud.app.state.catalog.model_for(principal, "tiny").version == 1


def test_a_cloud_starts_whatever_its_blob_store_does(make_cloud, monkeypatch, caplog):
    from triparty.cloud.disk_blobs import DiskBlobs

    def fail(*_: object) -> None:
        raise UnavailableError("the blob store does not answer")

    monkeypatch.setattr(DiskBlobs, "listed", fail)
    cloud = make_cloud()
    assert cloud.request("GET", "/readyz").status_code == 200
    cloud.stop()
    assert any("upkeep is put off" in record.message for record in caplog.records)
    cloud.start()
