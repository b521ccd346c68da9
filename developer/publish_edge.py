"""Publishing a gate, a filter or links: signed, uploaded, current, for a developer's devices.

None of them holds a key, so they are sealed to nobody: the cloud sees them, and what they tell
of the inputs that they were trained on. As for a model, blobs go first, the signed manifest
after them, the latest statement last; cut at any step, publishing again goes on with a higher
version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from triparty.common.access import renew_if_due
from triparty.common.artifacts import Kind, Manifest, describe_folder, sign_manifest
from triparty.common.documents import check_name
from triparty.common.errors import ManifestError
from triparty.common.filters import FILTER_FILE, NETWORK_FILE, read_filter_document
from triparty.common.filters import LIMIT_BYTES as FILTER_LIMIT_BYTES
from triparty.common.gates import GATE_FILE, WEIGHTS_FILE, read_gate_document
from triparty.common.gates import LIMIT_BYTES as GATE_LIMIT_BYTES
from triparty.common.links.folder import LIMIT_BYTES as LINK_LIMIT_BYTES
from triparty.common.links.folder import LINK_FILE, open_links
from triparty.common.links.folder import WEIGHTS_FILE as LINK_WEIGHTS_FILE
from triparty.common.transport import CloudClient
from triparty.developer.home import Home
from triparty.developer.settings import DeveloperSettings
from triparty.developer.statements import renew_latest
from triparty.developer.uploads import own_manifests, upload_files


@dataclass(frozen=True)
class _EdgeFiles:
    """What a folder of a kind holds.

    Attributes:
        names: of its files, no more and no less.
        limit_bytes: of all of them.
        read: its document, which refuses what is of no such kind.
    """

    names: tuple[str, ...]
    limit_bytes: int
    read: Callable[[Path], object]


_FILES: Final = {
    Kind.GATE: _EdgeFiles((GATE_FILE, WEIGHTS_FILE), GATE_LIMIT_BYTES, read_gate_document),
    Kind.FILTER: _EdgeFiles(
        (FILTER_FILE, NETWORK_FILE), FILTER_LIMIT_BYTES, read_filter_document
    ),
    Kind.LINK: _EdgeFiles((LINK_FILE, LINK_WEIGHTS_FILE), LINK_LIMIT_BYTES, open_links),
}


@dataclass(frozen=True)
class PublishedEdge:
    """What publishing a gate, a filter or links did.

    Attributes:
        name: on the cloud.
        version: of the artifact.
        size_bytes: of its files.
    """

    name: str
    version: int
    size_bytes: int


def publish_edge(
    home: Home,
    folder: Path,
    *,
    kind: Kind,
    name: str,
    settings: DeveloperSettings,
    now: datetime,
) -> PublishedEdge:
    """Publishes one of them under a name; a name that exists gets its next version.

    Args:
        home: of an enrolled developer.
        folder: as `triparty device gate fit`, `filter fit` or `developer links train` wrote it.
        kind: `gate`, `filter` or `link`.
        name: on the cloud.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        ManifestError: not a name, or not of this kind.
        CheckpointError: links whose weights are not theirs.
        FileTypeError, PathError, SizeError: a file that must not be published.
        TransportError: the cloud was not reached; publishing again goes on.
    """
    check_name(name)
    expected = _FILES[kind]
    expected.read(folder)
    files = describe_folder(folder, kind=kind, limit_bytes=expected.limit_bytes)
    if [file.path for file in files] != sorted(expected.names):
        raise ManifestError(
            f"{folder} must hold {' and '.join(expected.names)} alone, it holds "
            f"{', '.join(file.path for file in files):.200}"
        )
    access = renew_if_due(home.folder, home.access(), now=now)
    with access.client() as client:
        publishing = home.publishing()
        manifest = Manifest(
            kind=kind,
            name=name,
            version=1 + _newest_version(home, client, kind, name, now=now),
            epoch=0,
            developer=home.delegation(now).developer,
            signer=publishing.public.key_id,
            files=files,
            created=now,
            expires=now + timedelta(days=settings.artifact_days),
        )
        upload_files(client, folder, files, title=f"publishing {name}")
        client.publish_artifact(sign_manifest(manifest, publishing))
        versions = {f"{kind}/{name}": manifest.version}
        renew_latest(home, client, now=now, days=settings.latest_days, versions=versions)
    return PublishedEdge(name, manifest.version, manifest.size)


def _newest_version(
    home: Home, client: CloudClient, kind: Kind, name: str, *, now: datetime
) -> int:
    """The highest version that this developer signed under a name, here or on the cloud."""
    shown = own_manifests(home, client, kind, name, now=now)
    current = home.latest_state().versions.get(f"{kind}/{name}", 0)
    return max([current, *(manifest.version for manifest in shown)])
