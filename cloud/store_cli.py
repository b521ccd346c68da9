"""`triparty cloud` check, clean, backup, restore: what the cloud keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.common.errors import StateError

if TYPE_CHECKING:
    from triparty.cloud.blobs import BlobStore
    from triparty.cloud.database import Database
    from triparty.cloud.settings import CloudSettings

DataOption = Annotated[
    Path, typer.Option("--data", envvar="TRIPARTY_CLOUD_DATA", help="The data folder.")
]
DatabaseOption = Annotated[
    str | None, typer.Option(help="The SQLAlchemy URL that serve is given, if it is.")
]
BlobsOption = Annotated[
    str | None, typer.Option(help="The blobs that serve is given, if it is.")
]


def check(
    data: DataOption,
    database: DatabaseOption = None,
    blobs: BlobsOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read and hash every blob; default: sizes only.")
    ] = False,
    set_aside: Annotated[
        bool,
        typer.Option(
            "--set-aside",
            help="Move altered blobs to a folder 'damaged': they can be uploaded again.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Name what is damaged in the database and the blobs; also beside a running cloud."""
    from triparty.cloud.blobs import BlobKey
    from triparty.cloud.inspection import BlobState, find_damage, unreadable_tables

    console = Console(as_json=as_json)
    with _opened(data, database, blobs) as (store, files):
        pages = store.inspect()
        tables = unreadable_tables(store)
        found = list(find_damage(store, files, reads_all=everything))
        if set_aside:
            for damage in found:
                if damage.blob and damage.state is BlobState.ALTERED:
                    files.set_aside(BlobKey(damage.artifact.developer, damage.blob))
    lines = [f"database: {line}" for line in pages]
    lines += [f"database: table '{table}' cannot be read to its end" for table in tables]
    lines += [str(damage) for damage in found]
    for line in lines:
        console.say(line)
    console.report({"damage": lines})
    if pages or tables:
        raise StateError(
            "the database is damaged: stop the cloud, keep a copy of its file, and restore the "
            "last backup with 'triparty cloud restore'"
        )
    if found:
        raise StateError(f"{len(found)} files of artifacts are damaged")
    console.say("nothing is damaged")


def backup(
    target: Annotated[Path, typer.Argument(help="Folder of backups; each run adds to it.")],
    data: DataOption,
    database: DatabaseOption = None,
    blobs: BlobsOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Hash the blobs that the backup has already, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a snapshot to a backup, while the cloud runs or not; PostgreSQL needs pg_dump."""
    from triparty.cloud.backup import back_up
    from triparty.cloud.blob_stores import open_blob_store
    from triparty.cloud.state import utc_now

    settings = _settings(data, database, blobs)
    done = back_up(
        data,
        target,
        database_url=settings.database_url,
        blobs=open_blob_store(settings),
        now=utc_now(),
        reads_all=everything,
    )
    console = Console(as_json=as_json)
    console.say(f"{done.snapshot}: {done.blobs} blobs, {done.copied} of them new")
    console.report(
        {
            "snapshot": done.snapshot.name,
            "blobs": done.blobs,
            "copied": done.copied,
            "damaged": [key.sha256 for key in done.damaged],
        }
    )
    if done.damaged:
        raise StateError(
            f"the backup lacks {len(done.damaged)} blobs that the cloud itself has no more; "
            "'triparty cloud check --all' names their artifacts"
        )


def restore(
    source: Annotated[Path, typer.Argument(help="Folder of backups.")],
    data: DataOption,
    snapshot: Annotated[
        str | None, typer.Option(help="Name of one; default: the newest.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of an empty PostgreSQL database, for a dump of one."),
    ] = None,
    blobs: Annotated[
        str | None, typer.Option(help="Where blobs go; default: the data folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new data folder from a backup; database and blobs are in it by default."""
    from triparty.cloud.backup import restore as restore_folder

    chosen = restore_folder(source, data, snapshot=snapshot, database_url=database, blobs=blobs)
    console = Console(as_json=as_json)
    console.say(f"restored {chosen.name} into {data}")
    console.say(
        "tokens and devices that were revoked since then are valid again: revoke them again"
    )
    console.say(f"next: triparty cloud serve --data {data}")
    console.report({"snapshot": chosen.name, "data": str(data)})


@contextmanager
def _opened(
    data: Path, database: str | None, blobs: str | None
) -> Iterator[tuple[Database, BlobStore]]:
    from triparty.cloud.blob_stores import open_blob_store
    from triparty.cloud.database import Database

    settings = _settings(data, database, blobs)
    store = Database(settings.database_url, upgrades=False)
    try:
        yield store, open_blob_store(settings)
    finally:
        store.close()


def _settings(data: Path, database: str | None, blobs: str | None) -> CloudSettings:
    """The folder's settings; a running cloud knows best what it was given."""
    from triparty.cloud.server import find_running
    from triparty.cloud.settings import load_settings

    load_settings(data)  # no cloud here: says so
    if running := find_running(data):
        database, blobs = database or running.database, blobs or running.blobs
    return load_settings(data, database=database, blobs=blobs)
