"""What goes up to the cloud: files and manifests of models; and what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.artifacts import (
    FileEntry,
    Kind,
    Manifest,
    describe_folder,
    sign_manifest,
)
from triparty.common.console import progress
from triparty.common.delegation import verify_signed
from triparty.common.errors import ArtifactError
from triparty.common.transport import CloudClient
from triparty.developer.home import Home
from triparty.developer.settings import DeveloperSettings


def upload_files(
    client: CloudClient, folder: Path, files: Sequence[FileEntry], *, title: str
) -> None:
    """Uploads the blobs of an artifact, those the cloud has already excepted."""
    with progress(title, sum(file.size for file in files)) as advance:
        for file in files:
            client.upload_blob(
                folder / file.path, sha256=file.sha256, size=file.size, on_bytes=advance
            )


def upload_model(
    home: Home,
    client: CloudClient,
    out: Path,
    *,
    name: str,
    version: int,
    epoch: int,
    once: bool,
    settings: DeveloperSettings,
    now: datetime,
) -> Manifest:
    """Uploads `OUT/model`, then its signed manifest: it is visible whole or not at all.

    Args:
        home: of an enrolled developer.
        client: with the developer's token.
        out: a protected folder.
        name: on the cloud.
        version: higher than any before.
        epoch: generation of the key.
        once: whether it is for one session alone.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        FileTypeError, PathError: a file that must not be published.
        TransportError: the cloud was not reached.
    """
    publishing = home.publishing()
    manifest = Manifest(
        kind=Kind.MODEL,
        name=name,
        version=version,
        epoch=epoch,
        developer=home.delegation(now).developer,
        signer=publishing.public.key_id,
        files=describe_folder(out / "model", kind=Kind.MODEL),
        created=now,
        expires=now + timedelta(days=settings.artifact_days),
        once=once,
    )
    upload_files(client, out / "model", manifest.files, title=f"publishing {name}")
    client.publish_artifact(sign_manifest(manifest, publishing))
    return manifest


def newest_version(home: Home, client: CloudClient, name: str, *, now: datetime) -> int:
    """The highest version that this developer signed under a model's name, here or there.

    The cloud is asked too, because an earlier attempt may have been cut after the cloud had
    accepted it; what it shows counts only with this developer's signature.
    """
    model = home.model(name)
    current = home.latest_state().versions.get(f"{Kind.MODEL}/{name}", 0)
    versions = shown_versions(home, client, name, now=now)
    return max([*versions, current, model.newest_version if model else 0])


def shown_versions(home: Home, client: CloudClient, name: str, *, now: datetime) -> set[int]:
    """The versions of a model that the cloud has; of one-time instances the unused ones."""
    shown = own_manifests(home, client, Kind.MODEL, name, now=now)
    return {manifest.version for manifest in shown}


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
