"""Publishing a gate: signed, uploaded, current, for every device of this developer.

A gate holds no key, so it is sealed to nobody: the cloud sees it, and what it tells of the
cameras that it was trained on. As for a model, blobs go first, the signed manifest after them,
the latest statement last; cut at any step, publishing again goes on with a higher version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from triparty.common.access import renew_if_due
from triparty.common.artifacts import Kind, Manifest, describe_folder, sign_manifest
from triparty.common.documents import check_name
from triparty.common.errors import ManifestError
from triparty.common.gates import GATE_FILE, LIMIT_BYTES, WEIGHTS_FILE, read_gate_document
from triparty.common.transport import CloudClient
from triparty.developer.home import Home
from triparty.developer.settings import DeveloperSettings
from triparty.developer.statements import renew_latest
from triparty.developer.uploads import own_manifests, upload_files


@dataclass(frozen=True)
class PublishedGate:
    """What publishing a gate did.

    Attributes:
        name: on the cloud.
        version: of the artifact.
        size_bytes: of its files.
    """

    name: str
    version: int
    size_bytes: int


def publish_gate(
    home: Home, folder: Path, *, name: str, settings: DeveloperSettings, now: datetime
) -> PublishedGate:
    """Publishes a gate under a name; a name that exists gets its next version.

    Args:
        home: of an enrolled developer.
        folder: a gate, as `triparty device gate fit` wrote it.
        name: on the cloud.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        ManifestError: not a name, or not a gate.
        FileTypeError, PathError, SizeError: a file that must not be published.
        TransportError: the cloud was not reached; publishing again goes on.
    """
    check_name(name)
    read_gate_document(folder)
    files = describe_folder(folder, kind=Kind.GATE, limit_bytes=LIMIT_BYTES)
    if [file.path for file in files] != sorted((GATE_FILE, WEIGHTS_FILE)):
        raise ManifestError(
            f"{folder} must hold {GATE_FILE} and {WEIGHTS_FILE} alone, it holds "
            f"{', '.join(file.path for file in files):.200}"
        )
    access = renew_if_due(home.folder, home.access(), now=now)
    with access.client() as client:
        publishing = home.publishing()
        manifest = Manifest(
            kind=Kind.GATE,
            name=name,
            version=1 + _newest_version(home, client, name, now=now),
            epoch=0,
            developer=home.delegation(now).developer,
            signer=publishing.public.key_id,
            files=files,
            created=now,
            expires=now + timedelta(days=settings.artifact_days),
        )
        upload_files(client, folder, files, title=f"publishing {name}")
        client.publish_artifact(sign_manifest(manifest, publishing))
        versions = {f"{Kind.GATE}/{name}": manifest.version}
        renew_latest(home, client, now=now, days=settings.latest_days, versions=versions)
    return PublishedGate(name, manifest.version, manifest.size)


def _newest_version(home: Home, client: CloudClient, name: str, *, now: datetime) -> int:
    """The highest version that this developer signed under a name, here or on the cloud."""
    shown = own_manifests(home, client, Kind.GATE, name, now=now)
    current = home.latest_state().versions.get(f"{Kind.GATE}/{name}", 0)
    return max([current, *(manifest.version for manifest in shown)])
