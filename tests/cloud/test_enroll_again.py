"""Enrolment of a known identity: the way back for its owner, and for nobody else."""

from __future__ import annotations

import os
from datetime import timedelta

from tests.cloud.conftest import b64, proof_of
from triparty.common.invites import check_confirmation
from triparty.common.signing import PrivateKey, from_base64url


def test_an_expired_developer_comes_back_to_its_namespace(make_cloud, slug):
    cloud = make_cloud(token_days=30)
    developer = cloud.developer()
    assert developer.publish({"config.json": b"{}"}).status_code == 201
    assert developer.put_latest().status_code == 204
    statement = developer.request("GET", "/v1/latest").json()
    cloud.now += timedelta(days=30)
    assert slug(developer.request("GET", "/v1/artifacts")) == "token-expired"
    operator = cloud.fresh_operator()
    reply = developer.enrol(cloud.invite("developer", operator))
    assert reply.status_code == 201, reply.text
    assert reply.json()["principal"] == developer.id
    developer.token = reply.json()["token"]
    assert len(developer.request("GET", "/v1/artifacts").json()["artifacts"]) == 1
    assert developer.request("GET", "/v1/latest").json() == statement


def test_an_expired_device_comes_back_with_its_bundles(cloud, developer, device):
    developer.grant(device)
    before = developer.request("GET", f"/v1/devices/{device.id}").json()
    old, invite = device.token, developer.invite()
    reply = device.enrol(invite)
    assert reply.status_code == 201
    device.token = reply.json()["token"]
    assert len(device.request("GET", "/v1/artifacts").json()["artifacts"]) == 1
    assert cloud.request("GET", "/v1/artifacts", old).status_code == 401
    after = developer.request("GET", f"/v1/devices/{device.id}").json()
    assert after == before | {
        "invite": invite.login_hash,
        "confirmation": after["confirmation"],
    }
    check_confirmation(  # which the developer checks before it grants again
        invite.confirm_key,
        identity=device.identity.public.raw,
        sealing=device.sealing,
        tag=from_base64url(after["confirmation"]),
    )
    assert len(developer.request("GET", "/v1/devices").json()["devices"]) == 1


def test_coming_back_ends_what_the_old_token_began(cloud, developer, device):
    cloud.serving.closed.clear()
    assert device.enrol(developer.invite()).status_code == 201
    assert cloud.serving.closed == [device.id]


def test_a_thief_of_the_invite_takes_nothing_over(cloud, developer, device, slug):
    """It has the invite and all that is public: key, delegation, earlier proofs."""
    spent = cloud.invite("developer", cloud.operator)
    seen = developer.enrolment(spent)  # as a hostile proxy recorded it
    stolen = cloud.invite("developer", cloud.operator)
    thief = PrivateKey.generate()
    body = developer.enrolment(stolen)
    forgeries = [
        body | {"proof": seen["proof"]},
        body | {"proof": proof_of(stolen, thief)["proof"]},
        body | {"proof": b64(bytes(64))},
        body | {"proof": body["delegation_signature"]},
        body | {"identity": thief.public.to_text()},
    ]
    for forged in forgeries:
        refused = cloud.request("POST", "/v1/enroll", json=forged)
        assert slug(refused) in ("signature", "signer"), refused.text
    without = {name: value for name, value in body.items() if name != "proof"}
    assert cloud.request("POST", "/v1/enroll", json=without).status_code == 422
    assert developer.request("GET", "/v1/devices").status_code == 200  # its token still works
    assert cloud.request("POST", "/v1/enroll", json=body).status_code == 201


def test_a_thief_of_a_device_invite_takes_no_device_over(cloud, developer, device, slug):
    stolen = developer.invite()
    body = device.enrolment(stolen)
    sealing = os.urandom(32)
    swapped = body | {"sealing": b64(sealing)}  # its own key in the device's record
    assert slug(cloud.request("POST", "/v1/enroll", json=swapped)) == "signature"
    thief = PrivateKey.generate()
    signed = swapped | proof_of(stolen, thief, sealing)
    assert slug(cloud.request("POST", "/v1/enroll", json=signed)) == "signature"
    assert device.request("GET", "/v1/artifacts").status_code == 200


def test_a_proof_for_another_cloud_counts_for_nothing(cloud, developer, slug):
    """A hostile cloud that its developer joins passes the enrolment on to this one."""
    invite = cloud.invite("developer", cloud.operator)
    relayed = developer.enrolment(invite) | proof_of(
        invite, developer.root, cloud="http://evil.test"
    )
    refused = cloud.request("POST", "/v1/enroll", json=relayed)
    assert (refused.status_code, slug(refused)) == (400, "request")
    renamed = relayed | {"cloud": "http://cloud.test"}
    assert slug(cloud.request("POST", "/v1/enroll", json=renamed)) == "signature"


def test_who_was_revoked_stays_revoked(cloud, developer, device, slug):
    developer.request("DELETE", f"/v1/devices/{device.id}")
    refused = device.enrol(developer.invite())
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    assert cloud.request("GET", "/v1/artifacts", device.token).status_code == 401


def test_an_identity_keeps_its_role_and_its_developer(cloud, developer, device, slug):
    other = cloud.developer("other")
    moved = type(device)(other, "moved")
    moved.identity = device.identity
    refused = moved.enrol(other.invite())
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    as_developer = type(developer)(cloud, "promoted")
    as_developer.root = device.identity
    invite = cloud.invite("developer", cloud.operator)
    assert slug(as_developer.enrol(invite)) == "conflict"
    as_device = type(device)(other, "own root")
    as_device.identity = other.root
    assert slug(as_device.enrol(other.invite())) == "conflict"


def test_a_full_developer_still_gets_its_devices_back(make_cloud, slug):
    cloud = make_cloud(max_devices=1)
    developer = cloud.developer()
    device = developer.device()
    assert device.enrol(developer.invite()).status_code == 201
    assert slug(type(device)(developer, "second").enrol(developer.invite())) == "limit"


def test_a_replayed_enrolment_tells_nothing(cloud, developer, device, slug):
    """The same words, all of them or most, as an invite that never was."""
    invite = developer.invite()
    body = type(device)(developer, "a").enrolment(invite)
    assert cloud.request("POST", "/v1/enroll", json=body).status_code == 201
    never = type(invite)(invite.url, None, invite.root, "device", os.urandom(32))
    stranger = type(device)(developer, "b")
    answers = [
        cloud.request("POST", "/v1/enroll", json=sent)
        for sent in (body, body | {"name": "c"}, stranger.enrolment(never))
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    assert slug(answers[0]) == "invite"
