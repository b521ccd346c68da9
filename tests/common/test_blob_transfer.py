"""Blobs on their way: they go on where they were cut, and arrive whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from scripted_cloud import Cut, Endless, Script, problem

from triparty.common import blob_transfer
from triparty.common.blob_transfer import MOST_STALLS, download_blob, upload_blob
from triparty.common.connection import ATTEMPTS, Connection
from triparty.common.errors import (
    CloudError,
    DigestError,
    NotFoundError,
    SizeError,
    StateError,
    TransportError,
    TripartyError,
    UnreachableError,
)

DATA = os.urandom(400_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
PIECE = 100_000
MOST_REQUESTS = 60


class Shelf(httpx.BaseTransport):
    """One blob of a cloud, by the rules of docs/http.md; faults strike by request number."""

    def __init__(self, data: bytes = b"", *, is_complete: bool = False) -> None:
        self.held = bytearray(data)
        self.is_complete = is_complete
        self.requests: list[httpx.Request] = []
        self.cut_after: dict[int, int] = {}  # request number: bytes that get through
        self.ignores_range = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        assert len(self.requests) <= MOST_REQUESTS, "this would never end"
        cut = self.cut_after.get(len(self.requests))
        return {"HEAD": self._head, "PUT": self._put, "GET": self._get}[request.method](
            request, cut
        )

    def connection(self) -> Connection:
        return Connection("https://cloud.test", transport=self, sleep=lambda _: None)

    def targets(self) -> list[str]:
        """Which bytes each request was about."""
        return [
            r.headers.get("Content-Range") or r.headers.get("Range") or r.method
            for r in self.requests
        ]

    def _range(self) -> dict[str, str]:
        return {"Range": f"bytes=0-{len(self.held) - 1}"} if self.held else {}

    def _head(self, _: httpx.Request, cut: int | None) -> httpx.Response:
        if self.is_complete:
            return httpx.Response(200)
        return httpx.Response(308 if self.held else 404, headers=self._range())

    def _put(self, request: httpx.Request, cut: int | None) -> httpx.Response:
        matched = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers["Content-Range"])
        if request.headers["Content-Range"] == "bytes */0":
            self.is_complete = True
            return httpx.Response(201)
        assert matched
        first, last, total = map(int, matched.groups())
        if first != len(self.held):
            return problem_with_range(self._range())
        self.held += request.content[:cut]
        if cut is not None:
            raise httpx.ReadError("cut")
        assert last + 1 == len(self.held)
        if len(self.held) < total:
            return httpx.Response(308, headers=self._range())
        if hashlib.sha256(self.held).hexdigest() != SHA256:
            self.held.clear()
            return problem(422, "digest", "expected another blob")
        self.is_complete = True
        return httpx.Response(201)

    def _get(self, request: httpx.Request, cut: int | None) -> httpx.Response:
        wanted = request.headers.get("Range")
        start = 0
        status, headers = 200, {}
        if wanted and not self.ignores_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            size = len(self.held)
            status, headers = 206, {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        body = bytes(self.held[start:])
        if cut is None:
            return httpx.Response(status, headers=headers, content=body)
        pieces = [body[at : min(at + 4096, cut)] for at in range(0, cut, 4096)]
        return httpx.Response(status, headers=headers, stream=Cut(*pieces))


def problem_with_range(headers: dict[str, str]) -> httpx.Response:
    response = problem(409, "conflict", "go on elsewhere")
    response.headers.update(headers)
    return response


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_transfer, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(blob_transfer, "MOST_PIECE_BYTES", PIECE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


def partial_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{SHA256}.part")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where a download goes; afterwards there is that file, what was cut, or nothing."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    path = folder / "blob"
    yield path
    assert set(folder.iterdir()) <= {path, partial_of(path)}


def send(transport: Shelf | Script, file: Path) -> int:
    """Uploads; how many bytes were reported."""
    told: list[int] = []
    upload_blob(
        transport.connection(), file, sha256=SHA256, size=len(DATA), on_bytes=told.append
    )
    return sum(told)


def fetch(
    transport: Shelf | Script, target: Path, *, sha256: str = SHA256, size: int = len(DATA)
) -> int:
    """Downloads; how many bytes were reported."""
    told: list[int] = []
    download_blob(
        transport.connection(), target, sha256=sha256, size=size, on_bytes=told.append
    )
    return sum(told)


# Uploads


def test_an_upload_goes_piece_by_piece(file: Path) -> None:
    shelf = Shelf()
    assert send(shelf, file) == len(DATA)
    assert bytes(shelf.held) == DATA
    assert shelf.targets() == [
        "HEAD",
        "bytes 0-99999/400000",
        "bytes 100000-199999/400000",
        "bytes 200000-299999/400000",
        "bytes 300000-399999/400000",
    ]


@pytest.mark.parametrize(("step_s", "pieces"), [(0.5, 3), (3.0, 4)])
def test_pieces_grow_where_they_go_quickly(file: Path, monkeypatch, step_s, pieces) -> None:
    monkeypatch.setattr(blob_transfer, "MOST_PIECE_BYTES", 2 * PIECE)
    clock = itertools.count(0, step_s)
    monkeypatch.setattr(blob_transfer.time, "monotonic", lambda: next(clock))
    shelf = Shelf()
    assert send(shelf, file) == len(DATA)
    assert bytes(shelf.held) == DATA
    assert len(shelf.targets()) == 1 + pieces


def test_what_the_cloud_has_is_not_sent(file: Path) -> None:
    shelf = Shelf(DATA, is_complete=True)
    assert send(shelf, file) == len(DATA)
    assert shelf.targets() == ["HEAD"]


def test_an_upload_goes_on_where_an_earlier_one_was_cut(file: Path) -> None:
    shelf = Shelf(DATA[:250_001])
    assert send(shelf, file) == len(DATA)
    assert bytes(shelf.held) == DATA
    assert shelf.targets()[1] == "bytes 250001-350000/400000"


def test_an_upload_goes_on_where_it_is_cut_itself(file: Path) -> None:
    shelf = Shelf()
    shelf.cut_after = {3: 60_000, 6: 0}
    assert send(shelf, file) == len(DATA)
    assert bytes(shelf.held) == DATA
    assert "bytes 160000-259999/400000" in shelf.targets()


def test_a_whole_blob_that_was_never_verified(file: Path) -> None:
    shelf = Shelf(DATA)
    assert send(shelf, file) == len(DATA)
    assert shelf.targets() == ["HEAD", "bytes 400000-399999/400000"]


def test_an_empty_blob(tmp_path: Path, target: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    shelf = Shelf()
    sha256 = hashlib.sha256(b"").hexdigest()
    upload_blob(shelf.connection(), empty, sha256=sha256, size=0, on_bytes=lambda _: None)
    assert shelf.targets() == ["HEAD", "bytes */0"]
    fetch(shelf, target, sha256=sha256, size=0)
    assert target.read_bytes() == b""


def test_a_connection_that_stays_cut_ends_an_upload(file: Path) -> None:
    shelf = Shelf()
    shelf.cut_after = dict.fromkeys(range(2, 99), 0)
    with pytest.raises(UnreachableError):
        send(shelf, file)
    assert len(shelf.requests) == 1 + ATTEMPTS


@pytest.mark.parametrize(
    "answers",
    [
        [httpx.Response(308)],
        [problem_with_range({})],
        # One that takes, loses all, and takes again, for ever.
        [httpx.Response(308, headers={"Range": "bytes=0-99999"}), httpx.Response(308)],
    ],
    ids=["takes-nothing", "conflict", "forgets"],
)
def test_a_cloud_that_never_gets_on_ends_an_upload(
    file: Path, answers: list[httpx.Response]
) -> None:
    script = Script(httpx.Response(404), *answers * (MOST_REQUESTS // len(answers)))
    with pytest.raises(TripartyError):
        send(script, file)
    assert len(script.requests) <= 1 + 2 * (MOST_STALLS + 1)


def test_a_cloud_that_refuses_is_heard(file: Path) -> None:
    script = Script(httpx.Response(404), problem(413, "size", "too much"))
    with pytest.raises(SizeError, match="too much"):
        send(script, file)


def test_a_file_that_changed_is_not_published(file: Path) -> None:
    file.write_bytes(DATA[:-1] + b"x" if DATA[-1:] != b"x" else DATA[:-1] + b"y")
    shelf = Shelf()
    with pytest.raises(DigestError):
        send(shelf, file)
    assert not shelf.is_complete
    file.write_bytes(DATA)
    assert send(shelf, file) == len(DATA)


def test_a_file_that_became_shorter(file: Path) -> None:
    file.write_bytes(DATA[:150_000])
    shelf = Shelf()
    with pytest.raises(StateError, match="shorter"):
        send(shelf, file)
    assert len(shelf.held) == PIECE


# Downloads


def test_a_download(target: Path) -> None:
    shelf = Shelf(DATA)
    assert fetch(shelf, target) == len(DATA)
    assert target.read_bytes() == DATA
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert shelf.targets() == ["GET"]


def test_a_download_goes_on_where_it_is_cut(target: Path) -> None:
    shelf = Shelf(DATA)
    shelf.cut_after = {1: 150_000, 2: 100_000, 3: 10}
    assert fetch(shelf, target) == len(DATA)
    assert target.read_bytes() == DATA
    assert shelf.targets() == ["GET", "bytes=150000-", "bytes=250000-", "bytes=250010-"]


def test_a_server_may_ignore_the_range(target: Path) -> None:
    shelf = Shelf(DATA)
    shelf.ignores_range = True
    shelf.cut_after = {1: 150_000}
    assert fetch(shelf, target) == len(DATA)
    assert target.read_bytes() == DATA


def other_part(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        206, headers={"Content-Range": "bytes 9-399999/400000"}, content=DATA[9:]
    )


def cut_at(length: int) -> httpx.Response:
    return httpx.Response(200, stream=Cut(DATA[:length]))


BAD: dict[str, tuple[Callable[[], list[httpx.Response]], type[TripartyError]]] = {
    "other-bytes": (lambda: [httpx.Response(200, content=bytes(len(DATA)))], DigestError),
    "one-more": (lambda: [httpx.Response(200, content=DATA + b"x")], SizeError),
    "endless": (lambda: [httpx.Response(200, stream=Endless())], SizeError),
    "short": (lambda: [httpx.Response(200, content=DATA[:-1])] * MOST_REQUESTS, DigestError),
    "nothing": (lambda: [httpx.Response(200)] * MOST_REQUESTS, DigestError),
    "cut": (lambda: [cut_at(9) for _ in range(MOST_REQUESTS)], UnreachableError),
    # One that gives, starts over with nothing, and gives again, for ever.
    "forgets": (
        lambda: [r for _ in range(30) for r in (cut_at(150_000), httpx.Response(200))],
        DigestError,
    ),
    "other-part": (lambda: [cut_at(150_000), *[other_part(None)]], CloudError),  # type: ignore[arg-type]
    "no-part": (lambda: [cut_at(150_000), httpx.Response(206, content=b"x")], CloudError),
    "not-there": (lambda: [problem(404, "not-found")], NotFoundError),
}


@pytest.mark.parametrize(("answers", "error"), BAD.values(), ids=BAD)
def test_a_bad_download_leaves_nothing(
    target: Path, answers: Callable[[], list[httpx.Response]], error: type[TripartyError]
) -> None:
    with pytest.raises(error):
        fetch(Script(*answers()), target)
    assert not target.exists()
    assert fetch(Shelf(DATA), target) == len(DATA)  # afterwards all is well


@pytest.mark.parametrize(("answers", "error"), BAD.values(), ids=BAD)
def test_a_bad_download_leaves_the_file_before(
    target: Path, answers: Callable[[], list[httpx.Response]], error: type[TripartyError]
) -> None:
    target.write_bytes(b"before")
    with pytest.raises(error):
        fetch(Script(*answers()), target)
    assert target.read_bytes() == b"before"
    assert partial_of(target).exists() == issubclass(error, TransportError)


def test_not_a_byte_more_than_expected_is_written(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless()
    with pytest.raises(SizeError):
        fetch(Script(httpx.Response(200, stream=endless)), target, size=100_000)
    assert endless.taken <= 2 << 16
