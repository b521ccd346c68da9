"""Granting a model to a device: its bundle, sealed to keys that were checked first.

1. The device's confirmation is checked with the half of its invite's secret that the cloud
   never had: a cloud that swapped the device's keys is found out here.
2. The device's instance of the model is drawn (`instances.py`), if it has several.
3. Its `device` folder is sealed to the device's sealing key, for this model, version and epoch.
4. The ciphertext is signed and published, visible to that device alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.artifacts import (
    Kind,
    Manifest,
    describe_folder,
    sign_manifest,
)
from triparty.common.errors import (
    RevokedError,
    SealError,
    SettingsError,
    StateError,
)
from triparty.common.invites import check_confirmation
from triparty.common.replies import DeviceRecord
from triparty.common.sealing import SEALED_FILE, seal_folder
from triparty.common.signing import PublicKey
from triparty.common.transport import CloudClient
from triparty.developer.home import Home, PublishedInstance, PublishedModel
from triparty.developer.instances import Sharing, chosen, compile_instances
from triparty.developer.settings import DeveloperSettings
from triparty.developer.uploads import (
    newest_version,
    own_manifests,
    shown_versions,
    upload_model,
)


@dataclass(frozen=True)
class Granted:
    """One bundle for one device.

    Attributes:
        device: its id.
        name: what the developer called it.
        model: name of the model.
        version: of the bundle.
        is_new: false if the device had a bundle of this version.
    """

    device: str
    name: str
    model: str
    version: int
    is_new: bool


def find_device(home: Home, client: CloudClient, wanted: str) -> DeviceRecord:
    """The device with an id, the invite's name, its own name, or an id that begins so.

    What the developer called a device counts before what devices call themselves, and one that
    is in use before those of the same name that were revoked.

    Args:
        home: whose invites say what the developer called each device.
        client: with the developer's token.
        wanted: what the user typed; of an id, at least four digits.

    Raises:
        StateError: none, or several.
    """
    devices = client.devices()
    digits = wanted.removeprefix("ed25519:")
    matching = (
        [device for device in devices if device.id == wanted]
        or [device for device in devices if home.label(device.invite) == wanted]
        or [
            device
            for device in devices
            if device.name == wanted
            or (len(digits) >= 4 and device.id.removeprefix("ed25519:").startswith(digits))
        ]
    )
    if len(matching) > 1:
        matching = [device for device in matching if not device.is_revoked] or matching
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(device.id[:24] for device in matching)
        raise StateError(f"'{wanted}' names {len(matching)} devices ({ids}...): use the id")
    have = ", ".join(home.label(device.invite) or device.name for device in devices) or "none"
    raise StateError(f"no device '{wanted}' has enrolled; there are: {have}")


def check_keys(home: Home, device: DeviceRecord) -> None:
    """Returns only if the device's keys are those that it made.

    Raises:
        SealError: somebody swapped them, or the invite is not of this home.
    """
    confirm_key = home.confirm_key(device.invite)
    if confirm_key is None:
        raise SealError(
            f"device '{device.name}' used an invite that was not made in this home: the cloud "
            f"may have made it up; nothing was sealed"
        )
    try:
        check_confirmation(
            confirm_key,
            identity=device.identity,
            sealing=device.sealing,
            tag=device.confirmation,
        )
    except SealError as error:
        raise SealError(
            f"the keys of device '{device.name}' are not the ones that it made: the cloud or "
            f"somebody on the way swapped them; nothing was sealed"
        ) from error
    if PublicKey(device.identity).key_id != device.id:
        raise SealError(
            f"the cloud swapped the id of device '{device.name}'; nothing was sealed"
        )


def grant_model(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    device: DeviceRecord,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> Granted:
    """Seals the bundle of one of a model's instances to a device, and notes who has it.

    Where each device has an instance of its own, it is compiled and published if none is free.

    Raises:
        PoolEmptyError: no one-time instance is left.
        SealError, RevokedError, StateError: as `seal_bundle`.
    """
    current = home.model(model.name) or model
    done, granted = grant_one(home, client, current, device, settings=settings, now=now)
    home.keep_model(granted)
    return done


def grant_one(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    device: DeviceRecord,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> tuple[Granted, PublishedModel]:
    """As `grant_model`, with the record to be kept."""
    check_may_have(home, device)
    unused = shown_versions(home, client, model.name, now=now)
    instance = chosen(model, device.id, unused=unused)
    if instance is None:
        model, instance = _with_one_more(home, client, model, settings=settings, now=now)
    done = seal_bundle(home, client, model, instance, device, settings=settings, now=now)
    return done, model.with_grant(instance, device.id)


def check_may_have(home: Home, device: DeviceRecord) -> None:
    """Returns only if a bundle may be sealed to a device.

    Raises:
        SealError: the device's keys were swapped.
        RevokedError: the device was revoked.
    """
    if device.is_revoked:
        raise RevokedError(f"device '{device.name}' was revoked: invite it anew")
    check_keys(home, device)


def seal_bundle(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    instance: PublishedInstance,
    device: DeviceRecord,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> Granted:
    """Seals an instance's bundle to a device and publishes it; nothing if it has one.

    Args:
        home: of the developer.
        client: with the developer's token.
        model: what is published.
        instance: the form of it that the device gets.
        device: as the cloud describes it; its keys are checked here.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        SealError: the device's keys were swapped.
        RevokedError: the device was revoked.
        StateError: the protected folder is gone.
    """
    check_may_have(home, device)
    source = Path(instance.out) / "device"
    if not source.is_dir():
        raise StateError(f"{source} is gone: publish '{model.name}' again from where it is")
    is_new = not _has_bundle(home, client, model.name, instance.version, device, now=now)
    if is_new:
        _publish_bundle(home, client, model, instance, device, settings=settings, now=now)
    name = home.label(device.invite) or device.name
    return Granted(device.id, name, model.name, instance.version, is_new)


def models_to_grant(home: Home, name: str | None) -> list[PublishedModel]:
    """The named model, or all that are published.

    Raises:
        StateError: nothing is published under the name.
        SettingsError: nothing is published at all.
    """
    if name is not None:
        return [home.existing_model(name)]
    models = home.models()
    if not models:
        raise SettingsError("nothing is published yet: run 'triparty developer publish' first")
    return models


def _with_one_more(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> tuple[PublishedModel, PublishedInstance]:
    """The record with an instance more, compiled and published."""
    version = 1 + newest_version(home, client, model.name, now=now)
    (compiled,) = compile_instances(
        Path(model.out), model.name, kept=(), more=1, version=version
    )
    manifest = upload_model(
        home,
        client,
        compiled.out,
        name=model.name,
        version=version,
        epoch=model.epoch,
        once=False,
        settings=settings,
        now=now,
    )
    instance = PublishedInstance(manifest.version, str(compiled.out.resolve()))
    instances = (*model.instances, instance)
    return replace(model, instances=instances, highest=instance.version), instance


def _has_bundle(
    home: Home,
    client: CloudClient,
    name: str,
    version: int,
    device: DeviceRecord,
    *,
    now: datetime,
) -> bool:
    bundles = own_manifests(home, client, Kind.BUNDLE, name, now=now)
    return any(
        (bundle.recipient, bundle.version) == (device.id, version)
        for bundle in bundles
        if bundle.expires > now
    )


def _publish_bundle(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    instance: PublishedInstance,
    device: DeviceRecord,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> None:
    publishing = home.publishing()
    with tempfile.TemporaryDirectory(prefix="triparty-grant-") as name:
        folder = Path(name)
        seal_folder(
            Path(instance.out) / "device",
            folder / SEALED_FILE,
            recipient=device.sealing,
            device=device.id,
            model=model.name,
            version=instance.version,
            epoch=model.epoch,
        )
        manifest = Manifest(
            kind=Kind.BUNDLE,
            name=model.name,
            version=instance.version,
            epoch=model.epoch,
            developer=home.delegation(now).developer,
            signer=publishing.public.key_id,
            files=describe_folder(folder, kind=Kind.BUNDLE),
            created=now,
            expires=now + timedelta(days=settings.artifact_days),
            recipient=device.id,
            once=model.sharing == Sharing.NOBODY,
        )
        for file in manifest.files:
            client.upload_blob(folder / file.path, sha256=file.sha256, size=file.size)
        client.publish_artifact(sign_manifest(manifest, publishing))
