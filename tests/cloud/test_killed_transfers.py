"""Uploads and downloads go on after either side was killed, at any byte."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from live_cloud import Developer, LiveCloud
from mortal_cloud import MortalCloud

from triparty.cloud.initialise import initialise
from triparty.common.blob_transfer import download_blob, upload_blob
from triparty.common.connection import Connection
from triparty.common.errors import DigestError, UnreachableError

SIZE = 3_000_000
RNG = random.Random(1)
DATA = RNG.randbytes(SIZE)
NAME = hashlib.sha256(DATA).hexdigest()
EDGES = (0, 1, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, SIZE - 1, SIZE)
DOWNLOAD = """
import sys
import time
from pathlib import Path
from triparty.common.access import Access
from triparty.common.transport import CloudClient

home, target, sha256, size = sys.argv[1:]

def waits(count):
    print(count, flush=True)
    sys.stdin.readline()

with Access.load(Path(home), role="developer").client() as client:
    client.download_blob(Path(target), sha256=sha256, size=int(size), on_bytes=waits)
"""


class Party:
    """A developer whose cloud can be killed."""

    def __init__(self, cloud: MortalCloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.data = folder / "cloud"
        self.file = folder / "file"
        self.file.write_bytes(DATA)
        operator = initialise(self.data, now=datetime.now(UTC)).token
        cloud.start(self.data)
        self.developer = Developer.new(LiveCloud(cloud.url, None, operator), folder)
        self.developer.enroll()
        self.token = self.developer.home.access().token

    def connection(self) -> Connection:
        return Connection(self.cloud.url, token=self.token, sleep=lambda _: None)

    def held(self) -> int:
        with self.connection() as connection:
            path = f"/v1/blobs/{NAME}"
            answer = connection.request("HEAD", path, accept=(200, 308, 404))
        if answer.status == 200:
            return SIZE
        return int(answer.headers.get("Range", "bytes=0--1").rpartition("0-")[2]) + 1

    def upload(self) -> list[int]:
        told: list[int] = []
        with self.connection() as connection:
            upload_blob(connection, self.file, sha256=NAME, size=SIZE, on_bytes=told.append)
        return told

    def download(self, target: Path) -> list[int]:
        told: list[int] = []
        with self.connection() as connection:
            download_blob(connection, target, sha256=NAME, size=SIZE, on_bytes=told.append)
        return told

    def forget(self) -> None:
        """As if nothing had been uploaded."""
        self.cloud.kill()
        shutil.rmtree(self.data / "blobs")
        self.cloud.start(self.data)

    def begin(self, count: int) -> socket.socket:
        """An upload of which so many bytes of the body were sent."""
        head = (
            f"PUT /v1/blobs/{NAME} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.token}\r\n"
            f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}\r\nContent-Length: {SIZE}\r\n\r\n"
        )
        client = socket.create_connection(("127.0.0.1", self.cloud.port))
        client.sendall(head.encode() + DATA[:count])
        return client


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Party]:
    folder = tmp_path_factory.mktemp("party")
    with MortalCloud(folder / "log") as cloud:
        yield Party(cloud, folder)


@pytest.fixture
def party(parties: Party) -> Party:
    if not parties.cloud.is_running:
        parties.cloud.start(parties.data)
    return parties


def check_goes_on(party: Party, target: Path) -> None:
    """The real client goes on from what is held, and the bytes come back."""
    held = party.held()
    told = party.upload()
    assert sum(told) == SIZE
    assert told[0] >= held  # what a cut left over may be written a moment later
    party.download(target)
    assert target.read_bytes() == DATA


def written(count: int) -> int:
    """How many of the bytes sent are sure to be in the file: the last ones wait for more."""
    return max(0, count - (1 << 20) - (1 << 18))


def wait_for(party: Party, count: int) -> None:
    """Until the cloud has written so many bytes."""
    for _ in range(400):
        if party.held() >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(party.held())


@pytest.mark.parametrize("count", EDGES)
def test_a_client_killed_at_a_byte(party: Party, tmp_path: Path, count: int) -> None:
    party.forget()
    with party.begin(count) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        wait_for(party, written(count))
    check_goes_on(party, tmp_path / "target")


@pytest.mark.parametrize("count", EDGES)
def test_a_cloud_killed_at_a_byte(party: Party, tmp_path: Path, count: int) -> None:
    party.forget()
    with party.begin(count):
        wait_for(party, written(count))
        party.cloud.kill()
    party.cloud.start(party.data)
    assert party.held() >= written(count)
    check_goes_on(party, tmp_path / "target")


def test_damage_in_what_was_held_is_found(party: Party, tmp_path: Path) -> None:
    """The hash is of all bytes, those of before the kill too."""
    party.forget()
    with party.begin(2 << 20):
        wait_for(party, written(2 << 20))
        party.cloud.kill()
    (partial,) = party.data.glob("blobs/*/partial/*")
    with partial.open("r+b") as stream:
        stream.write(b"X")
    party.cloud.start(party.data)
    assert party.held() >= written(2 << 20)
    with pytest.raises(DigestError):
        party.upload()
    assert party.held() == 0
    check_goes_on(party, tmp_path / "target")


@pytest.fixture
def uploaded(party: Party) -> Party:
    party.upload()
    return party


def partial_of(target: Path) -> Path:
    (partial,) = target.parent.glob(f".{target.name}.*.part")
    return partial


def test_a_downloading_process_killed_goes_on(uploaded: Party, tmp_path: Path) -> None:
    target = tmp_path / "target"
    home = str(uploaded.developer.home.folder)
    process = subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, home, str(target), NAME, str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for _ in range(20):
            assert process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        process.kill()
    assert not target.exists()
    left = partial_of(target).stat()
    assert 0 < left.st_size < SIZE
    assert left.st_mode & 0o777 == 0o600
    told = uploaded.download(target)
    assert told[0] == left.st_size
    assert sum(told) == SIZE
    assert target.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("count", [0, 1, 70_000, 10_000_000])
def test_a_cloud_killed_within_a_download(party: Party, tmp_path: Path, count: int) -> None:
    data = DATA * 10  # more than the sockets' buffers hold
    name = hashlib.sha256(data).hexdigest()
    large, target = tmp_path / "large", tmp_path / "target"
    large.write_bytes(data)
    told = 0

    def kills(more: int) -> None:
        nonlocal told
        told += more
        if more and told >= count and party.cloud.is_running:
            party.cloud.kill()

    with party.connection() as connection:
        upload_blob(connection, large, sha256=name, size=len(data), on_bytes=lambda _: None)
        with pytest.raises(UnreachableError):
            download_blob(connection, target, sha256=name, size=len(data), on_bytes=kills)
    assert not target.exists()
    held = partial_of(target).stat().st_size
    assert 0 < held < len(data)
    party.cloud.start(party.data)
    again: list[int] = []
    with party.connection() as connection:
        download_blob(connection, target, sha256=name, size=len(data), on_bytes=again.append)
    assert again[0] == held
    assert sum(again) == len(data)
    assert target.read_bytes() == data


def test_damage_in_what_was_downloaded_is_found(uploaded: Party, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / f".target.{NAME}.part").write_bytes(b"X" + DATA[1:1000])
    (tmp_path / f".target.{'0' * 64}.part").write_bytes(b"of another blob")
    with pytest.raises(DigestError):
        uploaded.download(target)
    assert list(tmp_path.iterdir()) == []
    uploaded.download(target)
    assert target.read_bytes() == DATA


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_both_killed_again_and_again(party: Party, tmp_path: Path) -> None:
    """One upload of which each attempt is killed somewhere."""
    rng = random.Random(2)
    for number in range(10):
        party.forget()
        before = 0
        for _ in range(6):
            rest = DATA[before : before + rng.randrange(1, SIZE // 3)]
            head = {"Content-Range": f"bytes {before}-{SIZE - 1}/{SIZE}"}

            def broken(rest: bytes = rest) -> Iterator[bytes]:
                yield rest
                if rng.random() < 0.5:
                    party.cloud.kill()
                raise ConnectionAbortedError("killed")

            url = f"{party.cloud.url}/v1/blobs/{NAME}"
            head |= {
                "Authorization": f"Bearer {party.token}",
                "Content-Length": str(SIZE - before),
            }
            with pytest.raises((ConnectionAbortedError, httpx.HTTPError)):
                httpx.put(url, content=broken(), headers=head)
            if not party.cloud.is_running:
                party.cloud.start(party.data)
            now = party.held()
            assert now >= before
            before = now
        check_goes_on(party, tmp_path / str(number))
