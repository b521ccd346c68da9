"""Publishing a protected model: signed, uploaded, current.

1. Only `OUT/model` is read for the cloud; what an artifact must not hold is refused.
2. The blobs go up first (resumed after a cut), the signed manifest after them: the model is
   visible whole or not at all.
3. Devices that had a bundle of the name get one of the new version. A device goes on with the
   version of its bundle until then.
4. The latest statement names the new version, of the model and of its bundles; then this home
   notes it.

Cut at any step, publishing again goes on, with a higher version if the cloud has the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.access import renew_if_due
from triparty.common.artifacts import (
    FileEntry,
    Kind,
    Manifest,
    describe_folder,
    sign_manifest,
)
from triparty.common.console import progress
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.documents import check_name
from triparty.common.errors import (
    RollbackError,
    SealError,
    StateError,
    UnsupportedModelError,
)
from triparty.common.keying import DEVICE_FILE
from triparty.common.transport import CloudClient
from triparty.developer.grant import Granted, own_manifests, seal_bundle
from triparty.developer.home import Home, PublishedModel
from triparty.developer.settings import DeveloperSettings
from triparty.developer.statements import renew_latest

UNSERVED_TASKS = ("seq2seq-lm",)


@dataclass(frozen=True)
class Publication:
    """What publishing did.

    Attributes:
        model: the record of what is published now.
        size_bytes: of the model's files.
        granted: bundles that were renewed.
    """

    model: PublishedModel
    size_bytes: int
    granted: tuple[Granted, ...]


def publish_model(
    home: Home,
    out: Path,
    *,
    name: str,
    settings: DeveloperSettings,
    now: datetime,
    revoke_earlier: bool = False,
) -> Publication:
    """Publishes `OUT/model` under a name; a name that exists gets its next version.

    Args:
        home: of an enrolled developer.
        out: a folder that `protect` made.
        name: on the cloud.
        settings: for expiry times.
        now: when it is signed.
        revoke_earlier: the versions before must not be used any more.

    Raises:
        StateError: not a protected folder.
        UnsupportedModelError: a model that no cloud serves.
        ManifestError: not a name.
        FileTypeError, PathError: a file that must not be published.
        RollbackError: the folder is of an earlier epoch than what is published.
        SealError: the keys of a device that had a bundle were swapped; what was published
            stays, the device gets none.
        TransportError: the cloud was not reached; publishing again goes on.
    """
    check_name(name)
    info = device_info(out)
    check_served(info, out)
    files = describe_folder(out / "model", kind=Kind.MODEL)
    before = home.model(name)
    if before is not None and info.epoch < before.epoch:
        raise RollbackError(
            f"{out} is of epoch {info.epoch}, '{name}' is published in epoch {before.epoch}: "
            f"publish the folder of that epoch, or run 'triparty developer rotate {name}'"
        )
    access = renew_if_due(home.folder, home.access(), now=now)
    with access.client() as client:
        version = 1 + _newest_version(home, client, name, now=now)
        publishing = home.publishing()
        manifest = Manifest(
            kind=Kind.MODEL,
            name=name,
            version=version,
            epoch=info.epoch,
            developer=home.delegation(now).developer,
            signer=publishing.public.key_id,
            files=files,
            created=now,
            expires=now + timedelta(days=settings.artifact_days),
        )
        upload_files(client, out / "model", files, title=f"publishing {name}")
        client.publish_artifact(sign_manifest(manifest, publishing))
        model = PublishedModel(
            name=name,
            out=str(out.resolve()),
            version=version,
            epoch=info.epoch,
            devices=before.devices if before else (),
        )
        granted, refused = _renew_grants(home, client, model, settings=settings, now=now)
        renew_latest(
            home,
            client,
            now=now,
            days=settings.latest_days,
            versions={f"{kind}/{name}": version for kind in (Kind.MODEL, Kind.BUNDLE)},
            revoked=_earlier(model) if revoke_earlier else (),
        )
        home.keep_model(model)
    if refused:
        raise refused[0]
    return Publication(model, manifest.size, granted)


def upload_files(
    client: CloudClient, folder: Path, files: Sequence[FileEntry], *, title: str
) -> None:
    """Uploads the blobs of an artifact, those the cloud has already excepted."""
    with progress(title, sum(file.size for file in files)) as advance:
        for file in files:
            client.upload_blob(
                folder / file.path, sha256=file.sha256, size=file.size, on_bytes=advance
            )


def device_info(out: Path) -> DeviceInfo:
    """What a protected folder says about itself.

    Raises:
        StateError: not a protected folder.
        CheckpointError: its `device.json` cannot be read.
    """
    path = out / "device" / DEVICE_FILE
    if not path.is_file() or not (out / "model").is_dir():
        raise StateError(
            f"{out} is no protected model: make one with 'triparty developer protect SRC {out}'"
        )
    return DeviceInfo.from_json(path.read_bytes())


def check_served(info: DeviceInfo, out: Path) -> None:
    """Refuses, before anything is uploaded, what no cloud of this version can run.

    Raises:
        UnsupportedModelError: with what is missing.
    """
    if info.task in UNSERVED_TASKS:
        raise UnsupportedModelError(
            f"{out} is of family {info.family!r}: it is compiled and can be verified, but no "
            f"cloud serves the task {info.task!r}, whose sessions would need an encoder's rows "
            "and cross-attention: publish a decoder or an encoder"
        )


def _newest_version(home: Home, client: CloudClient, name: str, *, now: datetime) -> int:
    """The highest version that this developer signed under a name, here or on the cloud.

    The cloud is asked too, because an earlier attempt may have been cut after the cloud had
    accepted it; what it shows counts only with this developer's signature.
    """
    model = home.model(name)
    current = home.latest_state().versions.get(f"{Kind.MODEL}/{name}", 0)
    shown = own_manifests(home, client, Kind.MODEL, name, now=now)
    versions = [manifest.version for manifest in shown]
    return max([*versions, current, model.version if model else 0])


def _earlier(model: PublishedModel) -> tuple[str, ...]:
    """All versions before this one, those of an attempt that was cut too."""
    kinds = (Kind.MODEL, Kind.BUNDLE)
    versions = range(1, model.version)
    return tuple(f"{kind}/{model.name}@{version}" for kind in kinds for version in versions)


def _renew_grants(
    home: Home,
    client: CloudClient,
    model: PublishedModel,
    *,
    settings: DeveloperSettings,
    now: datetime,
) -> tuple[tuple[Granted, ...], list[SealError]]:
    """Bundles of the new version for who had one; and why some got none."""
    holders = [
        device
        for device in client.devices()
        if device.id in model.devices and not device.is_revoked
    ]
    granted: list[Granted] = []
    refused: list[SealError] = []
    for device in holders:
        try:
            done = seal_bundle(home, client, model, device, settings=settings, now=now)
        except SealError as error:
            refused.append(error)  # the other devices get theirs all the same
        else:
            granted.append(done)
    return tuple(granted), refused
