"""A party's access: private files, damage that is told, invites for somebody else."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tls_server import tls_server

from triparty.cloud.tls import make_self_signed
from triparty.common.access import (
    ACCESS_FILE,
    CERTIFICATE_FILE,
    Access,
    check_invite,
    first_contact,
    read_code,
)
from triparty.common.errors import (
    CertificateError,
    InviteError,
    SettingsError,
    StateError,
    TripartyError,
)
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey
from triparty.common.tls import certificate_pin

TOKEN = "tpt_secret"


@pytest.fixture
def access(now: object) -> Access:
    return Access(
        url="https://cloud.test",
        principal="ed25519:aa",
        developer="ed25519:bb",
        token=TOKEN,
        expires="2027-01-02T03:04:05Z",
        certificate_pem=make_self_signed([], now=now)[0].decode(),  # type: ignore[arg-type]
        allow_http=False,
    )


@pytest.fixture
def invite(root: PrivateKey) -> Invite:
    return Invite("https://cloud.test", None, root.public.key_id, "device", b"s" * 32)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_their_owners_alone(access: Access, tmp_path: Path, umask: int) -> None:
    home = tmp_path / "homes" / "phone"
    before = os.umask(umask)
    try:
        access.save(home)
    finally:
        os.umask(before)
    assert sorted(path.name for path in home.iterdir()) == [ACCESS_FILE, CERTIFICATE_FILE]
    for path in home.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_what_is_saved_is_loaded(access: Access, tmp_path: Path) -> None:
    for case in (access, replace(access, certificate_pem=None, allow_http=True)):
        case.save(tmp_path / "home")
        assert Access.load(tmp_path / "home", role="device") == case
    renewed = access.with_token("tpt_new", "2028-01-02T03:04:05Z")
    renewed.save(tmp_path / "home")
    loaded = Access.load(tmp_path / "home", role="device")
    assert (loaded.token, loaded.expires) == ("tpt_new", "2028-01-02T03:04:05Z")


def test_the_token_is_not_shown(access: Access) -> None:
    assert TOKEN not in repr(access)
    with access.client() as client:
        assert TOKEN not in repr(client)


def test_a_home_that_is_not_enrolled(tmp_path: Path) -> None:
    for role in ("developer", "device"):
        with pytest.raises(StateError, match=f"triparty {role} enroll"):
            Access.load(tmp_path / "absent", role=role)
    assert not (tmp_path / "absent").exists()


Damage = Callable[[Path], object]
DAMAGE: dict[str, Damage] = {
    "empty": lambda home: (home / ACCESS_FILE).write_bytes(b""),
    "cut": lambda home: (home / ACCESS_FILE).write_bytes(
        (home / ACCESS_FILE).read_bytes()[:-9]
    ),
    "no-text": lambda home: (home / ACCESS_FILE).write_bytes(b"\xff\xfe\x00"),
    "list": lambda home: (home / ACCESS_FILE).write_bytes(b"[]"),
    "number": lambda home: (home / ACCESS_FILE).write_bytes(b"7"),
    "no-certificate": lambda home: (home / CERTIFICATE_FILE).unlink(),
    "binary-certificate": lambda home: (home / CERTIFICATE_FILE).write_bytes(b"\xff\x00"),
    "certificate-is-folder": lambda home: (
        (home / CERTIFICATE_FILE).unlink(),
        (home / CERTIFICATE_FILE).mkdir(),
    ),
    "lacks-member": lambda home: (home / ACCESS_FILE).write_text(
        json.dumps({"url": "https://cloud.test", "token": TOKEN, "is_pinned": False})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file(access: Access, tmp_path: Path, damage: Damage) -> None:
    access.save(tmp_path / "home")
    damage(tmp_path / "home")
    with pytest.raises(StateError, match="damaged") as raised:
        Access.load(tmp_path / "home", role="device")
    assert TOKEN not in raised.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "t\u2603"},
        {"url": "http://cloud.test"},
        {"url": "nowhere"},
        {"certificate_pem": ""},
        {"certificate_pem": "no certificate"},
    ],
    ids=str,
)
def test_an_access_that_cannot_be_used(access: Access, changes: dict[str, str]) -> None:
    with pytest.raises(TripartyError) as raised:
        replace(access, **changes).client()  # type: ignore[arg-type]
    assert TOKEN not in raised.value.message


def test_every_member_must_be_there(access: Access, tmp_path: Path) -> None:
    access.save(tmp_path)
    document = json.loads((tmp_path / ACCESS_FILE).read_bytes())
    for name in document.keys() - {"job_key"}:  # homes of before have none
        rest = {key: value for key, value in document.items() if key != name}
        (tmp_path / ACCESS_FILE).write_text(json.dumps(rest))
        with pytest.raises(StateError, match=name):
            Access.load(tmp_path, role="device")


# Invites


def test_an_invite_for_another_role(invite: Invite) -> None:
    check_invite(invite, role="device", cloud="https://cloud.test/")
    with pytest.raises(SettingsError, match="for a device"):
        check_invite(invite, role="developer", cloud=invite.url)


@pytest.mark.parametrize(
    "cloud", ["https://evil.test", "https://cloud.test:8443", "http://cloud.test", ""]
)
def test_an_invite_to_another_cloud(invite: Invite, cloud: str) -> None:
    with pytest.raises(SettingsError, match=r"https://cloud\.test, not for"):
        check_invite(invite, role="device", cloud=cloud)


def test_first_contact_takes_the_pinned_certificate(invite: Invite, tmp_path: Path) -> None:
    with tls_server(tmp_path) as server:
        pin = certificate_pin(server.certificate_pem)
        here = replace(invite, url=server.url, pin=pin)
        with first_contact(here) as (client, certificate):
            assert certificate is not None
            assert certificate_pin(certificate) == pin
            assert client.connection.request("GET", "/").status == 200
        with pytest.raises(CertificateError), first_contact(replace(here, pin="0" * 64)):
            pass
        with pytest.raises(CertificateError), first_contact(replace(here, pin=None)) as (c, _):
            c.connection.request("GET", "/")
    assert server.asked == ["GET /"]


def test_plain_http_only_where_the_invite_says_so(invite: Invite) -> None:
    with first_contact(replace(invite, url="http://cloud.test")) as (client, certificate):
        assert (client.connection.url, certificate) == ("http://cloud.test", None)
    with (
        pytest.raises(CertificateError, match="not https"),
        first_contact(replace(invite, url="http://cloud.test", pin="0" * 64)),
    ):
        pass


def test_a_code_from_standard_input(invite: Invite, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_code(invite.to_code()) == invite.to_code()

    def piped(data: bytes) -> str:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        return read_code("-")

    assert piped(f"  {invite.to_code()}\nanother line\n".encode()) == invite.to_code()
    with pytest.raises(SettingsError, match="empty"):
        piped(b"")
    for damaged in (b"\xff\xfe\n", b"tpi1_\xff\n", invite.to_code().encode()[:-4]):
        with pytest.raises(InviteError):
            Invite.from_code(piped(damaged))
