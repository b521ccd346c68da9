"""A developer's folder: keys that are never overwritten, records that are whole or refused."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from triparty.common.errors import ManifestError, StateError
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey
from triparty.developer.home import Home, LatestState, PublishedModel

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "developer")
    made.make_keys(key_days=30, now=NOW)
    return made


@pytest.fixture
def an_invite(home: Home) -> Invite:
    root = home.delegation(NOW).developer
    return Invite(
        url="https://cloud.test", pin=None, root=root, role="device", secret=b"s" * 32
    )


def test_keys_are_made_once(home: Home) -> None:
    before = {path: path.read_bytes() for path in (home.folder / "keys").iterdir()}
    with pytest.raises(StateError, match=r"exists already.*another --home"):
        home.make_keys(key_days=30, now=NOW)
    assert {path: path.read_bytes() for path in (home.folder / "keys").iterdir()} == before


def test_the_root_vouches_for_the_publishing_key(home: Home) -> None:
    delegation = home.delegation(NOW)
    assert delegation.developer == home.root().public.key_id
    (key,) = delegation.keys
    assert key.public.key_id == home.publishing().public.key_id
    assert key.expires == NOW + timedelta(days=30)


def test_what_is_secret_is_for_the_owner_alone(home: Home, an_invite: Invite) -> None:
    kept = home.keep_invite(an_invite, label="phone")
    home.keep_model(PublishedModel("tiny", "/out", 1, 1))
    home.keep_latest_state(LatestState(1))
    old = os.umask(0o000)
    try:
        loose = Home(home.folder.parent / "other")
        loose.make_keys(key_days=30, now=NOW)
    finally:
        os.umask(old)
    for place in (home, loose):
        assert mode(place.folder) == 0o700
        assert mode(place.folder / "keys") == 0o700
        assert mode(place.folder / "keys" / "root.key") == 0o600
        assert mode(place.folder / "keys" / "publishing.key") == 0o600
    for path in (kept, home.folder / "models" / "tiny.json", home.folder / "latest.json"):
        assert mode(path) == 0o600


def test_a_passphrase_is_needed_again(tmp_path: Path) -> None:
    Home(tmp_path / "home", passphrase="hunter2").make_keys(key_days=30, now=NOW)
    assert Home(tmp_path / "home", passphrase="hunter2").root()
    for wrong in (None, "hunter3"):
        with pytest.raises(StateError, match="passphrase") as caught:
            Home(tmp_path / "home", passphrase=wrong).root()
        assert "hunter" not in caught.value.message


@pytest.mark.parametrize("failing", ["publishing.key", "root.key"])
def test_an_interrupted_init_leaves_nothing_and_can_be_repeated(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PrivateKey.save

    def save(self: PrivateKey, path: Path, *, passphrase: str | None) -> None:
        if path.name == failing:
            raise KeyboardInterrupt
        real(self, path, passphrase=passphrase)

    home = Home(tmp_path / "home")
    monkeypatch.setattr(PrivateKey, "save", save)
    with pytest.raises(KeyboardInterrupt):
        home.make_keys(key_days=30, now=NOW)
    assert not any(home.folder.iterdir())
    monkeypatch.undo()
    home.make_keys(key_days=30, now=NOW)
    assert home.root()


def test_an_empty_passphrase_is_refused_and_init_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="empty passphrase"):
        Home(tmp_path / "home", passphrase="").make_keys(key_days=30, now=NOW)
    Home(tmp_path / "home").make_keys(key_days=30, now=NOW)


def test_without_keys_the_remedy_is_init(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for use in (home.root, home.publishing, home.signed_delegation):
        with pytest.raises(StateError, match="developer init"):
            use()
    with pytest.raises(StateError, match="developer enroll"):
        home.access()


def test_an_invite_is_known_by_its_login_hash(home: Home, an_invite: Invite) -> None:
    assert home.confirm_key(an_invite.login_hash) is None
    assert home.label(an_invite.login_hash) is None
    home.keep_invite(an_invite, label="phone")
    assert home.confirm_key(an_invite.login_hash) == an_invite.confirm_key
    assert home.label(an_invite.login_hash) == "phone"
    with pytest.raises(ManifestError):
        home.confirm_key("../keys/root")


def test_records_come_back_as_they_were_kept(home: Home) -> None:
    assert home.models() == []
    assert home.model("tiny") is None
    assert home.latest_state() == LatestState()
    model = PublishedModel("tiny", "/out", 3, 2)
    for device in ("b", "a", "a"):
        model = model.with_grant(model.forms[0], device)
    assert model.devices == ("a", "b")
    home.keep_model(model)
    assert home.models() == [model] == [home.existing_model("tiny")]
    state = LatestState(4, {"model/tiny": 3}, ("model/tiny@1",))
    home.keep_latest_state(state)
    assert home.latest_state() == state
    with pytest.raises(StateError, match=r"'other' is not published.*it published: tiny"):
        home.existing_model("other")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"{}", b"null", b'{"unknown": 1}', b"\xff", b'{"name": 1}']
)
def test_a_damaged_record_is_named(damage: bytes, home: Home, an_invite: Invite) -> None:
    invite = home.keep_invite(an_invite, label="phone")
    reads: dict[Path, Any] = {
        home.folder / "models" / "tiny.json": lambda: home.model("tiny"),
        home.folder / "latest.json": home.latest_state,
        invite: lambda: home.confirm_key(an_invite.login_hash),
    }
    for path, read in reads.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damage)
        with pytest.raises(StateError, match=r"damaged.*backup") as caught:
            read()
        assert str(path) in caught.value.message
