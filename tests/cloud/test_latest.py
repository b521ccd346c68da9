"""The delegation and the latest statement: only the developer's, only newer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from triparty.common.signing import PrivateKey
from triparty.common.trust import (
    Delegation,
    Latest,
    PublishingKey,
    SignedDocument,
    sign_delegation,
    sign_latest,
)

DATABASES = ("sqlite", "postgresql")
FILES = {"config.json": b"{}"}


def statement(developer, key, *, sequence=1, expires_days=7, of=None, version=1):
    now = developer.cloud.now
    latest = Latest(
        developer=of or developer.id,
        sequence=sequence,
        created=now - timedelta(days=30),
        expires=now + timedelta(days=expires_days),
        versions={"model/tiny": version},
        revoked=(),
        signer=key.public.key_id,
    )
    return sign_latest(latest, key)


def delegation(developer, *keys, version=1, root=None):
    until = developer.cloud.now + timedelta(days=5 * 365)  # as enrolled with
    named = tuple(PublishingKey(key.public, until) for key in keys)
    root = root or developer.root
    return sign_delegation(
        Delegation(root=root.public, keys=named, version=version, created=developer.cloud.now),
        root,
    )


def test_there_is_none_at_first(cloud, developer, device, slug):
    for party in (developer, device):
        refused = party.request("GET", "/v1/latest")
        assert (refused.status_code, slug(refused)) == (404, "not-found")


def test_device_reads_its_developers(cloud, developer, device):
    assert developer.put_latest().status_code == 204
    assert (
        device.request("GET", "/v1/latest").json()
        == developer.request("GET", "/v1/latest").json()
    )
    stranger = cloud.developer("other").device("stranger")
    assert stranger.request("GET", "/v1/latest").status_code == 404


def test_sequence_and_version_rise(developer, slug):
    key = developer.publishing
    first = delegation(developer, key)
    assert (
        developer.send_latest(first, statement(developer, key, sequence=5)).status_code == 204
    )
    again = developer.send_latest(first, statement(developer, key, sequence=5))
    assert again.status_code == 204  # the very same
    other_5 = statement(developer, key, sequence=5, expires_days=6)
    older = statement(developer, key, sequence=4)
    for refused in (developer.send_latest(first, other_5), developer.send_latest(first, older)):
        assert (refused.status_code, slug(refused)) == (409, "rollback")
    successor = PrivateKey.generate()
    second = delegation(developer, successor, version=2)
    assert (
        developer.send_latest(second, statement(developer, successor, sequence=6)).status_code
        == 204
    )
    assert (
        slug(developer.send_latest(first, statement(developer, key, sequence=7))) == "rollback"
    )
    other_2 = delegation(developer, key, successor, version=2)
    assert (
        slug(developer.send_latest(other_2, statement(developer, key, sequence=7)))
        == "rollback"
    )


def test_a_replaced_publishing_key_publishes_no_more(developer, slug):
    successor = PrivateKey.generate()
    developer.send_latest(
        delegation(developer, successor, version=2), statement(developer, successor)
    )
    assert slug(developer.publish(FILES)) == "signature"
    developer.publishing = successor
    assert developer.publish(FILES).status_code == 201


def test_forged_statements(cloud, developer, slug):
    thief = PrivateKey.generate()
    good = delegation(developer, developer.publishing)
    latest = statement(developer, developer.publishing)
    other = cloud.developer("other")
    attempts = [
        (
            "signer",
            delegation(developer, developer.publishing, root=thief),
            statement(developer, thief),
        ),
        ("signature", SignedDocument(good.payload, bytes(64)), latest),
        ("signature", good, statement(developer, thief)),
        ("signature", good, SignedDocument(latest.payload, bytes(64))),
        ("expired", good, statement(developer, developer.publishing, expires_days=0)),
        ("signer", good, statement(developer, developer.publishing, of=other.id)),
    ]
    for expected, one, two in attempts:
        assert slug(developer.send_latest(one, two)) == expected
    assert developer.request("GET", "/v1/latest").status_code == 404
    assert slug(other.send_latest(good, latest)) == "signer"


@pytest.mark.parametrize("what", ["model", "bundle"])
def test_what_is_revoked_is_not_served(cloud, developer, device, what, slug):
    developer.publish(FILES)
    developer.grant(device)
    assert developer.put_latest(revoked=(f"{what}/tiny@1",)).status_code == 204
    opened = device.request("POST", "/v1/models/tiny/sessions", json={})
    assert (opened.status_code, slug(opened)) == (404, "not-found")
    kinds = {"model": 1, "bundle": 0}
    listed = device.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(listed) == kinds[what]
    assert len(developer.request("GET", "/v1/artifacts").json()["artifacts"]) == 2
    fresh = developer.device("fresh")
    if what == "bundle":
        assert slug(developer.grant(fresh)) == "revoked"
        assert developer.grant(fresh, version=2).status_code == 201
    developer.put_latest(sequence=2)
    assert len(device.request("GET", "/v1/artifacts").json()["artifacts"]) == 1


def test_versions_do_not_go_back(developer, slug):
    key = developer.publishing
    signed = delegation(developer, key)
    newer = statement(developer, key, version=3)
    assert developer.send_latest(signed, newer).status_code == 204
    older = statement(developer, key, version=2, sequence=2)
    refused = developer.send_latest(signed, older)
    assert (refused.status_code, slug(refused)) == (409, "rollback")
    assert developer.put_latest(sequence=2).status_code == 409  # it names no version at all
    same = statement(developer, key, version=3, sequence=2)
    assert developer.send_latest(signed, same).status_code == 204


def test_what_a_forgotten_key_said_does_not_bind(developer):
    """Or whoever stole a key could raise a version for ever."""
    thief, key = developer.publishing, PrivateKey.generate()
    high = statement(developer, thief, version=1 << 40)
    assert developer.send_latest(delegation(developer, thief), high).status_code == 204
    renewed = delegation(developer, key, version=2)
    own = statement(developer, key, version=2, sequence=2)
    assert developer.send_latest(renewed, own).status_code == 204
