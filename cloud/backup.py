"""Backups of a cloud on SQLite: consistent while it runs, incremental, whole or absent.

```
DEST/blobs/DEVELOPER/ab/abcdef...   every blob that an artifact of a snapshot names, once
DEST/snapshots/TIME/                cloud.db, cloud.toml, tls/, and backup.json
```

The database is copied first. The blobs that its artifacts name are never removed by a running
cloud, so they are all still there when their turn comes. A snapshot gets its name last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from triparty.cloud.blobs import BlobKey, BlobStore, VerifiedBlobs
from triparty.cloud.database import Database, open_engine
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.cloud.initialise import config_text
from triparty.cloud.schema import copy_sqlite, sqlite_file
from triparty.cloud.settings import CONFIG_FILE
from triparty.cloud.tables import ArtifactRow
from triparty.common.artifacts import Manifest
from triparty.common.errors import StateError
from triparty.common.files import (
    PRIVATE_MODE,
    atomic_file,
    locked,
    make_private_folder,
    sha256_file,
    sync_folder,
    write_private,
)

DATABASE_FILE = "cloud.db"
SNAPSHOT_FILE = "backup.json"
FORMAT = 1
CERTIFICATE_FILES = ("tls/cert.pem", "tls/key.pem")


@dataclass(frozen=True)
class BackedUp:
    """What a backup did.

    Attributes:
        snapshot: its folder.
        blobs: how many its artifacts name.
        copied: how many of them were not in the backup yet.
        damaged: those that the cloud itself has no more, or only altered.
    """

    snapshot: Path
    blobs: int
    copied: int
    damaged: tuple[BlobKey, ...]


def back_up(
    data: Path,
    target: Path,
    *,
    database_url: str,
    blobs: BlobStore,
    now: datetime,
    reads_all: bool = False,
    on_blob: Callable[[], None] = lambda: None,
) -> BackedUp:
    """Adds a snapshot of a cloud to a backup.

    Args:
        data: the cloud's folder.
        target: the backup; made if absent, mode 0700.
        database_url: of the cloud.
        blobs: of the cloud.
        now: the time, the snapshot's name.
        reads_all: hash the blobs that the backup has already, too.
        on_blob: called after every blob.

    Raises:
        StateError: a database that is backed up otherwise, or a damaged one.
        UnavailableError: a store does not answer.
    """
    file = _sqlite_file(database_url)
    make_private_folder(target / "snapshots")
    make_private_folder(target)
    with locked(target):
        snapshot = target / "snapshots" / now.strftime("%Y%m%dT%H%M%SZ")
        if snapshot.exists():
            raise StateError(f"{snapshot} exists already: wait a second")
        part = snapshot.with_name(f".{snapshot.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        make_private_folder(part)
        try:
            copy_sqlite(file, part / DATABASE_FILE)
            _copy_files(data, part)
            needed = list(blobs_of(part / DATABASE_FILE))
            kept = DiskBlobs(target / "blobs")
            copied, damaged = _copy_blobs(blobs, kept, needed, reads_all, on_blob)
            document = {
                "format": FORMAT,
                "database_sha256": sha256_file(part / DATABASE_FILE),
                "blobs": [[key.developer, key.sha256, size] for key, size in needed],
                "damaged": [[key.developer, key.sha256] for key in damaged],
            }
            write_private(part / SNAPSHOT_FILE, json.dumps(document).encode())
            os.rename(part, snapshot)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(snapshot.parent)
    return BackedUp(snapshot, len(needed), copied, tuple(damaged))


def restore(source: Path, data: Path, *, snapshot: str | None = None) -> Path:
    """Makes a cloud's folder from a backup; everything is verified before it is there.

    The restored cloud keeps its database and blobs in the folder, wherever they were before.

    Args:
        source: the backup.
        data: the new folder; absent or empty.
        snapshot: name of one; default: the newest.

    Returns:
        The snapshot's folder.

    Raises:
        StateError: no whole snapshot, a damaged one, or a folder that is in use.
    """
    if data.is_dir() and any(data.iterdir()):
        raise StateError(f"{data} is not empty: name a new folder")
    chosen = _choose(source, snapshot)
    document = _read(chosen)
    part = data.with_name(f".{data.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_private_folder(part)
    try:
        _copy_files(chosen, part)
        _copy(chosen / DATABASE_FILE, part / DATABASE_FILE)
        if sha256_file(part / DATABASE_FILE) != document["database_sha256"]:
            raise StateError(f"{chosen / DATABASE_FILE} was altered: choose another snapshot")
        kept, blobs = DiskBlobs(source / "blobs"), DiskBlobs(part / "blobs")
        known_damage = {BlobKey(*key) for key in document["damaged"]}
        for developer, sha256, size in document["blobs"]:
            key = BlobKey(developer, sha256)
            if not copy_blob(kept, blobs.path(key), key, size) and key not in known_damage:
                raise StateError(
                    f"{kept.path(key)} is missing or altered: back the cloud up again if it "
                    "still runs, or choose another snapshot"
                )
        _drop_places(part / CONFIG_FILE)
        if data.is_dir():
            data.rmdir()
        os.rename(part, data)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(data.parent)
    return chosen


def blobs_of(file: Path) -> Iterator[tuple[BlobKey, int]]:
    """The blobs that the artifacts of a copied database name, each once, with their sizes.

    Raises:
        StateError: the copy is damaged, so the cloud's database is.
    """
    database = Database(f"sqlite:///{file}", upgrades=False)
    try:
        if damage := database.inspect():
            raise StateError(
                f"the cloud's database is damaged, no backup of it was made: {damage[0]}; "
                "'triparty cloud check' says more"
            )
        seen: set[BlobKey] = set()
        with database.reading() as session:
            for developer, manifest in session.execute(
                select(ArtifactRow.developer, ArtifactRow.manifest)
            ):
                for entry in Manifest.from_bytes(manifest).files:
                    key = BlobKey(developer, entry.sha256)
                    if key not in seen:
                        seen.add(key)
                        yield key, entry.size
    finally:
        database.close()


def copy_blob(source: VerifiedBlobs, target: Path, key: BlobKey, size: int) -> bool:
    """Copies a blob to a file that appears only if size and hash are right.

    Returns:
        False if the source has no such blob, or an altered one.
    """
    if source.size(key) != size:
        return False
    digest = hashlib.sha256()
    try:
        with atomic_file(target, mode=PRIVATE_MODE) as stream:
            for piece in source.read(key, 0, size):
                stream.write(piece)
                digest.update(piece)
            if digest.hexdigest() != key.sha256:
                raise _AlteredError
    except _AlteredError:
        return False
    return True


class _AlteredError(Exception):
    """Leaves the block of an atomic file, so that it does not appear."""


def _copy_blobs(
    blobs: BlobStore,
    kept: DiskBlobs,
    needed: list[tuple[BlobKey, int]],
    reads_all: bool,
    on_blob: Callable[[], None],
) -> tuple[int, list[BlobKey]]:
    """How many were copied, and which could not be."""
    copied, damaged = 0, []
    for key, size in needed:
        is_kept = kept.size(key) == size
        if is_kept and reads_all:
            is_kept = sha256_file(kept.path(key)) == key.sha256
        if not is_kept:
            if copy_blob(blobs.verified, kept.path(key), key, size):
                copied += 1
            else:
                damaged.append(key)
        on_blob()
    return copied, damaged


def _sqlite_file(url: str) -> Path:
    engine = open_engine(url)
    engine.dispose()
    file = sqlite_file(engine)
    if file is None:
        raise StateError(
            "this cloud's database is not SQLite, its own tools back it up: first pg_dump, "
            "then a copy of the blobs (see docs/operations.md)"
        )
    return file


def _copy_files(source: Path, target: Path) -> None:
    for name in (CONFIG_FILE, *CERTIFICATE_FILES):
        if (source / name).exists():
            _copy(source / name, target / name)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, atomic_file(target, mode=PRIVATE_MODE) as sink:
        shutil.copyfileobj(stream, sink)


def _drop_places(file: Path) -> None:
    """Makes a restored configuration keep database and blobs in its own folder."""
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in ("database", "blobs")}
    write_private(file, config_text(kept).encode())


def _choose(source: Path, snapshot: str | None) -> Path:
    whole = sorted(file.parent for file in source.glob(f"snapshots/[0-9]*/{SNAPSHOT_FILE}"))
    if snapshot is not None:
        whole = [folder for folder in whole if folder.name == snapshot]
    if not whole:
        wanted = f"no whole snapshot '{snapshot}'" if snapshot else "no whole snapshot"
        raise StateError(f"{wanted} in {source / 'snapshots'}")
    return whole[-1]


def _read(snapshot: Path) -> dict[str, Any]:
    try:
        document = json.loads((snapshot / SNAPSHOT_FILE).read_text(encoding="utf-8"))
        found = document["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(f"{snapshot / SNAPSHOT_FILE} cannot be read") from error
    if found != FORMAT:
        raise StateError(
            f"{snapshot} has format {found}, this triparty reads {FORMAT}: update triparty"
        )
    return dict(document)
