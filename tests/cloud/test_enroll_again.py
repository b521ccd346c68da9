"""Enrolment of a known identity: the way back for its owner, and for nobody else.

And an enrolment that is sent twice because its first answer was lost.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from tests.cloud.conftest import Device, b64, proof_of
from triparty.cloud.accounts import REPEAT
from triparty.common.invites import check_confirmation
from triparty.common.signing import PrivateKey, from_base64url

DATABASES = ("sqlite", "postgresql")


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
    token = cloud.request("POST", "/v1/enroll", json=body).json()["token"]
    assert cloud.request("GET", "/v1/artifacts", token).status_code == 200  # it has arrived
    never = type(invite)(invite.url, None, invite.root, "device", os.urandom(32))
    stranger = type(device)(developer, "b")
    answers = [
        cloud.request("POST", "/v1/enroll", json=sent)
        for sent in (body, body | {"name": "c"}, stranger.enrolment(never))
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    assert slug(answers[0]) == "invite"


@pytest.fixture(params=["developer", "device"])
def lost(request, cloud, developer, device):
    """Invite, sender and body of an enrolment that was done, and whose answer was lost."""
    if request.param == "developer":
        sender, invite = (
            type(developer)(cloud, "new"),
            cloud.invite("developer", cloud.operator),
        )
    else:
        sender, invite = type(device)(developer, "new"), developer.invite()
    body = sender.enrolment(invite)
    return invite, sender, body, cloud.request("POST", "/v1/enroll", json=body).json()["token"]


def test_an_enrolment_whose_answer_was_lost_is_repeated(cloud, developer, lost):
    _, sender, body, first = lost
    before = developer.request("GET", "/v1/devices").text
    for _ in range(2):
        cloud.now += timedelta(minutes=3)
        repeated = cloud.request("POST", "/v1/enroll", json=body)
        assert repeated.status_code == 201, repeated.text
        assert repeated.json()["principal"] == sender.id
    assert developer.request("GET", "/v1/devices").text == before
    sender.token = repeated.json()["token"]
    assert sender.request("GET", "/v1/artifacts").status_code == 200
    assert cloud.request("GET", "/v1/artifacts", first).status_code == 401


def test_it_is_repeated_after_a_restart_too(cloud, lost):
    cloud.restart()
    assert cloud.request("POST", "/v1/enroll", json=lost[2]).status_code == 201


def test_it_is_repeated_only_by_whoever_sent_it(cloud, lost, slug):
    invite, sender, body, first = lost
    key = PrivateKey.generate()
    sealing = sender.sealing if body["role"] == "device" else None
    other = type(sender)(*([sender.developer] if sealing else [cloud]), "other")
    refused = [cloud.request("POST", "/v1/enroll", json=other.enrolment(invite))]
    if sealing:  # the same device, with another sealing key or another confirmation
        swapped = os.urandom(32)
        changed = {"sealing": b64(swapped)} | proof_of(invite, sender.identity, swapped)
        refused += [
            cloud.request("POST", "/v1/enroll", json=body | changed),
            cloud.request("POST", "/v1/enroll", json=body | {"confirmation": b64(bytes(32))}),
        ]
    assert {(answer.status_code, slug(answer)) for answer in refused} == {(403, "invite")}
    forged = body | {"proof": proof_of(invite, key, sealing)["proof"]}
    assert slug(cloud.request("POST", "/v1/enroll", json=forged)) == "signature"
    assert cloud.request("GET", "/v1/artifacts", first).status_code == 200


def test_it_is_not_repeated_once_the_answer_has_arrived(cloud, lost, slug):
    """Whoever recorded an enrolment has no use for it."""
    _, _, body, first = lost
    assert cloud.request("GET", "/v1/artifacts", first).status_code == 200
    assert slug(cloud.request("POST", "/v1/enroll", json=body)) == "invite"
    rotated = cloud.request("POST", "/v1/tokens/rotate", first).json()["token"]
    assert slug(cloud.request("POST", "/v1/enroll", json=body)) == "invite"
    assert cloud.request("GET", "/v1/artifacts", rotated).status_code == 200


def test_it_is_not_repeated_for_long(cloud, lost, slug):
    cloud.now += REPEAT
    assert slug(cloud.request("POST", "/v1/enroll", json=lost[2])) == "invite"


def test_it_is_not_repeated_by_who_was_revoked(cloud, developer, slug):
    device = Device(developer, "new")
    body = device.enrolment(developer.invite())
    assert cloud.request("POST", "/v1/enroll", json=body).status_code == 201
    assert developer.request("DELETE", f"/v1/devices/{device.id}").status_code == 204
    assert slug(cloud.request("POST", "/v1/enroll", json=body)) == "invite"


@pytest.mark.parametrize("role", ["developer", "device"])
def test_an_earlier_enrolment_is_not_repeated_after_a_later_one(cloud, developer, slug, role):
    if role == "device":
        sender, invites = Device(developer, "new"), [developer.invite() for _ in range(2)]
    else:
        sender = type(developer)(cloud, "new")
        invites = [cloud.invite("developer", cloud.operator) for _ in range(2)]
    first, second = (sender.enrolment(invite) for invite in invites)
    for body in (first, second):
        assert cloud.request("POST", "/v1/enroll", json=body).status_code == 201
    assert slug(cloud.request("POST", "/v1/enroll", json=first)) == "invite"
    assert cloud.request("POST", "/v1/enroll", json=second).status_code == 201
