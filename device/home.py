"""A device's folder: its keys, its access to the cloud, what it has seen, its bundles.

HOME/identity.key, sealing.key   private keys, mode 0600, unless they are in the keyring
HOME/keys.json                   says that they are (`keystore.py`)
HOME/cloud.json, cloud.pem       access
HOME/seen.json                   highest versions so far: nothing older is taken
HOME/models/NAME/                opened bundle, mode 0700
HOME/held/NAME.json              its version and epoch
HOME/once/NAME/VERSION/          bundle of a one-time instance, until it was used
HOME/used/NAME.json              versions of one-time instances that were used
HOME/gates/NAME/                 gate with its signed manifest, mode 0700
HOME/filters/NAME/               filter, the same
HOME/plans/NAME/                 plan, the same
HOME/edge-models/NAME/           model that a plan chose, the same
HOME/links/NAME/                 links of plans, the same
HOME/chosen/NAME.json            models that were chosen here in the place of a plan's
HOME/spent-decoys                digests of texts that served as decoys: none serves again
HOME/accounts/NAME/              the same for another cloud or developer (`accounts.py`)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from triparty.common.access import ACCESS_FILE, Access
from triparty.common.artifacts import MANIFEST_FILE, Manifest
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.documents import check_name
from triparty.common.errors import ArtifactError, PoolEmptyError, StateError
from triparty.common.files import locked, make_private_folder, write_private
from triparty.common.keying import DEVICE_FILE
from triparty.common.latest import Seen
from triparty.common.sealing import SealingKey
from triparty.common.signing import PrivateKey
from triparty.device.keystore import (
    NAMES,
    Keys,
    keyring_or_why_not,
    move_keys,
    place_for_new_keys,
    place_of_keys,
)

MAIN = "main"
"""The account that a home is by itself."""
MAY_MOVE = "there is a keyring: 'triparty device keys --to keyring' moves them"

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class HeldModel:
    """A model that this device can use.

    Attributes:
        name: as its developer published it.
        version: of the bundle.
        epoch: generation of the key.
        account: of this device, by which it has the model.
        once: whether it is one of several, each for one session.
    """

    name: str
    version: int
    epoch: int
    account: str = MAIN
    once: bool = False


@dataclass(frozen=True)
class HeldGate:
    """A gate that this device pulled.

    Attributes:
        name: as its developer published it.
        version: of the artifact.
    """

    name: str
    version: int


@dataclass(frozen=True)
class HeldFilter:
    """A filter that this device pulled.

    Attributes:
        name: as its developer published it.
        version: of the artifact.
    """

    name: str
    version: int


@dataclass(frozen=True)
class HeldLinks:
    """Links to a model that this device pulled.

    Attributes:
        name: as their developer published them.
        version: of the artifact.
    """

    name: str
    version: int


@dataclass(frozen=True)
class HeldPlan:
    """A plan that this device pulled, with the models that it chose.

    Attributes:
        name: as its developer published it.
        version: of the artifact.
        active: models that it runs.
    """

    name: str
    version: int
    active: tuple[str, ...]


class Home:
    """The files of one device.

    Args:
        folder: the home; made on first use.
        passphrase: of the private keys, if they have one.
        keys: where the private keys should be.
        account_name: which of the device's accounts it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        passphrase: str | None = None,
        keys: Keys = Keys.AUTO,
        account_name: str = MAIN,
    ) -> None:
        """Touches nothing yet."""
        self.folder, self.account_name = folder, account_name
        self._passphrase, self._keys = passphrase, keys

    def make_keys(self) -> tuple[PrivateKey, SealingKey]:
        """Makes and keeps this device's identity and sealing keys.

        Raises:
            StateError: the device is enrolled already, or its keyring refuses.
            SettingsError: the keys should be in the keyring, and there is none.
        """
        if self.is_enrolled:
            raise StateError(
                f"{self.folder} is enrolled already: name another --account, or give --again "
                "if its token expired or is lost"
            )
        make_private_folder(self.folder)
        identity, sealing = PrivateKey.generate(), SealingKey.generate()
        pems = (key.to_pem(passphrase=self._passphrase) for key in (identity, sealing))
        store, _ = place_for_new_keys(self.folder, self._keys)
        store.write(dict(zip(NAMES, pems, strict=True)))
        return identity, sealing

    def forget_keys(self) -> None:
        """Takes the private keys away: of an enrolment that failed."""
        place_of_keys(self.folder, Keys.AUTO).remove()

    def key_place(self) -> tuple[Keys, str]:
        """Where this device's keys are, and why they are not in the keyring, if so.

        Raises:
            StateError: it is not enrolled, or they are elsewhere than they should be.
            SettingsError: they are in the keyring, and there is none.
        """
        self.access()
        kind = place_of_keys(self.folder, self._keys).kind
        if kind is Keys.KEYRING or self._keys is Keys.FILE:
            return kind, ""
        backend, why_not = keyring_or_why_not()
        return kind, MAY_MOVE if backend is not None else why_not

    def move_keys(self, to: Keys) -> None:
        """Moves this device's keys to the keyring or to files; see `keystore.move_keys`."""
        self.access()
        with locked(self.folder):
            move_keys(self.folder, to)

    @property
    def is_enrolled(self) -> bool:
        """Whether this home has an account on a cloud."""
        return (self.folder / ACCESS_FILE).exists()

    def account(self, name: str) -> Home:
        """The home of another account of this device."""
        folder = self.folder / "accounts" / name
        return Home(folder, passphrase=self._passphrase, keys=self._keys, account_name=name)

    def access(self) -> Access:
        """How this device reaches its cloud.

        Raises:
            StateError: it is not enrolled.
        """
        return Access.load(self.folder, role="device")

    def identity_key(self) -> PrivateKey:
        """The key that is this device to cloud and developer."""
        pem, name = place_of_keys(self.folder, self._keys).read("identity.key")
        return PrivateKey.from_pem(pem, passphrase=self._passphrase, name=name)

    def sealing_key(self) -> SealingKey:
        """The key to which bundles are sealed."""
        pem, name = place_of_keys(self.folder, self._keys).read("sealing.key")
        return SealingKey.from_pem(pem, passphrase=self._passphrase, name=name)

    def seen(self) -> Seen:
        """The highest versions that this device has taken."""
        path = self.folder / "seen.json"
        if not path.exists():
            return Seen()
        return Seen.from_json(path.read_text(encoding="utf-8", errors="replace"))

    def save_seen(self, seen: Seen) -> None:
        """Raises the bar for what comes next."""
        write_private(self.folder / "seen.json", seen.to_json().encode())

    def bundle_folder(self, name: str) -> Path:
        """Where the opened bundle of a model lies, or will lie."""
        return self.folder / "models" / check_name(name)

    def held(self) -> list[HeldModel]:
        """The models that this device can use, by name; of one-time instances the lowest.

        Raises:
            StateError: a record is damaged.
        """
        files = sorted((self.folder / "held").glob("*.json"))
        shared = [replace(_read_held(file), account=self.account_name) for file in files]
        names = sorted(path.name for path in (self.folder / "once").glob("[!.]*"))
        once = [held for name in names for held in self.held_once(name)[:1]]
        return sorted([*shared, *once], key=lambda held: held.name)

    def hold(self, model: HeldModel) -> None:
        """Notes version and epoch of the bundle in its folder; what it replaces is removed."""
        shared = self.folder / "held" / f"{model.name}.json"
        if model.once:
            shared.unlink(missing_ok=True)
            shutil.rmtree(self.bundle_folder(model.name), ignore_errors=True)
            return
        members = {"name": model.name, "version": model.version, "epoch": model.epoch}
        write_private(shared, json.dumps(members).encode())
        shutil.rmtree(self.folder / "once" / model.name, ignore_errors=True)

    def once_folder(self, name: str, version: int) -> Path:
        """Where the bundle of a one-time instance lies, or will lie."""
        return self.folder / "once" / check_name(name) / str(version)

    def held_once(self, name: str) -> list[HeldModel]:
        """The one-time instances of a model that were not used, lowest version first.

        Raises:
            CheckpointError: a bundle is damaged.
        """
        used = self.used(name)
        folders = (self.folder / "once" / check_name(name)).glob("[0-9]*")
        versions = sorted(int(folder.name) for folder in folders)
        return [
            HeldModel(name, version, _epoch_of(folder), self.account_name, once=True)
            for version, folder in ((n, self.once_folder(name, n)) for n in versions)
            if version not in used
        ]

    def used(self, name: str) -> frozenset[int]:
        """The versions of a model's one-time instances that this device used.

        Raises:
            StateError: the record is damaged.
        """
        file = self.folder / "used" / f"{check_name(name)}.json"
        try:
            return (
                frozenset(map(int, json.loads(file.read_bytes()))) if file.exists() else _NONE
            )
        except (ValueError, TypeError) as error:
            raise StateError(
                f"{file} is damaged: restore it from a backup, or enrol anew"
            ) from error

    def has_used(self, name: str) -> bool:
        """Whether this device used one-time instances of a model, if that is a name at all."""
        return (self.folder / "used" / f"{name}.json").is_file()

    @staticmethod
    def pool_empty(name: str) -> PoolEmptyError:
        """What a device says that has used all its one-time instances of a model."""
        return PoolEmptyError(
            f"this device has no unused one-time instance of '{name}' left: ask the developer "
            "for more ('triparty developer grant'), then run 'triparty device pull'"
        )

    def note_used(self, name: str, version: int) -> None:
        """Notes that a one-time instance was used, for ever."""
        versions = sorted({*self.used(name), version})
        write_private(self.folder / "used" / f"{name}.json", json.dumps(versions).encode())

    def gate_folder(self, name: str) -> Path:
        """Where a gate that was pulled lies, or will lie."""
        return self.folder / "gates" / check_name(name)

    def gates(self) -> list[HeldGate]:
        """The gates that this device pulled, by name.

        Raises:
            StateError: a record is damaged.
        """
        return [HeldGate(one.name, one.version) for one in self._manifests("gates")]

    def filter_folder(self, name: str) -> Path:
        """Where a filter that was pulled lies, or will lie."""
        return self.folder / "filters" / check_name(name)

    def filters(self) -> list[HeldFilter]:
        """The filters that this device pulled, by name.

        Raises:
            StateError: a record is damaged.
        """
        return [HeldFilter(one.name, one.version) for one in self._manifests("filters")]

    def plan_folder(self, name: str) -> Path:
        """Where a plan that was pulled lies, or will lie."""
        return self.folder / "plans" / check_name(name)

    def edge_model_folder(self, name: str) -> Path:
        """Where a model that a plan chose lies, or will lie."""
        return self.folder / "edge-models" / check_name(name)

    def links_folder(self, name: str) -> Path:
        """Where the links to a model lie, or will lie."""
        return self.folder / "links" / check_name(name)

    def plans(self) -> list[HeldPlan]:
        """The plans that this device pulled, by name.

        Raises:
            StateError: a record is damaged.
        """
        from triparty.common.links.planning.folder import PlanFolder

        found = []
        for one in self._manifests("plans"):
            try:
                plan = PlanFolder.open(self.plan_folder(one.name)).plan
            except ArtifactError as error:
                raise StateError(
                    f"{self.plan_folder(one.name)} is damaged: remove it, then run 'triparty "
                    "device pull'"
                ) from error
            chosen = self._chosen(one)
            active = plan.active if chosen is None else chosen
            found.append(HeldPlan(one.name, one.version, active))
        return found

    def choose(self, plan: HeldPlan) -> None:
        """Notes that other models of a plan run here than it says, until its next version."""
        document = {"version": plan.version, "active": list(plan.active)}
        file = self.folder / "chosen" / f"{plan.name}.json"
        write_private(file, json.dumps(document).encode())

    def _chosen(self, plan: Manifest) -> tuple[str, ...] | None:
        file = self.folder / "chosen" / f"{plan.name}.json"
        if not file.exists():
            return None
        try:
            document = json.loads(file.read_bytes())
            active = tuple(check_name(name) for name in document["active"])
            return active if document["version"] == plan.version else None
        except (ValueError, KeyError, TypeError, ArtifactError) as error:
            raise StateError(f"{file} is damaged: remove it") from error

    def edge_models(self) -> list[str]:
        """Names of the models that plans brought here.

        Raises:
            StateError: a record is damaged.
        """
        return [one.name for one in self._manifests("edge-models")]

    def links(self) -> list[HeldLinks]:
        """The links that this device pulled, by name.

        Raises:
            StateError: a record is damaged.
        """
        return [HeldLinks(one.name, one.version) for one in self._manifests("links")]

    def _manifests(self, room: str) -> list[Manifest]:
        files = sorted(self.folder.glob(f"{room}/[!.]*/{MANIFEST_FILE}"))
        return [_read_manifest(file) for file in files]


def _epoch_of(folder: Path) -> int:
    return DeviceInfo.from_json((folder / DEVICE_FILE).read_bytes()).epoch


def _read_held(file: Path) -> HeldModel:
    try:
        document = json.loads(file.read_bytes())
        return HeldModel(
            check_name(document["name"]), int(document["version"]), int(document["epoch"])
        )
    except (ValueError, KeyError, TypeError, ArtifactError) as error:
        raise StateError(
            f"{file} is damaged: remove it, then run 'triparty device pull'"
        ) from error


def _read_manifest(file: Path) -> Manifest:
    try:
        return Manifest.from_bytes(file.read_bytes())
    except ArtifactError as error:
        raise StateError(
            f"{file} is damaged: remove its folder, then run 'triparty device pull'"
        ) from error


@dataclass(frozen=True)
class SpentDecoys:
    """The texts that served as decoys, by their digests.

    Attributes:
        folder: the home.
    """

    folder: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets one answer at a time read and write."""
        with locked(self.folder):
            yield

    def read(self) -> set[str]:
        """Digests of the texts that served."""
        path = self.folder / "spent-decoys"
        return set(path.read_text(encoding="ascii").split()) if path.exists() else set()

    def write(self, spent: set[str]) -> None:
        """Remembers them."""
        write_private(self.folder / "spent-decoys", "\n".join(sorted(spent)).encode())
