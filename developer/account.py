"""`Developer`: what `triparty developer` does, as Python calls with the same words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from triparty.common.access import Access, renew_if_due, trust_certificate
from triparty.common.entries import Kind
from triparty.common.files import locked
from triparty.common.invites import Invite
from triparty.common.latest import Latest
from triparty.common.replies import DeviceRecord
from triparty.developer.enroll import enroll
from triparty.developer.grant import Granted, find_device, grant_model, models_to_grant
from triparty.developer.home import Home, PublishedModel
from triparty.developer.instances import Instances, Sharing
from triparty.developer.invite import invite_device
from triparty.developer.publish import Publication, publish_model
from triparty.developer.publish_edge import PublishedEdge, publish_edge
from triparty.developer.publish_plan import publish_plan
from triparty.developer.settings import DeveloperSettings
from triparty.developer.statements import renew_latest

if TYPE_CHECKING:
    from triparty.developer.verify import Agreement


@dataclass(frozen=True)
class Revocation:
    """What revoking a device did, and what it leaves to do.

    Attributes:
        device: id of the device.
        name: what the developer called it.
        shared: published models whose bundle it keeps, and with it the key of everybody who
            shares them; `rotate` them.
    """

    device: str
    name: str
    shared: tuple[str, ...]


@dataclass(frozen=True)
class DeveloperStatus:
    """What a developer has on its cloud.

    Attributes:
        access: to the cloud.
        latest: the statement, just renewed.
        models: what is published from this home.
        devices: what the cloud says of the devices, with the name of each one's invite.
    """

    access: Access
    latest: Latest
    models: tuple[PublishedModel, ...]
    devices: tuple[tuple[str | None, DeviceRecord], ...]


class Developer:
    """One developer: keys, published models, devices.

    Args:
        home: the developer's folder.
        settings: expiry times and passphrase; None for the defaults. Its `home` is not used.
    """

    def __init__(self, home: Path | str, *, settings: DeveloperSettings | None = None) -> None:
        """Touches nothing yet."""
        self.settings = settings or DeveloperSettings()
        self.home = Home(Path(home), passphrase=self.settings.passphrase)

    def init(self) -> str:
        """Makes root and publishing key; returns the root's fingerprint.

        Raises:
            StateError: there are keys already.
        """
        made = self.home.make_keys(key_days=self.settings.key_days, now=_now())
        return made.developer

    def enroll(
        self,
        code: str,
        *,
        cloud: str | None = None,
        name: str = "developer",
        again: bool = False,
    ) -> Access:
        """Turns an operator's invite into this developer's account.

        Args:
            code: the invite.
            cloud: the cloud that the user expects; None takes the invite's word.
            name: label that the operator sees.
            again: this home is enrolled, and its token expired or is lost.

        Raises:
            InviteError: unknown, used or expired.
            TransportError: the invite's cloud was not reached, or somebody else answered.
        """
        invite = Invite.from_code(code)
        return enroll(
            self.home,
            invite,
            cloud=cloud or invite.url,
            name=name,
            latest_days=self.settings.latest_days,
            now=_now(),
            again=again,
        )

    def trust(self, pin: str) -> None:
        """Trusts the new certificate of this developer's cloud from now on.

        Args:
            pin: its SHA-256 in hex, as the operator tells it outside of the cloud.

        Raises:
            StateError: not enrolled.
            CertificateError: the cloud shows another certificate.
            TripartyError: whoever shows it is not this developer's cloud; nothing changed.
        """
        trust_certificate(self.home.folder, self.home.access(), pin, now=_now())

    @staticmethod
    def protect(source: Path | str, out: Path | str) -> None:
        """Re-keys a checkpoint: `out/model`, `out/device` and `out/secrets`.

        Args:
            source: a folder or a hub id.
            out: a folder that does not exist yet.

        Raises:
            CheckpointError: a checkpoint that cannot be protected.
        """
        from triparty.developer.protect import protect  # loads the compiler

        protect(str(source), Path(out))

    @staticmethod
    def verify(source: Path | str, out: Path | str, *, samples: int = 1000) -> Agreement:
        """Compares a protected model with its original, both in stock classes."""
        import numpy as np

        from triparty.developer.verify import Comparison  # loads torch and transformers

        comparison = Comparison(str(source), Path(out))
        return comparison.agreement(samples, rng=np.random.default_rng(0))

    def publish(
        self,
        out: Path | str,
        *,
        name: str | None = None,
        instances: Instances | None = None,
    ) -> Publication:
        """Uploads a protected model; devices that hold the name get new bundles.

        Args:
            out: a folder that `protect` made.
            name: on the cloud; None takes the folder's name.
            instances: which devices share a key; None: as before, at first all.

        Raises:
            ArtifactError: a file that must not be published.
            SettingsError: one-time instances of a model that sees images in its texts.
        """
        folder = Path(out)
        with self._alone():
            return publish_model(
                self.home,
                folder,
                name=name or folder.resolve().name,
                settings=self.settings,
                now=_now(),
                instances=instances,
            )

    def publish_gate(self, folder: Path | str, *, name: str | None = None) -> PublishedEdge:
        """Uploads a gate, for all devices of this developer.

        Args:
            folder: a gate, as `triparty device gate fit` wrote it.
            name: on the cloud; None takes the folder's name.

        Raises:
            ArtifactError: not a gate, or a file that must not be published.
        """
        return self._publish_edge(Kind.GATE, Path(folder), name)

    def publish_filter(self, folder: Path | str, *, name: str | None = None) -> PublishedEdge:
        """Uploads a filter, for all devices of this developer.

        Args:
            folder: a filter, as `triparty device filter fit` wrote it.
            name: on the cloud; None takes the folder's name.

        Raises:
            ArtifactError: not a filter, or a file that must not be published.
        """
        return self._publish_edge(Kind.FILTER, Path(folder), name)

    def publish_edge_model(
        self, folder: Path | str, *, name: str | None = None
    ) -> PublishedEdge:
        """Uploads a model for the edge, for plans to choose from.

        Args:
            folder: as `common.edge_models.EdgeModel.save` wrote it.
            name: on the cloud, as links know it; None takes the folder's name.

        Raises:
            ArtifactError: not a model for the edge, or a file that must not be published.
        """
        return self._publish_edge(Kind.MODEL_EDGE, Path(folder), name)

    def publish_link(self, folder: Path | str, *, name: str | None = None) -> PublishedEdge:
        """Uploads the links to one model, for all devices of this developer.

        Args:
            folder: as `triparty developer links train` wrote it.
            name: on the cloud, that of the target; None takes the folder's name.

        Raises:
            ArtifactError: no links, or a file that must not be published.
        """
        return self._publish_edge(Kind.LINK, Path(folder), name)

    def publish_plan(self, folder: Path | str, *, name: str | None = None) -> PublishedEdge:
        """Uploads a plan of published models and links, for all devices of this developer.

        Args:
            folder: as `triparty developer links plan` wrote it.
            name: on the cloud; None takes the folder's name.

        Raises:
            ArtifactError: not a plan, or a model or link of it is not published.
        """
        with self._alone():
            return publish_plan(
                self.home,
                Path(folder),
                name=name or Path(folder).resolve().name,
                settings=self.settings,
                now=_now(),
            )

    def _publish_edge(self, kind: Kind, folder: Path, name: str | None) -> PublishedEdge:
        with self._alone():
            return publish_edge(
                self.home,
                folder,
                kind=kind,
                name=name or Path(folder).resolve().name,
                settings=self.settings,
                now=_now(),
            )

    def invite(self, *, name: str = "device", days: int = 7) -> tuple[str, str]:
        """A code with which one device can enrol, and when it expires, RFC 3339."""
        return invite_device(self.home, label=name, days=days, now=_now())

    def grant(
        self, *devices: str, model: str | None = None, sessions: int = 1
    ) -> tuple[Granted, ...]:
        """Seals bundles to devices, after checking that nobody swapped their keys.

        Args:
            *devices: names, ids, or how ids begin.
            model: one published model; None for all.
            sessions: of a model of one-time instances, how many a device gets.

        Raises:
            PoolEmptyError: no one-time instance is left.
            SealError: a device's keys were swapped; nothing was sealed to it.
        """
        models = models_to_grant(self.home, model)
        with self._alone(), self.home.access().client() as client:
            found = [find_device(self.home, client, device) for device in devices]
            return tuple(
                grant_model(
                    self.home, client, published, device, settings=self.settings, now=_now()
                )
                for device in found
                for published in models
                for _ in range(sessions if published.sharing == Sharing.NOBODY else 1)
            )

    def revoke(self, device: str) -> Revocation:
        """Takes a device's access back; its sessions end at once.

        Instances that nobody else has a bundle of are revoked with it.
        """
        with self._alone(), self.home.access().client() as client:
            found = find_device(self.home, client, device)
            client.revoke_device(found.id)
            held = [model for model in self.home.models() if found.id in model.devices]
            shared = [each for each in held if each.sharing in (Sharing.ALL, Sharing.COHORT)]
            own = [
                f"{kind}/{model.name}@{instance.version}"
                for model in held
                if model not in shared
                for instance in model.instances
                if found.id in instance.devices
                for kind in (Kind.MODEL, Kind.BUNDLE)
            ]
            if own:
                renew_latest(
                    self.home, client, now=_now(), days=self.settings.latest_days, revoked=own
                )
        name = self.home.label(found.invite) or found.name
        return Revocation(found.id, name, tuple(model.name for model in shared))

    def rotate(self, model: str, *, source: str | None = None, drain_s: int = 0) -> Publication:
        """Begins a new key epoch of a published model.

        Args:
            model: its name.
            source: the original; None takes what it was protected from.
            drain_s: seconds for which sessions that are open may go on in the epoch before.
        """
        from triparty.developer.rotate import rotate  # loads the compiler

        with self._alone():
            return rotate(
                self.home,
                model,
                source=source,
                settings=self.settings,
                now=_now(),
                drain_s=drain_s,
            )

    def renew_key(self, *, forget: bool = False) -> str:
        """Makes a new publishing key under the same root; returns its id.

        Devices follow without enrolling again.

        Args:
            forget: stop vouching for the keys before, after one leaked; what they signed must
                be published again.

        Raises:
            StateError: the root key is not in this home.
        """
        with self._alone():
            made = self.home.renew_publishing_key(
                key_days=self.settings.key_days, now=_now(), forget=forget
            )
        self.status()
        return made.keys[0].public.key_id

    def status(self) -> DeveloperStatus:
        """What is published, and who may use it; renews the statement and an ending token."""
        with self._alone():
            access = renew_if_due(self.home.folder, self.home.access(), now=_now())
            with access.client() as client:
                latest = renew_latest(
                    self.home, client, now=_now(), days=self.settings.latest_days
                )
                devices = client.devices()
        return DeveloperStatus(
            access=access,
            latest=latest,
            models=tuple(self.home.models()),
            devices=tuple((self.home.label(device.invite), device) for device in devices),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time changes a home's records."""
        self.home.access()  # an enrolled home, or its error
        with locked(self.home.folder):
            yield


def _now() -> datetime:
    return datetime.now(UTC)
