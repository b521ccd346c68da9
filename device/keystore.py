"""Where a device's private keys are: in files of its home, or in the system's keyring.

The keyring (Secret Service, KWallet, macOS Keychain, Windows Credential Manager; the package
`keyring`, extra `triparty[keyring]`) keeps them under the user's login. Machines without a
desktop mostly have none. What is kept is the same PEM in both places, under the passphrase if
there is one.

HOME/keys.json says that the keys of a home are in the keyring, and under which random name:
two homes never share an entry, and a copied home finds the same one.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from triparty.common.errors import SettingsError, StateError
from triparty.common.files import write_private
from triparty.common.keyfiles import read_private

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "triparty device"
RECORD = "keys.json"
NAMES = ("identity.key", "sealing.key")
ID_BYTES = 16
RECOMMENDED = 1
"""The `keyring` package's own bound: a backend below it is no place for secrets."""


class Keys(StrEnum):
    """Where private keys should be."""

    AUTO = "auto"
    KEYRING = "keyring"
    FILE = "file"


class KeyStore(Protocol):
    """The two private keys of one home, as PEM by their `NAMES`."""

    @property
    def kind(self) -> Keys:
        """Where they are."""

    def write(self, pems: dict[str, bytes]) -> None:
        """Keeps all; durable when it returns.

        Raises:
            StateError: some are there already, or there is no place for them.
        """

    def read(self, name: str) -> tuple[bytes, str]:
        """One of them, and what to call it in messages.

        Raises:
            StateError: it is not there.
        """

    def remove(self) -> None:
        """Takes all away that are there."""


@dataclass(frozen=True)
class KeyFiles:
    """Keys in files of mode 0600.

    Attributes:
        folder: the home.
    """

    folder: Path
    kind: Keys = Keys.FILE

    def write(self, pems: dict[str, bytes]) -> None:
        """See `KeyStore.write`."""
        for name in pems:
            if (self.folder / name).exists():
                raise StateError(
                    f"{self.folder / name} exists; a key is never overwritten: move it away "
                    "first"
                )
        for name, pem in pems.items():
            write_private(self.folder / name, pem)

    def read(self, name: str) -> tuple[bytes, str]:
        """See `KeyStore.read`."""
        return read_private(self.folder / name), str(self.folder / name)

    def remove(self) -> None:
        """See `KeyStore.remove`."""
        for name in NAMES:
            (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class KeyringKeys:
    """Keys in the system's keyring.

    Attributes:
        folder: the home.
        backend: the keyring.
    """

    folder: Path
    backend: KeyringBackend
    kind: Keys = Keys.KEYRING

    def write(self, pems: dict[str, bytes]) -> None:
        """See `KeyStore.write`; the record is written when the keyring has shown them."""
        from keyring.errors import KeyringError

        record = self.folder / RECORD
        if record.exists():
            raise StateError(f"{self.folder} has keys in the keyring: none is overwritten")
        entry = secrets.token_hex(ID_BYTES)
        try:
            for name, pem in pems.items():
                self.backend.set_password(SERVICE, f"{name} {entry}", pem.decode("ascii"))
                if self.backend.get_password(SERVICE, f"{name} {entry}") != pem.decode("ascii"):
                    raise StateError("the keyring does not keep what it is given")
        except (KeyringError, StateError) as error:
            self._remove(entry)
            if isinstance(error, StateError):
                raise
            raise _refused(error) from error
        write_private(record, json.dumps({"entry": entry}).encode())

    def read(self, name: str) -> tuple[bytes, str]:
        """See `KeyStore.read`."""
        from keyring.errors import KeyringError

        called = f"{name} in the keyring"
        try:
            pem = self.backend.get_password(SERVICE, f"{name} {_entry(self.folder)}")
        except KeyringError as error:
            raise _refused(error) from error
        if pem is None:
            raise StateError(
                f"the keyring has no {name} of {self.folder}: log in as the user who enrolled "
                "it, or enrol another --home"
            )
        return pem.encode(), called

    def remove(self) -> None:
        """See `KeyStore.remove`; the record goes first, so that no half is believed."""
        if (self.folder / RECORD).exists():
            entry = _entry(self.folder)
            (self.folder / RECORD).unlink()
            self._remove(entry)

    def _remove(self, entry: str) -> None:
        from keyring.errors import KeyringError

        for name in NAMES:
            try:
                self.backend.delete_password(SERVICE, f"{name} {entry}")
            except KeyringError:
                continue  # was never there


def keyring_or_why_not() -> tuple[KeyringBackend | None, str]:
    """The keyring of this user, or in words why there is none to be trusted."""
    try:
        import keyring
        from keyring.backends import null
    except ImportError:
        return None, "the package keyring is not installed: pip install 'triparty[keyring]'"
    backend: Any = keyring.get_keyring()
    try:
        priority = float(backend.priority)
    except RuntimeError as error:  # how backends say that they do not work here
        return None, f"this machine has no usable keyring ({error})"
    if isinstance(backend, null.Keyring) or priority < RECOMMENDED:
        return None, "this machine has no usable keyring"
    return backend, ""


def place_for_new_keys(folder: Path, wanted: Keys) -> tuple[KeyStore, str]:
    """Where the keys of a new home go, and why not to the keyring, if they do not.

    Raises:
        SettingsError: the keyring is wanted, and there is none.
    """
    if wanted is Keys.FILE:
        return KeyFiles(folder), ""
    backend, why_not = keyring_or_why_not()
    if backend is not None:
        return KeyringKeys(folder, backend), ""
    if wanted is Keys.KEYRING:
        raise SettingsError(f"keys should be in the keyring, and {why_not}")
    return KeyFiles(folder), why_not


def place_of_keys(folder: Path, wanted: Keys) -> KeyStore:
    """Where the keys of an enrolled home are.

    Raises:
        StateError: elsewhere than they should be.
        SettingsError: in the keyring, and there is none.
    """
    in_keyring = (folder / RECORD).exists()
    if wanted is not Keys.AUTO and in_keyring != (wanted is Keys.KEYRING):
        here = Keys.KEYRING if in_keyring else Keys.FILE
        raise StateError(
            f"the keys of {folder} are in the {here}, and should be in the {wanted}: run "
            f"'triparty device keys --to {wanted}'"
        )
    if not in_keyring:
        return KeyFiles(folder)
    backend, why_not = keyring_or_why_not()
    if backend is None:
        raise SettingsError(f"the keys of {folder} are in the keyring, and {why_not}")
    return KeyringKeys(folder, backend)


def move_keys(folder: Path, to: Keys) -> KeyStore:
    """Moves the keys of an enrolled home; they are in the old place until the new one has them.

    Cut in between, the same again ends it.

    Args:
        folder: the home.
        to: `keyring` or `file`.

    Raises:
        SettingsError: there is no keyring, or no such place.
        StateError: the keys are not where they were.
    """
    if to is Keys.AUTO:
        raise SettingsError("keys move to the keyring or to a file, got auto")
    here = place_of_keys(folder, Keys.AUTO)
    there, _ = place_for_new_keys(folder, to)
    if here.kind is Keys.KEYRING:
        KeyFiles(folder).remove()  # of a move that was cut: the record counts
    if here.kind is not there.kind:
        there.write({name: here.read(name)[0] for name in NAMES})
        here.remove()
    return there


def _entry(folder: Path) -> str:
    try:
        return str(json.loads(read_private(folder / RECORD))["entry"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{folder / RECORD} is damaged: enrol another --home") from error


def _refused(error: Exception) -> StateError:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return StateError(f"the keyring refuses: {said}: unlock it, or use files (keys = 'file')")
