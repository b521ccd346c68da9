"""The cloud is killed while a large blob goes to an S3 server in parts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_storage import CloudStorage, cloud_storage, verified_blobs
from live_cloud import Developer, LiveCloud
from mortal_cloud import MortalCloud

from triparty.common.blob_transfer import upload_blob
from triparty.common.connection import Connection
from triparty.common.errors import TransportError

SIZE = 12_000_000  # three parts
STEPS = ("create_multipart_upload", "upload_part", "complete_multipart_upload")


class Sender:
    """A developer of a cloud that keeps its blobs in a bucket."""

    def __init__(self, cloud: MortalCloud, storage: CloudStorage, folder: Path) -> None:
        self.cloud, self.folder, self.data = cloud, folder, folder / "cloud"
        operator = storage.new_cloud(self.data)
        cloud.start(self.data)
        developer = Developer.new(LiveCloud(cloud.url, None, operator), folder)
        developer.enroll()
        cloud.stop()
        self.token = developer.home.access().token

    def send(self, content: bytes) -> list[int]:
        file, told = self.folder / "file", []
        file.write_bytes(content)
        name = hashlib.sha256(content).hexdigest()
        with Connection(self.cloud.url, token=self.token, sleep=lambda _: None) as connection:
            upload_blob(connection, file, sha256=name, size=SIZE, on_bytes=told.append)
        return told

    def stored(self, content: bytes) -> bytes | None:
        name = hashlib.sha256(content).hexdigest()
        blobs = verified_blobs(self.data)
        found = [blob for blob in blobs.listed() if blob.key.sha256 == name]
        return b"".join(blobs.read(found[0].key, 0, found[0].size)) if found else None


@pytest.fixture(scope="module")
def sender(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Sender]:
    folder = tmp_path_factory.mktemp("sender")
    with (
        cloud_storage("sqlite+s3", request) as storage,
        MortalCloud(folder / "log") as cloud,
    ):
        yield Sender(cloud, storage, folder)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_within_parts(sender: Sender, when: str, step: str) -> None:
    """What was sent is kept; the object is there whole or not at all; going on completes."""
    content, moment = os.urandom(SIZE), f"{when} {step}"
    sender.cloud.start(sender.data, step=moment)
    with pytest.raises(TransportError):
        sender.send(content)
    assert sender.cloud.stop() is None
    is_stored = moment == "after complete_multipart_upload"
    assert sender.stored(content) == (content if is_stored else None)
    sender.cloud.start(sender.data)
    assert sender.send(content) == ([SIZE] if is_stored else [SIZE, 0])
    assert sender.stored(content) == content
    sender.cloud.stop()
