"""A developer's account and its invites, against a real cloud on loopback."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from live_cloud import Developer, cut, utc_now

from triparty.common.access import Access
from triparty.common.errors import (
    InviteError,
    RequestError,
    SettingsError,
    StateError,
    TokenExpiredError,
    TransportError,
)
from triparty.common.invites import Invite
from triparty.common.transport import CloudClient
from triparty.common.trust import verify_delegation, verify_latest
from triparty.developer.invite import invite_device


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_enrolment_keeps_access_and_a_first_statement(developer: Developer) -> None:
    access = developer.home.access()
    assert access.principal == access.developer == developer.home.root().public.key_id
    for name in ("cloud.json", "latest.json"):
        mode = stat.S_IMODE((developer.home.folder / name).stat().st_mode)
        assert mode == 0o600
    with developer.client() as client:
        shown = client.statements()
    root = access.developer
    delegation = verify_delegation(shown.delegation, root_fingerprint=root, now=utc_now())
    assert verify_latest(shown.latest, delegation, now=utc_now()).sequence == 1


def test_a_second_enrolment_is_refused(developer: Developer) -> None:
    before = (developer.home.folder / "cloud.json").read_bytes()
    invite = developer.cloud.invite()
    with pytest.raises(StateError, match=r"enrolled already.*--home.*--again"):
        developer.enroll(invite)
    assert (developer.home.folder / "cloud.json").read_bytes() == before


def test_without_keys_nothing_is_sent(
    newcomer: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (newcomer.home.folder / "keys" / "delegation.json").unlink()
    monkeypatch.setattr(CloudClient, "enroll", lambda *_: pytest.fail("sent"))
    with pytest.raises(StateError, match="developer init"):
        newcomer.enroll()


def test_a_refused_enrolment_leaves_nothing_and_can_be_repeated(
    newcomer: Developer, developer: Developer
) -> None:
    cloud = newcomer.cloud
    newcomer = Developer.new(cloud, newcomer.folder / "second")
    before = files(newcomer.home.folder)
    used = cloud.invite()
    Developer.new(cloud, newcomer.folder / "other").enroll(used)
    root = developer.home.root().public.key_id
    device = Invite(url=cloud.url, pin=None, root=root, role="device", secret=b"x" * 32)
    unknown = Invite(url=cloud.url, pin=None, root=None, role="developer", secret=b"x" * 32)
    closed = "http://127.0.0.1:9"
    with pytest.raises(SettingsError, match="triparty device enroll"):
        newcomer.enroll(device)
    with pytest.raises(InviteError, match=r"used before.*ask"):
        newcomer.enroll(used)
    with pytest.raises(InviteError, match="knows no such"):
        newcomer.enroll(unknown)
    with pytest.raises(SettingsError, match=f"for the cloud {cloud.url}, not for {closed}"):
        newcomer.enroll(cloud=closed)
    with pytest.raises(TransportError, match="cannot reach"):
        newcomer.enroll(cloud.invite(url=closed), cloud=closed)
    with pytest.raises(SettingsError, match="https"):
        newcomer.enroll(
            replace(cloud.invite(), url="http://192.0.2.1"), cloud="https://192.0.2.1"
        )
    assert files(newcomer.home.folder) == before
    newcomer.enroll()
    assert newcomer.latest().sequence == 1


def test_a_trailing_slash_is_no_other_cloud(newcomer: Developer) -> None:
    newcomer.enroll(cloud=newcomer.cloud.url + "/")
    assert newcomer.home.access().url == newcomer.cloud.url


@pytest.mark.parametrize("after", [False, True])
def test_an_enrolment_cut_before_its_first_statement_goes_on(
    after: bool, newcomer: Developer
) -> None:
    invite = newcomer.cloud.invite()
    with cut(CloudClient, "put_statements", after=after):
        newcomer.enroll(invite)
    token = newcomer.home.access().token
    newcomer.enroll(invite)
    assert newcomer.home.access().token == token
    assert newcomer.latest().sequence == newcomer.home.latest_state().sequence >= 1
    newcomer.device("phone")  # which needs the statement
    with pytest.raises(StateError, match="enrolled already"):
        newcomer.enroll(invite)


def test_an_enrolment_cut_before_the_cloud_knows_can_be_repeated(newcomer: Developer) -> None:
    invite = newcomer.cloud.invite()
    with cut(CloudClient, "enroll", after=False):
        newcomer.enroll(invite)
    assert not (newcomer.home.folder / "cloud.json").exists()
    newcomer.enroll(invite)


def test_access_never_shows_its_token(developer: Developer) -> None:
    access = developer.home.access()
    assert access.token not in repr(access)
    assert Access.load(developer.home.folder, role="developer") == access


def test_an_invite_names_cloud_and_root_and_holds_no_token(developer: Developer) -> None:
    code = developer.invite("phone")
    invite = Invite.from_code(code)
    access = developer.home.access()
    assert (invite.url, invite.root, invite.role) == (
        developer.cloud.url,
        access.developer,
        "device",
    )
    assert access.token not in code
    assert access.token.encode() not in invite.secret
    (file,) = (developer.home.folder / "invites").iterdir()
    kept = json.loads(file.read_bytes())
    assert file.stem == invite.login_hash
    assert kept == {"label": "phone", "confirm_key": invite.confirm_key.hex()}
    assert invite.secret.hex() not in json.dumps(kept)


def test_a_confirm_key_is_kept_only_if_the_cloud_took_the_invite(developer: Developer) -> None:
    invites = developer.home.folder / "invites"
    with pytest.raises(RequestError):
        invite_device(developer.home, label="", days=1, now=utc_now())
    assert not files(invites)
    with cut(CloudClient, "create_invite", after=False):
        developer.invite("phone")
    assert not files(invites)
    developer.invite("phone")
    assert len(files(invites)) == 1


def test_a_device_enrols_once_with_an_invite(developer: Developer, tmp_path: Path) -> None:
    from triparty.device.client import Device

    code = developer.invite("phone")
    Device(tmp_path / "a").enroll(code)
    with pytest.raises(InviteError, match="used before"):
        Device(tmp_path / "b").enroll(code)
    assert not (tmp_path / "b").exists()


def test_a_developer_whose_token_was_lost_comes_back(developer: Developer) -> None:
    before = developer.home.access()
    developer.cloud.expire_tokens(developer.home.access().principal)
    with developer.client() as client, pytest.raises(TokenExpiredError):
        client.devices()
    developer.enroll(again=True)
    after = developer.home.access()
    assert (after.principal, after.token != before.token) == (before.principal, True)
    assert developer.latest().sequence == 2
    developer.device("phone")


def test_coming_back_needs_the_root_key_and_the_same_cloud(developer: Developer) -> None:
    root = developer.home.folder / "keys" / "root.key"
    offline = root.rename(root.with_name("offline"))
    with pytest.raises(StateError, match=r"root\.key"):
        developer.enroll(again=True)
    offline.rename(root)
    elsewhere = replace(developer.cloud.invite(), url="http://127.0.0.1:9")
    with pytest.raises(SettingsError, match="enrolled with"):
        developer.enroll(elsewhere, cloud=elsewhere.url, again=True)
    developer.enroll(again=True)
