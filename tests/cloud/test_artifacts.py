"""What becomes visible, to whom, and what never does."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from triparty.common.artifacts import Kind, sign_manifest
from triparty.common.signing import PrivateKey
from triparty.common.trust import SignedDocument

DATABASES = ("sqlite", "postgresql")

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


def names(response):
    assert response.status_code == 200, response.text
    found = []
    for item in response.json()["artifacts"]:
        text = item["manifest"]
        manifest = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        found.append((manifest["kind"], manifest["name"], manifest["version"]))
    return found


def listed(party, **params):
    return names(party.request("GET", "/v1/artifacts", params=params))


def test_newest_version_first(developer):
    for version in (1, 2, 10):
        assert developer.publish(FILES, version=version).status_code == 201
    assert listed(developer) == [
        ("model", "tiny", 10),
        ("model", "tiny", 2),
        ("model", "tiny", 1),
    ]
    assert listed(developer, kind="bundle") == []
    assert listed(developer, kind="model", name="tiny")[0] == ("model", "tiny", 10)
    assert listed(developer, name="other") == []
    assert developer.request("GET", "/v1/artifacts?kind=nonsense").status_code == 422


def test_the_signed_bytes_come_back_unchanged(developer):
    for data in FILES.values():
        developer.put(data)
    signed = sign_manifest(developer.manifest(FILES), developer.publishing)
    posted = developer.post(signed)
    assert posted.status_code == 201
    (item,) = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert item["artifact"] == posted.json()["artifact"]
    for key, data in (("manifest", signed.payload), ("signature", signed.signature)):
        assert base64.urlsafe_b64encode(data).rstrip(b"=").decode() == item[key]


def test_the_same_artifact_again_changes_nothing(developer):
    for data in FILES.values():
        developer.put(data)
    signed = sign_manifest(developer.manifest(FILES), developer.publishing)
    first, again = developer.post(signed), developer.post(signed)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert len(listed(developer)) == 1


def test_missing_blobs_are_named_and_nothing_is_visible(developer, slug):
    manifest = developer.manifest(FILES)
    developer.put(FILES["config.json"])
    refused = developer.post(sign_manifest(manifest, developer.publishing))
    assert (refused.status_code, slug(refused)) == (409, "blob-missing")
    missing = next(file.sha256 for file in manifest.files if file.path == "model.safetensors")
    assert refused.json()["missing"] == [missing]
    assert listed(developer) == []
    url = f"/v1/blobs/{missing}"
    header = {"Content-Range": "bytes 0-2/7"}
    assert developer.request("PUT", url, content=b"wei", headers=header).status_code == 308
    half = developer.post(sign_manifest(manifest, developer.publishing))
    assert half.json()["missing"] == [missing]  # half a blob is no blob
    developer.put(FILES["model.safetensors"])
    assert developer.post(sign_manifest(manifest, developer.publishing)).status_code == 201


def test_another_developers_blobs_do_not_count(cloud, developer, slug):
    assert developer.publish(FILES).status_code == 201
    other = cloud.developer("other")
    refused = other.post(sign_manifest(other.manifest(FILES), other.publishing))
    assert slug(refused) == "blob-missing"


@pytest.mark.parametrize("version", [1, 2])
def test_versions_rise(developer, slug, version):
    developer.publish(FILES, version=2)
    refused = developer.publish({"config.json": b"{ }"}, version=version)
    assert (refused.status_code, slug(refused)) == (409, "rollback")
    assert listed(developer) == [("model", "tiny", 2)]
    assert developer.publish(FILES, version=version, name="another").status_code == 201
    assert (
        developer.publish({"a.onnx": b"x"}, version=version, kind=Kind.GATE).status_code == 201
    )


def test_versions_of_bundles_rise_for_each_device(developer, device, slug):
    second = developer.device("second")
    assert developer.grant(device, version=3).status_code == 201
    assert developer.grant(second, version=2).status_code == 201
    assert slug(developer.grant(device, version=2)) == "rollback"


def test_forged_and_foreign_signatures(cloud, developer, slug):
    for data in FILES.values():
        developer.put(data)
    good = sign_manifest(developer.manifest(FILES), developer.publishing)
    thief = PrivateKey.generate()
    by_thief = sign_manifest(developer.manifest(FILES, signer=thief.public.key_id), thief)
    changed = good.payload.replace(b'"version":1', b'"version":2')
    assert changed != good.payload
    forged = [
        SignedDocument(changed, good.signature),
        SignedDocument(good.payload, bytes(64)),
        SignedDocument(good.payload, developer.publishing.sign("latest", good.payload)),
        SignedDocument(good.payload, developer.root.sign("manifest", good.payload)),
        by_thief,
    ]
    for signed in forged:
        refused = developer.post(signed)
        assert (refused.status_code, slug(refused)) == (422, "signature")
    other = cloud.developer("other")
    assert slug(other.post(good)) == "signature"
    assert listed(developer) == listed(other) == []
    assert developer.post(good).status_code == 201


def test_manifests_that_must_not_be_used(cloud, developer, slug):
    other = cloud.developer("other")
    for data in FILES.values():
        developer.put(data)
    refusals = {
        "signer": {"developer": other.id},
        "expired": {"created": cloud.now - timedelta(days=2), "expires": cloud.now},
    }
    for expected, change in refusals.items():
        signed = sign_manifest(developer.manifest(FILES, **change), developer.publishing)
        assert slug(developer.post(signed)) == expected
    good = developer.manifest(FILES)
    raw = {
        "path": good.to_bytes().replace(b"config.json", b"../fig.json"),
        "file-type": good.to_bytes().replace(b"model.safetensors", b"pytorch_model.bin"),
        "manifest": good.to_bytes() + b" ",
        "format-version": good.to_bytes().replace(b'"format_version":1', b'"format_version":2'),
    }
    for expected, payload in raw.items():
        signed = SignedDocument(payload, developer.publishing.sign("manifest", payload))
        assert slug(developer.post(signed)) == expected
    assert listed(developer) == []


def test_a_size_that_is_not_the_blobs(developer, slug):
    manifest = developer.manifest(FILES)
    for data in FILES.values():
        developer.put(data)
    files = tuple(replace(file, size=file.size + 1) for file in manifest.files)
    refused = developer.post(
        sign_manifest(replace(manifest, files=files), developer.publishing)
    )
    assert slug(refused) == "digest"


def test_who_sees_what(cloud, developer, device):
    neighbour, other = developer.device("neighbour"), cloud.developer("other")
    stranger = other.device("stranger")
    developer.publish(FILES)
    developer.grant(device)
    developer.publish({"gate.onnx": b"g"}, kind=Kind.GATE, name="door", epoch=0)
    everything = {("model", "tiny", 1), ("bundle", "tiny", 1), ("gate", "door", 1)}
    assert set(listed(developer)) == everything
    assert set(listed(device)) == {("bundle", "tiny", 1), ("gate", "door", 1)}
    assert set(listed(neighbour)) == {("gate", "door", 1)}
    assert listed(other) == listed(stranger) == []
    assert listed(device, kind="model") == []


def test_bundles_are_for_own_living_devices(cloud, developer, device, slug):
    stranger = cloud.developer("other").device("stranger")
    assert slug(developer.grant(stranger)) == "recipient"
    manifest = {"kind": Kind.BUNDLE, "recipient": developer.id}
    assert slug(developer.publish({"bundle.sealed": b"x"}, **manifest)) == "recipient"
    developer.request("DELETE", f"/v1/devices/{device.id}")
    assert slug(developer.grant(device)) == "recipient"


def test_an_artifact_limit(make_cloud, slug):
    cloud = make_cloud(max_artifacts=1)
    developer = cloud.developer()
    assert developer.publish(FILES).status_code == 201
    refused = developer.publish(FILES, version=2)
    assert (refused.status_code, slug(refused)) == (429, "limit")


def test_a_restart_keeps_everything(cloud, developer, device):
    developer.publish(FILES)
    developer.grant(device)
    developer.put_latest()
    before = [developer.request("GET", path).json() for path in ("/v1/artifacts", "/v1/latest")]
    cloud.restart()
    after = [developer.request("GET", path).json() for path in ("/v1/artifacts", "/v1/latest")]
    assert before == after
    assert listed(device) == [("bundle", "tiny", 1)]


@pytest.mark.one_database
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"manifest": "AAAA"},
        {"manifest": "AA==", "signature": "A" * 86},
        {"manifest": "A", "signature": "A" * 86},
        {"manifest": ["AAAA"], "signature": "A" * 86},
        {"manifest": "AAAA", "signature": "A" * 86, "force": True},
        [],
        "x",
        None,
    ],
    ids=str,
)
def test_bodies_are_exact(developer, slug, body):
    refused = developer.request("POST", "/v1/artifacts", json=body)
    assert (refused.status_code, slug(refused)) == (422, "request")
