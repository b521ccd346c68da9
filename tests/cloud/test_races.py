"""Requests of the same moment, on both databases: limits hold, one of two rivals wins."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import httpx
import pytest

from triparty.common.artifacts import sign_manifest
from triparty.common.invites import Invite

DATABASES = ("sqlite", "postgresql")
RIVALS = 6


def at_once(calls: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """The answers to calls that begin at the same moment, each in a thread."""
    answers: list[httpx.Response] = []
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], httpx.Response]) -> None:
        gate.wait(30)
        answers.append(call())

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(calls)
    return answers


def statuses(answers: Sequence[httpx.Response]) -> list[int]:
    return sorted(answer.status_code for answer in answers)


def test_one_use_of_an_invite(developer, device):
    invite = developer.invite()
    devices = [type(device)(developer, f"rival {n}") for n in range(RIVALS)]
    answers = at_once([lambda d=device: d.enrol(invite) for device in devices])
    assert statuses(answers) == [201] + [403] * (RIVALS - 1)


def test_one_account_an_identity_key(developer, device):
    invites = [developer.invite() for _ in range(RIVALS)]
    rival = type(device)(developer, "rival")
    answers = at_once([lambda i=invite: rival.enrol(i) for invite in invites])
    assert 201 in statuses(answers)
    assert set(statuses(answers)) <= {201, 409}  # one that came later is let in again
    assert len(developer.request("GET", "/v1/devices").json()["devices"]) == 2  # and the phone


def test_the_device_limit(make_cloud):
    developer = make_cloud(max_devices=3).developer()
    device = type(developer.device())
    invites = [developer.invite() for _ in range(RIVALS)]
    answers = at_once(
        [lambda i=i, n=n: device(developer, f"d{n}").enrol(i) for n, i in enumerate(invites)]
    )
    assert statuses(answers) == [201] * 2 + [429] * (RIVALS - 2)


def test_the_invite_limit(make_cloud):
    cloud = make_cloud(max_invites=2)
    developer = cloud.developer()

    def post() -> httpx.Response:
        body = {"role": "device", "login_hash": os.urandom(32).hex(), "expires_in_s": 60}
        return developer.request("POST", "/v1/invites", json=body | {"label": "x"})

    assert statuses(at_once([post] * RIVALS)) == [201] * 2 + [429] * (RIVALS - 2)


def test_the_same_invite_twice(cloud, developer):
    secret = os.urandom(32)
    invite = Invite(url="http://x", pin=None, root=developer.id, role="device", secret=secret)
    body = {"role": "device", "login_hash": invite.login_hash, "expires_in_s": 60, "label": "x"}
    others = [cloud.developer(f"d{n}") for n in range(3)]
    answers = at_once(
        [lambda d=d: d.request("POST", "/v1/invites", json=body) for d in (developer, *others)]
    )
    # All hear the same, and one of them has it: who asks again is told so.
    assert statuses(answers) == [201] * 4
    again = [d.request("POST", "/v1/invites", json=body) for d in (developer, *others)]
    assert statuses(again) == [201, 201, 201, 409]


def test_two_publishers_of_one_name(developer):
    files = [{"config.json": b"%d" % n} for n in range(RIVALS)]
    for file in files:
        developer.put(file["config.json"])
    signed = [sign_manifest(developer.manifest(file), developer.publishing) for file in files]
    answers = at_once([lambda s=s: developer.post(s) for s in signed])
    assert statuses(answers) == [201] + [409] * (RIVALS - 1)
    listed = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(listed) == 1


def test_one_successor_of_a_token(cloud, developer):
    old = developer.token
    answers = at_once([lambda: cloud.request("POST", "/v1/tokens/rotate", old)] * RIVALS)
    assert statuses(answers) == [200] + [401] * (RIVALS - 1)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/artifacts?name=%00",
        "/v1/artifacts?name=%ED%A0%80",
        "/v1/devices/%00",
        "/v1/devices/x%ff",
    ],
)
def test_text_that_no_database_holds(developer, path):
    answer = developer.request("GET", path)
    assert answer.status_code in (200, 400, 404, 422)
    assert answer.status_code != 200 or answer.json() == {"artifacts": []}


def test_the_largest_number_of_a_document(developer):
    assert developer.publish({"config.json": b"{}"}, version=2**53 - 1, epoch=2**53 - 1)
    listed = developer.request("GET", "/v1/artifacts").json()["artifacts"]
    assert len(listed) == 1
