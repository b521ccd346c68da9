"""What is acknowledged outlives a power failure: bytes and names are synced before.

A killed process loses nothing that it wrote; a machine that loses power does. So the order is
watched: the bytes are synced before they get their name, and each folder on the way is synced
after a name appeared in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from triparty.cloud.blob_room import BlobQuota
from triparty.cloud.blobs import BlobKey, BlobStore
from triparty.cloud.disk_blobs import DiskBlobs
from triparty.common.errors import ConflictError

DEVELOPER = "ed25519:" + "ab" * 32
DATA = b"some bytes" * 1000


class Syncs:
    """The names that a power failure would leave, and the files whose bytes it would.

    A name outlives it if its folder was synced after the name appeared.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.names: set[tuple[int, str, int]] = set()  # folder, name, what it leads to
        self.bytes_of: dict[int, int] = {}  # size at the last sync
        sync = os.fsync

        def watched(descriptor: int) -> None:
            sync(descriptor)
            self.note(Path(f"/proc/self/fd/{descriptor}").resolve())

        patch.setattr(os, "fsync", watched)

    def note(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self.names = {name for name in self.names if name[0] != inode}
            self.names |= {(inode, entry.name, entry.inode()) for entry in os.scandir(path)}
        else:
            self.bytes_of[inode] = path.stat().st_size

    def keeps_name(self, path: Path) -> bool:
        """Whether each name on the way from the root is durable."""
        while path != self.root:
            entry = (path.parent.stat().st_ino, path.name, path.stat().st_ino)
            if entry not in self.names:
                return False
            path = path.parent
        return True

    def keeps(self, path: Path) -> bool:
        """Whether a file would be there, whole."""
        size = path.stat().st_size
        return self.keeps_name(path) and self.bytes_of.get(path.stat().st_ino) == size


@pytest.fixture
def syncs(tmp_path: Path) -> Iterator[Syncs]:
    with pytest.MonkeyPatch.context() as patch:
        yield Syncs(tmp_path, patch)


def upload(store: BlobStore, developer: str = DEVELOPER, data: bytes = DATA) -> Path:
    name = hashlib.sha256(data).hexdigest()
    writing = store.begin(developer, name, start=None, total=len(data))
    assert writing is not None
    writing.write(data)
    assert writing.finish().is_complete
    return DiskBlobs(store._folder).path(BlobKey(developer, name))


def blob_store(folder: Path) -> BlobStore:
    quota = BlobQuota(bytes=1 << 20, blobs=100, uploads=100)
    return BlobStore(folder, DiskBlobs(folder), max_blob_bytes=1 << 20, quota=quota)


def test_a_verified_blob_outlives_a_power_failure(tmp_path: Path, syncs: Syncs) -> None:
    store = blob_store(tmp_path / "blobs")
    assert syncs.keeps(upload(store))
    assert syncs.keeps(upload(store, data=b"another"))
    assert syncs.keeps(upload(store, "ed25519:" + "cd" * 32))


def test_what_is_said_to_be_held_outlives_a_power_failure(tmp_path: Path, syncs: Syncs) -> None:
    """After a piece, to whoever asks during one, and to whoever goes on at a wrong place."""
    store = blob_store(tmp_path / "blobs")
    name = hashlib.sha256(DATA).hexdigest()
    partial = store.partial(BlobKey(DEVELOPER, name))
    first = store.begin(DEVELOPER, name, start=0, total=len(DATA))
    first.write(DATA[:10])
    assert not syncs.keeps(partial)
    assert store.held(DEVELOPER, name).size == 10
    assert syncs.keeps(partial)
    first.write(DATA[10:20])
    assert first.finish().size == 20
    first.close()
    assert syncs.keeps(partial)
    second = store.begin(DEVELOPER, name, start=20, total=len(DATA))
    second.write(DATA[20:30])
    assert not syncs.keeps(partial)
    with pytest.raises(ConflictError) as refused:
        store.begin(DEVELOPER, name, start=0, total=len(DATA))
    assert refused.value.extra["held"] == 30
    assert syncs.keeps(partial)
    second.close()


def test_a_piece_outlives_a_power_failure(tmp_path: Path, syncs: Syncs) -> None:
    store = blob_store(tmp_path / "blobs")
    name = hashlib.sha256(DATA).hexdigest()
    first = store.begin(DEVELOPER, name, start=0, total=len(DATA))
    first.write(DATA[:10])
    assert first.finish().size == 10
    first.close()
    assert syncs.keeps(store.partial(BlobKey(DEVELOPER, name)))


def test_bytes_are_synced_before_they_are_named(
    tmp_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name over bytes that are only in memory would be a damaged blob."""
    replace = os.replace
    named: list[bool] = []

    def watched(source: Path, target: Path) -> None:
        named.append(syncs.bytes_of.get(source.stat().st_ino) == len(DATA))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    store = blob_store(tmp_path / "blobs")
    upload(store)
    assert named == [True]


def test_the_watch_sees_what_is_not_synced(tmp_path: Path, syncs: Syncs) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x")
    for path in (folder / "file", folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    assert not syncs.keeps(folder / "file")  # `b` is not synced into `a`


def test_the_database_is_synced_at_each_commit(cloud) -> None:
    with cloud.app.state.database.engine.connect() as connection:
        full = 2
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == full
