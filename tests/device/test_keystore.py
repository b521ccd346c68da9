"""Private keys in a keyring or in files: where they should be, found again, never lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import keyring
import pytest
from exchanges import Exchange
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError
from typer.testing import CliRunner

from triparty.common.errors import (
    InviteError,
    SettingsError,
    StateError,
    TripartyError,
)
from triparty.device.cli import app
from triparty.device.enroll import enroll
from triparty.device.home import Home
from triparty.device.keystore import KeyringKeys, Keys, move_keys, place_of_keys

FILES = ("identity.key", "sealing.key")


class MemoryKeyring(KeyringBackend):
    """A keyring as desktops have it, in this process."""

    priority: ClassVar[float] = 5

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.is_deaf = False

    def _open(self) -> None:
        if self.is_locked:
            raise KeyringLocked("the user dismissed the prompt")

    def get_password(self, service: str, username: str) -> str | None:
        self._open()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()
        if not self.is_deaf:
            self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._open()
        if self.held.pop((service, username), None) is None:
            raise PasswordDeleteError("not there")


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before, made = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def no_ring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(before)


def enrolled(
    exchange: Exchange, *, keys: Keys = Keys.AUTO, passphrase: str | None = None
) -> Home:
    developer = exchange.developer()
    home = Home(exchange.folder / "phone", keys=keys, passphrase=passphrase)
    invite = exchange.invite(developer)
    enroll(home, invite, cloud=invite.url, name="phone", now=exchange.wire.now)
    return home


def again(home: Home, *, keys: Keys = Keys.AUTO, passphrase: str | None = None) -> Home:
    """The same home in a later process."""
    return Home(home.folder, keys=keys, passphrase=passphrase)


def key_files(home: Home) -> list[str]:
    return [name for name in FILES if (home.folder / name).exists()]


def command(*words: str) -> str:
    """What `triparty device keys` prints."""
    done = CliRunner().invoke(app, ["keys", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
@pytest.mark.parametrize("keys", [Keys.AUTO, Keys.KEYRING])
def test_keys_are_in_the_keyring_and_on_no_disk(
    exchange: Exchange, ring: MemoryKeyring, keys: Keys, passphrase: str | None
) -> None:
    home = enrolled(exchange, keys=keys, passphrase=passphrase)
    assert key_files(home) == []
    assert len(ring.held) == 2
    on_disk = b"".join(f.read_bytes() for f in home.folder.rglob("*") if f.is_file())
    assert b"PRIVATE KEY" not in on_disk
    later = again(home, keys=keys, passphrase=passphrase)
    assert later.identity_key().public.key_id == home.access().principal
    assert later.key_place() == (Keys.KEYRING, "")
    assert all(("ENCRYPTED" in pem) == bool(passphrase) for pem in ring.held.values())
    if passphrase:
        with pytest.raises(StateError, match="needs its passphrase"):
            again(home).identity_key()


def test_a_bundle_opens_with_a_key_of_the_keyring(
    exchange: Exchange, ring: MemoryKeyring
) -> None:
    developer = exchange.developer()
    exchange.publish(developer)
    home = exchange.device(developer)
    exchange.grant(developer, "phone")
    assert [model.name for model in exchange.pull(home).taken] == ["tiny"]
    assert key_files(home) == []


def test_without_a_keyring_files_are_used_and_it_is_said(
    exchange: Exchange, no_ring: None
) -> None:
    home = enrolled(exchange)
    assert key_files(home) == list(FILES)
    assert home.key_place() == (Keys.FILE, "this machine has no usable keyring")
    said = command("--home", str(home.folder))
    assert said == "private keys: file (this machine has no usable keyring)\n"
    assert again(home, keys=Keys.FILE).key_place() == (Keys.FILE, "")


def test_without_the_package_files_are_used_and_it_is_said(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    home = enrolled(exchange)
    assert key_files(home) == list(FILES)
    assert "pip install 'triparty[keyring]'" in home.key_place()[1]


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring])
def test_who_wants_the_keyring_gets_no_file(
    exchange: Exchange, ring: MemoryKeyring, backend: type[KeyringBackend]
) -> None:
    keyring.set_keyring(backend())
    with pytest.raises(SettingsError, match=r"in the keyring, and .*no usable keyring"):
        enrolled(exchange, keys=Keys.KEYRING)
    assert not (exchange.folder / "phone").exists()
    assert enrolled_by_auto(exchange) == list(FILES)


def enrolled_by_auto(exchange: Exchange) -> list[str]:
    developer = exchange.developer("second")
    return key_files(exchange.device(developer, "tablet"))


def test_who_wants_files_leaves_the_keyring_alone(
    exchange: Exchange, ring: MemoryKeyring
) -> None:
    home = enrolled(exchange, keys=Keys.FILE)
    assert key_files(home) == list(FILES)
    assert not ring.held


@pytest.mark.parametrize("fault", ["is_locked", "is_deaf"])
def test_a_keyring_that_fails_leaves_nothing_behind(
    exchange: Exchange, ring: MemoryKeyring, fault: str
) -> None:
    setattr(ring, fault, True)
    with pytest.raises(StateError, match="keyring"):
        enrolled(exchange)
    assert not ring.held
    assert not (exchange.folder / "phone").exists()


def test_an_enrolment_that_fails_takes_its_keys_away(
    exchange: Exchange, ring: MemoryKeyring
) -> None:
    developer = exchange.developer()
    invite = exchange.invite(developer)
    exchange.device(developer, "tablet")
    kept = dict(ring.held)
    home = Home(exchange.folder / "phone")
    enroll(home, invite, cloud=invite.url, name="phone", now=exchange.wire.now)
    with pytest.raises(InviteError):  # the invite is spent
        enroll(
            Home(exchange.folder / "third"),
            invite,
            cloud=invite.url,
            name="third",
            now=exchange.wire.now,
        )
    assert len(ring.held) == 4
    assert kept.items() <= ring.held.items()
    assert home.identity_key().public.key_id == home.access().principal


def test_enrolling_again_keeps_the_keys(exchange: Exchange, ring: MemoryKeyring) -> None:
    developer = exchange.developer()
    home = exchange.device(developer)
    kept, before, now = dict(ring.held), home.access(), exchange.wire.now
    for is_good in (False, True):
        invite = exchange.invite(developer)
        if not is_good:
            ring.is_locked = True
            with pytest.raises(StateError, match="dismissed the prompt"):
                enroll(home, invite, cloud=invite.url, name="p", now=now, again=True)
            ring.is_locked = False
        else:
            enroll(home, invite, cloud=invite.url, name="p", now=now, again=True)
    assert ring.held == kept
    assert home.access().token != before.token
    assert home.access().principal == before.principal


def test_keys_move_there_and_back(exchange: Exchange, ring: MemoryKeyring) -> None:
    home = enrolled(exchange, keys=Keys.FILE)
    identity, sealing = home.identity_key().public, home.sealing_key().public
    for to, held, files in (
        (Keys.KEYRING, 2, []),
        (Keys.KEYRING, 2, []),
        (Keys.FILE, 0, list(FILES)),
        (Keys.FILE, 0, list(FILES)),
        (Keys.KEYRING, 2, []),
    ):
        again(home).move_keys(to)
        assert (len(ring.held), key_files(home)) == (held, files)
        for keys in (Keys.AUTO, to):
            later = again(home, keys=keys)
            assert (later.identity_key().public, later.sealing_key().public) == (
                identity,
                sealing,
            )


def test_keys_that_are_elsewhere_than_wanted_are_not_used(
    exchange: Exchange, ring: MemoryKeyring
) -> None:
    home = enrolled(exchange, keys=Keys.FILE)
    with pytest.raises(StateError, match="triparty device keys --to keyring"):
        again(home, keys=Keys.KEYRING).identity_key()
    home.move_keys(Keys.KEYRING)
    with pytest.raises(StateError, match="triparty device keys --to file"):
        again(home, keys=Keys.FILE).sealing_key()


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("to", [Keys.KEYRING, Keys.FILE])
def test_a_move_that_is_cut_loses_nothing(
    exchange: Exchange,
    ring: MemoryKeyring,
    monkeypatch: pytest.MonkeyPatch,
    to: Keys,
    cut: int,
) -> None:
    """Cut at each deed of a move; the keys are readable at once, and moving again ends it."""
    home = enrolled(exchange, keys=Keys.FILE if to is Keys.KEYRING else Keys.KEYRING)
    principal = home.access().principal
    deeds = 0

    def cut_here(real):
        def deed(*given, **named):
            nonlocal deeds
            if deeds == cut:
                raise KeyboardInterrupt
            deeds += 1
            return real(*given, **named)

        return deed

    with monkeypatch.context() as patch:
        from triparty.device import keystore

        patch.setattr(keystore, "write_private", cut_here(keystore.write_private))
        patch.setattr(MemoryKeyring, "set_password", cut_here(MemoryKeyring.set_password))
        patch.setattr(Path, "unlink", cut_here(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            move_keys(home.folder, to)
    assert again(home).identity_key().public.key_id == principal
    assert again(home).sealing_key()
    again(home).move_keys(to)
    assert again(home, keys=to).identity_key().public.key_id == principal
    assert key_files(home) == ([] if to is Keys.KEYRING else list(FILES))


def test_a_keyring_without_the_keys_says_so(exchange: Exchange, ring: MemoryKeyring) -> None:
    home = enrolled(exchange)
    ring.held.clear()
    with pytest.raises(StateError, match=r"the keyring has no identity\.key"):
        again(home).identity_key()
    ring.is_locked = True
    with pytest.raises(StateError, match=r"refuses.*unlock it"):
        again(home).identity_key()
    keyring.set_keyring(fail.Keyring())
    with pytest.raises(SettingsError, match="in the keyring, and this machine has no usable"):
        again(home).identity_key()
    (home.folder / "keys.json").write_text("{}")
    keyring.set_keyring(ring)
    with pytest.raises(StateError, match=r"keys\.json is damaged"):
        again(home).identity_key()


def test_two_homes_share_no_entry(exchange: Exchange, ring: MemoryKeyring) -> None:
    developer = exchange.developer()
    homes = [exchange.device(developer, name) for name in ("phone", "tablet")]
    assert len(ring.held) == 4
    homes[0].forget_keys()
    assert homes[1].identity_key().public.key_id == homes[1].access().principal
    with pytest.raises(TripartyError):
        homes[0].identity_key()


def test_the_command_moves_them(exchange: Exchange, ring: MemoryKeyring) -> None:
    home = enrolled(exchange, keys=Keys.FILE)
    folder = ("--home", str(home.folder))
    assert "triparty device keys --to keyring" in command(*folder)
    assert json.loads(command(*folder, "--to", "keyring", "--json")) == {"keys": "keyring"}
    assert isinstance(place_of_keys(home.folder, Keys.KEYRING), KeyringKeys)
    with pytest.raises(SettingsError, match="keyring or file"):
        command(*folder, "--to", "attic")


def test_nothing_of_the_keyring_is_loaded_where_it_is_not_used() -> None:
    code = "import sys, triparty.device.client; assert 'keyring' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
