"""Taking a gate whose manifest was verified: its files, their hashes, and what they say."""

from __future__ import annotations

import shutil

from triparty.common.artifacts import Manifest, read_signed, verify_folder, write_artifact
from triparty.common.console import progress
from triparty.common.errors import ArtifactError
from triparty.common.files import PRIVATE_MODE, make_private_folder, replace_folder
from triparty.common.transport import CloudClient
from triparty.common.trust import SignedDocument
from triparty.device.home import Home


def holds_gate(home: Home, signed: SignedDocument, manifest: Manifest) -> bool:
    """Whether this very gate is here, whole."""
    folder = home.gate_folder(manifest.name)
    try:
        if read_signed(folder) != signed:
            return False
        verify_folder(manifest, folder)
    except ArtifactError:
        return False
    return True


def take_gate(
    client: CloudClient, home: Home, signed: SignedDocument, manifest: Manifest
) -> None:
    """Downloads and checks a gate; the one before stays until then.

    Raises:
        ArtifactError, CheckpointError: its files are not the manifest's, or no gate.
    """
    from triparty.device.gate.artifact import Gate

    target = home.gate_folder(manifest.name)
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
        Gate.open(making)
        write_artifact(signed, making)
        replace_folder(making, target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
