"""Publishing a protected model: signed, uploaded, current.

1. Only `OUT/model` is read for the cloud; what an artifact must not hold is refused. Of
   instances, those that are missing are compiled first.
2. The blobs go up first (resumed after a cut), the signed manifest after them: the model is
   visible whole or not at all.
3. Devices that had a bundle of the name get one of the new version. A device goes on with the
   version of its bundle until then.
4. The latest statement names the new version (the lowest, of several instances), of the model
   and of its bundles; then this home notes it.

Cut at any step, publishing again goes on, with a higher version if the cloud has the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from triparty.common.access import renew_if_due
from triparty.common.artifacts import Kind, describe_folder
from triparty.common.deviceinfo import SEQ2SEQ_TASK, TOKENS, DeviceInfo
from triparty.common.documents import check_name
from triparty.common.errors import (
    RollbackError,
    SealError,
    StateError,
    UnsupportedModelError,
)
from triparty.common.keying import DEVICE_FILE
from triparty.common.replies import DeviceRecord
from triparty.common.transport import CloudClient
from triparty.developer.grant import Granted, grant_one
from triparty.developer.home import Home, PublishedInstance, PublishedModel
from triparty.developer.instances import (
    Compiled,
    Instances,
    Sharing,
    assigned_as_before,
    compile_instances,
    instances_folder,
    remove_used,
)
from triparty.developer.settings import DeveloperSettings
from triparty.developer.statements import renew_latest
from triparty.developer.uploads import newest_version, shown_versions, upload_model


@dataclass(frozen=True)
class Publication:
    """What publishing did.

    Attributes:
        model: the record of what is published now.
        size_bytes: of the files of all forms that were published.
        granted: bundles that were renewed.
        compiled: instances, where there are several.
    """

    model: PublishedModel
    size_bytes: int
    granted: tuple[Granted, ...]
    compiled: tuple[Compiled, ...] = ()


def publish_model(
    home: Home,
    out: Path,
    *,
    name: str,
    settings: DeveloperSettings,
    now: datetime,
    instances: Instances | None = None,
    revoke_earlier: bool = False,
    drain_s: int = 0,
) -> Publication:
    """Publishes `OUT/model` or instances of it; a name that exists gets its next version.

    Args:
        home: of an enrolled developer.
        out: a folder that `protect` made.
        name: on the cloud.
        settings: for expiry times.
        now: when it is signed.
        instances: which devices share a key; None: as before, at first all.
        revoke_earlier: the versions before must not be used any more.
        drain_s: seconds for which open sessions of those versions may go on.

    Raises:
        StateError: not a protected folder, or the original is gone.
        UnsupportedModelError: a model that no cloud serves.
        ManifestError: not a name.
        SettingsError: one-time instances of a model that sees images in its texts.
        FileTypeError, PathError: a file that must not be published.
        RollbackError: the folder is of an earlier epoch than what is published.
        SealError: the keys of a device that had a bundle were swapped; what was published
            stays, the device gets none.
        TransportError: the cloud was not reached; publishing again goes on.
    """
    check_name(name)
    info = device_info(out)
    check_served(info, out)
    describe_folder(out / "model", kind=Kind.MODEL)  # before anything is compiled or sent
    before = home.model(name)
    if before is not None and info.epoch < before.epoch:
        raise RollbackError(
            f"{out} is of epoch {info.epoch}, '{name}' is published in epoch {before.epoch}: "
            f"publish the folder of that epoch, or run 'triparty developer rotate {name}'"
        )
    wanted = instances or Instances.as_before(before)
    wanted.check(info, name)
    access = renew_if_due(home.folder, home.access(), now=now)
    with access.client() as client:
        holders = _holders(client, before)
        if before is not None and before.sharing == Sharing.NOBODY:
            before = remove_used(before, shown_versions(home, client, name, now=now))
        version = 1 + newest_version(home, client, name, now=now)
        ids = {device.id for device in holders}
        kept = wanted.kept(before, instances_folder(out, name), holders=ids)
        more = wanted.more(kept, holders=len(holders))
        compiled = (
            compile_instances(out, name, kept=kept, more=more, version=version)
            if kept or more
            else []
        )
        folders = [each.out for each in compiled] or [out]
        size_bytes = 0
        for number, folder in enumerate(folders):
            manifest = upload_model(
                home,
                client,
                folder,
                name=name,
                version=version + number,
                epoch=info.epoch,
                once=wanted.sharing is Sharing.NOBODY,
                settings=settings,
                now=now,
            )
            size_bytes += manifest.size
        made = tuple(
            PublishedInstance(version + number, str(folder.resolve()))
            for number, folder in enumerate(folders)
        )
        model = _record(before, name, out, info.epoch, wanted.sharing, made)
        granted: list[Granted] = []
        refused: list[SealError] = []
        if wanted.sharing is not Sharing.NOBODY:
            for device in holders:
                try:
                    done, model = grant_one(
                        home, client, model, device, settings=settings, now=now
                    )
                except SealError as error:
                    refused.append(error)  # the other devices get theirs all the same
                else:
                    granted.append(done)
        renew_latest(
            home,
            client,
            now=now,
            days=settings.latest_days,
            versions={f"{kind}/{name}": model.version for kind in (Kind.MODEL, Kind.BUNDLE)},
            revoked=_earlier(model) if revoke_earlier else (),
            drain_s=drain_s,
        )
        home.keep_model(model)
    if refused:
        raise refused[0]
    return Publication(model, size_bytes, tuple(granted), tuple(compiled))


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
    if info.task == SEQ2SEQ_TASK and info.interface == TOKENS:
        raise UnsupportedModelError(
            f"{out} is of family {info.family!r} and the interface 'tokens', where the cloud "
            "continues a text by itself: no cloud has an encoder read it there; protect it "
            "again with --interface embeddings"
        )


def _holders(client: CloudClient, before: PublishedModel | None) -> list[DeviceRecord]:
    """The devices that have a bundle of what is published, but those that were revoked."""
    had = before.devices if before else ()
    return [device for device in client.devices() if device.id in had and not device.is_revoked]


def _record(
    before: PublishedModel | None,
    name: str,
    out: Path,
    epoch: int,
    sharing: Sharing,
    made: Sequence[PublishedInstance],
) -> PublishedModel:
    """What is published now; one-time instances join those of their epoch."""
    model = PublishedModel(
        name=name,
        out=str(out.resolve()),
        version=made[0].version,
        epoch=epoch,
        devices=before.devices if before else (),
        sharing=sharing.value,
        highest=made[-1].version,
    )
    if sharing is Sharing.ALL:
        return model
    if sharing is Sharing.NOBODY and before is not None and before.sharing == sharing:
        unused = before.instances if before.epoch == epoch else ()
        joined = (*unused, *made)
        return replace(model, version=joined[0].version, instances=joined)
    return replace(model, instances=assigned_as_before(made, before))


def _earlier(model: PublishedModel) -> tuple[str, ...]:
    """All versions before these, those of an attempt that was cut too."""
    kinds = (Kind.MODEL, Kind.BUNDLE)
    versions = range(1, model.version)
    return tuple(f"{kind}/{model.name}@{version}" for kind in kinds for version in versions)
