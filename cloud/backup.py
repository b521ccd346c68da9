"""Backups of a cloud: consistent while it runs, incremental, whole or absent.

```
DEST/blobs/DEVELOPER/ab/abcdef...   every blob that an artifact of a snapshot names, once
DEST/snapshots/TIME/                the database, cloud.toml, tls/, job.key, and backup.json
```

The database is `cloud.db`, a copy of SQLite's file, or `cloud.dump`, made by pg_dump. It is
copied first. The blobs that its artifacts name are never removed by a running
cloud, so they are all still there when their turn comes. A snapshot gets its name last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import OperationalError

from triparty.cloud import pg_tools
from triparty.cloud.blob_stores import open_verified
from triparty.cloud.blobs import BlobKey, BlobStore, VerifiedBlobs
from triparty.cloud.database import Database, open_engine, reason
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.cloud.initialise import config_text
from triparty.cloud.inspection import BlobState, check_blob
from triparty.cloud.schema import check_current, copy_sqlite, sqlite_file
from triparty.cloud.settings import CONFIG_FILE, load_settings
from triparty.cloud.tables import ArtifactRow
from triparty.common.artifacts import Manifest
from triparty.common.errors import StateError, UnavailableError
from triparty.common.files import (
    PRIVATE_MODE,
    atomic_file,
    locked,
    make_private_folder,
    sha256_file,
    sync_folder,
    write_private,
)

SQLITE_FILE = "cloud.db"
DUMP_FILE = "cloud.dump"
SNAPSHOT_FILE = "backup.json"
FORMAT = 1
KEY_FILES = ("tls/cert.pem", "tls/key.pem", "job.key")
_Blobs = list[tuple[BlobKey, int]]
_Copy = Callable[[Path], tuple[Path, _Blobs]]


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
        StateError: a damaged database, one of another kind, or its tools are absent or fail.
        UnavailableError: a store does not answer.
    """
    copy = _way_to_copy(database_url)
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
            database, needed = copy(part)
            _copy_files(data, part)
            kept = DiskBlobs(target / "blobs")
            copied, damaged = _copy_blobs(blobs, kept, needed, reads_all, on_blob)
            document = {
                "format": FORMAT,
                "database": database.name,
                "database_sha256": sha256_file(database),
                "blobs": [[key.developer, key.sha256, size] for key, size in needed],
                "damaged": [[key.developer, key.sha256] for key in damaged],
            }
            write_private(part / SNAPSHOT_FILE, json.dumps(document).encode())
            os.rename(part, snapshot)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync_folder(snapshot.parent)
    return BackedUp(snapshot, len(needed), copied, tuple(damaged))


def restore(
    source: Path,
    data: Path,
    *,
    snapshot: str | None = None,
    database_url: str | None = None,
    blobs: str | None = None,
) -> Path:
    """Makes a cloud's folder from a backup; everything is verified before it is there.

    The restored cloud keeps its database and blobs in the folder, wherever they were before,
    unless places are given.

    Args:
        source: the backup.
        data: the new folder; absent or empty.
        snapshot: name of one; default: the newest.
        database_url: of an empty PostgreSQL database; needed if the cloud had such a one.
        blobs: a folder or an object store; blobs that are there already, whole, stay.

    Returns:
        The snapshot's folder.

    Raises:
        StateError: no whole snapshot, a damaged one, a folder or a database that is in use,
            or pg_restore is absent or fails.
        SettingsError: a place that cannot be used.
        UnavailableError: a store does not answer.
    """
    if data.is_dir() and any(data.iterdir()):
        raise StateError(f"{data} is not empty: name a new folder")
    chosen = _choose(source, snapshot)
    document = _read(chosen)
    file = chosen / document["database"]
    engine = _target_database(file, database_url)
    part = data.with_name(f".{data.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_private_folder(part)
    try:
        _copy_files(chosen, part)
        _copy(file, part / file.name)
        if sha256_file(part / file.name) != document["database_sha256"]:
            raise StateError(f"{file} was altered: choose another snapshot")
        kept = DiskBlobs(source / "blobs")
        _set_places(part / CONFIG_FILE, database=database_url, blobs=blobs)
        target = open_verified(load_settings(part))
        known_damage = {BlobKey(*key) for key in document["damaged"]}
        for developer, sha256, size in document["blobs"]:
            key = BlobKey(developer, sha256)
            if not _bring_back(kept, target, key, size, part) and key not in known_damage:
                raise StateError(
                    f"{kept.path(key)} is missing or altered: back the cloud up again if it "
                    "still runs, or choose another snapshot"
                )
        if engine is not None:
            pg_tools.undump(engine.url, part / file.name)
            (part / file.name).unlink()
        if data.is_dir():
            data.rmdir()
        os.rename(part, data)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if engine is not None:
            engine.dispose()
    sync_folder(data.parent)
    return chosen


def blobs_of(manifests: Iterable[tuple[str, bytes]]) -> Iterator[tuple[BlobKey, int]]:
    """The blobs that artifacts name, each once, with their sizes.

    Args:
        manifests: each artifact's developer and manifest.
    """
    seen: set[BlobKey] = set()
    for developer, manifest in manifests:
        for entry in Manifest.from_bytes(manifest).files:
            key = BlobKey(developer, entry.sha256)
            if key not in seen:
                seen.add(key)
                yield key, entry.size


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


def _way_to_copy(url: str) -> _Copy:
    """How a database is copied: into a snapshot's folder, with the blobs that the copy names.

    Raises:
        StateError: a database of another kind, or the tool for it is absent.
    """
    engine = open_engine(url)
    engine.dispose()
    file = sqlite_file(engine)
    if file is not None:
        return lambda folder: _copy_sqlite(file, folder)
    if engine.dialect.name != "postgresql":
        raise StateError(f"no backup of a database of the kind {engine.dialect.name} is known")
    pg_tools.check_tool("pg_dump")
    return lambda folder: _dump_postgresql(engine, folder)


def _copy_sqlite(file: Path, folder: Path) -> tuple[Path, _Blobs]:
    target = folder / SQLITE_FILE
    copy_sqlite(file, target)
    database = Database(f"sqlite:///{target}", upgrades=False)
    try:
        if damage := database.inspect():
            raise StateError(
                f"the cloud's database is damaged, no backup of it was made: {damage[0]}; "
                "'triparty cloud check' says more"
            )
        with database.reading() as session:
            return target, list(blobs_of(_manifests(session.connection())))
    finally:
        database.close()


def _dump_postgresql(engine: Engine, folder: Path) -> tuple[Path, _Blobs]:
    """The dump and the list of blobs are of one view of the database."""
    target = folder / DUMP_FILE
    try:
        check_current(engine)
        with pg_tools.exported_snapshot(engine) as (connection, name):
            pg_tools.dump(engine.url, target, snapshot=name)
            return target, list(blobs_of(_manifests(connection)))
    except OperationalError as error:
        raise UnavailableError("the database does not answer") from error
    finally:
        engine.dispose()


def _manifests(connection: Connection) -> Iterator[tuple[str, bytes]]:
    for row in connection.execute(select(ArtifactRow.developer, ArtifactRow.manifest)):
        yield row.developer, row.manifest


def _target_database(file: Path, url: str | None) -> Engine | None:
    """Where a dump goes; None for a copy of SQLite's file."""
    if file.name == SQLITE_FILE:
        if url is not None:
            raise StateError("this backup is of SQLite: it is restored into the folder only")
        return None
    if url is None:
        raise StateError(
            "this backup is of PostgreSQL: make an empty database (createdb) and name it with "
            "--database postgresql+psycopg://..."
        )
    engine = open_engine(url)
    try:
        if engine.dialect.name != "postgresql":
            raise StateError("this backup is of PostgreSQL: it is restored into one only")
        pg_tools.check_tool("pg_restore")
        if not pg_tools.is_empty(engine):
            raise StateError("the database has tables already: name an empty one")
    except OperationalError as error:
        engine.dispose()
        raise StateError(f"cannot open the database: {reason(error)}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _bring_back(
    kept: DiskBlobs, target: VerifiedBlobs, key: BlobKey, size: int, folder: Path
) -> bool:
    """Copies a blob of the backup to where it shall be; False if the backup has it no more."""
    if isinstance(target, DiskBlobs):
        return copy_blob(kept, target.path(key), key, size)
    if check_blob(target, key, size) is BlobState.WHOLE:
        return True
    passing = folder / "passing"
    if not copy_blob(kept, passing, key, size):
        return False
    target.put(key, passing)
    passing.unlink()
    return True


def _copy_files(source: Path, target: Path) -> None:
    for name in (CONFIG_FILE, *KEY_FILES):
        if (source / name).exists():
            _copy(source / name, target / name)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, atomic_file(target, mode=PRIVATE_MODE) as sink:
        shutil.copyfileobj(stream, sink)


def _set_places(file: Path, *, database: str | None, blobs: str | None) -> None:
    """Makes a restored configuration name where database and blobs are now."""
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    places = {"database": database, "blobs": blobs}
    write_private(file, config_text(values | places).encode())


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
        database = document.setdefault("database", SQLITE_FILE)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(f"{snapshot / SNAPSHOT_FILE} cannot be read") from error
    if found != FORMAT:
        raise StateError(
            f"{snapshot} has format {found}, this triparty reads {FORMAT}: update triparty"
        )
    if database not in (SQLITE_FILE, DUMP_FILE):
        raise StateError(f"{snapshot / SNAPSHOT_FILE} was altered: choose another snapshot")
    return dict(document)
