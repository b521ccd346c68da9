"""Taking gates, filters and links whose manifest was verified: files, hashes, what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from triparty.common.artifacts import Manifest, read_signed, verify_folder, write_artifact
from triparty.common.console import progress
from triparty.common.errors import ArtifactError
from triparty.common.files import PRIVATE_MODE, make_private_folder, replace_folder
from triparty.common.transport import CloudClient
from triparty.common.trust import SignedDocument


def holds(folder: Path, signed: SignedDocument, manifest: Manifest) -> bool:
    """Whether a folder holds this very artifact, whole."""
    try:
        if read_signed(folder) != signed:
            return False
        verify_folder(manifest, folder)
    except ArtifactError:
        return False
    return True


def take(
    client: CloudClient,
    target: Path,
    signed: SignedDocument,
    manifest: Manifest,
    check: Callable[[Path], object],
) -> None:
    """Downloads and checks an artifact; the one before stays until then.

    Args:
        client: of the cloud.
        target: folder that it takes the place of.
        signed: its manifest with the signature.
        manifest: the same, verified.
        check: opens the folder, and refuses what is of no such kind.

    Raises:
        ArtifactError, CheckpointError: its files are not the manifest's, or of no such kind.
    """
    making = target.with_name(f".{manifest.name}.pulled")
    shutil.rmtree(making, ignore_errors=True)
    make_private_folder(making)
    try:
        with progress(f"pulling {manifest.name}", manifest.size) as advance:
            for file in manifest.files:
                path = making / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_blob(path, sha256=file.sha256, size=file.size, on_bytes=advance)
                path.chmod(PRIVATE_MODE)
        verify_folder(manifest, making)
        check(making)
        write_artifact(signed, making)
        replace_folder(making, target)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_gate(folder: Path) -> None:
    """Returns only if a folder is a gate that can be used.

    Raises:
        ArtifactError, CheckpointError: it is none.
    """
    from triparty.device.gate.artifact import Gate

    Gate.open(folder)


def check_links(folder: Path) -> None:
    """Returns only if a folder holds links that can be used.

    Raises:
        ArtifactError, CheckpointError: it does not.
    """
    from triparty.common.links.folder import open_links

    open_links(folder)


def check_filter(folder: Path) -> None:
    """Returns only if a folder is a filter; its network is loaded where ONNX Runtime is.

    Raises:
        ArtifactError: it is none.
    """
    from importlib.util import find_spec

    from triparty.device.filters.artifact import FilterArtifact
    from triparty.device.filters.session import Session

    artifact = FilterArtifact.open(folder)
    if find_spec("onnxruntime") is not None:
        Session(artifact.network, artifact.design)
