"""Enrolment of a device: with the invite's cloud and developer, or not at all."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloud_on_wire import URL, Fault, Forward, altering, answering, cutting
from exchanges import NOW, Exchange
from tls_server import tls_server

from triparty.common.access import Access
from triparty.common.delegation import Delegation, PublishingKey, sign_delegation
from triparty.common.errors import (
    CertificateError,
    CloudError,
    ExpiredError,
    InviteError,
    SettingsError,
    SignatureError,
    SignerError,
    StateError,
    TokenRevokedError,
    TripartyError,
    UnauthenticatedError,
    UnreachableError,
)
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey, from_base64url, to_base64url
from triparty.developer.home import Home as DeveloperHome
from triparty.device.enroll import enroll
from triparty.device.home import Home

ENROLL = "/v1/enroll"
LATEST = "/v1/latest"


@pytest.fixture
def developer(exchange: Exchange) -> DeveloperHome:
    return exchange.developer()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "devices" / "phone")


def enrol(exchange: Exchange, home: Home, invite: Invite) -> Access:
    return enroll(home, invite, cloud=invite.url, name="phone", now=exchange.wire.now)


def test_an_enrolled_device(exchange: Exchange, developer: DeveloperHome, home: Home) -> None:
    access = enrol(exchange, home, exchange.invite(developer))
    assert home.access() == access
    assert access.developer == developer.delegation(exchange.wire.now).developer
    names = ["cloud.json", "identity.key", "sealing.key", "seen.json"]
    assert sorted(path.name for path in home.folder.iterdir()) == names
    assert {stat.S_IMODE(p.stat().st_mode) for p in home.folder.iterdir()} == {0o600}
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert home.seen().delegation_version(access.developer) == 1
    with developer.access().client() as client:
        (record,) = client.devices()
    assert record.id == access.principal
    assert record.sealing == home.sealing_key().public


def test_nothing_private_reaches_the_cloud(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    invite = exchange.invite(developer)
    sent: list[bytes] = []

    def listening(request: httpx.Request, forward: Any) -> httpx.Response:
        sent.append(request.content + str(request.headers).encode())
        return forward(request)

    with exchange.wire.fault(listening):
        enrol(exchange, home, invite)
    private = [invite.secret, invite.confirm_key]
    for secret in private:
        for form in (secret, secret.hex().encode(), to_base64url(secret).encode()):
            assert not any(form in message for message in sent)
    assert any(to_base64url(invite.login).encode() in message for message in sent)


# Invites


def test_an_invite_of_nobody(exchange: Exchange, developer: DeveloperHome, home: Home) -> None:
    invite = exchange.invite(developer)
    with pytest.raises(InviteError):
        enrol(exchange, home, replace(invite, secret=b"x" * 32))
    assert not home.folder.exists()
    enrol(exchange, home, invite)


def test_a_used_invite(exchange: Exchange, developer: DeveloperHome, home: Home) -> None:
    invite = exchange.invite(developer)
    enrol(exchange, Home(home.folder.with_name("first")), invite)
    with pytest.raises(InviteError):
        enrol(exchange, home, invite)
    assert not home.folder.exists()
    enrol(exchange, home, exchange.invite(developer))


def test_an_expired_invite(exchange: Exchange, developer: DeveloperHome, home: Home) -> None:
    invite = exchange.invite(developer)
    exchange.wire.now += timedelta(days=7)
    with pytest.raises(InviteError):
        enrol(exchange, home, invite)
    assert not home.folder.exists()
    enrol(exchange, home, exchange.invite(developer))


def test_an_invite_for_something_else(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    invite = exchange.invite(developer)
    before = len(exchange.wire.requests)
    with pytest.raises(SettingsError, match="not for"):
        enroll(home, invite, cloud="https://evil.test", name="x", now=exchange.wire.now)
    with pytest.raises(SettingsError, match="for a developer"):
        enrol(exchange, home, replace(invite, role="developer", root=None))
    assert len(exchange.wire.requests) == before
    assert not home.folder.exists()
    enrol(exchange, home, invite)


# A cloud that lies, and a wire that breaks


def changed(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update({name: value})


def foreign_delegation(_: Exchange) -> Fault:
    root, publishing = PrivateKey.from_seed(b"f" * 32), PrivateKey.from_seed(b"g" * 32)
    return delegated(root, publishing)


def expired_delegation(exchange: Exchange) -> Fault:
    keys = DeveloperHome(exchange.folder / "acme")
    return delegated(keys.root(), keys.publishing(), is_expired=True)


def delegated(root: PrivateKey, publishing: PrivateKey, *, is_expired: bool = False) -> Fault:
    until = NOW + timedelta(days=-1 if is_expired else 1)
    delegation = Delegation(root.public, (PublishingKey(publishing.public, until),), 2, NOW)
    signed = sign_delegation(delegation, root)
    members = {
        "delegation": to_base64url(signed.payload),
        "delegation_signature": to_base64url(signed.signature),
    }
    return altering(LATEST, lambda document: document.update(members))


def flip(member: str) -> Callable[[dict[str, Any]], object]:
    """Changes the last byte of a binary member."""

    def change(document: dict[str, Any]) -> None:
        data = bytearray(from_base64url(document[member]))
        data[-1] ^= 1
        document[member] = to_base64url(bytes(data))

    return change


def post(name: str, value: object) -> Fault:
    return altering(ENROLL, changed(name, value), method="POST")


OTHER = PrivateKey.from_seed(b"o" * 32).public.key_id
LIES: dict[str, tuple[Callable[[Exchange], Fault], type[TripartyError]]] = {
    "other-developer": (lambda _: post("developer", OTHER), SignerError),
    "other-principal": (lambda _: post("principal", OTHER), CloudError),
    "no-token": (lambda _: post("token", None), CloudError),
    "odd-token": (lambda _: post("token", "tpt_\u2603"), UnauthenticatedError),
    "wrong-token": (lambda _: post("token", "tpt_" + "0" * 43), UnauthenticatedError),
    "no-expiry": (lambda _: post("expires", "never"), CloudError),
    "foreign-delegation": (foreign_delegation, SignerError),
    "expired-delegation": (expired_delegation, ExpiredError),
    "tampered-delegation": (
        lambda _: altering(LATEST, flip("delegation_signature")),
        SignatureError,
    ),
    "no-delegation": (
        lambda _: altering(LATEST, lambda d: d.pop("delegation")),
        CloudError,
    ),
    "lost-answer": (lambda _: cutting(ENROLL, method="POST", late=True), UnreachableError),
    "cut-after": (lambda _: cutting(LATEST), UnreachableError),
    "no-document": (
        lambda _: answering(ENROLL, lambda: httpx.Response(201, text="<html>"), method="POST"),
        CloudError,
    ),
    "failing": (lambda _: answering(LATEST, lambda: httpx.Response(500)), CloudError),
}


@pytest.mark.parametrize(("fault", "error"), LIES.values(), ids=LIES)
def test_a_lying_cloud_leaves_no_home(
    exchange: Exchange,
    developer: DeveloperHome,
    home: Home,
    fault: Callable[[Exchange], Fault],
    error: type[TripartyError],
) -> None:
    invite = exchange.invite(developer)
    with exchange.wire.fault(fault(exchange)), pytest.raises(TripartyError) as raised:
        enrol(exchange, home, invite)
    assert type(raised.value) is error
    assert not home.folder.exists()
    enrol(exchange, home, exchange.invite(developer))  # the invite may be used up


@pytest.mark.parametrize(
    "fault",
    [
        cutting(ENROLL, method="POST"),
        answering(ENROLL, lambda: httpx.Response(503), method="POST"),
        answering(ENROLL, lambda: httpx.Response(302), method="POST"),
    ],
    ids=["cut", "busy", "redirect"],
)
def test_an_enrolment_that_never_arrived_can_be_repeated(
    exchange: Exchange, developer: DeveloperHome, home: Home, fault: Fault
) -> None:
    invite = exchange.invite(developer)
    with exchange.wire.fault(fault), pytest.raises((UnreachableError, CloudError)):
        enrol(exchange, home, invite)
    assert not home.folder.exists()
    enrol(exchange, home, invite)


def test_an_enrolment_whose_answer_is_lost_goes_on_with_the_same_keys(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    invite, lost = exchange.invite(developer), []

    def first_answer_lost(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = forward(request)
        if request.url.path == ENROLL and not lost:
            lost.append(answer.json()["principal"])
            raise httpx.RemoteProtocolError("cut", request=request)
        return answer

    with exchange.wire.fault(first_answer_lost):
        access = enrol(exchange, home, invite)
    assert lost == [access.principal]
    with access.client() as client:
        assert client.statements()
    with pytest.raises(InviteError):  # used up for everybody else
        enrol(exchange, Home(home.folder.with_name("second")), invite)


def test_a_developer_the_cloud_does_not_admit(exchange: Exchange, home: Home) -> None:
    """The same cloud, an honest invite, but of another root than the account's inviter."""
    acme, other = exchange.developer("acme"), exchange.developer("other")
    root = other.delegation(exchange.wire.now).developer
    with pytest.raises(SignerError):
        enrol(exchange, home, replace(exchange.invite(acme), root=root))
    assert not home.folder.exists()


def test_another_certificate(
    exchange: Exchange, developer: DeveloperHome, home: Home, tmp_path: Path
) -> None:
    invite = exchange.invite(developer)
    with tls_server(tmp_path / "evil") as evil:
        pinned = replace(invite, url=evil.url, pin="0" * 64)
        with pytest.raises(CertificateError):
            enrol(exchange, home, pinned)
    assert evil.asked == []
    assert not home.folder.exists()
    enrol(exchange, home, invite)


# Homes that are there


def test_an_enrolled_home_is_left_alone(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    enrol(exchange, home, exchange.invite(developer))
    before = {path: path.read_bytes() for path in home.folder.iterdir()}
    invite = exchange.invite(developer)
    with pytest.raises(StateError, match="enrolled already"):
        enrol(exchange, home, invite)
    assert {path: path.read_bytes() for path in home.folder.iterdir()} == before
    enrol(exchange, Home(home.folder.with_name("second")), invite)


def test_a_folder_that_was_there_keeps_what_it_held(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    """As with a volume that is mounted for the home: the same call can be made again."""
    home.folder.mkdir(parents=True)
    (home.folder / "notes").write_text("mine")
    for fault in (cutting(ENROLL, method="POST"), cutting(LATEST)):
        with exchange.wire.fault(fault), pytest.raises(UnreachableError):
            enrol(exchange, home, exchange.invite(developer))
        assert [path.name for path in home.folder.iterdir()] == ["notes"]
    enrol(exchange, home, exchange.invite(developer))
    assert (home.folder / "notes").read_text() == "mine"


def test_a_key_is_never_overwritten(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    home.folder.mkdir(parents=True)
    PrivateKey.generate().save(home.folder / "identity.key")
    before = (home.folder / "identity.key").read_bytes()
    invite = exchange.invite(developer)
    with pytest.raises(StateError, match="never overwritten"):
        enrol(exchange, home, invite)
    assert (home.folder / "identity.key").read_bytes() == before
    (home.folder / "identity.key").unlink()
    enrol(exchange, home, invite)
    assert home.access().url == URL


# Again


def again(exchange: Exchange, home: Home, invite: Invite) -> Access:
    now = exchange.wire.now
    return enroll(home, invite, cloud=invite.url, name="phone", now=now, again=True)


def test_a_device_whose_token_expired_comes_back(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    first = enrol(exchange, home, exchange.invite(developer))
    kept = {name: (home.folder / name).read_bytes() for name in ("identity.key", "sealing.key")}
    second = again(exchange, home, exchange.invite(developer))
    assert second == home.access()
    assert (second.principal, second.token != first.token) == (first.principal, True)
    assert {name: (home.folder / name).read_bytes() for name in kept} == kept
    with first.client() as client, pytest.raises(TokenRevokedError):
        client.artifacts()
    with second.client() as client:
        client.artifacts()


def test_coming_back_that_fails_leaves_the_home_as_it_was(
    exchange: Exchange, developer: DeveloperHome, home: Home
) -> None:
    with pytest.raises(StateError, match="not enrolled"):
        again(exchange, home, exchange.invite(developer))
    enrol(exchange, home, exchange.invite(developer))
    before = {path: path.read_bytes() for path in home.folder.iterdir()}
    other = exchange.developer("other")
    with pytest.raises(SignerError, match="belongs to developer"):
        again(exchange, home, exchange.invite(other))
    with pytest.raises(SettingsError, match="enrolled with"):
        again(exchange, home, replace(exchange.invite(developer), url="https://evil.test"))
    with exchange.wire.fault(post("developer", OTHER)), pytest.raises(SignerError):
        again(exchange, home, exchange.invite(developer))
    assert {path: path.read_bytes() for path in home.folder.iterdir()} == before
    again(exchange, home, exchange.invite(developer))
