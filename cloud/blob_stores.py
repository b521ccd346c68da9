"""The blob store that the settings name: a folder by default, an object store by URL."""

from __future__ import annotations

import time
from collections.abc import Callable

from triparty.cloud.blob_room import BlobQuota
from triparty.cloud.blobs import BlobStore, VerifiedBlobs
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.cloud.object_blobs import open_object_blobs
from triparty.cloud.settings import CloudSettings


def open_blob_store(
    settings: CloudSettings, *, clock_s: Callable[[], float] = time.time
) -> BlobStore:
    """Opens the blobs of a cloud.

    Raises:
        SettingsError: a store that this version cannot use.
    """
    folder = settings.blob_folder
    return BlobStore(
        folder or settings.data / "blobs",
        open_verified(settings),
        max_blob_bytes=settings.max_blob_bytes,
        quota=BlobQuota(
            bytes=settings.max_store_bytes,
            blobs=settings.max_blobs,
            uploads=settings.max_uploads,
        ),
        clock_s=clock_s,
    )


def open_verified(settings: CloudSettings) -> VerifiedBlobs:
    """Opens the store of whole blobs alone.

    Raises:
        SettingsError: a store that this version cannot use.
    """
    folder = settings.blob_folder
    return DiskBlobs(folder) if folder else open_object_blobs(settings.blobs or "")
