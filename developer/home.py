"""A developer's folder: its keys, its access to the cloud, what it published and to whom.

HOME/keys/root.key, publishing.key   private keys, mode 0600; move root.key offline
HOME/keys/delegation.json, .sig      the root's word on the publishing key
HOME/cloud.json, cloud.pem           access
HOME/invites/LOGIN_HASH.json         confirm key of each invite, mode 0600
HOME/models/NAME.json                what is published under a name, and to whom granted
HOME/latest.json                     sequence and revocations of the latest statement
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from triparty.common.access import Access
from triparty.common.documents import check_digest, check_name
from triparty.common.errors import StateError
from triparty.common.files import (
    make_private_folder,
    replace_folder,
    sync_folder,
    write_atomic,
    write_private,
)
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey
from triparty.common.trust import (
    Delegation,
    PublishingKey,
    SignedDocument,
    sign_delegation,
    verify_delegation,
)

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class PublishedInstance:
    """One form of a published model, under a key of its own.

    Attributes:
        version: of its artifact; a device has a bundle of that version.
        out: its protected folder.
        devices: ids of the devices with a bundle of it.
    """

    version: int
    out: str
    devices: tuple[str, ...] = ()

    def with_device(self, device: str) -> PublishedInstance:
        """The record after one more grant."""
        return replace(self, devices=tuple(sorted({*self.devices, device})))


@dataclass(frozen=True)
class PublishedModel:
    """What this developer published under a name.

    Attributes:
        name: on the cloud.
        out: the protected folder.
        version: of the artifact; of several instances the lowest that is current.
        epoch: generation of the key.
        devices: ids of the devices with a bundle of it.
        sharing: who shares a key, one of `instances.Sharing`.
        instances: its forms, by version; none where all devices share the one in `out`.
        highest: version that was published, that of a used one-time instance too.
    """

    name: str
    out: str
    version: int
    epoch: int
    devices: tuple[str, ...] = ()
    sharing: str = "all"
    instances: tuple[PublishedInstance, ...] = ()
    highest: int = 0

    @property
    def forms(self) -> tuple[PublishedInstance, ...]:
        """Its instances, or the one that all devices share."""
        return self.instances or (PublishedInstance(self.version, self.out, self.devices),)

    @property
    def newest_version(self) -> int:
        """The highest version of all forms, those that were used up too."""
        return max(self.highest, *(form.version for form in self.forms))

    def with_grant(self, instance: PublishedInstance, device: str) -> PublishedModel:
        """The record after an instance was granted to one more device."""
        devices = tuple(sorted({*self.devices, device}))
        instances = tuple(
            each.with_device(device) if each.version == instance.version else each
            for each in self.instances
        )
        return replace(self, devices=devices, instances=instances)


@dataclass(frozen=True)
class LatestState:
    """What the next latest statement must go on from.

    Attributes:
        sequence: of the last statement; 0 before the first.
        versions: current version by `kind/name`.
        revoked: `kind/name@version`, sorted.
    """

    sequence: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()


class Home:
    """The files of one developer.

    Args:
        folder: the home; made by `make_keys`.
        passphrase: of the private keys, if they have one.
    """

    def __init__(self, folder: Path, *, passphrase: str | None = None) -> None:
        """Touches nothing yet."""
        self.folder = folder
        self._passphrase = passphrase

    def make_keys(self, *, key_days: int, now: datetime) -> Delegation:
        """Makes root and publishing key and signs the one with the other, all or nothing.

        Args:
            key_days: how long the publishing key counts.
            now: when it is signed.

        Raises:
            StateError: there are keys already, which are never overwritten, or the
                passphrase is empty.
        """
        self._check_no_keys()
        root, publishing = PrivateKey.generate(), PrivateKey.generate()
        delegation = Delegation(
            root=root.public,
            keys=(PublishingKey(publishing.public, now + timedelta(days=key_days)),),
            version=1,
            created=now,
        )
        make_private_folder(self.folder)
        with self._new_keys(root, publishing, delegation) as making:
            self._check_no_keys()
            os.rename(making, self._keys)
        sync_folder(self.folder)
        return delegation

    def renew_publishing_key(
        self, *, key_days: int, now: datetime, forget: bool = False
    ) -> Delegation:
        """Makes a new publishing key and has the root vouch for it; needs the root key.

        Devices follow without enrolling again, because they pin the root alone.

        Args:
            key_days: how long the new key counts.
            now: when it is signed.
            forget: the root no longer vouches for the keys before (one leaked): what they
                signed is refused from then on and must be published again.

        Raises:
            StateError: no root key here.
        """
        root, signed = self.root(), self.signed_delegation()
        root.public.verify("delegation", signed.payload, signed.signature)
        before = Delegation.from_bytes(signed.payload)  # its keys may have expired
        publishing = PrivateKey.generate()
        kept = () if forget else tuple(key for key in before.keys if key.expires > now)
        delegation = Delegation(
            root=root.public,
            keys=(PublishingKey(publishing.public, now + timedelta(days=key_days)), *kept),
            version=before.version + 1,
            created=now,
        )
        with self._new_keys(root, publishing, delegation) as making:
            replace_folder(making, self._keys)
        sync_folder(self.folder)
        return delegation

    @contextmanager
    def _new_keys(
        self, root: PrivateKey, publishing: PrivateKey, delegation: Delegation
    ) -> Iterator[Path]:
        """A folder of keys that is gone after the block unless it was renamed."""
        signed = sign_delegation(delegation, root)
        making = self.folder / f".keys.{secrets.token_hex(8)}.part"
        try:
            make_private_folder(making)
            publishing.save(making / "publishing.key", passphrase=self._passphrase)
            write_atomic(making / "delegation.json", signed.payload)
            write_atomic(making / "delegation.sig", signed.signature)
            root.save(making / "root.key", passphrase=self._passphrase)
            yield making
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _check_no_keys(self) -> None:
        if self._keys.exists():
            raise StateError(
                f"{self._keys} exists already: a new root key would lock out every device; "
                f"name another --home"
            )

    @property
    def _keys(self) -> Path:
        return self.folder / "keys"

    def root(self) -> PrivateKey:
        """The root key; needed to enrol and to name a new publishing key."""
        return PrivateKey.load(self._key_file("root.key"), passphrase=self._passphrase)

    def publishing(self) -> PrivateKey:
        """The key that signs artifacts and latest statements."""
        return PrivateKey.load(self._key_file("publishing.key"), passphrase=self._passphrase)

    def signed_delegation(self) -> SignedDocument:
        """The root's word on the publishing key."""
        payload = self._key_file("delegation.json").read_bytes()
        return SignedDocument(payload, self._key_file("delegation.sig").read_bytes())

    def delegation(self, now: datetime) -> Delegation:
        """The same, verified against its own root."""
        signed = self.signed_delegation()
        root = Delegation.from_bytes(signed.payload).developer
        return verify_delegation(signed, root_fingerprint=root, now=now)

    def _key_file(self, name: str) -> Path:
        path = self._keys / name
        if not path.is_file():
            raise StateError(f"{path} is absent: run 'triparty developer init' first")
        return path

    def access(self) -> Access:
        """How this developer reaches its cloud.

        Raises:
            StateError: it is not enrolled.
        """
        return Access.load(self.folder, role="developer")

    def keep_invite(self, invite: Invite, *, label: str) -> Path:
        """Keeps an invite's confirm key, by which the device's keys are checked later."""
        path = self._invite_file(invite.login_hash)
        document = {"label": label, "confirm_key": invite.confirm_key.hex()}
        write_private(path, json.dumps(document).encode())
        return path

    def confirm_key(self, login_hash: str) -> bytes | None:
        """The confirm key of an invite made in this home; None for any other."""
        path = self._invite_file(check_digest(login_hash, what="invite"))
        if not path.is_file():
            return None
        return self._read(path, lambda document: bytes.fromhex(document["confirm_key"]))

    def label(self, login_hash: str) -> str | None:
        """What this developer called the device for which it made an invite."""
        path = self._invite_file(check_digest(login_hash, what="invite"))
        if not path.is_file():
            return None
        return self._read(path, lambda document: str(document["label"]))

    def _invite_file(self, login_hash: str) -> Path:
        return self.folder / "invites" / f"{login_hash}.json"

    def models(self) -> list[PublishedModel]:
        """What this developer published, by name."""
        return [self._model(path) for path in sorted((self.folder / "models").glob("*.json"))]

    def model(self, name: str) -> PublishedModel | None:
        """What is published under a name, or None."""
        path = self._model_file(name)
        return self._model(path) if path.is_file() else None

    def existing_model(self, name: str) -> PublishedModel:
        """What is published under a name.

        Raises:
            StateError: nothing is; names what is.
        """
        model = self.model(name)
        if model is None:
            have = ", ".join(model.name for model in self.models()) or "nothing"
            raise StateError(f"'{name}' is not published from this home; it published: {have}")
        return model

    def keep_model(self, model: PublishedModel) -> None:
        """Notes what is published under a name."""
        write_private(self._model_file(model.name), json.dumps(asdict(model)).encode())

    def _model_file(self, name: str) -> Path:
        return self.folder / "models" / f"{check_name(name)}.json"

    def _model(self, path: Path) -> PublishedModel:
        return self._read(path, _published)

    def latest_state(self) -> LatestState:
        """What the next latest statement goes on from."""
        path = self.folder / "latest.json"
        if not path.is_file():
            return LatestState()
        return self._read(
            path,
            lambda document: LatestState(**{**document, "revoked": tuple(document["revoked"])}),
        )

    def keep_latest_state(self, state: LatestState) -> None:
        """Notes what the cloud accepted."""
        write_private(self.folder / "latest.json", json.dumps(asdict(state)).encode())

    @staticmethod
    def _read(path: Path, build: Callable[[dict[str, Any]], _Record]) -> _Record:
        try:
            return build(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path} is damaged: restore it from a backup") from error


def _published(document: dict[str, Any]) -> PublishedModel:
    devices = tuple(document["devices"])
    instances = tuple(
        PublishedInstance(**{**item, "devices": tuple(item["devices"])})
        for item in document.get("instances", ())
    )
    return PublishedModel(**{**document, "devices": devices, "instances": instances})
