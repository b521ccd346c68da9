"""Enrolment: who gets in, and what a refused attempt leaves behind."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from triparty.cloud.tables import PrincipalRow
from triparty.common.errors import SealError
from triparty.common.invites import check_confirmation
from triparty.common.signing import PrivateKey, from_base64url

DATABASES = ("sqlite", "postgresql")


def test_developer_and_device_enrol(cloud, developer):
    device = developer.device("phone")
    listed = developer.request("GET", "/v1/devices").json()["devices"]
    assert [(d["id"], d["name"], d["revoked"]) for d in listed] == [(device.id, "phone", False)]
    assert developer.request("GET", f"/v1/devices/{device.id}").json() == listed[0]


def test_the_reply_names_developer_and_scopes(developer, device):
    response = type(device)(developer, "third").enrol(developer.invite())
    body = response.json()
    assert response.status_code == 201
    assert body["developer"] == developer.id
    assert body["scopes"] == ["infer", "pull", "train"]
    assert body["expires"].endswith("Z")


def test_developer_checks_confirmation_that_the_cloud_passed_on(cloud, developer, device):
    """A cloud that swaps a key cannot make the tag; an honest one passes it through."""
    invite = developer.invite()
    honest = type(device)(developer, "honest")
    assert honest.enrol(invite).status_code == 201
    row = developer.request("GET", f"/v1/devices/{honest.id}").json()
    assert row["invite"] == invite.login_hash
    tag, identity, sealing = (
        from_base64url(row[k]) for k in ("confirmation", "identity", "sealing")
    )
    check_confirmation(invite.confirm_key, identity=identity, sealing=sealing, tag=tag)
    with pytest.raises(SealError):
        check_confirmation(
            invite.confirm_key, identity=identity, sealing=os.urandom(32), tag=tag
        )


def test_an_invite_works_once(cloud, developer, device, slug):
    invite = developer.invite()
    assert type(device)(developer, "a").enrol(invite).status_code == 201
    refused = type(device)(developer, "b").enrol(invite)
    assert (refused.status_code, slug(refused)) == (403, "invite")
    assert "used" in refused.json()["detail"]


def test_expired_and_unknown_invites(cloud, developer, device, slug):
    late = developer.invite(expires_in_s=60)
    cloud.now += timedelta(seconds=60)
    for invite in (late, type(late)(late.url, None, late.root, "device", os.urandom(32))):
        refused = type(device)(developer, "b").enrol(invite)
        assert (refused.status_code, slug(refused)) == (403, "invite")


def test_an_invite_is_for_its_role(cloud, developer, device, slug):
    as_device = type(device)(developer, "b").enrol(cloud.invite("developer", cloud.operator))
    as_developer = type(developer)(cloud, "evil").enrol(developer.invite())
    assert slug(as_device) == slug(as_developer) == "invite"


@pytest.mark.one_database
@pytest.mark.parametrize(
    "change",
    [
        {"sealing": None},
        {"confirmation": None},
        {"sealing": "AAAA"},
        {"identity": "%%%"},
        {"identity": 5},
        {"name": ""},
        {"name": "two\nlines"},
        {"name": "x" * 65},
        {"extra": 1},
        {"developer": "ed25519:" + "0" * 64},
        {"delegation": "AAAA", "delegation_signature": "AAAA"},
        {"role": "operator"},
    ],
    ids=str,
)
def test_a_refused_device_leaves_the_invite_usable(cloud, developer, device, slug, change):
    invite = developer.invite()
    newcomer = type(device)(developer, "new")
    refused = cloud.request("POST", "/v1/enroll", json=newcomer.enrolment(invite) | change)
    assert refused.status_code in (400, 422)
    assert slug(refused) == "request"
    assert newcomer.enrol(invite).status_code == 201


def test_a_refused_developer_leaves_the_invite_usable(cloud, developer, slug):
    invite = cloud.invite("developer", cloud.operator)
    newcomer = type(developer)(cloud, "new")
    body = newcomer.enrolment(invite)
    stranger = PrivateKey.generate()
    attempts = {
        "signer": body | {"identity": stranger.public.to_text()},
        "signature": body | {"delegation_signature": "A" * 86},
        "request": body | {"sealing": "A" * 43},
        "manifest": body | {"delegation": "AAAA"},
    }
    assert {
        k: slug(cloud.request("POST", "/v1/enroll", json=b)) for k, b in attempts.items()
    } == {k: k for k in attempts}
    assert newcomer.enrol(invite).status_code == 201


def test_identity_keys_are_unique_across_developers(cloud, developer, device, slug):
    other = cloud.developer("other")
    again = type(device)(other, "again")
    again.identity = device.identity
    invite = other.invite()
    refused = again.enrol(invite)
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    again.identity = PrivateKey.generate()
    assert again.enrol(invite).status_code == 201  # the failed attempt did not use it up


def test_a_device_belongs_to_whoever_invited_it(cloud, developer, device):
    other = cloud.developer("other")
    assert other.request("GET", "/v1/devices").json() == {"devices": []}
    assert device.id in developer.request("GET", "/v1/devices").text


def test_invites_of_a_revoked_developer_are_void(cloud, developer, device, slug):
    newcomer, invite = type(device)(developer, "new"), developer.invite()
    with cloud.app.state.database.writing() as session:
        session.get_one(PrincipalRow, developer.id).revoked = cloud.now
    assert slug(newcomer.enrol(invite)) == "invite"
    assert slug(device.request("GET", "/v1/artifacts")) == "token-revoked"


def test_attempts_are_limited_by_address(make_cloud, slug):
    cloud = make_cloud(enrolments_per_minute=3)
    cloud.developer()  # who gets in costs nothing
    developer = cloud.developer("second")
    invite = cloud.invite("developer", cloud.operator)
    wrong = developer.enrolment(replace(invite, secret=b"x" * 32))
    assert cloud.request("POST", "/v1/enroll", json={}).status_code == 422
    for _ in range(2):
        assert slug(cloud.request("POST", "/v1/enroll", json=wrong)) == "invite"
    refused = cloud.request("POST", "/v1/enroll", json=wrong)
    assert (refused.status_code, slug(refused)) == (429, "limit")
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    cloud.now += timedelta(seconds=int(refused.headers["Retry-After"]))
    assert slug(cloud.request("POST", "/v1/enroll", json=wrong)) == "invite"
    assert slug(cloud.request("POST", "/v1/enroll", json=wrong)) == "limit"


def test_a_developer_has_a_limit_of_devices(make_cloud, slug):
    cloud = make_cloud(max_devices=1)
    developer = cloud.developer()
    first = developer.device()
    refused = type(first)(developer, "second").enrol(developer.invite())
    assert (refused.status_code, slug(refused)) == (429, "limit")
    assert developer.request("DELETE", f"/v1/devices/{first.id}").status_code == 204
    developer.device("second")
