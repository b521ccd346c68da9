"""Granting a model to a device: its bundle, sealed to keys that were checked first.

1. The device's confirmation is checked with the half of its invite's secret that the cloud
   never had: a cloud that swapped the device's keys is found out here.
2. `OUT/device` is sealed to the device's sealing key, for this model, version and epoch.
3. The ciphertext is signed and published, visible to that device alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.artifacts import (
    Kind,
    Manifest,
    describe_folder,
    sign_manifest,
)
from triparty.common.delegation import verify_signed
from triparty.common.errors import (
    ArtifactError,
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
from triparty.developer.home import Home, PublishedModel
from triparty.developer.settings import DeveloperSettings


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
    """Seals a model's bundle to a device, publishes it and notes who has it.

    Args and errors are those of `seal_bundle`.
    """
    done = seal_bundle(home, client, model, device, settings=settings, now=now)
    current = home.model(model.name) or model
    home.keep_model(current.with_device(device.id))
    return done


def seal_bundle(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    device: DeviceRecord,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> Granted:
    """Seals a model's bundle to a device and publishes it; nothing if it has one.

    Args:
        home: of the developer.
        client: with the developer's token.
        model: what is published.
        device: as the cloud describes it; its keys are checked here.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        SealError: the device's keys were swapped.
        RevokedError: the device was revoked.
        StateError: the protected folder is gone.
    """
    if device.is_revoked:
        raise RevokedError(f"device '{device.name}' was revoked: invite it anew")
    check_keys(home, device)
    source = Path(model.out) / "device"
    if not source.is_dir():
        raise StateError(f"{source} is gone: publish '{model.name}' again from where it is")
    is_new = not _has_bundle(home, client, model, device, now=now)
    if is_new:
        _publish_bundle(home, client, model, device, source, settings=settings, now=now)
    name = home.label(device.invite) or device.name
    return Granted(device.id, name, model.name, model.version, is_new)


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


def own_manifests(
    home: Home, client: CloudClient, kind: Kind, name: str, *, now: datetime
) -> list[Manifest]:
    """What this developer signed under a name, newest first, expired ones too.

    The cloud lists them; each counts only with the signature of a key that the root vouches
    for, and only if it is what was asked for.
    """
    delegation = home.delegation(now)
    found: list[Manifest] = []
    for signed in client.artifacts(kind=kind, name=name):
        try:
            manifest = verify_signed(
                signed, "manifest", Manifest.from_bytes, delegation=delegation, now=now
            )
        except ArtifactError:
            continue  # not this developer's, or of a key that was forgotten
        if (manifest.kind, manifest.name) == (kind, name):
            found.append(manifest)
    return found


def _has_bundle(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    device: DeviceRecord,
    *,
    now: datetime,
) -> bool:
    bundles = own_manifests(home, client, Kind.BUNDLE, model.name, now=now)
    return any(
        (bundle.recipient, bundle.version) == (device.id, model.version)
        for bundle in bundles
        if bundle.expires > now
    )


def _publish_bundle(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    device: DeviceRecord,
    source: Path,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> None:
    publishing = home.publishing()
    with tempfile.TemporaryDirectory(prefix="triparty-grant-") as name:
        folder = Path(name)
        seal_folder(
            source,
            folder / SEALED_FILE,
            recipient=device.sealing,
            device=device.id,
            model=model.name,
            version=model.version,
            epoch=model.epoch,
        )
        manifest = Manifest(
            kind=Kind.BUNDLE,
            name=model.name,
            version=model.version,
            epoch=model.epoch,
            developer=home.delegation(now).developer,
            signer=publishing.public.key_id,
            files=describe_folder(folder, kind=Kind.BUNDLE),
            created=now,
            expires=now + timedelta(days=settings.artifact_days),
            recipient=device.id,
        )
        for file in manifest.files:
            client.upload_blob(folder / file.path, sha256=file.sha256, size=file.size)
        client.publish_artifact(sign_manifest(manifest, publishing))
